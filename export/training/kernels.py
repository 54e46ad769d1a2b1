"""Compiled inner loops of the renderer (numba, one thread, float32)."""

from __future__ import annotations

import numpy as np
from numba import njit

f32 = np.float32
# columns of a material row
COLOR, COLOR2, TEX, MODE, ROUGH, METAL, SPEC, BUMP, EMIT, ALPHA, NMAT = 0, 3, 6, 7, 8, 9, 10, 11, 12, 13, 14
LEVELS = 8
_x = np.arange(256) / 255.0
LINEAR = np.where(_x <= 0.04045, _x / 12.92, ((_x + 0.055) / 1.055) ** 2.4).astype(f32)
jit = njit(fastmath=True, cache=True, nogil=True)


@jit
def texel(
    data: np.ndarray, table: np.ndarray, k: int, level: int, u: float, v: float, lut: np.ndarray, out: np.ndarray
) -> None:
    """Write the bilinear linear-light RGB of texture k at mip level `level` into out (3,)."""
    off, h, w = table[k, level, 0], table[k, level, 1], table[k, level, 2]
    x, y = u * w - f32(0.5), v * h - f32(0.5)
    fx0, fy0 = np.floor(x), np.floor(y)
    fx, fy = x - fx0, y - fy0
    x0, y0 = int(fx0) % w, int(fy0) % h
    x1, y1 = (x0 + 1) % w, (y0 + 1) % h
    a, b, c, d = off + (y0 * w + x0) * 4, off + (y0 * w + x1) * 4, off + (y1 * w + x0) * 4, off + (y1 * w + x1) * 4
    for q in range(3):
        out[q] = (lut[data[a + q]] * (1 - fx) + lut[data[b + q]] * fx) * (1 - fy) + (
            lut[data[c + q]] * (1 - fx) + lut[data[d + q]] * fx
        ) * fy


@jit
def see_through(
    prim: np.ndarray,
    bu: np.ndarray,
    bv: np.ndarray,
    uv: np.ndarray,
    fm: np.ndarray,
    mats: np.ndarray,
    data: np.ndarray,
    table: np.ndarray,
    out: np.ndarray,
) -> None:
    """Set out[i] to 1 where the ray hit a transparent texel and must go on."""
    for i in range(prim.shape[0]):
        out[i] = 0
        p = prim[i]
        if p < 0 or mats[fm[p], ALPHA] == 0:
            continue
        k = int(mats[fm[p], TEX])
        w0 = 1 - bu[i] - bv[i]
        u = uv[p, 0, 0] * w0 + uv[p, 1, 0] * bu[i] + uv[p, 2, 0] * bv[i]
        v = uv[p, 0, 1] * w0 + uv[p, 1, 1] * bu[i] + uv[p, 2, 1] * bv[i]
        off, h, w = table[k, 0, 0], table[k, 0, 1], table[k, 0, 2]
        if data[off + (int(np.floor(v * h)) % h * w + int(np.floor(u * w)) % w) * 4 + 3] < 128:
            out[i] = 1


