"""What masks cost: previews with masks beside the same without, in one run; and how long a feather takes at first.

PYTHONPATH=.:tests:export python tests/bench/bench_masks.py
"""

import argparse
import time
from dataclasses import replace

import cv2
import numpy as np
from light_scenes import random_scene

from server.light.lights import Light, Mask, Rig
from server.light.maps import prepare
from server.light.masks import feathered, in_picture, masked
from server.light.shading import relight


def milliseconds(work, rounds):
    """The median of some runs."""
    taken = []
    for _ in range(rounds):
        began = time.perf_counter()
        work()
        taken.append(1000 * (time.perf_counter() - began))
    return float(np.median(taken))


def main():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=21)
    rounds = options.parse_args().rounds
    cv2.setNumThreads(1)
    rng = np.random.default_rng(0)
    _, geometry, fit = random_scene(rng, 384, 512, True)
    small = rng.integers(0, 256, (48, 64, 3), np.uint8)
    for h, w in ((768, 1024), (3000, 4000)):
        photo = cv2.resize(small, (w, h), interpolation=cv2.INTER_CUBIC)
        maps = prepare(photo, geometry, fit)
        drawn = cv2.circle(np.zeros((h, w), np.uint8), (w // 2, h // 2), h // 3, 255, -1)
        for feather in (0.002, 0.01, 0.05):
            soft = feathered(drawn, photo, feather)
            grid = milliseconds(lambda: feathered(drawn, photo, feather), 3)  # noqa: B023
            up = milliseconds(lambda: in_picture(soft, photo), 3)  # noqa: B023
            print(f"{w} x {h}, feather {feather}: once {grid:.0f} ms on its grid, {up:.0f} ms to the picture")
        where = Mask("drawn")
        lamps = tuple(Light(direction=d) for d in ((-0.6, 0.4, 0.7), (0.7, 0.1, 0.7)))
        rigs = {
            "no mask": Rig(lamps),
            "of the picture": Rig(lamps, mask=where),
            "of the picture and of both lights": Rig(tuple(replace(lamp, mask=where) for lamp in lamps), mask=where),
        }
        lit = {
            name: (masked(maps, rig, lambda mask, at: cv2.resize(drawn, at.size[::-1])), rig)  # noqa: B023
            for name, rig in rigs.items()
        }
        taken = {name: [] for name in rigs}
        for k in range(rounds if h < 1000 else 5):  # in turns, so that what else the machine does falls on all alike
            for name, (with_masks, rig) in lit.items():
                began = time.perf_counter()
                relight(with_masks, rig)
                taken[name] += [1000 * (time.perf_counter() - began)] * (k > 0)
        plain = np.median(taken["no mask"])
        for name, some in taken.items():
            print(f"{w} x {h}, {name}: {np.median(some):.1f} ms, {np.median(some) / plain:.2f} times")


if __name__ == "__main__":
    main()
