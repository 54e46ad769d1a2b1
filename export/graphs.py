"""Turn a torch module into one self-contained ONNX file and its manifest, unless ONNX Runtime disagrees with torch."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import sys
import traceback
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Iterable, Optional

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

sys.path.append(str(Path(__file__).resolve().parent.parent))

from server.errors import ModelError
from server.model.engine import Sizes, plane
from server.model.manifest import REBUILD, parse

MAX_IR, MAX_OPSET = 10, 21  # the newest that onnxruntime 1.19, the last one for Python 3.9, can read
SMALL = 256  # initialisers with fewer values stay float32, because they would gain nothing


class ExportError(Exception):
    """The network could not be turned into a graph fit to be served; the message says why and what to do."""


def told(error: Exception) -> str:
    """An error of other people's code in one line, with the innermost place that is outside installed packages."""
    frames = traceback.extract_tb(error.__traceback__)
    where = ([f for f in frames if "site-packages" not in f.filename] or frames)[-1]
    return f"{type(error).__name__}: {error} ({where.filename}:{where.lineno})"


@dataclass
class Exportable:
    """A torch module together with everything its manifest says.

    `module(image)` takes (1, 3, h, w) float32, normalised as `input` says (see input_spec), and returns a tensor or a
    tuple of tensors in the order of `outputs`, which maps roles to {"name": ..., ...} with
      depth    "meaning": "disparity" (larger = nearer, of any scale and shift), "depth", or "points" (three channels,
               of which z is used); (1, 1, h', w'), or (1, 3, h', w') for points, of any size in the input's proportions
      normals  "axes": the direction of each channel in our axes (+x right, +y up, +z to the viewer), such as
               ["+x", "-y", "-z"]; and "relief", 0..1, if the server is to add relief from the photo's shading
      mask     "meaning": "probability" or "logit" of there being a surface
      subject  "meaning": "probability" or "logit" of standing in front
      visibility "meaning": "probability" or "logit" of a distant light arriving; "directions": K unit vectors toward
               the lights, in our axes; (1, K, h', w')
      shading  "meaning": "linear" or "logarithm", of the light that the photo was taken in, red, green and blue each up
               to a factor; "share", 0..1, of that light that is taken from it, not fitted; (1, 3, h', w')
    With "light" in `input`, the name of a second input, the graph is told by it, (1,) int64, whether visibility and
    shading are wanted: `module(image, light)` returns them for that many pictures, 1 or 0, and for 1 without `light`.
    `shapes` are the (height, width) pairs at which torch and ONNX Runtime must agree within `tolerance`, relative to
    the largest value of each output. `focal` is the focal length in widths of the picture, if the network assumes one.
    """

    name: str
    module: nn.Module
    outputs: dict[str, dict[str, Any]]
    input: dict[str, Any]
    licence: str
    source: str
    shapes: tuple[tuple[int, int], tuple[int, int]] = ((256, 320), (352, 224))
    tolerance: float = 1e-3
    opset: int = 17
    focal: Optional[float] = None
    fixed: bool = False  # the graph takes only one input size: shapes[0]
    trained: dict[str, Any] = field(default_factory=dict)
    rebuild: str = REBUILD  # the command that makes the graph, shown by a server that cannot load it


def input_spec(
    size: int, multiple: int, mean: Iterable[float], std: Iterable[float], size_rule: str = "long_side"
) -> dict[str, Any]:
    """The manifest's description of an RGB input: x = (rgb / 255 - mean) / std, sides rounded to `multiple`.

    `size` is the length in pixels of the side that `size_rule` names, "long_side" or "short_side".
    """
    return {
        "name": "image",
        "layout": "NCHW",
        "channels": "RGB",
        "scale": 1 / 255,
        "mean": list(mean),
        "std": list(std),
        "size": size,
        "size_rule": size_rule,
        "multiple": multiple,
        "resize": "area_or_cubic",
    }


