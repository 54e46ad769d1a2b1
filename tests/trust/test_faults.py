"""Faults: of the process, the disk, the folder, the engine, the clock. Nothing promised is lost, nothing hangs."""

import errno
import io
import json
import os
import shutil
import subprocess
import threading
import time

import chaos
import numpy as np
import pytest
import trust_tools
from fakes import Gated, NotANumber, Raising, SphereEngine
from fastapi.testclient import TestClient
from PIL import Image
from support import encoded, finished, gradient, picture, problem, upload

from server.application import create_app
from server.errors import StartupError
from server.jobs import store as store_module
from server.jobs.base import JobFile
from server.jobs.processes import check_writable
from server.jobs.record import load_record
from server.jobs.sweep import sweep

LIGHT = {"x": -0.5, "y": 0.5, "z": 0.7}


def app_client(settings, engine=None, **overrides):
    return TestClient(create_app(settings(**overrides), engine or SphereEngine(side=32)), raise_server_exceptions=False)


def relight(client, job):
    return client.post("/relight", json={"job_id": job, **LIGHT})


def test_kill_9_at_random_moments(tmp_path, capsys):
    kills = int(os.environ.get("KILLS", 20))
    faults, figures = chaos.run(kills, seed=8, folder=tmp_path / "jobs")
    trust_tools.say(capsys, str(figures))
    assert not faults, "\n".join(faults)
    assert figures["requests"] > 0


# -- the disk


def settled(client, service, job):
    """What is said of a job when it is ready or failed, or has been let go of: one whose end cannot be written."""
    held, end = True, time.monotonic() + 10
    state = client.get(f"/job/{job}").json()
    while state["state"] not in ("ready", "failed") and held and time.monotonic() < end:
        held = service.analyst.holds(job)  # asked first: what is said afterwards is the last word
        time.sleep(0.01)
        state = client.get(f"/job/{job}").json()
    return state


@pytest.mark.parametrize("failing", range(1, 12))
@pytest.mark.parametrize(
    "number,code", [(errno.ENOSPC, "storage_full"), (errno.EROFS, "storage_full"), (errno.EIO, "internal")]
)
def test_a_disk_that_fails_at_the_nth_write(settings, monkeypatch, failing, number, code):
    """Upload, analysis, relight and the first download of passes write eleven files; each write fails once.

    Then the disk works again, and so does the job.
    """
    with app_client(settings) as client:
        service = client.app.state.service
        real, seen = store_module.LocalStore._write, []

        def write(self, path, data):
            seen.append(path)
            if len(seen) == failing:
                path.write_bytes(data[: len(data) // 2])  # as far as it got
                raise OSError(number, os.strerror(number))
            real(self, path, data)

        monkeypatch.setattr(store_module.LocalStore, "_write", write)
        answer = client.post("/upload", files={"file": ("a.png", encoded(gradient()))})
        if answer.status_code == 200:
            job = answer.json()["job_id"]
            state = settled(client, service, job)
            if state["state"] == "ready":
                answer = relight(client, job)
                for name in ("depth.png", "normals.png"):  # made when first asked for
                    if answer.status_code == 200:
                        answer = client.get(f"/download/{job}/{name}")
            elif state["state"] == "failed":
                assert state["error"]["code"] == code
        if answer.status_code != 200:
            problem(answer, 507 if code == "storage_full" else 500, code)
        assert len(seen) >= failing, f"only {len(seen)} files were written: nothing failed"
        monkeypatch.setattr(store_module.LocalStore, "_write", real)
        assert [p.name for p in service.store.root.rglob("*") if p.name.startswith((".tmp", ".new"))] == []
        again = upload(client)
        assert finished(client, again)["state"] == "ready" and relight(client, again).status_code == 200


def mounted(folder, options):
    folder.mkdir()
    try:
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True, check=False
        )
    except OSError:
        return False
    return done.returncode == 0


def test_a_disk_that_is_full(settings, tmp_path):
    """A real file system of 2 MB: uploads end with 507, never worse; deleting makes room again."""
    disk = tmp_path / "disk"
    if not mounted(disk, "size=2m"):
        pytest.skip("no tmpfs can be mounted here: the failing writes above stand in for it")
    try:
        noise = np.random.default_rng(1).integers(0, 255, (250, 300, 3), np.uint8)
        with app_client(settings, jobs_dir=disk) as client:
            kept = []
            for k in range(12):
                answer = client.post("/upload", files={"file": ("a.png", encoded(np.roll(noise, k, 1)))})
                if answer.status_code != 200:
                    problem(answer, 507, "storage_full")
                    break
                kept.append(answer.json()["job_id"])
                finished(client, kept[-1])
            else:
                raise AssertionError("2 MB never filled up")
            for job in kept:
                state = client.get(f"/job/{job}").json()
                assert state["state"] == "ready" or state["error"]["code"] == "storage_full"
                assert client.get(f"/download/{job}/input.png").status_code == 200
                assert relight(client, job).status_code in (200, 507)
            assert [p.name for p in disk.rglob(".tmp-*")] == []
            for job in kept:
                assert client.delete(f"/job/{job}").status_code == 200
            job = upload(client)
            assert finished(client, job)["state"] == "ready" and relight(client, job).status_code == 200
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=False)


