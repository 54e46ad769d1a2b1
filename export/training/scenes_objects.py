"""Near things: table tops, close clutter, single objects under one lamp, animals and statues, cloth."""

from __future__ import annotations

from typing import Any, Iterator

import numpy as np

from . import geometry as G
from . import sculpture
from .geometry import Mesh
from .materials import Material
from .scene import Scene, Shot
from .scenes_common import (
    UPRIGHT,
    direction,
    f32,
    ground,
    hue,
    lighting,
    pitch,
    place_object,
    plain,
    printed,
    shape,
    stand,
    surface,
    thing,
    tumble,
    yaw,
)
from .scenes_indoor import books
from .scenes_people import stone


def around(
    rng: np.random.Generator,
    at: np.ndarray,
    size: float,
    low: float = 6,
    high: float = 40,
    spread: float = 0.7,
    fov: tuple[float, float] = (20, 55),
) -> Shot:
    """A view of `at` from the front, with `size` metres filling the picture; angles in degrees, `spread` in radians."""
    p = np.deg2rad(rng.uniform(low, high) if rng.random() < 0.75 else rng.uniform(high, 85))
    a = rng.uniform(-spread, spread)
    return at, direction(a, p), size, fov


def support(s: Scene, rng: np.random.Generator, z: float) -> None:
    """The table or cloth of a scene of scale z, mostly with something behind it."""
    lib = s.assets
    m = surface(
        rng,
        lib,
        ("wood", "marble", "tile", "fabric", "stone", "metal"),
        ("wood", "noise", "marble", "stripe", "page", "weave", "print"),
        0.5 * max(z, 0.3) * 2,
        0.25,
        0.25,
    )
    if rng.random() < 0.65:
        s.box(m, (z * rng.uniform(4, 14), 0.02, z * rng.uniform(4, 14)), (0, -0.01, 0), yaw(rng.random()))
    else:
        w = s.add(G.cloth(rng), m, yaw(rng.random() * 6), (z * 6, z * rng.choice([0.1, 0.4, 1.0]), z * 6), (0, 0, 0))
        near = w[(np.abs(w[:, 0]) < z) & (np.abs(w[:, 2]) < z)]
        s.parts[-1][0][:, 1] -= near[:, 1].mean()
    if rng.random() < 0.6:
        s.box(
            surface(
                rng, lib, ("wall", "wood", "brick", "fabric", "tile"), ("noise", "stripe", "print", "page"), z * 2, 0.4
            ),
            (z * 25, z * 14, 0.02),
            (0, 0, -z * rng.uniform(1.5, 6)),
            yaw(rng.normal(0, 0.3)),
        )
    if rng.random() < 0.5:
        ground(s, rng, -3 * z, 20)


def table(s: Scene, rng: np.random.Generator) -> Iterator[Shot]:
    """A table top with one to eighteen objects, and at times printed papers, cards and boxes."""
    lib = s.assets
    lighting(s, rng, rng.random() < 0.5)
    z = rng.choice([0.15, 0.3, 0.6])
    support(s, rng, z)
    n = int(rng.choice([1, 2, 3, 5, 8, 12, 18]))
    for _ in range(n):
        place_object(
            s, rng, rng.normal(0, z * 0.8), 0, rng.normal(0, z * 0.7), z * rng.uniform(0.4, 1.5) * (1 if n > 2 else 1.5)
        )
    if rng.random() < 0.35:  # printed flat things lying about: papers, cards, boxes
        for _ in range(int(rng.integers(1, 6))):
            s.box(
                printed(rng, lib),
                (z * rng.uniform(0.4, 1.2), z * rng.choice([0.004, 0.05, 0.3]), z * rng.uniform(0.4, 1.2)),
                (rng.normal(0, z), z * 0.003, rng.normal(0, z)),
                yaw(rng.random() * 6),
            )
    if rng.random() < 0.35:
        s.lamp(
            rng.normal(0, 1, 3) * z * 2 + [0, z * 4, z * 2],
            hue(rng, 0.3, 0.7, 1) * z * z * rng.uniform(10, 60),
            z * rng.uniform(0.1, 1.2),
        )
    for _ in range(8):
        yield around(
            rng,
            np.array([rng.normal(0, 0.3) * z, z * rng.uniform(0.1, 0.7), rng.normal(0, 0.2) * z]),
            z * rng.uniform(1.2, 3.6),
        )


