"""From linear light, or from other primaries and white points, to 8-bit sRGB: NumPy alone, a band of rows at a time."""

from typing import Optional, Sequence, Tuple

import numpy as np

from .curve import LUMINANCE as LUMINANCE
from .curve import linear_to_srgb

STEPS = 65535
# linear light in so many steps -> code; the curve is steepest at black, where one step is 0.05 codes
CODES = np.rint(255 * linear_to_srgb(np.arange(STEPS + 1) / STEPS)).astype(np.uint8)
CODES.setflags(write=False)

Point = Tuple[float, float]  # chromaticity (x, y)
D65, D50 = (0.3127, 0.3290), (0.3457, 0.3585)
SRGB = ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06))  # red, green, blue
# Lam (1985), "the Bradford matrix": XYZ to the responses in which an eye adapts to another white
BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])


def encode(linear: np.ndarray) -> np.ndarray:
    """Linear light of any shape and float type to 8-bit sRGB codes: above 1 is white, below 0 and NaN are black."""
    if linear.dtype.itemsize < 4:
        linear = linear.astype(np.float32)
    with np.errstate(invalid="ignore", over="ignore"):
        steps = np.clip(np.nan_to_num(linear, nan=0.0, posinf=1.0, neginf=0.0), 0.0, 1.0) * STEPS
    return CODES[np.rint(steps).astype(np.uint16)]


def _xyz(point: Point) -> np.ndarray:
    """XYZ of a chromaticity at Y = 1. Raises ValueError where there is none."""
    x, y = point
    if not (0 < y <= 1 and 0 <= x <= 1):
        raise ValueError("no chromaticity")
    return np.array([x / y, 1.0, (1 - x - y) / y])


def adaptation(white: Point) -> np.ndarray:
    """(3, 3): XYZ seen under that white to XYZ under D65 (Bradford). Raises ValueError for what is no white."""
    gain = (BRADFORD @ _xyz(D65)) / (BRADFORD @ _xyz(white))
    if not np.isfinite(gain).all() or gain.min() <= 0:
        raise ValueError("no white point")
    return np.linalg.inv(BRADFORD) @ np.diag(gain) @ BRADFORD


def rgb_to_xyz(white: Point, primaries: Sequence[Point]) -> np.ndarray:
    """(3, 3): linear RGB of those primaries to XYZ, white at Y = 1 (SMPTE RP 177). Raises ValueError for none."""
    columns = np.stack([_xyz(p) for p in primaries], 1)
    if abs(np.linalg.det(columns)) < 1e-6:
        raise ValueError("primaries on one line")
    return columns * np.linalg.solve(columns, _xyz(white))


XYZ_TO_SRGB = np.linalg.inv(rgb_to_xyz(D65, SRGB))


def to_srgb(white: Point, primaries: Sequence[Point]) -> Optional[np.ndarray]:
    """(3, 3) from linear RGB of those primaries to linear sRGB; None where it changes nothing, or where they are none.

    What is within 0.002 of sRGB's is sRGB: files hold these numbers rounded.
    """
    if np.abs(np.array([white, *primaries]) - np.array([D65, *SRGB])).max() < 0.002:
        return None
    try:
        return XYZ_TO_SRGB @ adaptation(white) @ rgb_to_xyz(white, primaries)
    except ValueError:
        return None


def lab_to_linear(lab: np.ndarray, white: Point = D50) -> np.ndarray:
    """CIE L*a*b* (..., 3), L* 0..100, under that white to linear sRGB (CIE 15:2004, 8.2.1), float64, not clipped."""
    f = np.empty(lab.shape)
    f[..., 1] = (lab[..., 0] + 16) / 116
    f[..., 0], f[..., 2] = f[..., 1] + lab[..., 1] / 500, f[..., 1] - lab[..., 2] / 200
    ratio = np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29))
    return ratio * _xyz(white) @ (XYZ_TO_SRGB @ adaptation(white)).T


def exposure(luminance: np.ndarray) -> float:
    """The factor that makes the 99th percentile of those values white (1.0); 1 where there is no light.

    Where the 99th percentile is black, the brightest value becomes white. Infinity and NaN count for nothing.
    """
    values = luminance[np.isfinite(luminance)]
    if not values.size:
        return 1.0
    white = float(np.percentile(values, 99))
    white = white if white > 0 else float(values.max())
    return 1 / white if white > 0 and np.isfinite(1 / white) else 1.0
