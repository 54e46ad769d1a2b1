"""Equirectangular pictures of light, twice as wide as high, as linear light reduced to what lighting a photo takes.

NumPy and Pillow alone, for the decoder processes. Whatever the file, a band of rows is in memory as floats at a time,
but for EXR, which is decoded at once.
"""

from typing import BinaryIO, Callable, Iterator, List, Tuple

import numpy as np
from PIL import Image

from ..errors import CorruptImage, EmptyFile, ImageTooLarge, InvalidRequest, UnsupportedImage
from . import decode, exr, radiance
from .curve import srgb_to_linear
from .signatures import HEAD, kind_of

FORMATS = ("HDR", "EXR", "PNG", "JPEG", "WEBP")
WIDTH, HEIGHT = 512, 256  # at most, when reduced
ASPECT = 0.01  # how far off 2 : 1
BAND = 1 << 18  # pixels converted at a time
BRIGHTEST = 65504.0  # what half floats reach
SUMMED = 1e30  # radiance beyond that is cut off before it is averaged: sums of it would not be finite
BY_CODE = srgb_to_linear(np.arange(256) / 255).astype(np.float32)

Check = Callable[[int, int], None]


def read(file: BinaryIO, max_pixels: int, opened: Check = lambda w, h: None) -> np.ndarray:
    """Linear light (h, w, 3) float16, at most HEIGHT x WIDTH, each the mean of what it covers; negative light is none.

    file, opened: as of decode.read_upright. Transparent is dark. Raises EmptyFile, UnsupportedImage, CorruptImage, also
    for values that are not finite, ImageTooLarge, and InvalidRequest where it is not twice as wide as high.
    """
    head = file.read(HEAD)
    if not head:
        raise EmptyFile()
    kind = kind_of(head)
    if kind not in FORMATS:
        raise UnsupportedImage("An environment is a Radiance HDR, OpenEXR, PNG, JPEG or WebP file.")
    file.seek(0)
    try:
        if kind in ("HDR", "EXR"):
            check = decode.size_check(max_pixels, 1, opened)
            size, bands = (_hdr if kind == "HDR" else _exr)(file.read(), check)
        else:
            size, bands = _coded(decode.read_upright(file, max_pixels, FORMATS, opened)[0])
        return _reduced(size, bands)
    except MemoryError:
        raise ImageTooLarge("Decoding the image takes more memory than one of its size may.") from None


def _hdr(data: bytes, check: Check) -> Tuple[Tuple[int, int], Iterator[np.ndarray]]:
    picture = radiance.Picture(data, check)
    size = picture.height, picture.width
    return size, (picture.light(top, bottom) for top, bottom in _parts(size))


def _exr(data: bytes, check: Check) -> Tuple[Tuple[int, int], Iterator[np.ndarray]]:
    decode.plug_in("EXR")
    bands, n = exr.light(data, check)
    size = sum(map(len, bands)), bands[0].shape[1]

    def lit(bands: List[np.ndarray]) -> Iterator[np.ndarray]:
        while bands:
            band = bands.pop(0)
            light = np.broadcast_to(band[..., :n], (*band.shape[:2], 3))
            yield light * np.clip(band[..., n:], 0, 1) if band.shape[2] > n else light

    return size, lit(bands)


def _coded(image: Image.Image) -> Tuple[Tuple[int, int], Iterator[np.ndarray]]:
    size = image.height, image.width

    def lit() -> Iterator[np.ndarray]:
        for top, bottom in _parts(size):
            codes = np.asarray(image.crop((0, top, size[1], bottom)))
            light = BY_CODE[codes[..., :3]]
            yield light * (codes[..., 3:] * np.float32(1 / 255)) if codes.shape[2] == 4 else light

    return size, lit()


def _parts(size: Tuple[int, int]) -> Iterator[Tuple[int, int]]:
    rows = max(1, BAND // size[1])
    return ((top, min(top + rows, size[0])) for top in range(0, size[0], rows))


def _reduced(size: Tuple[int, int], bands: Iterator[np.ndarray]) -> np.ndarray:
    """First along the rows, a band at a time."""
    h, w = size
    if abs(w / (2 * h) - 1) > ASPECT:
        raise InvalidRequest(f"An environment is an equirectangular picture, twice as wide as high; this is {w} x {h}.")
    narrow, top = np.empty((h, min(w, WIDTH), 3), np.float32), 0
    for band in bands:
        if not np.isfinite(band).all():
            raise CorruptImage("The picture holds values that are not finite. Export it again without them.")
        band = np.clip(band, 0, np.float32(SUMMED))
        narrow[top : top + len(band)] = _means(band, len(band), narrow.shape[1])
        top += len(band)
    return np.minimum(_means(narrow, min(h, HEIGHT), narrow.shape[1]), np.float32(BRIGHTEST)).astype(np.float16)


def _means(light: np.ndarray, h: int, w: int) -> np.ndarray:
    """(h, w, 3) float32: a picture that is no smaller, every pixel the mean of what it covers."""
    if light.shape[:2] == (h, w):
        return light
    planes = [Image.fromarray(np.ascontiguousarray(light[..., k])) for k in range(3)]
    return np.stack([np.asarray(p.resize((w, h), Image.Resampling.BOX)) for p in planes], 2)
