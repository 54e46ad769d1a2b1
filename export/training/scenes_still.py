"""Still lifes: large everyday things close together, on and under cloth, in front of a backdrop."""

from __future__ import annotations

from typing import Iterator

import numpy as np

from . import geometry as G
from .assets import Library
from .geometry import Mesh, vector
from .materials import Material
from .scene import Scene, Shot
from .scenes_common import (
    UPRIGHT,
    direction,
    hue,
    lighting,
    pitch,
    printed,
    shape,
    stand,
    surface,
    thing,
    tumble,
    yaw,
)


def fabric(rng: np.random.Generator, lib: Library) -> Material:
    """The material of a cloth: plain, printed, striped or woven, and dull."""
    k = rng.random()
    if k < 0.35:
        return Material(color=tuple(hue(rng)), rough=0.95, spec=0.0)
    key = lib.picture(rng) if k < 0.55 else lib.photo(rng, "fabric") if k < 0.75 else None
    key = key or lib.made(rng, "stripe", "weave", "noise", "print", "cells")
    return Material(
        color=(rng.uniform(0.5, 1),) * 3, tex=key, mode="picture", tile=rng.choice([1, 2, 3, 5]), rough=0.95, spec=0.0
    )


def covered(rng: np.random.Generator, n: int = 130) -> Mesh:
    """A sheet over x, z in [-1, 1] that lies over a few boxes and balls and falls in folds between them."""
    lumps = [
        (
            *rng.uniform(-0.6, 0.6, 2),
            *rng.uniform(0.15, 0.5, 2),
            rng.uniform(0.1, 0.8),
            rng.choice([2, 3, 6, 10]),
            rng.uniform(0, 3.1),
        )
        for _ in range(int(rng.integers(1, 5)))
    ]
    wrinkle = rng.uniform(0.01, 0.08)

    def fn(u, v):
        x, z = v * 2 - 1, u * 2 - 1
        h = np.zeros_like(x)
        for cx, cz, rx, rz, top, sharp, turn in lumps:
            c, s = np.cos(turn), np.sin(turn)
            a, b = (c * (x - cx) + s * (z - cz)) / rx, (c * (z - cz) - s * (x - cx)) / rz
            flank = np.exp(-((np.abs(a) ** sharp + np.abs(b) ** sharp) ** (2 / sharp)))
            h = np.maximum(h, top * np.clip(flank * 1.6, 0, 1))
        steep = np.hypot(*np.gradient(h)) * n / 2
        return np.stack([x, h + G.heights(rng, x, z, wrinkle, (2, 4, 9, 18)) * (0.4 + np.minimum(steep, 1.5)), z], -1)

    return G.surface(n, n, fn)


def potted(s: Scene, rng: np.random.Generator, x: float, y: float, z: float, size: float) -> None:
    """A pot with leaves: a bush, blades that fan out, or a plant of the library."""
    pot = size * rng.uniform(0.25, 0.4)
    stand(s, rng, G.cylinder(0.35, 0.8, 0.5), thing(rng, s.assets, 0.3), pot, x, y, z)
    leaf = Material(color=tuple(rng.uniform([0.02, 0.07, 0.01], [0.25, 0.4, 0.15])), rough=rng.uniform(0.3, 0.8))
    k = rng.random()
    if k < 0.35:
        bush = G.foliage(rng, int(rng.integers(60, 400)))
        s.add(bush, leaf, yaw(rng.random() * 6), size * rng.uniform(0.3, 0.45), (x, y + pot + size * 0.3, z))
    elif k < 0.7:
        for _ in range(int(rng.integers(6, 16))):
            length, rot = size * rng.uniform(0.5, 1.0), yaw(rng.uniform(0, 6.3)) @ pitch(rng.uniform(0.1, 1.2))
            blade = G.cylinder(1.0, 1.0, 0.05)
            s.add(
                blade,
                leaf,
                rot,
                vector([0.06, 1, 0.02]) * length,
                vector([x, y + pot, z]) + rot @ vector([0, length / 2, 0]),
            )
    else:
        m = s.assets.pick(rng, "plant")
        if m is not None and len(m.f) < 36000:
            stand(s, rng, m, None, size * 0.8, x, y + pot * 0.9, z)


def cushion(s: Scene, rng: np.random.Generator, x: float, y: float, z: float, size: float) -> None:
    """A leaning cushion of about that size on height y."""
    m = (
        G.superquadric(rng, rng.choice([0.4, 0.7, 1]), rng.choice([0.3, 0.5, 0.8]), 32)
        if rng.random() < 0.6
        else G.blob(rng, 48)
    )
    lean = yaw(rng.normal(0, 0.6)) @ pitch(rng.normal(-0.3, 0.5))
    stand(s, rng, m, fabric(rng, s.assets), size, x, y, z, lean, (1, rng.uniform(0.6, 1), rng.uniform(0.3, 0.6)))


def box(s: Scene, rng: np.random.Generator, x: float, y: float, z: float, size: float) -> None:
    """A box on height y, printed or of one material, sometimes tilted."""
    w = size * rng.uniform(0.35, 1, 3)
    tilt = yaw(rng.normal(0, 0.6))
    if rng.random() < 0.25:
        tilt = tilt @ pitch(rng.normal(0, 0.5))
    mat = (
        printed(rng, s.assets)
        if rng.random() < 0.4
        else surface(rng, s.assets, ("wood", "paper", "fabric", "metal"), size=0.4)
    )
    stand(s, rng, G.BOX, mat, float(w.max()), x, y, z, tilt, w / w.max())


