"""The training loop's parts: state that survives being killed, schedules, validation, contact sheets."""

from __future__ import annotations

import copy
import ctypes
import math
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, ClassVar, Iterable

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from network import PARTS, GeometryNet
from torch import nn

from . import data, light, losses, views

Batch = tuple[torch.Tensor, views.Truth]
ENCODER_RATE = 0.1  # of the decoder's learning rate, because the encoder starts from good weights
WARM_UP = 150  # steps
CLIP = 2.0  # gradient norm
LIGHT_SHARE = 0.5  # of the light's losses where everything learns
PHOTOS = (
    "astronaut.png",
    "chelsea.png",
    "coffee.png",
    "motorcycle_left.png",
    "rocket.jpg",
    "camera.png",
    "color.png",
    "coins.png",
)


def keep_memory() -> None:
    """Ask glibc never to return freed memory to the system.

    Activations have the same sizes in every step, and faulting their pages in again costs a third of the time.
    """
    try:
        libc = ctypes.CDLL("libc.so.6")
        # M_MMAP_MAX, M_TRIM_THRESHOLD, M_TOP_PAD, M_ARENA_MAX
        for option, value in ((-4, 0), (-1, 2**31 - 1), (-2, 2**26), (-8, 1)):
            libc.mallopt(option, value)
    except (OSError, AttributeError):
        pass  # with another C library nothing is gained and nothing lost


@dataclass
class State:
    """Everything that makes up a run, so that one that is killed and restored goes on as if nothing had happened."""

    KEPT: ClassVar = ("ema", "step", "seconds", "samples", "log", "end")

    net: GeometryNet
    optimiser: torch.optim.Optimizer
    ema: dict[str, torch.Tensor]
    step: int = 0
    seconds: float = 0.0
    samples: int = 0
    log: list[dict[str, Any]] = field(default_factory=list)
    end: float | None = None  # when a run with --until ends, in seconds since 1970

    def save(self, path: Path) -> None:
        """Write the state to a file, completely or not at all."""
        temporary = path.with_suffix(".tmp")
        kept = {name: getattr(self, name) for name in self.KEPT}
        torch.save(
            {"network": self.net.shape, "net": self.net.state_dict(), "optimiser": self.optimiser.state_dict(), **kept},
            temporary,
        )
        os.replace(temporary, path)

    def restore(self, saved: dict[str, Any]) -> None:
        """Take on the state that `save` wrote."""
        self.net.load_state_dict(saved["net"])
        self.optimiser.load_state_dict(saved["optimiser"])
        for name in self.KEPT:
            setattr(self, name, saved[name])


def start(net: GeometryNet, rate: float, freeze: int = 0, part: str = "all") -> State:
    """A fresh state: AdamW with a slower encoder, and a running average of the weights.

    With another part than "all" only what network.PARTS names learns.

    The stem and the first `freeze` blocks of the encoder stay as they are: edges and colours look the same in every
    picture, and their gradients, at the highest resolution, are the most expensive.
    """
    net.still = tuple(name for name, _ in net.named_children() if name not in PARTS[part])
    for name in net.still:
        net.get_submodule(name).requires_grad_(False)
    if freeze:
        net.encoder.stem.requires_grad_(False)
        net.encoder.blocks[:freeze].requires_grad_(False)
    encoder = list(net.encoder.parameters())
    known = {id(p) for p in encoder}
    groups = [
        {"params": encoder, "lr": rate * ENCODER_RATE, "peak": rate * ENCODER_RATE},
        {"params": [p for p in net.parameters() if id(p) not in known], "lr": rate, "peak": rate},
    ]
    average = {k: v.detach().clone() for k, v in net.state_dict().items()}
    return State(net, torch.optim.AdamW(groups, weight_decay=1e-2, fused=True), average)


def learning_rate(step: int, done: float) -> float:
    """The factor of the peak rate: a linear warm-up, then half a cosine down to one percent.

    `done` is the share of the run, 0..1.
    """
    return min(1.0, (step + 1) / WARM_UP) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(done, 1.0))))


