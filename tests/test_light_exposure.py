"""Auto exposure: the relit picture is as bright as the photograph, whatever its size and the light."""

from dataclasses import replace

import numpy as np
import pytest
from light_scenes import FIT, ball_and_wall, smooth_field
from support import linear

from server.image.resample import shrink_image
from server.light.lights import Light, Rig, hex_color, key_light, unit
from server.light.maps import prepare_grid, prepare_picture, prepare_samples
from server.light.shading import auto_exposure, prepare, relight
from server.scene.illumination import EstimatedLight

SIZE = (450, 600)
WALL = replace(FIT, light=EstimatedLight((1.0, 0.2, 0.1, 0.3), 0.05))
RIGS = {
    "front": Rig(lights=(key_light(0, 0, 1),)),
    "side": Rig(lights=(key_light(-0.9, 0.3, 0.5),)),
    "all delight": Rig(lights=(key_light(-0.6, 0.4, 0.7),), delight=1.0),
    "strong": Rig(lights=(replace(key_light(0.4, 0.4, 0.7), intensity=3.0),)),
    "weak": Rig(lights=(replace(key_light(0.4, 0.4, 0.7), intensity=0.2),)),
    "lamp": Rig(lights=(Light(kind="point", position=(0.5, 0.5, 0.8), range=2.0),)),
    "red and glossy": Rig(
        lights=(replace(key_light(0.2, 0.4, 0.7), color=hex_color("#ff6040")),), specular_strength=1.0
    ),
    "two colours": Rig(
        lights=(
            replace(key_light(1, 0.2, 0.6), color=hex_color("#4080ff")),
            replace(key_light(-1, 0.2, 0.6), color=hex_color("#ffb060")),
        )
    ),
}


@pytest.fixture(scope="module")
def photo():
    """Dark, so that the tone curve hardly bends what becomes brighter, and nowhere black."""
    rng = np.random.default_rng(11)
    picture = np.stack([smooth_field(rng, *SIZE, 35, 90) for _ in range(3)], 2)
    return np.rint(picture + rng.normal(0, 2, (*SIZE, 3))).astype(np.uint8)


