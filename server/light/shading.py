"""Relighting: the picture for a rig of lights, from the maps of a photograph.

The ratio image: every pixel of the photograph, in linear light, times (new light) / (estimated old light) at its
normal.
"""

from typing import Any, Callable, List, NamedTuple, Optional, Sequence, Tuple, Union

import cv2
import numpy as np

from ..image.resample import in_threads
from ..image.srgb import LUMINANCE, TO_LINEAR, decode, decode_to_steps, encode, encode_steps
from ..scene.normals import scene_positions, view_grid
from .environment import look_up_normals
from .exposure import matching_exposure
from .lights import WHITE, Environment, Light, Rig, unit
from .maps import Band, GridPlane, Maps, mean_of_light, prepare

__all__ = ["auto_exposure", "exposure_of", "illuminate", "linear_rows", "prepare", "relight", "shades_of"]

# linear / (1 - linear) of the 256 codes: how soon the tone curve bends a pixel's gain
SHOULDER_BY_CODE = (TO_LINEAR / np.maximum(1 - TO_LINEAR, np.float32(1e-6))).astype(np.float32)

Planes = Sequence[Union[np.ndarray, np.float32]]  # the x, y and z of many vectors, or of one
Blend = Optional[Union[np.float32, np.ndarray]]  # how much of the change is shown; None: all of it


def relight(maps: Maps, rig: Rig, threads: int = 1) -> np.ndarray:
    """The relit picture (H, W, 3) uint8. Strength 0 gives the photograph itself, to the code."""
    if rig.strength == 0:
        return maps.rgb.copy()
    shades = shades_of(maps, rig)
    even, gain = _even(maps, rig), 2.0 ** exposure_of(maps, rig)
    out = np.empty(maps.rgb.shape, np.uint8)
    threads = 1 if maps.keeps else threads
    in_threads(lambda rows: _relight_rows(maps, rig, shades, even, gain, rows, out), maps.bands(threads), threads)
    return out


def linear_rows(maps: Maps, rig: Rig) -> Callable[[slice], List[np.ndarray]]:
    """What relights rows of a picture, as relight does, but to linear light: three planes (r, W) float32, 0..1."""
    shades = shades_of(maps, rig)
    even, gain = _even(maps, rig), 2.0 ** exposure_of(maps, rig)

    def light(rows: slice) -> List[np.ndarray]:
        band = maps.band(rows)
        if rig.strength == 0:
            return [decode(c) for c in band.codes]
        ratios, highlights = _ratios(maps, band, rig, rows, shades, even * gain)
        return _in_linear_light(band, ratios, highlights, 1 / even, _blend(maps, band, rig, rows))

    return light


def exposure_of(maps: Maps, rig: Rig) -> float:
    """The exposure of a rig in stops."""
    return auto_exposure(maps, rig) if isinstance(rig.exposure, str) else rig.exposure


def auto_exposure(maps: Maps, rig: Rig) -> float:
    """The exposure in stops, -2..2, that "auto" stands for: the relit picture is as bright as the photograph.

    Measured on the samples of the photograph's surfaces, with a mask of the picture those in it, before the tone curve
    and whatever the strength, so that it is the same for pictures of all sizes. The exposure of the rig is not used.
    """
    samples = maps if maps.samples is None else maps.samples
    rows = slice(0, samples.size[0])
    band, even = samples.band(rows), _even(maps, rig)
    ratios, highlights = _ratios(samples, band, rig, rows, shades_of(samples, rig), even)
    before = [decode(c) for c in band.codes]
    after = _before_tone(before, ratios, highlights, 1 / even)
    share = _share(samples, band, rig, rows)
    if share is not None and not (share > 0.5).any():  # nothing much is relit
        share = band.share
    surface = np.s_[:] if share is None else share > 0.5
    return matching_exposure(*(np.tensordot(LUMINANCE, np.stack(p), 1)[surface].ravel() for p in (before, after)))


def _even(maps: Maps, rig: Rig) -> float:
    """What makes the mean over the surfaces of the light that is divided out 1."""
    return mean_of_light(maps.shared.light_samples, rig.delight)


