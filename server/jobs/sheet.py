"""sheet.jpg: a photograph under several looks, side by side, for choosing."""

from typing import Sequence, Tuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..image.encode import encode_jpeg
from ..light.lights import Rig
from ..light.maps import Maps
from ..light.shading import relight

SIDE = 512  # pixels of the longer side of each
COLUMNS = 3
MARGIN, CAPTION = 12, 28  # pixels around each, and below it
PAPER, INK = 24, 230  # gray

Looks = Sequence[Tuple[str, Rig]]


def sheet(maps: Maps, looks: Looks, threads: int = 1) -> bytes:
    """A JPEG of a picture (H, W), whose longer side is at most SIDE, under looks with their titles."""
    h, w = maps.size
    rows = -(-len(looks) // COLUMNS)
    tall, wide = h + CAPTION + MARGIN, w + MARGIN
    paper = np.full((rows * tall + MARGIN, COLUMNS * wide + MARGIN, 3), PAPER, np.uint8)
    for k, (_, rig) in enumerate(looks):
        top, left = k // COLUMNS * tall + MARGIN, k % COLUMNS * wide + MARGIN
        paper[top : top + h, left : left + w] = relight(maps, rig, threads)
    image = Image.fromarray(paper)
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(16)
    for k, (title, _) in enumerate(looks):
        at = k % COLUMNS * wide + MARGIN + w / 2, k // COLUMNS * tall + MARGIN + h + CAPTION / 2
        draw.text(at, title, (INK, INK, INK), font, anchor="mm")
    return encode_jpeg(np.asarray(image), 88)
