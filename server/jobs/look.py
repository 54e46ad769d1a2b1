"""The lights a picture was relit with, as text that the picture carries: what its further passes are made with."""

import dataclasses
import json

from pydantic import TypeAdapter, ValidationError

from ..errors import DamagedFile
from ..image import exr
from ..image.encode import png_about
from ..light.lights import Rig

HEAD = 1 << 16  # bytes of a file among which that text is
RIG: TypeAdapter[Rig] = TypeAdapter(Rig)


def dump(rig: Rig) -> str:
    """A rig as JSON, ASCII."""
    return json.dumps(dataclasses.asdict(rig), separators=(",", ":"))


def parse(text: str) -> Rig:
    """The opposite of `dump`. Raises DamagedFile."""
    try:
        return RIG.validate_json(text)
    except ValidationError as exc:
        raise DamagedFile("no lights") from exc


def carried(start: bytes) -> str:
    """The text of a PNG or EXR made with a rig, from its first HEAD bytes; "" where there is none."""
    return exr.about(start) or png_about(start)
