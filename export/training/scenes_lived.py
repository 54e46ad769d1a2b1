"""Rooms that people live in: furniture along every wall, things on everything, seen as phones and depth cameras see
them.
"""

from __future__ import annotations

from typing import Iterator

import numpy as np

from . import geometry as G
from . import sculpture
from .geometry import vector
from .materials import Material
from .scene import Scene, Shot
from .scenes_common import (
    direction,
    f32,
    hue,
    lighting,
    pitch,
    place_object,
    plain,
    printed,
    shape,
    small_things,
    stand,
    surface,
    thing,
    yaw,
)
from .scenes_indoor import board_on_legs, books, furniture, shell
from .scenes_still import covered, cushion, fabric, potted

# The largest extent in metres, by the first of these parts that a name contains. FLAT pieces have a top for things,
# SOFT ones carry cushions.
SIZES = {
    "Portrait": 0.5,
    "Light": 0.5,
    "Tablet": 0.25,
    "Tableware": 0.3,
    "Utensils": 0.4,
    "NightStand": 0.55,
    "Bed": 2.0,
    "Sofa": 1.9,
    "sofa": 1.9,
    "Couch": 2.1,
    "hair": 0.95,
    "Stool": 0.5,
    "stool": 0.5,
    "able": 1.2,
    "Desk": 1.4,
    "Shelf": 1.6,
    "shel": 1.6,
    "Book": 1.8,
    "Wardrobe": 2.0,
    "Closet": 2.0,
    "abinet": 1.2,
    "urtain": 2.2,
    "Trash": 0.4,
    "Drawer": 0.8,
    "Houseplant": 0.8,
    "Rack": 0.9,
    "Oven": 0.9,
    "Sink": 0.9,
    "Toilet": 0.75,
    "Bathtub": 1.7,
    "Window": 1.3,
    "Door": 2.0,
}
FLAT = ("NightStand", "able", "Desk", "abinet", "Drawer", "Oven")
SOFT = ("Bed", "Sofa", "Couch", "sofa")


def part_of(name: str) -> str:
    """The entry of SIZES that a piece of furniture goes by, or '' when there is none."""
    return next((part for part in SIZES if part in name), "")


def strew(
    s: Scene, rng: np.random.Generator, x: float, y: float, z: float, spread: tuple[float, float], n: int
) -> None:
    """n everyday things, each at its natural size, lying or standing around (x, y, z)."""
    lib = s.assets
    for _ in range(n):
        px, pz, k = x + rng.uniform(-1, 1) * spread[0], z + rng.uniform(-1, 1) * spread[1], rng.random()
        if k < 0.45:
            place_object(s, rng, px, y, pz, rng.uniform(0.07, 0.3), 0.8, ("object", "food", "plant", "statue"))
        elif k < 0.6:  # papers, cards, magazines
            wide = rng.uniform(0.1, 0.3)
            s.box(
                printed(rng, lib),
                (wide, rng.choice([0.003, 0.015]), wide * 1.4),
                (px, y + 0.004, pz),
                yaw(rng.uniform(0, 6.3)),
            )
        elif k < 0.75:  # a stack of books or boxes
            top, turn = y, rng.uniform(0, 6.3)
            for _ in range(int(rng.integers(1, 6))):
                high = rng.uniform(0.015, 0.06)
                mat = printed(rng, lib) if rng.random() < 0.5 else plain(rng, metal=0.0)
                size = (rng.uniform(0.12, 0.2), high, rng.uniform(0.18, 0.28))
                s.box(mat, size, (px, top + high / 2, pz), yaw(turn + rng.normal(0, 0.15)))
                top += high
        elif k < 0.85:
            stand(s, rng, G.lathe(rng), thing(rng, lib, 0.2), rng.uniform(0.08, 0.25), px, y, pz)
        elif k < 0.93:  # clothes, towels, crushed paper
            heap = covered(rng, 60) if rng.random() < 0.6 else sculpture.crumpled(rng, 60)
            wide = rng.uniform(0.1, 0.3)
            s.add(
                heap,
                fabric(rng, lib),
                yaw(rng.uniform(0, 6.3)),
                (wide, wide * rng.uniform(0.2, 0.7), wide),
                (px, y, pz),
            )
        else:
            stand(s, rng, shape(rng), thing(rng, lib, 0.2), rng.uniform(0.08, 0.3), px, y, pz)


