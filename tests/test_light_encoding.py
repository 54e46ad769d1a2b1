"""PNG and JPEG bytes, read back by other decoders."""

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from server.image import encode as encoding
from server.image.encode import encode_jpeg, encode_png

SHAPES = [(1, 1), (1, 70), (70, 1), (63, 5), (64, 64), (65, 130), (200, 33)]
KINDS = {"gray": ((), np.uint8), "gray 16": ((), np.uint16), "RGB": ((3,), np.uint8), "RGBA": ((4,), np.uint8)}


@pytest.mark.parametrize("without_isal", [False, True])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES)
def test_png_reads_back(shape, kind, without_isal, monkeypatch):
    if without_isal:
        monkeypatch.setattr(encoding, "isal", None)
    elif encoding.isal is None:
        pytest.skip("isal is not installed: only the fallback can be tested")
    channels, dtype = KINDS[kind]
    rng = np.random.default_rng(0)
    array = rng.integers(0, np.iinfo(dtype).max, shape + channels, dtype, endpoint=True)
    array[: shape[0] // 2] = array[0]
    data = encode_png(array)
    assert np.array_equal(np.array(Image.open(io.BytesIO(data))), array)
    ours = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    swapped = array[..., [2, 1, 0, 3][: array.shape[2]]] if array.ndim == 3 else array
    assert ours.dtype == dtype and np.array_equal(ours, swapped)


def test_png_keeps_colour_under_alpha_0():
    array = np.full((8, 8, 4), (10, 200, 30, 0), np.uint8)
    assert np.array_equal(np.array(Image.open(io.BytesIO(encode_png(array)))), array)


def test_the_parts_of_a_png_do_not_depend_on_threads(monkeypatch):
    monkeypatch.setattr(encoding, "PART_BYTES", 1000)
    array = np.random.default_rng(0).integers(0, 255, (90, 40, 3), np.uint8)
    data = encode_png(array, threads=3)
    assert data == encode_png(array) and data.count(b"IDAT") > 5
    assert np.array_equal(np.array(Image.open(io.BytesIO(data))), array)


def test_png_of_a_view():
    array = np.random.default_rng(0).integers(0, 255, (30, 40, 3), np.uint8)
    assert np.array_equal(np.array(Image.open(io.BytesIO(encode_png(array[::2, ::-1])))), array[::2, ::-1])


def test_png_chunks_are_whole(monkeypatch):
    """Signature, lengths, checksums and order as the standard has them, whatever decoders forgive."""
    monkeypatch.setattr(encoding, "PART_BYTES", 100)
    data = encode_png(np.arange(300, dtype=np.uint16).astype(np.uint8).reshape(10, 10, 3))
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    kinds, packed, at = [], b"", 8
    while at < len(data):
        (length,), kind = struct.unpack(">I", data[at : at + 4]), data[at + 4 : at + 8]
        (crc,) = struct.unpack(">I", data[at + 8 + length : at + 12 + length])
        assert crc == zlib.crc32(data[at + 4 : at + 8 + length])
        kinds.append(kind)
        packed += data[at + 8 : at + 8 + length] if kind == b"IDAT" else b""
        at += 12 + length
    assert kinds[0] == b"IHDR" and b"IDAT" in kinds and kinds[-1] == b"IEND"
    assert len(zlib.decompress(packed)) == 10 * 31  # which checks Adler-32 too


def test_jpeg():
    y, x = np.mgrid[0:48, 0:64]
    array = np.stack([x * 4, y * 5, x + y], 2).astype(np.uint8)
    small, large = encode_jpeg(array, 20), encode_jpeg(array, 95)
    assert len(small) < len(large)
    assert np.abs(np.array(Image.open(io.BytesIO(large))).astype(int) - array).mean() < 3
