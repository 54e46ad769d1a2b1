#!/usr/bin/env python3
"""Speed of a training step on this CPU: PyTorch as it comes, our gradients of depthwise convolutions, bfloat16, both.

    python tests/bench/bench_training.py [--sizes 192 256 320] [--steps 6]

Random pictures and weights cost what real ones do. The variants take turns in one run; the median step of each counts,
and ratios are to the first. bfloat16 pays only where the processor has instructions for it (AVX512-BF16, AMX).
"""

import argparse
import statistics
import time

import torch
from network import DIRECTIONS, LIGHT, GeometryNet
from training import light, loop, processor, views

from server import cpus

VARIANTS = (  # name, our gradients, bfloat16
    ("as it comes", False, False),
    ("own gradients", True, False),
    ("bfloat16", False, True),
    ("own gradients, bfloat16", True, True),
)


def pictures(count, size):
    """A batch as views.batch would give it: pictures, and the truth at half the size."""
    r = torch.rand(count, 12 + DIRECTIONS, size // 2, size // 2)
    image = torch.randn(count, 3, size, size).contiguous(memory_format=torch.channels_last)
    on = (r[:, 4:5] > 0.1).float()
    lights = torch.from_numpy(light.facing()[: light.LIT])
    return image, views.Truth(
        r[:, :1], r[:, 1:4] * 2 - 1, on, r[:, 12:].round(), r[:, 5:8], r[:, 8:11], r[:, 11:12].round(), lights
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=(192, 256, 320))
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--batch", type=int, default=6, help="pictures a worker (default 6)")
    parser.add_argument("--workers", type=int, default=cpus.available(), help="default: the cores")
    args = parser.parse_args()
    loop.keep_memory()
    runs = {}
    for name, own, bf16 in VARIANTS:
        torch.manual_seed(0)
        net = GeometryNet(light=LIGHT)
        if own:
            processor.install(net)
        state = loop.start(net.to(memory_format=torch.channels_last), 1e-4, 4)
        runs[name] = state, loop.Workers(net, args.workers), bf16
    for size in args.sizes:
        batches = [pictures(args.batch, size) for _ in range(args.workers)]
        took = {name: [] for name in runs}
        for _ in range(args.steps + 1):  # the first of each compiles and plans
            for name, (state, workers, bf16) in runs.items():
                begun = time.perf_counter()
                loop.train_step(state, workers, batches.__getitem__, 0.5, "cpu", bf16)
                took[name].append(time.perf_counter() - begun)
        seconds = {name: statistics.median(t[1:]) for name, t in took.items()}
        first = seconds[VARIANTS[0][0]]
        for name, s in seconds.items():
            print(
                f"{size} px  {name:24s} {args.workers * args.batch / s:6.1f} pictures/s  {first / s:5.2f} x", flush=True
            )


if __name__ == "__main__":
    main()
