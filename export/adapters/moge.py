"""MoGe-2: points, normals and mask in one graph (package `dlr-moge`, which imports as `moge`).

Its camera axes are x right, y down, z forward; its normals point toward the camera, so they are (+x, -y, -z) of ours.
The point map is known up to a shift along z, which the server does not recover: nearest to farthest is right, ratios
are not exact.
"""

from __future__ import annotations

from pathlib import Path
from typing import Optional

from graphs import Exportable, ExportError, input_spec
from moge.model.v2 import MoGeModel
from torch import Tensor, nn

from . import Adapter

PATCH = 14


class PointsNormalsMask(nn.Module):
    """MoGe-2 at the resolution it is given: one token a patch, so that nothing is resampled inside."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model.eval()
        model.onnx_compatible_mode = True

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        tokens = (image.shape[2] // PATCH) * (image.shape[3] // PATCH)
        out = self.model(image, num_tokens=tokens)
        return out["points"].permute(0, 3, 1, 2), out["normal"].permute(0, 3, 1, 2), out["mask"][:, None]


def moge2(weights: Optional[Path], adapter: Adapter) -> Exportable:
    """From a checkpoint file model.pt; pictures are 0..1, without mean and deviation (the network has its own)."""
    if weights is None or not Path(weights).is_file():
        raise ExportError(f"{adapter.name}: --weights must be the model.pt of https://huggingface.co/{adapter.hub}")
    model = MoGeModel.from_pretrained(str(weights))
    for head in ("points_head", "normal_head", "mask_head"):
        if not hasattr(model, head):
            raise ExportError(f"{adapter.name}: this checkpoint has no {head}; take one with normals")
    outputs = {
        "depth": {"name": "points", "meaning": "points", "metric": False},
        "normals": {"name": "normals", "axes": ["+x", "-y", "-z"]},
        "mask": {"name": "mask", "meaning": "probability"},
    }
    return Exportable(
        adapter.name,
        PointsNormalsMask(model),
        outputs,
        input_spec(PATCH * 48, PATCH, (0, 0, 0), (1, 1, 1)),
        adapter.licence,
        f"https://huggingface.co/{adapter.hub}",
        shapes=((PATCH * 12, PATCH * 16), (PATCH * 15, PATCH * 10)),
    )
