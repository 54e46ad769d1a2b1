"""The maps of a photograph at one picture size: all that does not depend on the lights."""

import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import NamedTuple, Optional

import cv2
import numpy as np

from ..image.resample import Resampler, bands, shrink
from ..scene.fit import SceneFit, coarse_scene, relative_inverse_depth, scene_normals, snap_depth_edges, surface_share
from ..scene.geometry import Geometry
from ..scene.illumination import light_at
from .lights import Light
from .occlusion import ambient_occlusion
from .shadows import ShadowGrid
from .upsampling import (
    DepthAwareUpsampler,
    DepthAwareUpsamplerBuilder,
    JointBilateralUpsampler,
    edge_layer,
    without_blends,
)

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
    q: np.ndarray  # (H, W) float32: relative inverse depth, see scene/fit.py
    log_light: np.ndarray  # (H, W) int16, times 8192: natural logarithm of the estimated old light
    light_samples: np.ndarray  # (n,) float32: the same logarithm all over the photograph, the same for every size
    occlusion: np.ndarray  # (H, W) uint8
    mask: Optional[np.ndarray]  # (H, W) uint16; None: a surface everywhere
    focal: float
    grid: ShadowGrid
    sampler: Resampler  # from the shadow grid to the picture
    edges: DepthAwareUpsampler
    shadows: "OrderedDict[tuple, np.ndarray]" = field(default_factory=OrderedDict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def nbytes(self) -> int:
        """Bytes held now."""
        arrays = (self.rgb, self.normals, self.q, self.log_light, self.light_samples, self.occlusion, self.mask)
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
        """Rows (r, W) float32 of a plane on the shadow grid (texels, and the same widened), sharp at silhouettes."""
        band = self.sampler.rows(wide, rows)
        self.edges.apply_in_place(band, texels, rows)
        return band


def prepare(rgb: np.ndarray, geometry: Geometry, fit: SceneFit) -> Maps:
    """The maps of a picture rgb (H, W, 3) uint8 of any size, from the geometry and the fit of its photograph."""
    planes = _coarse_planes(geometry, fit)
    coarse = coarse_scene(geometry, fit, COARSE)
    sampler = Resampler(coarse.shape, rgb.shape[:2])
    full = _full_planes(rgb, planes, fit, DepthAwareUpsamplerBuilder(coarse, sampler))
    maps = Maps(
        rgb=full.rgb,
        normals=full.normals,
        q=full.q,
        log_light=full.log_light,
        light_samples=_light_samples(planes, fit),
        occlusion=np.empty(rgb.shape[:2], np.uint8),
        mask=full.mask,
        focal=fit.focal,
        grid=ShadowGrid(coarse, fit.focal),
        sampler=sampler,
        edges=full.edges,
    )
    _occlude(maps, ambient_occlusion(coarse, fit.focal))
    return maps


class CoarsePlanes(NamedTuple):
    """What the geometry says, on its own grid, with no blend of two surfaces at a silhouette."""

    normals: np.ndarray  # (3, h, w) float32, not quite of length 1
    q: np.ndarray  # (h, w) float32
    share: Optional[np.ndarray]  # (h, w) float32 0..1: how much of a texel is relit; None: all of it


class FullPlanes(NamedTuple):
    """The same at the size of the picture; see Maps."""

    rgb: np.ndarray
    normals: np.ndarray
    q: np.ndarray
    log_light: np.ndarray
    mask: Optional[np.ndarray]
    edges: DepthAwareUpsampler


def _coarse_planes(geometry: Geometry, fit: SceneFit) -> CoarsePlanes:
    q = snap_depth_edges(relative_inverse_depth(geometry.inverse_depth, fit))
    sides = [*np.moveaxis(scene_normals(geometry, fit), 2, 0)]
    if geometry.mask is not None:
        sides.append(surface_share(geometry.mask))
    planes = without_blends(np.stack(sides), q)
    return CoarsePlanes(planes[:3], q, planes[3] if geometry.mask is not None else None)


def _full_planes(rgb: np.ndarray, coarse: CoarsePlanes, fit: SceneFit, edges: DepthAwareUpsamplerBuilder) -> FullPlanes:
    """Upsample the planes to the picture, a band of rows at a time, guided by its colours at silhouettes."""
    H, W = rgb.shape[:2]
    planar = np.ascontiguousarray(np.moveaxis(rgb, 2, 0))
    share = [] if coarse.share is None else [coarse.share[None]]
    planes = shrink(np.concatenate([coarse.normals, coarse.q[None], *share]), (H, W))
    sampler = Resampler(planes.shape[1:], (H, W))
    wide = [sampler.widen(p) for p in planes]
    colours = cv2.resize(rgb, planes.shape[:0:-1], interpolation=cv2.INTER_AREA).reshape(*planes.shape[1:], 3)
    layer = edge_layer(planes[3], *planes[4:])
    upsampler = JointBilateralUpsampler(planes, layer, colours.astype(np.float32) / 255, sampler)
    normals, q = np.empty((3, H, W), np.int16), np.empty((H, W), np.float32)
    log_light = np.empty((H, W), np.int16)
    mask = None if coarse.share is None else np.empty((H, W), np.uint16)
    upscaled = planes.shape[1:] != (H, W)
    for rows in bands((H, W), PIXELS):
        band = np.stack([sampler.rows(p, rows) for p in wide])
        if upscaled:
            upsampler.apply_in_place(band, planar, rows)
        x, y, z = band[:3] / np.maximum(np.sqrt(np.square(band[:3]).sum(0)), np.float32(1e-6))
        for k, p in enumerate((x, y, z)):
            normals[k, rows] = np.rint(p / SNORM)
        q[rows] = band[3]
        log_light[rows] = np.rint(np.clip(np.log(light_at(x, y, z, fit.light)), -3.9, 3.9) / LOG)
        if mask is not None:
            mask[rows] = np.rint(np.clip(band[4], 0, 1) * 65535)
        edges.add(band[3], rows)
    return FullPlanes(planar, normals, q, log_light, mask, edges.build())


def _occlude(maps: Maps, occlusion: np.ndarray) -> None:
    """Fill in the occlusion of ambient light from that on the shadow grid, (h, w) float32."""
    wide = maps.sampler.widen(occlusion)
    for rows in bands(maps.occlusion.shape, PIXELS):
        maps.occlusion[rows] = np.rint(maps.from_grid(occlusion, wide, rows) * 255)


def _light_samples(planes: CoarsePlanes, fit: SceneFit) -> np.ndarray:
    """The logarithm of the old light at up to 20,000 places of the surfaces, (n,) float32."""
    x, y, z = planes.normals / np.maximum(np.sqrt(np.square(planes.normals).sum(0)), np.float32(1e-6))
    light = np.log(light_at(x, y, z, fit.light))
    surface = np.ones(light.shape, bool) if planes.share is None else planes.share > 0.5
    light = light[surface] if surface.any() else light.ravel()
    return light[:: -(-light.size // 20000)]
