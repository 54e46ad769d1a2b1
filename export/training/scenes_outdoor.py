"""Streets, gardens, terrain, buildings, vehicles."""

from __future__ import annotations

from typing import Iterator

import numpy as np

from . import geometry as G
from .geometry import vector
from .materials import Material
from .scene import Scene, Shot
from .scenes_common import (
    UPRIGHT,
    direction,
    ground,
    hue,
    lighting,
    place_object,
    plain,
    printed,
    shape,
    stand,
    surface,
    tumble,
    yaw,
)


def tree(s: Scene, rng: np.random.Generator, x: float, y: float, z: float, h: float) -> None:
    """A plant of the library, or a trunk with foliage, h metres high at (x, y, z)."""
    m = s.assets.pick(rng, "plant") if rng.random() < 0.5 else None
    if m is not None and len(m.f) < 9000:
        stand(s, rng, m, None, h, x, y, z)
        return
    bark = surface(rng, s.assets, ("wood",), ("wood", "noise", "streak"), 0.5, 0.2)
    s.add(
        G.cylinder(0.05 * h * rng.uniform(0.4, 1.0), h * 0.6, 0.02 * h, 12),
        bark,
        yaw(rng.random() * 6),
        1,
        (x, y + h * 0.3, z),
    )
    c = rng.uniform([0.03, 0.08, 0.01], [0.25, 0.35, 0.1]) if rng.random() < 0.8 else hue(rng, 0.9)
    leaf = Material(
        color=tuple(c),
        color2=tuple(np.minimum(c * 1.8, 0.9)),
        tex=s.assets.made(rng, "noise"),
        mode="mix",
        metric=True,
        rough=0.8,
        spec=0.0,
    )
    for _ in range(int(rng.integers(1, 4))):
        if rng.random() < 0.75:
            q = G.foliage(rng, 500)
        else:
            q, leaf = G.blob(rng, 40), leaf.but(bump=0.8, tex=s.assets.made(rng, "streak"), tile=1.5)
        s.add(
            q,
            leaf,
            tumble(rng),
            h * rng.uniform(0.2, 0.38) * rng.uniform(0.8, 1.3, 3),
            (x + rng.normal(0, 0.1 * h), y + h * rng.uniform(0.55, 0.9), z + rng.normal(0, 0.1 * h)),
        )


def house(s: Scene, rng: np.random.Generator, x: float, z: float, w: float, h: float, d: float, a: float = 0.0) -> None:
    """A plain building with windows that are recessed or stand out, sometimes with a sloped roof."""
    lib, rot = s.assets, yaw(a)
    m = surface(rng, lib, ("brick", "wall", "stone", "wood", "facade"), ("facade", "brick", "noise"), 3, 0.25, 0.4)

    def b(mat, size, px, py, pz, r=rot):
        p = rot @ vector([px, 0, pz])
        s.box(mat, size, (x + p[0], py, z + p[2]), r)

    b(m, (w, h, d), 0, h / 2, 0)
    g, fr = Material(color=tuple(rng.uniform(0.02, 0.15, 3)), rough=0.08, spec=0.05), plain(rng)
    nx, ny, out = int(rng.integers(2, 7)), max(1, int(h / rng.uniform(2.6, 3.6))), rng.uniform(-0.02, 0.15)
    for i in range(nx):
        for j in range(ny):
            px, py = -w / 2 + w * (i + 0.5) / nx, 1.5 + (h - 1.5) * j / ny
            if py + 0.8 > h:
                continue
            b(fr, (w / nx * 0.62, 1.5, 0.1 + out), px, py, d / 2)
            b(g, (w / nx * 0.52, 1.3, 0.12 + out), px, py, d / 2)
    if rng.random() < 0.4:
        r = surface(rng, lib, ("roof", "tile", "wood"), ("brick", "stripe"), 2, 0.2, 0.5)
        q = rng.uniform(0.4, 0.9)
        c, n = np.cos(q), np.sin(q)
        for e in (-1, 1):
            tilt = rot @ vector([[1, 0, 0], [0, c, -e * n], [0, e * n, c]])
            L = d / 2 / c + 0.4
            b(r, (w + 0.6, 0.15, L), 0, h + n * L / 2 - 0.1, e * c * L / 2, tilt)


