"""Procedural triangle meshes for the scene generator.

Every builder returns a :class:`Mesh`: right-handed, +Y up, triangles counter-clockwise seen from outside, texture
coordinates per triangle corner (u right, v down, repeating with period 1).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Callable, Iterable

import numpy as np
from numpy.typing import ArrayLike
from scipy.interpolate import PchipInterpolator
from scipy.spatial import ConvexHull

if TYPE_CHECKING:
    from .materials import Material

f32 = np.float32


def vector(values: ArrayLike) -> np.ndarray:
    """The values as a float32 array."""
    return np.array(values, f32)


@dataclass
class Mesh:
    """Triangles with smooth normals, optional corner texture coordinates, vertex colours and materials."""

    v: np.ndarray  # (V,3) float32
    f: np.ndarray  # (F,3) int32
    n: np.ndarray  # (V,3) float32 unit shading normals
    uv: np.ndarray | None = None  # (F,3,2) float32 or None: the scene box-maps it
    c: np.ndarray | None = None  # (V,3) uint8 sRGB vertex colours or None
    fm: np.ndarray | None = None  # (F,) int, index into materials
    materials: list[Material] = field(default_factory=list)
    scale: float = 1.0  # metres per unit
    veil: np.ndarray | None = (
        None  # (F,) bool, True for mostly transparent triangles, which cast no shadow; None: there are none
    )
    head: np.ndarray | None = None  # (3,) mid-head of people, in the mesh's own units
    forward: np.ndarray | None = None  # (3,) where that head looks


def vertex_normals(v: np.ndarray, f: np.ndarray) -> np.ndarray:
    """Area-weighted smooth normals, float32 (V, 3), of vertices v (V, 3) and triangles f (F, 3)."""
    fn = np.cross(v[f[:, 1]] - v[f[:, 0]], v[f[:, 2]] - v[f[:, 0]])
    n = np.empty((len(v), 3))
    idx = f.ravel()
    for k in range(3):
        n[:, k] = np.bincount(idx, np.repeat(fn[:, k], 3), minlength=len(v))
    return (n / (np.linalg.norm(n, axis=1, keepdims=True) + 1e-20)).astype(f32)


def flat(v: ArrayLike, f: ArrayLike, uv: np.ndarray | None = None) -> Mesh:
    """A mesh with one normal per triangle (hard edges), wound as given."""
    v, f = np.asarray(v, f32), np.asarray(f, np.int32)
    p = v[f]
    n = np.cross(p[:, 1] - p[:, 0], p[:, 2] - p[:, 0])
    n /= np.linalg.norm(n, axis=1, keepdims=True) + 1e-12
    return Mesh(
        p.reshape(-1, 3), np.arange(3 * len(f), dtype=np.int32).reshape(-1, 3), np.repeat(n, 3, 0).astype(f32), uv
    )


def smooth(v: ArrayLike, f: ArrayLike, uv: np.ndarray | None = None) -> Mesh:
    """A mesh with smooth normals from vertices (V, 3) and triangles (F, 3)."""
    v, f = np.ascontiguousarray(v, f32), np.ascontiguousarray(f, np.int32)
    return Mesh(v, f, vertex_normals(v, f), uv)


def box() -> Mesh:
    """A unit cube centred on the origin, each face with the whole texture upright."""
    v: list[np.ndarray] = []
    f: list[list[int]] = []
    uv: list[list[list[int]]] = []
    for right, up in (
        ((1, 0, 0), (0, 1, 0)),
        ((-1, 0, 0), (0, 1, 0)),
        ((0, 0, -1), (0, 1, 0)),
        ((0, 0, 1), (0, 1, 0)),
        ((1, 0, 0), (0, 0, -1)),
        ((1, 0, 0), (0, 0, 1)),
    ):
        r, u = np.array(right, float), np.array(up, float)
        o = np.cross(r, u)
        k = len(v)
        v += [(o - r - u) / 2, (o + r - u) / 2, (o + r + u) / 2, (o - r + u) / 2]
        f += [[k, k + 1, k + 2], [k, k + 2, k + 3]]
        uv += [[[0, 1], [1, 1], [1, 0]], [[0, 1], [1, 0], [0, 0]]]
    return flat(v, f, np.array(uv, f32))


BOX = box()


def surface(n: int, m: int, fn: Callable[[np.ndarray, np.ndarray], np.ndarray], closed: bool = False) -> Mesh:
    """A grid surface: fn(u, v) -> (n, m, 3) for u, v in [0, 1]; `closed` joins the normals along the seam in v."""
    u, v = np.meshgrid(np.linspace(0, 1, n), np.linspace(0, 1, m), indexing="ij")
    p = np.asarray(fn(u, v), f32)
    i = np.arange(n * m).reshape(n, m)[:-1, :-1].ravel()
    f = np.concatenate([np.stack([i, i + m, i + 1], 1), np.stack([i + 1, i + m, i + m + 1], 1)]).astype(np.int32)
    t = np.stack([v, u], -1).reshape(-1, 2).astype(f32)
    mesh = smooth(p.reshape(-1, 3), f, t[f])
    if closed:
        g = mesh.n.reshape(n, m, 3)
        s = g[:, 0] + g[:, -1]
        s /= np.linalg.norm(s, axis=1, keepdims=True) + 1e-12
        g[:, 0] = g[:, -1] = s
    return mesh


def outward(mesh: Mesh, centre: np.ndarray | None = None) -> Mesh:
    """Turn the mesh inside out, in place, when its normals face the centre (or the matching points of `centre`)."""
    c = mesh.v.mean(0) if centre is None else centre
    if np.sum(mesh.n * (mesh.v - c)) < 0:
        mesh.n = -mesh.n
        mesh.f = np.ascontiguousarray(mesh.f[:, ::-1])
        mesh.uv = None if mesh.uv is None else np.ascontiguousarray(mesh.uv[:, ::-1])
    return mesh


def _power(x: np.ndarray, e: float) -> np.ndarray:
    return np.sign(x) * np.abs(x) ** e


def superquadric(rng: np.random.Generator, e1: float | None = None, e2: float | None = None, n: int = 40) -> Mesh:
    """Anything between a box, a cylinder, a ball and a spindle, with radius 1 along each axis."""
    e1 = e1 or rng.choice([0.12, 0.2, 0.35, 0.6, 1, 1, 1.6])
    e2 = e2 or rng.choice([0.12, 0.2, 0.35, 0.6, 1, 1, 1.6])

    def fn(u, v):
        a, b = (0.5 - u) * np.pi, (v * 2 - 1) * np.pi
        return np.stack(
            [
                _power(np.cos(a), e1) * _power(np.cos(b), e2),
                _power(np.sin(a), e1),
                -_power(np.cos(a), e1) * _power(np.sin(b), e2),
            ],
            -1,
        )

    return outward(surface(n, n, fn, True))


def sphere(n: int = 40) -> Mesh:
    """A unit ball on a grid of n x n vertices."""
    return superquadric(np.random.default_rng(0), 1.0, 1.0, n)


def cylinder(r: float = 0.5, h: float = 1.0, r2: float | None = None, n: int = 28) -> Mesh:
    """An upright, capped cylinder or frustum with hard rims, radius r at the bottom and r2 at the top."""
    r2 = r if r2 is None else r2
    slope = (r - r2) / max(h, 1e-6)
    a = np.linspace(0, 2 * np.pi, n + 1)
    c, s = np.cos(a), np.sin(a)
    side = np.concatenate(
        [np.stack([c * r, np.full(n + 1, -h / 2), -s * r], 1), np.stack([c * r2, np.full(n + 1, h / 2), -s * r2], 1)]
    )
    nn = np.stack([c, np.full(n + 1, slope), -s], 1)
    nn /= np.linalg.norm(nn, axis=1, keepdims=True)
    i = np.arange(n)
    faces = [np.stack([i, i + 1, i + n + 1], 1), np.stack([i + 1, i + n + 2, i + n + 1], 1)]
    t = np.concatenate(
        [np.stack([a / (2 * np.pi), np.ones(n + 1)], 1), np.stack([a / (2 * np.pi), np.zeros(n + 1)], 1)]
    )
    v, nrm, base = [side], [nn, nn], 2 * n + 2
    for y, rr, d in ((-h / 2, r, -1), (h / 2, r2, 1)):
        v.append(np.concatenate([np.stack([c * rr, np.full(n + 1, y), -s * rr], 1), [[0, y, 0]]]))
        nrm.append(np.tile([[0, d, 0.0]], (n + 2, 1)))
        tri = np.stack([base + i, base + i + 1, np.full(n, base + n + 1)], 1)
        faces.append(tri if d > 0 else tri[:, ::-1])
        t = np.concatenate([t, np.stack([c, s], 1) / 2 + 0.5, [[0.5, 0.5]]])
        base += n + 2
    f = np.concatenate(faces).astype(np.int32)
    return Mesh(np.concatenate(v).astype(f32), f, np.concatenate(nrm).astype(f32), t.astype(f32)[f])


def lathe(rng: np.random.Generator) -> Mesh:
    """Turned things: bottles, vases, cups, bowls and table legs, half of them hollow."""
    k = int(rng.integers(4, 9))
    y, r = np.linspace(0, 1, k), np.abs(rng.normal(0.5, 0.22, k)) + 0.08
    kind = rng.random()
    if kind < 0.3:
        r = rng.uniform(0.3, 0.6) + rng.normal(0, 0.02, k)
    elif kind < 0.5:
        y, r = np.array([0, 0.6, 0.75, 1]), np.array([0.5, 0.5, 0.18, 0.16]) * rng.uniform(0.8, 1.2)
    elif kind < 0.7:
        y, r = np.array([0, 0.5, 1]), np.array([0.25, 0.4, 0.7])
    yy = np.linspace(0, 1, 48)
    rr = np.maximum(PchipInterpolator(y, r)(yy), 0.03)
    h = rng.uniform(0.6, 2.2)
    prof = np.stack([np.r_[1e-3, rr], np.r_[0, yy * h]], 1)
    if rng.random() < 0.5:
        w = rng.uniform(0.03, 0.08)
        inner = np.stack([np.maximum(rr[::-1] - w, 1e-3), np.maximum(yy[::-1] * h * 0.999, h * 0.04)], 1)
        prof = np.concatenate([prof, inner, [[1e-3, h * 0.04]]])
    else:
        prof = np.concatenate([prof, [[1e-3, h]]])

    def fn(u, v):
        i = u * (len(prof) - 1)
        rad = np.interp(i, np.arange(len(prof)), prof[:, 0])
        a = v * 2 * np.pi
        return np.stack([rad * np.cos(a), np.interp(i, np.arange(len(prof)), prof[:, 1]) - h / 2, rad * np.sin(a)], -1)

    m = surface(len(prof), 40, fn, True)
    m.uv = m.uv * vector([1, -1])
    return m


def waves(rng: np.random.Generator, p: np.ndarray, amp: float, freqs: Iterable[float], n: int = 5) -> np.ndarray:
    """A sum of random sines at the points p (V, 3), with standard deviation `amp`: (V,) float32."""
    d = np.zeros(len(p), f32)
    for q in freqs:
        for _ in range(n):
            d += np.sin(p @ (rng.normal(size=3) * q).astype(f32) + f32(rng.uniform(0, 6.28))) / f32(q)
    return amp * d / (d.std() + 1e-9)


def blob(rng: np.random.Generator, n: int = 56, amp: float | None = None) -> Mesh:
    """A lumpy ball: potatoes, stones, cushions."""
    m = sphere(n)
    fr = [rng.uniform(0.8, 2.0), rng.uniform(2, 4)] + ([rng.uniform(5, 12)] if rng.random() < 0.5 else [])
    v = m.v * (1 + waves(rng, m.v, amp or rng.uniform(0.03, 0.2), fr))[:, None] * rng.uniform(0.55, 1.2, 3).astype(f32)
    k = smooth(v, m.f, m.uv)
    g = k.n.reshape(n, n, 3)
    s = g[:, 0] + g[:, -1]
    g[:, 0] = g[:, -1] = s / (np.linalg.norm(s, axis=1, keepdims=True) + 1e-12)
    return k


def rock(rng: np.random.Generator) -> Mesh:
    """The convex hull of random points, with hard edges."""
    p = rng.normal(size=(int(rng.integers(10, 40)), 3))
    p /= np.linalg.norm(p, axis=1, keepdims=True)
    p *= rng.uniform(0.7, 1.1, (len(p), 1)) * rng.uniform(0.5, 1.2, 3)
    f = ConvexHull(p).simplices.copy()
    q = p[f]
    bad = (np.cross(q[:, 1] - q[:, 0], q[:, 2] - q[:, 0]) * (q.mean(1) - p.mean(0))).sum(1) < 0
    f[bad] = f[bad][:, ::-1]
    return flat(p, f)


def prism(rng: np.random.Generator) -> Mesh:
    """An extruded polygon or star, upright."""
    n = int(rng.integers(3, 11))
    a = np.sort(rng.uniform(0, 2 * np.pi, n)) if rng.random() < 0.4 else np.linspace(0, 2 * np.pi, n + 1)[:-1]
    r = rng.uniform(0.5, 1, n) if rng.random() < 0.5 else np.where(np.arange(n) % 2, 1, rng.uniform(0.4, 1))
    h = rng.uniform(0.1, 1.5)
    ring = [[np.cos(x) * q, -np.sin(x) * q] for x, q in zip(a, r)]
    v = [[x, y, z] for y in (-h / 2, h / 2) for x, z in [*ring, [0, 0]]]
    f = []
    for i in range(n):
        j, k = (i + 1) % n, n + 1
        f += [[j, i, n], [k + i, k + j, k + n], [i, j, k + i], [j, k + j, k + i]]
    return flat(v, f)


def tube(rng: np.random.Generator, closed: bool | None = None) -> Mesh:
    """Bent tubes, handles, rings and branches."""
    n, m = 60, 18
    t = np.linspace(0, 1, n)
    closed = rng.random() < 0.4 if closed is None else closed
    if closed:
        c = np.stack(
            [
                np.cos(2 * np.pi * t),
                np.sin(2 * np.pi * t) * rng.uniform(0.5, 1),
                0.15 * np.sin(4 * np.pi * t) * rng.random(),
            ],
            1,
        )
    else:
        k, ph = rng.normal(size=(3, 3)) * [[1], [0.6], [0.3]], rng.uniform(0, 6.28, (3, 3))
        c = sum(k[i] * np.sin((i + 1) * np.pi * t[:, None] * 0.8 + ph[i]) for i in range(3))
    d = np.gradient(c, axis=0)
    d /= np.linalg.norm(d, axis=1, keepdims=True) + 1e-9
    a = np.cross(d, rng.normal(size=3))
    a /= np.linalg.norm(a, axis=1, keepdims=True) + 1e-9
    b = np.cross(d, a)
    r = rng.uniform(0.06, 0.3) * (np.ones(n) if closed else np.linspace(1, rng.uniform(0.2, 1), n))

    def fn(u, v):
        i, w = np.rint(u * (n - 1)).astype(int), (v * 2 * np.pi)[..., None]
        return c[i] + r[i][..., None] * (np.cos(w) * a[i] + np.sin(w) * b[i])

    return outward(surface(n, m, fn, True), np.repeat(c, m, 0).astype(f32))


def heights(
    rng: np.random.Generator, x: np.ndarray, y: np.ndarray, amp: float, freqs: Iterable[float] = (1.5, 3, 6, 12)
) -> np.ndarray:
    """Random folds and waves over (x, y) in [-1, 1], with zero mean and standard deviation `amp`, in the shape of x."""
    p = np.stack([x, y], -1).reshape(-1, 2)
    h = np.zeros(len(p))
    for q in freqs:
        for _ in range(3):
            s = np.sin(p @ (rng.normal(size=2) * q) + rng.uniform(0, 6.28))
            h += (1 - np.abs(s)) / q if rng.random() < 0.5 else s / q
    return ((h - h.mean()) / (h.std() + 1e-9) * amp).reshape(x.shape)


def cloth(
    rng: np.random.Generator, n: int = 90, amp: float | None = None, freqs: Iterable[float] = (1.5, 3, 6, 12)
) -> Mesh:
    """A folded sheet over x, z in [-1, 1], its heights along y."""
    amp = rng.uniform(0.02, 0.14) if amp is None else amp
    return surface(
        n, n, lambda u, v: np.stack([v * 2 - 1, heights(rng, v * 2 - 1, u * 2 - 1, amp, freqs), u * 2 - 1], -1)
    )


def relief(height: np.ndarray, depth: float, nx: int = 200) -> Mesh:
    """A sheet over x, z in [-1, 1], really displaced along y by a height map (h, w) in 0..1 times `depth`."""
    h, w = height.shape

    def fn(u, v):
        i, j = np.minimum((u * h).astype(int), h - 1), np.minimum((v * w).astype(int), w - 1)
        return np.stack([v * 2 - 1, (height[i, j] - 0.5) * depth, u * 2 - 1], -1)

    return surface(nx, nx, fn)


def drape(rng: np.random.Generator, n: int = 80) -> Mesh:
    """A hanging curtain in the x-y plane, y in [-1, 1], whose folds gather towards the top."""
    k, ph = rng.uniform(8, 30), rng.uniform(0, 6.28, 4)
    a = rng.uniform(0.03, 0.12)

    def fn(u, v):
        x, y = v * 2 - 1, 1 - u * 2
        z = (
            a
            * (np.sin(k * x + ph[0] + 0.8 * np.sin(2 * y + ph[1])) + 0.5 * np.sin(k * 0.37 * x + ph[2] + y))
            * (0.6 + 0.4 * u)
        )
        return np.stack([x, y, z], -1)

    return surface(n, n, fn)


def foliage(rng: np.random.Generator, n: int | None = None) -> Mesh:
    """A cloud of leaf cards in the unit ball."""
    n = int(n or rng.integers(300, 1200))
    c = rng.normal(size=(n, 3))
    c /= np.linalg.norm(c, axis=1, keepdims=True)
    c *= rng.uniform(0.6, 1, (n, 1)) * (1 + 0.25 * np.sin(c @ rng.normal(size=3) * 4)[:, None])
    a, b = rng.normal(size=(2, n, 3))
    a /= np.linalg.norm(a, axis=1, keepdims=True)
    b = np.cross(a, b)
    b /= np.linalg.norm(b, axis=1, keepdims=True) + 1e-9
    s = rng.uniform(0.05, 0.16)
    w = s * rng.uniform(0.3, 0.8)
    v = np.stack([c - a * s, c - b * w, c + a * s, c + b * w], 1).reshape(-1, 3)
    i = np.arange(n) * 4
    return flat(v, np.concatenate([np.stack([i, i + 1, i + 2], 1), np.stack([i, i + 2, i + 3], 1)]))
