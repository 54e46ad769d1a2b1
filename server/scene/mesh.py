"""The surfaces of a photograph as a mesh of triangles: fine where they bend, coarse where they are flat, cut where
depth breaks.

A plane of the scene is one in the picture and q, see fit.py: the picture is divided into triangles, and each stands for
the plane through its corners. Right-angled triangles are halved at their longest side for as long as a plane is too
far off (Evans, Kirkpatrick and Townsend, "Right-triangulated irregular networks", Algorithmica 30, 2001). Each pixel
belongs to one surface, and the mesh is cut along the sides of pixels where two surfaces meet: nothing is stretched from
one to the other, and seen from the camera there is no gap between them.
"""

from dataclasses import dataclass
from typing import Any, Dict, Iterator, List, Optional, Tuple

import cv2
import numpy as np

from .fit import JUMP, snap_depth_edges

TILE = 32  # pixels: the legs of the largest triangles
TOLERANCE = 0.003  # of the depth: farther off is no pixel from its plane,
COARSER = 1.5  # times that, and so on, until the triangles are few enough
COARSEST = 0.05
SNAPS = 3  # pixels on the slopes that networks draw from one side of a silhouette to the other go to one of the two
STEP = JUMP / 2  # in log depth, from one pixel to the next: a break, unless the surface goes on as steeply:
REACH = 4  # among the steps between so many pixels on either side
GOES_ON = 6  # are so many at least half as high
SMOOTHINGS = 2  # of the outlines, which follow the sides of pixels at first
LEAST = 0.05  # of its area that a triangle keeps thereby
FINE = 1 << 18  # steps of a normal's coordinates to 1: sums in another order then make the same mesh
A, B, C, D = range(4)  # the pixels around a corner of pixels: above left, above right, below left, below right
# Corners of a square of pixels, and its middle: (row, column) in sides of the square
TL, TR, BL, BR, MIDDLE = (0, 0), (0, 1), (1, 0), (1, 1), (0.5, 0.5)
INWARD = {TL: D, TR: C, BL: B, BR: A}  # which of the pixels around a corner lies in the square
# The two halves of a square: upper and lower, by whether the side they share falls to the right. Anticlockwise, the
# right angle first.
HALVES = {True: ((TR, TL, BR), (BL, BR, TL)), False: ((TL, BL, TR), (BR, TR, BL))}
# Its four quarters, likewise, with a pixel at the middle that lies in each
QUARTERS = (((MIDDLE, TR, TL), A), ((MIDDLE, BL, BR), C), ((MIDDLE, TL, BL), A), ((MIDDLE, BR, TR), B))


@dataclass(frozen=True)
class Mesh:
    """Surfaces in the units of the lights, +x right, +y up, +z toward the viewer; see fit.py.

    positions, normals: (n, 3) float32. places: (n, 2) float32, 0..1, of the vertices in the picture, from its left
    and its upper edge. triangles: (m, 3) uint32, anticlockwise as the viewer sees them.
    """

    positions: np.ndarray
    normals: np.ndarray
    places: np.ndarray
    triangles: np.ndarray


def grid_size(size: Tuple[int, int], side: int) -> Tuple[int, int]:
    """The size (h, w) in whole tiles in which a picture (H, W) is made a mesh, its longer side being `side`."""
    h, w = (max(1, round(side / TILE * n / max(size))) * TILE for n in size)
    return h, w


def mesh(
    q: np.ndarray, surface: np.ndarray, normals: np.ndarray, focal: float, ratio: float, most: int
) -> Optional[Mesh]:
    """The mesh of a picture with at most so many triangles; None where so few are too far off.

    q: (h, w) float32, whole tiles; surface: (h, w) bool, where there is one, and if there is none it counts as one
    everywhere; normals: (3, h, w) float32; focal: in picture widths; ratio: height by width of the picture.
    """
    surface = surface if surface.any() else ~surface
    for _ in range(SNAPS):
        q = np.where(surface, snap_depth_edges(_in_sky_as_beside_it(q, surface)), np.float32(1))
    left, above = breaks(q, surface)
    first = _surfaces(left, above)
    corners = _mean_of_surface(_continued(q, left, above), first)
    tree, tolerance = _Tree(q, left, above, corners), TOLERANCE
    while tree.count(tolerance) > most and tolerance < COARSEST:
        tolerance *= COARSER
    if tree.count(tolerance) > most:
        return None
    rows, columns, quadrants = tree.triangles(tolerance)
    shown = surface[rows[:, 0] - (quadrants[:, 0] < C), columns[:, 0] - (quadrants[:, 0] % 2 == 0)]
    rows, columns, quadrants = rows[shown], columns[shown], quadrants[shown]
    places = _smoothed(left, above, rows, columns)
    keys = (first[quadrants, rows, columns].astype(np.int64) * first.shape[1] + rows) * first.shape[2] + columns
    keys, triangles = np.unique(keys, return_inverse=True)
    k, row, column = np.unravel_index(keys, first.shape)
    n = np.stack([_mean_of_surface(_around(plane), first)[k, row, column] for plane in normals], 1)
    length = np.linalg.norm(n, axis=1, keepdims=True)
    unit = np.where(length > 1e-3, n / np.maximum(length, 1e-3), [0, 0, 1])
    place = places[row, column]
    depth = 1 / corners[k, row, column].astype(np.float64)
    positions = [(2 * place[:, 0] - 1) * depth, (1 - 2 * place[:, 1]) * ratio * depth, 2 * focal * (1 - depth)]
    return Mesh(
        positions=np.stack(positions, 1).astype(np.float32),
        normals=(np.rint(unit * FINE) / FINE).astype(np.float32),
        places=place.astype(np.float32),
        triangles=triangles.reshape(-1, 3).astype(np.uint32),
    )