class _Shade:
    """One light of a rig with what its shadow leaves of it on the shadow grid; None: all of it."""

    def __init__(self, maps: Maps, light: Light, rig: Rig):
        self.light = light
        self.shadow: Optional[GridPlane] = None
        if light.shadow and rig.shadow_strength > 0:
            seen = maps.shared.visibility(light)
            self.shadow = maps.on_grid(np.float32(1 - rig.shadow_strength) + np.float32(rig.shadow_strength) * seen)


class _Around:
    """The environment of a rig: its tables by normals, and what arrives of it on the shadow grid, by colour.

    None: what ambient occlusion leaves.
    """

    def __init__(self, maps: Maps, environment: Environment, rig: Rig):
        self.tables = maps.shared.surround(environment, rig.roughness if rig.specular_strength > 0 else None)
        share = maps.shared.share_of(environment) if rig.shadow_strength > 0 else None
        self.share: Optional[GridPlane] = None
        if share is not None:
            strength = np.float32(rig.shadow_strength)
            self.share = maps.on_grid((1 - strength) * maps.shared.occlusion + strength * share)

    def arriving(self, maps: Maps, band: Band, rows: slice) -> List[np.ndarray]:
        """Three planes (r, W) float32 0..1: the share of each colour's light that arrives at rows of the picture."""
        return [band.occlusion] * 3 if self.share is None else list(maps.from_grid(self.share, rows))


class Shades(NamedTuple):
    """The lights of a rig and its environment, each with what its shadow leaves of it."""

    lights: List[_Shade]
    around: Optional[_Around]


def shades_of(maps: Maps, rig: Rig) -> Shades:
    """The shades of a rig."""
    lights = [_Shade(maps, light, rig) for light in rig.lights]
    return Shades(lights, None if rig.environment is None else _Around(maps, rig.environment, rig))


def illuminate(
    maps: Maps, rig: Rig, rows: slice, shades: Optional[Shades] = None, factor: float = 1.0
) -> Tuple[List[np.ndarray], List[np.ndarray]]:
    """The new light on rows of the picture, times a factor, before delight and tone: (irradiance, highlights).

    Each is a list of planes (r, W) float32: one where all light is white, else three; highlights [] without specular.
    """
    shades = shades_of(maps, rig) if shades is None else shades
    return _illuminate(maps, maps.band(rows), rig, rows, shades, factor)


def _illuminate(
    maps: Maps, band: Band, rig: Rig, rows: slice, shades: Shades, factor: float
) -> Tuple[List[np.ndarray], List[np.ndarray]]:
    white = rig.environment is None and all(tuple(light.color) == WHITE for light in rig.lights)
    glossy = rig.specular_strength > 0
    irradiance, highlights = _begun(maps, band, rig, rows, shades, factor, 1 if white else 3)
    n = list(band.normals)
    place = None
    for shade in shades.lights:
        light = shade.light
        to_light: Planes = [np.float32(c) for c in light.direction]
        attenuation: Optional[np.ndarray] = None
        if light.kind != "directional":
            place = _places(maps, rows) if place is None else place
            to_light, attenuation = _toward_lamp(light, place)
        n_dot_l = _n_dot_l(n, to_light)
        specular = _ggx(n, to_light, n_dot_l, rig.roughness) if glossy else None
        if attenuation is not None:
            n_dot_l *= attenuation
        if shade.shadow is not None:
            n_dot_l *= maps.from_grid(shade.shadow, rows)
        if light.mask is not None:
            n_dot_l *= maps.mask(light.mask, rows)
        for k, plane in enumerate(irradiance):
            color = np.float32(factor * light.intensity * (1.0 if white else light.color[k]))
            cv2.scaleAdd(n_dot_l, float(color), plane, dst=plane)
            if glossy:
                cv2.scaleAdd(n_dot_l * specular, float(color) * rig.specular_strength, highlights[k], dst=highlights[k])
    return irradiance, highlights


