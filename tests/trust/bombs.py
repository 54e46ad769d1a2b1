"""Small files that ask for much: pixels, memory, time, loops. All stay under 8 MB."""

import random
import struct
import zlib
from typing import Iterator

import numpy as np
from files import Case, chunk, photo, png, saved, tiff
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
