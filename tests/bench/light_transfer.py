#!/usr/bin/env python3
"""Is a photograph in another's light nearer to the truth than it was? Stacks of photographs, and rendered pairs.

    python tests/bench/light_transfer.py --set DIR [--most 6]
    python tests/bench/light_transfer.py --rendered [--assets DIR] [--count 24] [--seed 995]

Stacks (as of relight_truth.py): photographs a and b show one thing under two lights. The server's network reads each
alone; a is relit with the light found in b. Won: relRMSE to b (see relight_truth.py) is less than that of a itself.

Rendered: a and b show different scenes of the generator, each in a light of its own; the truth is the scene of a in the
light of b (one distant light and a faint even one). "Light known" is a relit with that distant light itself: as much as
knowing the light can do. Needs requirements-export.txt.
"""

import argparse
import collections
import json
import pathlib
import sys
from dataclasses import replace

import cv2
import numpy as np
from relight_truth import read, rel_rmse

from server.light.environment import pack
from server.light.lights import Environment, Rig, key_light
from server.light.maps import Maps, prepare
from server.light.shading import relight
from server.light.transfer import colour_of_light, own_light, seen_in
from server.model.engine import OnnxEngine, load_graph
from server.scene.geometry import pack as pack_geometry
from server.scene.geometry import unpack
from server.scene.pipeline import estimate, read_scene

ROOT = pathlib.Path(__file__).resolve().parents[2]
WAYS = {
    "default": {},
    "delight 1": {"delight": 1.0},
    "delight 1, shadow 1": {"delight": 1.0, "shadow_strength": 1.0},
}


class Shot:
    """A photograph as the server reads it."""

    def __init__(self, engine, rgb):
        geometry, fit = read_scene(rgb, estimate(rgb, engine.analyse))
        geometry = unpack(pack_geometry(geometry))
        self.maps: Maps = prepare(rgb, geometry, fit)
        self.light, self.colour = own_light(self.maps.shared), colour_of_light(rgb, geometry)

    def in_light_of(self, other, settings):
        rig = Rig(ambient=0.0, **settings)
        around = Environment(pack(seen_in(other.light, other.colour, self.colour, rig.delight)))
        return relight(self.maps, replace(rig, environment=around))


def score(found, family, a, b, truth, mask):
    before = rel_rmse(a.maps.rgb, truth, mask)
    for way, settings in WAYS.items():
        found[family, way].append((before, rel_rmse(a.in_light_of(b, settings), truth, mask)))


def stacks(engine, folder, most, found):
    for item in json.loads((folder / "manifest.json").read_text())["items"]:
        files = item["files"]
        if "stack" not in files or "gt" not in files:
            continue
        photo = read(folder / files["rgb"])
        H, W = photo.shape[:2]
        mask = np.load(folder / files["gt"])["normals_mask"].astype(np.uint8)
        mask = cv2.resize(mask, (W, H), interpolation=cv2.INTER_NEAREST) > 0
        lights = json.loads((folder / files["lights"]).read_text())["lights"]
        chosen = [lights[k] for k in np.unique(np.linspace(0, len(lights) - 1, most).astype(int))]
        pictures = [read(folder / files["stack"] / light["file"]) for light in chosen]
        pictures = [cv2.resize(p, (W, H), interpolation=cv2.INTER_AREA) for p in pictures]
        shots = [Shot(engine, p) for p in pictures]
        for a in shots:
            for b, truth in zip(shots, pictures):
                if a is not b:
                    score(found, item["name"].split("_")[0], a, b, truth, mask)


def rendered(engine, library, seed, count, found):
    from relight_rendered import OPEN, codes, directions, shoot
    from training import kernels, scenes

    def make(number, kind):
        rng, made = np.random.default_rng([seed, number]), None
        while made is None:
            made = scenes.make(library, rng, 1, kind)
        scene = made[1]
        scene.env, scene.background = np.full((2, 4, 3), 0.05, np.float32), None
        scene.m[:, kernels.EMIT] = 0
        return made

    def lit(made, number, direction):
        _, scene, [(_, camera, _), *_] = made
        scene.rows = np.array([[0, *(camera.T @ direction), 0.01, 4, 4, 4]], np.float32)
        return shoot(made, number)

    rng = np.random.default_rng(seed)
    for number in range(count):
        a, b = (make(2 * number + k, OPEN[(number + k * (1 + number // len(OPEN))) % len(OPEN)]) for k in (0, 1))
        first, second = directions(rng, 2)
        before, after, source = lit(a, 2 * number, first), lit(a, 2 * number, second), lit(b, 2 * number + 1, second)
        surface = before["mask"]
        photo, truth = codes(np.stack([before["rgb"], after["rgb"]]), surface)
        other = codes(source["rgb"][None], source["mask"])[0]
        shot = Shot(engine, photo)
        score(found, "rendered", shot, Shot(engine, other), truth, surface)
        known = relight(shot.maps, Rig(lights=(key_light(*map(float, second)),)))
        errors = rel_rmse(photo, truth, surface), rel_rmse(known, truth, surface)
        found["light known", "default"].append(errors)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", type=pathlib.Path, help="folder with manifest.json and the stacks")
    parser.add_argument("--most", type=int, default=6, help="lights of each stack")
    parser.add_argument("--rendered", action="store_true")
    parser.add_argument("--assets", type=pathlib.Path, help="meshes and textures, as for export/render.py")
    parser.add_argument("--count", type=int, default=24, help="rendered pairs")
    parser.add_argument("--seed", type=int, default=995)
    a = parser.parse_args()
    graph = load_graph(ROOT / "onnx_models", "relight-geometry", provider="cpu", threads=1)
    engine, found = OnnxEngine(dict.fromkeys(graph.manifest.roles, graph)), collections.defaultdict(list)
    if a.set:
        stacks(engine, a.set, a.most, found)
    if a.rendered:
        from training.assets import Library

        rendered(engine, Library(a.assets), a.seed, a.count, found)
    for way in WAYS:
        print(way)
        families = {f: rows for (f, w), rows in found.items() if w == way}
        if a.set:
            families["all stacks"] = [
                row for f, rows in families.items() if f not in ("rendered", "light known") for row in rows
            ]
        for family, rows in families.items():
            before, after = np.array(rows).T
            won = 100 * (after < before).mean()
            print(f"  {family:12s} {len(rows):5d} pairs  {before.mean():.3f} -> {after.mean():.3f}  won {won:.0f} %")
    return 0


if __name__ == "__main__":
    sys.exit(main())