@pytest.mark.parametrize("number,status,code", [(errno.ENOSPC, 507, "storage_full"), (errno.EIO, 500, "internal")])
def test_a_disk_that_fails_during_an_analysis_holds_nobody(settings, monkeypatch, number, status, code):
    """Not even the state of the job can be written then. Whoever waits is told; once it can be, the job is taken up."""
    engine = Gated(side=32)
    with app_client(settings, engine, max_queue=4) as client:
        service, job = client.app.state.service, upload(client)
        assert engine.entered.wait(10)

        def refuse(*_):
            raise OSError(number, os.strerror(number))

        with monkeypatch.context() as patch:
            patch.setattr(service.store, "_write", refuse)
            waiting = []
            thread = threading.Thread(target=lambda: waiting.append(relight(client, job)))
            thread.start()
            engine.open.set()
            thread.join(20)
            problem(waiting[0], status, code)
            for _ in range(8):  # more than the places in line
                problem(relight(client, job), status, code)
            assert finished(client, job)["error"]["code"] == code
            assert b'"failed"' in client.get(f"/job/{job}/events").content  # and it ended
            sweep(service)
            problem(relight(client, job), status, code)
        assert service.pool.pending == 0
        os.utime(settings().jobs_dir / job / "job.json", (time.time() - 100,) * 2)
        sweep(service)
        assert finished(client, job)["state"] == "ready" and relight(client, job).status_code == 200
        assert client.delete(f"/job/{job}").status_code == 200 and not service.analyst.unsaved


def test_a_folder_that_becomes_read_only(settings, monkeypatch):
    """What is stored can still be looked at; what wants to write is told that there is no room to."""

    def refuse(*args, **options):
        raise OSError(errno.EROFS, "Read-only file system")

    with app_client(settings) as client:
        job = upload(client)
        finished(client, job)
        os.utime(
            settings().jobs_dir / job / "job.json", (time.time() - 100,) * 2
        )  # so that looking wants to note the time
        with monkeypatch.context() as patch:
            for name in ("utime", "rename", "replace", "mkdir", "link"):
                patch.setattr(os, name, refuse)
            patch.setattr(store_module.LocalStore, "_write", refuse)
            assert client.get(f"/job/{job}").json()["state"] == "ready"
            assert client.get(f"/download/{job}/input.png").status_code == 200
            assert client.post("/preview", json={"job_id": job, **LIGHT}).status_code == 200
            problem(relight(client, job), 507, "storage_full")
            problem(client.post("/upload", files={"file": ("a.png", encoded(gradient()))}), 507, "storage_full")
            assert sweep(client.app.state.service)
        assert relight(client, job).status_code == 200


@pytest.mark.parametrize("why", ["ro", "nr_inodes=2"])
def test_a_folder_that_takes_no_file_stops_the_start(tmp_path, why):
    disk = tmp_path / "disk"
    if not mounted(disk, f"size=1m,{why}"):
        pytest.skip("no tmpfs can be mounted here")
    try:
        with pytest.raises(StartupError, match=r"RELIGHT_JOBS_DIR.*cannot be written"):
            check_writable(disk)
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=False)


# -- a folder damaged by hand


def damage(folder, name, how):
    path = folder / name
    if how == "missing":
        path.unlink()
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "cut":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif how == "folder":
        path.unlink()
        path.mkdir()
    else:
        foreign = {
            "input.png": encoded(gradient(9, 9)),
            "geometry.npz": encoded(gradient(9, 9)),
            "job.json": b'{"job_id": 7}',
            "depth.png": b"junk",
            "normals.png": b"junk",
            "relit.png": b"junk",
        }
        path.write_bytes(foreign[name])


