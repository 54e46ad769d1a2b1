"""U²-Netp, which tells what stands out in a picture, and how its published weights are read.

After Qin et al., "U²-Net: Going deeper with nested U-structure for salient object detection", Pattern Recognition 2020
(https://github.com/xuebinqin/U-2-Net, Apache-2.0). Batch normalisation is folded into the convolutions, as in the ONNX
graph in which the weights are handed on.

    python export/u2net.py u2netp.onnx    # makes export/weights/u2netp.safetensors of that graph
"""

from __future__ import annotations

import sys
from pathlib import Path

import onnx
import torch
from onnx import numpy_helper
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

WEIGHTS = Path(__file__).parent / "weights" / "u2netp.safetensors"
MIDDLE, OUT = 16, 64  # channels inside a block, and of its answer
# Of the stages, from the finest on: how deep the block of each is, and whether it halves the picture inside
STAGES = ((7, True), (6, True), (5, True), (4, True), (4, False), (4, False))
FINEST = 1  # of the decoder's stages the last that is run


def convolution(taken: int, made: int, dilation: int = 1) -> nn.Conv2d:
    """3 x 3, of the same size."""
    return nn.Conv2d(taken, made, 3, padding=dilation, dilation=dilation)


def halved(x: Tensor) -> Tensor:
    """Half as wide and as high, rounded up."""
    return F.max_pool2d(x, 2, 2, ceil_mode=True)


def joined(x: Tensor, beside: Tensor) -> Tensor:
    """The channels of both, the first brought to the size of the second."""
    return torch.cat([F.interpolate(x, beside.shape[2:], mode="bilinear", align_corners=False), beside], 1)


class Block(nn.Module):
    """A residual U-block: an encoder and a decoder of its own, added to the features that they begin with.

    Where it does not halve the picture, its convolutions are dilated more and more instead.
    """

    def __init__(self, channels: int, depth: int, halves: bool):
        super().__init__()
        self.halves = halves
        dilation = [1] * (depth - 1) + [2] if halves else [2**k for k in range(depth)]
        self.first = convolution(channels, OUT)
        self.down = nn.ModuleList(convolution(MIDDLE if k else OUT, MIDDLE, dilation[k]) for k in range(depth))
        self.up = nn.ModuleList(
            convolution(2 * MIDDLE, MIDDLE if k else OUT, dilation[k]) for k in reversed(range(depth - 1))
        )

    def forward(self, x: Tensor) -> Tensor:
        """(n, 64, h, w) of (n, channels, h, w)."""
        first = x = F.relu(self.first(x))
        found = []
        for k, layer in enumerate(self.down):
            if self.halves and 0 < k < len(self.down) - 1:  # the deepest is dilated
                x = halved(x)
            x = F.relu(layer(x))
            found.append(x)
        found.pop()
        for layer in self.up:
            x = F.relu(layer(joined(x, found.pop()) if self.halves else torch.cat([x, found.pop()], 1)))
        return x + first


class U2NetP(nn.Module):
    """The network without the finest stage of its decoder: what stands out, on half the input's grid.

    Each stage was trained to answer by itself. The finest one takes two fifths of the time, and edges are found in the
    photograph itself afterwards.
    """

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.ModuleList(Block(OUT if k else 3, *stage) for k, stage in enumerate(STAGES))
        self.decoder = nn.ModuleList(Block(2 * OUT, *stage) for stage in reversed(STAGES[FINEST:-1]))
        self.side = nn.Conv2d(OUT, 1, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        """(1, 1, h / 2, w / 2), a probability, of a normalised picture (1, 3, h, w)."""
        x, found = image, []
        for k, block in enumerate(self.encoder):
            x = block(halved(x) if k else x)
            found.append(x)
        found.pop()
        for block in self.decoder:
            x = block(joined(x, found.pop()))
        return torch.sigmoid(self.side(x))


def published(path: Path) -> U2NetP:
    """The network with the weights of a u2netp.onnx, whose convolutions come in the order in which they are run.

    Raises ValueError where the graph is another.
    """
    graph = onnx.load(path).graph
    weights = {t.name: torch.from_numpy(numpy_helper.to_array(t).copy()) for t in graph.initializer}
    inside = [
        n.input[1:3] for n in graph.node if n.op_type == "Conv" and not n.input[1].startswith(("side", "outconv"))
    ]
    net, side = U2NetP(), f"side{FINEST + 1}"
    layers = [m for m in net.modules() if isinstance(m, nn.Conv2d) and m is not net.side]
    try:
        for layer, names in zip([*layers, net.side], [*inside[: len(layers)], (f"{side}.weight", f"{side}.bias")]):
            layer.load_state_dict(dict(zip(("weight", "bias"), (weights[n] for n in names))))
    except (KeyError, RuntimeError) as error:
        raise ValueError(f"{path} is no u2netp.onnx: {error}") from error
    return net.eval()


def load(path: Path) -> U2NetP:
    """The network with weights as they are committed, or of a u2netp.onnx. Raises ValueError, OSError."""
    if path.suffix == ".onnx":
        return published(path)
    net = U2NetP()
    net.load_state_dict({k: v.float() for k, v in load_file(path).items()})
    return net.eval()


def main(source: str) -> None:
    """Write the committed form of the weights: kernels as float16, biases as float32."""
    state = published(Path(source)).state_dict()
    save_file({k: (v.half() if v.dim() > 1 else v).contiguous() for k, v in state.items()}, WEIGHTS)


if __name__ == "__main__":
    main(sys.argv[1])
