"""The sky, or the emptiness around a thing: what a mask says of it in part, made whole.

A sky that is relit in part has stains.
"""

import cv2
import numpy as np

SKY, SURFACE = 0.2, 0.97  # of the mask: surely sky, surely a surface
RATHER_SKY, DOUBTFUL = 0.35, 0.65  # joined to a sky, less than the first is sky, and from the second on nothing changes
EDGE = 5  # texels: so near to what is surely a surface, doubt is its soft edge


def whole_sky(mask: np.ndarray) -> np.ndarray:
    """The mask (h, w) float32, 0..1, with every sky counted whole.

    Sky is what is surely sky, and the doubtful texels joined to it, but for the soft edges of things (hysteresis, as in
    Canny, "A computational approach to edge detection", 1986). It ends softly: the less of a doubt, the less changes.
    """
    mask = np.asarray(mask, np.float32)
    doubtful = mask < DOUBTFUL
    _, parts = cv2.connectedComponents(doubtful.astype(np.uint8), connectivity=4)
    holds_sky = np.zeros(parts.max() + 1, bool)
    holds_sky[parts[mask < SKY]] = True
    edge = cv2.dilate(mask, np.ones((EDGE, EDGE), np.uint8)) >= SURFACE
    steeper = (mask - np.float32(RATHER_SKY)) * np.float32((DOUBTFUL - SKY) / (DOUBTFUL - RATHER_SKY))
    less = np.maximum(steeper + np.float32(SKY), np.minimum(mask, np.float32(SKY)))
    return np.where(holds_sky[parts] & doubtful & ~edge, less, mask)
