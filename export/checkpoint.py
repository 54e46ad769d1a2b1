"""The committed form of the network: a safetensors file with kernels in float16 and the network's shape as metadata."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Optional

import torch
from network import GeometryNet
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

WEIGHTS = Path(__file__).parent / "weights"


def save(net: GeometryNet, state: dict[str, torch.Tensor], path: Path, trained: dict[str, Any]) -> None:
    """Write weights: kernels as float16, vectors (biases, batch norm) as float32; counters are left out."""
    tensors = {
        k: (v.half() if v.dim() > 1 else v.float()).contiguous().cpu()
        for k, v in state.items()
        if v.is_floating_point()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path, {k: json.dumps(v) for k, v in (net.shape | {"trained": trained}).items()})


def load(path: Path, grown: Optional[dict[str, Any]] = None) -> tuple[GeometryNet, dict[str, Any]]:
    """The network in float32, and what was recorded about its training.

    With `grown`, arguments of GeometryNet, it grows to this shape by parts that have no effect at first (the light's
    branch: that are untrained). Raises FileNotFoundError, or ValueError when the file does not hold weights of this
    network.
    """
    try:
        with safe_open(path, "pt") as file:
            about = {k: json.loads(v) for k, v in file.metadata().items()}
            state = {k: file.get_tensor(k).float() for k in file.keys()}  # noqa: SIM118  # the file is not a dict
        branches = {name: about.get(name, ()) for name in ("sky", "light")}
        own = GeometryNet(about["variant"], about["widths"], about.get("depths", (1, 1, 1, 1)), **branches)
        net = GeometryNet(**own.shape | grown) if grown else own
        lacking = [k for k in own.state_dict() if k not in state and not k.endswith("num_batches_tracked")]
        unexpected = net.load_state_dict(state, strict=False).unexpected_keys
        if lacking or unexpected:
            raise ValueError(f"missing {lacking[:3]}, unexpected {unexpected[:3]}")
        return net, about["trained"]
    except (SafetensorError, AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"{path} does not hold weights of this network: {str(error) or type(error).__name__}"
        ) from error