def one(s: Scene, rng: np.random.Generator, x: float, y: float, z: float, size: float) -> None:
    """A thing of any sort that stands at (x, y, z)."""
    lib, k = s.assets, rng.random()
    if k < 0.22:
        box(s, rng, x, y, z, size)
        return
    if k < 0.32:
        cushion(s, rng, x, y, z, size)
        return
    if k < 0.42:
        potted(s, rng, x, y, z, size * 1.2)
        return
    if k < 0.80:
        group = (
            "furniture",
            "furniture",
            "object",
            "object",
            "food",
            "animal",
            "statue",
            "bust",
            "character",
            "human",
            "vehicle",
        )
        m = lib.pick(rng, str(rng.choice(group)))
        if m is not None and len(m.f) < 36000:
            own = thing(rng, lib, size) if not m.materials or rng.random() < 0.3 else None
            turn = yaw(rng.normal(0, 0.9))
            stand(s, rng, m, own, size * rng.uniform(1, 1.6), x, y, z, turn if rng.random() < 0.8 else tumble(rng))
            return
    mat = fabric(rng, lib) if rng.random() < 0.3 else thing(rng, lib, size)
    stand(
        s, rng, shape(rng), mat, size, x, y, z, None if rng.random() < 0.75 else tumble(rng), rng.uniform(0.5, 1.3, 3)
    )


def backdrop(s: Scene, rng: np.random.Generator, z: float) -> None:
    """A wall, hung or thrown cloth, or boards that meet in a corner; sometimes nothing but the dark."""
    lib, k = s.assets, rng.random()
    wall = surface(
        rng, lib, ("wall", "wood", "brick", "fabric", "paper"), ("noise", "print", "page", "stripe", "tile"), 0.8, 0.4
    )
    if k < 0.3:
        s.box(wall, (5, 4, 0.05), (0, 1, z), yaw(rng.normal(0, 0.3)))
    elif k < 0.55:
        sheet = G.cloth(rng, 120, rng.uniform(0.01, 0.06), (1, 2, 4))
        s.add(sheet, fabric(rng, lib), yaw(rng.normal(0, 0.2)) @ UPRIGHT, (2, rng.uniform(0.5, 1.5), 2), (0, 0.7, z))
    elif k < 0.7:
        s.add(
            G.drape(rng, 120), fabric(rng, lib), yaw(rng.normal(0, 0.2)), (2, 1.6, rng.uniform(0.5, 1.5)), (0, 0.8, z)
        )
    elif k < 0.92:
        at = rng.uniform(-0.4, 0.4)
        for q in (-1, 1):
            a = q * rng.uniform(0.1, 0.8)
            c, n = np.cos(a), abs(np.sin(a))
            board = wall if rng.random() < 0.5 else printed(rng, lib)
            s.box(board, (2.4, rng.uniform(1, 3), 0.02), (at + q * 1.2 * c, 0.5, z + 1.2 * n), yaw(-a))


def still(s: Scene, rng: np.random.Generator) -> Iterator[Shot]:
    """A still life on a table or on cloth."""
    lib = s.assets
    lighting(s, rng, True)
    deep = rng.uniform(0.4, 1.3)
    backdrop(s, rng, -deep)
    if rng.random() < 0.6:
        table = surface(
            rng,
            lib,
            ("wood", "tile", "fabric", "stone", "marble"),
            ("wood", "noise", "stripe", "weave"),
            0.7,
            0.3,
            0.15,
        )
        s.box(table, (4, 0.03, 2.5), (0, -0.015, 0.2))
    else:
        sheet = G.cloth(rng, 110, rng.uniform(0.01, 0.06))
        s.add(sheet, fabric(rng, lib), yaw(rng.normal(0, 0.3)), (2, rng.uniform(0.3, 1.2), 1.5), (0, 0, 0))
    if rng.random() < 0.45:
        wide = rng.uniform(0.3, 0.9)
        at = (rng.normal(0, 0.35), -0.02, rng.uniform(-0.5, 0.3) * deep)
        s.add(covered(rng), fabric(rng, lib), yaw(rng.uniform(0, 6.3)), (wide, wide * rng.uniform(0.5, 1.2), wide), at)
    for _ in range(int(rng.integers(0, 3))):  # boards that lean against what is behind
        high = rng.uniform(0.3, 1.0)
        at = (rng.uniform(-0.7, 0.7), high / 2 * 0.95, -deep * rng.uniform(0.3, 0.9))
        s.box(
            printed(rng, lib),
            (rng.uniform(0.3, 0.9), high, 0.02),
            at,
            yaw(rng.normal(0, 0.5)) @ pitch(-rng.uniform(0, 0.35)),
        )
    for _ in range(int(rng.integers(3, 14))):
        one(
            s,
            rng,
            rng.normal(0, 0.4),
            rng.choice([0, 0, 0, 0.15]),
            rng.uniform(-0.8, 0.5) * deep,
            rng.uniform(0.12, 0.6),
        )
    if rng.random() < 0.6:
        place = [rng.normal(0, 1.2), rng.uniform(0.8, 2.2), rng.uniform(0.6, 2)]
        s.lamp(place, hue(rng, 0.3, 0.7, 1) * rng.uniform(2, 12), rng.uniform(0.05, 0.5))
    for _ in range(10):
        p, a = np.deg2rad(rng.uniform(-3, 25)), rng.normal(0, 0.25)
        target = np.array([rng.normal(0, 0.25), rng.uniform(0.1, 0.5), rng.uniform(-0.3, 0.2)])
        yield target, direction(a, p), rng.uniform(0.45, 1.3), (12, 50)
