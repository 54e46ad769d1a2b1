"""Pictures as bytes. No alpha is ever blended, no metadata written but what is asked for."""

import io
import struct
import zlib
from importlib import import_module
from typing import Any, Dict, List, Tuple

import cv2
import numpy as np
from PIL import Image

from .metadata import PNG_START
from .resample import bands, in_threads

# Intel's deflate, on ARM too: a third of the time of zlib's quickest
try:
    isal: Any = import_module("isal.isal_zlib")
except ImportError:
    isal = None

PART_BYTES = 1 << 20  # filtered and compressed at a time, each part on its own, as pigz does
COLOUR_TYPE = {1: 0, 3: 2, 4: 6}
ABOUT = b"relight\0"  # keyword of a tEXt chunk
RAW = -15  # deflate without a wrapper
BASE = 65521  # of Adler-32


def encode_jpeg(rgb: np.ndarray, quality: int = 85) -> bytes:
    """(H, W, 3) uint8 RGB as a baseline JPEG."""
    done, data = cv2.imencode(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, int(quality)])
    if not done:
        raise ValueError("cannot encode the picture")
    return data.tobytes()


def encode_webp(pixels: np.ndarray) -> bytes:
    """(H, W, 3) RGB or (H, W, 4) RGBA uint8 as a lossless WebP, also of the colours that alpha hides.

    By the quickest method: others take three to ten times as long for a tenth of the bytes.
    """
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "WEBP", lossless=True, quality=0, method=0, exact=True)
    return out.getvalue()


def encode_png(array: np.ndarray, threads: int = 1, about: str = "") -> bytes:
    """(H, W) gray, (H, W, 3) RGB or (H, W, 4) RGBA, uint8 or uint16, as a PNG (ISO/IEC 15948).

    about: what png_about reads of it again; ASCII.

    Every row is stored as its difference to the one above (filter 2), which suits photographs about as well as
    choosing. Parts are compressed one by one, by so many threads, and put in a row (RFC 1950, RFC 1951); the bytes do
    not depend on the threads.
    """
    H, W = array.shape[:2]
    channels = array.shape[2] if array.ndim == 3 else 1
    rows_of_bytes = W * channels * array.itemsize
    parts: Dict[int, Tuple[bytes, int, int]] = {}

    def pack(rows: slice) -> None:
        filtered = _filtered(array, rows, rows_of_bytes)
        parts[rows.start] = (_deflated(filtered, rows.stop == H), zlib.adler32(filtered.data), filtered.size)

    in_threads(pack, bands((H, rows_of_bytes), PART_BYTES), threads)
    checksum, chunks = 1, []
    for _, (data, adler, size) in sorted(parts.items()):
        checksum = _adler_of_both(checksum, adler, size)
        chunks.append(data)
    chunks[0] = b"\x78\x01" + chunks[0]
    chunks[-1] += struct.pack(">I", checksum)
    header = struct.pack(">IIBBBBB", W, H, 8 * array.itemsize, COLOUR_TYPE[channels], 0, 0, 0)
    pieces = [PNG_START, *_chunk(b"IHDR", header)]
    if about:
        pieces += _chunk(b"tEXt", ABOUT + about.encode("ascii"))
    for data in chunks:
        pieces += _chunk(b"IDAT", data)
    return b"".join([*pieces, *_chunk(b"IEND", b"")])


def png_about(start: bytes) -> str:
    """What encode_png was told, from the first bytes of its PNG; "" for other PNGs."""
    at = len(PNG_START) + 25  # behind IHDR
    if not start.startswith(PNG_START) or start[at + 4 : at + 8 + len(ABOUT)] != b"tEXt" + ABOUT:
        return ""
    (length,) = struct.unpack_from(">I", start, at)
    return start[at + 8 + len(ABOUT) : at + 8 + length].decode("ascii", "replace")


def _filtered(array: np.ndarray, rows: slice, width: int) -> np.ndarray:
    """Rows as a PNG holds them: a byte that names the filter, then the differences, uint8."""
    above = max(rows.start - 1, 0)
    samples = array[above : rows.stop]
    samples = np.ascontiguousarray(samples, ">u2" if array.itemsize == 2 else np.uint8).view(np.uint8)
    samples = samples.reshape(-1, width)
    out = np.empty((rows.stop - rows.start, width + 1), np.uint8)
    out[:, 0] = 2
    if rows.start == 0:
        out[0, 1:] = samples[0]
    np.subtract(samples[1:], samples[:-1], out=out[len(out) - len(samples) + 1 :, 1:])
    return out


def _deflated(data: np.ndarray, last: bool) -> bytes:
    """Raw deflate of one part, which the next can follow unless it is the last."""
    if isal is not None:
        packer, flush = isal.compressobj(1, isal.DEFLATED, RAW), (isal.Z_FINISH if last else isal.Z_FULL_FLUSH)
    else:
        packer = zlib.compressobj(1, zlib.DEFLATED, RAW, 8, zlib.Z_RLE)
        flush = zlib.Z_FINISH if last else zlib.Z_FULL_FLUSH
    packed: bytes = packer.compress(data) + packer.flush(flush)
    return packed


def deflate(data: bytes) -> bytes:
    """A zlib stream (RFC 1950), made quickly."""
    packed: bytes = zlib.compress(data, 4) if isal is None else isal.compress(data, 3)
    return packed


def _adler_of_both(first: int, second: int, size: int) -> int:
    """Adler-32 of two pieces put together, from theirs and the size of the second (zlib's adler32_combine)."""
    low = (first & 0xFFFF) + (second & 0xFFFF) - 1
    high = (first >> 16) + (second >> 16) + size * ((first & 0xFFFF) - 1)
    return (high % BASE) << 16 | low % BASE


def _chunk(kind: bytes, data: bytes) -> List[bytes]:
    return [struct.pack(">I", len(data)), kind, data, struct.pack(">I", zlib.crc32(data, zlib.crc32(kind)))]
