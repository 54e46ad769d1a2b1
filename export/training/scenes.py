"""The mix of scenes, and cameras that see something worth learning from."""

from __future__ import annotations

import numpy as np

from . import scenes_indoor, scenes_lived, scenes_objects, scenes_outdoor, scenes_people, scenes_still
from .assets import Library
from .renderer import look_at, pixel_rays
from .scene import Scene, Shot

KINDS = {
    "room": (0.10, scenes_indoor.room),
    "lived": (0.12, scenes_lived.lived),
    "outdoor": (0.16, scenes_outdoor.street),
    "portrait": (0.22, scenes_people.portrait),
    "table": (0.15, scenes_objects.table),
    "clutter": (0.10, scenes_objects.clutter),
    "still": (0.10, scenes_still.still),
    "object": (0.06, scenes_objects.single),
    "carved": (0.06, scenes_objects.carved),
    "animal": (0.05, scenes_objects.animal),
    "cloth": (0.03, scenes_objects.cloth),
    "facade": (0.03, scenes_outdoor.facade),
    "skyline": (0.12, scenes_outdoor.skyline),
}
ALONE = ("object", "carved")  # things under a lamp of their own, kept away from the lens


def choose(rng: np.random.Generator) -> str:
    """A kind of scene, drawn by the shares in KINDS."""
    p = np.array([k[0] for k in KINDS.values()])
    return str(rng.choice(list(KINDS), p=p / p.sum()))


def sees(scene: Scene, eye: np.ndarray, cam: np.ndarray, focal: float, near: float = 0.02, share: float = 0.97) -> bool:
    """Whether a view is worth rendering.

    It must hold enough surface, none of which touches the lens, with enough depth or slope, and no material on more
    than `share` of it. `near` is the smallest distance allowed, relative to the median one.
    """
    o, d, cos = pixel_rays(20, 20, eye, cam, focal)
    prim, _, _, t = scene.trace(o, d)
    hit = prim >= 0
    if hit.mean() < 0.15:
        return False
    t, ids = t[hit], scene.fm[prim[hit]]
    z = t * cos[hit]
    return (
        t.min() > near * np.median(t)
        and t.min() > 0.04
        and np.percentile(z, 97) / np.percentile(z, 3) > 1.03
        and np.bincount(ids).max() < share * len(prim)
    )


def shoot(rng: np.random.Generator, shot: Shot) -> tuple[np.ndarray, np.ndarray, float]:
    """Turn a candidate (see scene.Shot) into a camera (eye, rows, focal), focal = fx / width."""
    at, view, size, (lo, hi) = shot
    fov = np.deg2rad(rng.uniform(lo, hi))
    focal = 0.5 / np.tan(fov / 2)
    at = np.asarray(at, float)
    eye = np.asarray(size, float) if view is None else at + np.asarray(view) * (size * focal)
    roll = rng.normal(0, 0.04) if rng.random() < 0.92 else rng.normal(0, 0.3)
    return eye, look_at(eye, at, roll), focal


def make(
    library: Library, rng: np.random.Generator, views: int = 2, kind: str | None = None
) -> tuple[str, Scene, list[tuple[np.ndarray, np.ndarray, float]]] | None:
    """A built scene and its cameras: (kind, scene, [(eye, camera rows, focal), ...]), or None when no camera saw
    enough.
    """
    kind = kind or choose(rng)
    scene = Scene(library)
    shots = list(KINDS[kind][1](scene, rng))
    cams = [shoot(rng, s) for s in shots]
    flash = rng.random() < 0.06 and kind not in ALONE
    if flash:
        eye, cam, _ = cams[0]
        far = 1.0 if shots[0][1] is None else float(shots[0][2])
        scene.lamp(
            eye + 0.05 * far * cam[0] + 0.08 * far * cam[1], np.ones(3) * rng.uniform(2, 15) * far * far * 2, 0.02
        )
    scene.lights = scene.lights[:4]
    scene.build()
    limit = 0.2 if kind in ALONE else 0.02
    limit = 0.01 if kind in ("outdoor", "skyline") else limit
    good: list[tuple[np.ndarray, np.ndarray, float]] = []
    for share in (0.6, 0.97):  # views with several things in them are preferred
        for c in cams[:1] if flash else cams:
            if len(good) < views and not any(c is g for g in good) and sees(scene, *c, near=limit, share=share):
                good.append(c)
    return (kind, scene, good) if good else None
