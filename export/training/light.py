"""Training the branches: mask, visibility and shading, from pictures whose light is known (see visibility.py).

Visibility is learned as light transport: of what the predicted normals let in of a distant light, the share that truly
arrives, V (n.d) / (n'.d) with the true V and n and the predicted n'. So where a normal is wrong, visibility makes up
for a part of it. Shading is what the photograph has over its albedo, each channel free of a factor.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from . import data
from .data import MEAN, STD, Shards
from .directions import directions
from .directions import mirrored as mirrored_directions

FIELDS = (*data.FIELDS, "vis", "alb")
DARK = 0.02  # albedo under which shading is not learned
CLIPPED, BLACK = 250, 5  # codes beyond which a photograph does not say how bright it is
WEIGHTS = {"seen": 1.0, "shading": 0.5, "gradient": 1.0, "mask": 1.0}


class Lit(NamedTuple):
    """A picture and, on half its grid, what is known of its light.

    rgb is uint8 (h, w, 3); normals are float32 (h/2, w/2, 3), 0 where there is no surface; seen is uint8
    (h/2, w/2, K/8), bits; shading is float32 (h/2, w/2, 3), its logarithm; known is float32 (h/2, w/2), where that is
    known; mask is float32 (h/2, w/2), 1 where there is a surface.
    """

    rgb: np.ndarray
    normals: np.ndarray
    seen: np.ndarray
    shading: np.ndarray
    known: np.ndarray
    mask: np.ndarray


Truth = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]  # normals, seen, shading, known, mask
Batch = tuple[Tensor, Truth]


def window(
    shards: Shards,
    k: int,
    rows: slice,
    columns: slice,
    height: int,
    width: int,
    paint: np.random.Generator | None = None,
) -> Lit:
    """Rows and columns of picture k, which begin and end at even pixels, at (height, width).

    With `paint` it may get another sky, see data.paint_sky.
    """
    _, _, nrm, _, vis, alb = shards.rows(k)
    whole = shards[k]
    if paint is not None and paint.random() < 0.5:
        whole = data.paint_sky(whole, paint)
    rgb, mask, nrm = whole.rgb[rows, columns], whole.mask[rows, columns], nrm[rows, columns].astype(np.float32) / 127
    halves = (slice(rows.start // 2, rows.stop // 2), slice(columns.start // 2, columns.stop // 2))
    bits, albedo = np.ascontiguousarray(vis[halves]), alb[halves].astype(np.float32) / 255
    size, half = (width, height), (width // 2, height // 2)
    soft = cv2.INTER_AREA if rgb.shape[0] > height else cv2.INTER_CUBIC
    picture = cv2.resize(np.ascontiguousarray(rgb), size, interpolation=soft)
    codes = cv2.resize(np.ascontiguousarray(rgb), albedo.shape[1::-1], interpolation=cv2.INTER_AREA)
    linear = (np.maximum(codes, 1) / np.float32(255)) ** np.float32(2.2)
    reflects = albedo * albedo
    shading = np.log(linear / np.maximum(reflects, np.float32(1e-3))).astype(np.float32)
    known = (reflects.min(2) > DARK) & (codes.max(2) < CLIPPED) & (codes.min(2) > BLACK)
    return Lit(
        picture,
        cv2.resize(nrm, half, interpolation=cv2.INTER_AREA),
        cv2.resize(bits, half, interpolation=cv2.INTER_NEAREST),
        cv2.resize(shading, half, interpolation=cv2.INTER_NEAREST),
        cv2.resize(known.astype(np.float32), half, interpolation=cv2.INTER_NEAREST),
        (cv2.resize(np.ascontiguousarray(mask), half, interpolation=cv2.INTER_AREA) > 0.5).astype(np.float32),
    )


def flip(lit: Lit, mirrored: np.ndarray) -> Lit:
    """The mirror image; `mirrored` are the mirror images of the directions, see directions.mirrored."""
    bits = np.unpackbits(lit.seen[:, ::-1], axis=2)[..., mirrored]
    return Lit(
        np.ascontiguousarray(lit.rgb[:, ::-1]),
        lit.normals[:, ::-1] * np.array([-1, 1, 1], np.float32),
        np.packbits(bits, axis=2),
        lit.shading[:, ::-1],
        lit.known[:, ::-1],
        lit.mask[:, ::-1],
    )


def recolour(lit: Lit, rng: np.random.Generator) -> Lit:
    """What cameras and editors do to a picture, with no more of a tone curve than its shading can follow."""
    x: np.ndarray = lit.rgb.astype(np.float32) / 255
    if rng.random() < 0.7:
        x = data.roughen(x, rng)
    gamma = np.float32(np.exp(rng.uniform(-0.25, 0.25)))
    x = np.clip(x, 1e-4, 1) ** gamma * rng.uniform(0.8, 1.1, 3).astype(np.float32)
    saturation = 0.0 if rng.random() < 0.15 else rng.uniform(0.7, 1.3)
    out = data.developed(data.saturated(x, saturation), rng, 0.04, (25, 95))
    shading = lit.shading * gamma
    if saturation == 0:
        shading = np.broadcast_to(shading.mean(2, keepdims=True), shading.shape)
    return lit._replace(rgb=out, shading=shading)


def sample(shards: Shards, rng: np.random.Generator, height: int, width: int, mirrored: np.ndarray) -> Lit:
    """A random view at (height, width): a window, mirrored or not, recoloured."""
    k = data.draw(shards, rng)
    h, w = shards.rows(k)[0].shape[:2]
    scale = 1.0 if rng.random() < 0.4 else rng.uniform(0.6, 1.0)
    tall = (height / width) ** 0.5
    side = scale * min(h, w) / max(tall, 1 / tall) / 2
    ch, cw = 2 * int(side * tall), 2 * int(side / tall)
    y, x = (2 * int(rng.integers(0, (s - c) // 2 + 1)) for s, c in ((h, ch), (w, cw)))
    lit = window(shards, k, slice(y, y + ch), slice(x, x + cw), height, width, rng)
    return recolour(flip(lit, mirrored) if rng.random() < 0.5 else lit, rng)


def collate(samples: list[Lit]) -> Batch:
    """(normalised pictures, truth): normals (n, 3, h/2, w/2), seen (n, K, ...), shading (n, 3, ...), known (n, 1, ...),
    mask (n, 1, ...).

    All are float32.
    """

    def stack(arrays: list[np.ndarray]) -> Tensor:
        return torch.from_numpy(np.stack(arrays).astype(np.float32, copy=False)).permute(0, 3, 1, 2)

    seen = torch.from_numpy(np.unpackbits(np.stack([s.seen for s in samples]), axis=3)).permute(0, 3, 1, 2)
    known, mask = (stack([s[k][..., None] for s in samples]) for k in (4, 5))
    truth = stack([s.normals for s in samples]), seen.float(), stack([s.shading for s in samples]), known, mask
    return (stack([s.rgb for s in samples]) - MEAN) / STD, truth


def batch(shards: Shards, seed: int, step: int, size: int, part: range) -> Batch:
    """Samples `part` of one step's batch: a function of seed, step, shards and size alone, see data.batch."""
    height, width = data.shape_of(size, np.random.default_rng([seed, step]))
    mirrored = mirrored_directions(directions())
    return collate([sample(shards, np.random.default_rng([seed, step, j]), height, width, mirrored) for j in part])


