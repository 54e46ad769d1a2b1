"""From the network's grid to the picture's pixels, a band of rows at a time."""
import cv2
import numpy as np


def shrink(planes, size):
    """(n, h, w) float32 planes area-averaged so that no side is longer than `size` (H, W); smaller sides stay."""
    h, w = planes.shape[1:]
    H, W = min(h, size[0]), min(w, size[1])
    if (H, W) == (h, w):
        return planes
    return np.stack([cv2.resize(p, (W, H), interpolation=cv2.INTER_AREA) for p in planes])


class Resampler:
    """Bilinear interpolation from a grid (h, w) to a picture (H, W), pixel centres at halves, edges repeated."""

    def __init__(self, grid, size):
        self.grid, self.size = tuple(grid), tuple(size)
        h, H = self.grid[0], self.size[0]
        row = np.clip((np.arange(H) + 0.5) * h / H - 0.5, 0, h - 1)
        self.top = np.minimum(row.astype(np.intp), max(h - 2, 0))
        self.below = np.minimum(self.top + 1, h - 1)
        self.weight = (row - self.top).astype(np.float32)[:, None]

    def widen(self, plane):
        """(h, w) float32 to (h, W) float32: the horizontal half of the work, done once per plane."""
        return cv2.resize(plane, (self.size[1], self.grid[0]), interpolation=cv2.INTER_LINEAR)

    def rows(self, wide, start, stop, out=None):
        """Rows start..stop of the interpolated picture from a widened plane: (stop - start, W) float32."""
        a = np.take(wide, self.top[start:stop], axis=0, out=out, mode="clip")
        b = np.take(wide, self.below[start:stop], axis=0)
        b -= a
        b *= self.weight[start:stop]
        a += b
        return a
