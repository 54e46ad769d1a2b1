"""relit16.png, passes.exr and passes.zip: made of the last relight, true to it, and gone with it."""

import io
import json
import os
import re
import zipfile
from dataclasses import replace

import cv2
import numpy as np
import OpenImageIO as oiio
import pytest
from fakes import FakeEngine
from fastapi.testclient import TestClient
from support import ROOT, encoded, finished, gradient, picture, problem, upload

from server.application import create_app
from server.errors import DamagedFile
from server.image.srgb import linear_to_srgb, srgb_to_linear
from server.jobs import archive, look
from server.jobs.base import JobFile
from server.light.lights import Light, Rig, key_light

LIGHTS = {
    "shorthand": {"x": -0.6, "y": 0.4, "z": 0.7},
    "two distant lights": {
        "lights": [
            {"type": "directional", "direction": [1, 0.5, 0.4], "color": "#ff9060", "intensity": 0.8},
            {"type": "directional", "direction": [-1, 0.2, 0.6], "angle": 40, "shadow": False},
        ],
        "ambient": 0.1,
        "strength": 0.8,
        "delight": 0.4,
        "shadow": {"strength": 0.9},
        "exposure": -0.7,
    },
    "bright": {"lights": [{"type": "directional", "direction": [0, 0, 1], "intensity": 5}], "ambient": 0},
    "a sky beside a light": {
        "lights": [{"type": "directional", "direction": [1, 0.5, 0.4], "intensity": 0.3}],
        "environment": {"type": "preset", "name": "sky-sunset", "rotation": 20},
        "exposure": -0.5,
    },
}
LAMP = {"type": "spot", "position": [0.3, 0.5, 1], "target": [0, 0, 0], "color": "#80a0ff"}


@pytest.fixture
def client(settings):
    with TestClient(create_app(settings(), FakeEngine()), raise_server_exceptions=False) as client:
        yield client


def relit(client, data=None, **body):
    """A job that was relit."""
    job = upload(client, data if data is not None else encoded(gradient(90, 120)))
    relight(client, job, **body)
    return job


def relight(client, job, **body):
    answer = client.post("/relight", json={"job_id": job, **(body or LIGHTS["shorthand"])})
    assert answer.status_code == 200, answer.text


def exr(client, job, tmp_path):
    """passes.exr as OpenImageIO reads it: (planes float32 by name, their types by name, the lights)."""
    answer = client.get(f"/download/{job}/passes.exr")
    assert answer.status_code == 200 and answer.headers["content-type"] == "image/x-exr"
    path = tmp_path / "passes.exr"
    path.write_bytes(answer.content)
    file = oiio.ImageInput.open(str(path))
    spec, pixels = file.spec(), file.read_image("float")
    names = spec.channelnames
    types = {n: str(t) for n, t in zip(names, spec.channelformats or [spec.format] * len(names))}
    return {n: pixels[..., k] for k, n in enumerate(names)}, types, json.loads(spec.getattribute("relight"))


def deep(client, job):
    answer = client.get(f"/download/{job}/relit16.png")
    assert answer.status_code == 200 and answer.headers["content-type"] == "image/png"
    return cv2.cvtColor(cv2.imdecode(np.frombuffer(answer.content, np.uint8), cv2.IMREAD_UNCHANGED), cv2.COLOR_BGR2RGB)


@pytest.mark.parametrize("body", LIGHTS.values(), ids=LIGHTS)
def test_16_bits_say_the_same_as_8_and_more(client, body):
    job = relit(client, **body)
    fine, coarse = deep(client, job), picture(client, job)
    assert fine.dtype == np.uint16 and fine.shape == coarse.shape
    assert np.abs(fine / 257 - coarse).max() < 0.7 and np.mean(fine % 257 != 0) > 0.5


@pytest.mark.parametrize("body", LIGHTS.values(), ids=LIGHTS)
def test_the_exr_s_picture_is_relit_png(client, tmp_path, body):
    job = relit(client, **body)
    planes, types, said = exr(client, job, tmp_path)
    codes = 255 * linear_to_srgb(np.clip(np.stack([planes[c] for c in "RGB"], 2), 0, 1))
    assert np.abs(codes - picture(client, job)).max() < 0.8
    lamps = len(body.get("lights", [0]))
    assert set(planes) == {
        *("R", "G", "B", "A", "Z", "N.X", "N.Y", "N.Z", "surface.Y", "occlusion.Y"),
        *(f"{layer}.{c}" for layer in ("albedo", "shading") for c in "RGB"),
        *(f"shadow{k:02d}.Y" for k in range(lamps)),
        *(f"environment.{c}" for c in "RGB" if "environment" in body),
    }
    assert {types.pop("Z")} == {"float"} and set(types.values()) == {"half"} and len(said["lights"]) == lamps


