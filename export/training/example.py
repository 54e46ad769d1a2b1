"""The example picture of the web page: a person at a table, from public-domain (CC0) assets alone.

python export/training/example.py --assets DIR --out server/static/example.jpg
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    __package__ = "training"
    import training  # noqa: F401  # the relative imports below need the package loaded

from . import geometry as G
from . import renderer
from .assets import Library
from .camera import encode
from .materials import Material
from .scene import Scene
from .scenes_common import f32, stand, yaw

CC0 = ("CC0-1.0",)


def tile(name: str, per_metre: float, **kw: Any) -> Material:
    """A photographed texture of the library, repeated `per_metre` times a metre."""
    return Material((1, 1, 1), tex=("file", f"tex/{name}.jpg"), mode="picture", tile=per_metre, metric=True, **kw)


def build(
    library: Library, bust: str = "mhb_526", sky: str = "brown_photostudio_02"
) -> tuple[Scene, tuple[np.ndarray, np.ndarray, float]]:
    """The scene and its camera (eye, rows, focal)."""
    rng = np.random.default_rng(4)
    s = Scene(library)
    s.env, _, _ = library.hdri(sky)
    s.env = s.env * f32(0.55)
    s.yaw = 0.6
    s.box(Material((0.36, 0.4, 0.37), rough=0.9, spec=0.0), (6, 4, 0.1), (0, 1.5, -1.05))
    s.box(tile("acg_Wood026", 1.1, rough=0.35), (2.2, 0.05, 0.8), (0, 0.725, 0.35))
    m = library.mesh("bust", bust)
    assert m.head is not None  # busts in a library carry one
    p = np.array([-0.14, 1.27 - m.head[1] * m.scale, -0.1])
    s.add(m, None, yaw(0.12), m.scale, p)

    def put(category, name, size, x, z, turn=0.0, mat=None):
        return stand(s, rng, library.mesh(category, name), mat, size, x, 0.75, z, yaw(turn))

    put("plant", "ph_fern_02", 0.42, 0.52, 0.02) if "ph_fern_02" in library.names("plant") else None
    clay, glaze = Material((0.5, 0.2, 0.11), rough=0.7), Material((0.09, 0.2, 0.32), rough=0.15, spec=0.05)
    stand(s, rng, G.lathe(np.random.default_rng(21)), glaze, 0.26, 0.3, 0.75, 0.3, yaw(0))
    stand(s, rng, G.sphere(), Material((0.62, 0.6, 0.55), rough=0.8), 0.13, -0.5, 0.75, 0.42, yaw(0))
    for c, x, z in (
        ((0.45, 0.04, 0.03), 0.02, 0.5),
        ((0.75, 0.27, 0.02), 0.115, 0.44),
        ((0.35, 0.42, 0.05), 0.1, 0.56),
    ):
        stand(s, rng, G.blob(np.random.default_rng(7), 60, 0.02), Material(c, rough=0.3), 0.085, x, 0.75, z)
    put("food", "khr_Avocado", 0.1, -0.27, 0.5, 0.3)
    for i, c in enumerate(((0.45, 0.08, 0.06), (0.12, 0.22, 0.3), (0.65, 0.55, 0.3))):
        s.box(
            Material(c, rough=0.6), (0.24 - 0.02 * i, 0.035, 0.17), (-0.52, 0.77 + 0.035 * i, 0.12), yaw(0.3 - 0.25 * i)
        )
    stand(s, rng, G.cylinder(0.045, 0.1, 0.05), clay, 0.11, 0.52, 0.75, 0.5, yaw(0))
    s.box(Material((0.08, 0.06, 0.05), rough=0.5), (0.62, 0.78, 0.04), (0.62, 1.36, -0.985))
    s.box(
        Material((1, 1, 1), tex=("file", "pictures/" + Path(library.pictures[3]).name), mode="picture", rough=0.6),
        (0.54, 0.7, 0.05),
        (0.62, 1.36, -0.985),
    )
    s.add(
        G.drape(np.random.default_rng(2), 160),
        Material((0.42, 0.36, 0.3), rough=0.9, spec=0.0),
        yaw(0),
        (0.5, 1.3, 0.7),
        (-1.1, 1.3, -0.8),
    )
    s.lamp((-1.5, 2.1, 1.7), np.array([1, 0.93, 0.84]) * 5.5, 0.35)
    s.lamp((1.8, 1.5, 1.6), np.array([0.8, 0.9, 1]) * 1.6, 0.5)
    s.build()
    eye = np.array([0.1, 1.22, 2.05])
    return s, (eye, renderer.look_at(eye, [0.05, 1.07, 0]), 1.72)


def main(argv: list[str] | None = None) -> None:
    """Render the example and write it as a JPEG of less than 200 kB, where the quality allows."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--assets", required=True, help="asset folder with a manifest.json")
    p.add_argument("--out", default="server/static/example.jpg")
    p.add_argument("--bust", default="mhb_526")
    p.add_argument("--width", type=int, default=960)
    p.add_argument("--samples", type=int, default=10, help="indirect rays a pixel")
    a = p.parse_args(argv)
    s, view = build(Library(a.assets, CC0, detail=2), a.bust)
    w, h = 2 * a.width, 2 * a.width * 3 // 4
    im = renderer.render(s, *view, np.random.default_rng(0), w, h, a.samples, 8)["rgb"]
    im = cv2.resize(
        np.minimum(im * f32(0.38 / np.percentile(im, 70)), 4), (a.width, h // 2), interpolation=cv2.INTER_AREA
    )
    im = np.where(im > 0.7, 0.7 + 0.3 * (1 - np.exp(-(im - 0.7) / 0.3)), im)  # soft shoulder
    rgb = (np.clip(encode(im), 0, 1) * 255 + 0.5).astype(np.uint8)
    for q in (92, 88, 84, 80, 75):
        _, b = cv2.imencode(".jpg", rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, q, cv2.IMWRITE_JPEG_OPTIMIZE, 1])
        if len(b) < 200_000:
            break
    Path(a.out).write_bytes(b.tobytes())
    print(f"{a.out}: {len(b) // 1000} kB, quality {q}")


if __name__ == "__main__":
    main()
