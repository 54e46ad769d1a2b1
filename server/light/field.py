"""What a scene's surfaces see, looked up for a light.

A network says, once for a photograph and whatever the lights, which share of a distant light arrives from each of many
directions (Sloan, Kautz, Snyder, "Precomputed radiance transfer", 2002; by a network: Kanamori, Endo, "Relighting
humans", 2018). A light's shadow is the mean of the directions around it, weighted by a von Mises-Fisher distribution
(Fisher, "Dispersion on a sphere", 1953) as wide as the directions are apart, wider for a large source: it is smooth in
the light, so nothing flickers. Directions below a surface's own horizon say nothing of it, and do not count.

Of an environment, each direction stands for the light around it: what arrives is the sum over the directions of that
light times the share that is seen times the cosine. Directions behind the picture, which no network says anything of,
are the mirror images of the others, and ambient occlusion says what is seen of them.
"""

from typing import Any, Callable, Tuple

import cv2
import numpy as np

from ..scene.geometry import Visibility
from ..scene.normals import scene_positions, view_grid
from .environment import Kernel, Places, places, solid_angles, spread, texel_directions
from .lights import Light

HORIZON = 8.0  # times n.d, at most 1: how far a direction counts that is just above the horizon
TEXELS = 2048  # looked up at a time: their weights stay in the processor's cache
NEGLIGIBLE = 1e-6  # of the weight of all directions
SPREAD = 0.4  # of the mean distance between neighbouring directions: standard deviation of the kernel
APART = 0.7  # of that distance: a mirrored direction nearer to another is no direction of its own
DIM = 1e-4  # of the brightest light: less than that arrives from nowhere


class VisibilityField:
    """A visibility on the grid of the depth q (h, w) float32 and of unit normals (3, h, w).

    visibility() may run in many threads.
    """

    def __init__(self, visibility: Visibility, q: np.ndarray, normals: np.ndarray, focal: float):
        self.q, self.focal, self.shape = q, float(focal), q.shape
        self.directions = np.asarray(visibility.directions, np.float32)
        h, w = self.shape
        seen = [
            p if p.shape == self.shape else cv2.resize(p, (w, h), interpolation=cv2.INTER_AREA) for p in visibility.seen
        ]
        self.seen = np.ascontiguousarray(np.stack(seen).reshape(len(seen), h * w))  # (K, h * w) uint8, 255: all
        self.normals = np.ascontiguousarray(normals, np.float32)
        n_dot_d = self.directions @ self.normals.reshape(3, h * w)
        self.above = np.empty_like(self.seen)  # 255: well above the horizon
        np.rint(np.clip(n_dot_d * np.float32(255 * HORIZON), 0, 255), out=self.above, casting="unsafe")
        cosines = self.directions @ self.directions.T - 2 * np.eye(len(seen), dtype=np.float32)
        apart = float(np.arccos(np.clip(cosines.max(1), -1, 1)).mean())
        self.variance = max(SPREAD * apart, 1e-3) ** 2
        behind = self.directions * np.array([1, 1, -1], np.float32)
        behind = behind[(behind @ self.directions.T).max(1) < np.cos(APART * apart)]
        self.all_around = np.concatenate([self.directions, behind])  # (K', 3), those of the field first
        nearest = (texel_directions().reshape(-1, 3) @ self.all_around.T).argmax(1)
        self.cells = np.bincount(nearest, solid_angles().ravel(), len(self.all_around)).astype(np.float32)

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self.q.nbytes + self.normals.nbytes + self.seen.nbytes + self.above.nbytes

    def visibility(self, light: Light) -> np.ndarray:
        """(h, w) float32 0..1: the share of the lamp that is seen. What lies beyond a lamp in the scene counts too."""
        if light.kind == "directional":
            toward = np.array([light.direction], np.float32)
            radius = np.array([np.radians(light.angle) / 2], np.float32)
            weights = self._weights(toward, radius)[:, 0]
            near = weights > NEGLIGIBLE
            share = self._mean(weights[near, None], near, slice(None))
        else:
            toward, distance = self._toward(light)
            radius, share = np.arctan(np.float32(light.radius) / distance), np.empty(len(toward), np.float32)
            for first in range(0, len(toward), TEXELS):
                some = slice(first, first + TEXELS)
                share[some] = self._mean(self._weights(toward[some], radius[some]), slice(None), some)
        return share.reshape(self.shape)

    @property
    def cell(self) -> Kernel:
        """The light that each direction stands for is the mean around it by this kernel, see environment.py."""
        return spread(self.variance)

    def share_of(self, light: Callable[[Places], np.ndarray], occlusion: np.ndarray) -> np.ndarray:
        """(3, h, w) float32 0..1: the share that arrives of what light from all around gives in the open, by colour.

        light: what tells the radiance (n, 3) at n places. occlusion: (h, w) float32 0..1, of ambient light.
        """
        K = len(self.directions)
        radiance = np.ascontiguousarray((light(places(self.all_around)) * self.cells[:, None]).T)
        normals = self.normals.reshape(3, -1)
        open_share, share = occlusion.reshape(1, -1), np.empty_like(normals)
        for first in range(0, share.shape[1], TEXELS):
            some = slice(first, first + TEXELS)
            n_dot_d = self.all_around @ normals[:, some]
            np.maximum(n_dot_d, 0, out=n_dot_d)
            behind = radiance[:, K:] @ n_dot_d[K:]
            front = n_dot_d[:K]
            total = radiance[:, :K] @ front
            total += behind
            front *= self.seen[:, some]
            arrives = radiance[:, :K] @ front
            arrives *= np.float32(1 / 255)
            arrives += open_share[:, some] * behind
            dark = total < DIM * radiance.max()
            share[:, some] = np.where(dark, open_share[:, some], arrives / np.maximum(total, np.float32(1e-12)))
        return share.reshape(3, *self.shape)

    def _mean(self, weights: np.ndarray, which: Any, some: slice) -> np.ndarray:
        """(n,) float32 0..1: the mean of what some texels see, by weights (k, n) or (k, 1) of some directions."""
        weights = weights * self.above[which, some]
        total = weights.sum(0)
        weights *= self.seen[which, some]
        mean: np.ndarray = weights.sum(0) / np.maximum(total * np.float32(255), np.float32(1e-3))
        mean[total < np.float32(1e-3)] = 1  # the light is below the horizon
        return mean

    def _weights(self, toward: np.ndarray, radius: np.ndarray) -> np.ndarray:
        """(K, n) float32: of the directions, for sources toward unit vectors (n, 3) of angular radii (n,), in radians.

        The variances of kernel and source, a disc, add up.
        """
        concentration = 1 / (np.float32(self.variance) + np.square(radius, dtype=np.float32) / 4)
        weights = self.directions @ toward.T
        weights -= weights.max(0)
        weights *= concentration
        weights = cv2.exp(weights, dst=weights).reshape(weights.shape)
        weights /= weights.sum(0)
        return weights

    def _toward(self, light: Light) -> Tuple[np.ndarray, np.ndarray]:
        """From each texel to a lamp: unit vectors (n, 3) and distances (n,), float32."""
        place = np.stack(scene_positions(self.q, *view_grid(*self.shape), self.focal), 2).reshape(-1, 3)
        to_light = np.array(light.position, np.float32) - place
        distance = np.maximum(np.linalg.norm(to_light, axis=1), np.float32(1e-6))
        return to_light / distance[:, None], distance
