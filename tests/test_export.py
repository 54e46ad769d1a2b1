"""The export: graphs that every supported ONNX Runtime reads, equal to torch or refused.

Adapters for networks of others.
"""

import hashlib
import json

import numpy as np
import pytest

pytest.importorskip("torch", reason="exporting needs requirements-export.txt")
pytest.importorskip("onnx", reason="exporting needs requirements-export.txt")
import adapters
import average
import checkpoint
import export_models
import graphs
import onnx
import torch
from adapters import bundled
from e2e.harness import Server
from network import GeometryNet, fold_batch_norm
from onnx import TensorProto, numpy_helper
from safetensors.torch import save_file
from serving import multipart
from support import encoded
from training import directions

from server.model import engine as models
from server.model.engine import OnnxEngine, load_graph
from server.scene.normals import normals_from_inverse_depth

WIDTHS = (16, 16, 16, 16, 16)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A small network of the bundled kind with random weights, as a committed checkpoint."""
    torch.manual_seed(0)
    net = GeometryNet(0, WIDTHS, (1, 2, 1, 2))
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):  # statistics that folding can get wrong
            torch.nn.init.uniform_(module.running_mean, -0.5, 0.5), torch.nn.init.uniform_(module.running_var, 0.5, 2)
            torch.nn.init.uniform_(module.weight, 0.5, 2), torch.nn.init.uniform_(module.bias, -0.5, 0.5)
    torch.nn.init.normal_(net.sky.head[-1].weight, std=0.1)  # as if trained
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    checkpoint.save(net, net.state_dict(), path, {"minutes": 1})
    return path


@pytest.fixture(scope="module")
def built(weights, tmp_path_factory):
    """(folder, manifest, graph) of that network, exported by the command."""
    folder = tmp_path_factory.mktemp("models")
    assert export_models.main(["--weights", str(weights), "--out", str(folder)]) == 0
    manifest = json.loads((folder / "relight-geometry.json").read_text())
    return folder, manifest, onnx.load(folder / "relight-geometry.onnx")


def test_graph_is_one_file_that_the_oldest_runtime_reads(built):
    folder, manifest, graph = built
    assert sorted(p.name for p in folder.iterdir()) == ["relight-geometry.json", "relight-geometry.onnx"]
    assert graph.ir_version <= 10 and all(o.version <= 21 for o in graph.opset_import)
    assert not any(t.external_data for t in graph.graph.initializer)
    assert manifest["sha256"] == hashlib.sha256((folder / "relight-geometry.onnx").read_bytes()).hexdigest()
    assert (manifest["opset"], manifest["ir_version"]) == (graph.opset_import[0].version, graph.ir_version)
    assert {o.name for o in graph.graph.output} == {o["name"] for o in manifest["outputs"].values()}


def test_weights_are_float16_and_cast_to_float32(built):
    _, _, graph = built
    large = [t for t in graph.graph.initializer if numpy_helper.to_array(t).size >= graphs.SMALL]
    assert len(large) > 20 and all(t.data_type == TensorProto.FLOAT16 for t in large)
    casts = {n.input[0]: n for n in graph.graph.node if n.op_type == "Cast"}
    assert all(casts[t.name].attribute[0].i == TensorProto.FLOAT for t in large)


def test_slopes_are_steeper_by_the_factor_the_adapter_gives(weights, monkeypatch):
    def normals(steeper):
        monkeypatch.setattr(bundled, "STEEPER", steeper)
        with torch.no_grad():
            return bundled.bundled(weights).module(torch.from_numpy(graphs.probe(64, 64)))[1]

    before, after = normals(1.0), normals(1.5)
    assert torch.allclose(after.norm(dim=1), torch.ones(1), atol=1e-3)
    assert torch.allclose(after[:, :2] * before[:, 2:], 1.5 * before[:, :2] * after[:, 2:], atol=1e-5)
    assert (before[:, :2].abs() > 0.1).any()


def test_the_light_s_branch_is_exported_as_visibility_and_shading(tmp_path, monkeypatch):
    """In the axes of the server, and read there as two more things that the graph estimates."""
    path = tmp_path / "small.safetensors"
    for light in ((), (8, 8, 8, 8, 8)):
        torch.manual_seed(3)
        net = GeometryNet(0, WIDTHS, (1, 1, 1, 1), (), light)
        checkpoint.save(net, net.state_dict(), path, {})
        assert export_models.main(["--weights", str(path), "--out", str(tmp_path)]) == 0
        outputs = json.loads((tmp_path / "relight-geometry.json").read_text())["outputs"]
        assert ("visibility" in outputs) == ("shading" in outputs) == bool(light)
    graph = load_graph(tmp_path, "relight-geometry", provider="cpu")
    engine = OnnxEngine(dict.fromkeys(graph.manifest.outputs.by_role(), graph), 128)
    found = engine.analyse(np.random.default_rng(0).integers(0, 255, (96, 128, 3), np.uint8))
    assert found.visibility.seen.shape == (40, 48, 64) and found.inverse_depth.shape == (48, 64)
    session = graphs.session_of((tmp_path / "relight-geometry.onnx").read_bytes())
    x = graphs.probe(96, 128)
    lit, dark = (session.run(None, {"image": x, "light": np.array([n], np.int64)}) for n in (1, 0))
    assert [a.shape[0] for a in dark] == [1, 1, 1, 0, 0] and [a.shape[0] for a in lit] == [1] * 5
    assert all(np.array_equal(a, b) for a, b in zip(lit[:3], dark[:3]))
    assert found.shading.shape == (48, 64, 3) and np.ptp(found.shading) > 0.01 and 0 < found.shading_share <= 1
    assert np.allclose(found.visibility.directions, directions.directions(), atol=1e-5)
    assert np.ptp(found.visibility.seen) > 3


@pytest.mark.parametrize("height,width", [(32, 32), (96, 160), (224, 64)])
def test_any_multiple_of_32_comes_out_at_half_its_size(built, height, width):
    folder, manifest, _ = built
    session = graphs.session_of((folder / manifest["graph"]).read_bytes())
    disparity, normals, mask = session.run(None, {"image": graphs.probe(height, width)})
    assert disparity.shape == mask.shape == (1, 1, height // 2, width // 2) and normals.shape == (
        1,
        3,
        height // 2,
        width // 2,
    )
    assert np.allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-3) and mask.min() >= 0 and mask.max() <= 1


def test_the_same_weights_make_the_same_bytes(built, weights, tmp_path):
    _folder, manifest, _ = built
    assert export_models.main(["--weights", str(weights), "--out", str(tmp_path)]) == 0
    assert json.loads((tmp_path / "relight-geometry.json").read_text()) == manifest


def test_folding_changes_nothing(weights):
    x = torch.from_numpy(graphs.probe(64, 96))
    with torch.no_grad():
        plain, folded = (f(checkpoint.load(weights)[0])(x) for f in (lambda n: n.eval(), fold_batch_norm))
    for a, b in zip(plain, folded):
        assert torch.allclose(a, b, atol=1e-3 * max(1.0, float(a.abs().max())))


def test_a_deeper_network_starts_as_what_the_shallower_one_was(tmp_path):
    torch.manual_seed(1)
    shallow = GeometryNet(0, WIDTHS, (1, 1, 1, 1), ()).eval()
    path = tmp_path / "shallow.safetensors"
    checkpoint.save(shallow, shallow.state_dict(), path, {"minutes": 1})
    same, deep = (checkpoint.load(path, g)[0].eval() for g in (None, {"depths": (1, 2, 3, 2), "sky": (8, 8, 8, 8, 8)}))
    assert same.depths == (1, 1, 1, 1) and deep.depths == (1, 2, 3, 2)
    assert same.sky is None and deep.sky is not None
    x = torch.from_numpy(graphs.probe(64, 96))
    with torch.no_grad():
        assert all(torch.equal(a, b) for a, b in zip(same(x), deep(x)))
    sum(output.square().mean() for output in deep.train()(x)).backward()
    assert [len(scale) for scale in deep.further] == [0, 1, 2, 1]
    assert all(block.second[1].weight.grad.abs().max() > 0 for scale in deep.further for block in scale), (
        "a block that would never wake"
    )
    assert deep.sky.head[-1].weight.grad.abs().max() > 0, "a branch that would never wake"
    checkpoint.save(deep, deep.state_dict(), path, {"minutes": 2})
    assert checkpoint.load(path)[0].depths == (1, 2, 3, 2)
    with pytest.raises(ValueError, match="further"):
        checkpoint.load(path, {"depths": (1, 1, 1, 1)})


def test_a_disturbed_graph_fails_parity(built, weights):
    """One weight of one convolution, moved by a tenth of the kernel's size, is noticed."""
    _, _, graph = built
    network = adapters.build("relight-geometry", weights, None)
    graphs.round_weights(network.module)
    graphs.check_parity(graph.SerializeToString(), network)
    broken = onnx.ModelProto.FromString(graph.SerializeToString())
    tensor = next(
        t for t in broken.graph.initializer if t.name.startswith("net.head.") and t.data_type == TensorProto.FLOAT16
    )
    values = numpy_helper.to_array(tensor).copy()
    values.flat[0] += np.float16(0.1 * np.abs(values).max())
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    with pytest.raises(graphs.ExportError, match="differs from torch"):
        graphs.check_parity(broken.SerializeToString(), network)


