"""Environments over HTTP: by name, of a job's own, and the light of another photo."""

import io
import json

import numpy as np
import pytest
from fakes import Raising, SphereEngine
from fastapi.testclient import TestClient
from support import encoded, finished, gradient, linear, picture, problem, upload
from test_formats import exr, hdr

from server.application import create_app
from server.image import panorama
from server.image.encode import png_about
from server.image.exr import about
from server.jobs.base import JobFile
from server.light.skies import SKIES

SKY = {"type": "preset", "name": "sky-sunset"}
OWN = {"type": "upload"}
NONE = "00000000-0000-4000-8000-000000000000"


def half_lit(h=64, w=128):
    """Light from the left half: an 8-bit picture (h, w, 3)."""
    around = np.zeros((h, w, 3), np.uint8)
    around[:, : w // 2] = (255, 250, 240)
    return around


def put(client, job, data, **more):
    return client.put(f"/job/{job}/environment", content=data, **more)


def relit(client, job, **body):
    answer = client.post("/relight", json={"job_id": job, **body})
    assert answer.status_code == 200, answer.text
    return picture(client, job).astype(int)


def stored(client, job):
    """The file of a job's environment, (h, w, 3) float16."""
    return np.load(io.BytesIO(client.app.state.service.store.get(job, JobFile.ENVIRONMENT)))


# -- in bodies


def test_every_built_in_one_lights_a_photo_in_its_own_way(client):
    job = upload(client)
    told = client.get("/models").json()["environments"]
    assert [e["name"] for e in told] == list(SKIES) and all(e["title"] for e in told)
    made = [relit(client, job, environment={"type": "preset", "name": e["name"]}) for e in told]
    for k, one in enumerate(made):
        assert np.abs(one - gradient()).mean() > 1
        assert all(np.abs(one - other).mean() > 1 for other in made[:k])


def test_no_lights_are_needed_beside_one_and_its_ambient_light_is_none(client):
    job = upload(client)
    alone = relit(client, job, environment=SKY)
    assert np.array_equal(alone, relit(client, job, environment=SKY, lights=[], ambient=0, exposure=0))
    assert relit(client, job, environment=SKY, ambient=1).mean() > alone.mean() + 5
    lamp = {"type": "point", "position": [0, 0, 1]}
    assert relit(client, job, environment=SKY, lights=[lamp]).mean() > alone.mean() + 5
    assert not relit(client, job, environment={**SKY, "intensity": 0}).any()
    assert np.array_equal(relit(client, job, environment=SKY, strength=0), gradient())


def test_a_preset_beside_one_keeps_its_lights_and_gives_up_its_ambient_light(client):
    job = upload(client)
    both = relit(client, job, environment={**SKY, "intensity": 0}, preset="rim", exposure=0)
    assert np.array_equal(both, relit(client, job, preset="rim", exposure=0, ambient=0))


def test_turning_and_previews(client):
    job = upload(client)
    whole = relit(client, job, environment={**SKY, "rotation": 360})
    assert np.abs(whole - relit(client, job, environment=SKY)).max() <= 1
    assert np.abs(whole - relit(client, job, environment={**SKY, "rotation": 120})).max() > 5
    answer = client.post("/preview", json={"job_id": job, "environment": SKY, "max_side": 64})
    assert answer.status_code == 200 and answer.headers["content-type"] == "image/jpeg"


@pytest.mark.parametrize(
    "environment, code, word",
    [
        ({"type": "preset"}, "invalid_request", "name"),
        ({"type": "preset", "name": "sky-nowhere"}, "invalid_light", "sky-overcast"),
        ({"type": "sun"}, "invalid_request", "environment"),
        ({"name": "sky-sunset"}, "invalid_request", "environment"),
        ({**SKY, "intensity": -0.1}, "invalid_request", "intensity"),
        ({**SKY, "intensity": 100.5}, "invalid_request", "intensity"),
        ({**SKY, "rotation": 361}, "invalid_request", "rotation"),
        ({**SKY, "rotation": "30"}, "invalid_request", "rotation"),
        ({**OWN, "name": "x"}, "invalid_request", "name"),
        ({"type": "photo"}, "invalid_request", "job_id"),
        ("sky-sunset", "invalid_request", "environment"),
    ],
)
def test_what_makes_no_sense_is_refused_and_named(client, environment, code, word):
    job = upload(client)
    assert word in problem(client.post("/relight", json={"job_id": job, "environment": environment}), 422, code)


@pytest.mark.parametrize("body", [{}, {"lights": []}, {"environment": None}, {"environment": SKY, "x": 1}])
def test_some_light_there_must_be(client, body):
    problem(client.post("/preview", json={"job_id": upload(client), **body}), 422, "invalid_light")


# -- a job's own


def test_light_from_the_left_brightens_what_faces_left(client):
    job = upload(client, encoded(np.full((60, 80, 3), 120, np.uint8)))
    assert client.get(f"/job/{job}").json()["environment"] is None
    assert put(client, job, encoded(half_lit())).json() == {"width": 128, "height": 64}
    assert client.get(f"/job/{job}").json()["environment"] == {"width": 128, "height": 64}
    left = relit(client, job, environment=OWN)
    right = relit(client, job, environment={**OWN, "rotation": 180})
    ball = slice(20, 40), slice(22, 36)  # its left side
    assert left[ball].mean() > right[ball].mean() + 20
    assert np.abs(left[:, ::-1] - right).mean() < 3


def test_a_second_takes_the_place_of_the_first_and_deleting_changes_nothing_made(client):
    job = upload(client)
    put(client, job, encoded(half_lit()))
    first = relit(client, job, environment=OWN)
    assert put(client, job, encoded(np.full((20, 40, 3), 200, np.uint8))).json() == {"width": 40, "height": 20}
    assert np.abs(relit(client, job, environment=OWN) - first).max() > 5
    put(client, job, encoded(half_lit()))
    relit(client, job, environment=OWN)
    assert client.delete(f"/job/{job}/environment").json() == {"status": "deleted"}
    assert client.get(f"/job/{job}").json()["environment"] is None
    problem(client.delete(f"/job/{job}/environment"), 404, "environment_not_found")
    problem(client.post("/relight", json={"job_id": job, "environment": OWN}), 404, "environment_not_found")
    assert np.array_equal(picture(client, job), first)
    deep = client.get(f"/download/{job}/relit16.png").content  # made only now, in the light that is gone
    assert np.abs(np.array(picture(client, job, "relit16.png")).astype(int) - first).max() <= 1 and deep
    layers = client.get(f"/download/{job}/passes.exr").content
    assert about(layers[: 1 << 16]) == png_about(client.get(f"/download/{job}/relit.png").content[: 1 << 16])


def test_what_is_stored(client):
    """8-bit codes as linear light, HDR as it is, no more than 512 x 256, each texel the mean of what it covers."""
    job = upload(client)
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 256, (40, 80, 3), dtype=np.uint8)
    put(client, job, encoded(codes))
    assert stored(client, job).dtype == np.float16
    assert np.allclose(stored(client, job), linear(codes), rtol=2e-3, atol=1e-4)
    light = (rng.random((300, 600, 3)) ** 4 * 900).astype(np.float32)
    light[0, 0] = -5
    put(client, job, exr({c: light[..., k] for k, c in enumerate("RGB")}))
    assert stored(client, job).shape == (256, 512, 3) and stored(client, job).min() >= 0
    assert np.allclose(stored(client, job).mean((0, 1)), np.maximum(light, 0).mean((0, 1)), rtol=1e-3)
    light = rng.random((512, 1024, 3)).astype(np.float32) + 0.1
    exponent = np.floor(np.log2(light.max(2))) + 1
    rgbe = np.dstack([np.floor(light / np.exp2(exponent)[..., None] * 256), exponent + 128]).astype(np.uint8)
    assert put(client, job, hdr(rgbe, "runs")).json() == {"width": 512, "height": 256}
    expected = light.reshape(256, 2, 512, 2, 3).mean((1, 3))
    assert np.allclose(stored(client, job), expected, atol=0.004)  # a mantissa has 8 bits
    dark = np.dstack([codes, np.zeros((40, 80), np.uint8)])
    put(client, job, encoded(dark))
    assert not stored(client, job).any()


