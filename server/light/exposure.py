"""Auto exposure: as a camera sets it, so that a picture keeps its brightness whatever light falls into it."""

import numpy as np

MOST = 2.0  # stops, either way
BLACK = 1 / 32  # of the photograph's mean luminance: five stops or more under it, all is equally black
CLOSE = 1e-4  # stops, which nobody sees


def matching_exposure(before: np.ndarray, after: np.ndarray) -> float:
    """The exposure in stops, -MOST..MOST, at which a picture is as bright as the photograph it was made from.

    As bright: the mean logarithm of its luminance is the same, where black counts as BLACK. before, after: (n,)
    float32, the linear luminance of the photograph and of the picture at the same places. 0 where the photograph is
    black all over, or n is 0.
    """
    black = np.float32(BLACK * before.mean()) if before.size else 0
    if not black > 0:
        return 0.0
    wanted = np.log2(np.maximum(before / black, 1)).mean()  # stops over black
    stops = np.log2(np.maximum(after / black, np.float32(2**-MOST)))  # what is darker stays black in any case
    low, high = -MOST, MOST
    while high - low > CLOSE:
        middle = (low + high) / 2
        if np.maximum(stops + np.float32(middle), 0).mean() < wanted:
            low = middle
        else:
            high = middle
    return (low + high) / 2
