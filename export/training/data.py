"""Rendered shards, and what is done to their colours; see views.py for batches.

A shard is `<stem>.rgb.npy` uint8 (n, s, s, 3) sRGB, `.inv.npy` float16 (n, s, s) inverse depth, `.nrm.npy` int8
(n, s, s, 3) normals * 127, `.mask.npy` uint8 (n, s, s), and `<stem>.json`, written last. What is known of the light is
beside them, see light.py.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import cv2
import numpy as np
import torch
from torch import Tensor

from . import skies

GEOMETRY = ("rgb", "inv", "nrm", "mask")
FIELDS = (*GEOMETRY, "vis", "alb")
MEAN, STD = 127.0, 128.0


class Sample(NamedTuple):
    """One picture with its truth.

    rgb is uint8 (h, w, 3), disparity float32 (h, w), normals float32 (h, w, 3) and mask float32 (h, w).
    """

    rgb: np.ndarray
    disparity: np.ndarray
    normals: np.ndarray
    mask: np.ndarray


class Shards:
    """All shards of a folder, memory-mapped, as a sequence of samples. fields: FIELDS, or the GEOMETRY alone."""

    def __init__(self, folder: Path, every: float = 20.0, fields: tuple[str, ...] = FIELDS):
        self.folder, self.every, self.checked, self.fields = Path(folder), every, 0.0, fields
        self.stems: list[str] = []
        self.arrays: dict[str, list[np.ndarray]] = {}
        self.about: dict[str, dict[str, Any]] = {}
        self.index: list[tuple[str, int]] = []
        self.rescan()

    def rescan(self) -> None:
        """Take up new shards and forget deleted ones, unless the last look was less than `every` seconds ago."""
        if time.monotonic() - self.checked < self.every and self.index:
            return
        self.checked = time.monotonic()
        stems = sorted(p.stem for p in self.folder.glob("*.json"))
        if stems == self.stems:
            return
        arrays, about = {}, {}
        for stem in stems:
            try:
                arrays[stem] = self.arrays.get(stem) or [
                    np.load(self.folder / f"{stem}.{f}.npy", mmap_mode="r") for f in self.fields
                ]
                about[stem] = self.about.get(stem) or json.loads((self.folder / f"{stem}.json").read_text())
            except FileNotFoundError:  # the ring dropped it between the listing and now
                arrays.pop(stem, None)
        self.stems, self.arrays, self.about = stems, arrays, about
        self.index = [(stem, k) for stem in stems if stem in arrays for k in range(len(arrays[stem][0]))]

    def __len__(self) -> int:
        return len(self.index)

    def kind(self, k: int) -> str:
        """The kind of scene that picture k shows."""
        stem, j = self.index[k]
        return str(self.about[stem]["kinds"][j])

    def focal(self, k: int) -> float:
        """The focal length of picture k in widths of it."""
        stem, j = self.index[k]
        return float(self.about[stem]["focal"][j])

    def rows(self, k: int) -> list[np.ndarray]:
        """The arrays of picture k, in the order of the fields."""
        stem, j = self.index[k]
        return [a[j] for a in self.arrays[stem]]

    def __getitem__(self, k: int) -> Sample:
        return sample(self.rows(k))


class Pictures(Protocol):
    """A sequence of samples and of what else is known of them: Shards, or any other place where pictures are."""

    def __len__(self) -> int: ...

    def __getitem__(self, k: int) -> Sample: ...

    def rows(self, k: int) -> list[np.ndarray]:
        """The arrays of picture k, in the order of the fields."""

    def kind(self, k: int) -> str:
        """The kind of scene that picture k shows."""


def sample(rows: list[np.ndarray]) -> Sample:
    """The sample of a picture's arrays, which begin as FIELDS do."""
    rgb, inverse, normals, mask = rows[:4]
    return Sample(
        np.asarray(rgb), inverse.astype(np.float32), normals.astype(np.float32) / 127, (mask > 0).astype(np.float32)
    )


