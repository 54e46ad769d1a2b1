"""Lights and the settings of one relit picture, with the defaults (the only place that states them)."""

import math
import re
from dataclasses import dataclass
from typing import Literal, Optional, Sequence, Tuple, Union

import numpy as np

from ..image.srgb import srgb_to_linear

Vector = Tuple[float, float, float]
Exposure = Union[float, Literal["auto"]]  # in stops

LUMINANCE = np.array([0.2126, 0.7152, 0.0722])  # of linear sRGB
WHITE: Vector = (1.0, 1.0, 1.0)
XYZ_TO_SRGB = np.array(
    [[3.2404542, -1.5371385, -0.4985314], [-0.9692660, 1.8760108, 0.0415560], [0.0556434, -0.2040259, 1.0572252]]
)


@dataclass(frozen=True)
class Mask:
    """Where in the photograph something happens: which mask, whether its opposite, and how softly it ends.

    feather: how far it fades to each side of its edge, in picture widths; see masks.py. version: which picture that
    name stood for, as text; "": the name is one of BUILT_IN, or has not been looked up.
    """

    name: str
    invert: bool = False
    feather: float = 0.0
    version: str = ""


SKY, SUBJECT = "sky", "subject"
BUILT_IN = (SKY, SUBJECT)  # masks that nobody draws


@dataclass(frozen=True)
class Light:
    """One light. Axes: +x right, +y up, +z toward the viewer; a direction points from the scene toward the light.

    kind: "directional" (direction, angle), "point" (position, radius, range) or "spot" (also target, cone, blend).
    color: linear sRGB scaled to luminance 1. angle, cone: degrees. Lengths: half picture widths at the median surface.
    mask: where it reaches; None: everywhere.
    """

    kind: str = "directional"
    direction: Vector = (0.0, 0.0, 1.0)
    position: Vector = (0.0, 0.0, 1.0)
    target: Vector = (0.0, 0.0, 0.0)
    color: Vector = WHITE
    intensity: float = 1.0
    angle: float = 20.0
    radius: float = 0.2
    range: float = 1.0
    cone: float = 45.0
    blend: float = 0.3
    shadow: bool = True
    mask: Optional[Mask] = None


@dataclass(frozen=True)
class Environment:
    """Light from all around, see environment.py.

    texels: its radiance, as text that a picture can carry. rotation: degrees about the vertical. of: whose it is while
    that has not been looked up: UPLOADED, the job's own, or the id of the job in whose light it is to be; "": known.
    """

    texels: str = ""
    intensity: float = 1.0
    rotation: float = 0.0
    of: str = ""


UPLOADED = "upload"


@dataclass(frozen=True)
class Rig:
    """Everything one relit picture depends on besides the photograph.

    exposure: stops, or "auto": those at which it is as bright as the photograph, see auto_exposure in shading.py.
    mask: where the photograph is relit; None: everywhere.
    """

    lights: Tuple[Light, ...] = ()
    ambient: float = 0.2
    strength: float = 1.0
    delight: float = 0.85
    shadow_strength: float = 0.4
    specular_strength: float = 0.0
    roughness: float = 0.5
    exposure: Exposure = 0.0
    environment: Optional[Environment] = None
    mask: Optional[Mask] = None

    @property
    def masks(self) -> Tuple[Mask, ...]:
        """Those of the picture and of the lights, each once."""
        masks = [self.mask, *(light.mask for light in self.lights)]
        return tuple(dict.fromkeys(mask for mask in masks if mask is not None))


def unit(vector: Sequence[float]) -> Vector:
    """The vector scaled to length 1, safe for the tiniest and the largest floats. ValueError for the zero vector."""
    largest = max(abs(float(v)) for v in vector)
    if not 0 < largest < math.inf:
        raise ValueError("a direction needs finite numbers that are not all 0")
    scaled = [float(v) / largest for v in vector]
    length = math.sqrt(sum(v * v for v in scaled))
    return (scaled[0] / length, scaled[1] / length, scaled[2] / length)


def hex_color(text: str) -> Vector:
    """ "#rrggbb" (sRGB) as linear sRGB of luminance 1. ValueError if it is no such colour, or black."""
    if not re.fullmatch(r"#[0-9a-fA-F]{6}", text):
        raise ValueError("a colour is written #rrggbb")
    return _luminance_one(srgb_to_linear([int(text[i : i + 2], 16) / 255 for i in (1, 3, 5)]))


def blackbody(kelvin: float) -> Vector:
    """A black body of 1000..40000 K as linear sRGB of luminance 1, relative to 6500 K (which is neutral).

    Planck's law times the colour matching functions of Wyman, Sloan, Shirley: Simple Analytic Approximations to the
    CIE XYZ Color Matching Functions (JCGT 2013), to linear sRGB; what is outside the gamut is clipped.
    """
    return _luminance_one(np.maximum(_planck(kelvin), 0.0) / _planck(6500.0))


def _planck(kelvin: float) -> np.ndarray:
    nm = np.arange(380.0, 781.0, 5.0)
    radiance = nm**-5.0 / np.expm1(1.4387769e7 / (nm * kelvin))

    def lobe(middle: float, below: float, above: float) -> np.ndarray:
        return np.exp(-0.5 * ((nm - middle) * np.where(nm < middle, below, above)) ** 2)

    x = 0.362 * lobe(442.0, 0.0624, 0.0374) + 1.056 * lobe(599.8, 0.0264, 0.0323) - 0.065 * lobe(501.1, 0.0490, 0.0382)
    y = 0.821 * lobe(568.8, 0.0213, 0.0247) + 0.286 * lobe(530.9, 0.0613, 0.0322)
    z = 1.217 * lobe(437.0, 0.0845, 0.0278) + 0.681 * lobe(459.0, 0.0385, 0.0725)
    xyz = np.array([(radiance * curve).sum() for curve in (x, y, z)])
    return XYZ_TO_SRGB @ (xyz / xyz[1])


def _luminance_one(rgb: np.ndarray) -> Vector:
    luminance = float(np.dot(LUMINANCE, rgb))
    if not luminance > 0:
        raise ValueError("black gives no light")
    r, g, b = (float(v) / luminance for v in rgb)
    return (r, g, b)


SHORTHAND_EXPOSURE: Exposure = "auto"  # where only `x, y, z` gives the light


def key_light(x: float, y: float, z: float, shadow: Optional[bool] = True) -> Light:
    """The light that only `x, y, z` asks for: white, distant, casting a shadow."""
    return Light(direction=unit((x, y, z)), shadow=bool(shadow))
