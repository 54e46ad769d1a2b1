"""What stands in front: its role, its edge in the photograph, and subject.png."""

import io
import json
import zipfile
from dataclasses import replace

import adapters
import cv2
import export_models
import graphs
import numpy as np
import onnx
import pytest
import torch
import u2net
from fakes import FakeEngine
from fastapi.testclient import TestClient
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from support import ROOT, encoded, finished, gradient, picture, problem, upload

from server.application import create_app
from server.errors import DamagedFile, FileNotFound, ModelError, ModelMissing
from server.model.engine import OnnxEngine, load_engine, load_graph
from server.scene.borders import letterbox
from server.scene.geometry import checked, pack, unpack
from server.scene.subject import linear_in_colour, refined, subject_pass


class Pointing(FakeEngine):
    """What stands in front is the sphere, on a grid of its own."""

    def analyse(self, rgb):
        scale = 40 / max(rgb.shape[:2])
        h, w = (max(1, round(s * scale)) for s in rgb.shape[:2])
        return replace(super().analyse(rgb), subject=np.uint8(255) * disc(h, w))


def disc(h, w, radius=0.7):
    """(h, w) bool: the sphere of the engine."""
    x = ((np.arange(w) + 0.5) * 2 - w) / min(h, w) / radius
    y = ((np.arange(h) + 0.5) * 2 - h)[:, None] / min(h, w) / radius
    return x * x + y * y < 1


def shown(h=300, w=400):
    """A photo of a disc, whose ground is nearly as bright, and where the disc is."""
    there = disc(h, w)
    rng = np.random.default_rng(0)
    photo = np.where(there[..., None], [190, 120, 60], [110, 140, 150]) + rng.normal(0, 6, (h, w, 1))
    return np.clip(photo, 0, 255).astype(np.uint8), there


def unlike(mask, there):
    """The share of the mask that is on the wrong side, to the disc's area."""
    return np.abs(mask / 255 - there).sum() / there.sum()


@pytest.fixture
def client(settings):
    with TestClient(create_app(settings(), Pointing()), raise_server_exceptions=False) as client:
        yield client


@pytest.mark.parametrize("size", [(300, 400), (1000, 1400)])
def test_the_edge_is_the_photo_s(size):
    """The network's answer is blurred, and a texel is ten pixels and more."""
    photo, there = shown(*size)
    coarse = cv2.GaussianBlur(np.uint8(255) * disc(30, 40), (3, 3), 0)
    plain = cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_LINEAR)
    found = refined(coarse, photo)
    assert unlike(found, there) < 0.6 * unlike(plain, there)
    assert found[size[0] // 2, size[1] // 2] == 255 and found[5, 5] == 0


def test_the_factors_are_the_least_squares_of_each_window():
    """In the middle of a window, before the mean over the windows that hold a pixel: by NumPy's own solver."""
    rng = np.random.default_rng(3)
    guide, plane = rng.random((9, 9, 3)).astype(np.float32), rng.random((9, 9)).astype(np.float32)
    reach, total = 1, []
    for y in range(3, 6):
        for x in range(3, 6):
            part = slice(y - reach, y + reach + 1), slice(x - reach, x + reach + 1)
            colours, values = guide[part].reshape(-1, 3).astype(np.float64), plane[part].ravel().astype(np.float64)
            off = colours - colours.mean(0)
            # ridge regression: the penalty 1e-4 counts once for each pixel of the window
            share = np.linalg.solve(off.T @ off + 1e-4 * len(off) * np.eye(3), off.T @ (values - values.mean()))
            total.append([*share, values.mean() - share @ colours.mean(0)])
    assert np.allclose(linear_in_colour(plane, guide, reach)[:, 4, 4], np.mean(total, 0), atol=2e-3)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (7, 1), (3, 5), (1, 3000), (33, 1025)])
@pytest.mark.parametrize("answer", [(1, 1), (1, 40), (24, 40)])
def test_any_size_of_photo_and_answer(size, answer):
    rng = np.random.default_rng(1)
    photo = rng.integers(0, 256, (*size, 3), np.uint8)
    for value, low, high in ((0, 0, 0), (255, 255, 255), (128, 120, 136)):
        found = refined(np.full(answer, value, np.uint8), photo)
        assert found.shape == size and found.dtype == np.uint8 and low <= found.min() and found.max() <= high


def test_even_photos_and_threads_change_nothing():
    photo, _ = shown(500, 700)
    answer = np.uint8(255) * disc(60, 80)
    assert np.array_equal(refined(answer, photo, threads=1), refined(answer, photo, threads=3))
    for value in (0, 77, 255):
        found = refined(answer, np.full_like(photo, value))
        assert found[250, 350] == 255 and found[3, 3] == 0 and np.isin([0, 255], found).all()


def test_what_is_transparent_is_no_subject():
    photo, there = shown()
    alpha = np.full(there.shape, 255, np.uint8)
    alpha[:, :200] = 0
    found, whole = refined(np.uint8(255) * disc(30, 40), photo, alpha), refined(np.uint8(255) * disc(30, 40), photo)
    assert found[:, :200].max() == 0 and np.array_equal(found[:, 200:], whole[:, 200:])


