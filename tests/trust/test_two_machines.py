"""Servers that have nothing in common but a bucket behave as one; and what is promised of a folder holds for it."""

import errno
import io
import logging
import os
import re
import signal
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import chaos
import numpy as np
import pytest
import s3
import test_keys
import test_privacy
import test_workers
import trust_tools
from fakes import SphereEngine
from fastapi.testclient import TestClient
from PIL import Image
from serving import Server
from support import encoded, finished, gradient, local_store, problem, upload

from server import cli
from server.application import create_app
from server.errors import StoreAway
from server.jobs import migrate
from server.jobs.base import JobFile
from server.jobs.bucket import Bucket
from server.jobs.leases import LeasedProcesses
from server.jobs.object_store import ObjectStore
from server.jobs.record import Record
from server.jobs.store import LocalStore
from server.jobs.sweep import sweep
from server.settings import load

LIGHT = {"x": -0.5, "y": 0.5, "z": 0.7}
LEASE = 1
AWAY = float(os.environ.get("AWAY_SECONDS", 4))


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


def hands_out_everything(server, job, relit):
    assert server.ask("POST", "/preview", {"job_id": job, **LIGHT})[0] == 200
    head = server.ask("HEAD", f"/download/{job}/relit.png")
    assert head[0] == 200 and int(head[1]["content-length"]) == len(relit)
    part = server.ask("GET", f"/download/{job}/relit.png", headers={"Range": "bytes=10-19"})
    assert part[0] == 206 and part[2] == relit[10:20]
    known = server.ask("GET", f"/download/{job}/relit.png", headers={"If-None-Match": head[1]["etag"]})
    assert known[0] == 304
    for name in ("passes.zip", "passes.exr", "relit16.png", "sheet.jpg", "depth.png", "albedo.png", "scene.glb"):
        assert server.ask("GET", f"/download/{job}/{name}")[0] == 200, name
    assert server.ask("GET", f"/job/{job}/maps")[0] == 200


def know_each_others_masks(servers, job):
    drawn = encoded(np.uint8(np.arange(90 * 120).reshape(90, 120) % 251))
    for k in range(4):
        assert servers[k % 2].ask("PUT", f"/job/{job}/mask/m{k}", drawn)[0] == 200
    for server in servers:
        assert server.json("GET", f"/job/{job}")[1]["masks"] == ["m0", "m1", "m2", "m3"]
        assert server.ask("GET", f"/job/{job}/mask/m1")[0] == 200
        assert server.ask("POST", "/preview", {"job_id": job, **LIGHT, "mask": "m2"})[0] == 200


def show_each_others_motions(servers, job):
    order = {"job_id": job, "orbit": {"turns": 1, "elevation": 20}, "frames": 4, "max_side": 64}
    assert servers[0].ask("POST", "/animate", order)[0] == 202
    status, again = servers[1].json("POST", "/animate", order)
    assert status == 202 or again["code"] == "motion_busy"
    end = time.monotonic() + 30
    while (state := servers[1].json("GET", f"/job/{job}")[1]["motion"]["state"]) != "ready":
        assert state == "rendering" and time.monotonic() < end
        time.sleep(0.1)
    found = [server.ask("GET", f"/download/{job}/motion.webp") for server in servers]
    assert found[0][0] == 200 and found[0][2] == found[1][2]
    assert servers[0].ask("DELETE", f"/job/{job}/motion")[0] == 200
    assert servers[1].json("GET", f"/job/{job}")[1]["motion"] is None


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
            hands_out_everything(server, job, found[0][2])
        know_each_others_masks(servers, job)
        show_each_others_motions(servers, job)
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


def test_a_server_that_is_held_up_is_no_danger(tmp_path, bucket):
    """It stands still in the middle of an analysis, for longer than its lease; another takes over; then it goes on."""
    one, other = servers = two(tmp_path, bucket, seconds=1.5)
    try:
        for server in servers:
            server.wait()
        job = one.upload(encoded(gradient()))[1]["job_id"]
        while one.json("GET", f"/job/{job}")[1]["stage"] != "estimating":
            time.sleep(0.02)
        os.kill(one.process.pid, signal.SIGSTOP)
        state = other.finished(job)
        assert state["state"] == "ready"
        os.kill(one.process.pid, signal.SIGCONT)
        end = time.monotonic() + 20
        while "took its analysis over" not in (tmp_path / "log-0").read_text():
            assert time.monotonic() < end
            assert one.json("GET", f"/job/{job}")[1] == other.json("GET", f"/job/{job}")[1] == state
            time.sleep(0.1)
        assert one.json("GET", f"/job/{job}")[1] == state
        assert one.ask("POST", "/relight", {"job_id": job, **LIGHT})[0] == 200
    finally:
        for server in servers:
            server.stop()


