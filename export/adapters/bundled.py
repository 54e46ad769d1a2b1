"""The network this repository trains itself."""
from __future__ import annotations

from pathlib import Path

import checkpoint
from graphs import Exportable, input_spec
from network import MEAN, STD, STRIDE, ServedNetwork

NAME = "relight-geometry"
SIZE = 384  # long side at analysis; chosen by measurement, see MODEL_CARD.md
FOCAL = 0.9  # of the picture's width: the middle of the training scenes' range


def bundled(weights: Path = checkpoint.WEIGHTS / f"{NAME}.safetensors") -> Exportable:
    """Disparity, normals and mask in one graph, on half the input's grid."""
    net, trained = checkpoint.load(weights)
    outputs = {"depth": {"name": "inverse_depth", "meaning": "disparity", "metric": False},
               "normals": {"name": "normals", "axes": ["+x", "+y", "+z"]},
               "mask": {"name": "mask", "meaning": "probability"}}
    return Exportable(NAME, ServedNetwork(net), outputs, input_spec(SIZE, STRIDE, [MEAN] * 3, [STD] * 3), "MIT",
                      "trained by export/train.py on rendered scenes; encoder from EfficientNet-Lite (Apache-2.0)",
                      tolerance=1e-4, focal=FOCAL, trained=trained)
