"""How a photograph is read: from what the network says of it to the scene that is lit."""

import dataclasses
from typing import Callable, Tuple

import numpy as np

from .borders import content_box, letterbox
from .fit import SceneFit, fit_scene
from .geometry import Geometry
from .illumination import linear_small
from .refinement import refine_normals
from .sky import whole_sky


def estimate(rgb: np.ndarray, analyse: Callable[[np.ndarray], Geometry]) -> Geometry:
    """The geometry of a photograph rgb (H, W, 3) uint8 with whole skies; the network is shown what is inside its frame.

    analyse: what asks the network. See borders.py and sky.py.
    """
    rows, columns = content_box(rgb)
    inside = np.ascontiguousarray(rgb[rows, columns])
    geometry = analyse(inside)
    if geometry.mask is not None:
        geometry = dataclasses.replace(geometry, mask=whole_sky(geometry.mask))
    return letterbox(geometry, (rows, columns), *rgb.shape[:2])


def read_scene(rgb: np.ndarray, geometry: Geometry) -> Tuple[Geometry, SceneFit]:
    """(geometry with refined normals, its fit) of a photograph rgb (H, W, 3) uint8; see fit.py and refinement.py."""
    linear = linear_small(rgb, geometry.inverse_depth.shape)
    fit = fit_scene(rgb, geometry, linear)
    return refine_normals(rgb, geometry, fit.light, linear), fit
