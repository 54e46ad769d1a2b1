"""What `uvicorn server:app` serves, ready as soon as can be: the models load while the rest is imported."""

import os
import sys
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from .errors import StartupError
from .memory import keep_freed
from .settings import Settings, load

if TYPE_CHECKING:
    from fastapi import FastAPI


class EarlyEngine:
    """The engine that the settings ask for, loading in a thread from now on."""

    def __init__(self, settings: Settings):
        self._settings, self._process = settings, os.getpid()
        self._loaded: Future[Any] = Future()
        threading.Thread(target=self._load, name="load").start()

    def _load(self) -> None:
        try:
            self._loaded.set_result(_load_engine(self._settings))
        except BaseException as exc:
            self._loaded.set_exception(exc)

    def result(self) -> Any:
        """Wait for the engine. Raises ModelMissing, StartupError."""
        if os.getpid() != self._process:  # a fork has none of the threads that the models run in
            return _load_engine(self._settings)
        return self._loaded.result()


def _load_engine(settings: Settings) -> Any:
    from .model.engine import load_engine  # here, so that it is imported while the rest is

    return load_engine(settings)


def build_app() -> "FastAPI":
    """The application. A bad setting ends the process with one clear line."""
    # Shading has threads of its own; those of OpenBLAS would only get into their way, and take memory.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    keep_freed()
    try:
        settings = load()
        early = EarlyEngine(settings)
        from .application import create_app

        return create_app(settings, load=early.result)
    except StartupError as exc:
        print(f"relight: {exc}", file=sys.stderr)
        raise SystemExit(2) from None
