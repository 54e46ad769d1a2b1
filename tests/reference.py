"""The lighting model in float64, full resolution, no tricks: what server/light/shading.py is measured against.

Written for reading. Everything is (H, W) or (H, W, 3) float64. Axes: +x right, +y up, +z toward the viewer.
"""

import numpy as np

from server.light.maps import CLIPPED, CLIPPING
from server.light.shadows import BIAS, THICKNESSES, area_light_samples


def srgb_to_linear(c):
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def linear_to_srgb(x):
    return np.where(x <= 0.0031308, 12.92 * x, 1.055 * np.maximum(x, 0) ** (1 / 2.4) - 0.055)


def normalise(vectors):
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def positions(q, focal):
    """Scene positions of the pixels of a picture from q = (median depth) / depth."""
    H, W = q.shape
    u = np.broadcast_to((np.arange(W) + 0.5) / W - 0.5, (H, W))
    v = np.broadcast_to(((H / 2 - np.arange(H) - 0.5) / W)[:, None], (H, W))
    return np.stack([2 * u / q, 2 * v / q, 2 * focal * (1 - 1 / q)], axis=-1)


def old_light(n, estimate):
    """The photograph's own light on normals n: spherical harmonics, bent into the floor along a hyperbola."""
    x, y, z = n[..., 0], n[..., 1], n[..., 2]
    basis = [np.ones_like(x), x, y, z, x * y, y * z, z * x, x * x - y * y, 3 * z * z - 1]
    above = sum(c * b for c, b in zip(estimate.harmonics, basis)) - estimate.floor
    return estimate.floor + above / 2 + np.hypot(above / 2, estimate.floor)


def arriving(light, points):
    """Unit vectors from the points to a light, and its strength there before the cosine."""
    if light.kind == "directional":
        return np.broadcast_to(normalise(np.array(light.direction, float)), points.shape), light.intensity
    to_light = np.array(light.position, float) - points
    distance = np.linalg.norm(to_light, axis=-1)
    l = to_light / distance[..., None]
    strength = light.intensity / (1 + (distance / light.range) ** 2)
    if light.kind == "spot":
        axis = normalise(np.array(light.position, float) - np.array(light.target, float))
        outer = np.cos(np.radians(light.cone / 2))
        inner = np.cos(np.radians(light.cone / 2) * (1 - light.blend))
        t = np.clip((l @ axis - outer) / max(inner - outer, 1e-6), 0, 1)
        strength = strength * t * t * (3 - 2 * t)
    return l, strength


def ggx(n, l, roughness):
    """Cook-Torrance with GGX, height-correlated Smith, Schlick F0 = 0.04, viewer at +z.

    Times pi, as the diffuse term.
    """
    v = np.array([0.0, 0.0, 1.0])
    alpha = roughness**2
    half = normalise(l + v)
    nl, nv = np.maximum((n * l).sum(-1), 0), np.maximum(n[..., 2], 1e-3)
    nh, lh = np.clip((n * half).sum(-1), 0, 1), np.clip((l * half).sum(-1), 0, 1)
    d = alpha**2 / (nh**2 * (alpha**2 - 1) + 1) ** 2
    visible = 0.5 / np.maximum(
        nl * np.sqrt(nv**2 * (1 - alpha**2) + alpha**2) + nv * np.sqrt(nl**2 * (1 - alpha**2) + alpha**2), 1e-6
    )
    return d * visible * (0.04 + 0.96 * (1 - lh) ** 5)


def relight(rgb, q, normals, mask, occlusion, estimate, focal, rig, visibilities=None, environment=None):
    """rgb (H, W, 3) uint8 relit. visibilities: one (H, W) per light or None (no cast shadows).

    environment: radiance (h, w, 3), of which ambient occlusion leaves its share.
    """
    if rig.strength == 0:
        return rgb.copy()
    n = normalise(np.asarray(normals, float))
    points = positions(np.asarray(q, float), focal)
    irradiance = np.zeros(n.shape) + rig.ambient * np.asarray(occlusion, float)[..., None]
    if environment is not None:
        arrives = environment_light(n.reshape(-1, 3), environment, rig.environment.rotation).reshape(n.shape)
        irradiance += arrives * np.asarray(occlusion, float)[..., None]
    highlights = np.zeros(n.shape)
    for k, light in enumerate(rig.lights):
        l, strength = arriving(light, points)
        seen = 1.0
        if visibilities is not None and visibilities[k] is not None:
            seen = 1 - rig.shadow_strength * (1 - visibilities[k])
        power = (strength * seen * np.maximum((n * l).sum(-1), 0))[..., None] * np.array(light.color)
        irradiance += power
        highlights += power * rig.specular_strength * ggx(n, l, rig.roughness)[..., None]
    old = old_light(n, estimate)
    surface = np.ones(old.shape, bool) if mask is None else np.asarray(mask) > 0.5
    old = old**rig.delight
    before = srgb_to_linear(rgb / 255)
    mean = mean_of_delight(n, estimate, surface, rig.delight)
    ratio = irradiance * mean / old[..., None]
    after = before * ratio + highlights
    exposure = 2.0 ** (auto_exposure(before, after, surface) if rig.exposure == "auto" else rig.exposure)
    after = exposure * (before * ratio * whiter(rgb, exposure * ratio) + highlights)
    after = shoulder(before, after)
    blend = rig.strength * (1.0 if mask is None else np.asarray(mask, float)[..., None])
    return np.rint(255 * np.clip(linear_to_srgb(before + blend * (after - before)), 0, 1)).astype(np.uint8)


