"""The main path on every Python from 3.9 to 3.14 this machine has, each in a fresh environment that holds the wheel and
nothing but what it brings: first `relight-server serve` from the wheel, then the application from this checkout.

    python tests/smoke.py [3.9 3.14 ...]

For a Python that is not here, the list of requirements is resolved to wheels and nothing is run. Prints one line for
each; ends with 1 when one failed, or when none could be run.
"""

import glob
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VERSIONS = ("3.9", "3.10", "3.11", "3.12", "3.13", "3.14")
PLATFORMS = {  # what is told -> the tags whose wheels such a machine takes (pip infers the older ones only for macOS)
    "Linux": ["manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64"],
    "macOS": ["macosx_15_0_arm64"],
    "Windows": ["win_amd64"],
}
PIP = ("-m", "pip", "--disable-pip-version-check", "-qq")

# Run by each interpreter, in its own environment: a client made of the standard library.
CLIENT = r"""
import io, json, sys, time, urllib.request, uuid
import numpy as np
from PIL import Image
def call(method, path, data=None, kind="application/json"):
    request = urllib.request.Request(base + path, data, {"Content-Type": kind}, method=method)
    with urllib.request.urlopen(request, timeout=120) as answer:
        return answer.read()
def main_path():
    y, x = np.mgrid[-1:1:240j, -1:1:320j]
    ball = np.clip(1 - (x * 1.33) ** 2 - y ** 2, 0, 1) ** 0.5
    photo = io.BytesIO()
    Image.fromarray(np.uint8(40 + 180 * ball[..., None] * [1, 0.8, 0.6])).save(photo, "JPEG")
    mark = uuid.uuid4().hex
    body = (b"--%s\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.jpg\"\r\n\r\n" % mark.encode()
            + photo.getvalue() + b"\r\n--%s--\r\n" % mark.encode())
    job = json.loads(call("POST", "/upload", body, "multipart/form-data; boundary=" + mark))["job_id"]
    answer = json.loads(call("POST", "/relight", json.dumps({"job_id": job, "x": 1, "y": 0, "z": 0.3}).encode()))
    assert answer["relit_path"] == "jobs/%s/relit.png" % job, answer
    for name in ("input", "depth", "normals", "relit"):
        picture = Image.open(io.BytesIO(call("GET", "/download/%s/%s.png" % (job, name))))
        assert picture.size == (320, 240), (name, picture.size)
    options = {"job_id": job, "x": -1, "y": 0, "z": 0.3, "max_side": 128}
    preview = call("POST", "/preview", json.dumps(options).encode())
    assert Image.open(io.BytesIO(preview)).size == (128, 96)
    for path in ("/", "/docs", "/static/app.js"):
        assert call("GET", path), path
    return job
"""

# The wheel, from a folder of somebody's own. `relight-server` is the first argument.
INSTALLED = (
    CLIENT
    + r"""
import os, socket, subprocess, server
assert os.path.dirname(os.path.realpath(server.__file__)).startswith(os.path.realpath(sys.prefix)), server.__file__
with socket.socket() as s:
    s.bind(("127.0.0.1", 0))
    port = s.getsockname()[1]
base = "http://127.0.0.1:%d" % port
process = subprocess.Popen([sys.argv[1], "serve", "--port", str(port), "--log-level", "warning"])
try:
    for attempt in range(600):
        assert process.poll() is None, "relight-server ended"
        try:
            assert json.loads(call("GET", "/ready"))["ready"]
            break
        except OSError:
            time.sleep(0.1)
    job = main_path()
    assert os.path.exists(os.path.join("jobs", job, "relit.png")), os.listdir(".")
    call("DELETE", "/job/" + job)
finally:
    process.terminate()
    process.wait(60)
"""
)

# The checkout: the server in this very process, on a real socket, where importing a training framework fails.
CHECKOUT = (
    CLIENT
    + r"""
import threading, uvicorn
for name in ("torch", "onnx", "tensorflow"):
    sys.modules[name] = None
from server import settings
from server.application import create_app
app = create_app(settings.load(jobs_dir=sys.argv[1], log_level="warning"))
server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
threading.Thread(target=server.run, daemon=True).start()
deadline = time.time() + 60
while not server.started:
    assert time.time() < deadline, "the server did not start"
    time.sleep(0.05)
base = "http://127.0.0.1:%d" % server.servers[0].sockets[0].getsockname()[1]
call("DELETE", "/job/" + main_path())
assert not any(m.split(".")[0] in ("torch", "onnx") and sys.modules[m] for m in sys.modules)
server.should_exit = True
"""
)


