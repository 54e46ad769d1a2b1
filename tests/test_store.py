"""Jobs on disk: whole or not there, taken up again after a crash, nothing left behind."""

import errno
import os
import shutil
import stat
import threading
import time
import uuid

import numpy as np
import pytest
from fakes import FakeEngine, Gated, sphere
from fastapi.testclient import TestClient
from support import encoded, finished, gradient, local_store, picture, problem, upload

from server import errors
from server.application import create_app
from server.jobs import base as jobs
from server.jobs.base import JobFile
from server.jobs.cache import Cache
from server.jobs.processes import ProcessRegistry
from server.jobs.record import Record
from server.jobs.sweep import sweep
from server.scene.geometry import pack, unpack


@pytest.fixture
def store(tmp_path):
    made = local_store(tmp_path / "jobs")
    yield made
    made.processes.close()


def new(store, **files):
    job = str(uuid.uuid4())
    store.create(
        job, {JobFile.JOB: b"{}", JobFile.INPUT: b"picture", **{JobFile[k.upper()]: v for k, v in files.items()}}
    )
    return job


def test_put_get_list_touch_delete(store):
    job = new(store)
    store.put(job, JobFile.RELIT, b"x" * 100)
    assert store.get(job, JobFile.RELIT) == b"x" * 100 and set(store.names(job)) == {
        JobFile.JOB,
        JobFile.INPUT,
        JobFile.RELIT,
    }
    (entry,) = store.list()
    assert entry.job_id == job and entry.size == 100 + len("picture") + len("{}") and abs(entry.used - time.time()) < 10
    os.utime(store.root / job / "job.json", (1, 1))
    assert store.touch(job) > 1 and next(iter(store.list())).used > 1
    store.delete(job)
    assert list(store.list()) == []
    for call in (
        lambda: store.get(job, JobFile.INPUT),
        lambda: store.put(job, JobFile.RELIT, b""),
        lambda: store.delete(job),
        lambda: store.touch(job),
    ):
        with pytest.raises(errors.JobNotFound):
            call()
    assert not (store.root / job).exists()


def test_an_open_file_stays_what_it_was(store):
    job = new(store, relit=b"first" * 1000)
    with store.open(job, JobFile.RELIT) as f:
        store.put(job, JobFile.RELIT, b"second")
        store.delete(job)
        assert f.read() == b"first" * 1000


def test_a_full_disk_is_storage_full_and_leaves_nothing(store, monkeypatch):
    job = new(store, relit=b"old")
    real = os.fsync

    def full(fd):
        if os.fstat(fd).st_size > 10:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(fd)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(errors.StorageFull):
        store.put(job, JobFile.RELIT, b"new and longer than that")
    with pytest.raises(errors.StorageFull):
        store.create(str(uuid.uuid4()), {JobFile.INPUT: b"longer than ten bytes"})
    assert store.get(job, JobFile.RELIT) == b"old"
    assert [e.job_id for e in store.list()] == [job]
    assert not [p for p in store.root.rglob("*") if p.name.startswith((".tmp", ".new"))]


def test_files_are_for_their_owner_only(store):
    job = new(store)
    for path in (store.root / job, store.root / job / "input.png", store.root / job / "job.json"):
        assert path.stat().st_mode & 0o077 == 0


def test_leftovers_of_the_dead_go_and_those_of_the_living_stay(store, tmp_path):
    job = new(store)
    dead, living = uuid.uuid4().hex, ProcessRegistry(tmp_path / "jobs")
    names = {w: [f".new-{w}-1-0000000a", f".gone-{w}-2-0000000b"] for w in (dead, living.worker)}
    for w in names:
        for name in names[w]:
            (store.root / name).mkdir()
            (store.root / name / "input.png").write_bytes(b"x")
        (store.root / job / f".tmp-{w}-3-0000000c").write_bytes(b"x")
    (store.root / ".analyses" / "ab").mkdir()
    (store.root / ".analyses" / "ab" / str(uuid.uuid4())).touch()
    store.clean()
    left = {p.name for p in store.root.rglob("*")}
    assert not any(dead in n for n in left) and "ab" not in left
    assert {*names[living.worker], f".tmp-{living.worker}-3-0000000c"} <= left and job in left
    living.close()
    store.clean()
    assert not any(living.worker in p.name for p in store.root.rglob("*"))


