"""Moving pictures as files: read again by other code, frame by frame."""

import io
import struct
import threading

import numpy as np
import pytest
from PIL import Image

from server.image import animation


def frames(count=7, h=45, w=61, alpha=False):
    """A light patch that wanders over a gradient: smooth, and no two frames alike."""
    y, x = np.mgrid[0:h, 0:w].astype(np.float32)
    out = []
    for k in range(count):
        patch = 120 * np.exp(-((x - w * k / count) ** 2 + (y - h / 2) ** 2) / 200)
        rgb = np.stack([40 + patch, 60 + y, 80 + patch / 2 + x / 2], 2)
        opaque = np.where(x < w / 2, 255, 0)[..., None]
        out.append((np.concatenate([rgb, opaque], 2) if alpha else rgb).astype(np.uint8))
    return out


def written(path, kind, pictures, fps=24, loop=True, threads=2, **more):
    h, w = pictures[0].shape[:2]
    target = animation.KINDS[kind](str(path), (h, w), fps, len(pictures), loop)
    animation.write(target, lambda k: pictures[k], lambda: threads, **more)
    return path.read_bytes()


def read(data):
    """(frames as RGBA, durations in ms, how often it plays; 0: for ever) as Pillow reads them."""
    image, pictures, durations = Image.open(io.BytesIO(data)), [], []
    for k in range(image.n_frames):
        image.seek(k)
        image.load()
        pictures.append(np.array(image.convert("RGBA")).astype(int))
        durations.append(image.info["duration"])
    return pictures, durations, image.info.get("loop")


@pytest.mark.parametrize("kind", ["webp", "gif"])
def test_every_frame_is_there_in_its_order(tmp_path, kind):
    pictures = frames()
    found, durations, loop = read(written(tmp_path / "a", kind, pictures))
    assert len(found) == len(pictures) and loop == 0
    for k, one in enumerate(found):
        far = [np.abs(one[..., :3] - other).mean() for other in pictures]
        assert np.argmin(far) == k and far[k] < 5
    assert abs(sum(durations) - 1000 * len(pictures) / 24) <= 10


@pytest.mark.parametrize("kind, unit", [("webp", 1), ("gif", 10)])
@pytest.mark.parametrize("fps", [1, 7, 24, 30])
def test_durations_are_true_in_the_sum(tmp_path, kind, unit, fps):
    pictures = frames(31, 8, 8)
    _, durations, _ = read(written(tmp_path / "a", kind, pictures, fps))
    assert abs(sum(durations) - 31 * 1000 / fps) < unit + 1e-6 and max(durations) - min(durations) <= unit


@pytest.mark.parametrize("kind", ["webp", "gif"])
def test_without_a_loop_it_plays_once(tmp_path, kind):
    _, _, loop = read(written(tmp_path / "a", kind, frames(3), loop=False))
    assert loop in (1, None)  # a GIF that does not say so plays once


def test_webp_keeps_alpha_and_only_it_has_any(tmp_path):
    found, _, _ = read(written(tmp_path / "a", "webp", frames(4, alpha=True)))
    for one in found:
        assert (one[:, :28, 3] == 255).all() and (one[:, 33:, 3] == 0).all()
    data = written(tmp_path / "b", "webp", frames(4))
    assert not data[20] & 0x10 and data[20] & 0x02


def test_a_webp_is_as_the_container_wants_it(tmp_path):
    """RFC 9649: sizes and padding of all chunks, one ANIM before as many ANMF as there are frames."""
    data = written(tmp_path / "a", "webp", frames(5, 33, 47))
    assert data[:4] == b"RIFF" and data[8:12] == b"WEBP" and struct.unpack("<I", data[4:8])[0] == len(data) - 8
    at, kinds = 12, []
    while at < len(data):
        kind, size = data[at : at + 4], struct.unpack("<I", data[at + 4 : at + 8])[0]
        kinds.append(kind)
        if kind == b"ANMF":
            assert data[at + 24 : at + 28] == b"VP8 " and size % 2 == 0
        at += 8 + size + size % 2
    assert at == len(data) and kinds == [b"VP8X", b"ANIM", *[b"ANMF"] * 5]
    assert data[24:30] == bytes([46, 0, 0, 32, 0, 0])


def test_what_stands_still_in_a_gif_does_not_flicker(tmp_path):
    found, _, _ = read(written(tmp_path / "a", "gif", [frames(2)[1]] * 4))
    assert all(np.array_equal(found[0], one) for one in found)


def test_mp4_by_pyav(tmp_path):
    av = pytest.importorskip("av", reason="PyAV is not installed")
    pictures = frames(9, 45, 61)
    (tmp_path / "b").write_bytes(written(tmp_path / "a", "mp4", pictures))
    with av.open(str(tmp_path / "b")) as film:
        stream = film.streams.video[0]
        assert stream.codec_context.name == "h264" and stream.average_rate == 24
        found = [f.to_ndarray(format="rgb24").astype(int) for f in film.decode(video=0)]
    assert len(found) == 9 and found[0].shape == (46, 62, 3)
    for k, one in enumerate(found):
        far = [np.abs(one[:45, :61] - other).mean() for other in pictures]
        assert np.argmin(far) == k and far[k] < 4


@pytest.mark.parametrize("kind", animation.available())
@pytest.mark.parametrize("size", [(1, 64), (64, 1), (1, 1), (3, 2)])
def test_the_smallest_pictures(tmp_path, kind, size):
    assert written(tmp_path / "a", kind, [np.full((*size, 3), 30 * k, np.uint8) for k in range(3)])


def test_no_more_frames_than_threads_are_held(tmp_path):
    """However slowly they are written."""
    lock, held, most = threading.Lock(), set(), []

    class Counting(animation.Webp):
        def write(self, encoded):
            super().write(encoded)
            with lock:
                held.discard(self.count)

    def make(k):
        with lock:
            held.add(k)
            most.append(len(held))
        return frames(1)[0]

    target = Counting(str(tmp_path / "a"), (45, 61), 24, 40, True)
    steps = []
    animation.write(target, make, lambda: 3, steps.append)
    assert max(most) <= 3 and steps == list(range(1, 41))


def test_a_fault_in_a_frame_is_told_and_closes_the_file(tmp_path):
    def make(k):
        if k == 5:
            raise RuntimeError("no light")
        return frames(1)[0]

    target = animation.KINDS["webp"](str(tmp_path / "a"), (45, 61), 24, 9, True)
    with pytest.raises(RuntimeError, match="no light"):
        animation.write(target, make)
    assert target.file.closed
