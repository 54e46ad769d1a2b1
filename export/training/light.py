"""Training the light's branch: visibility and shading, from pictures whose light is known (see visibility.py).

Shading is what the photograph has over its albedo, each channel free of a factor. Beside visibility and shading by
themselves, the picture counts that they are for: the photograph divided by its shading and lit anew, with the predicted
normals, from some of the directions. So an error that another one makes up for costs little, and doubt is spread where
it harms least.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from . import data
from .data import MEAN, STD
from .directions import directions

DARK = 0.02  # albedo under which shading is not learned
CLIPPED, BLACK = 250, 5  # codes beyond which a photograph does not say how bright it is
WEIGHTS = {"seen": 1.0, "shading": 0.3, "edges": 0.1, "relit": 1.5}
LIT = 6  # directions a picture is lit from
AMBIENT = 0.05  # of the light that it is lit with
BRIGHTER = 2.0  # the most, as a logarithm, that a pixel counts too bright or too dark


class Lit(NamedTuple):
    """A picture and, on half its grid, what is known of its light.

    rgb is uint8 (h, w, 3); normals are float32 (h/2, w/2, 3), 0 where there is no surface; seen is uint8
    (h/2, w/2, K/8), bits; shading is float32 (h/2, w/2, 3), its logarithm, and albedo of the same shape, linear; known
    is float32 (h/2, w/2), where these are known.
    """

    rgb: np.ndarray
    normals: np.ndarray
    seen: np.ndarray
    shading: np.ndarray
    albedo: np.ndarray
    known: np.ndarray


Truth = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]  # normals, seen, shading, albedo, known, lights
Batch = tuple[Tensor, Truth]


def whole(shards: data.Pictures, k: int, height: int, width: int) -> Lit:
    """Picture k, all of it, at (height, width)."""
    rgb, _, codes, _, bits, root = shards.rows(k)
    nrm, albedo = codes.astype(np.float32) / 127, root.astype(np.float32) / 255
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
        cv2.resize(np.ascontiguousarray(bits), half, interpolation=cv2.INTER_NEAREST),
        cv2.resize(shading, half, interpolation=cv2.INTER_NEAREST),
        cv2.resize(reflects, half, interpolation=cv2.INTER_NEAREST),
        cv2.resize(known.astype(np.float32), half, interpolation=cv2.INTER_NEAREST),
    )


def recolour(rgb: np.ndarray, shading: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """What cameras and editors do to a picture, with no more of a tone curve than its shading can follow.

    Takes and returns codes uint8 (h, w, 3) and the logarithm of the shading float32 (h/2, w/2, 3).
    """
    x: np.ndarray = rgb.astype(np.float32) / 255
    if rng.random() < 0.7:
        x = data.roughen(x, rng)
    gamma = np.float32(np.exp(rng.uniform(-0.25, 0.25)))
    x = np.clip(x, 1e-4, 1) ** gamma * rng.uniform(0.8, 1.1, 3).astype(np.float32)
    saturation = 0.0 if rng.random() < 0.15 else rng.uniform(0.7, 1.3)
    out = data.developed(data.saturated(x, saturation), rng, 0.04, (25, 95))
    shading = shading * gamma
    if saturation == 0:
        shading = np.broadcast_to(shading.mean(2, keepdims=True), shading.shape)
    return out, shading


def collate(samples: list[Lit], lights: np.ndarray) -> Batch:
    """(normalised pictures, truth): normals (n, 3, h/2, w/2), seen (n, K, ...), shading and albedo (n, 3, ...), known
    (n, 1, ...), all float32, and the indices of the directions that the pictures are lit from anew.
    """

    def stack(arrays: list[np.ndarray]) -> Tensor:
        return torch.from_numpy(np.stack(arrays).astype(np.float32, copy=False)).permute(0, 3, 1, 2)

    seen = torch.from_numpy(np.unpackbits(np.stack([s.seen for s in samples]), axis=3)).permute(0, 3, 1, 2)
    known = stack([s.known[..., None] for s in samples])
    normals, shading, albedo = (stack([s[k] for s in samples]) for k in (1, 3, 4))
    truth = normals, seen.float(), shading, albedo, known, torch.from_numpy(lights)
    return (stack([s.rgb for s in samples]) - MEAN) / STD, truth


def facing() -> np.ndarray:
    """The indices of the directions on the viewer's side, where people put lights."""
    return np.flatnonzero(directions()[:, 2] > 0.2)


def cosines(normals: Tensor) -> Tensor:
    """max(n.d, 0) for normals (n, 3, ...) of any length, 0 for those shorter than a half: (n, K, ...)."""
    length = normals.norm(dim=1, keepdim=True)
    d = torch.from_numpy(directions()).to(normals)
    n_dot_d = torch.einsum("kc,nchw->nkhw", d, normals / length.clamp(min=0.5)).clamp(min=0)
    return n_dot_d * (length > 0.5)


