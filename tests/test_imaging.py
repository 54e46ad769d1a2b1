"""Photos in: every kind people upload, and what is no photo."""

import io
import struct
import zlib
from dataclasses import dataclass
from typing import Optional

import numpy as np
import pytest
from PIL import Image, ImageCms
from support import encoded, gradient, problem

from server import errors
from server.image.decode import read_upright
from server.image.resample import shrink_image

MAX = 10_000_000


@dataclass(frozen=True)
class Photo:
    """A decoded upload as an array."""

    pixels: np.ndarray
    format: str
    focal: Optional[float]

    @property
    def rgb(self):
        return self.pixels[..., :3]


def read(data, max_pixels=MAX):
    image, kind, focal = read_upright(io.BytesIO(data), max_pixels)
    return Photo(np.array(image), kind, focal)


@pytest.mark.parametrize(
    "kind,options,loss",
    [
        ("PNG", {}, 0),
        ("BMP", {}, 0),
        ("TIFF", {}, 0),
        ("TIFF", {"compression": "tiff_lzw"}, 0),
        ("WEBP", {"lossless": True}, 0),
        ("JPEG", {"quality": 95, "subsampling": 0}, 4),
        ("AVIF", {"quality": 95}, 6),
    ],
)
def test_every_kind_gives_its_picture(kind, options, loss):
    y, x = np.mgrid[0:48, 0:64]
    pixels = np.stack([x * 4, y * 5, 255 - x * 2 - y * 2], -1).astype(np.uint8)
    photo = read(encoded(pixels, kind, **options))
    assert photo.format == kind and photo.pixels.shape == (48, 64, 3) and photo.pixels.dtype == np.uint8
    assert np.abs(photo.pixels.astype(int) - pixels).mean() <= loss


def test_gif_gives_its_first_frame():
    frames = [Image.new("P", (20, 10), k) for k in (0, 1)]
    for f in frames:
        f.putpalette([255, 0, 0, 0, 255, 0])
    out = io.BytesIO()
    frames[0].save(out, "GIF", save_all=True, append_images=frames[1:])
    assert (read(out.getvalue()).pixels[..., :3] == [255, 0, 0]).all()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation, kind):
    """A picture with one bright corner: where it must be for a viewer, by the EXIF standard's table."""
    stored = np.zeros((20, 40, 3), np.uint8)
    stored[:5, :5] = 255  # row 0, column 0 of the stored picture
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif.get_ifd(0x8769)[0xA405] = 43
    options = {"quality": 100, "subsampling": 0} if kind == "JPEG" else {"lossless": True} if kind == "WEBP" else {}
    photo = read(encoded(stored, kind, exif=exif.tobytes(), **options))
    upright = np.where(photo.rgb > 127, np.uint8(255), np.uint8(0))
    assert photo.focal == pytest.approx(43 / 43.2666 * np.hypot(20, 40) / upright.shape[1], rel=1e-3)
    # EXIF 2.3, tag 274: which visual side row 0 and column 0 are
    row0, column0 = {1: "TL", 2: "TR", 3: "BR", 4: "BL", 5: "LT", 6: "RT", 7: "RB", 8: "LB"}[orientation]
    corner = {row0, column0}
    assert upright.shape == ((20, 40, 3) if orientation < 5 else (40, 20, 3))
    y, x = (slice(0, 5) if "T" in corner else slice(-5, None)), (slice(0, 5) if "L" in corner else slice(-5, None))
    assert (upright[y, x] == 255).all() and (upright == 255).all(-1).sum() == 25


def test_focal_length_from_exif():
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA405] = 43  # 43.27 mm is the diagonal of 36 x 24 mm: focal = diagonal
    photo = read(encoded(gradient(30, 40), "JPEG", exif=exif.tobytes()))
    assert photo.focal == pytest.approx(43 / 43.2666 * 50 / 40, rel=1e-3)
    assert read(encoded(gradient(30, 40), "JPEG")).focal is None