def interpreters(version):
    """Candidates for a version: those of pyenv, then PATH."""
    roots = [os.environ.get("PYENV_ROOT", os.path.expanduser("~/.pyenv"))]
    found = [p for r in roots for p in sorted(glob.glob(f"{r}/versions/{version}.*/bin/python"), reverse=True)]
    on_path = shutil.which("python" + version)
    return found + ([on_path] if on_path else [])


def usable(path, version):
    """Does it start, and is it that version?"""
    done = subprocess.run(
        [path, "-c", "import sys, venv, ensurepip; print('%d.%d' % sys.version_info[:2])"],
        capture_output=True,
        text=True,
    )
    return done.returncode == 0 and done.stdout.strip() == version


def run(command, cwd):
    """Run one step; returns what it said when it failed, None when it worked."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("RELIGHT_", "PYTHONPATH"))}
    done = subprocess.run([str(part) for part in command], cwd=cwd, env=env, capture_output=True, text=True)
    return (done.stdout + done.stderr).strip()[-3000:] if done.returncode else None


def build_wheel(folder):
    """(the wheel, None) or (None, what went wrong)."""
    failure = run([sys.executable, *PIP, "wheel", "--no-deps", "-w", folder, ROOT], folder)
    return (None, failure) if failure is not None else (next(folder.glob("*.whl")), None)


def smoke(python, wheel):
    """Install and run with one interpreter; returns (worked, what to say)."""
    started = time.time()
    with tempfile.TemporaryDirectory(prefix="relight-smoke-") as folder:
        venv, elsewhere = Path(folder, "venv"), Path(folder, "elsewhere")
        elsewhere.mkdir()
        programs = venv / ("Scripts" if os.name == "nt" else "bin")
        binary = programs / ("python.exe" if os.name == "nt" else "python")
        steps = (
            (elsewhere, [python, "-m", "venv", venv]),
            (elsewhere, [binary, *PIP, "install", wheel]),
            (elsewhere, [binary, "-c", INSTALLED, programs / "relight-server"]),
            (ROOT, [binary, "-c", CHECKOUT, Path(folder, "jobs")]),
        )
        for cwd, command in steps:
            failure = run(command, cwd)
            if failure is not None:
                return False, failure
        listing = [str(binary), *PIP[:-1], "list", "--format", "json"]  # -q would leave nothing of it
        listed = subprocess.run(listing, capture_output=True, text=True).stdout
        versions = {p["name"].lower(): p["version"] for p in json.loads(listed)}
        size = sum(f.stat().st_size for f in venv.rglob("*") if f.is_file() and not f.is_symlink()) / 1e6
    names = ("fastapi", "onnxruntime", "numpy")
    return True, f"{time.time() - started:.0f} s, {size:.0f} MB installed, " + ", ".join(
        f"{n} {versions[n]}" for n in names
    )


def resolve(version):
    """Find wheels of every requirement for a Python that is not here; returns (worked, what to say)."""
    for platform, tags in PLATFORMS.items():
        with tempfile.TemporaryDirectory(prefix="relight-resolve-") as folder:
            command = [sys.executable, *PIP, "install", "--dry-run", "--ignore-installed", "--target", folder]
            command += ["--only-binary", ":all:", "--python-version", version]
            command += [word for tag in tags for word in ("--platform", tag)]
            failure = run([*command, "-r", ROOT / "requirements.txt"], folder)
        if failure is not None:
            return False, f"no wheels for {platform}: {failure}"
    return True, f"not on this machine; wheels of every requirement exist for {', '.join(PLATFORMS)}"


def main(wanted):
    """Run all; returns the exit status."""
    failed, ran = [], []
    with tempfile.TemporaryDirectory(prefix="relight-wheel-") as folder:
        wheel, failure = build_wheel(Path(folder))
        if wheel is None:
            print(f"the wheel cannot be built: {failure}")
            return 1
        print(f"{wheel.name}: {wheel.stat().st_size / 1e6:.1f} MB", flush=True)
        for version in wanted:
            python = next((p for p in interpreters(version) if usable(p, version)), None)
            worked, text = smoke(python, wheel) if python else resolve(version)
            outcome = "FAILED" if not worked else "ok" if python else "resolved only"
            print(f"Python {version}: {outcome}: {text}", flush=True)
            if not worked:
                failed.append(version)
            elif python:
                ran.append(version)
    print(f"{len(ran)} passed, {len(failed)} failed", flush=True)
    return 1 if failed or not ran else 0


if __name__ == "__main__":
    chosen = [v for v in sys.argv[1:] if re.fullmatch(r"3\.\d+", v)] or VERSIONS
    sys.exit(main(chosen))
