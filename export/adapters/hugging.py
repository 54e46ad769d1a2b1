"""Depth networks of the transformers library: Depth Anything V2, DPT and Depth Pro.

Weights are a folder as `save_pretrained` writes it, with config.json beside model.safetensors.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Optional

from graphs import Exportable, ExportError, input_spec
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import DepthAnythingForDepthEstimation, DepthProForDepthEstimation, DPTForDepthEstimation

from . import Adapter

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = ((0.5,) * 3, (0.5,) * 3)


class PredictedDepth(nn.Module):
    """A depth estimator as a module from an image to its depth or disparity."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model.eval()

    def forward(self, image: Tensor) -> Tensor:
        """(1, 1, h, w) for a picture (1, 3, h, w)."""
        return self.model(pixel_values=image).predicted_depth[:, None]


class DepthAnything(nn.Module):
    """Depth Anything with an output size that follows the input; the library's own head would freeze it at export."""

    def __init__(self, model: DepthAnythingForDepthEstimation):
        super().__init__()
        self.model = model.eval()

    def forward(self, image: Tensor) -> Tensor:
        """(1, 1, h, w) for a picture (1, 3, h, w)."""
        head, patch = self.model.head, self.model.config.patch_size
        features = self.model.backbone.forward_with_filtered_kwargs(image).feature_maps
        y = self.model.neck(features, image.shape[2] // patch, image.shape[3] // patch)[head.head_in_index]
        y = F.interpolate(head.conv1(y), image.shape[2:], mode="bilinear", align_corners=True)
        return head.activation2(head.conv3(head.activation1(head.conv2(y)))) * head.max_depth


def load(kind: Any, weights: Optional[Path], adapter: Adapter) -> Any:
    """The model of class `kind` in a save_pretrained folder. Raises ExportError."""
    if weights is None or not (Path(weights) / "config.json").is_file():
        raise ExportError(
            f"{adapter.name}: --weights must be a folder as save_pretrained writes it: config.json, model.safetensors"
        )
    return kind.from_pretrained(weights, local_files_only=True, attn_implementation="eager")


def exportable(adapter: Adapter, model: nn.Module, spec: dict[str, Any], shapes: Any, **depth: Any) -> Exportable:
    """A depth network with its manifest; `depth` describes its output ("meaning", "metric")."""
    outputs = {"depth": {"name": "inverse_depth" if depth["meaning"] == "disparity" else "depth", **depth}}
    module = DepthAnything(model) if isinstance(model, DepthAnythingForDepthEstimation) else PredictedDepth(model)
    return Exportable(
        adapter.name, module, outputs, spec, adapter.licence, f"https://huggingface.co/{adapter.hub}", shapes=shapes
    )


def depth_anything(weights: Optional[Path], adapter: Adapter) -> Exportable:
    """Depth Anything V2: relative models give disparity, metric ones metres.

    The short side is 518 pixels, and both are multiples of the patch (14).
    """
    model = load(DepthAnythingForDepthEstimation, weights, adapter)
    patch = model.config.patch_size
    metric = model.config.depth_estimation_type == "metric"
    spec = input_spec(37 * patch, patch, *IMAGENET, size_rule="short_side")
    return exportable(
        adapter,
        model,
        spec,
        ((14 * patch, 18 * patch), (20 * patch, 13 * patch)),
        meaning="depth" if metric else "disparity",
        metric=metric,
    )


def dpt(weights: Optional[Path], adapter: Adapter) -> Exportable:
    """MiDaS 3: disparity, from an input with mean and deviation 0.5.

    It takes one fixed square only, because its tokens are folded back to a square.
    """
    model = load(DPTForDepthEstimation, weights, adapter)
    return fixed_square(adapter, model, model.config.image_size)


def depth_pro(weights: Optional[Path], adapter: Adapter) -> Exportable:
    """Depth Pro: canonical inverse depth, known up to the focal length.

    It takes one fixed square only, into which the photo is padded.
    """
    model = load(DepthProForDepthEstimation, weights, adapter)
    side = int(model.config.patch_size / min(model.config.scaled_images_ratios))
    return fixed_square(adapter, model, side)


def fixed_square(adapter: Adapter, model: nn.Module, side: int) -> Exportable:
    """A disparity network that takes only side x side pixels; the server pads photos that are not square."""
    network = exportable(
        adapter, model, input_spec(side, side, *HALF), ((side, side), (side, side)), meaning="disparity", metric=False
    )
    network.fixed = True
    return network
