"""Soak: mixed traffic for as long as asked; memory, threads and files must stay flat and nothing may fail.

`python tests/soak.py --minutes 60`. Prints a line a minute and a verdict. Over an analytic engine, so that
the server itself is what is measured.
"""

import argparse
import contextlib
import os
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

from chaos import LIGHTS, pictures
from serving import Server
from trust_tools import memory_bytes

QUOTA = 20 << 20
GROWTH = 1.05


def use(server, seed, files, end, counts, faults):  # noqa: C901, PLR0912 -- what a client may do, one branch each
    """One client: everything the API offers, some of it wrong on purpose."""
    rng, jobs = random.Random(seed), []
    while time.monotonic() < end:
        action = rng.choice(
            ("upload", "relight", "preview", "preview", "download", "state", "delete", "bad", "twice", "events")
        )
        wanted = {200}
        try:
            if action in ("upload", "twice") or not jobs:
                status, body = server.upload(files[0] if action == "twice" else rng.choice(files))
                wanted |= {503}
                if status == 200:
                    jobs.append(body["job_id"])
            elif action == "bad":
                status, wanted = (
                    server.upload(rng.choice((b"", b"junk", files[0][:100], b"\xff\xd8\xff" + bytes(500))))[0],
                    {415, 422, 503},
                )
            else:
                job = rng.choice(jobs)
                wanted |= {404, 503}  # the quota took it, or the queue is full
                if action == "relight":
                    status = server.ask("POST", "/relight", {"job_id": job, **rng.choice(LIGHTS)})[0]
                elif action == "preview":
                    status = server.ask("POST", "/preview", {"job_id": job, **rng.choice(LIGHTS), "max_side": 256})[0]
                elif action == "download":
                    status = server.ask(
                        "GET", f"/download/{job}/{rng.choice(('input.png', 'depth.png', 'normals.png'))}"
                    )[0]
                elif action == "delete":
                    status = server.ask("DELETE", f"/job/{job}")[0]
                    jobs.remove(job)
                else:
                    status = server.ask("GET", f"/job/{job}" + ("/events" if action == "events" else ""))[0]
            if len(jobs) > 12:
                jobs.pop(0)  # left to the quota
            counts[f"{action} {status}"] += 1
            if status not in wanted:
                faults.append(f"{action}: {status}")
        except Exception as exc:
            faults.append(f"{action}: {type(exc).__name__} {exc}")
            time.sleep(0.5)


def look(pid, folder):
    """(resident bytes, threads, open files, bytes on disk)."""
    threads = int(
        next(s.split()[1] for s in Path(f"/proc/{pid}/status").read_text().splitlines() if s.startswith("Threads:"))
    )
    disk = 0
    for where, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                disk += os.stat(os.path.join(where, name)).st_size
    return memory_bytes(pid, "VmRSS"), threads, len(os.listdir(f"/proc/{pid}/fd")), disk


def run(minutes, clients=3, say=print):  # noqa: C901 -- one story from start to end
    """Returns (faults, figures)."""
    counts, faults = Counter(), []
    with tempfile.TemporaryDirectory() as folder:
        jobs = Path(folder) / "jobs"
        server = Server(
            jobs,
            decoders=2,
            jobs_quota_bytes=QUOTA,
            sweep_seconds=5,
            maps_cache_bytes=64 << 20,
            log=os.environ.get("SOAK_LOG"),
        ).wait(120)
        began = time.monotonic()
        end = began + 60 * minutes
        threads = [
            threading.Thread(target=use, args=(server, k, pictures(), end, counts, faults)) for k in range(clients)
        ]
        for t in threads:
            t.start()
        warm = began + min(900.0, 24 * minutes)
        seen = []
        while time.monotonic() < end:
            time.sleep(min(5.0, max(0.1, end - time.monotonic())))
            if time.monotonic() >= warm:
                seen.append(look(server.process.pid, jobs))
            if len(seen) % 12 == 1:
                m, n, f, d = seen[-1]
                say(
                    f"{(time.monotonic() - began) / 60:5.1f} min: {m / 1e6:.0f} MB, {n} threads, "
                    f"{f} files, {d / 1e6:.1f} MB on disk, "
                    f"{sum(counts.values())} requests, {len(faults)} faults",
                    flush=True,
                )
        for t in threads:
            t.join()
        _status, _, _text = server.ask("GET", "/metrics")
        server.kill()
    third = max(1, len(seen) // 3)
    first, last = seen[:third], seen[-third:]

    def median(rows, k):
        return sorted(r[k] for r in rows)[len(rows) // 2]

    growth = median(last, 0) / median(first, 0)
    if growth > GROWTH:
        faults.append(f"memory grew by {100 * growth - 100:.1f} %")
    for k, what in ((1, "threads"), (2, "files")):
        if median(last, k) > median(first, k) + 3:
            faults.append(f"{what}: {median(first, k)} at first, {median(last, k)} in the end")
    if median(seen, 3) > 1.2 * QUOTA:
        faults.append(f"disk: {median(seen, 3)} bytes, the quota is {QUOTA}")
    return faults, {
        "requests": sum(counts.values()),
        "memory": f"{100 * growth - 100:+.1f} %",
        "resident MB": median(last, 0) // 1_000_000,
        "threads": f"{median(first, 1)} -> {median(last, 1)}",
        "files": f"{median(first, 2)} -> {median(last, 2)}",
        "disk MB": round(median(seen, 3) / 1e6, 1),
        "answers": dict(sorted(counts.items())),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--clients", type=int, default=3)
    options = parser.parse_args()
    faults, figures = run(options.minutes, options.clients)
    print(figures)
    print("\n".join(faults[:30]) or "flat, and no fault")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
