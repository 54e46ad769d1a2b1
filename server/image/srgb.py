"""The two sRGB curves (IEC 61966-2-1) as tables, for whole pictures."""

import cv2
import numpy as np

from .curve import LUMINANCE as LUMINANCE
from .curve import linear_to_srgb, srgb_to_linear

STEPS = 1 << 14  # 0.1 code per step at the steepest part of the curve, 16 KB: stays in the first cache
TO_LINEAR = srgb_to_linear(np.arange(256) / 255).astype(np.float32)  # code -> linear light
TO_CODE = np.full((1, 1 << 16), 255, np.uint8)  # by the middle of each step; above 1 all is 255
TO_CODE[0, :STEPS] = np.rint(255 * linear_to_srgb((np.arange(STEPS) + 0.5) / STEPS))
CODE_TO_STEPS = TO_LINEAR * np.float32(STEPS)
TO_LINEAR.setflags(write=False)
CODE_TO_STEPS.setflags(write=False)
TO_CODE.setflags(write=False)
WIDE_LUT = int(cv2.__version__.split(".")[0]) >= 5  # cv2.LUT takes 16-bit indices since 5.0: twice as fast


def decode(codes: np.ndarray) -> np.ndarray:
    """8-bit sRGB codes (h, w) to linear light, float32."""
    return cv2.LUT(codes, TO_LINEAR).reshape(codes.shape)


def encode(linear: np.ndarray) -> np.ndarray:
    """Linear light (h, w) float32 in 0..4 (what is above 1 becomes 255) to 8-bit sRGB codes.

    Decoding and encoding gives every code back; any other value is at most 0.1 code off before rounding.
    """
    return encode_steps(linear * np.float32(STEPS))


def decode_to_steps(codes: np.ndarray) -> np.ndarray:
    """8-bit sRGB codes (h, w) to linear light in STEPS, float32: what encode_steps takes, for the hottest loop."""
    return cv2.LUT(codes, CODE_TO_STEPS).reshape(codes.shape)


def encode_steps(steps: np.ndarray) -> np.ndarray:
    """The same as encode, of linear light times STEPS."""
    index = steps.astype(np.uint16)
    if WIDE_LUT:
        return cv2.LUT(index, TO_CODE).reshape(steps.shape)
    return np.take(TO_CODE, index, mode="clip")