def crammed_shelves(s: Scene, rng: np.random.Generator) -> None:
    """Four boards full of books between three uprights."""
    lib = s.assets
    board, depth, y = surface(rng, lib, ("wood", "metal"), ("wood",), 0.8, 0.4, 0.1), rng.uniform(0.2, 0.35), -0.1
    for _ in range(4):
        h = rng.uniform(0.2, 0.4)
        s.box(board, (2.2, 0.025, depth), (0, y - 0.0125, -0.2))
        books(s, rng, -1.0, 1.0, y, -0.2, h - 0.03, depth)
        y += h
    for x in (-1.02, rng.uniform(-0.5, 0.5), 1.02):
        s.box(board, (0.025, 1.6, depth), (x, 0.55, -0.2))


def heap_on_table(s: Scene, rng: np.random.Generator) -> None:
    """Stacked boxes and other things on a table top, with boards and pictures leaning behind them."""
    lib = s.assets
    s.box(
        surface(rng, lib, ("wood", "tile", "fabric"), ("wood", "noise", "page", "stripe"), 0.6, 0.3, 0.1),
        (3, 0.03, 2.4),
        (0, -0.015, 0.2),
    )
    tall: list[tuple[float, float, float]] = []
    for _ in range(int(rng.integers(14, 48))):
        x, z = rng.normal(0, 0.4), rng.uniform(-0.4, 0.6)
        if rng.random() < 0.55:
            w = rng.uniform(0.05, 0.32, 3) * [1, rng.uniform(0.3, 1.2), 1]
            y = 0.0
            for bx, bz, bh in tall:
                if abs(bx - x) < 0.1 and abs(bz - z) < 0.1:
                    y = max(y, bh)
            s.box(
                thing(rng, lib, 0.2) if rng.random() < 0.4 else printed(rng, lib),
                w,
                (x, y + w[1] / 2, z),
                yaw(rng.normal(0, 0.5)),
            )
            tall.append((x, z, y + w[1]))
        else:
            place_object(s, rng, x, 0, z, rng.uniform(0.08, 0.35), 0.7, ("object", "food", "plant", "animal"))
    for _ in range(int(rng.integers(0, 4))):  # leaning boards and pictures
        s.box(
            printed(rng, lib),
            (*rng.uniform(0.2, 0.7, 2), 0.02),
            (rng.uniform(-0.8, 0.8), 0.3, -rng.uniform(0.1, 0.4)),
            yaw(rng.normal(0, 0.4)) @ pitch(-rng.uniform(0, 0.3)),
        )


def floating_heap(s: Scene, rng: np.random.Generator) -> None:
    """Tumbled shapes in a cloud, touching nothing in particular."""
    lib = s.assets
    for _ in range(int(rng.integers(14, 60))):
        z = rng.uniform(-0.35, 0.7)
        s.add(
            shape(
                rng,
                ("blob", "lathe", "super", "box", "box", "cylinder", "rock", "prism", "tube", "foliage", "cloth"),
            ),
            thing(rng, lib, 0.2),
            tumble(rng),
            rng.uniform(0.04, 0.2) * rng.uniform(0.6, 1.3, 3),
            (rng.normal(0, 0.4), rng.normal(0.3, 0.3), z),
        )


def clutter(s: Scene, rng: np.random.Generator) -> Iterator[Shot]:
    """Shelves, stacks of boxes and books, toys and other things close together, seen from near."""
    lib = s.assets
    lighting(s, rng, True)
    k = rng.random()
    s.box(
        surface(rng, lib, ("wall", "wood", "fabric", "brick"), ("noise", "stripe", "print", "page"), 0.8, 0.3),
        (8, 6, 0.1),
        (0, 0.5, -rng.uniform(0.45, 1.3)),
        yaw(rng.normal(0, 0.2)),
    )
    if k < 0.3:
        crammed_shelves(s, rng)
    elif k < 0.75:
        heap_on_table(s, rng)
    else:
        floating_heap(s, rng)
    if rng.random() < 0.5:
        s.lamp(
            [rng.normal(0, 1), rng.uniform(0.8, 2), rng.uniform(0.8, 2)],
            hue(rng, 0.3, 0.7, 1) * rng.uniform(2, 10),
            rng.uniform(0.05, 0.4),
        )
    for _ in range(10):
        yield around(
            rng,
            np.array([rng.uniform(-0.5, 0.5), rng.uniform(0.1, 0.5), rng.uniform(-0.2, 0.2)]),
            rng.uniform(0.5, 1.4),
            -3,
            25,
            0.5,
        )