def test_ids_and_names_are_parsed_never_joined():
    good = str(uuid.uuid4())
    assert jobs.parse_id(good) == jobs.parse_id(good.upper()) == good
    for bad in (
        good[:-1],
        "{" + good + "}",
        good.replace("-", ""),
        "urn:uuid:" + good,
        str(uuid.uuid1()),
        "..",
        "",
        good + "\0",
        None,
    ):
        with pytest.raises(errors.JobNotFound):
            jobs.parse_id(bad)
    for bad in ("job.json", "geometry.npz", "../x", "relit.png\0", "Relit.png", ""):
        with pytest.raises(errors.FileNotFound):
            jobs.parse_download(bad)


def test_free_of_takes_the_oldest_that_may_go():
    entries = [jobs.Entry("a", 40, 3), jobs.Entry("b", 30, 1), jobs.Entry("c", 20, 2)]
    assert jobs.jobs_to_evict(entries, 100, 5, lambda j: False) == []
    assert jobs.jobs_to_evict(entries, 100, 20, lambda j: False) == ["b"]
    assert jobs.jobs_to_evict(entries, 100, 20, lambda j: j == "b") == ["c"]
    assert jobs.jobs_to_evict(entries, 100, 120, lambda j: False) is None


# -- over restarts


def test_what_somebody_else_keeps_in_the_folder_stays(settings, tmp_path):
    root, worker = tmp_path / "jobs", uuid.uuid4().hex
    theirs = [
        root / ".new-year-photos" / "a.jpg",
        root / "project" / ".tmp-my-notes",
        root / "project" / f".tmp-{worker}-1-0000000a",
        root / str(uuid.uuid4()) / "thesis.txt",
        root / f".tmp-{worker}-1-0000000b",
        root / ".gone-fishing-2-x" / "b.jpg",
    ]
    for path in theirs:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("precious" * 1000)
    ours = root / str(uuid.uuid4()) / "input.png"  # of a job that was half deleted
    ours.parent.mkdir()
    ours.write_bytes(b"x")
    empty = root / str(uuid.uuid4())
    empty.mkdir()
    with TestClient(create_app(settings(jobs_quota_bytes=30_000), FakeEngine())) as client:
        for k in range(4):
            finished(client, upload(client, encoded(gradient(60 + k, 80))))
    assert [p.read_text() for p in theirs] == ["precious" * 1000] * len(theirs)
    assert not ours.parent.exists() and not empty.exists()


def test_jobs_expire_also_when_the_folder_was_removed_under_the_server(settings, tmp_path):
    with TestClient(create_app(settings(job_ttl_seconds=100), FakeEngine())) as client:
        os.rename(tmp_path / "jobs", tmp_path / "elsewhere")  # at once: the server writes its numbers into it meanwhile
        first, second = upload(client), upload(client)
        finished(client, first)
        assert finished(client, second)["timings"] == {"shared": 0.0}
        os.utime(tmp_path / "jobs" / first / "job.json", (time.time() - 200,) * 2)
        shutil.rmtree(tmp_path / "jobs" / ".analyses")
        sweep(client.app.state.service)
        assert client.get(f"/job/{first}").status_code == 404 and client.get(f"/job/{second}").status_code == 200
        assert all((tmp_path / "jobs" / name).stat().st_mode & 0o077 == 0 for name in (".", ".workers"))


def test_a_job_outlives_a_restart(settings):
    with TestClient(create_app(settings(), FakeEngine())) as client:
        job = upload(client)
        finished(client, job)
        client.post("/relight", json={"job_id": job, "x": 1, "y": 0, "z": 1})
        before = picture(client, job)
    with TestClient(create_app(settings(), FakeEngine())) as client:
        assert client.get(f"/job/{job}").json()["state"] == "ready"
        assert np.array_equal(picture(client, job), before)
        assert client.post("/relight", json={"job_id": job, "x": 1, "y": 0, "z": 1}).status_code == 200
        assert np.array_equal(picture(client, job), before)