# One long loop on purpose: with fastmath, splitting it may change the last bits of pictures that a seed must reproduce.
@jit
def surface(  # noqa: C901, PLR0912, PLR0915
    prim: np.ndarray,
    bu: np.ndarray,
    bv: np.ndarray,
    t: np.ndarray,
    d: np.ndarray,
    f: np.ndarray,
    v: np.ndarray,
    n: np.ndarray,
    uv: np.ndarray,
    vc: np.ndarray,
    fm: np.ndarray,
    dens: np.ndarray,
    mats: np.ndarray,
    data: np.ndarray,
    table: np.ndarray,
    levels: np.ndarray,
    lut: np.ndarray,
    pixel: np.float32,
    bump: bool,
    N: np.ndarray,
    NS: np.ndarray,
    A: np.ndarray,
    X: np.ndarray,
) -> None:
    """Look up what the rays hit.

    The results go into N, label normals (smooth, facing the viewer); NS, shading normals (with texture bump); A, linear
    albedo; and X (material or -1, roughness, metal, F0).
    """
    c = np.zeros(3, f32)
    c1 = np.zeros(3, f32)
    c2 = np.zeros(3, f32)
    for i in range(prim.shape[0]):
        p = prim[i]
        if p < 0:
            for q in range(3):
                N[i, q] = 0
                NS[i, q] = 0
                A[i, q] = 0
            X[i, 0] = -1
            continue
        ia, ib, ic, m = f[p, 0], f[p, 1], f[p, 2], fm[p]
        b, g = bu[i], bv[i]
        a = 1 - b - g
        dx, dy, dz = d[i, 0], d[i, 1], d[i, 2]
        e1x, e1y, e1z = v[ib, 0] - v[ia, 0], v[ib, 1] - v[ia, 1], v[ib, 2] - v[ia, 2]
        e2x, e2y, e2z = v[ic, 0] - v[ia, 0], v[ic, 1] - v[ia, 1], v[ic, 2] - v[ia, 2]
        gx, gy, gz = e1y * e2z - e1z * e2y, e1z * e2x - e1x * e2z, e1x * e2y - e1y * e2x
        norm = 1 / np.sqrt(gx * gx + gy * gy + gz * gz + f32(1e-30))
        if gx * dx + gy * dy + gz * dz > 0:
            norm = -norm
        gx, gy, gz = gx * norm, gy * norm, gz * norm
        nx = n[ia, 0] * a + n[ib, 0] * b + n[ic, 0] * g
        ny = n[ia, 1] * a + n[ib, 1] * b + n[ic, 1] * g
        nz = n[ia, 2] * a + n[ib, 2] * b + n[ic, 2] * g
        norm = nx * nx + ny * ny + nz * nz
        if norm < 1e-8:
            nx, ny, nz, norm = gx, gy, gz, f32(1)
        norm = 1 / np.sqrt(norm)
        if nx * gx + ny * gy + nz * gz < 0:
            norm = -norm
        nx, ny, nz = nx * norm, ny * norm, nz * norm
        e = nx * dx + ny * dy + nz * dz + f32(0.02)
        if e > 0:
            nx, ny, nz = nx - e * dx, ny - e * dy, nz - e * dz
            norm = 1 / np.sqrt(nx * nx + ny * ny + nz * nz)
            nx, ny, nz = nx * norm, ny * norm, nz * norm
        N[i, 0], N[i, 1], N[i, 2] = nx, ny, nz
        mode, k = int(mats[m, MODE]), int(mats[m, TEX])
        if mode > 0 and k >= 0:
            u = uv[p, 0, 0] * a + uv[p, 1, 0] * b + uv[p, 2, 0] * g
            w = uv[p, 0, 1] * a + uv[p, 1, 1] * b + uv[p, 2, 1] * g
            foot = t[i] * pixel / np.sqrt(abs(nx * dx + ny * dy + nz * dz) + f32(0.1)) * dens[p]
            lev = min(levels[k] - 1, max(0, int(np.log2(max(foot, f32(1.0))) + f32(0.4))))
            texel(data, table, k, lev, u, w, lut, c)
            if bump and mats[m, BUMP] > 0 and dens[p] > 0:
                h = f32(1.0) / table[k, lev, 2]
                texel(data, table, k, lev, u + h, w, lut, c1)
                texel(data, table, k, lev, u, w + h, lut, c2)
                s = mats[m, BUMP] * f32(0.5)
                du, dv = (c1[1] - c[1]) * s, (c2[1] - c[1]) * s
                s1, t1 = uv[p, 1, 0] - uv[p, 0, 0], uv[p, 1, 1] - uv[p, 0, 1]
                s2, t2 = uv[p, 2, 0] - uv[p, 0, 0], uv[p, 2, 1] - uv[p, 0, 1]
                r = s1 * t2 - s2 * t1
                if abs(r) > 1e-12:
                    tx, ty, tz = (e1x * t2 - e2x * t1) / r, (e1y * t2 - e2y * t1) / r, (e1z * t2 - e2z * t1) / r
                    bx, by, bz = (e2x * s1 - e1x * s2) / r, (e2y * s1 - e1y * s2) / r, (e2z * s1 - e1z * s2) / r
                    lt = du / np.sqrt(tx * tx + ty * ty + tz * tz + f32(1e-20))
                    lb = dv / np.sqrt(bx * bx + by * by + bz * bz + f32(1e-20))
                    nx, ny, nz = nx - tx * lt - bx * lb, ny - ty * lt - by * lb, nz - tz * lt - bz * lb
                    norm = 1 / np.sqrt(nx * nx + ny * ny + nz * nz + f32(1e-20))
                    nx, ny, nz = nx * norm, ny * norm, nz * norm
                    e = nx * dx + ny * dy + nz * dz + f32(0.02)
                    if e > 0:
                        nx, ny, nz = nx - e * dx, ny - e * dy, nz - e * dz
                        norm = 1 / np.sqrt(nx * nx + ny * ny + nz * nz)
                        nx, ny, nz = nx * norm, ny * norm, nz * norm
            if mode == 1:
                y = np.sqrt((c[0] + c[1] + c[2]) / 3)
                for q in range(3):
                    A[i, q] = mats[m, q] * (1 - y) + mats[m, 3 + q] * y
            else:
                for q in range(3):
                    A[i, q] = c[q] * mats[m, q]
        else:
            for q in range(3):
                A[i, q] = mats[m, q]
        for q in range(3):
            A[i, q] *= lut[int(vc[ia, q] * a + vc[ib, q] * b + vc[ic, q] * g)]
        NS[i, 0], NS[i, 1], NS[i, 2] = nx, ny, nz
        X[i, 0], X[i, 1], X[i, 2], X[i, 3] = m, mats[m, ROUGH], mats[m, METAL], mats[m, SPEC]


