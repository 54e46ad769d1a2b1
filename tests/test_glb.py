"""scene.glb over HTTP: valid glTF of any photo, made once when it is first asked for, and kept."""

import json
import os
import shutil
import struct
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import cv2
import numpy as np
import pytest
from fakes import FakeEngine
from fastapi.testclient import TestClient
from support import ROOT, encoded, finished, gradient, problem, upload

from server.application import create_app
from server.image.decode import read_png
from server.image.gltf import Camera, Look, encode_glb
from server.jobs import glb
from server.settings import load

NAME = "scene.glb"
VALIDATE = """
const validator = require('gltf-validator');
const { readFileSync } = require('fs');
const read = (path) => validator.validateBytes(new Uint8Array(readFileSync(path)));
Promise.all(process.argv.slice(1).map(read)).then((reports) => console.log(JSON.stringify(reports)));
"""
KINDS = {5123: "<u2", 5125: "<u4", 5126: "<f4"}
WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3}


@pytest.fixture(autouse=True)
def coarse(monkeypatch):
    """Half as fine, which takes a quarter of the time."""
    monkeypatch.setattr(glb, "GRIDS", (256, 128))


def parse(data):
    """(the JSON of a GLB, its accessors as arrays, its images as bytes)."""
    magic, version, length = struct.unpack_from("<4sII", data)
    assert (magic, version, length) == (b"glTF", 2, len(data))
    size, kind = struct.unpack_from("<I4s", data, 12)
    assert kind == b"JSON" and size % 4 == 0
    document, (rest, kind) = json.loads(data[20 : 20 + size]), struct.unpack_from("<I4s", data, 20 + size)
    blob = data[28 + size :]
    assert kind == b"BIN\0" and rest == len(blob) == document["buffers"][0]["byteLength"]

    def view(k):
        said = document["bufferViews"][k]
        return blob[said["byteOffset"] : said["byteOffset"] + said["byteLength"]]

    arrays = []
    for said in document["accessors"]:
        flat = np.frombuffer(view(said["bufferView"]), KINDS[said["componentType"]])
        arrays.append(flat.reshape(said["count"], -1))
        assert arrays[-1].shape[1] == WIDTHS[said["type"]]
    return document, arrays, [view(image["bufferView"]) for image in document["images"]]


def parts(data):
    """(positions, normals, places, triangles) of a GLB."""
    document, arrays, _ = parse(data)
    primitive = document["meshes"][0]["primitives"][0]
    of = primitive["attributes"]
    vertices = (arrays[of[name]] for name in ("POSITION", "NORMAL", "TEXCOORD_0"))
    return (*vertices, arrays[primitive["indices"]].reshape(-1, 3))


def fetched(client, job):
    """scene.glb of a job, once it is ready."""
    assert NAME in finished(client, job)["files"]
    answer = client.get(f"/download/{job}/{NAME}")
    assert answer.status_code == 200, answer.text
    return answer.content


