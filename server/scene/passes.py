"""The two passes of an analysis that can be downloaded: normals.png and depth.png."""

from typing import Tuple

import numpy as np

from ..image.resample import Resampler, shrink
from .geometry import Geometry
from .normals import normalise_in_place, normals_from_inverse_depth


def encode_normals(n: np.ndarray) -> np.ndarray:
    """Unit normals (..., 3) to 8 bits: R +x, G +y, B +z, round((n + 1) / 2 * 255)."""
    return np.clip(np.rint((n + 1) * np.float32(127.5)), 0, 255).astype(np.uint8)


def full_size_passes(geometry: Geometry, rgb: np.ndarray) -> Tuple[np.ndarray, np.ndarray, Tuple[float, float]]:
    """The passes at the size of rgb (H, W, 3) uint8: normals uint8 (H, W, 3), depth uint16 (H, W), (dmin, dmax).

    Depth is the inverse depth, white near: its own minimum and maximum map to 0 and 65535.
    """
    size = rgb.shape[:2]
    n = geometry.normals
    if n is None:
        d = geometry.inverse_depth
        n = normals_from_inverse_depth(d - d.min() + 0.5 * max(float(np.ptp(d)), 1e-6), geometry.focal)
    planes = shrink(np.concatenate([np.moveaxis(n, 2, 0), geometry.inverse_depth[None]]).astype(np.float32), size)
    sampler = Resampler(planes.shape[1:], size)
    wide = [sampler.widen(p) for p in planes]
    low, high = float(planes[3].min()), float(planes[3].max())
    scale = np.float32(65535 / (high - low) if high > low else 0)
    normals, depth = np.empty((*size, 3), np.uint8), np.empty(size, np.uint16)
    for start in range(0, size[0], 256):
        rows = slice(start, min(start + 256, size[0]))
        band = [sampler.rows(p, rows) for p in wide]
        normals[rows] = encode_normals(normalise_in_place(np.stack(band[:3], axis=2)))
        depth[rows] = np.rint((band[3] - np.float32(low)) * scale)
    return normals, depth, (low, high)