@jit
def lookup_env(env: np.ndarray, yaw: np.float32, d: np.ndarray, out: np.ndarray) -> None:
    """Radiance (n, 3) of an equirectangular picture (row 0 up, centre column towards -z) along unit directions d (n,
    3).
    """
    h, w = env.shape[:2]
    for i in range(d.shape[0]):
        th = np.arccos(min(f32(1), max(f32(-1), d[i, 1]))) / f32(np.pi)
        ph = (np.arctan2(d[i, 0], -d[i, 2]) + yaw) / f32(2 * np.pi) + f32(0.5)
        ph -= np.floor(ph)
        x, y = ph * w - f32(0.5), min(max(th * h - f32(0.5), f32(0)), f32(h - 1.001))
        xf = np.floor(x)
        x0, y0 = int(xf), int(y)
        fx, fy = x - xf, y - y0
        x1, x0 = (x0 + 1) % w, x0 % w
        for c in range(3):
            out[i, c] = (env[y0, x0, c] * (1 - fx) + env[y0, x1, c] * fx) * (1 - fy) + (
                env[y0 + 1, x0, c] * (1 - fx) + env[y0 + 1, x1, c] * fx
            ) * fy


@jit
def cosine_rays(n: np.ndarray, k: int, seed: int, out: np.ndarray) -> None:
    """Write k stratified cosine-weighted directions about each normal (m, 3) into out (m*k, 3)."""
    np.random.seed(seed)
    for i in range(n.shape[0]):
        nx, ny, nz = n[i, 0], n[i, 1], n[i, 2]
        s = f32(1) if nz >= 0 else f32(-1)
        a = -1 / (s + nz)
        b = nx * ny * a
        r0 = np.random.random()
        for j in range(k):
            r2 = (j + np.random.random()) / k
            ph = 2 * np.pi * ((j * 0.61803398875 + r0 + 0.15 * np.random.random()) % 1)
            r = np.sqrt(r2)
            x, y, z = r * np.cos(ph), r * np.sin(ph), np.sqrt(max(0.0, 1 - r2))
            out[i * k + j, 0] = x * (1 + s * nx * nx * a) + y * b + z * nx
            out[i * k + j, 1] = x * s * b + y * (s + ny * ny * a) + z * ny
            out[i * k + j, 2] = -x * s * nx - y * ny + z * nz


@jit
def light_rays(
    p: np.ndarray,
    n: np.ndarray,
    lights: np.ndarray,
    which: np.ndarray,
    seed: int,
    d: np.ndarray,
    c: np.ndarray,
    idx: np.ndarray,
) -> int:
    """One shadow ray per point to a random place on its light.

    d (m, 3) becomes the way to the light, c (m, 3) the unshadowed irradiance, and idx the indices of the points that
    face their light. Returns how many do. Rows of `lights` are type (0 distant, 1 ball), direction or position, radius,
    colour (irradiance, or irradiance at 1 m).
    """
    np.random.seed(seed)
    m = 0
    for i in range(p.shape[0]):
        k = which[i] if which.shape[0] > 1 else which[0]
        oz, ph = 2 * np.random.random() - 1, 2 * np.pi * np.random.random()
        r = np.sqrt(1 - oz * oz)
        ox, oy, radius = r * np.cos(ph), r * np.sin(ph), lights[k, 4]
        dx, dy, dz = lights[k, 1] + ox * radius, lights[k, 2] + oy * radius, lights[k, 3] + oz * radius
        if lights[k, 0] == 0:
            q = 1 / np.sqrt(dx * dx + dy * dy + dz * dz)
            fall, far = 1.0, 1e3
        else:
            dx, dy, dz = dx - p[i, 0], dy - p[i, 1], dz - p[i, 2]
            d2 = dx * dx + dy * dy + dz * dz + 1e-9
            q = 1 / np.sqrt(d2)
            fall, far = 1 / (d2 + lights[k, 4] * lights[k, 4]), np.sqrt(d2) * 0.98
        dx, dy, dz = dx * q, dy * q, dz * q
        w = max(0.0, dx * n[i, 0] + dy * n[i, 1] + dz * n[i, 2]) * fall
        d[i, 0], d[i, 1], d[i, 2] = dx * far, dy * far, dz * far
        for j in range(3):
            c[i, j] = w * lights[k, 5 + j]
        if w > 0:
            idx[m] = i
            m += 1
    return m


