"""The HTTP contract, with an analytic engine."""

import io
import json
import logging
import os
import re
import threading
import time
import uuid
import zlib

import numpy as np
import pytest
from fakes import FakeEngine, Gated, Raising
from fastapi.testclient import TestClient
from PIL import Image
from support import encoded, finished, gradient, linear, picture, problem, upload

from server.application import create_app
from server.image.srgb import linear_to_srgb, srgb_to_linear
from server.jobs.base import JobFile
from server.jobs.processes import ProcessRegistry
from server.jobs.record import QUEUED, load_record, save_record
from server.light.lights import Rig, key_light
from server.light.shading import auto_exposure
from server.scene.geometry import unpack

LIGHT = {"x": 0.5, "y": 0.3, "z": 0.8}

PASSES = ["input.png", "depth.png", "normals.png", "albedo.png", "shading.png", "surface.png", "sheet.jpg", "scene.glb"]


def relight(client, job_id, **body):
    body = body if {"lights", "x", "preset"} & set(body) else {**LIGHT, **body}
    return client.post("/relight", json={"job_id": job_id, **body})


def test_upload_answers_with_the_contract_s_keys(client):
    answer = client.post("/upload", files={"file": ("a.png", encoded(gradient(60, 80)))})
    body = answer.json()
    assert answer.status_code == 200
    assert set(body) >= {"job_id", "job_dir", "status", "width", "height"}
    assert uuid.UUID(body["job_id"]).version == 4
    assert body["job_dir"] == f"jobs/{body['job_id']}" and (body["width"], body["height"]) == (80, 60)
    assert body["status"] in ("queued", "analysing", "ready")


def test_relight_waits_for_the_analysis_and_relit_png_is_there(client):
    job = upload(client)
    answer = relight(client, job)
    assert answer.status_code == 200 and answer.json()["status"] == "ok"
    assert answer.json()["relit_path"] == f"jobs/{job}/relit.png"
    assert picture(client, job).shape == (60, 80, 3)


def test_paths_in_answers_begin_with_jobs_wherever_the_storage_is(settings, tmp_path):
    with TestClient(create_app(settings(jobs_dir=tmp_path / "else" / "where"), FakeEngine())) as client:
        job = upload(client)
        assert relight(client, job).json()["relit_path"] == f"jobs/{job}/relit.png"
        assert (tmp_path / "else" / "where" / job / "relit.png").is_file()


def test_state_tells_progress_files_and_times(client):
    job = upload(client)
    state = finished(client, job)
    assert state["state"] == "ready" and state["progress"] == 1 and state["error"] is None
    assert state["files"] == PASSES
    assert state["created"] < state["expires"] and state["depth_range"][0] < state["depth_range"][1]
    relight(client, job)
    assert "relit.png" in client.get(f"/job/{job}").json()["files"]


def test_events_end_with_ready(client):
    job = upload(client)
    with client.stream("GET", f"/job/{job}/events") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        text = "".join(answer.iter_text())
    states = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: ")]
    assert states[-1]["state"] == "ready" and states[-1]["job_id"] == job
    progress = [s["progress"] for s in states]
    assert progress == sorted(progress)


def test_passes_have_the_size_of_the_input_and_the_documented_encodings(client):
    job = upload(client, encoded(gradient(90, 70)))
    finished(client, job)
    assert np.array_equal(picture(client, job, "input.png"), gradient(90, 70))
    normals, depth = picture(client, job, "normals.png"), picture(client, job, "depth.png")
    assert normals.shape == (90, 70, 3) and normals.dtype == np.uint8
    assert depth.shape == (90, 70) and depth.dtype.itemsize > 1 and depth.min() == 0 and depth.max() == 65535
    length = np.linalg.norm(normals / 255 * 2 - 1, axis=-1)
    assert np.abs(length - 1).max() < 0.02


def test_albedo_times_shading_times_factor_is_the_photo(client):
    job = upload(client, encoded(gradient(90, 70)))
    factor = finished(client, job)["shading_factor"]
    albedo, shading, surface = (picture(client, job, f"{name}.png") for name in ("albedo", "shading", "surface"))
    assert albedo.shape == shading.shape == (90, 70, 3) and surface.shape == (90, 70) and surface.max() == 255
    linear = srgb_to_linear(albedo / 255) * srgb_to_linear(shading / 255) * factor
    assert np.abs(np.rint(255 * linear_to_srgb(np.clip(linear, 0, 1))) - gradient(90, 70)).max() <= 1


def test_a_job_of_an_older_version_gets_its_factor_when_it_is_asked_for(client):
    job = upload(client)
    factor, store = finished(client, job)["shading_factor"], client.app.state.service.store
    record = json.loads(store.get(job, JobFile.JOB))
    del record["shading_factor"]
    store.put(job, JobFile.JOB, json.dumps(record).encode())
    assert client.get(f"/job/{job}").json()["shading_factor"] is None
    assert client.get(f"/download/{job}/shading.png").status_code == 200
    assert client.get(f"/job/{job}").json()["shading_factor"] == factor


def test_strength_0_is_exactly_the_input_whatever_else_is_asked(client):
    pixels = np.random.default_rng(0).integers(0, 256, (70, 90, 3)).astype(np.uint8)
    job = upload(client, encoded(pixels))
    for more in (
        {},
        {"exposure": 3, "delight": 1, "ambient": 7},
        {"exposure": "auto", "specular": {"strength": 1}, "shadow": {"strength": 1}},
    ):
        assert relight(client, job, strength=0, **more).status_code == 200
        assert np.array_equal(picture(client, job), pixels)