def test_the_sun_is_cut_off_at_what_half_floats_reach(client):
    job = upload(client)
    light = np.full((8, 16, 3), 3e38, np.float32)
    assert put(client, job, exr({c: light[..., k] for k, c in enumerate("RGB")})).status_code == 200
    assert stored(client, job).max() == np.finfo(np.float16).max
    assert relit(client, job, environment=OWN).mean() > 100


def bad_files():
    good = np.full((8, 16, 3), 0.5, np.float32)
    nan, infinite = good.copy(), good.copy()
    nan[3, 3, 1], infinite[2, 1, 0] = np.nan, np.inf
    layers = {c: k for k, c in enumerate("RGB")}
    whole = exr({c: good[..., k] for c, k in layers.items()})
    yield "nan", exr({c: nan[..., k] for c, k in layers.items()}), 422, "corrupt_image"
    yield "infinite", exr({c: infinite[..., k] for c, k in layers.items()}), 422, "corrupt_image"
    yield "cut EXR", whole[:-40], 422, "corrupt_image"
    yield "cut HDR", hdr(np.full((8, 16, 4), 128, np.uint8), "flat")[:-9], 422, "corrupt_image"
    yield "cut PNG", encoded(half_lit())[:200], 422, "corrupt_image"
    yield "empty", b"", 422, "empty_file"
    yield "text", b"a sky, please", 415, "unsupported_image"
    yield "GIF", encoded(half_lit(), "GIF"), 415, "unsupported_image"
    yield "square", encoded(half_lit(64, 64)), 422, "invalid_request"
    yield "off by 2 %", encoded(half_lit(100, 204)), 422, "invalid_request"
    yield "many pixels", b"#?RADIANCE\n\n-Y 100000 +X 200000\n", 413, "image_too_large"
    yield "many bytes", bytes(70 << 10) + bytes(1 << 20), 413, "file_too_large"