def breaks(q: np.ndarray, surface: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    """Where neighbouring pixels are not of one surface: (h, w + 1) bool, left of each, and (h + 1, w) bool, above.

    q: (h, w) float32; surface: (h, w) bool, where there is one. The edges of the picture count as breaks.
    """
    across, down = _breaks_in_rows(q, surface), _breaks_in_rows(q.T, surface.T).T
    return np.pad(across, ((0, 0), (1, 1)), constant_values=True), np.pad(down, ((1, 1), (0, 0)), constant_values=True)


def _breaks_in_rows(q: np.ndarray, surface: np.ndarray) -> np.ndarray:
    """(h, w - 1) bool: is there a break right of each pixel but the last?"""
    step = np.diff(q, axis=1)
    around, n = np.pad(step, ((0, 0), (REACH, REACH)), mode="reflect"), step.shape[1]
    alike = sum((around[:, k : k + n] * step >= step * step / 2).astype(np.int8) for k in range(2 * REACH + 1))
    breaking = (np.abs(np.diff(np.log(q), axis=1)) > STEP) & (alike < GOES_ON)
    return (surface[:, 1:] != surface[:, :-1]) | (surface[:, 1:] & breaking)


def _in_sky_as_beside_it(q: np.ndarray, surface: np.ndarray) -> np.ndarray:
    """q (h, w), where there is no surface that of the nearest one within a few pixels: what is drawn in the sky's depth
    around a thing is the thing's.
    """
    beside = cv2.dilate(np.where(surface, q, np.float32(0)), np.ones((2 * REACH + 1,) * 2, np.uint8))
    return np.where(surface, q, np.where(beside > 0, beside, np.float32(1)))


def _around(plane: np.ndarray) -> np.ndarray:
    """A plane (h, w) at the four pixels around each corner of pixels, (4, h + 1, w + 1); beyond it, at the nearest."""
    h, w = plane.shape
    padded = np.pad(plane, 1, mode="edge")
    return np.stack([padded[y : y + h + 1, x : x + w + 1] for y in (0, 1) for x in (0, 1)])


def _continued(q: np.ndarray, left: np.ndarray, above: np.ndarray) -> np.ndarray:
    """q (h, w) of the four pixels around each corner, each continued to the corner as steeply as its surface is there:
    (4, h + 1, w + 1).
    """
    fall, rise = _slopes(q.T, above.T).T / 2, _slopes(q, left) / 2
    to_corner = {A: rise + fall, B: fall - rise, C: rise - fall, D: -rise - fall}
    return np.stack([_around(q + np.clip(step, -q / 4, q / 4))[k] for k, step in to_corner.items()])


def _slopes(q: np.ndarray, left: np.ndarray) -> np.ndarray:
    """How q (h, w) changes along its rows from pixel to pixel, of the same surface."""
    steps, joined = np.pad(np.diff(q, axis=1), ((0, 0), (1, 1))), ~left
    total = steps[:, :-1] * joined[:, :-1] + steps[:, 1:] * joined[:, 1:]
    return total / np.maximum(joined[:, :-1].astype(np.float32) + joined[:, 1:], 1)


def _surfaces(left: np.ndarray, above: np.ndarray) -> np.ndarray:
    """Of the four pixels around each corner, the first that is of the same surface there: (4, h + 1, w + 1) int."""
    uprights = np.pad(left, ((1, 1), (0, 0)), constant_values=True)
    levels = np.pad(above, ((0, 0), (1, 1)), constant_values=True)
    walls = {(A, B): uprights[:-1], (C, D): uprights[1:], (A, C): levels[:, :-1], (B, D): levels[:, 1:]}
    first = np.empty((4, above.shape[0], left.shape[1]), np.int8)
    first[:] = np.arange(4, dtype=np.int8)[:, None, None]
    for _ in range(2):
        for (one, other), wall in walls.items():
            both = np.minimum(first[one], first[other])
            for k in (one, other):
                first[k] = np.where(wall, first[k], both)
    return first


def _mean_of_surface(values: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Values (4, h + 1, w + 1) of the pixels around corners, averaged over those of one surface."""
    alike = [first == of for of in first]
    return np.stack([(values * mine).sum(0) / mine.sum(0) for mine in alike])


def _blocks(plane: np.ndarray, s: int) -> np.ndarray:
    """A plane (h, w) as squares, (h / s, w / s, s, s)."""
    h, w = plane.shape
    return plane.reshape(h // s, s, w // s, s).swapaxes(1, 2)


def _falls_right(squares: Tuple[int, ...]) -> np.ndarray:
    """(m, n) bool: which squares are halved from the upper left to the lower right."""
    return (np.add.outer(np.arange(squares[0]), np.arange(squares[1])) % 2) == 0


def _in_quarters(y: np.ndarray, x: np.ndarray) -> Tuple[np.ndarray, ...]:
    """How far places in a square, 0..1, are in each of its QUARTERS; negative, outside."""
    across, down = np.minimum(x, 1 - x), np.minimum(y, 1 - y)
    return across - y, across - (1 - y), down - x, down - (1 - x)


class _Tree:
    """How far off the planes of triangles of all sizes are, relative to the depth; infinitely, across a break.

    squares[s]: (h / s, w / s), of the halves of squares of side s, which are halved at its middle. levels[s]:
    (h / s + 1, w / s), of the quarters above and below the horizontal sides of the squares, which are halved there;
    uprights[s]: (h / s, w / s + 1), likewise. Each is at least as far off as what it is halved into, so that whatever
    the tolerance, no corner lies on a side of its neighbour.
    """

    def __init__(self, q: np.ndarray, left: np.ndarray, above: np.ndarray, corners: np.ndarray):
        self.squares: Dict[int, np.ndarray] = {1: np.zeros(q.shape, np.float32)}
        self.levels: Dict[int, np.ndarray] = {}
        self.uprights: Dict[int, np.ndarray] = {}
        s = 2
        while s <= TILE:
            self._measure(s, q, left, above, corners)
            s *= 2

    def _measure(self, s: int, q: np.ndarray, left: np.ndarray, above: np.ndarray, corners: np.ndarray) -> None:
        pixels, (row, column) = _blocks(q, s), np.mgrid[:s, :s].astype(np.float32) / s
        y, x = row + np.float32(0.5 / s), column + np.float32(0.5 / s)
        walls = (_blocks(left[:, :-1], s), y, column), (_blocks(above[:-1], s), row, x)
        inner = [np.minimum(np.minimum(v, 1 - v), np.minimum(u, 1 - u)) > 0 for _, v, u in walls]
        at = {
            (i, j): corners[k, i * s : (i - 1) * s or None : s, j * s : (j - 1) * s or None : s, None, None]
            for (i, j), k in INWARD.items()
        }

        def off(plane: np.ndarray, inside: np.ndarray, crossed: List[np.ndarray]) -> np.ndarray:
            """Of planes (h / s, w / s, s, s), where they are `inside`, which walls at such places cross."""
            found: np.ndarray = (np.abs(plane - pixels) / pixels * inside).max((2, 3))
            for (wall, _, _), which in zip(walls, crossed):
                found[(wall & which).any((2, 3))] = np.inf
            return found

        def halves(u: np.ndarray, tl: np.ndarray, tr: np.ndarray, bl: np.ndarray, br: np.ndarray) -> np.ndarray:
            upper, lower = tl + u * (tr - tl) + y * (br - tr), tl + y * (bl - tl) + u * (br - bl)
            return np.where(u > y, upper, lower)

        falling = _falls_right(pixels.shape[:2])[:, :, None, None]
        plane = np.where(
            falling, halves(x, at[TL], at[TR], at[BL], at[BR]), halves(1 - x, at[TR], at[TL], at[BR], at[BL])
        )
        square, sides = off(plane, np.ones((s, s), bool), inner), []
        corners_and_places = (TL, TR, x, y), (BL, BR, x, 1 - y), (TL, BL, y, x), (TR, BR, y, 1 - x)
        for k, (one, other, along, away) in enumerate(corners_and_places):
            middle = corners[QUARTERS[k][1], s // 2 :: s, s // 2 :: s, None, None]
            plane = at[one] * (1 - along - away) + at[other] * (along - away) + middle * (2 * away)
            crossed = [wall & (_in_quarters(v, u)[k] > 0) for wall, (_, v, u) in zip(inner, walls)]
            sides.append(off(plane, _in_quarters(y, x)[k] >= 0, crossed))
        if s > 2:  # what they are halved into
            finer = self.squares[s // 2]
            across, down = np.maximum(finer[:, ::2], finer[:, 1::2]), np.maximum(finer[::2], finer[1::2])
            halved = across[::2], across[1::2], down[:, ::2], down[:, 1::2]
            sides = [np.maximum(side, into) for side, into in zip(sides, halved)]
        level, upright = (np.zeros((square.shape[0] + d, square.shape[1] + 1 - d), np.float32) for d in (1, 0))
        for k, part in enumerate((level[:-1], level[1:], upright[:, :-1], upright[:, 1:])):
            np.maximum(part, sides[k], out=part)
        for part in (level[:-1], level[1:], upright[:, :-1], upright[:, 1:]):
            np.maximum(square, part, out=square)
        self.squares[s], self.levels[s], self.uprights[s] = square, level, upright

    def count(self, tolerance: float) -> int:
        """How many triangles there are that are off by no more than a tolerance, while what they are halves of is."""
        return sum(int(which.sum()) for which, _, _, _ in self._leaves(tolerance))

    def triangles(self, tolerance: float) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Those triangles by their corners, anticlockwise: (rows, columns, quadrants), each (m, 3) int.

        quadrants: which of the pixels around a corner lies in the triangle.
        """
        found = []
        for which, s, at, quadrants in self._leaves(tolerance):
            places = np.argwhere(which)[:, None] * s + (np.array(at) * s).astype(np.intp)
            found.append(np.concatenate([places, np.broadcast_to(quadrants, places.shape[:2])[..., None]], 2))
        rows, columns, quadrants = np.moveaxis(np.concatenate(found), 2, 0)
        return rows, columns, quadrants

    def _leaves(self, tolerance: float) -> Iterator[Tuple[np.ndarray, int, Any, Any]]:
        """By kind: (of which squares (h / s, w / s) bool, their side s, the corners, the quadrants)."""
        for s, squares in self.squares.items():
            whole, falling = squares <= tolerance, _falls_right(squares.shape)
            upper = (np.arange(len(squares)) % 2 == 0)[:, None]  # of the square around
            level = upright = whole
            if s < TILE:  # halves of quarters at its horizontal and its vertical sides
                level = whole & np.repeat(np.repeat(self.levels[2 * s] > tolerance, 2, 0)[1:-1], 2, 1)
                upright = whole & np.repeat(np.repeat(self.uprights[2 * s] > tolerance, 2, 1)[:, 1:-1], 2, 0)
            for falls, halves in HALVES.items():
                for half, of_level in zip(halves, (upper, ~upper)):
                    which = (falling == falls) & np.where(of_level, level, upright)
                    yield which, s, half, [INWARD[corner] for corner in half]
            if s > 1:
                levels, uprights = self.levels[s] <= tolerance, self.uprights[s] <= tolerance
                sides = levels[:-1], levels[1:], uprights[:, :-1], uprights[:, 1:]
                for (corners, middle), leaf in zip(QUARTERS, sides):
                    yield ~whole & leaf, s, corners, [middle, *(INWARD[corner] for corner in corners[1:])]


def _smoothed(left: np.ndarray, above: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Where the corners of pixels are put in the picture, (h + 1, w + 1, 2) float64: x and y, 0..1.

    Outlines are smoothed; what would turn a triangle over is left where it is. rows, columns: (m, 3), of the corners
    of all triangles.
    """
    h, w = above.shape[0] - 1, left.shape[1] - 1
    straight = np.moveaxis(np.mgrid[: h + 1, : w + 1][::-1].astype(np.float64), 0, 2)
    uprights, levels = np.pad(left, ((1, 1), (0, 0))), np.pad(above, ((0, 0), (1, 1)))
    next_to = uprights[:-1], uprights[1:], levels[:, :-1], levels[:, 1:]
    moves = np.sum(next_to, 0) == 2
    moves[[0, -1]] = moves[:, [0, -1]] = False
    places = straight.copy()
    for _ in range(SMOOTHINGS):
        wide = np.pad(places, ((1, 1), (1, 1), (0, 0)))
        neighbours = wide[:-2, 1:-1], wide[2:, 1:-1], wide[1:-1, :-2], wide[1:-1, 2:]
        total = np.sum([place * part[..., None] for place, part in zip(neighbours, next_to)], 0)
        places = np.where(moves[..., None], (2 * places + total) / 4, places)

    def area(at: np.ndarray) -> np.ndarray:
        a, b, c = np.moveaxis(at[rows, columns], 1, 0)
        return (c[:, 0] - a[:, 0]) * (b[:, 1] - a[:, 1]) - (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1])

    least = LEAST * area(straight)
    while (turned := area(places) < least).any():
        at = rows[turned].ravel(), columns[turned].ravel()
        places[at] = straight[at]
    return places / (w, h)