def healed(client, job):
    """The answer to a relight once the server no longer asks to come back."""
    end = time.monotonic() + 30
    while (answer := relight(client, job)).status_code == 503 and time.monotonic() < end:
        time.sleep(0.05)
    return answer


@pytest.mark.parametrize("how", ["missing", "empty", "cut", "foreign", "folder"])
@pytest.mark.parametrize("name", ["job.json", "input.png", "geometry.npz", "depth.png", "normals.png", "relit.png"])
def test_a_job_folder_damaged_by_hand(settings, name, how):
    with app_client(settings) as client:
        service = client.app.state.service
        job, twin = upload(client), upload(client)
        finished(client, job), finished(client, twin)
        assert relight(client, job).status_code == 200
        for derived in ("depth.png", "normals.png"):
            picture(client, job, derived)
        good = picture(client, twin, "input.png")
        damage(service.store.root / job, name, how)
        service.cache.drop(job)
        for answer in (
            client.get(f"/job/{job}"),
            *(client.get(f"/download/{job}/{n}") for n in ("input.png", "depth.png", "relit.png")),
            relight(client, job),
            client.post("/preview", json={"job_id": job, **LIGHT}),
        ):
            assert answer.status_code in (200, 404, 500, 503, 507)
            if answer.status_code == 500 and name != "input.png" and how != "folder":
                raise AssertionError(answer.text)
        sweep(service)
        end = time.monotonic() + 20
        while service.analyst.holds(job) and time.monotonic() < end:
            time.sleep(0.02)
        if how in ("missing", "empty", "cut", "foreign") and name in ("geometry.npz", "relit.png"):
            assert healed(client, job).status_code == 200  # what can be made again is made again
        elif name == "job.json":
            assert client.get(f"/job/{job}").status_code in (404, 500)
        elif name == "input.png" and how != "folder":
            problem(healed(client, job), 500, "model_error")
        assert np.array_equal(picture(client, twin, "input.png"), good) and healed(client, twin).status_code == 200


@pytest.mark.parametrize(
    "field,value",
    [
        ("width", "wide"),
        ("width", 0),
        ("fit", None),
        ("fit", {}),
        ("fit", {"scale": "x"}),
        ("key", "../../x"),
        ("state", "asleep"),
        ("created", None),
        ("timings", {"a": "b"}),
        ("error", {"code": "nope"}),
        ("depth_range", [1]),
        ("models", "m"),
        ("attempts", None),
        ("owner", 7),
    ],
)
def test_job_json_with_a_foreign_field(settings, field, value):
    """Anything but a 500: the job does not exist any more, or is analysed again."""
    with app_client(settings) as client:
        job = upload(client)
        finished(client, job)
        path = client.app.state.service.store.root / job / "job.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), field: value}))
        assert client.get(f"/job/{job}").status_code in (200, 404)
        assert relight(client, job).status_code in (200, 404, 503)


def test_what_is_not_ours_in_the_jobs_folder_is_left_alone(settings):
    with app_client(settings) as client:
        job = upload(client)
        finished(client, job)
        root = client.app.state.service.store.root
        shutil.copytree(root / job, root / f"backup of {job}")
        (root / "notes.txt").write_text("mine")
        sweep(client.app.state.service)
        assert (root / f"backup of {job}" / "job.json").exists() and (root / "notes.txt").exists()


# -- the engine


def test_an_engine_that_raises_or_says_nan(settings):
    for engine in (Raising(side=32), NotANumber(side=32)):
        with app_client(settings, engine, jobs_dir=settings().jobs_dir / type(engine).__name__) as client:
            job = upload(client)
            state = finished(client, job)
            assert state["state"] == "failed" and state["error"]["code"] == "model_error"
            assert "secret" not in problem(relight(client, job), 500, "model_error")
            assert client.get("/health").status_code == 200


