"""MoGe-2: points, normals and mask in one graph (package `dlr-moge`, imported as `moge`).

Its camera axes are x right, y down, z forward, and its normals point toward the camera, so that in our axes they are
(+x, -y, -z). The point map is known up to a shift along z, which the server does not recover: the order from nearest to
farthest is right, but ratios of depths are not exact.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Optional

from graphs import Exportable, ExportError, input_spec
from moge.model.v2 import MoGeModel
from torch import Tensor, nn

from . import Adapter

PATCH = 14


class PointsNormalsMask(nn.Module):
    """MoGe-2 at the resolution it is given, with one token per patch, so that nothing is resampled inside."""

    def __init__(self, model: MoGeModel):
        super().__init__()
        self.model = model.eval()
        model.onnx_compatible_mode = True

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Points (1, 3, h, w), normals (1, 3, h, w) and mask (1, 1, h, w) of a picture (1, 3, h, w)."""
        tokens = (image.shape[2] // PATCH) * (image.shape[3] // PATCH)
        out = self.model(image, num_tokens=tokens)
        return out["points"].permute(0, 3, 1, 2), out["normal"].permute(0, 3, 1, 2), out["mask"][:, None]


def moge2(weights: Optional[Path], adapter: Adapter) -> Exportable:
    """MoGe-2 from a file model.pt. Its input is 0..1, because the network normalises pictures itself."""
    if weights is None or not Path(weights).is_file():
        raise ExportError(f"{adapter.name}: --weights must be the model.pt of https://huggingface.co/{adapter.hub}")
    model = MoGeModel.from_pretrained(str(weights))
    for head in ("points_head", "normal_head", "mask_head"):
        if not hasattr(model, head):
            raise ExportError(f"{adapter.name}: this checkpoint has no {head}; use one that estimates normals")
    outputs: dict[str, dict[str, Any]] = {
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
