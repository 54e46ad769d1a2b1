"""Small files that ask for much: pixels, memory, time, loops. All stay under 8 MB."""

import importlib.util
import io
import random
import struct
import zlib
from typing import Iterator

import numpy as np
from files import Case, chunk, exr, hdr, lzw, photo, png, saved, tiff
from PIL import Image

FLAT = np.zeros((2, 2, 3), np.uint8)


def exif_tiff(entries, order="<", next_ifd=0, after=b""):
    """A bare TIFF header with one directory, as EXIF uses it."""
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IH", 8, len(entries))
    return (
        head + b"".join(struct.pack(order + "HHII", *e) for e in entries) + struct.pack(order + "I", next_ifd) + after
    )


def evil_exif():
    """(name, EXIF) with offsets that loop, lie and overlap."""
    far = 2**32 - 1
    yield "loop-self", exif_tiff([(0x8769, 4, 1, 8)])
    yield "loop-next", exif_tiff([(0x010F, 2, 4, 0)], next_ifd=8)
    yield "loop-two", exif_tiff([(0x8769, 4, 1, 26)], after=struct.pack("<HHHIII", 1, 0x8769, 4, 1, 8, 0))
    yield "gps-loop", exif_tiff([(0x8825, 4, 1, 8), (0xA005, 4, 1, 8)])
    yield "far", exif_tiff([(0x8769, 4, 1, far)])
    yield "far-value", exif_tiff([(0x010F, 2, far, far), (0x0112, 3, far, 8)])
    yield "count-0", exif_tiff([(0x0112, 3, 0, 6)])
    yield "orientation-text", exif_tiff([(0x0112, 2, 4, 0x41414141)])
    yield "orientation-9", exif_tiff([(0x0112, 3, 1, 9)])
    yield "orientation-rational-0", exif_tiff([(0x0112, 5, 1, 30)], after=bytes(16))
    yield "focal-nan", exif_tiff([(0x8769, 4, 1, 26)], after=struct.pack("<HHHIfI", 1, 0xA405, 11, 1, float("nan"), 0))
    yield "types", exif_tiff([(0x0110 + k, k, 1, 8) for k in range(40)])
    yield "overlap", exif_tiff([(40_000 + k, 7, 50_000, 0) for k in range(2000)], after=bytes(60_000))
    yield "not-tiff", b"JUNK" + bytes(40)


def evil_icc():
    yield "empty", b""
    yield "zeros", bytes(200)
    yield "lies", struct.pack(">I", 2**31) + b"acsp" * 60
    tags = b"".join(b"A2B0" + struct.pack(">II", 128, 2**31) for _ in range(100))
    yield (
        "tags",
        struct.pack(">I", 128 + 4 + len(tags)) + bytes(32) + b"acsp" + bytes(88) + struct.pack(">I", 2**31) + tags,
    )


def scans(w, h, n, gray=True):
    """A progressive JPEG whose last scan comes n more times."""
    data = saved(Image.new("L" if gray else "RGB", (w, h), 128 if gray else (90, 120, 200)), "JPEG", progressive=True)
    start, end = data.rfind(b"\xff\xda"), data.rfind(b"\xff\xd9")
    return data[:end] + data[start:end] * n + data[end:]


