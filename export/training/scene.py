"""A scene: meshes with materials, lights and a sky, and the rays that look into it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Optional

import numpy as np
from embreex import rtcore_scene
from embreex.mesh_construction import TriangleMesh
from numpy.typing import ArrayLike

from . import kernels as K
from .geometry import BOX, Mesh
from .materials import Material, box_map

if TYPE_CHECKING:
    from .assets import Library

f32 = np.float32
EYE3 = np.eye(3, dtype=f32)
# A candidate camera: the target (3,), then either the unit direction from it to the eye and the metres that fill the
# picture, or None and the eye itself; last the range of the field of view in degrees.
Shot = tuple[ArrayLike, Optional[np.ndarray], Any, tuple[float, float]]


class Scene:
    """Meshes with materials, lights and a sky. `assets.image(key)` supplies the textures when the scene is built."""

    def __init__(self, assets: Library) -> None:
        self.assets = assets
        self.parts: list[tuple[np.ndarray, ...]] = []  # v, f, n, uv, c, fm and veil of each placed mesh
        self.mats: list[np.ndarray] = []
        self.keys: dict[Any, int] = {}
        self.lights: list[np.ndarray] = []  # rows as in kernels.light_rays
        self.env = np.full((2, 4, 3), 0.3, f32)
        self.background: np.ndarray | None = None  # what the camera sees where there is no surface; None: env
        self.yaw = 0.0
        self.embree: Any = None

    def material(self, mat: Material) -> int:
        """Register a material; returns its index."""
        tex = -1 if mat.tex is None else self.keys.setdefault(mat.tex, len(self.keys))
        self.mats.append(mat.row(tex))
        return len(self.mats) - 1

    def add(
        self,
        mesh: Mesh,
        mat: Material | None = None,
        rot: ArrayLike = EYE3,
        scale: ArrayLike = 1.0,
        pos: ArrayLike = (0, 0, 0),
    ) -> np.ndarray:
        """Place a mesh at world = rot @ (scale * v) + pos; without `mat` it keeps its own materials.

        Returns the world vertices, float32 (V, 3).
        """
        s = np.broadcast_to(np.asarray(scale, f32), 3)
        rot = np.asarray(rot, f32)
        local = mesh.v * s
        world = local @ rot.T + np.asarray(pos, f32)
        n = (mesh.n / s) @ rot.T
        if mat is None:
            ids = np.array([self.material(m) for m in mesh.materials])
            fm, uv = ids[mesh.fm], mesh.uv
        else:
            fm, uv = np.full(len(mesh.f), self.material(mat)), mesh.uv
            if mat.metric or uv is None:
                uv = box_map(local, mesh.f)
            uv = uv * f32(mat.tile)
        if uv is None:
            uv = np.zeros((len(mesh.f), 3, 2), f32)
        c = mesh.c if mesh.c is not None and mat is None else np.full((len(world), 3), 255, np.uint8)
        self.parts.append(
            (
                world.astype(f32),
                mesh.f,
                n.astype(f32),
                uv.astype(f32),
                c,
                fm.astype(np.int32),
                np.zeros(len(mesh.f), bool) if mesh.veil is None or mat is not None else mesh.veil,
            )
        )
        return world

    def box(self, mat: Material, size: ArrayLike, pos: ArrayLike, rot: ArrayLike = EYE3) -> np.ndarray:
        """Place a box of the given size (x, y, z) with its centre at `pos`. Returns the world vertices."""
        return self.add(BOX, mat, rot, size, pos)

    def sun(self, direction: ArrayLike, irradiance: ArrayLike, radius: float = 0.01) -> None:
        """Add a distant light: the direction to it, its linear RGB irradiance and its angular radius in radians."""
        d = np.asarray(direction, float)
        self.lights.append(np.r_[0, d / np.linalg.norm(d), radius, np.broadcast_to(irradiance, 3)])

    def lamp(self, position: ArrayLike, power: ArrayLike, radius: float = 0.1) -> None:
        """Add a glowing ball: position, linear RGB irradiance at 1 m and radius, in metres."""
        self.lights.append(np.r_[1, np.asarray(position, float), radius, np.broadcast_to(power, 3)])

    def build(self) -> Scene:
        """Join everything, in place, and build the ray-tracing tree. Returns the scene."""
        v, f, n, uv, c, fm, veil = zip(*self.parts)
        base = np.cumsum([0] + [len(x) for x in v[:-1]])

        def cat(a, t):
            return np.ascontiguousarray(np.concatenate(a), dtype=t)

        self.v, self.n, self.uv, self.c, self.fm = (
            cat(v, f32),
            cat(n, f32),
            cat(uv, f32),
            cat(c, np.uint8),
            cat(fm, np.int32),
        )
        self.f = cat([x + b for x, b in zip(f, base)], np.int32)
        self.m = np.stack(self.mats).astype(f32)
        arena = self.assets.arena
        rows = arena.place({k: partial(self.assets.image, k) for k in self.keys})
        row = np.array([rows[k] for k in self.keys] + [-1])
        self.m[:, K.TEX] = row[self.m[:, K.TEX].astype(int)]
        self.data, self.table, self.levels = arena.data, arena.table, arena.levels
        self.dens = np.empty(len(self.f), f32)
        K.densities(self.v, self.f, self.uv, self.fm, self.m, self.table, self.dens)
        self.has_alpha = bool(self.m[:, K.ALPHA].any())
        self.embree = rtcore_scene.EmbreeScene()
        TriangleMesh(self.embree, self.v, self.f)
        thin = np.concatenate(veil)
        self.shade: Any = self.embree  # what shadow and bounce rays meet: no lashes, no corneas
        self.solid: np.ndarray | None = None
        if thin.any():
            self.solid = np.append(np.flatnonzero(~thin), -1).astype(np.int32)
            self.shade = rtcore_scene.EmbreeScene()
            TriangleMesh(self.shade, self.v, np.ascontiguousarray(self.f[~thin]))
        self.rows = np.array(self.lights, f32).reshape(-1, 8)
        self.env = np.ascontiguousarray(self.env, f32)
        return self

    def trace(self, o: np.ndarray, d: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Nearest opaque hits of the rays o + t d, both (n, 3) float32: (triangle or -1, u, v, t), each (n,)."""
        r = self.embree.run(o, d, output=True)
        prim, u, v, t = r["primID"], r["u"], r["v"], r["tfar"]
        if self.has_alpha:
            idx, base = np.arange(len(prim)), np.zeros(len(prim), f32)
            pr, uu, vv = prim, u, v
            for _ in range(10):
                go = np.zeros(len(idx), np.uint8)
                K.see_through(pr, uu, vv, self.uv, self.fm, self.m, self.data, self.table, go)
                idx = idx[go > 0]
                if not len(idx):
                    break
                base[idx] = t[idx] * f32(1.0002) + f32(1e-5)
                r = self.embree.run(
                    np.ascontiguousarray(o[idx] + base[idx, None] * d[idx]), np.ascontiguousarray(d[idx]), output=True
                )
                pr, uu, vv = r["primID"], r["u"], r["v"]
                prim[idx], u[idx], v[idx], t[idx] = pr, uu, vv, r["tfar"] + base[idx]
        return prim, u, v, t

    def hit(
        self, o: np.ndarray, d: np.ndarray, pixel: float, bump: bool = False, bounce: bool = False
    ) -> tuple[np.ndarray, ...]:
        """Trace rays and look up what they hit: distance, point (lifted off the surface), label normal, shading normal,
        albedo, and X as in kernels.surface.
        """
        if bounce:
            r = self.shade.run(o, d, output=True)
            prim, u, v, t = r["primID"], r["u"], r["v"], r["tfar"]
            prim = prim if self.solid is None else self.solid[prim]
        else:
            prim, u, v, t = self.trace(o, d)
        k = len(o)
        n, ns, a, x = (np.empty((k, w), f32) for w in (3, 3, 3, 4))
        K.surface(
            prim,
            u,
            v,
            t,
            d,
            self.f,
            self.v,
            self.n,
            self.uv,
            self.c,
            self.fm,
            self.dens,
            self.m,
            self.data,
            self.table,
            self.levels,
            K.LINEAR,
            f32(pixel),
            bump,
            n,
            ns,
            a,
            x,
        )
        t = np.where(prim >= 0, t, 1)[:, None]
        return t[:, 0], o + d * (t * f32(0.9995)) + n * (t * f32(3e-4)), n, ns, a, x

    def blocked(self, p: np.ndarray, d: np.ndarray) -> np.ndarray:
        """(n,) integers: not negative where the segment from p to p + d meets something."""
        return self.shade.run(p, d, dists=np.ones(len(p), f32), query="OCCLUDED")

    def sky(self, d: np.ndarray, env: np.ndarray | None = None) -> np.ndarray:
        """Linear radiance (n, 3) of the sky, or of another such picture, along unit directions d (n, 3)."""
        out = np.empty_like(d)
        K.lookup_env(self.env if env is None else env, f32(self.yaw), np.ascontiguousarray(d), out)
        return out
