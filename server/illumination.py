"""The light a photograph was taken in: spherical harmonics of the normals, fitted to its luminance."""
from typing import Dict, Optional

import cv2
import numpy as np

from .transfer import TO_LINEAR

ORDER = 2
SIDE = 256  # long side of the grid the fit is made on
FLOOR = 0.05  # of the 95th percentile: the fitted light never falls below
DARK = 0.1  # pixels under this share of the 99th percentile are no evidence: mostly dark background, whatever the mask says
DOUBT = 0.05  # ridge by the share of the luminance that is reflectance, not light: what is uncertain is taken to be even
LUMINANCE = np.float32([0.2126, 0.7152, 0.0722])
TERMS = {0: 1, 1: 4, 2: 9}


def harmonics(x, y, z, order: int = ORDER):
    """The real spherical harmonics up to `order` without their constants: (terms, ...) for normals x, y, z."""
    terms = [np.ones_like(x), x, y, z, x * y, y * z, z * x, x * x - y * y, 3 * z * z - 1]
    return np.stack(terms[:TERMS[order]])


def estimate_light(rgb: np.ndarray, normals: np.ndarray, mask: Optional[np.ndarray]) -> Dict:
    """Fit the light of rgb (H, W, 3) uint8 by the normals (h, w, 3) of its surfaces (mask (h, w) 0..1, or None).

    {"harmonics": coefficients of the irradiance relative to its mean over the surfaces, "floor": its smallest value}.
    """
    h, w = normals.shape[:2]
    scale = min(1.0, SIDE / max(h, w))
    size = max(1, round(w * scale)), max(1, round(h * scale))
    luminance = linear_small(rgb, size) @ LUMINANCE
    n = cv2.resize(normals, size, interpolation=cv2.INTER_AREA).reshape(-1, 3)
    n /= np.maximum(np.linalg.norm(n, axis=1, keepdims=True), 1e-6)
    y = luminance.ravel()
    use = np.ones(y.shape, bool)
    if mask is not None and (mask > 0.5).any():
        use = cv2.resize(np.asarray(mask, np.float32), size, interpolation=cv2.INTER_AREA).ravel() > 0.5
    if use.any():
        use &= y >= DARK * np.percentile(y[use], 99)
    basis = harmonics(*n[use].T.astype(np.float64))
    y = y[use].astype(np.float64)
    constant = {"harmonics": [1.0], "floor": FLOOR}
    if y.size < 4 * len(basis) or not y.max() > 0:
        return constant
    coefficients = _solve(basis, y, 1e-3)
    unexplained = np.square(y - coefficients @ basis).mean() / max(coefficients[0], 1e-6) ** 2
    coefficients = _solve(basis, y, max(1e-3, DOUBT * unexplained))
    fitted = coefficients @ basis
    floor = FLOOR * np.percentile(fitted, 95)
    mean = np.maximum(fitted, floor).mean()
    if not (floor > 0 and np.isfinite(mean)):
        return constant
    return {"harmonics": [float(c / mean) for c in coefficients], "floor": float(floor / mean)}


def _solve(basis, y, ridge):
    """Least squares with a ridge per pixel on all but the constant."""
    penalty = ridge * y.size * np.eye(len(basis))
    penalty[0, 0] = 0
    return np.linalg.solve(basis @ basis.T + penalty, basis @ y)


def light_at(x, y, z, light: Dict):
    """The estimated irradiance (mean 1) on normals x, y, z: float32 arrays of one shape."""
    c = np.asarray(light["harmonics"], np.float32)
    order = {1: 0, 4: 1, 9: 2}[len(c)]
    return np.maximum(np.tensordot(c, harmonics(x, y, z, order), 1), np.float32(light["floor"]))


def light_slope(x, y, z, light: Dict):
    """The gradient of the logarithm of light_at() by the normal: (..., 3) float32, 0 where the light is at its floor."""
    _, cx, cy, cz, cxy, cyz, czx, cxx, czz = (np.float32(c) for c in (*light["harmonics"], *[0.0] * 9)[:9])
    here = light_at(x, y, z, light)
    slope = np.stack([cx + cxy * y + czx * z + 2 * cxx * x, cy + cxy * x + cyz * z - 2 * cxx * y, cz + cyz * y + czx * x + 6 * czz * z], -1)
    return slope * (here > np.float32(light["floor"]))[..., None] / here[..., None]


def linear_small(rgb: np.ndarray, size) -> np.ndarray:
    """Area-averaged linear colours (h, w, 3) float32 of rgb (H, W, 3) uint8; size is (w, h)."""
    planes = [cv2.LUT(np.ascontiguousarray(rgb[..., k]), TO_LINEAR) for k in range(3)]
    return np.stack([cv2.resize(plane, tuple(size), interpolation=cv2.INTER_AREA) for plane in planes], 2)
