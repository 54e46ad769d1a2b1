"""The rigs of a light that moves: exact at key frames, on the sphere between them, closed where it is a loop."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.light.environment import pack, unpack
from server.light.lights import Environment, Light, Rig, blackbody, hex_color, unit
from server.light.motion import Orbit, along, between, orbit, slerp

numbers = st.floats(-1, 1, allow_nan=False)
directions = st.tuples(numbers, numbers, numbers).filter(lambda v: math.hypot(*v) > 0.01).map(unit)
parts = st.floats(0, 1)


def toward(*direction, **more):
    return Rig(lights=(Light(direction=unit(direction)),), **more)


def angle(a, b):
    """Radians between two unit vectors."""
    return math.acos(np.clip(np.dot(a, b), -1, 1))


def direction(rig):
    return np.array(rig.lights[0].direction)


# -- directions


@settings(deadline=None)
@given(directions, directions, parts)
def test_directions_move_evenly_on_the_shortest_arc(a, b, t):
    between_them, whole = np.array(slerp(a, b, t)), angle(a, b)
    assert math.isclose(np.linalg.norm(between_them), 1, abs_tol=1e-9)
    assert math.isclose(angle(a, between_them), t * whole, abs_tol=1e-5)
    assert math.isclose(angle(between_them, b), (1 - t) * whole, abs_tol=1e-5)


def test_the_middle_of_two_directions_is_their_bisector():
    assert np.allclose(slerp((1, 0, 0), (0, 1, 0), 0.5), [math.sqrt(0.5), math.sqrt(0.5), 0])


@given(directions, parts)
def test_opposite_directions_are_joined_by_way_of_the_viewer(a, t):
    path = np.array(slerp(a, (-a[0], -a[1], -a[2]), t))
    assert math.isclose(np.linalg.norm(path), 1, abs_tol=1e-6)
    assert math.isclose(angle(a, path), t * math.pi, abs_tol=1e-3)
    if 1e-3 < abs(a[2]) < 0.999:
        assert slerp(a, (-a[0], -a[1], -a[2]), 0.5)[2] > 0


def test_a_light_that_goes_behind_the_scene_passes_over_the_top():
    assert np.allclose(slerp((0, 0, 1), (0, 0, -1), 0.5), [0, 1, 0], atol=1e-9)


# -- between two rigs


def test_colours_meet_in_linear_light_and_temperatures_with_them():
    red, blue = hex_color("#ff0000"), hex_color("#0000ff")
    rigs = [Rig(lights=(Light(color=color, intensity=k),)) for color, k in ((red, 1.0), (blue, 3.0))]
    middle = between(*rigs, 0.5).lights[0]
    assert np.allclose(middle.color, (np.array(red) + blue) / 2) and middle.intensity == 2
    warm, cold = (Rig(lights=(Light(color=blackbody(k)),)) for k in (2000, 10000))
    quarter = between(warm, cold, 0.25).lights[0].color
    assert np.allclose(quarter, 0.75 * np.array(blackbody(2000)) + 0.25 * np.array(blackbody(10000)))
    assert math.isclose(np.dot([0.2126, 0.7152, 0.0722], quarter), 1, abs_tol=1e-3), "as bright as either"


def test_all_other_numbers_are_linear():
    names = ("ambient", "strength", "delight", "shadow_strength", "specular_strength", "roughness", "exposure")
    lamp = dict.fromkeys(("angle", "radius", "range", "cone", "blend", "intensity"), 1.0)
    one = Rig(lights=(Light(kind="spot", position=(0, 0, 1), **lamp),), **dict.fromkeys(names, 0.0))
    other = Rig(
        lights=(Light(kind="spot", position=(4, 8, 5), target=(1, 0, 0), **dict.fromkeys(lamp, 5.0)),),
        **dict.fromkeys(names, 1.0),
    )
    middle = between(one, other, 0.25)
    assert [getattr(middle, name) for name in names] == [0.25] * len(names)
    assert [getattr(middle.lights[0], name) for name in lamp] == [2.0] * len(lamp)
    assert middle.lights[0].position == (1, 2, 2) and middle.lights[0].target == (0.25, 0, 0)


def test_what_stays_the_same_stays_so_to_the_bit():
    rig = Rig(lights=(Light(color=hex_color("#12a4c8"), intensity=0.1), Light(kind="point")), ambient=0.1, exposure=0.3)
    assert between(rig, rig, 1 / 3) == rig


def test_a_spot_that_turns_over_always_shines_somewhere():
    spots = [Rig(lights=(Light(kind="spot", position=(0, 0, z), target=(0, 0, 0)),)) for z in (1.0, -1.0)]
    middle = between(*spots, 0.5).lights[0]
    assert middle.position != middle.target


def test_environments_turn_fade_and_blend():
    gray, bright = (pack(np.full((32, 64, 3), v, np.float32)) for v in (1.0, 4.0))
    one, same = Environment(gray, 1.0, -90), Environment(gray, 3.0, 90)
    assert between(Rig(environment=one), Rig(environment=same), 0.25).environment == Environment(gray, 1.5, -45)
    assert between(Rig(environment=one), Rig(), 0.25).environment == Environment(gray, 0.75, -90)
    assert between(Rig(), Rig(environment=same), 0.25).environment == Environment(gray, 0.75, 90)
    blend = between(Rig(environment=one), Rig(environment=Environment(bright, 2.0)), 0.5).environment
    assert np.allclose(unpack(blend), 4.5) and blend.rotation == -45


def test_automatic_and_fixed_exposures_do_not_mix():
    assert between(Rig(exposure="auto"), Rig(exposure="auto"), 0.5).exposure == "auto"
    with pytest.raises(ValueError):
        between(Rig(exposure="auto"), Rig(exposure=1.0), 0.5)


# -- along key frames


KEYS = [toward(1, 0, 0, ambient=0.1), toward(0, 1, 0, ambient=0.4), toward(0, 0, 1, ambient=0.2)]


@pytest.mark.parametrize("frames", [2, 3, 7, 48, 120])
def test_ends_are_exact(frames):
    rigs = along(KEYS, frames, loop=False)
    assert len(rigs) == frames and rigs[0] == KEYS[0] and rigs[-1] == KEYS[-1]


def test_key_frames_are_met_and_evenly_apart():
    rigs = along(KEYS, 9, loop=False)
    assert rigs[4] == KEYS[1] and rigs[2] == between(KEYS[0], KEYS[1], 0.5)
    rigs = along(KEYS, 12, loop=True)
    assert [rigs[0], rigs[4], rigs[8]] == KEYS


@settings(deadline=None, max_examples=40)
@given(st.lists(directions, min_size=2, max_size=16, unique=True), st.integers(2, 120))
def test_a_loop_closes_without_a_doubled_frame(ways, frames):
    keys = [toward(*way) for way in ways]
    rigs = along(keys, frames, loop=True)
    assert len(rigs) == frames and rigs[0] == keys[0]
    assert rigs == along([*keys, keys[0]], frames + 1, loop=False)[:-1], "one more frame would be the first again"
    assert rigs == along([*keys, keys[0]], frames, loop=True), "whoever closes it by hand gets the same"


# -- orbits


@settings(deadline=None)
@given(st.sampled_from([-4.0, -1.0, -0.3, 0.25, 1.0, 2.5, 3.0]), st.floats(-80, 80), st.integers(2, 120), st.booleans())
def test_an_orbit_goes_round_the_viewers_axis(turns, elevation, frames, loop):
    rigs = orbit(Orbit(turns, elevation), frames, loop)
    ways = np.array([direction(rig) for rig in rigs])
    assert ways.shape == (frames, 3) and np.allclose(np.linalg.norm(ways, axis=1), 1)
    assert np.allclose(ways[:, 2], math.sin(math.radians(elevation)))
    assert ways[0, 1] > 0 and abs(ways[0, 0]) < 1e-9, "from the top"
    assert all(rig.exposure == "auto" and rig == replace(rigs[0], lights=rig.lights) for rig in rigs)


@pytest.mark.parametrize("turns", [1, -2, 4])
def test_whole_turns_close_with_even_steps(turns):
    ways = np.array([direction(rig) for rig in orbit(Orbit(turns, 30), 48, True)])
    steps = np.linalg.norm(np.roll(ways, -1, 0) - ways, axis=1)
    assert np.ptp(steps) < 1e-9 and steps[0] > 0.05
    quarter = ways[48 // abs(turns) // 4]
    assert quarter[0] * turns > 0.8, "clockwise to the viewer's right where turns are positive"


def test_a_part_of_a_turn_swings_there_and_back():
    ways = np.array([direction(rig) for rig in orbit(Orbit(0.5, 0), 48, True)])
    assert np.allclose(ways[24], [0, -1, 0], atol=1e-9)
    assert np.allclose(ways[1:], ways[:0:-1]), "back as it went"
    assert len({tuple(np.round(w, 12)) for w in ways[:25]}) == 25, "no frame twice on the way"


def test_turns_end_where_they_are_told_without_a_loop():
    ways = [direction(rig) for rig in orbit(Orbit(0.25, 0), 10, False)]
    assert np.allclose(ways[-1], [1, 0, 0], atol=1e-9)
