"""Moving pictures as files: WebP, GIF and, where PyAV is installed, MP4. Frames are written as they come."""

import io
import os
import struct
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from importlib import import_module
from importlib.util import find_spec
from typing import Any, BinaryIO, Callable, Deque, Dict, Iterable, Tuple, Type

import numpy as np
from PIL import Image

QUALITY = 80  # of WebP
CRF = "18"  # of x264, 0..51: near to the original
SAMPLES = 8  # frames of which a GIF's palette is made, spread over the motion
SAMPLE_SIDE = 128  # pixels
DITHER = 6.0  # codes: how far a GIF's pattern lifts and lowers a gray in all; 10 are seen, 0 leaves bands in skies
BAYER = np.array([[0, 8, 2, 10], [12, 4, 14, 6], [3, 11, 1, 9], [15, 7, 13, 5]], np.float32) / 16 - 15 / 32
NO_VIDEO = 'mp4 takes PyAV on the server: pip install "relight-server[video]", or ask for webp or gif.'


class Animation:
    """A moving picture that is being written: `learn`, then `add` of what `encode` made of each frame, in their order.

    size: (h, w). Frames are (h, w, 3) or (h, w, 4) uint8. Use it in a `with` statement: it is whole at the end of it.
    """

    def __init__(self, path: str, size: Tuple[int, int], fps: int, frames: int, loop: bool):
        self.size, self.fps, self.frames, self.loop, self.count = size, fps, frames, loop, 0
        self.file: BinaryIO = open(path, "wb")  # noqa: SIM115  # closed in __exit__

    def __enter__(self) -> "Animation":
        self.begin()
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        with self.file:
            if kind is None:
                self.end()

    def learn(self, samples: Iterable[np.ndarray]) -> None:
        """Look at frames of the motion beforehand."""

    def encode(self, pixels: np.ndarray) -> Any:
        """What `add` takes of a frame; may be called in any thread."""
        return pixels

    def add(self, encoded: Any) -> None:
        """Write the next frame."""
        self.write(encoded)
        self.count += 1

    def begin(self) -> None:
        """Write what stands before the frames."""

    def write(self, encoded: Any) -> None:
        """Write a frame."""

    def end(self) -> None:
        """Write what stands behind them."""

    def duration(self, second: int) -> int:
        """How long the next frame is shown, in parts of which a second has so many: whole, and true in the sum."""
        return (self.count + 1) * second // self.fps - self.count * second // self.fps


class Webp(Animation):
    """Still pictures, made by as many threads as there are, in one container.

    Each frame is whole, since moving light changes all of it. The container is that of RFC 9649.
    """

    def begin(self) -> None:
        """See Animation."""
        self._alpha = False
        self.file.write(bytes(30))  # comes last, when all is known
        self._chunk(b"ANIM", struct.pack("<IH", 0, 0 if self.loop else 1))

    def encode(self, pixels: np.ndarray) -> bytes:
        """See Animation. Method 2 takes less than half the time of the default, for a twentieth more bytes."""
        out = io.BytesIO()
        Image.fromarray(pixels).save(out, "WEBP", quality=QUALITY, method=2)
        return out.getvalue()

    def write(self, encoded: bytes) -> None:
        """See Animation."""
        kept, at = [], 12
        while at < len(encoded):
            kind, length = encoded[at : at + 4], struct.unpack_from("<I", encoded, at + 4)[0]
            following = at + 8 + length + length % 2
            if kind in (b"ALPH", b"VP8 ", b"VP8L"):
                kept.append(encoded[at:following])
                self._alpha = self._alpha or kind != b"VP8 "
            at = following
        h, w = self.size
        place = bytes(6) + _24(w - 1) + _24(h - 1) + _24(self.duration(1000)) + b"\x02"  # covers what was before
        self._chunk(b"ANMF", place + b"".join(kept))

    def _chunk(self, kind: bytes, data: bytes) -> None:
        self.file.write(kind + struct.pack("<I", len(data)) + data + bytes(len(data) % 2))

    def end(self) -> None:
        """See Animation."""
        h, w = self.size
        size = self.file.tell()
        self.file.seek(0)
        self.file.write(b"RIFF" + struct.pack("<I", size - 8) + b"WEBP")
        self._chunk(b"VP8X", struct.pack("<I", 0x02 | 0x10 * self._alpha) + _24(w - 1) + _24(h - 1))


def _24(number: int) -> bytes:
    return struct.pack("<I", number)[:3]


