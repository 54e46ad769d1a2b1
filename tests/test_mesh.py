"""The mesh of a picture's surfaces: true to its depth, whole as seen from the camera, and cut where depth breaks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.scene import mesh as meshes
from server.scene.mesh import TOLERANCE, breaks, grid_size, mesh

FOCAL, H, W = 0.9, 64, 96
Y, X = np.mgrid[:H, :W] + 0.5
ANYWHERE = np.ones((H, W), bool)
PLENTY = 10**6


def made(q, surface=ANYWHERE, normals=None, most=PLENTY):
    """The mesh of a picture of H x W pixels."""
    flat = np.zeros((3, H, W), np.float32)
    flat[2] = 1
    return mesh(q.astype(np.float32), surface, flat if normals is None else normals, FOCAL, H / W, most)


def q_of(m):
    """The q of the vertices, from how far they are from the camera at z = 2 f."""
    return 2 * FOCAL / (2 * FOCAL - m.positions[:, 2].astype(np.float64))


def corners(m):
    """The corners of the triangles in pixels, (m, 3, 2) float64: x, y."""
    return m.places[m.triangles].astype(np.float64) * (W, H)


def areas(m):
    """The areas of the triangles in pixels; positive, if they are anticlockwise as the viewer sees them."""
    (ax, ay), (bx, by), (cx, cy) = corners(m).transpose(1, 2, 0)
    return ((cx - ax) * (by - ay) - (bx - ax) * (cy - ay)) / 2


def drawn(m, values):
    """Values (n,) of the vertices at the middles of the pixels, (H, W); NaN where there is no triangle."""
    out = np.full((H, W), np.nan)
    for points, v in zip(corners(m), values[m.triangles]):
        low = np.maximum(np.floor(points.min(0)).astype(int), 0)
        high = np.ceil(points.max(0)).astype(int)
        rows, columns = slice(low[1], high[1]), slice(low[0], high[0])
        system = np.vstack([points.T, np.ones(3)])
        here = np.stack([X[rows, columns].ravel(), Y[rows, columns].ravel(), np.ones(X[rows, columns].size)])
        shares = np.linalg.solve(system, here)
        inside = (shares > -1e-6).all(0).reshape(X[rows, columns].shape)
        out[rows, columns][inside] = (v @ shares).reshape(inside.shape)[inside]
    return out


def waves(seed):
    """A smooth surface, its q about 1."""
    rng = np.random.default_rng(seed)
    q = np.ones((H, W))
    for _ in range(4):
        a, b, phase = rng.uniform(-0.12, 0.12), rng.uniform(-0.12, 0.12), rng.uniform(0, 6)
        q += rng.uniform(0.02, 0.12) * np.sin(a * X + b * Y + phase)
    return q


@st.composite
def steps(draw):
    """Flat things, far apart in depth, in front of each other: (q, where there is a surface)."""
    q, surface = np.full((H, W), 0.5), ANYWHERE.copy()
    for k in range(draw(st.integers(1, 6))):
        x, y = draw(st.floats(-5, W + 5)), draw(st.floats(-5, H + 5))
        wide, high = draw(st.floats(0.5, 40)), draw(st.floats(0.5, 40))
        inside = ((X - x) / wide) ** 2 + ((Y - y) / high) ** 2 < 1
        if draw(st.booleans()):
            inside = (np.abs(X - x) < wide) & (np.abs(Y - y + (X - x) * draw(st.floats(-1, 1))) < high)
        q[inside], surface[inside] = 0.5 * 1.4 ** (k + 1), draw(st.integers(0, 3)) > 0
    return q, surface


def test_a_plane_takes_two_triangles_a_tile():
    q = 1 + 0.004 * X - 0.006 * Y
    m = made(q)
    assert len(m.triangles) == 2 * (H // meshes.TILE) * (W // meshes.TILE)
    inner = (m.places > 0).all(1) & (m.places < 1).all(1)
    assert np.allclose(q_of(m)[inner], (1 + 0.004 * m.places[:, 0] * W - 0.006 * m.places[:, 1] * H)[inner], atol=1e-5)


@pytest.mark.parametrize("seed", range(4))
def test_no_pixel_is_farther_off_its_triangle_than_the_tolerance(seed):
    q = waves(seed)
    m = made(q)
    assert 20 < len(m.triangles) < H * W / 2
    off = np.abs(drawn(m, q_of(m)) - q) / q
    assert np.nanmax(off) < TOLERANCE * 1.01 and not np.isnan(off).any()
    assert np.nanmax(off) > TOLERANCE / 3, "finer than it has to be"


def test_few_triangles_are_as_many_as_may_be():
    finest, fewer = made(waves(1)), made(waves(1), most=60)
    assert len(fewer.triangles) <= 60 < len(finest.triangles)
    off = np.abs(drawn(fewer, q_of(fewer)) - waves(1)) / waves(1)
    assert off.max() < 0.1


@settings(max_examples=15, deadline=None, derandomize=True)
@given(scene=steps())
def test_whatever_stands_in_front_of_what_it_is_whole_and_nothing_is_stretched(scene):
    q, surface = scene
    m = made(q, surface)
    shown = surface if surface.any() else ANYWHERE
    assert np.isfinite(m.positions).all() and (m.places >= 0).all() and (m.places <= 1).all()
    assert m.triangles.max() == len(m.positions) - 1 and (areas(m) > 0).all()
    # every triangle is of one thing
    depths = q_of(m)[m.triangles]
    assert np.ptp(depths, 1).max() < 1e-4
    assert set(np.round(depths.ravel(), 3)) <= set(np.round(q[shown], 3))
    # seen from the camera, two triangles meet at every side, but where there is nothing
    spots, numbers = np.unique(np.round(corners(m) * 1000).reshape(-1, 2), axis=0, return_inverse=True)
    ends = np.stack([numbers.reshape(-1, 3), np.roll(numbers.reshape(-1, 3), -1, 1)], 2).reshape(-1, 2)
    sides, back = ends @ (1, len(spots)), ends[:, ::-1] @ (1, len(spots))
    assert len(np.unique(sides)) == len(sides), "triangles overlap"
    alone = ends[~np.isin(sides, back)]
    if shown.all():
        along = spots[alone[:, 0]] == spots[alone[:, 1]]
        assert (along & ((spots[alone[:, 0]] == 0) | (spots[alone[:, 0]] == (W * 1000, H * 1000)))).any(1).all()
        assert areas(m).sum() == pytest.approx(H * W, rel=1e-6)
    else:  # its outline runs between the pixels, smoothed by less than one
        assert abs(areas(m).sum() - shown.sum()) < 0.3 * len(alone) + 1e-6


@pytest.mark.parametrize("slope", [1, 2, 3, 5])
def test_a_slope_that_a_network_draws_across_a_silhouette_is_cut(slope):
    """From one side to the other within so many pixels: no triangle reaches across."""
    q = np.where(X < 40, 1.0, np.where(40 + slope <= X, 1.6, 1 + 0.6 * (X - 39.5) / slope))
    depths = q_of(m := made(q))[m.triangles]
    assert np.ptp(depths, 1).max() < 0.02 and depths.min() < 1.01 and depths.max() > 1.59
    if slope < 3:
        assert np.minimum(np.abs(depths - 1), np.abs(depths - 1.6)).max() < 0.01, "slices between the two"


def test_a_floor_is_not_cut_up_to_the_horizon():
    q = 0.045 * (Y + 1)  # doubles from the second row to the fourth
    left, above = breaks(q.astype(np.float32), ANYWHERE)
    assert not left[:, 1:-1].any() and not above[1:-1].any()
    assert left[:, [0, -1]].all() and above[[0, -1]].all()


def test_outlines_are_smooth():
    """Of a slanted edge: its corners lie nearer to the line than those of the pixels it runs between."""
    slanted = Y < 12 + 0.37 * X
    m = made(np.where(slanted, 1.0, 2.0))
    near, far = ({tuple(p) for p in m.places[where].tolist()} for where in (q_of(m) > 1.5, q_of(m) < 1.5))
    x, y = np.array(sorted(near & far))[3:-3].T * [[W], [H]]
    off = y - (12 + 0.37 * x)
    assert len(off) > 50 and np.abs(off).mean() < 0.2 and off.std() < 0.2  # of those, 0.38


def test_vertices_are_where_the_camera_sees_them():
    """The camera is at (0, 0, 2 f) and sees a picture 1 / f wide at distance 1; y is up."""
    m = made(waves(2))
    x, y, z = m.positions.astype(np.float64).T
    assert np.allclose(FOCAL * x / (2 * FOCAL - z) + 0.5, m.places[:, 0], atol=1e-5)
    assert np.allclose(0.5 - FOCAL * y / (2 * FOCAL - z) * W / H, m.places[:, 1], atol=1e-5)
    a, b, c = m.positions[m.triangles].astype(np.float64).transpose(1, 0, 2)
    facing = np.einsum("ij,ij->i", np.cross(b - a, c - a), np.array([0, 0, 2 * FOCAL]) - a)
    assert (facing > 0).all()


def test_normals_are_those_of_the_pixels_around_and_of_one_surface():
    normals = np.zeros((3, H, W), np.float32)
    normals[0], normals[2] = np.where(X < 48, -0.6, 0.6), 0.8
    m = made(np.where(X < 48, 1.0, 2.0), normals=normals)
    near = q_of(m) > 1.5
    assert np.allclose(m.normals[near], (0.6, 0, 0.8), atol=1e-6) and np.allclose(m.normals[~near], (-0.6, 0, 0.8))
    opposite = made(np.ones((H, W)), normals=normals * np.where(X < 48, -1, 1) * (1, 1, 1)[0])
    assert np.allclose(np.linalg.norm(opposite.normals, axis=1), 1, atol=1e-6)


def test_the_sky_is_left_out_though_it_is_as_far():
    disc = np.hypot(X - 40, Y - 30) < 20
    m = made(np.ones((H, W)), disc)
    assert areas(m).sum() == pytest.approx(disc.sum(), rel=0.02)
    assert np.hypot(*(m.places * (W, H) - (40, 30)).T).max() < 21


def test_nothing_but_sky_counts_as_a_surface():
    m = made(waves(3), ~ANYWHERE)
    assert areas(m).sum() == pytest.approx(H * W)


def test_the_same_picture_gives_the_same_mesh():
    rough = np.random.default_rng(0).uniform(0.5, 2, (H, W))
    one, other = made(rough), made(rough)
    for name in ("positions", "normals", "places", "triangles"):
        assert np.array_equal(getattr(one, name), getattr(other, name)), name


@pytest.mark.parametrize(
    "size, expected",
    [((3000, 4000), (384, 512)), ((1, 1), (512, 512)), ((1, 5000), (32, 512)), ((4000, 2250), (512, 288))],
)
def test_grids_are_of_whole_tiles_and_nearly_of_the_picture_s_shape(size, expected):
    assert grid_size(size, 512) == expected