def build(network: Exportable, half: bool = False) -> tuple[bytes, dict[str, Any]]:
    """The checked (graph, manifest) of a network.

    Its weights are rounded to float16 in place, so that torch and ONNX Runtime compute with the same values. With
    `half` the arithmetic is float16 too, while inputs and outputs stay float32. Raises ExportError.
    """
    check_answers(network)
    round_weights(network.module)
    module = HalfArithmetic(network.module).eval() if half else network.module.eval()
    graph = shrink_weights(trace(network, module))
    check_graph(graph)
    data = graph.SerializeToString(deterministic=True)
    parity = check_parity(data, network, tolerance=max(network.tolerance, 5e-2) if half else network.tolerance)
    return data, describe(network, graph, data, parity)


def only(network: Exportable, role: str) -> Exportable:
    """The same network with only one of its outputs. Raises ExportError when it has no such output."""
    if role not in network.outputs:
        raise ExportError(f"{network.name} has no {role}, only {', '.join(network.outputs)}")
    module = Selected(network.module, list(network.outputs).index(role))
    told = {k: v for k, v in network.input.items() if k != "light"}  # its light, if that is the role, it always says
    return dataclasses.replace(
        network, name=f"{network.name}-{role}", module=module, outputs={role: network.outputs[role]}, input=told
    )


def replace(network: Exportable, manifest: dict[str, Any], graph: onnx.ModelProto) -> tuple[bytes, dict[str, Any]]:
    """(graph, manifest) with another graph in place of the one that the manifest was made for.

    The parity entry stays that of the float32 graph.
    """
    shrink_weights(graph)
    check_graph(graph)
    data = graph.SerializeToString(deterministic=True)
    return data, describe(network, graph, data, manifest["parity"] | {"of": "the float32 graph it was made from"})


def check_answers(network: Exportable) -> None:
    """Raise ExportError unless the module returns what `outputs` says, in shapes that the server can read."""
    height, width = network.shapes[0]
    dtype = next((p.dtype for p in network.module.parameters()), torch.float32)
    try:
        with torch.no_grad():
            answers = as_tuple(network.module.eval()(torch.from_numpy(probe(height, width)).to(dtype)))
    except Exception as error:  # other people's code
        raise ExportError(f"{network.name} fails on an input of {height}x{width}: {told(error)}") from error
    if len(answers) != len(network.outputs) or not all(isinstance(a, torch.Tensor) for a in answers):
        raise ExportError(
            f"{network.name}: the module must return {len(network.outputs)} tensors ({', '.join(network.outputs)}), "
            f"it returns {', '.join(type(a).__name__ for a in answers)}"
        )
    for (role, output), answer in zip(network.outputs.items(), answers):
        channels = (
            3
            if role in ("normals", "shading") or output.get("meaning") == "points"
            else len(output.get("directions", "1"))
        )
        try:
            shape = plane(answer.float().numpy(), channels, Sizes(width, height, width, height)).shape
        except (ModelError, IndexError):
            shape = ()
        if len(shape) != (3 if channels > 1 else 2) or shape[2:] not in ((), (channels,)):
            raise ExportError(
                f"{network.name}: {role} is {tuple(answer.shape)} and must be (1, {channels}, h, w), all values finite"
            )


def describe(network: Exportable, graph: onnx.ModelProto, data: bytes, parity: dict[str, Any]) -> dict[str, Any]:
    """The manifest: everything the server has to know about the graph.

    Raises ExportError when the server would refuse it.
    """
    manifest = {
        "format": 1,
        "name": network.name,
        "graph": network.name + ".onnx",
        "sha256": hashlib.sha256(data).hexdigest(),
        "roles": list(network.outputs),
        "input": network.input | ({"fixed": True} if network.fixed else {}),
        "outputs": network.outputs,
        "focal": network.focal,
        "licence": network.licence,
        "source": network.source,
        "opset": graph.opset_import[0].version,
        "ir_version": graph.ir_version,
        "parameters": sum(p.numel() for p in network.module.parameters()),
        "rebuild": network.rebuild,
        "parity": parity,
        "trained": network.trained,
    }
    try:
        parse(json.loads(json.dumps(manifest)))  # as the server reads it, from a file
    except ValueError as error:
        raise ExportError(f"{network.name}: its manifest is wrong: {error}") from error
    return manifest


