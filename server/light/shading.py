"""Relighting: the picture for a rig of lights, from the maps of a photograph.

The ratio image: every pixel of the photograph, in linear light, times (new light) / (estimated old light) at its
normal.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import List, Optional

import cv2
import numpy as np

from ..image.resample import bands
from ..image.srgb import TO_LINEAR, decode, encode
from .lights import WHITE, Light, Rig, unit
from .maps import LOG, PIXELS, SNORM, Maps, prepare

__all__ = ["illuminate", "prepare", "relight"]

# linear / (1 - linear) of the 256 codes: how soon the shoulder bends a pixel's gain
CROWDED = (TO_LINEAR / np.maximum(1 - TO_LINEAR, np.float32(1e-6))).astype(np.float32)


def relight(maps: Maps, rig: Rig, threads: int = 1) -> np.ndarray:
    """The relit picture (H, W, 3) uint8. Strength 0 gives the photograph itself, to the code."""
    _, H, W = maps.rgb.shape
    if rig.strength == 0:
        return np.ascontiguousarray(np.moveaxis(maps.rgb, 0, 2))
    shades = [_Shade(maps, light, rig) for light in rig.lights]
    even = np.exp(np.float32(rig.delight) * maps.light_samples).mean(dtype=np.float64)
    factor = float(even * 2.0**rig.exposure)
    out = np.empty((H, W, 3), np.uint8)

    def band(rows):
        _relight_rows(maps, rig, shades, factor, rows, out)

    parts = bands((H, W), PIXELS)
    if threads > 1 and len(parts) > 1:
        with ThreadPoolExecutor(min(threads, len(parts))) as pool:
            list(pool.map(band, parts))
    else:
        for rows in parts:
            band(rows)
    return out


class _Shade:
    """One light of a rig with what its shadow leaves of it on the shadow grid."""

    def __init__(self, maps, light, rig):
        self.light = light
        self.texels = self.wide = None
        if light.shadow and rig.shadow_strength > 0:
            seen = maps.visibility(light)
            self.texels = np.float32(1 - rig.shadow_strength) + np.float32(rig.shadow_strength) * seen
            self.wide = maps.sampler.widen(self.texels)


def illuminate(maps: Maps, rig: Rig, rows: slice, shades: Optional[list] = None, factor: float = 1.0):
    """The new light on rows of the picture, times a factor, before delight and tone: (irradiance, highlights).

    Each is a list of planes (r, W) float32: one where all light is white, else three; highlights [] without specular.
    """
    shades = [_Shade(maps, light, rig) for light in rig.lights] if shades is None else shades
    white = all(tuple(light.color) == WHITE for light in rig.lights)
    glossy = rig.specular_strength > 0
    ambient = np.multiply(maps.occlusion[rows], np.float32(factor * rig.ambient / 255), dtype=np.float32)
    irradiance = [ambient] if white else [ambient, ambient.copy(), ambient.copy()]
    highlights: List[np.ndarray] = [np.zeros_like(ambient) for _ in irradiance] if glossy and rig.lights else []
    n = maps.normals[:, rows]
    floats = place = None
    for shade in shades:
        light = shade.light
        if light.kind == "directional" and not glossy:
            lit = _cosine(n, light.direction)
        else:
            floats = [np.multiply(p, SNORM, dtype=np.float32) for p in n] if floats is None else floats
            l, power = [np.float32(c) for c in light.direction], None
            if light.kind != "directional":
                place = _positions(maps, rows) if place is None else place
                l, power = _lamp(light, place)
            lit = _dot(floats, l)
            np.maximum(lit, 0, out=lit)
            gloss = _ggx(floats, l, lit, rig.roughness) if glossy else None
            if power is not None:
                lit *= power
        if shade.wide is not None:
            lit *= maps.from_grid(shade.texels, shade.wide, rows)
        for k, plane in enumerate(irradiance):
            color = np.float32(factor * light.intensity * (1.0 if white else light.color[k]))
            cv2.scaleAdd(lit, float(color), plane, dst=plane)
            if glossy:
                cv2.scaleAdd(lit * gloss, float(color) * rig.specular_strength, highlights[k], dst=highlights[k])
    return irradiance, highlights


def _dot(a, b):
    """The scalar product of three planes with three planes or numbers, float32."""
    total, spare = a[0] * b[0], a[1] * b[1]
    total += spare
    total += np.multiply(a[2], b[2], out=spare)
    return total


def _cosine(n, direction):
    """max(n.l, 0), (r, W) float32, of 16-bit normals and one direction."""
    x, y, z = (float(c) * float(SNORM) for c in direction)
    lit = cv2.addWeighted(n[0], x, n[1], y, 0, dtype=cv2.CV_32F).reshape(n.shape[1:])
    lit += np.multiply(n[2], np.float32(z), dtype=np.float32)
    return np.maximum(lit, 0, out=lit)


def _relight_rows(maps, rig, shades, factor, rows, out):
    irradiance, highlights = illuminate(maps, rig, rows, shades, factor)
    if rig.delight > 0:
        old = np.multiply(maps.log_light[rows], np.float32(-rig.delight) * LOG, dtype=np.float32)
        old = cv2.exp(old, dst=old)
        for ratio in irradiance:
            ratio *= old
    blend = np.float32(rig.strength)
    if maps.mask is not None:
        blend = np.multiply(maps.mask[rows], np.float32(rig.strength / 65535), dtype=np.float32)
    codes = maps.rgb[:, rows]
    if len(irradiance) == 1 and not highlights:
        gain = _bend(irradiance[0], codes)
        if rig.strength < 1 or maps.mask is not None:
            gain -= 1
            gain *= blend
            gain += 1
        linear = [decode(c) for c in codes]
        cv2.merge([encode(np.multiply(c, gain, out=c)) for c in linear], dst=out[rows])
        return
    before = [decode(c) for c in codes]
    after = [b * irradiance[k % len(irradiance)] for k, b in enumerate(before)]
    for k, shine in enumerate(highlights * (3 // max(len(highlights), 1))):
        cv2.scaleAdd(shine, 2.0**rig.exposure / factor, after[k], dst=after[k])
    kept = _shoulder(_largest(before), _largest(after))
    for b, a in zip(before, after):
        a *= kept
        if rig.strength < 1 or maps.mask is not None:
            a -= b
            a *= blend
            a += b
    cv2.merge([encode(a) for a in after], dst=out[rows])


def _largest(planes):
    largest = np.maximum(planes[0], planes[1])
    return np.maximum(largest, planes[2], out=largest)


def _bend(ratio, codes):
    """The gain of each pixel from its ratio, in place; the shoulder of _shoulder() where light is white.

    With e = ratio - 1 above 1, and p the largest channel: 1 + e / sqrt(1 + (e p / (1 - p))^2).
    """
    largest = cv2.max(cv2.max(codes[0], codes[1]), codes[2])
    more = np.maximum(ratio, 1)
    more -= 1
    bent = cv2.LUT(largest, CROWDED).reshape(ratio.shape)
    bent *= more
    bent *= bent
    bent += 1
    np.sqrt(bent, out=bent)
    more /= bent
    np.minimum(ratio, 1, out=ratio)
    ratio += more
    return ratio


def _shoulder(old, new):
    """The factor that keeps a pixel's largest channel, old before and new after relighting, from reaching white.

    What is added beyond the old value is bent so that it never exceeds the room left; what is not brighter stays.
    """
    kept = np.minimum(old, new)
    more = new - kept
    room = np.subtract(1, old, out=old)
    length = room * room
    length += np.float32(1e-12)
    length += more * more
    np.sqrt(length, out=length)
    more *= room
    more /= length
    kept += more
    kept /= np.maximum(new, np.float32(1e-12), out=new)
    return kept


def _positions(maps, rows):
    """Scene positions of rows of the picture: three planes (r, W) float32."""
    H, W = maps.depth.shape
    depth = 1 / maps.depth[rows]
    u = ((np.arange(W) + 0.5) / W * 2 - 1).astype(np.float32)
    v = ((H - 2 * np.arange(H)[rows] - 1) / W).astype(np.float32)
    x, y = u * depth, v[:, None] * depth
    depth -= 1
    depth *= np.float32(-2 * maps.focal)
    return x, y, depth


def _lamp(light: Light, place):
    """Unit vectors toward a lamp in the scene, and how much of it arrives before the cosine."""
    l = [np.float32(c) - p for c, p in zip(light.position, place)]
    square = _dot(l, l)
    np.maximum(square, np.float32(1e-12), out=square)
    length = np.sqrt(square)
    for c in l:
        c /= length
    power = square
    power *= np.float32(1 / max(light.range, 1e-12) ** 2)
    power += 1
    np.divide(1, power, out=power)
    if light.kind == "spot":
        axis = [np.float32(c) for c in unit([a - b for a, b in zip(light.position, light.target)])]
        outer = np.cos(np.radians(light.cone / 2))
        inner = np.cos(np.radians(light.cone / 2) * (1 - light.blend))
        t = _dot(l, axis)
        t -= np.float32(outer)
        t *= np.float32(1 / max(inner - outer, 1e-6))
        np.maximum(np.minimum(t, 1, out=t), 0, out=t)
        power *= t
        power *= t
        power *= 3 - 2 * t
    return l, power


def _ggx(n, l, cosine, roughness):
    """Cook-Torrance with GGX, the height-correlated Smith term, Schlick's Fresnel (F0 = 0.04), the viewer at +z.

    Times pi, as the irradiance is. Walter et al. 2007, Heitz 2014.
    """
    alpha2 = np.float32(roughness**4)
    h = [l[0], l[1], l[2] + np.float32(1)]
    length = np.sqrt(np.maximum(np.float32(2) * h[2], np.float32(1e-12)))  # |l + v|^2 = 2 + 2 l.v
    off = [a / length - b for a, b in zip(h, n)]
    apart = _dot(off, off)  # 2 (1 - n.h), without cancellation
    apart *= np.float32(0.5)
    np.minimum(apart, 1, out=apart)
    nv = np.maximum(n[2], np.float32(1e-3))
    sharp = apart * (2 - apart)
    sharp *= 1 - alpha2
    sharp += alpha2
    smith = cosine * np.sqrt(nv * nv * (1 - alpha2) + alpha2)
    smith += nv * np.sqrt(cosine * cosine * (1 - alpha2) + alpha2)
    miss = 1 - np.minimum(length * np.float32(0.5), 1)
    fresnel = np.square(np.square(miss)) * miss * np.float32(0.96) + np.float32(0.04)
    fresnel *= alpha2 * np.float32(0.5)
    sharp *= sharp
    sharp *= np.maximum(smith, np.float32(1e-6), out=smith)
    return fresnel / sharp
