"""Average the weights of two runs, the second begun from the first: often better than either.

Wortsman et al., "Model soups: averaging weights of multiple fine-tuned models improves accuracy without increasing
inference time", ICML 2022. Both networks must have the same shape.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import checkpoint
from training import data, loop


def main(argv: list[str] | None = None) -> int:
    """Write the mean of two checkpoints; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path, nargs=2, help="two *.safetensors files written by export/train.py")
    parser.add_argument("--out", type=Path, required=True, help="file to write")
    parser.add_argument("--val", type=Path, help="shards of unseen scenes to score the mean on")
    args = parser.parse_args(argv)
    (net, first), (other, second) = (checkpoint.load(path) for path in args.weights)
    if net.shape != other.shape:
        parser.error(f"the networks have different shapes: {net.shape} and {other.shape}")
    theirs = other.state_dict()
    state = {k: (v + theirs[k]) / 2 if v.is_floating_point() else v for k, v in net.state_dict().items()}
    trained: dict[str, Any] = {
        "mean_of": [{k: v for k, v in run.items() if k not in ("validation", "light")} for run in (first, second)]
    }
    if args.val:
        net.load_state_dict(state)
        trained["validation"] = loop.validate(net, data.Shards(args.val))
        print(loop.table(trained["validation"]))
    checkpoint.save(net, state, args.out, trained)
    return 0


if __name__ == "__main__":
    sys.exit(main())