def bed(s: Scene, rng: np.random.Generator) -> None:
    """A bed at the origin with its head at -z: a frame, a quilt that falls over the sides, and pillows."""
    w, d, h = rng.uniform(0.9, 1.8), rng.uniform(1.9, 2.1), rng.uniform(0.35, 0.6)
    s.box(surface(rng, s.assets, ("wood", "fabric"), ("wood", "weave"), 0.8), (w, h * 0.6, d), (0, h * 0.3, 0))
    s.box(
        surface(rng, s.assets, ("wood", "fabric"), ("wood", "weave"), 0.8),
        (w, h * rng.uniform(1.2, 2.2), 0.05),
        (0, h * 0.7, -d / 2),
    )
    low, wrinkle = rng.uniform(0.1, 0.8) * h, rng.uniform(0.005, 0.03)

    def fn(u, v):
        x, z = (v * 2 - 1) * (w / 2 + 0.12), (u * 2 - 1) * (d / 2 + 0.12)
        edge = np.clip(np.maximum(np.abs(x) - w / 2, np.abs(z) - d / 2) / 0.06, 0, 1)
        return np.stack([x, h + (low - h) * edge + G.heights(rng, x, z, wrinkle, (3, 7, 14)), z], -1)

    s.add(G.surface(90, 90, fn), fabric(rng, s.assets))
    for _ in range(int(rng.integers(1, 5))):
        cushion(s, rng, rng.uniform(-0.4, 0.4) * w, h * 0.95, -d / 2 + rng.uniform(0.2, 0.5), rng.uniform(0.35, 0.65))
    strew(s, rng, 0, h, d * 0.1, (w * 0.4, d * 0.3), int(rng.integers(0, 5)))


def desk(s: Scene, rng: np.random.Generator) -> None:
    """A table at the origin with a screen, a keyboard and whatever else lies on it, and a chair in front."""
    lib = s.assets
    wood = surface(rng, lib, ("wood", "metal", "marble"), ("wood", "noise"), 0.8, 0.4, 0.1)
    w, d, h = rng.uniform(0.9, 2.0), rng.uniform(0.5, 0.9), rng.uniform(0.45, 0.8)
    board_on_legs(lambda mat, size, *at: s.box(mat, size, at), wood, w, d, h)
    if rng.random() < 0.4:
        x, dark, turn = (
            rng.uniform(-0.3, 0.3) * w,
            Material(color=(rng.uniform(0.01, 0.1),) * 3, rough=0.4),
            yaw(rng.normal(0, 0.3)),
        )
        wide = rng.uniform(0.35, 0.65)
        s.box(dark, (wide, wide * 0.6, 0.04), (x, h + 0.12 + wide * 0.3, -d * 0.25), turn)
        glass = printed(rng, lib, rough=0.2) if rng.random() < 0.5 else dark
        s.box(glass, (wide * 0.94, wide * 0.54, 0.046), (x, h + 0.12 + wide * 0.3, -d * 0.25), turn)
        s.box(dark, (0.06, 0.2, 0.04), (x, h + 0.1, -d * 0.27))
        s.box(plain(rng), (0.42, 0.025, 0.14), (x + rng.normal(0, 0.05), h + 0.033, d * 0.15), yaw(rng.normal(0, 0.15)))
    strew(s, rng, 0, h + 0.02, 0, (w * 0.45, d * 0.4), int(rng.integers(3, 16)))
    if rng.random() < 0.5:
        chair = [n for n in lib.names("furniture") if "hair" in n]
        if chair:
            m = lib.mesh("furniture", str(rng.choice(chair)))
            stand(
                s,
                rng,
                m,
                None,
                rng.uniform(0.85, 1.05),
                rng.normal(0, 0.2),
                0,
                d * rng.uniform(0.5, 0.9),
                yaw(rng.normal(np.pi, 0.6)),
            )


def shelves(s: Scene, rng: np.random.Generator) -> None:
    """Open shelves at the origin, crammed."""
    lib = s.assets
    board = surface(rng, lib, ("wood", "metal"), ("wood",), 0.8, 0.4, 0.1)
    w, d, h, n = rng.uniform(0.7, 2.0), rng.uniform(0.25, 0.4), rng.uniform(1.0, 2.1), int(rng.integers(3, 7))
    for i in (-1, 1):
        s.box(board, (0.03, h, d), (i * w / 2, h / 2, 0))
    if rng.random() < 0.7:
        s.box(board, (w, h, 0.02), (0, h / 2, -d / 2))
    for q in range(n + 1):
        y = h * q / n
        s.box(board, (w, 0.025, d), (0, y, 0))
        if q < n and rng.random() < 0.9:
            if rng.random() < 0.5:
                books(s, rng, -w / 2 + 0.03, w / 2 - 0.03, y + 0.013, 0, h / n - 0.03, d)
            else:
                strew(s, rng, 0, y + 0.013, 0, (w * 0.45, d * 0.3), int(rng.integers(2, 9)))


