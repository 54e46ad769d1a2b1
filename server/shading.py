"""Relighting: the maps of a photograph once per picture size, and the relit picture for a rig of lights.

The ratio image: every pixel of the photograph, in linear light, times (new light) / (estimated old light) at its normal.
"""
import threading
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Dict, Optional

import cv2
import numpy as np

from . import occlusion, shadows
from .geometry import Geometry
from .illumination import light_at
from .lights import Light, Rig, unit
from .resample import Resampler, shrink
from .scene import coarse_scene, relative_depth, scene_normals
from .transfer import TO_LINEAR, encode

PIXELS = 1 << 16  # of a band: its float32 planes stay in the cache
SNORM = np.float32(1 / 32767)
LOG = np.float32(1 / 8192)  # of a step of Maps.log_light
SHADOWS_KEPT = 32
DARKEST = 1e-6


class Superseded(Exception):
    """The caller no longer wants the picture."""


@dataclass
class Maps:
    """What relight needs of one picture size (H, W), as small as 8-bit results allow; nbytes is what it holds."""

    rgb: np.ndarray  # (3, H, W) uint8 sRGB
    normals: np.ndarray  # (3, H, W) int16, times 32767
    depth: np.ndarray  # (H, W) uint16: q from depth_range[0] to depth_range[1]
    depth_range: tuple
    log_light: np.ndarray  # (H, W) int16, times 8192: natural logarithm of the estimated old light
    light_samples: np.ndarray  # (n,) float32: the same logarithm over the whole photograph, the same for every size
    occlusion: np.ndarray  # (H, W) uint8
    mask: Optional[np.ndarray]  # (H, W) uint8; None: a surface everywhere
    focal: float
    coarse: np.ndarray  # (h, w) float32: q of the shadow grid
    shadows: "OrderedDict" = field(default_factory=OrderedDict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def nbytes(self) -> int:
        """Bytes held, with the shadow cache full."""
        arrays = (self.rgb, self.normals, self.depth, self.log_light, self.occlusion, self.mask, self.coarse)
        return sum(a.nbytes for a in arrays if a is not None) + SHADOWS_KEPT * self.coarse.size * 4


def prepare(rgb: np.ndarray, geometry: Geometry, fit: Dict) -> Maps:
    """The maps of a picture rgb (H, W, 3) uint8 of any size, from the geometry and fit_scene of its photograph."""
    H, W = rgb.shape[:2]
    n = scene_normals(geometry, fit)
    log_grid = np.log(light_at(n[..., 0], n[..., 1], n[..., 2], fit["light"]))
    surface = np.ones(log_grid.shape, bool) if geometry.mask is None else geometry.mask > 0.5
    samples = log_grid[surface] if surface.any() else log_grid.ravel()
    coarse, _ = coarse_scene(geometry, fit, shadows.SIDE)
    ao = occlusion.ambient_occlusion(coarse, fit["focal"])
    planes = [*np.moveaxis(n, 2, 0), relative_depth(geometry.inverse_depth, fit)]
    if geometry.mask is not None:
        planes.append(np.asarray(geometry.mask, np.float32))
    planes = shrink(np.stack(planes), (H, W))
    sampler = Resampler(planes.shape[1:], (H, W))
    wide = [sampler.widen(p) for p in planes]
    low, high = float(planes[3].min()), float(planes[3].max())
    maps = Maps(rgb=np.ascontiguousarray(np.moveaxis(rgb, 2, 0)), normals=np.empty((3, H, W), np.int16),
                depth=np.empty((H, W), np.uint16), depth_range=(low, high), log_light=np.empty((H, W), np.int16),
                light_samples=samples[:: max(1, samples.size // 20000)],
                occlusion=cv2.resize(np.rint(ao * 255).astype(np.uint8), (W, H), interpolation=cv2.INTER_LINEAR),
                mask=None if geometry.mask is None else np.empty((H, W), np.uint8), focal=fit["focal"], coarse=coarse)
    for rows in _bands(H, W):
        x, y, z, q = (sampler.rows(p, rows.start, rows.stop) for p in wide[:4])
        length = np.maximum(np.sqrt(x * x + y * y + z * z), np.float32(1e-6))
        x, y, z = x / length, y / length, z / length
        for k, p in enumerate((x, y, z)):
            maps.normals[k, rows] = np.rint(p / SNORM)
        maps.depth[rows] = np.rint((q - np.float32(low)) * np.float32(65535 / (high - low) if high > low else 0))
        maps.log_light[rows] = np.rint(np.clip(np.log(light_at(x, y, z, fit["light"])), -3.9, 3.9) / LOG)
        if maps.mask is not None:
            maps.mask[rows] = np.rint(np.clip(sampler.rows(wide[4], rows.start, rows.stop), 0, 1) * 255)
    return maps


def _bands(H, W):
    step = max(1, PIXELS // W)
    return [slice(start, min(start + step, H)) for start in range(0, H, step)]


def relight(maps: Maps, rig: Rig, threads: int = 1, cancelled=None) -> np.ndarray:
    """The relit picture (H, W, 3) uint8. `cancelled()` is asked between bands: true raises Superseded.

    Strength 0 gives the photograph itself, to the code.
    """
    _, H, W = maps.rgb.shape
    if rig.strength == 0:
        return np.ascontiguousarray(np.moveaxis(maps.rgb, 0, 2))
    grid = Resampler(maps.coarse.shape, (H, W))
    wide = [_shadow(maps, light, grid) if light.shadow and rig.shadow_strength > 0 else None for light in rig.lights]
    out = np.empty((H, W, 3), np.uint8)

    def band(rows):
        if cancelled is not None and cancelled():
            raise Superseded
        _relight_rows(maps, rig, rows, [None if s is None else (s, grid) for s in wide], out)

    if threads > 1:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(band, _bands(H, W)))
    else:
        for rows in _bands(H, W):
            band(rows)
    return out


def _shadow(maps, light, grid):
    """The visibility of one lamp, from the cache of these maps or marched."""
    key = (light.kind, light.direction, light.position, light.angle, light.radius)
    with maps.lock:
        if key in maps.shadows:
            maps.shadows.move_to_end(key)
            return maps.shadows[key]
    seen = grid.widen(shadows.visibility(light, maps.coarse, maps.focal))
    with maps.lock:
        maps.shadows[key] = seen
        while len(maps.shadows) > SHADOWS_KEPT:
            maps.shadows.popitem(last=False)
    return seen


def _relight_rows(maps, rig, rows, shadow, out):
    n = maps.normals[:, rows] * SNORM
    ratio, shine = illuminate(maps, rig, rows, n, shadow)
    log_light = maps.log_light[rows] * LOG
    reference = cv2.exp(log_light * np.float32(-rig.delight)) * np.float32(
        np.exp(rig.delight * maps.light_samples).mean() * 2.0 ** rig.exposure)
    for k in range(3):
        ratio[k] *= reference
    linear = cv2.LUT(np.ascontiguousarray(maps.rgb[:, rows]), TO_LINEAR).reshape(3, *log_light.shape)
    lit = linear * ratio + shine * np.float32(2.0 ** rig.exposure)
    old, new = linear.max(0), lit.max(0)
    room, more = 1 - old, np.maximum(new - old, 0)
    kept = old + room * more / np.sqrt(room * room + more * more + np.float32(1e-12))
    lit *= np.where(new > old, kept / np.maximum(new, np.float32(DARKEST)), 1)
    blend = np.float32(rig.strength)
    if maps.mask is not None:
        blend = maps.mask[rows] * np.float32(rig.strength / 255)
    linear += (lit - linear) * blend
    for k in range(3):
        out[rows, :, k] = encode(linear[k])


def illuminate(maps, rig, rows, n, shadow):
    """The new light on rows of the picture: (irradiance, specular), (3, r, W) float32, before any tone."""
    shape = n.shape[1:]
    E = np.empty((3, *shape), np.float32)
    E[:] = maps.occlusion[rows] * np.float32(rig.ambient / 255)
    shine = np.zeros((3, *shape), np.float32)
    place = None
    for light, seen in zip(rig.lights, shadow):
        if light.kind == "directional":
            l, power = [np.float32(c) for c in light.direction], np.float32(light.intensity)
        else:
            place = _positions(maps, rows) if place is None else place
            l, power = _lamp(light, place)
        cosine = l[0] * n[0] + l[1] * n[1] + l[2] * n[2]
        np.maximum(cosine, 0, out=cosine)
        power = cosine * power
        if seen is not None:
            wide, grid = seen
            power *= grid.rows(wide, rows.start, rows.stop) * np.float32(rig.shadow_strength) + np.float32(
                1 - rig.shadow_strength)
        gloss = _specular(n, l, cosine, rig) if rig.specular_strength > 0 else None
        for k in range(3):
            E[k] += power * np.float32(light.color[k])
            if gloss is not None:
                shine[k] += power * gloss * np.float32(light.color[k])
    return E, shine


def _positions(maps, rows):
    """Scene positions (3, r, W) float32 of rows of the picture."""
    H, W = maps.depth.shape
    low, high = maps.depth_range
    r = 1 / (maps.depth[rows] * np.float32((high - low) / 65535) + np.float32(low))
    u = ((np.arange(W) + 0.5) / W * 2 - 1).astype(np.float32)
    v = ((H - 2 * np.arange(H)[rows] - 1) / W).astype(np.float32)
    return np.stack([u * r, v[:, None] * r, np.float32(2 * maps.focal) * (1 - r)])


def _lamp(light, place):
    """Toward a lamp in the scene, and what arrives from it before the cosine."""
    l = [np.float32(c) - p for c, p in zip(light.position, place)]
    square = np.maximum(l[0] * l[0] + l[1] * l[1] + l[2] * l[2], np.float32(1e-12))
    distance = np.sqrt(square)
    l = [c / distance for c in l]
    power = np.float32(light.intensity) / (1 + square * np.float32(1 / light.range ** 2))
    if light.kind == "spot":
        axis = [np.float32(c) for c in unit([a - b for a, b in zip(light.position, light.target)])]
        half = np.radians(light.cone / 2)
        inner, outer = np.cos(half * (1 - light.blend)), np.cos(half)
        inside = l[0] * axis[0] + l[1] * axis[1] + l[2] * axis[2]
        t = np.clip((inside - np.float32(outer)) / np.float32(max(inner - outer, 1e-6)), 0, 1)
        power *= t * t * (3 - 2 * t)
    return l, power


def _specular(n, l, cosine, rig):
    """GGX with the height-correlated Smith term and Schlick's Fresnel (F0 = 0.04), times pi like the irradiance.

    Walter et al. 2007; Heitz 2014. The viewer is at +z.
    """
    alpha2 = np.float32(rig.roughness ** 4)
    h = [l[0], l[1], l[2] + 1]
    length = np.sqrt(np.maximum(h[0] * h[0] + h[1] * h[1] + h[2] * h[2], np.float32(1e-12)))
    nh = np.clip((h[0] * n[0] + h[1] * n[1] + h[2] * n[2]) / length, 0, 1)
    lh = length / 2  # l.h with |l| = |v| = 1
    nv = np.maximum(n[2], np.float32(1e-3))
    d = alpha2 / np.square(nh * nh * (alpha2 - 1) + 1)
    smith = cosine * np.sqrt(nv * nv * (1 - alpha2) + alpha2) + nv * np.sqrt(cosine * cosine * (1 - alpha2) + alpha2)
    fresnel = np.float32(0.04) + np.float32(0.96) * (1 - np.minimum(lh, 1)) ** 5
    return d * fresnel * np.float32(0.5 * rig.specular_strength) / np.maximum(smith, np.float32(1e-6))
