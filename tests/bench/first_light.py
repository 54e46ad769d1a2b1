#!/usr/bin/env python3
"""From starting the process to the first light, over HTTP: where the time goes, and the memory.

    PYTHONPATH=tests/bench:tests:. python tests/bench/first_light.py [--photo FILE ...] [--tree CHECKOUT ...] [--runs 3]

Several checkouts are measured in turn, so that what slows the machine slows all of them. Without a photo, synthetic
ones of 1, 12 and 40 megapixels. Start-up is told beside importing FastAPI, ONNX Runtime, NumPy and OpenCV alone.
"""

import argparse
import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import time

from common import ROOT, Server, memory, photo, size_of

LIGHT = {"x": -0.6, "y": 0.4, "z": 0.7}
BARE = "import fastapi, onnxruntime, numpy, cv2"


def seconds(call):
    start = time.perf_counter()
    answer = call()
    return time.perf_counter() - start, answer


class Running(Server):
    """`uvicorn server:app` of a checkout, used with `with`."""

    def __init__(self, tree):
        self.folder = tempfile.TemporaryDirectory()
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        self.started = time.perf_counter()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "uvicorn", "server:app", "--port", str(self.port), "--log-level", "error"],
            cwd=tree,
            env={
                **{k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"},  # compiled, as anywhere
                "RELIGHT_JOBS_DIR": self.folder.name,
                "PYTHONPATH": str(tree),
            },
            stderr=subprocess.DEVNULL,
        )

    def good(self, *request):
        status, _, data = self.request(*request)
        if status != 200:
            raise RuntimeError(data)
        return data


def measure(tree, file):
    """{what: seconds or megabytes} of one photo, on a server of its own."""
    with Running(tree) as server:
        time.sleep(1)  # the decoder process starts meanwhile, as it would while somebody chooses a photo
        found = {"start to /ready": server.ready_s}
        found["/upload"], job = seconds(lambda: server.upload_file(file))
        start = time.perf_counter()
        while json.loads(server.good("GET", f"/job/{job}"))["state"] != "ready":
            time.sleep(0.005)
        found["analysis until ready"] = time.perf_counter() - start
        for name, k in (("first /preview", 0), ("next /preview", 1)):
            found[name], _ = seconds(
                lambda k=k: server.good("POST", "/preview", {"job_id": job, **LIGHT, "x": -0.6 + 0.1 * k})
            )
        found["MB, previews"], found["MB at most, previews"] = (m / 1e6 for m in memory(server.process.pid))
        for name, k in (("first /relight", 2), ("next /relight", 3)):
            found[name], answer = seconds(
                lambda k=k: server.good("POST", "/relight", {"job_id": job, **LIGHT, "x": -0.6 + 0.1 * k})
            )
            for stage, took in json.loads(answer).get("timings", {}).items():
                found[f"  {name}, {stage}"] = took
        for name in ("normals.png", "depth.png"):
            found[f"first download of {name}"], _ = seconds(
                lambda name=name: server.good("GET", f"/download/{job}/{name}")
            )
        found["MB at most, full size"] = memory(server.process.pid)[1] / 1e6
        return found


def synthetic(megapixels):
    from server.image.encode import encode_jpeg

    return encode_jpeg(photo(*size_of(megapixels)), 92)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photo", nargs="*", type=pathlib.Path, default=[])
    parser.add_argument("--tree", nargs="*", type=pathlib.Path, default=[ROOT])
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    bare = min(seconds(lambda: subprocess.run([sys.executable, "-c", BARE], check=True))[0] for _ in range(5))
    print(f"{BARE}: {bare:.2f} s")
    photos = {p.name: p.read_bytes() for p in arguments.photo} or {f"{m} MP": synthetic(m) for m in (1, 12, 40)}
    for name, file in photos.items():
        runs = [[measure(tree.resolve(), file) for tree in arguments.tree] for _ in range(arguments.runs)]
        print(f"\n{name:32s}" + "".join(f"{tree!s:>24s}" for tree in arguments.tree))
        for what in dict.fromkeys(w for run in runs for one in run for w in one):
            best = [min(run[k].get(what, float("nan")) for run in runs) for k in range(len(arguments.tree))]
            print(f"{what:32s}" + "".join(f"{b:24.0f}" if "MB" in what else f"{b:24.3f}" for b in best))


if __name__ == "__main__":
    main()
