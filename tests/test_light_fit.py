"""What is found out about a photograph: its scale in depth, and the light it was taken in."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from light_scenes import FIT, FOCAL, angles, ball_and_wall, hills, smooth_field

from server.image.srgb import linear_to_srgb, srgb_to_linear
from server.jobs.record import Record
from server.light.lights import unit
from server.light.shading import prepare
from server.light.upsampling import without_blends
from server.scene.fit import fit_scene, relative_inverse_depth
from server.scene.geometry import Geometry
from server.scene.illumination import EstimatedLight, estimate_light, light_at, light_slope
from server.scene.normals import normals_from_inverse_depth
from server.scene.passes import depth_pass, depth_range, encode_normals, normals_pass


@pytest.mark.parametrize("scale,shift", [(1, 0), (250.0, -40.0), (0.004, 7.0), (3.0, 0.5)])
def test_scale_and_shift_of_the_depth_do_not_matter(scale, shift):
    """Any affine inverse depth gives back the scene its normals speak of, with z = 0 at the median surface."""
    q, normals = hills()
    fit = fit_scene(
        np.full((*q.shape, 3), 128, np.uint8), Geometry(q * np.float32(scale) + np.float32(shift), normals, None, FOCAL)
    )
    got = relative_inverse_depth(q * np.float32(scale) + np.float32(shift), fit)
    assert np.median(got) == pytest.approx(1, abs=0.01)
    assert np.abs(got - q / np.median(q)).max() < 0.03
    assert fit.depth_angle < 2
    record = Record(job_id="a", width=1, height=1, key="ab", fit=fit)
    assert Record.model_validate_json(record.dump()).fit == fit  # to the last bit, as job.json keeps it


def test_normals_of_a_ball_and_its_wall():
    geometry, _, on_ball = ball_and_wall(240, 320, radius=0.5)
    got = normals_from_inverse_depth(geometry.inverse_depth * 37, FOCAL)
    off = angles(got, geometry.normals)
    assert np.median(off[on_ball]) < 1.5 and off[~on_ball].max() < 90
    assert (off[~on_ball] < 0.1).mean() > 0.98  # no fringe along the silhouette
    assert np.allclose(np.linalg.norm(got, axis=-1), 1, atol=1e-5) and got.dtype == np.float32


def test_normals_blended_across_a_silhouette_are_those_of_the_wall_again():
    """A network's normals pass over from the ball's to the wall's in front of the wall; the ball keeps its own."""
    geometry, _, on_ball = ball_and_wall(96, 128, (0, 0, 0.6), 0.35)
    planes = np.moveaxis(geometry.normals, 2, 0).copy()
    band = (cv2.dilate(on_ball.astype(np.uint8), np.ones((7, 7), np.uint8)) > 0) & ~on_ball
    planes[:, band] = [[0.8], [0.0], [0.6]]
    got = without_blends(planes, geometry.inverse_depth)
    assert band.sum() > 200
    assert (np.abs(got - [[[0]], [[0]], [[1]]]).max(0)[~on_ball] < 1e-5).all()
    assert (got[:, on_ball] == planes[:, on_ball]).all()


def test_a_slope_has_no_silhouette():
    q, normals = hills()
    planes = np.moveaxis(normals, 2, 0)
    assert (without_blends(planes, q) == planes).all()


def test_without_predicted_normals_a_scene_is_found_anyway():
    q, _ = hills()
    fit = fit_scene(np.full((*q.shape, 3), 128, np.uint8), Geometry(q))
    assert fit.depth_angle is None
    got = relative_inverse_depth(q, fit)
    assert np.median(got) == pytest.approx(1, abs=0.01) and 2 < got.max() / got.min() < 4.5


def lit_scene(order_2, seed=0):
    """A photograph of random reflectance in a known light: (rgb, normals, true irradiance)."""
    rng = np.random.default_rng(seed)
    h, w = 120, 160
    n = np.stack(
        [smooth_field(rng, h, w, -0.9, 0.9), smooth_field(rng, h, w, -0.9, 0.9), smooth_field(rng, h, w, 0.2, 1)], -1
    )
    n = (n / np.linalg.norm(n, axis=-1, keepdims=True)).astype(np.float32)
    light = EstimatedLight(tuple([0.8, 0.35, 0.2, 0.25] + ([0.1, 0.05, -0.1, 0.08, 0.02] if order_2 else [])), 0.02)
    true = light_at(n[..., 0], n[..., 1], n[..., 2], light)
    albedo = 0.35 * np.exp(rng.normal(0, 0.25, (h, w)))
    rgb = np.rint(255 * linear_to_srgb(albedo * true)).astype(np.uint8)
    return np.repeat(rgb[..., None], 3, 2), n, true


