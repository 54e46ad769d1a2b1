"""Files that people really have: HEIC, float TIFFs, L*a*b*, EXR, Radiance HDR, JPEG 2000, JPEG XL, linear PNGs, and
metadata that must not decide whether a picture is read.

Expected values come from the formulas of the formats' specifications, written out here.
"""

import base64
import contextlib
import importlib.util
import io
import struct
import sys
import zlib

import numpy as np
import pytest
from PIL import Image
from support import encoded, gradient

from server import errors
from server.image.decode import read_upright

MAX = 10_000_000


def read(data, max_pixels=MAX):
    image, kind, _ = read_upright(io.BytesIO(data), max_pixels)
    return np.array(image), kind


def srgb(linear):
    """IEC 61966-2-1, as 8-bit codes, float."""
    v = np.clip(np.asarray(linear, float), 0, 1)
    return 255 * np.where(v <= 0.0031308, 12.92 * v, 1.055 * v ** (1 / 2.4) - 0.055)


def near(a, b, most=0.52):
    """Is the picture within `most` codes (rounding takes 0.5)?"""
    return a.shape == np.shape(b) and np.abs(a - np.asarray(b, float)).max() <= most


# -- PNG


def chunk(tag, data=b"", crc=None):
    return struct.pack(">I", len(data)) + tag + data + struct.pack(">I", zlib.crc32(tag + data) if crc is None else crc)


def png(samples, extra=b"", after=b"", end=True):
    """(h, w, n) uint8 or uint16 as a PNG with more chunks before and after its pixels."""
    h, w, n = samples.shape
    deep = samples.dtype.itemsize == 2
    rows = b"".join(b"\0" + row.astype(">u2" if deep else "u1").tobytes() for row in samples)
    head = struct.pack(">IIBBBBB", w, h, 16 if deep else 8, {1: 0, 2: 4, 3: 2, 4: 6}[n], 0, 0, 0)
    body = chunk(b"IHDR", head) + extra + chunk(b"IDAT", zlib.compress(rows)) + after
    return b"\x89PNG\r\n\x1a\n" + body + (chunk(b"IEND") if end else b"")


BIG = zlib.compress(bytes(3 << 20))
PNG_METADATA = {
    "ztxt-huge": chunk(b"zTXt", b"k\0\0" + BIG),
    "itxt-huge": chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + BIG),
    "ztxt-huge-exif": chunk(b"zTXt", b"Raw profile type exif\0\0" + BIG),
    "iccp-huge": chunk(b"iCCP", b"k\0\0" + BIG),
    "ztxt-many": chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(1 << 20))) * 80,
    "ztxt-method": chunk(b"zTXt", b"k\0\7" + BIG),
    "iccp-method": chunk(b"iCCP", b"k\0\7" + BIG),
    "iccp-empty": chunk(b"iCCP", b""),
    "text-crc": chunk(b"tEXt", b"k\0v", crc=1),
    "gama-short": chunk(b"gAMA", b"\1"),
    "gama-crc": chunk(b"gAMA", struct.pack(">I", 100_000), crc=1),
    "chrm-short": chunk(b"cHRM", b"\1" * 9),
    "phys-short": chunk(b"pHYs", b"\1"),
    "exif-junk": chunk(b"eXIf", b"junk" * 100),
    "actl-short": chunk(b"acTL", b"\1"),
}


@pytest.mark.parametrize("name", PNG_METADATA)
def test_no_metadata_of_a_png_keeps_its_picture_from_being_read(name):
    pixels = gradient(20, 30)
    assert np.array_equal(read(png(pixels, PNG_METADATA[name]))[0], pixels)
    assert np.array_equal(read(png(pixels, after=PNG_METADATA[name]))[0], pixels)


def test_a_png_cut_short_within_a_text_behind_its_picture():
    pixels = gradient(20, 30)
    assert np.array_equal(read(png(pixels, after=chunk(b"tEXt", b"k\0" + bytes(99))[:50], end=False))[0], pixels)


def test_texts_of_a_png_cost_no_memory():
    import tracemalloc

    data = png(gradient(20, 30), PNG_METADATA["ztxt-many"] + PNG_METADATA["itxt-huge"])
    read(data)
    tracemalloc.start()
    read(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20  # 83 MB of texts when unpacked


def test_a_png_keeps_the_orientation_that_a_text_tells():
    exif = Image.Exif()
    exif[0x0112] = 6
    raw = exif.tobytes()
    text = b"\nexif\n%8d\n" % len(raw) + raw.hex().encode() + b"\n"
    data = png(gradient(20, 30), chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(text)))
    assert np.array_equal(read(data)[0], np.rot90(gradient(20, 30), -1))


def gama(gamma):
    return chunk(b"gAMA", struct.pack(">I", round(gamma * 100_000)))


