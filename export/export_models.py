#!/usr/bin/env python3
"""Rebuild or replace the ONNX graphs in onnx_models/.

    python export/export_models.py                                       # the bundled network, from export/weights/
    python export/export_models.py --network u2netp                      # likewise what finds the subject
    python export/export_models.py --list                                # networks known by name
    python export/export_models.py --network depth-anything-v2-small --weights DIR
    python export/export_models.py --network moge-2 --weights model.pt --as normals
    python export/export_models.py --network path/to/file.py:factory     # your own; it returns a graphs.Exportable

Each graph is one file beside a manifest that tells the server everything it has to know. Nothing is written unless
torch and ONNX Runtime agree at two input shapes (or at the only one, if the network takes only one). Then set the
graph's name for each role that it fills: RELIGHT_DEPTH_MODEL, RELIGHT_NORMALS_MODEL, RELIGHT_MASK_MODEL,
RELIGHT_SUBJECT_MODEL. All but the first may be empty.
"""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import adapters
import graphs

MODELS = Path(__file__).resolve().parent.parent / "onnx_models"
NETWORK = "relight-geometry"
MAX_LOSS = (0.5, 1.0)  # degrees of normals, percent of depth order


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The arguments of the command line, checked."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--list", action="store_true", help="list the networks known by name and exit")
    p.add_argument("--network", default=NETWORK, metavar="NAME", help="a known network, or path/to/file.py:factory")
    p.add_argument(
        "--weights", type=Path, metavar="PATH", help="its weights, a file or a folder depending on the network"
    )
    p.add_argument(
        "--download", action="store_true", help="fetch the weights from the hub, after printing their licence"
    )
    p.add_argument("--as", dest="role", choices=("depth", "normals"), help="export only this output")
    p.add_argument("--name", help="name of the graph and its manifest (default: that of the network)")
    p.add_argument(
        "--out", type=Path, default=MODELS, metavar="DIR", help="where graphs and manifests go (default: onnx_models/)"
    )
    smaller = p.add_mutually_exclusive_group()
    smaller.add_argument("--half", action="store_true", help="float16 arithmetic (for GPUs)")
    smaller.add_argument("--quantize", choices=("int8",), help="int8 arithmetic, calibrated on --calibration")
    p.add_argument(
        "--calibration",
        type=Path,
        metavar="DIR",
        help="rendered shards on which --quantize is calibrated and the loss of --half and --quantize is measured "
        "(to make some: python export/render.py --out DIR --count 128)",
    )
    p.add_argument(
        "--max-loss",
        type=float,
        nargs="+",
        default=MAX_LOSS,
        metavar="X",
        help="largest loss accepted: degrees of normals, then percent of depth order (default 0.5 1)",
    )
    args = p.parse_args(argv)
    if (args.half or args.quantize) and not args.calibration:
        p.error("--half and --quantize need --calibration DIR, because a loss that was not measured is not accepted")
    if len(args.max_loss) > 2:
        p.error("--max-loss takes at most two numbers, degrees and percent")
    args.max_loss = (*args.max_loss, *MAX_LOSS[len(args.max_loss) :])
    if args.name and not re.fullmatch(r"[\w.-]+", args.name):
        p.error("--name may contain only letters, digits, dots, hyphens and underscores, because it names two files")
    return args


def command(args: argparse.Namespace) -> str:
    """The command that makes this graph again, without paths of this machine."""
    own, _, factory = args.network.rpartition(":")
    network = f"{Path(own).name}:{factory}" if own else factory
    words = graphs.REBUILD.split() + (["--network", network] if network != NETWORK else [])
    words += ["--weights", "PATH"] if args.weights else ["--download"] if args.download else []
    words += ["--as", args.role] if args.role else []
    words += ["--name", args.name] if args.name else []
    words += ["--half"] if args.half else ["--quantize", args.quantize] if args.quantize else []
    words += ["--calibration", "DIR"] if args.calibration else []
    return shlex.join(words)


