"""The library behind /docs: as its package ships it, in the version that package.json locks."""

import json
import os
import re

import pytest
from support import ROOT

VENDORED = ROOT / "server" / "static" / "swagger-ui"
PACKAGE = ROOT / "node_modules" / "swagger-ui-dist"


def locked():
    """The version in package-lock.json."""
    lock = json.loads((ROOT / "package-lock.json").read_text("utf-8"))
    return lock["packages"]["node_modules/swagger-ui-dist"]["version"]


def test_the_files_are_those_of_the_locked_version():
    if not PACKAGE.is_dir():
        assert not os.environ.get("CI"), "in CI the npm packages must be there"
        pytest.skip("npm ci has not run: the package is not here to compare with")
    assert json.loads((PACKAGE / "package.json").read_text("utf-8"))["version"] == locked(), "run `npm ci`"
    files = sorted(p.name for p in VENDORED.iterdir())
    assert {"LICENSE", "NOTICE", "swagger-ui-bundle.js", "swagger-ui.css"} <= set(files)
    changed = [name for name in files if (VENDORED / name).read_bytes() != (PACKAGE / name).read_bytes()]
    assert changed == [], "run `npm run vendor`"


def test_the_bundle_names_the_locked_version_itself():
    """This needs no npm packages: whoever raises the number must copy the files too."""
    bundle = (VENDORED / "swagger-ui-bundle.js").read_text("utf-8")
    assert re.findall(r'PACKAGE_VERSION:"([^"]+)"', bundle) == [locked()]
