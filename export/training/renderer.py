"""Ray-traced pictures with exact geometry labels: Embree for the rays, numba for the shading.

A :class:`Scene` collects meshes, materials, lights and a sky; :func:`render` returns the linear picture and, from a
ray through every pixel's centre (never an average across edges), depth, normals and mask.
"""
from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from embreex import rtcore_scene
from embreex.mesh_construction import TriangleMesh

from . import kernels as K
from .geometry import BOX, Mesh

f32 = np.float32
EYE3 = np.eye(3, dtype=f32)
LUMA = np.array([.2126, .7152, .0722], f32)


@dataclass(frozen=True)
class Material:
    """Colours are linear; `tex` is a texture key of the library.

    mode 'plain' (color), 'mix' (color..color2 by the texture's brightness), 'picture' (texture * color).
    `metric`: box-mapped, `tile` repeats per metre; otherwise the mesh's own coordinates times `tile`.
    """
    color: tuple = (.5, .5, .5)
    color2: tuple = (.5, .5, .5)
    tex: object = None
    mode: str = 'plain'
    tile: float = 1.
    metric: bool = False
    rough: float = .6
    metal: float = 0.
    spec: float = .04
    bump: float = 0.
    emit: float = 0.
    alpha: bool = False

    def but(self, **kw):
        return replace(self, **kw)

    def row(self, tex):
        r = np.zeros(K.NMAT, f32)
        r[:3], r[3:6], r[K.TEX] = self.color, self.color2, tex
        r[K.MODE] = 0 if tex < 0 else {'plain': 0, 'mix': 1, 'picture': 2}[self.mode]
        r[K.ROUGH], r[K.METAL], r[K.SPEC], r[K.BUMP], r[K.EMIT], r[K.ALPHA] = self.rough, self.metal, self.spec, self.bump, self.emit, self.alpha
        return r