def terrain(s: Scene, rng: np.random.Generator) -> float:
    """Hills, from the library or made up. Returns the height of the ground near the camera."""
    lib = s.assets
    if lib.names("terrain"):
        m = lib.pick(rng, "terrain")
        assert m is not None
        k = rng.uniform(20, 60)
        own = (
            None
            if rng.random() < 0.4
            else surface(rng, lib, ("ground", "stone", "snow"), ("noise", "cells"), 6, 0.2, 0.5)
        )
        w = s.add(m, own, yaw(rng.uniform(0, 6.3)), k, (0, 0, -k * 0.3))
        near = w[(np.abs(w[:, 0]) < 6) & (np.abs(w[:, 2]) < 8)]
        return float(near[:, 1].max()) if len(near) else 0.0
    s.add(
        G.cloth(rng, 120, 0.04),
        surface(rng, lib, ("ground", "stone", "snow"), ("noise", "cells"), 6, 0.2, 0.5),
        yaw(0),
        (60, 60, 60),
        (0, 0, -30),
    )
    return 3.0


def road(s: Scene, rng: np.random.Generator) -> None:
    """A road between pavements with buildings on both sides, and posts and signs beside it."""
    lib = s.assets
    half = rng.uniform(3, 6)
    s.box(
        surface(rng, lib, ("asphalt", "stone", "ground"), ("noise",), 3, 0.3, 0.3),
        (2 * half, 0.05, 100),
        (0, 0.01, -40),
    )
    for q in (-1, 1):
        s.box(
            surface(rng, lib, ("stone", "tile"), ("tile", "noise"), 1, 0.3),
            (2.5, 0.3, 100),
            (q * (half + 1.25), 0.0, -40),
        )
        z = -rng.uniform(-4, 6)
        while z > -50:
            wdt = rng.uniform(5, 14)
            m = lib.pick(rng, "building") if rng.random() < 0.4 else None
            if m is not None:
                stand(s, rng, m, None, rng.uniform(8, 16), q * (half + 8), 0, z - wdt / 2, yaw(-q * np.pi / 2))
            else:
                house(s, rng, q * (half + 2.6 + 4), z - wdt / 2, wdt, rng.uniform(4, 16), 8, -q * np.pi / 2)
            z -= wdt + rng.choice([0.1, 3])
    for _ in range(int(rng.integers(0, 7))):
        x, z, hh = rng.choice([-1, 1]) * (half + 0.6), -rng.uniform(2, 30), rng.uniform(2.5, 7)
        s.add(G.cylinder(rng.uniform(0.03, 0.12), hh, None, 12), plain(rng), np.eye(3), 1, (x, hh / 2, z))
        if rng.random() < 0.4:
            s.box(printed(rng, lib), (0.7, 0.7, 0.03), (x, hh - 0.3, z + 0.08), yaw(rng.normal(0, 0.4)))


def scattered_buildings(s: Scene, rng: np.random.Generator) -> None:
    """At most two buildings, 12 to 40 m away."""
    lib = s.assets
    for _ in range(int(rng.integers(0, 3))):
        m = lib.pick(rng, "building") if rng.random() < 0.6 else None
        x, z = rng.uniform(-15, 15), -rng.uniform(12, 40)
        if m is not None:
            stand(s, rng, m, None, rng.uniform(7, 20), x, 0, z)
        else:
            house(s, rng, x, z, rng.uniform(6, 14), rng.uniform(3, 8), 6, rng.normal(0, 0.4))


def wayside_things(s: Scene, rng: np.random.Generator) -> None:
    """Plants, rocks and objects on the ground."""
    lib = s.assets
    for _ in range(int(rng.integers(0, 6))):
        x, z = rng.uniform(-7, 7), -rng.uniform(2, 18)
        m = lib.pick(rng, "plant", "object") if rng.random() < 0.5 else None
        if m is not None and len(m.f) < 20000:
            stand(s, rng, m, None, rng.uniform(0.3, 2), x, 0, z)
        else:
            stand(
                s,
                rng,
                shape(rng, ("rock", "rock", "blob", "super", "box", "prism")),
                surface(rng, lib, ("stone", "ground", "wood"), size=0.8),
                rng.uniform(0.3, 2.5),
                x,
                0,
                z,
                stretch=rng.uniform(0.6, 1.3, 3),
            )


def vehicles(s: Scene, rng: np.random.Generator) -> None:
    """At most four vehicles of the library, along or across the road."""
    lib = s.assets
    for _ in range(int(rng.integers(0, 5))):
        m = lib.pick(rng, "vehicle")
        x, z = rng.choice([-1, 1]) * rng.uniform(1, 4.5), -rng.uniform(3, 25)
        if m is not None and len(m.f) < 30000:
            stand(
                s,
                rng,
                m,
                None,
                rng.uniform(3.5, 6),
                x,
                0,
                z,
                yaw(rng.choice([0, np.pi / 2, np.pi]) + rng.normal(0, 0.15)),
            )