def transport(truth: Truth, normals: Tensor) -> tuple[Tensor, Tensor]:
    """(target, weight) of the visibility (n, K, h/4, w/4), from the truth and the predicted unit normals (n, 3, h/2,
    w/2).

    The target is the share of what the predicted normals let in of a direction that truly arrives, at most 1; the
    weight is what they let in, 0 where there is no surface.
    """
    d = torch.from_numpy(directions()).to(normals)
    length = truth[0].norm(dim=1, keepdim=True)
    surface = (length > 0.5).float()
    true = torch.einsum("kc,nchw->nkhw", d, truth[0] / length.clamp(min=0.5)).clamp(min=0)
    ours = torch.einsum("kc,nchw->nkhw", d, normals).clamp(min=0) * surface
    arrives, let_in = F.avg_pool2d(truth[1] * true * surface, 2), F.avg_pool2d(ours, 2)
    return (arrives / let_in.clamp(min=1e-3)).clamp(max=1), let_in


def losses(predicted: tuple[Tensor, ...], truth: Truth) -> dict[str, Tensor]:
    """Every term by name, unweighted; predicted as GeometryNet gives it, with its light."""
    _, normals, mask, seen, shading = predicted
    target, weight = transport(truth, F.normalize(normals.detach(), dim=1))
    entropy = F.binary_cross_entropy_with_logits(seen, target, reduction="none")
    difference = shading - truth[2]
    known = truth[3]
    total = known.sum((2, 3), keepdim=True).clamp(min=1)
    difference = (difference - (difference * known).sum((2, 3), keepdim=True) / total).clamp(-3, 3)
    gradient = difference.new_zeros(())
    for k in range(4):
        d, m = difference[..., :: 2**k, :: 2**k], known[..., :: 2**k, :: 2**k]
        for dim in (2, 3):
            n = d.shape[dim] - 1
            both = m.narrow(dim, 0, n) * m.narrow(dim, 1, n)
            gradient = gradient + (d.diff(dim=dim).abs() * both).sum() / (3 * both.sum()).clamp(min=1)
    return {
        "seen": (entropy * weight).sum() / weight.sum().clamp(min=1),
        "shading": (difference.abs() * known).sum() / (3 * known.sum()).clamp(min=1),
        "gradient": gradient,
        "mask": F.binary_cross_entropy_with_logits(mask, truth[4]),
    }


