"""Crisp edges: coarse values brought to the pixels near a silhouette from their own side of it."""

from dataclasses import dataclass
from typing import List, Optional, Tuple

import cv2
import numpy as np

from ..image.resample import Resampler

JUMP = 0.06  # in log depth, or in the mask: a silhouette
COLOUR = 0.07  # of sRGB 0..1: how alike the colours of one side are
DEPTH = 0.025  # in log depth: how alike the depths of one side are
CHUNK = 1 << 14
BREAK = 0.12  # in log depth across a texel: behind a break so large, networks blend the two sides
BLEND = 4  # texels that the blend reaches
ALIKE = 0.06  # in log depth: how alike the depths of one surface are across those


def edge_layer(q: np.ndarray, mask: Optional[np.ndarray] = None) -> np.ndarray:
    """What tells the two sides of a silhouette apart: log depth, and a large step where the surfaces end."""
    return np.log(q) if mask is None else np.log(q) + mask


def local_ranges(values: np.ndarray) -> np.ndarray:
    """(h, w) float32: highest minus lowest of each texel and its neighbours right, below, and right below."""
    kernel = np.ones((2, 2), np.uint8)
    return cv2.dilate(values, kernel, anchor=(0, 0)) - cv2.erode(values, kernel, anchor=(0, 0))


