"""Cast shadows: the share of a lamp that each texel of a coarse grid sees, marched through the depth.

A ray of the scene is a straight line in (u, v, q), see scene/fit.py, so its steps are additions. A surface in front of
the ray stops it, unless it is so far in front that the ray passes behind the thing. Where there is no picture there is
no occluder. Each texel marches one ray, to its own point of the lamp and with its own offset of the steps; those of a 4
x 4 block are all different, and the average over a block, inside one surface, is the soft shadow. The pattern stands
still, so nothing swims.
"""

from typing import Tuple

import cv2
import numpy as np

from ..scene.normals import view_grid
from .lights import Light

STEPS = 12
BIAS = 0.004  # share of its depth by which a surface must be in front of the ray to stop it
THICKNESS = 0.35  # share of its depth: farther in front than about this, it lets the ray pass behind
SAME_SURFACE = 0.05  # share of the depth: texels closer than this are one surface

GOLDEN_ANGLE = 2.399963  # radians
_I = np.arange(16)
_RADIUS, _ANGLES = np.sqrt((_I + 0.5) / 16), _I * GOLDEN_ANGLE  # Vogel's spiral: even over the disc
DISC_POINTS = np.stack(
    [_RADIUS * np.cos(_ANGLES), _RADIUS * np.sin(_ANGLES), np.sqrt(1 - _RADIUS**2) * (-1.0) ** _I], 1
)
OFFSETS = (_I * 7 % 16 + 0.5) / 16  # of the steps
THICKNESSES = THICKNESS * (0.6 + 0.8 * (_I * 5 % 16 + 0.5) / 16)
BAYER_4X4 = np.array([[0, 8, 2, 10], [12, 4, 14, 6], [3, 11, 1, 9], [15, 7, 13, 5]])  # which sample at which texel
TAPS = (0.5, 1.0, 1.0, 1.0, 0.5)  # any 4 x 4 neighbours count alike


def area_light_samples(light: Light) -> np.ndarray:
    """(16, 3) float64: directions to (not of length 1) or positions of points spread over the lamp's face."""
    distant = light.kind == "directional"
    middle = np.array(light.direction if distant else light.position, np.float64)
    size = np.tan(np.radians(light.angle / 2)) if distant else light.radius
    length = np.linalg.norm(middle)
    z = middle / length if length > 1e-9 else np.array([0.0, 0.0, 1.0])
    x = np.cross([0.0, 1.0, 0.0] if abs(z[1]) < 0.9 else [1.0, 0.0, 0.0], z)
    x /= np.linalg.norm(x)
    face = np.stack([x, np.cross(z, x), z * (0.0 if distant else 1.0)])
    return middle + size * (DISC_POINTS @ face)


