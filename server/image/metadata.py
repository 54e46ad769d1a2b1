"""Files without the metadata that we throw away anyway: so that none of it decides whether a picture is read.

A text or a profile that is broken, or that unpacks to more than a library takes, is no fault of the picture's.
"""

import struct
import zlib
from typing import Dict, Iterator, List, NamedTuple, Optional, Tuple

PNG_START = b"\x89PNG\r\n\x1a\n"
PNG_END = b"\0\0\0\0IEND\xaeB`\x82"
PNG_NUMBERS = {b"gAMA": 4, b"cHRM": 32, b"sRGB": 1, b"cICP": 4}  # chunk -> bytes that it needs
PNG_TEXTS = {b"tEXt", b"zTXt", b"iTXt"}
PNG_USED = {b"iCCP", b"eXIf", *PNG_NUMBERS, *PNG_TEXTS}
MAX_UNPACKED = 1 << 20  # bytes of a profile, a text or EXIF: Pillow's limit; profiles of cameras take 0.5 to 600 KB


class PngColour(NamedTuple):
    """What a PNG says about its colours, besides a profile (PNG specification, 4.3 and 11.3.2)."""

    gamma: Optional[float] = None  # sample = light ** gamma
    chromaticities: Optional[Tuple[float, ...]] = None  # x and y of white, red, green, blue
    cicp: Optional[Tuple[int, ...]] = None  # primaries, transfer, matrix, full range (ITU-T H.273)
    srgb: bool = False


def _ranges(data: bytes, kept: List[Tuple[int, int]]) -> bytes:
    """The bytes of those ranges, in order; neighbours are copied at once."""
    joined: List[Tuple[int, int]] = []
    for begin, end in kept:
        if joined and joined[-1][1] == begin:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((begin, end))
    if joined == [(0, len(data))]:
        return data
    view = memoryview(data)
    return b"".join(view[begin:end] for begin, end in joined)


def _unpacks(packed: bytes) -> bool:
    """Is that a zlib stream of no more than MAX_UNPACKED bytes?"""
    unpack = zlib.decompressobj()
    try:
        unpack.decompress(packed, MAX_UNPACKED)
    except zlib.error:
        return False
    return not unpack.unconsumed_tail


def _png_text_is_used(tag: bytes, keyword: bytes, rest: bytes) -> bool:
    """Is that a text that may tell which side is up, and may it be unpacked? `rest` follows the keyword's zero."""
    if keyword not in (b"Raw profile type exif", b"XML:com.adobe.xmp"):
        return False
    if tag == b"zTXt":
        return rest[:1] == b"\0" and _unpacks(rest[1:])
    if tag == b"iTXt" and rest[:1] == b"\1":
        parts = rest[2:].split(b"\0", 2)  # language, translated keyword, text
        return rest[1:2] == b"\0" and len(parts) == 3 and _unpacks(parts[2])
    return True


