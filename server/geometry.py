"""What a network says about a photograph, on the network's own grid."""
from dataclasses import dataclass
from typing import Optional

import numpy as np


@dataclass(frozen=True)
class Geometry:
    """Arrays of one size (h, w) that keep the photograph's aspect ratio.

    inverse_depth: (h, w) float32, larger is nearer, relative: scale and shift unknown.
    normals: (h, w, 3) float32 unit vectors, +x right, +y up, +z toward the viewer; None: derived from the depth.
    mask: (h, w) float32 0..1, 1 where there is a surface (not sky or void); None: a surface everywhere.
    focal: focal length in units of the picture width (fx / width); None: unknown.
    relief: 0..1, how much of what the photograph's own shading says against the normals is believed (see relief.py).
    """

    inverse_depth: np.ndarray
    normals: Optional[np.ndarray] = None
    mask: Optional[np.ndarray] = None
    focal: Optional[float] = None
    relief: float = 0.0
