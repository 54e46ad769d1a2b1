"""Relief from shading: nearer to the truth where the shading tells it, and nothing invented where it does not."""

import numpy as np
import pytest
from light_scenes import angles, smooth_field

from server.image.srgb import linear_to_srgb
from server.scene.geometry import Geometry
from server.scene.illumination import EstimatedLight, light_at, light_slope
from server.scene.refinement import refine_normals

H, W = 96, 128
SIDE_LIGHT = EstimatedLight((0.7, 0.45, 0.2, 0.25), 0.02)


def bumpy():
    """(true normals, the smooth ones a network would give): a wall with bumps of an eighth of its width."""
    y, x = np.mgrid[0:H, 0:W] / 16 * np.pi
    n = np.stack([0.4 * np.sin(x), 0.4 * np.sin(y), np.ones((H, W))], -1)
    flat = np.zeros((H, W, 3), np.float32)
    flat[..., 2] = 1
    return (n / np.linalg.norm(n, axis=-1, keepdims=True)).astype(np.float32), flat


def photo(normals, light, albedo=(0.4, 0.4, 0.4)):
    lit = light_at(*np.moveaxis(normals, 2, 0), light)[..., None] * np.asarray(albedo)
    return np.rint(255 * linear_to_srgb(np.clip(lit, 0, 1))).astype(np.uint8)


def degrees(a, b):
    return float(angles(a, b).mean())


def geometry(normals, mask=None):
    return Geometry(np.ones(normals.shape[:2], np.float32), normals, mask, relief=0.5)


def test_bumps_that_the_network_missed_come_back():
    true, flat = bumpy()
    got = refine_normals(photo(true, SIDE_LIGHT), geometry(flat), SIDE_LIGHT).normals
    assert degrees(got, true) < 0.95 * degrees(flat, true)
    along = (got[..., 0] * true[..., 0]).sum() / np.sqrt((got[..., 0] ** 2).sum() * (true[..., 0] ** 2).sum())
    assert along > 0.6, "it turns to the light where it is brighter"
    assert np.allclose(np.linalg.norm(got, axis=-1), 1, atol=1e-5) and got.dtype == np.float32


def test_normals_that_explain_the_photograph_stay():
    true, _ = bumpy()
    assert degrees(refine_normals(photo(true, SIDE_LIGHT), geometry(true), SIDE_LIGHT).normals, true) < 0.5


def test_paint_is_no_relief():
    """Stripes of another hue turn the normals far less than stripes of the same contrast in gray."""
    _, flat = bumpy()
    stripes = (np.arange(W) // 8 % 2)[None, :, None] * np.ones((H, 1, 1))
    turned = {}
    for name, other in {"gray": (0.25, 0.25, 0.25), "red": (0.75, 0.12, 0.08)}.items():
        rgb = photo(flat, SIDE_LIGHT, np.where(stripes > 0, other, (0.5, 0.5, 0.5)))
        turned[name] = degrees(refine_normals(rgb, geometry(flat), SIDE_LIGHT).normals, flat)
    assert turned["red"] < 0.5 and turned["gray"] > 4 * turned["red"]


@pytest.mark.parametrize("rgb", [0, 128, 255])
def test_an_even_picture_has_no_relief(rgb):
    _, flat = bumpy()
    got = refine_normals(np.full((H, W, 3), rgb, np.uint8), geometry(flat), SIDE_LIGHT).normals
    assert degrees(got, flat) < 0.05


def test_normals_of_a_network_that_asks_for_none_stay():
    true, flat = bumpy()
    assert (
        refine_normals(photo(true, SIDE_LIGHT), Geometry(np.ones((H, W), np.float32), flat), SIDE_LIGHT).normals is flat
    )


def test_an_even_light_tells_nothing():
    true, flat = bumpy()
    even = EstimatedLight((1.0,), 0.05)
    assert refine_normals(photo(true, SIDE_LIGHT), geometry(flat), even).normals is flat


def test_where_there_is_no_surface_nothing_turns():
    true, flat = bumpy()
    mask = np.zeros((H, W), np.float32)
    mask[:, W // 2 :] = 1
    got = refine_normals(photo(true, SIDE_LIGHT), geometry(flat, mask), SIDE_LIGHT).normals
    assert degrees(got[:, : W // 2 - 4], flat[:, : W // 2 - 4]) < 1e-3 < degrees(got[:, W // 2 :], flat[:, W // 2 :])
    nowhere = refine_normals(photo(true, SIDE_LIGHT), geometry(flat, mask * 0), SIDE_LIGHT)
    assert nowhere.normals is flat


def test_the_mirror_image_has_the_mirrored_relief():
    true, flat = bumpy()
    turned = EstimatedLight((0.7, -0.45, 0.2, 0.25), 0.02)
    rgb = photo(true, SIDE_LIGHT)
    a = refine_normals(rgb, geometry(flat), SIDE_LIGHT).normals
    b = refine_normals(np.ascontiguousarray(rgb[:, ::-1]), geometry(flat), turned).normals
    assert np.abs(a - b[:, ::-1] * np.float32([-1, 1, 1])).max() < 1e-4


@pytest.mark.parametrize("terms", [4, 9])
def test_the_slope_of_the_light_is_its_derivative(terms):
    rng = np.random.default_rng(terms)
    light = EstimatedLight((1.0, *rng.normal(0, 0.15, terms - 1)), 0.05)
    n = np.stack([smooth_field(rng, 8, 9, -1, 1) for _ in range(3)]).astype(np.float32)
    slope = light_slope(*n, light)
    for axis in range(3):
        more, less = n.copy(), n.copy()
        more[axis] += 0.01
        less[axis] -= 0.01
        want = (np.log(light_at(*more, light)) - np.log(light_at(*less, light))) / 0.02
        assert np.abs(slope[..., axis] - want).max() < 0.01


def test_a_point_of_a_picture():
    one = Geometry(np.ones((1, 1), np.float32), np.float32([[[0, 0, 1]]]), relief=0.5)
    got = refine_normals(np.full((5, 7, 3), 90, np.uint8), one, SIDE_LIGHT)
    assert np.isfinite(got.normals).all()


def test_relief_is_the_share_that_the_manifest_says():
    true, flat = bumpy()
    turned = [
        degrees(
            refine_normals(
                photo(true, SIDE_LIGHT), Geometry(np.ones((H, W), np.float32), flat, relief=r), SIDE_LIGHT
            ).normals,
            flat,
        )
        for r in (0.1, 0.3, 1.0)
    ]
    assert 0 < 1.5 * turned[0] < turned[1] < turned[2] / 1.3


def test_no_stain_turns_the_normals_far():
    """Brightness is believed up to a bound.

    Spots of eight times the paint turn no farther than spots of twice as much.
    """
    _, flat = bumpy()
    turned = []
    for times in (2, 8):
        albedo = np.full((H, W, 3), 0.06)
        albedo[8::16, 8::16] *= times
        got = refine_normals(photo(flat, SIDE_LIGHT, albedo), geometry(flat), SIDE_LIGHT).normals
        turned.append(angles(got, flat)[8::16, 8::16].mean())
    assert 1 < turned[1] < 1.15 * turned[0]


def test_in_the_dark_nothing_turns():
    true, flat = bumpy()
    rgb = photo(true, SIDE_LIGHT)
    rgb[:, : W // 2] = np.random.default_rng(0).integers(2, 20, (H, W // 2, 1))
    got = refine_normals(rgb, geometry(flat), SIDE_LIGHT).normals
    assert angles(got, flat)[:, : W // 2 - 4].max() < 1e-3 < angles(got, flat)[:, W // 2 :].mean()