def resize(sample: Sample, height: int, width: int) -> Sample:
    """The picture at (height, width), and its truth at half that size.

    Normals are averaged when shrinking, so that their length tells how much they agree. Depth never is: a mean across
    an edge is the depth of nothing.
    """
    h, w = sample.rgb.shape[:2]
    half = (width // 2, height // 2)
    shrink = half[0] < w or half[1] < h
    soft, hard = (cv2.INTER_AREA, cv2.INTER_NEAREST) if shrink else (cv2.INTER_LINEAR, cv2.INTER_LINEAR)
    rgb = cv2.resize(
        np.ascontiguousarray(sample.rgb),
        (width, height),
        interpolation=cv2.INTER_AREA if width < w else cv2.INTER_CUBIC,
    )
    normals = cv2.resize(np.ascontiguousarray(sample.normals), half, interpolation=soft)
    return Sample(
        rgb,
        cv2.resize(np.ascontiguousarray(sample.disparity), half, interpolation=hard),
        normals,
        (cv2.resize(np.ascontiguousarray(sample.mask), half, interpolation=soft) > 0.5).astype(np.float32),
    )


def coarse_noise(rng: np.random.Generator, rows: int, columns: int, height: int, width: int) -> np.ndarray:
    """White noise on rows x columns cells, enlarged: float32 (height, width)."""
    cells = rng.standard_normal((rows, columns), dtype=np.float32)
    return cv2.resize(cells, (width, height), interpolation=cv2.INTER_CUBIC)


def roughen(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Add the fine detail that rendered pictures lack: photographs have twice their contrast at a few pixels.

    Bands of the picture itself are amplified, as by a camera's sharpening, and a grain that depends on the tone, such
    as most materials have, is laid over it. None of it is relief. Takes and returns float32 (h, w, 3) in 0..1.
    """
    blurred = [x] + [cv2.GaussianBlur(x, (0, 0), sigma) for sigma in (0.7, 1.4, 2.8, 5.6)]
    if rng.random() < 0.7:
        most = rng.uniform(0.3, 2.2)
        for fine, coarse in zip(blurred, blurred[1:]):
            x = x + (fine - coarse) * np.float32(rng.uniform(0, most))
    if rng.random() < 0.6:
        tone = blurred[3].mean(-1)
        amount = np.interp(tone, np.linspace(0, 1, 7), rng.uniform(0, 1, 7) ** 2).astype(np.float32)
        grain = np.zeros_like(tone)
        for cell in (1, 1, 2, 4):  # pixels
            rows, columns = (s // cell + 2 for s in tone.shape)
            grain += coarse_noise(rng, rows, columns, *tone.shape) * np.float32(rng.uniform(0, 1))
        x = x * (1 + rng.uniform(0.02, 0.25) * (amount * grain)[..., None])
    return np.clip(x, 0, 1)


def recolour(rgb: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """What cameras, editors and the web do to a picture, uint8 (h, w, 3) in and out; a fifth come out gray."""
    x: np.ndarray = rgb.astype(np.float32) / 255
    if rng.random() < 0.75:
        x = roughen(x, rng)
    if rng.random() < 0.15:  # a soft or enlarged picture
        x = cv2.GaussianBlur(x, (0, 0), rng.uniform(0.4, 1.6))
    elif rng.random() < 0.15:
        k = rng.uniform(0.35, 0.9)
        small = cv2.resize(x, None, fx=k, fy=k, interpolation=cv2.INTER_AREA)
        x = cv2.resize(small, (x.shape[1], x.shape[0]), interpolation=cv2.INTER_CUBIC)
    x = np.clip(x, 1e-4, 1) ** np.float32(np.exp(rng.uniform(-0.45, 0.45)))
    x = (x - 0.5) * rng.uniform(0.75, 1.25) + 0.5 + rng.uniform(-0.1, 0.1)
    x = x * rng.uniform(0.85, 1.15, 3).astype(np.float32)
    x = saturated(x, 0.0 if rng.random() < 0.2 else rng.uniform(0.5, 1.5))
    return developed(x, rng, 0.06, (15, 90))


def saturated(x: np.ndarray, saturation: float) -> np.ndarray:
    """The picture (h, w, 3) float32 with its colours so strong; at 0 it is gray, at 1 itself."""
    gray = x @ np.array([0.299, 0.587, 0.114], np.float32)
    return np.asarray(gray[..., None] + (x - gray[..., None]) * np.float32(saturation))


def developed(x: np.ndarray, rng: np.random.Generator, noise: float, qualities: tuple[int, int]) -> np.ndarray:
    """Codes (h, w, 3) uint8 of a picture float32 0..1, some with noise of at most so much, some from a JPEG."""
    if rng.random() < 0.3:
        x = x + rng.standard_normal(x.shape, dtype=np.float32) * np.float32(rng.uniform(0.005, noise))
    out = (np.clip(x, 0, 1) * 255 + 0.5).astype(np.uint8)
    if rng.random() < 0.4:
        quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.uniform(*qualities))]
        decoded = cv2.imdecode(cv2.imencode(".jpg", out, quality)[1], cv2.IMREAD_COLOR)
        assert decoded is not None  # it was encoded in the same line
        return decoded
    return out


def paint_sky(sample: Sample, rng: np.random.Generator) -> Sample:
    """The sample with another sky where there is no surface, see skies.py. The truth is unchanged."""
    void = 1 - sample.mask
    if void.mean() < 0.04:
        return sample
    sky = skies.behind(rng, *void.shape)
    alpha = cv2.GaussianBlur(void, (0, 0), 0.7)[..., None]
    rgb = sample.rgb + (sky * 255 - sample.rgb) * alpha
    return sample._replace(rgb=np.clip(rgb + 0.5, 0, 255).astype(np.uint8))


def collate(samples: list[Sample]) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
    """(normalised picture (n, 3, h, w), (disparity, normals, mask)), float32, channels last in memory."""

    def stack(arrays: list[np.ndarray]) -> Tensor:
        t = torch.from_numpy(np.stack(arrays).astype(np.float32, copy=False))
        return t.permute(0, 3, 1, 2) if t.dim() == 4 else t[:, None]

    disparity, normals, mask = (stack([s[k] for s in samples]) for k in (1, 2, 3))
    return (stack([s.rgb for s in samples]) - MEAN) / STD, (disparity, normals, mask)


# The probability that a sample of a kind is accepted when drawn: single things and full rooms are the hardest and are
# what people relight; streets are neither.
READILY = {
    "object": 0.8,
    "carved": 0.8,
    "animal": 0.7,
    "lived": 0.7,
    "clutter": 0.6,
    "cloth": 0.6,
    "still": 0.6,
    "table": 0.5,
    "portrait": 0.35,
    "outdoor": 0.25,
    "skyline": 0.3,
    "facade": 0.25,
}


def draw(shards: Shards, rng: np.random.Generator) -> int:
    """A random sample's index. Kinds come up as often as READILY says (0.4 for the others)."""
    for _ in range(50):
        k = int(rng.integers(len(shards)))
        if rng.random() < READILY.get(shards.kind(k), 0.4):
            break
    return k


def shape_of(size: int, rng: np.random.Generator) -> tuple[int, int]:
    """A (height, width) of about size * size pixels, both multiples of 32."""
    ratio = rng.choice([1.0, 1.0, 1.3, 1 / 1.3])
    height, width = (max(32, round(float(size * r / 32)) * 32) for r in (ratio**-0.5, ratio**0.5))
    return height, width


def whole(sample: Sample, size: int) -> Sample:
    """The unaugmented sample at size x size."""
    return resize(sample, size, size)
