"""The scene a photograph shows, from its geometry: depth with a scale, in the units of the lights.

Depth is kept as q = (median depth) / depth: 1 at the median surface, larger is nearer. A pixel at u, v (picture widths
right of and above the middle) is at x = 2u/q, y = 2v/q, z = 2f(1 - 1/q) with the focal length f in picture widths:
x runs -1..1 across the median surface, z = 0 is that surface, +1 is half a picture width nearer to the viewer.
Straight lines of the scene are straight in (u, v, q), which is what the shadows are marched in.
"""

import dataclasses
import math
from dataclasses import dataclass
from typing import Optional, Tuple

import cv2
import numpy as np

from ..image.resample import fit_within, shrink
from .geometry import Geometry
from .illumination import EVEN_LIGHT, EstimatedLight, estimate_light
from .normals import FOCAL, normalise_in_place, normals_from_inverse_depth

FIT_SIDE = 192  # long side of the grid the shift is searched on
DEFAULT_SHIFT = 0.5  # nothing predicts the normals: the farthest surface is 3 times as far as the nearest
# Errors of the predicted normals always favour a flat scene: the deepest that is nearly as good is taken
TOLERANCE = 0.1
JUMP = 0.06  # share of the depth: a silhouette, if it is no steep plane
OFF = 0.3  # of the range of q around a texel: farther off its middle is no plane
GOES_ON = 3.2  # times that range within four texels (a plane: 4 times): what ends sooner is no plane
FARTHEST = 0.04  # q never falls below: 25 times the median depth

NEIGHBOURS = np.ones((3, 3), np.uint8)


@dataclass(frozen=True)
class SceneFit:
    """What relighting needs to know about one photograph, the same for every picture size. Raises ValueError.

    focal: focal length in picture widths. scale, shift: q = scale * inverse_depth + shift.
    light: the photograph's own light.
    depth_angle: mean angle in degrees between the normals of that depth and the predicted ones; None without any.
    """

    focal: float
    scale: float
    shift: float
    light: EstimatedLight
    depth_angle: Optional[float] = None

    def __post_init__(self) -> None:
        if not self.focal > 0 or not all(map(math.isfinite, (self.focal, self.scale, self.shift))):
            raise ValueError("a fit has a positive focal length and a finite scale and shift")


def fit_scene(rgb: np.ndarray, geometry: Geometry, linear: Optional[np.ndarray] = None) -> SceneFit:
    """The fit of a photograph rgb (H, W, 3) uint8, at any size, from its geometry.

    linear: its linear colours on the geometry's grid, where they are known; see linear_small.
    """
    small = shrink(_planes(geometry), fit_within(geometry.inverse_depth.shape, FIT_SIDE))
    d, mask = small[0], small[1] > 0.5
    focal = float(geometry.focal or FOCAL)
    known = d[mask] if mask.any() else d.ravel()
    low, high = (float(v) for v in np.percentile(known, (1, 99)))
    span = high - low
    if not span > 1e-6 * max(abs(low), abs(high), 1e-30):
        fit = SceneFit(focal, 0.0, 1.0, EVEN_LIGHT)
    else:
        relative = np.clip((d - low) / span, 0, 1).astype(np.float32)
        target = (
            None
            if geometry.normals is None
            else normalise_in_place(np.ascontiguousarray(np.moveaxis(small[2:5], 0, 2)))
        )
        offset, angle = _search(relative, target, mask, focal)
        middle = (float(np.median(known)) - low) / span + offset
        fit = SceneFit(focal, 1 / (span * middle), (offset - low / span) / middle, EVEN_LIGHT, angle)
    return dataclasses.replace(fit, light=estimate_light(rgb, scene_normals(geometry, fit), geometry.mask, linear))