def test_an_engine_that_hangs(settings):
    """Its jobs fail after the time allowed, others go on, and when it always hangs the server says that it is not
    ready.
    """
    engine = Gated(side=32)
    with app_client(settings, engine, analysis_timeout_seconds=0.3) as client:
        for k in range(3):
            job = upload(client, encoded(gradient(40 + k, 50)))
            assert finished(client, job)["error"]["code"] == "model_error"
        problem(client.get("/ready"), 503, "model_missing")
        assert finished(client, upload(client, encoded(gradient(33, 50))))["state"] == "failed"
        begun = time.monotonic()
    assert time.monotonic() - begun < 10, "a hung engine keeps the server from ending"
    engine.open.set()


def test_stopping_in_the_middle_of_an_analysis_and_starting_again(settings):
    engine = Gated(side=32)
    with app_client(settings, engine) as client:
        job = upload(client)
        assert engine.entered.wait(20)
    engine.open.set()
    with app_client(settings) as client:
        assert finished(client, job)["state"] == "ready"


# -- the clock


def test_the_clock_leaps(settings, monkeypatch):
    """Forward by a year, or back.

    No job expires for that, expiry goes on afterwards, and nothing answers with a fault.
    """
    with app_client(settings, job_ttl_seconds=3600) as client:
        service = client.app.state.service
        job = upload(client)
        finished(client, job)
        real = time.time
        for leap in (366 * 86400, -5 * 86400, 0):
            monkeypatch.setattr(time, "time", lambda leap=leap: real() + leap)
            assert sweep(service)
            assert client.get(f"/job/{job}").status_code == 200 and relight(client, job).status_code == 200
        monkeypatch.setattr(time, "time", real)
        sweep(service)
        os.utime(service.store.root / job / "job.json", (real() - 3700,) * 2)
        sweep(service)
        assert client.get(f"/job/{job}").status_code == 404


def test_a_file_time_from_another_age(settings):
    with app_client(settings, job_ttl_seconds=1e15) as client:
        job = upload(client)
        finished(client, job)
        for when in (0, 4e9, 2**33):
            os.utime(client.app.state.service.store.root / job / "job.json", (when, when))
            assert client.get(f"/job/{job}").status_code == 200


# -- races


def test_delete_in_the_middle_of_everything(settings):
    """Delete at random moments of upload, analysis, relight, preview and download.

    200 or 404, nothing comes back to life.
    """
    with app_client(settings, SphereEngine(side=32, seconds=0.02)) as client:
        service = client.app.state.service
        faults = []

        def use(job):
            for _ in range(4):
                for answer in (
                    relight(client, job),
                    client.post("/preview", json={"job_id": job, **LIGHT, "max_side": 64}),
                    client.get(f"/download/{job}/input.png"),
                ):
                    if answer.status_code not in (200, 404, 503):
                        faults.append(answer.text)
                    if answer.status_code == 200 and answer.headers["content-type"] == "image/png":
                        Image.open(io.BytesIO(answer.content)).load()

        for k in range(12):
            job = upload(client, encoded(gradient(60 + k, 80)))
            threads = [threading.Thread(target=use, args=(job,)) for _ in range(2)]
            for t in threads:
                t.start()
            time.sleep(0.02 * k)
            assert client.delete(f"/job/{job}").status_code == 200
            for t in threads:
                t.join()
            assert client.get(f"/job/{job}").status_code == 404
        end = time.monotonic() + 10
        while service.analysis_pool.pending and time.monotonic() < end:
            time.sleep(0.02)
        assert not faults, faults[:3]
        assert [p.name for p in service.store.root.iterdir() if p.name not in (".workers", ".analyses")] == []
        assert list((service.store.root / ".analyses").iterdir()) == []
        service.forget_deleted()
        assert service.cache.jobs() == set()


def test_two_processes_take_up_the_same_job(settings):
    """Both adopt it at once: it becomes ready once, and whole."""
    first = create_app(settings(), SphereEngine(side=32, seconds=0.05))
    second = create_app(settings(), SphereEngine(side=32, seconds=0.05))
    with TestClient(first) as one, TestClient(second) as two:
        job = upload(one)
        finished(one, job)
        a, b = first.state.service, second.state.service
        record = load_record(a.store, job)
        a.store.put(job, JobFile.GEOMETRY, b"junk")
        a.store.unregister(record.fingerprint, job)
        threads = [threading.Thread(target=s.analyst.adopt, args=(load_record(s.store, job),)) for s in (a, b)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        deadline = time.monotonic() + 20
        while (a.analyst.holds(job) or b.analyst.holds(job)) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert finished(one, job)["state"] == "ready" and relight(two, job).status_code == 200