def test_it_is_kept_with_the_geometry():
    geometry = Pointing().analyse(np.zeros((60, 80, 3), np.uint8))
    assert np.array_equal(unpack(pack(geometry)).subject, geometry.subject)
    assert unpack(pack(replace(geometry, subject=None))).subject is None
    for broken in (np.zeros((3, 4, 2), np.uint8), np.zeros((0, 4), np.uint8), np.zeros((3, 4), np.float32)):
        with pytest.raises(ModelError):
            checked(replace(geometry, subject=broken))
    with pytest.raises(DamagedFile):
        unpack(pack(replace(geometry, subject=np.zeros((3, 4, 2), np.uint8))))
    with pytest.raises(FileNotFound):
        subject_pass(replace(geometry, subject=None), np.zeros((60, 80, 3), np.uint8))


def test_a_border_round_the_photo_is_no_subject():
    geometry = replace(FakeEngine().analyse(np.zeros((60, 80, 3), np.uint8)), subject=np.full((30, 40), 255, np.uint8))
    found = letterbox(geometry, (slice(10, 70), slice(20, 100)), 80, 120).subject
    assert found.shape == (40, 60) and found[5:35, 10:50].min() == 255
    assert found[:5].max() == found[35:].max() == found[:, :10].max() == found[:, 50:].max() == 0


@pytest.mark.parametrize("shape", [(60, 80, 3), (61, 83, 4), (1, 1, 3)])
def test_the_pass_has_the_photo_s_size(client, shape):
    photo = np.resize(gradient(shape[0], shape[1]), shape)
    photo[..., 3:] = 255
    job = upload(client, encoded(photo))
    assert "subject.png" in finished(client, job)["files"]
    found = picture(client, job, "subject.png")
    assert found.shape == shape[:2] and found.dtype == np.uint8
    if min(shape[:2]) > 1:
        assert found[30, 40] == 255 and found[0, 0] == 0
    assert client.get(f"/download/{job}/subject.png").content == client.get(f"/download/{job}/subject.png").content
    twin = upload(client, encoded(photo))
    finished(client, twin)
    assert np.array_equal(picture(client, twin, "subject.png"), found)


def test_it_is_in_the_archive(client):
    job = upload(client)
    client.post("/relight", json={"job_id": job, "x": 1, "y": 0, "z": 1}).raise_for_status()
    with zipfile.ZipFile(io.BytesIO(client.get(f"/download/{job}/passes.zip").content)) as archive:
        assert archive.read("subject.png") == client.get(f"/download/{job}/subject.png").content


def test_a_job_without_one_says_why(settings, tmp_path):
    """Of a model that does not tell it, or of an older version, whose record says nothing of it."""
    with TestClient(create_app(settings(), FakeEngine())) as client:
        job = upload(client)
        assert "subject.png" not in finished(client, job)["files"]
        client.post("/relight", json={"job_id": job, "x": 1, "y": 0, "z": 1}).raise_for_status()
        assert "older version" in problem(client.get(f"/download/{job}/subject.png"), 404, "file_not_found")
        record = json.loads((tmp_path / "jobs" / job / "job.json").read_text())
        assert record.pop("subject") is False
        (tmp_path / "jobs" / job / "job.json").write_text(json.dumps(record))
        assert "older version" in problem(client.get(f"/download/{job}/subject.png"), 404, "file_not_found")
        with zipfile.ZipFile(io.BytesIO(client.get(f"/download/{job}/passes.zip").content)) as archive:
            assert "subject.png" not in archive.namelist() and "surface.png" in archive.namelist()


# -- the role


def tiny(folder, name, roles):
    """A graph that answers 4 times the picture's red, and as many roles."""
    outputs = [helper.make_tensor_value_info(role, TensorProto.FLOAT, [1, 1, "h", "w"]) for role in roles]
    nodes = [helper.make_node("Conv", ["image", "red"], [role]) for role in roles]
    red = numpy_helper.from_array(np.float32([4, 0, 0]).reshape(1, 3, 1, 1), "red")
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, "h", "w"])
    graph = helper.make_graph(nodes, name, [image], outputs, [red])
    data = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    meanings = {"depth": "disparity", "subject": "logit"}
    manifest = {
        "name": name,
        "sha256": graphs.hashlib.sha256(data).hexdigest(),
        "roles": list(roles),
        "input": graphs.input_spec(64, 32, [0.5] * 3, [0.5] * 3) | {"mirror": True, "scales": [0.5, 1]},
        "outputs": {role: {"name": role, "meaning": meanings[role]} for role in roles},
    }
    (folder / f"{name}.onnx").write_bytes(data)
    (folder / f"{name}.json").write_text(json.dumps(manifest))