def size_at(step: int, done: float, seed: int, sizes: tuple[int, ...] = (160, 192, 256, 320)) -> int:
    """The picture size of a step, in pixels.

    Early steps are mostly small and cheap, later ones larger, and all are mixed because photos are analysed at several
    sizes.
    """
    odds = np.interp(done, (0.0, 0.4, 0.75, 1.0), (0, 1, 2, 3))
    mixes = np.array([(0.8, 0.2, 0.0, 0.0), (0.4, 0.4, 0.2, 0.0), (0.0, 0.4, 0.5, 0.1), (0.0, 0.15, 0.6, 0.25)])
    k = min(int(odds), 2)
    mix = mixes[k] + (odds - k) * (mixes[k + 1] - mixes[k])
    return int(np.random.default_rng([seed, step, 7]).choice(sizes, p=mix / mix.sum()))


class Workers:
    """Replicas of one network that share its parameters; each takes a part of every batch on a thread of its own.

    There is one core per replica and one synchronisation per step. Operators split over cores would synchronise
    thousands of times a step, and slow to a crawl as soon as anything else wants a core.
    """

    def __init__(self, net: nn.Module, count: int):
        self.nets = [net]
        for _ in range(count - 1):
            replica = copy.deepcopy(net)
            for mine, shared in zip(replica.parameters(), net.parameters(), strict=True):
                mine.data = shared.data
            self.nets.append(replica)
        torch.set_num_threads(1 if count > 1 else torch.get_num_threads())
        self.pool = ThreadPoolExecutor(count, initializer=lambda: torch.set_num_threads(1)) if count > 1 else None

    def gradients(self, work: Callable[[nn.Module, int], dict[str, float]]) -> dict[str, float]:
        """Run work(net, part), which ends in backward(), on every replica, and leave the mean gradient on the first.

        Returns the mean of the results.
        """
        for net in self.nets:
            net.zero_grad(set_to_none=True)
        parts = range(len(self.nets))
        results = list(self.pool.map(work, self.nets, parts) if self.pool else map(work, self.nets, parts))
        with torch.no_grad():
            for shared, *others in zip(*(net.parameters() for net in self.nets)):
                if others and shared.grad is not None:
                    for other in others:
                        shared.grad.add_(other.grad)
                    shared.grad.div_(len(self.nets))
            for shared, *others in zip(*(net.buffers() for net in self.nets)):
                if others and shared.is_floating_point():
                    shared.copy_(sum([shared, *others]) / len(self.nets))
                for other in others:
                    other.copy_(shared)
        return {k: sum(r[k] for r in results) / len(results) for k in results[0]}


def objective(
    predicted: tuple[torch.Tensor, ...], truth: views.Truth, part: str
) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """The loss terms of a part (see network.PARTS) by name, and what is to be made small."""
    geometry = losses.losses(predicted[:3], truth[:3], part) if part != "light" else {}
    lit = light.losses(predicted, (truth.normals, *truth[3:])) if part in ("all", "light") else {}
    loss = losses.total(geometry) + (LIGHT_SHARE if part == "all" else 1.0) * light.total(lit)
    return geometry | lit, loss


def train_step(
    state: State,
    workers: Workers,
    make: Callable[[int], Batch],
    done: float,
    device: str,
    bf16: bool,
    learns: str = "all",
) -> dict[str, float]:
    """One optimiser step on the batches make(part), one per worker. Returns the loss terms by name.

    Raises FloatingPointError when the loss is not finite.
    """

    def work(net: nn.Module, part: int) -> dict[str, float]:
        image, target = make(part)
        with torch.autocast(device, torch.bfloat16, enabled=bf16):
            predicted = net.train()(image.to(device, memory_format=torch.channels_last))
        predicted = tuple(p.float() for p in predicted)
        terms, loss = objective(predicted, views.Truth(*(t.to(device) for t in target)), learns)
        terms["loss"] = loss
        told = dict(zip(terms, torch.stack([t.detach() for t in terms.values()]).tolist()))  # a GPU is waited for once
        if not math.isfinite(told["loss"]):
            raise FloatingPointError(f"step {state.step}: loss is {told['loss']}")
        loss.backward()
        return told | {"samples": image.shape[0]}

    factor = learning_rate(state.step, done)
    for group in state.optimiser.param_groups:
        group["lr"] = group["peak"] * factor
    terms = workers.gradients(work)
    nn.utils.clip_grad_norm_(state.net.parameters(), CLIP)
    state.optimiser.step()
    state.step += 1
    state.samples += int(terms.pop("samples") * len(workers.nets))
    update_average(state)
    return terms