def test_nothing_is_written_when_parity_fails(weights, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        graphs,
        "shrink_weights",
        lambda g: (
            g.graph.initializer[0].CopyFrom(
                numpy_helper.from_array(numpy_helper.to_array(g.graph.initializer[0]) + 1, g.graph.initializer[0].name)
            ),
            g,
        )[1],
    )
    assert export_models.main(["--weights", str(weights), "--out", str(tmp_path / "models")]) == 1
    assert "differs from torch" in capsys.readouterr().err and not (tmp_path / "models").exists()


@pytest.mark.parametrize(
    "arguments,words",
    [
        (["--network", "nonesuch"], "depth-anything-v2-small"),
        (["--network", "nofile.py:make"], "not a file"),
        (["--weights", "nowhere.safetensors"], "nowhere"),
        (["--network", "depth-anything-v2-large"], "CC-BY-NC"),
        (["--network", "depth-anything-v2-small", "--weights", "."], "save_pretrained"),
    ],
)
def test_refusals_say_what_to_do(arguments, words, tmp_path, capsys):
    if "depth-anything-v2-small" in arguments:
        pytest.importorskip("transformers", reason="this adapter needs transformers")
    assert export_models.main([*arguments, "--out", str(tmp_path)]) == 1
    assert words in capsys.readouterr().err and not list(tmp_path.iterdir())


