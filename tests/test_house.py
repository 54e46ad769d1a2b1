"""Guards over all of `server/`, packages within packages included."""

import ast
import json
import pkgutil
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import server

ROOT = Path(__file__).resolve().parent.parent
TRAINING = ("torch", "onnx", "tensorflow", "jax")


def modules():
    """The names of all modules of the server, at any depth."""
    return sorted(m.name for m in pkgutil.walk_packages(server.__path__, "server."))


def run(code, *arguments):
    """What a fresh interpreter prints."""
    done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_every_file_is_among_the_modules():
    files = [p for p in (ROOT / "server").rglob("*.py") if p.name != "__init__.py"]
    assert len(files) > 40 and len({m for m in modules() if not hasattr(sys.modules.get(m), "__path__")}) >= len(files)


def test_server_imports_no_training_framework():
    code = (
        "import sys, json, importlib\n"
        "for name in sys.argv[1:]: importlib.import_module(name)\n"
        f"print(json.dumps([m for m in sys.modules if m.split('.')[0] in {TRAINING!r}]))"
    )
    assert json.loads(run(code, *modules())) == []


def test_importing_a_module_builds_no_application():
    code = (
        "import sys, server.light.shading, server\n"
        "print('server.application' in sys.modules, 'fastapi' in sys.modules, 'app' in vars(server))"
    )
    assert run(code).split() == ["False", "False", "False"]


# -- who may import whom

GROUND = {"settings", "errors", "cpus", "memory", "metrics"}
ALLOWED = {  # room -> the rooms, or single modules of rooms, that it may import besides its own and the ground floor
    "web": {"jobs", "light.lights", "light.skies"},
    "jobs": {"model", "light", "scene", "image"},
    "model": {"scene.geometry", "image.resample"},
    "light": {"scene", "image.srgb", "image.resample"},
    "scene": {"image.srgb", "image.resample"},
    "image": set(),
    "client": set(),
    "batch": {"model", "light", "scene", "image", "jobs.glb", "jobs.look", "jobs.motions", "client"},
    "cli": {
        "batch",
        "client",
        "image.animation",
        "light.lights",
        "model.engine",
        "web.schemas",
        "jobs.backend",
        "jobs.migrate",
    },
    "__main__": {"cli"},
}


def imports(path, name):
    """The modules of `server` that a file imports, wherever in the file: "light.lights", "errors"; "" is the root."""
    package = name.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (a.name[len("server.") :] for a in node.names if a.name.startswith("server."))
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                base = package[: len(package) - node.level + 1]
                base = [*base, *(node.module.split(".") if node.module else [])]
            elif (node.module or "").split(".")[0] == "server":
                base = node.module.split(".")
            else:
                continue
            for alias in node.names:
                target = "/".join([*base, alias.name])
                is_module = (ROOT / target).is_dir() or (ROOT / f"{target}.py").exists()
                yield ".".join([*base, alias.name][1:] if is_module else base[1:])


def wrong_arrows(folder):
    """Arrows between the rooms of a `server` folder that the map does not have."""
    wrong = []
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder).with_suffix("").parts
        room = parts[0] if len(parts) > 1 else ""
        if not room and parts[0] in ("application", "startup", "cluster", "__init__"):
            continue  # these may use everything
        allowed = ALLOWED.get(room or parts[0], set())
        for target in imports(path, ".".join(("server", *parts))):
            there = target.split(".")[0]
            if target == "" or there in GROUND or (room and there == room):
                continue  # the root holds the version alone
            if there not in allowed and target not in allowed:
                wrong.append(f"{'.'.join(parts)} -> {target}")
    return wrong


def test_no_arrow_but_those_of_the_map():
    assert wrong_arrows(ROOT / "server") == []


@pytest.mark.parametrize(
    "module, line, arrow",
    [
        ("image/srgb.py", "from ..scene import fit", "image.srgb -> scene.fit"),
        ("scene/normals.py", "from ..light.lights import Rig", "scene.normals -> light.lights"),
        ("jobs/service.py", "from ..web.schemas import Problem", "jobs.service -> web.schemas"),
        ("web/routes.py", "def f():\n    from server.model import sessions", "web.routes -> model.sessions"),
        ("metrics.py", "import server.jobs.service", "metrics -> jobs.service"),
    ],
)
def test_an_arrow_the_wrong_way_is_found(tmp_path, module, line, arrow):
    shutil.copytree(ROOT / "server", tmp_path / "server", ignore=shutil.ignore_patterns("__pycache__", "static"))
    path = tmp_path / "server" / module
    path.write_text(path.read_text() + "\n" + line + "\n")
    assert wrong_arrows(tmp_path / "server") == [arrow]


def test_packages_are_folders_and_nothing_more():
    """Nothing runs when a package is imported: the decoder processes must load no more than they need."""
    assert [p for p in (ROOT / "server").glob("*/__init__.py") if p.read_text()] == []


def test_a_decoder_process_loads_no_more_than_it_needs():
    code = "import sys, server.image.decoder_process\nprint(*sorted(m for m in sys.modules if m in ('cv2', 'fastapi')))"
    assert run(code) == ""
