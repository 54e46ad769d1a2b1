"""Photos in: whatever people upload becomes 8-bit sRGB, upright, with its alpha set aside."""

import io
import math
import struct
import warnings
import zlib
from typing import Any, BinaryIO, Callable, Optional, Tuple

import numpy as np
from PIL import Image, ImageCms, UnidentifiedImageError

from ..errors import CorruptImage, DamagedFile, EmptyFile, ImageTooLarge, UnsupportedImage

FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "TIFF", "BMP", "GIF")
# How a file of each kind begins: what begins so and does not open is damaged; what begins otherwise is no image of
# ours.
MAX_SIDE = 1_000_000  # what a PNG written by libpng may have
MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"II*\0", b"MM\0*", b"BM", b"GIF8", b"II+\0", b"MM\0+")
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


def heif_formats() -> Tuple[str, ...]:
    """("HEIF",) where pillow-heif is installed, else ()."""
    try:
        import pillow_heif  # type: ignore[import-not-found]  # optional: read HEIC where it is installed
    except ImportError:
        return ()
    pillow_heif.register_heif_opener(thumbnails=False)
    return ("HEIF",)


def _looks_like_image(head: bytes) -> bool:
    if head[:4] == b"RIFF":
        return head[8:12] == b"WEBP"
    return head.startswith(MAGIC) or (
        head[4:8] == b"ftyp" and head[8:12] in (b"avif", b"avis", b"heic", b"heix", b"mif1")
    )


def _open(file: BinaryIO, formats: Tuple[str, ...], max_pixels: int) -> Image.Image:
    """Read the header only. Raises EmptyFile, UnsupportedImage, CorruptImage, ImageTooLarge."""
    head = file.read(16)
    if not head:
        raise EmptyFile()
    file.seek(0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(file, formats=formats)
    except UnidentifiedImageError:
        raise (CorruptImage if _looks_like_image(head) else UnsupportedImage)() from None
    except Image.DecompressionBombError:
        raise ImageTooLarge(f"The image has more than {max_pixels} pixels. Make it smaller.") from None
    except Exception:
        raise CorruptImage() from None
    if image.width < 1 or image.height < 1:
        raise CorruptImage()
    if max(image.width, image.height) > MAX_SIDE:
        raise ImageTooLarge(
            f"The image is {image.width} x {image.height} pixels; no side may be longer than {MAX_SIDE}."
        )
    if image.width * image.height > max_pixels:
        raise ImageTooLarge(
            f"The image has {image.width} x {image.height} pixels; at most {max_pixels} are taken. Make it smaller."
        )
    return image


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
                "Samples of more than 16 bits or in floating point are not read. Save the image with 8 or 16 bits."
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


def read_upright(
    file: BinaryIO,
    max_pixels: int,
    formats: Tuple[str, ...] = FORMATS,
    opened: Callable[[int, int], None] = lambda w, h: None,
) -> Tuple[Image.Image, str, Optional[float]]:
    """A photo's first frame, upright (EXIF), in sRGB (ICC), as RGB or RGBA; its format; its focal length.

    The focal length is in picture widths, None where the file does not tell it.
    `file` is seekable and at its start; `opened(width, height)` is called when the header is read and no pixel decoded.
    Raises EmptyFile, UnsupportedImage, CorruptImage, ImageTooLarge.
    """
    image: Any = _open(file, formats, max_pixels)
    kind = image.format or ""
    opened(image.width, image.height)
    try:
        _clear_in_eight_bits(image)
        image.load()
        orientation, focal = _exif(image, image.width, image.height)  # only now: Pillow turns a TIFF while it loads it
        if image.width * image.height > max_pixels:
            raise ImageTooLarge()
        image = _eight_bits(image)
        if orientation in UPRIGHT:
            image = image.transpose(UPRIGHT[orientation])
    except (UnsupportedImage, ImageTooLarge):
        raise
    except MemoryError:
        raise ImageTooLarge("Decoding the image takes more memory than a photo of its size may.") from None
    except Exception:
        raise CorruptImage() from None
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
