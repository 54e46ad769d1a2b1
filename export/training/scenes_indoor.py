"""Rooms: built ones with furniture, and those scenes of the library that can be entered."""

from __future__ import annotations

from typing import Any, Callable, Iterator

import numpy as np
from numpy.typing import ArrayLike

from . import geometry as G
from .geometry import vector
from .materials import Material
from .scene import Scene, Shot
from .scenes_common import direction, hue, lighting, plain, printed, small_things, stand, surface, thing, yaw


def books(
    s: Scene,
    rng: np.random.Generator,
    x0: float,
    x1: float,
    y: float,
    z: float,
    height: float,
    depth: float,
    rot: np.ndarray = np.eye(3),
    origin: ArrayLike = (0, 0, 0),
) -> None:
    """A row of books and small things between x0 and x1 on a board at height y."""
    x, lean = x0, 0.0
    mats = [printed(rng, s.assets) if rng.random() < 0.6 else plain(rng, metal=0.0) for _ in range(7)]
    while x < x1 - 0.02:
        w, h, d = rng.uniform(0.012, 0.06), height * rng.uniform(0.55, 0.95), depth * rng.uniform(0.6, 0.95)
        k = rng.random()
        if k < 0.07:
            x += rng.uniform(0.03, 0.2)
            continue
        p = np.asarray(origin) + rot @ vector([x + w / 2, 0, z])
        if k < 0.13 and x1 - x > 0.15:
            stand(
                s,
                rng,
                G.lathe(rng) if rng.random() < 0.6 else G.BOX,
                thing(rng, s.assets),
                min(height * 0.7, 0.14),
                p[0] + 0.05,
                y,
                p[2],
            )
            x += 0.15
            continue
        lean = rng.choice([0, 0, 0, 0.12]) * rng.choice([-1, 1])
        c, n = np.cos(lean), np.sin(lean)
        s.box(
            mats[int(rng.integers(7))],
            (w, h, d),
            (p[0], y + h / 2, p[2]),
            rot @ vector([[c, -n, 0], [n, c, 0], [0, 0, 1]]),
        )
        x += w + 0.002 + abs(n) * h * 0.5


def shell(
    s: Scene,
    size: tuple[float, float, float],
    floor: Material | None,
    ceiling: Material | None,
    front: Material | None,
    back: Material | None,
    left: Material | None,
    right: Material | None,
    t: float = 0.1,
) -> None:
    """A room of inner size (w, h, d) on the floor y = 0: a slab t thick for each material that is not None.

    `front` is at +z.
    """
    w, h, d = size
    for mat, size, at in (
        (floor, (w, t, d), (0, -t / 2, 0)),
        (ceiling, (w, t, d), (0, h + t / 2, 0)),
        (front, (w, h, t), (0, h / 2, d / 2 + t / 2)),
        (back, (w, h, t), (0, h / 2, -d / 2 - t / 2)),
        (left, (t, h, d), (-(w / 2 + t / 2), h / 2, 0)),
        (right, (t, h, d), (w / 2 + t / 2, h / 2, 0)),
    ):
        if mat is not None:
            s.box(mat, size, at)


def board_on_legs(box: Callable[..., Any], mat: Material, w: float, d: float, h: float) -> None:
    """A table of the given width, depth and height, built by calling box(mat, size, x, y, z)."""
    box(mat, (w, 0.04, d), 0, h, 0)
    for i in (-1, 1):
        for j in (-1, 1):
            box(mat, (0.05, h, 0.05), i * (w / 2 - 0.05), h / 2, j * (d / 2 - 0.05))


def placer(s: Scene, x: float, z: float, rot: np.ndarray) -> Callable[..., None]:
    """A function b(mat, size, px, py, pz) that adds a box at a place relative to (x, 0, z) turned by rot."""

    def b(mat: Material, size: Any, px: float, py: float, pz: float) -> None:
        p = rot @ vector([px, 0, pz])
        s.box(mat, size, (x + p[0], py, z + p[2]), rot)

    return b