def bought(s: Scene, rng: np.random.Generator) -> bool:
    """A piece of the library's furniture at the origin, at its natural size, with cushions or things on it.

    Returns False, having added nothing, when there is no library or the piece is not suitable.
    """
    names = s.assets.names("furniture")
    name = str(rng.choice(names)) if names else ""
    if not names or "living_room" in name:
        return False
    m = s.assets.mesh("furniture", name)
    if len(m.f) > 30000:
        return False
    part = part_of(name)
    size = SIZES.get(part, rng.uniform(0.5, 1.1)) * rng.uniform(0.85, 1.15)
    high = stand(
        s, rng, m, None if rng.random() < 0.8 or not m.materials else surface(rng, s.assets), size, 0, 0, 0, yaw(0)
    )
    world = s.parts[-1][0]
    half = (world.max(0) - world.min(0)) / 2
    if part in FLAT:
        strew(s, rng, 0, high, 0, (half[0] * 0.8, half[2] * 0.8), int(rng.integers(1, 9)))
    elif part in SOFT:
        for _ in range(int(rng.integers(1, 6))):
            x, z = rng.uniform(-0.8, 0.8) * half[0], rng.uniform(-0.5, 0.3) * half[2]
            cushion(s, rng, x, high * rng.uniform(0.4, 0.6), z, rng.uniform(0.3, 0.5))
        if rng.random() < 0.5:
            at = (rng.uniform(-0.5, 0.5) * half[0], high * 0.45, rng.uniform(-0.2, 0.4) * half[2])
            s.add(
                covered(rng, 80),
                fabric(rng, s.assets),
                yaw(rng.uniform(0, 6.3)),
                (0.45, rng.uniform(0.1, 0.35), 0.45),
                at,
            )
    return True


def piece(s: Scene, rng: np.random.Generator) -> None:
    """Some piece of furniture at the origin, its front towards +z."""
    k = rng.random()
    if k < 0.45 and bought(s, rng):
        return
    if k < 0.6:
        desk(s, rng)
    elif k < 0.75:
        shelves(s, rng)
    elif k < 0.85:
        bed(s, rng)
    elif k < 0.9:
        potted(s, rng, 0, 0, 0, rng.uniform(0.4, 1.3))
    else:
        furniture(s, rng, 0, 0, 0.0)


def move(s: Scene, first: int, rot: np.ndarray, shift: np.ndarray) -> None:
    """Turn the parts from the index `first` on by rot, then shift them."""
    for k in range(first, len(s.parts)):
        world, f, n, *rest = s.parts[k]
        s.parts[k] = (world @ rot.T + shift.astype(f32), f, n @ rot.T, *rest)


def along(s: Scene, rng: np.random.Generator, origin: np.ndarray, rot: np.ndarray, length: float) -> list[np.ndarray]:
    """Furniture shoulder to shoulder along a wall that starts at `origin` and runs along rot's x.

    Returns where each piece stands: points (3,) at the height of its top.
    """
    x = rng.uniform(0, 0.4)
    at: list[np.ndarray] = []
    while x < length - 0.4 and len(at) < 7:
        first = len(s.parts)
        piece(s, rng)
        points = np.concatenate([p[0] for p in s.parts[first:]])
        low, high = np.percentile(points, 0.5, 0), np.percentile(points, 99.5, 0)
        wide = high[0] - low[0]
        if x + wide > length + 0.2:
            del s.parts[first:]
            break
        shift = origin + rot @ vector([x - low[0], 0, 0.02 - low[2]])
        move(s, first, rot, shift)
        at.append(origin + rot @ vector([x + wide / 2, high[1], (high[2] - low[2]) / 2]))
        x += wide + (0.03 if rng.random() < 0.4 else rng.uniform(0.05, 0.7))
    return at


def on_wall(
    s: Scene, rng: np.random.Generator, origin: np.ndarray, rot: np.ndarray, length: float, height: float
) -> None:
    """Pictures, windows with curtains, boards with things on them, and clocks."""
    lib = s.assets
    for _ in range(int(rng.integers(0, 6))):
        x, y, k = rng.uniform(0.2, max(length - 0.2, 0.3)), rng.uniform(1.1, min(2.0, height - 0.3)), rng.random()
        wide, high = rng.uniform(0.15, 0.9), rng.uniform(0.15, 0.8)
        p = origin + rot @ vector([x, y, 0])
        if k < 0.5:
            s.box(plain(rng), (wide + 0.06, high + 0.06, rng.uniform(0.02, 0.05)), p, rot)
            s.box(printed(rng, lib), (wide, high, 0.056), p, rot)
        elif k < 0.65:
            s.box(Material(color=(1, 1, 1), emit=rng.uniform(1, 4), spec=0.0), (wide + 0.3, high + 0.5, 0.03), p, rot)
            s.lamp(p + rot @ vector([0, 0, 0.3]), np.array([1, 0.97, 0.9]) * rng.uniform(2, 12), 0.25)
            for q in (-1, 1):
                if rng.random() < 0.7:
                    side = p + rot @ vector([q * (wide / 2 + 0.2), 0, 0.08])
                    s.add(
                        G.drape(rng, 70), fabric(rng, lib), rot, (0.25, min(1.1, y - 0.05), rng.uniform(0.4, 1)), side
                    )
        elif k < 0.85:
            s.box(
                surface(rng, lib, ("wood",), ("wood",), 0.8),
                (wide + 0.3, 0.03, 0.22),
                p + rot @ vector([0, 0, 0.11]),
                rot,
            )
            first = len(s.parts)
            strew(s, rng, 0, 0.015, 0, (wide / 2, 0.06), int(rng.integers(1, 6)))
            move(s, first, rot, p + rot @ vector([0, 0, 0.11]))
        else:
            s.add(
                G.cylinder(0.5, 0.06), printed(rng, lib), rot @ pitch(np.pi / 2), (wide / 2 + 0.1, 1, wide / 2 + 0.1), p
            )