def abandoned(root, state="analysing", attempts=1):
    """A job as a killed process leaves it."""
    store = local_store(root)
    record = Record(
        job_id=str(uuid.uuid4()), width=80, height=60, key="00", worker=uuid.uuid4().hex, state=state, attempts=attempts
    )
    store.create(record.job_id, {JobFile.INPUT: encoded(gradient()), JobFile.JOB: record.dump()})
    store.processes.close()
    return record.job_id


@pytest.mark.parametrize("state,attempts", [("queued", 0), ("analysing", 1), ("analysing", 2)])
def test_an_interrupted_analysis_is_taken_up_again(settings, tmp_path, state, attempts):
    job = abandoned(tmp_path / "jobs", state, attempts)
    with TestClient(create_app(settings(), FakeEngine())) as client:
        assert finished(client, job)["state"] == "ready"


def test_a_picture_that_keeps_killing_the_process_fails_in_the_end(settings, tmp_path):
    job = abandoned(tmp_path / "jobs", "analysing", 3)
    engine = FakeEngine()
    with TestClient(create_app(settings(), engine), raise_server_exceptions=False) as client:
        assert finished(client, job)["state"] == "failed" and engine.calls == 0
        problem(client.post("/relight", json={"job_id": job, "x": 1, "y": 0, "z": 1}), 500, "model_error")


def test_jobs_expire_by_their_last_use_but_never_one_in_use(settings, tmp_path):
    engine = Gated()
    with TestClient(create_app(settings(job_ttl_seconds=100, sweep_seconds=0.1), engine)) as client:
        engine.open.set()
        old, fresh = upload(client), upload(client, encoded(gradient(50, 50)))
        finished(client, old), finished(client, fresh)
        engine.open.clear()
        busy = upload(client, encoded(gradient(51, 51)))
        for job in (old, busy):
            os.utime(tmp_path / "jobs" / job / "job.json", (time.time() - 200, time.time() - 200))
        deadline = time.monotonic() + 10
        while (tmp_path / "jobs" / old).exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        engine.open.set()
        assert finished(client, busy)["state"] == "ready" and client.get(f"/job/{fresh}").status_code == 200


