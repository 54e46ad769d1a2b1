"""Bad and strange image files, the same ones for the same seed: damaged, lying, and whole but odd.

`all_files(seed)` yields `Case(name, data, picture, megapixels)`: `picture` is what a server that accepts the file must
store (None: accepting is fine only if Pillow's own reading agrees), `megapixels` what its header promises at most.
"""

import contextlib
import importlib.util
import io
import os
import random
import struct
import tempfile
import zlib
from typing import Iterator, NamedTuple, Optional

import numpy as np
from PIL import Image


class Case(NamedTuple):
    name: str
    data: bytes
    picture: Optional[np.ndarray] = None
    megapixels: float = 0.0


def saved(image, kind, **options):
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def photo(w=48, h=36, mode="RGB"):
    y, x = np.mgrid[0:h, 0:w]
    rgb = np.stack([x * 255 // max(w - 1, 1), y * 255 // max(h - 1, 1), (x * 7 + y * 3) % 256], -1).astype(np.uint8)
    image = Image.fromarray(rgb)
    if mode == "RGBA":
        image.putalpha(Image.fromarray(((x + y) % 256).astype(np.uint8)))
        return image
    return image.convert(mode)


def whole():
    """(name, bytes) of good files, one of each kind a decoder reads differently."""
    p, pages = photo(), [photo(), photo(mode="L"), photo(20, 10)]
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "maker", 1
    deep = Image.fromarray((np.arange(36 * 48, dtype=np.uint16) * 37).reshape(36, 48))
    yield "jpeg", saved(p, "JPEG", quality=80, exif=exif.tobytes())
    yield "jpeg-progressive", saved(p, "JPEG", quality=80, progressive=True)
    yield "jpeg-gray", saved(p.convert("L"), "JPEG")
    yield "jpeg-cmyk", saved(p.convert("CMYK"), "JPEG")
    yield "png", saved(p, "PNG")
    yield "png-rgba", saved(photo(mode="RGBA"), "PNG", exif=exif.tobytes())
    yield "png-palette", saved(p.quantize(17), "PNG")
    yield "png-16", saved(deep, "PNG")
    yield "apng", saved(p, "PNG", save_all=True, append_images=[p.rotate(90), p.rotate(180)])
    yield "webp", saved(p, "WEBP", quality=70)
    yield "webp-lossless", saved(photo(mode="RGBA"), "WEBP", lossless=True)
    yield "webp-animated", saved(p, "WEBP", save_all=True, append_images=[p.rotate(90)])
    yield "avif", saved(p, "AVIF", quality=60)
    yield "tiff", saved(p, "TIFF")
    for c in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg", "group4"):
        yield f"tiff-{c}", saved(p.convert("1") if c == "group4" else p, "TIFF", compression=c)
    yield "tiff-pages", saved(pages[0], "TIFF", save_all=True, append_images=pages[1:])
    yield "bmp", saved(p, "BMP")
    yield "bmp-palette", saved(p.quantize(200), "BMP")
    yield from rare()
    yield "gif", saved(p.quantize(60), "GIF")
    yield "gif-animated", saved(p.quantize(60), "GIF", save_all=True, append_images=[p.rotate(90).quantize(9)], loop=0)


def rare():
    """(name, bytes) of good files of the kinds that have decoders of their own."""
    import pillow_heif

    rgb = np.asarray(photo())
    light = (rgb / 255.0).astype(np.float32)
    out = io.BytesIO()
    heif = pillow_heif.from_bytes("RGB", (48, 36), rgb.tobytes())
    heif.save(out, quality=60)
    yield "heic", out.getvalue()
    heif.add_frombytes("RGB", (48, 36), rgb[::-1].tobytes())
    out = io.BytesIO()
    heif.save(out, quality=60, primary_index=1)
    yield "heic-two", out.getvalue()
    yield "jp2", saved(photo(), "JPEG2000")
    yield "j2k", saved(photo(), "JPEG2000", no_jp2=True, irreversible=True)
    if importlib.util.find_spec("pillow_jxl"):
        import pillow_jxl  # noqa: F401 -- registers itself

        yield "jxl", saved(photo(), "JXL", lossless=True)
    for name in ("NO", "RLE", "ZIP", "PIZ", "PXR24", "B44", "DWAA"):
        yield f"exr-{name}", exr(light, name)
    yield "exr-tiled", exr(light, "ZIP", tiled=True)
    yield "hdr", hdr(rgb)
    yield "hdr-flat", hdr(rgb, runs=False)
    for dtype in (np.float16, np.float32, np.float64, np.int32):
        yield f"tiff-{np.dtype(dtype).name}", tiff((light * 60_000 if dtype == np.int32 else light).astype(dtype))
    packed = zlib.compress(light.tobytes())
    yield "tiff-float-zip", tiff(light, compression=8, strip=packed)
    yield "tiff-float-zip-3", tiff(light, compression=8, strip=packed, entries=[(317, 3, 1, 3)])
    yield "tiff-float-lzw", tiff(light, compression=5, strip=lzw(light.tobytes()))
    yield "tiff-lab", tiff(rgb, photometric=8)
    yield "tiff-la-16", tiff(rgb[..., :2].astype(np.uint16) * 257)
    yield "png-gama", png(48, 36, scanlines(rgb), extra=chunk(b"gAMA", struct.pack(">I", 100_000)))
    deep = np.frombuffer((rgb.astype(np.uint16) * 257).astype(">u2").tobytes(), np.uint8).reshape(36, -1)
    yield "png-gama-16", png(48, 36, scanlines(deep), bits=16, extra=chunk(b"gAMA", struct.pack(">I", 100_000)))


def scanlines(rows):
    """Rows of bytes as the pixels of a PNG."""
    return zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))


