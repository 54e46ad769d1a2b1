"""Visibility that a network gives: looked up for any light, against scenes whose shadows are known exactly."""

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
import reference
from light_scenes import FIT, FOCAL, ball_and_wall, ball_shadow, new_light, smooth_field

from server.errors import DamagedFile, ModelError
from server.jobs.rendering import CachedGeometry
from server.light.field import SPREAD, VisibilityField
from server.light.lights import Light, Rig, key_light, unit
from server.light.maps import prepare_grid
from server.light.shading import prepare, relight
from server.light.shadows import ShadowGrid
from server.model.engine import Graph, OnnxEngine, mean_of_scales
from server.model.manifest import parse
from server.scene.borders import letterbox
from server.scene.geometry import Geometry, Visibility, checked, pack, unpack

H, W = 72, 96
RINGS = ((0, 1), (26, 5), (50, 10), (72, 12), (94, 12))


def sphere_of_directions():
    """(40, 3): rings about the view axis, each its own mirror image."""
    rows = []
    for k, (theta, n) in enumerate(RINGS):
        a, t = np.pi / 2 + 2 * np.pi * (np.arange(n) + 0.5 * (k % 2)) / n, np.radians(theta)
        rows += [(np.sin(t) * np.cos(b), np.sin(t) * np.sin(b), np.cos(t)) for b in a]
    return np.array(rows, np.float32)


DIRECTIONS = sphere_of_directions()


def unit_normals(rng):
    """(3, H, W) float32: of a wavy surface that mostly faces the viewer."""
    n = np.stack([smooth_field(rng, H, W, -0.6, 0.6), smooth_field(rng, H, W, -0.6, 0.6), np.ones((H, W))])
    return (n / np.linalg.norm(n, axis=0)).astype(np.float32)


def exact(light, geometry, place, on_ball):
    """(H, W) 0..1: the light that the ball leaves of what falls on ball and wall."""
    n = np.asarray(geometry.normals, float)
    l, _ = reference.arriving(light, place)
    lit = (n * l).sum(-1) > 0
    shadow, _ = ball_shadow(place, light)
    return np.where(on_ball, lit, lit & ~shadow).astype(float)


@pytest.fixture(scope="module")
def scene():
    """(Geometry with its true visibility, places, on the ball)."""
    geometry, place, on_ball = ball_and_wall(H, W)
    lights = [Light(direction=tuple(map(float, d)), angle=0.1) for d in DIRECTIONS]
    seen = np.stack([exact(light, geometry, place, on_ball) for light in lights])
    field = Visibility(np.rint(seen * 255).astype(np.uint8), DIRECTIONS)
    return replace(geometry, visibility=field), place, on_ball


def directions_between(count, least=0.25):
    rng = np.random.default_rng(4)
    found = rng.normal((0, 0, 1), 1, (200, 3))
    found /= np.linalg.norm(found, axis=1)[:, None]
    return found[found[:, 2] > least][:count]


def test_a_ball_before_a_wall_against_exact_shadows(scene):
    """What arrives of a light from any direction: far nearer the truth than open, and never off by much on average."""
    geometry, place, on_ball = scene
    grid = prepare_grid(geometry, FIT)
    errors, blank = [], []
    for d in directions_between(12):
        light = Light(direction=tuple(map(float, d)), angle=5.0)
        n_dot_l = np.maximum((np.asarray(geometry.normals, float) * d).sum(-1), 0)
        truth = exact(light, geometry, place, on_ball) * n_dot_l
        errors.append(np.sqrt(((grid.visibility(light) * n_dot_l - truth) ** 2).mean()))
        blank.append(np.sqrt(((n_dot_l - truth) ** 2).mean()))
    assert np.mean(errors) < 0.7 * np.mean(blank) and np.mean(errors) < 0.08


def test_a_light_at_a_direction_sees_what_that_direction_sees(scene):
    geometry, _, _ = scene
    grid = prepare_grid(geometry, FIT)
    for k in range(0, len(DIRECTIONS), 7):
        seen = grid.visibility(Light(direction=tuple(map(float, DIRECTIONS[k])), angle=0.1))
        lit = geometry.normals @ DIRECTIONS[k] > 0.05
        assert lit.any() and np.abs(seen - geometry.visibility.seen[k] / 255)[lit].mean() < 0.06


