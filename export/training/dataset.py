"""Shards of rendered pictures on disk.

A shard of n pictures of size S is <seed>_<index:05d> with these files: .rgb.npy, uint8 (n, S, S, 3), sRGB; .inv.npy,
float16 (n, S, S), inverse z-depth scaled so that the largest value in each picture is 1, and 0 where there is no
surface; .nrm.npy, int8 (n, S, S, 3), camera-space normals * 127 (+x right, +y up, +z towards the viewer), and 0 where
there is no surface; .mask.npy, uint8 (n, S, S), 1 = surface; .vis.npy and .alb.npy, uint8 (n, S/2, S/2, ...), see
visibility.py; and, written last, .json with "kinds", "focal" (fx /
width), "seed" and "size". Pictures depend on (seed, number) alone.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Sequence

import numpy as np

from . import camera, renderer, scenes, visibility
from .assets import Library

Picture = dict[str, Any]  # rgb, inv, nrm, mask, vis and alb as arrays; kind, a string; focal, a float

SHARD, VIEWS = 32, 2
ARRAYS = ("rgb", "inv", "nrm", "mask", "vis", "alb")


def render_pair(library: Library, seed: int, number: int, size: int = 288, kind: str | None = None) -> list[Picture]:
    """The VIEWS pictures of scene `number`, as dicts with the ARRAYS, kind and focal (see the module's docstring)."""
    for attempt in range(50):
        rng = np.random.default_rng([seed, number, attempt])
        made = scenes.make(library, rng, VIEWS, kind)
        if made is None:
            continue
        kind_, scene, cams = made
        out = []
        for i in range(VIEWS):
            eye, cam, focal = cams[i % len(cams)]
            if i >= len(cams):  # with only one good camera, it is used again, closer and turned aside
                focal *= rng.uniform(1.15, 1.6)
                a, b = rng.normal(0, 0.06, 2)
                cam = renderer.look_at(eye, eye - cam[2] + a * cam[0] + b * cam[1], rng.normal(0, 0.1))
            r = renderer.render(scene, eye, cam, focal, rng, size)
            inv = np.where(r["mask"], 1 / np.maximum(r["depth"], 1e-6), 0)
            inv = inv / max(inv.max(), 1e-12)
            out.append(
                {
                    "rgb": camera.photograph(r["rgb"], inv, rng, 0.33 if kind_ == "object" else 0.06),
                    "inv": inv.astype(np.float16),
                    "nrm": np.rint(r["normal"] * 127).astype(np.int8),
                    "mask": r["mask"].astype(np.uint8),
                    "kind": kind_,
                    "focal": float(focal),
                    **visibility.trace(scene, eye, cam, focal, size // 2, size // 2),
                }
            )
        return out
    raise RuntimeError(f"scene {number} of seed {seed}: no camera saw anything in 50 attempts")


def render_shard(
    library: Library, seed: int, index: int, size: int = 288, count: int = SHARD, kinds: Sequence[str] | None = None
) -> list[Picture]:
    """Pictures index*count, ... of a seed. `kinds` are rendered in turn instead of the usual mix."""
    numbers = range(index * (count // VIEWS), (index + 1) * (count // VIEWS))
    return [p for k in numbers for p in render_pair(library, seed, k, size, kinds[k % len(kinds)] if kinds else None)]


def name(seed: int, index: int) -> str:
    """The stem of a shard's files."""
    return f"{seed}_{index:05d}"


def write_shard(folder: str | Path, seed: int, index: int, pictures: list[Picture]) -> None:
    """Write one shard. The .json appears last and each file by rename, so that readers never see half of it."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    base = folder / name(seed, index)
    for key in ARRAYS:
        tmp = folder / f".{base.name}.{key}.tmp"
        with open(tmp, "wb") as f:
            np.save(f, np.stack([p[key] for p in pictures]))
        os.replace(tmp, f"{base}.{key}.npy")
    meta = {
        "kinds": [p["kind"] for p in pictures],
        "focal": [p["focal"] for p in pictures],
        "seed": seed,
        "size": int(pictures[0]["rgb"].shape[0]),
    }
    tmp = folder / f".{base.name}.json.tmp"
    tmp.write_text(json.dumps(meta))
    os.replace(tmp, f"{base}.json")


def shards(folder: str | Path) -> list[str]:
    """The complete shards of a folder: their sorted path stems."""
    return sorted(str(p)[:-5] for p in Path(folder).glob("*_*.json"))


def keep_newest(folder: str | Path, count: int) -> None:
    """Delete all shards but the `count` newest, whatever their seed; of each shard its completion mark goes first."""

    def written(stem):
        try:
            return os.stat(f"{stem}.json").st_mtime_ns, stem
        except FileNotFoundError:  # another worker deleted it
            return 0, stem

    for stem in sorted(shards(folder), key=written)[:-count]:
        for end in (".json", *(f".{k}.npy" for k in ARRAYS)):
            Path(stem + end).unlink(missing_ok=True)
