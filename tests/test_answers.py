"""True answers.

A fault of ours is never called one of the file's, refusals keep their status, limits belong to routes.
"""

import json
import logging

import pytest
from fakes import FakeEngine
from fastapi import Request
from fastapi.testclient import TestClient
from support import encoded, finished, gradient, picture, problem, upload

from server.application import create_app
from server.errors import DamagedFile
from server.web.body import BodyRule, takes
from server.web.routes import byte_range, guarded

LIGHT = {"x": -0.5, "y": 0.5, "z": 0.7}
PAGE = {"Origin": "http://localhost:3000"}


def raising(error):
    def broken(*_, **__):
        raise error

    return broken


# -- 1. a bug is not a damaged file


@pytest.mark.parametrize(
    "error",
    [
        TypeError("x"),
        KeyError("x"),
        ValueError("x"),
        IndexError("x"),
        AttributeError("x"),
        ZeroDivisionError("x"),
        SyntaxError("x"),
        EOFError("x"),
    ],
    ids=lambda e: type(e).__name__,
)
@pytest.mark.parametrize("place", ["unpack", "prepare_picture", "relight", "encode_png"])
def test_a_bug_is_internal_with_one_traceback_and_no_new_analysis(settings, monkeypatch, caplog, place, error):
    engine = FakeEngine()
    with TestClient(create_app(settings(), engine), raise_server_exceptions=False) as client:
        job = upload(client)
        finished(client, job)
        monkeypatch.setattr(f"server.jobs.rendering.{place}", raising(error))
        logging.getLogger("relight").propagate = True
        for _ in range(3):
            caplog.clear()
            with caplog.at_level(logging.ERROR, "relight"):
                problem(client.post("/relight", json={"job_id": job, **LIGHT}), 500, "internal")
            tracebacks = {id(r) for r in caplog.records if r.exc_info}
            assert len(tracebacks) == 1, [r.getMessage() for r in caplog.records]
            assert client.get(f"/job/{job}").json()["state"] == "ready"
        assert engine.calls == 1


def test_a_bug_in_the_preview_too(settings, monkeypatch):
    engine = FakeEngine()
    with TestClient(create_app(settings(), engine), raise_server_exceptions=False) as client:
        job = upload(client)
        finished(client, job)
        monkeypatch.setattr("server.jobs.rendering.encode_jpeg", raising(ValueError("x")))
        problem(client.post("/preview", json={"job_id": job, **LIGHT}), 500, "internal")
        assert client.get(f"/job/{job}").json()["state"] == "ready" and engine.calls == 1


def test_a_job_that_is_damaged_again_at_once_is_analysed_anew_once_only(settings, monkeypatch):
    engine = FakeEngine()
    with TestClient(create_app(settings(), engine), raise_server_exceptions=False) as client:
        job = upload(client)
        finished(client, job)
        monkeypatch.setattr("server.jobs.rendering.unpack", raising(DamagedFile("a disk that loses what is written")))
        problem(client.post("/relight", json={"job_id": job, **LIGHT}), 503, "overloaded")
        for _ in range(3):
            finished(client, job)
            problem(client.post("/relight", json={"job_id": job, **LIGHT}), 500, "internal")
        assert engine.calls == 2
        monkeypatch.undo()  # what can be read again is lit again
        assert client.post("/relight", json={"job_id": job, **LIGHT}).status_code == 200


@pytest.mark.parametrize(
    "fit",
    [
        {},
        {"focal": 1.0, "scale": 1.0, "shift": 0.0, "light": {"harmonics": [], "floor": 0.1}},
        {"focal": 0.0, "scale": 1.0, "shift": 0.0, "light": {"harmonics": [1.0], "floor": 0.1}},
        {"focal": 1.0, "scale": "1", "shift": 0.0, "light": {"harmonics": [1.0], "floor": 0.1}},
    ],
)
def test_a_damaged_fit_is_made_anew(settings, fit):
    engine = FakeEngine()
    with TestClient(create_app(settings(), engine), raise_server_exceptions=False) as client:
        job = upload(client)
        finished(client, job)
        store = client.app.state.service.store
        path = store.root / job / "job.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "fit": fit}))
        problem(client.post("/relight", json={"job_id": job, **LIGHT}), 503, "overloaded")
        assert finished(client, job)["state"] == "ready" and engine.calls == 2
        assert client.post("/relight", json={"job_id": job, **LIGHT}).status_code == 200


# -- 2. statuses that are true; ranges