def _begun(
    maps: Maps, band: Band, rig: Rig, rows: slice, shades: Shades, factor: float, colours: int
) -> Tuple[List[np.ndarray], List[np.ndarray]]:
    """What _illuminate gives without the lights: so many planes (r, W) of ambient light and the environment's."""
    irradiance: List[np.ndarray] = []
    highlights: List[np.ndarray] = []
    if shades.around is not None:
        irradiance, highlights = _from_around(maps, band, rig, rows, shades.around, factor)
    if rig.ambient > 0 or not irradiance:
        ambient = band.occlusion * np.float32(factor * rig.ambient)
        if irradiance:
            irradiance = [np.add(plane, ambient, out=plane) for plane in irradiance]
        else:
            irradiance = [ambient, *(ambient.copy() for _ in range(colours - 1))]
    if rig.specular_strength > 0 and rig.lights and not highlights:
        highlights = [np.zeros_like(plane) for plane in irradiance]
    return irradiance, highlights


def _from_around(
    maps: Maps, band: Band, rig: Rig, rows: slice, around: _Around, factor: float
) -> Tuple[List[np.ndarray], List[np.ndarray]]:
    """The light of an environment, as _illuminate has it: three planes (r, W) each; highlights [] without specular."""
    facing, shares = maps.facing(rows), around.arriving(maps, band, rows)

    def arriving(tables: np.ndarray, scale: float) -> List[np.ndarray]:
        lit: Any = [look_up_normals(table, facing) for table in tables]
        return [cv2.multiply(a, s, dst=a, scale=scale).reshape(facing.shape) for a, s in zip(lit, shares)]

    return arriving(around.tables[:3], factor), arriving(around.tables[3:], factor * rig.specular_strength)


def _dot(a: Planes, b: Planes) -> np.ndarray:
    """The scalar product of three planes with three planes or numbers, float32."""
    total: Any = a[0] * b[0]
    spare: Any = a[1] * b[1]
    total += spare
    total += np.multiply(a[2], b[2], out=spare)
    return np.asarray(total)


def _n_dot_l(n: Sequence[np.ndarray], to_light: Planes) -> np.ndarray:
    """max(n.l, 0), (r, W) float32."""
    if np.ndim(to_light[0]) == 0:
        x, y, z = (float(c) for c in to_light)
        n_dot_l: np.ndarray = cv2.addWeighted(n[0], x, n[1], y, 0)
        n_dot_l = cv2.scaleAdd(n[2], z, n_dot_l, dst=n_dot_l).reshape(n[0].shape)
    else:
        n_dot_l = _dot(n, to_light)
    return np.maximum(n_dot_l, 0, out=n_dot_l)


def _relight_rows(maps: Maps, rig: Rig, shades: Shades, even: float, gain: float, rows: slice, out: np.ndarray) -> None:
    band = maps.band(rows)
    ratios, highlights = _ratios(maps, band, rig, rows, shades, even * gain)
    blend = _blend(maps, band, rig, rows)
    if len(ratios) == 1 and not highlights:
        codes = _under_white_light(band, ratios[0], blend)
    else:
        codes = _under_coloured_light(band, ratios, highlights, 1 / even, blend)
    cv2.merge(codes, dst=out[rows])


def _blend(maps: Maps, band: Band, rig: Rig, rows: slice) -> Blend:
    share = _share(maps, band, rig, rows)
    if share is not None:
        return share * np.float32(rig.strength)
    return None if rig.strength == 1 else np.float32(rig.strength)


def _share(maps: Maps, band: Band, rig: Rig, rows: slice) -> Optional[np.ndarray]:
    """How much of each pixel is relit, (r, W) float32 0..1: the surfaces, where the picture's mask is; None: all."""
    if rig.mask is None:
        return band.share
    mask = maps.mask(rig.mask, rows)
    return mask if band.share is None else mask * band.share