@torch.no_grad()
def update_average(state: State, horizon: float = 250.0) -> None:
    """Update the exponential moving average of weights and batch-norm statistics.

    It reaches over the last `horizon` steps, or over a fifth of the run so far if that is less.
    """
    keep = 1 - 1 / min(horizon, 1 + state.step / 5)
    for key, value in state.net.state_dict().items():
        if value.is_floating_point():
            state.ema[key].lerp_(value, 1 - keep)
        else:
            state.ema[key].copy_(value)


@torch.no_grad()
def validate(net: nn.Module, shards: data.Pictures, size: int = 256, limit: int = 128) -> dict[str, dict[str, float]]:
    """Scores for each kind of scene and for "all".

    They are the mean angle of the normals in degrees, the percentage of angles under 30 degrees, the percentages of
    depth order and mask that are right, and the mean angle of a constant normal that faces the viewer.
    """
    net.eval()
    device = next(net.parameters()).device
    rows: dict[str, list[list[float]]] = {}
    for k in np.linspace(0, len(shards) - 1, min(limit, len(shards))).astype(int):
        image, (disparity, normals, mask) = data.collate([data.whole(shards[k], size)])
        predicted = [p.float().cpu() for p in net(image.to(device, memory_format=torch.channels_last))]
        surface = (mask > 0.5) & (normals.norm(dim=1, keepdim=True) > 0.5)
        if surface.sum() < 50:
            continue
        truth = F.normalize(normals, dim=1)
        angle = angles(F.normalize(predicted[1], dim=1), truth)[surface]
        facing = angles(torch.tensor([0.0, 0.0, 1.0]).view(1, 3, 1, 1).expand_as(truth), truth)[surface]
        order = ordinal(predicted[0][surface].numpy(), disparity[surface].numpy())
        hits = ((predicted[2] > 0) == (mask > 0.5)).float().mean().item()
        row = [
            angle.mean().item(),
            (angle < 30).float().mean().item() * 100,
            order,
            hits * 100,
            facing.mean().item(),
            1.0,
        ]
        for name in (shards.kind(k), "all"):
            rows.setdefault(name, []).append(row)
    names = ("mean", "under30", "ordinal", "mask", "facing")
    return {
        kind: dict(zip(names, np.nanmean(r, 0)[:5].round(2).tolist())) | {"images": len(r)}
        for kind, r in sorted(rows.items())
    }


def angles(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """The angles in degrees between unit vectors along dimension 1, which is kept with size 1."""
    return torch.rad2deg(torch.acos((a * b).sum(1, keepdim=True).clamp(-1, 1)))


def ordinal(predicted: np.ndarray, truth: np.ndarray, pairs: int = 4000) -> float:
    """The percentage of random pixel pairs, at least 5 % apart in depth, whose order is right."""
    i, j = np.random.default_rng(0).integers(0, truth.size, (2, pairs))
    apart = np.maximum(truth[i], truth[j]) > 1.05 * np.maximum(np.minimum(truth[i], truth[j]), 1e-4)
    if apart.sum() < 50:
        return float("nan")
    return float(((predicted[i] > predicted[j]) == (truth[i] > truth[j]))[apart].mean() * 100)


def table(scores: dict[str, dict[str, float]]) -> str:
    """The scores of `validate` as lines of text, one for each kind."""
    head = f"{'kind':12s} {'images':>6s} {'mean':>6s} {'<30':>6s} {'order':>6s} {'mask':>6s} {'facing':>7s}"
    columns = {"images": "6.0f", "mean": "6.2f", "under30": "6.1f", "ordinal": "6.1f", "mask": "6.1f", "facing": "7.2f"}
    return "\n".join(
        [head] + [f"{kind:12s} " + " ".join(format(s[c], f) for c, f in columns.items()) for kind, s in scores.items()]
    )


def photos(names: Iterable[str] = PHOTOS) -> list[np.ndarray]:
    """RGB photographs, uint8 (h, w, 3), that come with scikit-image, to be looked at."""
    from skimage import data as wheel

    out = []
    for name in names:
        path = Path(wheel.__file__).parent / name
        if path.exists():
            picture = cv2.imread(str(path))
            assert picture is not None  # a file of the wheel
            out.append(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB))
    return out


