"""Chaos: kill -9 at random moments under a mixed load, restart, look whether anything promised was lost or left behind.

`python tests/chaos.py --kills 200 [--seed 8]`; `make test` does 20. With `--bucket` there are two servers, which have
nothing in common but a bucket of SeaweedFS, and one of them is killed at a time; `make test` does 2 of those.
"""

import argparse
import contextlib
import hashlib
import io
import json
import os
import random
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import s3
from PIL import Image
from serving import Server, free_port

from server.jobs.bucket import connect

LIGHTS = [{"x": -1, "y": 0.5, "z": 0.6}, {"x": 1, "y": 0, "z": 0.3}, {"x": 0, "y": -1, "z": 1}]
KEPT = 4  # jobs of one client
SHARED = ("depth.png", "normals.png", "albedo.png", "shading.png", "surface.png")


def pictures():
    """Files of several kinds and sizes; one is larger than what a server keeps in memory while it arrives."""
    out = []
    for k, (kind, w, h) in enumerate((("PNG", 160, 120), ("JPEG", 200, 150), ("WEBP", 90, 160), ("BMP", 800, 600))):
        y, x = np.mgrid[0:h, 0:w]
        data = io.BytesIO()
        Image.fromarray(
            np.stack([(x * (k + 2)) % 256, (y * 3 + k * 40) % 256, (x + y) % 256], -1).astype(np.uint8)
        ).save(data, kind)
        out.append(data.getvalue())
    return out


def digest(data):
    """Of the pixels: a PNG of the same may be compressed in more than one way."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            return hashlib.sha256(f"{image.mode} {image.size} ".encode() + image.tobytes()).hexdigest()
    except (OSError, SyntaxError, ValueError):
        return hashlib.sha256(data).hexdigest()  # damaged


class Truth:
    """What each picture's files must be, pixel for pixel: learnt once from a server that nobody kills."""

    def __init__(self, server, files):
        self.passes, self.relit = [], []
        for data in files:
            job = server.upload(data)[1]["job_id"]
            assert server.finished(job)["state"] == "ready"
            self.passes.append(
                {n: digest(server.ask("GET", f"/download/{job}/{n}")[2]) for n in ("input.png", *SHARED)}
            )
            self.relit.append([])
            for light in LIGHTS:
                assert server.ask("POST", "/relight", {"job_id": job, **light})[0] == 200
                self.relit[-1].append(digest(server.ask("GET", f"/download/{job}/relit.png")[2]))
            assert server.ask("DELETE", f"/job/{job}")[0] == 200


class Client(threading.Thread):
    """Does one thing after the other to jobs of its own, and remembers what was promised and what is open."""

    def __init__(self, server, seed, files, truth, jobs):
        super().__init__(daemon=True)
        self.server, self.random, self.files, self.truth = server, random.Random(seed), files, truth
        self.stopped = False
        self.jobs, self.faults, self.done = jobs, [], 0  # job id -> {picture, relit: allowed digests or None, deleting}

    def run(self):
        try:
            while not self.stopped:
                self.step()
                self.done += 1
        except (OSError, EOFError, ValueError):  # the server was killed
            pass
        except Exception as exc:  # http.client has many names for it
            if "http.client" not in type(exc).__module__ and type(exc).__module__ != "http":
                self.faults.append(f"{type(exc).__name__}: {exc}")

    def step(self):
        action = self.random.choice(("upload", "relight", "relight", "preview", "download", "delete"))
        if action == "upload" or not self.jobs:
            if len(self.jobs) >= KEPT:
                action = "delete"
            else:
                which = self.random.randrange(len(self.files))
                status, body = self.server.upload(self.files[which])
                if self.expect(status, "upload"):
                    self.jobs[body["job_id"]] = {"picture": which, "relit": None, "open": set(), "deleting": False}
                return
        job_id = self.random.choice(sorted(self.jobs))
        job = self.jobs[job_id]
        if action == "delete":
            job["deleting"] = True
            if self.expect(self.server.ask("DELETE", f"/job/{job_id}")[0], "delete"):
                del self.jobs[job_id]
        elif action == "relight":
            k = self.random.randrange(len(LIGHTS))
            job["open"].add(self.truth.relit[job["picture"]][k])
            if self.expect(self.server.ask("POST", "/relight", {"job_id": job_id, **LIGHTS[k]})[0], "relight"):
                job["relit"], job["open"] = self.truth.relit[job["picture"]][k], set()
        elif action == "preview":
            self.expect(
                self.server.ask("POST", "/preview", {"job_id": job_id, **LIGHTS[0], "max_side": 64})[0], "preview"
            )
        else:
            status, _, data = self.server.ask("GET", f"/download/{job_id}/input.png")
            if self.expect(status, "download") and digest(data) != self.truth.passes[job["picture"]]["input.png"]:
                self.faults.append(f"{job_id}: input.png changed")

    def expect(self, status, what):
        if status not in (200, 503):
            self.faults.append(f"{what}: {status}")
        return status == 200


