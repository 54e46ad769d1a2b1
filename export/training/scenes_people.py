"""People: portraits, close faces, busts, blend-shape heads, figures."""
from __future__ import annotations

from dataclasses import replace

import numpy as np

from . import geometry as G
from .heads import skin_colour
from .materials import Material
from .scenes_common import (UPRIGHT, f32, ground, hue, lighting, plain, printed, small_things, stand, surface, yaw)
from .scenes_indoor import furniture
from .scenes_outdoor import tree


def stone(rng):
    k = rng.random()
    if k < .5:
        return Material(color=tuple(np.ones(3) * rng.uniform(.45, .85) * rng.uniform(.93, 1, 3)), rough=rng.uniform(.4, 1), spec=rng.choice([0, .03]))
    if k < .65:
        return Material(color=(.45, .28, .12), rough=rng.uniform(.25, .5), metal=1.)
    return plain(rng, metal=0.)


def dressed(rng, lib, mesh):
    """The mesh's materials with other clothes now and then: prints and stripes on shirts."""
    if rng.random() > .45:
        return mesh
    out = list(mesh.materials)
    for i, m in enumerate(out):
        if m.rough > .65 and not m.alpha and i == 1:
            k = rng.random()
            key = lib.made(rng, 'stripe', 'stripe', 'weave', 'print') if k < .6 else lib.photo(rng, 'fabric')
            out[i] = m.but(tex=key or lib.made(rng, 'stripe'), mode='picture', color=(rng.uniform(.5, 1),) * 3, tile=1.) if k < .8 else \
                m.but(color=tuple(hue(rng, .9, .1, 1.)))
    return replace(mesh, materials=out)


def mannequin(s, rng, pos, rot):
    """Procedural stand-in for a person (no assets): ball head, capsule trunk, limbs, clothes. Returns head centre."""
    c, shirt, legs = Material(color=tuple(skin_colour(rng)), rough=.5), surface(rng, s.library, (), ('stripe', 'print', 'weave'), .4, .4, 0), plain(rng)
    ball = G.superquadric(rng, 1., 1., 32)
    at = lambda p: np.asarray(pos) + rot @ np.asarray(p, f32)
    for size, p, m in (((.16, .22, .19), (0, 1.6, 0), c), ((.1, .16, .1), (0, 1.46, 0), c), ((.42, .62, .26), (0, 1.15, 0), shirt),
                       ((.36, .3, .26), (0, .88, 0), legs), ((.04, .05, .05), (0, 1.59, .095), c)):
        s.add(ball, m, rot, np.array(size) / 2, at(p))
    hair = Material(color=tuple(hue(rng, .5, .01, .3)), rough=.5)
    s.add(G.blob(rng, 32, .06), hair, rot, (.095, .09, .105), at((0, 1.655, -.025)))
    for x in (-1, 1):
        s.add(ball, shirt, rot, (.06, .3, .065), at((x * .24, 1.12, 0)))
        s.add(ball, legs, rot, (.085, .45, .095), at((x * .1, .45, 0)))
        s.add(ball, Material(color=(.02, .02, .02), rough=.15), rot, .011, at((x * .03, 1.62, .082)))
    return at((0, 1.6, 0))


def person(s, rng, x=0., z=0., facing=0., kind='human'):
    """A person standing at (x, 0, z), looking along yaw `facing` (0 = +z). Returns (head centre, looking direction)."""
    m = s.library.pick(rng, kind)
    if m is None:
        r = yaw(facing)
        return mannequin(s, rng, (x, 0, z), r), r @ f32([0, 0, 1])
    m = dressed(rng, s.library, m)
    r = yaw(facing)
    lift = -m.v[:, 1].min() * m.scale if kind == 'human' else .9 - m.v[:, 1].min() * m.scale
    p = np.array([x, lift, z])
    s.add(m, None, r, m.scale, p)
    return p + r @ (m.head * m.scale), r @ m.forward


def wear_hat(s, rng, hc, r):
    s.add(G.superquadric(rng, .6, 1., 28), surface(rng, s.library, ('fabric',), ('weave', 'stripe', 'noise'), .2, .5), r,
          np.array([.1, .1, .12]), hc + r @ f32([0, .09, -.015]))
    if rng.random() < .5:
        s.add(G.cylinder(.17, .012), plain(rng), r, 1., hc + r @ f32([0, .07, .02]))


