"""GET /job/{id}/maps: read here by a reader of its own, it holds what the server lights the photo with."""

import io
import json
import re
import struct
import threading
import zlib

import numpy as np
import pytest
from fakes import Gated, SeeingEngine, SphereEngine
from fastapi.testclient import TestClient
from PIL import Image
from support import encoded, finished, gradient, problem, upload

from server.application import create_app
from server.image.resample import shrink_image
from server.jobs.base import MAPS, JobFile
from server.jobs.record import load_record
from server.light.lights import blackbody
from server.light.live import differences
from server.light.maps import prepare
from server.scene.geometry import unpack


@pytest.fixture
def client(settings):
    with TestClient(create_app(settings(), SeeingEngine(mask=True)), raise_server_exceptions=False) as client:
        yield client


def whole(codes, shape):
    """What `differences` took: each the sum of the steps along its row, which begin down the first column."""
    n, h, w = shape
    size = len(codes) // (n * h * w)
    folded = sum(codes[k * n * h * w : (k + 1) * n * h * w].astype(np.int64) << 8 * k for k in range(size))
    steps = np.where(folded & 1, -(folded >> 1) - 1, folded >> 1).reshape(shape)
    steps[:, :, 0] = np.cumsum(steps[:, :, 0], 1)
    return np.cumsum(steps, 2) % (1 << 8 * size)


def read(data):
    """(what the server says, what the photo says, its planes by name, its picture)."""
    (length,) = struct.unpack_from("<I", data)
    contract, at = json.loads(zlib.decompress(data[4 : 4 + length])), 4 + length
    assert re.match(rb"relight-maps [0-9a-f]{18}\n", data[at : at + 32])
    (length,) = struct.unpack_from("<I", data, at + 32)
    head, at = json.loads(data[at + 36 : at + 36 + length]), at + 36 + length
    if not head["live"]:
        assert len(data) == at
        return contract, head, {}, None
    raw, planes = np.frombuffer(zlib.decompress(data[at : at + head["planes_bytes"]]), np.uint8), {}
    for p in head["planes"]:
        count = p["bytes"] * int(np.prod(p["shape"]))
        planes[p["name"]] = p["low"] + whole(raw[:count], p["shape"]) * (p["high"] - p["low"]) / p["steps"]
        raw = raw[count:]
    assert not raw.size
    photo = data[at + head["planes_bytes"] :]
    assert len(photo) == head["photo_bytes"]
    return contract, head, planes, np.asarray(Image.open(io.BytesIO(photo)))


def get(client, job, **options):
    answer = client.get(f"/job/{job}/maps", **options)
    assert answer.status_code == 200, answer.text
    assert int(answer.headers["content-length"]) == len(answer.content)
    return read(answer.content)


@pytest.mark.parametrize("bits", [8, 16])
def test_differences_give_everything_back(bits):
    rng = np.random.default_rng(bits)
    for shape in ((1, 1, 1), (3, 1, 7), (2, 9, 1), (4, 13, 21)):
        codes = rng.integers(0, 1 << bits, shape).astype(f"u{bits // 8}")
        assert np.array_equal(whole(np.frombuffer(differences(codes), np.uint8), shape), codes)


def test_the_maps_are_those_the_server_lights_with(client):
    photo = gradient(150, 210)
    job = upload(client, encoded(photo))
    contract, head, planes, picture = get(client, job)
    assert (head["width"], head["height"], head["alpha"]) == (210, 150, False) and np.array_equal(picture, photo)
    store = client.app.state.service.store
    record, geometry = load_record(store, job), unpack(store.get(job, JobFile.GEOMETRY))
    maps = prepare(photo, geometry, record.fit)
    shared, band = maps.shared, maps.samples.band(slice(0, maps.samples.size[0]))
    for name, true, step in (
        ("picture.normals", shared.planes[:3], 1 / 4094),
        ("picture.q", shared.planes[-1:], np.ptp(shared.planes[-1]) / 65534),
        ("picture.share", shared.planes[-2:-1], 0.5 / 254),
        ("grid.occlusion", shared.occlusion[None], 0.5 / 4094),
        ("grid.trust", shared.trust[None], 0.5 / 254),
        ("samples.normals", band.normals, 1 / 4094),
        ("samples.occlusion", band.occlusion[None], 0.5 / 4094),
        ("samples.photo", np.stack(band.codes) / 255, 1e-6),
    ):
        assert planes[name].shape == true.shape, name
        assert abs(planes[name] - true).max() <= step + 1e-6, name
    assert np.array_equal(np.rint(planes["grid.seen"] * 255), geometry.visibility.seen)
    assert head["scene"]["focal"] == pytest.approx(record.fit.focal)
    models = client.get("/models").json()
    assert contract["defaults"] == models["defaults"]
    assert set(contract["presets"]) == {p["name"] for p in models["presets"]}


