"""Ambient occlusion: how much of the light from everywhere the surroundings of a point let through."""

import cv2
import numpy as np

from ..scene.normals import normals_from_inverse_depth, view_grid

RADIUS = 0.3  # of the surroundings that count, in half picture widths at the median surface
DIRECTIONS, STEPS = 8, 4
BIAS = 0.1  # sine of the elevation under which nothing occludes


def ambient_occlusion(q: np.ndarray, focal: float) -> np.ndarray:
    """(h, w) float32 0..1, 1 in the open, from the relative inverse depth q (h, w).

    Horizon-based (Bavoil, Sainz: Image-Space Horizon-Based Ambient Occlusion, 2008) against the normals of the depth.
    """
    h, w = q.shape
    u, v = view_grid(h, w)
    f = np.float32(2 * focal)

    def position(q: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
        return np.stack([2 * u / q, 2 * v / q, f * (1 - 1 / q)])

    n = np.moveaxis(normals_from_inverse_depth(q, focal), 2, 0)
    U, V = np.broadcast_to(u, (h, w)), np.broadcast_to(v[:, None], (h, w))
    here = position(q, U, V)
    column, row = np.arange(w, dtype=np.float32)[None, :], np.arange(h, dtype=np.float32)[:, None]
    reach = (np.float32(RADIUS / 2) * q).astype(np.float32)  # picture widths
    blocked = np.zeros((h, w), np.float32)
    for k in range(DIRECTIONS):
        a = 2 * np.pi * (k + 0.5) / DIRECTIONS
        horizon = np.zeros((h, w), np.float32)
        for step in range(1, STEPS + 1):
            du, dv = np.float32(np.cos(a) * step / STEPS) * reach, np.float32(np.sin(a) * step / STEPS) * reach
            there = cv2.remap(
                q,
                column + du * np.float32(w),
                row - dv * np.float32(w),
                cv2.INTER_LINEAR,
                borderMode=cv2.BORDER_CONSTANT,
                borderValue=1e-3,
            )  # no picture: far away
            to = position(there, U + du, V + dv) - here
            square = np.maximum((to * to).sum(0), np.float32(1e-12))
            rise = (to * n).sum(0) / np.sqrt(square) - np.float32(BIAS)
            np.maximum(horizon, rise * np.maximum(0, 1 - square / np.float32(RADIUS**2)), out=horizon)
        blocked += horizon
    ao = 1 - blocked / np.float32(DIRECTIONS * (1 - BIAS))
    return cv2.blur(np.clip(ao, 0, 1), (3, 3))
