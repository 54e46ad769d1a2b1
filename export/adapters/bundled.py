"""The network this repository trains itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Optional

import checkpoint
from graphs import Exportable, input_spec
from network import MEAN, STD, STRIDE, ServedNetwork
from training.directions import directions

from . import Adapter

NAME = "relight-geometry"
# The long side in pixels at analysis, the multiples of it over which results are averaged, and whether the mirror image
# is averaged too. All were measured, see MODEL_CARD.md.
SIZE, SCALES, MIRROR = 256, [1.0, 2.0], True
RELIEF = 0.5  # how far the smooth normals are bent to explain the photo's shading, 0..1; measured too
STEEPER = 1.15  # slopes are multiplied by this: photographed things come out flatter than rendered ones; measured
SHADING = 0.4  # how much of the photo's own light is the network's shading, the rest being harmonics; measured too
FOCAL = 0.9  # in widths of the picture: the middle of the training scenes' range


def bundled(weights: Optional[Path] = None, adapter: Optional[Adapter] = None) -> Exportable:
    """Disparity, normals and mask in one graph, on half the input's grid.

    Of weights with a light branch also visibility and shading.
    """
    net, trained = checkpoint.load(weights or checkpoint.WEIGHTS / f"{NAME}.safetensors")
    outputs: dict[str, dict[str, Any]] = {
        "depth": {"name": "inverse_depth", "meaning": "disparity", "metric": False},
        "normals": {"name": "normals", "axes": ["+x", "+y", "+z"], "relief": RELIEF},
        "mask": {"name": "mask", "meaning": "probability"},
    }
    if net.light is not None:
        toward = [[round(float(c), 6) for c in d] for d in directions()]
        outputs["visibility"] = {"name": "visibility", "meaning": "probability", "directions": toward}
        outputs["shading"] = {"name": "shading", "meaning": "logarithm", "share": SHADING}
    spec = input_spec(SIZE, STRIDE, [MEAN] * 3, [STD] * 3) | {"scales": SCALES, "mirror": MIRROR}
    if net.light is not None:
        spec["light"] = "light"  # it is asked for at the first of the scales alone: that is as good, and quicker
    return Exportable(
        NAME,
        ServedNetwork(net, STEEPER),
        outputs,
        spec,
        "MIT",
        "trained by export/train.py on rendered scenes; encoder from EfficientNet-Lite (Apache-2.0)",
        tolerance=1e-4,
        focal=FOCAL,
        trained=trained,
    )
