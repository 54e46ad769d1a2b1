"""(b) previews, (c) full size, (f) eight clients at once: over HTTP, the server a process of its own."""

import json
import sys
import threading
import time

from common import Server, jpeg_seconds, memory, photo, processor_seconds, quantiles, size_of

SCREEN = (768, 1024)


def body(job, k, **more):
    """A light that moves a little with k."""
    return {"job_id": job, "x": -0.6 + 0.0007 * k, "y": 0.4, "z": 0.7, **more}


def previews(n=300):
    """(b) /preview at 1024 px, one light with its shadow, each time another direction; the server on one core."""
    with Server(cores=1, threads=1) as server:
        job = server.upload(photo(*SCREEN))
        connection = server.connect()
        server.request("POST", "/preview", body(job, 0), connection=connection)
        took, units, stages, used = [], [], {}, processor_seconds(server.process.pid)
        for k in range(n):
            start = time.perf_counter()
            status, headers, _ = server.request("POST", "/preview", body(job, k), connection=connection)
            took.append(time.perf_counter() - start)
            assert status == 200
            for part in headers.get("server-timing", headers.get("Server-Timing", "")).split(","):
                name, _, ms = part.strip().partition(";dur=")
                if ms:
                    stages.setdefault(name, []).append(float(ms))
            if k % 10 == 0:
                units.append(jpeg_seconds(*SCREEN, n=3))
        used = (processor_seconds(server.process.pid) - used) / n
    unit = sorted(units)[len(units) // 2]
    q = quantiles(took)
    return {
        "p50_ms": q["p50"] * 1e3,
        "p99_ms": q["p99"] * 1e3,
        "jpeg_ms": unit * 1e3,
        "p50_in_jpegs": q["p50"] / unit,
        "processor_ms": used * 1e3,
        "processor_in_jpegs": used / unit,
        "p99_in_jpegs": q["p99"] / unit,
        "stages_ms": {k: sorted(v)[len(v) // 2] for k, v in stages.items()},
    }


def full_size(n=3):
    """(c) /relight at 12 megapixels: where the time goes."""
    H, W = size_of(12)
    with Server() as server:
        job = server.upload(photo(H, W))
        seconds = []
        for k in range(n + 1):
            start = time.perf_counter()
            status, _, answer = server.request("POST", "/relight", body(job, 20 * k))
            assert status == 200, answer
            seconds.append({"all": time.perf_counter() - start, **json.loads(answer)["timings"]})
    best = min(seconds[1:], key=lambda s: s["all"])
    return {**best, "first": seconds[0]["all"], "jpeg": jpeg_seconds(H, W, n=3)}


def crowd(clients=8, until=2000, early=200):
    """(f) eight clients, each with its own photograph and stream, dragging as fast as answers come."""
    with Server() as server:
        jobs = [server.upload(photo(*SCREEN, seed=k)) for k in range(clients)]
        for job in jobs:
            assert server.request("POST", "/preview", body(job, 0))[0] == 200
        took, lock, at = [], threading.Lock(), {}

        def drag(k):
            connection = server.connect()
            step = 0
            while True:
                start = time.perf_counter()
                status, _, _ = server.request(
                    "POST", "/preview", body(jobs[k], step, stream=f"tab {k}"), connection=connection
                )
                assert status == 200
                step += 1
                with lock:
                    took.append(time.perf_counter() - start)
                    if len(took) in (early, until):
                        at[len(took)] = memory(server.process.pid)[0]
                    if len(took) >= until:
                        return

        begun = time.perf_counter()
        threads = [threading.Thread(target=drag, args=(k,)) for k in range(clients)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        seconds = time.perf_counter() - begun
    q = quantiles(took)
    return {
        "previews": len(took),
        "per_second": len(took) / seconds,
        "p50_ms": q["p50"] * 1e3,
        "p99_ms": q["p99"] * 1e3,
        "rss_early_mb": at[early] / 1e6,
        "rss_late_mb": at[until] / 1e6,
        "growth": at[until] / at[early] - 1,
        "jpegs_per_preview": seconds / len(took) / jpeg_seconds(*SCREEN),
    }


if __name__ == "__main__":
    print(json.dumps({"b": previews, "c": full_size, "f": crowd}[sys.argv[1]](), indent=1))
