"""Masks: where in a photograph light goes, and how they end softly without crossing its edges.

A mask is a picture (H, W) uint8: 255 wholly, 0 not at all, and in between in proportion.
"""

from dataclasses import replace
from typing import Callable, Tuple

import cv2
import numpy as np

from ..errors import MaskNotFound
from ..image.resample import Resampler, Size, bands, corner_weights, fit_within, shrink, shrink_image
from ..scene.geometry import Geometry
from .lights import SKY, Mask, Rig
from .maps import PIXELS, Maps, prepare_picture
from .passes import surface_pass
from .upsampling import COLOUR, DIRECT, STEEPEST, corner_offsets, local_ranges, texel_colours

GRIDS = (256, 512, 1024)  # long sides, in texels, of the grids that masks are feathered on:
TEXELS = 5  # the coarsest on which a feather is so long
ROUNDS = 3  # of the filter
SHADE = 0.05  # of sRGB 0..1, in the channel that differs most: less between two texels is no edge of the picture, and
STOPS = 0.05  # as much more is as far as the feather's standard deviation
UNEVEN = 1 / 64  # across a texel: where a feather is less even than that, pixels look at colours,
COLOURED = 8  # codes: if there are colours to look at


def fits(mask: Size, photo: Size, tolerance: float = 0.01) -> bool:
    """Have a mask and a photograph of those sizes (h, w) the same aspect ratio?"""
    return abs(mask[1] * photo[0] / (mask[0] * photo[1]) - 1) <= tolerance


def mask_of(pixels: np.ndarray) -> np.ndarray:
    """A picture (H, W, 3) or (H, W, 4) uint8 as a mask (H, W) uint8: its alpha, or if that hides nothing, its gray."""
    if pixels.shape[2] == 4 and pixels[..., 3].min() < 255:
        return np.ascontiguousarray(pixels[..., 3])
    return cv2.cvtColor(np.ascontiguousarray(pixels[..., :3]), cv2.COLOR_RGB2GRAY).reshape(pixels.shape[:2])


def scaled(mask: np.ndarray, size: Size) -> np.ndarray:
    """A mask at another size (h, w): each pixel the mean of what it covers, or where there is less, interpolated."""
    if mask.shape == size:
        return mask
    smaller = size[0] <= mask.shape[0] and size[1] <= mask.shape[1]
    how = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
    return cv2.resize(mask, size[::-1], interpolation=how).reshape(size)


def told_by(geometry: Geometry) -> Tuple[str, ...]:
    """Which of the masks that are built in a photograph has: those that its models tell."""
    return () if geometry.mask is None else (SKY,)


def built_in(name: str, maps: Maps, geometry: Geometry, photo: np.ndarray) -> np.ndarray:
    """A mask of told_by, (H, W) uint8, for a picture of a photograph (H', W', 3) or (H', W', 4) uint8.

    The sky is surface.png turned round.
    """
    if name not in told_by(geometry):
        raise MaskNotFound(f"The models that analysed this photo give no {name}.")
    return 255 - surface_pass(maps)


def built_in_alone(mask: Mask, maps: Maps, geometry: Geometry, photo: np.ndarray) -> np.ndarray:
    """What `masked` takes, for a photograph that has no masks but those that are built in. Raises MaskNotFound."""
    if not mask.feather:
        return built_in(mask.name, maps, geometry, photo)
    rgb = np.ascontiguousarray(photo[..., :3])
    small = prepare_picture(shrink_image(rgb, GRIDS[-1]), maps.shared)
    return in_picture(feathered(built_in(mask.name, small, geometry, photo), rgb, mask.feather), maps.rgb)


def masked(maps: Maps, rig: Rig, at_size: Callable[[Mask, Maps], np.ndarray]) -> Maps:
    """The maps with the masks of a rig at their size.

    at_size: what gives a mask, as it is before it is inverted, at the size of maps, (H, W) uint8.
    """

    def found(at: Maps) -> Maps:
        masks = {mask: at_size(mask, at) for mask in rig.masks}
        return replace(at, masks={mask: 255 - m if mask.invert else m for mask, m in masks.items()})

    if not rig.masks:
        return maps
    return replace(found(maps), samples=None if maps.samples is None else found(maps.samples))