@pytest.fixture(scope="module")
def valid(tmp_path_factory):
    """valid({name: glb}): asserts that Khronos' validator has nothing to say but that sizes are no powers of two."""
    node = shutil.which("node")
    if not node or not (ROOT / "node_modules" / "gltf-validator").exists():
        if os.environ.get("CI"):
            pytest.fail("no node, or no gltf-validator; in CI they must be there")
        pytest.skip("gltf-validator takes Node and `npm ci`")

    def check(files):
        paths = []
        for name, data in files.items():
            paths.append(tmp_path_factory.mktemp("glb") / f"{name}.glb")
            paths[-1].write_bytes(data)
        command = [node, "--input-type=commonjs", "-e", VALIDATE, *map(str, paths)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        reports = json.loads(done.stdout)
        assert len(reports) == len(files)
        for report in reports:
            said = report["issues"]
            assert (said["numErrors"], said["numWarnings"]) == (0, 0), said["messages"]
            assert {message["code"] for message in said["messages"]} <= {"IMAGE_NPOT_DIMENSIONS"}
        return reports

    return check


class Odd(FakeEngine):
    """Tells of photos by their upper left pixel: 1 all sky, 2 noise, 3 a sky above, else the ball."""

    def analyse(self, rgb):
        geometry = super().analyse(rgb)
        shape, kind = geometry.inverse_depth.shape, rgb[0, 0, 0]
        if kind == 1:
            return replace(geometry, mask=np.zeros(shape, np.float32))
        if kind == 2:
            rng = np.random.default_rng(5)
            normals = rng.normal(size=(*shape, 3)).astype(np.float32)
            normals /= np.linalg.norm(normals, axis=2, keepdims=True)
            return replace(geometry, inverse_depth=rng.uniform(0, 9, shape).astype(np.float32), normals=normals)
        if kind == 3:
            mask = np.ones(shape, np.float32)
            mask[: len(mask) // 3] = 0
            return replace(geometry, mask=mask)
        return geometry


def photo(h, w, kind=9):
    picture = gradient(h, w)
    picture[0, 0] = kind
    return picture


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    jobs = tmp_path_factory.mktemp("jobs")
    settings = load(jobs_dir=jobs, log_level="warning", sweep_seconds=3600, decoders=0)
    with TestClient(create_app(settings, Odd())) as client:
        yield client


def test_whatever_the_photo_it_is_valid(odd, valid):
    half = np.dstack([photo(60, 80), np.repeat(np.uint8([[0, 255]]), [40, 40], 1).repeat(60, 0)])
    clear = np.dstack([photo(60, 80), np.zeros((60, 80), np.uint8)])
    photos = {
        "ball": photo(60, 80),
        "one": photo(1, 1),
        "line": photo(1, 300),
        "odd": photo(37, 51),
        "large": photo(30, 2100),
        "nothing": photo(60, 80, 1),
        "noise": photo(90, 90, 2),
        "sky": photo(90, 120, 3),
        "half": half,
        "clear": clear,
    }
    files = {name: fetched(odd, upload(odd, encoded(pixels))) for name, pixels in photos.items()}
    reports = dict(zip(files, valid(files)))
    for name, report in reports.items():
        info = report["info"]
        assert info["drawCallCount"] == 1 and 0 < info["totalTriangleCount"] <= 60_000, name
        sizes = {(image["image"]["width"], image["image"]["height"]) for image in info["resources"] if "image" in image}
        h, w = photos[name].shape[:2]
        assert sizes == {(2048, 29) if name == "large" else (w, h)}, name
    for name in ("ball", "nothing", "clear", "one"):  # all there is
        places = parts(files[name])[2]
        assert places.min() == 0 and places.max() == 1, name
    assert parts(files["half"])[2][:, 0].min() > 0.45 and parts(files["sky"])[2][:, 1].min() > 0.25
    assert reports["ball"]["info"]["totalTriangleCount"] < reports["noise"]["info"]["totalTriangleCount"]


def test_it_is_the_ball_and_the_photo_and_its_albedo(odd):
    """In the middle, nearest, and round: the engine sees a ball, its radius 0.35 of the picture's height."""
    job = upload(odd, encoded(photo(60, 80)))
    document, _, images = parse(fetched(odd, job))
    positions, normals, places, triangles = parts(fetched(odd, job))
    focal = document["nodes"][1]["translation"][2] / 2
    x, _, z = positions.astype(np.float64).T
    assert np.allclose(focal * x / (2 * focal - z) + 0.5, places[:, 0], atol=1e-5)
    camera = document["cameras"][0]["perspective"]
    assert camera["aspectRatio"] == pytest.approx(80 / 60)
    assert 2 * focal * np.tan(camera["yfov"] / 2) == pytest.approx(60 / 80)
    assert 0 < camera["znear"] < (2 * focal - z).min() and camera["zfar"] > (2 * focal - z).max()
    nearest = places[z.argmax()]
    assert np.abs(nearest - 0.5).max() < 0.05
    u, v = (places[:, 0] - 0.5) * 80 / 60, 0.5 - places[:, 1]
    ball = np.hypot(u, v) < 0.3
    expected = np.stack([u, v, np.sqrt(np.maximum(0.35**2 - u**2 - v**2, 0))], 1)[ball] / 0.35
    assert np.median((normals[ball] * expected).sum(1)) > 0.99
    assert np.allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-5)
    edge = positions[triangles]
    facing = np.einsum(
        "ij,ij->i", np.cross(edge[:, 1] - edge[:, 0], edge[:, 2] - edge[:, 0]), (0, 0, 2 * focal) - edge[:, 0]
    )
    assert (facing > 0).all()
    assert [m["name"] for m in document["materials"]] == ["photo", "albedo"]
    assert [bool(m.get("extensions")) for m in document["materials"]] == [True, False]
    for image, name in zip(images, ("input.png", "albedo.png")):
        ours = cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_COLOR)[..., ::-1].astype(int)
        assert np.abs(ours - read_png(odd.get(f"/download/{job}/{name}").content)[..., :3]).mean() < 4, name


