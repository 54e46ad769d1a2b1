"""The light one photograph was taken in, as an environment for another.

How bright its surfaces are lit, by the way they face, is what relighting divides out; the radiance that would light
them so is found from that. Its colour is that of a black body, one for the whole photograph: light of all hours and
most lamps is, while a green wood is not lit green.
"""

import cv2
import numpy as np

from ..image.resample import fit_within
from ..scene.geometry import Geometry
from ..scene.illumination import linear_small
from .environment import COLUMNS, ROWS, SIZE, convolved, cosine, places, solid_angles
from .lights import WHITE, Vector, blackbody
from .maps import GridMaps

ROUNDS = 40  # of deconvolution: smooth light is found soon, narrow lamps would be made up later
EVEN = 0.05  # of the surfaces: so many more, facing everywhere, that say that the light is even
NORM = 6  # of Minkowski: how much the brightest surfaces count for the colour of the light
NEUTRAL = 1e6 / 6500  # mired
BELIEVED = 0.7  # of the way from neutral to the colour found
WARMEST, COLDEST = 500.0, 50.0  # mired
CLIPPED = 0.95  # of a channel: its colour may be any
COLOUR_SIDE = 128  # long side of the picture that tells the colour


def own_light(shared: GridMaps) -> np.ndarray:
    """The radiance (ROWS, COLUMNS, 3) float32, without colour, of the light that a photograph was taken in.

    Its irradiance has the mean 1 over the photograph's own surfaces. Richardson-Lucy deconvolution (Richardson 1972,
    Lucy 1974) of the surfaces' light by their normals, from an even light on, so that what no surface faces stays even.
    """
    normals, light = shared.own_light()
    where = places(normals)
    row = np.clip(np.rint(where.row), 0, ROWS - 1).astype(np.intp)
    column = np.minimum(where.column, COLUMNS - 1).astype(np.intp)
    facing = row * COLUMNS + column
    count, total = (np.bincount(facing, w, ROWS * COLUMNS).reshape(SIZE) for w in (np.ones(light.size), light))
    area = solid_angles()
    share = area * (EVEN * light.size / area.sum())
    count, total = count + share, total + share * light.mean()
    total /= total.sum() / count.sum()

    def lit(values: np.ndarray) -> np.ndarray:
        return convolved(np.asarray(values, np.float32)[..., None], cosine)[..., 0]

    evidence, radiance = lit(count / area), np.ones(SIZE, np.float32)
    for _ in range(ROUNDS):
        radiance = radiance * lit(total / lit(radiance) / area) / evidence
    radiance *= np.float32(total.sum() / (count * lit(radiance)).sum())
    return np.repeat(radiance[..., None], 3, 2)


def colour_of_light(rgb: np.ndarray, geometry: Geometry) -> Vector:
    """The colour, linear sRGB of luminance 1, of the light that a photograph rgb (H, W, 3) uint8 was taken in.

    The black body that has as much red over blue as the Minkowski mean of the colours of its surfaces (Finlayson,
    Trezzi, "Shades of gray and colour constancy", 2004), and that in part: much of such a mean is colours of things.
    """
    linear = linear_small(rgb, fit_within(geometry.inverse_depth.shape, COLOUR_SIDE))
    use = linear.max(2) < CLIPPED
    if geometry.mask is not None:
        use &= cv2.resize(geometry.mask, use.shape[::-1], interpolation=cv2.INTER_AREA) > 0.5
    mean = (linear[use].astype(np.float64) ** NORM).mean(0) ** (1 / NORM) if use.any() else np.ones(3)
    if not mean.min() > 0:
        return WHITE
    mired = np.arange(COLDEST, WARMEST + 1, 5)
    known = np.array([blackbody(1e6 / m) for m in mired])
    found = float(np.interp(np.log(mean[0] / mean[2]), np.log(known[:, 0] / known[:, 2]), mired))
    return blackbody(1e6 / (NEUTRAL + BELIEVED * (found - NEUTRAL)))


def seen_in(radiance: np.ndarray, colour: Vector, here: Vector, delight: float) -> np.ndarray:
    """Radiance (h, w, 3) of a light of that colour, for a photograph whose own light has the colour `here`.

    As much of that as relighting takes away of the photograph's light is taken off: in its own light it stays as it is.
    """
    return radiance * np.float32(np.array(colour) / np.array(here) ** delight)
