"""The bundle for a machine that is ours for minutes: what fits into it, what it runs, what comes back."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs requirements-export.txt")
import bundle
import checkpoint
import rented
import torch
from adapters import bundled
from network import LIGHT, GeometryNet
from PIL import Image
from support import ROOT
from training import colours, data, light, ring, views

SIDE = 48


@pytest.fixture
def weights(tmp_path):
    """A small network that says geometry and light."""
    torch.manual_seed(0)
    net = GeometryNet(0, (16,) * 5, light=LIGHT)
    checkpoint.save(net, net.state_dict(), tmp_path / "small.safetensors", {})
    return tmp_path / "small.safetensors"


@pytest.fixture
def assets(tmp_path):
    """A folder laid out as the generator's, of noise that does not compress."""
    folder, rng = tmp_path / "assets", np.random.default_rng(0)
    manifest = {"meshes": [], "textures": [], "pictures": [], "hdri": [], "heads": []}

    def file(name, size):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".jpg"):
            Image.fromarray(rng.integers(0, 255, (size, size, 3), np.uint8)).save(folder / name, quality=95)
        else:
            (folder / name).write_bytes(rng.bytes(size))
        return name

    for k in range(12):
        entry = {"name": f"m{k}", "category": ["bust", "plant"][k % 2]}
        entry |= {"file": file(f"meshes/m{k}.npz", 60_000), "textures": [file(f"mtex/{k // 2}.jpg", 400)]}
        manifest["meshes"].append(entry)
    for k in range(6):
        entry = {"kind": "wood", "file": file(f"tex/{k}.jpg", 300), "displacement": file(f"tex/{k}_disp.jpg", 300)}
        manifest["textures"].append(entry)
        manifest["pictures"].append({"file": file(f"pictures/{k}.jpg", 300)})
        manifest["hdri"].append({"name": f"{k}", "file": file(f"hdri/{k}.npz", 50_000)})
    manifest["heads"].append({"file": file("heads/big.npz", 3_000_000)})
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "LICENSES.md").write_text("whose they are\n")
    return folder


def files(folder):
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("room", [400_000, 900_000, 10**8])
def test_as_many_assets_are_taken_as_there_is_room_for(assets, tmp_path, room):
    taken = bundle.thin(assets, tmp_path / "thin", room, 1)
    assert bundle.size_of(tmp_path / "thin") <= room
    kept = json.loads((tmp_path / "thin" / "manifest.json").read_text())
    named = {f for part in kept.values() for e in part for f in (e["file"], *e.get("textures", []))}
    named |= {e["displacement"] for e in kept["textures"]}
    assert files(tmp_path / "thin") == named | {"manifest.json", "LICENSES.md"}, "all that is named, nothing else"
    if room > 10**7:
        assert sum(taken.values()) == 31 and named == files(assets) - {"manifest.json", "LICENSES.md"}
    else:
        assert "heads" not in taken and {"meshes bust", "meshes plant", "textures wood", "pictures", "hdri"} <= {*taken}
    with Image.open(next((tmp_path / "thin" / "mtex").iterdir())) as im:
        assert max(im.size) == bundle.TEXTURE


def test_a_bundle_fits_and_says_what_is_in_it(assets, weights, tmp_path, capsys):
    out, limit = tmp_path / "bundle", (weights.stat().st_size + 1_500_000) / 2**20
    command = ["--assets", str(assets), "--weights", str(weights), "--limit-mb", f"{limit}", "--wheels"]
    assert bundle.main(["--out", str(out), *command]) == 0
    assert bundle.size_of(out) <= limit * 2**20
    about = json.loads((out / "bundle.json").read_text())
    assert about["assets"] and about["wheels"] == [] and "embreex" in about["needed"]
    with pytest.raises(SystemExit):
        bundle.main(["--out", str(out), *command])  # not over what is there
    assert bundle.main(["--out", str(tmp_path / "b"), "--weights", str(weights), "--limit-mb", "1", "--wheels"]) == 1
    assert "over the limit" in capsys.readouterr().err