def test_sphere_shows_the_axes(client):
    """The fake engine sees a ball in the middle: light from +x brightens its right, +y its top, +z its middle."""
    job = upload(client, encoded(np.full((120, 120, 3), 110, np.uint8)))
    means = {}
    for name, light in {
        "right": (1, 0, 0.2),
        "left": (-1, 0, 0.2),
        "up": (0, 1, 0.2),
        "down": (0, -1, 0.2),
        "front": (0, 0, 1),
    }.items():
        relight(client, job, x=light[0], y=light[1], z=light[2], ambient=0, delight=0, shadow={"strength": 0})
        out = linear(picture(client, job)).mean(-1)
        means[name] = {
            "l": out[55:65, 35:45].mean(),
            "r": out[55:65, 75:85].mean(),
            "t": out[35:45, 55:65].mean(),
            "b": out[75:85, 55:65].mean(),
            "m": out[55:65, 55:65].mean(),
        }
    assert means["right"]["r"] > 1.5 * means["right"]["l"] and means["left"]["l"] > 1.5 * means["left"]["r"]
    assert means["up"]["t"] > 1.5 * means["up"]["b"] and means["down"]["b"] > 1.5 * means["down"]["t"]
    assert means["front"]["m"] > means["front"]["l"] and means["front"]["m"] > means["front"]["t"]


def test_doubling_the_intensity_doubles_linear_light(client):
    job = upload(client, encoded(np.full((100, 100, 3), 60, np.uint8)))
    light = {"type": "directional", "direction": [0, 0, 1], "shadow": False}
    outs = []
    for intensity in (0.4, 0.8):
        relight(client, job, lights=[{**light, "intensity": intensity}], ambient=0, delight=0)
        outs.append(linear(picture(client, job))[45:55, 45:55].mean())
    assert outs[1] / outs[0] == pytest.approx(2, rel=0.03)  # 8-bit codes round


SUN = {"type": "directional", "direction": [1, 0.2, 0.6]}
SAME_SUN = {"x": 1, "y": 0.2, "z": 0.6}


def shown(client, job, path, body):
    """The picture that /relight or /preview makes."""
    answer = client.post(path, json={"job_id": job, **body})
    assert answer.status_code == 200, answer.text
    return picture(client, job) if path == "/relight" else np.array(Image.open(io.BytesIO(answer.content)))


@pytest.mark.parametrize("path", ["/relight", "/preview"])
def test_exposure_is_auto_with_x_y_z_and_0_with_lights(client, path):
    job = upload(client)
    auto, fixed = (shown(client, job, path, {**SAME_SUN, "exposure": e}) for e in ("auto", 0))
    assert not np.array_equal(auto, fixed)
    assert np.array_equal(shown(client, job, path, SAME_SUN), auto)
    assert np.array_equal(shown(client, job, path, {"lights": [SUN]}), fixed)
    assert np.array_equal(shown(client, job, path, {"lights": [SUN], "exposure": "auto"}), auto)


def test_with_x_y_z_the_brightness_stays_that_of_the_photo(client):
    """In previews and at full size; of a dark photo, since the tone curve bends what becomes brighter."""
    pixels = gradient(300, 400) // 4 + 30
    job = upload(client, encoded(pixels))

    def brightness(codes):
        return np.exp(np.log(linear(codes) @ [0.2126, 0.7152, 0.0722]).mean())

    for x, y, z in ((0, 0, 1), (-0.8, 0.3, 0.6), (0.4, -0.6, 0.8)):
        light = {"x": x, "y": y, "z": z}
        assert brightness(shown(client, job, "/relight", light)) == pytest.approx(brightness(pixels), rel=0.02)
        for side in (64, 100, 400):
            preview = shown(client, job, "/preview", {**light, "max_side": side, "quality": 100})
            assert brightness(preview) == pytest.approx(brightness(pixels), rel=0.03)


def test_exposure_is_measured_on_the_photo_for_previews_and_the_full_picture(client):
    job = upload(client, encoded(np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)))
    for side in (64, 150, 400):
        shown(client, job, "/preview", {**SAME_SUN, "max_side": side})
    maps = [client.app.state.service.cache.get((job, side), lambda: None).maps for side in (64, 150, 400)]
    assert len({m.samples.rgb.tobytes() for m in maps}) == 1
    assert len({auto_exposure(m, Rig(lights=(key_light(1, 0.2, 0.6),))) for m in maps}) == 1


def test_mirrored_photo_with_mirrored_light_gives_the_mirrored_picture(client):
    pixels = gradient(64, 64)
    jobs = upload(client, encoded(pixels)), upload(client, encoded(pixels[:, ::-1]))
    for shadow, bound in (
        (0, 1),
        (0.8, 12),
    ):  # soft shadows are sampled, in a pattern that is not mirrored with the picture
        outs = []
        for job, x in zip(jobs, (0.7, -0.7)):
            relight(client, job, x=x, y=0.2, z=0.6, shadow={"strength": shadow})
            outs.append(picture(client, job).astype(int))
        difference = np.abs(outs[0] - outs[1][:, ::-1])
        assert difference.mean() < 0.5 and np.percentile(difference, 99.5) <= bound


def test_alpha_is_carried_untouched(client):
    pixels = np.dstack([gradient(50, 40), np.tile(np.linspace(0, 255, 40).astype(np.uint8), (50, 1))])
    job = upload(client, encoded(pixels))
    relight(client, job)
    out = picture(client, job)
    assert out.shape == (50, 40, 4) and np.array_equal(out[..., 3], pixels[..., 3])
    assert np.array_equal(picture(client, job, "input.png"), pixels)
    relight(client, job, strength=0)
    assert np.array_equal(picture(client, job), pixels)