OWN = """
import torch
from graphs import Exportable, input_spec

class Answers(torch.nn.Module):
    def forward(self, image):
        return {answer}

def make(weights):
    {before}
    outputs = {{"depth": {{"name": "depth", "meaning": {meaning!r}}}}}
    return Exportable("own", Answers(), outputs, input_spec({size}, 8, (0, 0, 0), (1, 1, 1)), "CC0", "a test",
                      shapes=((64, 64), (48, 72)))
"""


@pytest.mark.parametrize(
    "change, words",
    [
        ({"answer": "{'depth': image[:, :1]}"}, "must return 1 tensors"),
        ({"answer": "image[:, :1], image"}, "must return 1 tensors"),
        ({"answer": "image"}, "must be (1, 1, h, w)"),
        ({"answer": "image[:, :1].mean()"}, "must be (1, 1, h, w)"),
        ({"answer": "image[:, :1] / 0"}, "all values finite"),
        ({"answer": "image.nonsense"}, "own.py:7"),
        ({"meaning": "inverse_depth"}, "'disparity', 'depth' or 'points'"),
        ({"size": 0}, "input.size"),
        ({"before": "import nonesuch"}, "nonesuch"),
        ({"before": "return Answers()"}, "must return a graphs.Exportable"),
        ({"before": "torch.load(weights)"}, "own.py:10"),
        ({"before": "Answers().load_state_dict({'a': torch.ones(1)})"}, "Unexpected key"),
    ],
)
def test_a_network_of_ones_own_that_is_wrong_is_told_what_is_wrong(change, words, tmp_path, capsys):
    file = tmp_path / "own.py"
    parts = {"answer": "image[:, :1]", "before": "pass", "meaning": "depth", "size": 64}
    command = ["--network", f"{file}:make", "--out", str(tmp_path / "models")]
    file.write_text(OWN.format(**parts))
    assert export_models.main(command) == 0, capsys.readouterr().err
    file.write_text(OWN.format(**parts | change))
    (tmp_path / "models" / "own.json").unlink()
    assert export_models.main(command) == 1
    assert words in capsys.readouterr().err and not (tmp_path / "models" / "own.json").exists()