@pytest.mark.parametrize("gamma", [1.0, 0.55556, 1 / 1.4])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_gama_says_what_the_samples_mean(gamma, channels, dtype):
    """PNG specification, 13.13: light = sample ** (1 / gAMA); alpha is linear already."""
    most = np.iinfo(dtype).max
    samples = np.random.default_rng(1).integers(0, most + 1, (24, 40, channels)).astype(dtype)
    samples[:8] //= 40  # dark ones, where the curves differ most and 8 bits are few
    out = read(png(samples, gama(gamma)))[0].astype(float)
    n = 1 if channels < 3 else 3
    want = srgb((samples[..., :n] / most) ** (1 / (round(gamma * 1e5) / 1e5)))
    assert near(out[..., :3], np.broadcast_to(want, (24, 40, 3)), 0.53)
    if channels in (2, 4):
        assert near(out[..., 3], samples[..., -1] / most * 255)


def test_gama_leaves_the_transparent_colour_of_a_png_transparent():
    samples = np.zeros((4, 5, 3), np.uint16)
    samples[1, 2] = [1000, 2000, 3000]
    samples[1, 3] = [1000, 2000, 3001]
    out = read(png(samples, gama(1.0) + chunk(b"tRNS", struct.pack(">3H", 1000, 2000, 3000))))[0]
    assert out[1, 2, 3] == 0 and (out[..., 3] == 0).sum() == 1


def test_what_goes_before_gama():
    """PNG specification, 4.3: cICP, then iCCP, then sRGB, then gAMA; and 1/2.2 is what everybody writes for sRGB."""
    pixels = gradient(20, 30)
    for extra in (gama(1.0) + chunk(b"sRGB", b"\0"), chunk(b"cICP", b"\1\x0d\0\1") + gama(1.0), gama(0.45455)):
        assert np.array_equal(read(png(pixels, extra))[0], pixels)
    profile = _srgb_profile()
    icc = chunk(b"iCCP", b"k\0\0" + zlib.compress(profile))
    assert np.abs(read(png(pixels, icc + gama(1.0)))[0].astype(int) - pixels).max() <= 1


def _srgb_profile():
    from PIL import ImageCms

    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def test_chrm_gives_the_primaries():
    """Display P3 by numbers: its red is outside sRGB; its matrix to sRGB is that of CSS Color 4 (10.6 and 10.9)."""
    p3 = chunk(b"cHRM", struct.pack(">8I", 31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000))
    matrix = np.array([[1.2249402, -0.2249402, 0], [-0.0420570, 1.0420570, 0], [-0.0196376, -0.0786361, 1.0982735]])
    rng = np.random.default_rng(2)
    samples = rng.integers(60, 200, (20, 30, 3)).astype(np.uint8)
    for extra, light in ((gama(1.0) + p3, samples / 255), (gama(0.5) + p3, (samples / 255) ** 2)):
        assert near(read(png(samples, extra))[0], srgb(light @ matrix.T), 0.6)
    same = chunk(b"cHRM", struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000))
    assert np.array_equal(read(png(samples, gama(0.45455) + same))[0], samples)


# -- metadata of other formats


def test_no_metadata_of_a_jpeg_keeps_its_picture_from_being_read():
    data = encoded(gradient(40, 60), "JPEG", quality=95)
    want = read(data)[0]
    for marker in range(0xE0, 0xF0):
        for body in (
            b"",
            b"\0",
            b"Exif\0\0junk",
            b"MPF\0" + bytes(3),
            b"Photoshop 3.0\0008BIM" + b"\xff" * 30,
            b"JFIF\0",
            b"Adobe",
            b"ICC_PROFILE\0",
            b"http://ns.adobe.com/xap/1.0/\0" + b"<" * 60_000,
        ):
            if marker == 0xEE and body == b"Adobe":
                continue
            broken = data[:2] + bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body + data[2:]
            assert np.array_equal(read(broken)[0], want), (hex(marker), body[:20])


@pytest.mark.parametrize("tag", [700, 33432, 34377, 34665, 34675, 34853, 37510])
@pytest.mark.parametrize("kind, count", [(7, 2**31), (7, 900_000), (5, 3), (2, 0), (13, 1), (99, 1)])
def test_no_metadata_of_a_tiff_keeps_its_picture_from_being_read(tag, kind, count):
    pixels = gradient(12, 16)
    data = tiff(pixels, more=[(tag, kind, count, 3)])
    assert np.array_equal(read(data)[0], pixels)


@pytest.mark.parametrize("tag", [b"ICCP", b"EXIF", b"XMP "])
@pytest.mark.parametrize("length", [None, 9, 2**31])
def test_no_metadata_of_a_webp_keeps_its_picture_from_being_read(tag, length):
    data = encoded(gradient(12, 16), "WEBP", lossless=True)
    more = tag + struct.pack("<I", 30 if length is None else length) + b"junk" * 7 + b"ju"
    flags = {b"ICCP": 0x20, b"EXIF": 8, b"XMP ": 4}[tag]
    head = b"VP8X" + struct.pack("<IB", 10, flags) + bytes(3) + (15).to_bytes(3, "little") + (11).to_bytes(3, "little")
    body = b"WEBP" + head + (more + data[12:] if tag == b"ICCP" and length is None else data[12:] + more)
    assert np.array_equal(read(b"RIFF" + struct.pack("<I", len(body)) + body)[0], gradient(12, 16))


