"""The server on Ray Serve over S3: what is lost when parts of it are killed, how soon it is whole, what it costs.

    python tests/cluster.py [--parts faults,throughput] [--seconds 10]      # make cluster, in an environment with Ray

Two replicas answer, one analyses, SeaweedFS keeps the jobs behind a gate that can be closed. Clients do one thing after
the other and remember what was promised. The engine is analytic, so that the network's time hides nothing. Seconds are
of this machine; what counts are the ratios.
"""

import argparse
import http.client
import json
import os
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import s3
from chaos import LIGHTS, Client, Truth, check, pictures
from serving import ROOT, Server, free_port

WEB, ANALYSIS, PROXY = "ray::ServeReplica:relight:web", "ray::ServeReplica:relight:analysis", "ray::ProxyActor"
SERVER = re.compile("ray::ServeReplica|.*uvicorn|.*decoder_process|.*multiprocessing")
SETTINGS = {"lease_seconds": "3", "sweep_seconds": "2", "decoders": "1", "log_level": "warning"}
CUT = (OSError, EOFError, http.client.HTTPException)
FEWER = signal.SIGUSR1  # the cluster takes one replica away
CLIENTS, JOBS, AWAY, IDLE = 4, 8, 8.0, 5.0
PATIENCE = 180  # seconds until everything has to be whole again