class Gif(Animation):
    """One palette for all frames, and an ordered dither, so that what does not change stands still.

    https://www.w3.org/Graphics/GIF/spec-gif89a.txt
    """

    def begin(self) -> None:
        """See Animation."""
        h, w = self.size
        self._pattern = np.tile(BAYER * np.float32(DITHER), (-(-h // 4), -(-w // 4)))[:h, :w, None]

    def learn(self, samples: Iterable[np.ndarray]) -> None:
        """See Animation."""
        small = []
        for pixels in samples:
            image = Image.fromarray(pixels[..., :3])
            image.thumbnail((SAMPLE_SIDE, SAMPLE_SIDE), reducing_gap=2.0)
            small.append(np.asarray(image))
        self._palette = Image.fromarray(np.concatenate(small)).quantize(256, Image.Quantize.MEDIANCUT)
        colours = bytes(self._palette.getpalette() or ()).ljust(768, b"\0")
        h, w = self.size
        self.file.write(b"GIF89a" + struct.pack("<HHBBB", w, h, 0xF7, 0, 0) + colours)  # 256 colours of 8 bits
        if self.loop:
            self.file.write(b"\x21\xff\x0bNETSCAPE2.0\x03\x01\0\0\0")

    def encode(self, pixels: np.ndarray) -> bytes:
        """See Animation."""
        spread = np.clip(pixels[..., :3] + self._pattern, 0, 255).astype(np.uint8)
        image = Image.fromarray(spread).quantize(palette=self._palette, dither=Image.Dither.NONE)
        out = io.BytesIO()
        image.save(out, "GIF", optimize=False, interlace=False)
        return out.getvalue()

    def write(self, encoded: bytes) -> None:
        """See Animation."""
        flags = encoded[10]
        at = 13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
        while encoded[at] == 0x21:  # extensions
            at += 2
            while encoded[at]:
                at += encoded[at] + 1
            at += 1
        self.file.write(b"\x21\xf9\x04\x04" + struct.pack("<H", self.duration(100)) + b"\0\0" + encoded[at:-1])

    def end(self) -> None:
        """See Animation."""
        self.file.write(b"\x3b")


class Mp4(Animation):
    """H.264 by PyAV, which brings FFmpeg and x264 along."""

    def begin(self) -> None:
        """See Animation."""
        h, w = (side + side % 2 for side in self.size)  # colours have half the size
        av: Any = import_module("av")
        self._frame = av.VideoFrame.from_ndarray
        self._container = av.open(self.file, "w", format="mp4", options={"movflags": "faststart"})
        self._stream = self._container.add_stream("libx264", rate=self.fps, options={"crf": CRF, "preset": "veryfast"})
        self._stream.width, self._stream.height, self._stream.pix_fmt = w, h, "yuv420p"
        context = self._stream.codec_context
        context.color_primaries = context.color_trc = context.colorspace = 1  # BT.709

    def write(self, encoded: np.ndarray) -> None:
        """See Animation."""
        pixels = np.pad(encoded[..., :3], ((0, self.size[0] % 2), (0, self.size[1] % 2), (0, 0)), "edge")
        frame = self._frame(np.ascontiguousarray(pixels), format="rgb24")
        frame = frame.reformat(format="yuv420p", dst_colorspace="ITU709")
        frame.pts = self.count
        self._container.mux(self._stream.encode(frame))

    def end(self) -> None:
        """See Animation."""
        self._container.mux(self._stream.encode(None))
        self._container.close()


KINDS: Dict[str, Type[Animation]] = {"webp": Webp, "gif": Gif, "mp4": Mp4}


def available() -> Tuple[str, ...]:
    """The names of the formats that can be written here."""
    return tuple(kind for kind in KINDS if kind != "mp4" or find_spec("av") is not None)


def write(
    target: Animation,
    frame: Callable[[int], np.ndarray],
    threads: Callable[[], int] = lambda: 1,
    step: Callable[[int], None] = lambda done: None,
) -> None:
    """Write all frames of a moving picture; `frame(k)` makes them, in as many threads as `threads()` says at the time.

    No more frames than threads are held. `step` is called with the number of frames that are written.
    """
    last = target.frames - 1
    with target, ThreadPoolExecutor(os.cpu_count()) as pool:
        target.learn(frame(round(k * last / (SAMPLES - 1))) for k in range(SAMPLES))
        waiting: Deque[Future[Any]] = deque()
        for k in range(target.frames):
            waiting.append(pool.submit(lambda k: target.encode(frame(k)), k))
            while waiting and (len(waiting) >= threads() or k == last):
                target.add(waiting.popleft().result())
                step(target.count)
