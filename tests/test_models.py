"""Manifests, input sizes, axes, sessions; and the one promise that matters: no training framework."""

import hashlib
import json
import logging
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import onnx
import pytest
from fastapi.testclient import TestClient
from onnx import TensorProto, helper
from support import problem

from server import cpus, errors
from server.application import create_app
from server.model import engine as models
from server.model import sessions
from server.model.manifest import InputSpec, parse


def tiny_graph(folder, name="tiny", meaning="disparity", axes=("+x", "+y", "+z"), nan=False):
    """A graph of one convolution: depth = red, normals = a constant (0.6, 0, 0.8) in the network's own axes."""
    depth = np.zeros((1, 3, 1, 1), np.float32)
    depth[0, 0] = np.nan if nan else 1
    nodes = [
        helper.make_node("Conv", ["image", "w"], ["depth"]),
        helper.make_node("Conv", ["image", "v", "b"], ["normals"]),
    ]
    graph = helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, "h", "w"])],
        [
            helper.make_tensor_value_info("depth", TensorProto.FLOAT, [1, 1, "h", "w"]),
            helper.make_tensor_value_info("normals", TensorProto.FLOAT, [1, 3, "h", "w"]),
        ],
        [
            onnx.numpy_helper.from_array(a, n)
            for a, n in ((depth, "w"), (np.zeros((3, 3, 1, 1), np.float32), "v"), (np.float32([0.6, 0, 0.8]), "b"))
        ],
    )
    data = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    manifest = {
        "format": 1,
        "name": name,
        "graph": name + ".onnx",
        "sha256": hashlib.sha256(data).hexdigest(),
        "roles": ["depth", "normals"],
        "licence": "MIT",
        "focal": 0.9,
        "input": {
            "name": "image",
            "layout": "NCHW",
            "channels": "RGB",
            "scale": 1 / 255,
            "mean": [0, 0, 0],
            "std": [1, 1, 1],
            "size": 64,
            "size_rule": "long_side",
            "multiple": 32,
        },
        "outputs": {"depth": {"name": "depth", "meaning": meaning}, "normals": {"name": "normals", "axes": list(axes)}},
    }
    (folder / f"{name}.onnx").write_bytes(data)
    (folder / f"{name}.json").write_text(json.dumps(manifest))
    return manifest


@pytest.fixture
def tiny(settings, tmp_path):
    def load(**overrides):
        return models.load_engine(
            settings(
                models_dir=tmp_path, depth_model="tiny", normals_model="tiny", mask_model="", threads=1, **overrides
            )
        )

    return load


def watched(engine):
    """(roles, widths).

    An engine's graph again for depth and normals, and a list that every run adds its input's width to.
    """
    graph, widths = engine.roles["depth"], []

    class Session:
        def run(self, names, feed):
            widths.append(feed["image"].shape[3])
            return graph.session.run(names, feed)

    twin = models.Graph(graph.manifest, Session(), graph.provider)
    return {"depth": twin, "normals": twin}, widths


def ramp():
    """Red grows from left to right, (96, 128, 3) uint8."""
    out = np.zeros((96, 128, 3), np.uint8)
    out[..., 0] = np.arange(128) * 2
    return out


def test_depth_meanings_and_normal_axes(tmp_path, tiny):
    tiny_graph(tmp_path)
    g = tiny().analyse(ramp())
    assert g.inverse_depth.shape == (48, 64) and g.inverse_depth.dtype == np.float32 and g.focal == 0.9
    assert (np.diff(g.inverse_depth.mean(0)) > 0).all()  # red is near
    tiny_graph(tmp_path, meaning="depth")
    assert (np.diff(tiny().analyse(ramp()).inverse_depth.mean(0)[8:]) < 0).all()  # red is far
    for axes, expected in (
        (("+x", "+y", "+z"), (0.6, 0, 0.8)),
        (("-x", "+y", "+z"), (-0.6, 0, 0.8)),
        (("-y", "+x", "+z"), (0, -0.6, 0.8)),
        (("+z", "-y", "-x"), (-0.8, 0, 0.6)),
    ):
        tiny_graph(tmp_path, axes=axes)
        normals = tiny().analyse(ramp()).normals
        assert np.allclose(normals, expected, atol=1e-6) and normals.dtype == np.float32


