"""Normals from depth, and the two passes that can be downloaded."""

from typing import Optional, Tuple

import numpy as np

from .geometry import Geometry
from .resample import Resampler, shrink

FOCAL = 0.96  # picture widths: 55 degrees across, when nothing is known


def view_grid(h: int, w: int) -> Tuple[np.ndarray, np.ndarray]:
    """Where the centres of an (h, w) grid lie, in picture widths from its middle: u (w,) right, v (h,) up, float32."""
    u = ((np.arange(w) + 0.5) / w - 0.5).astype(np.float32)
    v = ((h / 2 - np.arange(h) - 0.5) / w).astype(np.float32)
    return u, v


def normals_from_depth(inverse_depth: np.ndarray, focal: Optional[float] = None) -> np.ndarray:
    """Unit normals (h, w, 3) float32 of a perspective depth map (h, w) of positive inverse depths (any scale).

    Of the two one-sided differences along each axis the flatter one counts, so that no normal mixes the two sides of
    a silhouette. In u, v (picture widths) and q = 1 / Z a surface has the normal (-f q_u, -f q_v, q - u q_u - v q_v).
    """
    q = np.ascontiguousarray(inverse_depth, np.float32)
    f = np.float32(focal or FOCAL)
    h, w = q.shape
    u, v = view_grid(h, w)
    qu, qv = _flatter(q, 1) * np.float32(w), -_flatter(q, 0) * np.float32(w)
    n = np.empty((h, w, 3), np.float32)
    np.multiply(qu, -f, out=n[..., 0])
    np.multiply(qv, -f, out=n[..., 1])
    n[..., 2] = q - u * qu - v[:, None] * qv
    return normalised(n)


def _flatter(q, axis):
    """The one-sided difference per grid step whose size is smaller, along one axis."""
    step = np.diff(q, axis=axis)
    pad = [(0, 0), (0, 0)]
    if step.shape[axis] == 0:
        return np.zeros_like(q)
    pad[axis] = (0, 1)
    ahead = np.pad(step, pad, mode="edge")
    pad[axis] = (1, 0)
    behind = np.pad(step, pad, mode="edge")
    return np.where(np.abs(ahead) < np.abs(behind), ahead, behind)


def normalised(n: np.ndarray) -> np.ndarray:
    """Vectors (..., 3) float32 scaled to length 1 in place; a zero vector becomes (0, 0, 1)."""
    length = np.sqrt(np.einsum("...i,...i->...", n, n))
    lost = length < 1e-8
    if lost.any():
        n[lost] = (0, 0, 1)
        length[lost] = 1
    n /= length[..., None]
    return n


def encode_normals(n: np.ndarray) -> np.ndarray:
    """Unit normals (..., 3) to 8 bits: R +x, G +y, B +z, round((n + 1) / 2 * 255)."""
    return np.clip(np.rint((n + 1) * np.float32(127.5)), 0, 255).astype(np.uint8)


def full_size_passes(geometry: Geometry, rgb: np.ndarray):
    """The passes at the size of rgb (H, W, 3) uint8: normals uint8 (H, W, 3), depth uint16 (H, W), (dmin, dmax).

    Depth is the inverse depth, white near: its own minimum and maximum map to 0 and 65535.
    """
    size = rgb.shape[:2]
    n = geometry.normals
    if n is None:
        d = geometry.inverse_depth
        n = normals_from_depth(d - d.min() + 0.5 * max(float(np.ptp(d)), 1e-6), geometry.focal)
    planes = shrink(np.concatenate([np.moveaxis(n, 2, 0), geometry.inverse_depth[None]]).astype(np.float32), size)
    sampler = Resampler(planes.shape[1:], size)
    wide = [sampler.widen(p) for p in planes]
    low, high = float(planes[3].min()), float(planes[3].max())
    scale = np.float32(65535 / (high - low) if high > low else 0)
    normals, depth = np.empty(size + (3,), np.uint8), np.empty(size, np.uint16)
    for start in range(0, size[0], 256):
        rows = slice(start, min(start + 256, size[0]))
        band = [sampler.rows(p, rows) for p in wide]
        normals[rows] = encode_normals(normalised(np.stack(band[:3], axis=2)))
        depth[rows] = np.rint((band[3] - np.float32(low)) * scale)
    return normals, depth, (low, high)
