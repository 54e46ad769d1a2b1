"""Engines for tests: quick, deterministic, and some that misbehave."""

import dataclasses
import hashlib
import threading
import time

import numpy as np

from server.scene.geometry import Geometry, Visibility


class SphereEngine:
    """Every photograph shows a sphere before a wall: analytic depth, normals and mask, the same for the same size.

    `side` is the long side of its grid, `seconds` how long an analysis takes, `calls` how many were made.
    """

    def __init__(self, side: int = 96, seconds: float = 0.0, mask: bool = False, focal=None):
        self.side, self.seconds, self.mask, self.focal = side, seconds, mask, focal
        self.calls, self.lock = 0, threading.Lock()

    def analyse(self, rgb: np.ndarray) -> Geometry:
        with self.lock:
            self.calls += 1
        if self.seconds:
            time.sleep(self.seconds)
        assert rgb.ndim == 3 and rgb.shape[2] == 3 and rgb.dtype == np.uint8, (rgb.shape, rgb.dtype)
        scale = min(1.0, self.side / max(rgb.shape[:2]))
        h, w = (max(1, round(s * scale)) for s in rgb.shape[:2])
        return sphere(h, w, self.mask, self.focal)

    def describe(self) -> list:
        name = f"sphere-{self.side}"
        return [
            {
                "format": 1,
                "name": name,
                "sha256": hashlib.sha256(name.encode()).hexdigest(),
                "licence": "MIT",
                "roles": ["depth", "normals", "mask"],
                "roles_filled": ["depth", "normals"],
                "provider": "CPUExecutionProvider",
            }
        ]


FakeEngine = SphereEngine


class SeeingEngine(SphereEngine):
    """The same, and says what the surfaces see: each direction is dark on a stripe of its own."""

    def analyse(self, rgb):
        geometry = super().analyse(rgb)
        h, w = geometry.inverse_depth.shape
        angles = np.arange(6) * np.pi / 3
        directions = np.stack([np.cos(angles) * 0.8, np.sin(angles) * 0.8, np.full(6, 0.6)], 1).astype(np.float32)
        seen = np.full((6, h, w), 255, np.uint8)
        for k in range(6):
            seen[k, :, k * w // 6 : (k + 1) * w // 6] = 40 * k
        return dataclasses.replace(geometry, visibility=Visibility(seen, directions))


def sphere(h: int, w: int, mask: bool = False, focal=None) -> Geometry:
    """A sphere in the middle, its radius 0.7 of half the short side; the wall behind it faces the viewer."""
    x = ((np.arange(w) + 0.5) * 2 - w) / min(h, w) / 0.7
    y = (h - (np.arange(h) + 0.5) * 2)[:, None] / min(h, w) / 0.7
    z = np.sqrt(np.maximum(1 - x * x - y * y, 0))
    inside = x * x + y * y < 1
    normals = np.stack([np.where(inside, x + 0 * y, 0), np.where(inside, y + 0 * x, 0), np.where(inside, z, 1)], 2)
    depth = 0.3 + 0.5 * np.where(inside, z, 0)
    return Geometry(
        inverse_depth=depth.astype(np.float32),
        normals=normals.astype(np.float32),
        mask=inside.astype(np.float32) if mask else None,
        focal=focal,
    )


class Raising(SphereEngine):
    """Fails on every picture."""

    def analyse(self, rgb):
        super().analyse(rgb)
        raise RuntimeError("/secret/path: the engine gave up")


class NotANumber(SphereEngine):
    """Says nothing anybody could use."""

    def analyse(self, rgb):
        g = super().analyse(rgb)
        return Geometry(inverse_depth=np.full_like(g.inverse_depth, np.nan), normals=g.normals)


class Gated(SphereEngine):
    """Waits in `analyse` until `open` is set; `entered` tells that it waits."""

    def __init__(self, **options):
        super().__init__(**options)
        self.open, self.entered = threading.Event(), threading.Event()

    def analyse(self, rgb):
        self.entered.set()
        self.open.wait(60)
        return super().analyse(rgb)
