"""Crisp edges: coarse values brought to the pixels near a silhouette from their own side of it."""

from dataclasses import dataclass
from typing import Callable, Optional, Sequence, Tuple

import cv2
import numpy as np

from ..image.resample import CellPixels, Resampler, corner_weights, in_threads

JUMP = 0.06  # in log depth, or in the mask: a silhouette
COLOUR = 0.07  # of sRGB 0..1: how alike the colours of one side are
DEPTH = 0.025  # in log depth: how alike the depths of one side are
FAINTEST = -20.0  # exponent of the least weight that a colour gives
STEEPEST = 30.0  # of the greatest difference in depth, in exponents
DIRECT = 1e-3  # what a corner counts besides its bilinear weight
CHUNK = 1 << 14
BREAK = 0.12  # in log depth across a texel: behind a break so large, networks blend the two sides
BLEND = 4  # texels that the blend reaches
ALIKE = 0.06  # in log depth: how alike the depths of one surface are across those


def edge_layer(q: np.ndarray, mask: Optional[np.ndarray] = None) -> np.ndarray:
    """What tells the two sides of a silhouette apart: log depth, and a large step where the surfaces end."""
    return np.log(q) if mask is None else np.log(q) + mask


def local_ranges(values: np.ndarray) -> np.ndarray:
    """(h, w) float32: highest minus lowest of each texel and its neighbours right, below, and right below."""
    kernel = np.ones((2, 2), np.uint8)
    return cv2.dilate(values, kernel, anchor=(0, 0)) - cv2.erode(values, kernel, anchor=(0, 0))


