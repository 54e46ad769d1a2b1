"""Several processes over one jobs folder behave as one server."""

import io
import re
import threading
import time

import numpy as np
from fakes import SphereEngine
from fastapi.testclient import TestClient
from filelock import Timeout
from PIL import Image
from serving import Server
from support import encoded, finished, gradient, problem, upload

from server.application import create_app
from server.jobs.sweep import sweep
from server.metrics import Metrics, add_dumps

LIGHT = {"x": -0.5, "y": 0.5, "z": 0.7}


def series(text, name):
    """The sum over all series of a name."""
    return sum(float(v) for v in re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", text, re.M))


def test_four_workers_are_one_server(tmp_path, monkeypatch):
    """The real thing: `uvicorn --workers 4`, every request on a connection of its own, so on any worker."""
    (tmp_path / "count").mkdir()
    monkeypatch.setenv("FAKE_COUNT", str(tmp_path / "count"))
    server = Server(tmp_path / "jobs", seconds=0.3, workers=4, decoders=1, log=tmp_path / "log").wait(120)
    try:
        end = time.monotonic() + 120
        while time.monotonic() < end:
            text = server.ask("GET", "/metrics")[2].decode()
            if series(text, "relight_processes") == 4:
                break
            time.sleep(0.3)
        assert series(text, "relight_processes") == 4
        data, jobs, faults = encoded(gradient(90, 120)), [], []

        def one():
            status, body = server.upload(data)
            if status != 200 or server.ask("POST", "/relight", {"job_id": body["job_id"], **LIGHT})[0] != 200:
                faults.append((status, body))
            jobs.append(body["job_id"])

        threads = [threading.Thread(target=one) for _ in range(8)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        assert not faults
        assert len(list((tmp_path / "count").iterdir())) == 1, "one picture, one analysis, whichever workers took it"
        first, *others = (
            np.array(Image.open(io.BytesIO(server.ask("GET", f"/download/{job}/relit.png")[2]))) for job in jobs
        )
        assert (
            first.shape == (90, 120, 3) and len(others) == 7
        )  # pixels: the same may be compressed in more than one way
        assert all(np.array_equal(first, other) for other in others)
        for _ in range(8):  # by now every worker has it in memory
            assert server.ask("POST", "/preview", {"job_id": jobs[0], **LIGHT})[0] == 200
        assert server.ask("DELETE", f"/job/{jobs[0]}")[0] == 200
        for _ in range(12):
            assert server.ask("POST", "/preview", {"job_id": jobs[0], **LIGHT})[0] == 404
            assert server.ask("GET", f"/download/{jobs[0]}/relit.png")[0] == 404
        time.sleep(1.2)
        for _ in range(6):
            text = server.ask("GET", "/metrics")[2].decode()
            assert (
                series(
                    text,
                    'relight_requests_total{method="POST",route="/upload",status="200"}'.replace("{", r"\{").replace(
                        "}", r"\}"
                    ),
                )
                == 8
            )
            assert series(text, r'relight_request_seconds_count\{route="/upload"\}') == 8
    finally:
        server.stop()


def two(settings, **overrides):
    return [create_app(settings(**overrides), SphereEngine(side=32)) for _ in range(2)]


def test_what_one_deletes_leaves_the_memory_of_the_other(settings):
    first, second = two(settings)
    with TestClient(first) as one, TestClient(second, raise_server_exceptions=False) as other:
        job = upload(one)
        assert other.post("/preview", json={"job_id": job, **LIGHT}).status_code == 200
        assert second.state.service.cache.jobs() == {job}
        assert one.delete(f"/job/{job}").status_code == 200
        problem(other.post("/preview", json={"job_id": job, **LIGHT}), 404, "job_not_found")
        end = time.monotonic() + 10
        while second.state.service.cache.jobs() and time.monotonic() < end:
            time.sleep(0.1)
        assert second.state.service.cache.jobs() == set()


def test_sweep_and_quota_run_one_at_a_time(settings):
    first, second = two(settings)
    with TestClient(first), TestClient(second) as other:
        with first.state.service.processes.sweep_lock(1):
            assert sweep(second.state.service) is False
        assert sweep(second.state.service) is True
        with first.state.service.processes.room_lock(1):
            try:
                second.state.service.processes.room_lock(0.05).acquire()
                raise AssertionError("two took room at once")
            except Timeout:
                pass
        upload(other)


def test_many_uploads_at_once_do_not_pass_the_quota(settings):
    """Two processes, ten clients, room for three.

    What is stored never exceeds the quota by more than the passes of those.
    """
    noise = np.random.default_rng(3).integers(0, 255, (100, 100, 3), np.uint8)
    first, second = two(settings, jobs_quota_bytes=150_000)
    with (
        TestClient(first, raise_server_exceptions=False) as one,
        TestClient(second, raise_server_exceptions=False) as other,
    ):
        for client in (one, other):  # the first request builds routes, and hides warnings from all threads
            assert client.get("/health").status_code == 200
        statuses, most, largest = [], [0], [0]
        done = threading.Event()

        def watch():
            while not done.is_set():
                sizes = [e.size for e in first.state.service.store.list()]
                most[0], largest[0] = max(most[0], sum(sizes)), max([largest[0], *sizes])
                time.sleep(0.005)

        def send(client, k):
            statuses.append(
                client.post("/upload", files={"file": ("a.png", encoded(np.roll(noise, k, 0)))}).status_code
            )

        watcher = threading.Thread(target=watch)
        watcher.start()
        threads = [threading.Thread(target=send, args=((one, other)[k % 2], k)) for k in range(10)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        done.set()
        watcher.join()
        assert set(statuses) <= {200, 503, 507} and 200 in statuses
        assert most[0] < 150_000 + 3 * largest[0]  # the passes of admitted jobs come on top until the next sweep
        assert 10 * largest[0] > 150_000 + 4 * largest[0], "all ten would have had room: nothing was tested"


def test_the_dead_are_known_and_their_numbers_kept(settings):
    first, second = two(settings)
    with TestClient(first) as one:
        with TestClient(second) as other:
            upload(other)
            other.get("/health")
            second.state.service.metrics_exchange.publish_metrics(second.state.metrics.dump())
            assert series(one.get("/metrics").text, "relight_processes") == 2
            before = series(one.get("/metrics").text, "relight_requests_total")
        text = one.get("/metrics").text
        assert series(text, "relight_processes") == 1 and series(text, "relight_requests_total") >= before
        third = create_app(settings(), SphereEngine(side=32))
        with TestClient(third):
            sweep(third.state.service)
            assert series(one.get("/metrics").text, "relight_requests_total") >= before


def test_sums_of_metrics():
    a, b = Metrics(), Metrics()
    for m, n in ((a, 3), (b, 4)):
        for _ in range(n):
            m.requests.labels("GET", "/x", "200").inc()
            m.observe("decode", 0.02)
    text = a.text([(b.dump(), True), (add_dumps([b.dump(), b.dump()]), False)]).decode()
    assert 'relight_requests_total{method="GET",route="/x",status="200"} 15.0' in text
    assert (
        'relight_stage_seconds_bucket{le="0.025",stage="decode"} 15.0' in text
        and 'relight_stage_seconds_count{stage="decode"} 15.0' in text
    )
    buckets = re.findall(r'relight_stage_seconds_bucket\{le="([^"]+)"', text)
    assert buckets == sorted(buckets, key=float)


def test_starting_workers_never_takes_the_mark_of_another(settings):
    """A sweep beside processes that are just being born: all of them live, and are seen to live."""
    from server.jobs.processes import ProcessRegistry

    app = create_app(settings(), SphereEngine(side=32))
    with TestClient(app):
        stop, stores, faults = threading.Event(), [], []

        def look():
            while not stop.is_set():
                app.state.service.store.clean()

        looker = threading.Thread(target=look)
        looker.start()
        try:
            for _ in range(60):
                try:
                    stores.append(ProcessRegistry(settings().jobs_dir))
                except Timeout as exc:
                    faults.append(repr(exc))
        finally:
            stop.set()
            looker.join()
        assert not faults
        assert all(app.state.service.processes.is_alive(s.worker) for s in stores)
        for s in stores:
            s.close()
        assert not any(app.state.service.processes.is_alive(s.worker) for s in stores)


def test_a_job_begun_by_a_dead_process_is_taken_up_by_a_living_one(settings):
    app = create_app(settings(), SphereEngine(side=32))
    with TestClient(app) as client:
        job = upload(client)
        finished(client, job)
        service = app.state.service
        from server.jobs.record import ANALYSING, load_record, save_record

        record = load_record(service.store, job)
        record.state, record.stage, record.worker = ANALYSING, "estimating", "0" * 32
        save_record(service.store, record)
        sweep(service)
        assert finished(client, job)["state"] == "ready"


def test_of_the_previews_of_a_stream_that_wait_in_two_processes_only_the_newest_is_made(settings):
    from fakes import Gated

    engine = Gated(side=32)
    apps = [create_app(settings(), engine) for _ in range(2)]
    with (
        TestClient(apps[0], raise_server_exceptions=False) as one,
        TestClient(apps[1], raise_server_exceptions=False) as other,
    ):
        job = upload(one)
        answers = {}

        def ask(client, name, stream):
            answers[name] = client.post("/preview", json={"job_id": job, **LIGHT, "stream": stream}).status_code

        threads = []
        for client, name, stream in ((one, "old", "a"), (other, "new", "a"), (other, "else", "b"), (one, "third", "c")):
            threads.append(threading.Thread(target=ask, args=(client, name, stream)))
            threads[-1].start()
            time.sleep(0.3)
        engine.open.set()
        for t in threads:
            t.join()
        assert answers == {"old": 409, "new": 200, "else": 200, "third": 200}