def _table(
    s: Scene, rng: np.random.Generator, x: float, z: float, rot: np.ndarray, hard: Material, soft: Material
) -> None:
    """A table with things on it."""
    b = placer(s, x, z, rot)
    w, d, h = rng.uniform(0.7, 1.8), rng.uniform(0.5, 1.0), rng.uniform(0.4, 0.8)
    board_on_legs(b, hard, w, d, h)
    small_things(s, rng, x, h + 0.02, z, (w * 0.35, d * 0.3), int(rng.integers(0, 6)), 0.25)


def _shelf(
    s: Scene, rng: np.random.Generator, x: float, z: float, rot: np.ndarray, hard: Material, soft: Material
) -> None:
    """Open shelves with books."""
    b = placer(s, x, z, rot)
    w, h, d, n = rng.uniform(0.6, 1.6), rng.uniform(0.9, 2.1), 0.3, int(rng.integers(2, 6))
    for i in (-1, 1):
        b(hard, (0.03, h, d), i * w / 2, h / 2, 0)
    b(hard, (w, h, 0.02), 0, h / 2, -d / 2)
    for q in range(n + 1):
        b(hard, (w, 0.03, d), 0, h * q / n, 0)
        if q < n and rng.random() < 0.85:
            books(s, rng, -w / 2 + 0.04, w / 2 - 0.04, h * q / n + 0.016, 0, h / n - 0.03, d, rot, (x, 0, z))


def _sofa(
    s: Scene, rng: np.random.Generator, x: float, z: float, rot: np.ndarray, hard: Material, soft: Material
) -> None:
    """A sofa with cushions."""
    w, d = rng.uniform(0.9, 2.2), rng.uniform(0.8, 1.0)
    block = G.superquadric(rng, 0.2, 0.2, 24)

    def c(size: Any, px: float, py: float, pz: float, mat: Material = soft) -> None:
        p = rot @ vector([px, 0, pz])
        s.add(block, mat, rot, np.array(size) / 1.0, (x + p[0], py, z + p[2]))

    c((w / 2, 0.22, d / 2), 0, 0.22, 0)
    c((w / 2, 0.4, 0.12), 0, 0.4, -d / 2)
    c((0.1, 0.3, d / 2), -w / 2, 0.3, 0)
    c((0.1, 0.3, d / 2), w / 2, 0.3, 0)
    cover = surface(rng, s.assets, ("fabric",), ("stripe", "print", "weave"), 0.4, 0.2)
    for _ in range(int(rng.integers(0, 4))):
        c((0.22, 0.2, 0.09), rng.uniform(-w / 3, w / 3), 0.6, -d * 0.25, cover)


def _cupboard(
    s: Scene, rng: np.random.Generator, x: float, z: float, rot: np.ndarray, hard: Material, soft: Material
) -> None:
    """A cupboard with doors and handles, and things on top."""
    b = placer(s, x, z, rot)
    w, h, d, n = rng.uniform(0.4, 1.4), rng.uniform(0.4, 2.0), rng.uniform(0.35, 0.6), int(rng.integers(1, 4))
    b(hard, (w, h, d), 0, h / 2, 0)
    for i in range(n):
        b(
            hard if rng.random() < 0.5 else soft,
            (w / n - 0.04, h * 0.8, 0.02),
            -w / 2 + w / n * (i + 0.5),
            h / 2,
            d / 2 + 0.01,
        )
        b(plain(rng), (0.02, 0.1, 0.03), -w / 2 + w / n * (i + 0.85), h / 2, d / 2 + 0.03)
    small_things(s, rng, x, h, z, (w * 0.35, d * 0.3), int(rng.integers(0, 4)), 0.25)