def _search(
    relative: np.ndarray, target: Optional[np.ndarray], mask: np.ndarray, focal: float
) -> Tuple[float, Optional[float]]:
    """The shift of the relative inverse depth (0..1) whose normals agree best with the predicted ones.

    Returns (shift, degrees). The smaller the shift, the deeper the scene: the deepest within TOLERANCE is taken.
    """
    if target is None:
        return DEFAULT_SHIFT, None
    edge = cv2.dilate(relative, NEIGHBOURS) - cv2.erode(relative, NEIGHBOURS)
    use = mask & (edge <= np.percentile(edge, 85))
    if use.sum() < 32:
        return DEFAULT_SHIFT, None

    def angle(shift: float) -> float:
        n = normals_from_inverse_depth(relative + np.float32(shift), focal)
        return float(np.degrees(np.arccos(np.clip((n[use] * target[use]).sum(1), -1, 1))).mean())

    shifts = np.geomspace(0.03, 12, 16)
    for _ in range(3):
        errors = [angle(shift) for shift in shifts]
        best = int(np.argmin(errors))
        found, min_error = float(shifts[best]), errors[best]
        shifts = np.geomspace(shifts[max(best - 1, 0)], shifts[min(best + 1, len(shifts) - 1)], 5)
    for shift in np.geomspace(0.03, found, 12)[:-1]:
        error = angle(shift)
        if error <= min_error * (1 + TOLERANCE):
            return float(shift), error
    return found, min_error


def relative_inverse_depth(inverse_depth: np.ndarray, fit: SceneFit) -> np.ndarray:
    """q of inverse depths of any shape, float32."""
    return np.maximum(inverse_depth * np.float32(fit.scale) + np.float32(fit.shift), np.float32(FARTHEST))


def scene_normals(geometry: Geometry, fit: SceneFit) -> np.ndarray:
    """(h, w, 3) float32: the predicted normals, or those of the depth."""
    if geometry.normals is not None:
        return normalise_in_place(np.array(geometry.normals, np.float32))
    return normals_from_inverse_depth(relative_inverse_depth(geometry.inverse_depth, fit), fit.focal)


def surface_share(mask: np.ndarray) -> np.ndarray:
    """How much of each texel is relit, 0..1: an uncertain mask decides, with a soft edge left."""
    return np.clip((np.asarray(mask, np.float32) - np.float32(0.2)) * np.float32(2.5), 0, 1)


def shadow_trust(mask: np.ndarray, size: Tuple[int, int]) -> np.ndarray:
    """How far a cast shadow may show, (h, w) float32 0..1: where it is doubtful whether there is a surface, not at all.

    The soft edges of what is surely a surface count as that.
    """
    here = cv2.resize(np.asarray(mask, np.float32), size[::-1], interpolation=cv2.INTER_AREA)
    here = cv2.dilate(here, np.ones((5, 5), np.uint8))
    sure = np.clip((here - np.float32(0.6)) * np.float32(1 / 0.35), 0, 1)
    return np.asarray(cv2.blur(sure, (5, 5)), np.float32)


def coarse_depth(q: np.ndarray, side: int) -> np.ndarray:
    """q (h, w) float32 on a grid whose long side is at most `side`, by picking texels: silhouettes stay sharp."""
    h, w = fit_within(q.shape, side)
    rows = ((np.arange(h) + 0.5) * q.shape[0] / h).astype(np.intp)
    columns = ((np.arange(w) + 0.5) * q.shape[1] / w).astype(np.intp)
    return np.ascontiguousarray(q[np.ix_(rows, columns)])


def snap_depth_edges(q: np.ndarray) -> np.ndarray:
    """Depths between the two sides of a silhouette snapped to the nearer side of the two.

    Across a plane, however steep, q is linear: a texel lies half way between the nearest and the farthest around it,
    and the range grows with the distance. Such a texel is left.
    """
    near, far = (spread(q, np.ones((3, 3), np.uint8)) for spread in (cv2.dilate, cv2.erode))
    wide = np.pad(q, 4, mode="reflect", reflect_type="odd")  # planes go on beyond the border
    nearest, farthest = (spread(wide, np.ones((9, 9), np.uint8))[4:-4, 4:-4] for spread in (cv2.dilate, cv2.erode))
    step, off = near - far, (q - far) - (near - q)
    plane = (np.abs(off) <= OFF * step) & (nearest - farthest >= GOES_ON * step)
    return np.where((near >= far * (1 + JUMP)) & ~plane, np.where(off > 0, near, far), q)


def _planes(geometry: Geometry) -> np.ndarray:
    d = np.asarray(geometry.inverse_depth, np.float32)
    mask = np.ones_like(d) if geometry.mask is None else np.asarray(geometry.mask, np.float32)
    extra = [] if geometry.normals is None else list(np.moveaxis(np.asarray(geometry.normals, np.float32), 2, 0))
    return np.stack([d, mask, *extra])