def test_delete_removes_everything(settings, bucket):
    with TestClient(create_app(settings(), SphereEngine(side=32))) as client:
        service = client.app.state.service
        first, second = upload(client), upload(client)
        for job in (first, second):
            finished(client, job)
            for _ in range(2):
                assert client.post("/relight", json={"job_id": job, **LIGHT}).status_code == 200
            assert client.get(f"/download/{job}/relit16.png").status_code == 200
        for job in (first, second):
            assert client.delete(f"/job/{job}").status_code == 200
        objects = service.store.bucket
        assert objects.list("jobs") == [] and objects.list("analyses") == []
        assert service.cache.jobs() == set()
    assert objects.list("workers") == []


def test_nothing_of_the_maker_is_in_the_bucket(settings):
    data = test_privacy.tagged("JPEG")
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


def test_kill_9_of_one_of_two_servers(tmp_path, bucket, capsys):
    faults, figures = chaos.run(int(os.environ.get("BUCKET_KILLS", 2)), 8, tmp_path / "unused", store=bucket)
    trust_tools.say(capsys, str(figures))
    assert not faults, "\n".join(faults)
    assert figures["requests"] > 0


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


# -- downloads from the store itself


def test_a_direct_download_comes_from_the_store(settings, caplog, monkeypatch):
    import httpx

    caplog.set_level("DEBUG")
    app = create_app(settings(direct_downloads=True, log_level="debug"), SphereEngine(side=32))
    monkeypatch.setattr(logging.getLogger("relight"), "propagate", True)
    with TestClient(app) as client:
        job = upload(client)
        finished(client, job)
        assert client.post("/relight", json={"job_id": job, **LIGHT}).status_code == 200
        for name, kind, how in (
            ("relit.png", "image/png", "inline"),
            ("depth.png", "image/png", "inline"),
            ("sheet.jpg", "image/jpeg", "inline"),
            ("passes.exr", "image/x-exr", "attachment"),
        ):
            address = f"/download/{job}/{name}"
            answer = client.get(f"{address}?direct=1", follow_redirects=False)
            assert answer.status_code == 307 and answer.headers["cache-control"] == "no-store" and not answer.content
            url = answer.headers["location"]
            assert 0 < int(re.search(r"X-Amz-Expires=(\d+)", url)[1]) <= 60
            streamed, sent = client.get(address), httpx.get(url)
            assert sent.status_code == 200 and sent.content == streamed.content
            assert sent.headers["content-type"] == streamed.headers["content-type"] == kind
            assert sent.headers["content-disposition"] == f'{how}; filename="{name}"'
            assert streamed.headers["content-disposition"] == sent.headers["content-disposition"]
            forged = f"{url}&response-content-type=text/html&response-content-disposition=inline"
            assert httpx.get(forged).status_code == 403, "type and disposition are part of what is signed"
            assert httpx.get(url.replace(name, "input.png")).status_code == 403
            etag = streamed.headers["etag"]
            assert client.get(f"{address}?direct=1", headers={"If-None-Match": etag}).status_code == 304
            part = httpx.get(url, headers={"Range": "bytes=3-9"})
            assert part.status_code == 206 and part.content == streamed.content[3:10]
            head = client.head(f"{address}?direct=1", follow_redirects=False)
            assert head.status_code == 200 and int(head.headers["content-length"]) == len(streamed.content)
        archive = client.get(f"/download/{job}/passes.zip?direct=1", follow_redirects=False)
        assert archive.status_code == 200 and archive.content[:2] == b"PK"
        problem(client.get("/download/no/relit.png?direct=1", follow_redirects=False), 404, "job_not_found")
        problem(client.get(f"/download/{job}/relit.png?direct=perhaps"), 422, "invalid_request")
        assert client.delete(f"/job/{job}").status_code == 200
        problem(client.get(f"/download/{job}/relit.png?direct=1"), 404, "job_not_found")
        assert httpx.get(url).status_code == 404, "what is deleted is gone from there too"
    ours = "\n".join(r.getMessage() for r in caplog.records if not r.name.startswith(("httpx", "httpcore")))
    assert f"job={job}" in ours and "X-Amz" not in ours and "Signature" not in ours


