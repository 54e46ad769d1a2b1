"""The committed form of the network: safetensors, matrices as float16, what built it in the metadata."""
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from network import GeometryNet
from safetensors import safe_open
from safetensors.torch import save_file

WEIGHTS = Path(__file__).parent / "weights"


def save(net: GeometryNet, state: dict[str, torch.Tensor], path: Path, trained: dict[str, Any]) -> None:
    """Write weights: kernels as float16, vectors (biases, batch norm) as float32, counters dropped."""
    tensors = {k: (v.half() if v.dim() > 1 else v.float()).contiguous().cpu() for k, v in state.items() if v.is_floating_point()}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path, {"variant": str(net.variant), "widths": json.dumps(net.widths), "trained": json.dumps(trained)})


def load(path: Path) -> tuple[GeometryNet, dict[str, Any]]:
    """(network in float32, what its training says of itself). Raises FileNotFoundError, safetensors' error or KeyError."""
    with safe_open(path, "pt") as file:
        about = file.metadata()
        state = {k: file.get_tensor(k).float() for k in file.keys()}
    net = GeometryNet(int(about["variant"]), tuple(json.loads(about["widths"])))
    missing, unexpected = net.load_state_dict(state, strict=False)
    if unexpected or any(not k.endswith("num_batches_tracked") for k in missing):
        raise KeyError(f"{path}: not this network's weights: missing {missing[:3]}, unexpected {unexpected[:3]}")
    return net, json.loads(about["trained"])