def test_no_normals_model_leaves_them_to_the_depth(tmp_path, settings):
    tiny_graph(tmp_path)
    engine = models.load_engine(settings(models_dir=tmp_path, depth_model="tiny", normals_model="", mask_model=""))
    assert engine.analyse(ramp()).normals is None
    assert engine.describe()[0]["roles_filled"] == ["depth"]


def test_a_graph_that_fills_two_roles_runs_once(tmp_path, tiny):
    tiny_graph(tmp_path)
    engine = tiny()
    assert engine.roles["depth"] is engine.roles["normals"]
    roles, widths = watched(engine)
    models.OnnxEngine(roles).analyse(ramp())
    assert len(widths) == 1


def test_values_that_are_not_finite_are_a_model_error(tmp_path, tiny):
    tiny_graph(tmp_path, nan=True)
    with pytest.raises(errors.ModelMissing):  # found when warming up
        tiny()


@pytest.mark.parametrize(
    "damage", ["no graph", "no manifest", "flipped byte", "cut short", "manifest is no JSON", "role without output"]
)
def test_a_damaged_model_is_missing_and_the_cure_is_named(tmp_path, tiny, damage):
    manifest = tiny_graph(tmp_path)
    graph, text = tmp_path / "tiny.onnx", tmp_path / "tiny.json"
    data = bytearray(graph.read_bytes())
    if damage == "no graph":
        graph.unlink()
    elif damage == "no manifest":
        text.unlink()
    elif damage == "flipped byte":
        data[len(data) // 2] ^= 1
        graph.write_bytes(data)
    elif damage == "cut short":
        graph.write_bytes(data[:50])
    elif damage == "manifest is no JSON":
        text.write_text("{")
    else:
        del manifest["outputs"]["normals"]
        text.write_text(json.dumps(manifest))
    with pytest.raises(errors.ModelMissing, match=r"python export/export_models\.py"):
        tiny()


@pytest.mark.parametrize(
    "w,h", [(640, 480), (480, 640), (1000, 1000), (1920, 1080), (5000, 40), (1, 1), (1, 65500), (33, 32)]
)
def test_the_aspect_ratio_is_kept(w, h):
    a, b, padded_a, padded_b = models.input_size(w, h, 384, 32, "long_side")
    assert padded_a % 32 == 0 and padded_b % 32 == 0 and padded_a >= a >= 1 and padded_b >= b >= 1
    if min(a, b) > 8:  # below that whole pixels are coarser than any ratio
        assert (a / b) / (w / h) == pytest.approx(1, abs=0.07)
    assert max(a, b) <= 384 + 32


def test_padding_is_cut_off_again():
    y = np.zeros((1, 1, 32, 64), np.float32)
    y[0, 0, :24, :50] = 1
    sizes = models.Sizes(50, 24, 64, 32)
    assert models.plane(y, 1, sizes).shape == (24, 50) and models.plane(y, 1, sizes).min() == 1
    assert models.plane(y[:, :, ::2, ::2], 1, sizes).shape == (12, 25)


def test_mirrored_averaging_makes_the_answer_symmetric(tmp_path, tiny):
    """With `mirror`, the mirror image of a photo gives the mirror image of its geometry, whatever the network."""
    manifest = tiny_graph(tmp_path)
    manifest["input"]["mirror"] = True
    (tmp_path / "tiny.json").write_text(json.dumps(manifest))
    engine = tiny()
    photo = np.random.default_rng(0).integers(0, 256, (96, 128, 3)).astype(np.uint8)
    a, b = engine.analyse(photo), engine.analyse(np.ascontiguousarray(photo[:, ::-1]))
    assert np.allclose(a.inverse_depth, b.inverse_depth[:, ::-1], atol=1e-5)
    assert np.allclose(a.normals, b.normals[:, ::-1] * [-1, 1, 1], atol=1e-5)
    assert np.allclose(a.normals, [0, 0, 1], atol=1e-6)  # (0.6, 0, 0.8) and its mirror image cancel in x


def test_the_mean_of_scales_is_blind_to_each_scales_range_of_disparity():
    """Disparity has no scale and no shift of its own: a view's weight must not hang on it.

    Normals stay of unit length.
    """
    rng = np.random.default_rng(1)
    coarse, fine = (rng.normal(size=size).astype(np.float32) for size in ((12, 16), (24, 32)))
    n = [
        models.to_canonical_axes(rng.normal(size=(*a.shape, 3)).astype(np.float32), ["+x", "+y", "+z"])
        for a in (coarse, fine)
    ]
    plain = models.mean_of_scales([{"depth": coarse, "normals": n[0]}, {"depth": fine, "normals": n[1]}])
    other = models.mean_of_scales([{"depth": coarse * 40 + 7, "normals": n[0]}, {"depth": fine, "normals": n[1]}])
    assert plain["depth"].shape == (24, 32) and plain["normals"].shape == (24, 32, 3)
    assert np.allclose(plain["depth"], other["depth"], atol=1e-4)
    assert np.allclose(np.linalg.norm(plain["normals"], axis=-1), 1, atol=1e-5)
    with_coarse, alone = (
        np.corrcoef(d.ravel(), np.kron(coarse, np.ones((2, 2))).ravel())[0, 1] for d in (plain["depth"], fine)
    )
    assert with_coarse > 0.4 > alone  # the coarse view is in it


def test_the_mean_of_scales_has_the_layout_of_all_and_the_details_of_the_finest():
    stripes = np.tile(np.float32([-1, 1]), (128, 96))  # 192 wide
    smooth = {"mask": np.full((64, 96), 0.8, np.float32), "normals": np.tile(np.float32([0, 0, 1]), (64, 96, 1))}
    tilted = np.stack([0.6 + 0.1 * stripes, 0 * stripes, 0 * stripes + 0.8], -1)
    tilted /= np.linalg.norm(tilted, axis=-1, keepdims=True)
    mean = models.mean_of_scales([smooth, {"mask": 0.4 + 0.05 * stripes, "normals": tilted}])
    assert np.allclose(mean["mask"], 0.6 + 0.05 * stripes, atol=1e-3)
    inside = mean["normals"][8:-8, 8:-8]
    assert inside[..., 0].mean() == pytest.approx(np.sin(np.arctan2(0.6, 0.8) / 2), abs=0.02)
    assert np.ptp(inside[..., 0]) > 0.1  # of its own, 0.13; half of it in a plain mean
    full = models.mean_of_scales([{"mask": np.ones((64, 96), np.float32)}, {"mask": (stripes + 1) / 2}])["mask"]
    assert full.min() >= 0 and full.max() <= 1


def test_every_scale_of_the_manifest_is_run_and_an_analysis_size_is_the_only_one(tmp_path, tiny):
    manifest = tiny_graph(tmp_path)
    manifest["input"] |= {"scales": [1.5, 1], "mirror": True}
    (tmp_path / "tiny.json").write_text(json.dumps(manifest))
    roles, widths = watched(tiny())
    g = models.OnnxEngine(roles).analyse(ramp())
    assert sorted(widths) == [64, 64, 96, 96]
    assert g.inverse_depth.shape[1] == 96  # the finest grid
    assert np.allclose(g.normals, [0, 0, 1], atol=1e-6)
    widths.clear()
    models.OnnxEngine(roles, 128).analyse(ramp())
    assert widths == [128, 128]
    several, one, other = (models.OnnxEngine(roles, size) for size in (0, 64, 128))
    assert [e.describe()[0]["analysis_sizes"] for e in (several, one, other)] == [[64, 96], [64], [128]]
    assert len({models.digest(e) for e in (several, one, other)}) == 3  # none shares the analyses of another


def test_relief_is_what_the_manifest_of_the_normals_says(tmp_path, tiny):
    manifest = tiny_graph(tmp_path)
    photo = np.full((96, 128, 3), 90, np.uint8)
    assert tiny().analyse(photo).relief == 0
    manifest["outputs"]["normals"]["relief"] = 0.3
    (tmp_path / "tiny.json").write_text(json.dumps(manifest))
    assert tiny().analyse(photo).relief == 0.3


WRONG = {  # entry -> values it may not have
    "input.size_rule": ["shortest"],
    "input.multiple": [0, 1.5],
    "input.size": ["256", -1],
    "input.mean": [[0, 0], "0"],
    "input.std": [[1, 0, 1], None],
    "input.channels": ["YUV"],
    "input.mirror": ["yes"],
    "input.name": [None, ""],
    "input.scales": [[], [0], ["large"], [1, 100], [float("nan")], 1.5],
    "input.fixed": ["no", True],
    "outputs.depth.meaning": ["inverse_depth", None],
    "outputs.depth.name": [None],
    "outputs.normals.relief": ["high", 2],
    "outputs.normals.axes": [
        ["+x", "+x", "+z"],
        ["x", "y", "z"],
        ["right", "up", "back"],
        ["+x", "+y", "+z", "+z"],
        None,
        "+x+y+z",
    ],
    "outputs.albedo": [{"name": "albedo"}],
    "outputs.normals": [None],
    "focal": [0, "wide"],
    "roles": [["depth"], None, 5, [1, "depth"]],
}


@pytest.mark.parametrize("entry, value", [(entry, value) for entry, values in WRONG.items() for value in values])
def test_a_manifest_that_nobody_could_follow_is_refused_and_the_entry_named(tmp_path, entry, value):
    right = tiny_graph(tmp_path)
    parse(right)
    wrong = json.loads(json.dumps(right))
    *parents, last = entry.split(".")
    place = wrong
    for key in parents:
        place = place[key]
    place[last] = value
    (tmp_path / "tiny.json").write_text(json.dumps(wrong))
    with pytest.raises(errors.ModelMissing, match=entry.split(".")[0]) as refused:
        models.load_graph(tmp_path, "tiny", provider="cpu", threads=1)
    assert "manifest" in refused.value.detail and "python export/export_models.py" in refused.value.detail


def test_a_manifest_tells_how_its_graph_is_rebuilt(tmp_path, tiny):
    right = tiny_graph(tmp_path) | {"rebuild": "make tiny"}
    (tmp_path / "tiny.json").write_text(json.dumps(right))
    (tmp_path / "tiny.onnx").write_bytes(b"damaged")
    with pytest.raises(errors.ModelMissing, match="make tiny"):
        tiny()


def test_a_graph_without_normals_is_not_to_be_rebuilt_but_named_for_depth_alone(tmp_path, tiny):
    right = tiny_graph(tmp_path)
    del right["outputs"]["normals"]
    (tmp_path / "tiny.json").write_text(json.dumps(right | {"roles": ["depth"]}))
    with pytest.raises(errors.ModelMissing, match="RELIGHT_NORMALS_MODEL") as refused:
        tiny()
    assert "Rebuild" not in refused.value.detail


def test_a_graph_that_lies_about_its_answer_does_not_stop_the_server(tmp_path, settings):
    lying = tiny_graph(tmp_path)
    lying["outputs"]["depth"]["name"], lying["outputs"]["normals"]["name"] = "normals", "depth"
    (tmp_path / "tiny.json").write_text(json.dumps(lying))
    config = settings(models_dir=tmp_path, depth_model="tiny", normals_model="tiny", mask_model="", threads=1)
    with TestClient(create_app(config)) as client:
        detail = problem(client.get("/ready"), 503, "model_missing")
        assert "fail to run" in detail
        assert client.get("/health").status_code == 200


def test_a_graph_of_one_size_keeps_it_whatever_the_setting(tmp_path, tiny):
    fixed = tiny_graph(tmp_path)
    fixed["input"] |= {"fixed": True, "multiple": 64}
    (tmp_path / "tiny.json").write_text(json.dumps(fixed))
    roles, widths = watched(tiny(analysis_size=128))
    engine = models.OnnxEngine(roles, 128)
    g = engine.analyse(ramp())
    assert widths == [64] and engine.describe()[0]["analysis_sizes"] == [64]
    assert g.inverse_depth.shape == (48, 64)  # padded to the square and cut again


# -- providers, with none of the hardware


class FakeSession:
    """A session that really runs on `actual`."""

    actual = "CPUExecutionProvider"
    opened: ClassVar[list] = []  # (providers with their options, threads, sizes that were fixed) of every session

    def __init__(self, graph, options, providers):
        self.opened.append((dict(providers), options.intra_op_num_threads, options.sizes))

    def get_providers(self):
        return [self.actual, "CPUExecutionProvider"]

    def get_inputs(self):
        return [SimpleNamespace(name="image", shape=[1, 3, "height", "width"])]

    def get_outputs(self):
        return []

    def run(self, names, feed):
        return [feed["image"].shape]


class FakeOptions(sessions.ort.SessionOptions):
    def __init__(self):
        super().__init__()
        self.sizes = {}

    def add_free_dimension_override_by_name(self, name, size):
        self.sizes[name] = size


@pytest.fixture
def fake(monkeypatch, tmp_path):
    """ONNX Runtime with every provider: call with the one that sessions really run on.

    Returns the list of sessions opened.
    """

    def really(actual):
        monkeypatch.setattr(FakeSession, "actual", actual)
        monkeypatch.setattr(FakeSession, "opened", [])
        return FakeSession.opened

    monkeypatch.setattr(sessions.ort, "InferenceSession", FakeSession)
    monkeypatch.setattr(sessions.ort, "SessionOptions", FakeOptions)
    monkeypatch.setattr(sessions.tempfile, "gettempdir", lambda: str(tmp_path))
    return really


ALL = ("CoreMLExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider")


def test_auto_takes_cuda_then_cpu_and_never_coreml():
    assert sessions.choose("auto", ALL) == ["CUDAExecutionProvider", "CPUExecutionProvider"]
    assert sessions.choose("auto", ("CoreMLExecutionProvider", "CPUExecutionProvider")) == ["CPUExecutionProvider"]
    assert sessions.choose("coreml", ALL)[0] == "CoreMLExecutionProvider"


@pytest.mark.parametrize("provider", ["cuda", "coreml"])
def test_an_explicit_choice_that_cannot_be_had_stops_the_start(provider):
    with pytest.raises(errors.StartupError, match="RELIGHT_PROVIDER"):
        sessions.choose(provider, ("CPUExecutionProvider",))


def test_a_silent_fall_back_is_found_out(fake, caplog):
    fake("CPUExecutionProvider")
    with pytest.raises(errors.StartupError, match="fell back"):
        sessions.open_session(b"", "cuda", available=ALL)
    with caplog.at_level(logging.WARNING, "relight"):
        logging.getLogger("relight").propagate = True
        _, actual = sessions.open_session(b"", "auto", available=ALL)
    assert actual == "CPUExecutionProvider" and "runs on CPUExecutionProvider" in caplog.text
    fake("CUDAExecutionProvider")
    assert sessions.open_session(b"", "cuda", available=ALL)[1] == "CUDAExecutionProvider"


def test_cuda_gets_its_device_and_its_cap_and_finds_the_libraries_of_pip(fake, monkeypatch):
    opened, preloaded = fake("CUDAExecutionProvider"), []
    monkeypatch.setattr(sessions.ort, "preload_dlls", lambda: preloaded.append(len(opened)), raising=False)
    sessions.open_session(b"", "cuda", threads=3, device_id=2, gpu_memory_bytes=10**9, available=ALL)
    ((providers, threads, sizes),) = opened
    assert list(providers) == ["CUDAExecutionProvider", "CPUExecutionProvider"] and threads == 3 and not sizes
    asked = providers["CUDAExecutionProvider"]
    assert (
        asked["device_id"] == 2
        and asked["gpu_mem_limit"] == 10**9
        and asked["arena_extend_strategy"] == "kSameAsRequested"
    )
    assert preloaded == [0], "the libraries must be found before the session is opened"
    sessions.open_session(b"", "cuda", available=ALL)
    assert "gpu_mem_limit" not in opened[1][0]["CUDAExecutionProvider"]  # no cap unless one is set
    fake("CPUExecutionProvider")
    sessions.open_session(b"", "cpu", available=ALL)
    assert preloaded == [0, 1]


def test_coreml_gets_a_session_for_each_shape_and_a_cache_for_each_graph(fake):
    opened = fake("CoreMLExecutionProvider")
    session, actual = sessions.open_session(b"one", "coreml", available=ALL)
    assert actual == "CoreMLExecutionProvider"
    shapes = [(1, 3, 64, 96), (1, 3, 96, 64), (1, 3, 64, 96)]
    assert [session.run(None, {"image": np.zeros(shape)})[0] for shape in shapes] == shapes
    assert [sizes for _, _, sizes in opened] == [{}, {"height": 64, "width": 96}, {"height": 96, "width": 64}]
    asked = [providers["CoreMLExecutionProvider"] for providers, _, _ in opened]
    assert all(a["ModelFormat"] == "MLProgram" and a["RequireStaticInputShapes"] == "1" for a in asked)
    other, _ = sessions.open_session(b"two", "coreml", available=ALL)
    other.run(None, {"image": np.zeros(shapes[0])})
    caches = [a["ModelCacheDirectory"] for a in (*asked[1:], opened[-1][0]["CoreMLExecutionProvider"])]
    assert len(set(caches)) == 3, "new weights must not meet what was compiled for the old ones"
    for side in range(32, 32 * (sessions.SHAPES_KEPT + 3), 32):
        session.run(None, {"image": np.zeros((1, 3, side, side))})
    before = len(opened)
    session.run(None, {"image": np.zeros((1, 3, side, side))})
    assert len(opened) == before
    session.run(None, {"image": np.zeros((1, 3, 32, 32))})
    assert len(opened) == before + 1, "the oldest was let go"


def test_sessions_per_shape_answer_as_one_with_free_sizes(tmp_path):
    tiny_graph(tmp_path)
    data = (tmp_path / "tiny.onnx").read_bytes()

    def opened(sizes):
        options = sessions.ort.SessionOptions()
        for name, size in sizes.items():
            options.add_free_dimension_override_by_name(name, size)
        return sessions.ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])

    plain = opened({})
    shaped = sessions.PerShape(plain, opened)
    for h, w in ((32, 64), (64, 32), (32, 64)):
        x = np.random.default_rng(h).random((1, 3, h, w), dtype=np.float32)
        assert np.array_equal(shaped.run(["depth"], {"image": x})[0], plain.run(["depth"], {"image": x})[0])


