#!/usr/bin/env python3
"""A folder that trains the network on a bare machine: a GPU, PyTorch, no network, minutes.

    python export/bundle.py --assets DIR --limit-mb 60 --out bundle
    bundle/run.sh --minutes 9 --out results                    # there: renders on all cores, trains on the GPU
    python export/bundle.py --join results --out relight-geometry.safetensors

The bundle holds code, weights to begin with (the encoder's are part of them), Python packages that a machine with
PyTorch may lack, and as many assets as then fit; bundle.json lists all of it. Weights come back in parts of at most
15 MiB, as there may be a limit to a file; --join puts the newest complete ones together and looks whether they load.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import checkpoint
import numpy as np
from PIL import Image

HERE = Path(__file__).resolve().parent
CODE = ("rented.py", "network.py", "checkpoint.py", "training/*.py")
# What rendering and training import, beside PyTorch and NumPy, and where pip calls it otherwise. The first are the
# least likely to be there and the smallest; llvmlite and OpenCV alone are 57 and 58 MB.
NEEDED = {
    "embreex": "embreex",
    "safetensors": "safetensors",
    "numba": "numba",
    "PIL": "pillow",
    "scipy": "scipy",
    "llvmlite": "llvmlite",
    "cv2": "opencv-python-headless",
}
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
SHARES = {
    "meshes human": 4,
    "meshes bust": 3,
    "meshes object": 3,
    "meshes furniture": 2,
    "hdri": 3,
}  # of bytes; others 1
TEXTURE, QUALITY = 256, 80  # longest side in pixels, and JPEG quality, of the textures of a bundle
RUN = """#!/bin/sh
# Train from this folder: run.sh --minutes M [--out DIR] [options of rented.py]. PYTHON may name another interpreter.
here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-python3}
for wheel in "$here"/wheels/*.whl; do
    [ -e "$wheel" ] || continue
    "$python" -m pip install -q --no-index --no-deps --no-compile --upgrade --target "$here/site" "$wheel" ||
        echo "run.sh: $wheel is not for this Python" >&2
done
export PYTHONPATH="$here/site" PYTHONUNBUFFERED=1 OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1
"$python" -c "
import importlib.util as u, sys
lacking = [n for n in '%(needed)s torch numpy'.split() if u.find_spec(n) is None]
sys.exit('run.sh: this Python lacks ' + ', '.join(lacking) if lacking else 0)" || exit 1
exec "$python" "$here/code/rented.py" %(assets)s--weights "$here/weights.safetensors" --out "$here/out" "$@"
"""


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The arguments of the command line, checked."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--out", type=Path, required=True, metavar="PATH", help="the bundle's folder; the file, with --join")
    p.add_argument("--join", type=Path, metavar="DIR", help="put together the weights that a run left in this folder")
    p.add_argument("--limit-mb", type=float, default=60, metavar="N", help="of the bundle, in MiB (default 60)")
    p.add_argument("--assets", type=Path, metavar="DIR", help="asset folder to take from; without it all is procedural")
    p.add_argument(
        "--weights", type=Path, default=checkpoint.WEIGHTS / "relight-geometry.safetensors", help="(default: committed)"
    )
    p.add_argument("--python", default="3.12", metavar="X.Y", help="Python of that machine (default 3.12)")
    p.add_argument("--wheels", nargs="*", default=["embreex"], choices=NEEDED.values(), help="(default: embreex)")
    p.add_argument("--seed", type=int, default=0, help="of the choice of assets")
    args = p.parse_args(argv)
    if not args.join and args.out.exists() and any(args.out.iterdir()):
        p.error(f"{args.out} is not empty")
    return args


def join(folder: Path, out: Path) -> None:
    """Put the newest complete weights of a run together. Raises ValueError when there are none, or they do not load."""
    steps: dict[str, dict[int, Path]] = {}
    for path in folder.rglob("relight-geometry.*of*"):
        if found := re.fullmatch(r"relight-geometry\.(\d+\.\d+of\d+)", path.name):
            step, part = found[1].split(".")
            number, of = part.split("of")
            steps.setdefault(f"{step}of{of}", {})[int(number)] = path
    whole = [
        (int(name.split("of")[0]), parts) for name, parts in steps.items() if len(parts) == int(name.split("of")[1])
    ]
    if not whole:
        raise ValueError(f"no complete weights in {folder}")
    step, parts = max(whole, key=lambda one: one[0])
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(b"".join(parts[k].read_bytes() for k in sorted(parts)))
    _, trained = checkpoint.load(out)
    print(f"{out}: step {step}, {trained.get('samples')} samples")


def size_of(folder: Path) -> int:
    """The bytes of all files below a folder."""
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())


def take_wheel(name: str, python: str, into: Path, room: int) -> dict[str, Any]:
    """Fetch a wheel if it fits: what bundle.json says of it. The version is the one that is installed here, if any."""
    try:
        wanted = f"{name}=={version(name)}"
    except PackageNotFoundError:
        wanted = name
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:", "-d", folder]
        command += [
            "--python-version",
            python,
            "--implementation",
            "cp",
            *(f"--platform={p}" for p in PLATFORMS),
            wanted,
        ]
        said = subprocess.run(command, capture_output=True, text=True)
        found = next(Path(folder).glob("*.whl"), None)
        if said.returncode or found is None:
            return {"wheel": wanted, "left_out": "pip cannot get it: " + said.stderr.strip().splitlines()[-1]}
        about = {"wheel": found.name, "bytes": found.stat().st_size}
        if found.stat().st_size > room:
            return about | {"left_out": f"larger than the {room} bytes left"}
        shutil.copy(found, into)
        return about


def shrunk(source: Path, target: Path) -> None:
    """Copy an asset; a picture comes out no larger than TEXTURE, as what it was (alpha stays lossless)."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.suffix.lower() not in (".jpg", ".jpeg", ".png"):
        shutil.copy(source, target)
        return
    with Image.open(source) as im:
        im.thumbnail((TEXTURE, TEXTURE))
        im.save(target, **({"quality": QUALITY} if source.suffix.lower() != ".png" else {"optimize": True}))


def groups(
    manifest: dict[str, Any], rng: np.random.Generator
) -> dict[str, list[tuple[str, dict[str, Any], list[str]]]]:
    """The assets in random order by group: the manifest's list that each is in, its entry, its files."""
    found: dict[str, list[tuple[str, dict[str, Any], list[str]]]] = {}
    for part, of in (("meshes", "category"), ("textures", "kind"), ("pictures", None), ("hdri", None), ("heads", None)):
        for entry in manifest[part]:
            files = [entry["file"], *entry.get("textures", []), *filter(None, [entry.get("displacement")])]
            found.setdefault(f"{part} {entry[of]}" if of else part, []).append((part, entry, files))
    return {name: [items[k] for k in rng.permutation(len(items))] for name, items in found.items()}


def thin(assets: Path, into: Path, room: int, seed: int) -> dict[str, int]:
    """Copy as many assets as there is room for, about as many bytes of each group, see SHARES: the number of each.

    Textures are made smaller; what a mesh needs comes with it.
    """
    manifest = json.loads((assets / "manifest.json").read_text())
    left = groups(manifest, np.random.default_rng(seed))
    kept: dict[str, list[dict[str, Any]]] = {part: [] for part in ("meshes", "textures", "pictures", "hdri", "heads")}
    spent, taken = dict.fromkeys(left, 0), dict.fromkeys(left, 0)
    into.mkdir(parents=True)
    if (assets / "LICENSES.md").exists():
        shutil.copy(assets / "LICENSES.md", into)
    room -= size_of(into)
    while left:
        group = min(left, key=lambda g: spent[g] / SHARES.get(g, 1))
        part, entry, files = left[group].pop()
        if not left[group]:
            del left[group]
        new = [f for f in dict.fromkeys(files) if not (into / f).exists()]
        for f in new:
            shrunk(assets / f, into / f)
        cost = sum((into / f).stat().st_size for f in new) + len(json.dumps(entry)) + 2
        if cost > room:
            for f in new:
                (into / f).unlink()
            continue
        room, spent[group], taken[group] = room - cost, spent[group] + cost, taken[group] + 1
        kept[part].append(entry)
    (into / "manifest.json").write_text(json.dumps(kept))
    return {group: count for group, count in taken.items() if count}


def make(args: argparse.Namespace) -> None:
    """Make the bundle. Raises ValueError when code, weights and wheels alone are over the limit."""
    limit, out = int(args.limit_mb * 2**20), args.out
    for pattern in CODE:
        for source in HERE.glob(pattern):
            target = out / "code" / source.relative_to(HERE)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)
    checkpoint.load(args.weights)
    shutil.copy(args.weights, out / "weights.safetensors")
    needed = " ".join(NEEDED)
    (out / "run.sh").write_text(RUN % {"needed": needed, "assets": '--assets "$here/assets" ' if args.assets else ""})
    (out / "run.sh").chmod(0o755)
    (out / "wheels").mkdir()
    reserve = 64 << 10  # bundle.json and the folders
    wheels = [take_wheel(name, args.python, out / "wheels", limit - reserve - size_of(out)) for name in args.wheels]
    room = limit - reserve - size_of(out)
    if room < 0:
        raise ValueError(f"code, weights and wheels are {size_of(out)} bytes, over the limit of {limit}")
    about: dict[str, Any] = {
        "python": args.python,
        "wheels": wheels,
        "needed": list(NEEDED),
        "weights": str(args.weights.name),
    }
    about["assets"] = thin(args.assets, out / "assets", room, args.seed) if args.assets else {}
    about["bytes"] = size_of(out)
    (out / "bundle.json").write_text(json.dumps(about, indent=1))
    for wheel in wheels:
        print("wheel", wheel["wheel"], wheel.get("bytes", ""), wheel.get("left_out", ""))
    print(f"{out}: {size_of(out) / 2**20:.1f} MiB of {args.limit_mb:g}, {sum(about['assets'].values())} assets")


def main(argv: list[str] | None = None) -> int:
    """Make a bundle, or join what came back from one; returns the exit status."""
    args = parse(argv)
    try:
        join(args.join, args.out) if args.join else make(args)
    except (OSError, ValueError) as error:
        print(f"bundle: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
