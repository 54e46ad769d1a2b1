"""The environments that are built in, as data: gradients, suns and soft boxes, and what evaluates them.

Angles are degrees. An azimuth of 0 lies behind the viewer, whose light falls on the photograph from the front; 90 lies
right, 180 behind what is photographed, -90 left.
"""

from dataclasses import dataclass
from typing import Dict, List, Tuple

import numpy as np

from .environment import ROWS as ROWS
from .environment import convolved, cosine, pack, texel_directions
from .lights import Vector, blackbody, hex_color

Stop = Tuple[float, Vector]  # an elevation and the radiance there


@dataclass(frozen=True)
class Glow:
    """A sun, or the glow around one: a lobe that falls to 1/e of its radiance at `width` degrees from its middle."""

    azimuth: float
    elevation: float
    width: float
    radiance: Vector


@dataclass(frozen=True)
class Box:
    """A lit rectangle, upright: half its width and height, and over how much its edges fade."""

    azimuth: float
    elevation: float
    width: float
    height: float
    radiance: Vector
    fade: float = 6.0


@dataclass(frozen=True)
class Sky:
    """An environment. level: mean irradiance of surfaces that face the viewer within 60 degrees, without rotation."""

    title: str
    level: float
    gradient: Tuple[Stop, ...]
    glows: Tuple[Glow, ...] = ()
    boxes: Tuple[Box, ...] = ()


def _light(strength: float, color: str = "", kelvin: float = 6500) -> Vector:
    r, g, b = hex_color(color) if color else blackbody(kelvin)
    return strength * r, strength * g, strength * b


SKIES: Dict[str, Sky] = {
    "sky-overcast": Sky(
        "Overcast sky",
        1.0,
        (
            (-90, _light(0.12, kelvin=5600)),
            (-4, _light(0.18, kelvin=5800)),
            (4, _light(0.7, kelvin=6800)),
            (90, _light(2.4, kelvin=7000)),
        ),
    ),
    "sky-golden-hour": Sky(
        "Golden hour",
        1.0,
        (
            (-90, _light(0.1, "#9a8468")),
            (-3, _light(0.2, "#b59c7c")),
            (3, _light(0.7, "#ffdcb4")),
            (25, _light(0.45, "#b9c8e0")),
            (90, _light(0.3, "#86a6d8")),
        ),
        (Glow(62, 16, 4, _light(220, kelvin=3600)), Glow(62, 14, 25, _light(2.4, kelvin=3800))),
    ),
    "sky-sunset": Sky(
        "Sunset",
        0.85,
        (
            (-90, _light(0.08, "#6a5c68")),
            (-3, _light(0.14, "#80707c")),
            (3, _light(0.8, "#ffb48c")),
            (20, _light(0.6, "#cfa4b4")),
            (50, _light(0.4, "#9096c4")),
            (90, _light(0.3, "#6a7cbc")),
        ),
        (Glow(-74, 6, 5, _light(70, kelvin=2900)), Glow(-74, 5, 32, _light(3.6, "#ff9a5c"))),
    ),
    "sky-night-street": Sky(
        "Street at night",
        0.4,
        (
            (-90, _light(0.04, "#6a6058")),
            (0, _light(0.05, "#66687c")),
            (90, _light(0.05, "#4a5c8c")),
        ),
        (
            Glow(-58, 44, 9, _light(10, kelvin=2900)),
            Glow(130, 30, 9, _light(8, kelvin=2700)),
            Glow(80, 10, 12, _light(2.4, "#6fd0ff")),
        ),
        (Box(-105, 4, 16, 12, _light(1.6, kelvin=3800)),),
    ),
    "studio-softboxes": Sky(
        "Two soft boxes",
        1.0,
        ((-90, _light(0.02)), (90, _light(0.03))),
        (),
        (
            Box(-52, 34, 19, 24, _light(9, kelvin=5800)),
            Box(82, 8, 10, 32, _light(2.2, kelvin=6200)),
            Box(165, 50, 22, 12, _light(6, kelvin=6500)),
        ),
    ),
    "studio-window": Sky(
        "Window",
        0.9,
        ((-90, _light(0.05, kelvin=4800)), (0, _light(0.08, kelvin=5200)), (90, _light(0.09, kelvin=5600))),
        (),
        (
            Box(-92, 14, 12, 28, _light(9, kelvin=6800), fade=3),
            Box(-60, 14, 12, 28, _light(9, kelvin=6800), fade=3),
        ),
    ),
}


def told() -> List[Dict[str, str]]:
    """The environments, for /models and the page: names and titles."""
    return [{"name": name, "title": sky.title} for name, sky in SKIES.items()]


def radiance(sky: Sky) -> np.ndarray:
    """The radiance (ROWS, COLUMNS, 3) float32 of a sky."""
    directions = texel_directions()
    elevation = np.degrees(np.arcsin(directions[..., 1]))
    heights, colours = zip(*sky.gradient)
    found = np.stack([np.interp(elevation, heights, c) for c in zip(*colours)], 2)
    for glow in sky.glows:
        apart = np.degrees(np.arccos(np.clip(directions @ _toward(glow.azimuth, glow.elevation), -1, 1)))
        found += np.exp(-np.square(apart / glow.width))[..., None] * np.array(glow.radiance)
    for box in sky.boxes:
        found += _box(box, directions)[..., None] * np.array(box.radiance)
    level = convolved(found, cosine)[directions[..., 2] > 0.5].mean()
    return np.asarray(found * (sky.level / level), np.float32)


def _toward(azimuth: float, elevation: float) -> np.ndarray:
    a, e = np.radians(azimuth), np.radians(elevation)
    return np.array([np.sin(a) * np.cos(e), np.sin(e), np.cos(a) * np.cos(e)], np.float32)


def _box(box: Box, directions: np.ndarray) -> np.ndarray:
    """(ROWS, COLUMNS): how much of each texel is lit, 0..1."""
    middle = _toward(box.azimuth, box.elevation)
    right = _toward(box.azimuth + 90, 0)
    up = np.cross(middle, right)
    near = np.maximum(directions @ middle, 1e-6)
    inside = directions @ middle > 0
    for axis, half in ((right, box.width), (up, box.height)):
        off = np.degrees(np.arctan(np.abs(directions @ axis) / near))
        inside = inside * np.clip((half - off) / box.fade + 0.5, 0, 1)
    return inside


TEXELS = {name: pack(radiance(sky)) for name, sky in SKIES.items()}  # each as the text of an Environment
