"""POST /animate and DELETE /job/{id}/motion: rendered in the background, told of, stopped, and never left half made."""

import io
import json
import threading
import time
import uuid
from types import SimpleNamespace

import numpy as np
import pytest
from fakes import Gated, Raising, SphereEngine
from fastapi.testclient import TestClient
from PIL import Image
from support import encoded, finished, gradient, no_room_for, picture, problem, serving, upload

from server.application import create_app
from server.errors import StorageFull
from server.image import animation
from server.jobs import motions
from server.jobs.base import JobFile
from server.jobs.store import LocalStore

SUN = [{"type": "directional", "direction": [-1, 0.3, 0.6]}]
LAMP = [{"type": "point", "position": [0.5, 0.2, 0.6], "color": "#ff8800"}]
ORBIT = {"orbit": {"turns": 1, "elevation": 30}, "frames": 6}


def animate(client, job, status=202, **body):
    answer = client.post("/animate", json={"job_id": job, **(body or ORBIT)})
    assert answer.status_code == status, answer.text
    return answer.json()


def ended(client, job, seconds=30):
    """The state of a job's motion once it no longer renders."""
    end = time.monotonic() + seconds
    while (motion := client.get(f"/job/{job}").json()["motion"]) and motion["state"] == "rendering":
        assert time.monotonic() < end, motion
        time.sleep(0.02)
    return motion


def frames(client, job, name="motion.webp"):
    """The frames of a job's motion as RGBA."""
    answer = client.get(f"/download/{job}/{name}")
    assert answer.status_code == 200, answer.text
    image, found = Image.open(io.BytesIO(answer.content)), []
    for k in range(image.n_frames):
        image.seek(k)
        found.append(np.array(image.convert("RGBA")).astype(int))
    return found


def preview(client, job, **body):
    answer = client.post("/preview", json={"job_id": job, "quality": 100, **body})
    assert answer.status_code == 200, answer.text
    return np.array(Image.open(io.BytesIO(answer.content))).astype(int)


def settled(service, seconds=10):
    """Until nothing is in line or in use any more; returns what still is."""
    end = time.monotonic() + seconds
    while (left := (service.pool.pending, len(service.motions._tasks), len(service.motions._mine))) != (0, 0, 0):
        if time.monotonic() > end:
            break
        time.sleep(0.02)
    return left


def leftovers(client, job):
    return [p.name for p in (client.app.state.service.store.root / job).iterdir() if p.name.startswith(".")]


@pytest.fixture
def gate(monkeypatch):
    """Frames wait until `gate.open` is set; `gate.entered` tells that one waits."""

    gate, real = SimpleNamespace(open=threading.Event(), entered=threading.Event()), motions.relight

    def wait(maps, rig):
        gate.entered.set()
        assert gate.open.wait(30)
        return real(maps, rig)

    monkeypatch.setattr(motions, "relight", wait)
    monkeypatch.setattr(motions, "NOTED_SECONDS", 0.0)
    yield gate
    gate.open.set()


# -- what is rendered


def test_frames_are_what_preview_shows(client):
    job = upload(client, encoded(gradient(90, 120)))
    keys = [{"lights": SUN, "ambient": 0.1, "exposure": 0}, {"lights": [{**SUN[0], "direction": [1, 0.3, 0.6]}]}]
    answer = animate(client, job, keyframes=keys, frames=3, loop=False)
    assert answer == {"status": "rendering", "motion_path": f"jobs/{job}/motion.webp"}
    assert ended(client, job) == {"state": "ready", "progress": 1, "error": None}
    found = frames(client, job)
    assert len(found) == 3 and found[0].shape == (90, 120, 4)
    middle = {"lights": [{**SUN[0], "direction": [0, 0.3, 0.6]}], "ambient": 0.2}
    for one, body in zip(found, (keys[0], middle, keys[1])):
        assert np.abs(one[..., :3] - preview(client, job, **body)).mean() < 4, body
    assert np.abs(found[0] - found[2]).mean() > 6


def test_an_orbit_is_the_shorthand_of_each_direction(client):
    job = upload(client, encoded(gradient(90, 120)))
    animate(client, job, orbit={"turns": -1, "elevation": 0}, frames=4)
    assert ended(client, job)["state"] == "ready"
    for one, (x, y) in zip(frames(client, job), ((0, 1), (-1, 0), (0, -1), (1, 0))):
        assert np.abs(one[..., :3] - preview(client, job, x=x, y=y, z=0)).mean() < 4