@pytest.mark.parametrize("damage", ["cut short", "no metadata", "another network's"])
def test_weights_of_something_else_are_refused(damage, weights, tmp_path, capsys):
    path = tmp_path / "wrong.safetensors"
    path.write_bytes(weights.read_bytes()[:1000])
    if damage == "no metadata":
        save_file({"a": torch.ones(3)}, path)
    elif damage == "another network's":
        save_file({"a": torch.ones(3)}, path, {"variant": "0", "widths": json.dumps(WIDTHS), "trained": "{}"})
    assert export_models.main(["--weights", str(path), "--out", str(tmp_path / "models")]) == 1
    assert "does not hold weights of this network" in capsys.readouterr().err and not (tmp_path / "models").exists()


def test_a_place_that_cannot_be_written_is_said(weights, tmp_path, capsys):
    (tmp_path / "models").write_text("a file, not a folder")
    assert export_models.main(["--weights", str(weights), "--out", str(tmp_path / "models")]) == 1
    assert "models" in capsys.readouterr().err


def test_small_answers_are_compared_as_closely_as_large_ones(weights):
    class Faint(torch.nn.Module):
        def __init__(self, factor):
            super().__init__()
            self.factor = factor

        def forward(self, image):
            return image[:, :1] * self.factor

    network = adapters.build("relight-geometry", weights, None)
    network.module, network.outputs = Faint(1e-4), {"depth": network.outputs["depth"]}
    graph = graphs.trace(network, network.module)
    graphs.check_parity(graph.SerializeToString(), network)
    network.module = Faint(2e-4)
    with pytest.raises(graphs.ExportError, match="differs from torch"):
        graphs.check_parity(graph.SerializeToString(), network)


@pytest.mark.parametrize(
    "given, bounds", [([], (0.5, 1.0)), (["--max-loss", "2"], (2.0, 1.0)), (["--max-loss", "2", "3"], (2.0, 3.0))]
)
def test_bounds_of_the_loss_are_degrees_then_percent(given, bounds):
    assert export_models.parse(given).max_loss == bounds


@pytest.mark.parametrize("words", [["--max-loss", "1", "2", "3"], ["--name", "a/b"], ["--name", ""]])
def test_arguments_that_make_no_sense_are_refused(words):
    if words == ["--name", ""]:
        assert export_models.parse(words).name == ""  # as if none were given
        return
    with pytest.raises(SystemExit):
        export_models.parse(words)


def test_list_names_every_network_with_its_licence(capsys):
    assert export_models.main(["--list"]) == 0
    out = capsys.readouterr().out
    assert all(a.name in out and a.licence in out for a in adapters.KNOWN.values())


def test_unsupported_operators_are_reported_with_the_way_out(weights):
    class Odd(torch.nn.Module):
        def forward(self, image):
            return torch.linalg.svd(image[:, :, :4, :4])[1]

    network = adapters.build("relight-geometry", weights, None)
    network.module = Odd()
    with pytest.raises(graphs.ExportError, match="Ways out"):
        graphs.trace(network, network.module)


def test_graphs_too_new_are_refused(built):
    _, _, graph = built
    for field, value in (("ir_version", 11), ("opset", 22)):
        newer = onnx.ModelProto.FromString(graph.SerializeToString())
        if field == "opset":
            newer.opset_import[0].version = value
        else:
            newer.ir_version = value
        with pytest.raises(graphs.ExportError, match="oldest supported"):
            graphs.check_graph(newer)


# Networks of others: the very same classes with tiny random weights.


def tiny_depth_anything(folder):
    from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config

    backbone = Dinov2Config(
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=2,
        mlp_ratio=2,
        image_size=518,
        patch_size=14,
        out_features=["stage1", "stage2", "stage3", "stage4"],
        reshape_hidden_states=False,
        apply_layernorm=True,
    )
    config = DepthAnythingConfig(
        backbone_config=backbone,
        reassemble_hidden_size=32,
        neck_hidden_sizes=[16, 16, 32, 32],
        fusion_hidden_size=16,
        head_hidden_size=8,
    )
    DepthAnythingForDepthEstimation(config).save_pretrained(folder)