@pytest.mark.parametrize(
    "light",
    [
        key_light(-0.6, 0.4, 0.7),
        Light(direction=unit((0.5, 0.5, -0.4)), angle=60),
        Light(kind="point", position=(0.7, 0.4, 0.9), radius=0.3),
        Light(kind="spot", position=(-2.0, 1.0, 3.0), radius=0.0),
    ],
    ids=["distant", "behind, wide", "lamp", "spot"],
)
def test_the_look_up_is_that_of_the_reference(scene, light):
    rng = np.random.default_rng(2)
    seen = np.stack([smooth_field(rng, H, W, 0, 1) for _ in DIRECTIONS])
    codes = np.rint(seen * 255).astype(np.uint8)
    q = smooth_field(rng, H, W, 0.6, 1.5).astype(np.float32)
    normals = unit_normals(rng)
    field = VisibilityField(Visibility(codes, DIRECTIONS), q, normals, FOCAL)
    near = np.sort(np.degrees(np.arccos(np.clip(DIRECTIONS @ DIRECTIONS.T, -1, 1))), 1)[:, 1]
    expected = reference.field_visibility(
        light,
        codes / 255,
        DIRECTIONS,
        SPREAD * np.radians(near.mean()),
        reference.positions(q, FOCAL),
        np.moveaxis(normals, 0, 2),
    )
    l, _ = reference.arriving(light, reference.positions(q, FOCAL))
    lit = (np.moveaxis(normals, 0, 2) * l).sum(-1) > 0
    assert lit.any() and np.abs(field.visibility(light) - expected)[lit].max() < 1e-2


@pytest.mark.parametrize("degrees", [0, 40, 70, 80, 86])
def test_a_bare_wall_is_lit_whole_however_low_the_light(degrees):
    """Directions below its horizon, which it cannot see, are no shadow."""
    normals = np.broadcast_to(np.float32([0, 0, 1])[:, None, None], (3, H, W))
    seen = np.where((DIRECTIONS[:, 2] > 0)[:, None, None], 255, 0).astype(np.uint8)
    field = VisibilityField(
        Visibility(np.broadcast_to(seen, (40, H, W)), DIRECTIONS), np.ones((H, W), np.float32), normals, FOCAL
    )
    a = np.radians(degrees)
    assert field.visibility(Light(direction=(np.sin(a), 0.0, np.cos(a)), angle=20)).min() > 0.999


def test_light_from_the_viewer_is_not_in_shadow(scene):
    geometry, _, _ = scene
    seen = prepare_grid(geometry, FIT).visibility(Light(direction=(0.0, 0.0, 1.0), angle=0.5))
    facing = geometry.normals[..., 2] > 0.95
    assert facing.mean() > 0.5 and seen[facing].min() > 0.85 and seen[facing].mean() > 0.97


def test_a_lamp_far_away_is_a_distant_light(scene):
    geometry, _, _ = scene
    grid, d = prepare_grid(geometry, FIT), np.array(unit((-0.6, 0.5, 0.7)))
    far = grid.visibility(Light(kind="point", position=tuple(90.0 * d), radius=0.5))
    assert np.abs(far - grid.visibility(Light(direction=tuple(d), angle=np.degrees(1 / 90)))).max() < 0.05


def test_two_lamps_are_the_sum_of_each(scene):
    geometry, _, _ = scene
    maps = prepare(np.full((H, W, 3), 60, np.uint8), geometry, FIT)
    lamps = tuple(Light(kind="point", position=p) for p in ((-0.7, 0.3, 0.8), (0.6, -0.2, 1.0)))
    rigs = [Rig(lights=lights, ambient=0.0, shadow_strength=1.0) for lights in (lamps, lamps[:1], lamps[1:])]
    both, *each = (new_light(maps, rig)[0] for rig in rigs)
    assert both.min() < 0.1 < both.max() and np.allclose(both, sum(each), atol=1e-5)


def test_no_pixel_jumps_as_the_light_turns(scene):
    geometry, _, _ = scene
    rgb = np.full((2 * H, 2 * W, 3), 140, np.uint8)
    maps = prepare(rgb, geometry, FIT)
    for turn in np.radians(np.arange(-80, 80, 10)):
        pair = [
            relight(maps, Rig(lights=(replace(key_light(np.sin(a), 0.3, np.cos(a)), angle=0.5),), shadow_strength=1.0))
            for a in (turn, turn + np.radians(1))
        ]
        assert np.abs(pair[0].astype(int) - pair[1]).max() <= 6


def test_strength_0_of_shadows_leaves_no_trace(scene):
    geometry, _, _ = scene
    rgb, light = np.full((H, W, 3), 120, np.uint8), key_light(0.8, 0.1, 0.4)
    maps = prepare(rgb, geometry, FIT)
    rig = Rig(lights=(light,), shadow_strength=0.0)
    assert np.array_equal(relight(maps, rig), relight(maps, replace(rig, lights=(replace(light, shadow=False),))))
    assert not np.array_equal(relight(maps, rig), relight(maps, replace(rig, shadow_strength=1.0)))


