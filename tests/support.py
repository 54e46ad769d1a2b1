"""What many tests do: make pictures, upload them, wait for a job, look at an answer."""

import io
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import uvicorn
from PIL import Image

from server.errors import StorageFull
from server.jobs.processes import ProcessRegistry
from server.jobs.store import LocalStore

ROOT = Path(__file__).resolve().parent.parent


def local_store(root):
    """Jobs in a folder, as one more process has them; `.processes.close()` ends it."""
    return LocalStore(root, ProcessRegistry(root))


def no_room_for(wanted, monkeypatch):
    """Whoever writes this file of a job finds the disk full, all other files are written."""
    real = LocalStore.put

    def put(self, job_id, name, data, held=None):
        if name == wanted:
            raise StorageFull()
        real(self, job_id, name, data, held)

    monkeypatch.setattr(LocalStore, "put", put)


def encoded(pixels, kind="PNG", **options):
    """A picture array (or PIL image) as the bytes of a file."""
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def gradient(h=60, w=80):
    """A colourful picture, (h, w, 3) uint8, no two pixels of a row alike."""
    y, x = np.mgrid[0:h, 0:w]
    return np.stack([x * 255 // max(w - 1, 1), y * 255 // max(h - 1, 1), (x + y) % 256], -1).astype(np.uint8)


@contextmanager
def serving(app):
    """The address of a real server over an application, in a thread."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


def upload(client, data=None, name="photo.png", **more):
    """Upload bytes (a gradient by default); returns the job id."""
    answer = client.post("/upload", files={"file": (name, data if data is not None else encoded(gradient()))}, **more)
    assert answer.status_code == 200, answer.text
    return answer.json()["job_id"]


def finished(client, job_id, seconds=30, **more):
    """The state of a job once it is ready or failed."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        state = client.get(f"/job/{job_id}", **more).json()
        if state.get("state") in ("ready", "failed"):
            return state
        time.sleep(0.02)
    raise AssertionError(f"job still {state} after {seconds} s")


def picture(client, job_id, name="relit.png"):
    """A pass of a job as an array."""
    answer = client.get(f"/download/{job_id}/{name}")
    assert answer.status_code == 200, answer.text
    return np.array(Image.open(io.BytesIO(answer.content)))


def linear(values):
    """8-bit sRGB as linear light, by the standard's formula (IEC 61966-2-1), float64."""
    v = np.asarray(values, np.float64) / 255
    return np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4)


def problem(answer, status, code):
    """Assert the one shape of errors, and return its detail."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"].startswith("application/problem+json")
    body = answer.json()
    assert body["code"] == code and body["status"] == status and body["type"] == "about:blank"
    assert body["request_id"] and body["request_id"] == answer.headers["x-request-id"]
    assert body["title"] and body["detail"] and "Traceback" not in body["detail"] and str(ROOT) not in body["detail"]
    return body["detail"]
