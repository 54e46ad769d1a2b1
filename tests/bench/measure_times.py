"""What one photo costs on this machine: processor seconds and bytes of every action, for scale.py."""

import io
import json
import time
from pathlib import Path

from common import Server, photo, processor_seconds
from PIL import Image

SIDES = (3000, 4000)
PHOTOS, PREVIEWS, REQUESTS = 4, 40, 400
LIGHT = {"x": -0.6, "y": 0.4, "z": 0.7}


class Metered:
    """A server and what it has used: its own processor time and that of its decoder processes."""

    def __init__(self, server):
        self.server = server

    def used(self):
        """Processor seconds so far."""
        pid = self.server.process.pid
        children = {c for file in Path(f"/proc/{pid}/task").glob("*/children") for c in file.read_text().split()}
        return sum(processor_seconds(p) for p in [pid, *children])

    def cost(self, act, times=1):
        """(processor seconds of one time, what the last returned)."""
        before, answer = self.used(), None
        for _ in range(times):
            answer = act()
        return (self.used() - before) / times, answer

    def uploaded(self, data):
        """Upload a photo and wait until it is analysed; its job id."""
        job = self.server.upload_file(data)
        while json.loads(self.get(f"/job/{job}"))["state"] != "ready":
            time.sleep(0.2)
        return job

    def get(self, path):
        """The body of an answer."""
        status, _, body = self.server.request("GET", path)
        assert status == 200, body
        return body

    def post(self, path, job, **more):
        """The body of an answer."""
        status, _, body = self.server.request("POST", path, {"job_id": job, **LIGHT, **more})
        assert status == 200, body
        return body


def _files():
    for seed in range(PHOTOS):
        data = io.BytesIO()
        Image.fromarray(photo(*SIDES, seed)).save(data, "JPEG", quality=90)
        yield data.getvalue()


def _mean(values):
    return sum(values) / len(values)


def measure():
    """Fields of scale.Times, but for `proxy`: means over a few photos of 12 megapixels, with the bundled network."""
    files = list(_files())
    found = {"photo_bytes": _mean([len(f) for f in files])}
    with Server(engine="network", maps_cache_bytes=2**30) as server:
        m = Metered(server)
        m.uploaded(files[-1])  # what is done once in a process
        rows = []
        for data in files[:-1]:
            both, job = m.cost(lambda data=data: m.uploaded(data))
            upload, _ = m.cost(lambda data=data: m.uploaded(data))  # a twin's analysis is taken over
            m.post("/preview", job)  # prepares it
            preview, picture = m.cost(lambda job=job: m.post("/preview", job), PREVIEWS)
            relight, _ = m.cost(lambda job=job: m.post("/relight", job))
            maps, planes = m.cost(lambda job=job: m.get(f"/job/{job}/maps"), 10)
            download, relit = m.cost(lambda job=job: m.get(f"/download/{job}/relit.png"), 4)
            rows.append(
                {
                    "upload": upload,
                    "analysis": both - upload,
                    "preview": preview,
                    "relight": relight,
                    "maps": maps,
                    "download": download,
                    "input_bytes": len(m.get(f"/download/{job}/input.png")),
                    "relit_bytes": len(relit),
                    "preview_bytes": len(picture),
                    "maps_bytes": len(planes),
                    "geometry_bytes": (Path(server.folder.name) / "jobs" / job / "geometry.npz").stat().st_size,
                }
            )
        found.update({name: _mean([r[name] for r in rows]) for name in rows[0]})
        connection = server.connect()
        found["request"] = m.cost(lambda: server.request("GET", "/health", connection=connection), REQUESTS)[0]
        connection.close()
    with Server(engine="network", maps_cache_bytes=0) as server:  # nothing is kept: each preview is the first
        m = Metered(server)
        job = m.uploaded(files[0])
        m.post("/preview", job)
        found["prepare"] = m.cost(lambda: m.post("/preview", job), 5)[0] - found["preview"]
    found["prepared_bytes"] = _held(files)
    return found


def _held(files):
    """Bytes in memory of a picture that is dragged over, when its photo has left: of two jobs where one is counted."""
    with Server(engine="network", maps_cache_bytes=2**30) as server:
        m = Metered(server)
        job = m.uploaded(files[0])
        m.post("/preview", job)
        text = m.get("/metrics").decode()
    total = next(float(line.split()[1]) for line in text.splitlines() if line.startswith("relight_cache_bytes "))
    return total - SIDES[0] * SIDES[1] * 3