@pytest.mark.parametrize("overrides", [{}, {"direct_downloads": True, "store": "memory://"}], ids=["off", "memory"])
def test_without_the_setting_or_the_means_the_server_sends_it(settings, overrides):
    with TestClient(create_app(settings(**overrides), SphereEngine(side=32))) as client:
        job = upload(client)
        finished(client, job)
        answer = client.get(f"/download/{job}/input.png?direct=1", follow_redirects=False)
        assert answer.status_code == 200 and answer.content == client.get(f"/download/{job}/input.png").content


# -- the sweep


def swept(client, monkeypatch, away=()):
    """Sweep once; returns what was listed and which jobs were read. `away`: what cannot be read meanwhile."""
    service, listed, read = client.app.state.service, [], []
    listing, finding = Bucket.list, Bucket.find

    def find(self, path):
        read.append(path)
        if path.startswith(away):
            raise StoreAway()
        return finding(self, path)

    with monkeypatch.context() as patch:
        patch.setattr(Bucket, "list", lambda self, folder: [listed.append(folder), listing(self, folder)][1])
        patch.setattr(Bucket, "find", find)
        assert sweep(service)
    return listed, [path for path in read if path.startswith("jobs/")]


def test_a_sweep_lists_the_jobs_once(settings, monkeypatch):
    app = create_app(settings(store="memory://"), SphereEngine(side=32))
    with TestClient(app) as client:
        job = upload(client)
        finished(client, job)
        listed, _ = swept(client, monkeypatch)
        assert listed.count("jobs") == 1
        app.state.service.settings.jobs_quota_bytes = 10  # now somebody has to go, and who is seen anew
        listed, _ = swept(client, monkeypatch)
        assert listed.count("jobs") == 2 and client.get(f"/job/{job}").status_code == 404


def test_a_sweep_breaks_off_when_the_store_is_away(settings, monkeypatch, caplog):
    """It would wait some seconds for each job."""
    app = create_app(settings(store="memory://"), SphereEngine(side=32))
    monkeypatch.setattr(logging.getLogger("relight"), "propagate", True)
    with TestClient(app) as client:
        for k in range(3):
            finished(client, upload(client, encoded(gradient(30 + k, 40))))
        assert len(set(swept(client, monkeypatch)[1])) == 3
        app.state.service.settled.clear()
        caplog.clear()
        assert len(swept(client, monkeypatch, away=("jobs/",))[1]) == 1
        assert "sweep" not in caplog.text


# -- moving


def test_jobs_move_to_a_bucket_and_back(settings, tmp_path, bucket, monkeypatch, capsys):
    lit, folder, back = {}, tmp_path / "jobs", tmp_path / "back"
    with TestClient(create_app(settings(store="", jobs_dir=folder), SphereEngine(side=32))) as client:
        for k in range(3):
            job = upload(client, encoded(gradient(40 + k, 60)))
            finished(client, job)
            assert client.post("/relight", json={"job_id": job, **LIGHT}).status_code == 200
            assert client.put(f"/job/{job}/environment", content=test_keys.AROUND).status_code == 200
            lit[job] = client.get(f"/download/{job}/relit.png").content
    real, seen = ObjectStore.create, []

    def create(self, job_id, files):
        seen.append(job_id)
        if len(seen) == 2:
            raise StoreAway
        real(self, job_id, files)

    monkeypatch.setattr(ObjectStore, "create", create)
    assert cli.main(["migrate", str(folder), bucket]) == 1
    assert "2 jobs copied, 0 were there, 1 could not be copied" in capsys.readouterr().out
    assert cli.main(["migrate", str(folder), bucket]) == 0
    assert "1 jobs copied, 2 were there, 0 could not be copied" in capsys.readouterr().out
    monkeypatch.setattr(ObjectStore, "create", real)
    assert cli.main(["migrate", bucket, str(back)]) == 0
    capsys.readouterr()
    for where in ({}, {"store": "", "jobs_dir": back}):
        engine = SphereEngine(side=32)
        with TestClient(create_app(settings(**where), engine)) as client:
            for job, data in lit.items():
                state = client.get(f"/job/{job}").json()
                assert state["state"] == "ready" and state["environment"]
                assert client.get(f"/download/{job}/relit.png").content == data
                assert client.post("/relight", json={"job_id": job, **LIGHT}).status_code == 200
                assert np.array_equal(pixels(client.get(f"/download/{job}/relit.png").content), pixels(data))
            again = upload(client, encoded(gradient(40, 60)))
            assert finished(client, again)["timings"] == {"shared": 0.0} and engine.calls == 0
            client.delete(f"/job/{again}")
    assert {p.name for p in back.iterdir() if not p.name.startswith(".")} == set(lit)


