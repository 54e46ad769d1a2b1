"""Procedural pictures for surfaces: noise, marble, wood, tiles, stripes, bricks, facades, cells, print, text, streaks.

`make(kind, number)` is deterministic: the same kind and number always give the same (256, 256, 3) uint8 picture. Each
maker returns a (256, 256, 3) array of sRGB values, nominally 0..1.
"""

from __future__ import annotations

import glob
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from scipy.spatial import cKDTree

S = 256
KINDS = ("noise", "marble", "wood", "tile", "stripe", "brick", "facade", "cells", "print", "page", "streak", "weave")
COUNT = 60  # pictures per kind
_fonts = sorted(glob.glob("/usr/share/fonts/**/*.ttf", recursive=True) + glob.glob("/Library/Fonts/*.ttf"))
# fmt: off
_WORDS = [
    "the", "of", "and", "light", "depth", "surface", "normal", "shadow", "open", "sale", "coffee", "garden", "2024",
    "1987", "street", "number", "market", "fresh", "paper", "image", "model", "house", "night", "river", "stone",
    "milk", "tea", "honey", "volume", "part", "one", "history", "atlas", "physics", "music", "no.", "50%", "new",
    "original", "quality", "best", "soup", "museum", "city", "radio", "game", "toy", "deluxe", "classic", "super",
    "extra", "family", "size", "travel", "guide", "poems", "world", "art",
]
# fmt: on


def fractal(rng: np.random.Generator, beta: float, aniso: float = 1.0, s: int = S) -> np.ndarray:
    """Tileable power-law noise in 0..1, float64 (s, s); `aniso` stretches it horizontally or vertically."""
    k = np.sqrt((np.fft.fftfreq(s)[:, None] * s * aniso) ** 2 + (np.fft.rfftfreq(s)[None] * s) ** 2)
    k[0, 0] = 1
    g = np.fft.irfft2(np.fft.rfft2(rng.normal(size=(s, s))) * k ** (-beta / 2) * (k < s / 2.5), s=(s, s))
    return np.clip((g - g.mean()) / (g.std() + 1e-9) * 0.22 + 0.5, 0, 1)


def _ramp(rng: np.random.Generator, g: np.ndarray) -> np.ndarray:
    n = int(rng.integers(2, 6))
    c = rng.uniform(0, 1, (n, 3))
    if rng.random() < 0.75:
        c = np.clip(rng.uniform(0.1, 0.9, 3) + rng.normal(0, 0.2, (n, 1)) + rng.normal(0, 0.06, (n, 3)), 0, 1)
    x = g * (n - 1)
    i = np.minimum(x.astype(int), n - 2)
    f = (x - i)[..., None]
    return c[i] * (1 - f) + c[i + 1] * f


def _grain(rng: np.random.Generator, a: np.ndarray, k: float = 0.06, beta: float = 1.5) -> np.ndarray:
    return a + k * (fractal(rng, beta)[..., None] - 0.5)


def noise(rng: np.random.Generator) -> np.ndarray:
    """Fractal noise through a random colour ramp."""
    return _ramp(rng, fractal(rng, rng.uniform(1, 3.2), rng.choice([1, 1, 1, 0.1, 0.2, 4])))


def marble(rng: np.random.Generator) -> np.ndarray:
    """Fractal noise that runs through the colour ramp several times, as the veins of marble do."""
    return _ramp(rng, (fractal(rng, rng.uniform(1.5, 3)) * rng.uniform(2, 8)) % 1)


def wood(rng: np.random.Generator) -> np.ndarray:
    """Boards with distorted growth rings."""
    x = np.mgrid[0:S, 0:S][1] / S
    r = (x * rng.integers(1, 4) + 0.15 * fractal(rng, 3, 0.1) * rng.uniform(1, 3)) * rng.integers(3, 10)
    return _grain(rng, rng.uniform([0.25, 0.12, 0.05], [0.75, 0.5, 0.35]) * (0.6 + 0.5 * (r % 1)[..., None]), 0.1, 1.2)


