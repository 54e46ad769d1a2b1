"""ONNX Runtime and nothing else: which provider, which options, and what a session really runs on."""

import hashlib
import logging
import platform
import tempfile
import threading
from collections import OrderedDict
from importlib import metadata
from pathlib import Path
from typing import Any, Callable, Dict, List, Sequence, Tuple

import onnxruntime as ort

from ..errors import StartupError

log = logging.getLogger("relight")

CPU, CUDA, COREML = "CPUExecutionProvider", "CUDAExecutionProvider", "CoreMLExecutionProvider"
# `auto` takes the first that is available. CoreML is never among them: partitioned graphs run slower and larger than on
# the CPU, dynamic shapes recompile inside the run, and some graphs crash it (onnxruntime#21227, #26328).
AUTO = (CUDA, CPU)
NAMES = {"cpu": CPU, "cuda": CUDA, "coreml": COREML}
CURES = {
    "cuda": "install the GPU build instead of the CPU one: pip uninstall onnxruntime onnxruntime-gpu, then "
    "pip install -r requirements-cuda.txt",
    "coreml": "CoreML exists on macOS only, in the onnxruntime wheel for it",
    "cpu": "reinstall onnxruntime: pip install --force-reinstall onnxruntime",
}


def provider_options(provider: str, device_id: int = 0, gpu_memory_bytes: int = 0, cache: str = "") -> Dict[str, Any]:
    """The options of one provider, each for a reason."""
    if provider == CUDA:
        options: Dict[str, Any] = {
            "device_id": device_id,
            # grow by what is asked, not by powers of two: memory stays flat
            "arena_extend_strategy": "kSameAsRequested",
            "cudnn_conv_algo_search": "HEURISTIC",  # EXHAUSTIVE benchmarks every new shape inside the first run
        }
        if gpu_memory_bytes:
            options["gpu_mem_limit"] = gpu_memory_bytes  # leave room for others on the card
        return options
    if provider == COREML:
        options = {
            "ModelFormat": "MLProgram",
            "RequireStaticInputShapes": "1",
        }  # NeuralNetwork is the deprecated format
        if cache:
            options["ModelCacheDirectory"] = cache  # compiling takes seconds: once is enough
        return options
    return {}


def choose(provider: str, available: Sequence[str]) -> List[str]:
    """The providers to ask for, best first, always ending with the CPU.

    Raises StartupError when an explicit choice is not available: silence would mean a slow server nobody understands.
    """
    if provider == "auto":
        return [next((p for p in AUTO if p in available), CPU)] + ([CPU] if CUDA in available else [])
    wanted = NAMES[provider]
    if wanted not in available:
        raise StartupError(
            f"RELIGHT_PROVIDER={provider}: this onnxruntime has no {wanted} (it has: {', '.join(available)}). "
            f"To mend it: {CURES[provider]}. Or set RELIGHT_PROVIDER=auto."
        )
    return [wanted] if wanted == CPU else [wanted, CPU]


def check_provider(provider: str) -> None:
    """Raise StartupError when this onnxruntime cannot offer an explicit choice, before anything else is begun."""
    choose(provider, ort.get_available_providers())


def both_wheels_installed() -> bool:
    """Are onnxruntime and onnxruntime-gpu both installed? They overwrite each other's files (onnxruntime#26996)."""
    found = 0
    for name in ("onnxruntime", "onnxruntime-gpu"):
        try:
            metadata.version(name)
            found += 1
        except metadata.PackageNotFoundError:
            pass
    return found == 2


SHAPES_KEPT = 8  # sessions of a provider that wants static shapes: two sizes of four ratios of sides


