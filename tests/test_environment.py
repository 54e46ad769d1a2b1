"""Light from all around, against plain sums over its texels in float64, and what must hold of any of it."""

import base64
from dataclasses import replace

import numpy as np
import pytest
import reference
from light_scenes import FIT, FOCAL, ball_and_wall, random_scene
from test_light_field import DIRECTIONS

from server.light import environment as env
from server.light import skies
from server.light.field import VisibilityField
from server.light.lights import Environment, Light, Rig
from server.light.maps import prepare_grid
from server.light.shading import illuminate, prepare, relight
from server.light.upsampling import without_blends
from server.scene.fit import relative_inverse_depth, snap_depth_edges, surface_share
from server.scene.geometry import Visibility

EVEN = np.ones((env.ROWS, env.COLUMNS, 3), np.float32)
WHOLE = slice(0, 40)


def around(radiance, **settings):
    return Environment(env.pack(np.asarray(radiance, np.float32)), **settings)


def sky(name, **settings):
    return Environment(skies.TEXELS[name], **settings)


def lit_only_from(direction, width=0.15):
    """Radiance of a lamp about so many radians wide."""
    apart = np.arccos(np.clip(env.texel_directions() @ np.array(direction, np.float32), -1, 1))
    return np.repeat((apart < width).astype(np.float32)[..., None], 3, 2)


def normals(count, least=-1.0, seed=0):
    n = np.random.default_rng(seed).normal(size=(9 * count, 3))
    n /= np.linalg.norm(n, axis=1, keepdims=True)
    return n[n[:, 2] > least][:count].astype(np.float32)


def looked_up(table, n):
    return table[:, env.normal_indices(*n.T)].T


def rms(values):
    return float(np.sqrt(np.square(values).mean()))


# -- against sums


@pytest.mark.parametrize("name", skies.SKIES)
def test_what_arrives_in_the_open_is_the_sum_over_the_texels(name):
    n, given = normals(300), sky(name, rotation=37.0, intensity=2.0)
    exact = reference.environment_light(n, env.unpack(given), 37.0)
    assert np.abs(looked_up(env.surround(given), n) - exact).max() < 0.012 * exact.max()


@pytest.mark.parametrize("name", ["sky-overcast", "sky-sunset", "studio-softboxes"])
def test_a_wall_beside_a_plane_takes_away_what_it_hides(name):
    """A plane that faces the viewer, and a wall that stands on it at the right: what that hides is known."""
    h, w, tall = 8, 64, 0.8
    place = 1.4 * (1 - (np.arange(w) + 0.5) / w)  # how far left of the wall

    def seen(directions):  # (w, m): nothing is seen under the top of the wall, and nothing behind the plane
        x, z = directions[:, 0][None], directions[:, 2][None]
        return ((x <= 0) | (z * place[:, None] > x * tall)) & (z > 0)

    codes = np.broadcast_to((255 * seen(DIRECTIONS.astype(float)).T)[:, None], (len(DIRECTIONS), h, w))
    field = VisibilityField(
        Visibility(np.ascontiguousarray(codes, np.uint8), DIRECTIONS),
        np.ones((h, w), np.float32),
        np.broadcast_to(np.float32([0, 0, 1])[:, None, None], (3, h, w)),
        FOCAL,
    )
    given = sky(name, rotation=-40.0)
    cells = env.convolved(env.unpack(given), field.cell)
    share = field.share_of(lambda d: env.look_up(cells, d, -40.0), np.ones((h, w), np.float32))[:, 0].T
    facing = np.broadcast_to([0.0, 0.0, 1.0], (w, 3))
    exact = reference.environment_light(facing, env.unpack(given), -40.0, seen)
    open_ = reference.environment_light(facing, env.unpack(given), -40.0)
    assert rms(share * open_ - exact) < 0.25 * rms(open_ - exact)  # of all that shadows do, three quarters at least
    assert np.abs((share * open_ - exact).mean(0)).max() < 0.04 * open_.max()


def test_the_directions_of_a_field_and_their_mirror_images_share_the_sphere():
    """The cells are 4 pi in all; times the cosine, those above a surface are pi, however it faces."""
    field = VisibilityField(
        Visibility(np.full((len(DIRECTIONS), 4, 4), 255, np.uint8), DIRECTIONS),
        np.ones((4, 4), np.float32),
        np.broadcast_to(np.float32([0, 0, 1])[:, None, None], (3, 4, 4)),
        FOCAL,
    )
    assert len(DIRECTIONS) < len(field.all_around) < 2 * len(DIRECTIONS) and field.cells.min() > 0
    assert abs(field.cells.sum() / (4 * np.pi) - 1) < 1e-4
    over = np.maximum(normals(200) @ field.all_around.T, 0) @ field.cells
    assert np.abs(over / np.pi - 1).max() < 0.1 and abs(over.mean() / np.pi - 1) < 0.01