def test_preview_is_a_jpeg_of_the_asked_size_and_writes_nothing(client, tmp_path):
    job = upload(client, encoded(gradient(300, 400)))
    finished(client, job)
    before = sorted(p.name for p in (tmp_path / "jobs" / job).iterdir())
    answer = client.post("/preview", json={"job_id": job, **LIGHT, "max_side": 200, "quality": 90})
    assert answer.status_code == 200 and answer.headers["content-type"] == "image/jpeg"
    assert Image.open(io.BytesIO(answer.content)).size == (200, 150)
    assert {"wait", "maps", "shade", "encode"} <= {
        s.split(";")[0].strip() for s in answer.headers["server-timing"].split(",")
    }
    assert sorted(p.name for p in (tmp_path / "jobs" / job).iterdir()) == before
    larger = client.post("/preview", json={"job_id": job, **LIGHT, "max_side": 4096})
    assert Image.open(io.BytesIO(larger.content)).size == (400, 300)  # never enlarged


def test_download_headers_head_and_etag(client):
    job = upload(client)
    finished(client, job)
    answer = client.get(f"/download/{job}/depth.png")
    assert answer.headers["content-type"] == "image/png" and int(answer.headers["content-length"]) == len(
        answer.content
    )
    head = client.head(f"/download/{job}/depth.png")
    assert head.status_code == 200 and head.content == b"" and head.headers["etag"] == answer.headers["etag"]
    assert head.headers["content-length"] == answer.headers["content-length"]
    again = client.get(f"/download/{job}/depth.png", headers={"If-None-Match": answer.headers["etag"]})
    assert again.status_code == 304 and again.content == b""
    tags = set()
    for x in (-1, 1):
        relight(client, job, x=x, y=0, z=0.2)
        tags.add(client.get(f"/download/{job}/relit.png").headers["etag"])
    assert len(tags) == 2


def test_delete_and_again(client, tmp_path):
    job = upload(client)
    finished(client, job)
    assert client.delete(f"/job/{job}").json() == {"status": "deleted"}
    problem(client.delete(f"/job/{job}"), 404, "job_not_found")
    problem(client.get(f"/job/{job}"), 404, "job_not_found")
    problem(relight(client, job), 404, "job_not_found")
    problem(client.post("/preview", json={"job_id": job, **LIGHT}), 404, "job_not_found")
    left = [p for p in (tmp_path / "jobs").rglob("*") if job in str(p) or (p.is_file() and p.parent.name != ".workers")]
    assert left == []


def test_same_file_twice_makes_two_jobs_and_one_analysis(settings):
    engine = FakeEngine()
    with TestClient(create_app(settings(), engine)) as client:
        first, second, other = upload(client), upload(client), upload(client, encoded(gradient(61, 80)))
        for job in (first, second, other):
            assert finished(client, job)["state"] == "ready"
        assert first != second and engine.calls == 2
        assert np.array_equal(picture(client, first, "normals.png"), picture(client, second, "normals.png"))
        client.delete(f"/job/{first}")
        assert relight(client, second).status_code == 200  # what was shared outlives the first
        assert picture(client, second, "depth.png").shape == (60, 80)


@pytest.mark.parametrize("version, calls", [("1.0.0", 1), ("1.0.1", 2)])
def test_an_update_makes_analyses_of_its_own(settings, monkeypatch, version, calls):
    engine = FakeEngine()
    monkeypatch.setattr("server.jobs.service.__version__", "1.0.0")
    with TestClient(create_app(settings(), engine)) as client:
        finished(client, upload(client))
    monkeypatch.setattr("server.jobs.service.__version__", version)
    with TestClient(create_app(settings(), engine)) as client:
        assert finished(client, upload(client))["state"] == "ready"
    assert engine.calls == calls


def test_two_relights_at_once_each_leave_a_whole_picture(settings, monkeypatch):
    """Both have lit the photo before either writes; the picture that stays is one of the two, to the last pixel."""
    with TestClient(create_app(settings(threads=2), FakeEngine())) as client:
        job = upload(client, encoded(gradient(200, 200)))
        finished(client, job)
        alone = []
        for x in (-1, 1):
            assert relight(client, job, x=x, y=0, z=1).status_code == 200
            alone.append(picture(client, job))
        assert not np.array_equal(*alone)
        store = client.app.state.service.store
        put, meeting, met, answers = store.put, threading.Barrier(2, timeout=60), [], []

        def put_together(job_id, name, data):
            if name == JobFile.RELIT:
                met.append(meeting.wait())  # alone it would break the barrier, and the request would fail
            put(job_id, name, data)

        monkeypatch.setattr(store, "put", put_together)
        threads = [
            threading.Thread(target=lambda x=x: answers.append(relight(client, job, x=x, y=0, z=1).status_code))
            for x in (-1, 1)
        ]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        assert answers == [200, 200] and sorted(met) == [0, 1]
        assert any(np.array_equal(picture(client, job), one) for one in alone)


def test_health_ready_models_metrics_and_pages(client):
    assert client.get("/health").json()["status"] == "alive"
    assert client.get("/ready").json()["ready"] is True
    body = client.get("/models").json()
    assert body["models"] and {"ambient", "delight", "shadow"} <= set(body["defaults"])
    assert body["defaults"]["exposure"] == 0 and body["defaults"]["exposure_shorthand"] == "auto"
    upload(client)
    assert 'relight_requests_total{method="POST",route="/upload",status="200"} 1.0' in client.get("/metrics").text
    assert "text/html" in client.get("/").headers["content-type"]
    assert client.get("/openapi.json").json()["paths"]["/relight"]["post"]["responses"]["422"]


