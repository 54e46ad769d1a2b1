"""Hostile files.

Every one is answered with its picture or a refusal, within bounded CPU time and memory, and leaves nothing.
"""

import contextlib
import io
import itertools
import os
import resource
import sys
import tempfile
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import trust_tools
from fakes import FakeEngine, SphereEngine
from fastapi.testclient import TestClient
from files import Case, all_files
from PIL import Image
from support import encoded, finished, gradient, upload

from server.application import create_app
from server.image.decoder_process import BYTES_BESIDE, BYTES_PER_PIXEL, cpu_seconds

MAX_PIXELS, MAX_BYTES = 4_000_000, 8 << 20
REFUSALS = {
    413: {"image_too_large", "file_too_large"},
    415: {"unsupported_image"},
    422: {"corrupt_image", "empty_file"},
}
MEASURED = sys.platform == "linux"
START = 2.0  # CPU seconds that starting a new decoder may take


class Meter:
    """What the decoder processes use, sampled: the highest resident memory of any, less what one has at rest."""

    def __init__(self, decoders):
        self.decoders, self.peak, self.rest, self._stop = decoders, 0, 0, threading.Event()
        self.slowness = 1.0  # of this machine, as the slowest start of a decoder measured it
        if MEASURED:
            self.rest = self.read("VmRSS")
            self._thread = threading.Thread(target=self._run, daemon=True)
            self._thread.start()

    def read(self, what):
        found = 0
        self.slowness = max([self.slowness] + [p.slowness for p in list(self.decoders._all)])
        for pid in self.decoders.pids:
            with contextlib.suppress(OSError, ValueError):
                found = max(found, trust_tools.memory_bytes(pid, what))
        return found

    def _run(self):
        while not self._stop.wait(0.01):
            self.peak = max(self.peak, self.read("VmHWM"))

    def cpu(self):
        """CPU seconds of all decoders, living and dead."""
        dead = resource.getrusage(resource.RUSAGE_CHILDREN)
        living = 0.0
        for pid in self.decoders.pids:
            with contextlib.suppress(OSError):
                living += trust_tools.cpu_seconds(pid)
        return dead.ru_utime + dead.ru_stime + living

    def close(self):
        self._stop.set()
        if MEASURED:
            self._thread.join()


