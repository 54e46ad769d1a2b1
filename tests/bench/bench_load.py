"""Overload: ten times the clients a server can serve. Refusals must be quick, admitted work must keep its pace, /health must answer.

`python tests/bench/bench_load.py [--seconds 15]`. Figures are of this machine; what counts are the ratios.
"""

import argparse
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
for folder in (HERE.parent / "trust", HERE.parent, HERE.parent.parent):
    sys.path.insert(0, str(folder))

from chaos import LIGHTS, pictures  # noqa: E402
from serving import Server  # noqa: E402


def load(server, job, clients, seconds):
    """Full-size relights from so many clients: (served a second, [seconds of each refusal], faults)."""
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
            if status == 200:
                served.append(took)
            elif status == 503 and "Retry-After" in headers or status == 503 and "retry-after" in headers:
                refused.append(took)
                time.sleep(0.2)  # Retry-After says a second; these are ruder
            else:
                faults.append(status)

    threads = [threading.Thread(target=client, args=(k,)) for k in range(clients)]
    begun = time.monotonic()
    for t in threads:
        t.start()
    alive = []
    while any(t.is_alive() for t in threads):
        t0 = time.perf_counter()
        for path in ("/health", "/metrics"):
            if server.ask("GET", path)[0] != 200:
                faults.append(path)
        alive.append((time.perf_counter() - t0) / 2)
        time.sleep(0.25)
    return len(served) / (time.monotonic() - begun), refused, alive, faults


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=15)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        server = Server(Path(folder) / "jobs", threads=2, max_queue=2, decoders=1).wait(120)
        try:
            job = server.upload(pictures()[3])[1]["job_id"]
            server.finished(job)
            load(server, job, 2, 2)
            can, *_ = load(server, job, 4, options.seconds)
            pace, refused, alive, faults = load(server, job, 40, options.seconds)
        finally:
            server.kill()
    print(f"4 clients: {can:.1f} relights a second; 40 clients: {pace:.1f} ({100 * pace / can:.0f} %)")
    print(f"{len(refused)} refusals, median {1000 * statistics.median(refused):.0f} ms" if refused else "no refusals")
    print(f"/health and /metrics under overload: median {1000 * statistics.median(alive):.0f} ms, worst {1000 * max(alive):.0f} ms")
    print(f"faults: {faults[:5]}")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
