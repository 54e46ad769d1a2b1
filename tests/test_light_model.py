"""What must hold of relit pictures whatever the code looks like."""

import functools
import operator
import warnings
from dataclasses import replace

import cv2
import numpy as np
import pytest
from light_scenes import (
    FIT,
    FOCAL,
    ball_and_wall,
    hills,
    new_light,
    random_light,
    random_rig,
    random_scene,
    smooth_field,
)

from server.image.srgb import srgb_to_linear
from server.light.lights import Light, Rig, key_light, unit
from server.light.maps import prepare_grid, prepare_picture
from server.light.occlusion import ambient_occlusion
from server.light.shading import illuminate, prepare, relight
from server.scene.fit import fit_scene, relative_inverse_depth
from server.scene.geometry import Geometry
from server.scene.illumination import EstimatedLight
from server.scene.passes import depth_pass, normals_pass

LIGHTS = (
    key_light(-0.6, 0.4, 0.7),
    Light(kind="point", position=(0.5, 0.5, 0.8), color=(1.5, 0.9, 0.5)),
    Light(kind="spot", position=(-0.5, 0.6, 1.0), target=(0.1, 0, 0)),
)


@pytest.fixture(scope="module")
def scene():
    return random_scene(np.random.default_rng(7), 96, 128, masked=False)


@pytest.mark.parametrize("seed", range(20))
def test_strength_0_is_the_photograph(seed):
    rng = np.random.default_rng(seed)
    rgb, geometry, fit = random_scene(rng, 33, 47, masked=seed % 2)
    rig = replace(random_rig(rng), lights=(random_light(rng, True),), strength=0.0)
    assert np.array_equal(relight(prepare(rgb, geometry, fit), rig), rgb)


@pytest.mark.parametrize("code", [0, 1, 5, 10, 11, 128, 254, 255])
def test_ratio_1_is_the_identity(code):
    """A facing wall without any shading of its own, relit to irradiance 1."""
    rgb = np.full((20, 30, 3), code, np.uint8)
    maps = prepare(rgb, ball_and_wall(20, 30, radius=1e-3)[0], FIT)
    for rig in (Rig(lights=(key_light(0, 0, 1),), ambient=0.0), Rig(lights=(), ambient=1.0)):
        assert np.array_equal(relight(maps, rig), rgb)


def test_outside_the_mask_nothing_changes(scene):
    rgb, geometry, fit = scene
    mask = np.zeros(rgb.shape[:2], np.float32)
    mask[:, :60] = 1
    out = relight(prepare(rgb, replace(geometry, mask=mask), fit), Rig(lights=LIGHTS))
    assert np.array_equal(out[:, 66:], rgb[:, 66:])
    assert np.abs(out[:, :60].astype(int) - rgb[:, :60]).mean() > 5


def test_the_edge_of_the_mask_is_soft():
    """From a coarse mask to a large picture without a contrast of its own, the change does not stop at one pixel."""
    rgb = np.full((120, 160, 3), 100, np.uint8)
    mask = np.zeros((30, 40), np.float32)
    mask[:, :20] = 1
    geometry = Geometry(np.ones((30, 40), np.float32), np.tile(np.float32([0, 0, 1]), (30, 40, 1)), mask)
    row = relight(prepare(rgb, geometry, FIT), Rig(lights=(), ambient=0.2))[60, :, 0].astype(int)
    assert row[0] < 60 and row[-1] == 100
    assert np.unique(row).size >= 4 and (np.diff(row) >= 0).all()


@pytest.mark.parametrize("shadow", [False, True])
@pytest.mark.parametrize("light", LIGHTS, ids=lambda x: x.kind)
def test_mirror(scene, light, shadow):
    rgb, geometry, fit = scene
    light = replace(light, shadow=shadow)
    fit = replace(fit, light=EstimatedLight((1.0, 0.2, 0.1, 0.3), 0.05))
    other = replace(fit, light=EstimatedLight((1.0, -0.2, 0.1, 0.3), 0.05))
    flip = lambda v: (-v[0], v[1], v[2])  # noqa: E731
    there = replace(light, direction=flip(light.direction), position=flip(light.position), target=flip(light.target))
    turned = Geometry(
        geometry.inverse_depth[:, ::-1].copy(), geometry.normals[:, ::-1] * np.float32([-1, 1, 1]), None, geometry.focal
    )
    a = relight(prepare(rgb, geometry, fit), Rig(lights=(light,)))
    b = relight(prepare(rgb[:, ::-1].copy(), turned, other), Rig(lights=(there,)))[:, ::-1]
    off = np.abs(a.astype(int) - b).max(2)
    if shadow:  # the pattern of the rays is not mirrored with the picture
        assert off.mean() < 1
    else:
        assert (off <= 1).mean() > 0.999


