"""Procedural skies: layers of clouds over a gradient, by day, at dusk, in a storm, in haze and at night.

A layer is fractal noise on a plane above the viewer, so that clouds grow smaller and closer toward the horizon. Thin
clouds pass light and thick ones are dark below, and their sides toward the sun are lit, from below when it is low.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Callable, NamedTuple

import cv2
import numpy as np

f32 = np.float32
TILE = 512  # pixels of the noise, which repeats


class Mood(NamedTuple):
    """Colours, linear RGB: of the sky overhead and at the horizon, of clouds where they are lit and where they are
    thick; and how much of the sky the clouds cover, 0..1.
    """

    zenith: tuple[float, float, float]
    horizon: tuple[float, float, float]
    lit: tuple[float, float, float]
    thick: tuple[float, float, float]
    cover: tuple[float, float]


MOODS = {
    "fair": Mood((0.12, 0.28, 0.75), (0.55, 0.7, 0.9), (1.3, 1.3, 1.3), (0.55, 0.58, 0.65), (0.1, 0.6)),
    "overcast": Mood((0.5, 0.54, 0.6), (0.7, 0.72, 0.74), (0.85, 0.86, 0.88), (0.32, 0.34, 0.37), (0.8, 1.1)),
    "storm": Mood((0.2, 0.24, 0.3), (0.6, 0.6, 0.58), (0.5, 0.5, 0.52), (0.06, 0.07, 0.09), (0.65, 1.1)),
    "sunset": Mood((0.12, 0.16, 0.4), (1.2, 0.6, 0.25), (1.3, 0.55, 0.3), (0.18, 0.14, 0.22), (0.2, 0.9)),
    "twilight": Mood((0.05, 0.15, 0.4), (0.3, 0.5, 0.75), (0.35, 0.5, 0.7), (0.04, 0.1, 0.22), (0.3, 1.0)),
    "haze": Mood((0.6, 0.68, 0.78), (0.95, 0.95, 0.92), (1.0, 1.0, 1.0), (0.75, 0.77, 0.8), (0.0, 0.7)),
    "night": Mood((0.004, 0.006, 0.015), (0.05, 0.035, 0.02), (0.05, 0.04, 0.035), (0.008, 0.008, 0.012), (0.0, 1.0)),
}
ODDS = (0.2, 0.15, 0.25, 0.12, 0.12, 0.1, 0.06)


def fractal(rng: np.random.Generator, slope: float, ridged: float, stretch: float = 1.0) -> np.ndarray:
    """Noise that repeats, float32 (TILE, TILE), with mean 0 and standard deviation 1.

    slope: of its spectrum, larger is smoother. ridged: 0..1, how much of it has sharp crests, as billows have.
    stretch: how much longer its features are along x.
    """
    fy, fx = np.fft.fftfreq(TILE)[:, None] * TILE, np.fft.rfftfreq(TILE)[None] * TILE * stretch
    radius = np.sqrt(fx * fx + fy * fy + 1.0)
    band = radius**-slope * (1 - np.exp(-((radius / 3.0) ** 2)))  # nothing as large as the tile
    layers = [np.fft.irfft2(np.fft.rfft2(rng.standard_normal((TILE, TILE))) * band, s=(TILE, TILE)) for _ in range(2)]
    smooth, crests = (layer / layer.std() for layer in layers)
    noise = (1 - ridged) * smooth + ridged * 1.5 * (0.8 - np.abs(crests))
    return ((noise - noise.mean()) / noise.std()).astype(f32)


def fresh(rng: np.random.Generator) -> np.ndarray:
    """New noise for a layer of clouds, float32 (TILE, TILE): billows, or streaks."""
    streaks = rng.random() < 0.2
    return fractal(
        rng, rng.uniform(1.3, 2.0), 0.0 if streaks else rng.uniform(0, 0.9), rng.uniform(0.15, 0.5) if streaks else 1.0
    )


@lru_cache(maxsize=48)
def kept(number: int) -> np.ndarray:
    """The noise of that number, 0..47, which is made once."""
    return fresh(np.random.default_rng([number, 6]))


def sampled(noise: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The noise at places x, y (in tiles), float32."""
    return cv2.remap(
        noise, (x % 1 * TILE).astype(f32), (y % 1 * TILE).astype(f32), cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP
    )