def test_notes_of_one_analysis_come_and_go_at_once(tmp_path):
    """The folder of a key goes with its last note: whoever notes the next one just then must not fail over it."""
    stores = [local_store(tmp_path / "jobs") for _ in range(2)]
    names, faults = [str(uuid.uuid4()) for _ in stores], []

    def work(store, name):
        for _ in range(1500):
            store.register("00", name)
            if name not in store.holders("00"):
                faults.append(name)
            store.unregister("00", name)

    threads = [threading.Thread(target=work, args=pair) for pair in zip(stores, names)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not faults and not (tmp_path / "jobs" / ".analyses" / "00").exists()
    for store in stores:
        store.processes.close()


def test_leftovers_that_hold_nothing_go_too(store):
    (store.root / ".analyses" / "ab").mkdir()
    old, young = (
        store.root / ".workers" / f"{uuid.uuid4().hex}.draft",
        store.root / ".workers" / f"{store.processes.worker}.draft",
    )
    for path in (old, young):
        path.write_bytes(b"half")
    os.utime(old, (1, 1))
    job = new(store)
    assert [e.job_id for e in store.clean()] == [job]
    assert not (store.root / ".analyses" / "ab").exists() and not old.exists() and young.exists()


@pytest.mark.parametrize("code, kept", [(errno.EIO, 0), (errno.EINVAL, 1)])
def test_a_folder_that_cannot_be_synced(store, monkeypatch, code, kept):
    """A fault leaves no job behind; a file system that knows no such thing is no fault."""
    real = os.fsync

    def fsync(fd):
        if os.path.samestat(os.fstat(fd), os.stat(store.root)):
            raise OSError(code, "fsync of a folder")
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    try:
        new(store)
    except errors.RelightError:
        assert not kept
    assert len(list(store.list())) == kept


def test_without_an_engine_a_ready_job_keeps_what_is_whole(settings, tmp_path):
    with TestClient(create_app(settings(), FakeEngine())) as client:
        job = upload(client)
        finished(client, job)
        picture(client, job, "depth.png")
    (tmp_path / "jobs" / job / "geometry.npz").unlink()
    with TestClient(create_app(settings(models_dir=tmp_path / "none")), raise_server_exceptions=False) as client:
        problem(client.get(f"/download/{job}/normals.png"), 503, "model_missing")
        assert client.get(f"/job/{job}").json()["state"] == "ready"
        picture(client, job, "depth.png")
    with TestClient(create_app(settings(), FakeEngine()), raise_server_exceptions=False) as client:
        deadline = time.monotonic() + 10
        while client.get(f"/download/{job}/normals.png").status_code != 200:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_a_job_is_healed_as_often_as_it_is_damaged(settings, tmp_path):
    with TestClient(create_app(settings(maps_cache_bytes=0), FakeEngine()), raise_server_exceptions=False) as client:
        job = upload(client)
        for _ in range(4):
            finished(client, job)
            (tmp_path / "jobs" / job / "geometry.npz").unlink()
            (tmp_path / "jobs" / job / "depth.png").unlink(missing_ok=True)
            problem(client.get(f"/download/{job}/depth.png"), 503, "overloaded")
            assert finished(client, job)["state"] == "ready"
            assert picture(client, job, "depth.png").shape == (60, 80)


@pytest.mark.parametrize("name", ["depth.png", "normals.png", "albedo.png", "shading.png", "surface.png", "sheet.jpg"])
def test_a_pass_is_made_when_it_is_first_asked_for(settings, tmp_path, name):
    """It is there as before: listed once the job is ready, and HEAD tells its length."""
    with TestClient(create_app(settings(), FakeEngine())) as client:
        job = upload(client)
        assert name in finished(client, job)["files"]
        path = tmp_path / "jobs" / job / name
        assert not path.exists()
        length = client.head(f"/download/{job}/{name}").headers["content-length"]
        answer = client.get(f"/download/{job}/{name}")
        assert len(answer.content) == int(length) == path.stat().st_size
        inode = path.stat().st_ino
        assert client.get(f"/download/{job}/{name}").content == answer.content and path.stat().st_ino == inode


def test_no_pass_is_made_beyond_the_places_in_line_or_without_room(settings, tmp_path, monkeypatch):
    with TestClient(create_app(settings(), FakeEngine()), raise_server_exceptions=False) as client:
        job = upload(client)
        finished(client, job)
        pool = client.app.state.service.pool
        monkeypatch.setattr(pool, "limit", 0)
        problem(client.get(f"/download/{job}/depth.png"), 503, "overloaded")
        monkeypatch.undo()

        def full(*_):
            raise OSError(errno.ENOSPC, "full")

        monkeypatch.setattr(os, "fsync", full)
        problem(client.get(f"/download/{job}/depth.png"), 507, "storage_full")
        monkeypatch.undo()
        assert set(os.listdir(tmp_path / "jobs" / job)) == {"job.json", "input.png", "geometry.npz"}
        assert picture(client, job, "depth.png").shape == (60, 80)


def test_stopping_is_no_failed_attempt_and_does_not_wait_for_another_process(settings, tmp_path):
    """Another process holds the lock of the same photo's analysis, and hangs."""
    jobs_dir, engine = tmp_path / "jobs", FakeEngine()
    job = abandoned(jobs_dir, "queued", 0)
    other = ProcessRegistry(jobs_dir)
    with other.analysis_lock("00"):
        begun = None
        for _ in range(4):
            with TestClient(create_app(settings(), engine)) as client:
                deadline = time.monotonic() + 10
                while client.get(f"/job/{job}").json()["state"] == "queued":
                    assert time.monotonic() < deadline
                    time.sleep(0.02)
                begun = time.monotonic()
            assert time.monotonic() - begun < 5
    assert engine.calls == 0
    with TestClient(create_app(settings(), engine)) as client:
        assert finished(client, job)["state"] == "ready"
    other.close()


def test_a_decoder_that_cannot_be_started_does_not_spoil_the_end(settings, tmp_path, monkeypatch):
    def no(*_):
        raise BlockingIOError(errno.EAGAIN, "no more processes")

    monkeypatch.setattr("server.image.decoder_pool.Decoders.warm", no)
    with TestClient(create_app(settings(), FakeEngine())) as client:
        upload(client)
    assert not list((tmp_path / "jobs" / ".workers").glob("*.lock")), "its mark of life stayed"


class Value:
    def __init__(self, nbytes):
        self.nbytes = nbytes


def test_what_is_too_large_for_the_cache_pushes_nothing_out():
    cache = Cache(100)
    for k in range(5):
        cache.get((f"job {k}", 1), lambda: Value(10))
    assert cache.get(("large", 1), lambda: Value(101)).nbytes == 101
    assert cache.jobs() == {f"job {k}" for k in range(5)}
    cache.get(("job 0", 1), lambda: None)
    cache.get(("another", 1), lambda: Value(60))
    assert cache.jobs() == {"job 0", "job 2", "job 3", "job 4", "another"} and cache.nbytes == 100


def test_what_sizes_share_is_counted_as_long_as_one_of_them_is_kept(client):
    """It is the last of a job to go: a picture that stayed would hold it uncounted."""
    cache, job = client.app.state.service.cache, upload(client, encoded(gradient(200, 200)))
    body = {"job_id": job, "x": 1, "y": 0, "z": 1, "max_side": 100}
    assert client.post("/preview", json=body).status_code == 200
    shared, one = (cache.get((job, key), lambda: None) for key in ("grid", 100))
    assert client.post("/preview", json=body).status_code == 200
    cache.put(("another", 1), Value(cache.max_bytes - shared.nbytes - one.nbytes + 1))
    assert cache.get((job, "grid"), lambda: None) is shared and one.maps.shared is shared


def test_an_unavailable_provider_ends_the_start_before_anything_is_begun(settings, tmp_path):
    with pytest.raises(errors.StartupError, match=r"RELIGHT_PROVIDER=coreml|no CoreMLExecutionProvider"):
        create_app(settings(provider="coreml"))


@pytest.mark.parametrize("mask", [False, True])
def test_geometry_comes_back_from_the_disk(mask):
    before = sphere(20, 30, mask, 0.9)
    after = unpack(pack(before))
    assert np.array_equal(after.inverse_depth, before.inverse_depth) and after.focal == pytest.approx(0.9)
    assert np.allclose(after.normals, before.normals, atol=1e-3)
    assert (after.mask is None) if not mask else np.allclose(after.mask, before.mask, atol=1e-3)


def test_what_is_stored_outlives_a_power_cut(store, monkeypatch):
    """Each file is synced before the rename that shows it, and the folder that shows it after."""
    events = []

    def noted(name, event):
        real = getattr(os, name)

        def call(first, *rest):
            events.append(event(first))
            return real(first, *rest)

        monkeypatch.setattr(os, name, call)

    noted("fsync", lambda fd: "folder" if stat.S_ISDIR(os.fstat(fd).st_mode) else "file")
    noted("rename", lambda _: "rename")
    noted("replace", lambda _: "rename")
    job = new(store)
    assert events == ["file", "file", "folder", "rename", "folder"]
    events.clear()
    store.put(job, JobFile.RELIT, b"x")
    assert events == ["file", "rename", "folder"]


def test_sharing_twice_leaves_nothing_behind(store):
    one, other = new(store, relit=b"x"), new(store)
    for _ in range(2):
        store.link_files(one, other, [JobFile.RELIT])
        assert store.get(other, JobFile.RELIT) == b"x"
        assert not list((store.root / other).glob(".tmp*"))


def test_what_fits_to_the_byte_fits():
    entries = [jobs.Entry("a", 40, 3), jobs.Entry("b", 30, 1)]
    assert jobs.jobs_to_evict(entries, 100, 30, lambda j: False) == []
    assert jobs.jobs_to_evict(entries, 100, 60, lambda j: False) == ["b"]
    assert jobs.jobs_to_evict(entries, 100, 100, lambda j: False) == ["b", "a"]
    assert jobs.jobs_to_evict(entries, 100, 101, lambda j: False) is None
