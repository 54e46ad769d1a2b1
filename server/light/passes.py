"""The passes that follow from a photograph's maps: albedo.png, shading.png and surface.png.

The shading is the photograph's own light, as relighting divides it out with delight 1; its mean over the surfaces is 1.
The albedo is the photograph without it: linear photograph = albedo * shading * factor, of the 8-bit files too. Where
the photograph is brighter than any albedo would make it, the shading is brighter instead; what is no surface keeps its
colours as its albedo.
"""

from typing import List, Tuple

import cv2
import numpy as np

from ..image.resample import in_threads
from ..image.srgb import decode, encode
from .maps import Maps, mean_of_light

# Times the mean: the greatest factor. With more, a code of a dark albedo would be more than a code of the photograph.
BRIGHTEST = 2.4


def shading_factor(samples: np.ndarray) -> float:
    """What shading.png is scaled by, 1..BRIGHTEST, from the logarithm of a photograph's own light (n,) float32."""
    bright = float(np.exp(np.percentile(samples, 99.5))) / mean_of_light(samples, 1.0)
    return round(min(max(bright, 1.0), BRIGHTEST), 4)


def own_light(maps: Maps, rows: slice, factor: float) -> Tuple[np.ndarray, List[np.ndarray]]:
    """Rows of shading.png, (r, W) uint8, and of albedo.png, three planes (r, W) uint8."""
    band = maps.band(rows)
    photo = [decode(c) for c in band.codes]
    shading = band.log_light - np.float32(np.log(mean_of_light(maps.shared.light_samples, 1.0)))
    if band.share is not None:
        shading *= band.share
    shading = np.exp(shading - np.float32(np.log(factor)), out=shading)
    largest = cv2.max(cv2.max(photo[0], photo[1]), photo[2]).reshape(shading.shape)
    shading = np.minimum(np.maximum(shading, largest * np.float32(1 / factor)), 1)
    codes = np.maximum(encode(shading), 1)
    scale = np.float32(1 / factor) / decode(codes)
    return codes, [encode(c * scale) for c in photo]


def shading_pass(maps: Maps, factor: float, threads: int = 1) -> np.ndarray:
    """shading.png, (H, W, 3) uint8."""
    out = np.empty((*maps.size, 3), np.uint8)

    def fill(rows: slice) -> None:
        out[rows] = own_light(maps, rows, factor)[0][..., None]

    in_threads(fill, maps.bands(threads), threads)
    return out


def albedo_pass(maps: Maps, factor: float, threads: int = 1) -> np.ndarray:
    """albedo.png, (H, W, 3) uint8."""
    out = np.empty((*maps.size, 3), np.uint8)

    def fill(rows: slice) -> None:
        cv2.merge(own_light(maps, rows, factor)[1], dst=out[rows])

    in_threads(fill, maps.bands(threads), threads)
    return out


def surface_pass(maps: Maps, threads: int = 1) -> np.ndarray:
    """surface.png, (H, W) uint8: 255 a surface, 0 sky or void."""
    out = np.full(maps.size, 255, np.uint8)

    def fill(rows: slice) -> None:
        share = maps.band(rows).share
        if share is not None:
            np.rint(share * np.float32(255), out=out[rows], casting="unsafe")

    in_threads(fill, maps.bands(threads), threads)
    return out
