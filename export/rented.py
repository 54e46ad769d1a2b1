#!/usr/bin/env python3
"""Train on a machine that is ours for minutes: all cores render into memory while the GPU trains, from given weights.

    python export/rented.py --assets DIR --weights FILE --out DIR --minutes 9

What a bundle's run.sh runs, see bundle.py. Every minute DIR holds new weights, in parts of at most 15 MiB that
`bundle.py --join` puts together, table.txt, with a row a minute, and log.json. Whatever ends the run costs a minute.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable, Iterator

sys.path.insert(0, str(Path(__file__).resolve().parent))

import checkpoint
import numpy as np
import torch
from network import LIGHT, GeometryNet
from training import colours, data, light, loop, ring, views

NAME = "relight-geometry"
PART_BYTES = 15 << 20
FIRST = 32  # pictures before training begins


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The arguments of the command line, with what the machine makes of those not given."""
    cuda = torch.cuda.is_available()
    cores = len(os.sched_getaffinity(0))
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--assets", type=Path, metavar="DIR", help="asset folder; without it, scenes are procedural")
    p.add_argument("--weights", type=Path, required=True, metavar="FILE", help="weights to begin with")
    p.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of weights, table.txt and log.json")
    p.add_argument("--minutes", type=float, required=True, help="length of the run, from start to end")
    p.add_argument(
        "--seed", type=int, default=100, help="of scenes and batches; another run needs another (default 100)"
    )
    p.add_argument("--size", type=int, default=320, help="side of the rendered pictures in pixels (default 320)")
    p.add_argument(
        "--sizes",
        type=int,
        nargs=4,
        default=(256, 256, 384, 384),
        metavar="N",
        help="training sizes, small to large; a GPU takes ten seconds to choose its kernels for each",
    )
    p.add_argument("--batch", type=int, default=64 if cuda else 8, metavar="N", help="pictures a step (default 64)")
    p.add_argument("--rate", type=float, default=8e-4, help="peak learning rate of the decoder (default 8e-4)")
    p.add_argument("--renderers", type=int, default=max(1, cores - 1), help="processes (default: cores but one)")
    p.add_argument("--pool", type=int, default=20000 if cuda else 3000, help="pictures kept to train from")
    p.add_argument("--unseen", type=int, default=32 if cuda else 16, help="pictures to score on (default 32)")
    p.add_argument("--kinds", nargs="+", default=[], choices=ring.KINDS, help="kinds of scenes in turn, not the mix")
    p.add_argument("--save-seconds", type=float, default=60, help=argparse.SUPPRESS)
    args = p.parse_args(argv)
    args.device = "cuda" if cuda else "cpu"
    return args


