"""Rendered pictures from all cores into memory, without a disk: rings of slots that processes share.

Each renderer has a ring of its own and one reader, so that two counters are all that they agree on. The memory is
anonymous and inherited by a fork: it needs no /dev/shm, which is small in many containers, and goes with the processes.
"""

from __future__ import annotations

import mmap
import multiprocessing
import os
import time
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Iterator, Sequence

import numpy as np

from . import data

UNSEEN = 999  # the seed of pictures that are never trained on
KINDS = (*data.READILY, "room")  # in a ring a kind is its number here


def layout(side: int) -> dict[str, tuple[type, tuple[int, ...]]]:
    """The arrays of one picture of so many pixels, by name, see dataset.py; `unseen` is 1 for one not to train on."""
    half = side // 2
    return {
        "rgb": (np.uint8, (side, side, 3)),
        "inv": (np.float16, (side, side)),
        "nrm": (np.int8, (side, side, 3)),
        "mask": (np.uint8, (side, side)),
        "vis": (np.uint8, (half, half, 5)),
        "alb": (np.uint8, (half, half, 3)),
        "focal": (np.float32, ()),
        "kind": (np.uint8, ()),
        "unseen": (np.uint8, ()),
    }


class Ring:
    """Slots for pictures between one process that writes and one that reads, both forked from where it was made."""

    def __init__(self, side: int, slots: int = 8):
        spec: dict[str, np.dtype[Any]] = {"counts": np.dtype((np.int64, (2,))), "waited": np.dtype((np.float64, (1,)))}
        spec |= {name: np.dtype((kind, (slots, *shape))) for name, (kind, shape) in layout(side).items()}
        offsets = np.cumsum([0, *(-(-kind.itemsize // 64) * 64 for kind in spec.values())])
        memory = mmap.mmap(-1, int(offsets[-1]))
        arrays = {n: np.ndarray(d.shape, d.base, memory, int(at)) for (n, d), at in zip(spec.items(), offsets)}
        self.slots, self.counts, self.waited = slots, arrays.pop("counts"), arrays.pop("waited")  # put and taken
        self.arrays = arrays

    def put(self, picture: dict[str, Any], parent: int | None = None) -> None:
        """Copy a picture into the next slot, when there is room. Ends the process when its parent has gone."""
        begun = time.monotonic()
        while self.counts[0] - self.counts[1] >= self.slots:
            if parent not in (None, os.getppid()):
                raise SystemExit
            time.sleep(0.005)
        self.waited[0] += time.monotonic() - begun
        slot = self.counts[0] % self.slots
        for name, array in self.arrays.items():
            array[slot] = picture[name]
        self.counts[0] += 1

    def take(self) -> Iterator[dict[str, np.ndarray]]:
        """The pictures that are there, each to be copied before the next is asked for."""
        while self.counts[1] < self.counts[0]:
            slot = self.counts[1] % self.slots
            yield {name: array[slot] for name, array in self.arrays.items()}
            self.counts[1] += 1


def render(
    ring: Ring, assets: Path | None, seed: int, me: int, workers: int, unseen: int, kinds: Sequence[str]
) -> None:
    """Fill a ring for as long as its parent lives: first this worker's share of `unseen` pictures, then others."""
    import cv2

    from . import dataset
    from .assets import Library

    cv2.setNumThreads(1)
    parent, library, side = os.getppid(), Library(assets), ring.arrays["rgb"].shape[1]
    last = -(-unseen // dataset.VIEWS)
    scenes = [(UNSEEN, k) for k in range(me, last, workers)]
    number = me
    while parent == os.getppid():
        if scenes:
            which, k = scenes.pop(0)
        else:
            which, k, number = seed, number, number + workers
        kind = kinds[k % len(kinds)] if kinds else None
        for n, picture in enumerate(dataset.render_pair(library, which, k, side, kind)):
            rng = np.random.default_rng([which, k, n, 1])
            if which != UNSEEN and rng.random() < 0.5:
                whole = data.Sample(picture["rgb"], picture["inv"], picture["nrm"], picture["mask"].astype(np.float32))
                picture["rgb"] = data.paint_sky(whole, rng).rgb
            ring.put(picture | {"kind": KINDS.index(picture["kind"]), "unseen": which == UNSEEN}, parent)


def start(rings: list[Ring], *about: Any) -> list[BaseProcess]:
    """A renderer for each ring; `about` is what render() takes: assets, seed, number of unseen pictures, kinds."""
    context = multiprocessing.get_context("fork")
    assets, seed, *rest = about
    processes = [
        context.Process(target=render, args=(r, assets, seed, k, len(rings), *rest), daemon=True)
        for k, r in enumerate(rings)
    ]
    for process in processes:
        process.start()
    return list(processes)