@jit
def densities(
    v: np.ndarray, f: np.ndarray, uv: np.ndarray, fm: np.ndarray, mats: np.ndarray, table: np.ndarray, out: np.ndarray
) -> None:
    """Texels per unit length on each triangle, by which mip levels are chosen."""
    for p in range(f.shape[0]):
        k = max(0, int(mats[fm[p], TEX]))
        a, b, c = f[p, 0], f[p, 1], f[p, 2]
        x1, y1, z1 = v[b, 0] - v[a, 0], v[b, 1] - v[a, 1], v[b, 2] - v[a, 2]
        x2, y2, z2 = v[c, 0] - v[a, 0], v[c, 1] - v[a, 1], v[c, 2] - v[a, 2]
        cx, cy, cz = y1 * z2 - z1 * y2, z1 * x2 - x1 * z2, x1 * y2 - y1 * x2
        s1, t1, s2, t2 = (
            uv[p, 1, 0] - uv[p, 0, 0],
            uv[p, 1, 1] - uv[p, 0, 1],
            uv[p, 2, 0] - uv[p, 0, 0],
            uv[p, 2, 1] - uv[p, 0, 1],
        )
        out[p] = np.sqrt(
            abs(s1 * t2 - s2 * t1)
            / (np.sqrt(cx * cx + cy * cy + cz * cz) + f32(1e-20))
            * table[k, 0, 1]
            * table[k, 0, 2]
        )


@jit
def add_light(
    idx: np.ndarray,
    blocked: np.ndarray,
    d: np.ndarray,
    c: np.ndarray,
    view: np.ndarray,
    n: np.ndarray,
    x: np.ndarray,
    gain: np.float32,
    diffuse: np.ndarray,
    glossy: np.ndarray,
) -> None:
    """Add unblocked light to the diffuse irradiance and to the specular highlight (Blinn-Phong, normalised)."""
    for j in range(idx.shape[0]):
        if blocked[j] >= 0:
            continue
        i = idx[j]
        for q in range(3):
            diffuse[i, q] += c[i, q] * gain
        if x[i, 3] > 0:
            norm = 1 / np.sqrt(d[i, 0] ** 2 + d[i, 1] ** 2 + d[i, 2] ** 2 + f32(1e-20))
            hx, hy, hz = d[i, 0] * norm - view[i, 0], d[i, 1] * norm - view[i, 1], d[i, 2] * norm - view[i, 2]
            nh = (hx * n[i, 0] + hy * n[i, 1] + hz * n[i, 2]) / np.sqrt(hx * hx + hy * hy + hz * hz + f32(1e-12))
            a = max(x[i, 1], f32(0.06)) ** 2
            s = 2 / (a * a) - 2
            g = min(f32(60), (s + 2) / f32(8 * np.pi) * max(nh, f32(0)) ** s) * gain
            for q in range(3):
                glossy[i, q] += c[i, q] * g


@jit
def compose(
    albedo: np.ndarray, x: np.ndarray, n: np.ndarray, d: np.ndarray, u: np.ndarray, mats: np.ndarray, out: np.ndarray
) -> None:
    """Radiance of each sub-sample from its albedo, irradiance u[:, :3] and reflected light u[:, 3:]. Misses stay
    untouched.
    """
    for i in range(albedo.shape[0]):
        if x[i, 0] < 0:
            continue
        cosv = min(f32(1), max(f32(0), -(n[i, 0] * d[i, 0] + n[i, 1] * d[i, 1] + n[i, 2] * d[i, 2])))
        fres = (1 - cosv) ** 5
        for c in range(3):
            f0 = x[i, 3] * (1 - x[i, 2]) + albedo[i, c] * x[i, 2]
            k = f0 + (max(1 - x[i, 1], f0) - f0) * fres if x[i, 3] > 0 else f32(0)
            out[i, c] = (
                albedo[i, c] * ((1 - x[i, 2]) * u[i, c] / f32(np.pi) + mats[int(x[i, 0]), EMIT]) + k * u[i, 3 + c]
            )
