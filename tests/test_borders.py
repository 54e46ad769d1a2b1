"""A frame around a photograph is found where there is one, and has no say in what is estimated inside it."""

import cv2
import numpy as np
import pytest
from fakes import sphere
from fastapi.testclient import TestClient
from support import encoded, gradient, picture, upload

from server.application import create_app
from server.scene.borders import content_box, letterbox
from server.scene.geometry import Geometry
from server.scene.pipeline import estimate

H, W = 120, 160


def scene(h=H, w=W, seed=0):
    """Patches of all colours, (h, w, 3) uint8."""
    patches = np.random.default_rng(seed).integers(0, 256, (h // 8 + 1, w // 8 + 1, 3), np.uint8)
    return cv2.resize(patches, (w, h), interpolation=cv2.INTER_CUBIC)


def framed(rgb, top, bottom, left, right, colour=(255, 255, 255)):
    return cv2.copyMakeBorder(rgb, top, bottom, left, right, cv2.BORDER_CONSTANT, value=colour)


def bars(rgb):
    """(top, bottom, left, right)."""
    rows, columns = content_box(rgb)
    return rows.start, rgb.shape[0] - rows.stop, columns.start, rgb.shape[1] - columns.stop


@pytest.mark.parametrize("widths", [(6, 6, 6, 8), (1, 1, 1, 1), (20, 25, 0, 0), (0, 0, 30, 12), (5, 5, 25, 25)])
@pytest.mark.parametrize("colour", [(255, 255, 255), (0, 0, 0), (250, 244, 230)], ids=["white", "black", "paper"])
def test_frames_are_found(widths, colour):
    assert bars(framed(scene(), *widths, colour)) == widths


@pytest.mark.parametrize("quality", [50, 75, 95])
def test_a_compressed_frame_is_found(quality):
    _, data = cv2.imencode(".jpg", framed(scene(), 9, 11, 13, 8), [cv2.IMWRITE_JPEG_QUALITY, quality])
    found = bars(cv2.imdecode(data, cv2.IMREAD_COLOR))
    assert np.abs(np.subtract(found, (9, 11, 13, 8))).max() <= 1


def test_what_is_no_frame_is_left():
    y, x = np.mgrid[0:H, 0:W]
    disc = np.where(((y - 60) ** 2 + (x - 80) ** 2 < 57**2)[..., None], scene(), np.uint8(0))
    sky, paler = scene(), scene()
    sky[:20] = (120, 160, 220)  # nothing like it below
    paler[:20] = paler[-20:] = np.linspace(60, 200, 20)[:, None, None]  # no one colour
    no_end = scene()
    no_end[:50] = no_end[-50:] = 255  # thicker than any frame
    two = scene()
    two[:6], two[-6:] = 255, 0
    soft = cv2.GaussianBlur(framed(scene(), 15, 15, 15, 15).astype(np.float32), (0, 0), 20).astype(np.uint8)
    pictures = {
        "scene": scene(),
        "gradient": gradient(H, W),
        "thing on black": disc,
        "sky": sky,
        "gradient bars": paler,
        "half": no_end,
        "two colours": two,
        "vignette": soft,
        "one colour": np.full((H, W, 3), 90, np.uint8),
    }
    assert {name: bars(rgb) for name, rgb in pictures.items()} == dict.fromkeys(pictures, (0, 0, 0, 0))


@pytest.mark.parametrize("h", [1, 2, 3, 5, 9])
@pytest.mark.parametrize("w", [1, 2, 3, 7])
def test_something_is_inside_of_the_smallest(h, w):
    for seed in range(40):
        rgb = np.random.default_rng(seed).choice(np.uint8([0, 255]), (h, w, 1)).repeat(3, 2)
        rows, columns = content_box(rgb)
        assert rgb[rows, columns].size > 0


def test_geometry_lies_where_it_was():
    """Depth, normals and mask of functions of the place, put into a frame.

    The same functions of the place inside it.
    """

    def ramp(y, x):
        tilt = np.stack([0.3 * x / W, 0.2 * y / H, np.ones_like(x)], -1)
        return 2 + x / W - 0.5 * y / H, tilt / np.linalg.norm(tilt, axis=2, keepdims=True)

    top, bottom, left, right = 12, 20, 30, 10
    h, w = 60, 80  # of the grid, half of what is inside
    y, x = (a.astype(np.float32) * 2 + 1 for a in np.mgrid[0:h, 0:w])
    depth, normals = ramp(y, x)
    got = letterbox(
        Geometry(depth, normals, np.ones((h, w), np.float32), 1.5, 0.3),
        (slice(top, top + H), slice(left, left + W)),
        H + top + bottom,
        W + left + right,
    )
    gh, gw = got.inverse_depth.shape
    assert (gh, gw) == ((H + top + bottom) / 2, (W + left + right) / 2) and got.relief == 0.3
    y, x = (a.astype(np.float32) * 2 + 1 for a in np.mgrid[0:gh, 0:gw])
    want_depth, want_normals = ramp(
        np.clip(y - top, 1, H - 1), np.clip(x - left, 1, W - 1)
    )  # beyond the edge it stays as it is there
    assert np.abs(got.inverse_depth - want_depth).max() < 1e-4 and np.abs(got.normals - want_normals).max() < 1e-4
    inside = (y > top) & (y < top + H) & (x > left) & (x < left + W)
    assert (got.mask[inside] == 1).all() and (got.mask[~inside] == 0).all()
    assert got.focal == pytest.approx(1.5 * W / (W + left + right))  # as many pixels, of a wider picture


def test_the_network_sees_what_is_inside():
    seen = []

    def analyse(rgb):
        seen.append(rgb)
        return sphere(30, 40)

    estimate(framed(scene(), 6, 7, 8, 9), analyse)
    assert (seen[0] == scene()).all()
    whole = estimate(scene(), analyse)
    assert (seen[1] == scene()).all() and whole.mask is None


def test_a_framed_photo_is_relit_like_the_photo_and_its_frame_not_at_all(settings):
    with TestClient(create_app(settings())) as client:  # the network that is shipped
        rgb = cv2.resize(gradient(30, 40), (W, H), interpolation=cv2.INTER_CUBIC)
        got = []
        for photo in (rgb, framed(rgb, 10, 12, 14, 16)):
            job = upload(client, encoded(photo))
            answer = client.post("/relight", json={"job_id": job, "x": -1, "y": 0.4, "z": 0.5, "exposure": 0})
            assert answer.status_code == 200, answer.text
            got.append(picture(client, job).astype(int))
    alone, around = got
    inside = around[10:-12, 14:-16]
    assert np.abs(alone - rgb).mean() > 10
    assert np.abs(inside - alone)[4:-4, 4:-4].mean() < 4
    frame = np.ones(around.shape[:2], bool)
    frame[8:-10, 12:-14] = False
    assert (around[frame] == 255).all()