def test_mixed_exposures_are_those_of_the_key_frames(client):
    job = upload(client)
    keys = [{"x": 1, "y": 0, "z": 0.2}, {"lights": SUN, "exposure": 1.5}]
    animate(client, job, keyframes=keys, frames=2, loop=False)
    assert ended(client, job)["state"] == "ready"
    for one, key in zip(frames(client, job), keys):
        assert np.abs(one[..., :3] - preview(client, job, **key)).mean() < 4


@pytest.mark.parametrize("kind", animation.available())
def test_every_format_is_downloaded_as_what_it_is(client, kind):
    job, types = upload(client), {"webp": "image/webp", "gif": "image/gif", "mp4": "video/mp4"}
    assert animate(client, job, **ORBIT, format=kind)["motion_path"] == f"jobs/{job}/motion.{kind}"
    assert ended(client, job)["state"] == "ready"
    whole = client.get(f"/download/{job}/motion.{kind}")
    assert whole.headers["content-type"] == types[kind] and len(whole.content) == int(whole.headers["content-length"])
    part = client.get(f"/download/{job}/motion.{kind}", headers={"Range": "bytes=10-29"})
    assert part.status_code == 206 and part.content == whole.content[10:30]
    assert client.head(f"/download/{job}/motion.{kind}").headers["etag"] == whole.headers["etag"]
    known = client.get(f"/download/{job}/motion.{kind}", headers={"If-None-Match": whole.headers["etag"]})
    assert known.status_code == 304
    assert f"motion.{kind}" in client.get(f"/job/{job}").json()["files"]


def test_sizes(client):
    job = upload(client, encoded(gradient(100, 800)))
    for body, size in (
        ({"max_side": 64}, (8, 64)),
        ({"max_side": 1280}, (100, 800)),  # never enlarged
        ({"format": "gif"}, (80, 640)),
    ):
        animate(client, job, orbit={}, frames=2, **body)
        assert ended(client, job)["state"] == "ready"
        assert frames(client, job, f"motion.{body.get('format', 'webp')}")[0].shape[:2] == size


def test_alpha_is_kept_in_webp(client):
    alpha = np.where(np.arange(80) < 40, 255, 0).astype(np.uint8) * np.ones((60, 1), np.uint8)
    job = upload(client, encoded(np.dstack([gradient(), alpha])))
    animate(client, job)
    assert ended(client, job)["state"] == "ready"
    assert all(np.array_equal(one[..., 3], alpha) for one in frames(client, job))


def test_environments_of_key_frames_are_looked_up(client):
    job, other = upload(client), upload(client, encoded(gradient(50, 70)[:, ::-1]))
    own = [{"environment": {"type": "upload"}}, {"environment": {"type": "upload", "rotation": 180}}]
    problem(client.post("/animate", json={"job_id": job, "keyframes": own}), 404, "environment_not_found")
    client.put(f"/job/{job}/environment", content=encoded(gradient(32, 64)))
    keys = [*own, {"environment": {"type": "photo", "job_id": other}}]
    animate(client, job, keyframes=keys, frames=3, loop=False)
    assert ended(client, job)["state"] == "ready"
    for one, key in zip(frames(client, job), keys):
        assert np.abs(one[..., :3] - preview(client, job, **key)).mean() < 4
    keys[0]["environment"] = {"type": "photo", "job_id": str(uuid.uuid4())}
    problem(client.post("/animate", json={"job_id": job, "keyframes": keys}), 404, "job_not_found")


def test_masks_of_key_frames_are_where_they_were_drawn(client):
    job = upload(client)
    left = np.where(np.arange(80) < 40, 255, 0).astype(np.uint8) * np.ones((60, 1), np.uint8)
    keys = [
        {"lights": [{**SUN[0], "mask": "left"}], "ambient": 0},
        {"lights": SUN, "mask": {"name": "left", "invert": True}},
    ]
    problem(client.post("/animate", json={"job_id": job, "keyframes": keys}), 404, "mask_not_found")
    assert client.put(f"/job/{job}/mask/left", content=encoded(left)).status_code == 200
    animate(client, job, keyframes=keys, frames=2, loop=False)
    assert ended(client, job)["state"] == "ready"
    for one, key in zip(frames(client, job), keys):
        assert np.abs(one[..., :3] - preview(client, job, **key)).mean() < 4
    assert frames(client, job)[0][:, 50:, :3].max() < 12, "no light there"


# -- what is refused