def tiny_dpt(folder):
    from transformers import DPTConfig, DPTForDepthEstimation

    config = DPTConfig(
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=64,
        backbone_out_indices=[0, 1, 2, 3],
        neck_hidden_sizes=[16, 16, 32, 32],
        fusion_hidden_size=16,
        image_size=64,
        patch_size=16,
    )
    DPTForDepthEstimation(config).save_pretrained(folder)


def tiny_depth_pro(folder):
    from transformers import DepthProConfig, DepthProForDepthEstimation

    vit = {
        "model_type": "dinov2",
        "hidden_size": 16,
        "num_hidden_layers": 4,
        "num_attention_heads": 2,
        "mlp_ratio": 2,
        "patch_size": 4,
        "image_size": 16,
    }
    config = DepthProConfig(
        patch_size=16,
        fusion_hidden_size=16,
        intermediate_hook_ids=[2, 0],
        intermediate_feature_dims=[16, 16],
        scaled_images_ratios=[0.25, 0.5, 1],
        scaled_images_feature_dims=[16, 16, 16],
        image_model_config=vit,
        patch_model_config=vit,
        fov_model_config=vit,
        use_fov_model=False,
    )
    DepthProForDepthEstimation(config).save_pretrained(folder)


def tiny_moge(file):
    from moge.model.v2 import MoGeModel

    def stack(out):
        return {
            "dim_in": [None] * 5 if out else [18, 2, 2, 2, 2],
            "dim_res_blocks": [32] * 5,
            "dim_out": [None] * 4 + [out],
            "resamplers": ["conv_transpose", "conv_transpose", "bilinear", "bilinear"],
            "res_block_hidden_norm": "layer_norm",
            "num_res_blocks": 1,
        }

    encoder = {"backbone": "dinov2_vits14", "intermediate_layers": 1, "dim_out": 16}
    config = {
        "encoder": encoder,
        "neck": stack(None),
        "points_head": stack(3),
        "normal_head": stack(3),
        "mask_head": stack(1),
        "remap_output": "exp",
        "num_tokens_range": [100, 400],
    }
    model = MoGeModel(**config)
    torch.save({"model_config": config, "model": model.state_dict()}, file)


TINY = {
    "depth-anything-v2-small": tiny_depth_anything,
    "dpt-large": tiny_dpt,
    "depth-pro": tiny_depth_pro,
    "moge-2": tiny_moge,
}


@pytest.mark.parametrize("name", TINY)
def test_networks_of_others_export_and_run_in_the_server(name, tmp_path, capsys):
    pytest.importorskip(
        "moge" if name == "moge-2" else "transformers", reason=f"{name} needs pip install {adapters.KNOWN[name].needs}"
    )
    torch.manual_seed(0)
    source = tmp_path / ("model.pt" if name == "moge-2" else "source")
    TINY[name](source)
    command = ["--network", name, "--weights", str(source), "--out", str(tmp_path / "models")]
    assert export_models.main(command) == 0, capsys.readouterr().err
    size = 112  # those of one size keep theirs
    graph = load_graph(tmp_path / "models", name, provider="cpu", threads=1)
    assert set(graph.manifest.outputs.by_role()) == set(adapters.KNOWN[name].roles)
    rgb = np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8)
    geometry = OnnxEngine(dict.fromkeys(graph.manifest.outputs.by_role(), graph), size).analyse(rgb)
    assert np.isfinite(geometry.inverse_depth).all() and np.ptp(geometry.inverse_depth) > 0
    h, w = geometry.inverse_depth.shape
    assert abs(w / h - 80 / 60) < 0.1
    assert graph.manifest.rebuild == f"python export/export_models.py --network {name} --weights PATH"
    roles = {
        f"{role}_model": name if role in graph.manifest.outputs.by_role() else ""
        for role in ("depth", "normals", "mask")
    }
    server = Server(tmp_path / "jobs", models_dir=tmp_path / "models", analysis_size=size, **roles)
    try:
        relit_by(server.start(), name, rgb)
    finally:
        server.stop()


