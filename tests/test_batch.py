"""Folders relit from the command line: the server's own pictures, each whole, all that can be made, nothing twice."""

import io
import json
import os
from dataclasses import replace

import cv2
import numpy as np
import OpenImageIO as oiio
import pytest
from fakes import FakeEngine
from fastapi.testclient import TestClient
from PIL import Image
from support import encoded, finished, gradient, picture, serving, upload

from server import batch, cli
from server.application import create_app
from server.light.lights import Mask, Rig, key_light
from server.settings import Settings

RIG = Rig(lights=(key_light(-0.6, 0.4, 0.7),), exposure="auto")


class Counting(FakeEngine):
    """Counts photographs, and does what it is told at one of them."""

    def __init__(self, at=None, then=None):
        super().__init__()
        self.asked, self.at, self.then = 0, at, then

    def analyse(self, rgb):
        self.asked += 1
        if self.asked == self.at:
            raise self.then
        return super().analyse(rgb)


@pytest.fixture
def photos(tmp_path):
    """Five photographs, of which no two are alike."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for k in range(5):
        (folder / f"{k}.png").write_bytes(encoded(np.roll(gradient(60, 80), 7 * k, 1)))
    return sorted(folder.iterdir())


def run(photos, out, engine=None, threads=2, stream=None, **order):
    settings = Settings(threads=threads, decoders=0)
    return batch.run(
        batch.Order(**{"rig": RIG, "out": out, **order}),
        photos,
        batch.Here(engine or Counting(), settings),
        stream or io.StringIO(),
    )


def decoded(data, folder):
    """A 16-bit PNG or an EXR as floats; infinities are 1."""
    if data.startswith(b"\x89PNG"):
        return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) / 65535
    if data.startswith(b"glTF"):
        text = int.from_bytes(data[12:16], "little")
        vertices = json.loads(data[20 : 20 + text])["accessors"][0]["count"]
        return np.frombuffer(data, "<f4", 3 * vertices, 28 + text)  # where they are
    (folder / "a.exr").write_bytes(data)
    pixels = oiio.ImageInput.open(str(folder / "a.exr")).read_image("float")
    return np.where(np.isfinite(pixels), pixels, 1)


def told(out):
    return json.loads((out / batch.REPORT).read_text())["pictures"]


def names(out):
    return sorted(p.name for p in out.iterdir())


def test_they_are_the_server_s_pictures(photos, settings, tmp_path, monkeypatch):
    monkeypatch.setattr("server.jobs.glb.GRIDS", (128,))  # quicker
    alpha = np.dstack([gradient(60, 80), np.full((60, 80), 99, np.uint8)])
    photos.append(photos[0].with_name("alpha.png"))
    photos[-1].write_bytes(encoded(alpha))
    passes = ("normals", "depth", "albedo", "shading", "surface", "relit16", "exr", "glb")
    assert run(photos, tmp_path / "out", passes=passes) == 0
    with TestClient(create_app(settings(), FakeEngine())) as client:
        for photo in (photos[1], photos[-1]):
            job = upload(client, photo.read_bytes())
            finished(client, job)
            client.post("/relight", json={"job_id": job, "x": -0.6, "y": 0.4, "z": 0.7})
            for ours, theirs in [
                (f"{photo.stem}.png", "relit.png"),
                *((f"{photo.stem}_{p}.png", f"{p}.png") for p in passes[:-2]),
                (f"{photo.stem}.exr", "passes.exr"),
                (f"{photo.stem}.glb", "scene.glb"),
            ]:
                pair = [(tmp_path / "out" / ours).read_bytes(), client.get(f"/download/{job}/{theirs}").content]
                if ours.endswith(("16.png", ".exr", ".glb")):  # where the last bits of a float can show
                    assert np.abs(np.subtract(*(decoded(data, tmp_path) for data in pair))).max() < 2**-14, ours
                else:
                    assert pair[0] == pair[1], ours
    entry = told(tmp_path / "out")[str(photos[-1])]
    assert len(entry["files"]) == 9 and all((tmp_path / "out" / name).is_file() for name in entry["files"])


def test_the_same_command_makes_nothing_twice(photos, tmp_path):
    out, engine = tmp_path / "out", Counting()
    assert run(photos, out, engine) == 0 and engine.asked == 5
    before = {p.name: p.stat().st_mtime_ns for p in out.iterdir() if p.suffix == ".png"}
    assert run(photos, out, engine) == 0 and engine.asked == 5
    (out / "2.png").unlink()
    photos[3].write_bytes(encoded(gradient(40, 40)))
    assert run(photos, out, engine) == 0 and engine.asked == 7
    after = {p.name: p.stat().st_mtime_ns for p in out.iterdir() if p.suffix == ".png"}
    assert {n for n in before if before[n] != after[n]} == {"2.png", "3.png"}
    assert run(photos, out, engine, rig=Rig(lights=(key_light(1, 0, 0),))) == 0 and engine.asked == 12
    assert run(photos, out, engine, rig=Rig(lights=(key_light(1, 0, 0),)), format="jpg") == 0 and engine.asked == 17
    (out / batch.REPORT).write_text("junk")
    assert run(photos, out, engine, rig=Rig(lights=(key_light(1, 0, 0),)), format="jpg") == 0 and engine.asked == 22


@pytest.mark.parametrize("then", [KeyboardInterrupt(), SystemExit(1)], ids=["^C", "the end"])
def test_what_was_stopped_goes_on_where_it_was(photos, tmp_path, then):
    out = tmp_path / "out"
    with pytest.raises(type(then)):
        run(photos, out, Counting(4, then), threads=1)
    made = [n for n in names(out) if n.endswith(".png")]
    assert 0 < len(made) < 5
    for name in made:
        assert cv2.imread(str(out / name)).shape == (60, 80, 3)
    (out / ".4.png.part").write_bytes(b"of a run that was killed")
    engine = Counting()
    whole = len(told(out))
    assert run(photos, out, engine) == 0 and engine.asked == 5 - whole and 0 < whole <= len(made)
    assert names(out) == [*(f"{k}.png" for k in range(5)), batch.REPORT]


def test_a_bad_file_is_named_and_stops_nothing(photos, tmp_path):
    out, stream = tmp_path / "out", io.StringIO()
    photos[1].write_bytes(b"junk")
    photos[2].write_bytes(photos[2].read_bytes()[:30])
    gone = photos[0].with_name("gone.png")
    assert run([*photos, gone], out, Counting(2, ValueError("a secret")), threads=1, stream=stream) == 4
    assert len(names(out)) == 3
    said = stream.getvalue()
    assert all(f"{path}: " in said for path in (photos[1], photos[2], gone)) and "No such file" in said
    assert "A fault of ours: ValueError" in said and "a secret" not in said
    codes = [entry["error"]["code"] for entry in told(out).values() if "error" in entry]
    assert sorted(codes) == ["corrupt_image", "file", "internal", "unsupported_image"]
    assert run([*photos, gone], out) == 3, "what was a fault of ours is tried again"


def test_no_picture_takes_the_place_of_another(photos, tmp_path):
    other = tmp_path / "more"
    other.mkdir()
    (other / "0.PNG").write_bytes(encoded(gradient(30, 30)))
    (other / "0.jpg").write_bytes(encoded(gradient(20, 20), "JPEG"))
    out = tmp_path / "out"
    assert run([photos[0], other / "0.PNG", other / "0.jpg"], out) == 0
    shapes = [cv2.imread(str(out / name)).shape[:2] for name in ("0.png", "0-2.png", "0-3.png")]
    assert shapes == [(60, 80), (30, 30), (20, 20)]


def test_nothing_half_written_stays(photos, tmp_path, monkeypatch):
    def fails(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(batch.look, "write_exr", fails)
    assert run(photos[:1], tmp_path / "out", passes=("exr",)) == 1
    assert names(tmp_path / "out") == [batch.REPORT]


def test_progress_is_a_bar_where_somebody_looks(photos, tmp_path):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    live, log = Terminal(), io.StringIO()
    run(photos, tmp_path / "a", stream=live)
    run(photos, tmp_path / "b", stream=log)
    assert "\r[####" in live.getvalue() and "5/5" in live.getvalue() and "pictures/s" in live.getvalue()
    assert "\r" not in log.getvalue() and log.getvalue().splitlines()[-1].startswith("5 relit in ")


@pytest.mark.parametrize("mask", [Mask("sky", invert=True), Mask("sky", feather=0.03)])
def test_masks_are_the_servers(photos, settings, tmp_path, mask):
    rig = replace(RIG, exposure=0.0, mask=mask)
    assert run(photos[:1], tmp_path / "lit", FakeEngine(mask=True), rig=rig) == 0
    asked = {"name": mask.name, "invert": mask.invert, "feather": mask.feather}
    with TestClient(create_app(settings(), FakeEngine(mask=True))) as client:
        job = upload(client, photos[0].read_bytes())
        body = {"job_id": job, "x": -0.6, "y": 0.4, "z": 0.7, "exposure": 0, "mask": asked}
        assert client.post("/relight", json=body).status_code == 200
        assert np.array_equal(picture(client, job), np.array(Image.open(tmp_path / "lit" / "0.png")))


def test_a_mask_that_the_models_do_not_tell_is_the_picture_s_error(photos, tmp_path):
    for name in ("sky", "subject"):
        assert run(photos[:2], tmp_path / name, rig=replace(RIG, mask=Mask(name))) == 2
        report = json.loads((tmp_path / name / batch.REPORT).read_text())["pictures"]
        assert {entry["error"]["code"] for entry in report.values()} == {"mask_not_found"}


# -- the command


@pytest.fixture
def engine(monkeypatch):
    engine = Counting()
    monkeypatch.setattr("server.model.engine.load_engine", lambda settings: engine)
    return engine


@pytest.mark.parametrize(
    "light",
    [
        ["--light", "-0.6,0.4,0.7"],
        ["--preset", "rim"],
        ["--body", '{"x": 0, "y": 1, "z": 1, "ambient": 0.5}'],
        ["--body", "@look.json"],
        ["--environment", "sky-sunset"],
        ["--environment", "studio-window", "--light", "0,1,1"],
    ],
    ids=["light", "preset", "body", "file", "environment", "both"],
)
def test_the_command_relights(photos, engine, tmp_path, monkeypatch, capsys, light):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "look.json").write_text('{"preset": "moonlight"}')
    arguments = ["relight", "photos/[012].png", "photos/2.png", *light, "--out", "lit", "--format", "jpg"]
    assert cli.main(arguments) == 0 and engine.asked == 3
    assert names(tmp_path / "lit") == ["0.jpg", "1.jpg", "2.jpg", batch.REPORT]
    assert "3 relit" in capsys.readouterr().err
    report = (tmp_path / "lit" / batch.REPORT).read_text()
    assert max(map(len, report.splitlines())) < 120, "it is for people too"
    assert cli.main([*arguments[:1], "photos", *arguments[3:]]) == 0 and engine.asked == 5


@pytest.mark.parametrize(
    "wrong, words",
    [
        (["--light", "0,0,0"], "must not all be 0"),
        (["--light", "1,2"], "direction"),
        (["--preset", "sunshine"], "preset: there is none"),
        (["--body", "[1]"], "JSON object"),
        (["--body", '{"x": 1, "y": 1, "z": 1, "glow": 2}'], "glow"),
        (["--body", "@nowhere.json"], "nowhere.json"),
        (["--light", "0,0,1", "--preset", "rim"], "not allowed with"),
        ([], "required"),
        (["--environment", "sky"], "relight: environment.name: there is none of that name"),
        (["--body", '{"environment": {"type": "upload"}}'], "environment"),
        (["--body", '{"environment": {"type": "photo", "job_id": "nobody"}}'], "environment"),
        (["--mask", "subject"], "required"),
        (["--light", "0,0,1", "--mask", "dog"], "mask: there is no 'dog'"),
        (["--light", "0,0,1", "--mask", "not-dog"], "mask: there is no 'dog'"),
        (["--body", '{"x": 0, "y": 0, "z": 1, "mask": {"name": "sky", "feather": 1}}'], "mask.feather"),
        (["--light", "0,0,1", "--passes", "normals,halo"], "halo"),
        (["--light", "0,0,1", "--quality", "0"], "quality"),
        (["--orbit", "avi"], "orbit"),
        (["--orbit", "webp", "--passes", "exr"], "takes a light"),
    ],
)
def test_a_wrong_command_is_told_in_one_line_and_makes_nothing(photos, engine, tmp_path, capsys, wrong, words):
    out = tmp_path / "lit"
    try:
        status = cli.main(["relight", str(photos[0]), "--out", str(out), *wrong])
    except SystemExit as end:
        status = end.code
    said = capsys.readouterr().err.strip()
    assert status == 2 and words in said and "\n" not in said and not out.exists() and engine.asked == 0


def test_an_orbit_beside_a_light_and_alone(photos, engine, tmp_path):
    photos[0].write_bytes(encoded(np.dstack([gradient(30, 40), np.full((30, 40), 99, np.uint8)])))
    words = ["relight", str(photos[0]), "--orbit", "webp", "--out", str(tmp_path / "lit")]
    assert cli.main([*words, "--preset", "rim"]) == 0
    assert names(tmp_path / "lit") == ["0.png", "0_orbit.webp", batch.REPORT]
    film = Image.open(tmp_path / "lit" / "0_orbit.webp")
    assert film.n_frames == 48 and film.size == (40, 30) and film.convert("RGBA").getextrema()[3] == (99, 99)
    asked = engine.asked
    assert cli.main([*words, "--preset", "rim"]) == 0 and engine.asked == asked, "it is there"
    (tmp_path / "lit" / "0_orbit.webp").unlink()
    assert cli.main([*words, "--preset", "rim"]) == 0 and engine.asked == asked + 1
    assert cli.main([*words[:-1], str(tmp_path / "alone"), "--passes", "normals"]) == 0
    assert names(tmp_path / "alone") == ["0_normals.png", "0_orbit.webp", batch.REPORT]


def test_pictures_that_cannot_be_made_are_an_exit_status_of_1(photos, engine, tmp_path, capsys):
    photos[0].write_bytes(b"junk")
    assert cli.main(["relight", *map(str, photos), "--light", "0,0,1", "--out", str(tmp_path / "lit")]) == 1
    assert f"{photos[0]}: The file is not an image" in capsys.readouterr().err
    assert cli.main(["relight", str(tmp_path / "none*.jpg"), "--light", "0,0,1", "--out", str(tmp_path / "no")]) == 2
    (tmp_path / "file").write_text("in the way")
    assert cli.main(["relight", str(photos[1]), "--light", "0,0,1", "--out", str(tmp_path / "file")]) == 2
    assert os.listdir(tmp_path / "lit")


# -- by a server


@pytest.fixture
def address(settings):
    """Of a real server with a key."""
    app = create_app(settings(api_keys=["sesame"]), FakeEngine())
    with serving(app) as address:
        yield address


def test_a_server_makes_the_same_and_keeps_nothing(photos, address, engine, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("RELIGHT_KEY", "sesame")
    photos[1].write_bytes(b"junk")
    words = ["relight", *map(str, photos[:3]), "--preset", "rim", "--passes", "albedo,exr", "--out"]
    assert cli.main([*words, str(tmp_path / "there"), "--url", address]) == 1 and engine.asked == 0
    assert f"{photos[1]}: The file is not an image" in capsys.readouterr().err
    assert cli.main([*words, str(tmp_path / "here")]) == 1
    for name in ("0.png", "0_albedo.png", "2.png"):
        assert (tmp_path / "there" / name).read_bytes() == (tmp_path / "here" / name).read_bytes()
    assert names(tmp_path / "there") == names(tmp_path / "here")
    words = ["relight", str(photos[0]), "--orbit", "webp", "--out"]
    assert cli.main([*words, str(tmp_path / "film")]) == 0
    assert cli.main([*words, str(tmp_path / "film2"), "--url", address]) == 0
    assert names(tmp_path / "film") == names(tmp_path / "film2") == ["0_orbit.webp", batch.REPORT]
    assert (tmp_path / "film" / "0_orbit.webp").read_bytes() == (tmp_path / "film2" / "0_orbit.webp").read_bytes()
    assert [p.name for p in (tmp_path / "jobs").iterdir() if len(p.name) == 36] == [], "jobs stayed"


@pytest.mark.parametrize("key, words", [("wrong", "key"), ("sesame", "cannot be reached")])
def test_a_server_that_cannot_be_used_is_told_in_one_line(photos, address, tmp_path, monkeypatch, capsys, key, words):
    monkeypatch.setenv("RELIGHT_KEY", key)
    monkeypatch.setattr("server.client.PATIENCE", 0.01)
    url = address if key == "wrong" else "http://127.0.0.1:1"
    assert cli.main(["relight", str(photos[0]), "--light", "0,0,1", "--out", str(tmp_path / "o"), "--url", url]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert words in said[-1] and not (tmp_path / "o").exists()
