"""Colours of PNGs that say by numbers, and not by a profile, what their samples mean."""

from typing import Any, Callable, List, Optional, Tuple

import numpy as np
from PIL import Image

from . import linear
from .curve import srgb_to_linear
from .metadata import PngColour

BAND = 1 << 18  # pixels converted at a time
SAME = 0.05  # gammas nearer to sRGB's 1/2.2 than this are sRGB's: libpng's PNG_GAMMA_THRESHOLD
SAMPLES = {"I;16B": 1, "LA;16B": 2, "RGB;16B": 3, "RGBA;16B": 4}  # Pillow's names of 16-bit layouts -> channels


class Conversion:
    """From the samples of a PNG to sRGB.

    `table(n)` is linear light by sample, (n,) float32 for samples 0..n-1; `matrix` is (3, 3) to sRGB's primaries, None
    where they are sRGB's.
    """

    def __init__(self, gamma: Optional[float], matrix: Optional[np.ndarray]):
        self.gamma, self.matrix = gamma, matrix

    def table(self, n: int) -> np.ndarray:
        """Linear light by sample (PNG specification, 13.13): (sample / most) ** (1 / gamma)."""
        samples = np.arange(n) / (n - 1)
        return (srgb_to_linear(samples) if self.gamma is None else samples ** (1 / self.gamma)).astype(np.float32)

    def codes(self, samples: np.ndarray, table: np.ndarray) -> np.ndarray:
        """(..., 3) or (...) samples as sRGB codes, uint8."""
        if self.matrix is None or samples.ndim < 3:
            return linear.encode(table)[samples]
        return linear.encode(table[samples] @ self.matrix.T.astype(np.float32))


def conversion(colour: PngColour, profile: bool) -> Optional[Conversion]:
    """What has to be done to a PNG that says `colour`; None: nothing, its samples are sRGB.

    Of several statements the first of cICP, a profile, sRGB, gAMA with cHRM counts (PNG specification, 4.3).
    """
    if colour.cicp or profile or colour.srgb:
        return None
    gamma = colour.gamma if colour.gamma and abs(colour.gamma * 2.2 - 1) >= SAME else None
    points: List[Tuple[float, float]] = list(zip(*[iter(colour.chromaticities or ())] * 2))
    matrix = linear.to_srgb(points[0], points[1:]) if points else None
    if gamma is not None and not 0.05 <= gamma <= 20:
        gamma = None  # no camera and no program means that
    return Conversion(gamma, matrix) if gamma or matrix is not None else None


def convert(image: Any, how: Conversion) -> Any:
    """An 8-bit RGB or RGBA image with its colours converted; alpha stays."""
    table = how.table(256)
    if how.matrix is None:
        lut = linear.encode(table).tolist()
        return image.point(lut * 3 + list(range(256)) * (len(image.mode) - 3))
    rows = max(1, BAND // image.width)
    for top in range(0, image.height, rows):
        box = (0, top, image.width, min(top + rows, image.height))
        band = np.array(image.crop(box))
        band[..., :3] = how.codes(band[..., :3], table)
        image.paste(Image.fromarray(band), (0, top))
    return image


def is_deep(image: Any) -> bool:
    """Does a PNG that is opened, and not loaded, hold 16 bits a channel?"""
    return bool(image.tile) and image.tile[0][3] in SAMPLES


def convert_deep(reopen: Callable[[], Any], how: Conversion) -> Any:
    """A PNG of 16 bits a channel, in full depth, as an 8-bit RGB or RGBA image.

    Pillow keeps the upper byte of each sample alone. So the lower ones are read as if they were the upper ones: the
    same file, in the other byte order. `reopen` opens it anew.
    """
    first = reopen()
    layout, clear = first.tile[0][3], first.info.get("transparency")
    if layout == "LA;16B":  # four bytes a pixel, as of RGBA
        first.tile = [(*first.tile[0][:3], "RGBA")]
    first.load()
    second = None
    if layout in ("RGB;16B", "RGBA;16B"):
        second = reopen()
        second.tile = [(*second.tile[0][:3], layout[:-1] + "L")]
        second.load()
    n = SAMPLES[layout]
    table = how.table(65536)
    keyed = clear is not None and layout in ("I;16B", "RGB;16B")
    out = Image.new("RGBA" if keyed or n in (2, 4) else "RGB", first.size)
    rows = max(1, BAND // first.width)
    for top in range(0, first.height, rows):
        box = (0, top, first.width, min(top + rows, first.height))
        samples = _deep(np.asarray(first.crop(box)), None if second is None else np.asarray(second.crop(box)), layout)
        colour = samples[..., 0] if n < 3 else samples[..., :3]
        codes = how.codes(colour, table)
        planes = [codes[..., None].repeat(3, -1) if n < 3 else codes]
        if keyed:
            planes.append(np.where((samples == np.asarray(clear)).all(-1), 0, 255).astype(np.uint8)[..., None])
        elif n in (2, 4):
            planes.append(((samples[..., -1:].astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8))
        out.paste(Image.fromarray(np.concatenate(planes, -1)), (0, top))
    return out


def _deep(upper: np.ndarray, lower: Optional[np.ndarray], layout: str) -> np.ndarray:
    """(h, w, n) uint16 from the bytes that Pillow read."""
    if layout == "I;16B":
        return upper.astype(np.uint16)[..., None]
    if lower is None:  # LA: L and A, two bytes each
        pairs = upper.astype(np.uint16)
        return pairs[..., 0::2] << 8 | pairs[..., 1::2]
    return upper.astype(np.uint16) << 8 | lower
