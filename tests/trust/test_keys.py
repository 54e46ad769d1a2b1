"""Keys: who has none gets nothing, a job belongs to its key, and no key is ever written down."""

import logging

import pytest
from fakes import SphereEngine
from fastapi.testclient import TestClient
from support import encoded, finished, gradient, problem, upload

from server.application import create_app
from server.errors import StartupError

ONE, TWO, UMLAUT = "key-one-5f3a", "key-two-9c1b", "schlüssel-3"
LIGHT = {"x": 1, "y": 0, "z": 1}
AROUND = encoded(gradient(20, 40))  # an environment


def auth(key):
    return {"Authorization": f"Bearer {key}".encode()}


@pytest.fixture
def keyed(settings, tmp_path):
    (tmp_path / "keys").write_text(f"# who may\n\n{TWO}\n{UMLAUT}\n", "utf-8")
    app = create_app(
        settings(
            api_keys=[ONE],
            api_keys_file=tmp_path / "keys",
            key_jobs=3,
            key_bytes=300_000,
            cors_origins=["https://page.example"],
        ),
        SphereEngine(side=32),
    )
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


def calls(job):
    return [
        ("POST", "/relight", {"job_id": job, **LIGHT}),
        ("POST", "/preview", {"job_id": job, **LIGHT}),
        ("POST", "/preview", {"job_id": job, "environment": {"type": "photo", "job_id": job}}),
        ("GET", f"/job/{job}", None),
        ("GET", f"/job/{job}/events", None),
        ("GET", f"/job/{job}/maps", None),
        ("GET", f"/download/{job}/input.png", None),
        ("HEAD", f"/download/{job}/input.png", None),
        ("PUT", f"/job/{job}/environment", AROUND),
        ("DELETE", f"/job/{job}/environment", None),
        ("POST", "/animate", {"job_id": job, "orbit": {}, "frames": 2}),
        ("DELETE", f"/job/{job}/motion", None),
        ("PUT", f"/job/{job}/mask/m", encoded(gradient())),
        ("GET", f"/job/{job}/mask/m", None),
        ("HEAD", f"/job/{job}/mask/m", None),
        ("POST", "/preview", {"job_id": job, **LIGHT, "mask": "m"}),
        ("DELETE", f"/job/{job}/mask/m", None),
        ("DELETE", f"/job/{job}", None),
    ]


def ask(client, method, path, body, headers):
    """The answer to a call; a body of bytes is sent as it is."""
    how = {"content": body} if isinstance(body, bytes) else {"json": body}
    return client.request(method, path, headers=headers, **how)


def test_without_a_key_nothing_but_the_open_doors(keyed):
    job = upload(keyed, headers=auth(ONE))
    for method, path, body in [
        *calls(job),
        ("POST", "/upload", None),
        ("GET", "/models", None),
        ("GET", "/metrics", None),
    ]:
        for headers in (
            {},
            auth("wrong"),
            auth(ONE[:-1]),
            auth(ONE + "x"),
            auth(""),
            {"Authorization": f"Basic {ONE}"},
            {"Authorization": ONE},
            auth("ü" * 9),
            auth("a" * 6000),
        ):
            answer = ask(keyed, method, path, body, headers)
            assert answer.status_code == 401 and answer.headers["www-authenticate"].startswith("Bearer")
            if method != "HEAD":
                problem(answer, 401, "unauthorized")
    for path in ("/health", "/ready", "/docs", "/openapi.json", "/"):
        assert keyed.get(path).status_code == 200, path


def test_a_job_belongs_to_its_key(keyed):
    job = upload(keyed, headers=auth(ONE))
    finished(keyed, job, headers=auth(ONE))
    for key in (TWO, UMLAUT):
        for method, path, body in calls(job):
            answer = ask(keyed, method, path, body, auth(key))
            assert answer.status_code == 404
            if method != "HEAD":
                problem(answer, 404, "job_not_found")
    for method, path, body in calls(job):
        assert ask(keyed, method, path, body, auth(ONE)).status_code == (202 if path == "/animate" else 200)


