"""Normals from depth."""

from typing import Optional, Tuple

import numpy as np

FOCAL = 0.96  # picture widths: 55 degrees across, when nothing is known


def view_grid(h: int, w: int) -> Tuple[np.ndarray, np.ndarray]:
    """Where the centres of an (h, w) grid lie, in picture widths from its middle: u (w,) right, v (h,) up, float32."""
    u = ((np.arange(w) + 0.5) / w - 0.5).astype(np.float32)
    v = ((h / 2 - np.arange(h) - 0.5) / w).astype(np.float32)
    return u, v


def scene_positions(
    q: np.ndarray, u: np.ndarray, v: np.ndarray, focal: float
) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scene positions x, y, z, three planes (h, w) float32, of the places u (w,) and v (h,), see view_grid.

    q: (h, w) float32, relative inverse depth, see fit.py. focal: in picture widths.
    """
    depth = 1 / q
    x, y = 2 * u * depth, 2 * v[:, None] * depth
    depth -= 1
    depth *= np.float32(-2 * focal)
    return x, y, depth


def normals_from_inverse_depth(inverse_depth: np.ndarray, focal: Optional[float] = None) -> np.ndarray:
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
    return normalise_in_place(n)


def _flatter(q: np.ndarray, axis: int) -> np.ndarray:
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


def normalise_in_place(n: np.ndarray) -> np.ndarray:
    """Vectors (..., 3) float32 scaled to length 1 in place; a zero vector becomes (0, 0, 1)."""
    length = np.sqrt(np.einsum("...i,...i->...", n, n))
    lost = length < 1e-8
    if lost.any():
        n[lost] = (0, 0, 1)
        length[lost] = 1
    n /= length[..., None]
    return n