# -- HEIC and AVIF


def heif(pixels, **options):
    import pillow_heif

    mode = {2: "L", 3: "RGB", 4: "RGBA"}[pixels.ndim if pixels.ndim == 2 else pixels.shape[2]]
    out = io.BytesIO()
    if pixels.dtype == np.uint16:
        file = pillow_heif.from_bytes("RGB;16", pixels.shape[1::-1], pixels.tobytes())
    else:
        file = pillow_heif.from_bytes(mode, pixels.shape[1::-1], pixels.tobytes())
    for extra in options.pop("more", ()):
        file.add_frombytes("RGB", extra.shape[1::-1], extra.tobytes())
    file.save(out, quality=-1, chroma=444, matrix_coefficients=0, **options)
    return out.getvalue()


def test_heic_is_read():
    pixels = gradient(40, 64)
    out, kind = read(heif(pixels))
    assert kind == "HEIF" and near(out, pixels, 2)
    rgba = np.dstack([pixels, np.full((40, 64), 99, np.uint8)])
    assert near(read(heif(rgba))[0], rgba, 2)
    assert near(read(heif(pixels.astype(np.uint16) * 257))[0], pixels, 2)  # stored in 10 bits


@pytest.mark.parametrize("primary", [0, 1])
def test_of_several_pictures_in_a_heic_the_primary_one_is_read(primary):
    pictures = [gradient(40, 64), 255 - gradient(48, 72)]
    assert near(read(heif(pictures[0], more=pictures[1:], primary_index=primary))[0], pictures[primary], 2)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_of_a_heic_is_applied_once(orientation):
    """A bright corner, and where EXIF 2.3 (tag 274) wants it. The encoder writes both irot/imir and EXIF."""
    stored = np.zeros((32, 64, 3), np.uint8)
    stored[:8, :8] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    out = read(heif(stored, exif=exif.tobytes()))[0]
    corner = {1: "TL", 2: "TR", 3: "BR", 4: "BL", 5: "LT", 6: "RT", 7: "RB", 8: "LB"}[orientation]
    assert out.shape == ((32, 64, 3) if orientation < 5 else (64, 32, 3))
    y, x = (slice(0, 8) if "T" in corner else slice(-8, None)), (slice(0, 8) if "L" in corner else slice(-8, None))
    assert (out[y, x] > 200).all() and (out > 127).all(-1).sum() == 64


