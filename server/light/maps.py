"""The maps of a photograph at one picture size: all that does not depend on the lights.

They lie on the grid of the geometry and are brought to the pixels a band of rows at a time; what decides for a side at
silhouettes is kept for the pixels there alone.
"""

import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple, Union

import cv2
import numpy as np

from ..image.resample import Resampler, bands, shrink, shrink_image
from ..scene.fit import (
    SceneFit,
    coarse_depth,
    relative_inverse_depth,
    scene_normals,
    shadow_trust,
    snap_depth_edges,
    surface_share,
)
from ..scene.geometry import Geometry
from ..scene.illumination import EstimatedLight, light_at
from .environment import Keep, convolved, look_up, normal_indices, surround, unpack
from .field import VisibilityField
from .lights import Environment, Light, Mask
from .occlusion import ambient_occlusion
from .shadows import ShadowGrid
from .upsampling import (
    DepthAwareUpsampler,
    SparsePlanes,
    depth_aware,
    edge_layer,
    joint_bilateral,
    nowhere,
    without_blends,
)

SHADOWS_KEPT = 28  # the 16 lamps a picture may have, the 6 parts of its environment, and a few that were moved
SAMPLES = 64  # long side of the small picture on which exposure is measured
COARSE = 256  # long side of the grid of shadows and occlusion
PIXELS = 1 << 16  # of a band
PIXELS_A_THREAD = 1 << 18  # of a band where threads share a picture: below, they wait for each other more than they do
KEPT_PIXELS = 3 << 20  # a picture up to so large, a preview, keeps its bands: 31 bytes a pixel, 33 with an environment
LEAST = np.float32(0.02)  # of the old light
WHOLLY = 0.9999  # of a pixel: a band of which so much is relit everywhere is relit wholly
CLIPPING = 240  # codes above this may be clipped, and 255 is
CLIPPED = 3.0  # where all three channels are 255 the photographed light was up to so much more than they say
# of a channel: what it adds to the headroom, by its code
HEADROOM_BY_CODE = (CLIPPED / 3 * np.square(np.clip((np.arange(256) - CLIPPING) / (255 - CLIPPING), 0, 1))).astype(
    np.float32
)

SHARE_BY_CODE = (np.arange(256) / 255).astype(np.float32)  # of a mask


class Band(NamedTuple):
    """What does not depend on the lights, at the pixels of some rows; planes (r, W) are float32."""

    codes: Tuple[np.ndarray, ...]  # three (r, W) uint8: the photograph
    normals: np.ndarray  # (3, r, W): x, y, z of unit vectors
    log_light: np.ndarray  # natural logarithm of the estimated old light
    occlusion: np.ndarray  # 0..1, of ambient light
    share: Optional[np.ndarray]  # 0..1, how much of a pixel is relit; None: all of it
    headroom: Optional[np.ndarray]  # 0..CLIPPED, how much brighter a pixel may have been than its codes; None: nowhere


