"""server/client.py against a real server, and against one that misbehaves."""

import asyncio
import io
import re
import threading
from contextlib import ExitStack

import httpx
import numpy as np
import pytest
from fakes import FakeEngine, Raising
from PIL import Image
from support import encoded, gradient, serving

from server import client as module
from server.application import create_app
from server.client import AsyncRelightClient, RelightClient, RelightError
from server.errors import ModelError


@pytest.fixture
def serve(settings):
    """serve(engine=..., **settings) is the address of a real server."""
    with ExitStack() as running:
        yield lambda engine=None, **more: running.enter_context(
            serving(create_app(settings(**more), engine or FakeEngine()))
        )


class Blocking:
    """AsyncRelightClient with the methods of RelightClient, so that both pass the same tests."""

    def __init__(self, *args, **more):
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)  # others may have a loop in this one
        self._thread.start()
        self._client = AsyncRelightClient(*args, **more)

    def _wait(self, work):
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def __enter__(self):
        self._wait(self._client.__aenter__())
        return self

    def __exit__(self, *exc):
        self._wait(self._client.__aexit__(*exc))
        self._wait(self._loop.shutdown_asyncgens())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __getattr__(self, name):
        return lambda *args, **more: self._wait(getattr(self._client, name)(*args, **more))


both = pytest.mark.parametrize("client", [RelightClient, Blocking], ids=["blocking", "async"])


@both
def test_every_endpoint(serve, client, tmp_path):
    photo = tmp_path / "photo.png"
    photo.write_bytes(encoded(gradient(60, 80)))
    with client(serve()) as relight:
        assert relight.health()["status"] == "alive" and relight.ready()["ready"]
        assert "golden-hour" in [p["name"] for p in relight.models()["presets"]]
        for given in (photo, str(photo), photo.read_bytes(), io.BytesIO(photo.read_bytes())):
            job, seen = relight.upload(given), []
            assert job["width"] == 80
            assert relight.wait(job, seen.append)["state"] == "ready" and seen[-1]["progress"] == 1
        assert relight.relight(job, x=1, y=0, z=1)["width"] == 80
        relit = np.array(Image.open(io.BytesIO(relight.download(job, "relit.png"))))
        assert relit.shape == (60, 80, 3)
        relight.relight(job["job_id"], preset="rim", ambient=0.5)
        assert relight.download(job, "relit.png") != encoded(relit)
        assert Image.open(io.BytesIO(relight.preview(job, x=1, y=0, z=1, max_side=64))).size == (64, 48)
        assert b"relight-maps" in relight.maps(job, max_side=512)
        assert "relit.png" in relight.state(job)["files"] and "relight_requests_total" in relight.metrics()
        relight.delete(job)
        with pytest.raises(RelightError) as gone:
            relight.state(job)
        assert gone.value.code == "job_not_found" and gone.value.status == 404 and gone.value.request_id


def test_it_knows_every_endpoint_and_every_field_of_the_answers(serve):
    asked = set()
    with RelightClient(serve()) as relight:
        relight._http.event_hooks["request"].append(lambda r: asked.add((r.method.lower(), r.url.path)))
        job = relight.upload(encoded(gradient()))
        relight.wait(job)
        relight.relight(job, x=0, y=0, z=1), relight.preview(job, x=0, y=0, z=1), relight.download(job, "relit.png")
        relight.put_environment(job, encoded(gradient(40, 80))), relight.delete_environment(job), relight.maps(job)
        relight.animate(job, orbit={}, frames=2), relight.wait_for_motion(job), relight.delete_motion(job)
        relight.put_mask(job, "m", encoded(gradient())), relight.mask(job, "m"), relight.delete_mask(job, "m")
        relight.state(job), relight.delete(job), relight.models(), relight.ready(), relight.health(), relight.metrics()
        api = httpx.get(relight.base_url + "openapi.json").json()
    known = {(m, re.sub(r"{\w+}", "*", path)) for path, ways in api["paths"].items() for m in ways}
    ours = re.compile(f"{job['job_id']}|relit.png|(?<=mask/)m")
    shape = {(m, ours.sub("*", path)) for m, path in asked}
    assert shape == known
    schemas = api["components"]["schemas"]
    for ours, theirs in (
        (module.Upload, "UploadAnswer"),
        (module.Relit, "RelightAnswer"),
        (module.State, "JobState"),
        (module.Mask, "MaskAnswer"),
    ):
        assert set(ours.__annotations__) == set(schemas[theirs]["properties"]), theirs