# -- looks by name


def test_a_preset_is_what_models_says_of_it(client):
    job, seen = upload(client, encoded(gradient(90, 70))), []
    for preset in client.get("/models").json()["presets"]:
        name, title, look = preset.pop("name"), preset.pop("title"), preset
        assert re.fullmatch("[a-z0-9-]{1,32}", name) and title[0].isupper() and look["lights"]
        assert relight(client, job, preset=name).status_code == 200
        seen.append(picture(client, job).tobytes())
        assert relight(client, job, **{"exposure": "auto", **look}).status_code == 200
        assert picture(client, job).tobytes() == seen[-1], name
    assert len(set(seen)) == len(seen) >= 13


def test_what_a_body_says_goes_before_its_preset(client):
    job = upload(client, encoded(gradient(90, 70)))
    look = next(p for p in client.get("/models").json()["presets"] if p["name"] == "moonlight")
    changed = {"ambient": 0.7, "exposure": 0.5, "shadow": {"strength": 1.0}}
    assert relight(client, job, preset="moonlight", **changed).status_code == 200
    named = picture(client, job)
    assert relight(client, job, lights=look["lights"], **changed).status_code == 200
    assert np.array_equal(picture(client, job), named)
    preview = client.post("/preview", json={"job_id": job, "preset": "moonlight", "max_side": 64})
    assert preview.status_code == 200


# -- errors, each by its cause

BAD_LIGHTS = {
    "preset": {"preset": "sunshine"},
    "preset: send": {"preset": "rim", "x": 0, "y": 0, "z": 1},
    "lights: send": {"preset": "rim", "lights": [{"type": "directional", "direction": [0, 0, 1]}]},
    "x": {"x": "left", "y": 0, "z": 1},
    "y": {"x": 0, "y": None, "z": 1},
    "x, y, z": {"x": 0, "y": 0, "z": 0},
    "z": {"x": 1, "y": 0},
    "direction": {"lights": [{"type": "directional", "direction": [0, 0, 0]}]},
    "position": {"lights": [{"type": "point", "position": [0, 0, 101]}]},
    "target": {"lights": [{"type": "spot", "position": [0, 1, 1], "target": [0, 1, 1]}]},
    "color": {"lights": [{"type": "directional", "direction": [0, 0, 1], "color": "red"}]},
    "temperature": {"lights": [{"type": "directional", "direction": [0, 0, 1], "temperature": 999}]},
    "intensity": {"lights": [{"type": "directional", "direction": [0, 0, 1], "intensity": -1}]},
    "angle": {"lights": [{"type": "directional", "direction": [0, 0, 1], "angle": 91}]},
    "cone": {"lights": [{"type": "spot", "position": [0, 0, 1], "target": [0, 0, 0], "cone": 180}]},
    "blend": {"lights": [{"type": "spot", "position": [0, 0, 1], "target": [0, 0, 0], "blend": 1.1}]},
    "radius": {"lights": [{"type": "point", "position": [0, 0, 1], "radius": 11}]},
    "range": {"lights": [{"type": "point", "position": [0, 0, 1], "range": 0}]},
    "shadow": {"lights": [{"type": "directional", "direction": [0, 0, 1], "shadow": "yes"}]},
    "lights": {"lights": []},
    "type": {"lights": [{"type": "area"}]},
}


@pytest.mark.parametrize("field", BAD_LIGHTS)
def test_invalid_light_names_the_field(client, field):
    detail = problem(
        client.post("/relight", json={"job_id": str(uuid.uuid4()), **BAD_LIGHTS[field]}), 422, "invalid_light"
    )
    assert field in detail


def test_both_ways_of_light_and_neither_are_refused(client):
    job = str(uuid.uuid4())
    both = {**LIGHT, "lights": [{"type": "directional", "direction": [0, 0, 1]}]}
    problem(client.post("/relight", json={"job_id": job, **both}), 422, "invalid_light")
    problem(client.post("/relight", json={"job_id": job}), 422, "invalid_light")
    many = {"lights": [{"type": "directional", "direction": [0, 0, 1]}] * 17}
    problem(client.post("/relight", json={"job_id": job, **many}), 422, "invalid_light")


@pytest.mark.parametrize(
    "field,value",
    [
        ("ambient", -0.1),
        ("strength", 1.01),
        ("delight", "1"),
        *(("exposure", value) for value in (6, -5.01, True, "automatic", "", "1", [0], {})),
        ("surprise", 1),
    ],
)
def test_invalid_request_names_the_field(client, field, value):
    assert field in problem(
        client.post("/relight", json={"job_id": str(uuid.uuid4()), **LIGHT, field: value}), 422, "invalid_request"
    )


@pytest.mark.parametrize(
    "body,status",
    [
        (b"", 422),
        (b"{", 422),
        (b"[]", 422),
        (b"null", 422),
        (b'{"job_id": 5}', 422),
        (b'{"x": NaN}', 422),
        (b"[" * 100_000, 400),
        (b"\xff\xfe", 422),
    ],
)
def test_bodies_that_are_no_request(client, body, status):
    answer = client.post("/relight", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == status and answer.json()["code"] in ("invalid_request", "invalid_light")


@pytest.mark.parametrize("path", ["/relight", "/preview"])
@pytest.mark.parametrize("value", ["NaN", "Infinity", "1e999", "6", '"automatic"', "true"])
def test_a_wrong_exposure_is_told_in_one_sentence(client, path, value):
    body = f'{{"job_id": "{uuid.uuid4()}", "x": 1, "y": 0, "z": 1, "exposure": {value}}}'
    answer = client.post(path, content=body, headers={"Content-Type": "application/json"})
    assert problem(answer, 422, "invalid_request") == 'exposure: send stops from -5 to 5, or "auto"'


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "1" + "0" * 400])
def test_numbers_that_are_not_finite(client, number):
    body = f'{{"job_id": "{uuid.uuid4()}", "x": {number}, "y": 0, "z": 1}}'
    problem(client.post("/relight", content=body, headers={"Content-Type": "application/json"}), 422, "invalid_light")


