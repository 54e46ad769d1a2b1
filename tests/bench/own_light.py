#!/usr/bin/env python3
"""How near the server comes to the light of unseen rendered photographs: their shading, and what their surfaces see.

    python export/render.py --assets DIR --out light --seed 5555 --count 224
    python tests/bench/own_light.py --data light [--count 200] [--models DIR]

Shading: the local mean squared error (LMSE) of Grosse, Johnson, Adelson, Freeman, "Ground truth dataset and baseline
evaluations for intrinsic image algorithms", 2009: the error left in windows of a tenth of the picture, each scaled to
fit best, over the square of the truth; of its luminance, where the photograph is neither clipped nor black. Visibility:
the root mean square of (V - V true) n.l with the true normals where n.l > 0.05, of lights on the viewer's side. Needs
requirements-export.txt.
"""

import argparse
import pathlib
import sys
from dataclasses import replace

import cv2
import numpy as np
from training import data, directions, light

from server.image.srgb import LUMINANCE
from server.light.lights import Light
from server.light.maps import prepare_grid
from server.light.shading import prepare
from server.model.engine import OnnxEngine, load_graph
from server.scene.pipeline import estimate, read_scene

ROOT = pathlib.Path(__file__).resolve().parents[2]


def lmse(estimated, true, known):
    """(error, of how much): sums of squares over windows; arrays (h, w)."""
    side = max(4, max(true.shape) // 10)
    error = total = 0.0
    for y in range(0, true.shape[0] - side + 1, side // 2):
        for x in range(0, true.shape[1] - side + 1, side // 2):
            window = np.s_[y : y + side, x : x + side]
            e, t = estimated[window][known[window]], true[window][known[window]]
            if t.size:
                error += float(np.square(t - e * (e @ t) / max(float(e @ e), 1e-12)).sum())
                total += float(t @ t)
    return error, total


def log_light(maps):
    """The logarithm of the old light at every pixel, (h, w)."""
    return np.concatenate([maps.band(rows).log_light for rows in maps.bands(1)])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--models", type=pathlib.Path, default=ROOT / "onnx_models")
    parser.add_argument("--count", type=int, default=200)
    args = parser.parse_args()
    graph = load_graph(args.models, "relight-geometry", provider="cpu", threads=2)
    engine = OnnxEngine(dict.fromkeys(graph.manifest.roles, graph))
    shards = data.Shards(args.data)
    toward = directions.directions()
    lights = light.facing()[::4]
    shading, seen = {}, {}
    for k in range(min(args.count, len(shards))):
        h, w = (2 * (side // 2) for side in shards[k].rgb.shape[:2])
        lit = light.whole(shards, k, h, w)
        geometry, fit = read_scene(lit.rgb, estimate(lit.rgb, engine.analyse))
        true, known = np.exp(lit.shading) @ LUMINANCE, lit.known > 0
        ways = {"harmonics": replace(geometry, shading=None), "served": geometry}
        if geometry.shading is not None:
            ways["network alone"] = replace(geometry, shading_share=1.0)
        for way, one in ways.items():
            old = cv2.resize(log_light(prepare(lit.rgb, one, fit)), true.shape[::-1], interpolation=cv2.INTER_AREA)
            shading.setdefault(way, []).append(lmse(np.exp(old), true, known))
        shading.setdefault("even", []).append(lmse(np.ones_like(true), true, known))
        bits = np.unpackbits(lit.seen, axis=2)
        n_dot_d = (lit.normals / np.maximum(np.linalg.norm(lit.normals, axis=2, keepdims=True), 0.5)) @ toward.T
        for way in ("open", "marched", "field"):
            if way == "field" and geometry.visibility is None:
                continue
            grid = prepare_grid(replace(geometry, visibility=geometry.visibility if way == "field" else None), fit)
            for d in lights:
                sun = Light(direction=tuple(map(float, toward[d])), angle=1.0)
                v = 1.0 if way == "open" else cv2.resize(grid.visibility(sun), true.shape[::-1])
                facing = n_dot_d[..., d] > 0.05
                error = np.square((v - bits[..., d]) * n_dot_d[..., d])[facing]
                seen.setdefault(way, []).append((float(error.sum()), int(facing.sum())))
    print(f"{k + 1} pictures\nshading, LMSE:", end="")
    sums = {way: np.sum(rows, 0) for way, rows in shading.items()}
    print("".join(f"  {way} {error / total:.4f}" for way, (error, total) in sums.items()))
    sums = {way: np.sum(rows, 0) for way, rows in seen.items()}
    print("visibility, rms:" + "".join(f"  {way} {(error / total) ** 0.5:.3f}" for way, (error, total) in sums.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