def _lamp(
    s: Scene, rng: np.random.Generator, x: float, z: float, rot: np.ndarray, hard: Material, soft: Material
) -> None:
    """A standard lamp, lit or not."""
    h = rng.uniform(1.0, 1.7)
    s.add(G.cylinder(0.015, h), hard, np.eye(3), 1, (x, h / 2, z))
    s.add(
        G.cylinder(0.2, 0.3, 0.13),
        Material(color=(1, 0.9, 0.75), emit=rng.choice([0, 1.5, 3]), spec=0.0),
        np.eye(3),
        1,
        (x, h, z),
    )
    s.add(G.cylinder(0.15, 0.03), hard, np.eye(3), 1, (x, 0.015, z))


def _plant(
    s: Scene, rng: np.random.Generator, x: float, z: float, rot: np.ndarray, hard: Material, soft: Material
) -> None:
    """A plant in a pot."""
    h = rng.uniform(0.5, 1.6)
    stand(s, rng, G.cylinder(0.35, 0.7, 0.5), thing(rng, s.assets), h * 0.35, x, 0, z)
    s.add(
        G.foliage(rng, 300),
        Material(color=tuple(rng.uniform([0.02, 0.07, 0.01], [0.2, 0.35, 0.1])), rough=0.5),
        rot,
        h * rng.uniform(0.25, 0.45),
        (x, h * 0.65, z),
    )


def _boxes(
    s: Scene, rng: np.random.Generator, x: float, z: float, rot: np.ndarray, hard: Material, soft: Material
) -> None:
    """A heap of large things."""
    small_things(s, rng, x, 0, z, (0.5, 0.5), int(rng.integers(2, 6)), 0.6)


def _curtain(
    s: Scene, rng: np.random.Generator, x: float, z: float, rot: np.ndarray, hard: Material, soft: Material
) -> None:
    """A curtain."""
    s.add(G.drape(rng), soft, rot, (rng.uniform(0.4, 1.2), 1.15, rng.uniform(0.5, 1.5)), (x, 1.15, z))


def _screen(
    s: Scene, rng: np.random.Generator, x: float, z: float, rot: np.ndarray, hard: Material, soft: Material
) -> None:
    """A picture or screen on a post."""
    b = placer(s, x, z, rot)
    b(printed(rng, s.assets), (rng.uniform(0.6, 1.4), rng.uniform(0.5, 1.0), 0.04), 0, rng.uniform(0.8, 1.3), 0)
    b(hard, (0.05, 0.8, 0.05), 0, 0.4, -0.05)


BUILT = {
    "table": _table,
    "shelf": _shelf,
    "sofa": _sofa,
    "cupboard": _cupboard,
    "lamp": _lamp,
    "plant": _plant,
    "boxes": _boxes,
    "curtain": _curtain,
    "screen": _screen,
}


def furniture(s: Scene, rng: np.random.Generator, x: float, z: float, a: float) -> None:
    """One piece of furniture at (x, 0, z), turned by a: from the library, or built."""
    lib, rot = s.assets, yaw(a)
    m = lib.pick(rng, "furniture") if rng.random() < 0.6 else None
    if m is not None and "living_room" not in str(m) and len(m.f) < 30000:
        size = rng.uniform(0.6, 1.8)
        stand(s, rng, m, None if rng.random() < 0.9 else surface(rng, lib), size, x, 0, z, rot)
        return
    hard, soft = (
        surface(rng, lib, ("wood", "metal"), ("wood", "noise"), 0.8, 0.45, 0.15),
        surface(rng, lib, ("fabric",), ("stripe", "weave", "noise"), 0.5, 0.5, 0.2),
    )
    k = str(rng.choice(["table", "shelf", "shelf", "sofa", "cupboard", "lamp", "plant", "boxes", "curtain", "screen"]))
    BUILT[k](s, rng, x, z, rot, hard, soft)