def test_a_lamp_in_an_environment_casts_the_shadow_of_a_light_there():
    geometry, _, _ = ball_and_wall(72, 96)
    rng = np.random.default_rng(3)
    codes = rng.integers(0, 2, (len(DIRECTIONS), 72, 96), dtype=np.uint8) * 255
    grid = prepare_grid(replace(geometry, visibility=Visibility(codes, DIRECTIONS)), FIT)
    for k in range(0, len(DIRECTIONS), 5):
        share = grid.share_of(around(lit_only_from(DIRECTIONS[k])))
        light = grid.visibility(Light(direction=tuple(map(float, DIRECTIONS[k])), angle=0.1))
        lit = geometry.normals @ DIRECTIONS[k] > 0.3
        assert np.abs(share[0] - light)[lit].mean() < 0.12


@pytest.mark.parametrize("seed", range(24))
def test_near_the_oracle(seed):
    rng = np.random.default_rng(seed)
    rgb, geometry, fit = random_scene(rng, 40, 56, masked=seed % 2)
    name = list(skies.SKIES)[seed % len(skies.SKIES)]
    given = sky(name, rotation=float(rng.uniform(-360, 360)), intensity=float(rng.choice([0.3, 1, 2])))
    rig = Rig(ambient=0.1, environment=given, delight=float(rng.choice([0, 0.5, 1])), exposure=rng.choice([-1.0, 0.5]))
    maps = prepare(rgb, geometry, fit)
    q = snap_depth_edges(relative_inverse_depth(geometry.inverse_depth, fit))
    sides = [*np.moveaxis(geometry.normals, 2, 0)] + ([] if geometry.mask is None else [surface_share(geometry.mask)])
    sides = without_blends(np.stack(sides), q)
    slow = reference.relight(
        rgb,
        q,
        np.moveaxis(sides[:3], 0, 2),
        sides[3] if len(sides) > 3 else None,
        maps.band(WHOLE).occlusion,
        fit.light,
        fit.focal,
        rig,
        environment=env.unpack(given),
    )
    off = np.abs(relight(maps, rig).astype(int) - slow.astype(int)).max(2)
    assert (off <= 3).mean() >= 0.99 and off.mean() < 0.6, (name, off.max(), off.mean())


@pytest.mark.parametrize("roughness", [0.3, 0.5, 0.8, 1.0])
def test_an_even_light_is_mirrored_as_much_as_the_highlights_of_lights_say(roughness):
    n = normals(60, least=0.1)
    exact = reference.environment_light(n, np.ones((128, 256, 3)), brdf=lambda n, d: reference.ggx(n, d, roughness))
    found = looked_up(env.surround(around(EVEN), roughness)[3:], n)
    assert np.abs(found / exact - 1).max() < 0.06


@pytest.mark.parametrize("roughness", [0.2, 0.5])
def test_a_lamp_is_mirrored_where_it_is_reflected(roughness):
    toward = np.array([0.6, 0.48, 0.64])
    half = reference.normalise(toward + np.array([0, 0, 1]))
    table = env.surround(around(lit_only_from(toward)), roughness)[3]
    n = env.table_normals()
    brightest = n[np.where(n[:, 2] > 0, table, 0).argmax()]
    assert np.degrees(np.arccos(brightest @ half)) < 8


# -- what must hold


def test_white_light_from_everywhere_is_ambient_light():
    rgb, geometry, fit = random_scene(np.random.default_rng(5), 40, 56, masked=False)
    for seen in (None, Visibility(np.full((len(DIRECTIONS), 40, 56), 255, np.uint8), DIRECTIONS)):
        maps = prepare(rgb, replace(geometry, visibility=seen), fit)
        plain, _ = illuminate(maps, Rig(ambient=1.0), WHOLE)
        mine, _ = illuminate(maps, Rig(ambient=0.0, environment=around(EVEN)), WHOLE)
        here = maps.band(WHOLE).occlusion > 0.98
        assert here.sum() > 100
        for plane in mine:
            assert np.abs(plane - plain[0])[here].max() < 0.01