def without_blends(planes: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Planes (n, h, w) float32 with the far side of every large break in depth q (h, w) filled in from farther off.

    Beside a silhouette a network's normals pass over from those of the near surface to those of the far one, which
    lights a rim into the background. What lies in front keeps its values: it does turn away there.
    """
    log_q, (h, w) = np.log(q), q.shape
    next_to, wide = np.ones((3, 3), np.uint8), np.ones((2 * BLEND + 1,) * 2, np.uint8)
    breaks = cv2.dilate(log_q, next_to) - cv2.erode(log_q, next_to) > BREAK
    by_break = cv2.dilate(breaks.astype(np.uint8), np.ones((2 * BLEND - 1,) * 2, np.uint8)) > 0
    known = ~by_break | (log_q >= (cv2.dilate(log_q, wide) + cv2.erode(log_q, wide)) / 2)
    out = np.array(planes, np.float32)
    padded = np.pad(log_q, 1, mode="edge")
    for _ in range(BLEND + 1):
        sources, values = np.pad(known.astype(np.float32), 1), np.pad(out, ((0, 0), (1, 1), (1, 1)))
        total, weight = np.zeros_like(out), np.zeros((h, w), np.float32)
        for part in ((slice(y, y + h), slice(x, x + w)) for y in range(3) for x in range(3)):
            alike = sources[part] * np.exp(-np.square((padded[part] - log_q) / np.float32(ALIKE)))
            weight += alike
            total += values[(slice(None), *part)] * alike
        found = ~known & (weight > 0.05)
        if not found.any():
            break
        out[:, found] = total[:, found] / weight[found]
        known |= found
    return out


class JointBilateralUpsampler:
    """Joint bilateral upsampling (Kopf et al. 2007) of planes, only near silhouettes, deciding for one side.

    Of the 4 x 4 texels around a pixel those of its colour count; the side (near or far) that counts more wins.
    """

    def __init__(self, planes: np.ndarray, layer: np.ndarray, colours: np.ndarray, sampler: Resampler):
        """planes: (n, h, w) float32 on the grid; layer: (h, w), see edge_layer; colours: (h, w, 3) float32 0..1."""
        self.sampler = sampler
        wide = np.ones((5, 5), np.uint8)
        near, far = cv2.dilate(layer, wide), cv2.erode(layer, wide)
        self.flags = cv2.dilate((local_ranges(layer) > JUMP).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
        self.middle = ((near + far) / 2).ravel()
        self.table = np.concatenate([colours, layer[..., None], np.moveaxis(planes, 0, 2)], 2)
        self.table = np.ascontiguousarray(self.table.reshape(-1, self.table.shape[2]), np.float32)

    def apply_in_place(self, band: np.ndarray, rgb: np.ndarray, rows: slice) -> None:
        """Overwrite (n, r, W) band of the planes near silhouettes; rgb: (3, H, W) uint8."""
        r, c = self.sampler.cells(self.flags, rows)
        for start in range(0, r.size, CHUNK):
            y, x = r[start : start + CHUNK], c[start : start + CHUNK]
            band[:, y - rows.start, x] = self._match(y, x, rgb[:, y, x].T / np.float32(255)).T

    def _match(self, y: np.ndarray, x: np.ndarray, colour: np.ndarray) -> np.ndarray:
        s, (h, w) = self.sampler, self.sampler.grid
        offsets = np.arange(-1, 3)
        ty, tx = s.top[y, None] + offsets, s.left[x, None] + offsets
        dy, dx = np.square(offsets - s.down[y, None]), np.square(offsets - s.right[x, None])
        texels = (np.clip(ty, 0, h - 1)[:, :, None] * w + np.clip(tx, 0, w - 1)[:, None, :]).reshape(len(y), 16)
        found = np.take(self.table, texels, 0)
        unlike = np.square(found[..., :3] - colour[:, None]).sum(2) * np.float32(0.5 / COLOUR**2)
        far = ((dy[:, :, None] + dx[:, None, :]) * np.float32(0.5)).reshape(len(y), 16).astype(np.float32)
        weight = np.exp(-np.minimum(unlike, 20) - far)
        near = found[..., 3] > np.take(self.middle, s.top[y] * w + s.left[x])[:, None]
        weight_near, weight_all = (weight * near).sum(1), weight.sum(1)
        share = weight_near / weight_all
        t = np.clip((share - np.float32(0.25)) * 2, 0, 1)
        won = t * t * (3 - 2 * t)
        weight *= np.where(
            near,
            (won / np.maximum(weight_near, 1e-12))[:, None],
            ((1 - won) / np.maximum(weight_all - weight_near, 1e-12))[:, None],
        )
        weight /= weight.sum(1, keepdims=True)
        return np.einsum("kt,ktc->kc", weight, found[..., 4:])


def _corner_offsets(grid: Tuple[int, int]) -> Tuple[int, int, int, int]:
    """From a corner to the four texels, in flat indices; on a grid one texel thin, two of them coincide."""
    h, w = grid
    right, below = int(w > 1), w * int(h > 1)
    return 0, right, below, below + right


@dataclass(frozen=True)
class DepthAwareUpsampler:
    """For the pixels near silhouettes: which of the four texels around them are of their own depth; kept compactly."""

    grid: Tuple[int, int]
    width: int  # of the picture
    pixels: np.ndarray  # (n,) int32, flat, ascending
    corners: np.ndarray  # (n,) int32, flat: the upper left of the four texels
    weights: np.ndarray  # (4, n) float16

    def apply_in_place(self, band: np.ndarray, texels: np.ndarray, rows: slice) -> None:
        """Overwrite the pixels near silhouettes in (r, W) float32 rows of the picture, from texels (h, w) float32."""
        a, b = np.searchsorted(self.pixels, (rows.start * self.width, rows.stop * self.width))
        if a == b:
            return
        corners, flat = self.corners[a:b], texels.ravel()
        total = np.zeros(b - a, np.float32)
        for ahead, weight in zip(_corner_offsets(self.grid), self.weights[:, a:b]):
            total += np.take(flat, corners + ahead) * weight
        band.ravel()[self.pixels[a:b] - rows.start * self.width] = total

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self.pixels.nbytes + self.corners.nbytes + self.weights.nbytes


class DepthAwareUpsamplerBuilder:
    """Takes the depths of a picture, a band of rows at a time, from the first to the last."""

    def __init__(self, q_texels: np.ndarray, sampler: Resampler):
        self._sampler = sampler
        self._log_q = np.log(q_texels)
        self._flags = local_ranges(self._log_q) > JUMP / 2
        self._parts: List[Tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def add(self, q_pixels: np.ndarray, rows: slice) -> None:
        """q_pixels: (r, W) float32 of these rows."""
        s, w = self._sampler, self._sampler.grid[1]
        y, x = s.cells(self._flags, rows)
        a, b = s.down[y], s.right[x]
        log_q, corner = np.log(q_pixels[y - rows.start, x]), s.top[y] * w + s.left[x]
        weights = np.empty((4, y.size), np.float32)
        bilinear = ((1 - a) * (1 - b), (1 - a) * b, a * (1 - b), a * b)
        for k, (ahead, share) in enumerate(zip(_corner_offsets(s.grid), bilinear)):
            unlike = (self._log_q.ravel()[corner + ahead] - log_q) / np.float32(DEPTH)
            weights[k] = (share + np.float32(1e-3)) * np.exp(-np.minimum(unlike * unlike, 30))
        weights /= weights.sum(0)
        self._parts.append((y * s.size[1] + x, corner, weights))

    def build(self) -> DepthAwareUpsampler:
        """The upsampler, after the last band."""
        pixels, corners, weights = zip(*self._parts)
        return DepthAwareUpsampler(
            grid=self._sampler.grid,
            width=self._sampler.size[1],
            pixels=np.concatenate(pixels).astype(np.int32),
            corners=np.concatenate(corners).astype(np.int32),
            weights=np.concatenate(weights, 1).astype(np.float16),
        )
