"""Training on a CPU: quick gradients of depthwise convolutions, and float32 where bfloat16 costs too much accuracy.

PyTorch computes the weight gradients of 5x5 depthwise convolutions 5 to 15 times slower than the compiled loop here in
float32, and 10 to 80 times slower in bfloat16, where they are half of a training step.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import torch
import torch.nn.functional as F
from network import GeometryNet, SameConv
from torch import Tensor

PRECISE = 4  # the number of first encoder blocks that stay in float32
LANES = 512  # channels at a time, so that the sums of all taps stay in a core's cache


@numba.njit(nogil=True, fastmath=True, cache=True)
def weight_gradient(x: np.ndarray, g: np.ndarray, gw: np.ndarray, stride: int, pad: int) -> None:
    """Add the gradient by the weights to gw (k, k, c).

    x (n, h, w, c) is the input and g (n, h', w', c) the gradient of the output; all are float32.
    """
    _, height, width, channels = x.shape
    k = gw.shape[0]
    for begin in range(0, channels, LANES):
        end = min(begin + LANES, channels)
        for b in range(x.shape[0]):
            for oy in range(g.shape[1]):
                for i in range(max(0, pad - oy * stride), min(k, height + pad - oy * stride)):
                    row = x[b, oy * stride + i - pad]
                    for ox in range(g.shape[2]):
                        out = g[b, oy, ox, begin:end]
                        for j in range(max(0, pad - ox * stride), min(k, width + pad - ox * stride)):
                            total, pixel = gw[i, j, begin:end], row[ox * stride + j - pad, begin:end]
                            for c in range(total.shape[0]):
                                total[c] += pixel[c] * out[c]


def channels_last(t: Tensor) -> Tensor:
    """The tensor in float32 with its channels side by side in memory."""
    return t.detach().float().contiguous(memory_format=torch.channels_last)


class Depthwise(torch.autograd.Function):
    """F.conv2d with one group per channel, on the CPU, in the input's dtype (float32 or bfloat16).

    The weights are float32.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, stride: int, pad: int) -> Tensor:
        """The convolution of x (n, c, h, w) with one k x k kernel per channel, in x's dtype."""
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.pad = stride, pad
        return F.conv2d(x, weight.to(x.dtype), bias.to(x.dtype), stride, pad, groups=x.shape[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients by x, weight and bias; None for stride and pad."""
        x, weight = ctx.saved_tensors
        wide, wide_x = channels_last(grad), channels_last(x)
        taps = np.zeros((*weight.shape[2:], x.shape[1]), np.float32)
        weight_gradient(wide_x.permute(0, 2, 3, 1).numpy(), wide.permute(0, 2, 3, 1).numpy(), taps, ctx.stride, ctx.pad)
        back = None
        if ctx.needs_input_grad[0]:
            g, like = (grad, x) if ctx.stride == 1 else (wide, wide_x)  # with a stride, bfloat16 is slow here too
            back = torch.ops.aten.convolution_backward(
                g,
                like,
                weight.to(g.dtype),
                None,
                [ctx.stride] * 2,
                [ctx.pad] * 2,
                [1, 1],
                False,
                [0, 0],
                x.shape[1],
                [True, False, False],
            )[0].to(x.dtype)
        return back, torch.from_numpy(taps).permute(2, 0, 1)[:, None], wide.sum((0, 2, 3)), None, None


def precise(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, pad: int) -> Tensor:
    """The convolution in float32, even under autocast."""
    with torch.autocast("cpu", enabled=False):
        convolve = F.conv2d if weight.shape[1] == x.shape[1] else Depthwise.apply
        return convolve(x.float(), weight, bias, stride, pad)


def install(net: GeometryNet) -> None:
    """Make a network train fast on a CPU. Its parameters stay the same, and in float32 so do its results.

    Under autocast the stem, the first PRECISE blocks and the last convolution stay in float32. That is cheap, and early
    rounding errors reach everything else: with the blocks in bfloat16 the losses of a batch are off by 1 to 3 %.
    """
    for module in net.modules():
        if isinstance(module, SameConv) and module.groups > 1:
            module.convolve = Depthwise.apply
    for part in (net.encoder.stem, net.encoder.blocks[:PRECISE], net.head[-1]):
        for module in part.modules():
            if isinstance(module, SameConv):
                module.convolve = precise