def undecided(layer: np.ndarray) -> np.ndarray:
    """(h, w) bool: whose pixels joint_bilateral decides, by their upper left texel; layer: see edge_layer."""
    return cv2.dilate((local_ranges(layer) > JUMP).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0


def broken(log_q: np.ndarray) -> np.ndarray:
    """(h, w) bool: in whose pixels depth_aware looks at depths, by their upper left texel; log_q: of the texels."""
    return local_ranges(log_q) > JUMP / 2


def without_blends(planes: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Planes (n, h, w) float32 with the far side of every large break in depth q (h, w) filled in from farther off.

    Beside a silhouette a network's normals pass over from those of the near surface to those of the far one, which
    lights a rim into the background. What lies in front keeps its values: it does turn away there.
    """
    log_q, (h, w) = np.log(q), q.shape
    next_to, wide = np.ones((3, 3), np.uint8), np.ones((2 * BLEND + 1,) * 2, np.uint8)
    breaks = cv2.dilate(log_q, next_to) - cv2.erode(log_q, next_to) > BREAK
    by_break = cv2.dilate(breaks.astype(np.uint8), np.ones((2 * BLEND - 1,) * 2, np.uint8)) > 0
    known = ~by_break | (log_q >= (cv2.dilate(log_q, wide) + cv2.erode(log_q, wide)) / 2)
    out = np.array(planes, np.float32)
    padded = np.pad(log_q, 1, mode="edge")
    for _ in range(BLEND + 1):
        sources, values = np.pad(known.astype(np.float32), 1), np.pad(out, ((0, 0), (1, 1), (1, 1)))
        total, weight = np.zeros_like(out), np.zeros((h, w), np.float32)
        for part in ((slice(y, y + h), slice(x, x + w)) for y in range(3) for x in range(3)):
            alike = sources[part] * np.exp(-np.square((padded[part] - log_q) / np.float32(ALIKE)))
            weight += alike
            total += values[(slice(None), *part)] * alike
        found = ~known & (weight > 0.05)
        if not found.any():
            break
        out[:, found] = total[:, found] / weight[found]
        known |= found
    return out


@dataclass(frozen=True)
class SparsePlanes:
    """Planes that are known at some pixels of a picture (H, W)."""

    width: int  # of the picture
    pixels: np.ndarray  # (k,) int32, flat, ascending
    first: np.ndarray  # (H + 1,) int: of the pixels, the first in each row
    values: np.ndarray  # (n, k) float32

    def write(self, band: np.ndarray, rows: slice, first: int = 0) -> None:
        """Overwrite these rows of some planes, (m, r, W) float32, from the `first` on, where they are known."""
        known = slice(self.first[rows.start], self.first[rows.stop])
        pixels = self.pixels[known] - np.int32(rows.start * self.width)
        for plane, values in zip(band, self.values[first:]):
            plane.ravel()[pixels] = values[known]

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self.pixels.nbytes + self.first.nbytes + self.values.nbytes


def texel_colours(rgb: np.ndarray, grid: Tuple[int, int]) -> np.ndarray:
    """The mean colour of each texel of a grid, (h, w, 3) uint8, from a picture (H, W, 3) uint8."""
    return cv2.resize(rgb, grid[::-1], interpolation=cv2.INTER_AREA).reshape(*grid, 3)


def joint_bilateral(
    planes: np.ndarray, layer: np.ndarray, rgb: np.ndarray, sampler: Resampler, threads: int = 1
) -> SparsePlanes:
    """Joint bilateral upsampling (Kopf et al. 2007) of planes, only near silhouettes, deciding for one side.

    Of the 4 x 4 texels around a pixel those of its colour count; the side (near or far) that counts more wins.
    planes: (n, h, w) float32 on the grid of `sampler`; layer: (h, w), see edge_layer; rgb: (H, W, 3) uint8.
    """
    n, h, w = planes.shape
    cells = sampler.cells(undecided(layer))
    texels, contents = _texels_of(cells, planes, layer)
    colours = texel_colours(rgb, (h, w)).reshape(-1, 3).astype(np.float32) / 255
    scale = np.float32(-0.5 / COLOUR**2)
    ahead = np.repeat(np.arange(-1, 3, dtype=np.float32), 4), np.tile(np.arange(-1, 3, dtype=np.float32), 4)
    nearness = np.stack([*ahead, np.full(16, -0.5, np.float32), (ahead[0] ** 2 + ahead[1] ** 2) / -2])
    values = np.empty((n, *cells.whole.shape), np.float32)

    def match(part: slice) -> None:
        y, x = cells.rows[part], cells.columns[part]
        c, each = len(y), y.shape[1] * x.shape[1]
        colour = rgb[y[:, :, None], x[:, None, :]].reshape(c, each, 3) * np.float32(1 / 255)
        # exp(-|colour - texel's|^2 / 2 COLOUR^2 - |place - texel's|^2 / 2), the squares multiplied out
        theirs = colours[texels[part]]
        likeness = np.concatenate([colour, np.square(colour).sum(2, keepdims=True), np.ones_like(colour[..., :1])], 2)
        theirs = np.concatenate(
            [-2 * theirs, np.ones_like(theirs[..., :1]), np.square(theirs).sum(2, keepdims=True)], 2
        )
        weight = likeness @ (scale * theirs).transpose(0, 2, 1)
        np.maximum(weight, np.float32(FAINTEST), out=weight)
        place = np.empty((c, y.shape[1], x.shape[1], 4), np.float32)
        place[..., 0], place[..., 1] = sampler.down[y][:, :, None], sampler.right[x][:, None, :]
        place[..., 2], place[..., 3] = place[..., 0] ** 2 + place[..., 1] ** 2, 1
        weight += (place.reshape(-1, 4) @ nearness).reshape(weight.shape)
        sums = cv2.exp(weight, dst=weight).reshape(weight.shape) @ contents[part]
        near, far = sums[..., n], sums[..., 2 * n + 1]
        t = np.clip((near / (near + far) - np.float32(0.25)) * 2, 0, 1)
        won = t * t * (3 - 2 * t)
        found = sums[..., :n] * (won / np.maximum(near, np.float32(1e-12)))[..., None]
        found += sums[..., n + 1 : 2 * n + 1] * ((1 - won) / np.maximum(far, np.float32(1e-12)))[..., None]
        values[:, part] = np.moveaxis(found, 2, 0).reshape(n, c, y.shape[1], x.shape[1])

    step = max(1, CHUNK // max(1, cells.whole[:1].size))
    in_threads(match, [slice(k, k + step) for k in range(0, len(cells.top), step)], threads)
    order, whole = cells.in_order()
    pixels = cells.flat(sampler.size[1])
    found = np.stack([plane.reshape(pixels.shape)[order][whole] for plane in values])
    return _sparse(pixels[order][whole], found, sampler.size)


def _texels_of(cells: CellPixels, planes: np.ndarray, layer: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    """The 4 x 4 texels around each cell: their flat indices (c, 16), and (c, 16, 2n + 2) float32 what is in them.

    That is the planes and 1 where a texel is on the near side, else 0; then the same for the far side.
    """
    n, h, w = planes.shape
    around, wide = np.arange(-1, 3), np.ones((5, 5), np.uint8)
    rows, columns = np.clip(cells.top[:, None] + around, 0, h - 1), np.clip(cells.left[:, None] + around, 0, w - 1)
    texels = (rows[:, :, None] * w + columns[:, None, :]).reshape(-1, 16)
    middle = (cv2.dilate(layer, wide) + cv2.erode(layer, wide)).reshape(h, w)[cells.top, cells.left] / 2
    near = (layer.ravel()[texels] > middle[:, None])[..., None]
    held = np.concatenate([planes.reshape(n, -1).T[texels], np.ones((*texels.shape, 1), np.float32)], 2)
    return texels, np.concatenate([held * near, held * ~near], 2)


def _sparse(pixels: np.ndarray, values: np.ndarray, size: Tuple[int, int]) -> SparsePlanes:
    return SparsePlanes(size[1], pixels.astype(np.int32), _first_in_rows(pixels, size), values)


def _first_in_rows(pixels: np.ndarray, size: Tuple[int, int]) -> np.ndarray:
    return np.searchsorted(pixels, np.arange(size[0] + 1, dtype=pixels.dtype) * size[1])


def nowhere(n: int, size: Tuple[int, int]) -> SparsePlanes:
    """n planes that are known at no pixel of a picture (H, W)."""
    return _sparse(np.empty(0, np.intp), np.empty((n, 0), np.float32), size)


def corner_offsets(grid: Tuple[int, int]) -> Tuple[int, int, int, int]:
    """From a corner to the four texels, in flat indices; on a grid one texel thin, two of them coincide."""
    h, w = grid
    right, below = int(w > 1), w * int(h > 1)
    return 0, right, below, below + right


@dataclass(frozen=True)
class DepthAwareUpsampler:
    """For the pixels near silhouettes: which of the four texels around them are of their own depth; kept compactly."""

    grid: Tuple[int, int]
    width: int  # of the picture
    pixels: np.ndarray  # (k,) int32, flat, ascending
    first: np.ndarray  # (H + 1,) int: of the pixels, the first in each row
    corners: np.ndarray  # (k,) int, flat: the upper left of the four texels
    weights: np.ndarray  # (4, k) float32

    def apply_in_place(self, band: np.ndarray, texels: np.ndarray, rows: slice) -> None:
        """Overwrite the pixels near silhouettes in rows of the picture, from texels.

        band: (r, W) float32 and texels: (h, w) float32, or both with as many more axes in front.
        """
        a, b = self.first[rows.start], self.first[rows.stop]
        pixels = self.pixels[a:b] - np.int32(rows.start * self.width)
        corners = [self.corners[a:b] + ahead for ahead in corner_offsets(self.grid)]
        h, w = self.grid
        for plane, flat in zip(band.reshape(-1, band.shape[-2] * self.width), texels.reshape(-1, h * w)):
            total = np.zeros(b - a, np.float32)
            for places, weight in zip(corners, self.weights[:, a:b]):
                found = np.take(flat, places, mode="clip")
                found *= weight
                total += found
            plane[pixels] = total

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self.pixels.nbytes + self.first.nbytes + self.corners.nbytes + self.weights.nbytes


def depth_aware(
    q_texels: np.ndarray, sampler: Resampler, q_rows: Callable[[slice], np.ndarray], parts: Sequence[slice]
) -> DepthAwareUpsampler:
    """The upsampler from a grid of depths q (h, w) to a picture, whose depths `q_rows` tells: (r, W) float32 of rows.

    parts: slices of rows, from the first of the picture to the last.
    """
    log_q, (_, W) = np.log(q_texels), sampler.size
    cells = sampler.cells(broken(log_q))
    order, whole = cells.in_order()
    pixels = cells.flat(W)[order][whole]
    first = _first_in_rows(pixels, sampler.size)
    q = np.empty(pixels.shape, np.float32)
    for rows in parts:
        mine = slice(first[rows.start], first[rows.stop])
        if mine.start < mine.stop:
            q[mine] = q_rows(rows).ravel()[pixels[mine] - rows.start * W]
    y, x = np.divmod(pixels, W)
    a, b, corner, log_q_pixels = sampler.down[y], sampler.right[x], sampler.top[y] * log_q.shape[1], np.log(q)
    corner += sampler.left[x]
    weights = np.empty((4, pixels.size), np.float32)
    for k, (ahead, share) in enumerate(zip(corner_offsets(sampler.grid), corner_weights(a, b))):
        unlike = (log_q.ravel()[corner + ahead] - log_q_pixels) / np.float32(DEPTH)
        weights[k] = (share + np.float32(DIRECT)) * np.exp(-np.minimum(unlike * unlike, STEEPEST))
    weights /= weights.sum(0)
    return DepthAwareUpsampler(sampler.grid, W, pixels.astype(np.int32), first, corner, weights)
