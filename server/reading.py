"""How a photograph is read: from what the network says of it to the scene that is lit."""
import dataclasses
from typing import Dict, Tuple

import numpy as np

from .geometry import Geometry
from .relief import add_relief
from .scene import fit_scene
from .void import whole_void


def read_scene(rgb: np.ndarray, geometry: Geometry) -> Tuple[Geometry, Dict]:
    """(geometry with whole skies and with relief, its fit) of a photograph rgb (H, W, 3) uint8; see void, scene and relief."""
    if geometry.mask is not None:
        geometry = dataclasses.replace(geometry, mask=whole_void(rgb, geometry))
    fit = fit_scene(rgb, geometry)
    return add_relief(rgb, geometry, fit["light"]), fit