def test_the_axes():
    """Its middle is ahead of the viewer, its right quarter right, its upper half up; it turns as its docstring says."""
    ahead, right, up, back = np.zeros((4, 32, 64, 3), np.float32)
    ahead[14:18, 31:33], right[14:18, 47:49], up[:3], back[14:18, [0, 63]] = 1, 1, 1, 1
    faces = np.float32([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]])

    def brightest(radiance, rotation=0.0):
        return int(looked_up(env.surround(around(radiance, rotation=rotation))[:3], faces)[:, 0].argmax())

    assert [brightest(r) for r in (right, up, back, ahead)] == [0, 2, 4, 5]
    assert [brightest(back, r) for r in (90, -90, 180)] == [0, 1, 5]
    assert brightest(up, 77) == 2


def test_a_full_turn_is_none():
    for one, other in ((0.0, 360.0), (0.0, -360.0), (90.0, -270.0)):
        a, b = (env.surround(sky("sky-sunset", rotation=r), 0.4) for r in (one, other))
        assert np.abs(a - b).max() < 1e-3 * a.max()
    a, b = (env.surround(sky("sky-sunset", rotation=r)) for r in (0.0, 120.0))
    assert np.abs(a - b).max() > 0.1 * a.max()


def test_even_light_looks_the_same_however_it_is_turned():
    rgb, geometry, fit = random_scene(np.random.default_rng(6), 40, 56, masked=True)
    seen = np.random.default_rng(0).integers(0, 256, (len(DIRECTIONS), 40, 56), dtype=np.uint8)
    maps = prepare(rgb, replace(geometry, visibility=Visibility(seen, DIRECTIONS)), fit)
    first, *others = (
        relight(maps, Rig(ambient=0, environment=around(0.7 * EVEN, rotation=r), specular_strength=0.5))
        for r in (0, 45, -199)
    )
    for other in others:
        assert np.abs(first.astype(int) - other).max() <= 1


def test_intensity_is_linear():
    rgb, geometry, fit = random_scene(np.random.default_rng(7), 40, 56, masked=False)
    maps = prepare(rgb, geometry, fit)
    one, three = (
        illuminate(maps, Rig(ambient=0, environment=sky("sky-golden-hour", intensity=i), specular_strength=1), WHOLE)
        for i in (1.0, 3.0)
    )
    for a, b in zip([*one[0], *one[1]], [*three[0], *three[1]]):
        assert np.allclose(3 * a, b, rtol=1e-4, atol=1e-6)
    dark, _ = illuminate(maps, Rig(ambient=0, environment=sky("sky-golden-hour", intensity=0)), WHOLE)
    assert not any(plane.any() for plane in dark)


def test_a_sun_leaves_nothing_darker_than_black():
    """What is around it is a million times as dark."""
    radiance = 60000 * lit_only_from((0, 0, 1), 0.1) + 0.05
    table = env.surround(around(radiance, intensity=100), 0.3)
    assert table.min() >= 0
    away = looked_up(table, np.float32([[0, 0, -1]]))[0, :3]
    assert np.allclose(away, 5, rtol=0.05)


def test_strength_0_is_the_photo():
    rgb, geometry, fit = random_scene(np.random.default_rng(8), 40, 56, masked=True)
    rig = Rig(strength=0, environment=sky("sky-sunset"), specular_strength=1, exposure="auto")
    assert np.array_equal(relight(prepare(rgb, geometry, fit), rig), rgb)


def test_mirrored_light_lights_the_mirror_image():
    """The directions of the field are their own mirror image; so are the tables of normals."""
    n = normals(200)
    radiance = env.unpack(sky("sky-sunset", rotation=0))
    a = looked_up(env.surround(around(radiance), 0.5), n)
    b = looked_up(env.surround(around(radiance[:, ::-1]), 0.5), n * np.float32([-1, 1, 1]))
    assert np.abs(a - b).max() < 5e-3 * a.max()
    geometry, _, _ = ball_and_wall(72, 96)
    seen = np.random.default_rng(1).integers(0, 256, (len(DIRECTIONS), 72, 96), dtype=np.uint8)
    partner = (DIRECTIONS @ (DIRECTIONS * [-1, 1, 1]).T).argmax(1)
    flipped = replace(
        geometry,
        inverse_depth=geometry.inverse_depth[:, ::-1].copy(),
        normals=geometry.normals[:, ::-1] * np.float32([-1, 1, 1]),
        visibility=Visibility(np.ascontiguousarray(seen[partner][:, :, ::-1]), DIRECTIONS),
    )
    share = prepare_grid(replace(geometry, visibility=Visibility(seen, DIRECTIONS)), FIT).share_of(around(radiance))
    other = prepare_grid(flipped, FIT).share_of(around(radiance[:, ::-1]))
    assert np.abs(share - other[:, :, ::-1]).mean() < 2e-3


