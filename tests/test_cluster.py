"""The server on Ray Serve, in pieces that need no Ray: tests/cluster.py tries the whole."""

import asyncio
import importlib.util
import json
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
import yaml
from fakes import SphereEngine
from fastapi.testclient import TestClient
from starlette.applications import Starlette
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route
from support import ROOT, encoded, finished, gradient, upload

from server import cluster
from server.application import create_app
from server.errors import ModelError
from server.settings import load

JOB = "0f0e0d0c-1111-4222-8333-abcdefabcdef"
LIGHT = {"x": -0.5, "y": 0.5, "z": 0.7}


def alone(work):
    """What a coroutine returns, run in a thread of its own: this one may have a loop that runs."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()


# -- the proxies


def behind(*routes):
    """A client of what stands before those routes in Ray's proxies."""
    app = Starlette(routes=[Route(path, endpoint, methods=["GET", "POST"]) for path, endpoint in routes])
    for middleware in cluster.proxy():
        app = middleware.cls(app, *middleware.args, **middleware.kwargs)
    return TestClient(app, raise_server_exceptions=False)


def answers(response):
    async def endpoint(request):
        return response

    return endpoint


@pytest.mark.parametrize("status", [404, 408, 500, 503])
def test_what_ray_answers_by_itself_becomes_overloaded(status):
    answer = behind(("/job", answers(PlainTextResponse("Traceback", status, {"x-request-id": "ray"})))).get("/job")
    body = answer.json()
    assert (answer.status_code, body["code"], answer.headers["retry-after"]) == (503, "overloaded", "1")
    assert answer.headers["content-type"] == "application/problem+json" and "Traceback" not in answer.text
    assert body["request_id"] == answer.headers["x-request-id"] == "ray"


def test_what_the_server_answers_stays_and_has_one_id():
    problem = JSONResponse({"code": "job_not_found"}, 404, media_type="application/problem+json")
    problem.raw_headers += [(b"x-request-id", b"ours"), (b"x-request-id", b"ray")]
    client = behind(("/job", answers(problem)), ("/fine", answers(PlainTextResponse("fine"))))
    answer = client.get("/job")
    assert (answer.status_code, answer.json()) == (404, {"code": "job_not_found"})
    assert answer.headers.get_list("x-request-id") == ["ours"]
    assert client.get("/fine").text == "fine"