def lived(s: Scene, rng: np.random.Generator) -> Iterator[Shot]:
    """A lived-in room seen from inside, either close to one piece or from across the room."""
    lib = s.assets
    lighting(s, rng, True)
    w, d, h = rng.uniform(2.4, 5.5), rng.uniform(2.6, 6), rng.uniform(2.2, 3.0)
    paint = Material(color=tuple(hue(rng, 0.25, 0.35, 0.85)), rough=rng.uniform(0.5, 1), spec=0.0)
    paper = surface(rng, lib, ("wall", "brick", "wood", "tile"), ("noise", "stripe", "tile", "print"), 1.5, 0.2, 0.2)
    wall = paint if rng.random() < 0.65 else paper
    floor = surface(
        rng, lib, ("wood", "tile", "fabric", "stone", "marble"), ("wood", "tile", "noise", "weave"), 1.2, 0.15, 0.15
    )
    ceiling = Material(color=(rng.uniform(0.5, 0.9),) * 3, spec=0.0)
    left, right = (wall if rng.random() < 0.8 else surface(rng, lib) for _ in range(2))
    shell(s, (w, h, d), floor, ceiling, wall, wall, left, right)
    sides = [((-w / 2, -d / 2), 0, w), ((-w / 2, d / 2), np.pi / 2, d), ((w / 2, -d / 2), -np.pi / 2, d)]
    at: list[np.ndarray] = []
    for (x, z), turn, length in sides:
        origin, rot = vector([x, 0, z]), yaw(turn)
        on_wall(s, rng, origin, rot, length, h)
        if rng.random() < 0.85:
            at += along(s, rng, origin, rot, length)
    for _ in range(int(rng.integers(0, 3))):  # something in the middle
        first = len(s.parts)
        piece(s, rng)
        where = vector([rng.uniform(-0.25, 0.25) * w, 0, rng.uniform(-0.3, 0.2) * d])
        move(s, first, yaw(rng.uniform(0, 6.3)), where)
        at.append(where + vector([0, 0.6, 0]))
    strew(s, rng, 0, 0, -0.1 * d, (0.4 * w, 0.3 * d), int(rng.integers(0, 10)))
    small_things(s, rng, 0, 0, 0, (0.45 * w, 0.4 * d), int(rng.integers(0, 4)), 0.5)
    windows = [light for light in s.lights if light[0] == 1][:2]
    s.lights = windows + [light for light in s.lights if light[0] == 0 and rng.random() < 0.3]
    for _ in range(int(rng.integers(1, 3))):
        place = [rng.uniform(-w / 3, w / 3), h - rng.uniform(0.1, 0.4), rng.uniform(-d / 3, d / 3)]
        s.lamp(
            place,
            np.array([1, rng.uniform(0.75, 1), rng.uniform(0.5, 1)]) * rng.uniform(4, 18),
            rng.uniform(0.05, 0.35),
        )
    at = at or [vector([0, 0.5, -d / 3])]
    close = rng.random() < 0.4
    for _ in range(16):
        p = np.asarray(at[rng.integers(len(at))], float)
        target = np.array([p[0], np.clip(p[1] * rng.uniform(0.4, 1.1), 0.1, 1.5), p[2]]) + rng.normal(0, 0.2, 3)
        if close:  # a table from above, a shelf from the front
            yield target, direction(rng.normal(0, 0.7), np.deg2rad(rng.uniform(5, 50))), rng.uniform(0.5, 1.5), (35, 65)
        else:
            eye = np.array([rng.uniform(-0.4, 0.4) * w, rng.uniform(0.9, 1.8), rng.uniform(0.0, 0.46) * d])
            yield target * [1, rng.uniform(0.3, 1), 1], None, eye, (45, 75)