def tile(rng: np.random.Generator) -> np.ndarray:
    """A checkerboard or tiles of one colour, with or without joints."""
    n = int(rng.integers(2, 10))
    yy, xx = np.mgrid[0:S, 0:S]
    m = ((xx * n // S + yy * n // S) % 2)[..., None]
    a, b = rng.uniform(0, 1, (2, 3))
    b = b if rng.random() < 0.6 else a
    t = a * m + b * (1 - m)
    if rng.random() < 0.5:
        t = np.where(((xx * n % S < n * 2) | (yy * n % S < n * 2))[..., None], rng.uniform(0, 1, 3), t)
    return _grain(rng, t)


def stripe(rng: np.random.Generator) -> np.ndarray:
    """Stripes in one direction, or plaid."""
    yy, xx = np.mgrid[0:S, 0:S] / S
    if rng.random() < 0.5:
        xx, yy = yy, xx
    a, b, c = rng.uniform(0, 1, (3, 3))
    s = (np.sin(2 * np.pi * rng.integers(1, 20) * xx) > rng.uniform(-0.6, 0.6))[..., None]
    t = a * s + b * (1 - s)
    if rng.random() < 0.4:  # plaid
        t = np.where(
            (np.sin(2 * np.pi * rng.integers(1, 20) * yy) > rng.uniform(0, 0.7))[..., None], t * 0.6 + c * 0.4, t
        )
    return _grain(rng, t, 0.05, 1)


def brick(rng: np.random.Generator) -> np.ndarray:
    """Courses of bricks with mortar, every other course offset by half a brick."""
    ny = 2 * int(rng.integers(2, 7))
    nx = ny // 2
    yy, xx = np.mgrid[0:S, 0:S]
    r = yy * ny // S
    xs = xx * nx / S + 0.5 * (r % 2)
    c = np.floor(xs).astype(int) % nx
    col = rng.uniform(0.2, 0.8, 3) + rng.normal(0, 0.07, (ny, nx, 1)) + rng.normal(0, 0.03, (ny, nx, 3))
    m = ((yy * ny % S) < rng.integers(6, 30)) | ((xs % 1) * S < rng.integers(6, 30) / 2)
    return _grain(rng, np.where(m[..., None], rng.uniform(0.2, 0.9, 3), col[r, c]), 0.15)


def facade(rng: np.random.Generator) -> np.ndarray:
    """A grid of windows in a plain wall."""
    ny, nx = rng.integers(2, 8, 2)
    yy, xx = np.mgrid[0:S, 0:S]
    fy, fx = (yy * ny / S) % 1, (xx * nx / S) % 1
    m = (fy > 0.25) & (fy < rng.uniform(0.6, 0.85)) & (fx > 0.2) & (fx < rng.uniform(0.6, 0.85))
    w = rng.uniform(0.03, 0.5, 3) + rng.normal(0, 0.06, (ny, nx, 1))
    return _grain(rng, np.where(m[..., None], w[yy * ny // S, xx * nx // S], rng.uniform(0.2, 0.85, 3)), 0.12, 2)


def cells(rng: np.random.Generator) -> np.ndarray:
    """Irregular cells with dark borders, such as pebbles or cracked earth."""
    n = int(rng.integers(8, 120))
    p = rng.uniform(0, S, (n, 2))
    q = np.moveaxis(np.mgrid[0:S, 0:S], 0, -1).reshape(-1, 2) + (fractal(rng, 2.5).reshape(-1, 1) - 0.5) * 30
    d, i = cKDTree(np.concatenate([p + np.array([a, b]) for a in (-S, 0, S) for b in (-S, 0, S)])).query(q, k=2)
    c = np.clip(rng.uniform(0.1, 0.8, 3) + rng.normal(0, 0.2, (n, 1)) + rng.normal(0, 0.05, (n, 3)), 0, 1)[i[:, 0] % n]
    return (c * (0.4 + 0.6 * np.clip((d[:, 1] - d[:, 0]) / 6, 0, 1)[:, None])).reshape(S, S, 3)


def _font(rng: np.random.Generator, size: int) -> Any:
    return ImageFont.truetype(str(rng.choice(_fonts)), size) if _fonts else ImageFont.load_default(size=size)


def _rgb(rng: np.random.Generator, lo: int, hi: int) -> tuple[int, ...]:
    return tuple(int(v) for v in rng.integers(lo, hi, 3))


def printed(rng: np.random.Generator) -> np.ndarray:
    """Packaging, posters, covers and badges: areas of flat colour and large words."""
    im = Image.new("RGB", (S, S), _rgb(rng, 0, 255))
    d = ImageDraw.Draw(im)
    for _ in range(int(rng.integers(1, 7))):
        x, y = (int(v) for v in rng.integers(-40, S, 2))
        w, h = (int(v) for v in rng.integers(20, 200, 2))
        k = rng.random()
        if k < 0.5:
            d.rectangle(
                [x, y, x + w, y + h], fill=_rgb(rng, 0, 255), outline=_rgb(rng, 0, 255), width=int(rng.integers(0, 5))
            )
        elif k < 0.8:
            d.ellipse(
                [x, y, x + w, y + h], fill=_rgb(rng, 0, 255), outline=_rgb(rng, 0, 255), width=int(rng.integers(0, 6))
            )
        else:
            d.polygon([tuple(int(v) for v in rng.integers(0, S, 2)) for _ in range(3)], fill=_rgb(rng, 0, 255))
    for _ in range(int(rng.integers(1, 6))):
        word = " ".join(rng.choice(_WORDS, int(rng.integers(1, 4))))
        word = word.upper() if rng.random() < 0.5 else word.title()
        d.text(
            (int(rng.integers(-10, 120)), int(rng.integers(0, 220))),
            word,
            font=_font(rng, int(rng.choice([14, 20, 28, 40, 60, 90]))),
            fill=_rgb(rng, 0, 255),
            stroke_width=int(rng.choice([0, 0, 0, 2])),
            stroke_fill=_rgb(rng, 0, 255),
        )
    return np.asarray(im) / 255.0


def page(rng: np.random.Generator) -> np.ndarray:
    """Lines of text with a headline and perhaps a picture, dark on light or light on dark."""
    light = rng.random() < 0.75
    im = Image.new("RGB", (S, S), _rgb(rng, 190, 256) if light else _rgb(rng, 0, 90))
    d = ImageDraw.Draw(im)
    ink = _rgb(rng, 0, 110) if light else _rgb(rng, 150, 256)
    size = int(rng.choice([8, 10, 12, 16, 22, 34]))
    font, y = _font(rng, size), int(rng.integers(4, 40))
    if rng.random() < 0.6:
        d.text((10, y), " ".join(rng.choice(_WORDS, 3)).title(), font=_font(rng, int(size * 1.8)), fill=ink)
        y += int(size * 2.6)
    while y < S - 10:
        if rng.random() < 0.92:
            d.text((10, y), " ".join(rng.choice(_WORDS, 12)), font=font, fill=ink)
        y += int(size * 1.35)
    d.rectangle([S - 10, 0, S, S], fill=im.getpixel((1, 1)))
    if rng.random() < 0.4:
        x, y, w = (int(v) for v in rng.integers(10, 140, 3))
        d.rectangle([x, y, x + w + 20, y + int(w * 0.7) + 20], fill=_rgb(rng, 0, 255))
    return np.asarray(im) / 255.0


def streak(rng: np.random.Generator) -> np.ndarray:
    """Grass, fur or hair: many short strokes."""
    im = Image.new("RGB", (S, S), _rgb(rng, 0, 76))
    d = ImageDraw.Draw(im)
    base = rng.uniform([0.1, 0.2, 0], [0.5, 0.6, 0.3]) if rng.random() < 0.5 else rng.uniform(0.1, 0.8, 3)
    ang, sp, ln = rng.uniform(0, 6.28), rng.choice([0.3, 0.8, 3.0]), rng.uniform(8, 40)
    for _ in range(900):
        x, y = rng.uniform(-20, S + 20, 2)
        a, length = ang + rng.normal() * sp, ln * rng.uniform(0.5, 1.5)
        c = np.clip(base * rng.uniform(0.4, 1.4) + rng.normal(0, 0.03, 3), 0, 1)
        d.line(
            [x, y, x + length * np.cos(a), y + length * np.sin(a)],
            fill=tuple(int(v * 255) for v in c),
            width=int(rng.integers(1, 4)),
        )
    return np.asarray(im.filter(ImageFilter.GaussianBlur(0.6))) / 255.0


def weave(rng: np.random.Generator) -> np.ndarray:
    """A plain or diagonal weave."""
    yy, xx = np.mgrid[0:S, 0:S] * (2 * np.pi * rng.integers(16, 64) / S)
    g = 0.5 + 0.25 * np.sin(xx) * np.sin(yy) + 0.25 * (np.sin(xx + yy) if rng.random() < 0.5 else 0)
    return _grain(rng, rng.uniform(0.1, 0.9, 3) * (0.75 + 0.35 * g[..., None]), 0.1, 2)


def make(kind: str, number: int) -> np.ndarray:
    """Picture `number` of a kind in KINDS, (256, 256, 3) uint8 sRGB."""
    rng = np.random.default_rng([KINDS.index(kind), number, 77])
    fn = printed if kind == "print" else globals()[kind]
    return (np.clip(fn(rng), 0, 1) * 255 + 0.5).astype(np.uint8)
