"""Servers that have nothing in common but a bucket behave as one; and what is promised of a folder holds for it."""

import io
import threading
import time

import numpy as np
import pytest
import s3
import test_keys
import test_privacy
import test_workers
from fakes import SphereEngine
from fastapi.testclient import TestClient
from PIL import Image
from serving import Server
from support import encoded, finished, gradient, upload

from server.application import create_app
from server.jobs.leases import LeasedProcesses
from server.settings import load

LIGHT = {"x": -0.5, "y": 0.5, "z": 0.7}
LEASE = 1


@pytest.fixture
def settings(tmp_path, bucket):
    """Settings over a bucket; call with overrides."""

    def make(**overrides):
        mine = {"store": bucket, "lease_seconds": LEASE, "log_level": "warning", "sweep_seconds": 3600, "decoders": 0}
        return load(**{"jobs_dir": tmp_path / "unused", **mine, **overrides})

    return make


keyed = test_keys.keyed
test_a_job_belongs_to_its_key = test_keys.test_a_job_belongs_to_its_key
test_the_light_of_anothers_photo = test_keys.test_the_light_of_anothers_photo_is_not_to_be_had
test_an_environment_counts_to_its_key = test_keys.test_an_environment_counts_to_its_key
test_sweep_and_quota_run_one_at_a_time = test_workers.test_sweep_and_quota_run_one_at_a_time
test_many_uploads_at_once_do_not_pass_the_quota = test_workers.test_many_uploads_at_once_do_not_pass_the_quota


def test_only_the_newest_preview_of_a_stream_is_made(settings, monkeypatch):
    monkeypatch.setattr(LeasedProcesses, "is_alone", lambda self: False)  # as both find out within a quarter of a lease
    test_workers.test_of_the_previews_of_a_stream_that_wait_in_two_processes_only_the_newest_is_made(settings)


def two(tmp_path, bucket, **options):
    given = {"store": bucket, "lease_seconds": LEASE, "decoders": 0, "sweep_seconds": 1, **options}
    return [Server(tmp_path / f"unused-{k}", log=tmp_path / f"log-{k}", **given) for k in range(2)]


def pixels(data):
    return np.array(Image.open(io.BytesIO(data)))