@pytest.mark.parametrize(
    "body, code, words",
    [
        ({}, "invalid_request", "key frames or an orbit"),
        ({"keyframes": [{"lights": SUN}] * 2, "orbit": {}}, "invalid_request", "key frames or an orbit"),
        ({"keyframes": [{"lights": SUN}]}, "invalid_request", "keyframes"),
        ({"keyframes": [{"lights": SUN}] * 17}, "invalid_request", "keyframes"),
        ({"keyframes": [{"lights": SUN}, {"lights": LAMP}]}, "invalid_light", "keyframes.1.lights"),
        ({"keyframes": [{"lights": SUN}, {"lights": SUN * 2}]}, "invalid_light", "keyframes.1.lights"),
        ({"keyframes": [{"lights": SUN}, {"x": 0, "y": 0, "z": 0}]}, "invalid_light", "keyframes.1"),
        ({"keyframes": [{"lights": SUN, "job_id": "a"}] * 2}, "invalid_request", "keyframes.0.job_id"),
        ({"orbit": {"turns": 0.2}}, "invalid_light", "turns"),
        ({"orbit": {"turns": 4.5}}, "invalid_request", "turns"),
        ({"orbit": {"elevation": 81}}, "invalid_request", "elevation"),
        ({"orbit": {}, "frames": 1}, "invalid_request", "frames"),
        ({"orbit": {}, "frames": 121}, "invalid_request", "frames"),
        ({"orbit": {}, "fps": 31}, "invalid_request", "fps"),
        ({"orbit": {}, "max_side": 1281}, "invalid_request", "max_side"),
        ({"orbit": {}, "max_side": 641, "format": "gif"}, "invalid_request", "max_side"),
        ({"orbit": {}, "format": "avi"}, "invalid_request", "format"),
        ({"orbit": {}, "loop": 1}, "invalid_request", "loop"),
        ({"orbit": {}, "speed": 1}, "invalid_request", "speed"),
    ],
)
def test_what_is_wrong_is_named(client, body, code, words):
    job = upload(client)
    assert words in problem(client.post("/animate", json={"job_id": job, **body}), 422, code)
    assert client.get(f"/job/{job}").json()["motion"] is None


def test_without_pyav_mp4_says_what_it_takes(client, monkeypatch):
    monkeypatch.setattr(animation, "find_spec", lambda name: None)
    job = upload(client)
    detail = problem(client.post("/animate", json={"job_id": job, **ORBIT, "format": "mp4"}), 422, "invalid_request")
    assert "PyAV" in detail and client.get("/models").json()["limits"]["motions"] == ["webp", "gif"]


def test_a_job_that_is_not_there_and_one_that_failed(client, settings):
    problem(client.post("/animate", json={"job_id": str(uuid.uuid4()), **ORBIT}), 404, "job_not_found")
    with TestClient(create_app(settings(), Raising())) as bad:
        job = upload(bad)
        finished(bad, job)
        problem(bad.post("/animate", json={"job_id": job, **ORBIT}), 500, "model_error")


def test_an_analysis_that_fails_fails_the_motion(settings):
    class Failing(Gated):
        def analyse(self, rgb):
            super().analyse(rgb)
            raise RuntimeError("/secret/path")

    engine = Failing(side=32)
    with TestClient(create_app(settings(), engine), raise_server_exceptions=False) as client:
        job = upload(client)
        animate(client, job)
        engine.open.set()
        motion = ended(client, job)
        assert motion["state"] == "failed" and motion["error"]["code"] == "model_error"
        assert "secret" not in json.dumps(motion)
        assert settled(client.app.state.service) == (0, 0, 0)


# -- one at a time, stopped, left alone


def test_a_second_one_is_refused_until_the_first_ends(client, gate):
    job, other = upload(client), upload(client, encoded(gradient(50, 70)))
    animate(client, job)
    assert gate.entered.wait(10)
    problem(client.post("/animate", json={"job_id": job, **ORBIT}), 409, "motion_busy")
    animate(client, other)  # in line behind it
    gate.open.set()
    assert ended(client, job)["state"] == ended(client, other)["state"] == "ready"
    animate(client, job)
    assert ended(client, job)["state"] == "ready"
    assert settled(client.app.state.service) == (0, 0, 0)


def test_it_takes_one_place_in_line(settings, gate):
    with TestClient(create_app(settings(threads=1, max_queue=1), SphereEngine()), raise_server_exceptions=False) as c:
        jobs = []
        for k in range(3):
            jobs.append(upload(c, encoded(gradient(50 + k, 70))))
            finished(c, jobs[-1])
        for job in jobs[:2]:
            animate(c, job)
        problem(c.post("/animate", json={"job_id": jobs[2], **ORBIT}), 503, "overloaded")
        assert c.get(f"/job/{jobs[2]}").json()["motion"] is None
        gate.open.set()
        for job in jobs[:2]:
            assert ended(c, job)["state"] == "ready"


