"""Requests nobody means well with: by the letter of our own OpenAPI, slow, half open, or left in the middle."""

import io
import os
import socket
import tempfile
import threading
import time
from contextlib import contextmanager

import fuzz
import pytest
import schemathesis
import trust_tools
import uvicorn
from fakes import SphereEngine
from serving import Server, free_port, multipart
from support import encoded, gradient

from server.application import create_app
from server.settings import load

CASES = int(os.environ.get("FUZZ_CASES", 30))
LIGHT = {"x": -0.5, "y": 0.5, "z": 0.7}


@contextmanager
def serving(app):
    """A real socket in this process."""
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    end = time.monotonic() + 30
    while not server.started and time.monotonic() < end:
        time.sleep(0.02)
    client = Server.__new__(Server)
    client.port = port
    try:
        yield client
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive(), "something holds the server"


def options(folder, **more):
    return load(**{"jobs_dir": folder, "log_level": "error", "decoders": 0, "threads": 2, **more})


def test_the_openapi_document_tells_the_truth(tmp_path, capsys):
    app = create_app(options(tmp_path / "jobs"), SphereEngine(side=16))
    with serving(app) as client:
        made, faults = fuzz.fuzz(f"http://127.0.0.1:{client.port}", CASES, seed=8)
    trust_tools.say(
        capsys, f"{made} requests by the OpenAPI document, {len(schemathesis.checks.CHECKS.get_all())} checks"
    )
    assert not faults, "\n\n".join(faults)
    assert made > 6 * CASES


# -- slow, half open, gone


def raw(client, text, wait=0.0):
    """An open connection on which `text` was sent."""
    s = socket.create_connection(("127.0.0.1", client.port), timeout=30)
    s.sendall(text)
    time.sleep(wait)
    return s


def head(path, length, kind="multipart/form-data; boundary=x"):
    return f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n".encode()


def settled(service, tmp, seconds=15):
    """Until no upload holds a place and no temporary file is left; says what remains."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        left = (service._uploads, service.pool.pending, len(list(tmp.iterdir())))
        if left == (0, 0, 0):
            break
        time.sleep(0.05)
    return left


@pytest.fixture
def quick(tmp_path, monkeypatch):
    """(client, service, folder of temporary files) of a server with little patience."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    app = create_app(options(tmp_path / "jobs", upload_timeout_seconds=1, max_queue=4), SphereEngine(side=32))
    with serving(app) as client:
        yield client, app.state.service, tmp_path / "tmp"


def test_an_upload_of_a_byte_a_second_is_dropped(quick):
    client, service, tmp = quick
    begun = time.monotonic()
    s = raw(
        client,
        head("/upload", 10_000_000) + b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n',
    )
    answer = b""
    s.settimeout(0.2)
    while time.monotonic() - begun < 20 and b"too slowly" not in answer:
        try:
            if not answer:
                s.sendall(b"a")
            more = s.recv(4000)
        except socket.timeout:
            continue
        if not more:
            break
        answer += more  # head and body may come apart
    s.close()
    assert answer.startswith(b"HTTP/1.1 408") and b"too slowly" in answer and time.monotonic() - begun < 8
    assert settled(service, tmp) == (0, 0, 0)


def test_many_slow_uploads_do_not_keep_others_out_for_long(quick):
    client, service, tmp = quick
    sockets = [raw(client, head("/upload", 5_000_000) + b"--x\r\n") for _ in range(12)]
    end = time.monotonic() + 10
    while (status := client.upload(encoded(gradient()))[0]) == 503 and time.monotonic() < end:
        time.sleep(0.1)
    assert status == 200
    assert settled(service, tmp) == (0, 0, 0)
    for s in sockets:
        s.close()


def test_uploads_that_trickle_take_no_place_in_line(quick):
    """Fast enough not to be dropped, slow enough to take for ever: more of them than there are places."""
    client, service, tmp = quick
    stop = threading.Event()

    def trickle():
        s = raw(
            client,
            head("/upload", 5_000_000) + b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n',
        )
        while not stop.is_set():
            s.sendall(b"a" * 2000)
            time.sleep(0.1)  # 20 kB a second
        s.close()

    threads = [threading.Thread(target=trickle) for _ in range(service.pool.limit + 4)]
    for t in threads:
        t.start()
    time.sleep(2)
    statuses = [client.upload(encoded(gradient()))[0] for _ in range(5)]
    still = service._uploads
    stop.set()
    for t in threads:
        t.join()
    assert statuses == [200] * 5 and still == len(threads)
    assert settled(service, tmp) == (0, 0, 0)


