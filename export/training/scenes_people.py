"""People: portraits, close faces, busts, blend-shape heads and whole figures."""

from __future__ import annotations

from dataclasses import replace
from typing import Iterator

import numpy as np
from numpy.typing import ArrayLike

from . import geometry as G
from .assets import Library
from .geometry import Mesh, vector
from .heads import skin_colour
from .materials import Material
from .scene import Scene, Shot
from .scenes_common import (
    UPRIGHT,
    direction,
    f32,
    ground,
    hue,
    lighting,
    plain,
    printed,
    small_things,
    stand,
    surface,
    yaw,
)
from .scenes_indoor import furniture
from .scenes_outdoor import tree


def stone(rng: np.random.Generator) -> Material:
    """The material of a statue: stone or plaster, bronze, or plain paint."""
    k = rng.random()
    if k < 0.5:
        return Material(
            color=tuple(np.ones(3) * rng.uniform(0.45, 0.85) * rng.uniform(0.93, 1, 3)),
            rough=rng.uniform(0.4, 1),
            spec=rng.choice([0, 0.03]),
        )
    if k < 0.65:
        return Material(color=(0.45, 0.28, 0.12), rough=rng.uniform(0.25, 0.5), metal=1.0)
    return plain(rng, metal=0.0)


def dressed(rng: np.random.Generator, lib: Library, mesh: Mesh) -> Mesh:
    """The mesh, sometimes with other clothes: prints and stripes on shirts."""
    if rng.random() > 0.45:
        return mesh
    out = list(mesh.materials)
    for i, m in enumerate(out):
        if m.rough > 0.65 and not m.alpha and i == 1:
            k = rng.random()
            key = lib.made(rng, "stripe", "stripe", "weave", "print") if k < 0.6 else lib.photo(rng, "fabric")
            out[i] = (
                m.but(tex=key or lib.made(rng, "stripe"), mode="picture", color=(rng.uniform(0.5, 1),) * 3, tile=1.0)
                if k < 0.8
                else m.but(color=tuple(hue(rng, 0.9, 0.1, 1.0)))
            )
    return replace(mesh, materials=out)


def mannequin(s: Scene, rng: np.random.Generator, pos: ArrayLike, rot: np.ndarray) -> np.ndarray:
    """A procedural stand-in for a person, for use without assets: ball head, capsule trunk, limbs, clothes.

    Returns the centre of the head.
    """
    c, shirt, legs = (
        Material(color=tuple(skin_colour(rng)), rough=0.5),
        surface(rng, s.assets, (), ("stripe", "print", "weave"), 0.4, 0.4, 0),
        plain(rng),
    )
    ball = G.superquadric(rng, 1.0, 1.0, 32)

    def at(p):
        return np.asarray(pos) + rot @ np.asarray(p, f32)

    for size, p, m in (
        ((0.16, 0.22, 0.19), (0, 1.6, 0), c),
        ((0.1, 0.16, 0.1), (0, 1.46, 0), c),
        ((0.42, 0.62, 0.26), (0, 1.15, 0), shirt),
        ((0.36, 0.3, 0.26), (0, 0.88, 0), legs),
        ((0.04, 0.05, 0.05), (0, 1.59, 0.095), c),
    ):
        s.add(ball, m, rot, np.array(size) / 2, at(p))
    hair = Material(color=tuple(hue(rng, 0.5, 0.01, 0.3)), rough=0.5)
    s.add(G.blob(rng, 32, 0.06), hair, rot, (0.095, 0.09, 0.105), at((0, 1.655, -0.025)))
    for x in (-1, 1):
        s.add(ball, shirt, rot, (0.06, 0.3, 0.065), at((x * 0.24, 1.12, 0)))
        s.add(ball, legs, rot, (0.085, 0.45, 0.095), at((x * 0.1, 0.45, 0)))
        s.add(ball, Material(color=(0.02, 0.02, 0.02), rough=0.15), rot, 0.011, at((x * 0.03, 1.62, 0.082)))
    return at((0, 1.6, 0))


