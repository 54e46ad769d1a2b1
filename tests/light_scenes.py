"""Scenes whose geometry, and whose shadows, are known exactly."""

import numpy as np

from server.light.lights import WHITE, Light, Rig, blackbody, hex_color, unit
from server.light.shading import illuminate
from server.scene.fit import SceneFit
from server.scene.geometry import Geometry
from server.scene.illumination import EstimatedLight
from server.scene.normals import normals_from_inverse_depth

FOCAL = 0.9
NEUTRAL = EstimatedLight((1.0,), 0.05)
FIT = SceneFit(FOCAL, 1.0, 0.0, NEUTRAL)


def rays(h, w, focal=FOCAL):
    """The camera (3,) and (h, w, 3) rays that reach the plane z = 0 at length 1, in scene units."""
    u, v = np.meshgrid((np.arange(w) + 0.5) / w - 0.5, (h / 2 - np.arange(h) - 0.5) / w)
    return np.array([0, 0, 2 * focal]), np.stack([2 * u, 2 * v, np.full_like(u, -2 * focal)], -1)


def ball_and_wall(h, w, centre=(0, 0, 0.35), radius=0.25, focal=FOCAL):
    """(Geometry, positions (h, w, 3), on the ball (h, w) bool) of a ball before the wall z = 0."""
    eye, ray = rays(h, w, focal)
    to = eye - np.array(centre)
    a, b, c = (ray * ray).sum(-1), ray @ to, to @ to - radius**2
    under = b * b - a * c
    depth = np.where(under > 0, (-b - np.sqrt(np.maximum(under, 0))) / a, 1.0)
    on_ball = under > 0
    place = eye + depth[..., None] * ray
    normals = np.where(on_ball[..., None], (place - centre) / radius, (0, 0, 1))
    geometry = Geometry((1 / depth).astype(np.float32), normals.astype(np.float32), None, focal)
    return geometry, place, on_ball


def ball_shadow(place, light, centre=(0, 0, 0.35), radius=0.25, focal=FOCAL):
    """Exactly: is the way from each place to a directional or point lamp cut by the ball, and is the point of the ball
    that its edge would come from one that the camera sees? Two (h, w) bool."""
    if light.kind == "directional":
        l, reach = np.broadcast_to(np.array(light.direction, float), place.shape), np.inf
    else:
        l = np.array(light.position) - place
        reach = np.linalg.norm(l, axis=-1)
        l = l / reach[..., None]
    to = np.array(centre) - place
    along = (to * l).sum(-1)
    closest = place + along[..., None] * l
    n = closest - centre
    shadow = (np.linalg.norm(n, axis=-1) < radius) & (along > 0) & (along < reach)
    return shadow, ((np.array([0, 0, 2 * focal]) - closest) * n).sum(-1) > 0.05 * radius


def angles(a, b):
    """Degrees between unit vectors (..., 3)."""
    return np.degrees(np.arccos(np.clip((a * b).sum(-1), -1, 1)))


def smooth_field(rng, h, w, low, high):
    """(h, w) float64 smooth random values over low..high."""
    import cv2

    f = cv2.resize(rng.random((4, 5)), (w, h), interpolation=cv2.INTER_CUBIC)
    f = (f - f.min()) / max(np.ptp(f), 1e-9)
    return low + f * (high - low)


def random_scene(rng, h, w, masked):
    """A picture of noise over a smooth random relief: (rgb, Geometry, fit)."""
    rgb = rng.integers(0, 256, (h, w, 3), dtype=np.uint8)
    rgb[: h // 4] //= 16
    q = smooth_field(rng, h, w, 0.5, 2.0)
    n = np.stack(
        [smooth_field(rng, h, w, -0.8, 0.8), smooth_field(rng, h, w, -0.8, 0.8), smooth_field(rng, h, w, 0.1, 1)], -1
    )
    n /= np.linalg.norm(n, axis=-1, keepdims=True)
    mask = smooth_field(rng, h, w, -0.5, 1.5).clip(0, 1).astype(np.float32) if masked else None
    light = EstimatedLight((1.0, *(rng.uniform(-0.3, 0.3, 8))), 0.08)
    fit = SceneFit(float(rng.uniform(0.6, 2)), 1.0, 0.0, light, 1.0)
    return rgb, Geometry(q.astype(np.float32), n.astype(np.float32), mask, fit.focal), fit


def hills(h=144, w=192):
    """True q of a smooth relief, and its normals at that focal length."""
    q = smooth_field(np.random.default_rng(2), h, w, 0.6, 1.6).astype(np.float32)
    return q, normals_from_inverse_depth(q, FOCAL)


def random_light(rng, shadow=False):
    color = [
        WHITE,
        hex_color("#" + rng.integers(20, 256, 3, dtype=np.uint8).tobytes().hex()),
        blackbody(rng.uniform(1500, 15000)),
    ]
    away = lambda: tuple(float(v) for v in rng.uniform(-1.5, 1.5, 3))  # noqa: E731
    return Light(
        kind=rng.choice(["directional", "point", "spot"]),
        direction=unit(rng.normal(size=3)),
        position=away(),
        target=away(),
        color=color[rng.integers(3)],
        intensity=float(rng.choice([0.3, 1, 1, 4, 30])),
        range=float(rng.uniform(0.2, 3)),
        cone=float(rng.uniform(10, 160)),
        blend=float(rng.choice([0, 0.3, 1])),
        shadow=shadow,
    )


def random_rig(rng):
    some = lambda *values: float(rng.choice(values))  # noqa: E731
    return Rig(
        lights=tuple(random_light(rng) for _ in range(rng.integers(1, 4))),
        ambient=some(0, 0.05, 0.3, 2),
        strength=some(1, 1, 0.5, 0.05),
        delight=some(0, 0.5, 1),
        shadow_strength=0.0,
        exposure=(0.0, -2.0, 1.0, "auto", "auto")[rng.integers(5)],
        specular_strength=some(0, 0, 0.5, 1),
        roughness=some(0.1, 0.5, 1),
    )


def new_light(maps, rig):
    """(irradiance, highlights) of the whole picture, (H, W, 3)."""
    planes = illuminate(maps, rig, slice(0, maps.size[0]))
    return [np.stack(p * (3 // len(p)), 2) if p else np.zeros((*maps.size, 3), np.float32) for p in planes]
