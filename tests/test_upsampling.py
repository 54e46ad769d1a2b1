"""Upsampling near silhouettes, against the same formulas pixel by pixel."""

import numpy as np
import pytest
from light_scenes import ball_and_wall, random_scene

from server.image.resample import Resampler
from server.light import upsampling
from server.light.maps import prepare
from server.light.upsampling import edge_layer, joint_bilateral


def place(k, n, N):
    """Where pixel k of N lies among n texels."""
    return min(max((k + 0.5) * n / N - 0.5, 0), n - 1)


def overlaps(n, N):
    """(n, N): how much of each of n texels each of N pixels is."""
    k, t = np.arange(N), np.arange(n)[:, None]
    return np.maximum(np.minimum((t + 1) * N / n, k + 1) - np.maximum(t * N / n, k), 0) * n / N


def match(planes, layer, colours, colour, y, x):
    """One pixel by the definition: Gaussian weights of colour and place over 4 x 4 texels, then a vote of two sides."""
    _, h, w = planes.shape
    top, left = min(int(y), max(h - 2, 0)), min(int(x), max(w - 2, 0))
    around = layer[max(top - 2, 0) : top + 3, max(left - 2, 0) : left + 3]
    middle = (float(around.max()) + float(around.min())) / 2
    sides = {True: [], False: []}
    for dy in range(-1, 3):
        for dx in range(-1, 3):
            ty, tx = min(max(top + dy, 0), h - 1), min(max(left + dx, 0), w - 1)
            unlike = float(np.square(colours[ty, tx] - colour).sum()) / (2 * upsampling.COLOUR**2)
            far = ((dy - (y - top)) ** 2 + (dx - (x - left)) ** 2) / 2
            sides[bool(layer[ty, tx] > middle)].append((np.exp(-min(unlike, 20) - far), planes[:, ty, tx]))
    near, all_of_them = (sum(weight for weight, _ in s) for s in (sides[True], sides[True] + sides[False]))
    t = min(max((near / all_of_them - 0.25) * 2, 0), 1)
    won = t * t * (3 - 2 * t)
    shares = [(won, sides[True]), (1 - won, sides[False])]
    return sum(s * sum(w * v for w, v in side) / sum(w for w, _ in side) for s, side in shares if side and s > 0)


@pytest.mark.parametrize(
    "size,grid", [((61, 90), (12, 16)), ((40, 200), (9, 33)), ((50, 3), (10, 2)), ((7, 64), (1, 8))]
)
def test_every_pixel_near_a_silhouette_is_matched_as_defined(size, grid):
    rng = np.random.default_rng(3)
    planes = rng.normal(0, 1, (4, *grid)).astype(np.float32)
    layer = np.log(np.where(rng.uniform(size=grid) < 0.3, 0.5, 1).astype(np.float32))
    rgb = rng.integers(90, 140, (*size, 3), dtype=np.uint8)
    sampler = Resampler(grid, size)
    found = joint_bilateral(planes, layer, rgb, sampler, threads=2)
    down, along = (overlaps(n, N) for n, N in zip(grid, size))
    colours = np.rint(np.einsum("ty,ux,yxc->tuc", down, along, rgb.astype(float))) / 255
    assert found.pixels.size > 0.2 * size[0] * size[1] and (np.diff(found.pixels) > 0).all()
    off = []
    for pixel, values in zip(found.pixels, found.values.T):
        y, x = divmod(int(pixel), size[1])
        wanted = match(
            planes, layer, colours, rgb[y, x] / 255.0, place(y, grid[0], size[0]), place(x, grid[1], size[1])
        )
        off.append(np.abs(wanted - values).max())
    assert np.percentile(off, 90) < 1e-3 and np.percentile(off, 99) < 0.1  # a colour may be rounded the other way


def test_texels_that_are_all_of_one_depth_are_left_to_interpolation():
    planes, layer = np.ones((4, 12, 16), np.float32), np.zeros((12, 16), np.float32)
    found = joint_bilateral(planes, layer, np.zeros((60, 80, 3), np.uint8), Resampler((12, 16), (60, 80)))
    assert found.pixels.size == 0 and found.values.shape == (4, 0)


def test_interpolation_between_the_rows_of_a_grid():
    rng = np.random.default_rng(0)
    for grid, size in (((7, 5), (23, 11)), ((1, 4), (9, 4)), ((6, 6), (6, 6)), ((40, 2), (41, 300))):
        plane = rng.normal(0, 1, grid)
        sampler = Resampler(grid, size)
        found = sampler.rows(sampler.widen(plane.astype(np.float32)), slice(0, size[0]))
        y, x = ([place(k, n, N) for k in range(N)] for n, N in zip(grid, size))
        down = np.array([np.interp(y, range(grid[0]), column) for column in plane.T]).T
        wanted = np.array([np.interp(x, range(grid[1]), row) for row in down])
        assert np.allclose(found, wanted, atol=1e-5)
        assert np.array_equal(found[3:5], sampler.rows(sampler.widen(plane.astype(np.float32)), slice(3, 5)))


def test_the_pixels_of_some_cells_each_once_in_order():
    rng = np.random.default_rng(1)
    for grid, size in (((7, 5), (23, 11)), ((6, 6), (6, 6)), ((1, 4), (9, 30)), ((30, 20), (31, 400))):
        sampler, flags = Resampler(grid, size), rng.uniform(size=grid) < 0.4
        cells = sampler.cells(flags)
        order, whole = cells.in_order()
        wanted = [
            y * size[1] + x
            for y in range(size[0])
            for x in range(size[1])
            if flags[
                min(int(place(y, grid[0], size[0])), max(grid[0] - 2, 0)),
                min(int(place(x, grid[1], size[1])), max(grid[1] - 2, 0)),
            ]
        ]
        assert cells.flat(size[1])[order][whole].tolist() == wanted


def test_silhouettes_are_where_the_layer_jumps():
    geometry, _, on_ball = ball_and_wall(60, 80)
    layer = edge_layer(geometry.inverse_depth)
    rgb, random_geometry, fit = random_scene(np.random.default_rng(2), 30, 40, masked=True)
    found = joint_bilateral(np.ones((4, 60, 80), np.float32), layer, np.zeros((240, 320, 3), np.uint8),
                            Resampler((60, 80), (240, 320)))  # fmt: skip
    marked = np.zeros((240, 320), bool)
    marked.ravel()[found.pixels] = True
    outline = on_ball ^ np.roll(on_ball, 1, 1)
    assert marked[::4, ::4][1:-1, 1:-1][outline[1:-1, 1:-1]].mean() > 0.9 and marked.mean() < 0.5
    assert prepare(rgb, random_geometry, fit).silhouettes.pixels.size == 0  # as large as the grid: nothing to decide