def test_stopping_it(client, gate):
    job = upload(client)
    animate(client, job)
    assert gate.entered.wait(10)
    assert client.delete(f"/job/{job}/motion").json() == {"status": "deleted"}
    assert client.get(f"/job/{job}").json()["motion"] is None
    problem(client.delete(f"/job/{job}/motion"), 404, "file_not_found")
    animate(client, job, **ORBIT, format="gif")  # the next one does not wait for the end of the first
    gate.open.set()
    assert ended(client, job)["state"] == "ready"
    assert settled(client.app.state.service) == (0, 0, 0)
    problem(client.get(f"/download/{job}/motion.webp"), 404, "file_not_found")
    assert client.get(f"/download/{job}/motion.gif").status_code == 200 and leftovers(client, job) == []


def test_removing_what_was_made(client):
    job = upload(client)
    problem(client.delete(f"/job/{job}/motion"), 404, "file_not_found")
    animate(client, job)
    ended(client, job)
    assert client.delete(f"/job/{job}/motion").json() == {"status": "deleted"}
    problem(client.get(f"/download/{job}/motion.webp"), 404, "file_not_found")
    state = client.get(f"/job/{job}").json()
    assert state["motion"] is None and "motion.webp" not in state["files"]


def test_a_relight_and_previews_meanwhile_are_not_disturbed_and_do_not_disturb(client, gate):
    job = upload(client)
    animate(client, job)
    assert gate.entered.wait(10)
    assert client.post("/relight", json={"job_id": job, "x": 1, "y": 0, "z": 1}).status_code == 200
    assert preview(client, job, x=1, y=0, z=1).shape == (60, 80, 3)
    gate.open.set()
    assert ended(client, job)["state"] == "ready" and len(frames(client, job)) == ORBIT["frames"]
    assert picture(client, job).shape == (60, 80, 3)


def test_a_job_that_is_deleted_meanwhile_stops_it(client, gate):
    job = upload(client)
    animate(client, job)
    assert gate.entered.wait(10)
    assert client.delete(f"/job/{job}").status_code == 200
    gate.open.set()
    service = client.app.state.service
    assert settled(service) == (0, 0, 0) and not (service.store.root / job).exists()


def test_a_new_motion_takes_the_place_of_the_old(client):
    job = upload(client)
    animate(client, job)
    ended(client, job)
    with client.stream("GET", f"/download/{job}/motion.webp") as before:
        animate(client, job, **ORBIT, format="gif")
        assert ended(client, job)["state"] == "ready"
        before.read()
    assert Image.open(io.BytesIO(before.content)).n_frames == ORBIT["frames"], "who reads it has it whole"
    files = client.get(f"/job/{job}").json()["files"]
    assert "motion.gif" in files and "motion.webp" not in files
    client.post("/relight", json={"job_id": job, "x": 1, "y": 0, "z": 1})
    assert client.get(f"/download/{job}/motion.gif").status_code == 200, "a relight drops no motion"
    assert "motion.gif" not in client.get(f"/download/{job}/passes.zip").text


def test_events_go_on_as_long_as_it_renders(settings):
    with serving(create_app(settings(), SphereEngine())) as url:
        import httpx

        with httpx.Client(base_url=url) as client:
            job = upload(client)
            finished(client, job)
            animate(client, job, **{**ORBIT, "frames": 120})
            seen = []
            with client.stream("GET", f"/job/{job}/events") as events:
                seen += [json.loads(line[6:])["motion"] for line in events.iter_lines() if line.startswith("data: ")]
            assert [m["state"] for m in seen[:-1]] == ["rendering"] * (len(seen) - 1) and len(seen) > 2
            assert seen[-1] == {"state": "ready", "progress": 1, "error": None}
            assert [m["progress"] for m in seen] == sorted(m["progress"] for m in seen)
            with client.stream("GET", f"/job/{job}/events") as events:
                assert len([line for line in events.iter_lines() if line.startswith("data: ")]) == 1, "then they end"


# -- faults


