#!/usr/bin/env python3
"""Write what an exported graph predicts for a folder of photos, as the server would, and a contact sheet.

    python export/evaluate_photos.py --set DIR --out DIR
    python export/evaluate_photos.py --set DIR --out DIR --size 320 --mirror

OUT then holds <name>_normals.png, <name>_depth.png and sheet.png. Normals are (n + 1) / 2 * 255 with +x right, +y up,
+z to the viewer; depth has 16 bits, larger = nearer. `--score FILE` runs a Python script on them as FILE SET OUT.
"""

from __future__ import annotations

import argparse
import dataclasses
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from server.model.engine import OnnxEngine, load_graph
from server.scene.passes import depth_pass, normals_pass
from server.scene.pipeline import estimate, read_scene

ROOT = Path(__file__).resolve().parent.parent
PHOTOS = (".jpg", ".jpeg", ".png", ".webp")


def tile(image: np.ndarray, side: int = 240) -> np.ndarray:
    """The image, uint8 RGB (h, w, 3), scaled to fit inside a gray square."""
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
    """Predict, draw the sheet and run the scorer; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", type=Path, required=True, metavar="DIR", help="folder of photos")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the results")
    parser.add_argument(
        "--models",
        type=Path,
        default=ROOT / "onnx_models",
        metavar="DIR",
        help="folder of graphs (default onnx_models/)",
    )
    parser.add_argument(
        "--model", default="relight-geometry", metavar="NAME", help="name of the graph (default relight-geometry)"
    )
    parser.add_argument(
        "--size",
        type=int,
        nargs="+",
        metavar="N",
        help="analysis size in pixels, or several over which to average (default: as in the manifest)",
    )
    parser.add_argument(
        "--mirror",
        action=argparse.BooleanOptionalAction,
        help="average with the mirror image (default: as in the manifest)",
    )
    parser.add_argument("--threads", type=int, default=2, help="threads of the graph (default 2)")
    parser.add_argument(
        "--score", type=Path, metavar="FILE", help="a Python script that scores the results, run as FILE SET OUT"
    )
    args = parser.parse_args(argv)
    graph = load_graph(args.models, args.model, provider="cpu", threads=args.threads)
    spec = graph.manifest.input
    if args.mirror is not None:
        spec = spec.model_copy(update={"mirror": args.mirror})
    if args.size:
        scales = [size / args.size[0] for size in args.size]
        spec = spec.model_copy(update={"size": args.size[0], "scales": scales})
    graph = dataclasses.replace(graph, manifest=graph.manifest.model_copy(update={"input": spec}))
    engine = OnnxEngine(dict.fromkeys(graph.manifest.outputs.by_role(), graph))
    args.out.mkdir(parents=True, exist_ok=True)
    rows, spent = [], []
    for path in sorted(p for p in args.set.iterdir() if p.suffix.lower() in PHOTOS):
        picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if picture is None:
            raise SystemExit(f"evaluate_photos: {path} is not a readable picture")
        rgb = cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
        begun = time.perf_counter()
        geometry, _ = read_scene(rgb, estimate(rgb, engine.analyse))
        spent.append(time.perf_counter() - begun)
        normals, depth = (make(geometry, rgb.shape[:2]) for make in (normals_pass, depth_pass))
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
    if not args.score:
        return 0
    return subprocess.run([sys.executable, str(args.score), str(args.set), str(args.out)]).returncode


if __name__ == "__main__":
    raise SystemExit(main())