@pytest.mark.parametrize("body", LIGHTS.values(), ids=LIGHTS)
def test_the_readme_s_script_composes_the_picture_of_the_layers(client, tmp_path, monkeypatch, body):
    job = relit(client, encoded(np.clip(gradient(90, 120), 12, 200)), **body)
    planes, _, _ = exr(client, job, tmp_path)
    (script,) = re.findall(r"```python\n(.*?)```", (ROOT / "server" / "README.md").read_text("utf-8"), re.S)
    monkeypatch.chdir(tmp_path)
    found = {}
    exec(script, found)
    expected = np.stack([planes[c] for c in "RGB"], 2)
    assert np.abs(found["relit"] - expected).mean() < 0.005 * expected.mean()
    assert np.abs(found["relit"] - expected).max() < 0.01


def test_albedo_and_shading_of_the_exr_make_the_photo(client, tmp_path):
    photo = gradient(90, 120)
    planes, _, _ = exr(client, relit(client, encoded(photo)), tmp_path)
    product = np.stack([planes[f"albedo.{c}"] * planes[f"shading.{c}"] for c in "RGB"], 2)
    assert np.abs(255 * linear_to_srgb(np.clip(product, 0, 1)) - photo).max() < 0.6


def test_geometry_in_the_exr_is_that_of_the_ball(client, tmp_path):
    """The fake engine sees a ball in the middle: unit normals, near in the middle, 1 at the median surface."""
    planes, _, _ = exr(client, relit(client, lights=[LAMP]), tmp_path)
    length = np.sqrt(planes["N.X"] ** 2 + planes["N.Y"] ** 2 + planes["N.Z"] ** 2)
    assert np.abs(length - 1).max() < 2e-3 and planes["N.X"][45, 75] > planes["N.X"][45, 45] + 0.2
    z = planes["Z"][planes["surface.Y"] > 0.5]
    assert abs(np.median(z) - 1) < 0.05 and planes["Z"][45, 60] == z.min()
    assert 0 <= planes["shadow00.Y"].min() < planes["shadow00.Y"].max() == 1


