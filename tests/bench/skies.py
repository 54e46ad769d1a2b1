#!/usr/bin/env python3
"""How much of unseen rendered skies is taken for a surface, and how much of their surfaces for sky.

    python export/render.py --assets DIR --out skies --seed 4242 --count 224 --kinds skyline outdoor skyline
    python tests/bench/skies.py --data skies [--count 200] [--sheet sheet.png] [--models DIR]

What is scored is the share of a texel that is relit, as the server uses it: the network's mask with its skies made
whole. More than a half counts as a surface. Texels within 2 of the true edge are left out: they hold both. Needs
requirements-export.txt.
"""

import argparse
import pathlib

import cv2
import numpy as np
from training import data

from server.model.engine import OnnxEngine, load_graph
from server.scene.fit import surface_share
from server.scene.pipeline import estimate

ROOT = pathlib.Path(__file__).resolve().parents[2]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--models", type=pathlib.Path, default=ROOT / "onnx_models")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--sheet", type=pathlib.Path, help="write the worst pictures with what is relit of them")
    args = parser.parse_args()
    graph = load_graph(args.models, "relight-geometry", provider="cpu", threads=2)
    engine = OnnxEngine(dict.fromkeys(graph.manifest.roles, graph))
    shards, rows = data.Shards(args.data), []
    for k in range(len(shards)):
        sample = shards[k]
        if len(rows) == args.count or (sample.mask == 0).mean() < 0.05:
            continue
        rgb = np.ascontiguousarray(sample.rgb)
        seen = engine.analyse(rgb)  # again only where estimate shows the network less than the whole picture
        whole = estimate(
            rgb, lambda part, seen=seen, size=rgb.shape: seen if part.shape == size else engine.analyse(part)
        )
        share, raw = surface_share(whole.mask), seen.mask
        relit = cv2.resize(share, rgb.shape[1::-1], interpolation=cv2.INTER_LINEAR) > 0.5
        near = np.ones((5, 5), np.uint8)
        sky = cv2.dilate(sample.mask, near) == 0
        surface = cv2.erode(sample.mask, near) == 1
        alone = cv2.resize(raw, rgb.shape[1::-1], interpolation=cv2.INTER_LINEAR) > 0.5
        counts = [(relit & sky).sum(), (alone & sky).sum(), sky.sum()]
        rows.append([*counts, (~relit & surface).sum(), (~alone & surface).sum(), surface.sum(), k, relit])
    table = np.array([r[:6] for r in rows], float)
    total = table.sum(0)
    print(f"{len(rows)} pictures with at least 5 % of sky; in brackets the mask as the network says it")
    print(f"sky called surface   {100 * total[0] / total[2]:5.2f} %  ({100 * total[1] / total[2]:.2f} %)")
    print(f"surface called sky   {100 * total[3] / total[5]:5.2f} %  ({100 * total[4] / total[5]:.2f} %)")
    worse = np.mean(table[:, 0] > 0.1 * np.maximum(table[:, 2], 1))
    print(f"pictures with more than a tenth of their sky called surface: {100 * worse:.1f} %")
    if args.sheet:
        worst = np.argsort(-(table[:, 0] + table[:, 3]))[:24]
        tiles = []
        for j in worst:
            sample = shards[rows[j][6]]
            red = np.where(rows[j][7][..., None], sample.rgb, sample.rgb // 4 + np.uint8([160, 0, 0]))
            tiles.append(np.concatenate([sample.rgb, red], 1))
        sheet = np.concatenate([np.concatenate(tiles[i : i + 4], 1) for i in range(0, len(tiles) // 4 * 4, 4)])
        cv2.imwrite(str(args.sheet), sheet[..., ::-1])


if __name__ == "__main__":
    main()
