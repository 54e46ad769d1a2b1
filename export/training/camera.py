"""From linear light to a photograph: exposure, white balance, depth of field, vignette, tone curve, noise and JPEG."""

from __future__ import annotations

import cv2
import numpy as np

f32 = np.float32


def encode(x: np.ndarray) -> np.ndarray:
    """Linear light 0..1 to sRGB 0..1, any shape."""
    return np.where(x < 0.0031308, 12.92 * x, 1.055 * np.maximum(x, 0.0031308) ** (1 / 2.4) - 0.055)


def defocus(im: np.ndarray, inverse: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Blur the picture (h, w, 3) by an amount that grows with the distance from the plane in focus."""
    inv = cv2.resize(inverse, im.shape[1::-1], interpolation=cv2.INTER_NEAREST)
    on = inv[inv > 0]
    if len(on) < 10:
        return im
    f, s = np.quantile(on, rng.uniform(0.6, 0.98)), rng.uniform(1, 5) * im.shape[0] / 288
    b1, b2 = cv2.GaussianBlur(im, (0, 0), s / 2), cv2.GaussianBlur(im, (0, 0), s)
    k = np.clip(np.abs(inv - f) / (f + 1e-6) * rng.uniform(0.7, 2.2), 0, 1)
    k = cv2.GaussianBlur(k.astype(f32), (0, 0), s / 3)[..., None]
    return np.where(k < 0.5, im * (1 - 2 * k) + b1 * 2 * k, b1 * (2 - 2 * k) + b2 * (2 * k - 1))


def through_lens(im: np.ndarray, inverse: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """White balance that is a little off, defocus, vignette and veiling glare on linear light (h, w, 3)."""
    h, w = inverse.shape
    if rng.random() < 0.8:
        im = im * np.clip(1 + rng.normal(0, 0.09, 3), 0.6, 1.5).astype(f32)
    if rng.random() < 0.2:
        im = defocus(im, inverse.astype(f32), rng)
    if rng.random() < 0.4:
        y, x = np.mgrid[-1 : 1 : h * 1j, -1 : 1 : w * 1j]
        im = im * (1 - rng.uniform(0, 0.35) * (x * x + y * y) / 2)[..., None].astype(f32)
    if rng.random() < 0.12:  # veiling glare, bloom
        im = im * 0.9 + rng.uniform(0.03, 0.15) * cv2.GaussianBlur(im, (0, 0), h / rng.uniform(6, 30))
    return im


def tone_curve(im: np.ndarray, t: float) -> np.ndarray:
    """Linear light to display values 0..1 by the curve that t in 0..1 picks: sRGB, filmic or exponential."""
    if t < 0.4:
        return encode(np.clip(im, 0, 1))
    if t < 0.8:
        return np.clip(im * (2.51 * im + 0.03) / (im * (2.43 * im + 0.59) + 0.14), 0, 1) ** (1 / 2.2)
    return np.clip(1 - np.exp(-im * 1.6), 0, 1) ** (1 / 2.2)


def develop(im: np.ndarray, rng: np.random.Generator, gray: float) -> np.ndarray:
    """Contrast, saturation, blur or sharpening, and noise on display values (h, w, 3)."""
    if rng.random() < 0.5:
        im = (im - 0.5) * rng.uniform(0.75, 1.3) + 0.5 + rng.normal(0, 0.03)
    g = im.mean(-1, keepdims=True)
    if rng.random() < gray:
        im = np.repeat(g, 3, 2)
    elif rng.random() < 0.5:
        im = g + (im - g) * rng.uniform(0.5, 1.5)
    k = rng.random()
    if k < 0.3:
        im = cv2.GaussianBlur(im.astype(f32), (0, 0), rng.uniform(0.3, 1.0))
    elif k < 0.45:
        im = im + (im - cv2.GaussianBlur(im.astype(f32), (0, 0), 1.0)) * rng.uniform(0.3, 1)
    if rng.random() < 0.6:
        im = im + rng.standard_normal(im.shape, f32) * rng.uniform(0.002, 0.03)
    return im


def photograph(
    rgb: np.ndarray, inverse: np.ndarray, rng: np.random.Generator, gray: float = 0.06, clean: bool = False
) -> np.ndarray:
    """Turn linear light (h, w, 3) and inverse depth (h, w) into an sRGB photograph (h, w, 3) uint8.

    `gray` is the share of black-and-white pictures. `clean` leaves out the lens, the editing and the JPEG.
    """
    im = np.maximum(rgb, 0)
    lum = im @ np.array([0.2126, 0.7152, 0.0722], f32)
    lit = lum[inverse > 0] if (inverse > 0).any() else lum
    key = rng.uniform(0.22, 0.36) if clean else rng.uniform(0.14, 0.5)
    level = np.percentile(lit, rng.uniform(55, 85))
    top = np.percentile(lit, 98)
    im = im * f32(min(key / max(level, 1e-5), 2.2 / max(top, 1e-5)))
    im = np.minimum(im, 3)
    if not clean:
        im = through_lens(im, inverse, rng)
    im = tone_curve(im, rng.random() * (1 if not clean else 0.5))
    if not clean:
        im = develop(im, rng, gray)
    a = (np.clip(im, 0, 1) * 255 + 0.5).astype(np.uint8)
    if not clean and rng.random() < 0.7:
        _, b = cv2.imencode(".jpg", a[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(45, 97))])
        decoded = cv2.imdecode(b, cv2.IMREAD_COLOR)
        assert decoded is not None  # it was encoded one line above
        a = decoded[..., ::-1]
    return np.ascontiguousarray(a)
