"""A server in a process of its own, over an analytic engine: `python serving.py PORT [seconds an analysis takes]`."""

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def multipart(data, name="photo"):
    """(headers, body) of an upload."""
    edge = uuid.uuid4().hex
    head = (
        f'--{edge}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\nContent-Type: image/png\r\n\r\n'
    )
    return {
        "Content-Type": f"multipart/form-data; boundary={edge}"
    }, head.encode() + data + f"\r\n--{edge}--\r\n".encode()


class Server:
    """Starts, kills and asks a server process."""

    def __init__(self, jobs_dir, seconds=0.0, workers=0, port=None, log=None, **settings):
        self.port = port or free_port()
        env = {k: v for k, v in os.environ.items() if not k.startswith("RELIGHT_")}
        env.update(
            RELIGHT_JOBS_DIR=str(jobs_dir),
            PYTHONPATH=str(ROOT),
            FAKE_SECONDS=str(seconds),
            **{f"RELIGHT_{k.upper()}": str(v) for k, v in settings.items()},
        )
        command = [sys.executable, __file__, str(self.port)]
        if workers:
            command = [
                sys.executable,
                "-m",
                "uvicorn",
                "--app-dir",
                str(Path(__file__).parent),
                "--factory",
                "serving:build",
                "--port",
                str(self.port),
                "--workers",
                str(workers),
            ]
        with open(log or os.devnull, "ab") as output:  # the process keeps a descriptor of its own
            self.process = subprocess.Popen(
                command, env=env, cwd=ROOT, stdout=output, stderr=output, start_new_session=True
            )

    def ask(self, method, path, body=None, headers=None, timeout=60):
        """(status, headers, bytes) of one request; a dict as body is sent as JSON."""
        headers = dict(headers or {})
        if isinstance(body, dict):
            headers["Content-Type"], body = "application/json", json.dumps(body).encode()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()
        finally:
            connection.close()

    def json(self, method, path, body=None, headers=None):
        """(status, parsed body)."""
        status, _, data = self.ask(method, path, body, headers)
        return status, json.loads(data)

    def upload(self, data, headers=None):
        """(status, parsed body) of an upload."""
        kind, body = multipart(data)
        return self.json("POST", "/upload", body, {**kind, **(headers or {})})

    def wait(self, seconds=60):
        """Until it answers."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                if self.ask("GET", "/health", timeout=5)[0] == 200:
                    return self
            except OSError:
                pass
            if self.process.poll() is not None:
                raise AssertionError(f"the server ended with {self.process.returncode}")
            time.sleep(0.05)
        raise AssertionError("the server does not answer")

    def finished(self, job_id, headers=None, seconds=60):
        """The state of a job once it is ready or failed."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            status, state = self.json("GET", f"/job/{job_id}", headers=headers)
            if status != 200 or state["state"] in ("ready", "failed"):
                return state
            time.sleep(0.05)
        raise AssertionError(f"job {job_id} still {state['state']} after {seconds} s")

    def kill(self):
        """kill -9, the whole session with all workers."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self, seconds=30):
        """As an operator stops it; returns the exit status."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError("the server does not stop") from None


def engine():
    """An analytic engine that takes as long as FAKE_SECONDS says."""
    from fakes import SphereEngine

    class Counted(SphereEngine):
        """Leaves one file for every analysis made, so that those of all processes can be counted."""

        def analyse(self, rgb):
            if os.environ.get("FAKE_COUNT"):
                Path(os.environ["FAKE_COUNT"], uuid.uuid4().hex).touch()
            return super().analyse(rgb)

    return Counted(side=32, seconds=float(os.environ.get("FAKE_SECONDS", 0)))


def build():
    """The application, for uvicorn's workers."""
    from server.application import create_app

    return create_app(engine=engine())


if __name__ == "__main__":
    import uvicorn

    uvicorn.run(build(), host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
