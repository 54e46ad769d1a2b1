"""Builds the container and tries it as strangers would meet it: `python tests/containers.py`, or `make containers`.

It takes root, and Debian's buildah, podman, runc and debootstrap; where no registry can be reached, the last makes the
base out of Debian's packages.
"""

import argparse
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from PIL import Image
from serving import free_port, multipart

ROOT = Path(__file__).resolve().parent.parent
BASE, IMAGE, DEBIAN = "docker.io/library/debian:bookworm-slim", "localhost/relight-server", "bookworm"
LARGEST = 450_000_000
BUILDAH = ("buildah", "--storage-driver", "vfs")
PODMAN = ("podman", "--storage-driver", "vfs", "--cgroup-manager", "cgroupfs", "--runtime", "runc")
USER = 10001
NEVER_READ = ("var/lib/apt/lists", "var/cache/apt", "usr/share/locale", "usr/share/man", "usr/share/doc", "var/log")


def run(*command, **options):
    """What a command printed. Raises CalledProcessError."""
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, **options).stdout.strip()


def base():
    """The name of the image that everything stands on."""
    try:
        run(*BUILDAH, "pull", "--quiet", BASE, stderr=subprocess.DEVNULL)
        return BASE
    except subprocess.CalledProcessError:
        print(f"{BASE} cannot be pulled: its like is made of Debian's packages by debootstrap", flush=True)
    own = f"localhost/debian-{DEBIAN}"
    if subprocess.run([*BUILDAH, "inspect", "--type", "image", own], capture_output=True).returncode == 0:
        return own
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "root"
        run("debootstrap", "--variant=minbase", DEBIAN, str(root))
        for name in NEVER_READ:  # as in the image whose place it takes
            for path in (root / name).iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        container = run(*BUILDAH, "from", "scratch")
        run(*BUILDAH, "copy", "--quiet", container, str(root), "/")
        run(*BUILDAH, "commit", "--quiet", container, own)
        run(*BUILDAH, "rm", container)
    return own


def build(arguments):
    """The image; returns its bytes."""
    command = [*BUILDAH, "bud", "--isolation=chroot", "--format=docker", f"--build-arg=BASE={base()}"]
    if "PIP_CERT" in os.environ:  # behind a proxy that signs with a certificate of its own
        inside = "/run/certificates.pem"
        command += [f"--volume={os.environ['PIP_CERT']}:{inside}:ro", f"--build-arg=PIP_CERT={inside}"]
    subprocess.run([*command, *arguments, f"--tag={IMAGE}", str(ROOT)], check=True)
    return int(json.loads(run(*PODMAN, "image", "inspect", IMAGE))[0]["Size"])


class Container:
    """The image at work: its root read-only, only /jobs and /tmp to write to, no capabilities."""

    def __init__(self, port):
        self.port, self.name = port, f"relight-{port}"
        # The host's network and the plain limits: those podman would choose take rights that sandboxes do not give.
        plain = ("--network=host", "--ulimit=nofile=4096:4096", "--ulimit=nproc=4096:4096")
        strict = ("--read-only", "--tmpfs=/tmp", "--cap-drop=all", "--security-opt=no-new-privileges")
        serve = ("relight-server", "serve", "--host", "127.0.0.1", "--port", str(port))
        run(
            *PODMAN,
            "run",
            "--detach",
            "--rm",
            "--no-healthcheck",
            *plain,
            *strict,
            f"--name={self.name}",
            IMAGE,
            *serve,
        )

    def execute(self, code):
        """What Python prints in the container. Raises CalledProcessError."""
        return run(*PODMAN, "exec", self.name, "python3", "-c", code, stderr=subprocess.DEVNULL)

    def stop(self):
        """As an orchestrator stops it; returns the seconds that took."""
        begun = time.monotonic()
        run(*PODMAN, "stop", "--time=30", self.name)
        return time.monotonic() - begun


def check_walls(container):
    """It is nobody in there, and only two folders can be written to."""
    assert container.execute("import os; print(os.getuid(), os.getgid())") == f"{USER} {USER}"
    writable = "import os; print([d for d in ('/', '/etc', '/opt/relight', '/jobs', '/tmp') if os.access(d, os.W_OK)])"
    assert container.execute(writable) == "['/jobs', '/tmp']"
    health = json.loads(run(*PODMAN, "image", "inspect", IMAGE))[0]["Healthcheck"]["Test"]
    assert health[:3] == ["CMD", "python3", "-c"]
    container.execute(health[3].replace("8000", str(container.port)))


def ask(port, method, path, data=None, headers=None):
    """(status, bytes) of one request."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data, headers or {}, method=method)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.status, answer.read()


def ready(port):
    """Wait until the models are loaded; returns the seconds that took."""
    begun = time.monotonic()
    while time.monotonic() < begun + 60:
        try:
            if ask(port, "GET", "/ready")[0] == 200:
                return time.monotonic() - begun
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise AssertionError("the container does not answer")


def relight(port):
    """Upload, relight, download and delete one photo."""
    photo = io.BytesIO()
    Image.linear_gradient("L").convert("RGB").save(photo, "JPEG")
    headers, body = multipart(photo.getvalue())
    job = json.loads(ask(port, "POST", "/upload", body, headers)[1])["job_id"]
    light = json.dumps({"job_id": job, "x": -0.6, "y": 0.4, "z": 0.7}).encode()
    ask(port, "POST", "/relight", light, {"Content-Type": "application/json"})
    relit = Image.open(io.BytesIO(ask(port, "GET", f"/download/{job}/relit.png")[1]))
    assert relit.size == (256, 256)
    ask(port, "DELETE", f"/job/{job}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build-arg", action="append", default=[], help="as the Dockerfile takes it")
    options = parser.parse_args()
    missing = [tool for tool in ("buildah", "podman", "runc", "debootstrap") if shutil.which(tool) is None]
    if missing:
        print(f"not built: {', '.join(missing)} missing (apt-get install buildah podman runc debootstrap)")
        return 1
    size = build([f"--build-arg={text}" for text in options.build_arg])
    print(f"the image has {size / 1e6:.0f} MB", flush=True)
    container = Container(free_port())
    try:
        took = ready(container.port)
        check_walls(container)
        relight(container.port)
    finally:
        stopped = container.stop()
    print(f"as user {USER}, read-only: ready after {took:.1f} s, relit a photo, stopped in {stopped:.1f} s")
    return int(size > LARGEST)


if __name__ == "__main__":
    sys.exit(main())