def total(terms: dict[str, Tensor]) -> Tensor:
    """The weighted sum of the terms, a scalar."""
    first, *others = (WEIGHTS[name] * term for name, term in terms.items())
    return sum(others, first)


@torch.no_grad()
def validate(net: torch.nn.Module, shards: Shards, size: int = 256, limit: int = 96) -> dict[str, float]:
    """Root mean squares over unseen pictures.

    "visibility" is of (V - V true) n.d with the true normals where n.d > 0.05, "open" the same of V = 1; "transport" is
    of V n'.d - V true n.d with the predicted normals n', "normals alone" the same of V = 1; "shading" is of its
    logarithm, "even" the same of a constant one; "mask" is of 1 where the mask is wrong.
    """
    net.eval()
    d = torch.from_numpy(directions())
    sums: dict[str, float] = {}
    counts: dict[str, float] = {}

    def add(name: str, squares: Tensor, where: Tensor) -> None:
        sums[name] = sums.get(name, 0.0) + float((squares * where).sum())
        counts[name] = counts.get(name, 0.0) + float(where.sum())

    for k in np.linspace(0, len(shards) - 1, min(limit, len(shards))).astype(int):
        h, w = shards.rows(k)[0].shape[:2]
        image, truth = collate([window(shards, k, slice(0, h), slice(0, w), size, size)])
        _, normals, mask, seen, shading = (p.float() for p in net(image.contiguous(memory_format=torch.channels_last)))
        v = torch.sigmoid(F.interpolate(seen, scale_factor=2, mode="bilinear", align_corners=False))
        length = truth[0].norm(dim=1, keepdim=True)
        n_dot_d = torch.einsum("kc,nchw->nkhw", d, truth[0] / length.clamp(min=0.5)) * (length > 0.5)
        ours = torch.einsum("kc,nchw->nkhw", d, F.normalize(normals, dim=1)).clamp(min=0)
        lit = (n_dot_d > 0.05).float()
        add("visibility", ((v - truth[1]) * n_dot_d) ** 2, lit)
        add("open", ((1 - truth[1]) * n_dot_d) ** 2, lit)
        either = ((n_dot_d > 0.05) | (ours * (length > 0.5) > 0.05)).float()
        arrives = truth[1] * n_dot_d.clamp(min=0)
        add("transport", (v * ours - arrives) ** 2, either)
        add("normals alone", (ours - arrives) ** 2, either)
        add("mask", ((mask > 0) != (truth[4] > 0.5)).float(), torch.ones_like(mask))
        for name, guess in (("shading", shading), ("even", torch.zeros_like(shading))):
            e = guess - truth[2]
            e = e - (e * truth[3]).sum((2, 3), keepdim=True) / truth[3].sum((2, 3), keepdim=True).clamp(min=1)
            add(name, e.square(), truth[3].expand_as(e))
    return {name: round((sums[name] / max(counts[name], 1)) ** 0.5, 4) for name in sums}
