"""A sky that the mask knows in part becomes whole.

What stands before it, or goes on from it toward the viewer, does not.
"""

import numpy as np
import pytest

from server.scene.fit import surface_share
from server.scene.sky import whole_sky

H, W = 96, 128
HORIZON = 60


def landscape():
    """A faultless mask (H, W): sky above a plain."""
    return np.repeat(np.where(np.arange(H) < HORIZON, 0, 1).astype(np.float32)[:, None], W, 1)


def test_a_faultless_mask_stays():
    mask = landscape()
    assert (whole_sky(mask) == mask).all()


@pytest.mark.parametrize("doubt", [0.3, 0.33, 0.35])
def test_stains_of_doubt_in_a_sky_go(doubt):
    mask = landscape()
    mask[10:30, 40:90] = doubt  # inside, and another one at the border
    mask[:12, 100:] = doubt
    got = whole_sky(mask)
    assert (got[:HORIZON] <= 0.2).all() and (got[HORIZON:] == 1).all()
    assert surface_share(mask)[20, 60] > 0.2 and (surface_share(got)[:HORIZON] == 0).all()


@pytest.mark.parametrize("doubt", [0.65, 0.99])
def test_what_is_rather_a_surface_stays(doubt):
    mask = landscape()
    mask[10:30, 40:90] = doubt
    assert (whole_sky(mask)[10:30, 40:90] == np.float32(doubt)).all()


def test_what_stands_before_the_sky_keeps_its_soft_edges():
    mask = landscape()
    mask[18:57, 48:72] = 0.5
    mask[20:55, 50:70] = 1
    got = whole_sky(mask)
    assert (got[20:55, 50:70] == 1).all() and (got[18:57, 48:72] >= 0.5).all()
    assert (got[:16] == 0).all()


def test_a_sky_ends_softly_in_growing_doubt():
    mask = landscape()
    mask[:HORIZON] = np.linspace(0, 1, W, dtype=np.float32)
    got = whole_sky(mask)[HORIZON // 2]
    assert (np.diff(got) >= 0).all() and np.diff(got).max() < 3 / W
    assert (got <= mask[0]).all() and got[int(0.4 * W)] < 0.3 and got[-W // 5] == mask[0, -W // 5]


def test_doubt_without_a_sky_stays():
    mask = np.ones((H, W), np.float32)
    mask[30:50, 30:50] = 0.4
    assert (whole_sky(mask) == mask).all()


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_masks_of_one_value_stay(value):
    mask = np.full((H, W), value, np.float32)
    assert (whole_sky(mask) == mask).all()


def test_the_mirror_image_has_the_mirrored_void():
    mask = landscape()
    mask[5:40, 20:50] = 0.45
    mirrored = np.ascontiguousarray(mask[:, ::-1])
    assert (whole_sky(mask) == whole_sky(mirrored)[:, ::-1]).all()
    assert (whole_sky(mask) != mask).any()


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (7, 2)])
def test_thin_grids(shape):
    mask = np.linspace(0, 1, shape[0] * shape[1], dtype=np.float32).reshape(shape)
    got = whole_sky(mask)
    assert got.shape == shape and np.isfinite(got).all() and (got <= mask).all()
