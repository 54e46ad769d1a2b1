"""What a browser needs to light a photograph itself: its maps at one picture size, in few bits.

static/relight.js makes of them what maps.py and field.py make of the geometry, and lights the picture as shading.py
does. Whatever those decide by a threshold is decided here and sent along, so that rounding turns no decision over.
"""

from typing import Any, Dict, List, NamedTuple, Tuple

import numpy as np

from ..image.resample import shrink
from . import exposure, field, maps, upsampling
from .field import VisibilityField
from .lights import LUMINANCE
from .maps import GridMaps, Maps, prepare_samples
from .upsampling import broken, edge_layer, texel_colours, undecided

BINS = 512  # of the logarithm of the old light, over the photograph


class Plane(NamedTuple):
    """Planes (n, h, w) in whole numbers: 0 stands for `low`, `steps` for `high`."""

    name: str
    codes: np.ndarray  # uint8 or uint16
    low: float
    high: float
    steps: int


def constants() -> Dict[str, Any]:
    """The numbers of the formulas, by name, of which the browser has none of its own."""
    return {
        "colour": upsampling.COLOUR,
        "depth": upsampling.DEPTH,
        "faintest": upsampling.FAINTEST,
        "steepest": upsampling.STEEPEST,
        "direct": upsampling.DIRECT,
        "least": float(maps.LEAST),
        "clipping": maps.CLIPPING,
        "clipped": maps.CLIPPED,
        "horizon": field.HORIZON,
        "dim": field.DIM,
        "most": exposure.MOST,
        "black": exposure.BLACK,
        "close": exposure.CLOSE,
        "luminance": LUMINANCE.tolist(),
    }


def scene_numbers(shared: GridMaps) -> Dict[str, Any]:
    """What the formula needs of a photograph besides its planes: focal length, own light, directions of the field.

    Raises ValueError where no network said what its surfaces see.
    """
    counts, edges = np.histogram(shared.light_samples, BINS)
    return {
        "focal": shared.focal,
        "harmonics": [*shared.light.harmonics, *[0.0] * (9 - len(shared.light.harmonics))],
        "floor": shared.light.floor,
        "shading_share": shared.shading_share,
        "light_histogram": {"low": float(edges[0]), "high": float(edges[-1]), "counts": counts.tolist()},
        "directions": _field(shared).directions.tolist(),
        "variance": float(_field(shared).variance),
        "around": {"directions": _field(shared).all_around.tolist(), "cells": _field(shared).cells.tolist()},
    }


def planes(photo: np.ndarray, picture: np.ndarray, shared: GridMaps) -> List[Plane]:
    """All planes of a photograph (H, W, 3) uint8 for a picture of it, (H', W', 3) uint8: see picture_planes.

    Those of the picture, then of the samples that exposure is measured on, then of the grid of the shadows. Raises
    ValueError where no network said what its surfaces see.
    """
    grid = _field(shared)
    shadows = [
        _rounded("grid.q", grid.q[None], 16),
        _rounded("grid.normals", grid.normals, 12, -1, 1),
        _rounded("grid.occlusion", shared.occlusion[None], 12, 0, 1),
        Plane("grid.broken", broken(np.log(grid.q)).astype(np.uint8)[None], 0, 1, 1),
        Plane("grid.seen", grid.seen.reshape(-1, *grid.shape), 0, 1, 255),
    ]
    if shared.trust is not None:
        shadows.append(_rounded("grid.trust", shared.trust[None], 8, 0, 1))
    return [*picture_planes(picture, shared), *sample_planes(prepare_samples(photo, shared)), *shadows]


def picture_planes(rgb: np.ndarray, shared: GridMaps) -> List[Plane]:
    """What prepare_picture takes for a picture (H, W, 3) uint8, on the grid of the geometry.

    Normals; the logarithm of the shading times its share and how much is relit, if they are known; q; where pixels
    decide, and there the mean colours.
    """
    size = rgb.shape[:2]
    all_planes = shrink(shared.planes, size)
    q, sides = all_planes[-1], shared.sides
    out = [_rounded("picture.normals", all_planes[:3], 12, -1, 1), _rounded("picture.q", q[None], 16)]
    if shared.shading_share:
        out.append(_rounded("picture.shading", all_planes[3:4], 12))
    if len(all_planes) > sides + 1:
        out.append(_rounded("picture.share", all_planes[sides : sides + 1], 8, 0, 1))
    if q.shape != size:
        where = undecided(edge_layer(q, *all_planes[sides:-1]))
        colours = np.moveaxis(texel_colours(rgb, q.shape), 2, 0) * _around(where)
        out.append(Plane("picture.undecided", where.astype(np.uint8)[None], 0, 1, 1))
        out.append(Plane("picture.colours", colours, 0, 1, 255))
    return out


