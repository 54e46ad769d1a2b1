"""Requests to the store for what clients ask, and what a bucket takes longer than a folder, side by side in one run.

    PYTHONPATH=.:tests python tests/bench/bench_bucket.py [--delay MS]

Over SeaweedFS on this machine, each request delayed by so much, as on the way to a store elsewhere. No model is run.
"""

import argparse
import contextlib
import os
import statistics
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import s3
from fakes import SeeingEngine
from fastapi.testclient import TestClient
from support import encoded, finished

from server.application import create_app
from server.settings import load

LIGHT = {"x": -0.5, "y": 0.5, "z": 0.7}
ROUNDS = 7


class Told:
    """Seconds and requests to the store of each thing that was asked."""

    def __init__(self, client):
        self.client, self.seconds, self.requests = client, {}, {}
        self.bucket = getattr(client.app.state.service.store, "bucket", None)

    @contextlib.contextmanager
    def of(self, what):
        before, start = Counter(self.bucket.requests if self.bucket else ()), time.perf_counter()
        yield
        self.seconds.setdefault(what, []).append(time.perf_counter() - start)
        if self.bucket:
            self.requests.setdefault(what, []).append(self.bucket.requests - before)


def photo(seed):
    y, x = np.mgrid[0:768, 0:1024]
    noise = np.random.default_rng(seed).integers(0, 20, (768, 1024, 3))
    return encoded((np.stack([x // 4 % 200, y // 4 % 200, (x + y) // 8 % 200], -1) + noise).astype(np.uint8), "JPEG")


def one_round(told, k):
    """An upload and all that may follow."""
    client = told.client
    data = photo(k)
    with told.of("upload, until it is analysed"):
        answer = client.post("/upload", files={"file": ("a.jpg", data)})
        job = answer.json()["job_id"]
        while client.app.state.service.analyst.holds(job):
            time.sleep(0.001)
    assert finished(client, job)["state"] == "ready"
    for what in ("preview, first of a photo", "preview, next"):
        with told.of(what):
            assert client.post("/preview", json={"job_id": job, **LIGHT}).status_code == 200
    for what in ("relight, first of a photo", "relight, next"):
        with told.of(what):
            assert client.post("/relight", json={"job_id": job, **LIGHT}).status_code == 200
    client.app.state.service.cache.drop(job)  # as on another server
    with told.of("preview, another server's photo"):
        assert client.post("/preview", json={"job_id": job, **LIGHT}).status_code == 200
    with told.of("state"):
        assert client.get(f"/job/{job}").status_code == 200
    with told.of("download"):
        answer = client.get(f"/download/{job}/relit.png")
    with told.of("download, not modified"):
        headers = {"If-None-Match": answer.headers["etag"]}
        assert client.get(f"/download/{job}/relit.png", headers=headers).status_code == 304
    with told.of("download, direct: the answer"):
        client.get(f"/download/{job}/relit.png?direct=1", follow_redirects=False)
    with told.of("normals.png, made"):
        assert client.get(f"/download/{job}/normals.png").status_code == 200
    with told.of("maps"):
        assert client.get(f"/job/{job}/maps").status_code == 200
    with told.of("delete"):
        assert client.delete(f"/job/{job}").status_code == 200


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--delay", type=float, default=0, help="milliseconds that each request to the store takes more")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        port = stack.enter_context(s3.seaweed(Path(folder) / "weed")).port
        name, gate = s3.new_bucket(port), s3.Gate(port, options.delay / 1000)
        os.environ.update(s3.environment(gate.port))
        told = []
        for store in ("", f"s3://{name}/bench"):
            settings = load(
                store=store,
                jobs_dir=Path(folder) / "jobs",
                log_level="error",
                decoders=0,
                sweep_seconds=3600,
                lease_seconds=3600,  # no sign of life among the requests that are counted
                direct_downloads=True,
                jobs_quota_bytes=int(os.environ.get("QUOTA", 0)),
            )
            client = stack.enter_context(TestClient(create_app(settings, SeeingEngine(side=384, mask=True))))
            told.append(Told(client))
        for k in range(ROUNDS):
            for each in told:
                one_round(each, k)
        print(f"median of {ROUNDS}, {options.delay:g} ms a request added\n")
        print("| asked | requests to the store | folder, ms | bucket, ms |\n|---|---|---:|---:|")
        for what, counts in told[1].requests.items():
            usual = Counter(tuple(sorted(c.items())) for c in counts[1:]).most_common(1)[0][0]
            words = f"{sum(n for _, n in usual)}: " + ", ".join(f"{n} {verb}" for verb, n in usual) if usual else "0"
            ms = [1000 * statistics.median(each.seconds[what]) for each in told]
            print(f"| {what} | {words} | {ms[0]:.1f} | {ms[1]:.1f} |")


if __name__ == "__main__":
    main()
