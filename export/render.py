#!/usr/bin/env python3
"""Render training pictures with exact depth, normals and masks.

python export/render.py --out data --count 2000                     # procedural scenes only
python export/render.py --out data --assets DIR --minutes 60 --workers 2
python export/render.py --out ring --assets DIR --ring 64           # for ever, keeping the newest 64 shards
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

for _v in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_v, "1")
sys.path.insert(0, str(Path(__file__).resolve().parent))


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line's arguments, checked."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--out", required=True, help="folder of the shards (created if it is missing)")
    p.add_argument("--assets", help="asset folder with a manifest.json; without it, scenes are procedural")
    p.add_argument("--seed", type=int, default=1, help="picture k of a seed is always the same (default 1)")
    p.add_argument("--count", type=int, help="stop when the folder holds this many pictures of the seed")
    p.add_argument("--minutes", type=float, help="stop after this many minutes")
    p.add_argument("--workers", type=int, default=1, help="number of processes (default 1)")
    p.add_argument("--size", type=int, default=288, help="width and height in pixels (default 288)")
    p.add_argument(
        "--kinds",
        nargs="+",
        metavar="KIND",
        help="only these kinds of scenes, in turn, for example those that a network finds hard",
    )
    p.add_argument("--ring", type=int, help="keep only the newest N shards and go on for ever")
    p.add_argument(
        "--stop-file",
        help="when this file exists, each worker ends after its shard, except worker 0, which does all further work",
    )
    p.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    p.add_argument("--parent", type=int, help=argparse.SUPPRESS)  # end when this is no longer the parent process
    a = p.parse_args(argv)
    if not (a.count or a.minutes or a.ring):
        p.error("say how much to render: --count, --minutes or --ring")
    if a.kinds:
        from training.scenes import KINDS

        if not set(a.kinds) <= set(KINDS):
            p.error(f"--kinds may be {', '.join(KINDS)}")
    return a


def stopped(a: argparse.Namespace) -> bool:
    """Whether the file of --stop-file exists."""
    return bool(a.stop_file) and os.path.exists(a.stop_file)


def work(a: argparse.Namespace) -> None:
    """Render the shards of one worker, resuming after what is already there."""
    import cv2
    from training import dataset
    from training.assets import Library

    cv2.setNumThreads(1)
    library, t0, n, me = Library(a.assets), time.time(), 0, a.worker or 0
    have = {int(Path(s).name.split("_")[1]) for s in dataset.shards(a.out) if Path(s).name.startswith(f"{a.seed}_")}
    last = -(-a.count // dataset.SHARD) if a.count else None
    i = max(have) + 1 if a.ring and have else 0
    while (
        (last is None or i < last)
        and not (a.minutes and time.time() - t0 > a.minutes * 60)
        and a.parent in (None, os.getppid())
    ):
        alone = stopped(a)
        if alone and me:
            break
        done = os.path.exists(os.path.join(a.out, dataset.name(a.seed, i) + ".json"))
        if done or (i % a.workers != me and not alone):
            i += 1
            continue
        dataset.write_shard(a.out, a.seed, i, dataset.render_shard(library, a.seed, i, a.size, kinds=a.kinds))
        n += dataset.SHARD
        if a.ring:
            dataset.keep_newest(a.out, a.ring)
        print(f"worker {me}: shard {i}, {n} pictures, {n / (time.time() - t0):.2f} images/s", flush=True)
        i += 1


def main(argv: list[str] | None = None) -> int:
    """Render, in this process or in several; returns the exit status."""
    a = parse(argv)
    Path(a.out).mkdir(parents=True, exist_ok=True)
    if a.worker is not None or a.workers == 1:
        work(a)
        return 0
    base = [sys.executable, __file__, *(sys.argv[1:] if argv is None else argv)]
    t0, procs = (
        time.time(),
        [subprocess.Popen([*base, "--worker", str(k), "--parent", str(os.getpid())]) for k in range(a.workers)],
    )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that no worker is left behind
    try:
        codes = [p.wait() for p in procs]
    except KeyboardInterrupt:
        return 130
    finally:
        for p in procs:
            p.terminate()
    print(f"finished in {time.time() - t0:.0f} s" if not any(codes) else f"workers ended with {codes}")
    return int(any(codes))


if __name__ == "__main__":
    sys.exit(main())