def losses(predicted: tuple[Tensor, ...], truth: Truth) -> dict[str, Tensor]:
    """Every term by name, unweighted; predicted as GeometryNet gives it, with its light."""
    _, normals, _, seen, shading = predicted
    true_normals, true_seen, true_shading, albedo, known, lights = truth
    n_dot_d = cosines(true_normals)
    entropy = F.binary_cross_entropy_with_logits(seen, true_seen, reduction="none")
    weight = n_dot_d + 0.02 * (n_dot_d > 0)
    difference = shading - true_shading
    total = known.sum((2, 3), keepdim=True).clamp(min=1)
    difference = (difference - (difference * known).sum((2, 3), keepdim=True) / total).clamp(-3, 3)
    edges = difference.new_zeros(())
    for k in range(4):
        d, m = difference[..., :: 2**k, :: 2**k], known[..., :: 2**k, :: 2**k]
        for dim in (2, 3):
            n = d.shape[dim] - 1
            both = m.narrow(dim, 0, n) * m.narrow(dim, 1, n)
            edges = edges + (d.diff(dim=dim).abs() * both).sum() / (3 * both.sum()).clamp(min=1)
    arrives = torch.sigmoid(seen) * cosines(F.normalize(normals.detach(), dim=1))
    return {
        "seen": (entropy * weight).sum() / weight.sum().clamp(min=1),
        "shading": (difference.abs() * known).sum() / (3 * known.sum()).clamp(min=1),
        "edges": edges,
        "relit": relit_errors(arrives[:, lights], difference, (true_seen * n_dot_d)[:, lights], albedo, known).mean(),
    }


def relit_errors(arrives: Tensor, too_much: Tensor, truly: Tensor, albedo: Tensor, known: Tensor) -> Tensor:
    """The relative root mean square errors (n, m) of pictures that are lit anew from m directions, up to a factor each.

    What arrives from each direction, (n, m, ...), and what truly does; by how much the shading's logarithm is
    `too_much`, (n, 3, ...); the albedo, (n, 3, ...), linear; where all of this is known, (n, 1, ...).
    """
    reflects = (albedo * known)[:, None]  # (n, 1, 3, ...)
    true = reflects * (AMBIENT + truly[:, :, None])
    ours = reflects * torch.exp(-too_much.clamp(-BRIGHTER, BRIGHTER))[:, None] * (AMBIENT + arrives[:, :, None])
    square = true.square().sum((2, 3, 4))
    factor = (true * ours).sum((2, 3, 4)) / ours.square().sum((2, 3, 4)).clamp(min=1e-6)
    error = (factor.detach()[..., None, None, None] * ours - true).square().sum((2, 3, 4))
    return torch.sqrt(error / square.clamp(min=1e-3) + 1e-6)


def total(terms: dict[str, Tensor]) -> Tensor:
    """The weighted sum of the terms, a scalar."""
    return sum((WEIGHTS[name] * term for name, term in terms.items()), torch.zeros(()))


@torch.no_grad()
def validate(net: torch.nn.Module, shards: data.Pictures, size: int = 256, limit: int = 96) -> dict[str, float]:
    """Errors over unseen pictures.

    Root mean squares: "visibility" is of (V - V true) n.d with the true normals where n.d > 0.05, "open" the same of
    V = 1; "shading" is of its logarithm, "even" the same of a constant one. "relit" is the mean of relit_errors, "flat"
    the same with V = 1 and a constant shading.
    """
    net.eval()
    device, lights = next(net.parameters()).device, facing()[::4]
    squares: dict[str, list[float]] = {}
    counts: dict[str, list[float]] = {}

    def add(name: str, square: Tensor, where: Tensor) -> None:
        squares.setdefault(name, []).append(float((square * where).sum()))
        counts.setdefault(name, []).append(float(where.sum()))

    for k in np.linspace(0, len(shards) - 1, min(limit, len(shards))).astype(int):
        image, truth = collate([whole(shards, k, size, size)], lights)
        image = image.to(device, memory_format=torch.channels_last)
        _, normals, _, seen, shading = (p.float().cpu() for p in net(image))
        v, n_dot_d, known = torch.sigmoid(seen), cosines(truth[0]), truth[4]
        lit, ours, truly = (n_dot_d > 0.05).float(), cosines(F.normalize(normals, dim=1)), truth[1] * n_dot_d
        for names, guess, guessed in (
            (("visibility", "shading", "relit"), v, shading),
            (("open", "even", "flat"), torch.ones_like(v), torch.zeros_like(shading)),
        ):
            add(names[0], ((guess - truth[1]) * n_dot_d) ** 2, lit)
            e = guessed - truth[2]
            e = e - (e * known).sum((2, 3), keepdim=True) / known.sum((2, 3), keepdim=True).clamp(min=1)
            add(names[1], e.square(), known.expand_as(e))
            if known.sum() > 100:
                errors = relit_errors((guess * ours)[:, lights], e, truly[:, lights], truth[3], known)
                add(names[2], errors, torch.ones_like(errors))
    found = {name: sum(values) / max(sum(counts[name]), 1) for name, values in squares.items()}
    return {name: round(v if name in ("relit", "flat") else v**0.5, 4) for name, v in found.items()}
