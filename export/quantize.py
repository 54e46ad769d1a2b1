"""Static int8 quantisation, and what it costs in accuracy on the generator's pictures."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, Iterator

import cv2
import numpy as np
import onnx
from graphs import Exportable, ExportError, feeds, session_of
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from training import data, loop

from server.model.engine import Sizes, inverse_depth, plane, to_canonical_axes

KEPT_LAST = 5  # the last convolutions stay float, because their outputs are the answer itself
CALIBRATION, MEASURED = 48, 96  # numbers of pictures


def pictures(
    shards: data.Shards, spec: dict[str, Any], count: int, shape: tuple[int, int]
) -> Iterator[tuple[np.ndarray, data.Sample]]:
    """Evenly spaced pictures as inputs (1, 3, h, w) of the graph, each with the sample it came from."""
    for k in np.linspace(0, len(shards) - 1, min(count, len(shards))).astype(int):
        sample = shards[k]
        rgb = cv2.resize(np.ascontiguousarray(sample.rgb), shape[::-1], interpolation=cv2.INTER_CUBIC)
        x = (rgb.astype(np.float32) * np.float32(spec["scale"]) - np.float32(spec["mean"])) / np.float32(spec["std"])
        yield np.ascontiguousarray(x.transpose(2, 0, 1)[None], np.float32), sample


class Reader(CalibrationDataReader):
    """The inputs in the form in which ONNX Runtime's calibration reads them."""

    def __init__(self, inputs: Iterator[np.ndarray], more: dict[str, np.ndarray]):
        self.inputs, self.more = inputs, more

    def get_next(self) -> Any:
        """The next input by name, or None after the last."""
        x = next(self.inputs, None)
        return None if x is None else {"image": x, **self.more}


def square(network: Exportable) -> tuple[int, int]:
    """A (height, width) near 256 x 256 that the network accepts."""
    if network.fixed:
        return network.shapes[0]
    multiple = network.input["multiple"]
    side = max(1, round(256 / multiple)) * multiple
    return side, side


def to_int8(graph: onnx.ModelProto, network: Exportable, shards: data.Shards) -> onnx.ModelProto:
    """The graph with all convolutions and matrix products in int8, except the first and the last few."""
    shape = square(network)
    with tempfile.TemporaryDirectory() as folder:
        plain, ready, out = (str(Path(folder) / f"{n}.onnx") for n in ("plain", "ready", "int8"))
        onnx.save(graph, plain)
        quant_pre_process(plain, ready, skip_symbolic_shape=True)
        heavy = [n.name for n in onnx.load(ready).graph.node if n.op_type in ("Conv", "MatMul", "Gemm")]
        inputs = (x for x, _ in pictures(shards, network.input, CALIBRATION, shape))
        quantize_static(
            ready,
            out,
            Reader(inputs, {network.input["light"]: np.ones(1, np.int64)} if "light" in network.input else {}),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            op_types_to_quantize=["Conv", "MatMul", "Gemm"],
            nodes_to_exclude=[heavy[0], *heavy[-KEPT_LAST:]],
        )
        return onnx.load(out)


def measure(graph: bytes, network: Exportable, shards: data.Shards) -> dict[str, float]:
    """Mean angle of the normals in degrees and depth order in percent against the renderer's truth.

    Raises ExportError on NaN.
    """
    session, shape, names = session_of(graph), square(network), list(network.outputs)
    angles, orders = [], []
    for x, sample in pictures(shards, network.input, MEASURED, shape):
        answers = dict(zip(names, session.run(None, feeds(session, x))))
        if not all(np.isfinite(a).all() for a in answers.values()):
            raise ExportError(f"{network.name}: some outputs are not finite")
        surface = (sample.mask > 0) & (np.linalg.norm(sample.normals, axis=-1) > 0.5)
        if surface.sum() < 50:
            continue
        whole = Sizes(*shape[::-1], *shape[::-1])
        if "normals" in answers:
            n = to_canonical_axes(plane(answers["normals"], 3, whole), network.outputs["normals"]["axes"])
            n = cv2.resize(n, surface.shape[::-1], interpolation=cv2.INTER_LINEAR)[surface]
            t = sample.normals[surface]
            cos = (n * t).sum(-1) / np.maximum(np.linalg.norm(n, axis=-1) * np.linalg.norm(t, axis=-1), 1e-6)
            angles.append(np.degrees(np.arccos(np.clip(cos, -1, 1))).mean())
        if "depth" in answers:
            meaning = network.outputs["depth"]["meaning"]
            near = inverse_depth(plane(answers["depth"], 3 if meaning == "points" else 1, whole), meaning)
            near = cv2.resize(near, surface.shape[::-1], interpolation=cv2.INTER_LINEAR)
            orders.append(loop.ordinal(near[surface], sample.disparity[surface]))
    scores = {"angle": float(np.mean(angles))} if angles else {}
    return scores | ({"order": float(np.nanmean(orders))} if orders else {})


def lost(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    """What was lost, in degrees of angle and percent of depth order; negative when the graph got better."""
    loss = {"degrees": after["angle"] - before["angle"]} if "angle" in before else {}
    return loss | ({"order_percent": before["order"] - after["order"]} if "order" in before else {})
