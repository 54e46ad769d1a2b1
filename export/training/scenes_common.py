"""Parts that all scenes share: random materials, light and placement. Lengths are in metres, angles in radians."""

from __future__ import annotations

from typing import Any, Sequence

import cv2
import numpy as np
from numpy.typing import ArrayLike

from . import geometry as G
from . import sculpture, skies
from .assets import Library
from .geometry import Mesh
from .materials import Material
from .scene import Scene

f32 = np.float32


def hue(rng: np.random.Generator, sat: float = 0.6, lo: float = 0.05, hi: float = 0.85) -> np.ndarray:
    """A random linear RGB colour (3,), mostly muted."""
    c = np.clip(np.abs(((rng.random() * 6 + np.array([0, 4, 2])) % 6) - 3) - 1, 0, 1)
    s = rng.random() ** 1.5 * sat
    return (1 - s + s * c) * rng.uniform(lo, hi)


def finish(rng: np.random.Generator) -> dict[str, Any]:
    """Roughness, reflectance and metal of everyday things, as keyword arguments of a Material."""
    k = rng.random()
    if k < 0.06:
        return {"rough": rng.uniform(0.15, 0.6), "metal": 1.0, "spec": 0.04}
    return {"rough": rng.uniform(0.12, 0.5) if k < 0.35 else rng.uniform(0.4, 1), "spec": 0.04 if k < 0.6 else 0.0}


def plain(rng: np.random.Generator, **kw: Any) -> Material:
    """A material of one random colour."""
    return Material(color=tuple(hue(rng)), **{**finish(rng), **kw})


def printed(rng: np.random.Generator, lib: Library, **kw: Any) -> Material:
    """A flat picture over the mesh's own coordinates: a pattern, never relief."""
    return Material(
        color=(rng.uniform(0.6, 1),) * 3, tex=lib.picture(rng), mode="picture", **{**finish(rng), "metal": 0.0, **kw}
    )


def surface(
    rng: np.random.Generator,
    lib: Library,
    photo: Sequence[str] = ("wood", "stone", "marble", "tile", "wall", "brick", "fabric", "metal", "stylised", "paper"),
    made: Sequence[str] = (
        "noise",
        "noise",
        "marble",
        "wood",
        "tile",
        "stripe",
        "brick",
        "cells",
        "print",
        "page",
        "streak",
        "weave",
    ),
    size: float = 1.0,
    p_plain: float = 0.3,
    bump: float = 0.3,
    p_photo: float = 0.5,
) -> Material:
    """A random box-mapped material; one texture covers about `size` metres."""
    if rng.random() < p_plain:
        return plain(rng)
    key = lib.photo(rng, *photo) if rng.random() < p_photo and photo else None
    flat = key is None
    key = key or lib.made(rng, *made)
    kw = finish(rng)
    if rng.random() < bump and not (flat and key[1] in ("print", "page", "stripe")):
        kw["bump"] = rng.uniform(0.1, 0.8)
    tile = 1 / (size * rng.uniform(0.5, 2))
    if flat and rng.random() < 0.3:
        a, b = hue(rng), hue(rng)
        return Material(
            color=tuple(a),
            color2=tuple(np.clip(a * rng.uniform(0.4, 1.8), 0, 0.95) if rng.random() < 0.6 else b),
            tex=key,
            mode="mix",
            tile=tile,
            metric=True,
            **kw,
        )
    return Material(
        color=tuple(rng.uniform(0.6, 1) * rng.uniform(0.85, 1, 3)),
        tex=key,
        mode="picture",
        tile=tile,
        metric=True,
        **kw,
    )


def thing(rng: np.random.Generator, lib: Library, size: float = 0.3) -> Material:
    """The material of a small object: plain, printed or textured."""
    k = rng.random()
    return (
        plain(rng) if k < 0.35 else printed(rng, lib) if k < 0.6 else surface(rng, lib, size=size, p_plain=0, bump=0.25)
    )


def yaw(a: float) -> np.ndarray:
    """The rotation (3, 3) about +y by `a`, which takes +z towards +x."""
    c, s = np.cos(a), np.sin(a)
    return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]], f32)


def pitch(a: float) -> np.ndarray:
    """The rotation (3, 3) about +x by `a`, which takes +y towards +z."""
    c, s = np.cos(a), np.sin(a)
    return np.array([[1, 0, 0], [0, c, -s], [0, s, c]], f32)


def direction(turn: float, height: float) -> np.ndarray:
    """The unit vector (3,) at the angle `turn` from +z towards +x and `height` above the ground."""
    return np.array([np.sin(turn) * np.cos(height), np.sin(height), np.cos(turn) * np.cos(height)])


