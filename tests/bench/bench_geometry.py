#!/usr/bin/env python3
"""Speed against accuracy of the exported graphs, on photographs with known geometry.

    python tests/bench/bench_geometry.py --set DIR [--models DIR] [--graphs NAME ...] [--json out.json]

DIR holds a manifest.json, photographs, their true geometry and a scorer evaluate.py. Every variant (graph, input size
or sizes that are averaged, with the mirror image or not) runs in a process of its own on two threads; time is the
median of a photo, as its ratio to the first variant's. Graphs after the first are measured at the first two variants
only. "near edges" are the pixels within 8 of a break in the true depth, where halos show.
"""

import argparse
import json
import pathlib
import re
import subprocess
import sys
import tempfile

import cv2
import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[2]
VARIANTS = [
    ("256", False),
    ("256", True),
    ("320", True),
    ("384", False),
    ("384", True),
    ("512", True),
    ("256+384", True),
    ("256+512", True),
    ("256+384+512", True),
]
BREAK = 0.08  # of log depth between neighbours
NEAR = 8


def near_edges(folder, out):
    """(mean degrees, mean relative error of the depth) over the pixels near breaks of the true depth."""
    degrees, relative = [], []
    for item in json.loads((folder / "manifest.json").read_text())["items"]:
        truth = dict(np.load(folder / item["files"]["gt"])) if "gt" in item["files"] else {}
        if "depth" not in truth:
            continue
        known = truth["mask"] & (truth["depth"] > 0)
        g = np.where(known, 1 / np.where(known, truth["depth"], 1), 0)
        pair = np.ones((2, 2))
        log = np.log(np.maximum(g, 1e-9))
        high, low = cv2.dilate(np.where(known, log, -50), pair), cv2.erode(np.where(known, log, 50), pair)
        breaks = (high - low > BREAK) & (high > -50) & (low < 50)
        near = known & (cv2.dilate(breaks.astype(np.uint8), np.ones((2 * NEAR + 1,) * 2)) > 0)
        size = g.shape[::-1]
        p = cv2.resize(
            cv2.imread(str(out / f"{item['name']}_depth.png"), -1).astype(np.float64),
            size,
            interpolation=cv2.INTER_AREA,
        )
        a, b = np.linalg.lstsq(np.stack([p[known], np.ones(known.sum())], 1), g[known], rcond=None)[0]
        aligned = np.clip(a * p + b, g[known].min() / 2, g[known].max() * 2)
        if near.any():
            relative.append(np.abs(g / aligned - 1)[near].mean())
        if "normals" in truth:
            n = cv2.imread(str(out / f"{item['name']}_normals.png"))[..., ::-1] / 127.5 - 1
            n = cv2.resize(n, size, interpolation=cv2.INTER_AREA)
            cosine = (n * truth["normals"]).sum(2) / np.maximum(np.linalg.norm(n, axis=2), 1e-9)
            part = near & truth["normals_mask"]
            if part.any():
                degrees.append(np.degrees(np.arccos(np.clip(cosine[part], -1, 1))).mean())
    return float(np.mean(degrees)), float(np.mean(relative))


def measure(args, graph, sizes, mirror):
    """One row of the table."""
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder)
        command = [
            sys.executable,
            ROOT / "export" / "evaluate_photos.py",
            "--set",
            args.set,
            "--out",
            out,
            "--models",
            args.models,
            "--model",
            graph,
            "--size",
            *sizes.split("+"),
            "--mirror" if mirror else "--no-mirror",
        ]
        said = subprocess.run([str(c) for c in command], check=True, capture_output=True, text=True).stdout
        scores = out / "scores.json"
        subprocess.run(
            [sys.executable, args.set / "evaluate.py", args.set, out, "--json", scores], check=True, capture_output=True
        )
        every = json.loads(scores.read_text())["averages"]["prediction"]["all"]
        edge_degrees, edge_depth = near_edges(args.set, out)
    return {
        "graph": graph,
        "size": sizes,
        "mirror": mirror,
        "ms": float(re.search(r"(\d+) ms a photo", said)[1]),
        "degrees": every["normals"]["mean"],
        "under30": every["normals"]["under30"],
        "absrel": every["depth"]["absrel"],
        "order": every["depth"]["ordinal"],
        "near edges, degrees": edge_degrees,
        "near edges, absrel": edge_depth,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--set", type=pathlib.Path, required=True, help="folder with manifest.json, photographs, truth and evaluate.py"
    )
    parser.add_argument("--models", type=pathlib.Path, default=ROOT / "onnx_models")
    parser.add_argument("--graphs", nargs="+", default=["relight-geometry"])
    parser.add_argument("--json", type=pathlib.Path)
    args = parser.parse_args()
    if not (args.set / "evaluate.py").exists():
        sys.exit(f"no evaluate.py in {args.set}: the photographs this measures against are not here")
    rows = []
    print(
        f"{'graph':28s}{'size':>8s} "
        f"mirror{'time':>7s}{'degrees':>9s}{'<30':>7s}{'AbsRel':>8s}{'order':>7s}   near edges"
    )
    for graph in args.graphs:
        for size, mirror in VARIANTS if graph == args.graphs[0] else VARIANTS[:2]:
            r = measure(args, graph, size, mirror)
            rows.append({**r, "time": r["ms"] / (rows[0]["ms"] if rows else r["ms"])})
            print(
                f"{graph:28s}{size:>8s} "
                f"{'yes' if mirror else 'no':>6s}{rows[-1]['time']:7.2f}{r['degrees']:9.2f}{r['under30']:7.1f}"
                f"{r['absrel']:8.3f}{r['order']:7.1f}   {r['near edges, degrees']:.1f} deg, AbsRel "
                f"{r['near edges, absrel']:.3f}",
                flush=True,
            )
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
