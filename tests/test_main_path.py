"""The main path with the real graphs.

Over a real socket, on real photos, without a training framework, through kill -9.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from PIL import Image
from support import ROOT, encoded, linear

BLOCKER = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "onnx"):
            raise ImportError(name + " must not be imported by the server")
sys.meta_path.insert(0, Block())
import uvicorn
uvicorn.run("server:app", host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
"""


class Server:
    """uvicorn in a process in which torch and onnx cannot be imported."""

    def __init__(self, jobs_dir, port, **env):
        self.base = f"http://127.0.0.1:{port}"
        self.log = open(Path(jobs_dir).parent / "server.log", "a")  # noqa: SIM115 -- as long as the process lives
        clean = {k: v for k, v in os.environ.items() if not k.startswith("RELIGHT_")}
        self.process = subprocess.Popen(
            [sys.executable, "-c", BLOCKER, str(port)],
            cwd=ROOT,
            stdout=self.log,
            stderr=self.log,
            env={**clean, "RELIGHT_JOBS_DIR": str(jobs_dir), **env},
        )
        deadline = time.monotonic() + 60
        while True:
            try:
                return self.call("GET", "/health") and None
            except (urllib.error.URLError, ConnectionError):
                assert self.process.poll() is None and time.monotonic() < deadline, Path(self.log.name).read_text()
                time.sleep(0.05)

    def call(self, method, path, data=None, kind="application/json"):
        request = urllib.request.Request(self.base + path, data, {"Content-Type": kind}, method=method)
        with urllib.request.urlopen(request, timeout=120) as answer:
            return answer.read()

    def upload(self, data):
        mark = uuid.uuid4().hex.encode()
        body = (
            b"--"
            + mark
            + b'\r\nContent-Disposition: form-data; name="file"; filename="photo"\r\n\r\n'
            + data
            + b"\r\n--"
            + mark
            + b"--\r\n"
        )
        return json.loads(self.call("POST", "/upload", body, "multipart/form-data; boundary=" + mark.decode()))[
            "job_id"
        ]

    def relight(self, job, **body):
        return json.loads(self.call("POST", "/relight", json.dumps({"job_id": job, **body}).encode()))

    def picture(self, job, name):
        import io

        return np.array(Image.open(io.BytesIO(self.call("GET", f"/download/{job}/{name}"))))

    def state(self, job):
        return json.loads(self.call("GET", f"/job/{job}"))

    def stop(self, how=signal.SIGTERM):
        self.process.send_signal(how)
        code = self.process.wait(30)
        self.log.close()
        return code


def free_port():
    import socket

    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    made = Server(tmp_path_factory.mktemp("main") / "jobs", free_port())
    yield made
    made.stop()


@pytest.mark.parametrize("photo", ["astronaut", "coffee", "chelsea"])
def test_a_real_photo_from_upload_to_delete(server, photo):
    pixels = getattr(skimage.data, photo)()
    job = server.upload(encoded(pixels, "JPEG", quality=95))
    sides = {}
    for side, x in (("left", -1), ("right", 1)):
        answer = server.relight(job, x=x, y=0, z=0.4, shadow={"strength": 0})
        assert answer["status"] == "ok" and answer["relit_path"] == f"jobs/{job}/relit.png"
        sides[side] = linear(server.picture(job, "relit.png")).mean(-1)
    for name in ("input.png", "depth.png", "normals.png", "relit.png"):
        assert server.picture(job, name).shape[:2] == pixels.shape[:2]
    # Where the estimated normal faces right, light from the right is brighter than light from the left.
    nx = server.picture(job, "normals.png")[..., 0] / 255 * 2 - 1
    ratio = np.log((sides["right"] + 0.01) / (sides["left"] + 0.01))
    assert (np.abs(nx) > 0.3).mean() > 0.05
    assert ratio[nx > 0.3].mean() > 0.15 and ratio[nx < -0.3].mean() < -0.15
    assert json.loads(server.call("DELETE", f"/job/{job}")) == {"status": "deleted"}
    with pytest.raises(urllib.error.HTTPError, match="404"):
        server.call("DELETE", f"/job/{job}")


def test_models_tell_the_truth(server):
    manifest = json.loads(server.call("GET", "/models"))["models"][0]
    import hashlib

    graph = (ROOT / "onnx_models" / manifest["graph"]).read_bytes()
    assert manifest["sha256"] == hashlib.sha256(graph).hexdigest() and manifest["provider"] == "CPUExecutionProvider"
    assert json.loads(server.call("GET", "/ready"))["ready"] is True


def test_odd_shapes(server):
    for shape in ((1, 1), (1, 4000), (3000, 2), (37, 53)):
        job = server.upload(encoded(np.full((*shape, 3), 120, np.uint8)))
        server.relight(job, x=0.5, y=0.5, z=0.5)
        assert server.picture(job, "relit.png").shape == (*shape, 3)
        assert server.picture(job, "depth.png").shape == shape


def test_kill_in_the_middle_of_uploads_and_analyses(tmp_path):  # noqa: C901 -- one story from start to end
    """Whatever was answered with success is whole after the restart; nothing else is left."""
    jobs_dir, port = tmp_path / "jobs", free_port()
    rng = np.random.default_rng(5)
    photos = [rng.integers(0, 256, (500 + k, 700, 3)).astype(np.uint8) for k in range(6)]
    answered = {}
    server = Server(jobs_dir, port, RELIGHT_SWEEP_SECONDS="3600")

    def wait_for(jobs):
        deadline = time.monotonic() + 90
        for job in jobs:
            while (state := server.state(job))["state"] != "ready":
                assert state["state"] != "failed" and time.monotonic() < deadline, state
                time.sleep(0.1)

    for round_ in range(3):
        if round_ == 2:
            wait_for(
                p.name for p in jobs_dir.iterdir() if not p.name.startswith(".")
            )  # a third break is the last, rightly
        import threading

        def send(k, server=server):
            with contextlib.suppress(urllib.error.URLError, ConnectionError, OSError):
                answered[server.upload(encoded(photos[k]))] = k

        threads = [threading.Thread(target=send, args=(k,)) for k in (2 * round_, 2 * round_ + 1)]
        for t in threads:
            t.start()
        time.sleep(0.25 + 0.3 * round_)  # in an upload, in an analysis
        while (
            round_ == 2 and not answered and any(t.is_alive() for t in threads)
        ):  # on a slow machine too one is answered
            time.sleep(0.02)
        server.stop(signal.SIGKILL)
        for t in threads:
            t.join()
        server = Server(jobs_dir, port, RELIGHT_SWEEP_SECONDS="3600")
    try:
        assert answered
        wait_for(answered)
        for job, k in answered.items():
            assert np.array_equal(server.picture(job, "input.png"), photos[k])
        known = set(answered)
        for path in jobs_dir.iterdir():
            if not path.name.startswith("."):
                assert path.name in known or server.state(path.name)["state"] in ("ready", "queued", "analysing")
        assert not [p for p in jobs_dir.rglob("*") if p.name.startswith((".tmp-", ".new-", ".gone-"))]
    finally:
        server.stop()


def test_sigterm_stops_cleanly(tmp_path):
    server = Server(tmp_path / "jobs", free_port())
    assert server.stop() in (0, -signal.SIGTERM)
    assert [p.name for p in (tmp_path / "jobs" / ".workers").iterdir() if p.suffix == ".lock"] == []
