"""The sky, or the emptiness around a thing: what a mask says of it in part, made whole.

A sky that is relit in part has stains.
"""

import cv2
import numpy as np

from ..image.resample import fit_within
from .geometry import Geometry

SKY, DOUBTFUL, SURFACE = 0.2, 0.9, 0.97  # of the mask
COLOUR = 0.06  # of sRGB 0..1: so alike the sky is from place to place,
DEPTH = 0.04  # and so alike in depth, of the whole range
AROUND = 7  # texels
SIDE = 128  # long side of the grid this is found on: a sky has no fine parts, and the time grows with the cube


def whole_sky(rgb: np.ndarray, geometry: Geometry) -> np.ndarray:
    """The mask (h, w) float32 of a geometry of rgb (H, W, 3) uint8, with every sky counted whole.

    Sky is what is surely sky; the doubtful texels joined to it (hysteresis, as in Canny, "A computational approach to
    edge detection", 1986), but for the soft edges of things; and what goes on from there in the same colour at the same
    depth. Where nothing is surely sky, or everything, the mask comes back as it is.
    """
    whole = np.asarray(geometry.mask, np.float32)
    h, w = fit_within(whole.shape, SIDE)
    mask = cv2.resize(whole, (w, h), interpolation=cv2.INTER_AREA)
    doubtful = (mask < DOUBTFUL).astype(np.uint8)
    _, parts = cv2.connectedComponents(doubtful, connectivity=4)
    holds_sky = np.zeros(parts.max() + 1, bool)
    holds_sky[parts[mask < SKY]] = True
    edge = cv2.dilate(mask, np.ones((5, 5), np.uint8)) >= SURFACE
    sky = (mask < SKY) | (holds_sky[parts] & (doubtful > 0) & ~edge)
    d = cv2.resize(np.asarray(geometry.inverse_depth, np.float32), (w, h), interpolation=cv2.INTER_AREA)
    far = (d - d.min()) / max(float(np.ptp(d)), 1e-6) / DEPTH
    looks = np.dstack([cv2.resize(rgb, (w, h), interpolation=cv2.INTER_AREA) / np.float32(255 * COLOUR), far]).astype(
        np.float32
    )
    nearest = np.percentile(far[sky], 95) + 1 if sky.any() else 0  # a lawn goes on from the sky too, but comes nearer
    window = (AROUND, AROUND)
    for _ in range(max(h, w)):
        known = sky.astype(np.float32)
        share = cv2.blur(known, window, borderType=cv2.BORDER_CONSTANT)
        mean = (
            cv2.blur(looks * known[..., None], window, borderType=cv2.BORDER_CONSTANT)
            / np.maximum(share, np.float32(1e-6))[..., None]
        )
        beside = cv2.dilate(known, np.ones((3, 3), np.uint8)) > sky
        found = beside & (np.abs(looks - mean).max(2) < 1) & (far <= nearest)
        if not found.any():
            break
        sky |= found
    sky = cv2.resize(sky.astype(np.uint8), whole.shape[::-1], interpolation=cv2.INTER_NEAREST) > 0
    return np.where(sky, np.minimum(whole, np.float32(SKY)), whole)
