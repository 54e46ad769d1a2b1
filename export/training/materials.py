"""Materials, and textures packed into one block of memory that compiled code can index."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Callable, Hashable, Mapping

import numpy as np
from numpy.typing import ArrayLike

from . import kernels as K

f32 = np.float32


@dataclass(frozen=True)
class Material:
    """The look of a surface. Colours are linear RGB; `tex` is a texture key of the library.

    The mode is 'plain' (color), 'mix' (color to color2 by the texture's brightness) or 'picture' (texture * color). A
    `metric` material is box-mapped with `tile` repeats per metre; any other uses the mesh's own coordinates times
    `tile`.
    """

    color: tuple[float, ...] = (0.5, 0.5, 0.5)
    color2: tuple[float, ...] = (0.5, 0.5, 0.5)
    tex: Hashable = None
    mode: str = "plain"
    tile: float = 1.0
    metric: bool = False
    rough: float = 0.6
    metal: float = 0.0
    spec: float = 0.04
    bump: float = 0.0
    emit: float = 0.0
    alpha: bool = False

    def but(self, **kw: Any) -> Material:
        """A copy with some fields changed."""
        return replace(self, **kw)

    def row(self, tex: int) -> np.ndarray:
        """The material as a float32 row for the compiled code, with `tex` as its texture's index (-1: none)."""
        r = np.zeros(K.NMAT, f32)
        r[:3], r[3:6], r[K.TEX] = self.color, self.color2, tex
        r[K.MODE] = 0 if tex < 0 else {"plain": 0, "mix": 1, "picture": 2}[self.mode]
        r[K.ROUGH], r[K.METAL], r[K.SPEC], r[K.BUMP], r[K.EMIT], r[K.ALPHA] = (
            self.rough,
            self.metal,
            self.spec,
            self.bump,
            self.emit,
            self.alpha,
        )
        return r


class Texture:
    """RGBA bytes with a chain of halved copies, flat in memory."""

    def __init__(self, rgba: ArrayLike):
        a, parts, off = np.asarray(rgba, np.uint8), [], 0
        self.table = np.zeros((K.LEVELS, 3), np.int64)
        for level in range(K.LEVELS):
            h, w = a.shape[:2]
            self.table[level] = off, h, w
            parts.append(a.ravel())
            off += a.size
            self.levels = level + 1
            if min(h, w) < 4:
                break
            q = a[: h // 2 * 2, : w // 2 * 2].astype(np.uint16)
            a = ((q[::2, ::2] + q[1::2, ::2] + q[::2, 1::2] + q[1::2, 1::2] + 2) >> 2).astype(np.uint8)
        self.data = np.concatenate(parts)


class Arena:
    """All textures in use, end to end in one byte array; emptied when full, between scenes only."""

    def __init__(self, size: int = 1 << 30, rows: int = 4096):
        self.data, self.table, self.levels = (
            np.empty(size, np.uint8),
            np.zeros((rows, K.LEVELS, 3), np.int64),
            np.ones(rows, np.int64),
        )
        self.where: dict[Any, int] = {}
        self.end = 0

    def place(self, images: Mapping[Any, Callable[[], Texture]]) -> dict[Any, int]:
        """Load what is missing of `images` (key -> function giving its Texture). Returns the table row of each key."""
        new = {k: make() for k, make in images.items() if k not in self.where}
        if self.end + sum(len(t.data) for t in new.values()) > len(self.data) or len(self.where) + len(new) > len(
            self.table
        ):
            self.where, self.end = {}, 0
            new = {k: make() for k, make in images.items()}
            need = sum(len(t.data) for t in new.values())
            if need > len(self.data):
                self.data = np.empty(2 * need, np.uint8)
        for k, t in new.items():
            i = self.where[k] = len(self.where)
            self.data[self.end : self.end + len(t.data)] = t.data
            self.table[i], self.levels[i] = t.table + np.array([self.end, 0, 0]), t.levels
            self.end += len(t.data)
        return {k: self.where[k] for k in images}


def box_map(local: np.ndarray, f: np.ndarray) -> np.ndarray:
    """Texture coordinates (F, 3, 2) by the dominant axis of each triangle, in the units of `local`."""
    p = local[f]
    axis = np.abs(np.cross(p[:, 1] - p[:, 0], p[:, 2] - p[:, 0])).argmax(1)
    s = np.array([[2, 1], [0, 2], [0, 1]])[axis]
    uv = np.take_along_axis(p, np.repeat(s[:, None], 3, 1), 2)
    uv[..., 1] *= np.where(axis == 1, 1, -1)[:, None]
    return uv.astype(f32)