def test_a_heic_of_many_pixels_is_refused_from_its_header_and_a_cut_one_is_corrupt():
    data = heif(gradient(64, 64))
    with pytest.raises(errors.ImageTooLarge):
        read(data, 64 * 64 - 1)
    with pytest.raises(errors.CorruptImage):
        read(data[: len(data) * 2 // 3])


def test_a_missing_decoder_is_named(monkeypatch):
    data = heif(gradient(40, 64))
    monkeypatch.setitem(sys.modules, "pi_heif", None)
    monkeypatch.setitem(sys.modules, "pillow_jxl", None)
    monkeypatch.setitem(sys.modules, "pillow_jxl.JpegXLImagePlugin", None)
    monkeypatch.setitem(sys.modules, "OpenEXR", None)
    for file, package in ((data, "pi-heif"), (b"\xff\x0a" + bytes(60), "pillow-jxl-plugin"), (EXR, "OpenEXR")):
        with pytest.raises(errors.UnsupportedImage, match=package):
            read(file)


AVIF_12 = {  # 48 x 36: red rises to the right, green downwards, blue is 125; written by libavif 1.3 from 12-bit samples
    "420": (
        "AAAAHGZ0eXBhdmlmAAAAAGF2aWZtaWYxbWlhZgAAAOttZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAAAAAAAAAA"
        "AA5waXRtAAAAAAABAAAAHmlsb2MAAAAARAAAAQABAAAAAQAAAQ8AAACYAAAAKGlpbmYAAAAAAAEAAAAaaW5mZQIAAAAAAQAAYXYw"
        "MUNvbG9yAAAAAGppcHJwAAAAS2lwY28AAAAUaXNwZQAAAAAAAAAwAAAAJAAAABBwaXhpAAAAAAMMDAwAAAAMYXYxQ4FAbAAAAAAT"
        "Y29scm5jbHgAAgACAAaAAAAAF2lwbWEAAAAAAAAAAQABBAECgwQAAACgbWRhdBIACglYFW+NrQICBuEyiAESB/f2qQAB5AAAz8pA"
        "oKwV/xbdSEw4wUx29j4AVVu9ojOHktv/j4no85EQRjYHKHzEv1rzV6v8y7MCYqzePxHPWca1jA9WoHiGku5kTphtuJhD0Vs94A4+"
        "bTaUz7t6gCRma5lDkBYSZCBE2mbAIQiGQDm2Rv0f+gNwBrB6U7RLvYkxhI75bS83"
    ),
    "444": (
        "AAAAHGZ0eXBhdmlmAAAAAGF2aWZtaWYxbWlhZgAAAOttZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAAAAAAAAAA"
        "AA5waXRtAAAAAAABAAAAHmlsb2MAAAAARAAAAQABAAAAAQAAAQ8AAACZAAAAKGlpbmYAAAAAAAEAAAAaaW5mZQIAAAAAAQAAYXYw"
        "MUNvbG9yAAAAAGppcHJwAAAAS2lwY28AAAAUaXNwZQAAAAAAAAAwAAAAJAAAABBwaXhpAAAAAAMMDAwAAAAMYXYxQ4FAYAAAAAAT"
        "Y29scm5jbHgAAgACAAaAAAAAF2lwbWEAAAAAAAAAAQABBAECgwQAAAChbWRhdBIACglYFW+NrQICBogyiQESAkNKgADyAADPykCX"
        "xS7wq3N2ACZCwTbYBI6DqR9Z+wcbFCnoDcAfpL3aanVOlBaeUEEZhx569BRtUXQL7HuS/F4KYj70Zo/3UXmX92dyc2cjx/Ekqzec"
        "/3Tw9rGfWcY7GW6cW25TwjFKnWDBK/pr2pHAEuU2xotC8M0N46u9itCqkwXGm/ycCA=="
    ),
}


@pytest.mark.parametrize("chroma", AVIF_12)
def test_avif_of_12_bits(chroma):
    y, x = np.mgrid[0:36, 0:48]
    want = np.stack([x * 255 / 47, y * 255 / 35, np.full(x.shape, 2000 / 4095 * 255)], -1)
    out, kind = read(base64.b64decode(AVIF_12[chroma]))
    assert kind == "AVIF" and out.shape == want.shape and np.abs(out - want).mean() < 2


# -- TIFF

TYPES = {"u": 1, "i": 2, "f": 3}


def tiff(values, photometric=None, compression=1, predictor=1, strips=1, planar=1, extra=None, order="<", more=()):
    """(h, w, n) samples of any type as a TIFF; `strips` of rows, packed each for itself."""
    h, w, n = values.shape
    rows = -(-h // strips)
    planes = [values[..., k : k + 1] for k in range(n)] if planar == 2 else [values]
    parts = [_packed(p[y : y + rows], compression, predictor, order) for p in planes for y in range(0, h, rows)]
    bits, kind = values.dtype.itemsize * 8, TYPES[values.dtype.kind]
    tags = {
        256: (4, [w]), 257: (4, [h]), 258: (3, [bits] * n), 259: (3, [compression]),
        262: (3, [photometric if photometric is not None else (2 if n > 2 else 1)]),
        273: (4, [0] * len(parts)), 277: (3, [n]), 278: (4, [rows]), 279: (4, [len(p) for p in parts]),
        284: (3, [planar]), 317: (3, [predictor]), 339: (3, [kind] * n),
    }  # fmt: skip
    if extra is not None:
        tags[338] = (3, extra)
    lengths = {k: len(_numbers(order, *v)) for k, v in tags.items()}
    at = 8 + 2 + 12 * (len(tags) + len(more)) + 4
    outside = sum(v for v in lengths.values() if v > 4)
    first, offsets = at + outside, []
    for p in parts:
        offsets.append(first)
        first += len(p)
    tags[273] = (4, offsets)
    entries, far = [(t, k, c, struct.pack(order + "I", v)) for t, k, c, v in more], b""
    for tag, (kind, numbers) in tags.items():
        data = _numbers(order, kind, numbers)
        if len(data) > 4:
            far, data = far + data, struct.pack(order + "I", at + len(far))
        entries.append((tag, kind, len(numbers), data.ljust(4, b"\0")))
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IH", 8, len(entries))
    head += b"".join(struct.pack(order + "HHI", t, k, c) + v for t, k, c, v in sorted(entries))
    return head + bytes(4) + far + b"".join(parts)


def _numbers(order, kind, values):
    return struct.pack(order + {3: "H", 4: "I"}[kind] * len(values), *values)


def _packed(part, compression, predictor, order):
    """A strip, by the definitions of TIFF 6.0 (section 14) and of Technical Note 3."""
    h, w, n = part.shape
    if predictor == 2:
        whole = part.view(f"u{part.dtype.itemsize}")
        part = np.concatenate([whole[:, :1], whole[:, 1:] - whole[:, :-1]], 1)
    data = part.astype(part.dtype.newbyteorder(order)).tobytes()
    if predictor == 3:
        size = part.dtype.itemsize
        bytes_ = part.astype(part.dtype.newbyteorder(">")).view(np.uint8).reshape(h, w * n, size)
        planes = bytes_.transpose(0, 2, 1).reshape(h, -1)
        data = np.concatenate([planes[:, :n], planes[:, n:] - planes[:, :-n]], 1).tobytes()
    if compression == 5:
        row = np.frombuffer(data, np.uint8).reshape(1, -1)
        out = io.BytesIO()
        Image.fromarray(row).save(out, "TIFF", compression="tiff_lzw", tiffinfo={317: 1, 278: 1})
        with Image.open(out) as image:
            return out.getvalue()[image.tag_v2[273][0] :][: image.tag_v2[279][0]]
    return zlib.compress(data) if compression in (8, 32946) else data


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("predictor", [1, 3])
@pytest.mark.parametrize("compression", [1, 5, 8])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("n", [1, 3])
def test_a_tiff_of_floats_is_linear_light(n, dtype, compression, predictor, order):
    values = np.random.default_rng(n).random((20, 31, n)).astype(dtype)
    values[3, 4], values[5, 6], values[7, 8], values[9, 10] = 3, -2, np.nan, np.inf
    want = srgb(np.nan_to_num(values.astype(float), nan=0))
    out = read(tiff(values, compression=compression, predictor=predictor, strips=3, order=order))[0]
    assert near(out, np.broadcast_to(want, (20, 31, 3)), 0.53)


@pytest.mark.parametrize("planar", [1, 2])
def test_a_tiff_of_floats_in_planes_and_with_alpha(planar):
    values = np.random.default_rng(5).random((20, 31, 4)).astype(np.float32)
    out = read(tiff(values, planar=planar, strips=2, extra=[2]))[0]
    assert near(out[..., :3], srgb(values[..., :3]), 0.53) and near(out[..., 3], values[..., 3] * 255)
    values[..., :3] *= values[..., 3:]
    out = read(tiff(values, planar=planar, strips=2, extra=[1]))[0]
    assert near(out[..., :3], srgb(values[..., :3] / values[..., 3:]), 0.53)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32])
@pytest.mark.parametrize("extra", [None, [2]])
def test_a_tiff_of_gray_with_alpha(dtype, extra):
    most = np.iinfo(dtype).max
    values = np.random.default_rng(3).integers(0, most, (9, 11, 2), dtype)
    out = read(tiff(values, extra=extra))[0]
    want = values / most * 255
    assert near(out[..., :3], np.broadcast_to(want[..., :1], (9, 11, 3))) and near(out[..., 3], want[..., 1])


@pytest.mark.parametrize("predictor", [1, 2])
@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.uint32, np.int32])
def test_a_tiff_of_whole_numbers_of_every_type(dtype, n, predictor):
    """White is the highest number of the type; negative ones are black."""
    info = np.iinfo(dtype)
    values = np.random.default_rng(4).integers(info.min, info.max, (9, 11, n), dtype)
    want = np.clip(values / info.max, 0, 1) * 255
    out = read(tiff(values, predictor=predictor, compression=8))[0]
    assert near(out, np.broadcast_to(want, (9, 11, 3)))