def _ratios(
    maps: Maps, band: Band, rig: Rig, rows: slice, shades: Shades, factor: float
) -> Tuple[List[np.ndarray], List[np.ndarray]]:
    """The same as _illuminate, but the irradiance is relative to the photograph's own, as far as delight goes."""
    ratios, highlights = _illuminate(maps, band, rig, rows, shades, factor)
    if rig.delight > 0:
        old: np.ndarray = band.log_light * np.float32(-rig.delight)
        old = cv2.exp(old, dst=old)
        for ratio in ratios:
            ratio *= old
    return ratios, highlights


def _under_white_light(band: Band, ratio: np.ndarray, blend: Blend) -> List[np.ndarray]:
    """The fast path: where all light is white and nothing shines, one gain (r, W) does for the three channels.

    Returns their codes.
    """
    codes = band.codes
    gain = _tone_gain_in_place(ratio, codes, band.headroom)
    if blend is not None:
        gain -= 1
        gain *= blend
        gain += 1
    steps = [decode_to_steps(c) for c in codes]
    return [encode_steps(np.multiply(c, gain, out=c)) for c in steps]


def _under_coloured_light(
    band: Band, ratios: List[np.ndarray], highlights: List[np.ndarray], scale: float, blend: Blend
) -> List[np.ndarray]:
    """Three channels, each with its own ratio and, times `scale`, its own highlights. Returns their codes."""
    return [encode(a) for a in _in_linear_light(band, ratios, highlights, scale, blend)]


def _in_linear_light(
    band: Band, ratios: List[np.ndarray], highlights: List[np.ndarray], scale: float, blend: Blend
) -> List[np.ndarray]:
    before = [decode(c) for c in band.codes]
    if band.headroom is not None:
        most = ratios[0].copy() if len(ratios) == 1 else _largest_channel(ratios)
        whiter = _whiter(np.minimum(most, 1, out=most), band.headroom)
        for ratio in ratios:
            ratio *= whiter
    after = _before_tone(before, ratios, highlights, scale)
    kept = _tone_factor(_largest_channel(before), _largest_channel(after))
    for b, a in zip(before, after):
        a *= kept
        if blend is not None:
            a -= b
            a *= blend
            a += b
    return after


