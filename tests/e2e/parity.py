"""`make parity`: relight.js against the server, 200 bodies on ten photos, with a table by kind of light.

Every other body is tried within masks, too.

Photos are those that come with scikit-image, or the pictures of --photos DIR, at most 1024 pixels long.
"""

import argparse
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

import numpy as np
from harness import FLAGS, Server, chromium
from PIL import Image
from playwright.sync_api import sync_playwright
from views import apart, blot, bodies, give_mask, open_view, relit, rendered, upload, within

NAMES = (
    "astronaut.png",
    "camera.png",
    "chelsea.png",
    "coffee.png",
    "coins.png",
    "color.png",
    "ihc.png",
    "motorcycle_left.png",
    "retina.jpg",
    "rocket.jpg",
)
MEAN, WITHIN = 0.5, 0.999  # codes on average; share of pixels within three codes


def kind_of(body):
    """A word or two for a table."""
    if "environment" in body:
        return "environment" if "lights" not in body else "and lights"
    if "lights" not in body:
        return "preset" if "preset" in body else "x, y, z"
    kinds = {light["type"] for light in body["lights"]}
    return kinds.pop() if len(body["lights"]) == 1 else "many"


def compare(server, files, all_bodies, rows, received):
    """Fill `rows`, by kind of light, with what `apart` tells, and `received` with the bytes of the maps."""
    with sync_playwright() as playwright:
        page = playwright.chromium.launch(executable_path=chromium(), args=FLAGS).new_page()
        page.goto(server.url + "health")
        for k, file in enumerate(files):
            image = Image.open(file).convert("RGB")
            image.thumbnail((1024, 1024))
            job = upload(server, image)
            received.append(open_view(page, server, job)["bytes"]["received"])
            for n in (0, 1):
                give_mask(server, job, f"blot-{n}", blot(image.size[::-1], 2 * k + n))
            for n, body in enumerate(all_bodies[k :: len(files)]):
                rows[kind_of(body)].append(apart(rendered(page, body)[0], relit(server, job, body)))
                if n % 2:
                    masked = within(body, ["blot-0", "blot-1", "sky"], n)
                    rows["in masks"].append(apart(rendered(page, masked)[0], relit(server, job, masked)))
            server.call(f"job/{job}", method="DELETE")


def main():
    """Compare and print; the exit status is 1 where a picture is too far off."""
    from skimage import data

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--bodies", type=int, default=200)
    args = parser.parse_args()
    folder = Path(data.__file__).parent
    files = sorted(args.photos.iterdir())[:10] if args.photos else [folder / name for name in NAMES]
    rows, received = defaultdict(list), []
    with tempfile.TemporaryDirectory() as jobs:
        server = Server(jobs).start()
        try:
            compare(server, files, bodies(args.bodies, seed=1), rows, received)
        finally:
            server.stop()
    print(f"{'':12s} {'pictures':>8s} {'mean':>8s} {'worst':>8s} {'within 3':>9s} {'worst':>9s} {'most':>5s}")
    for kind, found in [*sorted(rows.items()), ("all", [r for rs in rows.values() for r in rs])]:
        mean, within, most = (np.array(c) for c in zip(*found))
        print(
            f"{kind:12s} {len(found):8d} {mean.mean():8.4f} {mean.max():8.4f} "
            f"{within.mean() * 100:8.4f}% {within.min() * 100:8.4f}% {most.max():5d}"
        )
    print(f"received: median {np.median(received) / 1e6:.2f} MB, most {max(received) / 1e6:.2f} MB")
    return int(not all(mean <= MEAN and within >= WITHIN for rs in rows.values() for mean, within, _ in rs))


if __name__ == "__main__":
    sys.exit(main())