def relit_by(server, name, rgb):
    """A whole use of a running server that has no graph but this one: upload, relight, every pass, delete."""
    assert [m["name"] for m in server.json("models")["models"]] == [name]
    kind, body = multipart(encoded(rgb))
    job = server.json("upload", body, headers=kind)["job_id"]
    left, right = (server.picture("preview", {"job_id": job, "x": x, "y": 0, "z": 0.5, "delight": 0}) for x in (-1, 1))
    assert abs(left - right).mean() > 1, "its surfaces all face the same way"
    assert server.call("relight", {"job_id": job, "x": 1, "y": 1, "z": 1})[0] == 200
    for file in ("relit.png", "normals.png", "depth.png", "input.png"):
        assert server.picture(f"download/{job}/{file}").shape[:2] == rgb.shape[:2], file
    assert server.call(f"job/{job}", method="DELETE")[0] == 200


FACTORY = '''
import torch
from graphs import Exportable, input_spec

class Plane(torch.nn.Module):
    """Answers with one normal, given in the network's own axes."""
    def forward(self, image):
        n = torch.tensor({normal}).view(1, 3, 1, 1) + 0 * image.mean((2, 3), keepdim=True)
        depth = 1 + 0 * image[:, :1] + torch.linspace(0, 1, 16).mean() * image[:, 1:2].abs()
        return depth, n.expand(-1, -1, image.shape[2], image.shape[3]) * torch.ones_like(image)

def make(weights):
    outputs = {{"depth": {{"name": "depth", "meaning": "depth", "metric": True}},
               "normals": {{"name": "normals", "axes": {axes}}}}}
    return Exportable("plane", Plane(), outputs, input_spec(64, 8, (0, 0, 0), (1, 1, 1)), "CC0", "a test",
                      shapes=((64, 64), (48, 72)))
'''