def geometry(masked=False):
    h, w = SIZE[0] // 4, SIZE[1] // 4
    made = ball_and_wall(h, w)[0]
    return replace(made, mask=(np.arange(w) < w * 2 // 3).astype(np.float32)[None].repeat(h, 0)) if masked else made


def brightness(picture, surface=...):
    """exp(mean log luminance) of codes (H, W, 3)."""
    return np.exp(np.log(np.maximum(linear(picture) @ [0.2126, 0.7152, 0.0722], 1e-5))[surface].mean())


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", RIGS)
def test_a_relit_picture_is_as_bright_as_the_photograph_at_every_size(photo, name, masked):
    rig, shared = replace(RIGS[name], exposure="auto"), prepare_grid(geometry(masked), WALL)
    samples = prepare_samples(photo, shared)
    for side in (64, 150, 400, max(SIZE)):
        small = shrink_image(photo, side)
        surface = np.s_[:, : small.shape[1] * 2 // 3] if masked else ...
        relit = relight(prepare_picture(small, shared, samples=samples), rig)
        assert brightness(relit, surface) == pytest.approx(brightness(small, surface), rel=0.02), side
        fixed = relight(prepare_picture(small, shared), replace(rig, exposure=0.0))
        assert brightness(fixed, surface) != pytest.approx(brightness(small, surface), rel=0.04), side


def test_all_sizes_of_a_photograph_have_one_exposure(photo):
    shared = prepare_grid(geometry(), WALL)
    samples = prepare_samples(photo, shared)
    for rig in RIGS.values():
        found = {
            auto_exposure(prepare_picture(shrink_image(photo, side), shared, samples=samples), rig)
            for side in (64, 150, max(SIZE))
        }
        assert len(found) == 1 and found == {auto_exposure(prepare(photo, geometry(), WALL), rig)}


def test_auto_is_the_exposure_it_says(photo):
    """To the code, at full strength and at less, where it is the same."""
    maps = prepare(photo, geometry(), WALL)
    for rig in RIGS.values():
        stops = auto_exposure(maps, rig)
        for strength in (1.0, 0.4):
            rig = replace(rig, strength=strength)
            auto, fixed = (relight(maps, replace(rig, exposure=e)) for e in ("auto", stops))
            assert np.array_equal(auto, fixed)


def test_it_is_within_two_stops(photo):
    maps = prepare(photo, geometry(), WALL)
    behind, blinding = Rig(lights=(key_light(0.2, 0, -1),), ambient=0.01), Rig(lights=(Light(intensity=100.0),))
    for rig, most in ((behind, 2.0), (blinding, -2.0), (Rig(ambient=0.0), 2.0)):
        assert auto_exposure(maps, rig) == pytest.approx(most, abs=1e-3)
    assert relight(maps, Rig(ambient=0.0, exposure="auto")).max() == 0  # no light makes no picture


def test_the_intensity_of_the_only_light_does_not_matter(photo):
    maps = prepare(photo, geometry(), WALL)
    for light in (key_light(0.3, 0.2, 1), Light(kind="point", position=(0.2, 0.3, 1.0), range=2.0)):
        rigs = [
            Rig(lights=(replace(light, intensity=i),), ambient=0.0, exposure="auto", specular_strength=0.3)
            for i in (0.7, 1.0, 2.0)
        ]
        assert all(abs(auto_exposure(maps, rig)) < 1.9 for rig in rigs)
        first, *others = (relight(maps, rig).astype(int) for rig in rigs)
        assert all(np.abs(other - first).max() <= 1 for other in others)


@pytest.mark.parametrize("name", ["side", "lamp", "strong"])
def test_a_black_part_counts_as_if_it_were_cut_out(photo, name):
    rig, scene = replace(RIGS[name], delight=0.0), geometry()
    black, cut = photo.copy(), np.ones_like(scene.inverse_depth)
    black[:, : SIZE[1] // 2] = 0
    cut[:, : cut.shape[1] // 2] = 0
    all_of_it, with_black, without = (
        auto_exposure(prepare(rgb, replace(scene, mask=mask), WALL), rig)
        for rgb, mask in ((photo, None), (black, None), (photo, cut))
    )
    assert abs(with_black - without) < 0.01 < 0.03 < abs(all_of_it - without)


@pytest.mark.parametrize("kind", ["black", "no surface"])
def test_where_there_is_nothing_to_measure_nothing_is_changed(photo, kind):
    rgb = np.zeros_like(photo) if kind == "black" else photo
    scene = geometry()
    if kind == "no surface":
        scene = replace(scene, mask=np.zeros_like(scene.inverse_depth))
    maps = prepare(rgb, scene, WALL)
    for rig in RIGS.values():
        assert auto_exposure(maps, rig) == 0


def test_it_is_steady_while_a_light_moves(photo):
    maps = prepare(photo, geometry(), WALL)

    def stops(degrees):
        a = np.radians(degrees)
        return auto_exposure(maps, Rig(lights=(Light(direction=unit((np.cos(a), 0.3, np.sin(a)))),)))

    found = np.array([stops(d) for d in range(181)])
    assert np.ptp(found) > 0.5 and np.abs(np.diff(found)).max() < 0.1
    fine = np.array([stops(40 + d / 20) for d in range(40)])
    assert np.abs(np.diff(fine)).max() < 0.01


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1), (3, 9000), (9000, 3)])
def test_odd_sizes(size):
    rgb = np.full((*size, 3), 60, np.uint8)
    small = ball_and_wall(*(max(1, n * 40 // max(size)) for n in size), radius=1e-3)[0]
    maps = prepare(rgb, small, FIT)
    rig = Rig(lights=(Light(intensity=0.5),), ambient=0.0, exposure="auto")
    assert np.abs(relight(maps, rig).astype(int) - rgb).max() <= 1
    assert max(maps.samples.size) <= 64