@pytest.mark.parametrize(
    "asked,wanted",
    [
        ("", None),
        ("bytes=0-0", (0, 1)),
        ("bytes=2-5", (2, 4)),
        ("bytes=7-", (7, 3)),
        ("bytes=-4", (6, 4)),
        ("bytes=-99", (0, 10)),
        ("bytes=8-99", (8, 2)),
        ("BYTES=1-1", (1, 1)),
        ("bytes=5-2", None),
        ("bytes=-", None),
        ("bytes=1-2,4-5", None),
        ("items=0-1", None),
        ("bytes=a-b", None),
        ("bytes=9-", (9, 1)),
    ],
)
def test_what_a_range_means(asked, wanted):
    assert byte_range(asked, 10) == wanted


@pytest.fixture
def ready(client):
    job = upload(client)
    finished(client, job)
    return job


def test_a_part_of_a_pass(client, ready):
    path = f"/download/{ready}/input.png"
    whole = client.get(path)
    assert whole.status_code == 200 and whole.headers["accept-ranges"] == "bytes"
    size = len(whole.content)
    for asked, part in (
        ("bytes=10-19", whole.content[10:20]),
        ("bytes=-7", whole.content[-7:]),
        (f"bytes={size - 3}-", whole.content[-3:]),
    ):
        for more in ({}, {"If-Range": whole.headers["etag"]}):
            answer = client.get(path, headers={"Range": asked, **more})
            assert (
                answer.status_code == 206
                and answer.content == part
                and int(answer.headers["content-length"]) == len(part)
            )
            assert (
                answer.headers["content-range"].endswith(f"/{size}") and answer.headers["etag"] == whole.headers["etag"]
            )
    other = client.get(path, headers={"Range": "bytes=10-19", "If-Range": '"another"'})
    assert other.status_code == 200 and other.content == whole.content
    past = client.get(path, headers={"Range": f"bytes={size}-"})
    problem(past, 416, "invalid_request")
    assert past.headers["content-range"] == f"bytes */{size}"
    assert client.head(path, headers={"Range": "bytes=0-1"}).headers["content-length"] == str(size)
    assert client.get(path, headers={"Range": "bytes=0-1", "If-None-Match": whole.headers["etag"]}).status_code == 304


def test_a_download_can_be_taken_up_again(client, ready):
    path = f"/download/{ready}/depth.png"
    whole = client.get(path).content
    parts = [client.get(path, headers={"Range": f"bytes={k}-{k + 499}"}).content for k in range(0, len(whole), 500)]
    assert b"".join(parts) == whole and len(parts) > 1


def test_what_starlette_refuses_keeps_its_status(settings):
    with TestClient(create_app(settings(allowed_hosts="testserver"), FakeEngine())) as client:
        assert "host" in problem(client.get("/health", headers={"Host": "evil"}), 400, "invalid_request")
        assert "host" in problem(
            client.get("/static/app.js", headers={"Host": "evil", "Range": "bytes=zz"}), 400, "invalid_request"
        )
        beyond = client.get("/static/app.js", headers={"Range": "bytes=99999999-"})
        assert "range" in problem(beyond, 416, "invalid_request") and beyond.headers["content-range"].startswith(
            "bytes */"
        )
        ask = {**PAGE, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x-foo"}
        assert "RELIGHT_CORS_ORIGINS" in problem(client.options("/upload", headers=ask), 400, "invalid_request")
        form = {"Content-Type": "multipart/form-data; boundary=b"}
        assert "multipart/form-data" in problem(
            client.post("/upload", content=b"x", headers=form), 400, "invalid_request"
        )


# -- 3. limits belong to routes


def app_with_a_put(settings, **more):
    """An application with one more guarded endpoint, `PUT /job/{job_id}/note/{name}`, that reads up to 2,000 bytes."""

    @guarded.put("/job/{job_id}/note/{name}")
    @takes(BodyRule(max_bytes=lambda s: 2000))
    async def put(job_id: str, name: str, request: Request):
        return {"bytes": len(await request.body())}

    return create_app(settings(**more), FakeEngine())


@pytest.fixture
def restored():
    """What a test adds to the endpoints goes again."""
    before = list(guarded.routes)
    yield
    guarded.routes[:] = before


@pytest.mark.parametrize("name", ["face", "upload", "relight"])
def test_a_body_is_bounded_by_what_its_route_declares_whatever_its_path(settings, restored, name):
    path = f"/job/1/note/{name}"
    with TestClient(app_with_a_put(settings), raise_server_exceptions=False) as client:
        assert client.put(path, content=b"x" * 2000).json() == {"bytes": 2000}
        problem(client.put(path, content=b"x" * 2001), 413, "file_too_large")

        def endless():
            for _ in range(100):
                yield b"x" * 1000

        problem(client.put(path, content=endless()), 413, "file_too_large")
        allowed = client.options(path, headers={**PAGE, "Access-Control-Request-Method": "PUT"})
        assert allowed.status_code == 200 and "PUT" in allowed.headers["access-control-allow-methods"]


@pytest.mark.parametrize(
    "method,path",
    [
        ("PUT", "/job/1/note/upload"),
        ("POST", "/upload"),
        ("POST", "/relight"),
        ("POST", "/preview"),
        ("DELETE", "/job/1"),
    ],
)
def test_no_byte_of_a_strangers_body_is_read_whatever_the_method(settings, restored, method, path):
    with TestClient(app_with_a_put(settings, api_keys=["good"]), raise_server_exceptions=False) as client:
        read = []

        async def receive():
            read.append(1)
            return {"type": "http.request", "body": b"x" * 10, "more_body": True}

        began = []

        async def send(message):
            if not began:
                began.append((message["status"], list(read)))  # before the rest is drained

        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "scheme": "http",
            "query_string": b"",
            "client": ("c", 1),
            "server": ("testserver", 80),
            "headers": [(b"host", b"testserver"), (b"content-length", b"1000000"), (b"authorization", b"Bearer bad")],
        }
        client.portal.call(client.app, scope, receive, send)
        assert began == [(401, [])]


