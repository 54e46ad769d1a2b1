"""Edge-avoiding filters that clean the sampled light and carry it between resolutions.

The compiled functions take float32 arrays except where said: light e (h, w, c), normals n (h, w, 3), depth z (h, w),
and m (h, w), the index of the material or -1 where there is no surface.
"""

from __future__ import annotations

from typing import Sequence

import numpy as np

from .kernels import f32, jit


# Nested loops on purpose: with fastmath, a split may change the last bits of pictures that a seed must reproduce.
@jit
def atrous(  # noqa: C901
    e: np.ndarray, n: np.ndarray, z: np.ndarray, m: np.ndarray, step: int, out: np.ndarray
) -> None:
    """One edge-avoiding 3x3 wavelet pass over e (h, w, c), guided by normals, depth and material."""
    h, w, nc = e.shape
    for y in range(h):
        for x in range(w):
            for c in range(nc):
                out[y, x, c] = 0
            if m[y, x] < 0:
                continue
            ws = f32(0)
            z0 = z[y, x]
            for dy in range(-1, 2):
                yy = y + dy * step
                if yy < 0 or yy >= h:
                    continue
                for dx in range(-1, 2):
                    xx = x + dx * step
                    if xx < 0 or xx >= w or m[yy, xx] != m[y, x]:
                        continue
                    dz = (z[yy, xx] - z0) / (z0 * f32(0.02) * step)
                    dn = 1 - (n[y, x, 0] * n[yy, xx, 0] + n[y, x, 1] * n[yy, xx, 1] + n[y, x, 2] * n[yy, xx, 2])
                    k = 1 / ((1 + dz * dz * f32(0.3)) * (1 + dn * dn * 900) * (1 + f32(0.5) * (dx * dx + dy * dy)))
                    ws += k
                    for c in range(nc):
                        out[y, x, c] += k * e[yy, xx, c]
            for c in range(nc):
                out[y, x, c] /= ws


def smooth(e: np.ndarray, n: np.ndarray, z: np.ndarray, m: np.ndarray, steps: Sequence[int]) -> np.ndarray:
    """Filter e by one à-trous pass for each of the given steps, in pixels."""
    for k in steps:
        out = np.empty_like(e)
        atrous(e, n, z, m, k, out)
        e = out
    return e


@jit
def _mix(
    e: np.ndarray,
    n: np.ndarray,
    z: np.ndarray,
    m: np.ndarray,
    y0: int,
    y1: int,
    x0: int,
    x1: int,
    sy: np.float32,
    sx: np.float32,
    scale: np.float32,
    nx: float,
    ny: float,
    nz: float,
    z0: float,
    m0: float,
    out: np.ndarray,
) -> None:
    """Weighted mean into out (c,) of e over a small window, around sample (sy, sx) in the window's pixels."""
    h, w, nc = e.shape
    ws = f32(1e-12)
    for c in range(nc):
        out[c] = 0
    for yy in range(max(y0, 0), min(y1, h)):
        for xx in range(max(x0, 0), min(x1, w)):
            if m[yy, xx] < 0:
                continue
            dz = (z[yy, xx] - z0) / (z0 * f32(0.02))
            dn = 1 - (nx * n[yy, xx, 0] + ny * n[yy, xx, 1] + nz * n[yy, xx, 2])
            dy, dx = (yy - sy) * scale, (xx - sx) * scale
            k = 1 / ((1 + dz * dz) * (1 + dn * dn * 900) * (f32(0.3) + dx * dx + dy * dy))
            if m[yy, xx] != m0:
                k *= f32(0.02)
            ws += k
            for c in range(nc):
                out[c] += k * e[yy, xx, c]
    for c in range(nc):
        out[c] /= ws


@jit
def upsample(
    e: np.ndarray,
    n: np.ndarray,
    z: np.ndarray,
    m: np.ndarray,
    nh: np.ndarray,
    zh: np.ndarray,
    mh: np.ndarray,
    out: np.ndarray,
) -> None:
    """Joint upsampling: e (h, w, c) covers every other pixel of the fine grid (nh, zh, mh)."""
    for y in range(zh.shape[0]):
        for x in range(zh.shape[1]):
            if mh[y, x] < 0:
                for c in range(out.shape[2]):
                    out[y, x, c] = 0
            else:
                _mix(
                    e,
                    n,
                    z,
                    m,
                    y // 2,
                    y // 2 + 2,
                    x // 2,
                    x // 2 + 2,
                    y * f32(0.5),
                    x * f32(0.5),
                    f32(2),
                    nh[y, x, 0],
                    nh[y, x, 1],
                    nh[y, x, 2],
                    zh[y, x],
                    mh[y, x],
                    out[y, x],
                )


@jit
def resample(
    e: np.ndarray,
    n: np.ndarray,
    z: np.ndarray,
    m: np.ndarray,
    ys: np.ndarray,
    xs: np.ndarray,
    ns: np.ndarray,
    zs: np.ndarray,
    x: np.ndarray,
    out: np.ndarray,
) -> None:
    """Light e at sub-samples of the pixels (ys, xs), which have their own normals, depths and materials x[:, 0]."""
    for i in range(ys.shape[0]):
        if x[i, 0] < 0:
            for c in range(out.shape[1]):
                out[i, c] = 0
        else:
            _mix(
                e,
                n,
                z,
                m,
                ys[i] - 1,
                ys[i] + 2,
                xs[i] - 1,
                xs[i] + 2,
                f32(ys[i]),
                f32(xs[i]),
                f32(1),
                ns[i, 0],
                ns[i, 1],
                ns[i, 2],
                zs[i],
                x[i, 0],
                out[i],
            )


@jit
def edges(m: np.ndarray, z: np.ndarray, n: np.ndarray, out: np.ndarray) -> None:
    """Set `out` to 1 where a pixel differs from a neighbour in material, depth or normal."""
    h, w = m.shape
    for y in range(h):
        for x in range(w):
            for q in range(2):
                yy, xx = y + q, x + 1 - q
                if yy >= h or xx >= w:
                    continue
                dot = n[y, x, 0] * n[yy, xx, 0] + n[y, x, 1] * n[yy, xx, 1] + n[y, x, 2] * n[yy, xx, 2]
                if m[y, x] != m[yy, xx] or (
                    m[y, x] >= 0 and (abs(z[y, x] - z[yy, xx]) > f32(0.04) * min(z[y, x], z[yy, xx]) or dot < f32(0.96))
                ):
                    out[y, x] = 1
                    out[yy, xx] = 1