@pytest.mark.parametrize("decoders", [0, 1])
def test_bad_files_are_refused_and_leave_nothing(settings, decoders):
    app = create_app(settings(decoders=decoders, max_upload_bytes=1 << 20), SphereEngine(side=32))
    with TestClient(app, raise_server_exceptions=False) as client:
        job = upload(client)
        finished(client, job)
        put(client, job, encoded(half_lit()))
        before = stored(client, job)
        for name, data, status, code in bad_files():
            assert problem(put(client, job, data), status, code), name
        assert np.array_equal(stored(client, job), before)
        assert put(client, job, encoded(half_lit(100, 201))).status_code == 200
        kept = {p.name for p in (app.state.service.store.root / job).iterdir()}
        assert kept <= {f.value for f in JobFile}


def test_no_job_no_environment(client):
    for job in (NONE, "nobody"):
        problem(put(client, job, encoded(half_lit())), 404, "job_not_found")
        problem(client.delete(f"/job/{job}/environment"), 404, "job_not_found")


def test_a_damaged_one_is_none(client):
    job = upload(client)
    put(client, job, encoded(half_lit()))
    path = client.app.state.service.store.root / job / JobFile.ENVIRONMENT.value
    whole = path.read_bytes()
    for data in (b"", whole[:60], whole[:-10], whole.replace(b"<f2", b"<f4"), whole[:-2] + b"\0\x7c"):
        path.write_bytes(data)
        assert client.get(f"/job/{job}").status_code == 200
        problem(client.post("/preview", json={"job_id": job, "environment": OWN}), 404, "environment_not_found")


def test_it_counts_to_the_quota(settings):
    app = create_app(settings(jobs_quota_bytes=100_000), SphereEngine(side=16))
    with TestClient(app, raise_server_exceptions=False) as client:
        job = upload(client)
        finished(client, job)
        noise = np.random.default_rng(0).integers(0, 256, (256, 512, 3), dtype=np.uint8)
        problem(put(client, job, encoded(noise)), 507, "storage_full")  # 786 kB as half floats
        assert client.get(f"/job/{job}").json()["environment"] is None
        assert put(client, job, encoded(noise[:64, :128])).status_code == 200


def test_a_panorama_is_read_a_band_at_a_time(monkeypatch):
    """The same whatever the bands are."""
    data = encoded(np.random.default_rng(0).integers(0, 256, (300, 600, 3), dtype=np.uint8))
    whole = panorama.read(io.BytesIO(data), 1 << 20)
    monkeypatch.setattr(panorama, "BAND", 7 * 600)
    assert np.array_equal(panorama.read(io.BytesIO(data), 1 << 20), whole)