def rare_bombs(side) -> Iterator[Case]:  # noqa: C901, PLR0912 -- a list of files, one after another
    """Files of the kinds that have decoders of their own, which promise or hold more than they should."""
    import pillow_heif

    flat, megapixels = np.zeros((side, side, 3), np.uint8), side * side / 1e6
    for n in (side, 2100):
        out = io.BytesIO()
        pillow_heif.from_bytes("RGB", (n, n), bytes(n * n * 3)).save(out, quality=50)
        yield Case(f"heic-flat-{n}", out.getvalue(), megapixels=megapixels)
        heic, at = out.getvalue(), out.getvalue().index(b"ispe") + 8
        for v in (0, 1, 65_535, 2**31, 2**32 - 1):
            yield Case(f"heic-ispe-{n}-{v}", heic[:at] + struct.pack(">II", v, v) + heic[at + 8 :], megapixels=4)
        yield Case(f"jp2-flat-{n}", saved(Image.new("RGBA", (n, n)), "JPEG2000"), megapixels=2 * megapixels)
    noise = np.random.default_rng(8).integers(0, 256, (1100, 1100, 3)).astype(np.uint8)
    yield Case("jp2-noise", saved(Image.fromarray(noise), "JPEG2000", irreversible=False), megapixels=2 * 1.21)
    j2k = saved(photo(), "JPEG2000", no_jp2=True)
    for at in (8, 12, 16, 20, 24, 28, 32, 36):  # SIZ: size, offset, tile and its offset
        for v in (0, 1, 7, 2000, 65_535, 2**31, 2**32 - 1):
            yield Case(f"j2k-{at}-{v}", j2k[:at] + struct.pack(">I", v) + j2k[at + 4 :], megapixels=8)
    for v in (0, 1, 2, 4, 5, 16_384, 65_535):
        yield Case(f"j2k-components-{v}", j2k[:40] + struct.pack(">H", v) + j2k[42:], megapixels=4)
    for name in ("RLE", "ZIP", "PIZ", "PXR24", "B44", "DWAA"):
        yield Case(f"exr-flat-{name}", exr(flat, name), megapixels=megapixels)
    small = exr(np.zeros((9, 9, 3), np.float32), "ZIP")
    for name in (b"dataWindow\0box2i\0", b"displayWindow\0box2i\0"):
        at = small.index(name) + len(name) + 4
        for box in ((0, 0, 1899, 1899), (0, 0, 2**31 - 1, 2**31 - 1), (-(2**31), -(2**31), 2**31 - 1, 8), (9, 9, 0, 0)):
            yield Case(
                f"exr-window-{name[:4]}-{box}", small[:at] + struct.pack("<4i", *box) + small[at + 16 :], None, 4
            )
    at = small.index(b"channels\0chlist\0") + 16
    for v in (0, 1, 2**31, 2**32 - 1):
        yield Case(f"exr-channels-{v}", small[:at] + struct.pack("<I", v) + small[at + 4 :])
    attributes = b"".join(b"a%d\0string\0" % k + struct.pack("<I", 0) for k in range(200_000))
    yield Case("exr-attributes", small[:8] + attributes + small[8:])
    yield Case("exr-text", small[:8] + b"a\0string\0" + struct.pack("<I", 4 << 20) + bytes(4 << 20) + small[8:])
    yield Case("hdr-flat", hdr(flat), megapixels=megapixels)
    one = b"\2\2" + struct.pack(">H", side) + b"\1\x55" * (4 * side)
    head = b"#?RADIANCE\n\n-Y %d +X %d\n"
    yield Case("hdr-runs-of-one", head % (side // 2, side) + one * (side // 2), megapixels=megapixels / 2)
    for size in ((side, side), (2100, 2100), (10**8, 10**8), (1, 999_999), (999_999, 1), (0, 0)):
        yield Case(f"hdr-says-{size}", head % size + bytes(99), megapixels=megapixels)
    yield Case("hdr-old-runs", head % (side, 7) + b"\5\5\5\5" + b"\1\1\1\0" * 1_000_000, megapixels=0.02)
    yield Case("hdr-zero-runs", head % (8, 8) + b"\2\2\0\x08" + bytes(2_000_000))
    yield Case("hdr-header", b"#?RADIANCE\n" + b"a=b\n" * 1_000_000)
    light = np.lib.stride_tricks.as_strided(np.zeros((1, 1, 3), np.float64), (side, side, 3), (0, 0, 0))
    for c, packed in ((8, zlib.compress(bytes(128 << 20), 9)), (5, lzw(bytes(1 << 24))), (32_773, b"\x81\0" * 600_000)):
        for p in (1, 2, 3):
            more = [(317, 3, 1, p)]
            yield Case(f"tiff-float-{c}-{p}", tiff(light, compression=c, strip=packed, entries=more), None, megapixels)
            more += [(322, 4, 1, 30_000), (323, 4, 1, 30_000), (324, 4, 1, 400), (325, 4, 1, len(packed))]
            yield Case(
                f"tiff-float-tile-{c}-{p}", tiff(light, compression=c, strip=packed, entries=more), None, megapixels
            )
    few = np.zeros((2, 2, 3), np.float32)
    for tag in (256, 257, 258, 273, 277, 278, 279, 284, 317, 339):
        for v in (0, 2, 3, 65_535):
            yield Case(f"tiff-float-tag-{tag}-{v}", tiff(few, entries=[(tag, 4, 1, v)]), megapixels=4)
    for chroma in ((0,) * 8, (2**32 - 1,) * 8, (1, 1, 1, 1, 1, 1, 1, 1)):
        extra = chunk(b"gAMA", struct.pack(">I", chroma[0])) + chunk(b"cHRM", struct.pack(">8I", *chroma))
        yield Case(f"png-colours-{chroma[0]}", png(4, 4, zlib.compress(bytes(52)), extra=extra))
    extra = chunk(b"gAMA", struct.pack(">I", 100_000))
    deep = zlib.compress(bytes((side * 6 + 1) * side), 9)
    yield Case("png-gama-16-flat", png(side, side, deep, bits=16, extra=extra), flat, megapixels)
    yield Case("png-many-profiles", png(4, 4, zlib.compress(bytes(52)), extra=chunk(b"iCCP", b"k\0\0" + deep) * 400))
    yield Case(
        "png-many-exif-texts",
        png(
            4,
            4,
            zlib.compress(bytes(52)),
            extra=chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(bytes(1 << 20))) * 400,
        ),
    )
    if importlib.util.find_spec("pillow_jxl"):
        import pillow_jxl  # noqa: F401 -- registers itself

        for n in (side, 2100):
            yield Case(f"jxl-flat-{n}", saved(Image.new("RGB", (n, n)), "JXL", effort=1), megapixels=megapixels)
        yield Case("jxl-huge", b"\xff\x0a" + b"\xfe" * 40)


def bombs() -> Iterator[Case]:  # noqa: C901, PLR0915 -- a list of files, one after another
    rng = random.Random(88)
    side = 1900
    flat = zlib.compress(bytes((side * 3 + 1) * side), 9)
    yield Case("png-flat", png(side, side, flat), np.zeros((side, side, 3), np.uint8), side * side / 1e6)
    for w, h in ((30_000, 30_000), (65_500, 65_500), (2100, 2100), (4_000_001, 1), (2**31 - 1, 1)):
        yield Case(f"png-{w}x{h}", png(w, h, flat))
    yield Case("png-more-than-it-says", png(4, 4, flat))
    yield Case(
        "png-never-ends",
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 9, 9, 8, 2, 0, 0, 0)) + chunk(b"IDAT") * 100_000,
    )
    big = zlib.compress(bytes(100 << 20), 9)
    yield Case("png-ztxt", png(4, 4, flat, extra=chunk(b"zTXt", b"k\0\0" + big)))
    yield Case("png-itxt", png(4, 4, flat, extra=chunk(b"iTXt", b"k\0\1\0\0\0" + big)))
    yield Case("png-iccp", png(4, 4, flat, extra=chunk(b"iCCP", b"k\0\0" + big)))
    yield Case("png-many-texts", png(4, 4, flat, extra=chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(1 << 20))) * 500))
    for n in (1000, 500_000):
        yield Case(f"png-{n}-chunks", png(4, 4, zlib.compress(bytes(4 * 13)), extra=chunk(b"abCd") * n))
        yield Case(f"jpeg-{n}-segments", (lambda d: d[:2] + b"\xff\xfe\0\2" * n + d[2:])(saved(photo(), "JPEG")))
    yield Case("jpeg-fill", (lambda d: d[:2] + b"\xff" * 2_000_000 + d[2:])(saved(photo(), "JPEG")))
    yield Case(
        "jpeg-icc-65535",
        (
            lambda d: (
                d[:2]
                + b"".join(
                    b"\xff\xe2" + struct.pack(">H", 16 + 60) + b"ICC_PROFILE\0" + bytes([k % 256, 255]) + bytes(60)
                    for k in range(5000)
                )
                + d[2:]
            )
        )(saved(photo(), "JPEG")),
    )
    entities = b"<!DOCTYPE a [<!ENTITY b 'bbbb'><!ENTITY c '&b;&b;&b;'>]>"
    xmp = b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta>" + entities + b"&c;</x:xmpmeta>"
    yield Case(
        "jpeg-xmp",
        (lambda d: d[:2] + (b"\xff\xe1" + struct.pack(">H", len(xmp) + 2) + xmp) * 50 + d[2:])(saved(photo(), "JPEG")),
    )
    yield Case("jpeg-scans-tiny", scans(64, 64, 900), megapixels=0.01)
    yield Case("jpeg-scans-300", scans(1900, 1900, 300), megapixels=3.61)
    yield Case("jpeg-scans-3000", scans(1900, 1900, 3000), megapixels=3.61)
    yield Case("jpeg-scans-colour", scans(1200, 1200, 3000, gray=False), megapixels=1.44)
    for name, data in evil_exif():
        exif = b"Exif\0\0" + data
        yield Case(
            f"jpeg-exif-{name}", saved(photo(), "JPEG", exif=exif) if len(exif) < 65_000 else saved(photo(), "JPEG")
        )
        yield Case(f"png-exif-{name}", png(4, 4, zlib.compress(bytes(52)), extra=chunk(b"eXIf", data)))
        yield Case(f"webp-exif-{name}", saved(photo(), "WEBP", exif=exif))
        yield Case(f"tiff-{name}", data)
    for name, data in evil_icc():
        yield Case(f"jpeg-icc-{name}", saved(photo(), "JPEG", icc_profile=data))
        yield Case(f"png-icc-{name}", saved(photo(), "PNG", icc_profile=data))
        yield Case(f"tiff-icc-{name}", saved(photo(), "TIFF", icc_profile=data))
    yield from rare_bombs(side)
    tags = [(40_000 + k, 7, 1_000_000, 200_000) for k in range(15_000)]
    yield Case("tiff-15000-tags", tiff(FLAT, entries=tags, after=bytes(1_500_000)))
    yield Case(
        "png-exif-5000-tags",
        png(
            4,
            4,
            zlib.compress(bytes(52)),
            extra=chunk(
                b"eXIf", exif_tiff([(1000 + k, 7, 900_000, 61_000) for k in range(5000)], after=bytes(1_000_000))
            ),
        ),
    )
    yield Case("tiff-next-self", tiff(FLAT, next_ifd=8))
    yield Case("tiff-next-far", tiff(FLAT, next_ifd=2**32 - 16))
    yield Case("tiff-strip-far", tiff(FLAT, entries=[(273, 4, 1, 2**31)]))
    yield Case("tiff-strip-long", tiff(FLAT, entries=[(279, 4, 1, 2**32 - 1)]))
    yield Case("tiff-many-strips", tiff(FLAT, entries=[(273, 4, 2**28, 8), (279, 4, 2**28, 8), (278, 4, 1, 1)]))
    yield Case("tiff-rows-0", tiff(FLAT, entries=[(278, 4, 1, 0)]))
    zipped = zlib.compress(bytes(128 << 20), 9)
    for w, h in ((4, 4), (1900, 1900)):
        tall = np.lib.stride_tricks.as_strided(FLAT, (h, w, 3), (0, 0, 0))
        yield Case(f"tiff-deflate-{w}", tiff(tall, compression=8, strip=zipped), megapixels=w * h / 1e6)
        yield Case(
            f"tiff-deflate-rows-{w}",
            tiff(tall, compression=8, strip=zipped, entries=[(278, 4, 1, 2**31 - 1)]),
            megapixels=w * h / 1e6,
        )
        for tile in (16, 30_000, 2**31 - 16):
            yield Case(
                f"tiff-tile-{w}-{tile}",
                tiff(
                    tall,
                    compression=8,
                    strip=zipped,
                    entries=[(322, 4, 1, tile), (323, 4, 1, tile), (324, 4, 1, 250), (325, 4, 1, len(zipped))],
                ),
                megapixels=w * h / 1e6,
            )
    for c in (2, 3, 4, 5, 6, 7, 32_773, 32_946, 34_661, 34_676, 34_887, 34_925, 50_000, 50_001, 65_535):
        yield Case(f"tiff-compression-{c}", tiff(FLAT, compression=c, strip=rng.randbytes(300)))
    frames = [Image.new("L", (8, 8), k % 256) for k in range(2000)]
    yield Case("gif-2000-frames", saved(frames[0], "GIF", save_all=True, append_images=frames[1:], loop=0))
    yield Case("apng-500-frames", saved(frames[0], "PNG", save_all=True, append_images=frames[1:500]))
    yield Case("tiff-500-pages", saved(frames[0], "TIFF", save_all=True, append_images=frames[1:500]))
    yield Case(
        "webp-500-frames",
        saved(frames[0].convert("RGB"), "WEBP", save_all=True, append_images=frames[1:500], lossless=True),
    )
    gif = saved(Image.new("P", (8, 8)), "GIF")
    at = gif.index(b"\x2c", 13)
    yield Case("gif-comments", gif[:at] + (b"\x21\xfe\xff" + b"c" * 255 + b"\0") * 20_000 + gif[at:])
    yield Case("gif-extensions", gif[:at] + b"\x21\xf9\4\0\0\0\0\0" * 400_000 + gif[at:])
    yield Case("gif-flat", saved(Image.new("P", (side, side)), "GIF"), megapixels=side * side / 1e6)
    for kind, options in (
        ("WEBP", {"lossless": True}),
        ("AVIF", {"speed": 10}),
        ("JPEG", {}),
        ("BMP", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
    ):
        if kind != "BMP":
            yield Case(
                f"{kind}-flat",
                saved(Image.new("RGB", (side, side), (9, 9, 9)), kind, **options),
                megapixels=side * side / 1e6,
            )
        too_many = saved(Image.new("1" if kind == "BMP" else "RGB", (2100, 2100)), kind, **options)
        yield Case(f"{kind}-too-many", too_many)
    bmp = saved(photo(mode="L"), "BMP")
    palette = bmp[:30]
    for c, bits in ((1, 8), (2, 4)):
        for k, rle in enumerate(
            (
                b"\0\2\xff\xff" * 9000,
                b"\xff\1" * 90_000,
                b"\0\1",
                b"\0\0" * 90_000,
                b"\0\xff" + bytes(20),
                rng.randbytes(4000),
            )
        ):
            head = palette[:28] + struct.pack("<HI", bits, c) + bmp[34:54]
            yield Case(f"bmp-rle-{c}-{k}", head + bytes(1024) + rle, megapixels=0.1)
            wide = head[:18] + struct.pack("<ii", side, side) + head[26:]
            yield Case(f"bmp-rle-wide-{c}-{k}", wide + bytes(1024) + rle, megapixels=side * side / 1e6)
