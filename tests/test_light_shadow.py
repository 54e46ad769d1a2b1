"""Shadows where geometry says they are, on a scene whose shadows are known exactly."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from light_scenes import FIT, FOCAL, ball_and_wall, ball_shadow, new_light, rays

from server.light.lights import Light, Rig, key_light, unit
from server.light.maps import prepare_grid
from server.light.occlusion import ambient_occlusion
from server.light.shading import prepare, relight
from server.light.shadows import THICKNESS, ShadowGrid, area_light_samples
from server.scene.fit import snap_depth_edges
from server.scene.geometry import Geometry

H, W = 192, 256
HARD = {
    "from the left": Light(direction=unit((-0.8, 0.2, 0.8)), angle=0.1),
    "from above": Light(direction=unit((0.1, 0.8, 0.7)), angle=0.1),
    "low": Light(direction=unit((0.9, -0.1, 0.45)), angle=0.1),
    "a lamp": Light(kind="point", position=(-0.8, 0.6, 1.5), radius=0.001),
    "a lamp behind the camera": Light(kind="point", position=(-1.5, 0.4, 2.5), radius=0.001),
}


def edge_points(flags):
    """Pixels of (h, w) bool on the inner side of its edge."""
    return flags & (cv2.erode(flags.astype(np.uint8), np.ones((3, 3), np.uint8)) == 0)


@pytest.mark.parametrize("name", HARD)
def test_a_ball_throws_its_shadow_where_it_should(name):
    """Along the edge whose casting point the camera sees, within 2 pixels."""
    centre, radius = (0.0, 0.0, 0.3), 0.22
    geometry, place, on_ball = ball_and_wall(H, W, centre, radius)
    exact, visible_caster = ball_shadow(place, HARD[name], centre, radius)
    seen = ShadowGrid(geometry.inverse_depth, FOCAL).visibility(HARD[name])
    near_ball = cv2.dilate(on_ball.astype(np.uint8), np.ones((7, 7), np.uint8)) > 0
    border = np.ones((H, W), bool)
    border[3:-3, 3:-3] = False
    true_edge = edge_points(exact & ~on_ball) & visible_caster & ~near_ball & ~border
    assert true_edge.sum() > 30
    to_ours = cv2.distanceTransform((~edge_points((seen < 0.5) & ~on_ball)).astype(np.uint8), cv2.DIST_L2, 5)
    assert to_ours[true_edge].max() <= 2.0, np.sort(to_ours[true_edge])[-10:]
    wall = ~near_ball & ~border
    assert ((seen < 0.5) & ~exact & wall).sum() < 0.02 * wall.sum()  # and none elsewhere


def test_a_lawn_throws_no_shadow_on_itself():
    """A plane as steep as any, to a seventh of its front edge's q, with a little noise.

    No texel is taken for a silhouette.
    """
    rng = np.random.default_rng(3)
    q = np.linspace(0.15, 1, 60, dtype=np.float32)[:, None].repeat(80, 1)
    noise = cv2.GaussianBlur(rng.standard_normal(q.shape).astype(np.float32), (0, 0), 1.5)
    q += noise * np.float32(0.0008 / noise.std())
    assert (snap_depth_edges(q) == q).mean() > 0.97
    seen = ShadowGrid(snap_depth_edges(q), FOCAL).visibility(key_light(1, 0.2, 0.5))
    assert seen.mean() > 0.98


def test_the_shadow_lies_away_from_the_light():
    geometry, _, _on_ball = ball_and_wall(H, W, (0, 0, 0.3), 0.22)
    maps = prepare(np.full((H, W, 3), 140, np.uint8), geometry, FIT)
    for d, (rows, columns) in {
        (-1, 0, 1): (slice(80, 112), slice(180, 200)),
        (1, 0, 1): (slice(80, 112), slice(56, 76)),
        (0, 1, 1): (slice(148, 164), slice(112, 144)),
        (0, -1, 1): (slice(28, 44), slice(112, 144)),
    }.items():
        lit = relight(maps, Rig(lights=(key_light(*d),), shadow_strength=1.0))[..., 0].astype(int)
        bare = relight(maps, Rig(lights=(key_light(*d, shadow=False),)))[..., 0]
        assert (lit[rows, columns] < bare[rows, columns] - 20).mean() > 0.9
        opposite = lit[::-1, ::-1][rows, columns]
        assert np.abs(opposite - bare[::-1, ::-1][rows, columns]).mean() < 2


@pytest.mark.parametrize(
    "light", [key_light(0.3, 0.2, -0.8), Light(kind="point", position=(0.1, 0.1, -0.5))], ids=["sun", "lamp"]
)
def test_a_light_behind_a_wall_leaves_its_front_dark(light):
    geometry, _, _ = ball_and_wall(H, W, radius=1e-3)
    rgb = np.full((H, W, 3), 140, np.uint8)
    assert relight(prepare(rgb, geometry, FIT), Rig(lights=(light,), ambient=0.0)).max() == 0


@pytest.mark.parametrize("slope", [(0, 0), (0.6, 0.3), (-0.4, 0.7)])
def test_a_plane_does_not_shade_itself(slope):
    """No acne: any plane sees any lamp on its front, also a low one."""
    v, u = np.meshgrid((H / 2 - np.arange(H) - 0.5) / W, (np.arange(W) + 0.5) / W - 0.5, indexing="ij")
    q = (1 + slope[0] * u + slope[1] * v).astype(np.float32)
    normal = np.array([-FOCAL * slope[0], -FOCAL * slope[1], 1.0])
    normal /= np.linalg.norm(normal)
    rng = np.random.default_rng(0)
    grid = ShadowGrid(q, FOCAL)
    for _ in range(12):
        d = rng.normal(size=3)
        d /= np.linalg.norm(d)
        d += normal * (0.12 - min(d @ normal, 0.12))  # never lower than about 7 degrees
        assert grid.visibility(Light(direction=unit(d), angle=2.0)).min() == 1


def test_what_is_off_the_picture_throws_no_shadow():
    """A floor that comes nearer toward the edge of the picture stays lit from beyond that edge."""
    q = np.repeat(np.linspace(0.8, 1.3, H, dtype=np.float32)[:, None], W, 1)
    assert ShadowGrid(q, FOCAL).visibility(Light(direction=unit((0, 0.3, 1)), angle=1)).min() == 1


def test_softer_with_size_and_with_distance():
    """The width of the penumbra grows with the lamp, and with the distance from what throws the shadow."""

    def half_lit(angle, gap):
        geometry, _, on_ball = ball_and_wall(H, W, (-0.3, 0, gap), 0.15)
        seen = ShadowGrid(geometry.inverse_depth, FOCAL).visibility(Light(direction=unit((-0.7, 0, 1)), angle=angle))
        return ((seen > 0.1) & (seen < 0.9) & ~cv2.dilate(on_ball.astype(np.uint8), np.ones((9, 9))).astype(bool)).sum()

    assert half_lit(25, 0.4) > 1.5 * half_lit(6, 0.4)
    assert half_lit(25, 0.5) > 1.2 * half_lit(25, 0.25)


def test_light_passes_behind_thin_things():
    """A ray far enough behind the front of a thing is not stopped by it."""
    _, _ray = rays(H, W)
    depth = np.ones((H, W), np.float32)
    depth[:, 120:130] = 1 / (1 + 2.5 * THICKNESS)  # a post far before the wall
    grid = ShadowGrid(1 / depth, FOCAL)
    assert grid.visibility(Light(direction=unit((-1, 0, 0.02)), angle=0.1))[:, 150:].mean() > 0.9


def test_a_small_move_changes_little():
    """Shadows do not swim.

    Moving the light by half a degree changes few texels, and an image of the pattern nothing.
    """
    geometry, _, _ = ball_and_wall(H, W, (0, 0, 0.3), 0.22)
    grid = ShadowGrid(geometry.inverse_depth, FOCAL)
    a, b = (grid.visibility(Light(direction=unit((-0.8, 0.2 + d, 0.6)), angle=3)) for d in (0, 0.008))
    assert np.abs(a - b).mean() < 0.006
    flat = (a == 0) & (cv2.erode(a, np.ones((9, 9))) == 0) & (cv2.dilate(a, np.ones((9, 9))) == 0)
    assert b[flat].max() == 0


def test_the_points_of_a_lamp_are_spread_over_its_face():
    points = area_light_samples(Light(direction=unit((1, 2, 2)), angle=20))
    d = points / np.linalg.norm(points, axis=1, keepdims=True)
    off = np.degrees(np.arccos(d @ np.array(unit((1, 2, 2)))))
    assert off.max() <= 10.01 and off.max() > 9 and np.allclose(points.mean(0), unit((1, 2, 2)), atol=0.03)
    ball = area_light_samples(Light(kind="point", position=(0.3, 0.2, 0.9), radius=0.1)) - (0.3, 0.2, 0.9)
    assert np.allclose(np.linalg.norm(ball, axis=1), 0.1, atol=1e-6) and np.abs(ball.mean(0)).max() < 0.02


def test_occluders_keep_their_own_side():
    """A bright thing before a shadowed wall has no dark rim, at a picture much larger than the grid."""
    h, w = 96, 128
    geometry, _, on_ball = ball_and_wall(h, w, (0, 0, 0.3), 0.22)
    big = cv2.resize(on_ball.astype(np.uint8), (w * 8, h * 8), interpolation=cv2.INTER_LINEAR) > 0
    rgb = np.where(big[..., None], (200, 150, 120), (60, 80, 140)).astype(np.uint8)
    maps = prepare(rgb, geometry, FIT)
    rig = Rig(lights=(key_light(-0.6, 0.1, 0.8),), shadow_strength=1.0)
    shadow = relight(maps, rig).astype(float) / np.maximum(
        relight(maps, Rig(lights=(key_light(-0.6, 0.1, 0.8, shadow=False),))), 1
    )
    rim = big & (cv2.erode(big.astype(np.uint8), np.ones((9, 9))) == 0)
    right = np.zeros_like(big)
    right[300:450, 512:] = True  # beside the shadow
    assert shadow[rim & right].mean() > 0.97
    wall = ~big & (cv2.dilate(big.astype(np.uint8), np.ones((9, 9))) > 0)
    assert shadow[wall & right].mean() < 0.75


def test_thin_pictures():
    for shape in ((1, 1), (1, 9), (9, 1), (2, 3)):
        grid = ShadowGrid(np.linspace(0.5, 2, shape[0] * shape[1], dtype=np.float32).reshape(shape), FOCAL)
        seen = grid.visibility(key_light(-0.5, 0.2, 0.4))
        assert seen.shape == shape and np.isfinite(seen).all() and Geometry(seen).focal is None


def test_a_sun_and_a_lamp_of_the_same_numbers_throw_shadows_of_their_own():
    geometry, _, _ = ball_and_wall(H, W, (-0.3, 0, 0.4), 0.15)
    sun, lamp = Light(direction=(0, 0, 1), angle=0), Light(kind="point", position=(0, 0, 1), radius=0)
    alone = [prepare_grid(geometry, FIT).visibility(light) for light in (sun, lamp)]
    assert np.abs(alone[0] - alone[1]).mean() > 0.01
    for order in ((sun, lamp), (lamp, sun)):
        shared = prepare_grid(geometry, FIT)
        for light in order:
            assert np.array_equal(shared.visibility(light), alone[0] if light is sun else alone[1])


def card(h, w, left, right, front=1.3):
    """(Geometry, on the card (h, w) bool): an upright card that faces the viewer before a wall that does."""
    q = np.ones((h, w), np.float32)
    q[:, left:right] = front
    return Geometry(q, np.tile(np.float32([0, 0, 1]), (h, w, 1)), None, FOCAL), q > 1


def test_shadows_end_at_the_silhouette_of_what_throws_them():
    h, w, times = 48, 64, 8
    geometry, _ = card(h, w, 26, 36)
    rgb = np.tile(np.uint8([60, 80, 140]), (h * times, w * times, 1))
    rgb[:, 26 * times : 36 * times] = (200, 150, 120)
    maps = prepare(rgb, geometry, FIT)
    light = key_light(-1, 0, 1)
    rig = Rig(lights=(light,), ambient=0.0, shadow_strength=1.0)
    lit, bare = (new_light(maps, replace(rig, lights=(replace(light, shadow=s),)))[0] for s in (True, False))
    share = (lit / bare)[100:-100, :, 0]
    assert share[:, 36 * times - 4 : 36 * times].min() > 0.95
    assert share[:, 36 * times : 36 * times + 4].max() < 0.05


def test_soft_shadows_stop_at_silhouettes():
    geometry, on_card = card(48, 64, 26, 36)
    seen = ShadowGrid(geometry.inverse_depth, FOCAL).visibility(Light(direction=unit((-1, 0, 1)), angle=1.0))
    assert seen[8:-8][on_card[8:-8]].min() == 1
    assert seen[8:-8, 36:39].max() == 0


def test_a_turned_scene_has_the_turned_shadows():
    """Upright and far from square: what lies above and below counts as what lies left and right."""
    h, w = 240, 120
    for y in (1.2, -1.2):
        q = ball_and_wall(h, w, (0.1, y, 0.4), 0.35)[0].inverse_depth
        d = unit((-0.5, 0.6 if y < 0 else -0.6, 0.6))
        tall = ShadowGrid(q, FOCAL).visibility(Light(direction=d, angle=1.0))
        wide = ShadowGrid(np.rot90(q).copy(), FOCAL * w / h).visibility(
            Light(direction=unit((-d[1], d[0], d[2])), angle=1.0)
        )
        assert (tall < 0.5).mean() > 0.02
        assert np.abs(np.rot90(tall) - wide).mean() < 0.005


def test_what_lies_beyond_a_lamp_throws_no_shadow_from_it():
    """A lamp between a wall on the left and a ball on the right: the wall sees all of it."""
    geometry, _, _ = ball_and_wall(96, 128, (0.55, 0, 0.55), 0.2)
    lamp = Light(kind="point", position=(0, 0, 0.3), radius=0.01)
    seen = ShadowGrid(geometry.inverse_depth, FOCAL).visibility(lamp)
    assert seen[:, :56].min() == 1


def test_what_is_far_before_a_wall_does_not_darken_it():
    """No dark rim around a thing that is farther before the wall than the surroundings that count reach."""
    near, far = (ambient_occlusion(card(96, 128, 50, 78, front)[0].inverse_depth, FOCAL) for front in (1.1, 3.0))
    beside = np.s_[10:-10, 80:86]
    assert far[beside].mean() > 0.95 > near[beside].mean()


@pytest.mark.parametrize("lamp", [{"direction": unit((-0.7, 0, 1))}, {"kind": "point", "position": (-0.9, 0, 0.9)}])
def test_a_larger_lamp_at_the_same_place_throws_its_own_shadow(lamp):
    a, b = ((Light(**lamp, radius=r) if "kind" in lamp else Light(**lamp, angle=d)) for r, d in ((0.01, 1), (0.3, 30)))
    geometry, _, _ = ball_and_wall(96, 128, (-0.3, 0, 0.4), 0.15)
    both, other = (prepare_grid(geometry, FIT) for _ in range(2))
    first, second = both.visibility(a), both.visibility(b)
    assert np.array_equal(second, other.visibility(b)) and not np.array_equal(first, second)


def test_shadows_that_are_kept_are_counted():
    shared = prepare_grid(ball_and_wall(96, 128)[0], FIT)
    before = shared.nbytes
    kept = [shared.visibility(key_light(1, k, 1)) for k in range(3)]
    assert shared.nbytes == before + sum(s.nbytes for s in kept)


def test_ambient_occlusion_ends_at_silhouettes():
    """What stands before a wall is lit from all sides up to its edge, where the wall beside it is not."""
    h, w, times = 48, 64, 8
    maps = prepare(np.full((h * times, w * times, 3), 100, np.uint8), card(h, w, 26, 36, 1.1)[0], FIT)
    occlusion = maps.band(slice(100, h * times - 100)).occlusion * 255
    steps = np.diff(occlusion, axis=1)[:, 33 * times : 39 * times]
    assert (steps.argmin(1) == 3 * times - 1).all() and steps.min() < 4 * np.delete(steps, 3 * times - 1, 1).min()


@pytest.mark.parametrize("strength", [0.25, 0.6])
def test_the_strength_of_shadows_is_their_share(strength):
    maps = prepare(np.full((90, 120, 3), 120, np.uint8), ball_and_wall(90, 120)[0], FIT)
    rig = Rig(lights=(key_light(-0.7, 0.2, 0.5),), ambient=0.0)
    whole, part, none = (new_light(maps, replace(rig, shadow_strength=s))[0] for s in (1, strength, 0))
    assert np.allclose(part, none + strength * (whole - none), atol=1e-3) and (whole < 0.1 * none).mean() > 0.02


def test_where_a_surface_is_doubtful_no_shadow_shows():
    """The shadow of a ball, and light from aside: over doubt there is no edge, over what is sure it is as before."""
    light = replace(key_light(-0.7, 0.5, 0.6), angle=0.5)
    geometry, _, on_ball = ball_and_wall(120, 160)
    sure = prepare_grid(replace(geometry, mask=np.ones(on_ball.shape, np.float32)), FIT).visibility(light)
    mask = np.where(on_ball, 1, 0.55).astype(np.float32)
    mask[:, :40] = 1
    seen = prepare_grid(replace(geometry, mask=mask), FIT).visibility(light)
    wall = cv2.erode((~on_ball).astype(np.uint8), np.ones((13, 13))) > 0
    doubtful = wall & (np.arange(160) > 50)
    assert sure[doubtful].min() < 0.2 and seen[doubtful].min() > 0.99
    assert np.array_equal(seen[:, :34], sure[:, :34])
