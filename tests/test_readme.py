"""The README's snippets, run as they stand there against a real server."""

import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from fakes import FakeEngine
from PIL import Image, ImageFilter
from support import ROOT, encoded, gradient, serving

from server import cli
from server.application import create_app


def snippets(language):
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.S)


@pytest.fixture
def served(settings):
    """The address of a real server over an analytic engine."""
    with serving(create_app(settings(), FakeEngine())) as address:
        yield address


@pytest.fixture
def photo(tmp_path):
    (tmp_path / "photo.jpg").write_bytes(encoded(gradient(48, 64), "JPEG"))
    return tmp_path


def run_bash(snippet, served, photo):
    """What a snippet prints, run in a folder with photo.jpg."""
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    tools = {**os.environ, "PATH": os.path.dirname(sys.executable) + os.pathsep + os.environ["PATH"]}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", snippet.replace("http://127.0.0.1:8000", served)],
        cwd=photo,
        env=tools,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("number, made", [(0, "relit.png"), (1, "sunset.jpg")], ids=["relight", "environment"])
def test_curl(served, photo, number, made):
    said = run_bash(snippets("bash")[number], served, photo)
    assert number or '"status":"deleted"' in said
    with Image.open(photo / made) as picture:
        assert picture.size == (64, 48)


def test_the_recipes_of_masks(served, photo):
    """Only the person, only the background, a lamp on the wall alone, and a darker background."""
    (photo / "photo.jpg").write_bytes(encoded(np.full((90, 120, 3), 110, np.uint8), "JPEG", quality=100))
    person = np.zeros((90, 120), bool)
    person[20:, 40:80] = True
    (photo / "person.png").write_bytes(encoded(np.where(person, np.uint8(255), np.uint8(0))))
    run_bash(snippets("bash")[2], served, photo)
    near = np.asarray(Image.fromarray(person).convert("L").filter(ImageFilter.BoxBlur(9)))
    inside, outside = near > 250, near < 5  # away from the feathered edge, and from what blocks of a JPEG share

    def change(name):
        with Image.open(photo / name) as picture:
            assert picture.size == (120, 90)
            return np.abs(np.asarray(picture).astype(int) - 110).mean(2)

    assert change("person.jpg")[outside].max() <= 2 and change("person.jpg")[inside].mean() > 5
    assert change("background.jpg")[inside].max() <= 2 and change("background.jpg")[outside].mean() > 5
    assert change("dark.jpg")[inside].max() <= 2
    with Image.open(photo / "dark.jpg") as dark, Image.open(photo / "wall.jpg") as wall:
        assert np.asarray(dark)[outside].mean() < 70
        red, blue = (np.asarray(wall).astype(int)[..., k] for k in (0, 2))
    assert np.abs(red - blue)[inside].mean() < 1 and (red - blue)[outside].mean() > 15


@pytest.mark.parametrize(
    "number, made",
    [(0, "relit.png"), (1, "relit.png"), (2, "motion.webp")],
    ids=["client", "httpx", "motion"],
)
def test_python(served, photo, number, made):
    snippet = snippets("python")[number]
    done = subprocess.run(
        [sys.executable, "-c", snippet.replace("http://127.0.0.1:8000", served)],
        cwd=photo,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    with Image.open(photo / made) as picture:
        assert picture.size == (64, 48)


def test_javascript(served, photo):
    (snippet,) = snippets("js")
    if shutil.which("node") is None:
        pytest.skip("node is not installed: it stands in for a browser here (fetch, FormData, Blob)")
    run = (
        snippet
        + """
const fs = require("node:fs");
relightPhoto(process.argv[1], new Blob([fs.readFileSync("photo.jpg")]), { x: -0.6, y: 0.4, z: 0.7 })
  .then(async (picture) => fs.writeFileSync("relit.png", Buffer.from(await picture.arrayBuffer())));
"""
    )
    done = subprocess.run(["node", "-e", run, served], cwd=photo, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with Image.open(photo / "relit.png") as picture:
        assert picture.size == (64, 48)


def test_cuda_requirements_differ_only_in_the_runtime():
    plain, cuda = ((ROOT / f"requirements{s}.txt").read_text().splitlines()[1:] for s in ("", "-cuda"))
    changed = [(a, b) for a, b in zip(plain, cuda) if a != b]
    assert len(plain) == len(cuda) and len(changed) == 1
    assert changed[0][0].startswith("onnxruntime>") and changed[0][1].startswith("onnxruntime-gpu[")


def test_the_commands_in_the_readme_are_the_makefile_s():
    makefile, readme = (ROOT / "Makefile").read_text(), (ROOT / "README.md").read_text("utf-8")
    for target in ("run", "test", "smoke"):
        assert f"\n{target}:" in makefile and f"make {target}" in readme
    assert "uvicorn server:app --host $(HOST) --port $(PORT)" in makefile and "-m pytest" in makefile


def test_the_first_screen_is_a_picture_two_commands_and_a_signpost():
    """tests/smoke.py runs the two commands in empty environments."""
    lines = (ROOT / "README.md").read_text("utf-8").splitlines()
    start = lines.index("```")
    assert lines[start : start + 4] == ["```", "pip install .", "relight-server serve", "```"]
    assert any(line.startswith("![") for line in lines[:start]) and lines.index("## Calling the API") < 30


@pytest.mark.parametrize("name", ["README.md", "server/README.md"])
def test_the_command_lines_are_taken(name):
    commands = re.findall(r"relight-server serve[^\n`|,;]*", (ROOT / name).read_text("utf-8"))
    assert commands
    for command in commands:
        words = command.split()[1:]
        if "--help" not in words and words[-1] != "--root-path":
            assert cli.parser().parse_args(words).command == "serve"


def anchors(text):
    """The anchors of a page's headings, as GitHub makes them."""
    for title in re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", text, flags=re.S), re.M):
        yield re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


@pytest.mark.parametrize(
    "name", ["README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "server/README.md", "export/README.md"]
)
def test_links_lead_somewhere(name):
    page = ROOT / name
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text("utf-8")):
        path, _, anchor = target.partition("#")
        if "://" in target:
            continue
        there = page.parent / path if path else page
        assert there.exists(), target
        assert not anchor or anchor in anchors(there.read_text("utf-8")), target