def test_the_role_is_filled_by_the_graph_that_the_setting_names(settings, tmp_path):
    (
        tiny(tmp_path, "deep", ["depth"]),
        tiny(tmp_path, "front", ["subject"]),
        tiny(tmp_path, "both", ["depth", "subject"]),
    )
    photo = np.zeros((48, 64, 3), np.uint8)
    photo[:, 32:, 0] = 255

    def engine(**names):
        return load_engine(settings(models_dir=tmp_path, normals_model="", mask_model="", threads=1, **names))

    for names in ({"depth_model": "deep", "subject_model": "front"}, {"depth_model": "both", "subject_model": "both"}):
        found = engine(**names)
        subject = found.analyse(photo).subject
        assert subject.dtype == np.uint8 and subject.shape == (48, 64)
        assert subject[10, 5] < 10 and subject[10, 58] > 245
        assert "subject" in [r for d in found.describe() for r in d["roles_filled"]]
    assert engine(depth_model="deep", subject_model="").analyse(photo).subject is None
    # a folder of an older version, which knows no such graph
    assert engine(depth_model="deep").analyse(photo).subject is None
    with pytest.raises(ModelMissing, match="gone is not installed"):
        engine(depth_model="deep", subject_model="gone")
    with pytest.raises(ModelMissing, match="RELIGHT_SUBJECT_MODEL to one that has; or to nothing"):
        engine(depth_model="deep", subject_model="deep")


# -- the bundled network


def test_the_committed_graph_is_the_committed_weights():
    """And answers what torch does."""
    network = adapters.build("u2netp", None, None)
    data = (ROOT / "onnx_models" / "u2netp.onnx").read_bytes()
    manifest = json.loads((ROOT / "onnx_models" / "u2netp.json").read_text())
    assert graphs.check_parity(data, network)["worst"]["subject"] <= 1e-3
    assert (manifest["input"], manifest["outputs"]) == (network.input, network.outputs)
    assert manifest["licence"] == "Apache-2.0" and (ROOT / "onnx_models" / "u2netp.LICENSE").is_file()


def test_it_finds_what_stands_in_front():
    graph = load_graph(ROOT / "onnx_models", "u2netp", provider="cpu", threads=2)
    engine = OnnxEngine({"subject": graph})
    photo, there = shown(180, 240)
    found = np.rint(engine._run(graph, ["subject"], photo)["subject"] * 255).astype(np.uint8)
    mask = refined(found, photo) > 127
    assert (mask & there).sum() > 0.9 * (mask | there).sum()


def published(path, net, name="side2"):
    """Weights as they are handed on: convolutions in the order in which they are run, and those of all sides."""
    layers = [m for m in net.modules() if isinstance(m, torch.nn.Conv2d) and m is not net.side]
    extra = torch.nn.Conv2d(4, 4, 3)  # of the finest stage, which is not run
    named = [(str(k), layer) for k, layer in enumerate([*layers, extra])]
    named += [("side1", torch.nn.Conv2d(64, 1, 3)), (name, net.side), ("outconv", torch.nn.Conv2d(6, 1, 1))]
    nodes, tensors = [], []
    for k, (title, layer) in enumerate(named):
        names = [f"{title}.weight", f"{title}.bias"]
        nodes.append(helper.make_node("Conv", [f"x{k}", *names], [f"y{k}"]))
        tensors += [numpy_helper.from_array(t.detach().numpy(), n) for t, n in zip((layer.weight, layer.bias), names)]
    onnx.save(helper.make_model(helper.make_graph(nodes, "u2netp", [], [], tensors)), path)


def test_published_weights_are_read(tmp_path, capsys):
    torch.manual_seed(2)
    net, path = u2net.U2NetP().eval(), tmp_path / "u2netp.onnx"
    published(path, net)
    made = adapters.build("u2netp", path, None)
    x = torch.from_numpy(graphs.probe(64, 96))
    with torch.no_grad():
        assert torch.equal(made.module(x), net(x)) and net(x).shape == (1, 1, 32, 48)
    published(path, net, "other")
    assert export_models.main(["--network", "u2netp", "--weights", str(path), "--out", str(tmp_path / "out")]) == 1
    assert "is no u2netp.onnx" in capsys.readouterr().err


@pytest.mark.parametrize("alpha", [False, True])
def test_it_is_a_mask_that_is_built_in(client, alpha):
    photo = gradient(60, 80)
    photo = np.dstack([photo, np.tile(np.arange(80, dtype=np.uint8) * 3, (60, 1))]) if alpha else photo
    job = upload(client, encoded(photo))
    finished(client, job)
    mask = client.get(f"/job/{job}/mask/subject")
    shown = np.array(Image.open(io.BytesIO(mask.content)))
    assert np.array_equal(shown, picture(client, job, "subject.png"))
    body = {"job_id": job, "x": -1, "y": 0, "z": 0.3, "exposure": 1, "mask": "subject"}
    client.post("/relight", json=body).raise_for_status()
    relit = picture(client, job)
    assert np.array_equal(relit[shown == 0], photo[shown == 0])
    assert np.abs(relit[25:35, 35:45].astype(int) - photo[25:35, 35:45])[..., :3].max() > 10