def person(
    s: Scene, rng: np.random.Generator, x: float = 0.0, z: float = 0.0, facing: float = 0.0, kind: str = "human"
) -> tuple[np.ndarray, np.ndarray]:
    """A person standing at (x, 0, z), looking along yaw `facing` (0 = +z).

    Returns the centre of the head and the direction in which it looks.
    """
    m = s.assets.pick(rng, kind)
    if m is None:
        r = yaw(facing)
        return mannequin(s, rng, (x, 0, z), r), r @ vector([0, 0, 1])
    m = dressed(rng, s.assets, m)
    r = yaw(facing)
    lift = -m.v[:, 1].min() * m.scale if kind == "human" else 0.9 - m.v[:, 1].min() * m.scale
    p = np.array([x, lift, z])
    s.add(m, None, r, m.scale, p)
    assert m.head is not None and m.forward is not None  # people in a library carry both
    return p + r @ (m.head * m.scale), r @ m.forward


def wear_hat(s: Scene, rng: np.random.Generator, hc: np.ndarray, r: np.ndarray) -> None:
    """Put a cap, or a hat with a brim, on the head with centre hc and rotation r."""
    s.add(
        G.superquadric(rng, 0.6, 1.0, 28),
        surface(rng, s.assets, ("fabric",), ("weave", "stripe", "noise"), 0.2, 0.5),
        r,
        np.array([0.1, 0.1, 0.12]),
        hc + r @ vector([0, 0.09, -0.015]),
    )
    if rng.random() < 0.5:
        s.add(G.cylinder(0.17, 0.012), plain(rng), r, 1.0, hc + r @ vector([0, 0.07, 0.02]))


def wall_behind(s: Scene, rng: np.random.Generator) -> None:
    """A wall, sometimes with pictures or posters on it."""
    d = rng.uniform(0.4, 4)
    m = surface(
        rng,
        s.assets,
        ("wall", "brick", "wood", "stone", "fabric"),
        ("noise", "brick", "stripe", "facade", "page", "print"),
        1.5,
        0.4,
        0.3,
    )
    s.box(m, (14, 7, 0.1), (0, 2, -d), yaw(rng.normal(0, 0.3)))
    if rng.random() < 0.4:
        for _ in range(int(rng.integers(1, 4))):
            s.box(
                printed(rng, s.assets),
                (*rng.uniform(0.3, 1.2, 2), 0.04),
                (rng.uniform(-1.2, 1.2), rng.uniform(1, 2.1), -d + 0.09),
            )


def trees_behind(s: Scene, rng: np.random.Generator) -> None:
    """Trees, sometimes with a building beyond them."""
    for _ in range(int(rng.integers(3, 10))):
        tree(s, rng, rng.uniform(-8, 8), 0, -rng.uniform(2.5, 20), rng.uniform(2, 6))
    if rng.random() < 0.5:
        m = s.assets.pick(rng, "building")
        if m is not None:
            stand(s, rng, m, None, rng.uniform(8, 20), rng.uniform(-8, 8), 0, -rng.uniform(14, 30))


def behind(s: Scene, rng: np.random.Generator) -> None:
    """What is behind a portrait: wall, trees, room, curtain, darkness or sky."""
    k = rng.random()
    if k < 0.32:
        wall_behind(s, rng)
    elif k < 0.52:
        trees_behind(s, rng)
    elif k < 0.72:
        for _ in range(int(rng.integers(2, 7))):
            furniture(s, rng, rng.uniform(-2.5, 2.5), -rng.uniform(1, 3.5), rng.integers(4) * np.pi / 2)
        s.box(surface(rng, s.assets, ("wall", "wood"), p_plain=0.5), (14, 6, 0.1), (0, 2.4, -4.5))
    elif k < 0.82:
        s.add(
            G.cloth(rng, 90),
            surface(rng, s.assets, ("fabric",), ("stripe", "weave", "noise"), 0.5),
            UPRIGHT,
            (3, rng.uniform(0.5, 2), 3),
            (0, 1.5, -rng.uniform(0.9, 2)),
        )
    elif k < 0.9:
        s.box(Material(color=(0.004,) * 3, spec=0.0, rough=1.0), (30, 20, 0.1), (0, 2, -rng.uniform(2, 5)))