def _before_tone(
    before: Sequence[np.ndarray], ratios: List[np.ndarray], highlights: List[np.ndarray], scale: float
) -> List[np.ndarray]:
    """Three channels (r, W) in linear light times their ratios plus, times `scale`, their highlights."""
    after = [b * ratios[k % len(ratios)] for k, b in enumerate(before)]
    for k, highlight in enumerate(highlights * (3 // max(len(highlights), 1))):
        cv2.scaleAdd(highlight, scale, after[k], dst=after[k])
    return after


# Where the photograph is clipped, by how much is unknown: the surface may have been 1 + h times as bright as its codes
# say. As light is taken away, it stays white the longer: a ratio r < 1 becomes r (1 + h) / (1 + h r), which is 1 at 1,
# without a crease, and (1 + h) r in the dark.


def _whiter(ratio: np.ndarray, headroom: np.ndarray) -> np.ndarray:
    """(1 + h) / (1 + h r) for ratios r (r, W) of at most 1."""
    below = headroom * ratio
    below += 1
    return np.asarray((headroom + 1) / below)


# The tone curve: a pixel whose largest channel p becomes p + d > p is scaled so that it becomes
# p + d / sqrt(1 + (d / (1 - p))^2) instead, which never reaches white; what does not grow brighter stays as it is.


def _largest_channel(planes: Sequence[np.ndarray]) -> np.ndarray:
    largest = np.maximum(planes[0], planes[1])
    return np.maximum(largest, planes[2], out=largest)


def _tone_gain_in_place(ratio: np.ndarray, codes: Sequence[np.ndarray], headroom: Optional[np.ndarray]) -> np.ndarray:
    """The tone curve where all three channels (r, W) uint8 have one ratio (r, W), which becomes their gain.

    With e = ratio - 1 > 0, and d = e p: 1 + e / sqrt(1 + (e p / (1 - p))^2).
    """
    largest = cv2.max(cv2.max(codes[0], codes[1]), codes[2])
    kept = np.minimum(ratio, 1)
    ratio -= kept
    if headroom is not None:
        kept *= _whiter(kept, headroom)
    bent: np.ndarray = cv2.LUT(largest, SHOULDER_BY_CODE).reshape(ratio.shape)
    bent *= ratio
    bent *= bent
    bent += 1
    np.sqrt(bent, out=bent)
    ratio /= bent
    ratio += kept
    return ratio


def _tone_factor(old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """The tone curve as a factor on the new colour, from its largest channel before and after; uses up both arrays."""
    kept = np.minimum(old, new)
    more = new - kept
    room = np.subtract(1, old, out=old)
    length: np.ndarray = cv2.magnitude(room, more).reshape(room.shape)
    more *= room
    more /= np.maximum(length, np.float32(1e-6), out=length)
    kept += more
    kept /= np.maximum(new, np.float32(1e-12), out=new)
    return kept


def _places(maps: Maps, rows: slice) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scene positions of rows of the picture: three planes (r, W) float32."""
    u, v = view_grid(*maps.size)
    return scene_positions(maps.depth(rows), u, v[rows], maps.shared.focal)


def _toward_lamp(light: Light, place: Sequence[np.ndarray]) -> Tuple[List[np.ndarray], np.ndarray]:
    """Unit vectors toward a lamp in the scene, and how much of it arrives before the cosine."""
    to_light = [np.float32(c) - p for c, p in zip(light.position, place)]
    square = _dot(to_light, to_light)
    np.maximum(square, np.float32(1e-12), out=square)
    length = np.sqrt(square)
    for c in to_light:
        c /= length
    attenuation = square
    attenuation *= np.float32(1 / max(light.range, 1e-12) ** 2)
    attenuation += 1
    np.divide(1, attenuation, out=attenuation)
    if light.kind == "spot":
        axis = [np.float32(c) for c in unit([a - b for a, b in zip(light.position, light.target)])]
        outer = np.cos(np.radians(light.cone / 2))
        inner = np.cos(np.radians(light.cone / 2) * (1 - light.blend))
        t = _dot(to_light, axis)
        t -= np.float32(outer)
        t *= np.float32(1 / max(inner - outer, 1e-6))
        np.maximum(np.minimum(t, 1, out=t), 0, out=t)
        attenuation *= t
        attenuation *= t
        attenuation *= 3 - 2 * t
    return to_light, attenuation


def _ggx(n: Sequence[np.ndarray], to_light: Planes, NoL: np.ndarray, roughness: float) -> np.ndarray:
    """Cook-Torrance with GGX, the height-correlated Smith term, Schlick's Fresnel (F0 = 0.04), the viewer at +z.

    Times pi, as the irradiance is. Walter et al. 2007, Heitz 2014.
    """
    alpha2 = np.float32(roughness**4)
    h = [to_light[0], to_light[1], to_light[2] + np.float32(1)]
    length = np.sqrt(np.maximum(np.float32(2) * h[2], np.float32(1e-12)))  # |l + v|^2 = 2 + 2 l.v
    off = [a / length - b for a, b in zip(h, n)]
    one_minus_NoH = _dot(off, off)  # 2 (1 - n.h), without cancellation
    one_minus_NoH *= np.float32(0.5)
    np.minimum(one_minus_NoH, 1, out=one_minus_NoH)
    NoV = np.maximum(n[2], np.float32(1e-3))
    D = one_minus_NoH * (2 - one_minus_NoH)
    D *= 1 - alpha2
    D += alpha2
    V = NoL * np.sqrt(NoV * NoV * (1 - alpha2) + alpha2)
    V += NoV * np.sqrt(NoL * NoL * (1 - alpha2) + alpha2)
    grazing = 1 - np.minimum(length * np.float32(0.5), 1)
    F = np.square(np.square(grazing)) * grazing * np.float32(0.96) + np.float32(0.04)
    F *= alpha2 * np.float32(0.5)
    D *= D
    D *= np.maximum(V, np.float32(1e-6), out=V)
    return F / D
