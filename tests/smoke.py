"""The main path on every Python from 3.9 to 3.13 this machine has, each in a fresh environment with requirements.txt
only.

    python tests/smoke.py [3.9 3.13 ...]

Prints one line an interpreter; ends with 1 when one of those found fails, or when none is found.
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
VERSIONS = ("3.9", "3.10", "3.11", "3.12", "3.13")

# Run by each interpreter, in its own environment: the server on a real socket, the real graphs, the standard library as
# client.
MAIN_PATH = r"""
import io, json, sys, threading, time, urllib.request, uuid
import numpy as np, uvicorn
from PIL import Image
for name in ("torch", "onnx", "tensorflow"):
    sys.modules[name] = None  # importing it fails from here on
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
def call(method, path, data=None, kind="application/json"):
    request = urllib.request.Request(base + path, data, {"Content-Type": kind}, method=method)
    with urllib.request.urlopen(request, timeout=120) as answer:
        return answer.read()
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
preview = call("POST", "/preview", json.dumps({"job_id": job, "x": -1, "y": 0, "z": 0.3, "max_side": 128}).encode())
assert Image.open(io.BytesIO(preview)).size == (128, 96)
call("DELETE", "/job/" + job)
assert not any(m.split(".")[0] in ("torch", "onnx") and sys.modules[m] for m in sys.modules)
server.should_exit = True
print("ok")
"""


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


def smoke(python):
    """Install and run with one interpreter; returns (worked, what to say)."""
    started = time.time()
    with tempfile.TemporaryDirectory(prefix="relight-smoke-") as folder:
        venv = Path(folder, "venv")
        binary = venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
        steps = (
            [python, "-m", "venv", str(venv)],
            [
                str(binary),
                "-m",
                "pip",
                "install",
                "-q",
                "--disable-pip-version-check",
                "-r",
                str(ROOT / "requirements.txt"),
            ],
            [str(binary), "-c", MAIN_PATH, str(Path(folder, "jobs"))],
        )
        for step in steps:
            done = subprocess.run(step, cwd=ROOT, capture_output=True, text=True)
            if done.returncode:
                return False, (done.stdout + done.stderr).strip()[-3000:]
        listed = subprocess.run(
            [str(binary), "-m", "pip", "list", "--format", "json", "--disable-pip-version-check"],
            capture_output=True,
            text=True,
        ).stdout
        versions = {p["name"].lower(): p["version"] for p in json.loads(listed)}
        size = sum(f.stat().st_size for f in venv.rglob("*") if f.is_file() and not f.is_symlink()) / 1e6
    names = ("fastapi", "onnxruntime", "numpy")
    return True, f"{time.time() - started:.0f} s, {size:.0f} MB installed, " + ", ".join(
        f"{n} {versions[n]}" for n in names
    )


def main(wanted):
    """Run all; returns the exit status."""
    failed, ran = [], []
    for version in wanted:
        python = next((p for p in interpreters(version) if usable(p, version)), None)
        if python is None:
            print(f"Python {version}: not found on this machine", flush=True)
            continue
        worked, text = smoke(python)
        print(f"Python {version}: {'ok' if worked else 'FAILED'}: {text}", flush=True)
        (ran if worked else failed).append(version)
    print(f"{len(ran)} passed, {len(failed)} failed", flush=True)
    return 1 if failed or not ran else 0


if __name__ == "__main__":
    chosen = [v for v in sys.argv[1:] if re.fullmatch(r"3\.\d+", v)] or VERSIONS
    sys.exit(main(chosen))
