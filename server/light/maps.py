"""The maps of a photograph at one picture size: all that does not depend on the lights."""

import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Optional

import cv2
import numpy as np

from ..image.resample import Resampler, bands, shrink
from ..scene.fit import SceneFit, coarse_scene, crisp, relative_depth, scene_normals, surface_share
from ..scene.geometry import Geometry
from ..scene.illumination import light_at
from .lights import Light
from .occlusion import ambient_occlusion
from .shadows import ShadowGrid
from .upsampling import ColourMatch, DepthMatch, layer, without_blends

SNORM = np.float32(1 / 32767)
LOG = np.float32(1 / 8192)  # of a step of Maps.log_light
SHADOWS_KEPT = 20  # the 16 lamps a picture may have, and a few that were moved
COARSE = 256  # long side of the grid of shadows and occlusion
PIXELS = 1 << 16  # of a band


@dataclass
class Maps:
    """What relight needs of one picture size (H, W), as small as 8-bit results allow."""

    rgb: np.ndarray  # (3, H, W) uint8 sRGB
    normals: np.ndarray  # (3, H, W) int16, times 32767
    depth: np.ndarray  # (H, W) float32: q, see scene.py
    log_light: np.ndarray  # (H, W) int16, times 8192: natural logarithm of the estimated old light
    light_samples: np.ndarray  # (n,) float32: the same logarithm all over the photograph, the same for every size
    occlusion: np.ndarray  # (H, W) uint8
    mask: Optional[np.ndarray]  # (H, W) uint16; None: a surface everywhere
    focal: float
    grid: ShadowGrid
    sampler: Resampler  # from the shadow grid to the picture
    edges: DepthMatch
    shadows: "OrderedDict[tuple, np.ndarray]" = field(default_factory=OrderedDict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def nbytes(self) -> int:
        """Bytes held now."""
        arrays = (self.rgb, self.normals, self.depth, self.log_light, self.light_samples, self.occlusion, self.mask)
        with self.lock:
            kept = sum(s.nbytes for s in self.shadows.values())
        return sum(a.nbytes for a in arrays if a is not None) + self.grid.nbytes + self.edges.nbytes + kept

    def visibility(self, light: Light) -> np.ndarray:
        """The share of a lamp that each texel of the shadow grid sees, (h, w) float32; kept for the last lamps used."""
        far = light.kind == "directional"
        key = (far, light.direction, light.angle) if far else (far, light.position, light.radius)
        with self.lock:
            if key in self.shadows:
                self.shadows.move_to_end(key)
                return self.shadows[key]
        seen = self.grid.visibility(light)
        with self.lock:
            self.shadows[key] = seen
            while len(self.shadows) > SHADOWS_KEPT:
                self.shadows.popitem(last=False)
        return seen

    def from_grid(self, texels: np.ndarray, wide: np.ndarray, rows: slice) -> np.ndarray:
        """Rows (r, W) float32 of a plane on the shadow grid (texels, and the same widened), crisp at silhouettes."""
        band = self.sampler.rows(wide, rows)
        self.edges.apply(band, texels, rows)
        return band


def prepare(rgb: np.ndarray, geometry: Geometry, fit: SceneFit) -> Maps:
    """The maps of a picture rgb (H, W, 3) uint8 of any size, from the geometry and the fit_scene of its photograph."""
    H, W = rgb.shape[:2]
    planar = np.ascontiguousarray(np.moveaxis(rgb, 2, 0))
    n = scene_normals(geometry, fit)
    coarse = coarse_scene(geometry, fit, COARSE)
    sampler = Resampler(coarse.shape, (H, W))
    q = crisp(relative_depth(geometry.inverse_depth, fit))
    sides = [*np.moveaxis(n, 2, 0)] + ([] if geometry.mask is None else [surface_share(geometry.mask)])
    sides = without_blends(np.stack(sides), q)
    planes = shrink(np.concatenate([sides[:3], q[None], sides[3:]]), (H, W))
    fine = Resampler(planes.shape[1:], (H, W))
    wide = [fine.widen(p) for p in planes]
    colours = cv2.resize(rgb, planes.shape[:0:-1], interpolation=cv2.INTER_AREA).reshape(*planes.shape[1:], 3)
    colour_match = ColourMatch(planes, layer(planes[3], *planes[4:]), colours.astype(np.float32) / 255, fine)
    maps = Maps(
        rgb=planar,
        normals=np.empty((3, H, W), np.int16),
        depth=np.empty((H, W), np.float32),
        log_light=np.empty((H, W), np.int16),
        light_samples=_samples(sides, fit),
        occlusion=np.empty((H, W), np.uint8),
        mask=None if geometry.mask is None else np.empty((H, W), np.uint16),
        focal=fit.focal,
        grid=ShadowGrid(coarse, fit.focal),
        sampler=sampler,
        edges=DepthMatch(coarse, sampler),
    )
    open_sky = ambient_occlusion(coarse, fit.focal)
    wide_sky = sampler.widen(open_sky)
    upscaled = planes.shape[1:] != (H, W)
    for rows in bands((H, W), PIXELS):
        band = np.stack([fine.rows(p, rows) for p in wide])
        if upscaled:
            colour_match.apply(band, planar, rows)
        x, y, z = band[:3] / np.maximum(np.sqrt(np.square(band[:3]).sum(0)), np.float32(1e-6))
        for k, p in enumerate((x, y, z)):
            maps.normals[k, rows] = np.rint(p / SNORM)
        maps.depth[rows] = band[3]
        maps.log_light[rows] = np.rint(np.clip(np.log(light_at(x, y, z, fit.light)), -3.9, 3.9) / LOG)
        if maps.mask is not None:
            maps.mask[rows] = np.rint(np.clip(band[4], 0, 1) * 65535)
        maps.edges.learn(band[3], rows)
    maps.edges.finish()
    for rows in bands((H, W), PIXELS):
        maps.occlusion[rows] = np.rint(maps.from_grid(open_sky, wide_sky, rows) * 255)
    return maps


def _samples(sides, fit):
    """The logarithm of the old light at up to 20,000 places of the surfaces; sides.

    Normals and, perhaps, their share.
    """
    x, y, z = sides[:3] / np.maximum(np.sqrt(np.square(sides[:3]).sum(0)), np.float32(1e-6))
    light = np.log(light_at(x, y, z, fit.light))
    surface = np.ones(light.shape, bool) if len(sides) == 3 else sides[3] > 0.5
    light = light[surface] if surface.any() else light.ravel()
    return light[:: -(-light.size // 20000)]