def test_what_arriving_uploads_take_of_the_disk_is_bounded(tmp_path):
    """Two places of 2 MB.

    A third large upload is refused while two are on their way, and has room once they are gone.
    """
    app = create_app(
        options(tmp_path / "jobs", max_upload_bytes=2_000_000, max_queue=1, threads=1), SphereEngine(side=32)
    )
    with serving(app) as client:
        form = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        sockets = [raw(client, head("/upload", 2_000_000) + form + b"a" * 1_900_000) for _ in range(2)]
        end = time.monotonic() + 10
        kind, body = multipart(encoded(gradient(400, 500), "BMP"))  # 600 kB
        while client.ask("POST", "/upload", body, kind)[0] != 503:
            assert time.monotonic() < end, "never refused"
        for s in sockets:
            s.close()
        while (status := client.ask("POST", "/upload", body, kind)[0]) == 503 and time.monotonic() < end + 10:
            time.sleep(0.1)
        assert status == 200


@pytest.mark.parametrize(
    "path,kind",
    [
        ("/upload", "multipart/form-data; boundary=x"),
        ("/relight", "application/json"),
        ("/preview", "application/json"),
    ],
)
def test_half_open_connections_hold_nothing(quick, path, kind):
    client, service, tmp = quick
    threads = threading.active_count()
    sockets = [
        raw(client, t)
        for t in (
            b"",
            b"POST ",
            head(path, 5000, kind),
            head(path, 5000, kind) + b'{"job',
            b"GET /health HTTP/1.1\r\nHost:",
        )
        for _ in range(4)
    ]
    assert client.ask("GET", "/health")[0] == 200
    assert settled(service, tmp) == (0, 0, 0)
    assert threading.active_count() <= threads + 10
    for s in sockets:
        s.close()


def test_clients_that_leave_in_the_middle_of_an_upload(quick):
    client, service, tmp = quick
    kind, body = multipart(encoded(gradient(900, 1200), "BMP"))  # larger than what stays in memory
    for part in (10, 1000, 200_000, 1_500_000, len(body) - 5):
        s = raw(client, head("/upload", len(body), kind["Content-Type"]) + body[:part], 0.1)
        s.close()
    assert settled(service, tmp) == (0, 0, 0)
    assert [p.name for p in service.store.root.iterdir() if p.name not in (".workers", ".analyses")] == []
    assert client.upload(encoded(gradient()))[0] == 200


def test_clients_that_leave_before_and_in_the_answer(quick):
    client, service, tmp = quick
    job = client.upload(encoded(gradient(600, 800), "BMP"))[1]["job_id"]
    client.finished(job)
    body = f'{{"job_id": "{job}", "x": 1, "y": 0, "z": 1}}'.encode()
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    for _ in range(10):
        raw(client, head("/relight", len(body), "application/json") + body).close()
        raw(client, head("/preview", len(body), "application/json") + body).close()
        s = raw(client, f"GET /download/{job}/input.png HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        s.recv(100)
        s.close()
        s = raw(client, f"GET /job/{job}/events HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        s.close()
    assert settled(service, tmp) == (0, 0, 0)
    if before:
        end = time.monotonic() + 10
        while (now := len(os.listdir("/proc/self/fd"))) > before + 2 and time.monotonic() < end:
            time.sleep(0.1)
        assert now <= before + 2, "files stay open"
    assert service.analyst.notifier._subscribers == {}


@pytest.mark.parametrize("path", ["/relight", "/preview"])
def test_clients_that_leave_while_a_photo_is_analysed_leave_the_line(tmp_path, path):
    from fakes import Gated

    engine = Gated(side=32)
    app = create_app(options(tmp_path / "jobs", max_queue=2), engine)
    with serving(app) as client:
        job = client.upload(encoded(gradient()))[1]["job_id"]
        pool = app.state.service.pool
        body = f'{{"job_id": "{job}", "x": 1, "y": 0, "z": 1}}'.encode()
        sockets = [raw(client, head(path, len(body), "application/json") + body) for _ in range(pool.limit)]
        end = time.monotonic() + 10
        while pool.pending < pool.limit and time.monotonic() < end:
            time.sleep(0.02)
        assert pool.pending == pool.limit
        for s in sockets:
            s.close()
        while pool.pending and time.monotonic() < end:
            time.sleep(0.02)
        assert pool.pending == 0 and not engine.open.is_set()
        engine.open.set()
        client.finished(job)


def test_event_streams_of_clients_that_left_end(tmp_path):
    from fakes import Gated

    engine = Gated(side=32)
    app = create_app(options(tmp_path / "jobs"), engine)
    with serving(app) as client:
        job = client.upload(encoded(gradient()))[1]["job_id"]
        sockets = [raw(client, f"GET /job/{job}/events HTTP/1.1\r\nHost: a\r\n\r\n".encode()) for _ in range(20)]
        assert b"event: state" in sockets[0].recv(4000) + sockets[0].recv(4000)
        for s in sockets:
            s.close()
        notifier, end = app.state.service.analyst.notifier, time.monotonic() + 10
        while notifier._subscribers and time.monotonic() < end:
            time.sleep(0.05)
        assert notifier._subscribers == {}
        engine.open.set()


def test_a_refused_upload_is_answered_though_its_body_is_still_coming(quick):
    """413 by the declared length at once; the client may still be sending and reads a whole answer."""
    client, service, tmp = quick
    size = service.settings.max_upload_bytes + (1 << 20)
    begun = time.monotonic()
    s = raw(client, head("/upload", size))
    s.sendall(bytes(300_000))
    answer = s.recv(4000)
    while b"request_id" not in answer and time.monotonic() - begun < 5:
        answer += s.recv(4000)
    assert answer.startswith(b"HTTP/1.1 413") and b"file_too_large" in answer and time.monotonic() - begun < 5
    s.close()
    status, _, data = client.ask(
        "POST", "/relight", b'{"job_id": "' + b"a" * (2 << 20) + b'"}', {"Content-Type": "application/json"}
    )
    assert status == 413 and b"file_too_large" in data
    assert settled(service, tmp) == (0, 0, 0)


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b'{"job_id": "\\ud800", "\\udfff": 1}',
        b"\xff\xfe",
        b"nul",
        b"1e400",
        b'{"x": NaN}',
        b'{"x": ' + b"9" * 5000 + b"}",
        b'{"job_id": 1}',
        b"",
        b"null",
        b'"a"',
        b'{"' + b"k" * 90_000 + b'": 1}',
    ],
)
def test_json_nobody_would_send(client, body):
    for path in ("/relight", "/preview"):
        answer = client.post(path, content=body, headers={"Content-Type": "application/json"})
        unparsable = len(body) in (100_000, 250_000, 5007)  # too deep, or too long a number: FastAPI's 400
        assert answer.status_code == (400 if unparsable else 422) and answer.json()["code"] in (
            "invalid_request",
            "invalid_light",
        ), answer.text
        assert len(answer.content) < 4000


