"""Radiance HDR (RGBE): a small format, read here within bounds. See Ward, "Real Pixels", Graphics Gems II (1991)."""

import re
from typing import Callable, Tuple

import numpy as np
from PIL import Image

from ..errors import CorruptImage, UnsupportedImage
from . import linear

MAX_HEAD = 1 << 16
BAND = 1 << 18  # pixels converted at a time
SAMPLES = 1 << 20  # pixels at most whose luminance decides the exposure
SIZE = re.compile(rb"([-+])([XY]) (\d{1,9}) ([-+])([XY]) (\d{1,9})")


def header(data: bytes) -> Tuple[int, int, "re.Match[bytes]", bool, int]:
    """(scan lines, pixels in each, the line that tells them, is it XYZE, where the pixels begin).

    Raises CorruptImage, UnsupportedImage.
    """
    empty = re.search(rb"\r?\n\r?\n", data[:MAX_HEAD])
    end = data.find(b"\n", empty.end(), empty.end() + 99) if empty else -1
    found = SIZE.fullmatch(data[empty.end() : end].strip()) if empty and end > 0 else None
    if empty is None or found is None or found[2] == found[5]:
        raise CorruptImage()
    kind = re.search(rb"^FORMAT=\s*(\S+)", data[: empty.start()], re.MULTILINE)
    if kind and kind[1] not in (b"32-bit_rle_rgbe", b"32-bit_rle_xyze"):
        raise UnsupportedImage("This kind of Radiance HDR is not read. Save it as RGBE (32-bit_rle_rgbe).")
    return int(found[3]), int(found[6]), found, bool(kind and kind[1].endswith(b"xyze")), end + 1


def _runs(data: bytes, at: int, out: bytearray) -> int:
    """Fill `out` in place with run-length coded bytes from `at`; returns where they end. Raises CorruptImage."""
    filled, n = 0, len(out)
    while filled < n:
        count = data[at]
        if count > 128:
            count -= 128
            out[filled : filled + count] = data[at + 1 : at + 2] * count
            at += 2
        else:
            piece = data[at + 1 : at + 1 + count]
            if len(piece) < count or not count:
                raise CorruptImage()
            out[filled : filled + count] = piece
            at += 1 + count
        filled += count
    if filled > n or len(out) > n:
        raise CorruptImage()
    return at


def _old_runs(data: bytes, at: int, out: np.ndarray) -> int:
    """Fill one scan line (n, 4) in place from pixels; 1 1 1 n repeats the one before. Returns where they end."""
    filled, shift, n = 0, 0, len(out)
    while filled < n:
        pixel = data[at : at + 4]
        if len(pixel) < 4:
            raise CorruptImage()
        at += 4
        if pixel[:3] == b"\1\1\1":
            count = pixel[3] << shift
            if not filled or filled + count > n or shift > 24:
                raise CorruptImage()
            out[filled : filled + count] = out[filled - 1]
            filled, shift = filled + count, shift + 8
        else:
            out[filled] = np.frombuffer(pixel, np.uint8)
            filled, shift = filled + 1, 0
    return at


def _lines(data: bytes, at: int, lines: int, length: int) -> np.ndarray:
    """(lines, length, 4) uint8: three mantissas and an exponent. Raises CorruptImage."""
    out = np.empty((lines, length, 4), np.uint8)
    flat = lines * length * 4
    new = length.to_bytes(2, "big") if 8 <= length < 32768 else None
    if len(data) - at == flat and not (new and data[at : at + 4] == b"\2\2" + new):
        out.reshape(-1)[:] = np.frombuffer(data, np.uint8, flat, at)
        return out
    line = bytearray(4 * length)
    for y in range(lines):
        if new and data[at : at + 4] == b"\2\2" + new:
            at += 4
            for c in range(4):
                part = bytearray(length)
                at = _runs(data, at, part)
                line[c * length : (c + 1) * length] = part
            out[y] = np.frombuffer(line, np.uint8).reshape(4, length).T
        else:
            at = _old_runs(data, at, out[y])
    return out


def _light(rgbe: np.ndarray) -> np.ndarray:
    """(..., 4) uint8 to linear light (..., 3) float32: (mantissa + 1/2) * 2 ** (exponent - 136).

    Mantissas are rounded down, hence the half; but 0, and any at exponent 0, are black.
    """
    mantissa = rgbe[..., :3].astype(np.float32)
    light = np.ldexp(mantissa + np.float32(0.5), rgbe[..., 3:].astype(np.int32) - 136)
    return np.where((rgbe[..., 3:] > 0) & (rgbe[..., :3] > 0), light, np.float32(0))


class Picture:
    """A Radiance HDR picture (height, width), as RGBE; light() makes linear sRGB of some rows.

    `check(width, height)` is called before anything is decoded, and may raise. Raises CorruptImage, UnsupportedImage.
    """

    def __init__(self, data: bytes, check: Callable[[int, int], None]):
        lines, length, order, xyz, at = header(data)
        check(*((length, lines) if order[2] == b"Y" else (lines, length)))
        try:
            rgbe = _lines(data, at, lines, length)
        except IndexError:  # the bytes end before the pixels do
            raise CorruptImage() from None
        if order[2] == b"X":  # the scan lines are columns
            rgbe = rgbe.swapaxes(0, 1)
        signs = {order[2]: order[1], order[5]: order[4]}
        self._rgbe = rgbe[:: 1 if signs[b"Y"] == b"-" else -1, :: 1 if signs[b"X"] == b"+" else -1]
        self.height, self.width = rgbe.shape[:2]
        self._matrix = (linear.XYZ_TO_SRGB @ linear.adaptation((1 / 3, 1 / 3))).T.astype(np.float32) if xyz else None

    def light(self, top: int, bottom: int, step: int = 1) -> np.ndarray:
        """Rows top..bottom (not inside), of every step-th pixel, (h, w, 3) float32."""
        light = _light(self._rgbe[top:bottom, ::step])
        return light if self._matrix is None else light @ self._matrix


def read(data: bytes, check: Callable[[int, int], None]) -> Image.Image:
    """A Radiance HDR picture as sRGB, exposed so that the 99th percentile of its luminance is white.

    `check(width, height)` is called before anything is decoded, and may raise. Raises CorruptImage, UnsupportedImage.
    """
    picture = Picture(data, check)
    h, w = picture.height, picture.width
    step = max(1, int((h * w / SAMPLES) ** 0.5))
    seen = np.concatenate([picture.light(y, y + 1, step) @ linear.LUMINANCE for y in range(0, h, step)], 1)
    factor = np.float32(linear.exposure(seen))
    out = Image.new("RGB", (w, h))
    rows = max(1, BAND // w)
    for top in range(0, h, rows):
        out.paste(Image.fromarray(linear.encode(picture.light(top, min(top + rows, h)) * factor)), (0, top))
    return out