@pytest.mark.parametrize(
    "axes,normal",
    [  # a plane that faces right, up and the viewer: (2, 1, 2) / 3 in our axes
        (["+x", "+y", "+z"], (2, 1, 2)),
        (["+x", "-y", "-z"], (2, -1, -2)),
        (["+x", "-y", "+z"], (2, -1, 2)),
        (["-x", "+y", "+z"], (-2, 1, 2)),
        (["+z", "+x", "+y"], (2, 2, 1)),
    ],
    ids=["opengl", "opencv", "right-down-viewer", "left-up-viewer", "forward first"],
)
def test_every_convention_of_normals_arrives_in_our_axes(axes, normal, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(FACTORY.format(axes=axes, normal=[v / 3 for v in normal]))
    assert export_models.main(["--network", f"{file}:make", "--out", str(tmp_path / "models")]) == 0
    graph = load_graph(tmp_path / "models", "plane", provider="cpu", threads=1)
    geometry = OnnxEngine({"depth": graph, "normals": graph}).analyse(np.full((48, 64, 3), 90, np.uint8))
    assert np.allclose(geometry.normals, np.float32([2, 1, 2]) / 3, atol=1e-3)


def test_one_output_alone(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(FACTORY.format(axes=["+x", "+y", "+z"], normal=[0.0, 0.0, 1.0]))
    assert export_models.main(["--network", f"{file}:make", "--as", "normals", "--out", str(tmp_path)]) == 0
    manifest = json.loads((tmp_path / "plane-normals.json").read_text())
    assert manifest["roles"] == ["normals"] and list(manifest["outputs"]) == ["normals"]
    assert (
        export_models.main(["--network", f"{file}:make", "--as", "depth", "--name", "deep", "--out", str(tmp_path)])
        == 0
    )
    deep = json.loads((tmp_path / "deep.json").read_text())
    assert deep["outputs"]["depth"]["meaning"] == "depth"
    assert deep["rebuild"] == "python export/export_models.py --network mine.py:make --as depth --name deep"


@pytest.fixture
def shards(tmp_path):
    """Two balls, as the renderer would write them."""
    y, x = np.mgrid[0:64, 0:64] / 31.5 - 1
    inside = x**2 + y**2 < 0.8
    normals = np.stack([x, -y, np.sqrt(np.clip(1 - x**2 - y**2, 0, 1))], -1) * inside[..., None]
    folder = tmp_path / "shards"
    folder.mkdir()
    arrays = {
        "rgb": np.rint((normals + 1) * 127.5).astype(np.uint8),
        "inv": ((0.5 + normals[..., 2] / 2) * inside).astype(np.float16),
        "nrm": np.rint(normals * 127).astype(np.int8),
        "mask": inside.astype(np.uint8),
    }
    for field, value in arrays.items():
        np.save(folder / f"0_00000.{field}.npy", np.stack([value] * 2))
    (folder / "0_00000.json").write_text(json.dumps({"kinds": ["ball"] * 2, "focal": [0.9] * 2, "seed": 0, "size": 64}))
    return folder


@pytest.mark.parametrize("how", [["--half"], ["--quantize", "int8"]], ids=["half", "int8"])
def test_smaller_arithmetic_states_its_loss_and_is_refused_above_the_bound(how, weights, shards, tmp_path, capsys):
    command = [
        "--weights",
        str(weights),
        *how,
        "--calibration",
        str(shards),
        "--out",
        str(tmp_path / "out"),
        "--name",
        "small",
    ]
    assert export_models.main([*command, "--max-loss", "180", "100"]) == 0, capsys.readouterr().err
    manifest = json.loads((tmp_path / "out" / "small.json").read_text())
    assert "loss:" in capsys.readouterr().out and set(manifest["loss"]) == {"degrees", "order_percent"}
    assert manifest["arithmetic"] == ("float16" if how == ["--half"] else "int8")
    load_graph(tmp_path / "out", "small", provider="cpu", threads=1)
    assert ("of" in manifest["parity"]) == (
        how != ["--half"]
    )  # int8 is not compared with torch, what it was made from is
    assert export_models.main([*command, "--max-loss", "-200", "100"]) == 1
    assert "--max-loss" in capsys.readouterr().err


def test_a_loss_that_is_not_measured_is_not_accepted(weights, shards, tmp_path, capsys):
    with pytest.raises(SystemExit):
        export_models.main(["--weights", str(weights), "--half"])
    np.save(shards / "0_00000.mask.npy", np.zeros((2, 64, 64), np.uint8))  # pictures of nothing
    command = ["--weights", str(weights), "--half", "--calibration", str(shards), "--out", str(tmp_path / "out")]
    assert export_models.main([*command, "--max-loss", "180", "100"]) == 1
    assert "enough surface" in capsys.readouterr().err


@pytest.fixture(scope="module")
def depth_anything(tmp_path_factory):
    pytest.importorskip("transformers")
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("depth-anything")
    TINY["depth-anything-v2-small"](folder)
    return folder


def test_depth_anything_answers_as_the_library_does(depth_anything):
    from transformers import DepthAnythingForDepthEstimation

    network = adapters.build("depth-anything-v2-small", depth_anything, None)
    theirs = DepthAnythingForDepthEstimation.from_pretrained(depth_anything, attn_implementation="eager").eval()
    image = torch.randn(1, 3, 14 * 6, 14 * 9, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        want, got = theirs(pixel_values=image).predicted_depth, network.module(image)[:, 0]
    assert got.shape == want.shape and torch.allclose(got, want, atol=1e-5 * float(want.abs().max()))


def test_a_metric_network_answers_with_depth(depth_anything, tmp_path):
    import json
    import shutil

    metric = tmp_path / "metric"
    shutil.copytree(depth_anything, metric)
    config = json.loads((metric / "config.json").read_text())
    (metric / "config.json").write_text(json.dumps({**config, "depth_estimation_type": "metric", "max_depth": 80}))
    for folder, meaning in ((depth_anything, "disparity"), (metric, "depth")):
        output = adapters.build("depth-anything-v2-small", folder, None).outputs["depth"]
        assert output["meaning"] == meaning and output["metric"] == (meaning == "depth")


def test_pictures_are_normalised_as_the_networks_were_trained():
    """The constants of the library that the weights come from."""
    utils = pytest.importorskip("transformers.image_utils")
    from adapters import hugging

    assert (tuple(utils.IMAGENET_DEFAULT_MEAN), tuple(utils.IMAGENET_DEFAULT_STD)) == hugging.IMAGENET
    assert (tuple(utils.IMAGENET_STANDARD_MEAN), tuple(utils.IMAGENET_STANDARD_STD)) == hugging.HALF


@pytest.mark.parametrize("name", ["dpt-large", "depth-pro"])
def test_networks_that_answer_with_disparity_say_so(name, tmp_path):
    """Their own library inverts (Depth Pro) or does not (MiDaS: near is bright) what they answer.

    Both are near where large.
    """
    pytest.importorskip("transformers")
    TINY[name](tmp_path / "w")
    assert adapters.build(name, tmp_path / "w", None).outputs["depth"]["meaning"] == "disparity"


def test_weights_that_are_given_are_not_downloaded_and_those_that_are_not_are(tmp_path, depth_anything):
    asked = []

    def download(adapter):
        asked.append(adapter.name)
        return depth_anything

    adapters.build("depth-anything-v2-small", depth_anything, download)
    assert asked == []
    adapters.build("depth-anything-v2-small", None, download)
    assert asked == ["depth-anything-v2-small"]


def test_points_and_normals_of_moge_agree(tmp_path, monkeypatch):
    """A plane in MoGe's own camera axes (right, down, forward.

    Normals toward the camera) arrives as that plane in ours.
    """
    pytest.importorskip("moge", reason="moge-2 needs pip install dlr-moge")
    from adapters import moge

    class Plane(torch.nn.Module):
        points_head = normal_head = mask_head = True

        def forward(self, image, num_tokens):
            h, w = image.shape[2:]
            v, u = torch.meshgrid((torch.arange(h) + 0.5 - h / 2) / w, (torch.arange(w) + 0.5) / w - 0.5, indexing="ij")
            q = 1 + 0.3 * u + 0.2 * v  # 1 / Z, at a focal length of one picture width
            n = torch.tensor([-0.3, -0.2, -1.0])
            n = n / n.norm()
            points = torch.stack([u / q, v / q, 1 / q], -1)[None]
            return {"points": points, "normal": n.expand(1, h, w, 3), "mask": torch.ones(1, h, w)}

    monkeypatch.setattr(moge.MoGeModel, "from_pretrained", lambda path: Plane())
    (tmp_path / "model.pt").touch()
    network = moge.moge2(tmp_path / "model.pt", adapters.KNOWN["moge-2"])
    image = torch.zeros(1, 3, 140, 196)
    points, normals, mask = (t.numpy() for t in network.module(image))
    sizes = models.Sizes(196, 140, 196, 140)
    o = network.outputs
    d = models.inverse_depth(
        models.plane(points, 3 if o["depth"]["meaning"] == "points" else 1, sizes), o["depth"]["meaning"]
    )
    n = models.to_canonical_axes(models.plane(normals, 3, sizes), o["normals"]["axes"])
    assert np.degrees(np.arccos(np.clip((n * normals_from_inverse_depth(d, 1.0)).sum(-1), -1, 1)))[2:-2, 2:-2].max() < 1
    assert n[..., 2].min() > 0.5 and models.plane(mask, 1, sizes).min() == 1


def test_the_mean_of_two_runs(tmp_path):
    """Every weight is half way between the two, and the file says what it is the mean of; two shapes have no mean."""
    paths = [tmp_path / f"{k}.safetensors" for k in range(3)]
    for k, path in enumerate(paths):
        torch.manual_seed(k)
        net = GeometryNet(0, WIDTHS, (1, 1, 1, 1) if k == 2 else (1, 2, 1, 2))
        checkpoint.save(net, net.state_dict(), path, {"step": k + 5, "validation": {}})
    assert average.main([str(paths[0]), str(paths[1]), "--out", str(tmp_path / "mean.safetensors")]) == 0
    states = [checkpoint.load(p)[0].state_dict() for p in (paths[0], paths[1], tmp_path / "mean.safetensors")]
    floats = [k for k, v in states[0].items() if v.is_floating_point()]
    assert all(torch.allclose((states[0][k] + states[1][k]) / 2, states[2][k], atol=1e-3) for k in floats)
    assert any((states[0][k] - states[2][k]).abs().max() > 0.01 for k in floats)
    assert checkpoint.load(tmp_path / "mean.safetensors")[1] == {"mean_of": [{"step": 5}, {"step": 6}]}
    with pytest.raises(SystemExit):
        average.main([str(paths[0]), str(paths[2]), "--out", str(tmp_path / "none.safetensors")])
    assert not (tmp_path / "none.safetensors").exists()