def test_sky_has_no_depth_and_keeps_its_colours(settings, tmp_path):
    class Sky(FakeEngine):
        def analyse(self, rgb):
            geometry = super().analyse(rgb)
            mask = np.ones(geometry.inverse_depth.shape, np.float32)
            mask[: len(mask) // 3] = 0
            return replace(geometry, mask=mask)

    photo = gradient(90, 120)
    with TestClient(create_app(settings(), Sky())) as client:
        planes, _, _ = exr(client, relit(client, encoded(photo)), tmp_path)
    assert np.isinf(planes["Z"][:20]).all() and np.isfinite(planes["Z"][40:]).all()
    assert planes["surface.Y"][:20].max() == 0 and (planes["shading.R"][:20] == 1).all()
    for layer in ("", "albedo."):
        codes = 255 * linear_to_srgb(np.clip(np.stack([planes[layer + c][:20] for c in "RGB"], 2), 0, 1))
        assert np.abs(codes - photo[:20]).max() < 0.6


def test_alpha_is_carried_through(client, tmp_path):
    photo = np.dstack([gradient(90, 120), np.arange(120, dtype=np.uint8)[None].repeat(90, 0) * 2])
    job = relit(client, encoded(photo))
    answer = client.get(f"/download/{job}/relit16.png").content
    fine = cv2.imdecode(np.frombuffer(answer, np.uint8), cv2.IMREAD_UNCHANGED)
    assert fine.shape == (90, 120, 4) and np.array_equal(fine[..., 3], photo[..., 3] * np.uint16(257))
    planes, _, _ = exr(client, job, tmp_path)
    assert np.abs(planes["A"] * 255 - photo[..., 3]).max() < 0.1


@pytest.mark.parametrize("name", ["relit16.png", "passes.exr", "passes.zip"])
def test_they_take_a_relight_and_head_makes_none(client, name):
    job = upload(client)
    assert name not in finished(client, job)["files"]
    assert "elight the job first" in problem(client.get(f"/download/{job}/{name}"), 404, "file_not_found")
    relight(client, job)
    assert name in client.get(f"/job/{job}").json()["files"]
    head = client.head(f"/download/{job}/{name}")
    assert head.status_code == (200 if name == "passes.zip" else 404)
    assert name != "passes.zip" or "content-length" not in head.headers, "nobody knows it before it is made"
    folder = client.app.state.service.store.root / job
    assert not {"relit16.png", "passes.exr", "depth.png"} & set(os.listdir(folder))
    answer = client.get(f"/download/{job}/{name}")
    assert answer.status_code == 200 and not (folder / "passes.zip").exists()
    assert client.head(f"/download/{job}/{name}").headers["content-length"] == str(len(answer.content))
    part = client.get(f"/download/{job}/{name}", headers={"Range": "bytes=5-20"})
    assert part.status_code == 206 and part.content == answer.content[5:21]


def test_no_job_makes_room_for_what_cannot_be_made(settings):
    """Without a relight there are no lights: nobody's job is deleted for a pass."""
    with TestClient(create_app(settings(), FakeEngine())) as client:
        service, jobs = client.app.state.service, [upload(client) for _ in range(3)]
        for job in jobs:
            finished(client, job)
        service.settings.jobs_quota_bytes = sum(e.size for e in service.store.list()) + 60 * 80 * 40 - 1000
        problem(client.get(f"/download/{jobs[0]}/passes.exr"), 404, "file_not_found")
        assert all(service.store.exists(job) for job in jobs)
        relight(client, jobs[0])
        assert client.get(f"/download/{jobs[0]}/passes.exr").status_code == 200
        assert not all(service.store.exists(job) for job in jobs) and service.store.exists(jobs[0])


@pytest.mark.parametrize("name", ["relit16.png", "passes.exr"])
def test_the_next_relight_drops_them_and_a_late_one_is_not_believed(client, name):
    """One that was still being made while the next relight came lands after it: it is made again."""
    job = relit(client)
    folder = client.app.state.service.store.root / job
    late = client.get(f"/download/{job}/{name}").content
    relight(client, job, x=1, y=0, z=0.3)
    assert not (folder / name).exists()
    (folder / name).write_bytes(late)
    assert client.head(f"/download/{job}/{name}").status_code == 404
    fresh = client.get(f"/download/{job}/{name}").content
    assert fresh != late and (folder / name).read_bytes() == fresh
    for damaged in (b"", fresh[:40], b"junk" * 99):
        (folder / name).write_bytes(damaged)
        assert client.get(f"/download/{job}/{name}").content == fresh


def test_a_relit_png_of_an_older_version_has_to_be_made_again(client):
    job = relit(client)
    store = client.app.state.service.store
    store.put(job, JobFile.RELIT, encoded(picture(client, job)))
    for name in ("relit16.png", "passes.exr", "passes.zip"):
        assert "Relight the job" in problem(client.get(f"/download/{job}/{name}"), 404, "file_not_found")
    relight(client, job)
    assert client.get(f"/download/{job}/passes.zip").status_code == 200


def test_the_sheet_shows_six_looks(client):
    """Three in a row; each is the photograph under a preset, its title below it."""
    job = upload(client, encoded(np.full((900, 600, 3), 128, np.uint8)))
    finished(client, job)
    answer = client.get(f"/download/{job}/sheet.jpg")
    assert answer.headers["content-type"] == "image/jpeg"
    paper = cv2.imdecode(np.frombuffer(answer.content, np.uint8), cv2.IMREAD_COLOR)[..., ::-1].astype(int)
    h, w = 512, 341
    assert paper.shape == (2 * (h + 40) + 12, 3 * (w + 12) + 12, 3)
    for k, name in enumerate(("window-left", "softbox", "rembrandt", "golden-hour", "rim", "neon-pair")):
        top, left = k // 3 * (h + 40) + 12, k % 3 * (w + 12) + 12
        body = {"job_id": job, "preset": name, "max_side": 512, "quality": 95}
        preview = client.post("/preview", json=body).content
        alone = cv2.imdecode(np.frombuffer(preview, np.uint8), cv2.IMREAD_COLOR)[..., ::-1].astype(int)
        assert np.abs(paper[top : top + h, left : left + w] - alone).mean() < 2, name
        caption = paper[top + h : top + h + 28, left : left + w]
        assert np.abs(caption - 24).max() > 100, "no title"


def test_the_archive_holds_what_the_downloads_give(client):
    job = relit(client)
    answer = client.get(f"/download/{job}/passes.zip")
    assert answer.headers["content-type"] == "application/zip" and "passes.zip" in answer.headers["content-disposition"]
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.testzip() is None and all(i.compress_type == zipfile.ZIP_STORED for i in archive.infolist())
        files = [n for n in client.get(f"/job/{job}").json()["files"] if n not in ("passes.zip", "scene.glb")]
        assert archive.namelist() == files and "passes.exr" in files
        for name in files:
            assert archive.read(name) == client.get(f"/download/{job}/{name}").content, name
    assert client.get(f"/download/{job}/passes.zip").content == answer.content


def test_an_archive_that_broke_off_is_continued(client):
    job = relit(client)
    address = f"/download/{job}/passes.zip"
    whole = client.get(address)
    etag, n = whole.headers["etag"], len(whole.content)
    assert whole.headers["content-length"] == str(n) and whole.headers["accept-ranges"] == "bytes"
    for asked, first, last in (
        (f"bytes=0-{n - 1}", 0, n),
        ("bytes=70000-", 70000, n),
        ("bytes=-300", n - 300, n),
        (f"bytes={n - 1}-{n + 5}", n - 1, n),
    ):
        part = client.get(address, headers={"Range": asked, "If-Range": etag})
        assert part.status_code == 206 and part.content == whole.content[first:last], asked
        assert part.headers["content-range"] == f"bytes {first}-{last - 1}/{n}"
        assert part.headers["content-length"] == str(last - first)
    problem(client.get(address, headers={"Range": f"bytes={n}-"}), 416, "invalid_request")
    assert client.get(address, headers={"Range": "bytes=5-9", "If-Range": '"other"'}).content == whole.content
    head = client.head(address, headers={"Range": "bytes=5-9"})
    assert head.status_code == 200 and head.headers["content-length"] == str(n) and head.headers["etag"] == etag
    for method in (client.get, client.head):
        assert method(address, headers={"If-None-Match": etag}).status_code == 304
    relight(client, job, x=0.3, y=0.2, z=0.9)
    changed = client.get(address, headers={"Range": "bytes=5-9", "If-Range": etag})
    assert changed.status_code == 200 and changed.headers["etag"] != etag


def test_the_size_of_an_archive_is_known_before_it_is_made():
    for sizes in ([], [0], [1, 0, 70_000], [300_000] * 20):
        files = [(f"{k}.png", io.BytesIO(b"x" * size)) for k, size in enumerate(sizes)]
        made = b"".join(archive.stream(files))
        assert archive.size([(name, len(file.getvalue())) for name, file in files]) == len(made)
    assert archive.size([("a", 1 << 31)]) is None
    blocks = [b"abc", b"", b"defg", b"h"]
    for first in range(8):
        for count in range(1, 9 - first):
            assert b"".join(archive.part(iter(blocks), first, count)) == b"abcdefgh"[first : first + count]


@pytest.mark.parametrize("name", ["relit16.png", "passes.exr", "passes.zip"])
def test_no_place_in_line_or_no_room_leaves_nothing_behind(client, monkeypatch, name):
    job = relit(client)
    service = client.app.state.service
    folder = service.store.root / job
    for file in ("depth.png", "normals.png", "albedo.png", "shading.png", "surface.png", "sheet.jpg"):
        picture(client, job, file)
    before = set(os.listdir(folder))
    monkeypatch.setattr(service.pool, "limit", 0)
    problem(client.get(f"/download/{job}/{name}"), 503, "overloaded")
    monkeypatch.undo()
    monkeypatch.setattr(service.settings, "jobs_quota_bytes", 100_000)
    problem(client.get(f"/download/{job}/{name}"), 507, "storage_full")
    monkeypatch.undo()

    def fails(*_):
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr("server.image.exr.Writer.write", fails)
    monkeypatch.setattr("server.jobs.rendering.deep_pass", fails)
    problem(client.get(f"/download/{job}/{name}"), 500, "internal")
    assert set(os.listdir(folder)) == before
    monkeypatch.undo()
    assert client.get(f"/download/{job}/{name}").status_code == 200


def test_a_key_with_all_the_jobs_it_may_have_gets_its_passes(settings):
    head = {"Authorization": "Bearer one"}
    with TestClient(create_app(settings(api_keys=["one"], key_jobs=1, key_bytes=50_000_000), FakeEngine())) as client:
        client.headers.update(head)
        job = relit(client)
        assert client.get(f"/download/{job}/passes.exr").status_code == 200


@pytest.mark.parametrize(
    "rig",
    [
        Rig(),
        Rig(lights=(key_light(1, 2, 3), Light(kind="point", position=(0.1, 0.2, 0.3))), exposure="auto"),
        Rig(lights=(Light(),) * 16, exposure=-1.25, strength=0.5),
    ],
)
def test_lights_are_read_again_as_they_were_written(rig):
    text = look.dump(rig)
    assert look.parse(text) == rig and text.isascii() and len(text) < look.HEAD / 4
    for damaged in ("", "{}{", '{"lights": 7}', text[:-2]):
        with pytest.raises(DamagedFile):
            look.parse(damaged)


def test_linear_light_beyond_half_floats_is_no_fault(client, tmp_path):
    job = relit(client, lights=[{"type": "directional", "direction": [0, 0, 1], "intensity": 100}], exposure=5)
    planes, _, _ = exr(client, job, tmp_path)
    assert np.isfinite(planes["R"]).all() and srgb_to_linear(0.5) < planes["R"].max() <= 1