def test_a_bundle_runs_from_its_own_code(weights, tmp_path):
    """run.sh, far from this repository: everything that it imports, early or late, is in the bundle."""
    out = tmp_path / "bundle"
    assert bundle.main(["--out", str(out), "--weights", str(weights), "--wheels"]) == 0
    env = {"PATH": os.environ["PATH"], "PYTHON": sys.executable, "HOME": str(tmp_path)}
    told = subprocess.run([out / "run.sh", "--minutes", "0"], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert told.returncode == 0 and "trained on 0" in told.stdout, told.stderr
    modules = [f"training.{p.stem}" for p in (out / "code" / "training").glob("*.py") if p.stem != "__init__"]
    assert "training.dataset" in modules and "training.views" in modules
    script = f"import sys, importlib\nfor m in {modules}: assert '{out}' in importlib.import_module(m).__file__"
    subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=env | {"PYTHONPATH": str(out / "code")}, check=True
    )
    (out / "code" / "rented.py").write_text("raise SystemExit(3)")
    assert subprocess.run([out / "run.sh"], cwd=tmp_path, env=env).returncode == 3


def test_a_run_leaves_weights_in_parts_and_a_table_on_the_way(weights, tmp_path):
    """Rendering and training at once, tiny; what comes back is what the exporter takes."""
    out = tmp_path / "out"
    command = [sys.executable, ROOT / "export" / "rented.py", "--weights", weights, "--out", out]
    command += [
        "--minutes",
        "0.35",
        "--save-seconds",
        "3",
        "--pool",
        "8",
        "--size",
        "48",
        "--sizes",
        *["32"] * 4,
        "--batch",
        "4",
    ]
    command += ["--renderers", "1", "--unseen", "2", "--kinds", "object", "--rate", "1e-3"]
    told = subprocess.run(
        [str(c) for c in command], capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert told.returncode == 0, told.stderr
    assert "renderers waited" in told.stdout and "a second" in told.stdout
    names, *rows = (line.split("\t") for line in (out / "table.txt").read_text().splitlines())
    assert rows and all(len(r) == len(names) for r in rows)
    table = [dict(zip(names, row)) for row in rows]
    assert int(table[-1]["samples"]) >= 8 and int(table[-1]["pictures"]) >= 8
    assert {"unseen mean", "unseen visibility"} <= set(names)
    assert float(table[-1]["minutes"]) <= 0.5
    parts = sorted(out.glob("relight-geometry.*"))
    assert [p.name.split(".")[1] for p in parts] == [f"{int(table[-1]['step']):06d}"] * len(parts), "the newest alone"
    assert bundle.main(["--join", str(out), "--out", str(tmp_path / "new.safetensors")]) == 0
    before, after = (checkpoint.load(p)[0].state_dict() for p in (weights, tmp_path / "new.safetensors"))
    assert any(not torch.equal(v, after[k]) for k, v in before.items() if k.startswith("encoder"))
    assert list(bundled.bundled(tmp_path / "new.safetensors").outputs)[-2:] == ["visibility", "shading"]


def test_the_newest_weights_that_are_complete_are_joined(weights, tmp_path, monkeypatch, capsys):
    net, _ = checkpoint.load(weights)
    state, out = rented.loop.start(net, 1e-3), tmp_path / "out"
    out.mkdir()
    monkeypatch.setattr(rented, "PART_BYTES", 1 << 20)
    rented.write_parts(net, state, out, {"samples": 1})
    first = {p.name: p.read_bytes() for p in out.iterdir()}
    assert len(first) > 2 and max(map(len, first.values())) == 1 << 20
    state.step = 7
    rented.write_parts(net, state, out, {"samples": 2})
    assert all(".000007." in p.name for p in out.iterdir())
    for name, content in first.items():
        (out / name).write_bytes(content)
    assert bundle.main(["--join", str(out), "--out", str(tmp_path / "a")]) == 0
    assert checkpoint.load(tmp_path / "a")[1]["samples"] == 2
    next(out.glob("*.000007.2of*")).unlink()  # cut off while it wrote
    assert bundle.main(["--join", str(out), "--out", str(tmp_path / "a")]) == 0
    assert checkpoint.load(tmp_path / "a")[1]["samples"] == 1
    assert bundle.main(["--join", str(tmp_path / "nowhere"), "--out", str(tmp_path / "b")]) == 1
    assert "no complete weights" in capsys.readouterr().err


def picture(value):
    spec = ring.layout(SIDE)
    return {name: np.full(shape, value, kind) for name, (kind, shape) in spec.items()}


def test_a_ring_gives_every_picture_once_and_in_order_to_another_process():
    one = ring.Ring(SIDE, 3)
    if (child := os.fork()) == 0:
        for k in range(10):
            one.put(picture(k + 1))
        os._exit(0)
    seen = []
    while len(seen) < 10:
        for found in one.take():
            assert all((a == found["mask"][0, 0]).all() for a in found.values()), "not half of one and half of another"
            seen.append(int(found["focal"]))
    assert seen == list(range(1, 11)) and os.waitpid(child, 0)[1] == 0
    assert one.waited[0] >= 0 and not list(one.take())


def test_a_full_ring_waits_no_longer_than_its_parent_lives():
    one = ring.Ring(SIDE, 2)
    one.put(picture(1))
    one.put(picture(2))
    with pytest.raises(SystemExit):
        one.put(picture(3), parent=-1)


def test_a_pool_keeps_the_newest_and_draws_as_shards_do():
    pool = rented.Pool(SIDE, 4, "cpu")
    for k in range(6):
        pool.add(picture(k) | {"kind": np.uint8(ring.KINDS.index("outdoor" if k < 4 else "object"))})
    assert len(pool) == 4 and {pool.kind(k) for k in range(4)} == {"outdoor", "object"}
    batch = pool.pictures(np.array([0, 1, 2, 3]))
    assert batch.rgb[:, 0, 0, 0].tolist() == [4, 5, 2, 3] and batch.rgb.shape == (4, SIDE, SIDE, 3)
    drawn = pool.draw(np.random.default_rng(0), 4000)
    odds = data.READILY["object"] / (data.READILY["object"] + data.READILY["outdoor"])
    assert (drawn < 2).mean() == pytest.approx(odds, abs=0.03)


def balls(n=24):
    """Smooth gray pictures (colours are made stronger, which no shading follows) of which all is known."""
    y, x = torch.meshgrid(torch.linspace(0, 1, SIDE), torch.linspace(0, 1, SIDE), indexing="ij")
    codes = (0.2 + 0.3 * x + 0.25 * y).expand(n, 3, SIDE, SIDE) * 255
    half = torch.zeros(n, 3, SIDE // 2, SIDE // 2)
    shading = 2.2 * torch.log(torch.nn.functional.avg_pool2d(codes, 2) / 255)  # of a white surface
    one = torch.ones_like(half[:, :1])
    return codes, views.Truth(one, half, one, one, shading, half + 1, one, torch.from_numpy(light.facing()[:1]))


def test_colours_change_and_the_shading_follows_where_it_is_said_to():
    codes, truth = balls()
    after, told = colours.recoloured(codes, truth, torch.Generator().manual_seed(1))
    assert after.min() >= 0 and after.max() <= 255 and (after - codes).abs().mean() > 5
    followed = told.known.amax((1, 2, 3)) > 0
    assert 0.3 < followed.float().mean() < 0.9
    found = 2.2 * torch.log(torch.nn.functional.avg_pool2d(after, 2).clamp(min=1) / 255)

    def off(shading):
        """What differs by more than a factor to each channel, but for grain and noise: over a quarter of the side."""
        coarse = torch.nn.functional.avg_pool2d(found - shading, SIDE // 8)[followed]
        return (coarse - coarse.mean((2, 3), keepdim=True)).abs()

    assert off(told.shading).median() < 0.03 and off(told.shading).mean() < 0.5 * off(truth.shading).mean()
    assert all(a is b for a, b in zip(told[:4], truth[:4]))
