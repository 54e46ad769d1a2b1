"""Clients that other people's tools make of our OpenAPI document work as they come."""

import importlib
import json
import os
import shutil
import subprocess
import sys

import pytest
from fakes import FakeEngine
from support import encoded, gradient, serving

from server.application import create_app


@pytest.fixture
def served(settings):
    """(The address of a real server with a key, its OpenAPI document)."""
    app = create_app(settings(api_keys=["sesame"]), FakeEngine())
    with serving(app) as address:
        yield address, app.openapi()


def test_openapi_python_client(served, tmp_path, monkeypatch):
    address, document = served
    (tmp_path / "openapi.json").write_text(json.dumps(document))
    made = subprocess.run(
        [
            *(sys.executable, "-m", "openapi_python_client", "generate"),
            *("--path", "openapi.json", "--meta", "none", "--output-path", "made_client"),
        ],
        cwd=tmp_path,
        env={**os.environ, "PATH": os.path.dirname(sys.executable) + os.pathsep + os.environ["PATH"]},
        capture_output=True,
        text=True,
    )
    assert made.returncode == 0 and "Error" not in made.stdout, made.stdout + made.stderr
    monkeypatch.syspath_prepend(str(tmp_path))

    def ask(module, **arguments):
        return importlib.import_module(f"made_client.api.{module}").sync_detailed(client=client, **arguments)

    models, types = (importlib.import_module(f"made_client.{name}") for name in ("models", "types"))
    client = importlib.import_module("made_client").AuthenticatedClient(base_url=address, token="sesame")
    with client:
        with open(tmp_path / "photo.png", "wb") as photo:
            photo.write(encoded(gradient(60, 80)))
        with open(tmp_path / "photo.png", "rb") as photo:
            body = models.UploadUploadPostBody(file=types.File(payload=photo, file_name="photo.png"))
            uploaded = ask("jobs.upload_upload_post", body=body).parsed
        assert isinstance(uploaded, models.UploadAnswer) and uploaded.width == 80
        lamp = models.PointLight(type_="point", position=[0.5, 0.2, 0.8], color="#ffc080")
        for lights in ({"x": -0.6, "y": 0.4, "z": 0.7}, {"lights": [lamp]}, {"preset": "rim"}):
            body = models.RelightBody(job_id=uploaded.job_id, **lights)
            relit = ask("light.relight_relight_post", body=body).parsed
            assert isinstance(relit, models.RelightAnswer) and relit.status == "ok", lights
        preview = ask("light.preview_preview_post", body=models.PreviewBody(uploaded.job_id, preset="rim", max_side=64))
        assert preview.status_code == 200 and preview.content[:2] == b"\xff\xd8"
        state = ask("jobs.job_job_job_id_get", job_id=uploaded.job_id).parsed
        assert state.state == "ready" and "relit.png" in state.files
        picture = ask("jobs.download_download_job_id_filename_get", job_id=uploaded.job_id, filename="relit.png")
        assert picture.content[:4] == b"\x89PNG"
        refused = ask("light.relight_relight_post", body=models.RelightBody(uploaded.job_id, x=0, y=0, z=0)).parsed
        assert isinstance(refused, models.Problem) and refused.code == "invalid_light"
        assert ask("jobs.delete_job_job_id_delete", job_id=uploaded.job_id).parsed.status == "deleted"


NPM = ("openapi-typescript@7.13.0", "openapi-fetch@0.17.0", "typescript@5.9.3", "@types/node@24")
PROGRAM = """
import createClient from "openapi-fetch";
import type { paths } from "./api";

const client = createClient<paths>({ baseUrl: process.argv[2], headers: { Authorization: "Bearer sesame" } });

async function main(): Promise<void> {
  const form = new FormData();
  form.append("file", new Blob([require("node:fs").readFileSync("photo.png")]));
  const stored = await client.POST("/upload", { body: form as never });
  const job_id: string = stored.data!.job_id;
  const relit = await client.POST("/relight", { body: { job_id, preset: "golden-hour", ambient: 0.3 } });
  const width: number = relit.data!.width;
  const state = await client.GET("/job/{job_id}", { params: { path: { job_id } } });
  const picture = await client.GET("/download/{job_id}/{filename}", {
    params: { path: { job_id, filename: "relit.png" } }, parseAs: "arrayBuffer",
  });
  const refused = await client.POST("/relight", { body: { job_id, x: 0, y: 0, z: 0 } });
  const code: string = refused.error!.code;
  await client.DELETE("/job/{job_id}", { params: { path: { job_id } } });
  console.log(JSON.stringify([width, state.data!.state, picture.data!.byteLength > 100, code]));
}
main();
"""


def test_openapi_typescript(served, tmp_path):
    address, document = served
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed: it fetches openapi-typescript")
    (tmp_path / "openapi.json").write_text(json.dumps(document))
    (tmp_path / "photo.png").write_bytes(encoded(gradient(60, 80)))
    (tmp_path / "program.ts").write_text(PROGRAM)

    def run(*command):
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    tools = tmp_path / "node_modules"  # not those of the page: openapi-typescript takes an older TypeScript
    run("npm", "install", "--no-audit", "--no-fund", "--prefix", ".", *NPM)
    run(
        "node",
        str(tools / "openapi-typescript" / "bin" / "cli.js"),
        "openapi.json",
        "-o",
        "api.d.ts",
        "--default-non-nullable=false",
    )
    strict = ["--strict", "--target", "es2022", "--module", "commonjs", "--moduleResolution", "node10"]
    tools = tmp_path / "node_modules"  # not those of the page: openapi-typescript takes an older TypeScript
    run("npm", "install", "--no-audit", "--no-fund", "--prefix", ".", *NPM)
    run("node", str(tools / "typescript" / "bin" / "tsc"), "program.ts", *strict, "--types", "node", "--skipLibCheck")
    assert json.loads(run("node", "program.js", address)) == [80, "ready", True, "invalid_light"]
