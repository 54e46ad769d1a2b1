"""The file behind GET /job/{id}/maps: what a browser needs to light a job's photo itself. server/README.md tells how
it is read.
"""

import hashlib
import json
import struct
from typing import Any, Dict

import numpy as np

from ..image.encode import deflate, encode_webp
from ..image.resample import shrink_image
from ..light.live import constants, describe, planes, scene_numbers
from ..light.maps import GridMaps
from ..scene.geometry import Geometry
from .base import MAPS, JobFile, MapsSide

FORMAT = 1
# Begins every such file: one of another format, or made for formulas with other numbers, is made anew.
MARK = (
    b"relight-maps " + hashlib.sha256(f"{FORMAT} {json.dumps(constants())}".encode()).hexdigest()[:18].encode() + b"\n"
)


def maps_file(max_side: int, width: int, height: int) -> JobFile:
    """Which file holds the maps of a photo for pictures of at most that side, one of MAPS."""
    side = min(max_side, max(width, height))
    return MAPS[min(s for s in MapsSide if s >= side)]


def side_of(file: JobFile) -> int:
    """The longer side of the pictures of such a file, at most, in pixels."""
    return next(side for side, name in MAPS.items() if name == file)


def can_be_lit(geometry: Geometry) -> bool:
    """Did a network say what the surfaces see? Else a browser would have to march through the depth."""
    return geometry.visibility is not None


def pack_maps(photo: np.ndarray, side: int, shared: GridMaps) -> bytes:
    """The maps of a photo, (H, W, 3) or (H, W, 4) uint8, for pictures of at most that side.

    Raises ValueError where no network said what the surfaces see.
    """
    picture = shrink_image(photo, side)
    webp = encode_webp(picture)
    told, raw = describe(planes(photo[..., :3], np.ascontiguousarray(picture[..., :3]), shared))
    packed = deflate(raw)
    head = {
        "width": picture.shape[1],
        "height": picture.shape[0],
        "alpha": picture.shape[2] == 4,
        "live": True,
        "constants": constants(),
        "scene": scene_numbers(shared),
        "planes": told,
        "planes_bytes": len(packed),
        "photo_bytes": len(webp),
    }
    return _file(head) + packed + webp


def no_maps(width: int, height: int, alpha: bool) -> bytes:
    """The answer for a photo that a browser cannot light itself."""
    return _file({"width": width, "height": height, "alpha": alpha, "live": False})


def _file(head: Dict[str, Any]) -> bytes:
    text = json.dumps(head, separators=(",", ":")).encode()
    return MARK + struct.pack("<I", len(text)) + text