def sample_planes(samples: Maps) -> List[Plane]:
    """What lights the samples that exposure is measured on, see prepare_samples.

    Their colours, and all that a Band tells; of the grid of the shadows, which texel and the three next to it count
    how much.
    """
    size = samples.size
    band, upsampler = samples.band(slice(0, size[0])), samples.edges
    corners, weights = samples.grid_sampler.corners()
    corners.ravel()[upsampler.pixels] = upsampler.corners
    weights.reshape(4, -1)[:, upsampler.pixels] = upsampler.weights
    out = [
        Plane("samples.photo", np.stack(band.codes), 0, 1, 255),
        _rounded("samples.normals", band.normals, 12, -1, 1),
        _rounded("samples.light", band.log_light[None], 12),
        _rounded("samples.occlusion", band.occlusion[None], 12, 0, 1),
        _rounded("samples.q", samples.depth(slice(0, size[0]))[None], 16),
        Plane("samples.corners", corners[None].astype(np.uint16), 0, 1, 1),
        _rounded("samples.weights", weights, 12, 0, 1),
    ]
    if band.share is not None:
        out.append(_rounded("samples.share", band.share[None], 8, 0, 1))
    return out


def _field(shared: GridMaps) -> VisibilityField:
    if not isinstance(shared.grid, VisibilityField):
        raise ValueError("nobody said what the surfaces see")
    return shared.grid


def _around(cells: np.ndarray) -> np.ndarray:
    """(h, w) uint8, 1 at the 4 x 4 texels around cells (h, w) bool, which their upper left texels tell."""
    h, w = cells.shape
    near = np.pad(cells, ((2, 1), (2, 1)))
    return np.asarray(np.any([near[y : y + h, x : x + w] for y in range(4) for x in range(4)], 0), np.uint8)


def _rounded(name: str, values: np.ndarray, bits: int, low: Any = None, high: Any = None) -> Plane:
    """Planes (n, h, w) in an even number of steps, so that the middle between low and high is exact too."""
    low = float(values.min()) if low is None else low
    high = float(values.max()) if high is None else high
    steps, kind = 2**bits - 2, np.uint8 if bits <= 8 else np.uint16
    scale = steps / (high - low) if high > low else 0.0
    codes = np.rint(np.clip((values - np.float32(low)) * np.float32(scale), 0, steps)).astype(kind)
    return Plane(name, codes, low, high, steps)


def differences(codes: np.ndarray) -> bytes:
    """Planes (n, h, w) of whole numbers as bytes that deflate well: each less the one to its left, or above it.

    Signs go to the lowest bit (0, -1, 1, -2 ... are 0, 1, 2, 3 ...). Of uint16, all low bytes come first.
    """
    wide = codes.astype(np.int32)
    steps = np.diff(wide, axis=2, prepend=0)
    steps[:, 1:, 0] = np.diff(wide[:, :, 0], axis=1)
    bits = 8 * codes.itemsize
    steps = (steps + (1 << (bits - 1)) & (1 << bits) - 1) - (1 << (bits - 1))  # the shorter way round
    folded = (steps << 1 ^ steps >> 31).astype(codes.dtype.newbyteorder("<"))
    return folded.reshape(-1, 1).view(np.uint8).T.tobytes()


def describe(planes: List[Plane]) -> Tuple[List[Dict[str, Any]], bytes]:
    """What a reader must know of planes, and their bytes one after the other; see differences."""
    told = [
        {
            "name": p.name,
            "shape": list(p.codes.shape),
            "bytes": p.codes.itemsize,
            "low": p.low,
            "high": p.high,
            "steps": p.steps,
        }
        for p in planes
    ]
    return told, b"".join(differences(p.codes) for p in planes)
