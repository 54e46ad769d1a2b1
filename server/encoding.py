"""Pictures as bytes."""
import cv2
import numpy as np


def encode_jpeg(rgb: np.ndarray, quality: int = 85) -> bytes:
    """(H, W, 3) uint8 RGB as a baseline JPEG."""
    return _encode(".jpg", rgb, [cv2.IMWRITE_JPEG_QUALITY, int(quality)])


def encode_png(array: np.ndarray) -> bytes:
    """(H, W) uint8 or uint16 gray, (H, W, 3) RGB or (H, W, 4) RGBA uint8 as a PNG."""
    return _encode(".png", array, [])


def _encode(kind, array, flags):
    if array.ndim == 3:
        array = cv2.cvtColor(array, cv2.COLOR_RGBA2BGRA if array.shape[2] == 4 else cv2.COLOR_RGB2BGR)
    done, data = cv2.imencode(kind, array, flags)
    if not done:
        raise ValueError("cannot encode the picture")
    return data.tobytes()
