"""The light a photograph was taken in, as a network says it: pixel by pixel, cast shadows and all."""

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
from light_scenes import FIT, ball_and_wall

from server.errors import DamagedFile, ModelError
from server.image.srgb import linear_to_srgb, srgb_to_linear
from server.jobs.rendering import CachedGeometry
from server.light.lights import Rig
from server.light.maps import prepare_grid
from server.light.shading import prepare, relight
from server.model.engine import Graph, OnnxEngine
from server.model.manifest import parse
from server.scene.borders import letterbox
from server.scene.geometry import checked, pack, unpack
from server.scene.illumination import EVEN_LIGHT

H, W = 72, 96
EVEN = replace(FIT, light=EVEN_LIGHT)
SHADOWLESS = Rig(ambient=1.0, delight=1.0, exposure=0.0)  # no lamps, and no light of its own is left


@pytest.fixture(scope="module")
def shaded():
    """(A gray wall with a shadow cast over it, its geometry, the logarithm of its shading (H, W))."""
    wall = replace(ball_and_wall(H, W)[0], inverse_depth=np.ones((H, W), np.float32))
    wall = replace(wall, normals=np.broadcast_to(np.float32([0, 0, 1]), (H, W, 3)).copy())
    shadow = np.zeros((H, W), np.float32)
    shadow[20:50, 30:70] = 1
    logarithm = np.log(1 - 0.75 * cv2.GaussianBlur(shadow, (0, 0), 2))
    codes = np.rint(255 * linear_to_srgb(0.5 * np.exp(logarithm))).astype(np.uint8)
    return np.repeat(codes[..., None], 3, 2), wall, logarithm


def with_shading(geometry, logarithm, share=1.0):
    return replace(geometry, shading=np.repeat(logarithm[..., None], 3, 2).astype(np.float32), shading_share=share)


def lit(rgb, geometry, rig=SHADOWLESS, fit=EVEN):
    return relight(prepare(rgb, geometry, fit), rig)


def test_the_photo_s_own_shadow_is_taken_out(shaded):
    rgb, wall, logarithm = shaded
    without = lit(rgb, with_shading(wall, logarithm))
    assert np.ptp(without.astype(int)) <= 5 < 60 < np.ptp(rgb.astype(int))
    assert np.ptp(lit(rgb, wall).astype(int)) > 60, "harmonics know nothing of it"


def test_half_the_share_takes_half_the_logarithm_out(shaded):
    rgb, wall, logarithm = shaded
    half = srgb_to_linear(lit(rgb, with_shading(wall, logarithm, 0.5))[..., 0] / 255)
    left = np.log(half[35, 50] / half[5, 5]) / logarithm[35, 50]
    assert abs(left - 0.5) < 0.02


def test_delight_is_how_much_of_it_is_taken_out(shaded):
    rgb, wall, logarithm = shaded
    part = srgb_to_linear(lit(rgb, with_shading(wall, logarithm), replace(SHADOWLESS, delight=0.4))[..., 0] / 255)
    assert abs(np.log(part[35, 50] / part[5, 5]) / logarithm[35, 50] - 0.6) < 0.02


def test_a_factor_of_the_shading_means_nothing(shaded):
    rgb, wall, logarithm = shaded
    one, other = (lit(rgb, with_shading(wall, logarithm + shift, 0.7)).astype(int) for shift in (0, 1.5))
    assert np.abs(one - other).max() <= 1


def test_a_share_of_nothing_is_no_shading(shaded):
    rgb, wall, logarithm = shaded
    assert np.array_equal(lit(rgb, with_shading(wall, logarithm, 0.0)), lit(rgb, wall))


def test_a_shading_beside_a_mask(shaded):
    """What is not lit stays, and does not count for the brightness of the rest."""
    rgb, wall, logarithm = shaded
    mask = np.ones((H, W), np.float32)
    mask[:, 80:] = 0
    strange = logarithm.copy()
    strange[:, 84:] = -6
    out = lit(rgb, with_shading(replace(wall, mask=mask), strange))
    assert np.array_equal(out[:, 88:], rgb[:, 88:]) and np.ptp(out[:, :72].astype(int)) <= 5
    expected = lit(rgb, with_shading(replace(wall, mask=mask), logarithm))
    assert np.abs(out.astype(int) - expected)[:, :72].max() <= 1


def test_a_larger_picture_is_lit_alike(shaded):
    rgb, wall, logarithm = shaded
    large = cv2.resize(rgb, (4 * W, 4 * H), interpolation=cv2.INTER_LINEAR)
    out = lit(large, with_shading(wall, logarithm))
    inner = out[16:-16, 16:-16].astype(int)
    assert np.ptp(inner) <= 12 and np.abs(inner - inner.mean()).mean() < 2


def test_a_job_keeps_its_shading_and_older_ones_have_none(shaded):
    _, wall, logarithm = shaded
    again = unpack(pack(with_shading(wall, logarithm, 0.6)))
    assert np.abs(again.shading - logarithm[..., None]).max() < 2e-3 and abs(again.shading_share - 0.6) < 1e-6
    older = unpack(pack(wall))
    assert older.shading is None and prepare_grid(older, FIT).shading_share == 0
    more = CachedGeometry(with_shading(wall, logarithm)).nbytes - CachedGeometry(wall).nbytes
    assert more == H * W * 3 * 4


