"""Guards over all of `server/`, packages within packages included."""

import json
import pkgutil
import subprocess
import sys
from pathlib import Path

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
