"""Masks over HTTP: what is taken as one, where it lies, and where the light goes then."""

import io
import json
import re
import threading
from dataclasses import replace

import numpy as np
import OpenEXR
import pytest
from fakes import SphereEngine
from fastapi.testclient import TestClient
from PIL import Image
from support import ROOT, encoded, finished, gradient, linear, no_room_for, picture, problem, upload

from server.application import create_app
from server.jobs import masks, rendering
from server.jobs.base import MASK_SLOTS, JobFile

NONE = "00000000-0000-4000-8000-000000000000"
H, W = 60, 80
KEY = {"type": "directional", "direction": [-0.6, 0.4, 0.7]}
LIT = {"x": -0.6, "y": 0.4, "z": 0.7}


def left_half(h=H, w=W):
    """White on the left, (h, w) uint8."""
    mask = np.zeros((h, w), np.uint8)
    mask[:, : w // 2] = 255
    return mask


def put(client, job, name, pixels, **options):
    data = pixels if isinstance(pixels, bytes) else encoded(pixels, **options)
    return client.put(f"/job/{job}/mask/{name}", content=data)


def got(client, job, name, **query):
    """A mask as GET gives it, (h, w) uint8."""
    answer = client.get(f"/job/{job}/mask/{name}", params=query)
    assert answer.status_code == 200, answer.text
    image = Image.open(io.BytesIO(answer.content))
    assert image.mode == "L" and answer.headers["content-type"] == "image/png"
    return np.array(image)


def relit(client, job, **body):
    answer = client.post("/relight", json={"job_id": job, **body})
    assert answer.status_code == 200, answer.text
    return picture(client, job).astype(int)


def slots(client, job):
    """How many pictures of masks lie in a job's folder."""
    return len(set(MASK_SLOTS) & set(client.app.state.service.store.names(job)))


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A client that tests share which leave its settings alone; every photo of it is a sphere before a sky."""
    from server.settings import load

    settings = load(jobs_dir=tmp_path_factory.mktemp("jobs"), log_level="warning", sweep_seconds=3600, decoders=0)
    with TestClient(create_app(settings, SphereEngine(side=64)), raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def job(shared):
    job = upload(shared)
    yield job
    assert shared.delete(f"/job/{job}").status_code == 200


# -- what is taken as a mask


def test_a_mask_comes_back_as_it_was_put(shared, job):
    noise = np.random.default_rng(0).integers(0, 256, (H, W), dtype=np.uint8)
    assert put(shared, job, "noise", noise).json() == {"name": "noise", "width": W, "height": H}
    assert np.array_equal(got(shared, job, "noise"), noise)
    assert np.array_equal(got(shared, job, "noise", invert=True), 255 - noise)
    assert shared.get(f"/job/{job}").json()["masks"] == ["noise"]
    assert shared.delete(f"/job/{job}/mask/noise").json() == {"status": "deleted"}
    assert shared.get(f"/job/{job}").json()["masks"] == []
    problem(shared.get(f"/job/{job}/mask/noise"), 404, "mask_not_found")
    problem(shared.delete(f"/job/{job}/mask/noise"), 404, "mask_not_found")


def kinds():
    gray = np.random.default_rng(1).integers(0, 256, (H, W), dtype=np.uint8)
    white, black = np.full((H, W, 3), 255, np.uint8), np.zeros((H, W, 3), np.uint8)
    yield "gray", gray, gray
    yield "RGB", np.dstack([gray] * 3), gray
    yield "opaque RGBA", np.dstack([gray] * 3 + [white[..., 0]]), gray
    yield "white paint", np.dstack([white, gray]), gray
    yield "a cut-out", np.dstack([black, gray]), gray
    yield "gray with alpha", np.dstack([black[..., 0], gray]), gray
    yield "16 bits", gray.astype(np.uint16) * 257, gray
    yield "one bit", Image.fromarray(left_half()).convert("1"), left_half()
    yield "palette", Image.fromarray(left_half()).convert("P"), left_half()


@pytest.mark.parametrize("path", ["mask/m", "environment"])
def test_a_form_is_refused_with_what_to_send_instead(shared, job, path):
    answer = shared.put(f"/job/{job}/{path}", files={"file": ("m.png", encoded(left_half()))})
    assert "not a form" in problem(answer, 422, "invalid_request")


@pytest.mark.parametrize("name, pixels, expected", [pytest.param(*kind, id=kind[0]) for kind in kinds()])
def test_kinds_of_pictures(shared, job, name, pixels, expected):
    assert put(shared, job, "m", pixels).status_code == 200
    assert np.array_equal(got(shared, job, "m"), expected)


def test_orientation_is_applied_and_nothing_else_of_a_file_is_kept(shared, job):
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a secret place"
    turned = np.rot90(left_half()).copy()  # what has to be turned clockwise to stand upright
    assert put(shared, job, "m", turned, exif=exif).status_code == 200
    assert np.array_equal(got(shared, job, "m"), left_half())
    folder = shared.app.state.service.store.root / job
    assert not any(b"secret" in path.read_bytes() for path in folder.iterdir())


def test_sizes_are_those_of_the_photo(shared, job):
    """Larger ones are averaged, smaller ones interpolated."""
    large = np.random.default_rng(2).integers(0, 256, (H * 3, W * 3), dtype=np.uint8)
    put(shared, job, "m", large)
    expected = large.reshape(H, 3, W, 3).mean((1, 3))
    assert np.abs(got(shared, job, "m") - expected).max() <= 1
    ramp = np.tile(np.linspace(0, 255, 40).round().astype(np.uint8), (30, 1))
    assert put(shared, job, "m", ramp).json() == {"name": "m", "width": W, "height": H}
    assert np.all(np.diff(got(shared, job, "m").astype(int), axis=1) >= 0)
    assert np.abs(got(shared, job, "m") - np.linspace(0, 255, W)).max() <= 4
    assert got(shared, job, "m", max_side=64).shape == (48, 64)


@pytest.mark.parametrize("size", [(1, 1), (1, 90), (90, 1), (7, 5), (33, 47)])
def test_odd_sizes(shared, size):
    job = upload(shared, encoded(gradient(*size)))
    mask = np.random.default_rng(3).integers(0, 256, size, dtype=np.uint8)
    assert put(shared, job, "m", mask).status_code == 200
    assert np.array_equal(got(shared, job, "m"), mask)
    for feather in (0, 0.05):
        relit(shared, job, **LIT, mask={"name": "m", "feather": feather})
        assert got(shared, job, "m", feather=feather).shape == size
        assert relit(shared, job, **LIT, mask={"name": "m", "feather": feather}, strength=0).shape == (*size, 3)
    shared.delete(f"/job/{job}")


def bad_masks():
    whole = encoded(left_half())
    yield "empty", b"", 422, "empty_file"
    yield "text", b"the left half, please", 415, "unsupported_image"
    yield "cut", whole[: len(whole) // 2], 422, "corrupt_image"
    yield "square", encoded(left_half(64, 64)), 422, "invalid_mask"
    yield "off by 2 %", encoded(left_half(600, 816)), 422, "invalid_mask"
    yield "upright", encoded(left_half(80, 60)), 422, "invalid_mask"
    yield "Radiance", b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 3 +X 4\n" + bytes(48), 415, "unsupported_image"
    yield "many pixels", b"BM" + bytes(12) + b"\x28\0\0\0" + b"\x40\x9c\0\0" * 2 + b"\1\0\x18\0" + bytes(24), 413, None
    yield "many bytes", bytes(70 << 10) + bytes(1 << 20), 413, "file_too_large"


@pytest.mark.parametrize("decoders", [0, 1])
def test_bad_masks_are_refused_and_leave_nothing(settings, decoders):
    app = create_app(settings(decoders=decoders, max_upload_bytes=1 << 20), SphereEngine(side=32))
    with TestClient(app, raise_server_exceptions=False) as client:
        job = upload(client)
        finished(client, job)
        put(client, job, "m", left_half())
        folder = app.state.service.store.root / job
        before = {p.name: p.read_bytes() for p in folder.iterdir()}
        for name, data, status, code in bad_masks():
            assert problem(put(client, job, "m", data), status, code or "image_too_large"), name
            put(client, job, "other", data)
        assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
        assert put(client, job, "m", left_half(600, 806)).status_code == 200  # off by 0.75 %


@pytest.mark.parametrize("name", ["A", "a.b", "a%20b", "ä", "x" * 33, "%2e%2e", "a%0a", "-/x", ""])
def test_bad_names(shared, job, name):
    for ask in (shared.get, shared.delete, lambda path: shared.put(path, content=encoded(left_half()))):
        answer = ask(f"/job/{job}/mask/{name}")
        assert answer.status_code in (404, 405, 422) and answer.json()["code"] in ("invalid_request", "not_found")
    if name.isascii() and name.isalnum():
        assert "name" in problem(shared.get(f"/job/{job}/mask/{name}"), 422, "invalid_request")


@pytest.mark.parametrize("name", ["subject", "sky"])
def test_what_is_built_in_cannot_be_written(shared, job, name):
    assert name in problem(put(shared, job, name, left_half()), 422, "invalid_mask")
    assert name in problem(shared.delete(f"/job/{job}/mask/{name}"), 422, "invalid_mask")
    assert shared.get(f"/job/{job}").json()["masks"] == []


def test_no_job_no_mask(shared):
    for job in (NONE, "nobody"):
        problem(put(shared, job, "m", left_half()), 404, "job_not_found")
        problem(shared.get(f"/job/{job}/mask/m"), 404, "job_not_found")
        problem(shared.get(f"/job/{job}/mask/sky"), 404, "job_not_found")
        problem(shared.delete(f"/job/{job}/mask/m"), 404, "job_not_found")


def test_at_most_eight(shared, job):
    names = [f"m{k}" for k in range(8)]
    for name in names:
        assert put(shared, job, name, left_half()).status_code == 200
    assert "8" in problem(put(shared, job, "m8", left_half()), 422, "invalid_mask")
    assert put(shared, job, "m3", 255 - left_half()).status_code == 200  # in place of another
    assert np.array_equal(got(shared, job, "m3"), 255 - left_half())
    assert np.array_equal(got(shared, job, "m4"), left_half())
    assert shared.get(f"/job/{job}").json()["masks"] == names and slots(shared, job) == 8
    shared.delete(f"/job/{job}/mask/m0")
    assert put(shared, job, "m8", left_half()).status_code == 200
    lights = [{**KEY, "mask": name} for name in names[1:]]
    relit(shared, job, lights=lights, mask="m8")
    for name in [*names[1:], "m8"]:  # while relit.png keeps all eight that it was made with
        assert put(shared, job, name, 255 - left_half()).status_code == 200
        assert np.array_equal(got(shared, job, name), 255 - left_half())
    assert slots(shared, job) == 16


# -- GET


def test_etags_and_head(shared, job):
    put(shared, job, "m", left_half())
    path = f"/job/{job}/mask/m"
    first = shared.get(path)
    assert shared.get(path, headers={"If-None-Match": first.headers["etag"]}).status_code == 304
    head = shared.head(path)
    assert head.status_code == 200 and head.content == b"" and head.headers["etag"] == first.headers["etag"]
    others = [shared.get(path, params=p).headers["etag"] for p in ({"invert": 1}, {"feather": 0.01}, {"max_side": 64})]
    put(shared, job, "m", left_half())
    others.append(shared.get(path).headers["etag"])
    assert len({first.headers["etag"], *others}) == 5
    assert shared.get(path, headers={"If-None-Match": first.headers["etag"]}).status_code == 200
    for query in ({"feather": 0.2}, {"feather": -1}, {"feather": "nan"}, {"max_side": 63}, {"max_side": 4097}):
        detail = problem(shared.get(path, params=query), 422, "invalid_request")
        assert detail.startswith(f"{next(iter(query))}: Input should be") and ";" not in detail and "None" not in detail


def test_the_sky_is_the_surface_turned_round(client, settings):
    problem(client.get(f"/job/{upload(client)}/mask/sky"), 404, "mask_not_found")  # nobody tells it from the rest
    with TestClient(create_app(settings(), SphereEngine(side=48, mask=True))) as telling:
        job = upload(telling)
        sky = got(telling, job, "sky")
        assert np.array_equal(sky, 255 - picture(telling, job, "surface.png")) and set(np.unique(sky)) >= {0, 255}
        detail = problem(telling.get(f"/job/{job}/mask/subject"), 404, "mask_not_found")
        assert "models" in detail and "subject" in detail
        soft = got(telling, job, "sky", feather=0.05)
        assert len(np.unique(soft)) > 10
        sure = (sky == 0) | (sky == 255)  # what is surely sky is never relit
        assert np.array_equal(relit(telling, job, **LIT, mask="sky")[sure], gradient()[sure])
        turned = relit(telling, job, **LIT, exposure=0, mask={"name": "sky", "invert": True})
        assert np.array_equal(turned[sure], relit(telling, job, **LIT, exposure=0)[sure])


class Telling(SphereEngine):
    """Tells what stands in front: the left half."""

    def analyse(self, rgb):
        geometry = super().analyse(rgb)
        return replace(geometry, subject=left_half(*geometry.inverse_depth.shape))


def test_the_subject_is_subject_png(settings):
    with TestClient(create_app(settings(), Telling(side=64))) as client:
        faded = np.dstack([gradient(), np.tile(np.linspace(0, 255, W).astype(np.uint8), (H, 1))])
        for photo in (gradient(), faded):
            job = upload(client, encoded(photo))
            subject = got(client, job, "subject")
            assert np.array_equal(subject, picture(client, job, "subject.png")) and subject.max() > 100
        job = upload(client)
        subject = got(client, job, "subject")
        made = relit(client, job, **LIT, mask="subject")
        assert np.array_equal(made[subject == 0], gradient()[subject == 0]) and (subject == 0).any()
        assert np.abs(made - gradient())[subject == 255].mean() > 5
        back = relit(client, job, **LIT, mask={"name": "subject", "invert": True, "feather": 0.01})
        assert np.abs(back - gradient())[:, -10:].mean() > 5 > np.abs(back - gradient())[:, :10].max()


# -- where the light goes


def bodies():
    yield "shorthand", LIT
    yield "coloured", {"lights": [{**KEY, "color": "#ff8040"}, {"type": "point", "position": [0.5, 0, 0.5]}]}
    yield "specular", {"lights": [KEY], "specular": {"strength": 1}, "exposure": "auto"}
    yield "preset", {"preset": "rim"}
    yield "environment", {"environment": {"type": "preset", "name": "sky-sunset"}, "exposure": 1}


every_body = pytest.mark.parametrize("body", [pytest.param(body, id=name) for name, body in bodies()])


@every_body
def test_a_white_mask_is_none_and_a_black_one_changes_nothing(shared, job, body):
    put(shared, job, "white", np.full((H, W), 255, np.uint8))
    put(shared, job, "black", np.zeros((H, W), np.uint8))
    plain = relit(shared, job, **body)
    assert np.abs(plain - gradient()).max() > 5
    for mask in ("white", {"name": "white", "feather": 0.03}, {"name": "black", "invert": True}):
        assert np.array_equal(relit(shared, job, **body, mask=mask), plain)
    for mask in ("black", {"name": "black", "feather": 0.03}, {"name": "white", "invert": True}):
        assert np.array_equal(relit(shared, job, **body, mask=mask), gradient())
    assert np.array_equal(picture(shared, job, "relit16.png"), gradient())  # Pillow reads its upper bytes


@every_body
def test_half_a_picture(shared, job, body):
    """What is out of the mask is the input, what is in it the relit picture; strength 0 is the input."""
    put(shared, job, "left", left_half())
    body = {**body, "exposure": 0.5}
    plain, half = relit(shared, job, **body), relit(shared, job, **body, mask="left")
    assert np.array_equal(half[:, : W // 2], plain[:, : W // 2])
    assert np.array_equal(half[:, W // 2 :], gradient()[:, W // 2 :])
    assert np.array_equal(relit(shared, job, **body, mask="left", strength=0), gradient())
    other = relit(shared, job, **body, mask={"name": "left", "invert": True})
    assert np.array_equal(np.hstack([half[:, : W // 2], other[:, W // 2 :]]), plain)


def test_a_gray_mask_blends_in_linear_light(shared, job):
    put(shared, job, "gray", np.full((H, W), 102, np.uint8))
    body = {"lights": [KEY], "ambient": 0.1}
    plain, some = linear(relit(shared, job, **body)), linear(relit(shared, job, **body, mask="gray"))
    assert np.abs(some - (linear(gradient()) * 0.6 + plain * 0.4)).max() < 0.006  # a code at the bright end
    assert np.array_equal(relit(shared, job, **body, mask="gray"), relit(shared, job, **body, strength=0.4))


def test_two_lights_through_a_mask_and_its_opposite_are_one(shared, job):
    mask = np.random.default_rng(4).integers(0, 256, (H, W), dtype=np.uint8)
    put(shared, job, "m", mask)
    for feather in (0, 0.02):
        here = {"name": "m", "feather": feather}
        parts = [{**KEY, "mask": here}, {**KEY, "mask": {**here, "invert": True}}]
        assert np.abs(relit(shared, job, lights=parts) - relit(shared, job, lights=[KEY])).max() <= 1
        dark = relit(shared, job, lights=[{**KEY, "intensity": 0}])
        one = linear(relit(shared, job, lights=parts[:1], exposure=-2)) - linear(
            relit(shared, job, lights=[{**KEY, "intensity": 0}], exposure=-2)
        )
        assert (one >= -0.004).all() and np.abs(dark - relit(shared, job, lights=parts[:1])).max() > 5


def test_a_light_goes_where_its_mask_is(shared, job):
    put(shared, job, "left", left_half())
    lamp = {"type": "point", "position": [0, 0, 0.5], "intensity": 3}
    specular = {"specular": {"strength": 1}}
    for more in ({}, specular):
        both = relit(shared, job, lights=[KEY, {**lamp, "mask": "left"}], **more)
        assert np.array_equal(both[:, : W // 2], relit(shared, job, lights=[KEY, lamp], **more)[:, : W // 2])
        assert np.array_equal(both[:, W // 2 :], relit(shared, job, lights=[KEY], **more)[:, W // 2 :])


def test_auto_exposure_is_that_of_what_is_relit(shared, job):
    """In the mask the picture stays as bright as the photo was there, whatever lies outside."""
    photo = np.full((H, W, 3), 40, np.uint8)
    photo[:, W // 2 :] = 150
    other = upload(shared, encoded(photo))
    put(shared, other, "left", left_half())
    dim = {"lights": [{**KEY, "intensity": 0.4}], "exposure": "auto", "delight": 0, "ambient": 0}
    made = linear(relit(shared, other, **dim, mask="left"))[:, : W // 2]
    ratio = np.log2(made.mean(-1) / linear(photo)[:, : W // 2].mean(-1))
    assert abs(ratio.mean()) < 0.1
    previews = [
        shared.post("/preview", json={"job_id": other, **dim, "mask": "left", "max_side": side, "quality": 100})
        for side in (64, 80)
    ]
    small, large = (np.array(Image.open(io.BytesIO(p.content)).resize((16, 12), Image.BOX)) for p in previews)
    assert np.abs(small.astype(int) - large)[:, :7].max() <= 3
    shared.delete(f"/job/{other}")


def test_previews_show_the_same(shared, job):
    put(shared, job, "left", left_half())
    body = {"job_id": job, **LIT, "mask": {"name": "left", "feather": 0.05}, "max_side": W, "quality": 100}
    seen = np.array(Image.open(io.BytesIO(shared.post("/preview", json=body).content))).astype(int)
    assert np.abs(seen - relit(shared, job, **LIT, mask=body["mask"])).mean() < 3


def refused():
    yield {"mask": "nobody"}, 404, "mask_not_found", "mask: "
    yield {"mask": {"name": "left", "feather": 0.11}}, 422, "invalid_request", "mask.feather"
    yield {"mask": {"name": "left", "feather": -0.01}}, 422, "invalid_request", "mask.feather"
    yield {"mask": {"name": "left", "feather": "0.1"}}, 422, "invalid_request", "mask.feather"
    yield {"mask": {"name": "left", "invert": 1}}, 422, "invalid_request", "mask.invert"
    yield {"mask": {"name": "left", "version": "0-" + "0" * 32}}, 422, "invalid_request", "mask.version"
    yield {"mask": {"invert": True}}, 422, "invalid_request", "mask.name"
    yield {"mask": "Left"}, 422, "invalid_request", "mask"
    yield {"mask": "../left"}, 422, "invalid_request", "mask"
    yield {"mask": ["left"]}, 422, "invalid_request", "mask"
    yield {"mask": "subject"}, 404, "mask_not_found", "models"
    yield {"lights": [KEY, {**KEY, "mask": "nobody"}]}, 404, "mask_not_found", "lights.1.mask"
    yield {"lights": [{**KEY, "mask": 5}]}, 422, "invalid_light", "lights.0.mask"
    yield {"lights": [{**KEY, "mask": {"name": "left", "soft": 1}}]}, 422, "invalid_light", "lights.0.mask.soft"


@pytest.mark.parametrize("body, status, code, word", list(refused()))
def test_what_makes_no_sense_is_refused_and_named(shared, job, body, status, code, word):
    put(shared, job, "left", left_half())
    body = {"job_id": job, **({} if "lights" in body else LIT), **body}
    for path in ("/relight", "/preview"):
        assert word in problem(shared.post(path, json=body), status, code)
    assert JobFile.RELIT not in shared.app.state.service.store.names(job)


# -- what stays


def test_passes_keep_the_masks_of_the_last_relight(shared, job):
    """Also when one was replaced or deleted since; once nothing holds on to a picture, it goes."""
    put(shared, job, "left", left_half())
    first = relit(shared, job, **LIT, mask="left")
    put(shared, job, "left", np.zeros((H, W), np.uint8))
    assert slots(shared, job) == 2
    assert shared.delete(f"/job/{job}/mask/left").status_code == 200
    assert slots(shared, job) == 1
    deep = picture(shared, job, "relit16.png").astype(int)  # Pillow reads its upper bytes
    assert np.abs(deep - first).max() <= 1
    assert shared.get(f"/download/{job}/passes.zip").status_code == 200
    problem(shared.post("/relight", json={"job_id": job, **LIT, "mask": "left"}), 404, "mask_not_found")
    relit(shared, job, **LIT)
    put(shared, job, "right", 255 - left_half())
    assert slots(shared, job) == 1


@pytest.fixture
def meanwhile(shared, monkeypatch):
    """Have something done with the masks of a job while a picture is being lit, the first times that one is."""
    real = rendering.relight

    def install(change, times):
        left = [times]

        def relight(*args, **options):
            if left[0]:
                left[0] -= 1
                with shared.app.state.service.processes.room_lock(1):
                    change(shared.app.state.service.store)
            return real(*args, **options)

        monkeypatch.setattr(rendering, "relight", relight)

    return install


def test_a_mask_that_is_replaced_during_a_relight_is_the_new_one_throughout(shared, job, meanwhile):
    put(shared, job, "m", left_half())
    meanwhile(lambda store: masks.put(store, job, "m", *masks.encoded(255 - left_half(), 1)), 1)
    made = relit(shared, job, **LIT, mask="m")
    deep = picture(shared, job, "relit16.png").astype(int)
    assert np.abs(deep - made).max() <= 1
    assert shared.get(f"/download/{job}/passes.exr").status_code == 200
    photo = picture(shared, job, "input.png").astype(int)
    assert (made[:, : W // 2] == photo[:, : W // 2]).all() and (made[:, W // 2 :] != photo[:, W // 2 :]).any()
    assert slots(shared, job) == 1


def test_a_mask_that_is_deleted_during_a_relight_leaves_the_picture_before(shared, job, meanwhile):
    put(shared, job, "m", left_half())
    before = relit(shared, job, **LIT)
    meanwhile(lambda store: masks.delete(store, job, "m"), 1)
    problem(shared.post("/relight", json={"job_id": job, **LIT, "mask": "m"}), 404, "mask_not_found")
    assert (picture(shared, job) == before).all()
    assert shared.get(f"/download/{job}/relit16.png").status_code == 200


def test_a_mask_that_relit_png_holds_may_be_replaced_during_the_next_relight(shared, job, meanwhile):
    put(shared, job, "m", left_half())
    before = relit(shared, job, **LIT, mask="m")
    meanwhile(lambda store: masks.put(store, job, "m", *masks.encoded(255 - left_half(), 1)), 1)
    assert (relit(shared, job, **LIT, mask="m") == before).all()
    assert shared.get(f"/download/{job}/relit16.png").status_code == 200


def test_a_mask_that_never_stands_still_is_told_of(shared, job, meanwhile):
    put(shared, job, "m", left_half())
    meanwhile(lambda store: masks.put(store, job, "m", *masks.encoded(left_half(), 1)), 100)
    answer = shared.post("/relight", json={"job_id": job, **LIT, "mask": "m"})
    assert "mask" in problem(answer, 503, "overloaded") and answer.headers["retry-after"]
    problem(shared.get(f"/download/{job}/relit.png"), 404, "file_not_found")


def test_a_mask_that_is_gone_all_the_same_is_told_of(shared, job):
    put(shared, job, "left", left_half())
    relit(shared, job, **LIT, mask="left")
    store = shared.app.state.service.store
    store.discard(job, list(MASK_SLOTS))
    shared.app.state.service.cache.drop(job)
    for name in ("relit16.png", "passes.exr", "passes.zip"):
        assert "last relight" in problem(shared.get(f"/download/{job}/{name}"), 404, "mask_not_found")
    problem(shared.get(f"/job/{job}/mask/left"), 404, "mask_not_found")
    assert put(shared, job, "left", left_half()).status_code == 200
    assert shared.get(f"/job/{job}/mask/left").status_code == 200


def test_damaged_files_are_no_masks(shared, job):
    put(shared, job, "left", left_half())
    store = shared.app.state.service.store
    (slot,) = set(MASK_SLOTS) & set(store.names(job))
    whole, named = store.get(job, slot), store.get(job, JobFile.MASKS)
    for file, data in [
        *((slot, data) for data in (b"", whole[:40], whole[:-30])),
        *((JobFile.MASKS, data) for data in (b"", b"[]", named[:-3], b'{"../x":1}', named.replace(b':"', b':"9'))),
    ]:
        store.put(job, slot, whole), store.put(job, JobFile.MASKS, named)
        store.put(job, file, data)
        shared.app.state.service.cache.drop(job)
        assert shared.get(f"/job/{job}").status_code == 200
        problem(shared.post("/preview", json={"job_id": job, **LIT, "mask": "left"}), 404, "mask_not_found")
        problem(shared.get(f"/job/{job}/mask/left"), 404, "mask_not_found")
    assert put(shared, job, "left", left_half()).status_code == 200
    assert np.array_equal(got(shared, job, "left"), left_half())


def test_twins_share_an_analysis_and_no_masks(shared):
    one, two = upload(shared, encoded(gradient(50, 70))), upload(shared, encoded(gradient(50, 70)))
    put(shared, one, "m", left_half(50, 70))
    assert finished(shared, two)["masks"] == [] and finished(shared, one)["masks"] == ["m"]
    problem(shared.get(f"/job/{two}/mask/m"), 404, "mask_not_found")
    three = upload(shared, encoded(gradient(50, 70)))
    assert finished(shared, three)["masks"] == []
    for job in (one, two, three):
        assert shared.delete(f"/job/{job}").status_code == 200
        assert not (shared.app.state.service.store.root / job).exists()


def test_a_mask_put_during_the_analysis_stays_and_outlives_a_restart(settings):
    with TestClient(create_app(settings(), SphereEngine(side=32, seconds=0.4))) as client:
        job = upload(client)
        assert put(client, job, "left", left_half()).status_code == 200
        assert np.array_equal(got(client, job, "left"), left_half())
        assert client.get(f"/job/{job}").json()["state"] != "ready"
        assert finished(client, job)["masks"] == ["left"]
        before = relit(client, job, **LIT, mask="left")
    with TestClient(create_app(settings(), SphereEngine(side=32))) as client:
        assert client.get(f"/job/{job}").json()["masks"] == ["left"]
        assert np.array_equal(relit(client, job, **LIT, mask="left"), before)


def test_masks_count_to_the_quota(settings):
    app = create_app(settings(jobs_quota_bytes=100_000), SphereEngine(side=16))
    with TestClient(app, raise_server_exceptions=False) as client:
        job = upload(client, encoded(np.zeros((400, 600, 3), np.uint8)))
        finished(client, job)
        noise = np.random.default_rng(0).integers(0, 256, (400, 600), dtype=np.uint8)
        problem(put(client, job, "m", noise), 507, "storage_full")
        assert client.get(f"/job/{job}").json()["masks"] == [] and slots(client, job) == 0
        assert put(client, job, "m", left_half(400, 600)).status_code == 200


def test_a_disk_that_is_full_leaves_the_masks_before(shared, job, monkeypatch):
    put(shared, job, "m", left_half())
    no_room_for(JobFile.MASKS, monkeypatch)
    problem(put(shared, job, "m", 255 - left_half()), 507, "storage_full")
    problem(put(shared, job, "n", left_half()), 507, "storage_full")
    monkeypatch.undo()
    assert (got(shared, job, "m") == left_half()).all() and slots(shared, job) == 1
    assert shared.get(f"/job/{job}").json()["masks"] == ["m"]


def test_many_at_once(shared, job):
    """Names written by many at a time are all there, and a preview always finds the mask that is being replaced."""
    finished(shared, job)
    put(shared, job, "m", left_half())
    faults = []

    def write(k):
        for n in range(6):
            answer = put(shared, job, f"n{k}" if n % 2 else "m", np.full((H, W), 40 * n, np.uint8))
            faults.extend([answer.text] if answer.status_code != 200 else [])

    def read():
        for n in range(12):
            mask = {"name": "m", "feather": 0.01 * (n % 3)}
            answer = shared.post("/preview", json={"job_id": job, **LIT, "mask": mask, "max_side": 64})
            faults.extend([answer.text] if answer.status_code != 200 else [])
            answer = shared.get(f"/job/{job}/mask/m")
            faults.extend([answer.text] if answer.status_code != 200 else [])

    threads = [threading.Thread(target=write, args=(k,)) for k in range(4)] + [threading.Thread(target=read)] * 1
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults
    assert shared.get(f"/job/{job}").json()["masks"] == ["m", "n0", "n1", "n2", "n3"] and slots(shared, job) == 5


def test_a_mask_that_is_replaced_while_it_is_read_is_there(shared, job, monkeypatch):
    put(shared, job, "m", left_half())
    finished(shared, job)
    real, left = masks.read_version, [0]

    def read(store, job_id, version):
        if left[0]:
            left[0] -= 1
            with shared.app.state.service.processes.room_lock(1):
                masks.put(store, job_id, "m", *masks.encoded(left_half(), 1))
        return real(store, job_id, version)

    monkeypatch.setattr(masks, "read_version", read)
    left[0] = 8
    assert shared.get(f"/job/{job}/mask/m").status_code == 200 and not left[0]
    left[0] = 8
    answer = shared.post("/preview", json={"job_id": job, **LIT, "mask": "m", "max_side": 64})
    assert answer.status_code == 200 and not left[0]
    for ask in (
        lambda: shared.get(f"/job/{job}/mask/m"),
        lambda: shared.post("/preview", json={"job_id": job, **LIT, "mask": "m", "max_side": 64}),
    ):
        left[0] = 100
        assert problem(ask(), 503, "overloaded").startswith("A mask")


def test_the_text_of_a_picture_tells_which_mask(shared, job):
    from server.image.encode import png_about

    put(shared, job, "left", left_half())
    relit(shared, job, lights=[{**KEY, "mask": {"name": "left", "invert": True, "feather": 0.02}}])
    told = json.loads(png_about(shared.get(f"/download/{job}/relit.png").content[: 1 << 16]))
    assert told["mask"] is None and told["lights"][0]["mask"].items() >= {
        ("name", "left"),
        ("invert", True),
        ("feather", 0.02),
    }


def test_the_layers_and_the_readme_s_script(shared, job, tmp_path, monkeypatch):
    """The relit picture can be composed of passes.exr, masks and all."""
    put(shared, job, "left", left_half())
    put(shared, job, "noise", np.random.default_rng(5).integers(0, 256, (H, W), dtype=np.uint8))
    photo = upload(shared, encoded(np.clip(gradient(), 12, 200)))
    for name in ("left", "noise"):
        put(shared, photo, name, got(shared, job, name))
    lights = [{**KEY, "mask": {"name": "noise", "invert": True}}, {**KEY, "direction": [1, 0, 1], "color": "#80a0ff"}]
    relit(shared, photo, lights=lights, mask={"name": "left", "feather": 0.03})
    (tmp_path / "passes.exr").write_bytes(shared.get(f"/download/{photo}/passes.exr").content)
    (script,) = re.findall(r"```python\n(.*?)```", (ROOT / "server" / "README.md").read_text("utf-8"), re.S)
    monkeypatch.chdir(tmp_path)
    found = {}
    exec(script, found)
    expected = np.stack([found["c"][k] for k in "RGB"], -1)
    assert np.abs(found["relit"] - expected).max() < 0.01
    names = set(OpenEXR.File("passes.exr", separate_channels=True).channels())
    assert {n for n in names if n.startswith("mask")} == {"mask.Y", "mask00.Y"}
    assert np.abs(found["c"]["mask00.Y"] * 255 - got(shared, photo, "noise", invert=True)).max() < 0.2
    assert shared.delete(f"/job/{photo}").status_code == 200