def mean_of_delight(n, estimate, surface, delight):
    """What makes the mean over the surfaces of the light that is divided out 1."""
    chosen = n[surface] if surface.any() else n.reshape(-1, 3)
    return (old_light(chosen, estimate) ** delight).mean()


def auto_exposure(before, after, surface):
    """The stops, within two either way, that give `after` the mean log luminance that `before` has on the surfaces.

    Luminance under 1/32 of the photograph's mean counts as that much. Of pictures that are no larger than 64 pixels.
    """
    old, new = (linear[surface] @ np.array([0.2126, 0.7152, 0.0722]) for linear in (before, after))
    if not old.any():
        return 0.0
    stops, black = np.linspace(-2, 2, 201), old.mean() / 32
    seen = [np.log(np.maximum(2.0**s * new, black)).mean() for s in stops]
    return np.interp(np.log(np.maximum(old, black)).mean(), seen, stops)


def whiter(rgb, ratio):
    """What keeps clipped channels white where light is taken away: a third of the headroom for each of them."""
    clipped = np.clip((rgb.astype(float) - CLIPPING) / (255 - CLIPPING), 0, 1)
    headroom = CLIPPED * (clipped**2).mean(-1)
    most = np.minimum(ratio.max(-1), 1)
    return ((1 + headroom) / (1 + headroom * most))[..., None]


def shoulder(before, after):
    """Gains above 1 of a pixel's largest channel bent so that they never reach white; ratio 1 is the identity."""
    old, new = before.max(-1), after.max(-1)
    room, more = 1 - old, np.maximum(new - old, 0)
    kept = old + room * more / np.sqrt(room**2 + more**2 + 1e-12)
    return after * np.where(new > old, kept / np.maximum(new, 1e-12), 1.0)[..., None]


def visibility(light, q, focal, points=range(16), pixels_per_step=1.0):
    """(H, W) share of a lamp that each pixel sees: a ray to each of its points, every pixel on the way looked at."""
    q = np.asarray(q, float)
    H, W = q.shape
    P = positions(q, focal)
    seen = np.zeros((H, W))
    lamp = area_light_samples(light)
    for k in points:
        way = np.broadcast_to(lamp[k], P.shape) if light.kind == "directional" else lamp[k] - P
        end = way_out(P, way, focal, H / W, 1 / q.max(), light.kind != "directional")
        first = pixel(P, focal, W, H).reshape(-1, 3)
        last = pixel(P + end[..., None] * way, focal, W, H).reshape(-1, 3)
        free = np.arange(H * W)  # the pixels whose ray has met nothing yet
        steps = int(np.ceil(np.abs(last - first)[:, :2].max() / pixels_per_step)) + 1
        for s in (np.arange(steps) + 0.5) / steps:
            # evenly spaced in the picture; 1 / depth is linear there
            x, y, ray = (first[free] + s * (last[free] - first[free])).T
            ratio = bilinear(q, x, y) / ray
            free = free[~((ratio > 1 + BIAS) & (ratio < 1 + THICKNESSES[k]))]
        seen.flat[free] += 1
    return seen / len(points)


