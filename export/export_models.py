#!/usr/bin/env python3
"""Rebuild the ONNX graphs in onnx_models/.

Without arguments: every checkpoint in export/weights/ becomes <name>.onnx with its manifest <name>.json. Nothing is
written unless torch and ONNX Runtime agree at two input shapes.
"""
from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import graphs  # noqa: E402
from adapters.bundled import bundled  # noqa: E402

MODELS = Path(__file__).resolve().parent.parent / "onnx_models"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=MODELS, metavar="DIR", help="where graphs and manifests go (default: onnx_models/)")
    parser.add_argument("--weights", type=Path, metavar="PATH", help="another checkpoint than the committed one")
    args = parser.parse_args(argv)
    try:
        network = bundled(args.weights) if args.weights else bundled()
        data, manifest = graphs.build(network)
    except (graphs.ExportError, FileNotFoundError, KeyError) as error:
        print(f"export_models: {error}", file=sys.stderr)
        return 1
    graphs.write(args.out, data, manifest)
    print(f"{args.out / manifest['graph']}: {len(data) / 1e6:.1f} MB, opset {manifest['opset']}, IR {manifest['ir_version']}, "
          f"largest difference from torch {max(manifest['parity']['worst'].values()):.0e}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