def test_gray_palette_bilevel_and_16_bit():
    gray = np.tile(np.arange(64, dtype=np.uint8) * 4, (10, 1))
    assert np.array_equal(read(encoded(gray)).rgb, np.repeat(gray[..., None], 3, 2))
    palette = Image.fromarray(gradient()).quantize(200)
    assert np.array_equal(read(encoded(palette)).rgb, np.array(palette.convert("RGB")))
    bits = Image.fromarray(gray).convert("1")
    assert np.array_equal(read(encoded(bits)).rgb[..., 0], np.array(bits) * np.uint8(255))
    deep = (np.arange(640, dtype=np.uint16) * 102).reshape(10, 64)
    for kind in ("PNG", "TIFF"):
        out = read(encoded(Image.fromarray(deep), kind)).rgb
        assert np.array_equal(out[..., 0], np.floor(deep / 257 + 0.5).astype(np.uint8)), kind
    clear = read(encoded(Image.fromarray(deep), "PNG", transparency=int(deep[0, 5])))
    assert (clear.pixels[..., 3] == np.where(deep == deep[0, 5], 0, 255)).all() and (deep == deep[0, 5]).sum() == 1


def test_cmyk_shows_its_colours():
    rgb = np.zeros((16, 48, 3), np.uint8)
    rgb[:, :16], rgb[:, 16:32], rgb[:, 32:] = [255, 0, 0], [0, 255, 0], [255, 255, 255]
    for kind in ("JPEG", "TIFF"):
        out = read(encoded(Image.fromarray(rgb).convert("CMYK"), kind)).rgb.astype(int)
        assert np.abs(out[4:12, 4:12] - rgb[4:12, 4:12]).max() < 30 and np.abs(out[4:12, 36:44] - 255).max() < 10, kind


def test_alpha_of_every_mode():
    alpha = np.tile(np.linspace(0, 255, 40).astype(np.uint8), (20, 1))
    rgba = np.dstack([gradient(20, 40), alpha])
    assert np.array_equal(read(encoded(rgba)).pixels, rgba)
    la = np.dstack([np.full((20, 40), 99, np.uint8), alpha])
    out = read(encoded(Image.fromarray(la))).pixels
    assert np.array_equal(out[..., 3], alpha) and (out[..., :3] == 99).all()
    keyed = Image.fromarray(gradient(20, 40)).quantize(16)
    out = read(encoded(keyed, "PNG", transparency=3)).pixels
    assert np.array_equal(out[..., 3] == 0, np.array(keyed) == 3)


@pytest.mark.parametrize(
    "bits,colour,clear,other",
    [
        (1, 0, (1,), (0,)),
        (2, 0, (2,), (1,)),
        (4, 0, (9,), (3,)),
        (8, 0, (200,), (7,)),
        (16, 0, (1000,), (40000,)),
        (8, 2, (1, 2, 3), (9, 9, 9)),
        (16, 2, (300, 70, 80), (50000, 1, 2)),
    ],
)
def test_the_transparent_colour_of_a_png_of_any_depth(bits, colour, clear, other):
    """tRNS (PNG specification, 11.3.2.1) names one value in the depth of the file."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    rows = [
        int("".join(f"{v:0{bits}b}" for v in value) * 8, 2).to_bytes(bits * len(value), "big")
        for value in (clear, other)
    ]
    data = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 2, bits, colour, 0, 0, 0))
        + chunk(b"tRNS", struct.pack(f">{len(clear)}H", *clear))
        + chunk(b"IDAT", zlib.compress(b"".join(b"\0" + r for r in rows)))
        + chunk(b"IEND", b"")
    )
    pixels = read(data).pixels
    assert (pixels[0, :, 3] == 0).all() and (pixels[1, :, 3] == 255).all()
    assert np.abs(pixels[:, 0, :3] / 255 - np.array([clear, other]) / (2**bits - 1)).max() <= 1 / 255


def test_icc_profile_becomes_srgb():
    lab = ImageCms.createProfile("LAB")
    assert lab  # the CMS is there
    swapped = _profile_with_swapped_red_and_green()
    pixels = np.full((8, 8, 3), [200, 60, 30], np.uint8)
    out = read(encoded(pixels, "PNG", icc_profile=swapped)).rgb[4, 4].astype(int)
    assert out[1] > out[0] + 50  # what the file calls red is its profile's green
    assert np.array_equal(read(encoded(pixels, "PNG", icc_profile=b"no profile at all")).rgb, pixels)


def _profile_with_swapped_red_and_green():
    """The sRGB profile with the tags of red and green exchanged."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    for k in range(int.from_bytes(data[128:132], "big")):
        at = 132 + 12 * k
        data[at : at + 4] = {b"rXYZ": b"gXYZ", b"gXYZ": b"rXYZ"}.get(bytes(data[at : at + 4]), bytes(data[at : at + 4]))
    name = bytes(data).find("sRGB".encode("utf-16-be"))
    if name > 0:
        data[name : name + 8] = "Mine".encode("utf-16-be")
    return bytes(data)