def fence(s: Scene, rng: np.random.Generator) -> None:
    """A wall or a picket fence across the view."""
    lib = s.assets
    z, m, hh = (
        -rng.uniform(5, 20),
        surface(rng, lib, ("wood", "brick", "stone"), ("wood", "brick")),
        rng.uniform(0.7, 2),
    )
    if rng.random() < 0.5:
        s.box(m, (40, hh, 0.2), (0, hh / 2, z))
    else:
        for i in range(-18, 19):
            s.box(m, (0.12, hh, 0.05), (i * 0.35, hh / 2, z))
        s.box(m, (14, 0.08, 0.06), (0, hh * 0.7, z))


def hills(s: Scene, rng: np.random.Generator) -> None:
    """Rounded hills, 50 to 90 m away."""
    lib = s.assets
    for _ in range(int(rng.integers(1, 4))):
        s.add(
            G.blob(rng, 40, 0.12),
            surface(rng, lib, ("ground", "stone", "snow"), ("noise", "streak"), 15, 0.1, 0.5),
            tumble(rng),
            rng.uniform(15, 40) * np.array([1, 0.6, 1]),
            (rng.uniform(-60, 60), -rng.uniform(2, 12), -rng.uniform(50, 90)),
        )


def street(s: Scene, rng: np.random.Generator) -> Iterator[Shot]:
    """The open air: a street, garden, field or hills."""
    from .scenes_people import person  # imported here because scenes_people imports this module

    lighting(s, rng)
    kind = rng.choice(["street", "garden", "field", "terrain"], p=[0.4, 0.3, 0.18, 0.12])
    top = terrain(s, rng) if kind == "terrain" else ground(s, rng, 0, 80)
    if kind == "street":
        road(s, rng)
    else:
        scattered_buildings(s, rng)
    for _ in range(int(rng.integers(0, 5)) if kind == "street" else int(rng.integers(4, 16))):
        tree(
            s,
            rng,
            rng.uniform(-22, 22) if kind != "street" else rng.choice([-1, 1]) * rng.uniform(3.5, 6),
            0,
            -rng.uniform(3, 40),
            rng.uniform(1.5, 8),
        )
    wayside_things(s, rng)
    vehicles(s, rng)
    for _ in range(int(rng.choice([0, 0, 1, 2, 4]))):
        person(s, rng, rng.uniform(-4, 4), -rng.uniform(2, 15), rng.uniform(0, 6.3))
    if rng.random() < 0.3:
        fence(s, rng)
    if rng.random() < 0.4 and kind != "terrain":
        hills(s, rng)
    high = rng.random() < 0.1
    for _ in range(12):
        y = top + (rng.uniform(0.4, 2.4) if not high else rng.uniform(5, 20))
        yield (
            np.array([rng.uniform(-5, 5), y * (0.2 if high else 1) + rng.uniform(-3, 2.0), -15]),
            None,
            np.array([rng.uniform(-3, 3), y, rng.uniform(0, 5)]),
            (30, 75),
        )


def walls(s: Scene, rng: np.random.Generator) -> None:
    """At most two houses, or walls with things on them."""
    lib = s.assets
    for _ in range(int(rng.integers(0, 3))):
        a = rng.uniform(-0.9, 0.9)
        m = surface(rng, lib, ("wall", "brick", "stone", "wood"), ("brick", "noise", "streak"), 2, 0.3, 0.4)
        x, z, w, h = rng.uniform(-7, 7), -rng.uniform(2.5, 14), rng.uniform(2, 9), rng.uniform(1.5, 8)
        if rng.random() < 0.5:
            house(s, rng, x, z, w, h, rng.uniform(3, 8), a)
            continue
        s.box(m, (w, h, 0.3), (x, h / 2, z), yaw(a))
        for _ in range(int(rng.integers(0, 6))):  # things on the wall
            at, up, size = rng.uniform(-0.45, 0.45) * w, rng.uniform(0.4, 1.0) * h, rng.uniform(0.2, 0.7)
            place_object(s, rng, x + at * np.cos(a), up, z - at * np.sin(a) + 0.3, size)


