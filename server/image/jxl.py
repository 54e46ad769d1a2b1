"""The size of a JPEG XL picture from its first bytes: the plug-in that decodes it tells it only when it has decoded."""

from typing import Tuple

CONTAINER = b"\0\0\0\x0cJXL \r\n\x87\n"
RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))  # of width to height, numbered from 1


def _codestream(data: bytes) -> bytes:
    """The beginning of the codestream. Raises ValueError where there is none."""
    if not data.startswith(CONTAINER):
        return data[:32]
    at, end = 12, 12
    while at + 8 <= len(data):
        length, tag = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        head = 16 if length == 1 else 8
        length = int.from_bytes(data[at + 8 : at + 16], "big") if length == 1 else length
        end = len(data) if length == 0 else at + length
        if tag == b"jxlc":
            return data[at + head : at + head + 32]
        if tag == b"jxlp":  # a part of it, behind its number
            return data[at + head + 4 : at + head + 36]
        if end < at + head:
            break
        at = end
    raise ValueError("no codestream")


def size(data: bytes) -> Tuple[int, int]:
    """(width, height) that the header promises (ISO/IEC 18181-1, SizeHeader). Raises ValueError where there is none."""
    stream = _codestream(data)
    if stream[:2] != b"\xff\x0a" or len(stream) < 12:
        raise ValueError("no codestream")
    bits = int.from_bytes(stream[2:], "little")

    def take(n: int) -> int:
        nonlocal bits
        value, bits = bits & ((1 << n) - 1), bits >> n
        return value

    small = take(1)

    def side() -> int:
        return (take(5) + 1) * 8 if small else take((9, 13, 18, 30)[take(2)]) + 1

    height = side()
    ratio = take(3)
    if ratio:
        numerator, denominator = RATIOS[ratio - 1]
        return height * numerator // denominator, height
    return side(), height
