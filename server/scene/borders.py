"""Borders of a photograph: the white edge of a scanned print, the bars of a film still.

They are no part of the scene: the network sees the content box alone.
"""

import dataclasses
from typing import Tuple

import cv2
import numpy as np

from .geometry import Geometry
from .normals import normalise_in_place

MOST = 0.2  # of a side: thicker bars are taken to be part of the picture
NOISE = 24  # codes: how unlike its colour a frame may be, as compressed pictures are,
WHOLE = 0.9  # in so much of a line of pixels
INSIDE = 0.6  # of a line at most looks like the frame where the picture begins
SAMPLES = 512  # of a line at least that are looked at
STEP = 0.005  # of a side, or 3 pixels: within so few lines a frame ends


def content_box(rgb: np.ndarray) -> Tuple[slice, slice]:
    """Rows and columns of a photograph (H, W, 3) uint8 within its frame; all of them where it has none.

    A frame is of one colour, ends at once along a straight line, and has its like on the opposite side.
    """
    rows = _between_bars(rgb)
    return rows, _between_bars(rgb[rows].transpose(1, 0, 2))


def _between_bars(lines: np.ndarray) -> slice:
    """The slice of lines (n, m, 3) between two bars."""
    n = len(lines)
    lines = lines[:, :: max(1, lines.shape[1] // SAMPLES)]
    first, last = _bar(lines), _bar(lines[::-1])
    alike = first and last and np.abs(_colour(lines[0]) - _colour(lines[-1])).max() <= NOISE
    return slice(first, n - last) if alike else slice(0, n)


def _bar(lines: np.ndarray) -> int:
    """How many of the first lines are a bar."""
    n, colour, whole = len(lines), _colour(lines[0]), 0
    for k in range(int(MOST * n) + 1):
        share = (np.abs(lines[k] - colour).max(1) <= NOISE).mean()
        if share >= WHOLE and whole == k:
            whole += 1
        elif whole and share <= INSIDE:
            return k
        elif k - whole >= max(3, STEP * n):
            break
    return 0


def _colour(line: np.ndarray) -> np.ndarray:
    return np.median(line, 0).astype(np.float32)


def letterbox(geometry: Geometry, inside: Tuple[slice, slice], height: int, width: int) -> Geometry:
    """The geometry of a photograph height x width from that of what is inside its frame, which counts as void."""
    rows, columns = inside
    inner_h, inner_w = rows.stop - rows.start, columns.stop - columns.start
    if (inner_h, inner_w) == (height, width):
        return geometry
    h, w = geometry.inverse_depth.shape
    size = max(1, round(h * height / inner_h)), max(1, round(w * width / inner_w))
    y = ((np.arange(size[0]) + 0.5) * height / size[0] - rows.start) * h / inner_h - 0.5
    x = ((np.arange(size[1]) + 0.5) * width / size[1] - columns.start) * w / inner_w - 0.5
    x, y = (np.ascontiguousarray(a, np.float32) for a in np.meshgrid(x, y))

    def moved(plane: np.ndarray, border: int = cv2.BORDER_REPLICATE) -> np.ndarray:
        return cv2.remap(plane, x, y, cv2.INTER_LINEAR, borderMode=border, borderValue=0)

    def field(seen: np.ndarray, beyond: int) -> np.ndarray:
        """Planes on a grid of their own, on that grid extended over the frame, where they have a value of its own."""
        tall, wide = seen.shape[1:]
        above, left = round(rows.start * tall / inner_h), round(columns.start * wide / inner_w)
        below, right = round((height - rows.stop) * tall / inner_h), round((width - columns.stop) * wide / inner_w)
        return np.pad(seen, ((0, 0), (above, below), (left, right)), constant_values=beyond)

    return dataclasses.replace(
        geometry,
        visibility=geometry.visibility and geometry.visibility._replace(seen=field(geometry.visibility.seen, 255)),
        inverse_depth=moved(geometry.inverse_depth),
        normals=None if geometry.normals is None else normalise_in_place(moved(geometry.normals)),
        mask=moved(np.ones((h, w), np.float32) if geometry.mask is None else geometry.mask, cv2.BORDER_CONSTANT),
        focal=None if geometry.focal is None else geometry.focal * inner_w / width,
        shading=None if geometry.shading is None else moved(geometry.shading),
        subject=None if geometry.subject is None else field(geometry.subject[None], 0)[0],
    )