def test_shadows_of_no_strength_leave_ambient_occlusion():
    geometry, _, _ = ball_and_wall(72, 96)
    blind = Visibility(np.zeros((len(DIRECTIONS), 72, 96), np.uint8), DIRECTIONS)
    maps = prepare(np.full((72, 96, 3), 90, np.uint8), replace(geometry, visibility=blind), FIT)
    rows, given = slice(0, 72), around(EVEN)
    soft, hard = (
        illuminate(maps, Rig(ambient=0, environment=given, shadow_strength=s), rows)[0][1] for s in (0.0, 1.0)
    )
    assert np.abs(soft - maps.band(rows).occlusion).max() < 0.01
    facing = maps.band(rows).normals[2] > 0.999
    assert hard[facing].max() < 0.02  # nothing is seen of what is not behind the picture


def test_it_is_kept_while_it_does_not_change():
    geometry, _, _ = ball_and_wall(36, 48)
    grid = prepare_grid(geometry, FIT)
    given = sky("sky-sunset")
    assert grid.surround(given, None) is grid.surround(replace(given), None)
    assert grid.surround(given, None) is not grid.surround(replace(given, rotation=1.0), None)
    assert grid.nbytes > grid.surround(given, None).nbytes


# -- texels and tables


def test_every_normal_finds_its_place_in_the_table():
    n = normals(5000)
    found = env.table_normals()[env.normal_indices(*n.T)]
    assert np.degrees(np.arccos(np.clip((found * n).sum(1), -1, 1))).max() < 1.0
    assert np.allclose(env.table_normals()[env.normal_indices(*np.float32([[0], [0], [1]]))], (0, 0, 1))


@pytest.mark.parametrize("size", [(512, 256), (300, 150), (64, 32), (20, 10), (2, 1)])
def test_reducing_keeps_the_light(size):
    """What arrives from everywhere, by solid angle, is the same of the picture given and of the texels kept."""
    w, h = size
    given = np.random.default_rng(0).gamma(0.5, size=(h, w, 3)).astype(np.float32)
    kept = env.unpack(around(given))
    (_, there), (_, here) = reference.environment_texels(h, w), reference.environment_texels(*env.SIZE)
    total = (given * there[..., None]).sum((0, 1)), (kept * here[..., None]).sum((0, 1))
    assert np.allclose(*total, rtol=0.02 if w >= env.COLUMNS else 0.06)


def test_texels_are_where_the_reference_has_them():
    directions, area = reference.environment_texels(*env.SIZE)
    assert np.abs(env.texel_directions() - directions).max() < 1e-6
    assert np.abs(env.solid_angles() - area).max() < 1e-6 and abs(env.solid_angles().sum() / (4 * np.pi) - 1) < 1e-5


@pytest.mark.parametrize("text", ["", "AAAA", "!" * 16384, env.pack(EVEN)[:-4]], ids=["none", "few", "no", "cut"])
def test_what_are_no_texels_are_refused(text):
    with pytest.raises(ValueError):
        env.unpack(Environment(text))


@pytest.mark.parametrize("value", [np.inf, np.nan, -1.0])
def test_light_that_cannot_be_is_refused(value):
    texels = np.full((env.ROWS, env.COLUMNS, 3), value, "<f2")
    with pytest.raises(ValueError):
        env.unpack(Environment(base64.b64encode(texels.tobytes()).decode()))


def test_the_built_in_ones():
    """Light enough to see by, not of one colour, and each unlike the others."""
    facing = np.float32([[0, 0, 1]])
    lit = {name: looked_up(env.surround(sky(name)), facing)[0] for name in skies.SKIES}
    assert len(lit) >= 6 and all(name.startswith(("sky-", "studio-")) for name in lit)
    assert all(0.2 < value.mean() < 2 for value in lit.values())
    tables = [env.surround(sky(name)) for name in skies.SKIES]
    for k, one in enumerate(tables):
        assert all(np.abs(one / one.mean() - other / other.mean()).mean() > 0.05 for other in tables[:k])
    assert lit["sky-sunset"][0] > 1.2 * lit["sky-sunset"][2]