def test_from_upload_to_delete_by_whichever_server(tmp_path, bucket, monkeypatch):
    (tmp_path / "count").mkdir()
    monkeypatch.setenv("FAKE_COUNT", str(tmp_path / "count"))
    one, other = servers = two(tmp_path, bucket, seconds=0.3)
    try:
        for server in servers:
            server.wait()
        data, jobs, faults = encoded(gradient(90, 120)), [], []

        def work(server):
            status, body = server.upload(data)
            if status != 200 or server.ask("POST", "/relight", {"job_id": body["job_id"], **LIGHT})[0] != 200:
                faults.append((status, body))
            jobs.append(body["job_id"])

        threads = [threading.Thread(target=work, args=(servers[k % 2],)) for k in range(6)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        assert not faults
        assert len(list((tmp_path / "count").iterdir())) == 1, "one picture, one analysis, wherever it was taken"
        pictures = [pixels(servers[k % 2].ask("GET", f"/download/{job}/relit.png")[2]) for k, job in enumerate(jobs)]
        assert pictures[0].shape == (90, 120, 3) and all(np.array_equal(pictures[0], p) for p in pictures[1:])
        job = jobs[0]
        for k, light in enumerate((LIGHT, {"x": 1, "y": 0, "z": 0.3}) * 2):  # what one lit is what the other hands out
            assert servers[k % 2].ask("POST", "/relight", {"job_id": job, **light})[0] == 200
            found = [server.ask("GET", f"/download/{job}/relit.png") for server in servers]
            assert found[0][1]["etag"] == found[1][1]["etag"] and found[0][2] == found[1][2]
            assert np.array_equal(pixels(found[0][2]), pictures[0]) == (light == LIGHT)
        for server in servers:
            assert server.ask("POST", "/preview", {"job_id": job, **LIGHT})[0] == 200
            head = server.ask("HEAD", f"/download/{job}/relit.png")
            assert head[0] == 200 and int(head[1]["content-length"]) == len(found[0][2])
            part = server.ask("GET", f"/download/{job}/relit.png", headers={"Range": "bytes=10-19"})
            assert part[0] == 206 and part[2] == found[0][2][10:20]
            known = server.ask("GET", f"/download/{job}/relit.png", headers={"If-None-Match": head[1]["etag"]})
            assert known[0] == 304
            for name in ("passes.zip", "passes.exr", "relit16.png", "sheet.jpg", "depth.png", "albedo.png"):
                assert server.ask("GET", f"/download/{job}/{name}")[0] == 200, name
            assert server.ask("GET", f"/job/{job}/maps")[0] == 200
        assert one.ask("DELETE", f"/job/{job}")[0] == 200
        for _ in range(4):
            assert other.ask("POST", "/preview", {"job_id": job, **LIGHT})[0] == 404
            assert other.ask("GET", f"/download/{job}/relit.png")[0] == 404
        assert other.ask("DELETE", f"/job/{job}")[0] == 404
    finally:
        codes = [server.stop() for server in servers]
    assert set(codes) <= {0, -15}
    logs = "".join((tmp_path / f"log-{k}").read_text() for k in range(2))
    assert "Traceback" not in logs and s3.SECRET not in logs and s3.KEY not in logs
    assert not any((tmp_path / f"unused-{k}").exists() for k in range(2))


def test_what_one_server_leaves_undone_another_does(tmp_path, bucket):
    one, other = servers = two(tmp_path, bucket, seconds=2)
    try:
        for server in servers:
            server.wait()
        job = one.upload(encoded(gradient()))[1]["job_id"]
        one.kill()
        state = other.finished(job)
        assert state["state"] == "ready"
    finally:
        one.kill()
        other.stop()


def test_delete_removes_everything(settings, bucket):
    with TestClient(create_app(settings(), SphereEngine(side=32))) as client:
        service = client.app.state.service
        first, second = upload(client), upload(client)
        for job in (first, second):
            finished(client, job)
            for k in range(2):
                assert client.post("/relight", json={"job_id": job, **LIGHT}).status_code == 200
            assert client.get(f"/download/{job}/relit16.png").status_code == 200
        for job in (first, second):
            assert client.delete(f"/job/{job}").status_code == 200
        objects = service.store.bucket
        assert objects.list("jobs") == [] and objects.list("analyses") == []
        assert service.cache.jobs() == set()
    assert objects.list("workers") == []


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_nothing_of_the_maker_is_in_the_bucket(settings, kind):
    data = test_privacy.tagged(kind)
    with TestClient(create_app(settings(), SphereEngine(side=32))) as client:
        job = upload(client, data, name=f"{test_privacy.SECRET.decode()}.jpg")
        finished(client, job)
        assert client.post("/relight", json={"job_id": job, **LIGHT}).status_code == 200
        objects = client.app.state.service.store.bucket
        everything = [e.path for folder in ("jobs", "analyses", "workers", "locks") for e in objects.list(folder)]
        assert len(everything) > 5
        for path in everything:
            assert test_privacy.SECRET not in objects.get(path) and test_privacy.SECRET.decode() not in path


def test_no_key_is_in_the_bucket(keyed):
    job = upload(keyed, headers=test_keys.auth(test_keys.ONE))
    finished(keyed, job, headers=test_keys.auth(test_keys.ONE))
    objects = keyed.app.state.service.store.bucket
    written = b"".join(objects.get(e.path) for folder in ("jobs", "workers", "locks") for e in objects.list(folder))
    assert written and test_keys.ONE.encode() not in written


def test_the_numbers_of_all_servers_add_up(settings):
    apps = [create_app(settings(), SphereEngine(side=32)) for _ in range(2)]
    with TestClient(apps[0]) as one:
        with TestClient(apps[1]) as other:
            upload(other)
            apps[1].state.service.metrics_exchange.publish_metrics(apps[1].state.metrics.dump())
            text = one.get("/metrics").text
            assert test_workers.series(text, "relight_processes") == 2
            before = test_workers.series(text, "relight_requests_total")
        end = time.monotonic() + 5
        while test_workers.series(text := one.get("/metrics").text, "relight_processes") != 1:
            assert time.monotonic() < end
        assert test_workers.series(text, "relight_requests_total") >= before - 1


def test_the_store_away_for_a_while(tmp_path, servers, bucket, monkeypatch):
    """503 with Retry-After while it is, at once; afterwards everything that was acknowledged is there, and goes on."""
    gate = s3.Gate(servers("seaweed")[0])
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{gate.port}")
    server = Server(tmp_path / "unused", seconds=1, store=bucket, lease_seconds=2, decoders=0, log=tmp_path / "log")
    try:
        server.wait()
        done = server.upload(encoded(gradient()))[1]["job_id"]
        assert server.finished(done)["state"] == "ready"
        assert server.ask("POST", "/relight", {"job_id": done, **LIGHT})[0] == 200
        before = server.ask("GET", f"/download/{done}/relit.png")[2]
        begun = server.upload(encoded(gradient(50, 50)))[1]["job_id"]  # its analysis is under way
        gate.close()
        end, answers, slowest = time.monotonic() + AWAY, [], 0.0
        while time.monotonic() < end:
            for method, path, body in (
                ("GET", f"/job/{done}", None),
                ("GET", f"/download/{done}/relit.png", None),
                ("POST", "/relight", {"job_id": done, **LIGHT}),
                ("POST", "/preview", {"job_id": done, **LIGHT}),
                ("DELETE", f"/job/{done}", None),
            ):
                start = time.monotonic()
                status, headers, data = server.ask(method, path, body)
                slowest = max(slowest, time.monotonic() - start)
                answers.append((status, headers.get("retry-after"), b'"overloaded"' in data))
            answers.append((server.upload(encoded(gradient(40, 40)))[0], "5", True))
            assert server.ask("GET", "/health")[0] == 200
        assert set(answers) == {(503, "5", True)}, set(answers)
        gate.open()
        assert server.finished(begun)["state"] == "ready"
        assert server.ask("GET", f"/download/{done}/relit.png")[2] == before
        assert server.ask("POST", "/relight", {"job_id": begun, **LIGHT})[0] == 200
    finally:
        server.stop()
    log = (tmp_path / "log").read_text()
    assert "Traceback" not in log and "the store answers again" in log and s3.SECRET not in log


AWAY = 10  # seconds
