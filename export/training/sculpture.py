"""Meshes whose form only the light reveals: carved and moulded things, stone, crumpled paper, embossed plaques."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from . import geometry as G
from . import textures
from .geometry import Mesh

f32 = np.float32
STEEPEST = 1.5  # nearly all flanks of a carving are less steep than this, so that its grid can show them


def unit(rng: np.random.Generator, n: int) -> np.ndarray:
    """n random unit vectors, (n, 3)."""
    p = rng.normal(size=(n, 3))
    return p / np.linalg.norm(p, axis=1, keepdims=True)


def lumps(rng: np.random.Generator, d: np.ndarray) -> np.ndarray:
    """The radius (V,) along unit directions d (V, 3) of ellipsoids grown together: bodies, limbs, heads, fruit."""
    n = int(rng.integers(1, 9))
    trunk = np.linalg.norm(d / rng.uniform(0.5, 1.0, 3), axis=1)
    soft = rng.uniform(6, 30)
    total = np.exp(soft / trunk)
    for axis in unit(rng, n):
        bump = ((1 + d @ axis) / 2) ** np.exp(rng.uniform(np.log(4), np.log(80)))
        total = total + np.exp(soft * rng.uniform(0.9, 1.9) * bump)
    return np.log(total) / soft


def cells(rng: np.random.Generator, p: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """For points p (V, 3), the distance to the border of the nearest of `count` random cells, about 0..1, and that
    cell's index; both (V,).
    """
    tree = cKDTree(p[rng.integers(0, len(p), count)])
    d, i = tree.query(p, k=2)
    size = np.mean(d[:, 1]) + 1e-9
    return np.clip((d[:, 1] - d[:, 0]) / size, 0, 1), i[:, 0]


def wrap(p: np.ndarray, repeats: int) -> tuple[np.ndarray, np.ndarray]:
    """Column and row, both (V,) in 0..1, of a picture wrapped around the y axis `repeats` times."""
    a = np.arctan2(p[:, 0], p[:, 2]) / (2 * np.pi) + 0.5
    return (a * repeats) % 1, (p[:, 1] * repeats / 2 + 0.5) % 1


def stamp(rng: np.random.Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The height (V,), 0..1, of letters, a smooth pattern or a weave pressed into a surface at (x, y) in 0..1."""
    kind = str(rng.choice(["print", "page", "noise", "weave", "cells", "marble", "tile"]))
    picture = textures.make(kind, int(rng.integers(textures.COUNT))).mean(-1)
    s = picture.shape[0]
    for _ in range(int(rng.integers(1, 4))):  # smoothed, so that there are no cliffs between two vertices
        picture = sum(np.roll(picture, k, axis) for axis in (0, 1) for k in (-1, 1)) / 4
    height = picture[(y * s).astype(int) % s, (x * s).astype(int) % s]
    low, high = height.min(), height.max()
    return (height - low) / (high - low + 1e-9)


def detail(rng: np.random.Generator, p: np.ndarray) -> np.ndarray:
    """A displacement along the normals, (V,) of at most about 1, in one carver's manner, at points p (V, 3) of a thing
    of size 1.
    """
    k = rng.random()
    if k < 0.2:  # scutes, scales, pebbles
        edge, which = cells(rng, p, int(np.exp(rng.uniform(np.log(12), np.log(300)))))
        return np.minimum(edge * rng.uniform(1.5, 6), 1) ** rng.uniform(0.4, 1.2) + rng.normal(0, 0.3, which.max() + 1)[
            which
        ] * (k < 0.1)
    if k < 0.35:  # ridges and creases
        w = G.waves(rng, p, 1.0, [rng.uniform(2, 8), rng.uniform(6, 16)], 3)
        return (1 if rng.random() < 0.5 else -1) * (1 - np.minimum(np.abs(w) * rng.uniform(1, 3), 1))
    if k < 0.5:  # grooves round an axis: fluting, thread, fur laid in strands
        axis = unit(rng, 1)[0]
        h = p @ axis if rng.random() < 0.5 else np.arctan2(p @ np.roll(axis, 1), p @ np.roll(axis, 2)) / 2
        h = h + G.waves(rng, p, rng.uniform(0, 0.08), [rng.uniform(1, 5)], 3)
        return np.abs(np.sin(h * rng.uniform(8, 60))) ** rng.uniform(0.4, 2)
    if k < 0.65:  # warts
        tree = cKDTree(p[rng.integers(0, len(p), int(rng.integers(20, 400)))])
        near = tree.query(p)[0] / rng.uniform(0.02, 0.1)
        return np.exp(-(near**2))
    if k < 0.8:
        return stamp(rng, *wrap(p, int(rng.integers(1, 4))))
    return G.waves(rng, p, 0.5, np.exp(rng.uniform(np.log(4), np.log(40), 3)), 4)  # rough stone, clay with finger marks


def facets(rng: np.random.Generator, p: np.ndarray, count: int) -> np.ndarray:
    """The points p (V, 3) cut by `count` random planes: hewn stone, gems, folded paper balls."""
    for axis in unit(rng, count):
        h = p @ axis
        over = np.maximum(h - np.quantile(h, rng.uniform(0.8, 0.97)), 0)
        p = p - over[:, None] * axis * rng.choice([1.0, 0.97])
    return p