@pytest.mark.parametrize(
    "job_id",
    [
        "nonsense",
        "%2e%2e",
        "..%5c..",
        "a%00b",
        "9b950210-eade-11f1-a039-02fc00000001",  # made of the time
        "941E2E60-A02E-44DF-A61C-34B22F7C64AE",
        "{d99ec516-eec5-457e-9186-3722d555a49c}",
        "jobs",
        ".workers",
        "7c6076d8-f1d1-47a4-8a25-f2c78803f7fb",
    ],
)
def test_ids_that_are_none(client, job_id):
    for answer in (
        client.get(f"/job/{job_id}"),
        client.delete(f"/job/{job_id}"),
        client.get(f"/download/{job_id}/input.png"),
        client.get(f"/job/{job_id}/events"),
    ):
        assert answer.status_code == 404 and answer.json()["code"] in ("job_not_found", "not_found")
    problem(client.post("/relight", json={"job_id": job_id, **LIGHT}), 404, "job_not_found")


@pytest.mark.parametrize(
    "name",
    [
        "job.json",
        "geometry.npz",
        "input.jpg",
        "..",
        "%2e%2e%2fjob.json",
        "..%5cjob.json",
        "input.png%00",
        "INPUT.PNG",
        ".tmp",
        "input.png/",
        "%2e%2e/%2e%2e/etc/passwd",
    ],
)
def test_names_that_are_no_pass(client, name):
    job = upload(client)
    finished(client, job)
    answer = client.get(f"/download/{job}/{name}", follow_redirects=False)
    assert answer.status_code == 404 and answer.json()["code"] in ("file_not_found", "not_found"), answer.text


def test_a_pass_not_made_yet_says_which(client):
    job = upload(client)
    finished(client, job)
    assert "relit.png" in problem(client.get(f"/download/{job}/relit.png"), 404, "file_not_found")


def test_not_found_and_method_not_allowed(client):
    problem(client.get("/nothing/here"), 404, "not_found")
    job = str(uuid.uuid4())
    for method, path, allowed in (
        ("PUT", "/upload", "POST"),
        ("PUT", f"/job/{job}", "DELETE, GET"),
        ("PATCH", "/health", "GET, HEAD"),
        ("POST", f"/download/{job}/relit.png", "GET, HEAD"),
        ("GET", "/relight", "POST"),
    ):
        answer = client.request(method, path)
        problem(answer, 405, "method_not_allowed")
        assert answer.headers["allow"] == allowed, path


@pytest.mark.parametrize("path", ["/", "/docs", "/static/example.jpg"])
@pytest.mark.parametrize("asked,status", [("bytes=99999999-", 416), ("bytes=b-a", 400)])
def test_a_range_that_cannot_be_had_is_said_to_be_one(client, path, asked, status):
    assert "range" in problem(client.get(path, headers={"Range": asked}), status, "invalid_request")


def test_what_is_no_form_of_files_is_refused_before_it_is_parsed(client):
    answer = client.post(
        "/upload", content=b"a&" * 100_000, headers={"Content-Type": "application/x-www-form-urlencoded"}
    )
    assert "multipart/form-data" in problem(answer, 422, "invalid_request")
    boundary = {"Content-Type": 'MULTIPART/Form-Data; boundary="x"'}
    body = (
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n'
        + encoded(gradient())
        + b"\r\n--x--\r\n"
    )
    assert client.post("/upload", content=body, headers=boundary).status_code == 200


def test_upload_without_the_field_or_without_a_form(client):
    assert "file" in problem(client.post("/upload", files={"photo": ("a.png", b"x")}), 422, "invalid_request")
    problem(client.post("/upload", data={"file": "text"}), 422, "invalid_request")
    problem(client.post("/upload", content=b"x"), 422, "invalid_request")
    problem(
        client.post("/upload", content=b"x", headers={"Content-Type": "multipart/form-data; boundary=b"}),
        400,
        "invalid_request",
    )


def test_model_error_is_told_on_relight_and_in_the_state(settings):
    with TestClient(create_app(settings(), Raising()), raise_server_exceptions=False) as client:
        job = upload(client)
        state = finished(client, job)
        assert state["state"] == "failed" and state["error"]["code"] == "model_error"
        assert "secret" not in problem(relight(client, job), 500, "model_error")


def test_values_that_are_not_finite_are_a_model_error(settings):
    class NaN(FakeEngine):
        def analyse(self, rgb):
            geometry = super().analyse(rgb)
            geometry.inverse_depth[0, 0] = np.nan
            return geometry

    with TestClient(create_app(settings(), NaN()), raise_server_exceptions=False) as client:
        problem(relight(client, upload(client)), 500, "model_error")


