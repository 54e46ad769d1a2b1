"""Relighting: the picture for a rig of lights, from the maps of a photograph.

The ratio image: every pixel of the photograph, in linear light, times (new light) / (estimated old light) at its normal.
"""
from concurrent.futures import ThreadPoolExecutor
from typing import Callable, List, Optional

import cv2
import numpy as np

from .lights import WHITE, Light, Rig, unit
from .maps import LOG, PIXELS, SNORM, Maps, prepare
from .resample import bands
from .transfer import TO_LINEAR, encode

__all__ = ["Cancelled", "illuminate", "prepare", "relight"]

# linear / (1 - linear) of the 256 codes: how soon the shoulder bends a pixel's gain
CROWDED = (TO_LINEAR / np.maximum(1 - TO_LINEAR, np.float32(1e-6))).astype(np.float32)


class Cancelled(Exception):
    """The caller no longer wants the picture."""


def relight(maps: Maps, rig: Rig, threads: int = 1, cancelled: Optional[Callable[[], bool]] = None) -> np.ndarray:
    """The relit picture (H, W, 3) uint8. `cancelled()` is asked between bands: true raises Cancelled.

    Strength 0 gives the photograph itself, to the code.
    """
    _, H, W = maps.rgb.shape
    if rig.strength == 0:
        return np.ascontiguousarray(np.moveaxis(maps.rgb, 0, 2))
    shades = [_Shade(maps, light, rig) for light in rig.lights]
    even = np.exp(np.float32(rig.delight) * maps.light_samples).mean(dtype=np.float64)
    factor = np.float32(even * 2.0 ** rig.exposure)
    out = np.empty((H, W, 3), np.uint8)

    def band(rows):
        if cancelled is not None and cancelled():
            raise Cancelled
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


def illuminate(maps: Maps, rig: Rig, rows: slice, shades: Optional[list] = None):
    """The new light on rows of the picture, before delight and tone: (irradiance, highlights).

    Each is a list of planes (r, W) float32: one where all light is white, else three; highlights [] without specular.
    """
    shades = [_Shade(maps, light, rig) for light in rig.lights] if shades is None else shades
    white = all(tuple(light.color) == WHITE for light in rig.lights)
    glossy = rig.specular_strength > 0
    ambient = np.multiply(maps.occlusion[rows], np.float32(rig.ambient / 255), dtype=np.float32)
    irradiance = [ambient] if white else [ambient, ambient.copy(), ambient.copy()]
    highlights: List[np.ndarray] = [np.zeros_like(ambient) for _ in irradiance] if glossy and rig.lights else []
    n = [np.multiply(p, SNORM, dtype=np.float32) for p in maps.normals[:, rows]] if rig.lights else None
    place = None
    for shade in shades:
        light = shade.light
        if light.kind == "directional":
            l, power = [np.float32(c) for c in light.direction], None
        else:
            place = _positions(maps, rows) if place is None else place
            l, power = _lamp(light, place)
        cosine = n[0] * l[0]
        spare = n[1] * l[1]
        cosine += spare
        cosine += np.multiply(n[2], l[2], out=spare)
        np.maximum(cosine, 0, out=cosine)
        gloss = _ggx(n, l, cosine, rig.roughness) if glossy else None
        if power is not None:
            cosine *= power
        if shade.wide is not None:
            cosine *= maps.from_grid(shade.texels, shade.wide, rows)
        for k, plane in enumerate(irradiance):
            strength = np.float32(light.intensity * light.color[k] if not white else light.intensity)
            lit = np.multiply(cosine, strength, out=spare)
            plane += lit
            if gloss is not None:
                highlights[k] += lit * gloss * np.float32(rig.specular_strength)
    return irradiance, highlights


