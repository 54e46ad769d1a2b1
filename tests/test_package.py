"""The wheel: everything the server needs, nothing else, and the same when it is built from the source distribution."""

import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from support import ROOT

SHOW = "from server.settings import Settings; s = Settings(); print(s.jobs_dir, s.models_dir)"


def build(source, kind, folder):
    """The wheel or the source distribution of a source tree."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(folder)]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = folder.iterdir()
    return built


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    return build(ROOT, "wheel", tmp_path_factory.mktemp("wheel"))


def paths_of_a_fresh_interpreter(site, cwd):
    env = {**os.environ, "PYTHONPATH": str(site)}
    done = subprocess.run([sys.executable, "-c", SHOW], cwd=cwd, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [Path(word) for word in done.stdout.split()]


def test_the_wheel_holds_the_package_the_page_and_the_graphs(wheel):
    def files(folder):
        return {p.relative_to(ROOT).as_posix() for p in (ROOT / folder).rglob("*") if p.is_file()}

    wanted = {name for name in files("server") if "__pycache__" not in name}
    wanted |= {f"server/{name}" for name in files("onnx_models")}
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
        graph = archive.read("server/onnx_models/relight-geometry.onnx")
    assert held == wanted and {"server/static/index.html", "server/onnx_models/relight-geometry.json"} <= held
    assert graph == (ROOT / "onnx_models" / "relight-geometry.onnx").read_bytes()


def same(requirement):
    """What tells a requirement, however it is spelt."""
    return canonicalize_name(requirement.name), str(requirement.specifier), str(requirement.marker)


def test_what_the_wheel_needs_is_the_list_of_requirements(wheel):
    lines = [line.partition("#")[0].strip() for line in (ROOT / "requirements.txt").read_text().splitlines()]
    listed = [Requirement(line) for line in lines if line]
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        metadata = archive.read(name).decode()
    needed = [Requirement(line) for line in re.findall(r"^Requires-Dist: (.*)$", metadata, re.M)]
    needed = [r for r in needed if "extra" not in str(r.marker)]
    assert needed and {same(r) for r in needed} == {same(r) for r in listed}


def test_what_a_cluster_needs_is_its_list_of_requirements(wheel):
    lines = [line.partition("#")[0].strip() for line in (ROOT / "requirements-cluster.txt").read_text().splitlines()]
    listed = {canonicalize_name(r.name): str(r.specifier) for r in map(Requirement, filter(None, lines))}
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        metadata = archive.read(name).decode()
    needed = [Requirement(line) for line in re.findall(r"^Requires-Dist: (.*)$", metadata, re.M)]
    extra = [r for r in needed if str(r.marker) == 'extra == "cluster"']
    assert listed and {canonicalize_name(r.name): str(r.specifier) for r in extra} == listed


def test_installed_the_jobs_lie_in_the_working_directory_and_the_graphs_in_the_package(wheel, tmp_path):
    site, cwd = tmp_path / "site", tmp_path / "cwd"
    cwd.mkdir()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    assert paths_of_a_fresh_interpreter(site, cwd) == [Path("jobs"), site / "server" / "onnx_models"]
    assert paths_of_a_fresh_interpreter(ROOT, cwd) == [ROOT / "jobs", ROOT / "onnx_models"]


def test_the_source_distribution_builds_the_same_wheel(wheel, tmp_path):
    with tarfile.open(build(ROOT, "sdist", tmp_path / "sdist")) as archive:
        archive.extractall(tmp_path / "source", filter="data")
    (source,) = (tmp_path / "source").iterdir()
    again = build(source, "wheel", tmp_path / "wheel")
    assert again.read_bytes() == wheel.read_bytes()