def test_colours_by_temperature_come_close_to_every_black_body(client):
    told = get(client, upload(client))[0]["temperatures"]
    colors = np.array(told["colors"])
    for kelvin in np.geomspace(1000, 40000, 400):
        place = (1e6 / kelvin - told["from"]) / (told["to"] - told["from"]) * (len(colors) - 1)
        before = min(int(place), len(colors) - 2)
        found = colors[before] + (place - before) * (colors[before + 1] - colors[before])
        assert abs(found - blackbody(kelvin)).max() < 0.004


def test_a_photo_with_alpha_keeps_the_colours_that_alpha_hides(client):
    pixels = np.dstack([gradient(61, 83), np.arange(61 * 83).reshape(61, 83) % 256]).astype(np.uint8)
    _, head, _, picture = get(client, upload(client, encoded(pixels)))
    assert head["alpha"] and np.array_equal(picture, pixels)


def test_sizes(client):
    photo = gradient(900, 1300)
    job = upload(client, encoded(photo))
    for side, size in ((512, (354, 512)), (1024, (709, 1024)), (2048, (900, 1300))):
        _, head, _, picture = get(client, job, params={"max_side": side})
        assert (head["height"], head["width"]) == size == picture.shape[:2]
        assert np.array_equal(picture, shrink_image(photo, side))
    for wrong in ("1000", "0", "big", ""):
        answer = client.get(f"/job/{job}/maps", params={"max_side": wrong})
        assert problem(answer, 422, "invalid_request") and "max_side" in answer.json()["detail"]


def test_they_are_there_when_the_photo_is_ready(client):
    job = upload(client)
    finished(client, job)
    names = client.app.state.service.store.names(job)
    assert [n for n in names if n in MAPS.values()] == [MAPS[512]]  # the photo is no larger
    before = client.get(f"/job/{job}/maps").content
    assert client.get(f"/job/{job}/maps", params={"max_side": 2048}).content == before
    assert MAPS[512] not in client.get(f"/job/{job}").json()["files"]


def test_they_wait_for_the_analysis(settings):
    engine = Gated()
    with TestClient(create_app(settings(), engine)) as client:
        job, answers = upload(client), []
        asking = threading.Thread(target=lambda: answers.append(client.get(f"/job/{job}/maps")))
        asking.start()
        assert engine.entered.wait(10) and not answers
        engine.open.set()
        asking.join(30)
        assert answers[0].status_code == 200


def test_etag(client):
    job = upload(client)
    first = client.get(f"/job/{job}/maps")
    again = client.get(f"/job/{job}/maps", headers={"If-None-Match": first.headers["etag"]})
    assert again.status_code == 304 and not again.content and again.headers["etag"] == first.headers["etag"]
    assert client.get(f"/job/{job}/maps", headers={"If-None-Match": '"another"'}).content == first.content


def test_a_network_that_does_not_say_what_surfaces_see(settings):
    with TestClient(create_app(settings(), SphereEngine())) as client:
        contract, head, planes, picture = get(client, upload(client, encoded(gradient(60, 80))))
        assert head == {"width": 80, "height": 60, "alpha": False, "live": False}
        assert contract["defaults"] and not planes and picture is None


def test_maps_of_another_version_or_damaged_are_made_anew(client):
    job = upload(client)
    whole_answer = client.get(f"/job/{job}/maps").content
    store = client.app.state.service.store
    for data in (b"", b"relight-maps 000000000000000000\n and more", b"\0" * 5000):
        store.put(job, MAPS[512], data)
        assert client.get(f"/job/{job}/maps").content == whole_answer


def test_the_same_photo_again_has_the_same_maps_at_once(client):
    one = upload(client)
    finished(client, one)
    two = upload(client)
    finished(client, two)
    assert MAPS[512] in client.app.state.service.store.names(two)
    assert client.get(f"/job/{one}/maps").content == client.get(f"/job/{two}/maps").content


def test_a_job_that_is_not_there(client):
    job = upload(client)
    assert client.delete(f"/job/{job}").status_code == 200
    problem(client.get(f"/job/{job}/maps"), 404, "job_not_found")
    problem(client.get("/job/none/maps"), 404, "job_not_found")
