#!/usr/bin/env python3
"""How near the engine comes to photographs really taken under another light, when the geometry is true.

    python tests/bench/relight_truth.py --set DIR [--json out.json]

DIR holds a manifest.json of items with stacks: one photograph, its true normals and mask, and the same view under other
known distant lights. The engine gets the true normals, with the mask and without it, and relights the photograph to
each of the other lights. With P the relit picture and T the real one, linear, inside the mask, s = sum(PT) / sum(PP):
relRMSE = rms(sP - T) / rms(T), averaged over the pairs. Ambient 0.05, no cast shadows.
"""

import argparse
import collections
import functools
import json
import operator
import pathlib
import sys

import cv2
import numpy as np

from server.image.srgb import srgb_to_linear
from server.light.lights import Rig, key_light
from server.light.shading import prepare, relight
from server.scene.fit import fit_scene
from server.scene.geometry import Geometry


def read(path):
    return cv2.imread(str(path), cv2.IMREAD_COLOR)[..., ::-1]


def rel_rmse(picture, truth, mask):
    p, t = srgb_to_linear(picture[mask] / 255), srgb_to_linear(truth[mask] / 255)
    s = (p * t).sum() / max((p * p).sum(), 1e-12)
    return float(np.sqrt(((s * p - t) ** 2).mean() / (t**2).mean()))


def stacks(folder):
    """(family, photograph, normals, mask, [(direction, photograph under it)]) of every stack."""
    for item in json.loads((folder / "manifest.json").read_text())["items"]:
        files = item["files"]
        if "stack" not in files or "gt" not in files:
            continue
        photo, truth = read(folder / files["rgb"]), np.load(folder / files["gt"])
        normals, mask = truth["normals"].astype(np.float32), truth["normals_mask"]
        H, W = photo.shape[:2]
        if mask.shape != (H, W):
            normals = cv2.resize(normals, (W, H), interpolation=cv2.INTER_NEAREST)
            mask = cv2.resize(mask.astype(np.uint8), (W, H), interpolation=cv2.INTER_NEAREST) > 0
        pairs = []
        for light in json.loads((folder / files["lights"]).read_text())["lights"]:
            other = read(folder / files["stack"] / light["file"])
            if other.shape != photo.shape:
                other = cv2.resize(other, (W, H), interpolation=cv2.INTER_AREA)
            if not np.array_equal(other, photo):
                pairs.append((light["direction"], other))
        yield (
            item["name"].split("_")[0],
            photo,
            np.where(mask[..., None], normals, (0, 0, 1)).astype(np.float32),
            mask,
            pairs,
        )


def score(folder, variants):
    """{variant: {family: [relRMSE of every pair]}}; a variant is (with mask, rig settings)."""
    found = {name: collections.defaultdict(list) for name in ["no change", *variants]}
    for family, photo, normals, mask, pairs in stacks(folder):
        for _, truth in pairs:
            found["no change"][family].append(rel_rmse(photo, truth, mask))
        prepared = {}
        for name, (masked, settings) in variants.items():
            if masked not in prepared:
                geometry = Geometry(
                    np.ones(mask.shape, np.float32), normals, mask.astype(np.float32) if masked else None
                )
                prepared[masked] = prepare(photo, geometry, fit_scene(photo, geometry))
            for direction, truth in pairs:
                rig = Rig(lights=(key_light(*direction),), ambient=0.05, shadow_strength=0.0, exposure=0.0, **settings)
                found[name][family].append(rel_rmse(relight(prepared[masked], rig), truth, mask))
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", type=pathlib.Path, required=True, help="folder with manifest.json and the stacks")
    parser.add_argument("--json", type=pathlib.Path)
    a = parser.parse_args()
    if not (a.set / "manifest.json").exists():
        sys.exit(f"no manifest.json in {a.set}: the photographs this measures against are not here")
    variants = {
        f"delight {d}{', mask' if m else ''}": (m, {"delight": d}) for m in (True, False) for d in (0.0, 0.5, 1.0)
    }
    found = score(a.set, variants)
    families = list(found["no change"])
    print(f"{'':20s}" + "".join(f"{f:>10s}" for f in [*families, "all", "nearer"]))
    table = {}
    for name, rows in found.items():
        every = np.array(functools.reduce(operator.iadd, rows.values(), []))
        nearer = float((every < np.array(functools.reduce(operator.iadd, found["no change"].values(), []))).mean())
        table[name] = {**{f: float(np.mean(rows[f])) for f in families}, "all": float(every.mean()), "nearer": nearer}
        print(f"{name:20s}" + "".join(f"{table[name][f]:10.3f}" for f in [*families, "all"]) + f"{100 * nearer:8.0f} %")
    if a.json:
        a.json.write_text(json.dumps(table, indent=1))
    good = table["delight 1.0, mask"]["all"] <= 0.27 and table["delight 1.0"]["all"] <= 0.30
    print("with mask <= 0.27 and without <= 0.30:", "yes" if good else "NO")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