def environment(bucket, port, **settings):
    """What servers over that bucket are started with."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("RELIGHT_", "AWS_", "RAY_"))}
    given = {"store": f"s3://{bucket}", **SETTINGS, **settings}
    return {
        **kept,
        **s3.environment(port),
        **{f"RELIGHT_{k.upper()}": v for k, v in given.items()},
        "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}",
        "FAKE_SECONDS": "0.05",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "server.cluster:proxy",
        "RAY_USAGE_STATS_ENABLED": "0",
    }


def serve(port, replicas):
    """The cluster, in the process that this is called in, until it is stopped."""
    import ray
    from ray import serve as ray_serve

    from server.cluster import Arguments, app

    def deploy(count):
        arguments = Arguments(replicas=count, max_replicas=count, max_analysts=1, engine="serving:engine")
        ray_serve.run(app(arguments), name="relight")

    wanted = []
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    signal.signal(FEWER, lambda *_: wanted.append(replicas - 1))
    with tempfile.TemporaryDirectory(prefix="ray-") as folder:
        ray.init(num_cpus=8, include_dashboard=False, object_store_memory=100 * 2**20, _temp_dir=folder)
        ray_serve.start(http_options={"host": "127.0.0.1", "port": port})
        deploy(replicas)
        while True:
            time.sleep(0.2)
            if wanted:
                deploy(wanted.pop())


def tree(pid):
    """That process and all that descend from it: pid -> command line."""
    parents, commands = {}, {}
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit():
                parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                commands[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
        except OSError:
            pass  # it has ended
    found, more = {pid}, True
    while more:
        more = {p for p, parent in parents.items() if parent in found} - found
        found |= more
    return {p: commands[p] for p in found if p in commands}


def processor_seconds(pid):
    """That the processes of a tree have used: the replicas or workers, Ray's proxy, and the rest."""
    used = Counter()
    for p, command in tree(pid).items():
        try:
            fields = Path(f"/proc/{p}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        kind = "server" if SERVER.match(command) else "proxy" if command.startswith(PROXY) else "rest"
        used[kind] += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return used


class Watched(Server):
    """A server whose answers are all looked at: what is not as promised is a fault."""

    def __init__(self, command, env, port, log):
        self.port, self.counts, self.faults = port, Counter(), []
        with open(log, "ab") as out:
            self.process = subprocess.Popen(command, env=env, stdout=out, stderr=out, start_new_session=True, cwd=ROOT)

    def ask(self, method, path, body=None, headers=None, timeout=60):
        """As Server does."""
        try:
            status, headers, data = super().ask(method, path, body, headers, timeout)
        except CUT:
            self.counts["cut"] += 1
            raise
        self.counts[status] += 1
        told = {k.lower(): v for k, v in headers.items()}
        if status == 503 and not told.get("retry-after", "").isdigit():
            self.faults.append(f"{method} {path}: 503 without Retry-After")
        if status >= 400 and told.get("content-type") != "application/problem+json":
            self.faults.append(f"{method} {path}: {status} {told.get('content-type')} {data[:80]!r}")
        elif status >= 400 and told.get("x-request-id") != json.loads(data)["request_id"]:
            self.faults.append(f"{method} {path}: {status} under two ids")
        return status, headers, data

    def pids(self, kind):
        """Of the processes of a kind."""
        return [p for p, command in tree(self.process.pid).items() if command.startswith(kind)]

    def close(self):
        """Stop it, and all that descends from it."""
        everything = tree(self.process.pid)
        self.process.terminate()
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for p, command in everything.items():
            if Path(f"/proc/{p}/cmdline").exists() and tree(p).get(p, "").split(" ")[0] == command.split(" ")[0]:
                os.kill(p, signal.SIGKILL)


class Cluster(Watched):
    """Ray Serve, in a process of its own and those that it starts."""

    def __init__(self, replicas, env, log):
        port = free_port()
        super().__init__([sys.executable, __file__, "--serve", str(port), "--replicas", str(replicas)], env, port, log)


class Workers(Watched):
    """Plain uvicorn."""

    def __init__(self, workers, env, log):
        port = free_port()
        what = ["--factory", "serving:build", "--port", str(port), "--workers", str(workers)]
        super().__init__([sys.executable, "-m", "uvicorn", *what], env, port, log)


def until(what, seconds=PATIENCE, every=0.1):
    """Wait until `what()` is true; returns the seconds that took."""
    begun = time.monotonic()
    while time.monotonic() < begun + seconds:
        try:
            if what():
                return time.monotonic() - begun
        except CUT:
            pass
        time.sleep(every)
    raise AssertionError(f"not after {seconds} s: {what}")


def up(server):
    """Wait until it answers; returns it."""
    until(lambda: server.ask("GET", "/ready")[0] == 200)
    server.counts.clear()
    server.faults.clear()
    return server


class Persistent(Client):
    """A client who goes on when it is cut off, and waits when it is asked to."""

    def __init__(self, server, seed, files, truth, jobs, over):
        super().__init__(server, seed, files, truth, jobs)
        self.over = over

    def run(self):
        """Until it is over."""
        while not self.over.is_set():
            try:
                for job_id in [j for j, job in self.jobs.items() if job["deleting"]]:
                    self.settle(job_id)  # whether it was deleted was not told
                self.step()
                self.done += 1
            except CUT:
                time.sleep(0.2)
            except Exception as exc:
                self.faults.append(f"{type(exc).__name__}: {exc}")

    def settle(self, job_id):
        """Find out whether a job is still there."""
        status = self.server.ask("GET", f"/job/{job_id}")[0]
        if status == 404:
            del self.jobs[job_id]
        elif status == 200:
            self.jobs[job_id]["deleting"] = False

    def expect(self, status, what):
        """As Client does, after waiting where that was asked."""
        if status == 503:
            time.sleep(0.2)
        return super().expect(status, what)


class Probe(threading.Thread):
    """Asks for previews of one job again and again, and notes when that failed."""

    def __init__(self, server, job_id):
        super().__init__(daemon=True)
        self.server, self.body = server, {"job_id": job_id, **LIGHTS[0], "max_side": 64}
        self.failed, self.over = [], threading.Event()

    def run(self):
        """Until it is over."""
        while not self.over.wait(0.05):
            try:
                good = self.server.ask("POST", "/preview", self.body, timeout=10)[0] == 200
            except CUT:
                good = False
            if not good:
                self.failed.append(time.monotonic())


def event(server, truth, files, name, act, whole, say):
    """Let something happen under load, wait until all is whole again, and look whether what was promised is there."""
    over, ledgers, faults = threading.Event(), [{} for _ in range(CLIENTS)], []
    job = server.upload(files[0])[1]["job_id"]
    server.finished(job)
    probe = Probe(server, job)
    clients = [Persistent(server, k, files, truth, ledger, over) for k, ledger in enumerate(ledgers)]
    for thread in (probe, *clients):
        thread.start()
    until(lambda: all(c.done >= 3 for c in clients))
    server.counts.clear()
    begun = time.monotonic()
    act()
    ended = time.monotonic()
    took = until(whole) + ended - begun
    time.sleep(3)
    over.set()
    probe.over.set()
    for thread in (probe, *clients):
        thread.join(120)
    for client in clients:
        faults += client.faults
    counts = dict(server.counts)
    for ledger in ledgers:
        faults += check(server, truth, ledger)
    faults += server.faults
    server.faults.clear()
    last = max(probe.failed, default=begun) - begun
    kept = sum(map(len, ledgers))
    say(
        f"{name}: previews fail until {last:.1f} s after it, all is whole after {took:.1f} s; answers {counts}; "
        f"{kept} jobs promised, {len(faults)} faults"
    )
    return faults


def kill(server, kind):
    """kill -9 of one of them; returns what tells whether there are as many again, and other ones."""
    pids = server.pids(kind)
    os.kill(pids[0], signal.SIGKILL)
    return lambda: len(server.pids(kind)) == len(pids) and pids[0] not in server.pids(kind)


def faults_part(folder, bucket, store, say):
    """Kill what can be killed; returns the faults."""
    gate = s3.Gate(store)
    server = Cluster(2, environment(bucket, gate.port), folder / "cluster.log")
    files, faults = pictures(), []
    try:
        begun = time.monotonic()
        up(server)
        say(f"serving after {time.monotonic() - begun:.0f} s")
        truth = Truth(server, files)
        for name, kind in (("kill -9 of a replica", WEB), ("of the analyst", ANALYSIS), ("of the proxy", PROXY)):
            state = {}

            def act(kind=kind, state=state):
                state["whole"] = kill(server, kind)

            def whole(state=state):
                return state["whole"]() and server.ask("GET", "/ready")[0] == 200

            faults += event(server, truth, files, name, act, whole, say)

        def away():
            gate.close()
            time.sleep(AWAY)
            gate.open()

        def fewer():
            os.kill(server.process.pid, FEWER)

        faults += event(server, truth, files, f"the store away for {AWAY:.0f} s", away, lambda: True, say)
        name = "a replica taken away"
        faults += event(server, truth, files, name, fewer, lambda: len(server.pids(WEB)) == 1, say)
    finally:
        server.close()
        gate.close()
    return faults


def load(server, clients, seconds):
    """Previews as fast as they come: how many a second, processor seconds of each by kind of process, the median wait.

    Also, how many processors are busy when nobody asks.
    """
    waits, jobs, end = [], [server.upload(pictures()[3])[1]["job_id"] for _ in range(JOBS)], None
    for job in jobs:
        server.finished(job)

    def client(k):
        rng = random.Random(k)
        while time.monotonic() < end:
            begun = time.perf_counter()
            body = {"job_id": jobs[k % len(jobs)], **rng.choice(LIGHTS), "max_side": 512}
            if server.ask("POST", "/preview", body)[0] == 200:
                waits.append(time.perf_counter() - begun)

    def measured(act):
        before, begun = processor_seconds(server.process.pid), time.monotonic()
        act()
        return processor_seconds(server.process.pid) - before, time.monotonic() - begun

    def round_of(length):
        nonlocal end
        waits.clear()
        end = time.monotonic() + length
        threads = [threading.Thread(target=client, args=(k,)) for k in range(clients)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()

    round_of(2)
    time.sleep(2)
    idle, quiet = measured(lambda: time.sleep(IDLE))
    used, took = measured(lambda: round_of(seconds))
    each = {kind: value / max(len(waits), 1) for kind, value in used.items()}
    return len(waits) / took, each, statistics.median(waits), sum(idle.values()) / quiet


def throughput_part(folder, bucket, store, seconds, say):
    """One and two replicas beside uvicorn with as many workers, over the same store."""
    for count in (1, 2):
        found = {}
        for kind, name in ((Workers, "worker"), (Cluster, "replica")):
            prefix = f"{bucket}/{name}-{count}"
            server = kind(count, environment(prefix, store, sweep_seconds="60"), folder / f"{name}.log")
            try:
                found[name] = pace, each, wait, idle = load(up(server), 8, seconds)
            finally:
                server.close()
            parts = ", ".join(f"{k} {1e3 * v:.1f}" for k, v in sorted(each.items()))
            say(
                f"{count} {name + 's' * (count > 1):8s} {pace:6.1f} previews a second, {1 / sum(each.values()):4.0f} a "
                f"core and second; ms of processor each: {parts}; median wait {1e3 * wait:.0f} ms; "
                f"idle: {idle:.2f} processors"
            )
        (plain, cheap, *_), (ray, dear, *_) = found["worker"], found["replica"]
        ratio = sum(dear.values()) / sum(cheap.values())
        say(f"  Ray Serve: {ray / plain:.2f} x as many, {ratio:.2f} x the processor time")
    return []


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default="faults,throughput")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--serve", type=int, metavar="PORT", help=argparse.SUPPRESS)
    parser.add_argument("--replicas", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve, options.replicas)
        return 0

    def say(text):
        print(text, flush=True)

    faults = []
    with tempfile.TemporaryDirectory() as folder, s3.seaweed(Path(folder) / "store") as store:
        folder, bucket = Path(folder), s3.new_bucket(store.port)
        try:
            if "faults" in options.parts:
                faults += faults_part(folder, f"{bucket}/chaos", store.port, say)
            if "throughput" in options.parts:
                faults += throughput_part(folder, bucket, store.port, options.seconds, say)
        except BaseException:
            for log in folder.glob("*.log"):
                print(log.name, log.read_text()[-6000:], file=sys.stderr)
            raise
    say("\n".join(faults[:20]) or "nothing lost, no error but 503 with Retry-After")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
