"""The fast engine against the plain float64 one."""

import cv2
import numpy as np
import pytest
import reference
from light_scenes import FIT, ball_and_wall, random_light, random_rig, random_scene

from server.image.resample import Resampler
from server.light.lights import Light, Rig, unit
from server.light.maps import COARSE
from server.light.shading import prepare, relight
from server.light.shadows import ShadowGrid
from server.light.upsampling import without_blends
from server.scene.fit import relative_inverse_depth, snap_depth_edges, surface_share


@pytest.mark.parametrize("seed", range(300))
def test_within_one_code_of_the_oracle(seed):
    rng = np.random.default_rng(seed)
    rgb, geometry, fit = random_scene(rng, 40, 56, masked=seed % 2)
    rig = random_rig(rng)
    maps = prepare(rgb, geometry, fit)
    fast = relight(maps, rig).astype(int)
    q = snap_depth_edges(relative_inverse_depth(geometry.inverse_depth, fit))
    sides = [*np.moveaxis(geometry.normals, 2, 0)] + ([] if geometry.mask is None else [surface_share(geometry.mask)])
    sides = without_blends(np.stack(sides), q)
    slow = reference.relight(
        rgb,
        q,
        np.moveaxis(sides[:3], 0, 2),
        sides[3] if len(sides) > 3 else None,
        maps.band(slice(0, 40)).occlusion,
        fit.light,
        fit.focal,
        rig,
    ).astype(int)
    off = np.abs(fast - slow).max(2)
    assert (off <= 1).mean() >= 0.999, (rig, off.max(), (off > 1).mean())


def test_threads_change_nothing():
    rng = np.random.default_rng(1)
    rgb, geometry, fit = random_scene(rng, 400, 560, masked=True)
    maps, rig = prepare(rgb, geometry, fit), Rig(lights=(random_light(rng, True), random_light(rng, True)))
    assert np.array_equal(relight(maps, rig, threads=1), relight(maps, rig, threads=4))


LAMPS = {
    "side": Light(direction=unit((-0.8, 0.3, 0.6)), angle=1.0),
    "soft": Light(direction=unit((0.5, 0.7, 0.5)), angle=25.0),
    "near": Light(kind="point", position=(0.8, 0.4, 0.9), radius=0.02),
}


@pytest.mark.parametrize("name", LAMPS)
def test_coarse_shadows_near_full_resolution_ones(name):
    """Mean difference of the visibility at most 0.02; every edge within one texel of the coarse grid."""
    full, times = ((144, 192) if name == "soft" else (192, 256)), 2
    light = LAMPS[name]
    geometry, _, on_ball = ball_and_wall(*full)
    fine = geometry.inverse_depth
    coarse = ball_and_wall(full[0] // times, full[1] // times)[0].inverse_depth
    exact = reference.visibility(light, fine, FIT.focal, points=range(0, 16, 2) if name == "soft" else (0, 9))
    seen = ShadowGrid(coarse, FIT.focal).visibility(light)
    sampler = Resampler(coarse.shape, full)
    seen = sampler.rows(sampler.widen(seen), slice(0, full[0]))
    assert np.abs(seen - exact).mean() <= 0.02
    if name != "soft":
        outline = (
            np.abs(on_ball - cv2.blur(on_ball.astype(np.float32), (4 * times + 1,) * 2)) > 0
        )  # there the picture's depth decides
        assert_edges_near(
            seen > 0.5, without_hairs(exact > 0.5, times), times + 1, ~outline
        )  # a texel, and half a pixel on either side


def without_hairs(flags, width):
    """Lines thinner than `width` + 1 pixels taken out, light ones and dark ones: the coarse grid cannot hold them."""
    kernel = np.ones((width + 1, width + 1), np.uint8)
    opened = cv2.morphologyEx(flags.astype(np.uint8), cv2.MORPH_CLOSE, kernel)
    return cv2.morphologyEx(opened, cv2.MORPH_OPEN, kernel) > 0


def assert_edges_near(a, b, reach, among):
    """Where a and b differ, both change within `reach` pixels."""
    kernel = np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)
    for x, y in ((a, b), (b, a)):
        assert not (cv2.erode(x.astype(np.uint8), kernel).astype(bool) & ~y & among).any()


def test_the_grid_of_shadows_is_the_one_measured():
    assert COARSE <= 256  # the pictures of the oracle test are not larger, so that nothing is resampled in them
