"""Feathered masks: soft on an even ground, sharp at the picture's edges, the same at every size."""

import cv2
import numpy as np
import pytest
from light_scenes import FIT, ball_and_wall, random_scene
from scipy.special import ndtr

from server.light.lights import Light, Mask, Rig
from server.light.maps import prepare
from server.light.masks import feathered, fits, in_picture, mask_of, masked, scaled
from server.light.passes import deep_pass, layers
from server.light.shading import relight

FEATHERS = (0.004, 0.01, 0.03, 0.1)


def flat(h=150, w=200, value=128):
    return np.full((h, w, 3), value, np.uint8)


def left(h=150, w=200, share=0.5):
    mask = np.zeros((h, w), np.uint8)
    mask[:, : round(w * share)] = 255
    return mask


def made(mask, photo, feather, picture=None):
    """A feathered mask (H, W) of a picture of a photo, 0..255 as floats."""
    return in_picture(feathered(mask, photo, feather), photo if picture is None else picture).astype(float)


@pytest.mark.parametrize("feather", FEATHERS)
def test_on_an_even_ground_the_edge_is_nearly_a_gaussians(feather):
    """In its middle and its width, and it is never more than 6 % off."""
    h, w = 900, 1200
    soft = made(left(h, w), flat(h, w), feather)
    assert np.ptp(soft, axis=0).max() <= 1  # the same in every row
    x, edge = np.arange(1, w) / w - 0.5, -np.diff(soft[h // 2]) / 255
    assert (edge >= 0).all() and edge.sum() == 1
    middle = (edge * x).sum()
    assert abs(middle) * w < 0.5
    assert 0.47 < np.sqrt((edge * (x - middle) ** 2).sum()) / feather < 0.51
    assert np.abs(soft[h // 2] - 255 * ndtr(-((np.arange(w) + 0.5) / w - 0.5) / (feather / 2))).max() < 0.06 * 255
    far = np.abs(x) > 2 * feather
    assert not edge[far].any()


def test_the_more_feather_the_softer():
    steepest = [np.abs(np.diff(made(left(), flat(), f)[70])).max() for f in FEATHERS]
    assert steepest == sorted(steepest, reverse=True) and steepest[0] > 4 * steepest[-1]
    reached = [(made(left(), flat(), f)[70] > 2).sum() for f in FEATHERS]
    assert reached == sorted(reached) and reached[-1] > reached[0] + 10


@pytest.mark.parametrize("feather", FEATHERS)
def test_nothing_crosses_a_strong_edge(feather):
    """The mask ends at an edge of the photo, or a little before it: beyond, there is nothing; before, it fades."""
    h, w = 300, 400
    photo = flat(h, w, 60)
    photo[:, 200:] = (150, 165, 140)
    at_edge = made(left(h, w), photo, feather)
    assert np.abs(at_edge - left(h, w)).max() <= 3
    before = made(left(h, w, 0.47), photo, feather)
    assert before[:, 201:].max() <= 3
    assert np.all(np.diff(before[150]) <= 0) and 90 < before[150, 187:189].mean() < 165
    disc = cv2.circle(np.zeros((h, w), np.uint8), (200, 150), 70, 255, -1)
    photo = np.where(disc[..., None] > 0, np.uint8(190), np.uint8(70)) + flat(h, w, 0)
    wrong = np.abs(made(disc, photo, feather) - disc)  # where the grid's texels lie across, a little
    assert wrong.max() < 50 and wrong.mean() < 0.5


def test_weak_texture_is_no_edge():
    noise = np.random.default_rng(0).normal(0, 3, (300, 400, 3))
    noisy = np.clip(128 + noise, 0, 255).astype(np.uint8)
    assert np.abs(made(left(300, 400), noisy, 0.05) - made(left(300, 400), flat(300, 400), 0.05)).max() < 8


def test_at_a_large_size_a_pixel_goes_with_what_has_its_colour():
    """The grid is 256 texels wide, and the picture's edge lies within one of them."""
    h, w = 600, 1600
    photo = flat(h, w, 60)
    photo[:, 803:] = 180
    soft = made(left(h, w, 803 / w), photo, 0.05)
    assert soft[:, :802].min() >= 250 and soft[:, 804:].max() <= 5


@pytest.mark.parametrize("feather", FEATHERS)
def test_bounds_constants_and_complements(feather):
    rng = np.random.default_rng(1)
    photo, mask = rng.integers(0, 256, (90, 130, 3), np.uint8), rng.integers(0, 256, (90, 130), np.uint8)
    assert np.array_equal(made(np.full_like(mask, 255), photo, feather), np.full(mask.shape, 255.0))
    assert np.array_equal(made(np.zeros_like(mask), photo, feather), np.zeros(mask.shape))
    assert np.abs(made(mask, photo, feather) + made(255 - mask, photo, feather) - 255).max() <= 1
    brighter = np.maximum(mask, rng.integers(0, 256, mask.shape, np.uint8))
    assert (made(brighter, photo, feather) >= made(mask, photo, feather) - 1).all()
    assert made(mask, photo, feather).min() >= mask.min() and made(mask, photo, feather).max() <= mask.max()


def test_previews_show_what_the_picture_has():
    rng = np.random.default_rng(2)
    photo = cv2.resize(rng.integers(0, 256, (6, 8, 3), np.uint8), (800, 600), interpolation=cv2.INTER_CUBIC)
    mask = left(600, 800, 0.4)
    whole = made(mask, photo, 0.03)
    small, shrunk = (cv2.resize(p, (200, 150), interpolation=cv2.INTER_AREA) for p in (photo, whole))
    assert np.abs(made(mask, photo, 0.03, small) - shrunk).mean() < 1


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (2, 3), (257, 301)])
def test_any_size(size):
    photo = np.random.default_rng(3).integers(0, 256, (*size, 3), np.uint8)
    for feather in (*FEATHERS, 5e-324):
        soft = made(np.full(size, 200, np.uint8), photo, feather)
        assert soft.shape == size and np.array_equal(soft, np.full(size, 200.0))


def test_aspect_ratios():
    assert fits((30, 40), (3000, 4000)) and fits((100, 201), (50, 100)) and fits((1, 1), (7, 7))
    assert not fits((100, 203), (50, 100)) and not fits((40, 30), (30, 40)) and not fits((1, 1), (2, 3))


def test_alpha_counts_where_it_hides_something():
    rng = np.random.default_rng(4)
    alpha, colours = rng.integers(0, 255, (5, 6, 1), np.uint8), rng.integers(0, 256, (5, 6, 3), np.uint8)
    assert np.array_equal(mask_of(np.concatenate([colours, alpha], 2)), alpha[..., 0])
    gray = np.repeat(alpha, 3, 2)
    assert np.array_equal(mask_of(np.concatenate([gray, np.full_like(alpha, 255)], 2)), alpha[..., 0])


# -- lit


def lit_scene(rng, rig_masks, size=(48, 64)):
    rgb, geometry, fit = random_scene(rng, *size, True)
    maps = prepare(rgb, geometry, fit)
    planes = {name: rng.integers(0, 256, size, np.uint8) for name in rig_masks}
    return rgb, maps, planes


def through(maps, rig, planes):
    return masked(maps, rig, lambda mask, at: scaled(planes[mask.name], at.size))


def test_bands_and_threads_make_the_same(monkeypatch):
    rng = np.random.default_rng(5)
    _, maps, planes = lit_scene(rng, "ab")
    rig = Rig((Light(direction=(0, 0, 1), mask=Mask("a")),), ambient=0.2, mask=Mask("b", invert=True))
    whole = relight(through(maps, rig, planes), rig)
    monkeypatch.setattr("server.light.maps.KEPT_PIXELS", 0)
    monkeypatch.setattr("server.light.maps.PIXELS_A_THREAD", 64 * 5)
    assert np.array_equal(relight(through(maps, rig, planes), rig, threads=3), whole)


def test_sixteen_bits_are_the_inputs_where_the_mask_is_black():
    rng = np.random.default_rng(6)
    rgb, maps, planes = lit_scene(rng, "m")
    planes["m"][:, :20] = 0
    for rig in (
        Rig((Light(),), mask=Mask("m"), exposure="auto"),
        Rig((Light(color=(1.2, 0.9, 1.1), intensity=90),), mask=Mask("m"), specular_strength=1.0),
    ):
        with_masks = through(maps, rig, planes)
        assert np.array_equal(deep_pass(with_masks, rig)[:, :20], rgb[:, :20].astype(np.uint16) * 257)
        assert np.array_equal(relight(with_masks, rig)[:, :20], rgb[:, :20])


def test_layers_hold_the_masks():
    rng = np.random.default_rng(7)
    _, maps, planes = lit_scene(rng, "ab")
    rig = Rig((Light(mask=Mask("a")), Light(), Light(mask=Mask("b", invert=True))), mask=Mask("a", invert=True))
    of, _ = layers(through(maps, rig, planes), rig)
    made = of(slice(3, 17))
    assert np.array_equal(made["mask00.Y"], (planes["a"][3:17] / 255).astype(np.float32)) and "mask01.Y" not in made
    assert np.allclose(made["mask02.Y"], 1 - planes["b"][3:17] / 255, atol=1e-6)
    assert np.allclose(made["mask.Y"], 1 - planes["a"][3:17] / 255, atol=1e-6)


def test_the_light_of_a_mask_is_the_light_times_the_mask():
    """On the wall behind a ball, in linear light and before the tone curve."""
    geometry, _, _ = ball_and_wall(48, 64)
    maps = prepare(np.full((48, 64, 3), 90, np.uint8), geometry, FIT)
    planes = {"m": np.random.default_rng(8).integers(0, 256, (48, 64), np.uint8)}
    from light_scenes import new_light

    for kind in ("directional", "point", "spot"):
        lamp = Light(kind=kind, direction=(0.3, 0.2, 0.9), position=(0.4, 0.2, 0.8))
        plain = Rig((lamp,), ambient=0.0, specular_strength=0.5)
        rig = Rig((Light(**{**vars(lamp), "mask": Mask("m")}),), ambient=0.0, specular_strength=0.5)
        for whole, part in zip(new_light(maps, plain), new_light(through(maps, rig, planes), rig)):
            assert np.allclose(part, whole * (planes["m"][..., None] / 255), atol=1e-5)