def test_one_pixel_and_very_long_thin_ones():
    for shape in ((1, 1, 3), (1, 5000, 3), (5000, 1, 3)):
        pixels = np.full(shape, 77, np.uint8)
        assert np.array_equal(read(encoded(pixels)).pixels, pixels)


@pytest.mark.parametrize(
    "data,error",
    [
        (b"", errors.EmptyFile),
        (b"hello, I am a text", errors.UnsupportedImage),
        (b"%PDF-1.4 ...", errors.UnsupportedImage),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", errors.UnsupportedImage),
        (b"PK\x03\x04", errors.UnsupportedImage),
        (b"\x89PNG\r\n\x1a\n", errors.CorruptImage),
        (b"\xff\xd8\xff\xe0", errors.CorruptImage),
        (b"GIF89a", errors.CorruptImage),
    ],
)
def test_what_is_no_photo(data, error):
    with pytest.raises(error):
        read(data)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "AVIF"])
def test_cut_short_is_corrupt(kind):
    data = encoded(np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8), kind)
    with pytest.raises(errors.CorruptImage):
        read(data[: len(data) * 2 // 3])


def test_pixels_are_counted_from_the_header():
    bomb = encoded(Image.new("1", (20_000, 20_000)))  # 400 megapixels in a few kilobytes
    assert len(bomb) < 100_000
    with pytest.raises(errors.ImageTooLarge):
        read(bomb)
    with pytest.raises(errors.ImageTooLarge):
        read(encoded(gradient(60, 80)), max_pixels=4799)
    assert read(encoded(gradient(60, 80)), max_pixels=4800).pixels.shape == (60, 80, 3)


def test_the_name_does_not_matter(client):
    answer = client.post("/upload", files={"file": ("evil/../../x.exe", encoded(gradient(), "JPEG"), "text/html")})
    assert answer.status_code == 200


def test_each_error_over_http(client, settings):
    for data, status, code in (
        (b"", 422, "empty_file"),
        (b"text", 415, "unsupported_image"),
        (encoded(gradient())[:100], 422, "corrupt_image"),
        (encoded(Image.new("1", (30_000, 30_000))), 413, "image_too_large"),
    ):
        problem(client.post("/upload", files={"file": ("a.png", data)}), status, code)
    limit = client.app.state.settings.max_upload_bytes
    problem(client.post("/upload", files={"file": ("a.png", b"\0" * (limit + 1))}), 413, "file_too_large")


def test_fit_within_never_enlarges():
    assert shrink_image(gradient(60, 80), 40).shape == (30, 40, 3)
    assert shrink_image(gradient(60, 80), 400).shape == (60, 80, 3)
    assert shrink_image(gradient(1, 500), 64).shape == (1, 64, 3)


def test_icc_profile_becomes_srgb_in_every_mode():
    """Alpha or a palette do not keep a photo's profile from being applied; alpha itself stays."""
    swapped = _profile_with_swapped_red_and_green()
    pixels = np.full((8, 8, 3), [200, 60, 30], np.uint8)
    want = read(encoded(pixels, "PNG", icc_profile=swapped)).rgb
    alpha = np.arange(64, dtype=np.uint8).reshape(8, 8)
    out = read(encoded(np.dstack([pixels, alpha]), "PNG", icc_profile=swapped)).pixels
    assert np.array_equal(out[..., :3], want) and np.array_equal(out[..., 3], alpha)
    palette = Image.fromarray(pixels).quantize(4)
    out = read(encoded(palette, "PNG", icc_profile=swapped)).rgb
    assert np.abs(out.astype(int) - want).max() <= 3


def test_a_large_16_bit_picture_is_whole(monkeypatch):
    monkeypatch.setattr("server.image.decode.BAND", 640)
    deep = (np.arange(6400, dtype=np.uint16) * 10).reshape(100, 64)
    assert np.array_equal(read(encoded(Image.fromarray(deep))).rgb[..., 0], np.floor(deep / 257 + 0.5).astype(np.uint8))


@pytest.mark.parametrize("millimetres, known", [(1, False), (28, True), (65535, False)])
def test_a_focal_length_that_no_camera_has_is_none(millimetres, known):
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA405] = millimetres
    assert (read(encoded(gradient(30, 40), "JPEG", exif=exif.tobytes())).focal is not None) == known
