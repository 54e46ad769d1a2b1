"""TIFFs that Pillow does not read: floating point, 32-bit and signed integers, L*a*b*, two channels of any depth.

The directory is read here, within bounds, and only the tags that matter; zlib and libtiff unpack the pixels.
"""

import io
import struct
import warnings
import zlib
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Tuple

import numpy as np
from PIL import Image, TiffImagePlugin

from ..errors import CorruptImage, ImageTooLarge, UnsupportedImage
from . import linear

WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, FILL_ORDER = 256, 257, 258, 259, 262, 266
STRIPS, ORIENTATION, SAMPLES, ROWS, STRIP_BYTES, PLANAR = 273, 274, 277, 278, 279, 284
PREDICTOR, WHITE_POINT, TILE_WIDTH, TILE_HEIGHT, TILES, TILE_BYTES = 317, 318, 322, 323, 324, 325
EXTRA, FORMAT = 338, 339
REDUCED, SUB_DIRECTORIES, DNG_VERSION = 254, 330, 50706
PLACES = {STRIPS, STRIP_BYTES, TILES, TILE_BYTES}
# every tag by which Pillow or libtiff reads pixels: those above, palette, JPEG tables, YCbCr and CCITT parameters
PICTURE = {WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, FILL_ORDER, ORIENTATION, SAMPLES, ROWS, PLANAR, PREDICTOR}
PICTURE |= PLACES | {WHITE_POINT, TILE_WIDTH, TILE_HEIGHT, EXTRA, FORMAT, 292, 293, 320, 332, 347, 512, 513, 514}
PICTURE |= {519, 520, 521, 529, 530, 531, 532}
TYPES = {1: "B", 3: "H", 4: "I", 5: "II", 16: "Q"}
SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
MAX_PIECES = 1 << 20  # strips or tiles of a picture
NONE, LZW, DEFLATE, OLD_DEFLATE, PACKBITS, LZMA, ZSTD = 1, 5, 8, 32946, 32773, 34925, 50000
MIN_IS_WHITE, MIN_IS_BLACK, RGB, CIELAB, ICCLAB = 0, 1, 2, 8, 9
UNSIGNED, SIGNED, FLOAT = 1, 2, 3
BAND = 1 << 18  # pixels converted at a time


class Directory(NamedTuple):
    """The first directory: byte order ("<" or ">"), values by tag, and its entries as they stand in the file."""

    order: str
    big: bool
    tags: Dict[int, Tuple[int, ...]]
    entries: List[bytes]

    def one(self, tag: int, default: int = 0) -> int:
        """The first value of a tag."""
        return (self.tags.get(tag) or (default,))[0]


def directory(data: bytes) -> Directory:
    """The first directory of a TIFF or BigTIFF; values of unknown tags are not read. Raises CorruptImage."""
    order = "<" if data[:2] == b"II" else ">"
    big = data[2:4] in (b"+\0", b"\0+")
    count_format, entry, offset, at_format, inline = ("Q", 20, 8, "Q", 8) if big else ("H", 12, 4, "I", 4)
    try:
        (at,) = struct.unpack_from(order + at_format, data, offset)
        (n,) = struct.unpack_from(order + count_format, data, at)
        at += struct.calcsize("=" + count_format)
        entries = [data[at + k * entry : at + (k + 1) * entry] for k in range(min(n, 1 << 16))]
        tags: Dict[int, Tuple[int, ...]] = {}
        for e in entries:
            tag, kind, count = struct.unpack_from(order + "HH" + at_format, e)
            if tag in PICTURE and tag not in tags and kind in TYPES and count:
                tags[tag] = _values(data, order, kind, count, e[entry - inline :], at_format)
    except (struct.error, OverflowError):
        raise CorruptImage() from None
    return Directory(order, big, tags, entries)


