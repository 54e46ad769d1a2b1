"""The sRGB curve (IEC 61966-2-1) and luminance in NumPy alone, for the decoder processes, which load no OpenCV."""

import numpy as np
import numpy.typing as npt

LUMINANCE = np.array([0.2126, 0.7152, 0.0722], np.float32)  # of linear sRGB (ITU-R BT.709)


def srgb_to_linear(value: npt.ArrayLike) -> np.ndarray:
    """sRGB values 0..1 of any shape to linear light, float64."""
    value = np.asarray(value, np.float64)
    return np.where(value <= 0.04045, value / 12.92, ((np.maximum(value, 0.0) + 0.055) / 1.055) ** 2.4)


def linear_to_srgb(value: npt.ArrayLike) -> np.ndarray:
    """Linear light 0..1 of any shape to sRGB values, float64."""
    value = np.clip(np.asarray(value, np.float64), 0.0, 1.0)
    return np.where(value <= 0.0031308, value * 12.92, 1.055 * value ** (1 / 2.4) - 0.055)
