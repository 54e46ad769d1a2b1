"""OpenEXR files: read and written by OpenEXR, a band of rows at a time; headers are read here, within bounds."""

import io
import struct
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Tuple

import numpy as np
from PIL import Image

from ..errors import CorruptImage, UnsupportedImage
from . import linear
from .signatures import kind_of

MAX_ATTRIBUTES, MAX_NAME, MAX_CHANNELS = 1000, 256, 1024
ROWS = 256  # decoded at a time: the blocks of rows that are packed together have at most 256
BAND = 1 << 18  # pixels converted at a time
SAMPLES = 1 << 20  # pixels at most whose luminance decides the exposure
DEEP, MULTIPART = 0x800, 0x1000
NUMBERS: Dict[int, Any] = {
    0: np.dtype(np.uint32),
    1: np.dtype(np.float16),
    2: np.dtype(np.float32),
}  # types of channels
Box = Tuple[int, int, int, int]  # left, top, right, bottom; the last two are inside


class Header(NamedTuple):
    """What is used of a header: data and display window, (name -> (type, x and y sampling)), chromaticities."""

    data: Box
    display: Box
    channels: Dict[str, Tuple[int, int, int]]
    chromaticities: Optional[Tuple[float, ...]]


def _name(data: bytes, at: int) -> Tuple[bytes, int]:
    end = data.find(b"\0", at, at + MAX_NAME)
    if end < 0:
        raise CorruptImage()
    return data[at:end], end + 1


def _channels(value: bytes) -> Dict[str, Tuple[int, int, int]]:
    found: Dict[str, Tuple[int, int, int]] = {}
    at = 0
    while at < len(value) and value[at]:
        name, at = _name(value, at)
        kind, _, x, y = struct.unpack_from("<iIii", value, at)
        at += 16
        found[name.decode("latin-1")] = (kind, x, y)
        if len(found) > MAX_CHANNELS or kind not in NUMBERS:
            raise CorruptImage()
    return found


def header(data: bytes) -> Header:
    """The (first) header of a file. Raises CorruptImage, UnsupportedImage."""
    if len(data) < 16:
        raise CorruptImage()
    if struct.unpack_from("<I", data, 4)[0] & DEEP:
        raise UnsupportedImage("Deep EXR files are not read. Save the image flattened.")
    values: Dict[bytes, bytes] = {}
    at = 8
    try:
        while data[at]:
            name, at = _name(data, at)
            _, at = _name(data, at)
            length = struct.unpack_from("<I", data, at)[0]
            values[name] = data[at + 4 : at + 4 + min(length, MAX_NAME * MAX_CHANNELS)]
            at += 4 + length
            if len(values) > MAX_ATTRIBUTES:
                raise CorruptImage()
        if values.get(b"type", b"").startswith(b"deep"):
            raise UnsupportedImage("Deep EXR files are not read. Save the image flattened.")
        points = values.get(b"chromaticities", b"")
        return Header(
            struct.unpack("<4i", values[b"dataWindow"]),
            struct.unpack("<4i", values[b"displayWindow"]),
            _channels(values[b"channels"]),
            struct.unpack("<8f", points) if len(points) == 32 else None,
        )
    except (IndexError, KeyError, struct.error):
        raise CorruptImage() from None


def colours(channels: Dict[str, Tuple[int, int, int]]) -> Tuple[List[str], Optional[str]]:
    """(the three channels of colour, or the one of gray; the one of alpha). Of layers, the first one. Or raises.

    Raises UnsupportedImage where there is neither.
    """
    whole = [n for n, (_, x, y) in channels.items() if x == y == 1]
    layers = ["", *dict.fromkeys(n.rpartition(".")[0] + "." for n in whole if "." in n)]
    if {"RY", "BY"} <= set(channels):
        raise UnsupportedImage("EXR files of luminance and chroma are not read. Save it with the channels R, G and B.")
    for layer in layers:
        for names in (("R", "G", "B"), ("r", "g", "b"), ("red", "green", "blue"), ("Y",)):
            if all(layer + n in whole for n in names):
                alpha = next((layer + a for a in ("A", "a", "alpha") if layer + a in whole), None)
                return [layer + n for n in names], alpha
    if len(whole) == 1:  # a single channel of any name, such as Z
        return whole, None
    raise UnsupportedImage("This EXR file has no picture: neither channels R, G and B nor a channel Y.")


def _window(head: Header) -> Box:
    """The part of the display window that the file holds; where they do not meet, all it holds. Raises CorruptImage."""
    a, b = head.data, head.display
    if a[2] < a[0] or a[3] < a[1]:
        raise CorruptImage()
    both = (max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3]))
    return a if both[2] < both[0] or both[3] < both[1] else both


def _rows(file: Any, head: Header, names: List[str], box: Box, top: int, bottom: int) -> np.ndarray:
    """Rows top..bottom (inside) of those channels within the box, (h, w, n) float32."""
    width = head.data[2] - head.data[0] + 1
    out = np.empty((bottom - top + 1, box[2] - box[0] + 1, len(names)), np.float32)
    packed = file.channels(names, scanLine1=top, scanLine2=bottom)
    for k, name in enumerate(names):
        data = np.frombuffer(packed[k], NUMBERS[head.channels[name][0]])
        with np.errstate(invalid="ignore"):
            out[..., k] = data.reshape(-1, width)[:, box[0] - head.data[0] : box[2] - head.data[0] + 1]
    return out


class _Source(io.BytesIO):
    """A file that remembers whether more was asked for than it has: the library takes what is missing for black."""

    ended = False

    def read(self, size: Optional[int] = -1, /) -> bytes:
        """The next bytes, at most `size`."""
        data = super().read(size)
        self.ended = self.ended or (size is not None and len(data) < size)
        return data