class Pool:
    """The newest pictures, on the device, as a sequence like data.Shards; the oldest are overwritten.

    At most `limit` of them, and as many as a third of a GPU's free memory holds.
    """

    def __init__(self, side: int, limit: int, device: str):
        spec = ring.layout(side)
        if device == "cuda":
            bytes_each = sum(np.dtype((kind, shape)).itemsize for kind, shape in spec.values())
            limit = min(limit, max(FIRST, torch.cuda.mem_get_info()[0] // 3 // bytes_each))
        self.arrays = {
            name: torch.empty((limit, *shape), dtype=torch.from_numpy(np.empty(0, kind)).dtype, device=device)
            for name, (kind, shape) in spec.items()
        }
        self.readily, self.kinds, self.count, self.limit = np.zeros(limit), np.zeros(limit, int), 0, limit

    def add(self, picture: dict[str, np.ndarray]) -> None:
        """Copy a picture, as a ring gives it."""
        k, kind = self.count % self.limit, int(picture["kind"])
        for name, tensor in self.arrays.items():
            tensor[k] = torch.from_numpy(np.array(picture[name]))
        self.kinds[k], self.readily[k] = kind, data.READILY.get(ring.KINDS[kind], 0.4)
        self.count += 1

    def __len__(self) -> int:
        return min(self.count, self.limit)

    def kind(self, k: int) -> str:
        """The kind of scene that picture k shows."""
        return ring.KINDS[self.kinds[k]]

    def rows(self, k: int) -> list[np.ndarray]:
        """The arrays of picture k, in the order of data.FIELDS."""
        return [self.arrays[name][k].cpu().numpy() for name in data.FIELDS]

    def __getitem__(self, k: int) -> data.Sample:
        return data.sample(self.rows(k))

    def draw(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """The indices of random pictures, see data.READILY."""
        odds = self.readily[: len(self)]
        return rng.choice(len(odds), count, p=odds / odds.sum())

    def pictures(self, indices: np.ndarray) -> views.Pictures:
        """These pictures as a batch."""
        k = torch.from_numpy(indices).to(self.arrays["rgb"].device)
        return views.Pictures._make([self.arrays[name][k] for name in (*data.FIELDS, "focal")])


# pictures, cameras, size, and the directions that they are lit from
Plan = tuple[np.ndarray, list[tuple[np.ndarray, float]], int, np.ndarray]


def plan(pool: Pool, focal: np.ndarray, seed: int, step: int, size: int, count: int) -> Plan:
    """What the next batch shows: the part of its making that is not the device's. All views are square."""
    rng = np.random.default_rng([seed, step])
    chosen, side = pool.draw(rng, count), pool.arrays["rgb"].shape[1]
    cameras = [views.camera(rng, float(focal[k]), side, size, size) for k in chosen]
    return chosen, cameras, size, rng.permutation(light.facing())[: light.LIT]


def made(pool: Pool, planned: Plan, dice: torch.Generator) -> loop.Batch:
    """The batch that was planned, augmented where the pool is."""
    chosen, cameras, size, lights = planned
    device = pool.arrays["rgb"].device
    turn = torch.from_numpy(np.stack([t for t, _ in cameras])).to(device)
    reach = torch.tensor([r for _, r in cameras], dtype=torch.float32, device=device)
    codes, truth = views.look(pool.pictures(chosen), turn, reach, size, size, torch.from_numpy(lights).to(device))
    codes, truth = colours.recoloured(codes, truth, dice)
    return views.normalised(codes), truth


def write_parts(net: GeometryNet, state: loop.State, out: Path, about: dict[str, Any]) -> None:
    """Write the averaged weights in parts; those of a minute ago go when the new ones are complete."""
    whole = out / f".{NAME}.tmp"
    checkpoint.save(net, state.ema, whole, about)
    content, old = whole.read_bytes(), set(out.glob(f"{NAME}.*of*"))
    whole.unlink()
    pieces = [content[k : k + PART_BYTES] for k in range(0, len(content), PART_BYTES)]
    new = [out / f"{NAME}.{state.step:06d}.{k + 1}of{len(pieces)}" for k in range(len(pieces))]
    for path, piece in zip(new, pieces):
        path.write_bytes(piece)
    for path in old - set(new):
        path.unlink()


class Run:
    """One run: what is being trained, on what, and where its time has gone."""

    def __init__(self, args: argparse.Namespace, rings: list[ring.Ring]):
        self.args, self.rings, self.begun = args, rings, time.monotonic()
        net, _ = checkpoint.load(args.weights, {"light": LIGHT})
        if args.device == "cpu":
            from training import processor

            processor.install(net)
        net = net.to(args.device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # as in train.py
        self.state = loop.start(net, args.rate, 4, "all")
        self.average = GeometryNet(**net.shape).to(args.device)
        self.pool = Pool(args.size, args.pool, args.device)
        self.unseen = Pool(args.size, max(2, args.unseen), args.device)
        self.focal = np.zeros(self.pool.limit, np.float32)
        self.dice = torch.Generator(args.device).manual_seed(args.seed)
        self.spent: dict[str, float] = {
            "first pictures": 0.0,
            "taking": 0.0,
            "making": 0.0,
            "training": 0.0,
            "saving": 0.0,
        }
        self.recent: dict[str, float] = {}
        self.workers = loop.Workers(net, 1)

    @property
    def seconds(self) -> float:
        """Since the run began."""
        return time.monotonic() - self.begun

    @contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Adds the time that the block takes, the device's with it, to that spent on `what`."""
        begun = time.monotonic()
        yield
        if self.args.device == "cuda":
            torch.cuda.synchronize()
        self.spent[what] += time.monotonic() - begun

    def take(self) -> None:
        """What the renderers have made since the last time."""
        for one in self.rings:
            for picture in one.take():
                if picture["unseen"]:
                    self.unseen.add(picture)
                else:
                    self.focal[self.pool.count % self.pool.limit] = picture["focal"]
                    self.pool.add(picture)

    def train(self, alive: Callable[[], bool]) -> None:
        """Train until the minutes are over; raises RuntimeError when no renderer is `alive`."""
        length, last = self.args.minutes * 60, 0.0  # how long the last saving took
        while len(self.pool) < min(FIRST, self.pool.limit) and self.seconds < length:
            with self.timed("first pictures"):
                self.take()
                time.sleep(0.05)
            if not alive():
                raise RuntimeError("the renderers have ended")
        saved = said = self.seconds
        with ThreadPoolExecutor(1) as ahead:
            planned = ahead.submit(self.plan, 0)
            while self.seconds + last < length:
                with self.timed("taking"):
                    self.take()
                with self.timed("making"):
                    now, planned = planned.result(), ahead.submit(self.plan, self.state.step + 1)
                    batch = made(self.pool, now, self.dice)
                with self.timed("training"):
                    terms = self.step(batch)
                self.recent = {k: 0.95 * self.recent.get(k, v) + 0.05 * v for k, v in terms.items()}
                if not alive():
                    raise RuntimeError("the renderers have ended")
                if self.seconds - said > min(10, self.args.save_seconds):
                    print(self.told(), flush=True)
                    said = self.seconds
                if self.seconds - saved > self.args.save_seconds:
                    before, saved = self.spent["saving"], self.seconds
                    with self.timed("saving"):
                        self.save()
                    last = self.spent["saving"] - before
        if self.state.step and (not self.state.log or self.state.log[-1]["step"] < self.state.step):
            with self.timed("saving"):
                self.save()
        print(self.told(), flush=True)

    def plan(self, step: int) -> Plan:
        """See plan()."""
        done = self.seconds / (self.args.minutes * 60)
        size = loop.size_at(step, done, self.args.seed, tuple(self.args.sizes))
        count = self.args.batch if size <= 256 else max(1, self.args.batch // 2)
        return plan(self.pool, self.focal, self.args.seed, step, size, count)

    def step(self, batch: loop.Batch) -> dict[str, float]:
        """See loop.train_step."""
        done = self.seconds / (self.args.minutes * 60)
        return loop.train_step(
            self.state, self.workers, lambda _: batch, done, self.args.device, self.args.device == "cuda"
        )

    def told(self) -> str:
        """A line about speed, and where the trainer's and the renderers' time goes."""
        seconds = max(self.seconds, 1e-3)
        since = max(seconds - self.spent["first pictures"], 1e-3)
        shares = ", ".join(f"{k} {v / seconds * 100:.0f}" for k, v in self.spent.items())
        waited = sum(float(r.waited[0]) for r in self.rings) / len(self.rings) / seconds
        rendered = sum(int(r.counts[0]) for r in self.rings)
        return (
            f"{seconds:5.0f} s: rendered {rendered}, {rendered / seconds:.2f} a second; trained on "
            f"{self.state.samples} in {self.state.step} steps, {self.state.samples / since:.2f} a second; loss "
            f"{self.recent.get('loss', float('nan')):.3f}; the trainer's time, %: {shares}; "
            f"renderers waited {waited * 100:.0f} %"
        )

    def save(self) -> None:
        """Score the averaged weights on unseen pictures, and write them with the table."""
        self.average.load_state_dict(self.state.ema)
        row: dict[str, Any] = {
            "minutes": round(self.seconds / 60, 2),
            "step": self.state.step,
            "samples": self.state.samples,
            "pictures": self.pool.count,
        } | {k: round(v, 4) for k, v in self.recent.items()}
        if len(self.unseen):
            geometry = loop.validate(self.average, self.unseen).get("all", {})
            row |= {f"unseen {k}": v for k, v in (geometry | light.validate(self.average, self.unseen)).items()}
        self.state.log.append(row)
        names = list(self.state.log[-1])
        lines = [names] + [[str(r.get(n, "")) for n in names] for r in self.state.log]
        for name, text in (
            ("table.txt", "\n".join("\t".join(line) for line in lines) + "\n"),
            ("log.json", json.dumps(self.state.log, indent=1)),
        ):
            (self.args.out / f".{name}").write_text(text)
            os.replace(self.args.out / f".{name}", self.args.out / name)
        write_parts(self.average, self.state, self.args.out, row | {"seed": self.args.seed, "rented": True})


def main(argv: list[str] | None = None) -> int:
    """Train; returns the exit status."""
    args = parse(argv)
    loop.keep_memory()
    args.out.mkdir(parents=True, exist_ok=True)
    rings = [ring.Ring(args.size) for _ in range(args.renderers)]
    processes = ring.start(rings, args.assets, args.seed, args.unseen, args.kinds)  # before the GPU is touched
    torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) - args.renderers))
    try:
        Run(args, rings).train(lambda: all(p.is_alive() for p in processes))
    except (OSError, ValueError, RuntimeError, FloatingPointError) as error:
        print(f"rented: {error}", file=sys.stderr)
        return 1
    finally:
        for process in processes:
            process.terminate()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