def test_32_bit_numbers_that_all_fit_16_bits_are_16_bit_ones():
    values = np.linspace(0, 65535, 99).astype(np.int32).reshape(9, 11, 1)
    assert near(read(tiff(values))[0], np.broadcast_to(values / 257, (9, 11, 3)))


LAB = {  # L*, a*, b* of sRGB's colours under D50 and D65 (Lindbloom's calculator, Bradford)
    "D50": [(100, 0, 0), (54.29, 80.81, 69.89), (87.82, -79.29, 80.99), (29.57, 68.30, -112.03)],
    "D65": [(100, 0, 0), (53.24, 80.09, 67.20), (87.73, -86.18, 83.18), (32.30, 79.19, -107.86)],
}
COLOURS = [(255, 255, 255), (255, 0, 0), (0, 255, 0), (0, 0, 255)]


@pytest.mark.parametrize("white", LAB)
@pytest.mark.parametrize(
    "photometric, dtype", [(8, np.uint8), (9, np.uint8), (8, np.uint16), (9, np.uint16), (8, np.float32)]
)
def test_a_tiff_of_lab_through_its_white_point(white, photometric, dtype):
    lab = np.array([LAB[white]])
    if dtype == np.float32:
        values = lab.astype(np.float32)
    elif photometric == 8:
        values = np.rint(lab * ([2.55, 1, 1] if dtype == np.uint8 else [655.35, 256, 256])).astype(int).astype(dtype)
    else:
        deep = dtype == np.uint16
        values = np.rint(
            lab * ([652.8, 256, 256] if deep else [2.55, 1, 1]) + ([0, 32768, 32768] if deep else [0, 128, 128])
        )
        values = values.astype(dtype)
    more, data = [], tiff(values, photometric=photometric)
    if white == "D65":
        more = [(318, 5, 2, len(data) + 12)]
        data = tiff(values, photometric=photometric, more=more) + struct.pack("<4I", 3127, 10000, 3290, 10000)
    out = read(data)[0]
    assert np.abs(out[0].astype(int) - COLOURS).max() <= (12 if dtype == np.uint8 else 3)
    assert (out[0, 0] >= 254).all()


def test_what_of_tiffs_is_not_read_is_named():
    values = np.zeros((9, 11, 3), np.float32)
    with pytest.raises(errors.UnsupportedImage, match="compression 34887"):
        read(tiff(values, compression=34887))
    with pytest.raises(errors.UnsupportedImage, match="gray, RGB or"):
        read(tiff(values, photometric=5))
    with pytest.raises(errors.CorruptImage):
        read(tiff(values, compression=8)[:-20])


