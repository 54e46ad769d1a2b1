"""albedo.png, shading.png and surface.png: what they say of a photograph, and that nothing is lost between them."""

from dataclasses import replace

import numpy as np
import pytest
from light_scenes import FIT, ball_and_wall, smooth_field

from server.image.srgb import linear_to_srgb, srgb_to_linear
from server.light.maps import prepare_grid
from server.light.passes import BRIGHTEST, albedo_pass, shading_factor, shading_pass, surface_pass
from server.light.shading import prepare
from server.scene.illumination import EVEN_LIGHT, EstimatedLight, light_at

H, W = 96, 128
SIDE_LIGHT = replace(FIT, light=EstimatedLight((1.0, -0.5, 0.2, 0.3), 0.05))


def passes(rgb, geometry, fit):
    """(albedo, shading) in linear light, and the factor."""
    maps = prepare(rgb, geometry, fit)
    factor = shading_factor(maps.shared.light_samples)
    albedo, shading = albedo_pass(maps, factor), shading_pass(maps, factor, threads=2)
    assert albedo.shape == shading.shape == rgb.shape and albedo.dtype == shading.dtype == np.uint8
    return srgb_to_linear(albedo / 255), srgb_to_linear(shading / 255), factor


def with_light(logarithm, mask=None):
    geometry = replace(ball_and_wall(H, W)[0], mask=mask)
    return replace(geometry, shading=np.repeat(logarithm[..., None], 3, 2).astype(np.float32), shading_share=1.0)


PHOTOS = {
    "noise": lambda rng: rng.integers(0, 256, (H, W, 3), dtype=np.uint8),
    "colours": lambda rng: np.stack([np.rint(smooth_field(rng, H, W, 0, 255)) for _ in range(3)], 2).astype(np.uint8),
    "black": lambda rng: np.zeros((H, W, 3), np.uint8),
    "white": lambda rng: np.full((H, W, 3), 255, np.uint8),
}


@pytest.mark.parametrize("photo", PHOTOS)
@pytest.mark.parametrize("span", [0.0, 1.0, 4.0, 9.0])
@pytest.mark.parametrize("masked", [False, True])
def test_albedo_times_shading_times_factor_is_the_photo_within_a_code(photo, span, masked):
    rng = np.random.default_rng(7)
    rgb = PHOTOS[photo](rng)
    mask = smooth_field(rng, H, W, 0, 1).astype(np.float32) if masked else None
    albedo, shading, factor = passes(rgb, with_light(smooth_field(rng, H, W, -span, span), mask), FIT)
    codes = np.rint(255 * linear_to_srgb(np.clip(albedo * shading * factor, 0, 1)))
    assert np.abs(codes - rgb).max() <= 1 and 1 <= factor <= BRIGHTEST


def test_a_gray_scene_has_a_gray_albedo_and_its_light_as_shading():
    geometry, _, _ = ball_and_wall(H, W)
    light = light_at(*np.moveaxis(geometry.normals, 2, 0).astype(np.float32), SIDE_LIGHT.light)
    rgb = np.repeat(np.rint(255 * linear_to_srgb(0.4 * light / light.max()))[..., None], 3, 2).astype(np.uint8)
    albedo, shading, factor = passes(rgb, geometry, SIDE_LIGHT)
    assert np.ptp(light) > 0.5 and albedo.std() / albedo.mean() < 0.03
    relative = shading[..., 0] * factor
    assert abs(relative.mean() - 1) < 0.02
    assert np.abs(relative - light / light.mean())[relative < 0.99 * factor].max() < 0.06


def test_even_light_has_the_photo_as_its_albedo():
    rgb = PHOTOS["colours"](np.random.default_rng(3))
    albedo, shading, factor = passes(rgb, ball_and_wall(H, W)[0], replace(FIT, light=EVEN_LIGHT))
    assert factor == 1 and shading.min() == 1
    assert np.array_equal(np.rint(255 * linear_to_srgb(albedo)), rgb)


def test_what_is_no_surface_keeps_its_colours_and_is_black_in_surface_png():
    rng = np.random.default_rng(5)
    rgb, mask = PHOTOS["colours"](rng), np.ones((H, W), np.float32)
    mask[:40] = 0
    geometry = with_light(smooth_field(rng, H, W, -1, 1), mask)
    albedo, _, _ = passes(rgb, geometry, FIT)
    sky = np.rint(255 * linear_to_srgb(albedo))[:36]
    assert np.abs(sky - rgb[:36]).max() <= 2
    assert np.abs(np.rint(255 * linear_to_srgb(albedo))[44:] - rgb[44:]).max() > 40
    surface = surface_pass(prepare(rgb, geometry, FIT))
    assert surface.shape == (H, W) and surface[:36].max() == 0 and surface[44:].min() == 255
    assert surface_pass(prepare(rgb, replace(geometry, mask=None), FIT)).min() == 255


def test_the_factor_follows_from_the_analysis_alone():
    geometry = with_light(smooth_field(np.random.default_rng(2), H, W, -0.5, 0.5))
    assert 1 < shading_factor(prepare_grid(geometry, FIT).light_samples) < BRIGHTEST


def test_large_pictures_are_made_band_by_band_alike():
    rng = np.random.default_rng(1)
    geometry = with_light(smooth_field(rng, H, W, -1, 1))
    rgb = np.repeat(np.repeat(PHOTOS["colours"](rng), 8, 0), 8, 1)
    maps = prepare(rgb, geometry, FIT)
    assert len(maps.bands(1)) > 3
    one, four = (albedo_pass(maps, 2.0, threads) for threads in (1, 4))
    assert np.array_equal(one, four)
