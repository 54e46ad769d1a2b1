"""Shards of rendered pictures on disk.

One shard of n pictures of size S is <seed>_<index:05d> with
.rgb.npy uint8 (n,S,S,3) sRGB; .inv.npy float16 (n,S,S) inverse z-depth, largest 1 in each picture, 0 = no surface;
.nrm.npy int8 (n,S,S,3) camera-space normals * 127 (+x right, +y up, +z towards the viewer), 0 = no surface;
.mask.npy uint8 (n,S,S) 1 = surface; and, written last, .json {"kinds", "focal" (fx / width), "seed", "size"}.
Pictures depend on (seed, number) alone.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np

from . import camera, renderer, scenes

SHARD, VIEWS = 32, 2
ARRAYS = ("rgb", "inv", "nrm", "mask")


def render_pair(library, seed, number, size=288, kind=None):
    """The VIEWS pictures of scene `number`: list of dicts rgb, inv, nrm, mask, kind, focal."""
    for attempt in range(50):
        rng = np.random.default_rng([seed, number, attempt])
        made = scenes.make(library, rng, VIEWS, kind)
        if made is None:
            continue
        kind_, scene, cams = made
        out = []
        for i in range(VIEWS):
            eye, cam, focal = cams[i % len(cams)]
            if i >= len(cams):  # one good camera only: its picture again, closer and seen elsewhere
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
                }
            )
        return out
    raise RuntimeError(f"scene {number} of seed {seed}: no camera saw anything in 50 attempts")


def render_shard(library, seed, index, size=288, count=SHARD, kinds=None):
    """Pictures index*count ... of a seed, as a list; `kinds` in turn instead of the mix."""
    numbers = range(index * (count // VIEWS), (index + 1) * (count // VIEWS))
    return [p for k in numbers for p in render_pair(library, seed, k, size, kinds[k % len(kinds)] if kinds else None)]


def name(seed, index):
    return f"{seed}_{index:05d}"


def write_shard(folder, seed, index, pictures):
    """Writes one shard; the .json appears last, each file by rename, so that readers never see half of it."""
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


def shards(folder):
    """Complete shards of a folder, sorted: list of path stems."""
    return sorted(str(p)[:-5] for p in Path(folder).glob("*_*.json"))


def keep_newest(folder, count):
    """Deletes all shards but the newest, whatever their seed; of each its completion mark first."""

    def written(stem):
        try:
            return os.stat(f"{stem}.json").st_mtime_ns, stem
        except FileNotFoundError:  # another worker deleted it
            return 0, stem

    for stem in sorted(shards(folder), key=written)[:-count]:
        for end in (".json", *(f".{k}.npy" for k in ARRAYS)):
            Path(stem + end).unlink(missing_ok=True)