def test_a_tiff_of_floats_is_turned_as_it_says():
    values = np.random.default_rng(6).random((9, 11, 3)).astype(np.float32)
    out = read(tiff(values, more=[(274, 3, 1, 6)]))[0]
    assert near(out, np.rot90(srgb(values), -1), 0.53)


def test_16_bit_planes_of_a_tiff():
    values = np.random.default_rng(12).integers(0, 65536, (9, 11, 3), np.uint16)
    assert near(read(tiff(values, planar=2, strips=2))[0], values / 257)


@pytest.mark.parametrize("tag", [256, 258, 259, 262, 273, 277, 278, 279, 284, 317, 339])
@pytest.mark.parametrize("kind", [3, 4])
def test_a_tag_of_a_tiff_without_values_is_a_fault_of_the_file(tag, kind):
    data = bytearray(tiff(np.ones((4, 5, 2), np.uint16)))
    n = struct.unpack_from("<H", data, 8)[0]
    at = next(10 + 12 * k for k in range(n) if struct.unpack_from("<H", data, 10 + 12 * k)[0] == tag)
    data[at + 2 : at + 8] = struct.pack("<HI", kind, 0)
    with contextlib.suppress(errors.CorruptImage, errors.UnsupportedImage):
        read(bytes(data))


@pytest.mark.parametrize("more", [[(254, 4, 1, 1), (330, 4, 1, 8)], [(50706, 1, 4, 1)]])
def test_the_thumbnail_of_a_raw_file_is_not_taken_for_the_photo(more):
    with pytest.raises(errors.UnsupportedImage, match="Raw"):
        read(tiff(gradient(12, 16), more=more))


def test_rare_codings_of_jpeg_and_png_are_named():
    jpeg = encoded(gradient(12, 16), "JPEG")
    at = jpeg.index(b"\xff\xc0")
    for data in (
        jpeg[: at + 4] + b"\x0c" + jpeg[at + 5 :],  # 12 bits
        jpeg[: at + 1] + b"\xc3" + jpeg[at + 2 :],  # lossless
        jpeg[: at + 1] + b"\xf7" + jpeg[at + 2 :],  # JPEG-LS
    ):
        with pytest.raises(errors.UnsupportedImage, match="JPEG of"):
            read(data)
    with pytest.raises(errors.CorruptImage):
        read(jpeg[:-30])
    whole = encoded(gradient(12, 16))
    raw = whole[: whole.index(b"IDAT") - 4] + chunk(b"IDAT", zlib.compress(bytes(12 * 49))[2:-4]) + chunk(b"IEND")
    with pytest.raises(errors.UnsupportedImage, match="Xcode"):
        read(raw[:8] + chunk(b"CgBI", b"\x50\0\x20\2") + raw[8:])


# -- EXR and Radiance HDR


def exr(channels, compression=0, **header):
    """An EXR of scan lines, uncompressed, by its specification. `channels`: name -> (h, w) float16 or float32."""
    h, w = next(iter(channels.values())).shape
    kinds = {np.dtype(np.float16): 1, np.dtype(np.float32): 2}

    def attribute(name, kind, value):
        return name + b"\0" + kind + b"\0" + struct.pack("<I", len(value)) + value

    names = sorted(channels)
    listed = (
        b"".join(n.encode() + b"\0" + struct.pack("<iIii", kinds[channels[n].dtype], 0, 1, 1) for n in names) + b"\0"
    )
    window = header.get("window", (0, 0, w - 1, h - 1))
    head = b"v/1\x01" + struct.pack("<I", 2) + attribute(b"channels", b"chlist", listed)
    head += attribute(b"compression", b"compression", bytes([compression]))
    head += attribute(b"dataWindow", b"box2i", struct.pack("<4i", *window))
    head += attribute(b"displayWindow", b"box2i", struct.pack("<4i", *header.get("display", window)))
    head += attribute(b"lineOrder", b"lineOrder", b"\0") + attribute(
        b"pixelAspectRatio", b"float", struct.pack("<f", 1)
    )
    head += attribute(b"screenWindowCenter", b"v2f", bytes(8)) + attribute(
        b"screenWindowWidth", b"float", struct.pack("<f", 1)
    )
    if "chromaticities" in header:
        head += attribute(b"chromaticities", b"chromaticities", struct.pack("<8f", *header["chromaticities"]))
    head += b"\0"
    lines = [b"".join(channels[n][y].tobytes() for n in names) for y in range(h)]
    offsets, at = [], len(head) + 8 * h
    for line in lines:
        offsets.append(at)
        at += 8 + len(line)
    body = b"".join(struct.pack("<iI", window[1] + y, len(line)) + line for y, line in enumerate(lines))
    return head + struct.pack(f"<{h}Q", *offsets) + body


EXR = exr({c: np.full((4, 5), 0.5, np.float16) for c in "RGB"})


