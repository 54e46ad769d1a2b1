"""What a surface sees: for each point of a picture, which of a fixed set of directions nothing in the picture blocks.

The truth is traced. A blocker counts only where it lies inside the picture and nearer than FAR median distances: a wall
behind the camera, or a ceiling, must not keep a light out that someone adds to the photograph.
"""

from __future__ import annotations

import numpy as np

from . import kernels as K
from .directions import directions
from .renderer import pixel_rays
from .scene import Scene

f32 = np.float32
FAR = 3.0  # median distances


def trace(scene: Scene, eye: np.ndarray, cam: np.ndarray, focal: float, w: int, h: int) -> dict[str, np.ndarray]:
    """Labels on a grid (h, w) of the view: `vis`, uint8 (h, w, K / 8), bits as of np.packbits, 1 where a direction is
    open, 0 where it is blocked or below the surface; `alb`, uint8 (h, w, 3), 255 * sqrt of the linear albedo, 0 where
    there is no surface, or one of metal, or one that glows.
    """
    d_all = directions()
    o, d, _ = pixel_rays(w, h, eye, cam, focal)
    t, p, n, _, albedo, x = scene.hit(o, d, 1 / (w * focal))
    on = np.flatnonzero(x[:, 0] >= 0)
    seen = np.zeros((h * w, len(d_all)), bool)
    dull = np.zeros(h * w, bool)
    if len(on):
        far = float(FAR * np.median(t[on]))
        for k, toward in enumerate((d_all @ cam).astype(f32)):
            lit = on[n[on] @ toward > 0]
            if len(lit):
                seen[lit, k] = ~_blocked(p[lit], toward, scene, eye, cam, (focal, h / w, far))
        material = scene.m[x[on, 0].astype(int)]
        dull[on] = (x[on, 2] < 0.5) & (material[:, K.EMIT] == 0)
    coded = np.rint(255 * np.sqrt(np.clip(albedo, 0, 1))) * dull[:, None]
    return {
        "vis": np.packbits(seen.reshape(h, w, -1), axis=2),
        "alb": coded.astype(np.uint8).reshape(h, w, 3),
    }


def _blocked(
    p: np.ndarray, toward: np.ndarray, scene: Scene, eye: np.ndarray, cam: np.ndarray, view: tuple[float, float, float]
) -> np.ndarray:
    """(n,) bool: whether rays from points p (n, 3) meet something that counts.

    view: the focal length in widths of the picture, its height in widths, and how far away blockers count.
    """
    focal, tall, far = view
    rays = np.ascontiguousarray(np.broadcast_to(toward, p.shape))
    hit = scene.shade.run(np.ascontiguousarray(p), rays, output=True)
    there = hit["primID"] >= 0
    way = np.where(there, hit["tfar"], f32(0))
    x, y, z = (((p + way[:, None] * toward) - eye) @ cam.T).T
    inside = (z < -1e-4) & (np.abs(x) * focal < -0.5 * z) & (np.abs(y) * focal < -0.5 * tall * z)
    return there & inside & (way < far)