def test_model_missing_stores_nothing_and_names_the_cure(settings, tmp_path):
    (tmp_path / "models").mkdir()
    with TestClient(create_app(settings(models_dir=tmp_path / "models")), raise_server_exceptions=False) as client:
        assert client.get("/health").status_code == 200
        assert "python export/export_models.py" in problem(client.get("/ready"), 503, "model_missing")
        answer = client.post("/upload", files={"file": ("a.png", encoded(gradient()))})
        assert "python export/export_models.py" in problem(answer, 503, "model_missing")
    assert [p for p in (tmp_path / "jobs").iterdir() if not p.name.startswith(".")] == []


def test_overloaded_at_once_with_retry_after(settings):
    engine = Gated()
    with TestClient(create_app(settings(max_queue=1), engine), raise_server_exceptions=False) as client:
        jobs = [upload(client, encoded(gradient(40 + k, 40))) for k in range(2)]
        answer = client.post("/upload", files={"file": ("a.png", encoded(gradient()))})
        problem(answer, 503, "overloaded")
        assert int(answer.headers["retry-after"]) >= 1
        engine.open.set()
        for job in jobs:
            assert finished(client, job)["state"] == "ready"


def test_superseded_only_within_one_stream(settings):
    engine = Gated()
    with TestClient(create_app(settings(), engine), raise_server_exceptions=False) as client:
        job = upload(client)
        answers = {}

        def preview(name, stream):
            body = {"job_id": job, **LIGHT, "max_side": 64}
            answers[name] = client.post("/preview", json={**body, "stream": stream} if stream else body)

        threads = []
        for name, stream in (("old", "tab"), ("other", "tab 2"), ("free 1", None), ("free 2", None), ("new", "tab")):
            threads.append(threading.Thread(target=preview, args=(name, stream)))
            threads[-1].start()
            threads[-1].join(0.3)
        assert set(answers) == {"old"}  # refused at once; the others wait
        problem(answers["old"], 409, "superseded")
        engine.open.set()
        for t in threads:
            t.join()
        assert {n: a.status_code for n, a in answers.items() if n != "old"} == dict.fromkeys(
            ("other", "free 1", "free 2", "new"), 200
        )


def test_delete_during_the_analysis_is_safe(settings, tmp_path):
    engine = Gated()
    with TestClient(create_app(settings(), engine), raise_server_exceptions=False) as client:
        job = upload(client)
        assert client.delete(f"/job/{job}").status_code == 200
        engine.open.set()
        second = upload(client, encoded(gradient(33, 44)))
        assert finished(client, second)["state"] == "ready"
        assert {p.name for p in (tmp_path / "jobs").iterdir() if not p.name.startswith(".")} == {second}


def test_quota_takes_the_least_recently_used_first_and_refuses_what_cannot_fit(settings, tmp_path):
    noise = np.random.default_rng(1).integers(0, 256, (4, 100, 100, 3)).astype(np.uint8)
    with TestClient(
        create_app(settings(jobs_quota_bytes=400_000), FakeEngine()), raise_server_exceptions=False
    ) as client:
        jobs = []
        for pixels in noise:
            jobs.append(upload(client, encoded(pixels)))
            finished(client, jobs[-1])
            os.utime(tmp_path / "jobs" / jobs[-1] / "job.json", (1e9 + len(jobs), 1e9 + len(jobs)))
        big = np.random.default_rng(2).integers(0, 256, (320, 320, 3)).astype(np.uint8)
        client.post("/upload", files={"file": ("big.png", encoded(big))})
        assert client.get(f"/job/{jobs[0]}").status_code == 404
        huge = np.random.default_rng(3).integers(0, 256, (400, 400, 3)).astype(np.uint8)
        problem(client.post("/upload", files={"file": ("huge.png", encoded(huge))}), 507, "storage_full")


def test_cors_is_an_explicit_list_without_credentials(client):
    allowed = client.get("/health", headers={"Origin": "http://localhost:5173"})
    assert allowed.headers["access-control-allow-origin"] == "http://localhost:5173"
    assert "access-control-allow-credentials" not in allowed.headers
    assert (
        "access-control-allow-origin" not in client.get("/health", headers={"Origin": "https://evil.example"}).headers
    )


@pytest.mark.parametrize("value", [1e-170, 1e-20, 5e-324])
def test_the_smallest_lamps_are_lamps(client, value):
    job = upload(client)
    lamp = {"type": "point", "position": [value, 0, 0], "range": value, "radius": 0.05}
    for path in ("/relight", "/preview"):
        assert client.post(path, json={"job_id": job, "lights": [lamp]}).status_code == 200


def test_an_unfinished_job_without_a_model_is_no_reason_to_wait(settings, tmp_path):
    with TestClient(create_app(settings(), FakeEngine())) as before:
        job = upload(before)
        finished(before, job)
        store = before.app.state.service.store
        record = load_record(store, job)
        record.state = QUEUED
        save_record(store, record)
    with TestClient(create_app(settings(models_dir=tmp_path / "none"))) as client:
        for path in ("/relight", "/preview"):
            problem(client.post(path, json={"job_id": job, "x": 1, "y": 0, "z": 1}), 503, "model_missing")


def test_a_picture_longer_than_a_png_may_be_is_refused(client):
    data = bytearray(encoded(gradient(1, 8)))
    data[16:20] = (1_000_001).to_bytes(4, "big")
    data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4, "big")
    problem(client.post("/upload", files={"file": ("a.png", bytes(data))}), 413, "image_too_large")