@pytest.mark.parametrize("order_2", [False, True])
def test_the_light_of_a_photograph_is_found(order_2):
    rgb, n, true = lit_scene(order_2)
    light = estimate_light(rgb, n, None)
    got = light_at(n[..., 0], n[..., 1], n[..., 2], light)
    assert got.mean() == pytest.approx(1, abs=0.03)
    true = true / true.mean()
    assert np.sqrt(np.mean((got - true) ** 2)) < 0.06
    assert got.min() > 0


def test_a_dark_background_is_no_evidence():
    """Half of the picture black and facing.

    The light of the other half is found with the mask, without, and with a wrong one.
    """
    rgb, n, true = lit_scene(False)
    rgb[:, :80], n[:, :80] = 3, (0, 0, 1)
    surface = np.zeros(rgb.shape[:2], np.float32)
    surface[:, 80:] = 1
    true = true[:, 80:] / true[:, 80:].mean()
    for mask in (surface, None, np.ones_like(surface)):
        got = light_at(n[..., 0], n[..., 1], n[..., 2], estimate_light(rgb, n, mask))[:, 80:]
        assert np.sqrt(np.mean((got / got.mean() - true) ** 2)) < 0.1


@pytest.mark.parametrize("rgb", [0, 255])
def test_no_light_can_be_read_from_one_colour(rgb):
    picture = np.full((30, 40, 3), rgb, np.uint8)
    light = estimate_light(picture, np.tile(np.float32([0, 0, 1]), (30, 40, 1)), None)
    n = np.linspace(-0.5, 0.5, 11, dtype=np.float32)
    assert np.allclose(light_at(n, n * 0, np.sqrt(1 - n * n), light), 1, atol=0.02)


def test_a_mask_of_specks_is_no_evidence_either():
    """Surfaces smaller than a texel of the fit's grid: an even light, no error."""
    mask = np.zeros((1024, 1024), np.float32)
    mask[::8, ::8] = 1
    light = estimate_light(
        np.full((1024, 1024, 3), 90, np.uint8), np.tile(np.float32([0, 0, 1]), (1024, 1024, 1)), mask
    )
    assert light_at(*np.float32([[0.6], [0], [0.8]]), light) == pytest.approx(1)


def test_passes_have_the_size_and_coding_promised():
    geometry, _, _ = ball_and_wall(48, 64)
    normals, depth = (make(geometry, (150, 200)) for make in (normals_pass, depth_pass))
    low, high = depth_range(geometry, (150, 200))
    assert (
        normals.shape == (150, 200, 3)
        and normals.dtype == np.uint8
        and depth.shape == (150, 200)
        and depth.dtype == np.uint16
    )
    assert tuple(normals[5, 5]) == (128, 128, 255)
    assert depth.min() == 0 and depth.max() == 65535 and depth[75, 100] > depth[5, 5]
    assert low == pytest.approx(geometry.inverse_depth.min()) and high == pytest.approx(geometry.inverse_depth.max())
    n = normals.astype(float) / 255 * 2 - 1
    assert np.abs(np.linalg.norm(n, axis=-1) - 1).max() < 0.02


@pytest.mark.parametrize(
    "n,code", [((0, 0, 1), (128, 128, 255)), ((1, 0, 0), (255, 128, 128)), ((0, -1, 0), (128, 0, 128))]
)
def test_normals_are_opengl_style(n, code):
    assert tuple(encode_normals(np.array(n, np.float32))) == code


def test_mirrored_passes():
    geometry, _, _ = ball_and_wall(48, 64, centre=(0.2, 0.1, 0.3))
    turned = Geometry(
        geometry.inverse_depth[:, ::-1].copy(), geometry.normals[:, ::-1] * np.float32([-1, 1, 1]), None, FOCAL
    )
    a, b = ([make(g, (96, 128)) for make in (normals_pass, depth_pass)] for g in (geometry, turned))
    assert np.abs(a[1].astype(int) - b[1][:, ::-1]).max() <= 1
    assert np.abs(a[0][..., 1:].astype(int) - b[0][:, ::-1, 1:]).max() <= 1