@dataclass(frozen=True)
class GridMaps:
    """What is the same for every size of the picture, on the grids of the geometry and of the shadows.

    The shadows that lamps cast are made when they are asked for, and kept for the last lamps.
    """

    planes: np.ndarray  # (4 to 6, h, w) float32, see _planes
    light: EstimatedLight  # the photograph's own, as fitted to the normals
    shading_share: float  # 0..1: how much of it is not: the planes have a shading, if that is not 0
    light_samples: np.ndarray  # (n,) float32: its logarithm all over the photograph
    focal: float
    grid: Union[ShadowGrid, VisibilityField]  # what tells which lamps are seen
    occlusion: np.ndarray  # (h, w) float32 on the shadow grid
    trust: Optional[np.ndarray]  # the same, 0..1: how far a shadow may show there; None: everywhere
    shadows: "OrderedDict[tuple, np.ndarray]" = field(default_factory=OrderedDict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def sides(self) -> int:
        """Which plane says how much of a texel is relit, if there is one: that before the last."""
        return _sides(self.shading_share)

    def share_of(self, environment: Environment) -> Optional[np.ndarray]:
        """The share of an environment's light that arrives at each texel of the shadow grid, (3, h, w) float32.

        By colour; None: only ambient occlusion can tell.
        """
        grid = self.grid
        if not isinstance(grid, VisibilityField):
            return None

        def make() -> np.ndarray:
            around = self._of(environment)("cells", lambda: convolved(unpack(environment), grid.cell))
            return self._trusted(grid.share_of(lambda d: look_up(around, d, environment.rotation), self.occlusion))

        return self._kept((environment,), make)

    def surround(self, environment: Environment, roughness: Optional[float]) -> np.ndarray:
        """The tables of an environment, see surround in environment.py; kept likewise."""
        keep = self._of(environment)
        return self._kept((environment, roughness), lambda: surround(environment, roughness, keep))

    def _of(self, environment: Environment) -> Keep:
        """Keeps what is made of an environment, however it is turned."""
        return lambda name, make: self._kept((environment.texels, environment.intensity, name), make)

    def own_light(self) -> Tuple[np.ndarray, np.ndarray]:
        """(normals (n, 3), light (n,)), float32, of the photograph's surfaces: how they face, and how they were lit."""
        planes = self.planes.copy()
        planes[:3] /= _length(*planes[:3])
        light = np.exp(_log_light(planes, self.light, self.shading_share))
        surface = _surfaces(planes, self.sides)
        return np.ascontiguousarray(planes[:3, surface].T), light[surface]

    def _trusted(self, seen: np.ndarray) -> np.ndarray:
        return seen if self.trust is None else 1 - self.trust * (1 - seen)

    def _kept(self, key: tuple, make: Callable[[], np.ndarray]) -> np.ndarray:
        with self.lock:
            if key in self.shadows:
                self.shadows.move_to_end(key)
                return self.shadows[key]
        seen = make()
        with self.lock:
            self.shadows[key] = seen
            while len(self.shadows) > SHADOWS_KEPT:
                self.shadows.popitem(last=False)
        return seen

    @property
    def nbytes(self) -> int:
        """Bytes held now."""
        with self.lock:
            held: List[Any] = [*self.shadows.values()]
        held += [self.planes, self.light_samples, self.grid, self.occlusion]
        held += [] if self.trust is None else [self.trust]
        return sum(int(h.nbytes) for h in held)

    def visibility(self, light: Light) -> np.ndarray:
        """The share of a lamp that each texel of the shadow grid sees, (h, w) float32; kept for the last lamps used."""
        far = light.kind == "directional"
        key = (far, light.direction, light.angle) if far else (far, light.position, light.radius)
        return self._kept(key, lambda: self._trusted(self.grid.visibility(light)))


@dataclass
class Maps:
    """What relight needs of one picture size (H, W)."""

    rgb: np.ndarray  # (H, W, 3) uint8 sRGB
    wide: np.ndarray  # (4 to 6, h, W) float32: the planes of the geometry made ready, see _planes
    sampler: Resampler  # from the grid of the geometry to the picture
    silhouettes: SparsePlanes  # the same planes where pixels decide for a side
    shared: GridMaps
    grid_sampler: Resampler  # from the shadow grid to the picture
    edges: DepthAwareUpsampler
    occlusion: "GridPlane"
    samples: Optional["Maps"] = None  # of the same photograph, see prepare_samples; None: the picture itself will do
    masks: Mapping[Mask, np.ndarray] = field(default_factory=dict)  # (H, W) uint8: those of the rig, see masks.py
    lock: threading.Lock = field(default_factory=threading.Lock)
    _bands: Dict[Tuple[int, int], Band] = field(default_factory=dict)
    _depths: Dict[Tuple[int, int], np.ndarray] = field(default_factory=dict)
    _facings: Dict[Tuple[int, int], np.ndarray] = field(default_factory=dict)

    @property
    def size(self) -> Tuple[int, int]:
        """(H, W) of the picture."""
        return self.sampler.size

    @property
    def nbytes(self) -> int:
        """Bytes held now, without what pictures of all sizes share."""
        with self.lock:
            held: List[Any] = [*self._depths.values(), *self._facings.values()]
            for band in self._bands.values():
                held += [a for a in (*band.codes, *band[1:]) if a is not None]
        if self.samples is not None:
            held.append(self.samples)
        held += [self.rgb, self.wide, self.occlusion.wide, self.silhouettes, self.edges]
        return sum(int(h.nbytes) for h in held)

    @property
    def keeps(self) -> bool:
        """Is the picture so small that its bands are kept?"""
        return self.size[0] * self.size[1] <= KEPT_PIXELS

    def bands(self, threads: int) -> List[slice]:
        """The rows of the picture, in the bands in which so many threads light it."""
        return bands(self.size, PIXELS if threads == 1 or self.keeps else PIXELS_A_THREAD)

    def band(self, rows: slice) -> Band:
        """All but the depth of these rows; of a picture of at most KEPT_PIXELS it is kept."""
        return self._kept(self._bands, rows, self._make_band)

    def depth(self, rows: slice) -> np.ndarray:
        """The relative inverse depth q (r, W) float32 of these rows; see scene/fit.py. Kept as a band is."""
        return self._kept(self._depths, rows, self._make_depth)

    def facing(self, rows: slice) -> np.ndarray:
        """The normals of these rows as indices (r, W) uint16 of the tables of an environment. Kept as a band is."""
        return self._kept(self._facings, rows, lambda some: normal_indices(*self.band(some).normals))

    def mask(self, mask: Mask, rows: slice) -> np.ndarray:
        """These rows of one of the masks, (r, W) float32 0..1."""
        codes = self.masks[mask][rows]
        return cv2.LUT(codes, SHARE_BY_CODE).reshape(codes.shape)

    def _kept(self, kept: Dict[Tuple[int, int], Any], rows: slice, make: Callable[[slice], Any]) -> Any:
        if not self.keeps:
            return make(rows)
        key = (rows.start, rows.stop)
        found = kept.get(key)
        if found is None:
            found = make(rows)
            with self.lock:
                kept[key] = found
        return found

    def _make_depth(self, rows: slice) -> np.ndarray:
        return _q_rows(self.sampler, self.wide, self.silhouettes, rows)

    def _make_band(self, rows: slice) -> Band:
        planes = self.sampler.rows(self.wide[:-1], rows)
        self.silhouettes.write(planes, rows)
        x, y, z = planes[:3]
        planes[:3] /= _length(x, y, z)
        sides = self.shared.sides
        codes = tuple(c.reshape(x.shape) for c in cv2.split(self.rgb[rows]))
        return Band(
            codes=codes,
            normals=planes[:3],
            log_light=_log_light(planes, self.shared.light, self.shared.shading_share),
            occlusion=self.from_grid(self.occlusion, rows),
            share=planes[sides] if len(planes) > sides and planes[sides].min() < WHOLLY else None,
            headroom=_headroom(codes),
        )

    def on_grid(self, texels: np.ndarray) -> "GridPlane":
        """A plane on the shadow grid, or some, (..., h, w) float32, made ready for from_grid."""
        return GridPlane(texels, self.grid_sampler.widen(texels))

    def from_grid(self, plane: "GridPlane", rows: slice) -> np.ndarray:
        """Rows (..., r, W) float32 of a plane on the shadow grid, or of some, sharp at silhouettes."""
        band = self.grid_sampler.rows(plane.wide, rows)
        self.edges.apply_in_place(band, plane.texels, rows)
        return band


class GridPlane(NamedTuple):
    """A plane on the shadow grid, or some."""

    texels: np.ndarray  # (..., h, w) float32
    wide: np.ndarray  # (..., h, W) float32: made ready


def prepare_grid(geometry: Geometry, fit: SceneFit) -> GridMaps:
    """The maps that pictures of all sizes share, from the geometry and the fit of their photograph."""
    planes = _planes(geometry, fit)
    seen = geometry.visibility
    coarse = coarse_depth(planes[-1], COARSE if seen is None else min(COARSE, max(seen.seen.shape[1:])))
    grid: Union[ShadowGrid, VisibilityField]
    if seen is None:
        grid = ShadowGrid(coarse, fit.focal)
    else:
        normals = np.stack([coarse_depth(p, max(coarse.shape)) for p in planes[:3]])
        grid = VisibilityField(seen, coarse, normals / _length(*normals), fit.focal)
    share = _share(geometry)
    return GridMaps(
        planes=planes,
        light=fit.light,
        shading_share=share,
        light_samples=_light_samples(planes, fit.light, share),
        focal=fit.focal,
        grid=grid,
        occlusion=ambient_occlusion(coarse, fit.focal),
        trust=None if geometry.mask is None else shadow_trust(geometry.mask, coarse.shape),
    )


def prepare_samples(rgb: np.ndarray, shared: GridMaps) -> Maps:
    """The maps of a photograph (H, W, 3) uint8 with a long side of at most SAMPLES, on which exposure is measured.

    Of a large photograph not every pixel is looked at, which takes 3 ms instead of 40 for 12 megapixels.
    """
    step = max(1, max(rgb.shape[:2]) // (8 * SAMPLES))
    return prepare_picture(shrink_image(np.ascontiguousarray(rgb[::step, ::step]), SAMPLES), shared)


def prepare_picture(rgb: np.ndarray, shared: GridMaps, threads: int = 1, samples: Optional[Maps] = None) -> Maps:
    """The maps of a picture rgb (H, W, 3) uint8 of any size. samples: of the photograph, see prepare_samples."""
    size = rgb.shape[:2]
    planes = shrink(shared.planes, size)
    sampler, grid_sampler = Resampler(planes.shape[1:], size), Resampler(shared.grid.shape, size)
    if planes.shape[1:] == size:
        silhouettes = nowhere(len(planes), size)
    else:
        silhouettes = joint_bilateral(planes, edge_layer(planes[-1], *planes[shared.sides : -1]), rgb, sampler, threads)
    wide = sampler.widen(planes)
    edges = depth_aware(
        shared.grid.q, grid_sampler, lambda rows: _q_rows(sampler, wide, silhouettes, rows), bands(size, PIXELS)
    )
    return Maps(
        rgb=rgb,
        wide=wide,
        sampler=sampler,
        silhouettes=silhouettes,
        shared=shared,
        grid_sampler=grid_sampler,
        edges=edges,
        occlusion=GridPlane(shared.occlusion, grid_sampler.widen(shared.occlusion)),
        samples=samples,
    )


def prepare(rgb: np.ndarray, geometry: Geometry, fit: SceneFit, threads: int = 1) -> Maps:
    """All of the above: the maps of a photograph rgb (H, W, 3) uint8."""
    shared = prepare_grid(geometry, fit)
    return prepare_picture(rgb, shared, threads, prepare_samples(rgb, shared))


def _share(geometry: Geometry) -> float:
    """How much of the photograph's own light its shading tells."""
    return 0.0 if geometry.shading is None else geometry.shading_share


def _sides(share: float) -> int:
    """Which plane says how much of a texel is relit, see GridMaps.sides."""
    return 4 if share else 3


def _planes(geometry: Geometry, fit: SceneFit) -> np.ndarray:
    """(4 to 6, h, w) float32: what the geometry says, on its own grid, with no blend of two surfaces at a silhouette.

    Normals x, y, z, not quite of length 1; where the photograph's light is not only fitted, the logarithm of its
    shading times its share; unless there is a surface everywhere, how much of a texel is relit, 0..1; q.
    """
    q = snap_depth_edges(relative_inverse_depth(geometry.inverse_depth, fit))
    sides = [*np.moveaxis(scene_normals(geometry, fit), 2, 0)]
    if geometry.shading is not None and _share(geometry):
        sides.append(geometry.shading.mean(2) * np.float32(geometry.shading_share))
    if geometry.mask is not None:
        sides.append(surface_share(geometry.mask))
    return np.concatenate([without_blends(np.stack(sides), q), q[None]])


def _q_rows(sampler: Resampler, wide: np.ndarray, silhouettes: SparsePlanes, rows: slice) -> np.ndarray:
    band = sampler.rows(wide[-1:], rows)
    silhouettes.write(band, rows, len(wide) - 1)
    return band[0]


def _headroom(codes: Sequence[np.ndarray]) -> Optional[np.ndarray]:
    """What the photograph cannot say at its channels of 255, see Band."""
    if max(int(c.max()) for c in codes) <= CLIPPING:
        return None
    total: np.ndarray = cv2.LUT(codes[0], HEADROOM_BY_CODE).reshape(codes[0].shape)
    for c in codes[1:]:
        total += np.asarray(cv2.LUT(c, HEADROOM_BY_CODE), np.float32).reshape(c.shape)
    return total


def _length(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    length = cv2.magnitude(cv2.magnitude(x, y), z).reshape(x.shape)
    return np.maximum(length, np.float32(1e-6), out=length)


def _log_light(planes: np.ndarray, light: EstimatedLight, share: float) -> np.ndarray:
    """The logarithm of the photograph's own light, (r, W) float32, from planes whose normals are of length 1."""
    x, y, z = planes[:3]
    old = light_at(x, y, z, light)
    if light.floor < LEAST:
        np.maximum(old, LEAST, out=old)
    cv2.log(old, dst=old)
    if share:
        cv2.scaleAdd(old, 1 - share, planes[3], dst=old)
    return old.reshape(x.shape)


def mean_of_light(samples: np.ndarray, delight: float) -> float:
    """The mean of the old light to the power of delight, from samples (n,) float32 of its logarithm."""
    return float(np.exp(np.float32(delight) * samples).mean(dtype=np.float64))


def _surfaces(planes: np.ndarray, sides: int) -> np.ndarray:
    """(h, w) bool: where planes, see _planes, show a surface; everywhere, where they show none."""
    surface = planes[sides] > 0.5 if len(planes) > sides + 1 else np.ones(planes.shape[1:], bool)
    return surface if surface.any() else ~surface


def _light_samples(planes: np.ndarray, light: EstimatedLight, share: float) -> np.ndarray:
    """The logarithm of the old light at up to 20,000 places of the surfaces, (n,) float32."""
    unit = planes.copy()
    unit[:3] /= _length(*planes[:3])
    samples = _log_light(unit, light, share)[_surfaces(planes, _sides(share))]
    return samples[:: -(-samples.size // 20000)]