@pytest.mark.parametrize("light", LIGHTS, ids=lambda x: x.kind)
def test_turning_scene_and_light_by_90_degrees_turns_the_picture(light):
    rng = np.random.default_rng(3)
    rgb, geometry, fit = random_scene(rng, 80, 80, masked=True)
    fit = replace(fit, light=EstimatedLight((1.0, 0.2, 0.1, 0.3), 0.05))
    other = replace(fit, light=EstimatedLight((1.0, -0.1, 0.2, 0.3), 0.05))
    turn = lambda v: (-v[1], v[0], v[2])  # noqa: E731  counter-clockwise, as np.rot90 turns pictures
    light = replace(light, shadow=False)
    there = replace(light, direction=turn(light.direction), position=turn(light.position), target=turn(light.target))
    n = np.rot90(geometry.normals)
    turned = Geometry(
        np.rot90(geometry.inverse_depth).copy(),
        np.stack([-n[..., 1], n[..., 0], n[..., 2]], 2),
        np.rot90(geometry.mask).copy(),
        geometry.focal,
    )
    rig = Rig(lights=(light,), specular_strength=0.5)
    a = np.rot90(relight(prepare(rgb, geometry, fit), rig))
    b = relight(prepare(np.rot90(rgb).copy(), turned, other), replace(rig, lights=(there,)))
    off = np.abs(a.astype(int) - b).max(2)
    assert (off <= 1).mean() > 0.995 and off.mean() < 0.2


def test_lights_add_up_before_the_tone(scene):
    maps = prepare(*scene)
    rig = Rig(ambient=0.0, specular_strength=0.7)
    together = new_light(maps, replace(rig, lights=LIGHTS))
    alone = [new_light(maps, replace(rig, lights=(light,))) for light in LIGHTS]
    for k in range(2):
        assert np.allclose(together[k], sum(a[k] for a in alone), atol=1e-5)


def test_twice_the_intensity_is_twice_the_light(scene):
    maps = prepare(*scene)
    for light in LIGHTS:
        one, two = (new_light(maps, Rig(lights=(replace(light, intensity=i),), ambient=0.0))[0] for i in (1.5, 3.0))
        assert one.max() > 0.05 and np.allclose(two, 2 * one, rtol=1e-5, atol=1e-6)


def test_twice_the_intensity_doubles_linear_light_in_the_dark():
    """Through every curve: a dark picture has room, so that the shoulder does not bend."""
    rgb = np.full((16, 16, 3), 40, np.uint8)
    maps = prepare(rgb, ball_and_wall(16, 16, radius=1e-3)[0], FIT)
    got = [
        srgb_to_linear(relight(maps, Rig(lights=(replace(key_light(0, 0, 1), intensity=i),), ambient=0.0)) / 255).mean()
        for i in (1, 2)
    ]
    assert got[1] / got[0] == pytest.approx(2, rel=0.03)


@pytest.mark.parametrize("distance", [0.25, 0.5, 1.0, 2.0])
def test_falloff(distance):
    """A lamp before the middle of a wall: 1 / (1 + (d / r)^2)."""
    maps = prepare(
        np.full((101, 101, 3), 90, np.uint8), ball_and_wall(101, 101, radius=1e-3, centre=(0.9, 0.9, 0))[0], FIT
    )
    for reach in (0.5, 1.0):
        lamp = Light(kind="point", position=(0, 0, distance), range=reach, shadow=False)
        assert new_light(maps, Rig(lights=(lamp,), ambient=0.0))[0][50, 50, 0] == pytest.approx(
            1 / (1 + (distance / reach) ** 2), rel=2e-3
        )