def test_a_fault_in_the_proxy_becomes_overloaded_unless_the_answer_has_begun():
    async def breaks(scope, receive, send):
        raise OSError("the replica died")

    async def breaks_off(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise OSError("the replica died")

    async def says_nothing(scope, receive, send):
        pass

    for app in (breaks, says_nothing):
        answer = TestClient(cluster.OwnWords(app)).get("/job")
        assert (answer.status_code, answer.json()["code"], answer.headers["retry-after"]) == (503, "overloaded", "1")
    with pytest.raises(OSError, match="died"):
        TestClient(cluster.OwnWords(breaks_off)).get("/job")


def test_a_body_that_no_replica_takes_is_refused_before_it_is_in_memory():
    taken = []

    async def drains(scope, receive, send):
        while (message := await receive())["type"] == "http.request":
            taken.append(len(message["body"]))
            if not message.get("more_body"):
                break
        await JSONResponse("taken")(scope, receive, send)

    client = TestClient(cluster.Bounded(drains, 1000))
    assert client.post("/upload", content=b"-" * 1000).json() == "taken"
    taken.clear()
    answer = client.post("/upload", content=b"-" * 1001)
    assert (answer.status_code, answer.json()["code"], taken) == (413, "file_too_large", [])

    async def endless():
        sent = []

        async def receive():
            return {"type": "http.request", "body": b"-" * 300, "more_body": True}

        async def send(message):
            sent.append(message)

        await cluster.Bounded(drains, 1000)({"type": "http", "headers": []}, receive, send)
        return sent

    start, body = alone(endless())  # one answer, and no more
    assert (start["status"], json.loads(body["body"])["code"], sum(taken)) == (413, "file_too_large", 900)


def test_rays_own_addresses_are_left_alone():
    answer = behind(("/-/healthz", answers(PlainTextResponse("draining", 503)))).get("/-/healthz")
    assert (answer.status_code, answer.text) == (503, "draining")


def test_requests_about_a_job_go_to_its_replica():
    async def told(request):
        body = await request.body()
        return JSONResponse([request.headers.get("x-session-id"), len(body)])

    client = behind(("/preview", told), ("/upload", told), (f"/job/{JOB}", told), ("/models", told))
    body = {"job_id": JOB.upper(), **LIGHT}
    assert client.post("/preview", json=body).json() == [JOB, len(client.build_request("POST", "/", json=body).read())]
    assert client.get(f"/job/{JOB}").json() == [JOB, 0]
    assert client.get("/models", headers={"x-session-id": JOB}).json() == [None, 0]  # nobody chooses a replica
    large = b"-" * 100_000 + JOB.encode()
    assert client.post("/upload", content=large).json() == [None, len(large)]


# -- analyses elsewhere


class NeverAsked(SphereEngine):
    """Describes itself as the other server's engine does, and must not be asked for pixels."""

    def analyse(self, rgb):
        raise AssertionError("pixels stay where they are")


@pytest.fixture
def settings(tmp_path):
    return load(jobs_dir=tmp_path / "jobs", decoders=0, log_level="warning")


def test_one_server_takes_photos_in_and_the_other_analyses_them(settings):
    with TestClient(create_app(settings, SphereEngine())) as there:
        asked = []

        def analyse(job_id):
            asked.append(job_id)
            there.app.state.service.analyst.work(job_id)

        with TestClient(create_app(settings, NeverAsked(), analyse=analyse)) as here:
            jobs = [upload(here, encoded(gradient(40, 50 + k))) for k in range(3)]
            assert [finished(here, job)["state"] for job in jobs] == ["ready"] * 3
            assert here.post("/relight", json={"job_id": jobs[0], **LIGHT}).status_code == 200
            assert sorted(asked) == sorted(jobs)


def test_a_photo_that_takes_its_analysts_with_it_fails(settings):
    handle = Handle([OSError()] * cluster.TRIES)
    with TestClient(create_app(settings, NeverAsked(), analyse=partial(cluster.hand_over, handle))) as here:
        job = upload(here, encoded(gradient(40, 50)))
        assert finished(here, job)["error"]["code"] == "model_error"
    assert handle.asked == [job] * cluster.TRIES


class Handle:
    """Ray's handle of the analysts: each call raises what is next in line, or returns."""

    def __init__(self, outcomes):
        self.outcomes, self.asked = outcomes, []
        self.analyse = self

    def remote(self, job_id):
        self.asked.append(job_id)
        return self

    def result(self):
        if self.outcomes:
            raise self.outcomes.pop(0)


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(cluster, "PAUSE", 0)


def test_an_analysis_is_handed_over_again_when_its_replica_dies():
    handle = Handle([OSError()])
    cluster.hand_over(handle, JOB)
    assert handle.asked == [JOB, JOB]
    with pytest.raises(ModelError):
        cluster.hand_over(Handle([OSError()] * cluster.TRIES), JOB)


def test_an_analyst_works_by_ids(settings, monkeypatch):
    monkeypatch.setenv("RELIGHT_JOBS_DIR", str(settings.jobs_dir))
    monkeypatch.setenv("RELIGHT_LOG_LEVEL", "warning")
    with TestClient(create_app(settings, SphereEngine(), analyse=lambda job_id: None)) as here:
        job = upload(here, encoded(gradient(40, 50)))

        async def analyse():
            analysts = cluster.Analysis(1, "serving:engine")
            await analysts.check_health()
            models = await analysts.describe()
            await analysts.analyse(job)
            await analysts.__del__()
            monkeypatch.delattr(cluster.Analysis, "__del__")  # Ray awaits it; Python, in the end, would not
            return models

        assert alone(analyse()) == SphereEngine(side=32).describe()
        assert finished(here, job)["state"] == "ready"


# -- what is deployed


def test_the_configurations_say_what_the_builder_takes():
    folder = ROOT / "server" / "deploy"
    config = yaml.safe_load((folder / "serve.yaml").read_text())
    service = yaml.safe_load((folder / "kuberay.yaml").read_text())["spec"]
    assert yaml.safe_load(service["serveConfigV2"]) == config
    (application,) = config["applications"]
    assert application["import_path"] == "server.cluster:app" and cluster.app.__annotations__["args"]
    assert set(application["args"]) <= set(cluster.Arguments.model_fields)
    cluster.Arguments(**application["args"])
    groups = [service["rayClusterConfig"]["headGroupSpec"], *service["rayClusterConfig"]["workerGroupSpecs"]]
    for group in groups:
        (container,) = group["template"]["spec"]["containers"]
        variables = {v["name"]: v["value"] for v in container["env"]}
        assert variables["RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"] == "server.cluster:proxy"
        assert variables["RELIGHT_STORE"].startswith("s3://")


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed (requirements-ray.txt)")
def test_the_builder_binds_two_deployments():
    bound = cluster.app(cluster.Arguments(replicas=2, analyst_gpus=0.5))
    assert json.dumps(bound._bound_deployment.name) == '"web"'