def clouded(
    rng: np.random.Generator, directions: np.ndarray, make: Callable[[np.random.Generator], np.ndarray] = fresh
) -> np.ndarray:
    """Linear radiance (h, w, 3) float32, about 1 in daylight, of a new sky along unit directions (h, w, 3), y up.

    Below the horizon the colour of the horizon goes on. `make` gives the noise of a layer of clouds.
    """
    mood = MOODS[str(rng.choice(list(MOODS), p=ODDS))]
    zenith, horizon, lit, thick = (
        np.maximum(np.array(c, f32) * rng.uniform(0.7, 1.4) * (1 + rng.normal(0, 0.08, 3)), 0).astype(f32)
        for c in mood[:4]
    )
    x, y, z = np.moveaxis(directions.astype(f32), 2, 0)
    up = np.maximum(y, 0)
    bearing = rng.uniform(0, 2 * np.pi)
    toward = np.maximum(x * f32(np.cos(bearing)) + z * f32(np.sin(bearing)), 0)  # the sun's side
    glow = f32(rng.uniform(0, 0.8)) * toward**2
    rise = np.clip(up ** f32(rng.uniform(0.35, 1.0)) - glow * (1 - up) * f32(0.5), 0, 1)[..., None]
    sky = horizon * (1 - rise) + zenith * rise
    for _ in range(int(rng.choice([1, 2, 3], p=[0.5, 0.35, 0.15]))):
        density, side = _layer(rng, x, z, up, bearing, rng.uniform(*mood.cover), make)
        dark = 1 - np.exp(-density * f32(rng.uniform(0.7, 2.2)))
        shine = np.clip(f32(rng.uniform(0.1, 0.5)) * side + f32(rng.uniform(0, 0.5)) * toward, -0.4, 1)
        cloud = lit + (thick - lit) * np.clip(dark - shine, 0, 1)[..., None]
        alpha = (1 - np.exp(-density * f32(rng.uniform(1.5, 6)))) * np.clip(1 + 60 * y, 0, 1)
        alpha = alpha[..., None]
        distant = np.exp(-up / f32(rng.uniform(0.02, 0.2)))[..., None]  # in the haze above the horizon
        sky = sky + (cloud + (horizon - cloud) * distant * f32(rng.uniform(0, 1)) - sky) * alpha
    return np.ascontiguousarray(sky, f32)


def _layer(
    rng: np.random.Generator,
    x: np.ndarray,
    z: np.ndarray,
    up: np.ndarray,
    bearing: float,
    cover: float,
    make: Callable[[np.random.Generator], np.ndarray],
) -> tuple[np.ndarray, np.ndarray]:
    """The density of a layer of clouds, 0 and more, and how far its sides face the sun, about -1..1."""
    noise = make(rng)
    scale, curve = rng.uniform(0.04, 0.25), rng.uniform(0.06, 0.3)  # the sky's vault keeps the far clouds finite
    turn, shift = rng.uniform(0, 2 * np.pi), rng.random(2)
    px, pz = x / (up + f32(curve)) * f32(scale), z / (up + f32(curve)) * f32(scale)
    c, s = f32(np.cos(turn)), f32(np.sin(turn))
    u, v = c * px - s * pz + f32(shift[0]), s * px + c * pz + f32(shift[1])
    here = sampled(noise, u, v)
    step = f32(rng.uniform(0.004, 0.02))
    du, dv = (c * np.cos(bearing) - s * np.sin(bearing)) * step, (s * np.cos(bearing) + c * np.sin(bearing)) * step
    there = sampled(noise, u + f32(du), v + f32(dv))
    density = np.maximum(here + f32(3 * (cover - 0.5)), 0) * f32(rng.uniform(0.3, 1.5))
    return density, np.clip((here - there) * f32(1.5), -1, 1)


def dome(rng: np.random.Generator, height: int = 512) -> np.ndarray:
    """A new sky as an equirectangular picture (height, 2 height, 3) float32, row 0 up, centre column toward -z."""
    elevation = (0.5 - (np.arange(height) + 0.5) / height) * np.pi
    azimuth = ((np.arange(2 * height) + 0.5) / height - 1) * np.pi
    flat = np.cos(elevation)[:, None]
    directions = np.stack(
        np.broadcast_arrays(np.sin(azimuth) * flat, np.sin(elevation)[:, None], -np.cos(azimuth) * flat), 2
    )
    return clouded(rng, directions)


def altered(rng: np.random.Generator, sky: np.ndarray) -> np.ndarray:
    """A photographed sky (h, w, 3), equirectangular, as another day might have shown it: mirrored, recoloured and with
    more or less contrast at all scales.
    """
    sky = np.asarray(sky[:, ::-1] if rng.random() < 0.5 else sky, f32)
    for sigma in (1.5, 6, 24):
        blurred = cv2.GaussianBlur(sky, (0, 0), sigma)
        sky = np.clip(sky + (sky - blurred) * f32(rng.uniform(-0.3, 1.2)), 0.2 * sky, 4 * sky)
    middle = max(float(np.median(sky)), 1e-4)
    out = middle * (sky / f32(middle)) ** f32(rng.uniform(0.6, 1.6)) * rng.uniform(0.7, 1.3, 3)
    return np.ascontiguousarray(out, f32)


def behind(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A sky as a camera of any view sees it: display values (height, width, 3) float32, 0..1.

    It is quick to make, because its clouds are cut from noise that is kept.
    """
    focal = rng.uniform(0.6, 2.5)  # picture widths
    pitch = rng.uniform(-0.1, 0.9)
    across = np.linspace(-0.5, 0.5, width)[None]
    down = np.linspace(0.5, -0.5, height)[:, None] * height / width
    d = np.stack(
        np.broadcast_arrays(
            across, down * np.cos(pitch) + focal * np.sin(pitch), down * np.sin(pitch) - focal * np.cos(pitch)
        ),
        2,
    )
    d /= np.linalg.norm(d, axis=2, keepdims=True)
    sky = clouded(rng, d, lambda r: kept(int(r.integers(48))))
    sky = sky * f32(rng.uniform(0.25, 1.1) / max(float(np.percentile(sky, 95)), 1e-4))
    return np.asarray(np.clip(sky, 0, 1) ** f32(1 / 2.2), f32)
