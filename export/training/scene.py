"""A scene: meshes with materials, lights and a sky, and the rays that look into it."""

from __future__ import annotations

import numpy as np
from embreex import rtcore_scene
from embreex.mesh_construction import TriangleMesh

from . import kernels as K
from .geometry import BOX, Mesh
from .materials import box_map

f32 = np.float32
EYE3 = np.eye(3, dtype=f32)


class Scene:
    """Meshes with materials; `assets.image(key)` supplies textures when the scene is built."""

    def __init__(self, assets):
        self.assets = assets
        self.parts, self.mats, self.keys = [], [], {}
        self.lights = []  # rows as in kernels.light_rays
        self.env = np.full((2, 4, 3), 0.3, f32)
        self.background = None  # what the camera sees where there is no surface; None: env
        self.yaw = 0.0
        self.embree = None

    def material(self, mat):
        tex = -1 if mat.tex is None else self.keys.setdefault(mat.tex, len(self.keys))
        self.mats.append(mat.row(tex))
        return len(self.mats) - 1

    def add(self, mesh: Mesh, mat=None, rot=EYE3, scale=1.0, pos=(0, 0, 0)):
        """Places a mesh: world = rot @ (scale * v) + pos. mat None keeps the mesh's own materials.

        Returns world vertices.
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

    def box(self, mat, size, pos, rot=EYE3):
        return self.add(BOX, mat, rot, size, pos)

    def sun(self, direction, irradiance, radius=0.01):
        d = np.asarray(direction, float)
        self.lights.append(np.r_[0, d / np.linalg.norm(d), radius, np.broadcast_to(irradiance, 3)])

    def lamp(self, position, power, radius=0.1):
        self.lights.append(np.r_[1, np.asarray(position, float), radius, np.broadcast_to(power, 3)])

    def build(self):
        """Joins everything and builds the ray-tracing tree."""
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
        rows = arena.place({k: (lambda k=k: self.assets.image(k)) for k in self.keys})
        row = np.array([rows[k] for k in self.keys] + [-1])
        self.m[:, K.TEX] = row[self.m[:, K.TEX].astype(int)]
        self.data, self.table, self.levels = arena.data, arena.table, arena.levels
        self.dens = np.empty(len(self.f), f32)
        K.densities(self.v, self.f, self.uv, self.fm, self.m, self.table, self.dens)
        self.has_alpha = bool(self.m[:, K.ALPHA].any())
        self.embree = rtcore_scene.EmbreeScene()
        TriangleMesh(self.embree, self.v, self.f)
        veil = np.concatenate(veil)
        self.shade, self.solid = self.embree, None  # what shadow and bounce rays meet: no lashes, no corneas
        if veil.any():
            self.solid = np.append(np.flatnonzero(~veil), -1).astype(np.int32)
            self.shade = rtcore_scene.EmbreeScene()
            TriangleMesh(self.shade, self.v, np.ascontiguousarray(self.f[~veil]))
        self.rows = np.array(self.lights, f32).reshape(-1, 8)
        self.env = np.ascontiguousarray(self.env, f32)
        return self

    def trace(self, o, d):
        """Nearest opaque hits of rays o + t d: (prim (-1 none), u, v, t)."""
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

    def hit(self, o, d, pixel, bump=False, bounce=False):
        """Traces and looks up: distance, point (lifted off the surface), label normal, shading normal, albedo, X."""
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

    def blocked(self, p, d):
        """>= 0 where the segment p..p+d meets something."""
        return self.shade.run(p, d, dists=np.ones(len(p), f32), query="OCCLUDED")

    def sky(self, d, env=None):
        out = np.empty_like(d)
        K.lookup_env(self.env if env is None else env, f32(self.yaw), np.ascontiguousarray(d), out)
        return out