def test_a_fault_of_ours_is_told_without_its_words(client, monkeypatch, caplog):
    def broken(*_):
        raise RuntimeError("/secret/path")

    monkeypatch.setattr(motions, "relight", broken)
    job = upload(client)
    animate(client, job)
    motion = ended(client, job)
    assert motion["state"] == "failed" and motion["error"]["code"] == "internal"
    assert "secret" not in client.get(f"/job/{job}").text
    assert settled(client.app.state.service) == (0, 0, 0) and leftovers(client, job) == []
    problem(client.get(f"/download/{job}/motion.webp"), 404, "file_not_found")


def test_a_full_disk_fails_it_and_leaves_nothing(client, monkeypatch):
    def full(self, job_id, name, write):
        raise StorageFull()

    job = upload(client)
    finished(client, job)
    monkeypatch.setattr(LocalStore, "put_written", full)
    animate(client, job)
    assert ended(client, job)["error"]["code"] == "storage_full"
    monkeypatch.undo()
    animate(client, job)
    assert ended(client, job)["state"] == "ready"


def test_a_motion_that_finds_no_room_leaves_the_one_before(client, monkeypatch):
    job = upload(client)
    animate(client, job)
    assert ended(client, job)["state"] == "ready"
    no_room_for(JobFile.MOTION, monkeypatch)
    problem(client.post("/animate", json={"job_id": job, **ORBIT}), 507, "storage_full")
    monkeypatch.undo()
    assert client.get(f"/job/{job}").json()["motion"]["state"] == "ready" and len(frames(client, job)) == 6


def test_no_room_in_the_quota(settings):
    with TestClient(create_app(settings(jobs_quota_bytes=300_000), SphereEngine()), raise_server_exceptions=False) as c:
        job = upload(c, encoded(gradient(200, 300)))
        finished(c, job)
        problem(c.post("/animate", json={"job_id": job, "orbit": {}, "frames": 120}), 507, "storage_full")
        assert c.get(f"/job/{job}").json()["motion"] is None
        animate(c, job, orbit={}, frames=2)
        assert ended(c, job)["state"] == "ready"


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b'{"state": "rendering"}', b'{"token": 1, "worker": 2}'])
def test_a_damaged_note_is_no_motion(client, text):
    job = upload(client)
    client.app.state.service.store.put(job, JobFile.MOTION, text)
    assert client.get(f"/job/{job}").json()["motion"] is None
    animate(client, job)
    assert ended(client, job)["state"] == "ready"


# -- several processes, and their ends


def test_two_processes_are_one(settings, gate):
    """Whoever is asked knows of it, refuses a second, and can stop it."""
    first, second = (create_app(settings(), SphereEngine()) for _ in range(2))
    with TestClient(first) as one, TestClient(second, raise_server_exceptions=False) as other:
        job = upload(one)
        animate(one, job)
        assert gate.entered.wait(10)
        assert other.get(f"/job/{job}").json()["motion"]["state"] == "rendering"
        problem(other.post("/animate", json={"job_id": job, **ORBIT}), 409, "motion_busy")
        assert other.delete(f"/job/{job}/motion").status_code == 200
        animate(other, job, **ORBIT, format="gif")
        gate.open.set()
        assert ended(one, job)["state"] == "ready"
        assert settled(first.state.service) == settled(second.state.service) == (0, 0, 0)
        assert one.get(f"/download/{job}/motion.gif").status_code == 200
        problem(one.get(f"/download/{job}/motion.webp"), 404, "file_not_found")


def test_of_a_process_that_died_nothing_is_left_rendering(client):
    job = upload(client)
    finished(client, job)
    note = motions.Motion(token=uuid.uuid4().hex, worker=uuid.uuid4().hex, progress=0.5)
    client.app.state.service.store.put(job, JobFile.MOTION, note.model_dump_json().encode())
    motion = client.get(f"/job/{job}").json()["motion"]
    assert motion["state"] == "failed" and motion["progress"] == 0.5 and "Ask for it again" in motion["error"]["detail"]
    animate(client, job)
    assert ended(client, job)["state"] == "ready"


def test_stopping_the_server_stops_it_and_the_next_start_says_so(settings, gate):
    with TestClient(create_app(settings(), SphereEngine())) as client:
        job = upload(client)
        animate(client, job, orbit={}, frames=120)
        assert gate.entered.wait(10)
        service = client.app.state.service
        threading.Timer(0.3, gate.open.set).start()
    assert settled(service, 0) == (0, 0, 0)
    with TestClient(create_app(settings(), SphereEngine())) as client:
        assert ended(client, job)["state"] == "failed" and leftovers(client, job) == []
        animate(client, job)
        assert ended(client, job)["state"] == "ready"