def sculpture(rng: np.random.Generator, n: int = 170) -> Mesh:
    """A closed carved thing with a radius of about 1 and n * n vertices."""
    ball = G.sphere(n) if rng.random() < 0.75 else G.superquadric(rng, n=n)
    d = ball.v / (np.linalg.norm(ball.v, axis=1, keepdims=True) + 1e-9)
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    d = d @ turn  # so that the poles of the grid may lie anywhere
    p = d * lumps(rng, d)[:, None] if rng.random() < 0.7 else (ball.v @ turn) * rng.uniform(0.5, 1.1, 3)
    if rng.random() < 0.3:
        p = facets(rng, p, int(rng.integers(6, 40)))
    for _ in range(int(rng.choice([0, 1, 1, 2, 3]))):
        where = np.clip(
            G.waves(rng, p, 1.0, [1.5, 3], 3) + rng.uniform(-0.5, 2), 0, 1
        )  # stronger in some places than in others
        normals = seamless(G.vertex_normals(p.astype(f32), ball.f), n)
        h = detail(rng, p) * where
        a, b = ball.f[:, 0], ball.f[:, 1]
        slope = np.percentile(np.abs(h[a] - h[b]) / (np.linalg.norm(p[a] - p[b], axis=1) + 1e-3), 98)
        p = p + normals * (h * min(rng.uniform(0.01, 0.09), STEEPEST / (slope + 1e-9)))[:, None]
    m = G.smooth(p, ball.f, ball.uv)
    m.n = seamless(m.n, n)
    return G.outward(m)


def seamless(normals: np.ndarray, n: int) -> np.ndarray:
    """The normals (n * n, 3) of a closed n x n grid, made equal on both sides of its seam and single at each pole."""
    g = normals.reshape(n, n, 3).copy()
    g[:, 0] = g[:, -1] = g[:, 0] + g[:, -1]
    g[0], g[-1] = g[0].sum(0), g[-1].sum(0)
    return (g / (np.linalg.norm(g, axis=-1, keepdims=True) + 1e-12)).reshape(-1, 3).astype(f32)


def crumpled(rng: np.random.Generator, n: int = 150) -> Mesh:
    """A sheet over x, z in [-1, 1] that was crushed and smoothed out: flat pieces between sharp creases, heights along
    y.
    """
    count, scale = int(rng.integers(3, 26)), rng.uniform(0.1, 0.6)
    turn, at, steep = (
        rng.uniform(0, 6.28, count),
        rng.uniform(-0.9, 0.9, count),
        rng.normal(0, 1, count) / np.sqrt(count),
    )
    soft = rng.uniform(0.002, 0.04)
    bend = G.heights(rng, *np.meshgrid(np.linspace(-1, 1, n), np.linspace(-1, 1, n)), rng.uniform(0, 0.12), (1.0, 2.5))

    def fn(u, v):
        x, z = v * 2 - 1, u * 2 - 1
        h = bend.copy()
        for a, c, k in zip(turn, at, steep):
            s = np.cos(a) * x + np.sin(a) * z - c
            reach = np.clip(rng.uniform(0.3, 3) - np.abs(np.cos(a) * z - np.sin(a) * x), 0, 1)  # creases have ends
            h = h + scale * k * (np.sqrt(s * s + soft**2) - np.abs(c)) * reach
        return np.stack([x, h - h.mean(), z], -1)

    return G.surface(n, n, fn)


def plaque(rng: np.random.Generator, n: int = 190) -> Mesh:
    """A sheet over x, z in [-1, 1] with a raised or sunken motif: coins, tiles, carved panels, moulded boxes."""
    depth, times, (sx, sz) = rng.uniform(0.02, 0.15), rng.uniform(0.3, 1.5), rng.random(2)
    sign = rng.choice([-1, 1])

    def fn(u, v):
        x, z = v * 2 - 1, u * 2 - 1
        h = stamp(rng, (v * times + sx).ravel(), (u * times + sz).ravel()).reshape(x.shape)
        for _ in range(int(rng.integers(0, 5))):  # suns, moons, leaves, faces: domes with rays about them
            cx, cz, r = *rng.uniform(-0.7, 0.7, 2), rng.uniform(0.1, 0.5)
            a, q = np.arctan2(z - cz, x - cx), np.hypot(x - cx, z - cz) / r
            q = q * (1 + rng.uniform(0, 0.4) * np.abs(np.sin(a * rng.integers(0, 9) / 2)))
            dome = np.sqrt(np.maximum(1 - q * q, 0)) ** rng.uniform(0.4, 1.5) * rng.uniform(0.5, 2)
            h = np.where(q < 1, rng.uniform(0, 0.6) * h + dome, h)
        return np.stack([x, sign * h * depth, z], -1)

    return G.surface(n, n, fn)


def lean(m: Mesh, a: float) -> Mesh:
    """Tip the sheet up, in place, by `a` radians: after a quarter turn its upper side faces +z."""
    c, s = np.cos(a), np.sin(a)
    turn = np.array([[1, 0, 0], [0, c, s], [0, -s, c]], f32)
    m.v, m.n = m.v @ turn, m.n @ turn
    return m


def any_of(rng: np.random.Generator) -> Mesh:
    """Usually a sculpture, otherwise a crumpled sheet or a plaque tipped towards +z."""
    k = rng.random()
    return sculpture(rng) if k < 0.6 else lean((crumpled if k < 0.8 else plaque)(rng), rng.uniform(0.4, 1.6))