def enter(s: Scene, rng: np.random.Generator) -> Iterator[Shot]:
    """One of the library's scenes, with the eye somewhere inside."""
    lib = s.assets
    pool = [
        ("scene", n) for n in lib.names("scene") if n.startswith(("aws_", "godot_living", "godot_room", "pc_vr"))
    ] + [("furniture", n) for n in lib.names("furniture", "ph_living")]
    c, name = pool[rng.integers(len(pool))]
    m = lib.mesh(c, name)
    k = m.scale if m.scale > 1.5 else 4.0
    p = np.array([0, -m.v[:, 1].min() * k, 0])
    s.add(m, None, yaw(0), k, p)
    lo, hi = m.v.min(0) * k, m.v.max(0) * k
    for _ in range(int(rng.integers(1, 4))):
        s.lamp(
            [rng.uniform(lo[0], hi[0]) * 0.6, rng.uniform(1.8, 2.8), rng.uniform(lo[2], hi[2]) * 0.6],
            hue(rng, 0.4, 0.7, 1) * rng.uniform(3, 25),
            rng.uniform(0.05, 0.4),
        )
    r = np.minimum(np.minimum(-lo, hi)[[0, 2]] * 0.85, 5)
    for _ in range(14):
        eye = np.array([rng.uniform(-r[0], r[0]), rng.uniform(0.8, 1.8), rng.uniform(-r[1], r[1])])
        a, q = rng.uniform(0, 6.3), rng.normal(-0.12, 0.2)
        yield eye + np.array([np.sin(a), q, np.cos(a)]), None, eye, (40, 80)


def pictures_and_windows(s: Scene, rng: np.random.Generator, w: float, d: float, h: float) -> None:
    """Framed pictures and glowing windows on three walls of a room of inner size (w, h, d)."""
    for _ in range(int(rng.integers(0, 6))):
        win, ww, hh, q = rng.random() < 0.3, *rng.uniform(0.25, 1.4, 2), int(rng.integers(3))
        e = Material(color=(1, 1, 1), emit=rng.uniform(1, 4), spec=0.0) if win else printed(rng, s.assets)
        fr, yy = plain(rng), min(h - hh / 2 - 0.05, rng.uniform(1, 1.9))
        if q == 0:
            p, rot = np.array([rng.uniform(-w / 2 + 0.4, w / 2 - 0.4), yy, -d / 2]), np.eye(3)
        else:
            p, rot = (
                np.array([(-1 if q == 1 else 1) * w / 2, yy, rng.uniform(-d / 2, d / 3)]),
                yaw(np.pi / 2 if q == 1 else -np.pi / 2),
            )
        s.box(fr, (ww + 0.08, hh + 0.08, 0.04), p, rot)
        s.box(e, (ww, hh, 0.055), p, rot)
        if win:
            s.lamp(p + rot @ vector([0, 0, 0.3]), np.array([1, 0.97, 0.9]) * rng.uniform(2, 12), 0.25)


def furnish(s: Scene, rng: np.random.Generator, w: float, d: float) -> list[tuple[float, float]]:
    """Furniture along the walls of a room and in it. Returns where each piece stands, as (x, z)."""
    spots: list[tuple[float, float]] = []
    for _ in range(int(rng.integers(4, 15))):
        q = int(rng.integers(5))
        x, z, a = [
            (rng.uniform(-w / 2 + 0.5, w / 2 - 0.5), -d / 2 + 0.4, 0),
            (-w / 2 + 0.4, rng.uniform(-d / 2 + 0.4, d / 3), np.pi / 2),
            (w / 2 - 0.4, rng.uniform(-d / 2 + 0.4, d / 3), -np.pi / 2),
            *[(rng.uniform(-w / 2 + 0.4, w / 2 - 0.4), rng.uniform(-d / 2 + 0.4, d / 3), rng.uniform(0, 6.3))] * 2,
        ][q]
        furniture(s, rng, x, z, a)
        spots.append((x, z))
    return spots


def ceiling_lamps(s: Scene, rng: np.random.Generator, w: float, d: float, h: float) -> None:
    """One or two lamps below the ceiling; distant lights, which cannot get into a closed room, go."""
    s.lights = [light for light in s.lights if light[0] == 1]
    for _ in range(int(rng.integers(1, 3))):
        s.lamp(
            [rng.uniform(-w / 3, w / 3), h - rng.uniform(0.1, 0.5), rng.uniform(-d / 3, d / 3)],
            np.array([1, rng.uniform(0.75, 1), rng.uniform(0.5, 1)]) * rng.uniform(3, 15),
            rng.uniform(0.05, 0.3),
        )