@both
def test_an_environment_from_a_path_bytes_or_a_file(serve, client, tmp_path):
    data = encoded(gradient(40, 80))
    (tmp_path / "sky.png").write_bytes(data)
    with client(serve()) as relight:
        job = relight.upload(encoded(gradient()))
        for picture in (data, tmp_path / "sky.png", io.BytesIO(data)):
            assert relight.put_environment(job, picture) == {"width": 80, "height": 40}
            assert relight.state(job)["environment"] == {"width": 80, "height": 40}
            assert relight.preview(job, environment={"type": "upload"})[:2] == b"\xff\xd8"
            relight.delete_environment(job)
        with pytest.raises(RelightError, match="environment_not_found"):
            relight.delete_environment(job)


@both
def test_a_motion_is_followed_to_its_end_or_to_its_stop(serve, client):
    with client(serve()) as relight:
        job = relight.upload(encoded(gradient()))
        seen = []
        answer = relight.animate(job, orbit={"turns": 2}, frames=5, format="gif")
        assert relight.wait_for_motion(job, lambda state: seen.append(state["motion"]["progress"]))["state"] == "ready"
        assert seen[-1] == 1 and answer["motion_path"] == f"jobs/{job['job_id']}/motion.gif"
        assert Image.open(io.BytesIO(relight.download(job, "motion.gif"))).n_frames == 5
        relight.delete_motion(job)
        for call in (relight.wait_for_motion, relight.delete_motion):
            with pytest.raises(RelightError, match="file_not_found"):
                call(job)
    with client(serve(Raising(ModelError("It went wrong.")))) as relight:
        job = relight.upload(encoded(gradient(50, 70)))
        with pytest.raises(RelightError, match="model_error"):
            relight.animate(job, orbit={}), relight.wait_for_motion(job)


@both
def test_a_mask_from_a_path_bytes_or_a_file(serve, client, tmp_path):
    data = encoded(gradient(40, 80)[..., 0])
    (tmp_path / "mask.png").write_bytes(data)
    with client(serve()) as relight:
        job = relight.upload(encoded(gradient(40, 80)))
        for picture in (data, tmp_path / "mask.png", io.BytesIO(data)):
            assert relight.put_mask(job, "m", picture) == {"name": "m", "width": 80, "height": 40}
            assert relight.state(job)["masks"] == ["m"]
            assert relight.preview(job, x=1, y=0, z=1, mask={"name": "m", "invert": True})[:2] == b"\xff\xd8"
            seen = Image.open(io.BytesIO(relight.mask(job, "m", feather=0.01, max_side=64)))
            assert seen.size == (64, 32) and seen.mode == "L"
            relight.delete_mask(job, "m")
        with pytest.raises(RelightError, match="mask_not_found"):
            relight.delete_mask(job, "m")


@both
@pytest.mark.parametrize("name", [".", "..", "../environment", "a/../..", "%2e%2e", "m?", "m#", "é m"])
def test_no_name_leads_to_another_address(serve, client, name):
    with client(serve()) as relight:
        job = relight.upload(encoded(gradient(40, 80)))
        relight.put_mask(job, "m", encoded(gradient(40, 80)))
        relight.put_environment(job, encoded(gradient(40, 80)))
        for call in (relight.delete_mask, relight.mask, relight.download):
            with pytest.raises(RelightError, match=r"invalid_request|not_found"):
                call(job, name)
        with pytest.raises(RelightError, match=r"invalid_request|not_found"):
            relight.put_mask(job, name, encoded(gradient(40, 80)))
        with pytest.raises(RelightError, match=r"invalid_request|not_found"):
            relight.state(f"x/../{job['job_id']}")
        state = relight.state(job)
        assert state["masks"] == ["m"] and state["environment"] == {"width": 80, "height": 40}


@both
def test_keys_and_refusals(serve, client):
    address = serve(api_keys=["sesame"])
    with client(address, key="wrong") as relight, pytest.raises(RelightError, match="unauthorized"):
        relight.upload(encoded(gradient()))
    with client(address, key="sesame") as relight:
        job = relight.upload(encoded(gradient()))
        with pytest.raises(RelightError) as refused:
            relight.relight(job, x=0, y=0, z=0)
        assert refused.value.code == "invalid_light" and "x, y, z" in refused.value.detail


@both
def test_an_analysis_that_failed_is_raised_by_wait(serve, client):
    with client(serve(Raising(ModelError("It went wrong.")))) as relight:
        job = relight.upload(encoded(gradient()))
        with pytest.raises(RelightError, match=r"another image\. \(model_error\)"):
            relight.wait(job)


def test_a_download_lands_whole_or_not_at_all(serve, tmp_path):
    there = tmp_path / "relit.png"
    with RelightClient(serve()) as relight:
        job = relight.upload(encoded(gradient()))
        relight.relight(job, x=1, y=0, z=1)
        assert relight.download(job, "relit.png", to=there) == b""
        assert there.read_bytes() == relight.download(job, "relit.png")
        with pytest.raises(RelightError, match="file_not_found"):
            relight.download(job, "nothing.png", to=tmp_path / "nothing.png")
    assert [p.name for p in tmp_path.glob("*.p*")] == ["relit.png"]