def test_room_is_made_though_an_owner_was_quicker(settings, monkeypatch):
    with TestClient(create_app(settings(jobs_quota_bytes=60_000), FakeEngine())) as client:
        job = upload(client)
        finished(client, job)
        service = client.app.state.service
        remove, removed = service.remove, []

        def late(job_id, used=None):
            removed.append(job_id)
            remove(job_id)
            remove(job_id)  # as if DELETE had come between

        monkeypatch.setattr(service.quota, "_remove", late)
        for k in range(6):
            finished(client, upload(client, encoded(gradient(60 + k, 80))))
        assert removed, "no room had to be made: nothing was tested"


def test_damaged_numbers_of_another_process_do_not_silence_the_metrics(client):
    metrics = client.app.state.metrics
    good = metrics.dump()
    text = metrics.text([(b"", True), (b"[[1", False), (good, True)]).decode()
    assert "relight_processes 2.0" in text


@pytest.mark.parametrize(
    "sent,told",
    [
        ({"json": {"x": 1, "y": 0, "z": 1, "point": 1}}, "point: "),
        ({"json": {"x": 1, "y": 0, "z": 1, "body": 1}}, "body: Extra"),
        ({"json": {"x": 1, "y": 0, "z": 1, "shadow": {"path": 1}}}, "shadow.path: "),
        ({"json": {"lights": [{"type": "spot", "cone": 999}]}}, "lights.0.cone: "),
        ({"json": [1]}, "Content-Type: application/json"),
        ({"content": b""}, "Content-Type: application/json"),
        ({"content": b'{"x": 1}', "headers": {"Content-Type": "text/plain"}}, "Content-Type: application/json"),
        ({"content": b'{"x": 1,', "headers": {"Content-Type": "application/json"}}, "not JSON"),
    ],
)
def test_what_is_wrong_with_a_body_is_said(client, sent, told):
    if isinstance(sent.get("json"), dict):
        sent = {"json": {"job_id": upload(client), **sent["json"]}}
    answer = client.post("/relight", **sent)
    assert answer.status_code == 422 and told in answer.json()["detail"]


def test_refusals_of_a_preflight_a_host_and_a_range_are_told_apart_and_counted(settings):
    app = create_app(settings(allowed_hosts="testserver"), FakeEngine())
    with TestClient(app) as client:
        ask = {
            "Origin": "http://localhost:3000",
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "x-foo",
        }
        for answer, told in (
            (client.options("/upload", headers=ask), "headers"),
            (client.get("/health", headers={"Host": "evil"}), "host"),
            (client.get("/static/app.js", headers={"Range": "bytes=zz"}), "range"),
        ):
            problem(answer, 400, "invalid_request")
            assert told in answer.json()["detail"]
        assert 'relight_errors_total{code="invalid_request"} 3.0' in client.get("/metrics").text


def test_openapi_says_in_words_what_each_operation_does(client):
    for path, operations in client.get("/openapi.json").json()["paths"].items():
        for operation in operations.values():
            words = operation["summary"].split()
            assert len(words) > 1 and not operation["summary"].endswith("."), path
            assert operation.get("description") != operation["summary"]


def test_openapi_says_that_a_store_may_be_away(client):
    """Then whatever asks for a job is answered so."""
    for path, operations in client.get("/openapi.json").json()["paths"].items():
        for method, operation in operations.items():
            if "{job_id}" in path or method == "post":
                answers = operation["responses"]["503"]["content"]["application/problem+json"]["examples"]
                assert "overloaded" in answers and "Retry-After" in operation["responses"]["503"]["headers"], path


def test_openapi_says_how_a_key_is_sent_and_where(settings):
    for keys, open_too in (([], True), (["k"], False)):
        with TestClient(create_app(settings(api_keys=keys), FakeEngine())) as client:
            api = client.get("/openapi.json").json()
        assert api["components"]["securitySchemes"]["key"]["scheme"] == "bearer"
        for path, operations in api["paths"].items():
            for operation in operations.values():
                wanted = None if path in ("/health", "/ready") else [*[{}] * open_too, {"key": []}]
                assert operation.get("security") == wanted, path
        names = api["paths"]["/download/{job_id}/{filename}"]["get"]["parameters"]
        more = {"subject.png", "relit.png", "relit16.png", "passes.exr", "passes.zip"}
        more |= {"motion.webp", "motion.gif", "motion.mp4"}
        assert set(PASSES) | more == {v for p in names if p["name"] == "filename" for v in p["schema"]["enum"]}


def test_every_answer_about_a_job_is_logged_with_it(settings, caplog):
    with TestClient(create_app(settings(log_level="info"), FakeEngine())) as client:
        logging.getLogger("relight").propagate = True
        job = upload(client)
        finished(client, job)
        gone = str(uuid.uuid4())
        caplog.clear()
        with caplog.at_level(logging.INFO, "relight"):
            for known in (job, gone):
                client.get(f"/job/{known}")
                client.get(f"/job/{known}/events")
                client.get(f"/download/{known}/input.png")
                client.post("/relight", json={"job_id": known, "x": 1, "y": 0, "z": 1})
                client.post("/preview", json={"job_id": known, "x": 1, "y": 0, "z": 1})
                client.delete(f"/job/{known}")
        lines = [r.getMessage() for r in {id(r): r for r in caplog.records}.values() if "ms job=" in r.getMessage()]
        assert len(lines) == 12 and all(
            f"job={known}" in line for known, six in ((job, lines[:6]), (gone, lines[6:])) for line in six
        )


def test_a_quota_that_is_used_up_is_one_line_in_the_log(settings, caplog):
    with TestClient(create_app(settings(jobs_quota_bytes=100), FakeEngine()), raise_server_exceptions=False) as client:
        logging.getLogger("relight").propagate = True
        with caplog.at_level(logging.ERROR, "relight"):
            problem(client.post("/upload", files={"file": ("a.png", encoded(gradient()))}), 507, "storage_full")
    errors = [r for r in caplog.records if r.levelno >= logging.ERROR]
    assert len(errors) == 1 and errors[0].exc_info is None