class Scene:
    """Meshes with materials; `library.image(key)` supplies textures when the scene is built."""

    def __init__(self, library):
        self.library = library
        self.parts, self.mats, self.keys = [], [], {}
        self.lights = []                    # rows as in kernels.light_rays
        self.env = np.full((2, 4, 3), .3, f32)
        self.background = None              # what the camera sees where there is no surface; None: env
        self.yaw = 0.
        self.embree = None

    def material(self, mat):
        tex = -1 if mat.tex is None else self.keys.setdefault(mat.tex, len(self.keys))
        self.mats.append(mat.row(tex))
        return len(self.mats) - 1

    def add(self, mesh: Mesh, mat=None, rot=EYE3, scale=1., pos=(0, 0, 0)):
        """Places a mesh: world = rot @ (scale * v) + pos. mat None keeps the mesh's own materials. Returns world vertices."""
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
        self.parts.append((world.astype(f32), mesh.f, n.astype(f32), uv.astype(f32), c, fm.astype(np.int32)))
        return world

    def box(self, mat, size, pos, rot=EYE3):
        return self.add(BOX, mat, rot, size, pos)

    def sun(self, direction, irradiance, radius=.01):
        d = np.asarray(direction, float)
        self.lights.append(np.r_[0, d / np.linalg.norm(d), radius, np.broadcast_to(irradiance, 3)])

    def lamp(self, position, power, radius=.1):
        self.lights.append(np.r_[1, np.asarray(position, float), radius, np.broadcast_to(power, 3)])

    def build(self):
        """Joins everything and builds the ray-tracing tree."""
        v, f, n, uv, c, fm = zip(*self.parts)
        base = np.cumsum([0] + [len(x) for x in v[:-1]])
        cat = lambda a, t: np.ascontiguousarray(np.concatenate(a), dtype=t)
        self.v, self.n, self.uv, self.c, self.fm = cat(v, f32), cat(n, f32), cat(uv, f32), cat(c, np.uint8), cat(fm, np.int32)
        self.f = cat([x + b for x, b in zip(f, base)], np.int32)
        self.m = np.stack(self.mats).astype(f32)
        images = [self.library.image(k) for k in self.keys] or [Texture.plain()]
        off = np.cumsum([0] + [len(i.data) for i in images[:-1]])
        self.data = np.concatenate([i.data for i in images])
        self.table = np.stack([i.table + [o, 0, 0] for i, o in zip(images, off)]).astype(np.int64)
        self.levels = np.array([i.levels for i in images], np.int64)
        self.dens = np.empty(len(self.f), f32)
        K.densities(self.v, self.f, self.uv, self.fm, self.m, self.table, self.dens)
        self.has_alpha = bool(self.m[:, K.ALPHA].any())
        self.embree = rtcore_scene.EmbreeScene()
        TriangleMesh(self.embree, self.v, self.f)
        self.rows = np.array(self.lights, f32).reshape(-1, 8)
        self.env = np.ascontiguousarray(self.env, f32)
        return self

    def trace(self, o, d):
        """Nearest opaque hits of rays o + t d: (prim (-1 none), u, v, t)."""
        r = self.embree.run(o, d, output=True)
        prim, u, v, t = r['primID'], r['u'], r['v'], r['tfar']
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
                r = self.embree.run(np.ascontiguousarray(o[idx] + base[idx, None] * d[idx]), np.ascontiguousarray(d[idx]), output=True)
                pr, uu, vv = r['primID'], r['u'], r['v']
                prim[idx], u[idx], v[idx], t[idx] = pr, uu, vv, r['tfar'] + base[idx]
        return prim, u, v, t

    def hit(self, o, d, pixel, bump=False):
        """Traces and looks up: distance, point (lifted off the surface), label normal, shading normal, albedo, X."""
        prim, u, v, t = self.trace(o, d)
        k = len(o)
        n, ns, a, x = (np.empty((k, w), f32) for w in (3, 3, 3, 4))
        K.surface(prim, u, v, t, d, self.f, self.v, self.n, self.uv, self.c, self.fm, self.dens, self.m, self.data, self.table,
                  self.levels, K.LINEAR, f32(pixel), bump, n, ns, a, x)
        t = np.where(prim >= 0, t, 1)[:, None]
        return t[:, 0], o + d * (t * f32(.9995)) + n * (t * f32(3e-4)), n, ns, a, x

    def blocked(self, p, d):
        """>= 0 where the segment p..p+d meets something."""
        return self.embree.run(p, d, dists=np.ones(len(p), f32), query='OCCLUDED')

    def sky(self, d, env=None):
        out = np.empty_like(d)
        K.lookup_env(self.env if env is None else env, f32(self.yaw), np.ascontiguousarray(d), out)
        return out