def test_what_pages_of_other_origins_may_use_follows_from_the_endpoints(client, ready):
    ask = {
        **PAGE,
        "Access-Control-Request-Method": "GET",
        "Access-Control-Request-Headers": "range, if-range, if-none-match, authorization",
    }
    assert client.options(f"/download/{ready}/input.png", headers=ask).status_code == 200
    shown = client.get(f"/download/{ready}/input.png", headers={**PAGE, "Range": "bytes=0-1"}).headers[
        "access-control-expose-headers"
    ]
    assert {
        "Accept-Ranges",
        "Content-Range",
        "ETag",
        "Server-Timing",
        "X-Request-ID",
        "Retry-After",
        "WWW-Authenticate",
    } <= {name.strip() for name in shown.split(",")}


# -- 4. small ones


def test_ids_are_taken_in_capitals(client, ready):
    big = ready.upper()
    assert big != ready and client.get(f"/job/{big}").json()["job_id"] == ready
    assert client.post("/relight", json={"job_id": big, **LIGHT}).json()["relit_path"] == f"jobs/{ready}/relit.png"
    assert client.post("/preview", json={"job_id": big, **LIGHT}).status_code == 200
    assert client.app.state.service.cache.jobs() == {ready}
    assert picture(client, big).shape == (60, 80, 3)
    assert client.get(f"/job/{big}/events").text.startswith("event: state")
    assert client.delete(f"/job/{big}").status_code == 200
    problem(client.get(f"/job/{ready}"), 404, "job_not_found")


def test_a_folder_whose_name_is_an_id_in_capitals_is_somebody_elses(client, ready):
    store = client.app.state.service.store
    theirs = store.root / "0E2D1F6C-5D3C-4C8E-9A53-0A4D5A0C7C11"
    theirs.mkdir()
    (theirs / "input.png").write_bytes(b"x")
    store.clean()
    assert [e.job_id for e in store.list()] == [ready] and (theirs / "input.png").exists()


@pytest.mark.parametrize("field", ["image", "photo"])
def test_a_photo_in_another_field_is_told_which(client, field):
    detail = problem(client.post("/upload", files={field: ("a.png", encoded(gradient()))}), 422, "invalid_request")
    assert f"`{field}`" in detail and "`file`" in detail


def test_a_page_of_an_allowed_origin_may_call_into_a_private_network(client):
    ask = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Private-Network": "true"}
    allowed = client.options("/upload", headers={**PAGE, **ask})
    assert allowed.status_code == 200 and allowed.headers["access-control-allow-private-network"] == "true"
    refused = client.options("/upload", headers={"Origin": "https://evil.example", **ask})
    problem(refused, 400, "invalid_request")
    assert "access-control-allow-private-network" not in refused.headers
    plain = client.options("/upload", headers={**PAGE, "Access-Control-Request-Method": "POST"})
    assert plain.status_code == 200 and "access-control-allow-private-network" not in plain.headers
