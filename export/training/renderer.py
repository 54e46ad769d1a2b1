"""Ray-traced pictures with exact geometry labels: Embree for the rays, numba for the shading."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from . import denoise as D
from . import kernels as K
from .scene import Scene

f32 = np.float32
LUMA = np.array([0.2126, 0.7152, 0.0722], f32)


def look_at(eye: ArrayLike, at: ArrayLike, roll: float = 0.0) -> np.ndarray:
    """The camera's rows (right, up, back), float32 (3, 3), looking from `eye` to `at`; `roll` is in radians."""
    f = np.asarray(at, float) - eye
    f /= np.linalg.norm(f)
    r = np.cross(f, [0, 1, 0] if abs(f[1]) < 0.999 else [0, 0, 1])
    r /= np.linalg.norm(r)
    u = np.cross(r, f)
    c, s = np.cos(roll), np.sin(roll)
    return np.stack([c * r + s * u, c * u - s * r, -f]).astype(f32)


def pixel_rays(
    w: int, h: int, eye: np.ndarray, cam: np.ndarray, focal: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rays through the pixel centres: origins and unit directions (h*w, 3), and the cosine to the view axis (h*w,).

    focal = fx / width.
    """
    x = (((np.arange(w) + 0.5) / w - 0.5) / focal).astype(f32)[None, :]
    y = ((0.5 - (np.arange(h) + 0.5) / h) * h / w / focal).astype(f32)[:, None]
    cos = 1 / np.sqrt(x * x + y * y + 1)
    d = np.empty((*cos.shape, 3), f32)
    for k in range(3):
        d[..., k] = (x * cam[0, k] + y * cam[1, k] - cam[2, k]) * cos
    d = d.reshape(-1, 3)
    return np.ascontiguousarray(np.broadcast_to(np.asarray(eye, f32), d.shape)), d, cos.ravel()


def _direct(
    s: Scene, p: np.ndarray, n: np.ndarray, view: np.ndarray, x: np.ndarray, rng: np.random.Generator, reps: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Light that arrives from the lights: sharp diffuse irradiance, soft diffuse irradiance, and highlights, each (n,
    3).
    """
    hard, soft, gloss = (np.zeros_like(p) for _ in range(3))
    for k, row in enumerate(s.rows):
        size = row[4] if row[0] == 0 else row[4] / max(1e-6, np.median(np.linalg.norm(p[::97] - row[1:4], axis=1)))
        sharp = size < 0.012
        for _ in range(1 if sharp else reps):
            d, c, idx = np.empty_like(p), np.empty_like(p), np.empty(len(p), np.int64)
            idx = idx[: K.light_rays(p, n, s.rows, np.array([k]), int(rng.integers(1 << 30)), d, c, idx)]
            if len(idx):
                b = s.blocked(np.ascontiguousarray(p[idx]), np.ascontiguousarray(d[idx]))
                K.add_light(idx, b, d, c, view, n, x, f32(1 if sharp else 1 / reps), hard if sharp else soft, gloss)
    return hard, soft, gloss


def _radiance(s: Scene, o: np.ndarray, d: np.ndarray, ambient: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Light that comes back along rays: sky, glowing things, and one bounce lit by one light and an ambient term."""
    _, p, n, _, a, x = s.hit(o, d, 0.02, bounce=True)
    miss = x[:, 0] < 0
    out = a * ambient
    if len(s.rows):
        which = rng.integers(0, len(s.rows), len(p))
        dd, c, idx = np.empty_like(p), np.empty_like(p), np.empty(len(p), np.int64)
        idx = idx[
            : K.light_rays(
                p, n, s.rows, which if len(which) > 1 else np.array([0]), int(rng.integers(1 << 30)), dd, c, idx
            )
        ]
        if len(idx):
            idx = idx[s.blocked(np.ascontiguousarray(p[idx]), np.ascontiguousarray(dd[idx])) < 0]
            out[idx] += c[idx] * a[idx] * f32(len(s.rows) / np.pi)
    out += a * s.m[np.maximum(x[:, 0], 0).astype(int), K.EMIT][:, None]
    if miss.any():
        out[miss] = s.sky(d[miss])
    return out


def render(
    s: Scene,
    eye: np.ndarray,
    cam: np.ndarray,
    focal: float,
    rng: np.random.Generator,
    w: int = 288,
    h: int | None = None,
    gather: int = 6,
    soft: int = 2,
) -> dict[str, np.ndarray]:
    """Render one view of a built scene.

    Every pixel gets a ray through its centre, which also gives the labels; pixels on edges get four more for their
    colour. Returns a dict: rgb (h, w, 3) float32 linear; depth (h, w) float32, z in metres, 0 where there is no
    surface; normal (h, w, 3) float32 in camera axes, 0 where there is no surface; mask (h, w) bool.
    """
    h = h or w
    pixel = 1 / (w * focal)
    o, d, cos = pixel_rays(w, h, eye, cam, focal)
    t, p, nl, n, a, x = s.hit(o, d, pixel, True)
    z = np.where(x[:, 0] >= 0, t * cos, 0).astype(f32).reshape(h, w)
    ids, nl3 = x[:, 0].astype(np.int32).reshape(h, w), nl.reshape(h, w, 3)
    on = np.flatnonzero(ids.ravel() >= 0)
    light = _light(s, p, d, n, nl3, z, x, ids, on, rng, gather, soft) if len(on) else np.zeros((h, w, 6), f32)
    rgb = np.zeros((h * w, 3), f32)
    K.compose(a, x, nl, d, light.reshape(-1, 6), s.m, rgb)
    _fill_sky(s, rgb, d, x)
    edge = np.zeros((h, w), np.uint8)
    D.edges(ids, z, nl3, edge)
    e = np.flatnonzero(edge)
    if len(e):  # four sub-samples
        ys, xs = (q.repeat(4) for q in np.divmod(e, w))
        sx, sy = np.tile([-0.25, 0.25, -0.25, 0.25], len(e)), np.tile([-0.25, -0.25, 0.25, 0.25], len(e))
        gx, gy = ((xs + 0.5 + sx) / w - 0.5) / focal, (0.5 - (ys + 0.5 + sy) / h) * h / w / focal
        d2 = np.stack([gx, gy, -np.ones_like(gx)], 1)
        cos2 = 1 / np.linalg.norm(d2, axis=1)
        d2 = np.ascontiguousarray((d2 * cos2[:, None]) @ cam, dtype=f32)
        t2, _, n2, _, a2, x2 = s.hit(
            np.ascontiguousarray(np.broadcast_to(np.asarray(eye, f32), d2.shape)), d2, pixel / 2
        )
        u, sub = np.empty((len(d2), 6), f32), np.zeros((len(d2), 3), f32)
        D.resample(light, nl3, z, ids, ys, xs, n2, (t2 * cos2).astype(f32), x2, u)
        K.compose(a2, x2, n2, d2, u, s.m, sub)
        _fill_sky(s, sub, d2, x2)
        cap = 8 * max(float((rgb[::7] @ LUMA).mean()), 1e-6)  # so that a glint does not flood an edge pixel
        rgb[e] = np.minimum(sub, np.maximum(cap, rgb[e].max(1).repeat(4))[:, None]).reshape(-1, 4, 3).mean(1)
    return {
        "rgb": np.nan_to_num(rgb, posinf=100).reshape(h, w, 3),
        "depth": z,
        "mask": ids >= 0,
        "normal": np.where((ids >= 0)[..., None], nl3 @ cam.T, 0).astype(f32),
    }


def _fill_sky(s: Scene, rgb: np.ndarray, d: np.ndarray, x: np.ndarray) -> None:
    miss = np.flatnonzero(x[:, 0] < 0)
    if len(miss):
        rgb[miss] = s.sky(d[miss], s.background)


def _light(
    s: Scene,
    p: np.ndarray,
    d: np.ndarray,
    n: np.ndarray,
    nl: np.ndarray,
    z: np.ndarray,
    x: np.ndarray,
    ids: np.ndarray,
    on: np.ndarray,
    rng: np.random.Generator,
    gather: int,
    soft: int,
) -> np.ndarray:
    """Denoised light at the pixel centres, (h, w, 6): irradiance and reflected radiance."""
    h, w = ids.shape
    light = np.zeros((h * w, 9), f32)  # sharp, soft, glossy
    q, view, nn, xx = (np.ascontiguousarray(b[on]) for b in (p, d, n, x))
    hard, smooth, gloss = _direct(s, q, nn, view, xx, rng, soft)
    ambient = (0.3 * (hard + smooth).mean(0) / np.pi + s.env.mean((0, 1)) * 0.2).astype(f32)
    g = np.flatnonzero((xx[:, 2] > 0) | ((xx[:, 3] > 0) & (xx[:, 1] < 0.6)))
    if len(g):
        r = (
            view[g]
            - 2 * (view[g] * nn[g]).sum(1, keepdims=True) * nn[g]
            + rng.standard_normal((len(g), 3), f32) * (xx[g, 1:2] ** 2 * f32(0.55))
        )
        bad = (r * nn[g]).sum(1) < 0.01
        r[bad] = nn[g][bad]
        r /= np.linalg.norm(r, axis=1, keepdims=True)
        rad = _radiance(s, np.ascontiguousarray(q[g]), np.ascontiguousarray(r, dtype=f32), ambient, rng)
        bright = np.maximum(rad @ LUMA, 1e-6)  # a rough reflection averages a lobe, which one sample must not outshine
        cap = np.where(xx[g, 1] < 0.2, 30, 1.5 / np.maximum(xx[g, 1], 0.2) ** 2 * (bright.mean() * 0.5 + 0.05)).astype(
            f32
        )
        gloss[g] += rad * np.minimum(1, cap / bright)[:, None]
    light[on] = np.concatenate([hard, smooth, gloss], 1)
    light = light.reshape(h, w, 9)

    def half(a):
        return np.ascontiguousarray(a[::2, ::2])  # indirect light at half resolution

    idh, nh, zh, n3 = half(ids), half(nl), half(z), half(n.reshape(h, w, 3))
    at = np.flatnonzero(idh.ravel() >= 0)
    ind = np.zeros((idh.size, 3), f32)
    if len(at):
        rays = np.empty((len(at) * gather, 3), f32)
        K.cosine_rays(n3.reshape(-1, 3)[at], gather, int(rng.integers(1 << 30)), rays)
        rad = _radiance(s, np.repeat(half(p.reshape(h, w, 3)).reshape(-1, 3)[at], gather, 0), rays, ambient, rng)
        rad = np.minimum(rad, 20 * np.median(rad[::17] @ LUMA) + 0.5)
        ind[at] = np.pi * rad.reshape(-1, gather, 3).mean(1)
    ind = D.smooth(ind.reshape(*idh.shape, 3), nh, zh, idh, (1, 2, 4))
    up = np.empty((h, w, 3), f32)
    D.upsample(ind, nh, zh, idh, nl, z, ids, up)
    sm = D.smooth(np.ascontiguousarray(light[..., 3:]), nl, z, ids, (1, 2, 3))
    return np.ascontiguousarray(np.concatenate([light[..., :3] + sm[..., :3] + up, sm[..., 3:]], -1))
