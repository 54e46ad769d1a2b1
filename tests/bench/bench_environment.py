#!/usr/bin/env python3
"""What a preview with an environment costs beside one with a single distant light, in turn in one process.

    PYTHONPATH=.:tests:export python tests/bench/bench_environment.py [--photo FILE] [--seconds 20]

The photograph is lit and encoded as JPEG, as /preview does it, 1024 pixels wide, by the bundled network's geometry. The
light or the environment stays, or turns from preview to preview. The least of many processor times, so that other work
on the machine counts little; ratios are to a coloured light and to a white one, for which one channel does for all.
"""

import argparse
import pathlib
import sys
import time
from dataclasses import replace

import cv2
import numpy as np
from common import photo

from server.image.encode import encode_jpeg
from server.image.resample import shrink_image
from server.light import skies
from server.light.lights import Environment, Light, Rig, blackbody, key_light, unit
from server.light.maps import prepare
from server.light.shading import relight
from server.model.engine import OnnxEngine, load_graph
from server.scene.pipeline import estimate, read_scene

ROOT = pathlib.Path(__file__).resolve().parents[2]
SKY = Environment(skies.TEXELS["sky-sunset"])


def rigs(turn):
    """The rigs that are measured, by name; what turns is `turn` degrees on."""
    a = np.radians(turn)
    turned = unit((float(np.sin(a)), 0.4, float(np.cos(a))))
    warm = Light(direction=unit((-0.6, 0.4, 0.7)), color=blackbody(3000))
    return {
        "white light": Rig(lights=(key_light(-0.6, 0.4, 0.7),)),
        "white light that turns": Rig(lights=(Light(direction=turned),)),
        "coloured light": Rig(lights=(warm,)),
        "coloured light that turns": Rig(lights=(replace(warm, direction=turned),)),
        "environment": Rig(ambient=0, environment=SKY),
        "environment that turns": Rig(ambient=0, environment=replace(SKY, rotation=turn)),
        "coloured light, highlights": Rig(lights=(warm,), specular_strength=0.3),
        "environment, highlights": Rig(ambient=0, environment=SKY, specular_strength=0.3),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photo", type=pathlib.Path)
    parser.add_argument("--seconds", type=float, default=20)
    a = parser.parse_args()
    rgb = photo(768, 1024) if a.photo is None else np.ascontiguousarray(cv2.imread(str(a.photo))[..., ::-1])
    rgb = shrink_image(rgb, 1024)
    graph = load_graph(ROOT / "onnx_models", "relight-geometry", provider="cpu", threads=1)
    engine = OnnxEngine(dict.fromkeys(graph.manifest.roles, graph))
    cv2.setNumThreads(1)
    maps = prepare(rgb, *read_scene(rgb, estimate(rgb, engine.analyse)))
    took, turn, end = {}, 0.0, time.perf_counter() + a.seconds
    while time.perf_counter() < end:
        turn += 0.7
        for name, rig in rigs(turn).items():
            start = time.process_time()
            encode_jpeg(relight(maps, rig))
            took.setdefault(name, []).append(time.process_time() - start)
    least = {name: min(seconds) for name, seconds in took.items()}
    print(f"{len(took['environment'])} of each, {maps.size[1]} x {maps.size[0]}")
    for name, seconds in least.items():
        ratios = (seconds / least[f"{kind} light"] for kind in ("coloured", "white"))
        print(f"{name:28s} {1000 * seconds:6.1f} ms   {' '.join(f'{r:5.2f}' for r in ratios)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