def folder_of_jobs(path, count):
    """A store in a folder that nobody serves; returns the ids of its jobs, sorted."""
    store, jobs = local_store(path), sorted(str(uuid.uuid4()) for _ in range(count))
    for job in jobs:
        record = Record(job_id=job, width=8, height=6, key="ab12")
        store.create(job, {JobFile.JOB: record.dump(), JobFile.INPUT: b"photo"})
    store.processes.close()
    return jobs


def test_a_file_that_cannot_be_read_fails_its_job_and_not_the_move(tmp_path, monkeypatch, capsys):
    jobs, real = folder_of_jobs(tmp_path / "jobs", 3), LocalStore.get

    def get(self, job_id, name):
        if job_id == jobs[0] and name == JobFile.INPUT:
            raise OSError(errno.EIO, "Input/output error")
        return real(self, job_id, name)

    monkeypatch.setattr(LocalStore, "get", get)
    assert cli.main(["migrate", str(tmp_path / "jobs"), str(tmp_path / "other")]) == 1
    told = capsys.readouterr()
    assert told.out.startswith("2 jobs copied") and told.err.startswith(f"job {jobs[0]}: ")


def test_a_move_that_is_stopped_begins_no_more_jobs(tmp_path, monkeypatch, capsys):
    """As by Ctrl+C; the same command goes on."""
    folder = tmp_path / "jobs"
    jobs = folder_of_jobs(folder, 20)
    begun, stopped, real = [], threading.Event(), migrate._copy

    class Stopped(ThreadPoolExecutor):
        def shutdown(self, wait=True, *, cancel_futures=False):
            super().shutdown(wait=False, cancel_futures=cancel_futures)
            stopped.set()
            super().shutdown(wait=wait)

    def copy(source, target, job_id):
        begun.append(job_id)
        if job_id == jobs[0]:
            raise KeyboardInterrupt
        assert stopped.wait(30)
        return real(source, target, job_id)

    with monkeypatch.context() as patch:
        patch.setattr(migrate, "ThreadPoolExecutor", Stopped)
        patch.setattr(migrate, "_copy", copy)
        assert cli.main(["migrate", str(folder), str(tmp_path / "other")]) == 130
    assert len(begun) <= migrate.AT_ONCE + 1 and "goes on from here" in capsys.readouterr().err
    assert cli.main(["migrate", str(folder), str(tmp_path / "other")]) == 0
    there = len(begun) - 1
    assert capsys.readouterr().out == f"{20 - there} jobs copied, {there} were there, 0 could not be copied\n"


@pytest.mark.parametrize(
    "places",
    [
        ("nowhere", "other"),
        ("jobs", "jobs"),
        ("s3://", "jobs"),
        ("jobs", "s3://a?b"),
        ("jobs", "S3://bucket/prefix"),
        ("ftp://bucket/prefix", "jobs"),
        ("jobs", "memory://"),
    ],
)
def test_a_move_that_makes_no_sense_says_so(tmp_path, monkeypatch, capsys, places):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "jobs").mkdir()
    assert cli.main(["migrate", *places]) == 2
    assert capsys.readouterr().err.startswith("relight: ")
    assert os.listdir(tmp_path) == ["jobs"]