class Texture:
    """RGBA bytes with a chain of halved copies, flat in memory."""

    def __init__(self, rgba):
        a, parts, off = np.asarray(rgba, np.uint8), [], 0
        self.table = np.zeros((K.LEVELS, 3), np.int64)
        for l in range(K.LEVELS):
            h, w = a.shape[:2]
            self.table[l] = off, h, w
            parts.append(a.ravel())
            off += a.size
            self.levels = l + 1
            if min(h, w) < 4:
                break
            q = a[:h // 2 * 2, :w // 2 * 2].astype(np.uint16)
            a = ((q[::2, ::2] + q[1::2, ::2] + q[::2, 1::2] + q[1::2, 1::2] + 2) >> 2).astype(np.uint8)
        self.data = np.concatenate(parts)

    @classmethod
    def plain(cls):
        return cls(np.full((1, 1, 4), 255, np.uint8))


def box_map(local, f):
    """Texture coordinates (F,3,2) by the dominant axis of each triangle, in the units of `local`."""
    p = local[f]
    axis = np.abs(np.cross(p[:, 1] - p[:, 0], p[:, 2] - p[:, 0])).argmax(1)
    s = np.array([[2, 1], [0, 2], [0, 1]])[axis]
    uv = np.take_along_axis(p, np.repeat(s[:, None], 3, 1), 2)
    uv[..., 1] *= np.where(axis == 1, 1, -1)[:, None]
    return uv.astype(f32)


def look_at(eye, at, roll=0.):
    """Camera rows (right, up, back) looking from eye to at."""
    f = np.asarray(at, float) - eye
    f /= np.linalg.norm(f)
    r = np.cross(f, [0, 1, 0] if abs(f[1]) < .999 else [0, 0, 1])
    r /= np.linalg.norm(r)
    u = np.cross(r, f)
    c, s = np.cos(roll), np.sin(roll)
    return np.stack([c * r + s * u, c * u - s * r, -f]).astype(f32)


def pixel_rays(w, h, eye, cam, focal, step=1):
    """Rays through pixel centres of a (h*step, w*step) grid; focal = fx / width. Returns o, d (unit), forward cosine."""
    x = (((np.arange(w * step) + .5) / (w * step) - .5) / focal).astype(f32)[None, :]
    y = ((.5 - (np.arange(h * step) + .5) / (h * step)) * h / w / focal).astype(f32)[:, None]
    cos = 1 / np.sqrt(x * x + y * y + 1)
    d = np.empty((*cos.shape, 3), f32)
    for k in range(3):
        d[..., k] = (x * cam[0, k] + y * cam[1, k] - cam[2, k]) * cos
    d = d.reshape(-1, 3)
    return np.ascontiguousarray(np.broadcast_to(np.asarray(eye, f32), d.shape)), d, cos.ravel()


def _direct(s, p, n, view, x, rng, reps):
    """Light that arrives from the lights: sharp and soft diffuse irradiance, highlights."""
    hard, soft, gloss = (np.zeros_like(p) for _ in range(3))
    for k, row in enumerate(s.rows):
        size = row[4] if row[0] == 0 else row[4] / max(1e-6, np.median(np.linalg.norm(p[::97] - row[1:4], axis=1)))
        sharp = size < .012
        for _ in range(1 if sharp else reps):
            d, c, idx = np.empty_like(p), np.empty_like(p), np.empty(len(p), np.int64)
            idx = idx[:K.light_rays(p, n, s.rows, np.array([k]), int(rng.integers(1 << 30)), d, c, idx)]
            if len(idx):
                b = s.blocked(np.ascontiguousarray(p[idx]), np.ascontiguousarray(d[idx]))
                K.add_light(idx, b, d, c, view, n, x, f32(1 if sharp else 1 / reps), hard if sharp else soft, gloss)
    return hard, soft, gloss


def _radiance(s, o, d, ambient, rng):
    """Light that comes back along rays: sky, glowing things, and one bounce lit by one light and an ambient term."""
    t, p, n, _, a, x = s.hit(o, d, .02)
    miss = x[:, 0] < 0
    out = a * ambient
    if len(s.rows):
        which = rng.integers(0, len(s.rows), len(p))
        dd, c, idx = np.empty_like(p), np.empty_like(p), np.empty(len(p), np.int64)
        idx = idx[:K.light_rays(p, n, s.rows, which if len(which) > 1 else np.array([0]), int(rng.integers(1 << 30)), dd, c, idx)]
        if len(idx):
            idx = idx[s.blocked(np.ascontiguousarray(p[idx]), np.ascontiguousarray(dd[idx])) < 0]
            out[idx] += c[idx] * a[idx] * f32(len(s.rows) / np.pi)
    out += a * s.m[np.maximum(x[:, 0], 0).astype(int), K.EMIT][:, None]
    if miss.any():
        out[miss] = s.sky(d[miss])
    return out


def render(s, eye, cam, focal, rng, w=288, h=None, gather=6, soft=2):
    """Renders one view of a built scene.

    Returns dict: rgb (2h,2w,3) float32 linear sub-samples, depth (h,w) float32 z (0 where no surface),
    normal (h,w,3) float32 in camera axes (0 where no surface), mask (h,w) bool.
    """
    h = h or w
    even = lambda a: np.ascontiguousarray(a.reshape(h, w, -1)[::2, ::2])
    pixel = 1 / (w * focal)
    o, d, cos = pixel_rays(w, h, eye, cam, focal)
    t, p, nl, n, a, x = s.hit(o, d, pixel, True)
    z = np.where(x[:, 0] >= 0, t * cos, 0).astype(f32)
    o2, d2, cos2 = pixel_rays(w, h, eye, cam, focal, 2)
    t2, _, n2, _, a2, x2 = s.hit(o2, d2, pixel / 2)
    ids, ids2 = x[:, 0].astype(np.int32).reshape(h, w), x2[:, 0].astype(np.int32).reshape(2 * h, 2 * w)
    on = np.flatnonzero(x[:, 0] >= 0)
    light = np.zeros((h * w, 9), f32)              # hard, soft, glossy
    nl3, z2 = nl.reshape(h, w, 3), z.reshape(h, w)
    if len(on):
        q, view, nn, xx = (np.ascontiguousarray(b[on]) for b in (p, d, n, x))
        hard, smooth_, gloss = _direct(s, q, nn, view, xx, rng, soft)
        open_sky = s.env.mean((0, 1)) * .2
        ambient = (.3 * (hard + smooth_).mean(0) / np.pi + open_sky).astype(f32)
        g = np.flatnonzero((xx[:, 2] > 0) | ((xx[:, 3] > 0) & (xx[:, 1] < .6)))
        if len(g):
            r = view[g] - 2 * (view[g] * nn[g]).sum(1, keepdims=True) * nn[g] + rng.standard_normal((len(g), 3), f32) * (xx[g, 1:2] ** 2 * f32(.55))
            bad = (r * nn[g]).sum(1) < .01
            r[bad] = nn[g][bad]
            r /= np.linalg.norm(r, axis=1, keepdims=True)
            rad = _radiance(s, np.ascontiguousarray(q[g]), np.ascontiguousarray(r, dtype=f32), ambient, rng)
            bright = np.maximum(rad @ LUMA, 1e-6)      # rough reflections average a lobe: one sample must not outshine it
            cap = np.where(xx[g, 1] < .2, 30, 1.5 / np.maximum(xx[g, 1], .2) ** 2 * (bright.mean() * .5 + .05)).astype(f32)
            gloss[g] += rad * np.minimum(1, cap / bright)[:, None]
        light[on] = np.concatenate([hard, smooth_, gloss], 1)
        # indirect light at half resolution
        eh, ew = (h + 1) // 2, (w + 1) // 2
        idg = np.ascontiguousarray(ids[::2, ::2])
        on4 = np.flatnonzero(idg.ravel() >= 0)
        ind = np.zeros((eh * ew, 3), f32)
        if len(on4):
            p4, n4 = even(p).reshape(-1, 3)[on4], even(n).reshape(-1, 3)[on4]
            dd = np.empty((len(on4) * gather, 3), f32)
            K.cosine_rays(n4, gather, int(rng.integers(1 << 30)), dd)
            rad = _radiance(s, np.repeat(p4, gather, 0), dd, ambient, rng)
            rad = np.minimum(rad, 20 * np.median(rad[::17] @ LUMA) + .5)
            ind[on4] = np.pi * rad.reshape(-1, gather, 3).mean(1)
        ind, ng, zg = ind.reshape(eh, ew, 3), even(nl), even(z)[..., 0]
        ind = _filter(ind, ng, zg, idg, (1, 2, 4))
        up = np.empty((h, w, 3), f32)
        K.upsample(ind, ng, zg, idg, nl3, z2, ids, True, up)
        sm = _filter(np.ascontiguousarray(light[:, 3:].reshape(h, w, 6)), nl3, z2, ids, (1, 2, 3))
        light = np.concatenate([light[:, :3].reshape(h, w, 3) + sm[..., :3] + up, sm[..., 3:]], -1)
    else:
        light = np.zeros((h, w, 6), f32)
    u = np.empty((2 * h, 2 * w, 6), f32)
    K.upsample(light, nl3, z2, ids, n2.reshape(2 * h, 2 * w, 3), (t2 * cos2).reshape(2 * h, 2 * w), ids2, False, u)
    rgb = np.zeros((4 * h * w, 3), f32)
    K.compose(ids2.ravel(), a2, x2, n2, d2, u.reshape(-1, 6), s.m, rgb)
    miss = ids2.ravel() < 0
    if miss.any():
        rgb[miss] = s.sky(d2[miss], s.background)
    return {'rgb': np.nan_to_num(rgb, posinf=100).reshape(2 * h, 2 * w, 3), 'depth': z2, 'mask': ids >= 0,
            'normal': np.where((ids >= 0)[..., None], nl3 @ cam.T, 0).astype(f32)}


def _filter(e, n, z, m, steps):
    for k in steps:
        out = np.empty_like(e)
        K.atrous(e, n, z, m, k, out)
        e = out
    return e
