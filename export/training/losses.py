"""Training losses. All take half-resolution maps, channels first, and average over the batch.

Shapes: disparity and mask (n, 1, h, w), normals (n, 3, h, w). A mask of 1 says that there is a surface.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# The chord is smallest at a median of directions, the cosine term at a mean, which faces the viewer too much wherever
# the network is unsure.
WEIGHTS = {
    "disparity": 1.0,
    "local": 0.3,
    "gradient": 0.5,
    "order": 2.0,
    "cosine": 0.3,
    "chord": 1.2,
    "relative": 0.3,
    "mask": 0.2,
}
SKY_WEIGHT = 0.5  # of a pixel without surface in the disparity loss: it is known to be the farthest, and there are many


def standardise(disparity: Tensor) -> Tensor:
    """(n, pixels) disparity free of scale and shift: median 0, mean absolute deviation 1 (MiDaS)."""
    centred = disparity - disparity.median(1, keepdim=True).values
    return centred / centred.abs().mean(1, keepdim=True).clamp(min=1e-3)


def disparity_losses(predicted: Tensor, target: Tensor, mask: Tensor, scales: int = 4) -> tuple[Tensor, Tensor]:
    """(L1, multi-scale gradient L1) of standardised disparities, which ignore any scale and shift of the prediction."""
    shape, flat = predicted.shape, predicted.shape[0]
    difference = (standardise(predicted.reshape(flat, -1)) - standardise(target.reshape(flat, -1))).view(shape)
    weight = SKY_WEIGHT + (1 - SKY_WEIGHT) * mask
    level = (weight * difference.abs().clamp(max=4)).sum() / weight.sum().clamp(min=1)
    gradient = difference.new_zeros(())
    for k in range(scales):
        d = difference[..., :: 2**k, :: 2**k]
        gradient = gradient + d.diff(dim=-1).abs().clamp(max=2).mean() + d.diff(dim=-2).abs().clamp(max=2).mean()
    return level, gradient


TILES = (3, 6)  # windows along the shorter side, which overlap by half
FLAT = 0.1  # of the whole picture's deviation: the depth within a window is not spread by more than its inverse


def local_loss(predicted: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """L1 of disparities standardised in windows, so that the far corner of a room counts as much as what is near.

    After Wang et al., "MoGe", CVPR 2025, whose patches are aligned one by one too.
    """
    shape, flat, loss = predicted.shape, predicted.shape[0], predicted.new_zeros(())
    both = torch.cat([standardise(d.reshape(flat, -1)).view(shape) for d in (predicted, target)] + [mask], 1)
    for tiles in TILES:
        side = max(4, min(shape[-2:]) // tiles)
        cut = F.unfold(both, side, stride=side // 2).view(flat, 3, side * side, -1)
        weight = cut[:, 2]
        count = weight.sum(1, keepdim=True).clamp(min=1)
        local = []
        for d in (cut[:, 0], cut[:, 1]):
            d = (d - (d * weight).sum(1, keepdim=True) / count) * weight
            local.append(d / (d.abs().sum(1, keepdim=True) / count).clamp(min=FLAT))
        loss = loss + (local[0] - local[1]).abs().clamp(max=4).sum() / weight.sum().clamp(min=1)
    return loss / len(TILES)


PAIRS = 4096  # pairs of pixels per picture, of each of the two kinds
NEAR = 0.06  # of the longer side: standard deviation of the distance, along each axis, of two pixels near each other
APART = 1.05  # the order of two pixels counts when their depths differ by more than this ratio
MARGIN = 0.2  # of disparity, in mean absolute deviations: a pair need not be farther apart than this


def order_pairs(height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Two sets of 2 * PAIRS flat pixel indices to compare: half of the pairs anywhere, half near each other."""
    dice = torch.Generator().manual_seed(0)
    y, x = (torch.randint(n, (2, 2 * PAIRS), generator=dice) for n in (height, width))
    away = (torch.randn(2, PAIRS, generator=dice) * NEAR * max(height, width)).round().long()
    y[1, PAIRS:], x[1, PAIRS:] = (
        (y[0, PAIRS:] + away[0]).clamp(0, height - 1),
        (x[0, PAIRS:] + away[1]).clamp(0, width - 1),
    )
    first, second = (y * width + x).to(device)
    return first, second