def lzw(data):
    """Bytes packed as a strip of a TIFF, by libtiff."""
    out = io.BytesIO(saved(Image.fromarray(np.frombuffer(data, np.uint8)[None]), "TIFF", compression="tiff_lzw"))
    with Image.open(out) as image:
        at, n = image.tag_v2[273][0], image.tag_v2[279][0]
    return out.getvalue()[at : at + n]


def exr(light, compression="NO", tiled=False):
    """(h, w, 3) as an EXR, by the library."""
    import OpenEXR

    header = {"compression": getattr(OpenEXR, f"{compression}_COMPRESSION"), "type": OpenEXR.scanlineimage}
    if tiled:
        header.update(type=OpenEXR.tiledimage, tiles=OpenEXR.TileDescription())
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "a.exr")
        with OpenEXR.File(header, {"RGB": light.astype(np.float16)}) as file:
            file.write(path)
        with open(path, "rb") as file:
            return file.read()


def hdr(rgb, runs=True, size=None):
    """(h, w, 3) uint8 as a Radiance HDR whose exponents are all alike; `size` is what it says (h, w)."""
    h, w = rgb.shape[:2]
    pixels = np.dstack([rgb, np.full((h, w), 128, np.uint8)])
    head = b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y %d +X %d\n" % (size or (h, w))
    if not runs:
        return head + pixels.tobytes()
    lines = []
    for row in pixels:
        lines.append(b"\2\2" + struct.pack(">H", w))
        lines += [bytes([len(part)]) + part.tobytes() for c in range(4) for part in np.array_split(row[:, c], w // 48)]
    return head + b"".join(lines)


def boundaries(kind, data):
    """Offsets at which a structure of the file begins or ends."""
    at = {
        0,
        1,
        2,
        4,
        8,
        12,
        16,
        26,
        33,
        54,
        len(data) - 1,
        len(data) - 2,
        len(data) - 4,
        len(data) // 2,
        len(data) * 9 // 10,
    }
    if kind.startswith("jpeg"):
        at |= {i for i in range(len(data) - 1) if data[i] == 255 and data[i + 1] not in (0, 255)}
        at |= {i + 2 for i in at} | {i + 4 for i in at}
    elif kind.startswith(("png", "apng", "webp")):
        i, head = (8, 8) if "png" in kind else (12, 8)
        while i + 8 < len(data):
            n = struct.unpack(
                ">I" if "png" in kind else "<I", data[i : i + 4] if "png" in kind else data[i + 4 : i + 8]
            )[0]
            at |= {i, i + 4, i + 8, i + head + n}
            i += head + n + (4 if "png" in kind else n % 2)
    elif kind in ("avif", "heic", "heic-two", "jp2", "jxl"):
        i = 0
        while i + 8 < len(data):
            n = max(8, struct.unpack(">I", data[i : i + 4])[0])
            at |= {i, i + 8}
            i += n if data[i + 4 : i + 8] != b"meta" else 12
    elif kind.startswith("tiff"):
        ifd = struct.unpack("<I", data[4:8])[0]
        at |= {ifd, ifd + 1, *range(ifd + 2, ifd + 150, 12)}
    return sorted(i for i in at if 0 <= i < len(data))


def damaged(rng) -> Iterator[Case]:
    for kind, data in whole():
        cuts = boundaries(kind, data)
        for i in sorted(rng.sample(cuts, min(9, len(cuts)))):
            yield Case(f"{kind}-cut-{i}", data[:i])
        for k in range(5):
            bad = bytearray(data)
            for _ in range(1 + k % 3):
                bad[rng.randrange(min(96, len(bad)))] ^= 1 << rng.randrange(8)
            yield Case(f"{kind}-head-flip-{k}", bytes(bad))
        for k in range(4):
            bad = bytearray(data)
            for _ in range(1 + 4 * k):
                bad[rng.randrange(len(bad))] = rng.randrange(256)
            yield Case(f"{kind}-data-flip-{k}", bytes(bad))
        i, j = sorted(rng.sample(range(len(data)), 2))
        yield Case(f"{kind}-hole", data[:i] + data[j:])
        yield Case(f"{kind}-zeros", data[:i] + bytes(j - i) + data[j:])
        yield Case(f"{kind}-twice", data + data)
        yield Case(f"{kind}-noise-after", data + rng.randbytes(3000))


def chunk(tag, data=b"", crc=None, length=None):
    return (
        struct.pack(">I", len(data) if length is None else length)
        + tag
        + data
        + struct.pack(">I", zlib.crc32(tag + data) if crc is None else crc)
    )


def png(w, h, raw, bits=8, colour=2, extra=b"", interlace=0, header=True):
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", w, h, bits, colour, 0, 0, interlace))
    return b"\x89PNG\r\n\x1a\n" + (head if header else b"") + extra + chunk(b"IDAT", raw) + chunk(b"IEND")


def lying() -> Iterator[Case]:  # noqa: C901, PLR0912 -- a list of files, one after another
    """Dimensions, lengths, checksums and offsets that are not so."""
    raw = zlib.compress(bytes(10 * 31))
    sizes = (0, 1, 11, 65_535, 65_536, 2**31 - 1, 2**31, 2**32 - 1)
    for w in sizes:
        yield Case(f"png-width-{w}", png(w, 10, raw), megapixels=4)
        yield Case(f"png-height-{w}", png(10, w, raw), megapixels=4)
    for bits in (0, 3, 16, 64):
        for colour in (0, 1, 3, 5, 6):
            yield Case(f"png-bits-{bits}-colour-{colour}", png(10, 10, raw, bits, colour))
    yield Case("png-crc", png(10, 10, raw, extra=chunk(b"gAMA", b"\0\0\xb1\x8f", crc=7)))
    for n in (5, 2**31 - 1, 2**32 - 1):
        yield Case(f"png-chunk-length-{n}", png(10, 10, raw, extra=chunk(b"tEXt", b"a\0b", length=n)))
    yield Case("png-no-header", png(10, 10, raw, header=False))
    yield Case("png-interlace-9", png(10, 10, raw, interlace=9))
    yield Case(
        "png-two-headers",
        png(10, 10, raw, extra=chunk(b"IHDR", struct.pack(">IIBBBBB", 2000, 2000, 8, 2, 0, 0, 0))),
        megapixels=4,
    )
    jpeg = saved(photo(), "JPEG")
    sof = jpeg.index(b"\xff\xc0")
    for w, h in ((0, 36), (48, 0), (65_535, 65_535), (65_500, 1), (1, 65_500), (2000, 1900), (47, 36)):
        yield Case(
            f"jpeg-size-{w}-{h}",
            jpeg[: sof + 5] + struct.pack(">HH", h, w) + jpeg[sof + 9 :],
            megapixels=min(4, w * h / 1e6),
        )
    for n in (0, 2, 4, 5, 255):
        yield Case(f"jpeg-components-{n}", jpeg[: sof + 9] + bytes([n]) + jpeg[sof + 10 :])
    for n in (0, 1, 2, 65_535):
        yield Case(f"jpeg-segment-{n}", jpeg[:2] + b"\xff\xe1" + struct.pack(">H", n) + b"Exif\0\0" + jpeg[2:])
    gif = saved(photo().quantize(8), "GIF")
    for w, h in ((0, 0), (1, 1), (65_535, 65_535), (2000, 2000)):
        yield Case(f"gif-screen-{w}", gif[:6] + struct.pack("<HH", w, h) + gif[10:], megapixels=4)
        at = gif.index(b"\x2c", 13)
        yield Case(f"gif-frame-{w}", gif[: at + 5] + struct.pack("<HH", w, h) + gif[at + 9 :], megapixels=4)
        yield Case(f"gif-offset-{w}", gif[: at + 1] + struct.pack("<HH", w, h) + gif[at + 5 :], megapixels=4)
    bmp = saved(photo(), "BMP")
    for w, h in (
        (0, 36),
        (-48, 36),
        (48, -36),
        (2**31 - 1, 2**31 - 1),
        (-(2**31), -(2**31)),
        (2000, 2000),
        (65_500, 60),
    ):
        yield Case(f"bmp-size-{w}-{h}", bmp[:18] + struct.pack("<ii", w, h) + bmp[26:], megapixels=4)
    for at, fmt, values in (
        (10, "<I", (0, 2**31, 2**32 - 1)),
        (14, "<I", (0, 11, 12, 64, 108, 124, 2**32 - 1)),
        (28, "<H", (0, 2, 7, 16, 32, 64)),
        (30, "<I", (1, 2, 3, 4, 5, 99)),
        (46, "<I", (2**31,)),
    ):
        for v in values:
            yield Case(f"bmp-{at}-{v}", bmp[:at] + struct.pack(fmt, v) + bmp[at + struct.calcsize(fmt) :])
    webp = saved(photo(), "WEBP")
    for v in (0, 10, 2**31, 2**32 - 1):
        yield Case(f"webp-riff-{v}", webp[:4] + struct.pack("<I", v) + webp[8:])
        yield Case(f"webp-chunk-{v}", webp[:16] + struct.pack("<I", v) + webp[20:])
    yield Case(
        "webp-canvas",
        b"RIFF"
        + struct.pack("<I", 22 + len(webp) - 12)
        + b"WEBPVP8X"
        + struct.pack("<IB", 10, 2)
        + b"\0\0\0\xff\xff\x3f\xff\xff\x3f"
        + webp[12:],
        megapixels=4,
    )
    avif = saved(photo(), "AVIF")
    at = avif.index(b"ispe") + 8
    for v in (0, 1, 2000, 65_535, 2**31, 2**32 - 1):
        yield Case(f"avif-ispe-{v}", avif[:at] + struct.pack(">II", v, v) + avif[at + 8 :], megapixels=4)
    for v in (0, 1, 7, 2**31, 2**32 - 1):
        yield Case(f"avif-ftyp-{v}", struct.pack(">I", v) + avif[4:])


def odd() -> Iterator[Case]:  # noqa: C901, PLR0912 -- a list of files, one after another
    """Whole files that few send: with the picture they show, or none where a refusal is as good."""
    p = photo()
    rgb = np.asarray(p)
    for w, h in ((1, 65_500), (65_500, 1), (1, 1), (2, 3), (1, 4000), (4000, 1)):
        long = Image.fromarray(np.asarray(photo(w, h)))
        for kind in ("PNG", "BMP", "GIF", "TIFF", "JPEG"):
            exact = kind not in ("JPEG", "GIF")
            image = long.quantize(100) if kind == "GIF" else long
            yield Case(
                f"{kind}-{w}x{h}",
                saved(image, kind),
                np.asarray(image.convert("RGB")) if exact or kind == "GIF" else None,
            )
    for mode in ("1", "L", "P", "LA", "RGBA", "I;16"):
        if mode == "I;16":
            image = Image.fromarray((np.arange(36 * 48, dtype=np.uint16) * 31).reshape(36, 48))
            shown = (
                np.repeat((np.asarray(image).astype(np.uint32) * 255 + 32767) // 65535, 3)
                .reshape(36, 48, 3)
                .astype(np.uint8)
            )
        else:
            image = photo(mode="RGBA").convert(mode) if mode in ("LA", "RGBA") else p.convert(mode)
            shown = np.asarray(image.convert("RGBA" if mode in ("LA", "RGBA") else "RGB"))
        yield Case(f"png-mode-{mode}", saved(image, "PNG"), shown)
        yield Case(f"tiff-mode-{mode}", saved(image, "TIFF"), shown)
    rng = np.random.default_rng(8)
    for dtype in (np.float32, np.float64, np.int32, np.uint32, np.int16, np.int8):
        for n in (1, 2, 3, 5, 7):
            values = (rng.normal(size=(6, 7, n)) * 1000).astype(dtype)
            if dtype == np.float32:
                values[0, 0], values[1, 1], values[2, 2] = np.nan, np.inf, -np.inf
            yield Case(f"tiff-{np.dtype(dtype).name}-{n}", tiff(values))
    for n in (2, 3, 4, 5, 6, 9):
        values = rng.integers(0, 255, (6, 7, n), np.uint8)
        yield Case(f"tiff-uint8-{n}", tiff(values), values if n == 3 else None)
    page = saved(p, "TIFF")
    yield Case("tiff-big-endian", tiff(rgb, order=">"), rgb)
    for k, photometric in enumerate((8, 6, 5, 32_803, 2, 0)):
        yield Case(f"tiff-photometric-{photometric}-{k}", tiff(rgb, photometric=photometric))
    yield Case("gif-html", saved(p.quantize(9), "GIF", comment=b"<script>alert(1)</script>"))
    polyglots = {
        "zip": b"PK\x03\x04" + bytes(26) + b"PK\x05\x06" + bytes(18),
        "pdf": b"%PDF-1.4\n1 0 obj<<>>endobj\n%%EOF",
        "html": b"<html><script>alert(1)</script></html>",
        "php": b"<?php system($_GET['c']); ?>",
        "jar": b"PK\x05\x06" + bytes(18),
    }
    for tail, data in polyglots.items():
        yield Case(f"png+{tail}", saved(p, "PNG") + data, rgb)
        yield Case(f"bmp+{tail}", saved(p, "BMP") + data, rgb)
        yield Case(f"tiff+{tail}", page + data, rgb)
        yield Case(f"{tail}+png", data + saved(p, "PNG"))
    svg = b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>'
    for name, data in {
        "svg": svg,
        "pdf": polyglots["pdf"],
        "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(%pipe%id) (w) file\n",
        "zip": polyglots["zip"],
        "gzip": b"\x1f\x8b\x08" + bytes(20),
        "text": b"hello\n" * 9,
        "elf": b"\x7fELF" + bytes(60),
        "mp4": b"\0\0\0\x18ftypisom" + bytes(64),
        "wav": b"RIFF\x24\0\0\0WAVEfmt " + bytes(24),
        "psd": b"8BPS\0\1" + bytes(40),
        "nul": bytes(100),
        "ff": b"\xff" * 100,
        "one": b"\xff",
        "jpegxl": b"\xff\x0a" + bytes(60),
        "svgz": b"\x1f\x8b" + zlib.compress(svg),
        "mpo": b"\xff\xd8\xff\xe2\0\x58MPF\0" + bytes(90),
        "jp2": b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(50),
        "fits": b"SIMPLE  =                    T" + bytes(80),
    }.items():
        yield Case(f"renamed-{name}", data)
    for kind in ("ICO", "PPM", "TGA", "PCX", "SGI", "ICNS", "DDS", "IM", "EPS", "JPEG2000", "QOI"):
        with contextlib.suppress(KeyError, OSError, ValueError):
            yield Case(f"foreign-{kind}", saved(photo(32, 32), kind))


def tiff(values, order="<", photometric=None, entries=(), after=b"", next_ifd=0, compression=1, strip=None):
    """A TIFF of one strip, (h, w, n) samples of any type.

    `entries` (tag, type, count, value) replace or add to the usual.
    """
    h, w, n = values.shape
    data = values.astype(values.dtype.newbyteorder(order)).tobytes() if strip is None else strip
    bits, kind = values.dtype.itemsize * 8, {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    usual = {
        256: (256, 3 if w < 65_536 else 4, 1, w),
        257: (257, 4, 1, h),
        258: (258, 3, 1, bits),
        259: (259, 3, 1, compression),
        262: (262, 3, 1, photometric if photometric is not None else (2 if n >= 3 else 1)),
        273: (273, 4, 1, 0),
        277: (277, 3, 1, n),
        278: (278, 4, 1, h),
        279: (279, 4, 1, len(data)),
        339: (339, 3, 1, kind),
    }
    for e in entries:
        usual[e[0]] = e
    start = 8 + 2 + 12 * len(usual) + 4
    many = b"".join(struct.pack(order + "H", v) for v in [bits] * n) if n > 2 else b""
    if n > 2 and 258 not in [e[0] for e in entries]:
        usual[258] = (258, 3, n, start)
    elif n == 2:
        usual[258] = (258, 3, 2, bits | bits << 16)
    if usual[273][3] == 0:
        usual[273] = (273, 4, 1, start + len(many))
    out = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IH", 8, len(usual))
    for tag, kind, count, value in sorted(usual.values()):
        short = kind == 3 and count == 1
        out += struct.pack(order + ("HHIHH" if short else "HHII"), tag, kind, count, value, *([0] if short else []))
    return out + struct.pack(order + "I", next_ifd) + many + data + after


def all_files(seed=8) -> Iterator[Case]:
    """Every case, each name once."""
    from bombs import bombs

    yield from damaged(random.Random(seed))
    yield from lying()
    yield from odd()
    yield from bombs()