def _bands(data: bytes, head: Header, names: List[str], box: Box) -> List[np.ndarray]:
    """All rows within the box, in bands (h, w, n) float32. Raises CorruptImage."""
    import OpenEXR

    try:
        source = _Source(data)
        file = OpenEXR.InputFile(source)
        source.ended = False
        tops = range(box[1], box[3] + 1, ROWS)
        bands = [_rows(file, head, names, box, top, min(top + ROWS - 1, box[3])) for top in tops]
    except (OSError, ValueError, TypeError, RuntimeError, IndexError, EOFError):  # what it raises for damaged bytes
        raise CorruptImage() from None
    if source.ended:
        raise CorruptImage()
    return bands


def light(data: bytes, check: Callable[[int, int], None]) -> Tuple[List[np.ndarray], int]:
    """(linear sRGB in bands of rows, (h, w, 1 or 3) float32, with straight alpha behind it if there is any; 1 or 3).

    `check(width, height)` is called before anything is decoded, and may raise. Raises CorruptImage, UnsupportedImage.
    """
    head = header(data)
    box = _window(head)
    check(head.data[2] - head.data[0] + 1, head.data[3] - head.data[1] + 1)
    names, alpha = colours(head.channels)
    bands = _bands(data, head, names + ([alpha] if alpha else []), box)
    n = len(names)
    matrix = None
    if head.chromaticities and n == 3:
        points = list(zip(head.chromaticities[::2], head.chromaticities[1::2]))
        matrix = linear.to_srgb(points[3], points[:3])
    for band in bands:
        _straight(band, n, matrix)
    return bands, n


def read(data: bytes, check: Callable[[int, int], None]) -> Image.Image:
    """An EXR picture as sRGB, exposed so that the 99th percentile of its luminance is white; with straight alpha.

    `check(width, height)` is called before anything is decoded, and may raise. Raises CorruptImage, UnsupportedImage.
    """
    bands, n = light(data, check)
    w, h, alpha = bands[0].shape[1], sum(map(len, bands)), bands[0].shape[2] > n
    step = max(1, int((h * w / SAMPLES) ** 0.5))
    weights = linear.LUMINANCE if n == 3 else np.ones(1, np.float32)
    with np.errstate(invalid="ignore", over="ignore"):
        seen = np.concatenate([(b[::step, ::step, :n] @ weights).ravel() for b in bands])
    factor = np.float32(linear.exposure(seen))
    out = Image.new("RGBA" if alpha else "RGB", (w, h))
    top = 0
    while bands:
        band = bands.pop(0)
        for y in range(0, len(band), max(1, BAND // w)):
            out.paste(Image.fromarray(_codes(band[y : y + max(1, BAND // w)], n, factor)), (0, top + y))
        top += len(band)
    return out


def _straight(band: np.ndarray, n: int, matrix: Optional[np.ndarray]) -> None:
    """Divide the first n channels by the alpha behind them, if any, and apply the matrix, in place."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        if band.shape[2] > n:
            alpha = band[..., n:]
            np.divide(band[..., :n], alpha, out=band[..., :n], where=(alpha > 0) & (alpha < 1))
        if matrix is not None:
            band[..., :n] = band[..., :n] @ matrix.T.astype(np.float32)


def _codes(band: np.ndarray, n: int, factor: np.float32) -> np.ndarray:
    """(h, w, 3) or, with alpha, (h, w, 4) uint8."""
    with np.errstate(invalid="ignore", over="ignore"):
        codes = linear.encode(band[..., :n] * factor)
        rgb = codes if n == 3 else codes.repeat(3, -1)
        if band.shape[2] == n:
            return rgb
        alpha = np.rint(np.clip(np.nan_to_num(band[..., n:], nan=1.0), 0, 1) * 255).astype(np.uint8)
    return np.concatenate([rgb, alpha], -1)


class Writer:
    """Writes a scanline file, ZIP-compressed, from top to bottom; use it in a `with` statement.

    path: where to. size: (H, W). channels: np.float16 or np.float32 by name. about: the text of the attribute
    `relight`; numbers: further attributes. Raises OSError.
    """

    def __init__(
        self, path: str, size: Tuple[int, int], channels: Mapping[str, Any], about: str, numbers: Mapping[str, float]
    ):
        import Imath
        import OpenEXR

        self._types = channels
        kinds: Dict[Any, Any] = {np.float16: Imath.PixelType.HALF, np.float32: Imath.PixelType.FLOAT}
        head = OpenEXR.Header(size[1], size[0])
        head["channels"] = {name: Imath.Channel(Imath.PixelType(kinds[kind])) for name, kind in channels.items()}
        head["compression"] = Imath.Compression(Imath.Compression.ZIP_COMPRESSION)
        head["relight"] = about.encode("ascii")
        for name, number in numbers.items():
            head[name] = float(number)
        self._file = OpenEXR.OutputFile(path, head)

    def write(self, planes: Mapping[str, np.ndarray]) -> None:
        """The next rows of every channel, (r, W)."""
        with np.errstate(over="ignore"):  # what half floats do not reach is infinite
            packed = {name: np.ascontiguousarray(planes[name], kind).tobytes() for name, kind in self._types.items()}
        self._file.writePixels(packed, len(next(iter(planes.values()))))

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, *exc: object) -> None:
        self._file.close()


def about(start: bytes) -> str:
    """The text of the attribute `relight`, from the first bytes of a file of Writer; "" for other files."""
    name = start.find(b"relight\0string\0")
    if kind_of(start) != "EXR" or name < 0 or len(start) < name + 19:
        return ""
    (length,) = struct.unpack_from("<I", start, name + 15)
    return start[name + 19 : name + 19 + length].decode("ascii", "replace")
