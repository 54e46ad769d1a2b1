"""Photos in: whatever people upload becomes 8-bit sRGB, upright, with its alpha set aside.

Pillow reads most kinds of files. The decoders of the others are imported when the first such file comes, and cost the
start nothing: HEIC (pi-heif), JPEG XL (pillow-jxl-plugin), EXR (OpenEXR) and the readers of this package.
"""

import io
import math
import struct
import warnings
import zlib
from typing import Any, BinaryIO, Callable, Optional, Tuple

import numpy as np
from PIL import Image, ImageCms

from ..errors import CorruptImage, DamagedFile, EmptyFile, ImageTooLarge, UnsupportedImage
from . import metadata
from .signatures import HEAD, kind_of

FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "HEIF", "TIFF", "JPEG2000", "BMP", "GIF", "JXL", "EXR", "HDR")
MAX_SIDE = 1_000_000  # what a PNG written by libpng may have
DIAGONAL_35MM = math.hypot(36.0, 24.0)
EXIF_IFD, FOCAL_35MM = 0x8769, 0xA405
BAND = 1 << 20  # pixels converted at a time
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # EXIF orientation -> what makes it 1
PACKAGES = {"HEIF": ("HEIC", "pi-heif"), "JXL": ("JPEG XL", "pillow-jxl-plugin"), "EXR": ("EXR", "OpenEXR")}
EFFORT = {"JPEG2000": 2}  # CPU time of a pixel: lossless, 0.37 s a megapixel; other kinds take 0.1 to 0.24
Check = Callable[[int, int], None]


def size_check(max_pixels: int, effort: int, opened: Check) -> Check:
    """What every reader calls with width and height before it decodes a pixel.

    It raises CorruptImage or ImageTooLarge, and passes the first size alone on to `opened`: a file that is tried twice
    gets no more time than one. `effort` times as many pixels are told: those of JPEG 2000 take that much more time.
    """
    told: list = []

    def check(width: int, height: int) -> None:
        if width < 1 or height < 1:
            raise CorruptImage()
        if max(width, height) > MAX_SIDE:
            raise ImageTooLarge(f"The image is {width} x {height} pixels; no side may be longer than {MAX_SIDE}.")
        if width * height > max_pixels:
            raise ImageTooLarge(
                f"The image has {width} x {height} pixels; at most {max_pixels} are taken. Make it smaller."
            )
        if not told:
            told.append((width, height))
            opened(width, height * effort)

    return check


def plug_in(kind: str) -> None:
    """Load what reads that kind. Raises UnsupportedImage where the package is not installed."""
    try:
        if kind == "HEIF":
            import pi_heif

            pi_heif.register_heif_opener(thumbnails=False, depth_images=False, aux_images=False, decode_threads=1)
        elif kind == "JXL":
            import pillow_jxl.JpegXLImagePlugin as jxl

            jxl.DECODE_THREADS = 0
        elif kind == "EXR":
            import OpenEXR

            OpenEXR.set_global_thread_count(0)
    except ImportError:
        name, package = PACKAGES[kind]
        raise UnsupportedImage(
            f"{name} is read where the Python package {package} is installed beside the server, and here it is not. "
            "Save the image as JPEG or PNG."
        ) from None


def _open(data: bytes, kind: str, check: Check) -> Any:
    """Read the header only. Raises CorruptImage, ImageTooLarge."""
    if kind == "JXL":  # its plug-in decodes at once
        from . import jxl

        try:
            check(*jxl.size(data))
        except ValueError:
            raise CorruptImage() from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(data), formats=(kind,))
    except Image.DecompressionBombError:
        raise ImageTooLarge("The image has more pixels than are taken. Make it smaller.") from None
    except MemoryError:
        raise
    except Exception:
        raise CorruptImage() from None
    check(image.width, image.height)
    return image


def _open_any(data: bytes, kind: str, check: Check) -> Any:
    """The same; where the file is refused, without its metadata."""
    try:
        return _open(data, kind, check)
    except CorruptImage:
        for less in metadata.variants(kind, data):
            try:
                return _open(less, kind, check)
            except CorruptImage:
                continue
        raise