def order_loss(predicted: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Hinge loss on which of two pixels is nearer, over random pairs on the surface (Chen et al., NeurIPS 2016).

    The disparities of far things all but coincide, so that the other terms hardly see their order. Pairs near each
    other separate things from what is behind them.
    """
    n, (height, width) = predicted.shape[0], predicted.shape[-2:]
    first, second = order_pairs(height, width, predicted.device)
    truth = target.reshape(n, -1)
    near, far = (pick(truth[:, first], truth[:, second]) for pick in (torch.maximum, torch.minimum))
    counts = mask.reshape(n, -1)[:, first] * mask.reshape(n, -1)[:, second] * (near > APART * far)
    p, t = (standardise(d.reshape(n, -1)) for d in (predicted, target))
    apart = t[:, first] - t[:, second]
    lacking = F.relu(apart.abs().clamp(max=MARGIN) - (p[:, first] - p[:, second]) * apart.sign())
    return (counts * lacking).sum() / counts.sum().clamp(min=1)


def coherence(normals: Tensor) -> Tensor:
    """(n, 1, h, w), 0..1: how well the true normals in a 5x5 window agree. Foliage gets a small weight."""
    return F.avg_pool2d(normals, 5, 1, 2, count_include_pad=False).norm(dim=1, keepdim=True).clamp(0, 1)


def normal_losses(predicted: Tensor, target: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """(1 - cosine, chord length) between unit vectors, averaged over the surface.

    The gradient of the chord does not vanish at small angles.
    """
    u, g = F.normalize(predicted, dim=1, eps=1e-4), F.normalize(target, dim=1, eps=1e-4)
    weight = mask * coherence(g * mask) ** 2
    total = weight.sum().clamp(min=1)
    cosine = (u * g).sum(1, keepdim=True)
    chord = ((u - g).square().sum(1, keepdim=True) + 1e-6).sqrt() - 1e-3
    return (weight * (1 - cosine)).sum() / total, (weight * chord).sum() / total


STRIDES = (1, 2, 4, 8)  # pixels between the neighbours that are compared


def relative_loss(predicted: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """How far the differences between the unit normals of neighbours are from the true ones.

    That a corner is a corner can be seen even where it is not clear which way its walls face (after Bae & Davison,
    "Rethinking Inductive Biases for Surface Normal Estimation", CVPR 2024).
    """
    u, g = F.normalize(predicted, dim=1, eps=1e-4), F.normalize(target, dim=1, eps=1e-4)
    weight = mask * coherence(g * mask) ** 2
    loss, off = predicted.new_zeros(()), u - g
    for stride in STRIDES:
        for dim in (2, 3):
            n = max(0, off.shape[dim] - stride)
            both = weight.narrow(dim, 0, n) * weight.narrow(dim, off.shape[dim] - n, n)
            apart = off.narrow(dim, 0, n) - off.narrow(dim, off.shape[dim] - n, n)
            length = (apart.square().sum(1, keepdim=True) + 1e-6).sqrt() - 1e-3
            loss = loss + (both * length).sum() / both.sum().clamp(min=1)
    return loss / (2 * len(STRIDES))


def losses(
    predicted: tuple[Tensor, ...], target: tuple[Tensor, Tensor, Tensor], part: str = "all"
) -> dict[str, Tensor]:
    """Every term of a part (see network.PARTS) by name, unweighted.

    Both tuples are (disparity, normals, mask); the predicted mask is a logit.
    """
    disparity, normals, mask = target
    if part == "mask":
        return {"mask": F.binary_cross_entropy_with_logits(predicted[2], mask)}
    level, gradient = disparity_losses(predicted[0], disparity, mask)
    cosine, chord = normal_losses(predicted[1], normals, mask)
    order = order_loss(predicted[0], disparity, mask)
    return {
        "disparity": level,
        "local": local_loss(predicted[0], disparity, mask),
        "gradient": gradient,
        "order": order,
        "cosine": cosine,
        "chord": chord,
        "relative": relative_loss(predicted[1], normals, mask),
        "mask": F.binary_cross_entropy_with_logits(predicted[2], mask),
    }


def total(terms: dict[str, Tensor]) -> Tensor:
    """The weighted sum of the terms, a scalar."""
    return sum((WEIGHTS[name] * term for name, term in terms.items()), torch.zeros(()))