def tumble(rng: np.random.Generator) -> np.ndarray:
    """A random rotation (3, 3)."""
    q = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    return (q * np.sign(np.linalg.det(q))).astype(f32)


UPRIGHT = np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]], f32)  # turns the sheet y = h(x, z) into a wall facing +z


def shape(
    rng: np.random.Generator,
    kinds: Sequence[str] = (
        "lathe",
        "lathe",
        "super",
        "super",
        "box",
        "cylinder",
        "blob",
        "rock",
        "prism",
        "tube",
        "carved",
    ),
) -> Mesh:
    """A random procedural mesh of one of the kinds."""
    k = rng.choice(kinds)
    return {
        "lathe": G.lathe,
        "super": G.superquadric,
        "blob": G.blob,
        "rock": G.rock,
        "prism": G.prism,
        "tube": G.tube,
        "box": lambda r: G.BOX,
        "cylinder": lambda r: G.cylinder(0.5, 1, r.choice([0.5, 0.5, 0.02, 0.35])),
        "cloth": G.cloth,
        "foliage": G.foliage,
        "ball": lambda r: G.sphere(),
        "carved": lambda r: sculpture.sculpture(r, 80),
    }[k](rng)


def stand(
    s: Scene,
    rng: np.random.Generator,
    mesh: Mesh,
    mat: Material | None,
    size: float,
    x: float,
    y: float,
    z: float,
    rot: np.ndarray | None = None,
    stretch: ArrayLike = 1.0,
) -> float:
    """Put a mesh with its lowest point at height y; `size` is its largest extent. Returns its height."""
    sc = np.broadcast_to(np.asarray(stretch, float), 3) * np.ones(3)
    rot = yaw(rng.uniform(0, 6.3)) if rot is None else rot
    w = (mesh.v * sc.astype(f32)) @ rot.T
    lo, hi = w.min(0), w.max(0)
    k = size / (hi - lo).max()
    c = (lo + hi) / 2
    s.add(mesh, mat, rot, sc * k, (x - c[0] * k, y - lo[1] * k, z - c[2] * k))
    return (hi - lo)[1] * k


def sky_picture(rng: np.random.Generator, h: int = 96, w: int = 192) -> np.ndarray:
    """A procedural sky (h, w, 3) float32 of unit mean: gradient, clouds and the colour of the ground."""
    e = np.cos((np.arange(h) + 0.5) / h * np.pi)[:, None, None]
    k = rng.random()
    zen = (
        np.array([0.2, 0.4, 0.9]) * rng.uniform(0.6, 1.4)
        if k < 0.6
        else hue(rng, 0.5, 0.4, 1)
        if k < 0.8
        else np.ones(3) * rng.uniform(0.6, 1)
    )
    hor = rng.uniform(0.7, 1.3) * np.array([1, rng.uniform(0.8, 1), rng.uniform(0.6, 1.1)])
    g = np.clip(e, 0, 1) ** rng.uniform(0.3, 1)
    a = np.broadcast_to(np.where(e > 0, hor * (1 - g) + zen * g, hue(rng, 0.4, 0.1, 0.5)), (h, w, 3)).copy()
    if rng.random() < 0.65:
        kk = np.sqrt((np.fft.fftfreq(h)[:, None] * h * 2) ** 2 + (np.fft.rfftfreq(w)[None] * w) ** 2 + 1)
        f = np.fft.irfft2(np.fft.rfft2(rng.normal(size=(h, w))) * kk ** -rng.uniform(1.6, 2.2), s=(h, w))
        f = (f - f.mean()) / f.std()
        c = np.clip((f - rng.uniform(-0.5, 1)) * rng.uniform(0.5, 2), 0, 1)[..., None] * (e > 0)
        a = a * (1 - c) + c * rng.uniform(0.7, 1.5) * (1 - 0.3 * rng.random() * np.clip(f, 0, 1)[..., None])
    if rng.random() < 0.04:
        a = a * 0.03
    return (a / a.mean()).astype(f32)


def studio(rng: np.random.Generator) -> np.ndarray:
    """Light from all around (32, 64, 3) float32 of unit mean: a gradient, mostly with a window or a softbox."""
    g = np.linspace(rng.uniform(0.1, 1), rng.uniform(0.1, 1.2), 32)[:, None, None] * hue(rng, 0.2, 0.8, 1.0)
    if rng.random() < 0.6:
        g = np.broadcast_to(g, (32, 64, 3)).copy()
        y, x, hh, ww = (
            int(rng.integers(6, 14)),
            int(rng.integers(0, 50)),
            int(rng.integers(3, 8)),
            int(rng.integers(4, 14)),
        )
        g[y : y + hh, x : x + ww] += rng.uniform(4, 30)
    return np.broadcast_to(g / g.mean(), (32, 64, 3)).astype(f32)