def exposed(light):
    """Exposed so that the 99th percentile of its luminance is white."""
    luminance = light @ [0.2126, 0.7152, 0.0722] if light.shape[-1] == 3 else light[..., 0]
    return srgb(light / np.percentile(luminance, 99))


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("scale", [1e-3, 1, 900])
def test_an_exr_is_exposed_by_its_99th_percentile(dtype, scale):
    light = (np.random.default_rng(7).random((40, 50, 3)) ** 3 * scale).astype(dtype)
    out, kind = read(exr({c: light[..., k] for k, c in enumerate("RGB")}))
    assert kind == "EXR" and near(out, exposed(light.astype(float)), 0.6)


def test_an_exr_of_gray_of_layers_and_with_alpha():
    light = np.random.default_rng(8).random((20, 30, 4)).astype(np.float32)
    gray = read(exr({"Y": light[..., 0]}))[0]
    assert near(gray, np.broadcast_to(exposed(light[..., :1].astype(float)), (20, 30, 3)), 0.6)
    layers = {f"view.{c}": light[..., k] for k, c in enumerate("RGB")}
    assert near(read(exr({**layers, "Z": light[..., 3]}))[0], exposed(light[..., :3].astype(float)), 0.6)
    alpha = light[..., 3:] * 0.9 + 0.1
    out = read(exr(dict(zip("RGBA", np.moveaxis(np.dstack([light[..., :3] * alpha, alpha]), -1, 0)))))[0]
    assert near(out[..., :3], exposed(light[..., :3].astype(float)), 0.7) and near(
        out[..., 3], alpha[..., 0] * 255, 0.6
    )


def test_an_exr_shows_its_display_window_and_its_primaries():
    light = np.random.default_rng(9).random((20, 30, 3)).astype(np.float32)
    channels = {c: light[..., k] for k, c in enumerate("RGB")}
    out = read(exr(channels, window=(-5, -3, 24, 16), display=(0, 0, 99, 9)))[0]
    assert near(out, exposed(light[3:13, 5:].astype(float)), 0.6)
    p3 = (0.68, 0.32, 0.265, 0.69, 0.15, 0.06, 0.3127, 0.329)
    matrix = np.array([[1.2249402, -0.2249402, 0], [-0.0420570, 1.0420570, 0], [-0.0196376, -0.0786361, 1.0982735]])
    assert near(read(exr(channels, chromaticities=p3))[0], exposed(light @ matrix.T), 0.7)


@pytest.mark.parametrize("name", ["NO", "RLE", "ZIPS", "ZIP", "PIZ", "PXR24", "B44", "DWAA", "DWAB"])
@pytest.mark.parametrize("tiled", [False, True])
def test_an_exr_of_every_compression(name, tiled, tmp_path):
    import OpenEXR

    y, x = np.mgrid[0:70, 0:90]
    light = np.stack([x / 89, y / 69, (x + y) / 158], -1).astype(np.float16)
    header = {"compression": getattr(OpenEXR, f"{name}_COMPRESSION"), "type": OpenEXR.scanlineimage}
    if tiled:
        header.update(type=OpenEXR.tiledimage, tiles=OpenEXR.TileDescription())
    with OpenEXR.File(header, {"RGB": light}) as file:
        file.write(str(tmp_path / "a.exr"))
    out = read((tmp_path / "a.exr").read_bytes())[0]
    assert np.abs(out - exposed(light.astype(float))).mean() < (3 if name in ("B44", "DWAA", "DWAB") else 0.4)


def test_an_exr_is_refused_by_its_header():
    huge = exr({c: np.zeros((1, 1), np.float16) for c in "RGB"}, window=(0, 0, 2**30, 2**30))
    with pytest.raises(errors.ImageTooLarge):
        read(huge)
    with pytest.raises(errors.UnsupportedImage, match="channel"):
        read(exr({"U": np.zeros((2, 2), np.float16), "V": np.zeros((2, 2), np.float16)}))
    for data in (EXR[:-9], EXR[:60], EXR[:9]):
        with pytest.raises(errors.CorruptImage):
            read(data)


def rgbe(light):
    """(h, w, 3) as (h, w, 4) uint8 (Ward 1991): mantissas 0..255 and the exponent of the brightest."""
    most = np.maximum(light.max(-1), 1e-30)
    exponent = np.floor(np.log2(most)) + 1
    mantissa = np.floor(light / np.exp2(exponent)[..., None] * 256)
    return np.dstack([mantissa, (exponent + 128)[..., None]]).astype(np.uint8)


def hdr(pixels, how, order=b"-Y %d +X %d", kind=b"32-bit_rle_rgbe"):
    h, w = pixels.shape[:2]
    head = b"#?RADIANCE\n# made here\nEXPOSURE=3\nFORMAT=" + kind + b"\n\n" + order % (h, w) + b"\n"
    if how == "flat":
        return head + pixels.tobytes()
    if how == "old":
        return head + b"".join(row[0].tobytes() + b"\1\1\1" + bytes([w - 1]) for row in pixels)
    lines = []
    for row in pixels:
        lines.append(b"\2\2" + struct.pack(">H", w))
        for c in range(4):
            for x in range(0, w, 100):
                part = row[x : x + 100, c]
                run = len(set(part.tolist())) == 1
                lines.append(bytes([128 + len(part), part[0]]) if run else bytes([len(part)]) + part.tobytes())
    return head + b"".join(lines)


