"""Between the grids of the geometry and the pixels of a picture, a band of rows at a time."""

from concurrent.futures import ThreadPoolExecutor
from typing import Callable, List, NamedTuple, Sequence, Tuple

import cv2
import numpy as np

Size = Tuple[int, int]  # (h, w)
FEW = 16  # rows interpolated at a time


def fit_within(shape: Sequence[int], side: int) -> Size:
    """The shape (h, w) scaled down, if need be, to a long side of `side`; neither side falls below 1."""
    scale = min(1.0, side / max(shape))
    return max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale))


def shrink_image(pixels: np.ndarray, max_side: int) -> np.ndarray:
    """A picture (h, w) or (h, w, c) uint8, area-averaged so that no side is longer than `max_side`; never enlarged."""
    h, w = pixels.shape[:2]
    scale = max_side / max(h, w)
    if scale >= 1:
        return pixels
    size = (max(1, round(w * scale)), max(1, round(h * scale)))
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)


def shrink(planes: np.ndarray, size: Size) -> np.ndarray:
    """(n, h, w) float32 planes area-averaged so that no side is longer than that of `size` (H, W); else as they are."""
    h, w = planes.shape[1:]
    H, W = min(h, size[0]), min(w, size[1])
    if (h, w) == (H, W):
        return planes
    return np.stack([cv2.resize(p, (W, H), interpolation=cv2.INTER_AREA) for p in planes])


class CellPixels(NamedTuple):
    """The pixels of some cells of a grid (a cell: the pixels between four texels), in blocks of one size.

    rows: (c, a), columns: (c, b) int: of the pixels; a smaller cell repeats its last. whole: (c, a, b) bool, false for
    what is repeated. top, left: (c,) int, of the cells' upper left texels.
    """

    rows: np.ndarray
    columns: np.ndarray
    whole: np.ndarray
    top: np.ndarray
    left: np.ndarray

    def flat(self, width: int) -> np.ndarray:
        """(c * a, b) int: the pixels as flat indices into a picture of that width."""
        return (self.rows[:, :, None] * width + self.columns[:, None, :]).reshape(-1, self.columns.shape[1])

    def in_order(self) -> Tuple[np.ndarray, np.ndarray]:
        """How to sort anything (c, a, b, ...) by rows, then columns, with nothing repeated.

        Its first two axes made one, indexed by the first array and then by the second, (k, b) bool.
        """
        keys = self.rows.astype(np.int64) * (int(self.left.max(initial=0)) + 1) + self.left[:, None]
        keys[~self.whole[..., 0]] = -1
        order = np.argsort(keys, axis=None, kind="stable")
        order = order[np.count_nonzero(keys < 0) :]
        return order, self.whole.reshape(-1, self.whole.shape[2])[order]


class Resampler:
    """Bilinear interpolation from a grid (h, w) to a picture (H, W): centres at halves, edges repeated."""

    def __init__(self, grid: Size, size: Size):
        self.grid, self.size = grid, size
        self.top, self.down = _places(self.grid[0], self.size[0])
        self.left, self.right = _places(self.grid[1], self.size[1])

    def widen(self, planes: np.ndarray) -> np.ndarray:
        """(..., h, w) float32 to (..., h, W) float32: the horizontal half of the work, done once."""
        h, w = self.grid
        wide = [
            cv2.resize(p, (self.size[1], h), interpolation=cv2.INTER_LINEAR).reshape(h, -1)
            for p in planes.reshape(-1, h, w)
        ]
        return np.stack(wide).reshape(*planes.shape[:-1], self.size[1])

    def rows(self, wide: np.ndarray, rows: slice) -> np.ndarray:
        """Rows of the interpolated picture from widened planes (..., h, W): (..., r, W) float32.

        A product with the matrix of the weights, which is the quickest where it is small.
        """
        out = np.empty((*wide.shape[:-2], rows.stop - rows.start, self.size[1]), np.float32)
        for start in range(rows.start, rows.stop, FEW):
            some = slice(start, min(start + FEW, rows.stop))
            first, last = self.top[some.start], min(self.top[some.stop - 1] + 1, self.grid[0] - 1)
            place = (self.top[some] + self.down[some].astype(np.float64))[:, None]
            weights = np.maximum(1 - np.abs(place - np.arange(first, last + 1)), 0).astype(np.float32)
            done = slice(some.start - rows.start, some.stop - rows.start)
            np.matmul(weights, wide[..., first : last + 1, :], out=out[..., done, :])
        return out

    def corners(self) -> Tuple[np.ndarray, np.ndarray]:
        """For each pixel the flat index (H, W) int of the texel before it, and the weights (4, H, W) float32 of that
        texel, the next, and the two below.
        """
        weights = np.stack(corner_weights(self.down[:, None], self.right[None, :]))
        return self.top[:, None] * self.grid[1] + self.left[None, :], weights

    def cells(self, flags: np.ndarray) -> CellPixels:
        """The pixels whose upper left texel is flagged, (h, w) bool."""
        top, left = np.nonzero(flags)
        first_row, first_column = (
            np.searchsorted(places, np.arange(n + 1)) for places, n in zip((self.top, self.left), self.grid)
        )
        filled = (first_row[top] < first_row[top + 1]) & (first_column[left] < first_column[left + 1])
        top, left = top[filled], left[filled]
        (rows, in_rows), (columns, in_columns) = (
            _runs(first[of], first[of + 1]) for first, of in ((first_row, top), (first_column, left))
        )
        return CellPixels(rows, columns, in_rows[:, :, None] & in_columns[:, None, :], top, left)


def corner_weights(down: np.ndarray, right: np.ndarray) -> Tuple[np.ndarray, ...]:
    """What a texel, the next, and the two below count for a pixel that lies so far past the first, 0..1."""
    return (1 - down) * (1 - right), (1 - down) * right, down * (1 - right), down * right


def _runs(start: np.ndarray, stop: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    """From each start to its stop, (c, n) int with the last repeated, and (c, n) bool where nothing is repeated."""
    steps = start[:, None] + np.arange((stop - start).max(initial=1))
    inside = steps < stop[:, None]
    return np.minimum(steps, stop[:, None] - 1), inside


def _places(n: int, N: int) -> Tuple[np.ndarray, np.ndarray]:
    """For N pixels along n texels: the texel before each, and how far the pixel is past it (0..1)."""
    place = np.clip((np.arange(N) + 0.5) * n / N - 0.5, 0, n - 1)
    before = np.minimum(place.astype(np.intp), max(n - 2, 0))
    return before, (place - before).astype(np.float32)


def bands(size: Size, pixels: int) -> List[slice]:
    """Slices of rows that cover a picture (H, W), of about so many pixels each."""
    step = max(1, pixels // size[1])
    return [slice(start, min(start + step, size[0])) for start in range(0, size[0], step)]


def in_threads(work: Callable[[slice], None], parts: Sequence[slice], threads: int) -> None:
    """Do the work of every part, at most so many at a time."""
    if threads > 1 and len(parts) > 1:
        with ThreadPoolExecutor(min(threads, len(parts))) as pool:
            list(pool.map(work, parts))
    else:
        for part in parts:
            work(part)