def lighting(s: Scene, rng: np.random.Generator, indoor: bool = False) -> None:
    """Sky and sun of a scene, photographed, procedural or from a studio; sets s.env, s.background and s.lights."""
    lib, k = s.assets, rng.random()
    s.yaw = float(rng.uniform(0, 6.28))
    d = rng.normal(size=3)
    d[1] = abs(d[1]) + 0.25
    over: np.ndarray | None = None
    made = sky_picture(rng)
    s.background = made
    if not indoor and rng.random() < 0.6:
        s.background = skies.dome(rng) * f32(2.0 ** rng.normal(0, 0.8))
    if lib.hdris and k < 0.6:
        name = str(rng.choice(lib.hdris))
        s.env, sd, over = lib.hdri(name)
        c, n = np.cos(s.yaw), np.sin(s.yaw)
        sd = np.array([c * sd[0] + n * sd[2], sd[1], c * sd[2] - n * sd[0]])
        if sd[1] > 0.08:
            d = sd
        if "sky" in name:
            s.background = s.env if rng.random() < 0.3 else skies.altered(rng, s.env)
    elif k < 0.85:
        s.env = made
        if s.background is not made and rng.random() < 0.5:  # the light of the sky that is seen
            coarse = np.asarray(cv2.resize(s.background, (192, 96), interpolation=cv2.INTER_AREA), f32)
            s.env = coarse / f32(max(float(coarse.mean()), 1e-3))
    else:
        s.env = studio(rng)
    if indoor or rng.random() < 0.3:
        s.env = s.env * f32(rng.uniform(0.3, 1))
    if rng.random() < 0.65:
        power = 10 ** rng.uniform(-0.1, 1.1) * np.array([1, rng.uniform(0.8, 1), rng.uniform(0.55, 1)])
        if over is not None and over.max() > 0.3 and rng.random() < 0.5:
            power = np.minimum(over, 12)
        s.sun(d, power, 10 ** rng.uniform(-2.3, -0.6))


def ground(
    s: Scene,
    rng: np.random.Generator,
    y: float = 0.0,
    size: float = 60.0,
    rough: float | None = None,
    kinds: Sequence[str] = ("ground", "stone", "tile", "asphalt", "brick", "wood", "snow"),
) -> float:
    """A large floor with gentle waves around height y. Returns its highest point."""
    m = surface(
        rng, s.assets, kinds, ("noise", "noise", "cells", "tile", "brick", "streak"), rng.uniform(0.7, 3), 0.1, 0.6, 0.6
    )
    a = size * rng.choice([0, 0, 0.0005, 0.002]) if rough is None else rough
    mesh = G.cloth(rng, 60, 1.0) if a else G.cloth(rng, 2, 0.0)
    w = s.add(mesh, m, yaw(rng.uniform(0, 6.3)), (size, max(a, 1e-6), size), (0, y, 0))
    return float(w[:, 1].max())


def small_things(
    s: Scene, rng: np.random.Generator, x: float, y: float, z: float, spread: tuple[float, float], n: int, size: float
) -> None:
    """Put n objects on a surface around (x, y, z), at most `spread` away in x and z."""
    for _ in range(n):
        place_object(
            s,
            rng,
            x + rng.uniform(-1, 1) * spread[0],
            y,
            z + rng.uniform(-1, 1) * spread[1],
            size * rng.uniform(0.4, 1.3),
        )


def place_object(
    s: Scene,
    rng: np.random.Generator,
    x: float,
    y: float,
    z: float,
    size: float,
    p_mesh: float = 0.6,
    categories: Sequence[str] = ("object", "food", "food"),
) -> float:
    """Put an object of the library, or a procedural one, on height y. Returns its height."""
    m = s.assets.pick(rng, *categories) if rng.random() < p_mesh else None
    if m is not None and len(m.f) < 36000:
        own = None if rng.random() < 0.9 and m.materials else thing(rng, s.assets, size)
        return stand(s, rng, m, own, size, x, y, z)
    st = rng.uniform(0.5, 1.4, 3)
    return stand(
        s, rng, shape(rng), thing(rng, s.assets, size), size, x, y, z, None if rng.random() < 0.8 else tumble(rng), st
    )
