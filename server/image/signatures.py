"""What kind of file an upload is, by how it begins."""

from typing import Optional

HEAD = 4096  # bytes that are enough to tell: the list of brands of a HEIF file is the longest that is looked at
STARTS = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),  # BigTIFF
    (b"MM\0+", "TIFF"),
    (b"BM", "BMP"),
    (b"GIF8", "GIF"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG2000"),
    (b"\xff\x4f\xff\x51\0", "JPEG2000"),  # a bare codestream
    (b"\0\0\0\x0cJXL \r\n\x87\n", "JXL"),
    (b"\xff\x0a", "JXL"),  # a bare codestream
    (b"v/1\x01", "EXR"),
    (b"#?RADIANCE", "HDR"),
    (b"#?RGBE", "HDR"),
)
AVIF_BRANDS = {b"avif", b"avis"}
HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"}


def _brands(head: bytes) -> Optional[str]:
    """AVIF or HEIF, by the brands in the first box (ISO/IEC 14496-12, 4.3); None for films and other files."""
    length = int.from_bytes(head[:4], "big")
    brands = [head[8:12]] + [head[i : i + 4] for i in range(16, min(length, len(head)) - 3, 4)]
    for brand in brands:  # the major one first
        if brand in AVIF_BRANDS:
            return "AVIF"
        if brand in HEIF_BRANDS:
            return "HEIF"
    return "HEIF" if {b"mif1", b"msf1"} & set(brands) else None


def kind_of(head: bytes) -> Optional[str]:
    """The kind of file that begins with `head` (at most HEAD bytes): "JPEG", "HEIF", "EXR" ...; None: none of ours."""
    if head[:4] == b"RIFF":
        return "WEBP" if head[8:12] == b"WEBP" else None
    if head[4:8] == b"ftyp":
        return _brands(head)
    return next((kind for start, kind in STARTS if head.startswith(start)), None)
