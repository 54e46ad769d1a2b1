"""The light a photograph was taken in: spherical harmonics of the normals, fitted to its luminance.

Luminance is reflectance times light. Pixels of one colour are taken to share a reflectance, as most pictures hold few
of them (Gehler, Rother, Kiefel, Zhang, Schölkopf, "Recovering Intrinsic Images with a Global Sparsity Prior on
Reflectance", 2011), so that a white belly below a green back is not read as light from below. Light is taken to be of
one colour everywhere: of a warm lamp on one side and a cool one on the other, a part is read as reflectance.
"""

import math
from dataclasses import dataclass
from typing import Any, Optional, Tuple

import cv2
import numpy as np

from ..image.resample import bands, fit_within
from ..image.srgb import LUMINANCE, TO_LINEAR

SIDE = 256  # long side of the grid the fit is made on
FLOOR = 0.05  # of the 95th percentile: the fitted light bends toward it, without a crease, and never falls below
# pixels under this share of the 99th percentile are no evidence: mostly dark background, whatever the mask says
DARK = 0.1
# Ridge by the share of the luminance that is reflectance, not light: what is uncertain is taken to be even
DOUBT = 0.05
BINS = 48  # of red's and of green's share of a colour
ALIKE = 1.2  # bins: standard deviation of the colours that share a reflectance
ROUNDS = 8  # of reflectance and light in turn: colours that each face another way need that many
PIXELS = 1 << 17  # linearised at a time
TERMS = 9  # harmonics up to order 2


@dataclass(frozen=True)
class EstimatedLight:
    """The light a photograph was taken in. Raises ValueError for what cannot be one.

    harmonics: 1 to 9 coefficients of the irradiance, relative to its mean over the surfaces (see `harmonics`).
    floor: a lower bound of the irradiance that it never reaches.
    """

    harmonics: Tuple[float, ...]
    floor: float

    def __post_init__(self) -> None:
        if not 1 <= len(self.harmonics) <= TERMS or not all(map(math.isfinite, (*self.harmonics, self.floor))):
            raise ValueError(f"an estimated light has 1 to {TERMS} finite harmonics and a finite floor")


EVEN_LIGHT = EstimatedLight((1.0,), 0.0)


def harmonics(x: np.ndarray, y: np.ndarray, z: np.ndarray, terms: int = TERMS) -> np.ndarray:
    """The first real spherical harmonics without their constants: (terms, ...) for normals x, y, z.

    1, 4 or 9 are whole orders.
    """
    return np.stack([np.ones_like(x), x, y, z, x * y, y * z, z * x, x * x - y * y, 3 * z * z - 1][:terms])


def estimate_light(
    rgb: np.ndarray, normals: np.ndarray, mask: Optional[np.ndarray], linear: Optional[np.ndarray] = None
) -> EstimatedLight:
    """Fit the light of rgb (H, W, 3) uint8 by the normals (h, w, 3) of its surfaces (mask (h, w) 0..1, or None).

    Where too little can be seen of it, the light is taken to be even. linear: the linear colours on the grid of the
    normals, where they are known.
    """
    size = fit_within(normals.shape[:2], SIDE)[::-1]
    if linear is None or linear.shape[:2] != size[::-1]:
        linear = linear_small(rgb, size[::-1])
    pixels = linear.reshape(-1, 3)
    n = cv2.resize(normals, size, interpolation=cv2.INTER_AREA).reshape(-1, 3)
    np.divide(n, np.maximum(np.linalg.norm(n, axis=1, keepdims=True), 1e-6), out=n)
    y = pixels @ LUMINANCE
    use = y > 0
    if mask is not None and (mask > 0.5).any():
        use &= cv2.resize(np.asarray(mask, np.float32), size, interpolation=cv2.INTER_AREA).ravel() > 0.5
    if use.any():
        use &= y >= DARK * np.percentile(y[use], 99)
    basis = harmonics(*n[use].T.astype(np.float64))
    y = y[use].astype(np.float64)
    if y.size < 4 * len(basis):
        return EVEN_LIGHT
    colour, products, light = _colours(pixels[use]), basis @ basis.T, np.ones_like(y)
    for _ in range(ROUNDS):
        coefficients = _fit(basis, products, y / _reflectance(y, light, colour))
        fitted = coefficients @ basis
        floor = FLOOR * np.percentile(fitted, 95)
        light = _bend(fitted, floor)
        mean = light.mean()
        if not (floor > 0 and np.isfinite(mean)):
            return EVEN_LIGHT
    return EstimatedLight(tuple(float(c / mean) for c in coefficients), float(floor / mean))


def _colours(pixels: np.ndarray) -> np.ndarray:
    """The bin of each pixel's chromaticity, (n,) int, of linear colours (n, 3)."""
    total = np.maximum(pixels.sum(1, keepdims=True), np.float32(1e-6))
    red, green = np.minimum(pixels[:, :2] / total * BINS, BINS - 1).astype(np.intp).T
    return red * BINS + green