def test_the_light_of_anothers_photo_is_not_to_be_had(keyed):
    theirs, mine = upload(keyed, headers=auth(ONE)), upload(keyed, headers=auth(TWO))
    for path in ("/relight", "/preview"):
        body = {"job_id": mine, "environment": {"type": "photo", "job_id": theirs}}
        problem(keyed.post(path, json=body, headers=auth(TWO)), 404, "job_not_found")
    assert keyed.post("/relight", json={**body, "job_id": theirs}, headers=auth(ONE)).status_code == 200


def test_a_motion_counts_to_its_key_and_takes_no_light_of_another(keyed):
    theirs, mine = upload(keyed, headers=auth(ONE)), upload(keyed, encoded(gradient(480, 640)), headers=auth(TWO))
    body = {"job_id": mine, "keyframes": [{"environment": {"type": "photo", "job_id": theirs}}] * 2, "frames": 2}
    problem(keyed.post("/animate", json=body, headers=auth(TWO)), 404, "job_not_found")
    body = {"job_id": mine, "orbit": {}, "frames": 120, "max_side": 640}
    problem(keyed.post("/animate", json=body, headers=auth(TWO)), 507, "storage_full")


def test_an_environment_counts_to_its_key(keyed):
    job = upload(keyed, headers=auth(ONE))
    path, large = f"/job/{job}/environment", encoded(gradient(256, 512))  # 786 kB as half floats
    problem(keyed.put(path, content=large, headers=auth(ONE)), 507, "storage_full")
    assert keyed.put(path, content=AROUND, headers=auth(ONE)).status_code == 200


def test_a_mask_counts_to_its_key(keyed):
    import numpy as np

    job = upload(keyed, encoded(np.zeros((500, 700, 3), np.uint8)), headers=auth(ONE))
    noise = np.random.default_rng(0).integers(0, 255, (500, 700), np.uint8)
    problem(keyed.put(f"/job/{job}/mask/m", content=encoded(noise), headers=auth(ONE)), 507, "storage_full")
    assert keyed.put(f"/job/{job}/mask/m", content=encoded(noise * 0), headers=auth(ONE)).status_code == 200


@pytest.mark.parametrize("what", ["environment", "mask/m"])
def test_cors_lets_a_page_put_an_environment_and_a_mask(keyed, what):
    asked = {"Origin": "https://page.example", "Access-Control-Request-Method": "PUT"}
    answer = keyed.options(f"/job/00000000-0000-4000-8000-000000000000/{what}", headers=asked)
    assert answer.status_code == 200 and "PUT" in answer.headers["access-control-allow-methods"]


def test_two_keys_never_share_an_analysis(keyed):
    engine = keyed.app.state.service.engine
    data = encoded(gradient(50, 70))
    for key, made in ((ONE, 1), (ONE, 1), (TWO, 2), (UMLAUT, 3)):
        job = upload(keyed, data, headers=auth(key))
        finished(keyed, job, headers=auth(key))
        assert engine.calls == made


def test_limits_of_a_key(keyed):
    for _ in range(3):
        job = upload(keyed, headers=auth(ONE))
    answer = keyed.post("/upload", files={"file": ("a.png", encoded(gradient()))}, headers=auth(ONE))
    problem(answer, 507, "storage_full")
    upload(keyed, headers=auth(TWO))  # another key is not concerned
    assert keyed.delete(f"/job/{job}", headers=auth(ONE)).status_code == 200
    upload(keyed, headers=auth(ONE))


def test_bytes_of_a_key(keyed):
    import numpy as np

    noise = np.random.default_rng(0).integers(0, 255, (400, 400, 3), np.uint8)
    answer = keyed.post("/upload", files={"file": ("a.png", encoded(noise))}, headers=auth(TWO))
    problem(answer, 507, "storage_full")