class ShadowGrid:
    """The depth q (h, w) float32 of a scene made ready for marching; visibility() may run in many threads."""

    def __init__(self, q: np.ndarray, focal: float):
        self.q, self.focal = q, float(focal)
        h, w = self.shape = q.shape
        self.u, self.v = view_grid(h, w)
        self.pattern = np.tile(BAYER_4X4, (h // 4 + 1, w // 4 + 1))[:h, :w]
        offset = OFFSETS.astype(np.float32)[self.pattern]
        self.early, self.later = offset * offset / 2, offset + np.float32(0.5)
        self.far_limit = np.float32(1) + THICKNESSES.astype(np.float32)[self.pattern]
        half = np.float32(h / (2 * w))
        self.limits = (
            (np.float32(0.5) - self.u, np.float32(-0.5) - self.u),
            (half - self.v[:, None], -half - self.v[:, None]),
            (q.max() - q, -q),
        )
        self.weights = [_weights(q, axis) for axis in (0, 1)]

    @property
    def nbytes(self) -> int:
        return sum(
            a.nbytes
            for a in (self.q, self.pattern, self.early, self.later, self.far_limit, *self.limits[2], *self.weights)
        )

    def visibility(self, light: Light) -> np.ndarray:
        """(h, w) float32 0..1: the share of the lamp that is seen."""
        blocked = np.zeros(self.shape, bool)
        sample, hit, passed = np.empty_like(self.q), np.empty_like(blocked), np.empty_like(blocked)
        start = (
            np.arange(self.shape[1], dtype=np.float32),
            np.arange(self.shape[0], dtype=np.float32)[:, None],
            self.q,
        )
        second_difference = [
            ray * np.float32(2 / STEPS**2) for ray in self._rays(light)
        ]  # place = ((i + offset) / STEPS)^2
        place = [t * self.early + a for t, a in zip(second_difference, start)]
        step = [t * self.later for t in second_difference]
        with np.errstate(divide="ignore", invalid="ignore"):
            for _ in range(STEPS):
                cv2.remap(
                    self.q,
                    place[0],
                    place[1],
                    cv2.INTER_LINEAR,
                    dst=sample,
                    borderMode=cv2.BORDER_CONSTANT,
                    borderValue=0,
                )
                np.divide(sample, place[2], out=sample)  # 1 + how far in front of the ray, in shares of the depth
                np.greater(sample, np.float32(1 + BIAS), out=hit)
                np.less(sample, self.far_limit, out=passed)
                np.logical_and(hit, passed, out=hit)
                np.logical_or(blocked, hit, out=blocked)
                for a, s, t in zip(place, step, second_difference):
                    cv2.add(a, s, dst=a)
                    cv2.add(s, t, dst=s)
        return self._smooth(np.subtract(1, blocked, dtype=np.float32))

    def _rays(self, light: Light) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
        """From each texel, in columns, rows and q, to where its ray leaves the scene or meets the lamp."""
        width = self.shape[1]
        distant = light.kind == "directional"
        points = area_light_samples(light)
        # The depth coordinate of u, v, q in homogeneous coordinates (x, y, w, depth).
        depths = (0 if distant else 1) - points[:, 2] / (2 * self.focal)
        longest = np.where(depths > 0, 0.999 / np.where(depths > 0, depths, 1), np.inf)
        x, y, depth, reach = (
            np.take(a.astype(np.float32), self.pattern, mode="clip")
            for a in (points[:, 0] / 2, points[:, 1] / 2, depths, longest)
        )
        rays = x - self.u * depth, y - self.v[:, None] * depth, np.float32(0 if distant else 1) - self.q * depth
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
            for ray, limits in zip(rays, self.limits):  # of the two limits of u, v or q one lies ahead
                np.fmin(reach, np.fmax(limits[0] / ray, limits[1] / ray), out=reach)
        reach[~np.isfinite(reach)] = 0
        for ray, texels in zip(rays, (width, -width, 1)):
            ray *= reach
            ray *= np.float32(texels)
        return rays

    def _smooth(self, seen: np.ndarray) -> np.ndarray:
        """The average over 4 x 4 texels of one surface, down the columns and then along the rows."""
        for axis, weights in enumerate(self.weights):
            total = seen * weights[2]
            for k in (0, 1, 3, 4):
                here, there = _shifted(axis, k - 2)
                total[here] += weights[k][here] * seen[there]
            seen = total
        return seen


def _shifted(axis: int, by: int) -> Tuple[Tuple[slice, slice], Tuple[slice, slice]]:
    """Slices of an array's texels and of their neighbours `by` texels on along an axis."""
    n = abs(by)
    here, there = (slice(None, -n), slice(n, None)) if by > 0 else (slice(n, None), slice(None, -n))
    if axis == 0:
        return (here, slice(None)), (there, slice(None))
    return (slice(None), here), (slice(None), there)


def _weights(q: np.ndarray, axis: int) -> np.ndarray:
    """(5, h, w) float32: what the neighbours along an axis count in the average; those of other surfaces nothing."""
    weights = np.zeros((5, *q.shape), np.float32)
    for k, tap in enumerate(TAPS):
        if k == 2:
            weights[k] = tap
        elif q.shape[axis] > abs(k - 2):
            here, there = _shifted(axis, k - 2)
            near, far = np.maximum(q[here], q[there]), np.minimum(q[here], q[there])
            weights[k][here] = np.float32(tap) * (near < far * np.float32(1 + SAME_SURFACE))
    return weights / weights.sum(0)