def lone_form(rng: np.random.Generator) -> Mesh:
    """A procedural mesh worth looking at on its own; the finer ones may get a rough surface."""
    makers: Any = [
        G.blob,
        G.blob,
        G.lathe,
        G.superquadric,
        lambda r: G.sphere(),
        G.tube,
        G.rock,
        lambda r: G.cloth(r, 100, r.uniform(0.03, 0.2)),
    ]
    m: Mesh = rng.choice(makers)(rng)
    if rng.random() < 0.3 and len(m.v) > 1000:
        m = G.smooth(m.v + m.n * G.waves(rng, m.v, rng.uniform(0.004, 0.02), [rng.uniform(8, 25)])[:, None], m.f, m.uv)
    return m


def single(s: Scene, rng: np.random.Generator, form: Mesh | None = None) -> Iterator[Shot]:
    """One thing before black or plain cloth under one strong distant light, as in photometric-stereo pictures.

    `form` is its mesh, if it is given.
    """
    lib = s.assets
    s.env = np.full((2, 4, 3), 10 ** rng.uniform(-2.5, -1.1), f32)
    s.background = np.full((2, 4, 3), 10 ** rng.uniform(-4, -2), f32)
    k = rng.random()
    body = stone(rng) if rng.random() < 0.45 else thing(rng, lib, 0.8) if rng.random() < 0.5 else None
    m: Mesh | None = None
    if k < 0.18 and lib.has_head:
        m, body = lib.random_head(rng, body), None
        m.v = m.v * 5
    elif k < 0.5:
        m = lib.pick(rng, "statue", "statue", "animal", "bust", "object", "food", "head")
        if m is not None and not (m.materials or body):
            body = stone(rng)
    if form is not None:
        m, body = form, body or thing(rng, lib, 0.8)
    if m is None:
        m = lone_form(rng)
        body = body or (stone(rng) if rng.random() < 0.4 else thing(rng, lib, 0.8))
    rot = yaw(rng.normal(0, 0.8)) if rng.random() < 0.7 else tumble(rng)
    stand(s, rng, m, body, 2.0, 0, 0, 0, rot)
    y = float(s.parts[-1][0][:, 1].mean())
    if rng.random() < 0.5:
        dark = Material(color=(10 ** rng.uniform(-3, -0.5),) * 3, rough=1.0, spec=0.0)
        cloth = dark if rng.random() < 0.6 else surface(rng, lib, ("fabric",), ("weave", "noise"), 1.0)
        if rng.random() < 0.5:
            s.add(G.cloth(rng, 70), cloth, yaw(0), (8, rng.uniform(0.1, 1), 8), (0, -0.3, 0))
        if rng.random() < 0.7:
            s.add(G.cloth(rng, 70), cloth, UPRIGHT, (8, rng.uniform(0.1, 1), 8), (0, 0, -rng.uniform(1.6, 3)))
    d = (
        np.array([rng.normal(0, 0.7), rng.normal(0.35, 0.6), 1.0])
        if rng.random() < 0.8
        else rng.normal(size=3) + np.array([0, 0, 0.4])
    )
    s.sun(d, np.ones(3) * rng.uniform(3, 6), rng.choice([0.005, 0.02, 0.1]))
    for _ in range(8):
        at, view, size, _ = around(
            rng, np.array([0, y, 0]) + rng.normal(0, 0.08, 3), rng.uniform(1.3, 3.2), -5, 15, 0.6
        )
        yield at, view, size, (12, 35)


def carved(s: Scene, rng: np.random.Generator) -> Iterator[Shot]:
    """Carved, moulded, crumpled or embossed things: alone under one lamp, or a few on a table in any light."""
    if rng.random() < 0.6:
        yield from single(s, rng, sculpture.any_of(rng))
        return
    lighting(s, rng, rng.random() < 0.5)
    z = rng.choice([0.15, 0.3, 0.6])
    support(s, rng, z)
    for i in range(int(rng.choice([1, 1, 2, 3, 5]))):
        at = (0, 0) if i == 0 else (rng.normal(0, z), rng.normal(0, z))
        mat = stone(rng) if rng.random() < 0.3 else thing(rng, s.assets, z)
        stand(s, rng, sculpture.any_of(rng), mat, z * rng.uniform(0.7, 1.6), at[0], 0, at[1], yaw(rng.normal(0, 0.8)))
    if rng.random() < 0.6:
        d = np.array([rng.normal(0, 1), rng.uniform(0.2, 1.5), rng.uniform(-0.3, 1.5)])
        s.lamp(d * z * 4, hue(rng, 0.3, 0.7, 1) * z * z * rng.uniform(20, 150), z * rng.uniform(0.05, 0.6))
    for _ in range(8):
        yield around(
            rng,
            np.array([rng.normal(0, 0.1), rng.uniform(0.3, 0.6), 0]) * z,
            z * rng.uniform(1.1, 2.6),
            0,
            35,
            0.7,
            (15, 50),
        )


