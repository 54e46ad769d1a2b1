"""Cast shadows: how much of a lamp each texel of a coarse grid sees, marched through the depth."""
import cv2
import numpy as np

from .lights import Light
from .normals import view_grid

SIDE = 256  # long side of the grid
STEPS = 24
BIAS = 0.012  # share of the depth by which a surface must be in front of the ray
THICKNESS = 0.35  # share of the depth: what is farther in front of the ray lets it pass behind


def homogeneous(light: Light, focal: float):
    """The lamp in the space where scene lines are straight in u, v, q: (x, y, w, depth), w = 0 for a distant one."""
    at_infinity = light.kind == "directional"
    x, y, z = light.direction if at_infinity else light.position
    w = 0.0 if at_infinity else 1.0
    return x / 2, y / 2, w, w - z / (2 * focal)


def visibility(light: Light, q: np.ndarray, focal: float) -> np.ndarray:
    """(h, w) float32 0..1: the share of the lamp seen from each texel of the relative inverse depth q (h, w)."""
    h, w = q.shape
    u, v = view_grid(h, w)
    lx, ly, lw, lz = (np.float32(c) for c in homogeneous(light, focal))
    du = lx - u[None, :] * lz + np.zeros((h, 1), np.float32)
    dv = ly - v[:, None] * lz + np.zeros((1, w), np.float32)
    dq = lw - q * lz
    with np.errstate(divide="ignore", invalid="ignore"):
        reach = np.minimum(np.where(du > 0, 0.5 - u, 0.5 + u) / np.abs(du),
                           np.where(dv > 0, h / (2 * w) - v[:, None], h / (2 * w) + v[:, None]) / np.abs(dv))
        reach = np.minimum(reach, np.where(dq > 0, (q.max() - q) / dq, np.inf))
    if lw and lz > 0:
        reach = np.minimum(reach, 1 / lz)
    reach = np.where(np.isfinite(reach), reach, 0).astype(np.float32)
    seen = np.zeros((h, w), np.uint8)
    column = (u * w + (w - 1) / 2)[None, :]
    row = ((h - 1) / 2 - v * w)[:, None]
    du *= reach * np.float32(w)
    dv *= reach * np.float32(-w)
    dq *= reach
    sample = np.empty_like(q)
    for step in range(1, STEPS + 1):
        s = np.float32((step / STEPS) ** 2)
        ray = q + s * dq
        cv2.remap(q, column + s * du, row + s * dv, cv2.INTER_LINEAR, dst=sample, borderMode=cv2.BORDER_CONSTANT)
        sample /= ray
        seen |= cv2.inRange(sample, 1 + BIAS, 1 + THICKNESS)
    return 1 - cv2.blur(seen, (3, 3)).astype(np.float32) / 255
