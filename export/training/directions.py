"""The directions in which a network says what a surface sees."""

from __future__ import annotations

import numpy as np

RINGS = ((0.0, 1), (26.0, 5), (50.0, 10), (72.0, 12), (94.0, 12))  # degrees from the view axis, number of directions


def directions() -> np.ndarray:
    """(40, 3) float32 unit vectors toward the light, +x right, +y up, +z toward the viewer, 22 to 32 degrees apart.

    The set is its own mirror image (x to -x). Its last ring lies a little behind the picture's plane.
    """
    rows = []
    for k, (theta, n) in enumerate(RINGS):
        azimuth = np.pi / 2 + 2 * np.pi * (np.arange(n) + 0.5 * (k % 2)) / n
        t = np.radians(theta)
        rows += [(np.sin(t) * np.cos(a), np.sin(t) * np.sin(a), np.cos(t)) for a in azimuth]
    return np.array(rows, np.float32)
