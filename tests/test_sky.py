"""A sky that the mask knows in part becomes whole.

What stands before it, or goes on from it toward the viewer, does not.
"""

import numpy as np
import pytest

from server.scene.geometry import Geometry
from server.scene.sky import whole_sky

H, W = 96, 128
HORIZON = 60


def landscape(sky=(120, 160, 220), ground=(90, 110, 60)):
    """(rgb at twice the grid, Geometry with a faultless mask).

    A sky that pales toward the horizon, a plain that comes nearer.
    """
    down = np.arange(H)
    rgb = np.empty((H, W, 3), np.float32)
    rgb[:HORIZON] = np.float32(sky) + down[:HORIZON, None, None] * 0.5
    rgb[HORIZON:] = ground
    depth = np.where(down < HORIZON, 0.01, 0.02 + (down - HORIZON) / (H - HORIZON))[:, None] * np.ones((1, W))
    mask = np.where(down < HORIZON, 0.0, 1.0)[:, None] * np.ones((1, W))
    big = np.repeat(np.repeat(np.clip(rgb, 0, 255), 2, 0), 2, 1).astype(np.uint8)
    return big, Geometry(depth.astype(np.float32), None, mask.astype(np.float32))


def test_a_faultless_mask_stays():
    rgb, geometry = landscape()
    assert (whole_sky(rgb, geometry) == geometry.mask).all()


@pytest.mark.parametrize("doubt", [0.4, 0.7, 0.99], ids=["half", "rather surface", "surely surface"])
def test_stains_in_a_sky_go(doubt):
    rgb, geometry = landscape()
    geometry.mask[10:30, 40:90] = doubt  # inside, and below another one at the border
    geometry.mask[:12, 100:] = doubt
    got = whole_sky(rgb, geometry)
    assert (got[:HORIZON] <= 0.2).all() and (got[HORIZON:] == 1).all()


def test_what_stands_before_the_sky_stays():
    """A dark thing before a dark sky, nearer by its depth alone, with soft edges of doubt."""
    rgb, geometry = landscape(sky=(12, 12, 16))
    rgb[40:110, 100:140] = 14
    geometry.inverse_depth[18:57, 48:72] = 0.3
    geometry.inverse_depth[20:55, 50:70] = 0.6
    geometry.mask[18:57, 48:72] = 0.5
    geometry.mask[20:55, 50:70] = 1
    got = whole_sky(rgb, geometry)
    assert (got[20:55, 50:70] == 1).all() and (got[18:57, 48:72] >= 0.5).mean() > 0.9


def test_ground_of_the_colour_of_the_sky_stays():
    rgb, geometry = landscape(sky=(200, 200, 200), ground=(228, 228, 228))
    got = whole_sky(rgb, geometry)
    assert (got[HORIZON + 4 :] == 1).all() and (got[:HORIZON] == 0).all()


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_masks_of_one_value_stay(value):
    rgb, geometry = landscape()
    geometry.mask[:] = value
    assert (whole_sky(rgb, geometry) == value).all()


def test_the_mirror_image_has_the_mirrored_void():
    rgb, geometry = landscape()
    geometry.mask[5:40, 20:50] = 0.8
    mirrored = Geometry(geometry.inverse_depth[:, ::-1], None, geometry.mask[:, ::-1])
    assert (whole_sky(rgb, geometry) == whole_sky(np.ascontiguousarray(rgb[:, ::-1]), mirrored)[:, ::-1]).all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (7, 2)])
def test_thin_grids(shape):
    mask = np.linspace(0, 1, shape[0] * shape[1], dtype=np.float32).reshape(shape)
    got = whole_sky(np.full((20, 30, 3), 80, np.uint8), Geometry(mask.copy(), None, mask))
    assert got.shape == shape and np.isfinite(got).all() and (got <= mask).all()