def views_of_room(rng: np.random.Generator, w: float, d: float, spots: list[tuple[float, float]]) -> Iterator[Shot]:
    """Views into a room, either of one of the spots from close by or across the room."""
    near = rng.random() < 0.4
    for _ in range(16):
        if near:  # a corner, a piece of furniture, from close
            x, z = spots[rng.integers(len(spots))]
            at = np.array([x + rng.normal(0, 0.15), rng.uniform(0.3, 1.2), z])
            turn, height = rng.normal(0, 0.6), rng.uniform(-0.1, 0.6)
            yield at, direction(turn, height), rng.uniform(0.8, 2.2), (30, 65)
        else:
            eye = np.array(
                [rng.uniform(-w / 2 + 0.3, w / 2 - 0.3), rng.uniform(0.7, 1.9), rng.uniform(0, d / 2 - 0.15)]
            )
            yield (
                np.array([rng.uniform(-w / 3, w / 3), rng.uniform(0.2, 1.5), rng.uniform(-d / 2, -d / 5)]),
                None,
                eye,
                (40, 80),
            )


def room(s: Scene, rng: np.random.Generator) -> Iterator[Shot]:
    """A room with furniture along its walls and in it, or a scene of the library to walk into."""
    lib = s.assets
    lighting(s, rng, True)
    if lib.names("scene") and rng.random() < 0.28:
        yield from enter(s, rng)
        return
    w, d, h = rng.uniform(2.5, 7), rng.uniform(3, 8), rng.uniform(2.2, 3.4)
    wall = surface(
        rng,
        lib,
        ("wall", "brick", "wood", "tile", "stone"),
        ("noise", "stripe", "brick", "tile", "print"),
        1.5,
        0.55,
        0.3,
    )
    floor = surface(
        rng, lib, ("wood", "tile", "stone", "marble", "fabric"), ("wood", "tile", "noise", "marble"), 1.4, 0.15, 0.2
    )
    is_open = rng.random() < 0.25
    ceiling = None if is_open else Material(color=(rng.uniform(0.4, 0.85),) * 3, spec=0.0)
    other = wall if rng.random() < 0.7 else surface(rng, lib)
    shell(s, (w, h, d), floor, ceiling, None if is_open else wall, wall, other, other)
    if rng.random() < 0.5:
        s.box(plain(rng), (w, 0.1, 0.02), (0, 0.05, -d / 2 + 0.01))
    if rng.random() < 0.4:
        s.box(
            surface(rng, lib, ("wood",), ("wood",), 1, 0.5),
            (0.85, 2.0, 0.05),
            (rng.uniform(-w / 3, w / 3), 1.0, -d / 2 + 0.025),
        )
    pictures_and_windows(s, rng, w, d, h)
    spots = furnish(s, rng, w, d)
    if rng.random() < 0.25:
        from .scenes_people import person

        for _ in range(int(rng.integers(1, 3))):
            person(s, rng, rng.uniform(-w / 3, w / 3), rng.uniform(-d / 3, d / 6), rng.uniform(-1.5, 1.5))
    if rng.random() < 0.4:
        s.box(
            surface(rng, lib, ("fabric",), ("stripe", "print", "tile"), 1.5, 0.1),
            (rng.uniform(1, w * 0.7), 0.015, rng.uniform(1, d * 0.6)),
            (rng.uniform(-0.5, 0.5), 0.008, rng.uniform(-1, 0.5)),
        )
    if not is_open:
        ceiling_lamps(s, rng, w, d, h)
    s.lights = [s.lights[i] for i in rng.permutation(len(s.lights))[:3]]
    yield from views_of_room(rng, w, d, spots)
