"""The server as a process, and the browser: what the tests of the page and the picture of the README share."""

import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
from PIL import Image

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-unsafe-swiftshader",  # WebGL on the processor
]
READY = "body[data-state=ready][data-frame=still]"


def chromium():
    """Path of a Chromium: $CHROMIUM, or the first one on the PATH, or None."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)


class Server:
    """uvicorn over a jobs folder of its own; can be stopped and started again on the same port."""

    def __init__(self, jobs, **settings):
        self.jobs = Path(jobs)
        self.env = {**os.environ, "RELIGHT_JOBS_DIR": str(jobs), "RELIGHT_LOG_LEVEL": "warning"}
        self.env.update({f"RELIGHT_{name.upper()}": str(value) for name, value in settings.items()})
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/"
        self.headers = {}
        self.process = None

    def start(self):
        command = [sys.executable, "-m", "uvicorn", "server:app", "--port", str(self.port), "--log-level", "warning"]
        self.process = subprocess.Popen(command, cwd=ROOT, env=self.env)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            assert self.process.poll() is None, "the server did not start"
            try:
                if self.json("ready")["ready"]:
                    return self
            except OSError:
                time.sleep(0.1)
        raise AssertionError("the server is not ready after 60 s: are the graphs in onnx_models/?")

    def stop(self):
        if self.process is None:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None

    def call(self, path, body=None, method=None, headers=None):
        """(status, content) of a request; `body` as JSON when it is no bytes."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        kind = {} if body is None or isinstance(body, bytes) else {"Content-Type": "application/json"}
        request = urllib.request.Request(
            self.url + path, data, {**kind, **self.headers, **(headers or {})}, method=method
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def json(self, path, body=None, **options):
        return json.loads(self.call(path, body, **options)[1])

    def picture(self, path, body=None):
        """The answer decoded: (H, W, 3) float, 0..255."""
        status, content = self.call(path, body)
        assert status == 200, content
        return pixels(content)


def pixels(content):
    """(H, W, 3) float 0..255 of an encoded picture."""
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"), float)