@pytest.mark.parametrize("provider, available", [("auto", ("CPUExecutionProvider",)), ("cuda", ALL)])
def test_both_wheels_at_once_are_told_with_the_cure(fake, monkeypatch, caplog, provider, available):
    """Where the CPU wheel overwrote the other, CUDA is not even among the providers."""
    monkeypatch.setattr(sessions.metadata, "version", lambda name: "1.0")
    fake("CUDAExecutionProvider" if provider == "cuda" else "CPUExecutionProvider")
    with caplog.at_level(logging.WARNING, "relight"):
        logging.getLogger("relight").propagate = True
        sessions.open_session(b"", provider, available=available)
    assert "pip uninstall onnxruntime onnxruntime-gpu" in caplog.text


def test_processors_are_those_of_affinity_and_quota(tmp_path, monkeypatch):
    monkeypatch.setattr(cpus.os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    proc = tmp_path / "cgroup"
    proc.write_text("0::/box\n")
    (tmp_path / "box").mkdir()
    for text, expected in (("max 100000", 8), ("250000 100000", 3), ("50000 100000", 1), ("1600000 100000", 8)):
        (tmp_path / "box" / "cpu.max").write_text(text)
        assert cpus.available(str(tmp_path), str(proc)) == expected
    (tmp_path / "box" / "cpu.max").unlink()
    (tmp_path / "box" / "cpu.cfs_quota_us").write_text("200000")
    (tmp_path / "box" / "cpu.cfs_period_us").write_text("100000")
    assert cpus.available(str(tmp_path), str(proc)) == 2


SPEC: dict = {
    "name": "image",
    "size": 64,
    "multiple": 1,
    "size_rule": "long_side",
    "scale": 1 / 255,
    "mean": [0.5, 0.25, 0.0],
    "std": [0.5, 2.0, 1.0],
}


def test_pixels_arrive_as_the_manifest_says():
    """(code * scale - mean) / std by channel, in the order of channels it names."""
    rgb = np.tile(np.uint8([255, 51, 102]), (4, 6, 1))
    for channels, want in (("RGB", (1.0, -0.025, 0.4)), ("BGR", ((0.4 - 0.5) / 0.5, -0.025, 1.0))):
        x = models.to_input(rgb, InputSpec(**SPEC, channels=channels), models.Sizes(6, 4, 6, 4))
        assert x.shape == (1, 3, 4, 6) and np.allclose(x[0, :, 2, 3], want, atol=1e-6)


def test_points_are_as_deep_as_their_z():
    points = np.zeros((4, 5, 3), np.float32)
    points[..., 0], points[..., 1], points[..., 2] = 7, np.arange(5), -np.linspace(1, 3, 4)[:, None]
    assert np.allclose(models.inverse_depth(points, "points"), 1 / np.linspace(1, 3, 4)[:, None], rtol=1e-6)


def test_a_depth_of_nothing_is_not_infinitely_near():
    z = np.linspace(1, 3, 1000, dtype=np.float32).reshape(20, 50)
    z[0, 0] = 0
    d = models.inverse_depth(z, "depth")
    assert d[0, 0] == d.max() < 20 and np.allclose(d.ravel()[100:], 1 / z.ravel()[100:])


@pytest.mark.parametrize("w,h,short", [(640, 480, 112), (480, 640, 112), (300, 300, 112)])
def test_the_short_side_is_the_size_where_the_manifest_says_so(w, h, short):
    a, b, _padded_a, _padded_b = models.input_size(w, h, short, 14, "short_side")
    assert min(a, b) == short and max(a, b) > short * max(w, h) / min(w, h) * 0.93


def test_a_very_long_picture_stays_bounded_whatever_the_rule():
    assert max(models.input_size(20_000, 100, 518, 14, "short_side")) <= 4 * 518 + 14


def test_a_mask_of_logits_is_a_probability(tmp_path):
    class Session:
        def run(self, names, feed):
            h, w = feed["image"].shape[2:]
            return [np.full((1, 1, h, w), value, np.float32) for value in (0.5, -np.log(3))]

    spec = {**SPEC, "name": "image", "size": 32}
    outputs = {"depth": {"name": "d", "meaning": "disparity"}, "mask": {"name": "m", "meaning": "logit"}}
    graph = models.Graph(parse({"name": "x", "input": spec, "outputs": outputs}), Session(), "CPUExecutionProvider")
    mask = models.OnnxEngine({"depth": graph, "mask": graph}).analyse(ramp()).mask
    assert np.allclose(mask, 0.25, atol=1e-6)


def test_graphs_of_several_sizes_answer_on_one_grid(tmp_path, settings):
    tiny_graph(tmp_path)
    small = tiny_graph(tmp_path, "small")
    small["input"]["size"] = 32
    (tmp_path / "small.json").write_text(json.dumps(small))
    engine = models.load_engine(
        settings(models_dir=tmp_path, depth_model="tiny", normals_model="small", mask_model="", threads=1)
    )
    g = engine.analyse(ramp())
    assert g.inverse_depth.shape == (48, 64) and g.normals.shape == (48, 64, 3)
    assert np.allclose(g.normals, (0.6, 0, 0.8), atol=1e-5)


def test_what_pads_a_photo_goes_on_from_its_edge():
    rgb = np.full((40, 100, 3), 200, np.uint8)
    spec = {**SPEC, "multiple": 64, "mean": [0, 0, 0], "std": [1, 1, 1]}
    sizes = models.input_size(100, 40, 100, 64, "long_side")
    x = models.to_input(models.resized(rgb, sizes), InputSpec(**spec), sizes)
    assert (sizes.h < sizes.padded_h or sizes.w < sizes.padded_w) and np.allclose(x, 200 / 255)
    assert x.shape == (1, 3, sizes.padded_h, sizes.padded_w)


def test_a_graph_of_one_size_has_one_scale(tmp_path):
    wrong = tiny_graph(tmp_path)
    wrong["input"] |= {"fixed": True, "multiple": 64, "scales": [1, 1.5]}
    with pytest.raises(ValueError, match=r"input\.fixed"):
        parse(wrong)