def test_65535_vertices_take_longer_numbers(valid):
    n = 70_000
    positions = np.random.default_rng(0).normal(size=(n, 3)).astype(np.float32)
    normals = np.tile(np.float32([0, 0, 1]), (n, 1))
    files = {}
    for count in (65534, 65535, n):
        triangles = np.arange(count // 3 * 3).reshape(-1, 3)
        triangles[-1, -1] = count - 1
        looks = [Look("photo", encoded(gradient(4, 4), "JPEG"), lit=False)]
        camera = Camera(2, 0.5, 1, 0.1, 9)
        some = positions[:count], normals[:count], positions[:count, :2]
        files[str(count)] = encode_glb(*some, triangles, looks, camera)
        assert np.array_equal(parts(files[str(count)])[3], triangles)
        assert parse(files[str(count)])[1][-1].itemsize == (2 if count < 65535 else 4)
    valid(files)


def test_it_is_made_when_it_is_first_asked_for_and_stays(client):
    job = upload(client)
    finished(client, job)
    path = client.app.state.service.store.root / job / NAME
    assert client.head(f"/download/{job}/{NAME}").status_code == 404 and not path.exists()
    answer = client.get(f"/download/{job}/{NAME}")
    assert answer.headers["content-type"] == "model/gltf-binary" and path.read_bytes() == answer.content
    assert answer.headers["content-disposition"] == 'attachment; filename="scene.glb"'
    assert client.head(f"/download/{job}/{NAME}").headers["content-length"] == str(len(answer.content))
    part = client.get(f"/download/{job}/{NAME}", headers={"Range": "bytes=4-11"})
    assert part.status_code == 206 and part.content == answer.content[4:12]
    assert client.post("/relight", json={"job_id": job, "x": 1, "y": 0, "z": 1}).status_code == 200
    inode = path.stat().st_ino
    assert client.get(f"/download/{job}/{NAME}", headers={"If-None-Match": answer.headers["etag"]}).status_code == 304
    assert path.stat().st_ino == inode


def test_another_photo_alike_gets_the_same_bytes(client):
    assert len({fetched(client, upload(client)) for _ in range(2)}) == 1


def test_many_who_ask_at_once_have_it_made_once(client, monkeypatch):
    job = upload(client)
    finished(client, job)
    made, real, lock = [], glb.scene_glb, threading.Lock()

    def counted(*arguments):
        with lock:
            made.append(1)
        return real(*arguments)

    monkeypatch.setattr("server.jobs.glb.scene_glb", counted)
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: client.get(f"/download/{job}/{NAME}"), range(6)))
    assert {a.status_code for a in answers} == {200} and len({a.content for a in answers}) == 1 and made == [1]


def test_no_place_in_line_no_room_or_a_fault_leave_nothing_behind(client, monkeypatch):
    job = upload(client)
    finished(client, job)
    service = client.app.state.service
    folder = service.store.root / job
    before = set(os.listdir(folder))
    monkeypatch.setattr(service.pool, "limit", 0)
    problem(client.get(f"/download/{job}/{NAME}"), 503, "overloaded")
    monkeypatch.undo()
    monkeypatch.setattr(service.settings, "jobs_quota_bytes", 1_000_000)
    problem(client.get(f"/download/{job}/{NAME}"), 507, "storage_full")
    monkeypatch.undo()

    def fails(*_):
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr("server.jobs.glb.scene_glb", fails)
    problem(client.get(f"/download/{job}/{NAME}"), 500, "internal")
    assert set(os.listdir(folder)) == before
    monkeypatch.undo()
    assert client.get(f"/download/{job}/{NAME}").status_code == 200


def test_a_job_of_another_key_has_none(settings):
    with TestClient(create_app(settings(api_keys=["one", "two"]), FakeEngine())) as client:
        mine, other = ({"Authorization": f"Bearer {key}"} for key in ("one", "two"))
        job = upload(client, headers=mine)
        finished(client, job, headers=mine)
        problem(client.get(f"/download/{job}/{NAME}", headers=other), 404, "job_not_found")
        assert client.get(f"/download/{job}/{NAME}", headers=mine).status_code == 200
