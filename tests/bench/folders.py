"""A folder of photographs by the command line against the same folder by requests, and passes.exr by size.

    python tests/bench/folders.py --photos DIR [--count 200] [--megapixels 1]
    python tests/bench/folders.py --exr 1,12,40 [--lights 16]

The first cuts the photographs into so many different pictures, relights them with `python -m server relight`, then
uploads, relights, downloads and deletes each at a server of the same settings: one after the other, and from two
clients at once. It prints seconds, pictures a second, and the peak of the memory of all processes together (the sum of
their unique pages). The second prints the time, the size and the added memory of writing the file.
"""

import argparse
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import psutil
from common import Server, memory, reset_peak, size_of

ROOT = Path(__file__).resolve().parents[2]
BODY = {"x": -0.6, "y": 0.4, "z": 0.7}
IMAGES = {".jpg", ".jpeg", ".png"}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, help="a folder with photographs")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--megapixels", type=float, default=1)
    parser.add_argument("--exr", help="megapixels, such as 1,12,40")
    parser.add_argument("--lights", type=int, default=16)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.photos:
        folders(arguments.photos, arguments.count, arguments.megapixels)
    sizes = [float(size) for size in arguments.exr.split(",")] if arguments.exr else []
    if arguments.one:
        exr(*sizes, arguments.lights)
        return
    for size in sizes:  # a process each, as the allocator keeps what the one before took
        command = [sys.executable, __file__, "--one", "--exr", str(size), "--lights", str(arguments.lights)]
        subprocess.run(command, check=True)


def folders(source, count, megapixels):
    with tempfile.TemporaryDirectory() as place:
        pictures = cut(source, Path(place) / "photos", count, megapixels)
        command = [sys.executable, "-m", "server", "relight", str(pictures[0].parent), "--out", f"{place}/lit"]
        command += ["--light", ",".join(str(BODY[axis]) for axis in "xyz")]
        with Peak() as peak:
            began = time.perf_counter()
            process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
            peak.watch(process.pid)
            assert process.wait() == 0
            told("command line", time.perf_counter() - began, count, peak)
        for clients in (1, 2):
            with Peak() as peak, Server(engine="onnx") as server:
                peak.watch(server.process.pid)
                began = time.perf_counter()
                with ThreadPoolExecutor(clients) as pool:
                    list(pool.map(lambda path: over_http(server, path), pictures))
                told(f"HTTP, {clients} client{'s' * (clients > 1)}", time.perf_counter() - began, count, peak)


def told(name, seconds, count, peak):
    print(f"{name:16} {seconds:7.1f} s  {count / seconds:5.2f} pictures/s  {peak.most / 2**20:6.0f} MB", flush=True)


def over_http(server, path):
    """What a loop of a client does with a photograph."""
    job = server.upload_file(path.read_bytes())
    for method, where, body in (
        ("POST", "/relight", {"job_id": job, **BODY}),
        ("GET", f"/download/{job}/relit.png", None),
        ("DELETE", f"/job/{job}", None),
    ):
        assert server.request(method, where, body)[0] == 200


def cut(source, place, count, megapixels):
    """So many different pictures: parts of the photographs, each enlarged or reduced to the size, as JPEG."""
    place.mkdir()
    rng, H, W = random.Random(1), *size_of(megapixels)
    photos = sorted(path for path in source.iterdir() if path.suffix.lower() in IMAGES)
    paths = []
    for number in range(count):
        rgb = cv2.imread(str(photos[number % len(photos)]))
        height, width = rgb.shape[:2]
        share = rng.uniform(0.7, 1)
        part_h = int(min(height, width * H / W) * share)
        part_w = int(part_h * W / H)
        y, x = rng.randint(0, height - part_h), rng.randint(0, width - part_w)
        paths.append(place / f"{number:04}.jpg")
        resized = cv2.resize(rgb[y : y + part_h, x : x + part_w], (W, H), interpolation=cv2.INTER_AREA)
        cv2.imwrite(str(paths[-1]), resized, [cv2.IMWRITE_JPEG_QUALITY, 92])
    return paths


class Peak:
    """The most memory that a process and its children had together, looked at ten times a second."""

    def __init__(self):
        self.most, self._end = 0, threading.Event()

    def watch(self, pid):
        self._thread = threading.Thread(target=self._look, args=(psutil.Process(pid),), daemon=True)
        self._thread.start()

    def _look(self, process):
        while not self._end.wait(0.1):
            total = 0
            try:
                for each in [process, *process.children(recursive=True)]:
                    total += each.memory_full_info().uss
            except psutil.Error:  # it ended meanwhile
                continue
            self.most = max(self.most, total)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._end.set()


def exr(megapixels, count):
    """Write the file of one size with so many lights, and one picture of the same lights as PNG beside it."""
    from bench_light import lights, scene

    from server.image.encode import encode_png
    from server.jobs import look
    from server.light.lights import Rig
    from server.light.maps import prepare
    from server.light.shading import relight

    cv2.setNumThreads(1)
    maps, rig = prepare(*scene(megapixels)), Rig(lights=lights(count, True))
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "passes.exr")
        before = memory()[0]
        reset_peak()
        began = time.perf_counter()
        look.write_exr(path, maps, None, rig, look.dump(rig))
        took, added, size = time.perf_counter() - began, memory()[1] - before, os.path.getsize(path)
    began = time.perf_counter()
    encode_png(relight(maps, rig), 1)
    print(
        f"{megapixels:5g} megapixels, {count} lights: {took:6.1f} s, {size / 2**20:6.1f} MB, "
        f"{added / 2**20:5.0f} MB of memory; relit.png alone {time.perf_counter() - began:.1f} s",
        flush=True,
    )


if __name__ == "__main__":
    main()
