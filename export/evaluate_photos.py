#!/usr/bin/env python3
"""Predictions of an exported graph for a folder of photos, as the server would write them, and a contact sheet.

    python export/evaluate_photos.py --set DIR --out DIR                    # <name>_normals.png, <name>_depth.png,
    sheet.png python export/evaluate_photos.py --set DIR --out DIR --size 320 --mirror

The files are what a scorer of the set reads: normals as (n + 1) / 2 * 255 with +x right, +y up, +z to the viewer; depth
16 bit, larger = nearer. `--score PATH/evaluate.py` runs it on them.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "export")]

from server.models import OnnxEngine, load_graph
from server.normals import full_size_passes
from server.reading import estimate, read_scene

PHOTOS = (".jpg", ".jpeg", ".png", ".webp")


def tile(image: np.ndarray, side: int = 240) -> np.ndarray:
    """The image, uint8 RGB, inside a gray square."""
    factor = side / max(image.shape[:2])
    small = cv2.resize(
        image,
        (max(1, int(image.shape[1] * factor)), max(1, int(image.shape[0] * factor))),
        interpolation=cv2.INTER_AREA,
    )
    out = np.full((side, side, 3), 64, np.uint8)
    out[: small.shape[0], : small.shape[1]] = small
    return out


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", type=Path, required=True, metavar="DIR", help="folder of photos")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--models", type=Path, default=ROOT / "onnx_models", metavar="DIR")
    parser.add_argument("--model", default="relight-geometry", metavar="NAME")
    parser.add_argument(
        "--size",
        type=int,
        nargs="+",
        metavar="N",
        help="analysis size, or several to average (default: the manifest's)",
    )
    parser.add_argument(
        "--mirror",
        action=argparse.BooleanOptionalAction,
        help="average with the mirror image (default: the manifest's)",
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--score", type=Path, metavar="FILE", help="a scorer to run as FILE SET OUT")
    args = parser.parse_args(argv)
    graph = load_graph(args.models, args.model, provider="cpu", threads=args.threads)
    if args.mirror is not None:
        graph.manifest["input"]["mirror"] = args.mirror
    if args.size:
        graph.manifest["input"] |= {"size": args.size[0], "scales": [size / args.size[0] for size in args.size]}
    engine = OnnxEngine({role: graph for role in graph.manifest["roles"]})
    args.out.mkdir(parents=True, exist_ok=True)
    rows, spent = [], []
    for path in sorted(p for p in args.set.iterdir() if p.suffix.lower() in PHOTOS):
        rgb = cv2.cvtColor(cv2.imread(str(path), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
        begun = time.perf_counter()
        geometry, _ = read_scene(rgb, estimate(rgb, engine.analyse))
        spent.append(time.perf_counter() - begun)
        normals, depth, _ = full_size_passes(geometry, rgb)
        cv2.imwrite(str(args.out / f"{path.stem}_normals.png"), normals[..., ::-1])
        cv2.imwrite(str(args.out / f"{path.stem}_depth.png"), depth)
        planes = (
            [depth // 256]
            if geometry.mask is None
            else [depth // 256, cv2.resize(geometry.mask, rgb.shape[1::-1]) * 255]
        )
        grey = [np.repeat(p.astype(np.uint8)[..., None], 3, -1) for p in planes]
        rows.append(np.concatenate([tile(t) for t in (rgb, normals, *grey)], 1))
    if not rows:
        print(f"evaluate_photos: no photos in {args.set}", file=sys.stderr)
        return 1
    rows += [np.zeros_like(rows[0])] * (-len(rows) % 2)
    sheet = np.concatenate([np.concatenate(rows[k : k + 2], 1) for k in range(0, len(rows), 2)])
    cv2.imwrite(str(args.out / "sheet.png"), sheet[..., ::-1])
    print(f"{len(spent)} photos, {np.median(spent) * 1000:.0f} ms a photo (median)")
    return (
        subprocess.run([sys.executable, str(args.score), str(args.set), str(args.out)]).returncode if args.score else 0
    )


if __name__ == "__main__":
    raise SystemExit(main())