def test_cors_works_with_keys(keyed):
    preflight = keyed.options(
        "/relight",
        headers={
            "Origin": "https://page.example",
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization,content-type",
        },
    )
    assert preflight.status_code == 200 and preflight.headers["access-control-allow-origin"] == "https://page.example"
    assert "authorization" in preflight.headers["access-control-allow-headers"].lower()
    refused = keyed.get("/models", headers={"Origin": "https://page.example"})
    assert (
        refused.status_code == 401 and refused.headers["access-control-allow-origin"] == "https://page.example"
    )  # a page can read why
    evil = keyed.options(
        "/relight", headers={"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    )
    assert evil.status_code >= 400 and "access-control-allow-origin" not in evil.headers
    problem(evil, 400, "invalid_request")
    assert keyed.get("/health").headers.get("access-control-allow-credentials") is None


def test_no_key_is_ever_written_down(keyed, caplog):
    with caplog.at_level(logging.DEBUG):
        job = upload(keyed, headers=auth(ONE))
        finished(keyed, job, headers=auth(ONE))
        keyed.get("/models", headers=auth("almost-" + ONE))
        keyed.get(f"/job/{job}?key={ONE}")
    root = keyed.app.state.service.store.root
    ours = "".join(r.getMessage() for r in caplog.records if not r.name.startswith(("httpx", "httpcore")))
    written = ours.encode() + b"".join(p.read_bytes() for p in root.rglob("*") if p.is_file())
    names = "".join(str(p.relative_to(root)) for p in root.rglob("*"))
    for key in (ONE, TWO):
        assert key.encode() not in written and key not in names
        assert key not in repr(keyed.app.state.settings) and key not in keyed.get("/openapi.json").text


def test_every_answer_has_the_headers(keyed):
    for path in ("/", "/docs", "/health", "/nowhere", "/openapi.json"):
        h = keyed.get(path).headers
        assert h["x-content-type-options"] == "nosniff" and h["x-request-id"]
        policy = h["content-security-policy"]
        assert (
            "default-src 'none'" in policy
            and "unsafe" not in policy
            and "frame-ancestors 'none'" in policy
            and "http" not in policy
        )


def test_docs_work_offline(client):
    page = client.get("/docs").text
    assert (
        "http://" not in page
        and "https://" not in page
        and "<style" not in page
        and "style=" not in page
        and "onclick" not in page
    )
    import re

    for address in re.findall(r'(?:src|href)="([^"#]+)"', page):
        assert client.get("/" + address.lstrip("./")).status_code == 200, address
    script = client.get("/static/docs-init.js").text
    assert (
        "validatorUrl: null" in script and "://" not in script
    )  # tests/e2e/test_docs.py sees what the browser asks for


@pytest.mark.parametrize(
    "body", [b"{", b"", b'{"job_id": 1}', b" " * (2 << 20)], ids=["malformed", "empty", "invalid", "large"]
)
@pytest.mark.parametrize("path", ["/relight", "/preview", "/upload"])
def test_the_key_is_asked_for_before_the_body_is_read(keyed, path, body):
    problem(keyed.post(path, content=body, headers={"Content-Type": "application/json"}), 401, "unauthorized")


@pytest.mark.parametrize("what", ["environment", "mask/m"])
def test_the_key_is_asked_for_before_a_file_is_read(keyed, what):
    for data in (b"", AROUND, b" " * (2 << 20)):
        path = f"/job/00000000-0000-4000-8000-000000000000/{what}"
        problem(keyed.put(path, content=data), 401, "unauthorized")


def test_a_keys_file_from_windows_is_read(settings, tmp_path):
    (tmp_path / "keys").write_bytes(b"\xef\xbb\xbfkey-one-5f3a\r\nkey-two-9c1b\r\n")
    assert settings(api_keys_file=tmp_path / "keys").keys() == [ONE, TWO]


@pytest.mark.parametrize(
    "content", [b"", b"# nobody\n", "schl\u00fcssel".encode("latin-1")], ids=["empty", "revoked", "latin-1"]
)
def test_a_keys_file_without_keys_never_opens_the_server(settings, tmp_path, content):
    (tmp_path / "keys").write_bytes(content)
    with pytest.raises(StartupError, match="RELIGHT_API_KEYS_FILE"):
        create_app(settings(api_keys_file=tmp_path / "keys"), SphereEngine(side=32))