def field_visibility(light, seen, directions, spread, points, normals):
    """(H, W) share of a lamp that each of the points sees, from the share `seen` (K, H, W) of K distant lights.

    The mean over the directions, weighted by a von Mises-Fisher distribution around that of the lamp. Its variance is
    that of the kernel, `spread` squared in radians, and that of the lamp's disc. Directions below the horizon of a
    point do not count, those just above it (8 n.d < 1) in part.
    """
    if light.kind == "directional":
        l, radius = (
            np.broadcast_to(normalise(np.array(light.direction, float)), points.shape),
            np.radians(light.angle) / 2,
        )
    else:
        l, distance = normalise(np.array(light.position, float) - points), np.array(light.position, float) - points
        radius = np.arctan(light.radius / np.linalg.norm(distance, axis=-1))
    concentration = 1 / (spread**2 + radius**2 / 4)
    weights = [
        np.exp(concentration * ((l * d).sum(-1) - 1)) * np.clip(8 * (normals @ d), 0, 1)
        for d in np.asarray(directions, float)
    ]
    return sum(w * s for w, s in zip(weights, seen)) / sum(weights)


def pixel(P, focal, W, H):
    """Column, row and q of scene points."""
    depth = 1 - P[..., 2] / (2 * focal)
    return np.stack(
        [(P[..., 0] / 2 / depth + 0.5) * W - 0.5, (H / W / 2 - P[..., 1] / 2 / depth) * W - 0.5, 1 / depth], -1
    )


def way_out(P, way, focal, aspect, nearest, to_lamp):
    """How many times its length a ray goes before it leaves the picture, is nearer than all, or meets the lamp."""
    end = np.full(P.shape[:2], 1.0 if to_lamp else np.inf)
    depth, closer = 1 - P[..., 2] / (2 * focal), -way[..., 2] / (2 * focal)
    with np.errstate(divide="ignore", invalid="ignore"):
        for side, a, b in ((1, P[..., 0], way[..., 0]), (aspect, P[..., 1], way[..., 1])):
            for sign in (1, -1):  # sign * (a + t b) = side * (depth + t closer)
                t = (side * depth - sign * a) / (sign * b - side * closer)
                end = np.where(t > 0, np.minimum(end, t), end)
        t = (nearest - depth) / closer
        end = np.where(t > 0, np.minimum(end, t), end)
        away = np.where(closer > 0, 1e6, np.inf)
        end = np.minimum(end, away)
    return np.where(np.isfinite(end), end * 0.999, 0.0)


def bilinear(q, x, y):
    """q at fractional pixels; nothing (0) outside the picture."""
    H, W = q.shape
    padded = np.pad(q, 1)
    x, y = np.clip(x + 1, 0, W + 0.999), np.clip(y + 1, 0, H + 0.999)
    i, j = x.astype(int), y.astype(int)
    a, b = x - i, y - j
    return (padded[j, i] * (1 - a) + padded[j, i + 1] * a) * (1 - b) + (
        padded[j + 1, i] * (1 - a) + padded[j + 1, i + 1] * a
    ) * b


def environment_texels(h, w):
    """Directions (h, w, 3) and solid angles (h, w) of an equirectangular picture whose middle is -z, and top +y."""
    elevation = (0.5 - (np.arange(h) + 0.5) / h)[:, None] * np.pi
    azimuth = ((np.arange(w) + 0.5) / w - 0.5)[None] * 2 * np.pi
    directions = [np.cos(elevation) * np.sin(azimuth), np.sin(elevation) + 0 * azimuth]
    directions.append(-np.cos(elevation) * np.cos(azimuth))
    top, bottom = (np.sin(elevation + k * np.pi / h / 2) for k in (1, -1))
    return np.stack(directions, -1), (top - bottom) * (2 * np.pi / w) + 0 * azimuth


def turned(directions, degrees):
    """Directions turned about +y, right-handed: at 90 degrees +z becomes +x."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    x, y, z = np.moveaxis(directions, -1, 0)
    return np.stack([c * x + s * z, y, c * z - s * x], -1)


def environment_light(normals, radiance, rotation=0.0, seen=None, brdf=None):
    """What an environment gives to normals (n, 3): the sum over its texels of radiance, solid angle and cosine, / pi.

    radiance: (h, w, 3). seen: of directions (m, 3), the share (n, m) or (m,) of each that arrives. brdf: of normals
    (n, 1, 3) and directions (m, 3), what is mirrored, times pi; None: a matt surface's.
    """
    directions, area = environment_texels(*radiance.shape[:2])
    d = turned(directions.reshape(-1, 3), rotation)
    arrives = np.maximum(np.asarray(normals, float) @ d.T, 0) * area.ravel()
    if seen is not None:
        arrives = arrives * seen(d)
    if brdf is not None:
        arrives = arrives * brdf(np.asarray(normals, float)[:, None], d)
    return arrives @ radiance.reshape(-1, 3).astype(float) / np.pi