def test_multipart_nobody_would_send(client):
    part = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nabc\r\n'
    for kind, body in (
        ("multipart/form-data", part),
        ("multipart/form-data; boundary=", part),
        ("multipart/form-data; boundary=x", b""),
        ("multipart/form-data; boundary=x", part * 3 + b"--x--"),
        ("multipart/form-data; boundary=x", b"--x\r\n" * 1000),
        ("multipart/form-data; boundary=x", b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\nabc\r\n--x--'),
        ("multipart/form-data; boundary=x", b"--x\r\n" + b"A: b\r\n" * 5000 + b"\r\n--x--"),
        ("application/x-www-form-urlencoded", b"file=a&" * 1000),
        ("application/json", b"{}"),
        ("text/plain", b"hello"),
    ):
        answer = client.post("/upload", content=body, headers={"Content-Type": kind})
        assert answer.status_code in (400, 415, 422) and answer.headers["content-type"] == "application/problem+json", (
            kind,
            body[:50],
            answer.text,
        )


def test_an_unheard_of_method_and_host(settings):
    from fastapi.testclient import TestClient

    with TestClient(
        create_app(settings(allowed_hosts=["good.example"]), SphereEngine()), raise_server_exceptions=False
    ) as client:
        for method in ("TRACE", "PATCH", "BREW"):
            answer = client.request(method, "/relight", headers={"Host": "good.example"})
            assert (
                answer.status_code == 405
                and answer.json()["code"] == "method_not_allowed"
                and "POST" in answer.headers["allow"]
            )
        answer = client.get("/health", headers={"Host": "evil.example"})
        assert (
            answer.status_code == 400
            and answer.json()["code"] == "invalid_request"
            and answer.json()["request_id"] == answer.headers["x-request-id"]
        )
        assert "BREW" not in client.get("/metrics", headers={"Host": "good.example"}).text


def test_the_body_of_an_answer_that_nobody_reads_is_given_up(tmp_path, monkeypatch):
    from server.web import middleware

    monkeypatch.setattr(middleware, "SEND_SECONDS", 1.0)
    app = create_app(options(tmp_path / "jobs"), SphereEngine(side=32))
    with serving(app) as client:
        noise = io.BytesIO(os.urandom(1900 * 1900 * 3)).getvalue()
        from PIL import Image

        job = client.upload(encoded(Image.frombytes("RGB", (1900, 1900), noise), "BMP"))[1]["job_id"]
        client.finished(job)
        s = socket.socket()
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        s.connect(("127.0.0.1", client.port))
        s.sendall(f"GET /download/{job}/input.png HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        end = time.monotonic() + 15
        while (
            '"/download/{job_id}/{filename}",status="499"' not in client.ask("GET", "/metrics")[2].decode()
            and time.monotonic() < end
        ):
            time.sleep(0.2)
        assert '"/download/{job_id}/{filename}",status="499"' in client.ask("GET", "/metrics")[2].decode()
        s.close()
