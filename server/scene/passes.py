"""The two passes of an analysis that can be downloaded: normals.png and depth.png, made a band of rows at a time."""

from typing import Tuple

import numpy as np

from ..image.resample import Resampler, Size, bands, in_threads, shrink
from .geometry import Geometry
from .normals import normalise_in_place, normals_from_inverse_depth

PIXELS = 1 << 18  # of a band


def encode_normals(n: np.ndarray) -> np.ndarray:
    """Unit normals (..., 3) to 8 bits: R +x, G +y, B +z, round((n + 1) / 2 * 255)."""
    return np.clip(np.rint((n + 1) * np.float32(127.5)), 0, 255).astype(np.uint8)


def normals_pass(geometry: Geometry, size: Size, threads: int = 1) -> np.ndarray:
    """The normals (H, W, 3) uint8 of a picture of that size (H, W); see encode_normals."""
    n = geometry.normals
    if n is None:
        d = geometry.inverse_depth
        n = normals_from_inverse_depth(d - d.min() + 0.5 * max(float(np.ptp(d)), 1e-6), geometry.focal)
    planes = shrink(np.moveaxis(n, 2, 0).astype(np.float32), size)
    sampler = Resampler(planes.shape[1:], size)
    wide, out = sampler.widen(planes), np.empty((*size, 3), np.uint8)

    def fill(rows: slice) -> None:
        out[rows] = encode_normals(normalise_in_place(np.moveaxis(sampler.rows(wide, rows), 0, 2).copy()))

    in_threads(fill, bands(size, PIXELS), threads)
    return out


def depth_pass(geometry: Geometry, size: Size, threads: int = 1) -> np.ndarray:
    """The inverse depth (H, W) uint16 of a picture of that size (H, W), white near: 0 and 65535 are its depth_range."""
    plane = _depth(geometry, size)
    low, high = float(plane.min()), float(plane.max())
    scale = np.float32(65535 / (high - low) if high > low else 0)
    sampler = Resampler(plane.shape, size)
    wide, out = sampler.widen(plane), np.empty(size, np.uint16)

    def fill(rows: slice) -> None:
        band = sampler.rows(wide, rows)
        band -= np.float32(low)
        band *= scale
        out[rows] = np.clip(np.rint(band, out=band), 0, 65535, out=band)

    in_threads(fill, bands(size, PIXELS), threads)
    return out


def depth_range(geometry: Geometry, size: Size) -> Tuple[float, float]:
    """The least and the greatest inverse depth of a picture of that size (H, W)."""
    plane = _depth(geometry, size)
    return float(plane.min()), float(plane.max())


def _depth(geometry: Geometry, size: Size) -> np.ndarray:
    return shrink(geometry.inverse_depth[None].astype(np.float32), size)[0]