# -- servers that misbehave


def overloaded(after="0.05"):
    problem = {"title": "Overloaded", "status": 503, "detail": "Come back.", "code": "overloaded", "request_id": "r"}
    return httpx.Response(503, json=problem, headers={"Retry-After": after} if after else {})


def scripted(*answers):
    """A transport that gives these answers in turn, or raises them; `.asked` are the requests."""
    left, asked = list(answers), []

    def answer(request):
        asked.append(request)
        one = left.pop(0)
        if isinstance(one, Exception):
            raise one
        return one

    transport = httpx.MockTransport(answer)
    transport.asked = asked
    return transport


@both
@pytest.mark.parametrize("after", ["0.05", None, "soon"])
def test_it_comes_back_when_the_server_is_overloaded(client, after, monkeypatch):
    paused = []
    monkeypatch.setattr(module.time, "sleep", paused.append)

    async def pause(seconds):
        paused.append(seconds)

    monkeypatch.setattr(module.asyncio, "sleep", pause)
    answers = scripted(overloaded(after), overloaded(after), httpx.Response(200, json={"job_id": "j"}))
    with client("http://server", transport=answers) as relight:
        assert relight.upload(io.BytesIO(b"a photo"))["job_id"] == "j"
    assert len(answers.asked) == 3 and all(b"a photo" in r.read() for r in answers.asked)
    assert paused == ([0.05, 0.05] if after == "0.05" else [0.25, 0.5])


@both
def test_it_gives_up_in_the_end_and_at_once_where_waiting_does_not_help(client, monkeypatch):
    monkeypatch.setattr(module.time, "sleep", lambda seconds: None)
    answers = scripted(*[overloaded("0.05")] * 3)
    with client("http://server", retries=2, transport=answers) as relight:
        with pytest.raises(RelightError, match="overloaded"):
            relight.state("j")
        assert len(answers.asked) == 3
    missing = httpx.Response(503, json={"title": "t", "status": 503, "detail": "d", "code": "model_missing"})
    proxy = httpx.Response(502, text="<html>Bad gateway</html>")
    for answer, code in ((missing, "model_missing"), (proxy, "unknown")):
        answers = scripted(answer)
        with client("http://server", transport=answers) as relight, pytest.raises(RelightError, match=code):
            relight.state("j")


@both
def test_a_connection_that_broke_is_tried_again_unless_that_could_do_harm(client, monkeypatch):
    monkeypatch.setattr(module, "PATIENCE", 0.01)
    answers = scripted(httpx.ConnectError("no"), httpx.ReadError("cut"), httpx.Response(200, json={"state": "ready"}))
    with client("http://server", transport=answers) as relight:
        assert relight.state("j")["state"] == "ready"
    answers = scripted(httpx.ReadError("cut"), httpx.Response(200, json={}))
    with client("http://server", transport=answers) as relight, pytest.raises(httpx.ReadError):
        relight.upload(b"a photo")
    assert len(answers.asked) == 1


def test_a_download_that_breaks_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "PATIENCE", 0.01)

    class Cut(httpx.SyncByteStream):
        def __iter__(self):
            yield b"half of"
            raise httpx.ReadError("cut")

    there = tmp_path / "relit.png"
    with RelightClient(
        "http://server", transport=scripted(httpx.Response(200, stream=Cut()), httpx.Response(200, content=b"whole"))
    ) as relight:
        relight.download("j", "relit.png", to=there)
    assert there.read_bytes() == b"whole"
    broken = scripted(*[httpx.Response(200, stream=Cut()) for _ in range(3)])
    with RelightClient("http://server", retries=2, transport=broken) as relight, pytest.raises(httpx.ReadError):
        relight.download("j", "other.png", to=tmp_path / "other.png")
    assert [p.name for p in tmp_path.iterdir()] == ["relit.png"]


@both
def test_a_stream_of_events_that_ends_too_soon_is_opened_again(client, monkeypatch):
    monkeypatch.setattr(module, "PATIENCE", 0.01)

    def events(*states):
        lines = (f'event: state\ndata: {{"state": "{s}", "error": null}}\n\n' for s in states)
        return httpx.Response(200, text="".join(lines), headers={"Content-Type": "text/event-stream"})

    answers, seen = scripted(events("queued"), httpx.ReadError("cut"), events("analysing", "ready")), []
    with client("http://server/prefix/", transport=answers) as relight:
        assert relight.wait("j", lambda state: seen.append(state["state"]))["state"] == "ready"
    assert seen == ["queued", "analysing", "ready"]
    assert {str(r.url) for r in answers.asked} == {"http://server/prefix/job/j/events"}
