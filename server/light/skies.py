"""The environments that are built in, as data: gradients, suns and soft boxes, and what evaluates them.

Angles are degrees. An azimuth of 0 lies behind the viewer, whose light falls on the photograph from the front; 90 lies
right, 180 behind what is photographed, -90 left.
"""

from dataclasses import dataclass
from typing import Dict, List, Tuple

import numpy as np

from .environment import convolved, cosine, pack, texel_directions
from .lights import Environment, Vector, blackbody, hex_color

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
            (-90, _light(0.16, kelvin=5600)),
            (-4, _light(0.22, kelvin=5800)),
            (4, _light(0.8, kelvin=6900)),
            (90, _light(2.2, kelvin=7200)),
        ),
    ),
    "sky-golden-hour": Sky(
        "Golden hour",
        1.0,
        (
            (-90, _light(0.12, "#8a6a4c")),
            (-3, _light(0.25, "#b98d62")),
            (3, _light(0.9, "#ffcf9a")),
            (25, _light(0.5, "#a9bfe0")),
            (90, _light(0.35, "#6f97d8")),
        ),
        (Glow(60, 14, 4, _light(160, kelvin=3100)), Glow(60, 12, 28, _light(2.4, kelvin=3400))),
    ),
    "sky-sunset": Sky(
        "Sunset",
        0.9,
        (
            (-90, _light(0.06, "#5a4660")),
            (-3, _light(0.14, "#7a5468")),
            (3, _light(1.0, "#ff8a5c")),
            (20, _light(0.55, "#d08aa0")),
            (50, _light(0.3, "#7f82c4")),
            (90, _light(0.22, "#4f66b4")),
        ),
        (Glow(-70, 4, 5, _light(60, kelvin=2100)), Glow(-70, 4, 35, _light(4.0, "#ff7038"))),
    ),
    "sky-night-street": Sky(
        "Street at night",
        0.4,
        ((-90, _light(0.05, "#5a4a3c")), (0, _light(0.05, "#54506a")), (90, _light(0.03, "#2c3a66"))),
        (
            Glow(-50, 42, 7, _light(9, kelvin=2300)),
            Glow(115, 35, 7, _light(6, kelvin=2300)),
            Glow(75, 8, 10, _light(1.6, "#3de0ff")),
            Glow(40, 2, 8, _light(1.0, "#ff4fa0")),
        ),
        (Box(-105, 6, 16, 12, _light(2.0, kelvin=3600)),),
    ),
    "studio-softboxes": Sky(
        "Two soft boxes",
        1.0,
        ((-90, _light(0.05)), (90, _light(0.07))),
        (),
        (
            Box(-48, 28, 20, 26, _light(9, kelvin=5600)),
            Box(78, 12, 12, 32, _light(3.2, kelvin=6000)),
            Box(165, 50, 22, 12, _light(5, kelvin=6500)),
        ),
    ),
    "studio-window": Sky(
        "Window",
        0.9,
        ((-90, _light(0.09, kelvin=4600)), (0, _light(0.14, kelvin=5200)), (90, _light(0.16, kelvin=5600))),
        (),
        (Box(-82, 14, 13, 28, _light(9, kelvin=7000), fade=3), Box(-48, 14, 13, 28, _light(9, kelvin=7000), fade=3)),
    ),
}


def environment(name: str) -> Environment:
    """The environment of that name. Raises KeyError."""
    return Environment(texels=pack(radiance(SKIES[name])))


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
