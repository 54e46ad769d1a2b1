"""Views of rendered pictures: what is known of them must be what the turned camera would have rendered."""

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs requirements-export.txt")
import torch
from light_scenes import angles
from network import DIRECTIONS
from training import light, views
from training.directions import directions

FOCAL, SIDE = 0.8, 256  # 64 degrees wide
LAMP = np.array([0.5, 0.7, 0.5]) / np.linalg.norm([0.5, 0.7, 0.5])
BALL, RADIUS = np.array([0.3, 0.1, -3.0]), 0.8
FLOOR, UP = -1.0, np.array([0.1, 1.0, 0.2]) / np.linalg.norm([0.1, 1.0, 0.2])  # points with p.UP = FLOOR


def render(turn, reach, height, width):
    """A ball on a tilted floor, exactly, through a camera: depth, normals (0 in the sky) and what is open.

    A direction is open where it is above the surface and on the lamp's side, wherever it is asked for.
    """
    x = ((np.arange(width) + 0.5) / width * 2 - 1) * reach
    y = (1 - (np.arange(height) + 0.5) / height * 2) * reach * height / width
    own = np.stack([*np.broadcast_arrays(x[None], y[:, None]), np.full((height, width), -1.0)], -1)
    ray = own @ turn  # of length 1 along the camera's own axis, so that t is its depth
    a, b, c = (ray**2).sum(-1), ray @ BALL, BALL @ BALL - RADIUS**2
    inside = b * b - a * c
    t_ball = np.where(inside > 0, (b - np.sqrt(np.maximum(inside, 0))) / a, np.inf)
    t_floor = np.where(ray @ UP < -1e-3, FLOOR / np.minimum(ray @ UP, -1e-3), np.inf)
    depth = np.minimum(t_ball, t_floor)
    depth[depth > 40] = np.inf
    point = ray * np.where(np.isfinite(depth), depth, 0)[..., None]
    normal = np.where((t_ball < t_floor)[..., None], (point - BALL) / RADIUS, UP) * np.isfinite(depth)[..., None]
    d = directions() @ turn
    return 1 / depth, normal @ turn.T, (normal @ d.T > 0) & (d @ LAMP > 0)