def _png_is_used(data: bytes, tag: bytes, begin: int, length: int) -> bool:
    """Is that chunk, which is not of the picture itself, whole and of use?"""
    end = begin + 8 + length
    if tag not in PNG_USED or length > MAX_UNPACKED:
        return False
    if zlib.crc32(data[begin + 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
        return False
    if tag in PNG_NUMBERS:
        return length >= PNG_NUMBERS[tag]
    if tag == b"eXIf":
        return True
    keyword, zero, rest = data[begin + 8 : end].partition(b"\0")
    if tag == b"iCCP":
        return bool(zero) and rest[:1] == b"\0" and _unpacks(rest[1:])
    return bool(zero) and _png_text_is_used(tag, keyword, rest)


def _png_colour(data: bytes, used: Dict[bytes, Tuple[int, int]]) -> PngColour:
    def numbers(tag: bytes) -> bytes:
        begin, end = used.get(tag, (0, 0))
        return data[begin : min(end, begin + PNG_NUMBERS[tag])]

    points = numbers(b"cHRM")
    return PngColour(
        int.from_bytes(numbers(b"gAMA"), "big") / 1e5 or None,
        tuple(v / 1e5 for v in struct.unpack(">8I", points)) if points else None,
        tuple(numbers(b"cICP")) or None,
        b"sRGB" in used,
    )


def png(data: bytes) -> Tuple[bytes, PngColour]:
    """A PNG of its first picture and what is used beside it; and what it says about its colours.

    Broken chunks of the picture are left for the decoder to refuse; broken and huge ones of the metadata go, and so do
    animations, times and texts. Nothing is unpacked but a profile and a text, each to at most MAX_UNPACKED bytes.
    """
    kept, used, at, pixels, tag = [(0, 8)], {}, 8, False, b""  # type: ignore[var-annotated]
    while at + 8 <= len(data) and tag != b"IEND":
        length, tag = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        end = at + 12 + length
        if not tag[0] & 32 or tag == b"tRNS":  # 5.4: a capital letter marks what is needed for the picture
            kept.append((at, min(end, len(data))))
        elif pixels and end > len(data):  # the file is cut short within what follows its picture
            return _ranges(data, kept) + PNG_END, _png_colour(data, used)
        elif not pixels and (tag in PNG_TEXTS or tag not in used) and _png_is_used(data, tag, at, length):
            kept.append((at, end))
            used[tag] = (at + 8, at + 8 + length)
        pixels = pixels or tag == b"IDAT"
        at = end
    return _ranges(data, kept), _png_colour(data, used)


def jpeg(data: bytes, exif: bool) -> bytes:
    """A JPEG with those segments before its first scan that decide the picture, with or without its EXIF and profile.

    Adobe's segment (APP14) tells the colour space, and stays.
    """
    kept, at = [(0, 2)], 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF or marker in (0x01, *range(0xD0, 0xD9)):  # fill, and segments without a length
            kept.append((at, at + (1 if marker == 0xFF else 2)))
            at = kept[-1][1]
            continue
        if marker == 0xDA:
            break
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        known = marker == 0xEE or (exif and marker == 0xE1 and data[at + 4 : at + 10] == b"Exif\0\0")
        known = known or (exif and marker == 0xE2 and data[at + 4 : at + 16] == b"ICC_PROFILE\0")
        if known or not (0xE0 <= marker <= 0xEF or marker == 0xFE):
            kept.append((at, min(end, len(data))))
        at = end
    return _ranges(data, [*kept, (min(at, len(data)), len(data))])


def webp(data: bytes) -> bytes:
    """A WebP with its picture, alpha and animation alone (RIFF container specification)."""
    out, at = [], 12
    while at + 8 <= len(data):
        tag, length = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        end = at + 8 + length + length % 2
        if tag == b"VP8X" and length >= 10:
            flags = data[at + 8] & ~(0x20 | 0x08 | 0x04)  # profile, EXIF, XMP
            out.append(data[at : at + 8] + bytes([flags]) + data[at + 9 : end])
        elif tag in (b"VP8 ", b"VP8L", b"ALPH", b"ANIM", b"ANMF"):
            out.append(data[at:end])
        at = end
    body = b"".join(out)
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


def variants(kind: Optional[str], data: bytes) -> Iterator[bytes]:
    """The file with less and less metadata, for when a decoder refuses it; nothing where there is none to leave out."""
    if kind == "JPEG":
        yield from {v: None for v in (jpeg(data, exif=True), jpeg(data, exif=False)) if len(v) < len(data)}
    elif kind == "WEBP":
        less = webp(data)
        if less != data:
            yield less


def _jpeg_coding(data: bytes) -> Tuple[int, int]:
    """(marker of the frame, bits a sample) of a JPEG (ITU-T T.81, B.2.2); (0, 0) where there is no frame."""
    at = 2
    while at + 5 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:
            at += 1
        elif marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):  # F7: JPEG-LS
            return marker, data[at + 4]
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return 0, 0


def rare_coding(kind: str, data: bytes) -> Optional[str]:
    """What to tell about a file that could not be read and is of a coding that few decoders know; None: nothing."""
    if kind == "AVIF":
        at = data.find(b"av1C", 0, 1 << 16)  # AV1 in ISOBMFF, 2.3.3
        if 0 <= at < len(data) - 6 and data[at + 6] & 0x60 == 0x60:
            return "This AVIF has 12 bits a channel and could not be read. Save it with 8 or 10 bits."
    if kind == "JPEG":
        marker, bits = _jpeg_coding(data)
        if marker and (marker not in (0xC0, 0xC1, 0xC2, 0xC9, 0xCA) or bits != 8):
            return f"A JPEG of {bits} bits that is lossless or of a rare coding is not read. Save it as PNG."
    if kind == "PNG" and data[12:16] == b"CgBI":
        return "A PNG that Xcode has rewritten for iPhones is not read. Use the original file."
    return None
