"""Settings: what server/README.md says of them is true, and a bad value stops the start with one clear line."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support import ROOT

from server import cli
from server.errors import StartupError
from server.settings import Settings, load


@pytest.mark.parametrize(
    "name,value",
    [
        ("MAX_PIXELS", "many"),
        ("MAX_PIXELS", "0"),
        ("PROVIDER", "tpu"),
        ("THREADS", "-1"),
        ("JOB_TTL_SECONDS", "0"),
        ("LOG_LEVEL", "loud"),
        ("CORS_ORIGINS", "[1"),
        ("DEPTH_MODEL", "../x"),
        ("API_KEYS_FILE", "/nowhere/keys"),
        ("API_KEYS_FILE", ""),
        ("API_KEYS", ","),
        ("API_KEYS", "[1]"),
        ("CORS_ORIGINS", '[["x"]]'),
        ("CORS_ORIGINS", "https://*.example"),
        ("CORS_ORIGINS", "example.com"),
        ("CORS_ORIGINS", "https://a.example/app"),
        ("ALLOWED_HOSTS", ""),
        ("ALLOWED_HOSTS", "127.0.0.1:8000"),
        ("ALLOWED_HOSTS", "https://a.example"),
        ("ALLOWED_HOSTS", "*example.com"),
        ("CORS_ORIGINS", "https://a.example?"),
        ("CORS_ORIGINS", "https://me@a.example"),
        ("CORS_ORIGINS", "https://a..example"),
        ("CORS_ORIGINS", "https://a.example:99999"),
        ("CORS_ORIGINS", "capacitor://local host"),
        ("ALLOWED_HOSTS", "a.example/"),
        ("ALLOWED_HOSTS", "[::1]:8000"),
        ("ALLOWED_HOSTS", "[::g]"),
        ("ALLOWED_HOSTS", "a..example"),
        ("ALLOWED_HOSTS", "a.example:80"),
        ("JOBS_DIR", ""),
        ("MODELS_DIR", " "),
    ],
)
def test_a_bad_value_stops_the_start_with_one_line(name, value, tmp_path):
    env = {**os.environ, "RELIGHT_JOBS_DIR": str(tmp_path), f"RELIGHT_{name}": value}
    done = subprocess.run(
        [sys.executable, "-c", "import server; server.app"], cwd=ROOT, env=env, capture_output=True, text=True
    )
    lines = done.stderr.strip().splitlines()
    assert done.returncode == 2 and len(lines) == 1, done.stderr
    assert f"RELIGHT_{name}" in lines[0]


def test_lists_are_read_from_commas_and_json(monkeypatch):
    monkeypatch.setenv("RELIGHT_CORS_ORIGINS", "https://a.example, https://b.example")
    monkeypatch.setenv("RELIGHT_API_KEYS", '["k1", "k2"]')
    s = load()
    assert s.cors_origins == ["https://a.example", "https://b.example"] and s.keys() == ["k1", "k2"]


@pytest.mark.parametrize(
    "name,value,read",
    [
        (
            "cors_origins",
            "https://A.example/, http://[::1]:3000,capacitor://localhost",
            ["https://a.example", "http://[::1]:3000", "capacitor://localhost"],
        ),
        ("cors_origins", "*", ["*"]),
        ("cors_origins", "", []),
        ("cors_origins", '["file://", "null"]', ["file://", "null"]),
        (
            "cors_origins",
            "https://a.example:443,http://a.example:80,http://a.example:8080",
            ["https://a.example", "http://a.example", "http://a.example:8080"],
        ),
        ("cors_origins", "https://b\u00fccher.example", ["https://xn--bcher-kva.example"]),
        ("allowed_hosts", "[0:0::1]", ["[0:0::1]", "[::1]"]),
        ("cors_origins", "safari-web-extension://ABCD", ["safari-web-extension://ABCD"]),
        ("allowed_hosts", "A.example,*.b.example", ["A.example", "*.b.example", "a.example"]),
        ("allowed_hosts", "a.example.", ["a.example."]),
        ("allowed_hosts", "[fe80::1],127.0.0.1", ["[fe80::1]", "127.0.0.1"]),
        ("allowed_hosts", "*,a:80", ["*", "a:80"]),
        ("api_keys", "", []),
        ("api_keys", "[]", []),
        ("api_keys", '["a,b"]', ["a,b"]),
    ],
)
def test_origins_and_hosts_are_read_as_browsers_send_them(name, value, read):
    assert getattr(load(**{name: value}), name) == read


def test_keys_come_from_a_file_too_and_never_show(tmp_path):
    (tmp_path / "keys").write_text("# ours\nsecret-a\n\nsecret-b\n")
    s = load(api_keys=["secret-c"], api_keys_file=tmp_path / "keys")
    assert s.keys() == ["secret-c", "secret-a", "secret-b"] and "secret" not in repr(s)


def test_unknown_provider_is_refused_before_anything_else():
    with pytest.raises(StartupError):
        load(provider="nope")


def test_the_table_in_the_readme_is_what_the_fields_say():
    text = (ROOT / "server" / "README.md").read_text("utf-8")
    rows = {m[1]: m[2] for m in re.finditer(r"^\| `(RELIGHT_[A-Z_]+)` (\|.*\|)$", text, re.M)}
    told = {}
    for name, field in Settings.model_fields.items():
        default = cli.default_of(field)
        if isinstance(field.default, Path):
            default = field.default.relative_to(ROOT).as_posix()  # where it lies depends on the checkout
        if default != "none" and not default.startswith("ports"):
            default = f"`{default}`"
        unit = cli.unit_of(field) or "\N{EN DASH}"
        told[cli.variable(name)] = f"| {default} | {unit} | {field.description} |"
    assert rows == told


def test_the_page_starts_from_the_server_s_defaults():
    """rig.js states them once more, since the page must show its controls before it may ask (with keys on)."""
    from server.web.schemas import defaults

    text = (ROOT / "server" / "static" / "rig.js").read_text("utf-8")
    page = {}
    for block in ("LIGHT_DEFAULTS", "SCENE_DEFAULTS"):
        (stated,) = re.findall(rf"const {block} = {{(.*?)}};", text, re.S)
        page.update({name: float(value) for name, value in re.findall(r"'?([\w.]+)'?: ([-\d.]+)", stated)})
    ours, told = {}, defaults()
    assert told.pop("exposure_shorthand") == "auto"  # the page always sends lights
    for name, value in told.items():
        inner = value if isinstance(value, dict) else {"": value}
        ours.update({f"{name}.{key}".rstrip("."): float(number) for key, number in inner.items()})
    del ours["max_side"], ours["quality"]  # the page asks for the size of its screen
    assert page.pop("temperature") == 6500  # white, where the server has no default
    assert len(page) == 13 and page == ours