def skyline(s: Scene, rng: np.random.Generator) -> Iterator[Shot]:
    """Things against much sky, seen from below or far away: walls, roofs, trees and branches, people, poles, hills."""
    from .scenes_people import person

    lib = s.assets
    lighting(s, rng)
    ground(s, rng, 0, 80)
    walls(s, rng)
    for _ in range(int(rng.choice([0, 1, 2, 4, 8]))):
        tree(s, rng, rng.uniform(-9, 9), 0, -rng.uniform(1.5, 20), rng.uniform(2, 9))
    for _ in range(int(rng.choice([0, 0, 1, 3, 8]))):  # poles, masts and wires
        x, z, h = rng.uniform(-6, 6), -rng.uniform(2, 14), rng.uniform(3, 12)
        tilt = tumble(rng) if rng.random() < 0.3 else np.eye(3, dtype=np.float32)
        s.add(G.cylinder(rng.uniform(0.01, 0.15), h, None, 12), plain(rng), tilt, 1, (x, h / 2, z))
    for _ in range(int(rng.choice([0, 1, 1, 3]))):
        if rng.random() < 0.5:
            person(s, rng, rng.uniform(-2, 2), -rng.uniform(1.5, 7), rng.uniform(-1.5, 1.5))
            continue
        m = lib.pick(rng, "statue", "animal", "vehicle", "building", "object")
        x, z = rng.uniform(-3, 3), -rng.uniform(2, 9)
        if m is not None and len(m.f) < 40000:
            stand(s, rng, m, None, rng.uniform(0.8, 4), x, 0, z)
    wayside_things(s, rng)
    if rng.random() < 0.5:
        hills(s, rng)
    for _ in range(16):
        eye = np.array([rng.uniform(-3, 3), rng.uniform(0.3, 2.5), rng.uniform(0, 4)])
        away = rng.uniform(5, 15)
        ahead = np.array([rng.normal(0, 0.4) * away, np.tan(rng.uniform(-0.05, 0.75)) * away, -away])
        yield eye + ahead, None, eye, (25, 75)


def facade(s: Scene, rng: np.random.Generator) -> Iterator[Shot]:
    """A wall from near: relief, windows, posters, graffiti and drainpipes, with things in front of it."""
    lib = s.assets
    lighting(s, rng)
    if lib.reliefs and rng.random() < 0.5:  # displaced photographed surface
        col, disp, _ = lib.reliefs[rng.integers(len(lib.reliefs))]
        k = rng.uniform(0.6, 2)
        mesh = G.relief(np.tile(lib.height_map(disp), (2, 2))[:300, :300], rng.uniform(0.02, 0.12), 260)
        s.add(
            mesh,
            Material(
                tex=("file", col),
                mode="picture",
                color=(rng.uniform(0.6, 1),) * 3,
                rough=0.8,
                spec=rng.choice([0, 0.04]),
                tile=1.5,
            ),
            UPRIGHT,
            (k, k, k),
            (0, 1.5, -2),
        )
        s.box(plain(rng), (20, 20, 0.1), (0, 1.5, -2.15))
        for _ in range(6):
            a, q = rng.normal(0, 0.5), rng.normal(0, 0.4)
            yield (
                np.array([rng.normal(0, 0.2), 1.5 + rng.normal(0, 0.2), -2]),
                direction(a, q),
                k * rng.uniform(0.5, 1.4),
                (25, 60),
            )
        return
    h = rng.uniform(3, 9)
    house(s, rng, 0, -9, 18, h, 6)
    ground(s, rng, 0, 40)
    for _ in range(int(rng.integers(0, 7))):
        s.box(printed(rng, lib), (*rng.uniform(0.3, 2.2, 2), 0.02), (rng.uniform(-5, 5), rng.uniform(0.8, 3), -5.985))
    for _ in range(int(rng.integers(0, 3))):
        s.add(G.cylinder(0.05, h), plain(rng), np.eye(3), 1, (rng.uniform(-6, 6), h / 2, -5.93))
    for _ in range(int(rng.integers(0, 5))):
        place_object(
            s,
            rng,
            rng.uniform(-4, 4),
            0,
            -rng.uniform(3, 5.5),
            rng.uniform(0.4, 1.4),
            0.5,
            ("object", "plant", "furniture"),
        )
    from .scenes_people import person

    for _ in range(int(rng.choice([0, 1, 2]))):
        person(s, rng, rng.uniform(-3, 3), -rng.uniform(2, 5.2), rng.uniform(-1.5, 1.5))
    for _ in range(8):
        yield (
            np.array([rng.uniform(-3, 3), rng.uniform(0.5, 3.5), -6]),
            None,
            np.array([rng.uniform(-6, 6), rng.uniform(1, 2.4), rng.uniform(-3.5, 4)]),
            (30, 70),
        )