def portrait(s: Scene, rng: np.random.Generator) -> Iterator[Shot]:
    """One person (or a statue, or a head alone), sometimes with others around."""
    lib, kind = s.assets, ""
    lighting(s, rng)
    k = rng.random()
    turn = rng.normal(0, 0.35)
    if lib.has_head and k < 0.27:
        m = lib.random_head(rng, stone(rng) if rng.random() < 0.2 else None)
        r, hc = yaw(turn), np.array([0, 1.6, 0])
        s.add(m, None, r, 1.0, hc)
        look = r @ vector([0, 0, 1])
        if rng.random() < 0.25:
            wear_hat(s, rng, hc, r)
        s.add(
            G.superquadric(rng, 0.8, 0.9, 32),
            surface(rng, lib, ("fabric",), ("stripe", "weave", "print"), 0.3, 0.3),
            r,
            (0.22, 0.26, 0.13),
            hc + np.array([0, -0.42, -0.03]),
        )
        frame = rng.choice(["close", "head", "bust"], p=[0.4, 0.4, 0.2])
    elif k < 0.38 and lib.names("statue"):
        statue = lib.pick(rng, "statue", "statue", "head", "character")
        assert statue is not None
        h = stand(s, rng, statue, stone(rng) if rng.random() < 0.7 else None, rng.uniform(0.6, 2), 0, 0.8, 0, yaw(turn))
        hc, look = np.array([0, 0.8 + h * 0.8, 0]), vector([0, 0, 1])
        frame = rng.choice(["head", "bust", "half", "full"])
    else:
        kind = "bust" if rng.random() < 0.6 else "human"
        hc, look = person(s, rng, 0, 0, turn, kind)
        frame = rng.choice(
            ["close", "head", "bust", "half", "full"],
            p=[0.28, 0.4, 0.32, 0, 0] if kind == "bust" else [0.1, 0.15, 0.25, 0.25, 0.25],
        )
        if rng.random() < 0.08:
            wear_hat(s, rng, hc, yaw(np.arctan2(look[0], look[2])))
    others = int(rng.choice([0, 0, 0, 1, 2, 4]))
    for _ in range(others):
        person(s, rng, rng.choice([-1, 1]) * rng.uniform(0.55, 1.8), -rng.uniform(-0.1, 3), rng.normal(0, 0.7))
    if rng.random() < 0.8:
        ground(s, rng, 0, 30, 0.005)
    behind(s, rng)
    if rng.random() < 0.12:  # a table in front
        s.box(surface(rng, lib, ("wood", "marble", "metal")), (1.6, 0.04, 0.7), (0, 1.0, 0.55))
        small_things(s, rng, 0, 1.02, 0.55, (0.6, 0.2), int(rng.integers(1, 5)), 0.18)
    if rng.random() < 0.45:
        s.lamp(
            hc + rng.normal(0, 1, 3) * [1.2, 0.6, 0.4] + [0, 0.5, 1.1],
            hue(rng, 0.35, 0.7, 1) * rng.uniform(1, 8),
            rng.uniform(0.03, 0.5),
        )
    size = {
        "close": rng.uniform(0.13, 0.26),
        "head": rng.uniform(0.27, 0.42),
        "bust": rng.uniform(0.42, 0.62 if kind == "bust" else 0.8),
        "half": rng.uniform(0.8, 1.2),
        "full": rng.uniform(1.7, 2.3),
    }[frame]
    az0 = np.arctan2(look[0], look[2])
    for _ in range(8):
        at = np.array(hc, float)
        at[1] -= {"close": 0.01, "head": 0.02, "bust": 0.12, "half": 0.35, "full": hc[1] / 2}[frame] * rng.uniform(
            0.5, 1.2
        )
        at += rng.normal(0, 0.09, 3) * size
        a = (az0 if rng.random() < 0.75 else 0) + (
            rng.normal(0, 0.5) if rng.random() < 0.92 else rng.uniform(-3.1, 3.1)
        )
        p = rng.normal(0.02, 0.14)
        yield at, direction(a, p), size, (18, 60)