def pictures():
    """The scene as the generator would have stored it, painted with its normals."""
    half = 0.5 / FOCAL
    inverse, normal, _ = render(np.eye(3), half, SIDE, SIDE)
    seen = render(np.eye(3), half, SIDE // 2, SIDE // 2)[2]
    arrays = (
        np.rint((normal + 1) * 127.5).astype(np.uint8),
        (inverse / inverse.max()).astype(np.float16),
        np.rint(normal * 127).astype(np.int8),
        np.isfinite(1 / np.maximum(inverse, 1e-9)).astype(np.uint8) * (inverse > 0),
        np.packbits(seen, axis=2),
        np.full((SIDE // 2, SIDE // 2, 3), 180, np.uint8),
    )
    return views.Pictures(*(torch.from_numpy(a)[None] for a in arrays), torch.tensor([FOCAL]))


def looked(turn, reach, height, width):
    codes, truth = views.look(
        pictures(),
        torch.from_numpy(turn.astype(np.float32))[None],
        torch.tensor([reach], dtype=torch.float32),
        height,
        width,
        torch.from_numpy(light.facing()[:3]),
    )
    return codes[0].permute(1, 2, 0).numpy(), truth


MIRROR = np.diag([-1.0, 1.0, 1.0])
CAMERAS = {
    "straight": (np.eye(3), 0.5 / FOCAL, 128, 128),
    "right": (views.toward(0.25, 0.0, 0.0), 0.3, 128, 128),
    "down, wide, tilted": (views.toward(-0.1, -0.22, 0.15), 0.3, 96, 128),
    "mirrored": (MIRROR @ views.toward(0.2, 0.1, -0.1), 0.3, 128, 96),
}


@pytest.mark.parametrize("camera", CAMERAS.values(), ids=CAMERAS)
def test_labels_of_a_view_are_those_of_a_camera_that_points_there(camera):
    turn, reach, height, width = camera
    codes, truth = looked(*camera)
    inverse, normal, seen = render(turn, reach, height // 2, width // 2)
    got = truth.normals[0].permute(1, 2, 0).numpy()
    length = np.linalg.norm(got, axis=-1)
    inner = (length > 0.995) & (inverse > 0)  # away from edges, where the truth is that of one side or the other
    assert inner.mean() > 0.4
    assert np.percentile(angles(got[inner] / length[inner][:, None], normal[inner]), 95) < 1.0
    ratio = truth.disparity[0, 0].numpy()[inner] / inverse[inner]
    assert np.ptp(np.percentile(ratio, [3, 97])) < 0.04 * np.median(ratio), "depth is that along the new axis"
    assert (truth.mask[0, 0].numpy() == (inverse > 0)).mean() > 0.98
    painted = (codes.reshape(height // 2, 2, width // 2, 2, 3).mean((1, 3)) / 127.5 - 1) @ turn.T
    assert (
        np.percentile(angles(painted[inner] / np.linalg.norm(painted[inner], axis=-1)[:, None], normal[inner]), 95) < 2
    )
    open_ = truth.seen[0].permute(1, 2, 0).numpy()
    d = directions() @ turn
    sure = (np.abs(d @ LAMP) > 0.35) & (directions()[:, 2] > 0)  # where all neighbours say the same
    above = normal @ directions().T > 0.4
    where = inner[..., None] & above & sure
    assert where.mean() > 0.1 and np.abs(open_ - seen)[where].mean() < 0.02


def test_a_window_cut_out_off_centre_has_other_normals():
    """What the turn is for: pixels cut out of the picture's side keep the normals of a camera that points elsewhere."""
    turn, reach, height, width = CAMERAS["right"]
    _, normal, _ = render(turn, reach, height, width)
    _, whole, _ = render(np.eye(3), 0.5 / FOCAL, SIDE, SIDE)
    column = int((0.25 * FOCAL + 0.5) * SIDE)
    off = angles(whole[SIDE // 2, column][None], normal[height // 2, width // 2][None])[0]
    assert 10 < off < 20 and off == pytest.approx(np.degrees(np.arctan(0.25)), abs=1.5)


@pytest.mark.parametrize("focal", [0.6, 1.0, 4.0])
@pytest.mark.parametrize("shape", [(128, 128), (112, 144), (144, 112)])
def test_cameras_see_nothing_but_the_picture_and_most_of_it_now_and_then(focal, shape):
    reaches, turns, mirrored = [], [], 0
    for k in range(80):
        turn, reach = views.camera(np.random.default_rng(k), focal, 288, *shape)
        assert np.allclose(turn @ turn.T, np.eye(3), atol=1e-5)
        mirrored += np.linalg.det(turn) < 0
        corners = torch.tensor(views.rays(torch.from_numpy(turn)[None], torch.tensor([reach]), *shape)[0].numpy())
        place = corners[..., :2] / -corners[..., 2:] * 2 * focal
        assert (corners[..., 2] < 0).all() and place.abs().max() <= 1
        reaches.append(reach * 2 * focal * max(1, shape[0] / shape[1]))
        turns.append(abs(turn[2, :2]).max())
    assert 0.25 < min(reaches) < 0.75 and max(reaches) > 0.999 and 20 < mirrored < 60
    assert sum(t < 1e-6 for t in turns) < 60, "most look aside"


def test_a_view_that_is_no_turn_is_the_picture():
    _, truth = looked(np.eye(3), 0.5 / FOCAL, SIDE, SIDE)
    bits = np.unpackbits(pictures().seen[0].numpy(), axis=2)[..., :DIRECTIONS]
    normals = truth.normals[0].permute(1, 2, 0).numpy()
    sure = normals @ directions().T > 0.1
    assert np.abs(truth.seen[0].permute(1, 2, 0).numpy() - bits)[sure].max() < 0.05
    assert truth.disparity.max() == pytest.approx(1, abs=0.01)
