"""The lights a picture was relit with, as text that the picture carries; and passes.exr, which carries them too."""

import dataclasses
import json
from typing import Optional

import numpy as np
from pydantic import TypeAdapter

from ..errors import DamagedFile
from ..image import exr
from ..image.encode import png_about
from ..light.environment import unpack
from ..light.lights import Rig
from ..light.maps import Maps
from ..light.passes import layer_names, layers

HEAD = 1 << 16  # bytes of a file among which that text is
RIG: TypeAdapter[Rig] = TypeAdapter(Rig)


def dump(rig: Rig) -> str:
    """A rig as JSON, ASCII."""
    return json.dumps(dataclasses.asdict(rig), separators=(",", ":"))


def parse(text: str) -> Rig:
    """The opposite of `dump`. Raises DamagedFile."""
    try:
        rig = RIG.validate_json(text)
        if rig.environment is not None:
            unpack(rig.environment)
        return rig
    except ValueError as exc:  # pydantic's too
        raise DamagedFile("no lights") from exc


def carried(start: bytes) -> str:
    """The text of a PNG or EXR made with a rig, from its first HEAD bytes; "" where there is none."""
    return exr.about(start) or png_about(start)


def with_alpha(pixels: np.ndarray, alpha: Optional[np.ndarray]) -> np.ndarray:
    """A picture (H, W, 3) uint8 or uint16 with its alpha (H, W) uint8, if it has one."""
    if alpha is None:
        return pixels
    return np.dstack([pixels, alpha * pixels.dtype.type(np.iinfo(pixels.dtype).max // 255)])


def write_exr(path: str, maps: Maps, alpha: Optional[np.ndarray], rig: Rig, text: str) -> None:
    """passes.exr of a picture and its alpha (H, W) uint8 under a rig, whose `text` it carries, a band at a time."""
    planes_of, gain = layers(maps, rig)
    channels = {"A": np.float16, **layer_names(rig)}
    with exr.Writer(path, maps.size, channels, text, {"relightGain": gain}) as file:
        for rows in maps.bands(1):
            planes = planes_of(rows)
            planes["A"] = np.ones_like(planes["R"]) if alpha is None else alpha[rows] * np.float32(1 / 255)
            file.write(planes)