def feathered(mask: np.ndarray, photo: np.ndarray, feather: float) -> np.ndarray:
    """A mask (any size) of a photograph (H, W, 3) uint8 with soft edges, (h, w) float32 0..1, on a grid of its own.

    feather: > 0, in picture widths: on an even ground the edge fades to each side about so far (a Gaussian with half of
    it as its standard deviation). It ends where the picture has an edge. The grid is the same for pictures of all
    sizes; see in_picture.

    The recursive filter of Gastal and Oliveira, "Domain transform for edge-aware image and video processing" (2011).
    """
    side = next((side for side in GRIDS if feather * side >= TEXELS), GRIDS[-1])
    size = fit_within(photo.shape[:2], side)
    colours = texel_colours(photo, size).astype(np.float32) / 255
    soft = scaled(mask, size).astype(np.float32) * np.float32(1 / 255)
    spread = max(feather / 2 * size[1], 1e-3)  # texels
    steps = [_steps(np.ascontiguousarray(c), spread) for c in (colours, colours.transpose(1, 0, 2))]
    for k in range(ROUNDS):
        deviation = spread * np.sqrt(3) * 2 ** (ROUNDS - 1 - k) / np.sqrt(4**ROUNDS - 1)
        for step in steps:  # down and up, then, with the axes exchanged, to the right and to the left
            soft = _swept(soft, np.exp(step * np.float32(-np.sqrt(2) / deviation)))
            soft = np.ascontiguousarray(soft.T)
    return soft


def _steps(colours: np.ndarray, spread: float) -> np.ndarray:
    """How far it is from each row of texels to the next, (h - 1, w) float32, edges counted as distance."""
    edge = np.abs(np.diff(colours, axis=0)).max(2)
    return 1 + np.maximum(edge - np.float32(SHADE), 0) * np.float32(spread / STOPS)


def _swept(values: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Values (h, w) each made nearer, by a share (h - 1, w), to the one above, and then to the one below."""
    for k in range(1, len(values)):
        values[k] += share[k - 1] * (values[k - 1] - values[k])
    for k in range(len(values) - 2, -1, -1):
        values[k] += share[k] * (values[k + 1] - values[k])
    return values


def in_picture(soft: np.ndarray, rgb: np.ndarray) -> np.ndarray:
    """What `feathered` gives as a mask of a picture (H, W, 3) uint8: (H, W) uint8.

    Interpolated; near edges of the picture those of the four texels around a pixel count that have its colour.
    """
    size = rgb.shape[:2]
    (soft,) = shrink(soft[None], size)
    sampler = Resampler(soft.shape, size)
    wide, out = sampler.widen(soft), np.empty(size, np.uint8)
    for rows in bands(size, PIXELS):
        np.rint(sampler.rows(wide, rows) * np.float32(255), out=out[rows], casting="unsafe")
    if soft.shape != size:
        pixels, values = _beside_edges(soft, rgb, sampler)
        out.ravel()[pixels] = np.rint(values * np.float32(255))
    return out


def _beside_edges(soft: np.ndarray, rgb: np.ndarray, sampler: Resampler) -> Tuple[np.ndarray, np.ndarray]:
    """The pixels near edges, as flat indices (k,), and their values (k,) float32."""
    colours = texel_colours(rgb, soft.shape)
    cells = sampler.cells((local_ranges(soft) > UNEVEN) & (local_ranges(colours).max(2) > COLOURED))
    order, whole = cells.in_order()
    pixels = cells.flat(sampler.size[1])[order][whole]
    y, x = np.divmod(pixels, sampler.size[1])
    corner = sampler.top[y] * soft.shape[1] + sampler.left[x]
    here, theirs = rgb.reshape(-1, 3)[pixels].astype(np.float32), colours.reshape(-1, 3).astype(np.float32)
    scale = np.float32(0.5 / (255 * COLOUR) ** 2)
    total, weight = np.zeros(pixels.shape, np.float32), np.zeros(pixels.shape, np.float32)
    first = soft.ravel()[corner]
    for ahead, share in zip(corner_offsets(soft.shape), corner_weights(sampler.down[y], sampler.right[x])):
        unlike = np.square(theirs[corner + ahead] - here).sum(1) * scale
        alike = (share + np.float32(DIRECT)) * np.exp(-np.minimum(unlike, np.float32(STEEPEST)))
        total += alike * (soft.ravel()[corner + ahead] - first)
        weight += alike
    return pixels, first + total / weight
