"""What the benchmarks share: pictures, memory of a process, a server in a process of its own."""

import http.client
import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[2]
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def photo(H, W, seed=0):
    """A smooth colourful picture with the noise of a camera, (H, W, 3) uint8."""
    import cv2

    rng = np.random.default_rng(seed)
    picture = np.stack(
        [
            cv2.resize(rng.uniform(20, 220, (6, 8)).astype(np.float32), (W, H), interpolation=cv2.INTER_CUBIC)
            for _ in range(3)
        ],
        2,
    )
    noise = rng.normal(0, 3, (min(H, 512), min(W, 512), 3)).astype(np.float32)
    for y in range(0, H, 512):
        for x in range(0, W, 512):
            part = picture[y : y + 512, x : x + 512]
            part += noise[: part.shape[0], : part.shape[1]]
    return np.clip(picture, 0, 255).astype(np.uint8)


def size_of(megapixels):
    """4 : 3, (H, W)."""
    W = round((megapixels * 1e6 * 4 / 3) ** 0.5)
    return W * 3 // 4, W


def memory(pid="self"):
    """(resident, peak) bytes of a process; (nan, nan) where there is no /proc."""
    try:
        lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line)
        return tuple(int(lines[k].split()[0]) * 1024 for k in ("VmRSS", "VmHWM"))
    except OSError:
        return float("nan"), float("nan")


def processor_seconds(pid):
    """Processor time a process has used so far; nan where there is no /proc."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    except OSError:
        return float("nan")


def reset_peak():
    """From now on the peak is counted anew (Linux)."""
    try:
        with open("/proc/self/clear_refs", "w") as f:
            f.write("5")
    except OSError:
        pass


def in_process(*arguments, env=None):
    """Run a benchmark script as a process of its own; the JSON it prints last."""
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        env={**os.environ, **ONE_THREAD, **(env or {})},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return json.loads(done.stdout.strip().splitlines()[-1])


class Server:
    """The server over HTTP in a process of its own, on as many cores as asked for; used with `with`."""

    def __init__(self, cores=None, engine="sphere", **settings):
        self.folder = tempfile.TemporaryDirectory()
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        env = {
            **os.environ,
            **ONE_THREAD,
            "RELIGHT_JOBS_DIR": os.path.join(self.folder.name, "jobs"),
            "RELIGHT_LOG_LEVEL": "error",
            **{f"RELIGHT_{k.upper()}": str(v) for k, v in settings.items()},
        }
        pin = None
        if cores and hasattr(os, "sched_setaffinity"):

            def pin():
                os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[:cores]))

        self.started = time.perf_counter()
        self.process = subprocess.Popen(
            [sys.executable, str(ROOT / "tests/bench/serve.py"), engine, str(self.port)],
            env=env,
            preexec_fn=pin,
            cwd=ROOT,
        )

    def __enter__(self):
        while True:
            try:
                if self.request("GET", "/ready")[0] == 200:
                    self.ready_s = time.perf_counter() - self.started
                    return self
            except OSError:
                pass
            if self.process.poll() is not None:
                raise RuntimeError("the server did not start")
            time.sleep(0.005)

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(20)
        self.folder.cleanup()

    def connect(self):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=300)

    def request(self, method, path, body=None, kind="application/json", connection=None):
        """(status, headers, bytes)."""
        own = connection or self.connect()
        data = json.dumps(body).encode() if isinstance(body, dict) else body
        own.request(method, path, data, {"Content-Type": kind} if data else {})
        answer = own.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()

    def upload(self, rgb):
        from server.image.encode import encode_png

        return self.upload_file(encode_png(rgb))

    def upload_file(self, data):
        mark = uuid.uuid4().hex
        head = (
            f'--{mark}\r\nContent-Disposition: form-data; name="file"; filename="photo"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        )
        status, _, answer = self.request(
            "POST",
            "/upload",
            head.encode() + data + f"\r\n--{mark}--\r\n".encode(),
            f"multipart/form-data; boundary={mark}",
        )
        assert status == 200, answer
        return json.loads(answer)["job_id"]


def quantiles(seconds):
    return {"p50": float(np.percentile(seconds, 50)), "p99": float(np.percentile(seconds, 99))}


def jpeg_seconds(H, W, n=15):
    """The unit: encoding such a picture as JPEG, quality 85, on one core (median of processor time)."""
    from server.image.encode import encode_jpeg

    picture, took = photo(H, W), []
    for _ in range(n):
        start = time.thread_time()
        encode_jpeg(picture, 85)
        took.append(time.thread_time() - start)
    return float(np.median(took))
