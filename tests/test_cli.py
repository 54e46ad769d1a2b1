"""The command line: options made from the settings, quick to answer, and one clear line when something is wrong."""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request

import pytest
from serving import free_port
from support import ROOT

from server import cli
from server.settings import Settings


def run(*arguments, code="from server import cli; sys.exit(cli.main(sys.argv[1:]))", **env):
    """A fresh interpreter's status, output and errors."""
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; {code}", *arguments],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "120", **env},
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def served(monkeypatch):
    """What uvicorn would have been asked to serve; environment variables are put back afterwards."""
    calls = []
    monkeypatch.setattr("uvicorn.run", lambda app, **options: calls.append((app, options)))
    before = dict(os.environ)
    yield calls
    for name in set(os.environ) - set(before):
        del os.environ[name]
    os.environ.update(before)


def test_help_tells_every_setting_with_unit_default_and_variable():
    status, text, _ = run("serve", "--help")
    words = " ".join(text.split())
    assert status == 0
    for name, field in Settings.model_fields.items():
        # argparse may break a line after a hyphen
        told = f"{field.description} (".replace("`", "") + (f"{cli.unit_of(field)}; " if cli.unit_of(field) else "")
        told += f"default: {cli.default_of(field)}; RELIGHT_{name.upper()})"
        assert told.replace(" ", "") in words.replace(" ", ""), name
        assert (f"--{name.replace('_', '-')} " in words) == (name != "api_keys"), name
    assert {"--host", "--port", "--workers"} <= set(words.split())


def test_the_command_line_answers_without_loading_the_server():
    code = (
        "from server import cli\ntry: cli.main(['serve', '--help'])\nexcept SystemExit: pass\n"
        "print([m for m in ('fastapi', 'uvicorn', 'numpy', 'cv2', 'onnxruntime') if m in sys.modules])"
    )
    assert run(code=code)[1].splitlines()[-1] == "[]"


def test_options_become_the_settings_of_every_worker(served, monkeypatch, tmp_path):
    monkeypatch.setenv("RELIGHT_MAX_QUEUE", "7")
    monkeypatch.setenv("RELIGHT_THREADS", "3")
    given = ["--host", "0.0.0.0", "--port", "81", "--workers", "4", "--root-path", "/studio"]
    given += ["--jobs-dir", str(tmp_path), "--threads", "2", "--decoders", "-1", "--normals-model", ""]
    assert cli.main(["serve", *given, "--provider", "CPU"]) == 0
    assert served == [("server:app", {"host": "0.0.0.0", "port": 81, "workers": 4, "root_path": "/studio"})]
    settings = Settings()  # as a worker process reads them
    assert (settings.jobs_dir, settings.threads, settings.max_queue) == (tmp_path, 2, 7)
    assert (settings.decoders, settings.normals_model, settings.provider) == (-1, "", "cpu")


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["serve", "--max-pixels", "many"], "RELIGHT_MAX_PIXELS"),
        (["serve", "--api-keys-file", "/nowhere/keys"], "RELIGHT_API_KEYS_FILE"),
        (["serve", "--port", "70000"], "--port"),
        (["serve", "--workers", "0"], "--workers"),
        (["serve", "--max-pix", "5"], "--max-pix"),
        (["serve", "--api-keys", "k"], "--api-keys"),
        ([], "COMMAND"),
    ],
)
def test_a_bad_command_ends_with_one_line(arguments, words):
    status, out, err = run(*arguments)
    assert status == 2 and not out and len(err.strip().splitlines()) == 1, err
    assert words in err


def test_version():
    from server import __version__

    assert run("--version")[1].strip() == f"Relight Server {__version__}"


def test_python_m_server_serves(tmp_path):
    """From a folder of somebody's own, with an option and a variable."""
    port = free_port()
    command = [sys.executable, "-m", "server", "serve", "--port", str(port), "--jobs-dir", str(tmp_path / "jobs")]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "RELIGHT_DECODERS": "0"}
    process = subprocess.Popen(
        command, cwd=tmp_path, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        lines = iter(process.stdout.readline, "")
        assert any(re.search(rf"http://127\.0\.0\.1:{port}\b", line) for line in lines), "it ended"
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=60) as answer:
            assert json.load(answer)["ready"] is True
        assert (tmp_path / "jobs").is_dir()
    finally:
        process.send_signal(signal.SIGTERM)
        rest, _ = process.communicate(timeout=60)
    assert process.returncode in (0, -signal.SIGTERM), rest


@pytest.mark.parametrize("store, words", [("memory://", "workers"), ("s3://nowhere", "RELIGHT_STORE")])
def test_a_store_that_cannot_be_ends_the_start_and_not_each_worker(served, monkeypatch, capsys, store, words):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    assert cli.main(["serve", "--workers", "2", "--store", store]) == 2 and served == []
    told = capsys.readouterr().err
    assert told.startswith("relight: ") and words in told and told.count("\n") == 1
