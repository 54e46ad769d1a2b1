"""Overload: ten times the clients a server can serve. Refusals must be quick, admitted work must keep its pace, /health
must answer.

`python tests/bench/bench_load.py [--seconds 15]`. Figures are of this machine; what counts are the ratios.
"""

import argparse
import statistics
import sys
import tempfile
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from chaos import LIGHTS, pictures
from serving import Server


def clients(port, job, count, seconds):
    """So many clients in one process: (seconds of each answer, seconds of each refusal, faults)."""
    server = Server.__new__(Server)
    server.port = port
    served, refused, faults, end = [], [], [], time.monotonic() + seconds

    def client(k):
        while time.monotonic() < end:
            begun = time.perf_counter()
            try:
                status, headers, _ = server.ask("POST", "/relight", {"job_id": job, **LIGHTS[k % len(LIGHTS)]})
            except OSError as exc:
                faults.append(repr(exc))
                continue
            took = time.perf_counter() - begun
            (served if status == 200 else refused).append(took)
            if status == 503:
                time.sleep(float({k.lower(): v for k, v in headers.items()}["retry-after"]))
            elif status != 200:
                faults.append(status)

    threads = [threading.Thread(target=client, args=(k,)) for k in range(count)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    return served, refused, faults


def load(server, job, count, seconds):
    """Full-size relights from so many clients in four processes.

    (served a second, refusals, probes of /health, faults).
    """
    with ProcessPoolExecutor(4) as pool:
        begun = time.monotonic()
        work = [pool.submit(clients, server.port, job, count // 4, seconds) for _ in range(4)]
        alive, faults = [], []
        while not all(w.done() for w in work):
            for path in ("/health", "/metrics"):
                t0 = time.perf_counter()
                if server.ask("GET", path)[0] != 200:
                    faults.append(path)
                alive.append(time.perf_counter() - t0)
            time.sleep(0.25)
        took = time.monotonic() - begun
    parts = [w.result() for w in work]
    return (
        sum(len(p[0]) for p in parts) / took,
        [t for p in parts for t in p[1]],
        alive,
        faults + [f for p in parts for f in p[2]],
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=15)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        server = Server(Path(folder) / "jobs", threads=2, max_queue=2, decoders=1).wait(120)
        try:
            job = server.upload(pictures()[3])[1]["job_id"]
            server.finished(job)
            load(server, job, 4, 2)
            can, *_ = load(server, job, 4, options.seconds)
            pace, refused, alive, faults = load(server, job, 40, options.seconds)
        finally:
            server.kill()
    print(f"4 clients: {can:.1f} relights a second; 40 clients: {pace:.1f} ({100 * pace / can:.0f} %)")
    print(f"{len(refused)} refusals, median {1000 * statistics.median(refused):.0f} ms" if refused else "no refusals")
    print(
        f"/health and /metrics under overload: median {1000 * statistics.median(alive):.0f} ms, "
        f"worst {1000 * max(alive):.0f} ms"
    )
    print(f"faults: {faults[:5]}")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