def _relight_rows(maps, rig, shades, factor, rows, out):
    irradiance, highlights = illuminate(maps, rig, rows, shades)
    old = cv2.exp(np.multiply(maps.log_light[rows], np.float32(-rig.delight) * LOG, dtype=np.float32))
    old = old.reshape(irradiance[0].shape)
    old *= factor
    for ratio in irradiance:
        ratio *= old
    blend = np.float32(rig.strength)
    if maps.mask is not None:
        blend = np.multiply(maps.mask[rows], np.float32(rig.strength / 65535), dtype=np.float32)
    codes = maps.rgb[:, rows]
    if len(irradiance) == 1 and not highlights:
        gain = _bend(irradiance[0], codes)
        gain -= 1
        gain *= blend
        gain += 1
        for k in range(3):
            out[rows, :, k] = encode(np.multiply(_linear(codes[k]), gain, out=old))
        return
    before = [_linear(c) for c in codes]
    after = [b * irradiance[k % len(irradiance)] for k, b in enumerate(before)]
    for k, shine in enumerate(highlights * (3 // max(len(highlights), 1))):
        after[k] += shine * np.float32(2.0 ** rig.exposure)
    kept = _shoulder(np.maximum(np.maximum(*before[:2]), before[2]), np.maximum(np.maximum(*after[:2]), after[2]))
    for k, (b, a) in enumerate(zip(before, after)):
        a *= kept
        a -= b
        a *= blend
        a += b
        out[rows, :, k] = encode(a)


def _linear(codes):
    return cv2.LUT(codes, TO_LINEAR).reshape(codes.shape)


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
    room, more = 1 - old, np.maximum(new - old, 0)
    kept = old + room * more / np.sqrt(room * room + more * more + np.float32(1e-12))
    return np.where(new > old, kept / np.maximum(new, np.float32(1e-12)), np.float32(1))


def _positions(maps, rows):
    """Scene positions (3, r, W) float32 of rows of the picture."""
    H, W = maps.depth.shape
    depth = 1 / maps.depth[rows]
    u = ((np.arange(W) + 0.5) / W * 2 - 1).astype(np.float32)
    v = ((H - 2 * np.arange(H)[rows] - 1) / W).astype(np.float32)
    return np.stack([u * depth, v[:, None] * depth, np.float32(2 * maps.focal) * (1 - depth)])


def _lamp(light: Light, place):
    """Unit vectors toward a lamp in the scene, and how much of it arrives before the cosine."""
    l = [np.float32(c) - p for c, p in zip(light.position, place)]
    square = l[0] * l[0] + l[1] * l[1] + l[2] * l[2]
    np.maximum(square, np.float32(1e-12), out=square)
    shorter = 1 / np.sqrt(square)
    for c in l:
        c *= shorter
    power = 1 / (1 + square * np.float32(1 / light.range ** 2))
    if light.kind == "spot":
        axis = [np.float32(c) for c in unit([a - b for a, b in zip(light.position, light.target)])]
        outer = np.cos(np.radians(light.cone / 2))
        inner = np.cos(np.radians(light.cone / 2) * (1 - light.blend))
        t = l[0] * axis[0] + l[1] * axis[1] + l[2] * axis[2]
        t = np.clip((t - np.float32(outer)) * np.float32(1 / max(inner - outer, 1e-6)), 0, 1)
        power *= t * t * (3 - 2 * t)
    return l, power


def _ggx(n, l, cosine, roughness):
    """Cook-Torrance with GGX, the height-correlated Smith term, Schlick's Fresnel (F0 = 0.04), the viewer at +z.

    Times pi, as the irradiance is. Walter et al. 2007, Heitz 2014. For a mirror direction it is at its largest.
    """
    alpha2 = np.float32(roughness ** 4)
    h = [l[0], l[1], l[2] + np.float32(1)]
    length = np.sqrt(np.maximum(h[0] * h[0] + h[1] * h[1] + h[2] * h[2], np.float32(1e-12)))
    apart = sum(np.square(a / length - b) for a, b in zip(h, n)) * np.float32(0.5)  # 1 - n.h, without cancellation
    apart = np.minimum(apart, 1)
    nv = np.maximum(n[2], np.float32(1e-3))
    sharp = apart * (2 - apart) * (1 - alpha2) + alpha2
    smith = cosine * np.sqrt(nv * nv * (1 - alpha2) + alpha2) + nv * np.sqrt(cosine * cosine * (1 - alpha2) + alpha2)
    fresnel = np.float32(0.04) + np.float32(0.96) * (1 - np.minimum(length / 2, 1)) ** 5
    return alpha2 / (sharp * sharp) * fresnel * np.float32(0.5) / np.maximum(smith, np.float32(1e-6))
