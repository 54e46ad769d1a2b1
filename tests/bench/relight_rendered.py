#!/usr/bin/env python3
"""How near the server comes to scenes lit anew, where the truth is rendered: for trying out what reads a photograph's
light.

    python tests/bench/relight_rendered.py --assets DIR [--count 40] [--seed 995] [--own]

Each scene of the generator is rendered under one distant light (with --own: in the light that it came with), which is
the photograph, and under others. The server's network and engine relight the photograph to each of the others: relRMSE
as in relight_truth.py, over the surfaces. "off" and "on" are without and with full shadows (ambient 0.05, delight 1),
"even light" is without, and with an even light instead of the estimated one, "default" is what x, y, z alone get,
"default off" the same without shadows. The truth has cast shadows, bounces and highlights. Needs
requirements-export.txt.
"""

import argparse
import collections
import functools
import operator
import pathlib
import sys
from dataclasses import replace

import numpy as np
from relight_truth import rel_rmse
from training import kernels, renderer, scenes
from training.assets import Library

from server.image.srgb import linear_to_srgb
from server.light.lights import SHORTHAND_EXPOSURE, Rig, key_light
from server.light.shading import prepare, relight
from server.model.engine import OnnxEngine, load_graph
from server.scene.illumination import EVEN_LIGHT
from server.scene.pipeline import estimate, read_scene

ROOT = pathlib.Path(__file__).resolve().parents[2]
SIZE, LIGHTS = 256, 4
OPEN = (
    "object",
    "portrait",
    "carved",
    "still",
    "table",
    "clutter",
    "cloth",
    "facade",
)  # distant light gets in from the camera's side


def directions(rng, count):
    """Unit vectors toward the light, all somewhat on the viewer's side."""
    while count:
        d = rng.normal(size=3) * (1, 1, 0.7) + (0, 0.1, 0.9)
        d /= np.linalg.norm(d)
        if d[2] > 0.25:
            count -= 1
            yield d


def codes(linear, surface):
    """uint8 sRGB of linear pictures (n, h, w, 3), all by one factor."""
    bright = max(np.percentile(linear[:, surface], 99.5), 1e-6)
    return np.rint(255 * linear_to_srgb(np.clip(linear / bright, 0, 1))).astype(np.uint8)


def shoot(made, number):
    """A picture of a scene by its first camera, noise and all always the same."""
    _, scene, [(eye, camera, focal), *_] = made
    return renderer.render(scene, eye, camera, focal, np.random.default_rng(number), SIZE)


def stacks(library, seed, count, own):
    """(kind, photograph, surface, [(direction, truth)]) of scenes of OPEN kinds."""
    for number in range(count):
        rng, made = np.random.default_rng([seed, number]), None
        kind = OPEN[number % len(OPEN)]
        while made is None:
            made = scenes.make(library, rng, 1, kind)
        _, scene, [(_, camera, _), *_] = made
        photograph = shoot(made, number) if own else None
        scene.env, scene.background = np.full((2, 4, 3), 0.01, np.float32), None
        scene.m[:, kernels.EMIT] = 0
        pairs = []
        for direction in directions(rng, LIGHTS + (not own)):
            scene.rows = np.array([[0, *(camera.T @ direction), 0.01, 4, 4, 4]], np.float32)
            pairs.append((direction, shoot(made, number)))
        surface = pairs[0][1]["mask"]
        truths = codes(np.stack([p["rgb"] for _, p in pairs]), surface)
        first = codes(photograph["rgb"][None], surface)[0] if own else truths[0]
        yield kind, first, surface, list(zip((d for d, _ in pairs), truths))[0 if own else 1 :]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--assets", type=pathlib.Path, help="meshes and textures, as for export/render.py (default: procedural)"
    )
    parser.add_argument("--count", type=int, default=40, help="scenes")
    parser.add_argument("--seed", type=int, default=995)
    parser.add_argument("--own", action="store_true", help="photographs in the light that their scenes came with")
    parser.add_argument("--models", type=pathlib.Path, default=ROOT / "onnx_models")
    a = parser.parse_args()
    graph = load_graph(a.models, "relight-geometry", provider="cpu", threads=1)
    engine = OnnxEngine(dict.fromkeys(graph.manifest.roles, graph))
    found = collections.defaultdict(list)
    for kind, photograph, surface, pairs in stacks(Library(a.assets), a.seed, a.count, a.own):
        geometry, fit = read_scene(photograph, estimate(photograph, engine.analyse))
        maps = prepare(photograph, geometry, fit)
        even = prepare(photograph, replace(geometry, shading=None), replace(fit, light=EVEN_LIGHT))
        for direction, truth in pairs:
            default = Rig(lights=(key_light(*map(float, direction)),), exposure=SHORTHAND_EXPOSURE)
            off = replace(default, ambient=0.05, delight=1.0, shadow_strength=0.0, exposure=0.0)
            for way, rig, source in (
                ("off", off, maps),
                ("on", replace(off, shadow_strength=1.0), maps),
                ("even light", off, even),
                ("default", default, maps),
                ("default off", replace(default, shadow_strength=0.0), maps),
            ):
                found[kind, way].append(rel_rmse(relight(source, rig), truth, surface))
        found[kind, "no change"] += [rel_rmse(photograph, truth, surface) for _, truth in pairs]
    ways = list(dict.fromkeys(way for _, way in found))
    print(" " * 12 + "".join(f"{way:>12s}" for way in ways))
    for kind in [*dict.fromkeys(k for k, _ in found), "all"]:
        columns = [
            np.mean(
                functools.reduce(
                    operator.iadd, (v for (k, w), v in found.items() if w == way and kind in (k, "all")), []
                )
            )
            for way in ways
        ]
        print(f"{kind:12s}" + "".join(f"{v:12.3f}" for v in columns))
    return 0


if __name__ == "__main__":
    sys.exit(main())
