"""Uploads are decoded in processes that may die.

A small pool of them, a deadline each, and what is left when one falls.
"""

import io
import json
import logging
import os
import queue
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, List, Optional, Tuple, cast

import numpy as np

from ..errors import ALL, CorruptImage, Overloaded, RelightError
from . import decode as imaging
from . import decoder_process as decoding
from . import panorama

log = logging.getLogger("relight")
ROOT = Path(__file__).resolve().parents[2]
PROGRAM = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from server.image.decoder_process import main; main()"
BLOCK = 1 << 18
PIPE_BYTES = 1 << 20  # what Linux lets everybody have
USES = 200  # uploads after which a process is replaced, so that nothing it leaks adds up
# The system bounds CPU time where it can; this deadline on the clock is for the systems that cannot, and for what
# sleeps.
PATIENCE, START_SECONDS = 4.0, 60.0


@dataclass(frozen=True)
class Decoded:
    """An upload as pixels (H, W, 3) or, with alpha, (H, W, 4) uint8 sRGB, and what was learnt on the way."""

    pixels: np.ndarray
    format: str
    focal: Optional[float]


class _Process:
    """One decoder process."""

    def __init__(self, max_pixels: int, max_bytes: int):
        env = {k: v for k, v in os.environ.items() if not k.startswith("RELIGHT_")}  # keys are not for it
        env.update(MALLOC_ARENA_MAX="1", OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", PYTHONDONTWRITEBYTECODE="1")
        self.uses = 0
        self._popen = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(max_pixels), str(max_bytes)],
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self.pid = self._popen.pid
        self._output = cast(io.BufferedReader, self._popen.stdout)  # a pipe, as asked for above
        self._max_pixels = max_pixels
        _widen(self._output)
        timer = threading.Timer(START_SECONDS, self._popen.kill)
        timer.start()
        try:
            hello = self._facts()
        except (EOFError, OSError, ValueError):
            hello = {}
        finally:
            timer.cancel()
        self.slowness = float(hello.get("slowness", 1))
        if not hello.get("ready"):
            self.close()
            log.error("a decoder process did not start (exit status %s)", self._popen.returncode)
            raise RelightError()

    @property
    def alive(self) -> bool:
        """Can it take another upload?"""
        return self._popen.poll() is None

    def _read(self, length: int) -> bytes:
        data = self._output.read(length)
        if len(data) < length:
            raise EOFError
        return data

    def _facts(self) -> Any:
        return json.loads(self._read(decoding.LENGTH.unpack(self._read(decoding.LENGTH.size))[0]))

    def _pixels(self, facts: Any, around: bool) -> np.ndarray:
        """The picture of that size, which is not to be trusted. Raises ValueError, EOFError."""
        height, width = int(facts["height"]), int(facts["width"])
        if not (height > 0 and width > 0 and height * width <= self._max_pixels):
            raise ValueError("no such picture was asked for")
        if around:
            pixels = np.empty((height, width, 3), np.float16)
        else:
            pixels = np.empty((height, width, 4 if facts["alpha"] else 3), np.uint8)
        if self._output.readinto(pixels.data.cast("B")) < pixels.nbytes:
            raise EOFError
        return pixels

    def ask(self, file: BinaryIO, size: int, deadline: float, around: bool) -> Tuple[np.ndarray, Any]:
        """An upload, or an environment, decoded: its pixels and facts.

        Raises EOFError, OSError or ValueError when the process dies of it or answers nonsense, the errors of a bad
        file.
        """
        self.uses += 1
        timer = threading.Timer(deadline, self._popen.kill)
        timer.start()
        try:
            stdin: Any = self._popen.stdin
            stdin.write(decoding.REQUEST.pack(size, around))
            for block in iter(lambda: file.read(BLOCK), b""):
                stdin.write(block)
            stdin.flush()
            facts = self._facts()
            if "error" in facts:
                if "fault" in facts:
                    log.error("a decoder failed through a fault of the program: %s", facts["fault"])
                raise ALL[facts["error"]](facts.get("detail"))
            return self._pixels(facts, around), facts
        finally:
            timer.cancel()

    def close(self) -> Optional[int]:
        """End it; returns how it ended."""
        self._popen.kill()
        for pipe in (self._popen.stdin, self._popen.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
        return self._popen.wait()


def _widen(pipe: io.BufferedReader) -> None:
    """Let a pipe hold more, so that pixels come in fewer pieces (Linux)."""
    with suppress(ImportError, AttributeError, OSError):
        import fcntl

        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE_BYTES)