@pytest.mark.parametrize("how", ["flat", "runs"])
def test_a_radiance_hdr_is_exposed_by_its_99th_percentile(how):
    light = np.random.default_rng(10).random((30, 250, 3)) ** 2 * 50 + 0.1
    pixels = rgbe(light)
    half = np.where(pixels[..., :3] > 0, 0.5, 0)  # mantissas are rounded down; 0 is black
    coded = np.ldexp(pixels[..., :3] + half, pixels[..., 3:].astype(int) - 136)
    out, kind = read(hdr(pixels, how))
    assert kind == "HDR" and near(out, exposed(coded), 0.6) and np.abs(out - exposed(light)).mean() < 1


def test_old_runs_and_every_order_of_lines_in_a_radiance_hdr():
    pixels = np.broadcast_to(rgbe(np.linspace(0.1, 1, 30).reshape(10, 1, 3)), (10, 20, 4))
    assert np.array_equal(read(hdr(pixels, "old"))[0], read(hdr(pixels, "flat"))[0])
    pixels = rgbe(np.random.default_rng(11).random((10, 20, 3)) + 0.1)
    upright = read(hdr(pixels, "flat"))[0]
    assert np.array_equal(read(hdr(pixels[::-1], "flat", b"+Y %d +X %d"))[0], upright)
    assert np.array_equal(read(hdr(pixels[:, ::-1], "flat", b"-Y %d -X %d"))[0], upright)
    assert np.array_equal(read(hdr(np.ascontiguousarray(pixels.swapaxes(0, 1)), "flat", b"+X %d -Y %d"))[0], upright)


def test_a_radiance_hdr_that_is_broken_or_too_large():
    pixels = rgbe(np.random.default_rng(11).random((10, 20, 3)) + 0.1)
    for data in (hdr(pixels, "runs")[:-30], hdr(pixels, "flat")[:-30], b"#?RADIANCE\n\n", b"#?RADIANCE\n\n-Y 3 -Y 4\n"):
        with pytest.raises(errors.CorruptImage):
            read(data)
    with pytest.raises(errors.ImageTooLarge):
        read(b"#?RADIANCE\n\n-Y 99999 +X 99999\n")
    with pytest.raises(errors.UnsupportedImage, match="RGBE"):
        read(hdr(pixels, "flat", kind=b"spectral"))


# -- JPEG 2000 and JPEG XL


@pytest.mark.parametrize("bare", [False, True])
@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "I;16"])
def test_jpeg_2000(mode, bare):
    pixels = gradient(40, 64)
    image = (
        Image.fromarray(pixels).convert(mode) if mode != "I;16" else Image.fromarray(pixels[..., 0] * np.uint16(257))
    )
    out, kind = read(encoded(image, "JPEG2000", irreversible=False, no_jp2=bare))
    want = (
        np.asarray(image.convert("RGBA" if "A" in mode else "RGB")) if mode != "I;16" else pixels[..., :1].repeat(3, -1)
    )
    assert kind == "JPEG2000" and np.array_equal(out, want)
    with pytest.raises(errors.ImageTooLarge):
        read(encoded(image, "JPEG2000"), 40 * 64 - 1)


@pytest.mark.skipif(not importlib.util.find_spec("pillow_jxl"), reason="pillow-jxl-plugin is not installed")
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
@pytest.mark.parametrize("size", [(40, 64), (48, 64), (41, 67), (300, 200)])
def test_jpeg_xl(mode, size):
    import pillow_jxl  # noqa: F401 -- registers itself

    image = Image.fromarray(gradient(*size)).convert(mode)
    data = encoded(image, "JXL", lossless=True)
    out, kind = read(data)
    assert kind == "JXL" and np.array_equal(out, np.asarray(image.convert("RGBA" if mode == "RGBA" else "RGB")))
    with pytest.raises(errors.ImageTooLarge):
        read(data, size[0] * size[1] - 1)
    with pytest.raises(errors.CorruptImage):
        read(data[: len(data) // 2])


def test_a_fault_in_a_decoder_is_not_called_a_fault_of_the_file(monkeypatch, caplog):
    """Broken on purpose: a radiance.py in the place of ours that raises what no file makes it raise."""
    from server.image import decoder_pool

    broken = "import server.image.radiance as r\nr.read = lambda data, check: {}['secret of the file']\n"
    monkeypatch.setattr(decoder_pool, "PROGRAM", decoder_pool.PROGRAM.replace("; main()", "\n" + broken + "main()"))
    decoders = decoder_pool.Decoders(1, MAX, 1 << 20)
    try:
        with pytest.raises(errors.RelightError) as caught:
            decoders.decode(io.BytesIO(b"#?RADIANCE\n"), 11)
    finally:
        decoders.close()
    assert caught.value.code == "internal" and "KeyError at" in caplog.text and "secret" not in caplog.text


def test_decoders_of_rare_kinds_are_imported_when_such_a_file_comes():
    import subprocess

    code = "import sys, server.image.decoder_process\n"
    code += "print(*[m for m in ('pi_heif', 'OpenEXR', 'pillow_jxl') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
