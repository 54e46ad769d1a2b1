#!/usr/bin/env python3
"""What a motion takes: 48 frames of a light on an orbit, as each format, by as many threads as there are processors.

    PYTHONPATH=.:tests:export:tests/bench python tests/bench/bench_motion.py [--photo FILE] [--strip OUT.png]

Beside it, in the same run: the frames alone, unencoded; and Pillow's own writer of animated WebP, for which all frames
are made first. --strip: eight frames of the WebP in a row, to look at.
"""

import argparse
import os
import pathlib
import tempfile
import time

import cv2
import numpy as np
import psutil
from common import photo
from PIL import Image

from server.cpus import available
from server.image import animation
from server.image.resample import in_threads, shrink_image
from server.jobs.motions import SIDES, MotionOrder, Orbit, film
from server.light.maps import prepare, prepare_picture
from server.light.shading import relight
from server.model.engine import OnnxEngine, load_graph
from server.scene.pipeline import estimate, read_scene

ROOT = pathlib.Path(__file__).resolve().parents[2]


def timed(work):
    """(what it returns, seconds, processor seconds, megabytes the process grew by at most while it ran)."""
    process, before, most = psutil.Process(), psutil.Process().memory_info().rss, [0]
    began, used = time.perf_counter(), time.process_time()

    def step(done=0):
        most[0] = max(most[0], process.memory_info().rss - before)

    out = work(step)
    step()
    return out, time.perf_counter() - began, time.process_time() - used, most[0] / 1e6


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photo", type=pathlib.Path)
    parser.add_argument("--strip", type=pathlib.Path)
    a = parser.parse_args()
    rgb = photo(768, 1024) if a.photo is None else np.ascontiguousarray(cv2.imread(str(a.photo))[..., ::-1])
    graph = load_graph(ROOT / "onnx_models", "relight-geometry", provider="cpu", threads=1)
    engine = OnnxEngine(dict.fromkeys(graph.manifest.roles, graph))
    threads = available()
    cv2.setNumThreads(1)
    geometry, fit = read_scene(rgb, estimate(rgb, engine.analyse))
    whole = prepare(rgb, geometry, fit)
    print(f"{threads} processors, load {os.getloadavg()[0]:.1f}")

    def pictures(maps, order):
        out = [None] * order.frames
        rigs = order.rigs(maps)

        def make(k):
            out[k.start] = relight(maps, rigs[k.start])

        in_threads(make, [slice(k, k + 1) for k in range(order.frames)], threads)
        return out

    with tempfile.TemporaryDirectory() as folder:
        for kind in animation.available():
            side = SIDES[kind]
            small = np.ascontiguousarray(shrink_image(rgb, side))
            maps = prepare_picture(small, whole.shared, 1, whole.samples)
            order, path = MotionOrder(Orbit(), kind, max_side=side), f"{folder}/motion.{kind}"
            relight(maps, order.rigs(maps)[0])
            frames, _, alone, _ = timed(lambda _, maps=maps, order=order: pictures(maps, order))
            _, seconds, used, grown = timed(
                lambda step, maps=maps, order=order, path=path: film(path, order, maps, None, lambda: threads, step)
            )
            size = os.path.getsize(path) / 1e6
            h, w = maps.size
            print(
                f"{kind}: {order.frames} frames of {w} x {h} in {seconds:.2f} s, {used:.2f} s of processor time "
                f"({used / alone:.1f} times the frames alone), {size:.1f} MB, memory + {grown:.0f} MB"
            )
            if kind == "webp":
                first, *others = map(Image.fromarray, frames)
                whole_film = f"{folder}/pillow.webp"
                began = time.process_time()
                first.save(whole_film, save_all=True, append_images=others, quality=80, method=0)
                pillow, size = alone + time.process_time() - began, os.path.getsize(whole_film) / 1e6
                print(f"  by Pillow's writer, method 0: {pillow:.2f} s of processor time, {size:.1f} MB")
                if a.strip:
                    strip(path, a.strip)


def strip(path, out):
    """Eight frames of a film in two rows."""
    film, tiles = Image.open(path), []
    for k in range(8):
        film.seek(k * film.n_frames // 8)
        tile = film.convert("RGB")
        tile.thumbnail((480, 480))
        tiles.append(np.asarray(tile))
    Image.fromarray(np.vstack([np.hstack(tiles[:4]), np.hstack(tiles[4:])])).save(out)


if __name__ == "__main__":
    main()