class Decoders:
    """At most `count` decoder processes, started when needed; with `count` 0 uploads are decoded in this process."""

    def __init__(self, count: int, max_pixels: int, max_bytes: int):
        self.count, self.max_pixels, self.max_bytes = count, max_pixels, max_bytes
        self.formats = imaging.FORMATS
        self.deadline = PATIENCE * decoding.cpu_seconds(max_pixels)
        self._idle: queue.LifoQueue[Optional[_Process]] = queue.LifoQueue()  # None: a place for one not yet started
        for _ in range(count):
            self._idle.put(None)
        self._lock = threading.Lock()
        self._all: List[_Process] = []
        self._closed = False
        self.fallen = 0  # how many died of an upload

    @property
    def pids(self) -> List[int]:
        """The processes that run now."""
        with self._lock:
            return [p.pid for p in self._all]

    def warm(self) -> None:
        """Start one process, so that the first upload need not wait for it."""
        if self.count:
            self._give_back(self._borrow())

    def decode(self, file: BinaryIO, size: int) -> Decoded:
        """The photo in a file of `size` bytes, read from where it is.

        Raises EmptyFile, UnsupportedImage, CorruptImage, ImageTooLarge; Overloaded when the server closes.
        """
        if not self.count:
            image, kind, focal = imaging.read_upright(file, self.max_pixels, self.formats)
            return Decoded(np.array(image), kind, focal)
        pixels, facts = self._ask(file, size, False)
        return Decoded(pixels, str(facts["format"]), facts["focal"])

    def decode_environment(self, file: BinaryIO, size: int) -> np.ndarray:
        """The linear light (h, w, 3) float16 in a file of `size` bytes, reduced; see panorama.py, which it raises."""
        if not self.count:
            return panorama.read(file, self.max_pixels)
        return self._ask(file, size, True)[0]

    def _ask(self, file: BinaryIO, size: int, around: bool) -> Tuple[np.ndarray, Any]:
        process = self._borrow()
        try:
            decoded = process.ask(file, size, self.deadline * process.slowness, around)
        except RelightError:
            self._give_back(process)
            raise
        except (EOFError, OSError, ValueError):
            self.fallen += 1
            log.warning("a decoder process ended on an upload (exit status %s)", self._end(process))
            self._idle.put(None)
            raise CorruptImage(
                "The file could not be decoded within the time and memory that a photo of its size may take. "
                "Export the image again and retry."
            ) from None
        except BaseException:
            self._end(process)
            self._idle.put(None)
            raise
        self._give_back(process)
        return decoded

    def _borrow(self) -> _Process:
        process = self._idle.get()
        if process is not None and process.alive and not self._closed:
            return process
        try:
            if process is not None:
                self._end(process)
            if self._closed:
                raise Overloaded()
            process = _Process(self.max_pixels, self.max_bytes)
        except BaseException:
            self._idle.put(None)
            raise
        with self._lock:
            self._all.append(process)
        return process

    def _give_back(self, process: _Process) -> None:
        if process.uses >= USES or self._closed:
            self._end(process)
            self._idle.put(None)
        else:
            self._idle.put(process)

    def _end(self, process: _Process) -> Optional[int]:
        with self._lock:
            if process in self._all:
                self._all.remove(process)
        return process.close()

    def close(self) -> None:
        """End all processes."""
        self._closed = True
        with self._lock:
            processes = list(self._all)
        for process in processes:
            self._end(process)
