"""The light that a photograph was taken in, as an environment: on scenes whose light is known."""

import numpy as np
import pytest
from fakes import sphere

from server.image.srgb import linear_to_srgb
from server.light import environment as env
from server.light.lights import Environment, Rig, blackbody
from server.light.maps import mean_of_light
from server.light.shading import illuminate, prepare, relight
from server.light.transfer import colour_of_light, own_light, seen_in
from server.scene.fit import fit_scene

H, W = 90, 120


def photograph(direction=(0, 0, 1), ambient=0.15, colour=(1, 1, 1), albedo=0.5):
    """A sphere before a wall, (H, W, 3) uint8, in one light."""
    n = sphere(H, W).normals
    light = ambient + (1 - ambient) * np.maximum(n @ (np.array(direction) / np.linalg.norm(direction)), 0)
    seen = np.clip(albedo * light[..., None] * np.array(colour), 0, 1)
    return np.rint(255 * linear_to_srgb(seen)).astype(np.uint8)


def prepared(rgb, mask=False):
    geometry = sphere(H, W, mask)
    return prepare(rgb, geometry, fit_scene(rgb, geometry))


def arriving(maps, radiance):
    """(H, W) of what an environment without colour gives to the photograph's surfaces, before occlusion."""
    whole = slice(0, H)
    rig = Rig(ambient=0, environment=Environment(env.pack(radiance)))
    return illuminate(maps, rig, whole)[0][0] / np.maximum(maps.band(whole).occlusion, 1e-3)


@pytest.mark.parametrize("direction", [(-1, 0.2, 0.7), (0.8, 0.8, 0.4), (0, -1, 1), (0, 0, 1)])
def test_it_gives_its_own_photograph_the_light_that_was_fitted(direction):
    maps = prepared(photograph(direction))
    found = arriving(maps, own_light(maps.shared))
    fitted = np.exp(maps.band(slice(0, H)).log_light)
    assert abs(found.mean() - 1) < 0.05  # the mean over its surfaces
    assert np.abs(found / found.mean() - fitted / fitted.mean()).mean() < 0.12
    flat = np.abs(fitted / fitted.mean() - 1).mean()
    assert np.abs(found / found.mean() - fitted / fitted.mean()).mean() < 0.5 * flat or flat < 0.1


def test_light_from_the_left_comes_from_the_left():
    directions = env.texel_directions() * env.solid_angles()[..., None]
    for x in (-1, 1):
        maps = prepared(photograph((x, 0, 0.7)))
        toward = (own_light(maps.shared)[..., :1] * directions).sum((0, 1))
        assert np.sign(toward[0]) == x and abs(toward[0]) > 2 * abs(toward[1])


def test_even_light_is_found_even():
    maps = prepared(photograph(ambient=1.0))
    radiance = own_light(maps.shared)
    assert np.abs(radiance - 1).max() < 0.05


def test_the_mean_over_the_surfaces_is_1_whatever_the_photograph():
    noise = np.random.default_rng(0).integers(0, 256, (H, W, 3), dtype=np.uint8)
    for rgb in (noise, photograph((1, 1, 1)), np.zeros((H, W, 3), np.uint8)):
        for mask in (False, True):
            maps = prepared(rgb, mask)
            radiance = own_light(maps.shared)
            assert np.isfinite(radiance).all() and radiance.min() >= 0
            surface = sphere(H, W, mask).mask > 0.5 if mask else np.ones((H, W), bool)
            assert abs(arriving(maps, radiance)[surface].mean() - 1) < 0.1


def test_a_photograph_in_its_own_light_stays_as_it_is():
    rgb = photograph((-0.6, 0.3, 1), colour=blackbody(3500))
    maps, here = prepared(rgb), colour_of_light(rgb, sphere(H, W))
    radiance = seen_in(own_light(maps.shared), here, here, 1.0)
    made = relight(maps, Rig(ambient=0, delight=1, environment=Environment(env.pack(radiance)), shadow_strength=0))
    shares = [p.astype(float).mean((0, 1)) / p.mean() for p in (made, rgb)]
    assert np.abs(shares[0] - shares[1]).max() < 0.02 and np.abs(made.astype(int) - rgb).mean() < 12
    assert mean_of_light(maps.shared.light_samples, 1) > 0


@pytest.mark.parametrize("kelvin", [2500, 4000, 6500, 12000])
def test_the_colour_of_a_gray_scene_is_that_of_its_light_in_part(kelvin):
    true = np.array(blackbody(kelvin))
    rgb = photograph((0.3, 0.2, 1), colour=true / true.max())
    found = np.array(colour_of_light(rgb, sphere(H, W)))
    off = np.log(found / found[1]), np.log(true / true[1])
    assert (np.abs(off[0]) <= np.abs(off[1]) + 0.03).all()
    assert np.abs(off[0] - off[1]).max() < 0.5 * np.abs(off[1]).max() + 0.03


def test_no_green_light_and_none_of_what_is_black_or_clipped():
    green = colour_of_light(photograph(colour=(0.3, 1, 0.3)), sphere(H, W))
    assert max(green) < 1.2 * min(green)
    for code in (0, 255):
        assert np.allclose(colour_of_light(np.full((H, W, 3), code, np.uint8), sphere(H, W)), 1, atol=1e-4)
