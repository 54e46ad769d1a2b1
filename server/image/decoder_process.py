"""The inside of a decoder process: uploads come in on stdin, pixels and facts go out on stdout, under hard limits.

What arrives here was made by strangers, and is read by large C libraries. So this process holds no key and no setting,
may write no file, has its CPU time and its memory bounded by the system, and nobody minds when it dies.
"""

import hashlib
import io
import json
import os
import signal
import struct
import sys
import time
import traceback
import zlib
from pathlib import Path
from typing import Any, BinaryIO, Dict

from PIL import Image

from ..errors import CorruptImage, RelightError
from . import decode as imaging
from . import panorama

LENGTH = struct.Struct("<Q")
REQUEST = struct.Struct("<Q?")  # the length, and whether it is an environment
CPU_SECONDS = 1.0  # for any file, and
CPU_SECONDS_PER_MEGAPIXEL = 0.3  # for each megapixel its header promises
BYTES_PER_PIXEL = 20  # measured: 5 to 9 for JPEG, PNG, TIFF, BMP, GIF and AVIF, 14 for RGBA to be turned, 18 for WebP
REFERENCE = 0.008  # CPU seconds that `slowness` takes on the reference machine
BYTES_BESIDE = 64 << 20  # tables, colour transforms, what decoders keep


def cpu_seconds(pixels: int) -> float:
    """CPU seconds within which an image of so many pixels must be decoded (on the reference machine)."""
    return CPU_SECONDS + CPU_SECONDS_PER_MEGAPIXEL * pixels / 1e6


def memory_bytes(max_pixels: int, max_bytes: int) -> int:
    """Bytes a decoder may take beside the interpreter: the file twice (as sent, as read), the pixels, the tables."""
    return BYTES_PER_PIXEL * max_pixels + 2 * max_bytes + BYTES_BESIDE


def slowness() -> float:
    """How many times slower than the machine on which the CPU limits were set this one is, 1 to 8."""
    work = bytes(range(256)) * 2048
    before = time.process_time()
    zlib.compress(hashlib.sha256(work).digest() * 8192, 9)
    zlib.crc32(zlib.compress(work, 6))
    return min(8.0, max(1.0, (time.process_time() - before) / REFERENCE))


def _limit_memory(more: int) -> None:
    """Let this process grow by `more` bytes, write no file and leave no core: on Linux; elsewhere what works there."""
    try:
        import resource
    except ImportError:  # Windows
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    try:
        with open("/proc/self/statm", "rb") as f:
            now = int(f.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + more, now + more))
    except (OSError, ValueError):
        pass


def _limit_time(seconds: float) -> None:
    """End this process when it has used so many more seconds of CPU time; 0: never (POSIX)."""
    if hasattr(signal, "ITIMER_PROF"):
        signal.setitimer(signal.ITIMER_PROF, seconds)


def _decode(data: bytes, around: bool, max_pixels: int, formats: tuple, slow: float) -> Any:
    def opened(width: int, height: int) -> None:
        _limit_time(slow * cpu_seconds(width * height))

    if around:
        light = panorama.read(io.BytesIO(data), max_pixels, opened)
        return light.tobytes(), {"width": light.shape[1], "height": light.shape[0]}
    image, kind, focal = imaging.read_upright(io.BytesIO(data), max_pixels, formats, opened)
    try:
        pixels = image.tobytes()
    except (MemoryError, OSError):
        raise CorruptImage() from None
    return pixels, {
        "width": image.width,
        "height": image.height,
        "alpha": image.mode == "RGBA",
        "format": kind,
        "focal": focal,
    }


def _exactly(source: BinaryIO, length: int) -> bytes:
    data = source.read(length)
    if len(data) < length:
        raise EOFError
    return data


def serve(source: BinaryIO, sink: BinaryIO, max_pixels: int, formats: tuple) -> None:
    """Decode what comes until nothing more does.

    An upload is a length, whether it is an environment, and bytes. An answer is a length, facts as JSON, and the pixels
    of the size that they tell, uint8 RGB or, with alpha, RGBA; of an environment, float16 RGB.
    """

    def tell(facts: Dict[str, Any], pixels: bytes = b"") -> None:
        head = json.dumps(facts).encode()
        sink.write(LENGTH.pack(len(head)) + head)
        sink.write(pixels)
        sink.flush()

    slow = slowness()
    tell({"ready": True, "slowness": slow})
    while True:
        try:
            length, around = REQUEST.unpack(_exactly(source, REQUEST.size))
            data = _exactly(source, length)
        except EOFError:
            return
        _limit_time(slow * cpu_seconds(0))
        pixels, facts = b"", {}
        try:
            pixels, facts = _decode(data, around, max_pixels, formats, slow)
        except RelightError as exc:
            facts = {"error": exc.code, "detail": exc.detail}
        except MemoryError:
            facts = {"error": CorruptImage.code}
        except Exception as exc:  # a fault of ours; its text may hold what the file holds, and stays here
            where = [f"{Path(f.filename).name}:{f.lineno}" for f in traceback.extract_tb(exc.__traceback__)]
            facts = {"error": RelightError.code, "fault": f"{type(exc).__name__} at {' < '.join(reversed(where))}"}
        _limit_time(0)
        del data
        tell(facts, pixels)
        del pixels


def main() -> None:
    """The process, started by decoder_pool.py with max_pixels and max_bytes as arguments."""
    max_pixels, max_bytes = int(sys.argv[1]), int(sys.argv[2])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server; it closes our stdin
    if hasattr(signal, "SIGPROF"):
        signal.signal(signal.SIGPROF, signal.SIG_DFL)
    source, sink = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints goes nowhere
    formats = imaging.FORMATS
    Image.init()
    Image.MAX_IMAGE_PIXELS = max(1, max_pixels)
    _limit_memory(memory_bytes(max_pixels, max_bytes))
    serve(source, sink, max_pixels, formats)