@torch.no_grad()
def predict(net: nn.Module, rgb: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Disparity (h, w), unit normals (h, w, 3) and mask probability (h, w) of a picture whose long side becomes `size`.

    The results are on half the grid of the network's input.
    """
    factor = size / max(rgb.shape[:2])
    height, width = (max(32, round(s * factor / 32) * 32) for s in rgb.shape[:2])
    small = cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC)
    image = torch.from_numpy((small.astype(np.float32) - data.MEAN) / data.STD).permute(2, 0, 1)[None]
    image = image.to(next(net.parameters()).device, memory_format=torch.channels_last)
    disparity, normals, mask = net.eval()(image)[:3]
    return (
        disparity[0, 0].cpu().numpy(),
        F.normalize(normals, dim=1)[0].permute(1, 2, 0).cpu().numpy(),
        torch.sigmoid(mask)[0, 0].cpu().numpy(),
    )


def tiles(
    rgb: np.ndarray, disparity: np.ndarray, normals: np.ndarray, mask: np.ndarray, side: int = 224
) -> list[np.ndarray]:
    """Picture, normals (black where there is no surface), disparity and mask as uint8 RGB squares."""
    low, high = np.percentile(disparity, (1, 99))
    grey = np.clip((disparity - low) / max(high - low, 1e-6), 0, 1) * 255
    colour = (normals + 1) / 2 * 255 * (mask[..., None] > 0.5)
    planes = [rgb, colour, np.repeat(grey[..., None], 3, -1), np.repeat(mask[..., None] * 255, 3, -1)]
    return [fit(p, side) for p in planes]


def fit(image: np.ndarray, side: int) -> np.ndarray:
    """The image inside a gray square."""
    factor = side / max(image.shape[:2])
    how = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    image = cv2.resize(image.astype(np.float32), None, fx=factor, fy=factor, interpolation=how)
    out = np.full((side, side, 3), 64, np.uint8)
    out[: image.shape[0], : image.shape[1]] = np.clip(image + 0.5, 0, 255)[:side, :side]
    return out


def contact_sheet(net: nn.Module, shards: data.Shards | None, path: Path, size: int = 256, rendered: int = 8) -> None:
    """Write a sheet of photographs with their predictions, then of validation pictures with predictions and truth."""
    rows = [tiles(rgb, *predict(net, rgb, size)) for rgb in photos()]
    samples: list[data.Sample] = []
    if shards:
        samples = [shards[k] for k in np.linspace(0, len(shards) - 1, min(rendered, len(shards))).astype(int)]
    for sample in samples:
        truth = tiles(sample.rgb, sample.disparity, sample.normals, sample.mask)
        guess = tiles(sample.rgb, *predict(net, np.ascontiguousarray(sample.rgb), size))
        rows += [guess, truth]
    rows += [[np.zeros_like(t) for t in rows[0]]] * (len(rows) % 2)
    pairs = [np.concatenate(rows[k] + rows[k + 1], 1) for k in range(0, len(rows), 2)]
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), cv2.cvtColor(np.concatenate(pairs), cv2.COLOR_RGB2BGR))
