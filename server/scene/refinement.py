"""Relief: what the shading of a photograph tells of its normals, which a network leaves smooth.

Where the light is known, a pixel brighter than its surroundings either faces the light more, or is paler. Both are
common; paler things mostly have another hue as well, so only what keeps the hue counts, and only a share of it, which
the network's manifest gives. Steps of shape from shading (Horn, "Obtaining shape from shading information", 1975),
damped so that no normal turns far and none turns where brightness says nothing (where the light falls evenly, or
straight on).
"""

import dataclasses
from typing import Optional

import cv2
import numpy as np

from .geometry import Geometry
from .illumination import DARK, LUMINANCE, EstimatedLight, light_at, light_slope, linear_small
from .normals import normalise_in_place

STEPS = 2
DAMPING = 1.0  # of squared slopes of the logarithm of the light: gentler slopes than this turn little
REACH = 16  # to the long side: brightness is compared with that of the surroundings so far around
HUE = 0.05  # of chromaticity: so different from its surroundings a pixel is hardly believed
MAX_BELIEVED = 0.5  # of log brightness that is believed


def refine_normals(
    rgb: np.ndarray, geometry: Geometry, light: EstimatedLight, linear: Optional[np.ndarray] = None
) -> Geometry:
    """The geometry with normals that explain more of the photograph rgb (H, W, 3) uint8, lit by `light`.

    linear: its linear colours on the grid of the geometry, where they are known. The grid stays the same. With
    relief 0, without normals, or in an even light the geometry comes back unchanged.
    """
    if not geometry.relief or geometry.normals is None or len(light.harmonics) == 1:
        return geometry
    h, w = geometry.normals.shape[:2]
    pixels = linear_small(rgb, (h, w)) if linear is None else linear
    luminance = pixels @ LUMINANCE
    surface = np.ones((h, w), np.float32) if geometry.mask is None else (geometry.mask > 0.5).astype(np.float32)
    if not surface.any():
        return geometry
    surface *= luminance >= DARK * np.percentile(luminance[surface > 0], 99)
    reach = max(h, w) / REACH
    chroma = pixels / (pixels.sum(2, keepdims=True) + np.float32(0.01))
    odd = np.square(chroma - _mean(chroma, surface, reach)).sum(2)
    believed = surface * np.exp(odd * np.float32(-0.5 / HUE**2))
    brightness = np.log(np.maximum(luminance, np.float32(1e-3)))
    n = np.array(geometry.normals, np.float32)
    for _ in range(STEPS):
        x, y, z = np.moveaxis(n, 2, 0)
        unexplained = brightness - np.log(light_at(x, y, z, light))
        unexplained = np.clip(
            unexplained - _mean(unexplained[..., None], believed, reach)[..., 0], -MAX_BELIEVED, MAX_BELIEVED
        )
        unexplained = cv2.GaussianBlur(unexplained * believed, (0, 0), 0.5)
        slope = light_slope(x, y, z, light)
        slope -= (slope * n).sum(2, keepdims=True) * n  # along the sphere
        n += (
            np.float32(geometry.relief)
            * unexplained[..., None]
            * slope
            / (np.square(slope).sum(2, keepdims=True) + np.float32(DAMPING))
        )
        n = normalise_in_place(n)
    return dataclasses.replace(geometry, normals=n)


def _mean(values: np.ndarray, weights: np.ndarray, reach: float) -> np.ndarray:
    """(h, w, n) float32: the mean of values around each texel, as far as they have weight."""
    total = cv2.GaussianBlur(values * weights[..., None], (0, 0), reach).reshape(values.shape)
    return total / np.maximum(cv2.GaussianBlur(weights, (0, 0), reach), np.float32(1e-3))[..., None]