def _reflectance(y: np.ndarray, light: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """(n,).

    For each pixel the factor by which the light of all pixels of about its colour best explains their luminance.
    """
    sums = [np.bincount(colour, v, BINS * BINS).reshape(BINS, BINS) for v in (y * light, light * light)]
    explained, square = (cv2.GaussianBlur(v, (0, 0), ALIKE).ravel()[colour] for v in sums)
    return explained / square


def _fit(basis: np.ndarray, products: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Harmonics of y, (terms,): the less of y they explain, the more even. products: those of the basis with itself."""
    right = basis @ y
    coefficients = _solve(products, right, 1e-3 * y.size)
    unexplained = np.square(y - coefficients @ basis).mean() / max(coefficients[0], 1e-6) ** 2
    return _solve(products, right, max(1e-3, DOUBT * unexplained) * y.size)


def _solve(products: np.ndarray, right: np.ndarray, ridge: float) -> np.ndarray:
    """Least squares with a ridge on all but the constant."""
    penalty = ridge * np.eye(len(products))
    penalty[0, 0] = 0
    return np.linalg.solve(products + penalty, right)


def light_at(x: np.ndarray, y: np.ndarray, z: np.ndarray, light: EstimatedLight) -> np.ndarray:
    """The estimated irradiance (mean 1) on normals x, y, z: float32 arrays of one shape."""
    above, floor = _above(x, y, z, light), float(light.floor)
    root: Any = cv2.multiply(above, above)
    root += np.float32(4 * floor * floor)
    return cv2.addWeighted(cv2.sqrt(root, dst=root), 0.5, above, 0.5, floor, dst=root).reshape(x.shape)


def _above(x: np.ndarray, y: np.ndarray, z: np.ndarray, light: EstimatedLight) -> Any:
    """The harmonics times their coefficients, less the floor, by Horner's scheme; (1, n) float32."""
    x, y, z = (np.ascontiguousarray(a).reshape(1, -1) for a in (x, y, z))  # OpenCV takes rows of a matrix
    c, cx, cy, cz, cxy, cyz, czx, cxx, czz = (float(v) for v in (*light.harmonics, *[0.0] * TERMS)[:TERMS])
    factor = cv2.addWeighted(x, cxx, y, cxy, cx)
    factor = cv2.scaleAdd(z, czx, factor, dst=factor)
    total: Any = cv2.multiply(factor, x)
    factor = cv2.addWeighted(y, -cxx, z, cyz, cy, dst=factor)
    cv2.accumulateProduct(factor, y, total)
    factor = cv2.addWeighted(z, 3 * czz, z, 0, cz, dst=factor)
    cv2.accumulateProduct(factor, z, total)
    total += np.float32(c - czz - light.floor)
    return total


def _bend(fitted: np.ndarray, floor: float) -> np.ndarray:
    """A hyperbola between the asymptotes `floor`, for small values, and `fitted`, for large ones."""
    above = fitted - floor
    return floor + (above + np.sqrt(above * above + 4 * floor * floor)) / 2


def light_slope(x: np.ndarray, y: np.ndarray, z: np.ndarray, light: EstimatedLight) -> np.ndarray:
    """The gradient of the logarithm of light_at() by the normal: (..., 3) float32."""
    _, cx, cy, cz, cxy, cyz, czx, cxx, czz = (np.float32(c) for c in (*light.harmonics, *[0.0] * TERMS)[:TERMS])
    slope = np.stack(
        [
            cx + cxy * y + czx * z + 2 * cxx * x,
            cy + cxy * x + cyz * z - 2 * cxx * y,
            cz + cyz * y + czx * x + 6 * czz * z,
        ],
        -1,
    )
    above, floor = _above(x, y, z, light).reshape(x.shape), np.float32(light.floor)
    root = np.sqrt(above * above + 4 * floor * floor)
    return slope * ((1 - floor / (floor + (above + root) / 2)) / root)[..., None]


def linear_small(rgb: np.ndarray, size: Tuple[int, int]) -> np.ndarray:
    """Area-averaged linear colours (h, w, 3) float32 of rgb (H, W, 3) uint8; size is (h, w).

    First along the rows, a band at a time: the linear colours of a large photo would fill the memory.
    """
    (H, W), (h, w) = rgb.shape[:2], size
    narrow = np.empty((H, w, 3), np.float32)
    for rows in bands((H, W), PIXELS):
        linear = cv2.LUT(rgb[rows], TO_LINEAR)
        narrow[rows] = cv2.resize(linear, (w, len(linear)), interpolation=cv2.INTER_AREA)
    return cv2.resize(narrow, (w, h), interpolation=cv2.INTER_AREA).reshape(h, w, 3)