def check(server, truth, jobs):
    """What is wrong with the jobs that were promised, after a restart."""
    faults = []
    for job_id, job in list(jobs.items()):
        status, _state = server.json("GET", f"/job/{job_id}")
        if job["deleting"]:  # asked for, not answered: gone or whole
            if status == 404:
                del jobs[job_id]
                continue
            job["deleting"] = False
        if status != 200:
            faults.append(f"{job_id}: promised, but {status}")
            continue
        if server.finished(job_id)["state"] != "ready":
            faults.append(f"{job_id}: {server.finished(job_id)}")
            continue
        for name, wanted in truth.passes[job["picture"]].items():
            if digest(server.ask("GET", f"/download/{job_id}/{name}")[2]) != wanted:
                faults.append(f"{job_id}: {name} is not what it was")
        status, _, data = server.ask("GET", f"/download/{job_id}/relit.png")
        found = digest(data) if status == 200 else None
        if found not in {job["relit"], *job["open"]}:
            faults.append(f"{job_id}: relit.png is not what was answered ({status})")
        job["relit"], job["open"] = found, set()
    return faults


def leftovers(root):
    """Temporary files and half-made folders."""
    return [
        str(p.relative_to(root))
        for p in Path(root).rglob("*")
        if p.name.startswith((".tmp-", ".new-", ".gone-", ".probe-"))
    ]


def lost_objects(bucket):
    """Objects in a bucket that no job knows of and no living process wrote; those of the dead go within seconds."""
    end = time.monotonic() + 20
    while True:
        living = {entry.path.rpartition("/")[2] for entry in bucket.list("workers")}
        known, there = set(), []
        for entry in bucket.list("jobs"):
            job, _, name = entry.path.partition("/")[2].partition("/")
            if name == "index.json":
                found = bucket.find(entry.path)
                files = json.loads(found.data)["files"] if found is not None and found.data else {}
                known |= {f"jobs/{job}/{n}/{place['object']}" for n, place in files.items()}
            elif name.rpartition("/")[2][:32] not in living:
                there.append(entry.path)
        lost = sorted(set(there) - known)
        if not lost or time.monotonic() > end:
            return lost
        time.sleep(0.5)


def work_until(kill, threads, rng):
    """Let clients work, kill what they work with, and wait for them."""
    for t in threads:
        t.start()
    end = time.monotonic() + (10 if rng.random() < 0.8 else 0)  # mostly in the middle of the work, sometimes before it
    while not any(t.done for t in threads) and time.monotonic() < end:
        time.sleep(0.005)
    time.sleep(rng.uniform(0.0, 1.0))
    kill()
    for t in threads:
        t.stopped = True
    for t in threads:
        t.join(60)


def run(kills, seed, folder, clients=3, say=lambda text: None, store=""):
    """Returns (faults, figures)."""
    files, rng = pictures(), random.Random(seed)
    options = {"seconds": 0.02, "sweep_seconds": 3600, "decoders": 1, "log": Path(folder).parent / "chaos.log"}
    if store:
        options.update(store=store, sweep_seconds=1, lease_seconds=1, decoders=0)
    ports = [free_port() for _ in range(2 if store else 1)]
    servers = [Server(folder, port=port, **options) for port in ports]
    for server in servers:
        server.wait()
    truth = Truth(servers[0], files)
    ledgers = [{} for _ in range(clients)]
    faults, done = [], 0
    for k in range(kills):
        threads = [
            Client(servers[(i + k) % len(servers)], rng.random(), files, truth, l) for i, l in enumerate(ledgers)
        ]
        victim = rng.randrange(len(servers))
        work_until(servers[victim].kill, threads, rng)
        faults += [fault for t in threads for fault in t.faults]
        done += sum(t.done for t in threads)
        servers[victim] = Server(folder, port=ports[victim], **options).wait()
        for i, ledger in enumerate(ledgers):
            faults += check(servers[i % len(servers)], truth, ledger)
        left = lost_objects(connect(store)) if store else leftovers(folder)
        faults += [f"left behind: {name}" for name in left]  # now that no analysis taken up again writes any more
        say(f"kill {k + 1}: {sum(map(len, ledgers))} jobs kept, {done} requests so far, {len(faults)} faults")
        if faults:
            break
    kept = sum(map(len, ledgers))
    if {server.stop() for server in servers} - {0, -15}:  # uvicorn ends by the signal it was sent
        faults.append("the last server did not stop cleanly")
    return faults, {"kills": kills, "requests": done, "jobs kept": kept}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=8)
    parser.add_argument("--bucket", action="store_true", help="two servers over a bucket")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        store = ""
        if options.bucket:
            port = stack.enter_context(s3.seaweed(Path(folder) / "weed")).port
            os.environ.update(s3.environment(port))
            store = f"s3://{s3.new_bucket(port)}/chaos"
        faults, figures = run(
            options.kills, options.seed, Path(folder) / "jobs", say=lambda text: print(text, flush=True), store=store
        )
    print(figures)
    print("\n".join(faults) or "nothing lost, nothing left behind")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