def show(known: dict[str, adapters.Adapter]) -> None:
    """Print the networks with their roles, licences and where their weights come from."""
    for a in known.values():
        where = f"hub: {a.hub}" if a.hub else "weights: export/weights/"
        needs = f"; needs: pip install {a.needs}" if a.needs else ""
        print(f"{a.name:24s} {', '.join(a.roles):22s} {a.licence}\n{'':24s} {where}{needs}")


def fetch(args: argparse.Namespace, adapter: adapters.Adapter) -> Path:
    """Weights from the hub, if the user asked for them. Raises ExportError."""
    if not args.download or adapter.hub is None:
        raise graphs.ExportError(
            f"{adapter.name} needs weights: --weights PATH, or --download to fetch {adapter.hub} ({adapter.licence})"
        )
    from huggingface_hub import hf_hub_download, snapshot_download

    print(f"{adapter.hub}: weights under {adapter.licence}", flush=True)
    try:
        if adapter.needs == "transformers":
            return Path(snapshot_download(adapter.hub, allow_patterns=["*.json", "*.safetensors"]))
        return Path(hf_hub_download(adapter.hub, "model.pt"))
    except Exception as error:  # the hub's client raises many kinds
        raise graphs.ExportError(f"cannot download {adapter.hub}: {error}") from error


def make(args: argparse.Namespace, network: graphs.Exportable) -> tuple[bytes, dict[str, Any]]:
    """Graph and manifest, made smaller if asked to, with the loss measured and within bounds. Raises ExportError."""
    data, manifest = graphs.build(network)
    if not (args.half or args.quantize):
        return data, manifest
    import quantize
    from training.data import GEOMETRY, Shards

    shards = Shards(args.calibration, fields=GEOMETRY)
    if not len(shards):
        raise graphs.ExportError(f"no rendered shards in {args.calibration}")
    before = quantize.measure(data, network, shards)
    if args.half:
        data, manifest = graphs.build(network, half=True)
    else:
        data, manifest = graphs.replace(
            network, manifest, quantize.to_int8(graphs.trace(network, network.module), network, shards)
        )
    loss = quantize.lost(before, quantize.measure(data, network, shards))
    print("loss: " + ", ".join(f"{v:.3f} {k}" for k, v in loss.items()))
    for role, what, bound in (("normals", "degrees", args.max_loss[0]), ("depth", "order_percent", args.max_loss[1])):
        if role in network.outputs and what not in loss:
            raise graphs.ExportError(
                f"{network.name}: no picture in {args.calibration} shows enough surface to measure the loss of {role}"
            )
        if role in network.outputs and not loss[what] <= bound:
            raise graphs.ExportError(f"{network.name}: the loss of {loss[what]:.2f} {what} exceeds --max-loss {bound}")
    return data, manifest | {
        "arithmetic": "float16" if args.half else "int8",
        "loss": {k: round(v, 4) for k, v in loss.items()},
    }


def main(argv: list[str] | None = None) -> int:
    """Export one network; returns the exit status."""
    args = parse(argv)
    if args.list:
        show(adapters.KNOWN)
        return 0
    try:
        network = adapters.build(args.network, args.weights, lambda adapter: fetch(args, adapter))
        if args.role:
            network = graphs.only(network, args.role)
        network.name, network.rebuild = args.name or network.name, command(args)
        data, manifest = make(args, network)
        graphs.write(args.out, data, manifest)
    except (graphs.ExportError, OSError, ValueError) as error:
        print(f"export_models: {error}", file=sys.stderr)
        return 1
    of = " of the float32 graph" if args.quantize else ""
    print(
        f"{args.out / manifest['graph']}: {len(data) / 1e6:.1f} MB, opset {manifest['opset']}, IR "
        f"{manifest['ir_version']}, "
        f"largest difference from torch{of} {max(manifest['parity']['worst'].values()):.0e}"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
