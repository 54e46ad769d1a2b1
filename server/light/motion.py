"""A light that moves: the rigs of the frames of a motion, between key frames or round the viewer's axis."""

import math
from dataclasses import replace
from typing import Any, List, NamedTuple, Optional, Sequence

import numpy as np

from .environment import pack, unpack
from .lights import SHORTHAND_EXPOSURE, Environment, Light, Rig, Vector, key_light, unit

OPPOSITE = 1e-6  # radians: directions that lie so near to opposite ones have no shortest way between them
LINEAR_OF_LIGHT = ("intensity", "angle", "radius", "range", "cone", "blend")
LINEAR_OF_RIG = ("ambient", "strength", "delight", "shadow_strength", "specular_strength", "roughness")


class Orbit(NamedTuple):
    """One light round the viewer's axis: it begins at the top and goes clockwise as the viewer sees it.

    turns: how often, counter-clockwise where negative. elevation: degrees toward the viewer from the picture's plane.
    """

    turns: float = 1.0
    elevation: float = 35.0


def orbit(way: Orbit, frames: int, loop: bool) -> List[Rig]:
    """The rigs of so many frames, 2 or more, of a white light on an orbit, exposed as the shorthand is.

    In a loop, the frame after the last would be the first: whole turns go on, others swing there and back, as a
    pendulum does. Else the last frame is where the turns end.
    """
    whole, rigs = float(way.turns).is_integer(), []
    level, near = math.cos(math.radians(way.elevation)), math.sin(math.radians(way.elevation))
    for k in range(frames):
        done = k / frames if loop else k / (frames - 1)
        if loop and not whole:
            done = (1 - math.cos(2 * math.pi * done)) / 2
        turned = 2 * math.pi * way.turns * done
        light = key_light(level * math.sin(turned), level * math.cos(turned), near)
        rigs.append(Rig(lights=(light,), exposure=SHORTHAND_EXPOSURE))
    return rigs


def along(keys: Sequence[Rig], frames: int, loop: bool) -> List[Rig]:
    """The rigs of so many frames, 2 or more, that pass the key frames, which are evenly apart.

    keys: two or more with the same number and kinds of lights, their environments known, their exposures all "auto" or
    none. In a loop, the way goes on from the last key frame to the first, and the frame after the last would be the
    first again; where the last key frame is the first, it counts once. Else the last frame is the last key frame.
    """
    if loop and len(keys) > 2 and keys[0] == keys[-1]:
        keys = keys[:-1]
    spans, steps = (len(keys), frames) if loop else (len(keys) - 1, frames - 1)
    rigs = []
    for k in range(frames):
        span, part = divmod(k * spans, steps)  # in whole numbers, so that the key frames are met exactly
        rigs.append(between(keys[span % len(keys)], keys[(span + 1) % len(keys)], part / steps))
    return rigs


def between(one: Rig, other: Rig, t: float) -> Rig:
    """The rig at t, 0 (one) to 1 (other): directions on the sphere, colours in linear light, the rest linear.

    Both have the same number and kinds of lights. Masks, and whether a light casts a shadow, are as in the first, until
    the second is reached. An environment that only one of them has fades. Raises ValueError for an exposure "auto"
    beside one in stops.
    """
    if t in (0, 1):
        return other if t else one
    exposure = one.exposure
    if isinstance(exposure, str) != isinstance(other.exposure, str):
        raise ValueError("there is nothing between an automatic exposure and a fixed one")
    if not isinstance(exposure, str):
        exposure = _mix(one.exposure, other.exposure, t)
    return replace(
        one,
        lights=tuple(_light(a, b, t) for a, b in zip(one.lights, other.lights)),
        environment=_environment(one.environment, other.environment, t),
        exposure=exposure,
        **_mixed(one, other, LINEAR_OF_RIG, t),
    )


def _mix(a: Any, b: Any, t: float) -> Any:
    return a if a == b else (1 - t) * a + t * b  # what stays the same stays so to the bit


def _mixed(a: Any, b: Any, names: Sequence[str], t: float) -> Any:
    return {name: _mix(getattr(a, name), getattr(b, name), t) for name in names}


def _vector(a: Vector, b: Vector, t: float) -> Vector:
    x, y, z = (_mix(p, q, t) for p, q in zip(a, b))
    return (x, y, z)


def _light(a: Light, b: Light, t: float) -> Light:
    position, target = _vector(a.position, b.position, t), _vector(a.target, b.target, t)
    if a.kind == "spot" and math.dist(position, target) < 1e-9:  # it turns over here, and must shine somewhere
        x, y, z = unit([p - q for p, q in zip(a.position, a.target)])
        position = (position[0] + 1e-6 * x, position[1] + 1e-6 * y, position[2] + 1e-6 * z)
    return replace(
        a,
        direction=slerp(a.direction, b.direction, t),
        position=position,
        target=target,
        color=_vector(a.color, b.color, t),
        **_mixed(a, b, LINEAR_OF_LIGHT, t),
    )


def slerp(a: Vector, b: Vector, t: float) -> Vector:
    """The unit vector at t on the shortest arc between two.

    Shoemake, "Animating rotation with quaternion curves", 1985. Opposite ones have no shortest arc: then the way goes
    by the viewer's side, or over the top where one of them is the viewer's direction.
    """
    p, q = np.asarray(unit(a)), np.asarray(unit(b))
    angle = 2 * math.atan2(float(np.linalg.norm(p - q)), float(np.linalg.norm(p + q)))
    if angle < 1e-9:
        return a
    aside = q - p * np.dot(p, q)
    if math.pi - angle < OPPOSITE:
        front = np.array([0.0, 0.0, 1.0])
        aside = front - p * np.dot(front, p)
        if np.linalg.norm(aside) < OPPOSITE:
            aside = np.array([0.0, 1.0, 0.0])
    return unit([float(v) for v in math.cos(t * angle) * p + math.sin(t * angle) * np.asarray(unit(aside.tolist()))])


def _environment(a: Optional[Environment], b: Optional[Environment], t: float) -> Optional[Environment]:
    if a is None or b is None:
        only, share = (b, t) if a is None else (a, 1 - t)
        return only and replace(only, intensity=only.intensity * share)
    rotation = _mix(a.rotation, b.rotation, t)
    if a.texels == b.texels:
        return replace(a, intensity=_mix(a.intensity, b.intensity, t), rotation=rotation)
    return Environment(pack((1 - t) * unpack(a) + t * unpack(b)), 1.0, rotation)