@pytest.mark.parametrize(
    "wrong",
    [
        {"shading": np.zeros((H, W), np.float32)},
        {"shading": np.zeros((H, W // 2, 3), np.float32)},
        {"shading": np.full((H, W, 3), np.inf, np.float32)},
        {"shading": np.zeros((H, W, 3), np.float32), "shading_share": 1.5},
        {"shading": np.zeros((H, W, 3), np.float32), "shading_share": float("nan")},
    ],
    ids=["gray", "too small", "not finite", "more than all", "no number"],
)
def test_a_shading_that_does_not_fit_is_refused(shaded, wrong):
    geometry = replace(shaded[1], **wrong)
    with pytest.raises(ModelError):
        checked(geometry)
    with pytest.raises(DamagedFile):
        unpack(pack(geometry))


def test_a_frame_leaves_the_shading_where_it_was(shaded):
    _, wall, logarithm = shaded
    framed = letterbox(with_shading(wall, logarithm), (slice(36, 36 + 144), slice(48, 48 + 192)), 216, 288)
    assert framed.shading.shape == (*framed.inverse_depth.shape, 3)
    assert np.abs(framed.shading[18:-18, 24:-24] - logarithm[..., None]).max() < 0.02


class Lamp:
    """A session that says that the light falls off to the right by a factor of e, less so in blue, times `factor`.

    `asked` are the widths of the pictures with what else it was given.
    """

    def __init__(self, linear, factor=1.0):
        self.linear, self.factor, self.asked = linear, factor, []

    def run(self, names, feeds):
        _, _, h, w = feeds["image"].shape
        self.asked.append((w, {name: value.tolist() for name, value in feeds.items() if name != "image"}, names))
        x = -(np.arange(w // 2) + 0.5) / (w // 2)
        logarithm = np.stack([x, x, x / 2]) + np.log(self.factor)
        shading = np.exp(logarithm) if self.linear else logarithm
        answers = {
            "depth": np.ones((1, 1, h // 2, w // 2), np.float32),
            "shading": np.broadcast_to(shading[None, :, None, :], (1, 3, h // 2, w // 2)).astype(np.float32),
        }
        return [answers[n] for n in names]


def engine(session, meaning="logarithm", mirror=False, scales=(1.0,), light=None, **more):
    manifest = {
        "input": {"name": "image", "size": 160, "size_rule": "long_side", "multiple": 32, "scale": 1.0}
        | {"mean": [0.0] * 3, "std": [1.0] * 3, "scales": list(scales), "mirror": mirror, "light": light},
        "outputs": {
            "depth": {"name": "depth", "meaning": "disparity"},
            "shading": {"name": "shading", "meaning": meaning, **more},
        },
    }
    graph = Graph(parse(json.loads(json.dumps(manifest))), session, "CPUExecutionProvider")
    return OnnxEngine({"depth": graph, "shading": graph})


@pytest.mark.parametrize("scales", [(1.0,), (1.0, 2.0)])
@pytest.mark.parametrize("linear, factor", [(False, 1.0), (True, 1.0), (True, 40.0), (False, 0.1)])
def test_a_graph_s_shading_arrives_as_a_logarithm_without_its_factor(linear, factor, scales):
    rgb = np.zeros((128, 160, 3), np.uint8)
    found = engine(Lamp(linear, factor), "linear" if linear else "logarithm", scales=scales, share=0.8).analyse(rgb)
    assert found.shading.shape == (*found.inverse_depth.shape, 3) and found.shading_share == 0.8
    w = found.shading.shape[1]
    x = (np.arange(w) + 0.5) / w
    inner = slice(w // 8, -w // 8)
    expected = (0.5 - x)[None, :, None] * np.float32([1, 1, 0.5])
    assert np.abs(found.shading - expected)[:, inner].max() < 0.02


def test_a_graph_that_can_leave_its_light_out_is_asked_for_it_at_the_smallest_size():
    session = Lamp(False)
    switched = engine(session, scales=(2.0, 1.0), mirror=True, light="with_light")
    found = switched.analyse(np.zeros((128, 160, 3), np.uint8))
    assert session.asked == [
        *[(160, {"with_light": [1]}, ["depth", "shading"])] * 2,
        *[(320, {"with_light": [0]}, ["depth"])] * 2,
    ]
    assert found.inverse_depth.shape == (128, 160) and found.shading.shape == (128, 160, 3)
    assert np.abs(found.shading).max() < 0.02, "of the mirrored photo, too"


def test_the_mirrored_photo_s_shading_is_mirrored_back():
    """What falls off to the right in the photo and in its mirror image alike is no light of the scene's."""
    found = engine(Lamp(False), mirror=True).analyse(np.zeros((128, 160, 3), np.uint8))
    assert np.abs(found.shading).max() < 0.02


@pytest.mark.parametrize("wrong", [{"meaning": "albedo"}, {"share": 1.1}, {"share": "half"}])
def test_manifests_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValueError, match="|".join(wrong)):
        engine(Lamp(False), **{"meaning": "linear", **wrong})