def test_a_wide_source_is_softer(scene):
    geometry, _, on_ball = scene
    grid = prepare_grid(geometry, FIT)
    small, wide = (grid.visibility(Light(direction=unit((-0.8, 0.1, 0.6)), angle=a)) for a in (1.0, 80.0))
    wall = cv2.erode((~on_ball).astype(np.uint8), np.ones((5, 5))) > 0
    assert small[wall].min() < 0.15 and wide[wall].min() > small[wall].min() + 0.1


def test_without_a_field_shadows_are_marched(scene, monkeypatch):
    geometry, _, _ = scene
    marched = []
    monkeypatch.setattr(
        ShadowGrid, "visibility", lambda self, light: marched.append(light) or np.ones(self.shape, np.float32)
    )
    prepare_grid(geometry, FIT).visibility(key_light(0, 1, 1))
    assert not marched
    prepare_grid(replace(geometry, visibility=None), FIT).visibility(key_light(0, 1, 1))
    assert len(marched) == 1


def test_a_job_keeps_its_field_and_older_ones_have_none(scene):
    geometry, _, _ = scene
    again = unpack(pack(geometry))
    assert np.array_equal(again.visibility.seen, geometry.visibility.seen)
    assert np.array_equal(again.visibility.directions, DIRECTIONS)
    without = pack(replace(geometry, visibility=None))
    assert unpack(without).visibility is None
    assert len(pack(geometry)) - len(without) < 1.02 * geometry.visibility.seen.size + 2000, "a byte a direction"


def test_a_field_counts_among_the_bytes_held(scene):
    geometry, _, _ = scene
    seen, without = geometry.visibility.seen, replace(geometry, visibility=None)
    assert CachedGeometry(geometry).nbytes - CachedGeometry(without).nbytes >= seen.nbytes
    rest = geometry.inverse_depth, np.moveaxis(geometry.normals, 2, 0), FOCAL
    more = VisibilityField(Visibility(np.concatenate([seen, seen]), np.tile(DIRECTIONS, (2, 1))), *rest)
    alone = VisibilityField(geometry.visibility, *rest)
    assert more.nbytes - alone.nbytes >= seen.nbytes


@pytest.mark.parametrize(
    "field",
    [
        Visibility(np.zeros((40, 8, 8), np.uint8), DIRECTIONS[:39]),
        Visibility(np.zeros((40, 8), np.uint8), DIRECTIONS),
        Visibility(np.zeros((40, 0, 8), np.uint8), DIRECTIONS),
        Visibility(np.zeros((40, 8, 8), np.float32), DIRECTIONS),
        Visibility(np.zeros((40, 8, 8), np.uint8), DIRECTIONS * np.float32(np.nan)),
    ],
    ids=["too few directions", "no field", "empty", "not codes", "not finite"],
)
def test_a_field_that_does_not_fit_is_refused(scene, field):
    geometry = replace(scene[0], visibility=field)
    with pytest.raises(ModelError):
        checked(geometry)
    if field.seen.dtype == np.uint8:  # as read from a file they are
        with pytest.raises(DamagedFile):
            unpack(pack(geometry))


def test_a_frame_is_open(scene):
    geometry, _, _ = scene
    framed = letterbox(geometry, (slice(36, 36 + 144), slice(48, 48 + 192)), 216, 288)
    h, w = framed.inverse_depth.shape
    seen = framed.visibility.seen
    assert seen.shape[1:] == (H + 36, W + 48) and abs(seen.shape[2] / seen.shape[1] - w / h) < 0.02
    assert (seen[:, :18] == 255).all() and (seen[:, :, -24:] == 255).all()
    assert np.array_equal(seen[:, 18:-18, 24:-24], geometry.visibility.seen)