def animal(s: Scene, rng: np.random.Generator) -> Iterator[Shot]:
    """Animals, furry lumps and statues, on the ground or on a table."""
    lib = s.assets
    lighting(s, rng)
    z = rng.choice([0.3, 0.8])
    ground(s, rng, 0, 30)
    if rng.random() < 0.3:
        s.box(surface(rng, lib), (z * 30, z * 14, 0.1), (0, z * 5, -z * rng.uniform(3, 9)))
    for i in range(int(rng.choice([1, 1, 2, 3]))):
        m = lib.pick(rng, "animal", "animal", "statue")
        own = None
        if m is None or rng.random() < 0.25:
            m = G.blob(rng, 60)
        if m.fm is None or not m.materials or rng.random() < 0.55:
            own = Material(
                color=(rng.uniform(0.6, 1),) * 3,
                tex=lib.made(rng, "streak", "streak", "noise", "stripe", "cells"),
                mode="picture",
                metric=True,
                tile=rng.uniform(0.6, 2.5) / z,
                bump=rng.uniform(0, 0.6),
                rough=0.8,
                spec=0.0,
            )
        stand(
            s,
            rng,
            m,
            own,
            z * rng.uniform(1.4, 2.4),
            0 if i == 0 else rng.normal(0, z),
            0,
            0 if i == 0 else -z * rng.uniform(0.3, 1.6),
        )
    for _ in range(8):
        at, view, size, fov = around(
            rng,
            np.array([rng.normal(0, 0.2) * z, z * rng.uniform(0.4, 1.2), rng.normal(0, 0.2) * z]),
            z * rng.uniform(0.8, 3.2),
            -5,
            35,
            3.1,
        )
        yield at, view, size, fov


def cloth(s: Scene, rng: np.random.Generator) -> Iterator[Shot]:
    """Folded or hanging cloth, often printed or striped, with a few things on it."""
    lib = s.assets
    lighting(s, rng, True)
    key = (
        lib.picture(rng)
        if rng.random() < 0.35
        else lib.photo(rng, "fabric")
        if rng.random() < 0.4
        else lib.made(rng, "stripe", "weave", "noise", "print")
    )
    m = (
        plain(rng, metal=0.0)
        if key is None or rng.random() < 0.3
        else Material(
            color=(rng.uniform(0.6, 1),) * 3,
            tex=key,
            mode="picture",
            tile=rng.choice([1, 2, 4]),
            rough=0.9,
            spec=rng.choice([0, 0.03]),
        )
    )
    k = rng.random()
    if k < 0.3:
        s.add(G.drape(rng, 130), m, yaw(rng.normal(0, 0.3)), (1.6, 1.4, rng.uniform(0.7, 2)), (0, 0, -2))
    elif k < 0.45 and lib.names("cloth"):
        hung = lib.pick(rng, "cloth")
        assert hung is not None
        stand(s, rng, hung, m if rng.random() < 0.6 else None, 2.0, 0, -1, -2)
    else:
        s.add(
            G.cloth(rng, 150, None, (1.0, 2, 4, 9)),
            m,
            yaw(rng.normal(0, 0.4)) @ pitch(rng.uniform(0, 1.5)),
            (2.2, rng.uniform(0.6, 2.0), 2.2),
            (0, 0, -2),
        )
    for _ in range(int(rng.integers(0, 4))):
        s.add(
            shape(rng),
            thing(rng, lib),
            tumble(rng),
            rng.uniform(0.1, 0.3),
            (rng.normal(0, 0.5), rng.normal(0, 0.4), -2 + rng.uniform(0.2, 0.6)),
        )
    s.box(surface(rng, lib), (20, 20, 0.1), (0, 0, -5))
    for _ in range(8):
        yield around(
            rng, np.array([rng.normal(0, 0.3), rng.normal(0, 0.3), -2.0]), rng.uniform(0.6, 2.4), 0, 40, 0.6, (22, 60)
        )