def _values(data: bytes, order: str, kind: int, count: int, field: bytes, at_format: str) -> Tuple[int, ...]:
    """The values of one entry; rationals as two numbers each."""
    if count > MAX_PIECES:
        raise CorruptImage()
    length = SIZES[kind] * count
    if length > len(field):
        (at,) = struct.unpack(order + at_format, field)
        field = data[at : at + length]
    return struct.unpack(f"{order}{count * len(TYPES[kind])}{TYPES[kind][0]}", field[:length])


def bare(data: bytes) -> bytes:
    """The file with a directory, at its end, of only those tags by which pixels are read. Raises CorruptImage."""
    found = directory(data)
    kept = [e for e in found.entries if int.from_bytes(e[:2], "little" if found.order == "<" else "big") in PICTURE]
    pad = bytes(-len(data) % 8)
    at = len(data) + len(pad)
    if found.big:
        head = data[:8] + struct.pack(found.order + "Q", at)
        return head + data[16:] + pad + struct.pack(found.order + "Q", len(kept)) + b"".join(kept) + bytes(8)
    head = data[:4] + struct.pack(found.order + "I", at)
    return head + data[8:] + pad + struct.pack(found.order + "H", len(kept)) + b"".join(kept) + bytes(4)


class Layout(NamedTuple):
    """How the samples of a picture lie in the file."""

    width: int
    height: int
    samples: int
    dtype: np.dtype  # in the file's byte order
    planar: bool
    piece: Tuple[int, int]  # rows and columns of a strip or a tile
    tiled: bool
    places: Tuple[int, ...]
    lengths: Tuple[int, ...]


def needs_us(found: Directory) -> bool:
    """Does Pillow not read that kind, or not rightly? (It reads any other, or refuses it.)"""
    formats, bits = set(found.tags.get(FORMAT, (UNSIGNED,))), max(found.tags.get(BITS, (1,)))
    deep_planes = bits == 16 and found.one(PLANAR, 1) == 2 and found.one(SAMPLES, 1) > 1  # Pillow mixes them
    return formats != {UNSIGNED} or bits > 16 or deep_planes or found.one(PHOTOMETRIC) in (CIELAB, ICCLAB)


def is_raw(data: bytes, found: Directory) -> bool:
    """Is that a camera's raw file (DNG, NEF, CR2, ARW)? Its first picture is a thumbnail, not the photo."""
    entries = {struct.unpack_from(found.order + "H", e)[0]: e for e in found.entries if len(e) > 1}
    reduced = entries.get(REDUCED, b"")
    small = len(reduced) == 12 and struct.unpack(found.order + "I", reduced[8:])[0] & 1
    return bool(small and SUB_DIRECTORIES in entries) or DNG_VERSION in entries or data[8:10] == b"CR"