class Field:
    """A session that answers with a field that depends on column and direction, and remembers nothing."""

    def __init__(self, channels=40, lean=0.0):
        self.channels, self.lean = channels, lean

    def run(self, names, feeds):
        _, _, h, w = next(iter(feeds.values())).shape
        x = (np.arange(w // 4) + 0.5) / (w // 4)
        rows = np.stack([np.clip(x * (1 + d[0]) / 2 + self.lean, 0, 1) for d in DIRECTIONS])[: self.channels]
        answers = {
            "depth": np.ones((1, 1, h // 2, w // 2), np.float32),
            "visibility": np.broadcast_to(rows[None, :, None, :], (1, len(rows), h // 4, w // 4)).astype(np.float32),
        }
        return [answers[n] for n in names]


def engine(session=None, mirror=False, scales=(1.0,), **visibility):
    said = {
        "name": "visibility",
        "meaning": "probability",
        "directions": DIRECTIONS.astype(float).tolist(),
        **visibility,
    }
    manifest = {
        "input": {"name": "image", "size": 160, "size_rule": "long_side", "multiple": 32, "scale": 1.0}
        | {"mean": [0.0] * 3, "std": [1.0] * 3, "scales": list(scales), "mirror": mirror},
        "outputs": {"depth": {"name": "depth", "meaning": "disparity"}, "visibility": said},
    }
    graph = Graph(parse(json.loads(json.dumps(manifest))), session or Field(), "CPUExecutionProvider")
    return OnnxEngine({"depth": graph, "visibility": graph})


@pytest.mark.parametrize("shape", [(160, 160), (128, 160), (100, 160), (160, 71)])
def test_a_graph_s_field_arrives_on_its_own_grid(shape):
    """Also where the field is as wide as it has directions, and where the input is padded."""
    found = engine().analyse(np.zeros((*shape, 3), np.uint8)).visibility
    assert np.array_equal(found.directions, DIRECTIONS) and found.seen.dtype == np.uint8
    _, h, w = found.seen.shape
    assert abs(w / h - shape[1] / shape[0]) < 0.08
    k = int(DIRECTIONS[:, 0].argmax())
    assert (np.diff(found.seen[k].astype(int), axis=1) > 0).all() and (found.seen[k] == found.seen[k, :1]).all()


def test_a_fine_field_is_kept_on_a_coarse_grid():
    """A ramp stays a ramp."""
    photo = np.zeros((448, 640, 3), np.uint8)
    found = engine(scales=(4.0,)).analyse(photo).visibility
    assert found.seen.shape[1:] == (90, 128)
    k = int(DIRECTIONS[:, 0].argmax())
    ramp = 255 * (np.arange(128) + 0.5) / 128 * (1 + DIRECTIONS[k, 0]) / 2
    assert np.abs(found.seen[k] - ramp).max() < 2


def test_the_mirrored_photo_s_field_is_mirrored_back():
    """A field that grows to the right for light from the right, of the photo and of its mirror image alike."""
    alone = engine().analyse(np.zeros((160, 160, 3), np.uint8)).visibility.seen / 255
    both = engine(mirror=True).analyse(np.zeros((160, 160, 3), np.uint8)).visibility.seen / 255
    partner = (DIRECTIONS @ (DIRECTIONS * [-1, 1, 1]).T).argmax(1)
    assert np.abs(both - (alone + alone[partner][:, :, ::-1]) / 2).max() < 0.01
    assert np.abs(both - alone).max() > 0.1


def test_sizes_are_averaged_within_bounds():
    found = engine(Field(lean=0.5), scales=(1.0, 2.0)).analyse(np.zeros((160, 160, 3), np.uint8)).visibility.seen
    assert found.shape == (40, 80, 80) and found.max() == 255


@pytest.mark.parametrize("count", [4, 129, 256])
def test_sizes_are_averaged_whatever_the_number_of_directions(count):
    """A ramp is the same at all sizes but at its ends, and each direction keeps its own."""
    slopes = np.linspace(0.2, 0.8, count).astype(np.float32)
    views = [
        {"visibility": np.tile(((np.arange(w) + 0.5) / w)[None, :, None] * slopes, (w * 3 // 4, 1, 1))}
        for w in (32, 64)
    ]
    mean = mean_of_scales([{"visibility": v["visibility"].astype(np.float32)} for v in views])["visibility"]
    assert mean.shape == (48, 64, count)
    assert np.abs(mean - views[1]["visibility"])[:, 4:-4].max() < 2e-3


@pytest.mark.parametrize(
    "said, words",
    [
        ({"directions": [[0.0, 0.0, 2.0]] * 4}, "length 1"),
        ({"directions": [[0.0, 0.0, 1.0]] * 3}, "directions"),
        ({"directions": [[0.0, 1.0]] * 4}, "directions"),
        ({"directions": [[0.6, 0.0, 0.8]] * 4}, "mirror image"),
        ({"meaning": "share"}, "meaning"),
    ],
)
def test_manifests_that_make_no_sense_are_refused(said, words):
    with pytest.raises(ValueError, match=words):
        engine(mirror=True, **said)


def test_a_graph_that_answers_otherwise_than_it_says_is_a_model_error():
    with pytest.raises(ModelError):
        engine(Field(channels=39)).analyse(np.zeros((64, 64, 3), np.uint8))


def test_a_field_beside_a_mask_shows_no_shadow_where_it_is_doubtful(scene):
    geometry, _, on_ball = scene
    masked = replace(geometry, mask=np.where(on_ball, 1, 0.3).astype(np.float32))
    seen = prepare_grid(masked, FIT).visibility(Light(direction=unit((-0.8, 0.1, 0.6)), angle=1.0))
    far = cv2.dilate(on_ball.astype(np.uint8), np.ones((15, 15))) == 0
    assert isinstance(masked, Geometry) and seen[far].min() > 0.99