class Selected(nn.Module):
    """One output of a module that has several."""

    def __init__(self, module: nn.Module, index: int):
        super().__init__()
        self.module, self.index = module, index

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """The selected output for a picture (1, 3, h, w)."""
        return as_tuple(self.module(image))[self.index]


class HalfArithmetic(nn.Module):
    """The module computed in float16 between a float32 input and float32 outputs."""

    def __init__(self, module: nn.Module):
        super().__init__()
        self.module = module.half()

    def forward(self, image: torch.Tensor, *light: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """All outputs for a picture (1, 3, h, w), float32."""
        return tuple(t.float() for t in as_tuple(self.module(image.half(), *light)))


def round_weights(module: nn.Module) -> None:
    """Round the parameters that the graph stores as float16 to float16 values, in place."""
    with torch.no_grad():
        for tensor in module.parameters():
            if tensor.numel() >= SMALL and tensor.dtype == torch.float32:
                tensor.copy_(tensor.half().float())


def trace(network: Exportable, module: nn.Module) -> onnx.ModelProto:
    """Export with torch's tracing exporter: one file without external data, of any height and width unless `fixed`."""
    buffer, names = io.BytesIO(), [o["name"] for o in network.outputs.values()]
    axes = (
        None
        if network.fixed
        else {
            n: {2: "height" if n == "image" else n + "_height", 3: "width" if n == "image" else n + "_width"}
            for n in ["image", *names]
        }
    )
    examples: tuple[torch.Tensor, ...] = (torch.zeros(1, 3, *network.shapes[0]),)
    inputs = ["image"]
    if "light" in network.input:
        examples, inputs = (*examples, torch.ones(1, dtype=torch.int64)), [*inputs, network.input["light"]]
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                module,
                examples,
                buffer,  # type: ignore[arg-type]  # the stubs want a path, but this exporter writes to buffers too
                input_names=inputs,
                output_names=names,
                dynamic_axes=axes,
                opset_version=network.opset,
                do_constant_folding=True,
                dynamo=False,
            )
    except RuntimeError as error:  # torch's OnnxExporterError is one, too
        raise ExportError(unsupported(network.name, error)) from error
    return onnx.load_model_from_string(buffer.getvalue())


def unsupported(name: str, error: Exception) -> str:
    """A readable message for an operator that the exporter does not know."""
    return (
        f"{name}: torch cannot express this network as ONNX: {str(error).strip().splitlines()[0]}\n"
        "Ways out: raise `opset` in the adapter (up to 21); replace the operator in a small wrapper module "
        "(for example attention by its plain matmul-softmax form, antialiased resizing by bilinear); "
        "or set `fixed=True` if only the dynamic size is the problem."
    )


def shrink_weights(graph: onnx.ModelProto) -> onnx.ModelProto:
    """Store float32 weights as float16 behind a Cast to float32: half the file, the arithmetic unchanged.

    ONNX Runtime folds the casts when it loads the graph. Weights beyond the range of float16 stay float32. The graph is
    changed in place and returned.
    """
    casts, kept = [], []
    for tensor in graph.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if tensor.data_type != TensorProto.FLOAT or values.size < SMALL or np.abs(values).max() > 65504:
            kept.append(tensor)
            continue
        stored = tensor.name + ".float16"
        kept.append(numpy_helper.from_array(values.astype(np.float16), stored))
        casts.append(
            helper.make_node("Cast", [stored], [tensor.name], name=tensor.name + ".cast", to=TensorProto.FLOAT)
        )
    nodes = casts + list(graph.graph.node)
    del graph.graph.initializer[:], graph.graph.node[:]
    graph.graph.initializer.extend(kept)
    graph.graph.node.extend(nodes)
    return graph