def layout(found: Directory) -> Layout:
    """Raises CorruptImage for a directory that contradicts itself, UnsupportedImage for kinds that are not read."""
    tags, n = found.tags, found.one(SAMPLES, 1)
    formats, bits = set(tags.get(FORMAT, (UNSIGNED,))), set(tags.get(BITS, (1,)))
    if not 1 <= n <= 64 or not found.one(WIDTH) or not found.one(HEIGHT):
        raise CorruptImage()
    kinds = {UNSIGNED: "u", SIGNED: "i", FLOAT: "f"}
    if len(formats) > 1 or len(bits) > 1 or not formats <= set(kinds):
        raise UnsupportedImage("A TIFF whose channels have several or undefined types is not read. Save it as RGB.")
    kind, depth = kinds[formats.pop()], bits.pop()
    if depth not in ((16, 32, 64) if kind == "f" else (8, 16, 32, 64)):
        raise UnsupportedImage(f"A TIFF of {depth} bits a sample of this kind is not read. Save it with 8 or 16 bits.")
    if found.one(FILL_ORDER, 1) != 1:
        raise UnsupportedImage("A TIFF with reversed bits is not read. Save it in the usual order of bits.")
    width, height, tiled = found.one(WIDTH), found.one(HEIGHT), TILES in tags
    if tiled:
        piece = (found.one(TILE_HEIGHT), found.one(TILE_WIDTH))
    else:
        piece = (min(found.one(ROWS, height) or height, height), width)
    places = tags.get(TILES if tiled else STRIPS, ())
    lengths = tags.get(TILE_BYTES if tiled else STRIP_BYTES, ())
    planar = found.one(PLANAR, 1) == 2 and n > 1
    whole = Layout(
        width, height, n, np.dtype(f"{found.order}{kind}{depth // 8}"), planar, piece, tiled, places, lengths
    )
    if min(piece) < 1 or len(places) != len(lengths):
        raise CorruptImage()
    if len(places) < _across(whole) * -(-height // piece[0]) * (n if planar else 1):
        raise CorruptImage()
    if piece[0] * piece[1] > 2 * max(width * height, 1 << 16):  # a tile of much more than the picture
        raise CorruptImage()
    return whole


def _across(lay: Layout) -> int:
    return -(-lay.width // lay.piece[1])


def _unpacked(packed: bytes, how: int, row: int, rows: int) -> bytes:
    """`rows` rows of `row` bytes. Raises CorruptImage for too few, UnsupportedImage for a packing that is not known."""
    if how == NONE:
        out = packed
    elif how in (DEFLATE, OLD_DEFLATE):
        try:
            out = zlib.decompressobj().decompress(packed, row * rows)
        except zlib.error:
            raise CorruptImage() from None
    elif how in (LZW, PACKBITS, LZMA, ZSTD):
        out = _by_libtiff(packed, how, row, rows)
    else:
        raise UnsupportedImage(
            f"A TIFF of this kind with compression {how} is not read. Save it uncompressed, or with ZIP or LZW."
        )
    if len(out) < row * rows:
        raise CorruptImage()
    return out[: row * rows]


def _by_libtiff(packed: bytes, how: int, row: int, rows: int) -> bytes:
    """Unpack bytes as if they were a gray picture of 8 bits: libtiff writes no more than that picture has."""
    tags = [(WIDTH, row), (HEIGHT, rows), (BITS, 8), (COMPRESSION, how), (PHOTOMETRIC, MIN_IS_BLACK)]
    tags += [(STRIPS, 8 + 2 + 12 * 9 + 4), (SAMPLES, 1), (ROWS, rows), (STRIP_BYTES, len(packed))]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)
    try:
        # not by Image.open: a row of bytes is no row of pixels, and is not to be counted as one
        with warnings.catch_warnings(), TiffImagePlugin.TiffImageFile(io.BytesIO(head + packed)) as image:
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            return image.tobytes()
    except Image.DecompressionBombError:  # more bytes than twice the pixels that are taken
        raise ImageTooLarge(
            "A strip or tile of this TIFF is too large to be unpacked. Save it in smaller ones, or with ZIP."
        ) from None
    except (OSError, ValueError, SyntaxError, EOFError, struct.error):
        raise CorruptImage() from None


def _unpredicted(rows: np.ndarray, lay: Layout, predictor: int, n: int) -> np.ndarray:
    """(h, bytes in a row) uint8 to (h, w, n) samples in the machine's byte order (floats: TIFF Technical Note 3)."""
    h, size = len(rows), lay.dtype.itemsize
    native = lay.dtype.newbyteorder("=")
    if predictor == 3 and lay.dtype.kind == "f":
        planes = np.cumsum(rows.reshape(h, -1, n), axis=1, dtype=np.uint8).reshape(h, size, -1)
        values = np.ascontiguousarray(planes.transpose(0, 2, 1)).view(lay.dtype.newbyteorder(">"))
        return values.astype(native).reshape(h, -1, n)
    values = np.ascontiguousarray(rows).view(lay.dtype).astype(native).reshape(h, -1, n)
    if predictor == 2:
        whole = values.view(f"u{size}")
        np.cumsum(whole, axis=1, dtype=whole.dtype, out=whole)
    elif predictor not in (0, 1):
        raise UnsupportedImage("A TIFF of this kind with this predictor is not read. Save it without a predictor.")
    return values


def pieces(data: bytes, found: Directory, lay: Layout) -> Iterator[Tuple[int, int, np.ndarray]]:
    """(top, left, (h, w, n) samples) of each strip or tile. Raises CorruptImage, UnsupportedImage."""
    how, predictor, across = found.one(COMPRESSION, 1), found.one(PREDICTOR, 1), _across(lay)
    down = -(-lay.height // lay.piece[0])
    n = 1 if lay.planar else lay.samples
    row = lay.piece[1] * n * lay.dtype.itemsize
    for k in range(across * down):
        top, left = k // across * lay.piece[0], k % across * lay.piece[1]
        h = lay.piece[0] if lay.tiled else min(lay.piece[0], lay.height - top)
        planes = []
        for c in range(lay.samples if lay.planar else 1):
            at = k + c * across * down
            packed = data[lay.places[at] : lay.places[at] + lay.lengths[at]]
            rows = np.frombuffer(_unpacked(packed, how, row, h), np.uint8).reshape(h, row)
            planes.append(_unpredicted(rows, lay, predictor, n))
        values = planes[0] if len(planes) == 1 else np.concatenate(planes, -1)
        yield top, left, values[: lay.height - top, : lay.width - left]


def _fractions(values: np.ndarray, top: int) -> np.ndarray:
    """Integer samples as 0..1, float32 (float64 for more than 16 bits); negative ones are black."""
    wide: np.ndarray = values.astype(np.float32 if top < 1 << 24 else np.float64)
    return np.clip(wide / top, 0, 1)


def _lab(values: np.ndarray, photometric: int) -> np.ndarray:
    """(h, w, 3) samples as L* 0..100, a* and b* (TIFF 6.0, section 23; ICC Lab: TIFF Technical Note 4), float64."""
    out = values.astype(np.float64)
    if values.dtype.kind == "f":
        return out
    deep = values.dtype.itemsize == 2
    if photometric == ICCLAB:
        return (out - [0, 32768, 32768]) / [652.8, 256, 256] if deep else (out - [0, 128, 128]) / [2.55, 1, 1]
    half = 1 << (8 * values.dtype.itemsize)
    out[..., 1:] = np.where(out[..., 1:] >= half / 2, out[..., 1:] - half, out[..., 1:])
    out[..., 0] = np.where(out[..., 0] < 0, out[..., 0] + half, out[..., 0])
    return out / [655.35, 256, 256] if deep else out / [2.55, 1, 1]


class _Meaning(NamedTuple):
    """What the samples are: which of them are colours and alpha, and what makes codes of them."""

    colours: int
    alpha: bool
    premultiplied: bool
    photometric: int
    white: Tuple[float, float]
    top: int  # of integers: the value that is white


def _meaning(found: Directory, lay: Layout) -> _Meaning:
    """Raises UnsupportedImage for colours that are not read."""
    photometric = found.one(PHOTOMETRIC, MIN_IS_BLACK)
    if photometric not in (MIN_IS_WHITE, MIN_IS_BLACK, RGB, CIELAB, ICCLAB):
        raise UnsupportedImage("A TIFF of this kind is read as gray, RGB or L*a*b* only. Save it as RGB.")
    colours = 3 if photometric >= RGB else 1
    if photometric in (CIELAB, ICCLAB) and lay.samples < 3:
        colours = 1  # the lightness alone
    if lay.samples < colours:
        raise CorruptImage()
    if photometric == MIN_IS_BLACK and lay.samples in (3, 4) and EXTRA not in found.tags:
        colours = 3  # as programs of science write colours
    extra = found.one(EXTRA, 2)  # without the tag, one sample more is alpha, as Pillow takes it for RGB
    alpha = lay.samples > colours and extra in (1, 2) and (EXTRA in found.tags or lay.samples == colours + 1)
    point = found.tags.get(WHITE_POINT, ())
    white = linear.D50
    if len(point) == 4 and point[1] and point[3]:
        white = (point[0] / point[1], point[2] / point[3])
    top = 1 if lay.dtype.kind == "f" else int(np.iinfo(lay.dtype).max)
    return _Meaning(colours, alpha, alpha and extra == 1, photometric, white, top)


def _codes(values: np.ndarray, what: _Meaning) -> np.ndarray:
    """(h, w, n) samples as (h, w, 3) or (h, w, 4) uint8."""
    colour, is_float = values[..., : what.colours], values.dtype.kind == "f"
    alpha = values[..., what.colours : what.colours + 1] if what.alpha else None
    if alpha is not None:
        with np.errstate(invalid="ignore"):
            alpha = np.clip(np.nan_to_num(alpha.astype(np.float64), nan=1.0), 0, what.top) / what.top
    if what.photometric in (CIELAB, ICCLAB):
        lab = np.zeros((*values.shape[:2], 3), values.dtype)
        lab[..., : what.colours] = colour
        if what.photometric == ICCLAB and what.colours == 1:
            lab[..., 1:] = 32768 if values.dtype.itemsize == 2 else 128
        codes = linear.encode(linear.lab_to_linear(_lab(lab, what.photometric), what.white))
    else:
        part = colour if is_float else _fractions(colour, what.top)
        if what.photometric == MIN_IS_WHITE:
            part = 1 - part
        if alpha is not None and what.premultiplied:
            with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
                part = np.where(alpha > 0, part / alpha, part)
        codes = linear.encode(part) if is_float else np.rint(np.clip(part, 0, 1) * 255).astype(np.uint8)
        codes = codes if what.colours == 3 else codes.repeat(3, -1)
    if alpha is None:
        return codes
    return np.concatenate([codes, np.rint(alpha * 255).astype(np.uint8)], -1)


def read(data: bytes, check: Callable[[int, int], None]) -> Any:
    """The first picture of a TIFF, not turned yet, as an sRGB image, RGB or RGBA.

    Floating point is linear light: over 1 is white, negative and NaN are black. Integers are codes: the highest of
    their type is white. Those of 32 or 64 bits that all fit 16 are taken for 16-bit ones: all would be black otherwise.
    `check(width, height)` is called before anything is decoded, and may raise. Raises CorruptImage, UnsupportedImage.
    """
    found = directory(data)
    lay = layout(found)
    what = _meaning(found, lay)
    if what.photometric in (CIELAB, ICCLAB) and lay.dtype.kind != "f" and lay.dtype.itemsize > 2:
        raise UnsupportedImage("A TIFF of L*a*b* with more than 16 bits is not read. Save it as RGB.")
    try:
        linear.adaptation(what.white)
    except ValueError:
        what = what._replace(white=linear.D50)
    check(lay.width, lay.height)
    if lay.dtype.kind != "f" and lay.dtype.itemsize > 2:
        small = all(int(v[..., : what.colours].max(initial=0)) < 1 << 16 for _, _, v in pieces(data, found, lay))
        what = what._replace(top=65535) if small else what
    out = Image.new("RGBA" if what.alpha else "RGB", (lay.width, lay.height))
    for top, left, values in pieces(data, found, lay):
        rows = max(1, BAND // max(1, values.shape[1]))
        for y in range(0, len(values), rows):
            out.paste(Image.fromarray(_codes(values[y : y + rows], what)), (left, top + y))
    return out


def orientation(data: bytes) -> int:
    """EXIF orientation 1..8. Raises CorruptImage."""
    value = directory(data).one(ORIENTATION, 1)
    return value if 1 <= value <= 8 else 1