def test_a_spot_lights_its_cone_only():
    maps = prepare(
        np.full((101, 101, 3), 90, np.uint8), ball_and_wall(101, 101, radius=1e-3, centre=(0.9, 0.9, 0))[0], FIT
    )
    lamp = Light(kind="spot", position=(0, 0, 1), target=(0, 0, 0), cone=60, blend=0.5, shadow=False)
    row = new_light(maps, Rig(lights=(lamp,), ambient=0.0))[0][50, :, 0]
    x = (np.arange(101) + 0.5) / 101 * 2 - 1
    degrees = np.degrees(np.arctan(np.abs(x)))
    assert (row[degrees > 30.5] == 0).all() and (row[degrees < 29] > 0).all()
    bare = new_light(maps, Rig(lights=(replace(lamp, kind="point"),), ambient=0.0))[0][50, :, 0]
    inside = degrees < 14.5
    assert np.allclose(row[inside], bare[inside], rtol=1e-4)


def test_axes():
    """On a ball: light from +x brightens its right, +y its top, +z its middle."""
    geometry, _, on_ball = ball_and_wall(80, 80, radius=0.5)
    maps = prepare(np.full((80, 80, 3), 100, np.uint8), geometry, FIT)
    rows, columns = np.nonzero(on_ball)
    for axis, wanted in ((0, columns - columns.mean()), (1, rows.mean() - rows)):
        d = [0.0, 0.0, 0.1]
        d[axis] = 1.0
        picture = relight(maps, Rig(lights=(replace(key_light(*d), shadow=False),), ambient=0.05))[on_ball][:, 0]
        assert np.corrcoef(picture, wanted)[0, 1] > 0.8
    frontal = relight(maps, Rig(lights=(key_light(0, 0, 1),), ambient=0.05))[40, :, 0]
    assert frontal[columns.min() + 1] < frontal[(40 + columns.min()) // 2] < frontal[40]


@pytest.mark.parametrize("normal", [(0, 0), (0.4, 0.3), (-0.6, 0.2)])
def test_a_plane_is_open_to_the_sky(normal):
    """Occlusion is 1 on a plane, however it lies."""
    v, u = np.meshgrid((60 - np.arange(120) - 0.5) / 160, (np.arange(160) + 0.5) / 160 - 0.5, indexing="ij")
    q = (1 + normal[0] * u + normal[1] * v).astype(np.float32)
    assert ambient_occlusion(q, 0.9).min() > 0.995


def test_a_corner_is_less_open_than_its_walls():
    q = np.repeat((1 + np.abs(np.linspace(-0.5, 0.5, 120)))[None].astype(np.float32), 90, 0)
    ao = ambient_occlusion(q, 0.9)
    assert ao[:, 58:62].mean() < ao[:, 20:30].mean() - 0.05


def test_shadow_strength_0_is_no_shadow():
    geometry, _, _ = ball_and_wall(90, 120)
    maps = prepare(np.full((90, 120, 3), 120, np.uint8), geometry, FIT)
    light = key_light(-0.7, 0.2, 0.5)
    lit = [
        relight(maps, Rig(lights=(replace(light, shadow=s),), shadow_strength=k))
        for s, k in ((True, 0.0), (False, 0.8), (True, 0.8))
    ]
    assert np.array_equal(lit[0], lit[1])
    assert lit[2].mean() < lit[0].mean() - 1


def test_a_preview_is_the_full_picture_made_small():
    rng = np.random.default_rng(5)
    geometry, _, _ = ball_and_wall(192, 256)
    rgb = np.stack([smooth_field(rng, 768, 1024, 20, 220) for _ in range(3)], 2).astype(np.uint8)
    small = cv2.resize(rgb, (512, 384), interpolation=cv2.INTER_AREA)
    fit = fit_scene(rgb, geometry)
    for rig in (Rig(lights=(key_light(-0.6, 0.4, 0.7),)), Rig(lights=LIGHTS, delight=1.0, specular_strength=0.5)):
        full = relight(prepare(rgb, geometry, fit), rig)
        preview = relight(prepare(small, geometry, fit), rig)
        off = np.abs(cv2.resize(full, (512, 384), interpolation=cv2.INTER_AREA).astype(int) - preview)
        assert off.mean() <= 2


@pytest.mark.parametrize("focal", [None, 0.5])
@pytest.mark.parametrize(
    "kind",
    [
        "constant depth",
        "tiny depth range",
        "black",
        "white",
        "one pixel wide",
        "one pixel high",
        "one pixel",
        "no surface",
    ],
)
def test_odd_pictures_stay_finite_without_a_warning(kind, focal):
    rng = np.random.default_rng(0)
    h, w = {"one pixel wide": (40, 1), "one pixel high": (1, 40), "one pixel": (1, 1)}.get(kind, (36, 48))
    rgb = rng.integers(0, 256, (h, w, 3), dtype=np.uint8)
    if kind in ("black", "white"):
        rgb[:] = 255 * (kind == "white")
    depth = rng.random((h, w)).astype(np.float32)
    if "depth" in kind:
        depth[:] = 1
        depth[0, 0] += 1e-7 * ("tiny" in kind)
    mask = np.zeros((h, w), np.float32) if kind == "no surface" else None
    lights = (
        *LIGHTS,
        key_light(0, 0, 1),
        key_light(0, 0, -1),
        key_light(1, 0, 0),
        key_light(0, 1, 0),
        Light(kind="point", position=(0, 0, 0)),
        Light(kind="point", position=(0, 0, 2 * (focal or 0.96)), radius=10),
        Light(angle=90, direction=unit((1, 1, 0))),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for normals in (None, np.tile(np.float32([0, 0, 1]), (h, w, 1))):
            geometry = Geometry(depth, normals, mask, focal)
            maps = prepare(rgb, geometry, fit_scene(rgb, geometry))
            for light in lights:
                out = relight(maps, Rig(lights=(light,), specular_strength=0.5, roughness=0.05, exposure="auto"))
                assert out.shape == (h, w, 3) and out.dtype == np.uint8
            for plane in functools.reduce(
                operator.iadd,
                illuminate(maps, Rig(lights=lights, specular_strength=1.0, roughness=0.05), slice(0, h)),
                [],
            ):
                assert np.isfinite(plane).all()
            if kind == "black":
                assert relight(maps, Rig(lights=(key_light(0, 0, 1),))).max() == 0


def test_nothing_is_blown_out():
    """However strong the light, no gray overtakes a lighter one, and under an ordinary one what was not white stays
    below white.
    """
    ramp = np.repeat(np.arange(0, 256, dtype=np.uint8)[None, :, None], 3, 2).repeat(4, 0)
    maps = prepare(ramp, ball_and_wall(4, 256, radius=1e-3)[0], FIT)
    for intensity, white in ((1.0, 240), (3.0, 128), (100.0, 1)):
        row = relight(maps, Rig(lights=(replace(key_light(0, 0, 1), intensity=intensity),)))[2, :, 0].astype(int)
        assert (np.diff(row) >= 0).all() and (row[:white] < 255).all(), intensity


def gray_wall(codes, ratio, color=(1.0, 1.0, 1.0)):
    """A facing wall of these codes, one column each, under `ratio` times the light it was taken in: (n, 3) codes."""
    codes = np.array(codes, np.uint8)
    rgb = np.repeat(np.broadcast_to(codes[None, :, None] if codes.ndim == 1 else codes, (9, len(codes), 3)), 9, 1)
    maps = prepare(np.ascontiguousarray(rgb), ball_and_wall(*rgb.shape[:2], radius=1e-3)[0], FIT)
    light = replace(key_light(0, 0, 1, shadow=False), intensity=ratio, color=color)
    return relight(maps, Rig(lights=(light,), ambient=0.0, exposure=0.0))[4, 4::9].astype(int)


@pytest.mark.parametrize("color", [(1.0, 1.0, 1.0), (1.3, 0.95, 0.6)], ids=["white", "warm"])
def test_what_was_blown_out_does_not_turn_gray(color):
    """Half the light: a gray of 180 loses what it must, white loses far less; without light both are black."""
    gray, white = (srgb_to_linear(c / 255) for c in gray_wall([180, 255], 0.5, color))
    assert np.allclose(gray, srgb_to_linear(180 / 255) * 0.5 * np.array(color), atol=0.01)
    assert (white > 1.3 * 0.5 * np.array(color)).all() and (white < 0.97).all()
    assert (gray_wall([180, 255], 0.0, color) == 0).all()


def test_one_channel_at_255_leaves_the_hue():
    """A red flower: its one clipped channel says less than three would, and the colour stays its own."""
    half = srgb_to_linear(gray_wall([[255, 40, 90], [255, 255, 255]], 0.5) / 255)
    flower = srgb_to_linear(np.array([255, 40, 90]) / 255)
    assert 0.5 < half[0, 0] < half[1, 0]
    assert np.allclose(half[0] / half[0, 0], flower / flower[0], atol=0.01)


def test_near_white_the_order_of_tones_stays():
    for ratio in (0.1, 0.5, 0.9, 1.0, 1.3):
        tones = gray_wall(np.arange(256), ratio)[:, 1]
        assert (np.diff(tones) >= 0).all() and np.diff(tones).max() <= 8
        darker = gray_wall(np.arange(256), ratio * 0.9)[:, 1]
        assert (darker <= tones).all()


def test_float32_throughout(scene):
    rgb, geometry, fit = scene
    maps = prepare(rgb, geometry, fit)
    for rig in (Rig(lights=LIGHTS, specular_strength=0.5), Rig(lights=LIGHTS[:1])):
        for plane in functools.reduce(operator.iadd, illuminate(maps, rig, slice(0, 96)), []):
            assert plane.dtype == np.float32
    assert maps.shared.visibility(LIGHTS[0]).dtype == np.float32
    band = maps.band(slice(0, 96))
    assert {c.dtype for c in band.codes} == {np.dtype(np.uint8)}
    assert {p.dtype for p in (band.normals, band.log_light, band.occlusion, maps.depth(slice(0, 96)))} == {
        np.dtype(np.float32)
    }


def test_moving_one_light_marches_that_light_only(scene, monkeypatch):
    maps = prepare(*scene)
    marched = []
    march = maps.shared.grid.visibility
    monkeypatch.setattr(maps.shared.grid, "visibility", lambda light: marched.append(light) or march(light))
    lights = [key_light(1, 0.1 * k, 1) for k in range(4)]
    relight(maps, Rig(lights=tuple(lights)))
    assert marched == lights
    moved = replace(lights[2], direction=unit((0, 1, 1)), intensity=3.0)
    relight(maps, Rig(lights=(lights[0], lights[1], moved, replace(lights[3], color=(2.0, 0.5, 0.5)))))
    assert marched == [*lights, moved]


def test_memory_held_is_bounded(scene):
    maps = prepare(*scene)
    for k in range(100):
        relight(maps, Rig(lights=(key_light(1, k / 10, 1),)))
        if k == 40:
            held = maps.nbytes, maps.shared.nbytes
    assert (maps.nbytes, maps.shared.nbytes) == held


def test_pictures_of_all_sizes_share_their_shadows(monkeypatch):
    geometry, _, _ = ball_and_wall(90, 120)
    shared = prepare_grid(geometry, FIT)
    marched = []
    march = shared.grid.visibility
    monkeypatch.setattr(shared.grid, "visibility", lambda light: marched.append(light) or march(light))
    for times in (1, 2):
        relight(prepare_picture(np.full((90 * times, 120 * times, 3), 120, np.uint8), shared), Rig(lights=LIGHTS))
    assert marched == list(LIGHTS)


def test_a_shadow_takes_as_much_of_the_highlight_as_of_the_light():
    maps = prepare(np.full((90, 120, 3), 120, np.uint8), ball_and_wall(90, 120)[0], FIT)
    light = key_light(-0.7, 0.2, 0.5)
    rig = Rig(lights=(light,), ambient=0.0, shadow_strength=1.0, specular_strength=1.0, roughness=0.8)
    lit, shine = new_light(maps, rig)
    bare, gloss = new_light(maps, replace(rig, lights=(replace(light, shadow=False),)))
    assert (lit < 0.1 * bare).mean() > 0.02
    assert np.allclose(shine * bare, gloss * lit, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("times", [1, 2])
def test_a_picture_is_the_same_in_bands_of_any_height(times, monkeypatch):
    rng = np.random.default_rng(4)
    _, geometry, fit = random_scene(rng, 60, 80, masked=True)
    rgb = rng.integers(0, 256, (60 * times, 80 * times, 3), dtype=np.uint8)
    rig = Rig(lights=LIGHTS, specular_strength=0.5)
    whole = relight(prepare(rgb, geometry, fit), rig).astype(int)
    for rows in (1, 7, 60 * times - 1):
        monkeypatch.setattr("server.light.maps.PIXELS", rows * 80 * times)
        assert np.abs(relight(prepare(rgb, geometry, fit), rig) - whole).max() <= 1


def test_a_picture_too_large_to_keep_is_lit_the_same(monkeypatch):
    rgb, geometry, fit = random_scene(np.random.default_rng(9), 60, 80, masked=True)
    rgb = rgb.repeat(3, 0).repeat(3, 1)
    rig = Rig(lights=LIGHTS, specular_strength=0.5)
    kept = prepare(rgb, geometry, fit)
    before = kept.nbytes
    whole = relight(kept, rig)
    assert kept.nbytes > before + 30 * rgb.shape[0] * rgb.shape[1]
    monkeypatch.setattr("server.light.maps.KEPT_PIXELS", 0)
    monkeypatch.setattr("server.light.maps.PIXELS_A_THREAD", 1000)
    other = prepare(rgb, geometry, fit, threads=3)
    before = other.nbytes
    for threads in (1, 3):
        assert np.abs(relight(other, rig, threads).astype(int) - whole).max() <= 1
    assert other.nbytes == before


@pytest.mark.parametrize("scale,shift", [(250.0, -40.0), (0.04, 0.7)])
def test_the_pass_of_normals_from_depth_is_blind_to_its_scale_and_shift(scale, shift):
    q, _ = hills(72, 96)
    plain, other = (
        normals_pass(Geometry(d, None, None, FOCAL), (72, 96)).astype(int)
        for d in (q, q * np.float32(scale) + np.float32(shift))
    )
    assert np.abs(plain - other).max() <= 2 and np.ptp(plain[..., 0]) > 50


def test_passes_of_a_tall_picture_are_whole(monkeypatch):
    """Nothing shows of the bands they are made in.

    A slope's depth grows from row to row, and its normals are all one.
    """
    q = np.linspace(1, 2, 40, dtype=np.float32)[:, None].repeat(4, 1)
    monkeypatch.setattr("server.scene.passes.PIXELS", 1000)
    geometry = Geometry(q, np.tile(np.float32([0, 0.6, 0.8]), (40, 4, 1)))
    normals, depth = (make(geometry, (1100, 8), threads=2) for make in (normals_pass, depth_pass))
    assert (np.diff(depth[:, 3].astype(int)) >= 0).all() and depth[0, 0] == 0 and depth[-1, 0] == 65535
    assert (normals == normals[0, 0]).all()


def test_no_depth_lies_behind_the_horizon():
    fit = replace(FIT, scale=1.0, shift=-0.7)
    q, normals = hills(36, 48)
    assert relative_inverse_depth(np.float32([-5, 0, 0.7]), fit).min() > 0
    maps = prepare(np.full((36, 48, 3), 90, np.uint8), Geometry(q, normals, None, FOCAL), fit)
    q = maps.depth(slice(0, 36))
    assert np.isfinite(q).all() and q.min() > 0


def test_edges_follow_the_colours_of_a_large_picture():
    """Where the picture is finer than the network's grid, its colours tell to the pixel where a surface ends."""
    times, edge = 8, 20 * 8 + 3
    rgb = np.tile(np.uint8([200, 150, 120]), (30 * times, 40 * times, 1))
    rgb[:, edge:] = (90, 120, 220)
    mask = np.zeros((30, 40), np.float32)
    mask[:, :20] = 1
    maps = prepare(
        rgb,
        Geometry(np.where(mask > 0, 1, 0.5).astype(np.float32), np.tile(np.float32([0, 0, 1]), (30, 40, 1)), mask),
        FIT,
    )
    inside = slice(40, 30 * times - 40)
    share, q = maps.band(inside).share, maps.depth(inside)
    assert share[:, :edge].min() > 0.95 and share[:, edge:].max() < 0.05
    assert q[:, :edge].min() > 0.95 and q[:, edge:].max() < 0.55


def test_a_picture_wider_than_a_band_is_relit():
    """Panoramas may be wider than the pixels of one band."""
    rgb = np.full((2, 70_000, 3), 90, np.uint8)
    geometry = Geometry(np.ones((1, 64), np.float32), np.tile(np.float32([0, 0, 1]), (1, 64, 1)))
    assert np.array_equal(relight(prepare(rgb, geometry, FIT), Rig(lights=(key_light(0, 0, 1),), ambient=0.0)), rgb)
