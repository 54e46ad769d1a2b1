"""Pictures as bytes. No alpha is ever blended, no metadata written."""

import struct
import zlib
from importlib import import_module
from typing import Any, List

import cv2
import numpy as np

# Intel's deflate, on ARM too: a quarter of the time of zlib's quickest, and smaller files
try:
    deflate: Any = import_module("isal.isal_zlib")
except ImportError:
    deflate = None

ROWS = 64  # filtered and compressed at a time
COLOUR_TYPE = {1: 0, 3: 2, 4: 6}


def encode_jpeg(rgb: np.ndarray, quality: int = 85) -> bytes:
    """(H, W, 3) uint8 RGB as a baseline JPEG."""
    return _opencv(".jpg", rgb, [cv2.IMWRITE_JPEG_QUALITY, int(quality)])


def encode_png(array: np.ndarray) -> bytes:
    """(H, W) uint8 or uint16 gray, (H, W, 3) RGB or (H, W, 4) RGBA uint8 as a PNG (ISO/IEC 15948).

    Every row is stored as its difference to the one above (filter 2), which suits photographs about as well as
    choosing.
    """
    if deflate is None:
        return _opencv(".png", array, [])
    array = np.ascontiguousarray(array)
    H, W = array.shape[:2]
    wide = array.dtype == np.uint16
    samples = (array.astype(">u2") if wide else array).reshape(H, -1).view(np.uint8)
    packer = deflate.compressobj(1)
    parts = []
    for start in range(0, H, ROWS):
        rows = samples[start : start + ROWS]
        filtered = np.empty((rows.shape[0], samples.shape[1] + 1), np.uint8)
        filtered[:, 0] = 2
        if start == 0:
            filtered[0, 1:] = rows[0]
            np.subtract(rows[1:], rows[:-1], out=filtered[1:, 1:])
        else:
            np.subtract(rows, samples[start - 1 : start - 1 + rows.shape[0]], out=filtered[:, 1:])
        parts.append(packer.compress(filtered))
    parts.append(packer.flush())
    channels = array.shape[2] if array.ndim == 3 else 1
    header = struct.pack(">IIBBBBB", W, H, 16 if wide else 8, COLOUR_TYPE[channels], 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", b"".join(parts)) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(data, zlib.crc32(kind)))


def _opencv(kind: str, array: np.ndarray, flags: List[int]) -> bytes:
    if array.ndim == 3:
        array = cv2.cvtColor(array, cv2.COLOR_RGBA2BGRA if array.shape[2] == 4 else cv2.COLOR_RGB2BGR)
    done, data = cv2.imencode(kind, array, flags)
    if not done:
        raise ValueError("cannot encode the picture")
    return data.tobytes()