def _exif(image: Image.Image, w: int, h: int) -> Tuple[int, Optional[float]]:
    """(orientation 1..8, focal length in picture widths or None) for the upright size w x h.

    Damaged EXIF counts as none.
    """
    try:
        exif = image.getexif()
        orientation = exif.get(0x0112, 1)
        focal = exif.get_ifd(EXIF_IFD).get(FOCAL_35MM, 0)
        orientation = orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1
        focal = float(focal) if isinstance(focal, (int, float)) else 0.0
    except Exception:
        return 1, None
    if orientation >= 5:
        w, h = h, w
    # CIPA DC-008: the 35 mm equivalent has the same diagonal angle of view as on 36 x 24 mm film.
    return orientation, (focal / DIAGONAL_35MM * math.hypot(w, h) / w if 5 <= focal <= 2000 else None)


def _to_srgb(image: Image.Image) -> Image.Image:
    """Apply an embedded ICC profile; a missing or damaged one means sRGB."""
    icc = image.info.get("icc_profile")
    if not icc or image.mode not in ("RGB", "CMYK", "L"):
        return image
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(icc))
        if image.mode == "RGB" and "sRGB IEC61966-2.1" in (ImageCms.getProfileDescription(source) or ""):
            return image
        converted = ImageCms.profileToProfile(
            image,
            source,
            ImageCms.createProfile("sRGB"),
            outputMode="RGB",
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
        return converted if converted is not None else image
    except Exception:
        return image


def _sixteen_bits(image: Image.Image) -> Image.Image:
    """A 16-bit gray image as 8 bits, rounded. Raises UnsupportedImage for samples that do not fit 16 bits."""
    out = Image.new("L", image.size)
    rows = max(1, BAND // image.width)
    for top in range(0, image.height, rows):
        values = np.asarray(image.crop((0, top, image.width, min(top + rows, image.height))))
        if values.dtype.kind not in "iu" or values.min() < 0 or values.max() > 65535:
            raise UnsupportedImage(
                "Samples of more than 16 bits are not read in this kind of file. Save the image with 8 or 16 bits."
            )
        out.paste(Image.fromarray(((values.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)), (0, top))
    return out


def _as(image: Image.Image, mode: str) -> Image.Image:
    """In that mode, without a copy where it is already."""
    return image if image.mode == mode else image.convert(mode)


def _clear_in_eight_bits(image: Any) -> None:
    """The one transparent value (PNG's tRNS) in the depth the pixels will have: Pillow leaves it in the file's own."""
    clear, raw = image.info.get("transparency"), image.tile[0][3] if image.tile else ""
    if isinstance(clear, int) and raw in ("1", "L;2", "L;4"):
        image.info["transparency"] = 255 * bool(clear) if raw == "1" else clear * (85 if raw == "L;2" else 17)
    elif (
        isinstance(clear, tuple) and raw == "RGB;16B"
    ):  # Pillow drops the lower byte of the pixels: what differs in it alone
        image.info["transparency"] = tuple(v >> 8 for v in clear)  # is transparent too


def _eight_bits(image: Image.Image) -> Image.Image:
    """Any mode as RGB or RGBA. Raises UnsupportedImage for modes that have no such meaning."""
    mode = image.mode
    if mode.startswith("I") or mode == "F":
        rgb = _as(_sixteen_bits(image), "RGB")
        clear = image.info.get("transparency")
        if isinstance(clear, int):  # the one value that is transparent (PNG's tRNS)
            rgb.putalpha(Image.fromarray(np.where(np.asarray(image) == clear, np.uint8(0), np.uint8(255))))
        return rgb
    if mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        if not image.info.get("icc_profile"):
            return _as(image, "RGBA")
        alpha = _as(image, "RGBA").getchannel("A")
        rgb = _as(_to_srgb(image.convert("L" if mode == "LA" else "RGB")), "RGB")
        rgb.putalpha(alpha)
        return rgb
    if mode in ("P", "1", "YCbCr"):
        return _to_srgb(image.convert("RGB"))
    if mode in ("RGB", "L", "CMYK"):
        return _as(_to_srgb(image), "RGB")
    raise UnsupportedImage(f"Images in colour mode {mode} are not read. Save it as RGB.")


def _upright(image: Any, orientation: int) -> Any:
    return image.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else image


def _by_pillow(image: Any, max_pixels: int, convert: Callable[[Any], Any]) -> Tuple[Any, Optional[float]]:
    """An image that Pillow has opened, upright, and its focal length. `convert` makes RGB or RGBA of what is loaded."""
    orientation, focal = 1, None
    try:
        _clear_in_eight_bits(image)
        image.load()
        orientation, focal = _exif(image, image.width, image.height)  # only now: Pillow turns a TIFF while it loads it
    except (MemoryError, UnsupportedImage, ImageTooLarge):
        raise
    except Exception:
        raise CorruptImage() from None
    if image.width * image.height > max_pixels:
        raise ImageTooLarge()
    return _upright(convert(image), orientation), focal


def _read_png(data: bytes, max_pixels: int, check: Check) -> Tuple[Any, Optional[float]]:
    """A PNG, without its texts; its gAMA and cHRM are applied."""
    data, colour = metadata.png(data)
    image = _open(data, "PNG", check)
    if colour == metadata.PngColour():
        return _by_pillow(image, max_pixels, _eight_bits)
    from . import png_colour

    how = png_colour.conversion(colour, bool(image.info.get("icc_profile")))
    if how is None:
        return _by_pillow(image, max_pixels, _eight_bits)
    if not png_colour.is_deep(image):
        return _by_pillow(image, max_pixels, lambda loaded: png_colour.convert(_eight_bits(loaded), how))

    def deep(loaded: Any) -> Any:
        return png_colour.convert_deep(lambda: _open(data, "PNG", check), how)

    return _by_pillow(image, max_pixels, deep)


def _read_tiff(data: bytes, max_pixels: int, check: Check) -> Tuple[Any, Optional[float]]:
    """A TIFF by Pillow, or where it reads that kind not, or not rightly, by our own reader."""
    from . import tiff

    found = tiff.directory(data)
    if tiff.is_raw(data, found):
        raise UnsupportedImage(
            "Raw files of cameras are not read. Develop the photo and save it as JPEG, HEIC or TIFF."
        )
    if not tiff.needs_us(found):
        for make in (lambda: data, lambda: tiff.bare(data)):
            try:
                return _by_pillow(_open(make(), "TIFF", check), max_pixels, _eight_bits)
            except CorruptImage:
                continue
        if found.one(tiff.BITS, 1) < 8 or found.one(tiff.COMPRESSION, 1) in (6, 7):
            raise CorruptImage()
    return _upright(tiff.read(data, check), tiff.orientation(data)), None


def _read(data: bytes, kind: str, max_pixels: int, check: Check) -> Any:
    if kind == "PNG":
        return _read_png(data, max_pixels, check)
    if kind == "TIFF":
        return _read_tiff(data, max_pixels, check)
    plug_in(kind)
    if kind == "EXR":
        from . import exr

        return exr.read(data, check), None
    if kind == "HDR":
        from . import radiance

        return radiance.read(data, check), None
    return _by_pillow(_open_any(data, kind, check), max_pixels, _eight_bits)


def read_upright(
    file: BinaryIO,
    max_pixels: int,
    formats: Tuple[str, ...] = FORMATS,
    opened: Check = lambda w, h: None,
) -> Tuple[Image.Image, str, Optional[float]]:
    """A photo's first frame, upright (EXIF), in sRGB (ICC), as RGB or RGBA; its format; its focal length.

    The focal length is in picture widths, None where the file does not tell it.
    `file` is seekable and at its start; `opened(width, height)` is called when the header is read and no pixel
    decoded; where a pixel takes more time than usual, with a greater height.
    Raises EmptyFile, UnsupportedImage, CorruptImage, ImageTooLarge.
    """
    head = file.read(HEAD)
    if not head:
        raise EmptyFile()
    file.seek(0)
    kind = kind_of(head)
    if kind is None or kind not in formats:
        raise UnsupportedImage()
    data = file.read()
    try:
        image, focal = _read(data, kind, max_pixels, size_check(max_pixels, EFFORT.get(kind, 1), opened))
    except MemoryError:
        raise ImageTooLarge("Decoding the image takes more memory than a photo of its size may.") from None
    except CorruptImage:
        reason = metadata.rare_coding(kind, data)
        if reason:
            raise UnsupportedImage(reason) from None
        raise
    return image, kind, focal


def read_png(data: bytes) -> np.ndarray:
    """A PNG of our own making, as (H, W, 3) or (H, W, 4) uint8. Raises DamagedFile."""
    try:
        return np.array(Image.open(io.BytesIO(data), formats=("PNG",)))
    except (
        OSError,
        SyntaxError,
        ValueError,
        EOFError,
        struct.error,
        zlib.error,
    ) as exc:  # what Pillow raises for damaged bytes
        raise DamagedFile("no readable PNG") from exc
