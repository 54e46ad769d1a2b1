"""ONNX Runtime and nothing else: which provider, which options, and what a session really runs on."""

import logging
import platform
from pathlib import Path
from typing import Any, Dict, List, Sequence, Tuple

import onnxruntime as ort

from .errors import StartupError

log = logging.getLogger("relight")

CPU, CUDA, COREML = "CPUExecutionProvider", "CUDAExecutionProvider", "CoreMLExecutionProvider"
# `auto` takes the first that is available. CoreML is never among them: partitioned graphs run slower and larger than on
# the CPU, dynamic shapes recompile inside the run, and some graphs crash it (onnxruntime#21227, #26328).
AUTO = (CUDA, CPU)
NAMES = {"cpu": CPU, "cuda": CUDA, "coreml": COREML}
CURES = {
    "cuda": "install the GPU build instead of the CPU one: pip uninstall onnxruntime; pip install -r requirements-cuda.txt",
    "coreml": "CoreML exists on macOS only, in the onnxruntime wheel for it",
    "cpu": "reinstall onnxruntime: pip install --force-reinstall onnxruntime",
}


def provider_options(provider: str, device_id: int = 0, gpu_memory_bytes: int = 0, cache: str = "") -> Dict[str, Any]:
    """The options of one provider, each for a reason."""
    if provider == CUDA:
        options: Dict[str, Any] = {
            "device_id": device_id,
            "arena_extend_strategy": "kSameAsRequested",  # grow by what is asked, not by powers of two: memory stays flat
            "cudnn_conv_algo_search": "HEURISTIC",  # EXHAUSTIVE benchmarks every new shape inside the first run
        }
        if gpu_memory_bytes:
            options["gpu_mem_limit"] = gpu_memory_bytes  # leave room for others on the card
        return options
    if provider == COREML:
        options = {"ModelFormat": "MLProgram", "RequireStaticInputShapes": "1"}  # NeuralNetwork is the deprecated format
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
        raise StartupError(f"RELIGHT_PROVIDER={provider}: this onnxruntime has no {wanted} (it has: {', '.join(available)}). "
                           f"To mend it: {CURES[provider]}. Or set RELIGHT_PROVIDER=auto.")
    return [wanted] if wanted == CPU else [wanted, CPU]


def both_wheels_installed() -> bool:
    """Are onnxruntime and onnxruntime-gpu both installed? They overwrite each other's files (onnxruntime#26996)."""
    from importlib import metadata

    found = 0
    for name in ("onnxruntime", "onnxruntime-gpu"):
        try:
            metadata.version(name)
            found += 1
        except metadata.PackageNotFoundError:
            pass
    return found == 2


def open_session(graph: bytes, provider: str = "auto", threads: int = 1, device_id: int = 0, gpu_memory_bytes: int = 0,
                 cache: str = "", available: Sequence[str] = ()) -> Tuple[Any, str]:
    """A session over the bytes of a graph, and the provider it really runs on.

    Raises StartupError when an explicit choice cannot be had, and whatever ONNX Runtime raises for a bad graph.
    """
    available = tuple(available) or tuple(ort.get_available_providers())
    providers = choose(provider, available)
    if CUDA in providers:
        if both_wheels_installed():
            log.warning("onnxruntime and onnxruntime-gpu are both installed and overwrite each other: "
                        "pip uninstall onnxruntime onnxruntime-gpu, then pip install -r requirements-cuda.txt")
        if hasattr(ort, "preload_dlls"):
            ort.preload_dlls()  # finds the CUDA and cuDNN that pip's nvidia wheels brought
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.set_denormal_as_zero", "1")
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # the cores are for shading meanwhile
    session = ort.InferenceSession(graph, options, providers=[(p, provider_options(p, device_id, gpu_memory_bytes, cache))
                                                              for p in providers])
    actual = session.get_providers()[0]
    if actual != providers[0]:
        if provider != "auto":
            name = next(k for k, v in NAMES.items() if v == providers[0])
            raise StartupError(f"RELIGHT_PROVIDER={provider}: ONNX Runtime fell back to {actual}; its libraries could not be "
                               f"loaded. To mend it: {CURES[name]}. Or set RELIGHT_PROVIDER=auto.")
        log.warning("asked for %s but the session runs on %s", providers[0], actual)
    return session, actual


def runtime() -> Dict[str, str]:
    """What runs the graphs, for /models."""
    return {"onnxruntime": ort.__version__, "python": platform.python_version(), "machine": platform.machine()}


def cache_folder() -> str:
    """Where CoreML keeps compiled graphs."""
    import tempfile

    folder = Path(tempfile.gettempdir()) / "relight-coreml"
    folder.mkdir(mode=0o700, exist_ok=True)
    return str(folder)