@pytest.mark.parametrize("path", ["/", "/docs", "/health", "/ready", "/openapi.json", "/static/app.js"])
def test_head_is_answered_like_get_without_the_bytes(client, path):
    head, get = client.head(path), client.get(path)
    assert head.status_code == get.status_code == 200 and head.content == b""
    assert head.headers["content-type"] == get.headers["content-type"]


def test_a_damaged_analysis_is_not_shared(settings):
    engine = FakeEngine()
    with TestClient(create_app(settings(), engine)) as client:
        first = upload(client)
        finished(client, first)
        store = client.app.state.service.store
        (store.root / first / "geometry.npz").write_bytes(b"junk")
        second = upload(client)
        assert finished(client, second)["state"] == "ready" and engine.calls == 2
        assert client.post("/relight", json={"job_id": second, **LIGHT}).status_code == 200


def test_the_focal_length_of_the_file_is_that_of_the_scene(settings):
    with TestClient(create_app(settings(), FakeEngine(focal=0.9))) as client:
        exif = Image.Exif()
        exif.get_ifd(0x8769)[0xA405] = 85
        for more, wanted in (({"exif": exif.tobytes()}, 85 / 43.2666 * 100 / 80), ({}, 0.9)):
            job = upload(client, encoded(gradient(), "JPEG", **more))
            finished(client, job)
            store = client.app.state.service.store
            assert load_record(store, job).fit.focal == pytest.approx(wanted, rel=1e-3)
            assert unpack(store.get(job, JobFile.GEOMETRY)).focal == pytest.approx(wanted, rel=1e-3)


def test_what_is_no_surface_is_not_relit(settings):
    """From upload to download, with an engine that knows the sky."""
    with TestClient(create_app(settings(), FakeEngine(mask=True))) as client:
        photo = np.full((60, 80, 3), 90, np.uint8)
        job = upload(client, encoded(photo))
        client.post("/relight", json={"job_id": job, **LIGHT, "ambient": 0})
        relit = np.array(Image.open(io.BytesIO(client.get(f"/download/{job}/relit.png").content)))
        assert (relit[:5] == 90).all() and np.abs(relit[25:35, 35:45].astype(int) - 90).mean() > 5


def test_a_failed_analysis_leaves_nothing_but_the_photo(settings, monkeypatch):
    def no(*_):
        raise RuntimeError("no passes")

    monkeypatch.setattr("server.jobs.analysis.depth_range", no)
    with TestClient(create_app(settings(), FakeEngine()), raise_server_exceptions=False) as client:
        job = upload(client)
        assert finished(client, job)["state"] == "failed"
        assert client.app.state.service.store.names(job) == [JobFile.JOB, JobFile.INPUT]


def test_a_body_of_unknown_length_is_bounded_too(client):
    def endless():
        for _ in range(40):
            yield b" " * 65536

    problem(
        client.post("/relight", content=endless(), headers={"Content-Type": "application/json"}), 413, "file_too_large"
    )


def test_beside_another_process_what_was_just_used_is_not_taken(settings):
    noise = np.random.default_rng(1).integers(0, 256, (100, 100, 3)).astype(np.uint8)
    with TestClient(
        create_app(settings(jobs_quota_bytes=150_000), FakeEngine()), raise_server_exceptions=False
    ) as client:
        first = upload(client, encoded(noise))
        finished(client, first)
        other = ProcessRegistry(settings().jobs_dir)
        big = encoded(np.random.default_rng(2).integers(0, 256, (200, 200, 3)).astype(np.uint8))
        problem(client.post("/upload", files={"file": ("a.png", big)}), 507, "storage_full")
        other.close()
        assert client.post("/upload", files={"file": ("a.png", big)}).status_code == 200
        assert client.get(f"/job/{first}").status_code == 404


@pytest.mark.parametrize("use", ["state", "download", "relight", "preview"])
def test_whatever_is_done_with_a_job_is_a_use_of_it(client, use):
    job = upload(client)
    finished(client, job)
    path = client.app.state.service.store.root / job / "job.json"
    os.utime(path, (time.time() - 1000,) * 2)
    answer = {
        "state": lambda: client.get(f"/job/{job}"),
        "download": lambda: client.get(f"/download/{job}/input.png"),
        "relight": lambda: client.post("/relight", json={"job_id": job, **LIGHT}),
        "preview": lambda: client.post("/preview", json={"job_id": job, **LIGHT}),
    }[use]()
    assert answer.status_code == 200 and abs(path.stat().st_mtime - time.time()) < 20


def test_a_job_expires_by_its_last_use(client):
    job = upload(client)
    finished(client, job)
    store = client.app.state.service.store
    record = load_record(store, job)
    record.created = 1e9
    save_record(store, record)
    state = client.get(f"/job/{job}").json()
    from datetime import datetime

    expires = datetime.fromisoformat(state["expires"].replace("Z", "+00:00")).timestamp()
    assert (
        state["created"].startswith("2001-")
        and abs(expires - time.time() - client.app.state.settings.job_ttl_seconds) < 20
    )


def test_a_deleted_job_leaves_the_memory(client):
    job = upload(client)
    assert client.post("/preview", json={"job_id": job, **LIGHT}).status_code == 200
    service = client.app.state.service
    assert service.cache.jobs() == {job}
    client.delete(f"/job/{job}")
    assert service.cache.jobs() == set()