@pytest.fixture
def hostile(settings, tmp_path, monkeypatch):
    """(client, service, meter) with decoder processes, and temporary files in a folder of their own."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    app = create_app(settings(decoders=1, max_pixels=MAX_PIXELS, max_upload_bytes=MAX_BYTES), FakeEngine(side=16))
    with TestClient(app, raise_server_exceptions=False) as client:
        service = app.state.service
        service.decoders.warm()
        meter = Meter(service.decoders)
        yield client, service, meter
        meter.close()


def nothing_left(service, tmp_path):
    """No job, no half-made job, no temporary file, no note of an analysis."""
    deadline = time.monotonic() + 30
    while service.analysis_pool.pending and time.monotonic() < deadline:
        time.sleep(0.02)
    left = [p.name for p in service.store.root.iterdir() if p.name not in (".workers", ".analyses")]
    left += [p.name for p in (service.store.root / ".analyses").iterdir()]
    return left + [p.name for p in (tmp_path / "tmp").iterdir()]


def try_file(client, service, meter, case, faults):
    """Upload one file; note in `faults` whatever must not be. Returns (status, CPU seconds, did the decoder fall)."""
    falls, pids, before = service.decoders.fallen, service.decoders.pids, meter.cpu() if MEASURED else 0.0
    answer = client.post("/upload", files={"file": (case.name, case.data)})
    fell = service.decoders.fallen > falls
    cpu = meter.cpu() - before if MEASURED else 0.0
    megapixels = case.megapixels
    if answer.status_code == 200:
        body = answer.json()
        megapixels = max(megapixels, body["width"] * body["height"] / 1e6)
        stored = np.array(Image.open(io.BytesIO(client.get(f"/download/{body['job_id']}/input.png").content)))
        if case.picture is not None and not np.array_equal(stored, case.picture):
            faults.append(f"{case.name}: another picture than it shows")
        if stored.shape[:2] != (body["height"], body["width"]) or stored.dtype != np.uint8:
            faults.append(f"{case.name}: stored as {stored.shape} {stored.dtype}")
        assert client.delete(f"/job/{body['job_id']}").status_code == 200
    else:
        kinds = REFUSALS.get(answer.status_code, set())
        if (
            not answer.headers["content-type"].startswith("application/problem+json")
            or answer.json().get("code") not in kinds
        ):
            faults.append(f"{case.name}: {answer.status_code} {answer.text[:200]}")
        if case.picture is not None:
            faults.append(f"{case.name}: a good file was refused, {answer.json().get('code')}")
    allowed = cpu_seconds(int(megapixels * 1e6)) * meter.slowness + 0.05
    started = not pids or service.decoders.pids not in ([], pids)  # the one before had fallen or was worn out
    if cpu > allowed + (START if started else 0):
        faults.append(f"{case.name}: {cpu:.2f} s of CPU, {allowed:.2f} allowed")
    return answer.status_code, cpu, fell


def test_hostile_files(hostile, tmp_path, capsys):
    client, service, meter = hostile
    faults, answers, slowest, fallen = [], {}, (0.0, ""), []
    cases = 0
    for case in all_files():
        status, cpu, fell = try_file(client, service, meter, case, faults)
        cases += 1
        answers[status] = answers.get(status, 0) + 1
        slowest = max(slowest, (cpu, case.name)) if not fell else slowest
        fallen += [case.name] if fell else []
    grown = max(0, meter.peak - meter.rest)
    bound = BYTES_PER_PIXEL * MAX_PIXELS + 2 * MAX_BYTES + BYTES_BESIDE
    trust_tools.say(
        capsys,
        f"{cases} files: {answers}; slowest answered {slowest[1]} {slowest[0]:.2f} s of CPU; "
        f"decoders that fell: {len(fallen)} {fallen}; peak memory {grown / 1e6:.0f} MB of {bound / 1e6:.0f} allowed",
    )
    assert not faults, "\n".join(faults)
    assert cases >= 600
    assert grown <= bound
    assert nothing_left(service, tmp_path) == []
    job = client.post("/upload", files={"file": ("good.png", encoded(gradient()))}).json()["job_id"]
    assert finished(client, job)["state"] == "ready"


@pytest.mark.parametrize("what, refusal, step", [("environment", "invalid_request", 1), ("mask/m", "invalid_mask", 9)])
def test_hostile_environments_and_masks(hostile, tmp_path, capsys, what, refusal, step):
    """The same files as light from all around, and as masks, which are read as photos are: of those, every ninth.

    Bounded as well, and none of them leaves anything but a whole one.
    """
    client, service, meter = hostile
    job = client.post("/upload", files={"file": ("good.png", encoded(gradient()))}).json()["job_id"]
    finished(client, job)
    before = {p.name for p in (service.store.root / job).iterdir()}
    faults, answers = [], {}
    for case in itertools.islice(all_files(), 0, None, step):
        falls, used = service.decoders.fallen, meter.cpu() if MEASURED else 0.0
        answer = client.put(f"/job/{job}/{what}", content=case.data)
        answers[answer.status_code] = answers.get(answer.status_code, 0) + 1
        allowed = cpu_seconds(int(max(case.megapixels, MAX_PIXELS / 1e6) * 1e6)) * meter.slowness + 0.05 + START
        used = meter.cpu() - used if MEASURED else 0.0
        kinds = {**REFUSALS, 422: REFUSALS[422] | {refusal}}.get(answer.status_code, set())
        if answer.status_code == 200:
            assert client.delete(f"/job/{job}/{what}").status_code == 200
        elif answer.json().get("code") not in kinds:
            faults.append(f"{case.name}: {answer.status_code} {answer.text[:200]}")
        if used > allowed:
            faults.append(f"{case.name}: {used:.2f} s of CPU, {allowed:.2f} allowed")
        if service.decoders.fallen > falls and answer.status_code == 200:
            faults.append(f"{case.name}: the decoder fell of a file that was taken")
    grown = max(0, meter.peak - meter.rest)
    bound = BYTES_PER_PIXEL * MAX_PIXELS + 2 * MAX_BYTES + BYTES_BESIDE
    trust_tools.say(capsys, f"as {what}: {answers}; peak memory {grown / 1e6:.0f} MB of {bound / 1e6:.0f} allowed")
    assert not faults, "\n".join(faults)
    assert grown <= bound
    assert {p.name for p in (service.store.root / job).iterdir()} - {"masks.json"} == before
    assert client.get(f"/job/{job}").json()["masks"] == [] and list((tmp_path / "tmp").iterdir()) == []


def pillow_sources():
    """Pillow's own source distribution, if somebody put it where we look: its tests hold files that once broke it."""
    folder = os.environ.get("PILLOW_SOURCES")
    found = sorted(Path(folder).glob("**/Tests/images")) if folder else []
    return found[0] if found else None


def test_pillows_own_broken_files(hostile, tmp_path, capsys):
    """`pip download --no-binary :all: --no-deps pillow`, unpack it and name the folder in PILLOW_SOURCES."""
    images = pillow_sources()
    if images is None:
        pytest.skip("PILLOW_SOURCES names no unpacked Pillow source distribution")
    client, service, meter = hostile
    faults, answers, fallen = [], {}, []
    for path in sorted(p for p in images.glob("**/*") if p.is_file() and p.stat().st_size < MAX_BYTES):
        data = path.read_bytes()
        if not data:
            continue
        try:
            with warnings.catch_warnings(), Image.open(path) as image:
                warnings.simplefilter("ignore")
                megapixels = min(4.0, image.width * image.height / 1e6)
        except Exception:
            megapixels = 0.0
        status, _, fell = try_file(client, service, meter, Case(path.name, data, None, megapixels), faults)
        answers[status] = answers.get(status, 0) + 1
        fallen += [path.name] if fell else []
    trust_tools.say(capsys, f"{sum(answers.values())} files of Pillow's: {answers}; decoders that fell: {fallen}")
    assert not faults, "\n".join(faults)
    assert nothing_left(service, tmp_path) == []


@pytest.mark.skipif(not Path("/proc/self/limits").exists(), reason="Linux")
def test_a_decoder_knows_no_key_and_may_write_no_file(settings, monkeypatch):
    monkeypatch.setenv("RELIGHT_API_KEYS", "key-one-5f3a")
    with TestClient(create_app(settings(decoders=1, api_keys=[]), SphereEngine(side=32))) as client:
        upload(client)
        (pid,) = client.app.state.service.decoders.pids
        assert b"RELIGHT" not in Path(f"/proc/{pid}/environ").read_bytes()
        limits = {
            line[:26].strip(): line[26:].split()[:2] for line in Path(f"/proc/{pid}/limits").read_text().splitlines()
        }
        assert limits["Max file size"] == limits["Max core file size"] == ["0", "0"]
        assert limits["Max address space"][0] != "unlimited"