def behind(s, rng):
    """What is behind a portrait: wall, trees, room, curtain, sky."""
    k = rng.random()
    if k < .32:
        d = rng.uniform(.4, 4)
        m = surface(rng, s.library, ('wall', 'brick', 'wood', 'stone', 'fabric'), ('noise', 'brick', 'stripe', 'facade', 'page', 'print'), 1.5, .4, .3)
        s.box(m, (14, 7, .1), (0, 2, -d), yaw(rng.normal(0, .3)))
        if rng.random() < .4:
            for _ in range(int(rng.integers(1, 4))):
                s.box(printed(rng, s.library), (*rng.uniform(.3, 1.2, 2), .04), (rng.uniform(-1.2, 1.2), rng.uniform(1, 2.1), -d + .09))
    elif k < .52:
        for _ in range(int(rng.integers(3, 10))):
            tree(s, rng, rng.uniform(-8, 8), 0, -rng.uniform(2.5, 20), rng.uniform(2, 6))
        if rng.random() < .5:
            m = s.library.pick(rng, 'building')
            if m is not None:
                stand(s, rng, m, None, rng.uniform(8, 20), rng.uniform(-8, 8), 0, -rng.uniform(14, 30))
    elif k < .72:
        for _ in range(int(rng.integers(2, 7))):
            furniture(s, rng, rng.uniform(-2.5, 2.5), -rng.uniform(1, 3.5), rng.integers(4) * np.pi / 2)
        s.box(surface(rng, s.library, ('wall', 'wood'), p_plain=.5), (14, 6, .1), (0, 2.4, -4.5))
    elif k < .82:
        s.add(G.cloth(rng, 90), surface(rng, s.library, ('fabric',), ('stripe', 'weave', 'noise'), .5), UPRIGHT, (3, rng.uniform(.5, 2), 3),
              (0, 1.5, -rng.uniform(.9, 2)))
    elif k < .9:
        s.box(Material(color=(.004,) * 3, spec=0., rough=1.), (30, 20, .1), (0, 2, -rng.uniform(2, 5)))


def portrait(s, rng):
    """One person (or statue, or head), now and then others around."""
    lib, kind = s.library, ''
    lighting(s, rng)
    k = rng.random()
    turn = rng.normal(0, .35)
    if lib.has_head and k < .27:
        m = lib.random_head(rng, stone(rng) if rng.random() < .2 else None)
        r, hc = yaw(turn), np.array([0, 1.6, 0])
        s.add(m, None, r, 1., hc)
        look = r @ f32([0, 0, 1])
        if rng.random() < .25:
            wear_hat(s, rng, hc, r)
        s.add(G.superquadric(rng, .8, .9, 32), surface(rng, lib, ('fabric',), ('stripe', 'weave', 'print'), .3, .3), r, (.22, .26, .13), hc + [0, -.42, -.03])
        frame = rng.choice(['close', 'head', 'bust'], p=[.4, .4, .2])
    elif k < .38 and lib.names('statue'):
        m = lib.pick(rng, 'statue', 'statue', 'head', 'character')
        h = stand(s, rng, m, stone(rng) if rng.random() < .7 else None, rng.uniform(.6, 2), 0, .8, 0, yaw(turn))
        hc, look = np.array([0, .8 + h * .8, 0]), f32([0, 0, 1])
        frame = rng.choice(['head', 'bust', 'half', 'full'])
    else:
        kind = 'bust' if rng.random() < .6 else 'human'
        hc, look = person(s, rng, 0, 0, turn, kind)
        frame = rng.choice(['close', 'head', 'bust', 'half', 'full'], p=[.28, .4, .32, 0, 0] if kind == 'bust' else [.1, .15, .25, .25, .25])
        if rng.random() < .08:
            wear_hat(s, rng, hc, yaw(np.arctan2(look[0], look[2])))
    others = int(rng.choice([0, 0, 0, 1, 2, 4]))
    for _ in range(others):
        person(s, rng, rng.choice([-1, 1]) * rng.uniform(.55, 1.8), -rng.uniform(-.1, 3), rng.normal(0, .7))
    if rng.random() < .8:
        ground(s, rng, 0, 30, .005)
    behind(s, rng)
    if rng.random() < .12:                          # a table in front
        s.box(surface(rng, lib, ('wood', 'marble', 'metal')), (1.6, .04, .7), (0, 1.0, .55))
        small_things(s, rng, 0, 1.02, .55, (.6, .2), int(rng.integers(1, 5)), .18)
    if rng.random() < .45:
        s.lamp(hc + rng.normal(0, 1, 3) * [1.2, .6, .4] + [0, .5, 1.1], hue(rng, .35, .7, 1) * rng.uniform(1, 8), rng.uniform(.03, .5))
    size = {'close': rng.uniform(.13, .26), 'head': rng.uniform(.27, .42), 'bust': rng.uniform(.42, .62 if kind == 'bust' else .8), 'half': rng.uniform(.8, 1.2), 'full': rng.uniform(1.7, 2.3)}[frame]
    az0 = np.arctan2(look[0], look[2])
    for _ in range(8):
        at = np.array(hc, float)
        at[1] -= {'close': .01, 'head': .02, 'bust': .12, 'half': .35, 'full': hc[1] / 2}[frame] * rng.uniform(.5, 1.2)
        at += rng.normal(0, .09, 3) * size
        a = (az0 if rng.random() < .75 else 0) + (rng.normal(0, .5) if rng.random() < .92 else rng.uniform(-3.1, 3.1))
        p = rng.normal(.02, .14)
        yield at, np.array([np.sin(a) * np.cos(p), np.sin(p), np.cos(a) * np.cos(p)]), size, (18, 60)
