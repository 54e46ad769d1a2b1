"""The sky, or the emptiness around a thing: what a mask says of it in part, made whole.

A sky that is relit in part has stains.
"""

import cv2
import numpy as np

SKY, DOUBTFUL, SURFACE = 0.2, 0.6, 0.97  # of the mask
EDGE = 5  # texels: so near to what is surely a surface, doubt is its soft edge


def whole_sky(mask: np.ndarray) -> np.ndarray:
    """The mask (h, w) float32, 0..1, with every sky counted whole.

    Sky is what is surely sky, and the doubtful texels joined to it, but for the soft edges of things (hysteresis, as in
    Canny, "A computational approach to edge detection", 1986).
    """
    mask = np.asarray(mask, np.float32)
    doubtful = (mask < DOUBTFUL).astype(np.uint8)
    _, parts = cv2.connectedComponents(doubtful, connectivity=4)
    holds_sky = np.zeros(parts.max() + 1, bool)
    holds_sky[parts[mask < SKY]] = True
    edge = cv2.dilate(mask, np.ones((EDGE, EDGE), np.uint8)) >= SURFACE
    sky = holds_sky[parts] & (doubtful > 0) & ~edge
    return np.where(sky, np.minimum(mask, np.float32(SKY)), mask)
