"""Networks that `export_models.py` knows by name. Nothing is imported or downloaded until one is asked for."""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Optional

from graphs import Exportable, ExportError, told


@dataclass(frozen=True)
class Adapter:
    """How a network with a name is made.

    `factory` is "module:function" in this package; function(weights, adapter) returns an Exportable. Its `weights` is a
    folder or a file, or None for a network whose checkpoint is committed here. `--download` fetches weights from `hub`;
    `licence` is their licence and `needs` the package to install.
    """

    name: str
    factory: str
    roles: tuple[str, ...]
    licence: str
    needs: str = ""
    hub: Optional[str] = None


KNOWN = {
    a.name: a
    for a in (
        Adapter("relight-geometry", "bundled:bundled", ("depth", "normals", "mask"), "MIT"),
        Adapter("u2netp", "salient:u2netp", ("subject",), "Apache-2.0"),
        *(
            Adapter(
                f"depth-anything-v2-{size.lower()}",
                "hugging:depth_anything",
                ("depth",),
                licence,
                "transformers",
                f"depth-anything/Depth-Anything-V2-{size}-hf",
            )
            for size, licence in (("Small", "Apache-2.0"), ("Base", "CC-BY-NC-4.0"), ("Large", "CC-BY-NC-4.0"))
        ),
        Adapter("dpt-large", "hugging:dpt", ("depth",), "Apache-2.0", "transformers", "Intel/dpt-large"),
        Adapter(
            "depth-pro",
            "hugging:depth_pro",
            ("depth",),
            "Apple ML research licence (apple-amlr)",
            "transformers",
            "apple/DepthPro-hf",
        ),
        Adapter(
            "moge-2",
            "moge:moge2",
            ("depth", "normals", "mask"),
            "code MIT; see the weights' own page",
            "dlr-moge",
            "Ruicheng/moge-2-vitl-normal",
        ),
    )
}


def build(name: str, weights: Optional[Path], download: Callable[[Adapter], Path]) -> Exportable:
    """The network of that name, or of "path/to/file.py:factory". Raises ExportError, which says what to do.

    A factory of the user's own is called with the path of the weights (or None) and returns a graphs.Exportable.
    `download` fetches the weights of a network that has none here; it is called only when `weights` is None.
    """
    try:
        network = own_factory(name)(weights) if ":" in name else known(name, weights, download)
    except ExportError:
        raise
    except Exception as error:  # other people's code, or the weights of another network
        raise ExportError(f"{name} cannot be made{f' from {weights}' if weights else ''}: {told(error)}") from error
    if not isinstance(network, Exportable):
        raise ExportError(f"{name} returned a {type(network).__name__}; it must return a graphs.Exportable")
    return network


def known(name: str, weights: Optional[Path], download: Callable[[Adapter], Path]) -> Exportable:
    """The network known by that name. Raises ExportError and whatever its library raises."""
    adapter = KNOWN.get(name)
    if adapter is None:
        raise ExportError(f"no network is called {name}: {', '.join(KNOWN)}, or path/to/file.py:factory")
    module, function = adapter.factory.split(":")
    try:
        factory = getattr(importlib.import_module(f"adapters.{module}"), function)
    except ImportError as error:
        raise ExportError(
            f"{name} needs a package that is not installed ({error}): pip install {adapter.needs}"
        ) from error
    return factory(download(adapter) if weights is None and adapter.hub else weights, adapter)


def own_factory(name: str) -> Callable[[Optional[Path]], Exportable]:
    """The function that "path/to/file.py:factory" names.

    Raises ExportError and whatever the file raises when it is run.
    """
    path, _, function = name.rpartition(":")
    if not Path(path).is_file():
        raise ExportError(f"{path} is not a file; give path/to/file.py:factory")
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    if spec is None or spec.loader is None:
        raise ExportError(f"{path} is not a Python file; give path/to/file.py:factory")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    factory = getattr(module, function, None)
    if not callable(factory):
        raise ExportError(f"{path} has no function {function}")
    return factory
