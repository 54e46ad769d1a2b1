#!/usr/bin/env python3
"""Train the geometry network on rendered shards.

    python export/train.py --data DIR --val DIR --out DIR --minutes 90     # on shards rendered before or meanwhile
    python export/train.py --stream --out DIR --minutes 90                 # render on one core, train on the others
    python export/train.py --data DIR --out DIR --minutes 60 --resume      # start from the committed weights

A run that was killed continues when the same command is given again: OUT/checkpoint.pt holds weights, averages,
optimiser and schedule. The result is OUT/relight-geometry.safetensors (averaged weights, float16); copy it to
export/weights/ and run export/export_models.py. OUT/log.json holds every validation, and OUT/sheet_*.png shows what the
network makes of real photos. With --steps instead of --minutes the run depends on seed, steps, data and workers alone.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, Callable, Iterator

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import checkpoint
import cv2
import torch
from network import DEPTHS, LIGHT, PARTS, SKY, GeometryNet, load_imagenet
from training import data, light, loop, processor, views

from server import cpus

NAME = "relight-geometry.safetensors"
SHARD_BYTES = 24e6  # size of a shard on disk, rounded up


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The arguments of the command line, checked and with their defaults."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", type=Path, metavar="DIR", help="training shards; new ones are picked up during the run")
    p.add_argument("--val", type=Path, metavar="DIR", help="validation shards (scenes of other seeds)")
    p.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder of the checkpoint, log.json, contact sheets and the result",
    )
    length = p.add_mutually_exclusive_group(required=True)
    length.add_argument("--minutes", type=float, help="length of the whole run, including restarts")
    length.add_argument("--until", type=clock, metavar="HH:MM", help="end at this UTC time")
    length.add_argument("--steps", type=int, help="length in steps (reproducible)")
    p.add_argument(
        "--resume",
        nargs="?",
        type=Path,
        const=checkpoint.WEIGHTS / NAME,
        metavar="PATH",
        help="start from these weights (default: the committed ones) instead of ImageNet's",
    )
    p.add_argument(
        "--variant",
        type=int,
        default=2,
        choices=(0, 1, 2),
        help="EfficientNet-Lite variant of a new network (default 2)",
    )
    p.add_argument(
        "--depths",
        type=int,
        nargs=4,
        metavar="N",
        help="residual blocks of the decoder at 1/32, 1/16, 1/8 and 1/4 of the size "
        "(default 3 3 2 2); with --resume a shallower network grows to these depths",
    )
    p.add_argument(
        "--part",
        choices=PARTS,
        default="all",
        help="what learns: everything (default), all but the light's branch, only the branch that corrects the mask, "
        "or only the light's",
    )
    p.add_argument(
        "--batch", type=int, default=16, metavar="N", help="pictures per step (default 16); half as many above 256 px"
    )
    p.add_argument("--rate", type=float, help="peak learning rate of the decoder (default 1e-3; 3e-4 when resuming)")
    p.add_argument(
        "--freeze",
        type=int,
        default=4,
        metavar="N",
        help="number of first encoder blocks that are not trained (default 4: down to a quarter of the size)",
    )
    p.add_argument(
        "--sizes",
        type=int,
        nargs=4,
        default=(160, 192, 256, 320),
        metavar="N",
        help="picture sizes in pixels, small to large",
    )
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    p.add_argument(
        "--bf16",
        action="store_true",
        help="bfloat16 arithmetic (for CUDA, or a CPU with AVX512-BF16 or AMX; far slower elsewhere)",
    )
    p.add_argument(
        "--workers",
        type=int,
        default=0,
        help="replicas that share a batch evenly, one core each (default: as many as there are cores; 1 with CUDA)",
    )
    p.add_argument("--save-minutes", type=float, default=4, help="minutes between checkpoints (default 4)")
    p.add_argument(
        "--validate-minutes",
        type=float,
        default=12,
        help="minutes between validations with a contact sheet (default 12)",
    )
    p.add_argument("--stream", action="store_true", help="render while training, into a bounded ring under OUT/ring")
    p.add_argument("--ring-gb", type=float, default=4, help="gigabytes of disk that the ring may fill (default 4)")
    p.add_argument("--assets", type=Path, metavar="DIR", help="assets for the renderer of --stream")
    args = p.parse_args(argv)
    if not args.data and not args.stream:
        p.error("give --data DIR or --stream")
    if args.batch < 1:
        p.error("--batch must be at least 1")
    fair = [n for n in range(1, args.batch + 1) if args.batch % n == 0]
    if args.workers and args.workers not in fair:
        p.error(f"--workers must divide --batch {args.batch}: {', '.join(map(str, fair))}")
    free = 1 if args.device == "cuda" else max(1, cpus.available() - args.stream)
    args.workers = args.workers or max(n for n in fair if n <= free)
    args.rate = args.rate or (3e-4 if args.resume else 1e-3)
    return args


def clock(text: str) -> str:
    """A time of day as HH:MM. Raises ValueError."""
    return datetime.strptime(text, "%H:%M").strftime("%H:%M")


def placed(net: GeometryNet, device: str) -> GeometryNet:
    """The network on the device, with its channels side by side in memory."""
    return net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in torch's stubs


def prepare(args: argparse.Namespace) -> loop.State:
    """The state of a killed run if there is one, otherwise given weights or fresh ones.

    Raises OSError or ValueError when given weights cannot be read, and ImportError when ImageNet's are not installed.
    """
    torch.manual_seed(args.seed)
    cv2.setNumThreads(1)
    saved = args.out / "checkpoint.pt"
    before = torch.load(saved, map_location=args.device, weights_only=True) if saved.exists() else None
    lit = {"light": LIGHT} if args.part in ("all", "light") else {}
    if before:
        net = GeometryNet(**before["network"])
    elif args.resume:
        grown = {"sky": SKY} | ({"depths": args.depths} if args.depths else {})
        net, _ = checkpoint.load(args.resume, grown | lit)
    else:
        net = GeometryNet(args.variant, depths=args.depths or DEPTHS, **lit)
        load_imagenet(net.encoder, args.variant)
    if args.device == "cpu":
        processor.install(net)
    state = loop.start(placed(net, args.device), args.rate, args.freeze, args.part)
    if before:
        state.restore(before)
        print(f"continuing from step {state.step}", flush=True)
    return state


def run(
    args: argparse.Namespace, state: loop.State, shards: data.Shards, val: data.Shards | None, check: Callable[[], None]
) -> None:
    """Train to the end of the schedule, saving and validating on the way; `check` raises when training must stop."""
    total = run_seconds(args, state)
    begun, before, saved, validated = time.monotonic(), state.seconds, time.monotonic(), time.monotonic()

    def done() -> float:
        return state.step / args.steps if args.steps else state.seconds / total

    workers = loop.Workers(state.net, args.workers)
    recent: dict[str, float] = {}
    while done() < 1:
        shards.rescan()
        size = loop.size_at(state.step, done(), args.seed, tuple(args.sizes))
        count = max(1, (args.batch if size <= 256 else args.batch // 2) // args.workers)

        def make(part: int, size: int = size, count: int = count) -> loop.Batch:
            return views.batch(shards, args.seed, state.step, size, range(part * count, (part + 1) * count))

        terms = loop.train_step(state, workers, make, done(), args.device, args.bf16, args.part)
        recent = {k: 0.98 * recent.get(k, v) + 0.02 * v for k, v in terms.items()}
        now = time.monotonic()
        state.seconds = before + now - begun
        if state.step % 25 == 0:
            check()
            progress(state, done(), recent, size, len(shards))
        if now - saved > args.save_minutes * 60:
            state.save(args.out / "checkpoint.pt")
            saved = now
        if now - validated > args.validate_minutes * 60:
            report(args, state, val)
            validated = time.monotonic()
    report(args, state, val)
    state.save(args.out / "checkpoint.pt")


def run_seconds(args: argparse.Namespace, state: loop.State) -> float:
    """The length of the whole run in seconds of training, restarts included.

    With --until, a restarted run keeps the end that its first start determined.
    """
    if not args.until:
        return (args.minutes or 0) * 60
    now = datetime.now(timezone.utc)
    if state.end is None:
        hour, minute = map(int, args.until.split(":"))
        end = now.replace(hour=hour, minute=minute, second=0, microsecond=0)
        state.end = (end if end > now else end + timedelta(days=1)).timestamp()
    return state.seconds + max(0.0, state.end - now.timestamp())


def progress(state: loop.State, done: float, recent: dict[str, float], size: int, images: int) -> None:
    """Print a line with a bar, the time left, the speed and the running means of the losses."""
    bar = "#" * int(done * 20)
    left = state.seconds / max(done, 1e-6) * (1 - done) / 60
    terms = " ".join(f"{k} {v:.3f}" for k, v in recent.items())
    print(
        f"[{bar:20s}] {done * 100:5.1f} % {left:5.1f} min left, step {state.step}, "
        f"{state.samples / max(state.seconds, 1):.1f} img/s, "
        f"{images} images, size {size}: {terms}",
        flush=True,
    )


def report(args: argparse.Namespace, state: loop.State, val: data.Shards | None) -> None:
    """Write the averaged weights, score them on unseen scenes and draw the contact sheet."""
    net = placed(GeometryNet(**state.net.shape), args.device)
    net.load_state_dict(state.ema)
    entry: dict[str, Any] = {"step": state.step, "samples": state.samples, "minutes": round(state.seconds / 60, 1)}
    if val:
        val.rescan()
        if args.part in ("all", "light"):
            entry["light"] = light.validate(net, val)
            print(entry["light"], flush=True)
        if args.part != "light":
            entry["validation"] = loop.validate(net, val)
            print(loop.table(entry["validation"]), flush=True)
    state.log.append(entry)
    (args.out / "log.json").write_text(json.dumps(state.log, indent=1))
    checkpoint.save(net, state.ema, args.out / NAME, entry | {"seed": args.seed, "variant": net.variant})
    loop.contact_sheet(net, val, args.out / f"sheet_{state.step:06d}.png")


@contextmanager
def renderer(args: argparse.Namespace) -> Iterator[tuple[Path, Callable[[], None]]]:
    """The folder to train from, and a check that it is still being filled.

    With --stream, a renderer fills it for as long as the block runs.
    """
    if not args.stream:
        yield args.data, lambda: None
        return
    ring = args.out / "ring"
    ring.mkdir(parents=True, exist_ok=True)
    command = [
        sys.executable,
        str(Path(__file__).with_name("render.py")),
        "--out",
        str(ring),
        "--seed",
        str(args.seed + 1),
        "--parent",
        str(os.getpid()),
        "--ring",
        str(max(2, int(args.ring_gb * 1e9 / SHARD_BYTES))),
    ]
    process = subprocess.Popen([*command, *(["--assets", str(args.assets)] if args.assets else [])])

    def check() -> None:
        if process.poll() is not None:
            raise SystemExit(
                f"train: the renderer ended with {process.returncode}. "
                "The same command continues from the last checkpoint."
            )

    try:
        while not any(ring.glob("*.json")):
            check()
            time.sleep(1)
        yield ring, check
    finally:
        process.terminate()
        process.wait()


def main(argv: list[str] | None = None) -> int:
    """Train; returns the exit status."""
    args = parse(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the renderer is not left behind
    loop.keep_memory()
    args.out.mkdir(parents=True, exist_ok=True)
    with renderer(args) as (folder, check):
        shards, val = data.Shards(folder), data.Shards(args.val) if args.val else None
        for found, where in ((shards, folder), (val, args.val)):
            if found is not None and not len(found):
                print(f"train: no shards in {where}", file=sys.stderr)
                return 1
        try:
            state = prepare(args)
        except (OSError, ValueError, ImportError) as error:
            print(f"train: {error}", file=sys.stderr)
            return 1
        run(args, state, shards, val, check)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