def check_graph(graph: onnx.ModelProto) -> None:
    """Raise ExportError unless the graph is one whole file that the oldest supported ONNX Runtime can read."""
    opset = max(o.version for o in graph.opset_import if o.domain in ("", "ai.onnx"))
    if graph.ir_version > MAX_IR or opset > MAX_OPSET:
        raise ExportError(
            f"IR {graph.ir_version}, opset {opset}: the oldest supported ONNX Runtime reads "
            f"{MAX_IR} and {MAX_OPSET} at most"
        )
    if any(t.data_location == TensorProto.EXTERNAL for t in graph.graph.initializer):
        raise ExportError("the graph keeps weights outside its file")
    onnx.checker.check_model(graph)


def check_parity(data: bytes, network: Exportable, tolerance: Optional[float] = None) -> dict[str, Any]:
    """Compare torch and ONNX Runtime at the network's shapes. Returns the manifest's `parity`; raises ExportError."""
    tolerance = network.tolerance if tolerance is None else tolerance
    session = session_of(data)
    shapes = network.shapes[:1] if network.fixed else network.shapes
    worst: dict[str, float] = {}
    for height, width in shapes:
        x = probe(height, width)
        dtype = next((p.dtype for p in network.module.parameters()), torch.float32)
        with torch.no_grad():
            expected = [t.float().numpy() for t in as_tuple(network.module(torch.from_numpy(x).to(dtype)))]
        for (role, output), a, b in zip(
            network.outputs.items(), expected, session.run(None, feeds(session, x)), strict=True
        ):
            if a.shape != b.shape:
                raise ExportError(
                    f"{network.name}: {output['name']} is {b.shape} in ONNX Runtime, {a.shape} in "
                    f"torch, at {height}x{width}"
                )
            error = float(np.abs(a - b).max() / max(1e-9, np.abs(a).max()))
            if not error <= tolerance:
                raise ExportError(
                    f"{network.name}: {output['name']} differs from torch by {error:.2g} at {height}x{width} "
                    f"(allowed: {tolerance:.2g})"
                )
            worst[role] = max(worst.get(role, 0.0), error)
    return {
        "shapes": [list(s) for s in shapes],
        "tolerance": tolerance,
        "runtime": onnxruntime.__version__,
        "torch": torch.__version__.split("+")[0],
        "worst": {k: float(f"{v:.0e}") for k, v in worst.items()},
    }


def feeds(session: onnxruntime.InferenceSession, image: np.ndarray) -> dict[str, np.ndarray]:
    """The inputs of a graph for a picture, with its light where the graph may be told to leave that out."""
    return {i.name: image if i.name == "image" else np.ones(1, np.int64) for i in session.get_inputs()}


def probe(height: int, width: int) -> np.ndarray:
    """A smooth pattern with some noise, (1, 3, height, width) float32."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:height, 0:width] / 24.0
    waves = np.stack([np.sin(x + k) * np.cos(0.7 * y - k) for k in range(3)])
    return (waves + 0.2 * rng.standard_normal(waves.shape))[None].astype(np.float32)


def session_of(data: bytes) -> onnxruntime.InferenceSession:
    """A quiet ONNX Runtime session on the CPU for the bytes of a graph."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def as_tuple(output: Any) -> tuple[torch.Tensor, ...]:
    """A module's answer as a tuple, whether it is one tensor or several."""
    return tuple(output) if isinstance(output, (tuple, list)) else (output,)


def write(folder: Path, data: bytes, manifest: dict[str, Any]) -> None:
    """Write the graph and then its manifest, each completely or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(manifest, indent=2) + "\n"
    for name, content in ((manifest["graph"], data), (manifest["name"] + ".json", text.encode())):
        temporary = folder / f".{name}.{os.getpid()}"
        temporary.write_bytes(content)
        os.replace(temporary, folder / name)
