"""What stands in front: the network's coarse answer, with its edge found in the photograph itself."""

from typing import Optional

import cv2
import numpy as np

from ..errors import FileNotFound
from ..image.resample import Resampler, bands, fit_within, in_threads
from .geometry import Geometry

GUIDE = 768  # long side in pixels of the picture on which the edge is looked for
REACH = 2.5  # texels of the answer: how far from the answer's edge the photograph's may lie
EVEN = 1e-4  # variance of colours 0..1: what is more even has no edge
CERTAIN = 0.05  # below it an answer is none, and above 1 less it is whole
PIXELS = 1 << 18  # of a band
UNKNOWN = (
    "subject.png needs a model that tells what stands in front, and this photo was analysed without one, or by an "
    "older version. Where GET /models lists the role subject, upload the photo again."
)


def subject_pass(
    geometry: Geometry, rgb: np.ndarray, alpha: Optional[np.ndarray] = None, threads: int = 1
) -> np.ndarray:
    """subject.png, (H, W) uint8: 255 what stands in front, 0 the rest.

    rgb: (H, W, 3) uint8, the photograph at any size; alpha: (H, W) uint8, what is transparent is no subject.
    Raises FileNotFound where no network told it.
    """
    if geometry.subject is None:
        raise FileNotFound(UNKNOWN)
    return refined(geometry.subject, rgb, alpha, threads)


def refined(subject: np.ndarray, rgb: np.ndarray, alpha: Optional[np.ndarray] = None, threads: int = 1) -> np.ndarray:
    """A network's answer (h, w) uint8 at the size of a photograph and with its edges; see subject_pass."""
    size = rgb.shape[:2]
    grid = fit_within(size, GUIDE)
    guide = cv2.resize(rgb, grid[::-1], interpolation=cv2.INTER_AREA).reshape(*grid, 3).astype(np.float32) / 255
    coarse = cv2.resize(subject.astype(np.float32) / 255, grid[::-1], interpolation=cv2.INTER_LINEAR).reshape(grid)
    reach = max(1, round(REACH * max(grid) / max(subject.shape)))
    sampler, out = Resampler(grid, size), np.empty(size, np.uint8)
    wide = sampler.widen(linear_in_colour(coarse, guide, reach))

    def fill(rows: slice) -> None:
        red, green, blue, rest = sampler.rows(wide, rows)
        for k, share in enumerate((red, green, blue)):
            rest += share * (rgb[rows, :, k] * np.float32(1 / 255))
        rest = np.clip((rest - np.float32(CERTAIN)) * np.float32(1 / (1 - 2 * CERTAIN)), 0, 1)
        if alpha is not None:
            rest *= alpha[rows] * np.float32(1 / 255)
        np.rint(rest * np.float32(255), out=out[rows], casting="unsafe")

    in_threads(fill, bands(size, PIXELS), threads)
    return out


def linear_in_colour(plane: np.ndarray, guide: np.ndarray, reach: int) -> np.ndarray:
    """(4, h, w) float32: by which red, green, blue (0..1) and 1 are multiplied to make the plane, nearly, everywhere.

    plane: (h, w) float32; guide: (h, w, 3) float32, 0..1; reach: pixels.
    The guided filter of He, Sun and Tang, "Guided Image Filtering" (TPAMI 2013), with a guide in colour; that the
    factors may be found on a smaller picture is "Fast Guided Filter" (2015).
    """

    def mean(values: np.ndarray) -> np.ndarray:
        return cv2.blur(values, (2 * reach + 1,) * 2, borderType=cv2.BORDER_REFLECT)

    colours = [np.ascontiguousarray(guide[..., k]) for k in range(3)]
    means, middle = [mean(c) for c in colours], mean(plane)
    with_plane = [mean(c * plane) - m * middle for c, m in zip(colours, means)]
    pairs = ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))
    rr, gg, bb, rg, rb, gb = (mean(colours[i] * colours[k]) - means[i] * means[k] for i, k in pairs)
    rr, gg, bb = (v + np.float32(EVEN) for v in (rr, gg, bb))
    # the inverse of the symmetric matrix of the colours' covariances, by its cofactors
    inverse = {
        (0, 0): gg * bb - gb * gb,
        (0, 1): gb * rb - rg * bb,
        (0, 2): rg * gb - gg * rb,
        (1, 1): rr * bb - rb * rb,
        (1, 2): rb * rg - rr * gb,
        (2, 2): rr * gg - rg * rg,
    }
    scale = 1 / (rr * inverse[0, 0] + rg * inverse[0, 1] + rb * inverse[0, 2])
    shares = [scale * sum(inverse[min(i, k), max(i, k)] * with_plane[k] for k in range(3)) for i in range(3)]
    rest = middle - sum(s * m for s, m in zip(shares, means))
    return np.stack([mean(p) for p in (*shares, rest)])