# -- the light of another photo


def lit_ball(direction, colour=(1.0, 1.0, 1.0), h=60, w=80):
    """The sphere of the analytic engine before its wall, photographed in one light."""
    from fakes import sphere

    n = sphere(h, w).normals
    light = 0.1 + 0.9 * np.maximum(n @ (np.array(direction) / np.linalg.norm(direction)), 0)
    seen = np.clip(0.5 * light[..., None] * colour, 0, 1)
    return np.rint(255 * np.where(seen <= 0.0031308, 12.92 * seen, 1.055 * seen ** (1 / 2.4) - 0.055)).astype(np.uint8)


def test_the_light_of_another_photo_makes_one_like_it(client):
    left, right = lit_ball((-1, 0.2, 0.8)), lit_ball((1, 0.2, 0.8))
    a, b = upload(client, encoded(left)), upload(client, encoded(right))
    made = relit(client, a, environment={"type": "photo", "job_id": b}, delight=1)
    assert np.abs(made - right).mean() < 0.5 * np.abs(left.astype(int) - right).mean()
    own = relit(client, a, environment={"type": "photo", "job_id": a}, delight=1)
    assert np.abs(own - left).mean() < 0.25 * np.abs(left.astype(int) - right).mean()
    assert np.array_equal(relit(client, a, environment={"type": "photo", "job_id": b.upper()}, delight=1), made)


def test_its_colour_comes_along(client):
    toward = (0.3, 0.3, 1)
    a = upload(client, encoded(lit_ball(toward)))
    warm = upload(client, encoded(lit_ball(toward, (1.0, 0.75, 0.45))))
    cool = upload(client, encoded(lit_ball(toward, (0.7, 0.85, 1.0))))
    ratio = {}
    for name, job in (("white", a), ("warm", warm), ("cool", cool)):
        made = linear(relit(client, a, environment={"type": "photo", "job_id": job}))
        ratio[name] = made[..., 0].mean() / made[..., 2].mean()
    assert ratio["warm"] > 1.3 * ratio["white"] > 1.3 * 1.1 * ratio["cool"]
    assert abs(ratio["white"] - 1) < 0.03  # in its own light it keeps its colours


def test_what_is_made_stays_when_its_source_goes(client):
    a, b = upload(client, encoded(lit_ball((-1, 0, 1)))), upload(client, encoded(lit_ball((1, 0, 1))))
    body = {"environment": {"type": "photo", "job_id": b}}
    first = relit(client, a, **body)
    assert client.delete(f"/job/{b}").status_code == 200
    problem(client.post("/relight", json={"job_id": a, **body}), 404, "job_not_found")
    assert np.array_equal(picture(client, a), first)
    assert np.abs(picture(client, a, "relit16.png").astype(int) - first).max() <= 1  # Pillow reads its upper bytes
    text = png_about(client.get(f"/download/{a}/relit.png").content[: 1 << 16])
    assert json.loads(text)["environment"]["of"] == "" and b not in text


def test_a_photo_that_could_not_be_analysed_has_no_light(settings):
    class OneOfTwo(SphereEngine):
        def analyse(self, rgb):
            return (Raising if rgb.shape[1] == 70 else SphereEngine)(side=32).analyse(rgb)

    with TestClient(create_app(settings(), OneOfTwo()), raise_server_exceptions=False) as client:
        good, bad = upload(client), upload(client, encoded(gradient(50, 70)))
        body = {"job_id": good, "environment": {"type": "photo", "job_id": bad}}
        problem(client.post("/relight", json=body), 500, "model_error")
        for other in (NONE, "nobody"):
            body["environment"]["job_id"] = other
            problem(client.post("/preview", json=body), 404, "job_not_found")


def test_it_is_waited_for(settings):
    with TestClient(create_app(settings(), SphereEngine(side=32, seconds=0.3))) as client:
        a, b = upload(client), upload(client, encoded(gradient(50, 70)))
        assert client.get(f"/job/{b}").json()["state"] != "ready"
        relit(client, a, environment={"type": "photo", "job_id": b})
        assert client.get(f"/job/{b}").json()["state"] == "ready"
