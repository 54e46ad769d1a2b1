"""Between the grids of the geometry and the pixels of a picture, a band of rows at a time."""

from typing import List, Sequence, Tuple

import cv2
import numpy as np

Size = Tuple[int, int]  # (h, w)


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


class Resampler:
    """Bilinear interpolation from a grid (h, w) to a picture (H, W): centres at halves, edges repeated."""

    def __init__(self, grid: Size, size: Size):
        self.grid, self.size = grid, size
        self.top, self.down = _places(self.grid[0], self.size[0])
        self.left, self.right = _places(self.grid[1], self.size[1])
        self.below = np.minimum(self.top + 1, self.grid[0] - 1)

    def widen(self, plane: np.ndarray) -> np.ndarray:
        """(h, w) float32 to (h, W) float32: the horizontal half of the work, done once per plane."""
        return cv2.resize(plane, (self.size[1], self.grid[0]), interpolation=cv2.INTER_LINEAR)

    def rows(self, wide: np.ndarray, rows: slice) -> np.ndarray:
        """Rows of the interpolated picture from a widened plane: (r, W) float32."""
        a, b = np.take(wide, self.top[rows], 0, mode="clip"), np.take(wide, self.below[rows], 0, mode="clip")
        b -= a
        b *= self.down[rows, None]
        a += b
        return a

    def cells(self, flags: np.ndarray, rows: slice) -> Tuple[np.ndarray, np.ndarray]:
        """Rows and columns of the pixels among `rows` whose upper left texel is flagged, (h, w) bool."""
        wide = np.take(flags, self.left, 1)
        r, c = np.nonzero(np.take(wide, self.top[rows], 0))
        return r + rows.start, c


def _places(n: int, N: int) -> Tuple[np.ndarray, np.ndarray]:
    """For N pixels along n texels: the texel before each, and how far the pixel is past it (0..1)."""
    place = np.clip((np.arange(N) + 0.5) * n / N - 0.5, 0, n - 1)
    before = np.minimum(place.astype(np.intp), max(n - 2, 0))
    return before, (place - before).astype(np.float32)


def bands(size: Size, pixels: int) -> List[slice]:
    """Slices of rows that cover a picture (H, W), of about so many pixels each."""
    step = max(1, pixels // size[1])
    return [slice(start, min(start + step, size[0])) for start in range(0, size[0], step)]