def sky_above(q, normals, rng):
    """The same hills with the upper third sky: far away, normals of nothing."""
    q, normals, mask = q.copy(), normals.copy(), np.ones(q.shape, np.float32)
    top = slice(0, q.shape[0] // 3)
    q[top], mask[top] = 0.05, 0
    normals[top] = unit((0.8, 0.5, 0.3))
    return Geometry(q, normals, mask, FOCAL)


def test_the_sky_has_no_say_in_the_scene():
    """z = 0 is the median surface, and the shift is that of the surfaces, though a third of the picture is sky."""
    q, normals = hills()
    geometry = sky_above(q, normals, None)
    fit = fit_scene(np.full((*q.shape, 3), 128, np.uint8), geometry)
    ground = geometry.mask > 0.5
    got = relative_inverse_depth(geometry.inverse_depth, fit)[ground]
    assert np.median(got) == pytest.approx(1, abs=0.01)
    true = q[ground] / np.median(q[ground])
    assert np.abs(got - true).max() < 0.05
    assert fit.depth_angle < 3


@pytest.mark.parametrize("whole", [False, True])
def test_a_bright_sky_has_no_say_in_the_light(whole):
    rgb, n, true = lit_scene(False)
    rgb, n = np.concatenate([rgb * 0 + 250, rgb]), np.concatenate([n * 0 + np.float32([0, 0.6, 0.8]), n])
    mask = np.ones((240, 160), np.float32)
    mask[:120] = 0
    depth = np.linspace(1, 2, 240 * 160, dtype=np.float32).reshape(240, 160)
    light = fit_scene(rgb, Geometry(depth, n, mask)).light if whole else estimate_light(rgb, n, mask)
    got = light_at(*np.moveaxis(n[120:], 2, 0), light)
    true = true / true.mean()
    assert np.sqrt(np.mean((got / got.mean() - true) ** 2)) < 0.08


def test_the_light_is_that_of_the_luminance():
    """Red light from the left, blue light from the right, as strong: what is seen is the red (BT.709: 0.2126 to
    0.0722).

    Coefficient -0.195; much of so coloured a light is taken for reflectance, see illumination.py."""
    _, n, _ = lit_scene(False)
    side = 0.5 * n[..., 0]
    rgb = np.stack([0.4 - 0.35 * side, np.full_like(side, 0.02), 0.4 + 0.35 * side], -1)
    light = estimate_light(np.rint(255 * linear_to_srgb(rgb)).astype(np.uint8), n, None)
    assert light.harmonics[1] < -0.05


@pytest.mark.parametrize("x", np.linspace(-0.95, 0.95, 9))
def test_the_slope_of_the_light_is_its_derivative_down_to_its_floor(x):
    """Above the floor, at it and below."""
    light = EstimatedLight((0.5, 0.9, 0.0, 0.0), 0.1)
    step = np.float32([0.002, 0, 0])
    n = np.float32([x, 0, np.sqrt(1 - x * x)])
    before, after = (np.log(light_at(*m[:, None], light)) for m in (n - step, n + step))
    assert light_slope(*n[:, None], light)[0] == pytest.approx(
        [(after - before).item() / 0.004, 0, 0], rel=0.01, abs=1e-3
    )


def test_the_estimated_light_never_falls_below_its_floor():
    """It falls toward it without a crease, which would be seen in the relit picture."""
    light = EstimatedLight((0.5, 0.9, 0.2, 0.1), 0.07)
    x, y = np.meshgrid(np.linspace(-0.7, 0.7, 9, dtype=np.float32), np.linspace(-0.7, 0.7, 9, dtype=np.float32))
    z = np.sqrt(1 - x * x - y * y)
    assert 0.07 < light_at(x, y, z, light).min() < 0.09
    rgb = np.full((9, 9, 3), 60, np.uint8)
    maps = prepare(rgb, Geometry(np.ones((9, 9), np.float32), np.stack([x, y, z], 2)), replace(FIT, light=light))
    assert 0.07 < np.exp(maps.band(slice(0, 9)).log_light).min() < 0.09
    along = np.linspace(-0.99, 0.3, 200, dtype=np.float32)
    bends = np.diff(
        np.log(light_at(along, along * 0, np.sqrt(1 - along * along), EstimatedLight((0.5, 0.9, 0.0, 0.0), 0.07))),
        2,
    )
    assert np.diff(light_at(along, along * 0, along * 0, EstimatedLight((0.5, 0.9, 0.0, 0.0), 0.07))).min() > 0
    assert np.abs(bends).max() < 0.005  # a crease: 0.08


@pytest.mark.parametrize(
    "above,below",
    [
        ((0.1, 0.2, 0.08), (0.8, 0.75, 0.7)),
        ((0.1, 0.2, 0.08), (0.5, 0.12, 0.08)),
        ((0.2, 0.4, 0.1), (0.05, 0.05, 0.075)),
        ((0.3, 0.2, 0.2), (0.03, 0.05, 0.05)),
    ],
)
def test_two_colours_are_no_light(above, below):
    """A back above a belly of another colour, which faces down: the light from the side is found all the same."""
    _, n, true = lit_scene(False)
    colour = np.where(n[..., 1:2] > 0, np.float32(above), np.float32(below))
    rgb = np.rint(255 * linear_to_srgb(colour * true[..., None])).astype(np.uint8)
    got = light_at(*np.moveaxis(n, 2, 0), estimate_light(rgb, n, None))
    assert np.sqrt(np.mean((got / got.mean() - true / true.mean()) ** 2)) < 0.03


def test_sun_and_sky_are_still_one_light():
    """Warm from the left and bluer from everywhere else: nine tenths of the light's variation at least are found."""
    _, n, _ = lit_scene(False)
    sun, sky = np.maximum(n @ np.float32([-0.8, 0.2, 0.56]), 0), 0.3
    lit = 0.5 * (sun[..., None] * np.float32([1, 0.93, 0.84]) + sky * np.float32([0.77, 0.86, 1]))
    true = lit @ np.float32([0.2126, 0.7152, 0.0722])
    light = estimate_light(np.rint(255 * linear_to_srgb(lit)).astype(np.uint8), n, None)
    got, true = light_at(*np.moveaxis(n, 2, 0), light) - 1, true / true.mean() - 1
    assert 0.9 < (got * true).mean() / (true * true).mean() < 1.05


def test_a_few_bright_specks_on_black_are_no_evidence():
    rgb, rng = np.zeros((40, 50, 3), np.uint8), np.random.default_rng(0)
    rgb[rng.integers(0, 40, 12), rng.integers(0, 50, 12)] = 250
    n = rng.normal(size=(40, 50, 3)).astype(np.float32)
    assert estimate_light(rgb, n / np.linalg.norm(n, axis=-1, keepdims=True), None).harmonics == (1.0,)


def test_a_gray_photograph_has_one_reflectance():
    """Nothing tells its colours apart: the light is about the least-squares fit of the luminance."""
    rgb, n, _ = lit_scene(False)
    got = light_at(*np.moveaxis(n, 2, 0), estimate_light(rgb, n, None))
    x, y, z = n.reshape(-1, 3).T.astype(float)
    basis = np.stack([x * 0 + 1, x, y, z, x * y, x * z, y * z, x * x, y * y], 1)
    plain = (basis @ np.linalg.lstsq(basis, srgb_to_linear(rgb[..., 0] / 255).ravel(), rcond=None)[0]).reshape(
        got.shape
    )
    assert np.sqrt(np.mean((got / got.mean() - plain / plain.mean()) ** 2)) < 0.03


@pytest.mark.parametrize("channel", [0, 1, 2])
def test_pictures_of_one_primary_have_a_light_too(channel):
    rgb, n, true = lit_scene(False)
    rgb[..., [k for k in range(3) if k != channel]] = 0
    got = light_at(*np.moveaxis(n, 2, 0), estimate_light(rgb, n, None))
    assert np.sqrt(np.mean((got - true / true.mean()) ** 2)) < 0.06


def test_the_less_the_light_explains_the_more_even_it_is_taken_to_be():
    """Side light on a shallow relief.

    Believed in full where it explains the picture, by half where it is lost in its texture.
    """
    _, n, _ = lit_scene(False)
    n = n * np.float32([0.15, 0.15, 1])
    n /= np.linalg.norm(n, axis=-1, keepdims=True)
    slope = {}
    for texture in (0.0, 0.6):
        albedo = 1 - texture * np.random.default_rng(0).uniform(0, 1.3, n.shape[:2])
        rgb = np.rint(255 * linear_to_srgb(0.4 * albedo * (1 + n[..., 0]))).astype(np.uint8)
        light = estimate_light(np.repeat(rgb[..., None], 3, 2), n, None)
        slope[texture] = np.ptp(light_at(*np.float32([[-0.1, 0.1], [0, 0], [0.995, 0.995]]), light)) / 0.2
    assert slope[0.0] == pytest.approx(1, abs=0.15) and 0.2 < slope[0.6] < 0.8