class PerShape:
    """A session of its own for each shape of the input, opened when a shape first comes; the last few are kept.

    `plain` is a session over the same graph with free sizes, which answers for the names; `open_one(sizes)` opens one
    in which they are fixed: sizes maps the names of the graph's free dimensions to pixels.
    """

    def __init__(self, plain: Any, open_one: Callable[[Dict[str, int]], Any]):
        self.get_inputs, self.get_outputs, self.get_providers = plain.get_inputs, plain.get_outputs, plain.get_providers
        self._open, self._lock = open_one, threading.Lock()
        self._sessions: OrderedDict[Tuple[Tuple[str, int], ...], Any] = OrderedDict()

    def run(self, names: Sequence[str], feed: Dict[str, Any]) -> List[Any]:
        """As a session's own."""
        sizes = {d: n for i in self.get_inputs() for d, n in zip(i.shape, feed[i.name].shape) if isinstance(d, str)}
        key = tuple(sorted(sizes.items()))
        with self._lock:
            session = self._sessions.pop(key, None) or self._open(sizes)
            self._sessions[key] = session
            if len(self._sessions) > SHAPES_KEPT:
                self._sessions.popitem(last=False)
        return session.run(names, feed)


def open_session(
    graph: bytes,
    provider: str = "auto",
    threads: int = 1,
    device_id: int = 0,
    gpu_memory_bytes: int = 0,
    available: Sequence[str] = (),
) -> Tuple[Any, str]:
    """A session over the bytes of a graph, and the provider it really runs on.

    Raises StartupError when an explicit choice cannot be had, and whatever ONNX Runtime raises for a bad graph.
    """
    if both_wheels_installed():
        log.warning(
            "onnxruntime and onnxruntime-gpu are both installed and overwrite each other. To mend it, with "
            "requirements-cuda.txt or requirements.txt: pip uninstall onnxruntime onnxruntime-gpu, then "
            "pip install -r that file"
        )
    available = tuple(available) or tuple(ort.get_available_providers())
    providers = choose(provider, available)
    if CUDA in providers and hasattr(ort, "preload_dlls"):
        ort.preload_dlls()  # finds the CUDA and cuDNN that pip's nvidia wheels brought

    def opened(sizes: Dict[str, int], cache: str = "") -> Any:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # Both keep as much memory as the largest photo ever took; what a run frees is given back after it (memory.py).
        options.enable_mem_pattern = options.enable_cpu_mem_arena = False
        options.log_severity_level = 3
        options.add_session_config_entry("session.set_denormal_as_zero", "1")
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # the cores are for shading meanwhile
        for name, size in sizes.items():
            options.add_free_dimension_override_by_name(name, size)
        return ort.InferenceSession(
            graph, options, providers=[(p, provider_options(p, device_id, gpu_memory_bytes, cache)) for p in providers]
        )

    session = opened({})
    actual = session.get_providers()[0]
    if actual != providers[0]:
        if provider != "auto":
            name = next(k for k, v in NAMES.items() if v == providers[0])
            raise StartupError(
                f"RELIGHT_PROVIDER={provider}: ONNX Runtime fell back to {actual}; its libraries could not be "
                f"loaded. To mend it: {CURES[name]}. Or set RELIGHT_PROVIDER=auto."
            )
        log.warning("asked for %s but the session runs on %s", providers[0], actual)
    if actual == COREML:  # takes no node whose shape is not known
        session = PerShape(session, lambda sizes: opened(sizes, cache_folder(graph, sizes)))
    return session, actual


def runtime() -> Dict[str, str]:
    """What runs the graphs, for /models."""
    return {"onnxruntime": ort.__version__, "python": platform.python_version(), "machine": platform.machine()}


def cache_folder(graph: bytes, sizes: Dict[str, int]) -> str:
    """Where CoreML keeps this graph compiled for these sizes.

    Its own key knows the names in a graph and not the weights.
    """
    key = hashlib.sha256(graph).hexdigest()[:16] + "".join(f"-{n}" for _, n in sorted(sizes.items()))
    folder = Path(tempfile.gettempdir()) / "relight-coreml" / key
    folder.parent.mkdir(mode=0o700, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)
    return str(folder)
