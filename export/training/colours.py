"""What cameras, editors and the web do to pictures, on a batch and where its tensors are: data.recolour for GPUs.

There is no JPEG here; the generator's photographs have been through one.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .views import FOLLOWED, Truth

SIGMAS = (0.7, 1.4, 2.8, 5.6)  # pixels: the bands of detail, each of which is made stronger or weaker
LUMA = (0.299, 0.587, 0.114)


def blur(x: Tensor, sigma: float) -> Tensor:
    """A Gaussian blur of (n, 3, h, w)."""
    radius = max(1, math.ceil(2.5 * sigma))
    taps = torch.exp(-0.5 * (torch.arange(-radius, radius + 1, device=x.device) / sigma) ** 2)
    taps = (taps / taps.sum()).to(x).expand(x.shape[1], 1, -1)
    x = F.pad(x, [radius] * 4, mode="replicate")
    x = F.conv2d(x, taps[:, :, None], groups=x.shape[1])
    return F.conv2d(x, taps[..., None], groups=x.shape[1])


def recoloured(codes: Tensor, truth: Truth, dice: torch.Generator) -> tuple[Tensor, Truth]:
    """Codes 0..255 (n, 3, h, w) as other cameras give them, and the truth of them.

    A share of FOLLOWED of the pictures is treated so that their shading can follow; of the others it is not known.
    """
    n, device = len(codes), codes.device

    def uniform(low: float, high: float, channels: int = 1) -> Tensor:
        return torch.rand(n, channels, 1, 1, generator=dice, device=device) * (high - low) + low

    def share(p: float) -> Tensor:
        return (uniform(0, 1) < p).float()

    def noise(cell: int) -> Tensor:
        small = [-(-s // cell) for s in codes.shape[-2:]]
        grain = torch.randn(n, 1, *small, generator=dice, device=device)
        return F.interpolate(grain, codes.shape[-2:], mode="bilinear", align_corners=False)

    followed = share(FOLLOWED)
    x = codes / 255
    blurred = [x, *(blur(x, s) for s in SIGMAS)]
    most = share(0.5) * uniform(0.3, 2.2)
    for fine, coarse in zip(blurred, blurred[1:]):
        x = x + (fine - coarse) * uniform(0, 1) * most
    grain = sum((noise(c) * uniform(0, 1) for c in (1, 2, 4)), torch.zeros((), device=device))
    tone = blurred[3].mean(1, keepdim=True)
    x = x * (1 + share(0.45) * uniform(0.02, 0.25) * grain * (uniform(0, 1) + uniform(-1, 1) * tone).clamp(0, 1))
    soft = (1 - followed) * share(0.3) * uniform(0, 1)
    x = x + soft * (blur(x, 1.0) - x)
    gamma = torch.exp(uniform(-0.25, 0.25) * (followed + 1.8 * (1 - followed)))
    x = x.clamp(1e-4, 1) ** gamma
    contrast = 1 + uniform(-0.25, 0.25) * (1 - followed)
    x = ((x - 0.5) * contrast + 0.5 + uniform(-0.1, 0.1) * (1 - followed)) * uniform(0.8, 1.12, 3)
    gray = share(0.17)
    luma = (x * torch.tensor(LUMA, device=device).view(1, 3, 1, 1)).sum(1, keepdim=True)
    x = luma + (x - luma) * (1 - gray) * uniform(0.6, 1.4)
    x = x + share(0.3) * uniform(0.005, 0.05) * torch.randn(x.shape, generator=dice, device=device)
    shading = truth.shading * gamma
    shading = shading + gray * (shading.mean(1, keepdim=True) - shading)
    return (x.clamp(0, 1) * 255).round(), truth._replace(shading=shading, known=truth.known * followed)
