"""The scene generator: labels against known geometry, repeatability, shards. Procedural only, no assets."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("embreex", reason="the generator needs requirements-export.txt (embreex)")
pytest.importorskip("numba", reason="the generator needs requirements-export.txt (numba)")
import render as cli
from training import dataset, directions, geometry, renderer, scenes, sculpture, visibility
from training.assets import Library, split_sun
from training.materials import Arena, Material, Texture
from training.scene import Scene
from training.scenes_common import UPRIGHT

EYE = np.zeros(3)
AHEAD = renderer.look_at(EYE, (0, 0, -1))


@pytest.fixture(scope="module")
def library():
    return Library()


def shot(scene, focal=1.5, w=96, cam=AHEAD, eye=EYE, **kw):
    return renderer.render(scene.build(), eye, cam, focal, np.random.default_rng(0), w, **kw)


def ball(library, z=-5.0):
    s = Scene(library)
    s.add(geometry.sphere(64), Material(spec=0.0), pos=(0, 0, z))
    return s


def test_sphere_normals_depth_and_mask(library):
    r = shot(ball(library))
    g = ((np.arange(96) + 0.5) / 96 - 0.5) / 1.5
    x, y = np.meshgrid(g, -g)
    d = np.stack([x, y, -np.ones_like(x)], -1)
    a, b, c = (d**2).sum(-1), -2 * (d @ [0, 0, -5.0]), 24.0
    disc = b * b - 4 * a * c
    t = (-b - np.sqrt(np.maximum(disc, 0))) / (2 * a)
    assert (r["mask"] == (disc > 0)).mean() > 0.995
    inner = disc > 1.0
    n = d * t[..., None] - [0, 0, -5.0]
    assert np.abs(r["depth"] - t)[inner].max() < 0.01
    assert (r["normal"] * n).sum(-1)[inner].min() > 0.999
    assert (r["depth"][~r["mask"]] == 0).all() and (r["normal"][~r["mask"]] == 0).all()


def test_axes(library):
    n, _m = (lambda r: (r["normal"], r["mask"]))(shot(ball(library)))
    assert n[48, 60, 0] > 0.3 and n[48, 36, 0] < -0.3, "+x is right"
    assert n[36, 48, 1] > 0.3 and n[60, 48, 1] < -0.3, "+y is up"
    assert n[48, 48, 2] > 0.99, "+z looks at the viewer"


@pytest.mark.parametrize("angle", [0.0, 0.6, -0.9])
def test_plane_depth_is_z_and_normal_follows_the_camera(library, angle):
    s = Scene(library)
    s.box(Material(), (60, 60, 0.2), (0, 0, -8.1))
    cam = renderer.look_at(EYE, (np.sin(angle), 0, -np.cos(angle)))
    r = shot(s, cam=cam, w=48)
    on = r["mask"]
    g = ((np.arange(48) + 0.5) / 48 - 0.5) / 1.5
    world_z = (g[None, :, None] * cam[0] - g[:, None, None] * cam[1] - cam[2])[..., 2]
    assert np.allclose((r["depth"] * -world_z)[on], 8, atol=1e-3)
    assert np.allclose(r["normal"][on], cam @ [0, 0, 1], atol=1e-3)


def test_light_comes_from_where_it_is_put(library):
    s = ball(library)
    s.env = np.zeros((2, 4, 3), np.float32)
    s.sun((1, 0, 0.3), 3.0)
    rgb = shot(s)["rgb"].mean(-1)
    assert rgb[48, 60] > 5 * rgb[48, 36]


def test_lambert(library):
    """A plane under a distant light alone: albedo * E * cos / pi."""
    s = Scene(library)
    s.env = np.zeros((2, 4, 3), np.float32)
    s.box(Material(color=(0.5, 0.5, 0.5), spec=0.0), (60, 60, 0.2), (0, 0, -8.1))
    s.sun((0, 1, 1), 2.0, 0.001)
    assert np.allclose(shot(s, w=32)["rgb"], 0.5 * 2 * np.sqrt(0.5) / np.pi, rtol=0.02)


def test_shadow(library):
    s = Scene(library)
    s.env = np.zeros((2, 4, 3), np.float32)
    s.box(Material(spec=0.0), (60, 60, 0.2), (0, 0, -8.1))
    s.box(Material(spec=0.0), (60, 30, 0.2), (0, 23.5, -4))  # its lower edge shades all above y = 4.5 behind
    s.sun((0, 1, 1), 2.0, 0.001)
    rgb = shot(s, w=32, focal=0.8)["rgb"].mean(-1)
    assert rgb[0, 16] < 0.02 and rgb[20, 16] > 0.1, "in the shadow of the board only above"


def test_transparent_texels_let_rays_through(library):
    class Holes:
        arena = Arena(1 << 20)

        def image(self, key):
            a = np.full((8, 8, 4), 255, np.uint8)
            a[:, :4, 3] = 0
            return Texture(a)

    s = Scene(Holes())
    sheet = geometry.cloth(np.random.default_rng(0), 2, 0.0)
    s.add(sheet, Material(tex="half", mode="picture", alpha=True), UPRIGHT, (2, 2, 2), (0, 0, -3))
    s.box(Material(), (60, 60, 0.2), (0, 0, -8.1))
    d = shot(s, w=32)["depth"]
    assert d[16, 8] == pytest.approx(8, abs=0.01) and d[16, 24] == pytest.approx(3, abs=0.01)


def test_print_is_not_relief(library):
    s = Scene(library)
    s.box(Material(tex=("made", "page", 1), mode="picture", bump=0.8), (4, 4, 0.2), (0, 0, -3.1))
    r = shot(s, w=48)
    assert np.ptp(r["rgb"].mean(-1)) > 0.05
    assert np.allclose(r["normal"], [0, 0, 1], atol=1e-4) and np.allclose(r["depth"], 3, atol=1e-4)


@pytest.mark.parametrize("kind", list(scenes.KINDS))
def test_every_kind_gives_sound_labels(library, kind):
    for p in dataset.render_pair(library, 11, 1, 48, kind):
        on = p["mask"] > 0
        assert on.any() and p["kind"] == kind and 0.3 < p["focal"] < 12
        assert p["inv"].max() == 1 and (p["inv"][on] > 0).all() and (p["inv"][~on] == 0).all()
        n = p["nrm"].astype(float) / 127
        assert np.allclose(np.linalg.norm(n[on], axis=-1), 1, atol=0.02) and (n[~on] == 0).all()
        assert (n[on][:, 2] > -0.9).all()
        seen, on = np.unpackbits(p["vis"], axis=2), on[::2, ::2] & on[1::2, ::2] & on[::2, 1::2] & on[1::2, 1::2]
        assert seen.shape == (24, 24, len(directions.directions())) and p["alb"].shape == (24, 24, 3)
        off = p["mask"].reshape(24, 2, 24, 2).max((1, 3)) == 0
        assert seen[on].mean() > 0.05 and seen[off].any(1).sum() <= 0.03 * off.sum(), (
            "but for things thinner than a pixel"
        )
        assert (p["rgb"].std() > 2 and 8 < p["rgb"].mean() < 247) or kind == "object"


def test_directions_are_even_and_mirror_each_other():
    d = directions.directions()
    assert np.allclose(np.linalg.norm(d, axis=1), 1, atol=1e-6) and len(d) % 8 == 0
    nearest = np.degrees(np.arccos(np.clip((d @ d.T) - 2 * np.eye(len(d)), -1, 1))).min(1)
    assert nearest.min() > 20 and nearest.max() < 32
    mirrored = d * [-1, 1, 1]
    assert np.allclose(np.abs(mirrored[:, None] - d).max(2).min(1), 0, atol=1e-6)


def test_what_a_wall_before_a_plane_hides(library):
    """A post on a plane, seen from above: the plane sees a light unless the post, or what is off the picture, is there;
    what is off the picture does not count.
    """
    s = Scene(library)
    white = Material(color=(0.36, 0.36, 0.36), spec=0.0)
    s.box(white, (20, 20, 0.2), (0, 0, -5.1))
    s.box(white, (0.4, 8, 2), (0, 0, -4))
    s.box(white, (0.4, 40, 4), (7, 0, -3))  # off the picture
    s.build()
    found = visibility.trace(s, EYE, AHEAD, 1.0, 40, 40)
    seen, d = np.unpackbits(found["vis"], axis=2), directions.directions()
    x = ((np.arange(40) + 0.5) / 40 - 0.5) * 5
    for side in (-1, 1):
        flat = np.abs(x - side * 1.2) < 0.1  # 1 m beside the post, which is 2 m high
        for k, (right, up, near) in enumerate(d):
            if near <= 0 or abs(up) > 0.3 * near + 0.5:
                continue
            hidden = -side * right > 1e-3 and near / (-side * right) < 2 / 1.1
            clear = -side * right < 1e-3 or near / (-side * right) > 2 / 0.9
            if hidden or clear:
                assert (seen[18:22, flat, k] == clear).all(), (side, d[k])
    assert np.abs(found["alb"].astype(int) - 153).max() <= 1, "255 * sqrt(0.36)"


@pytest.mark.parametrize("seed", range(6))
def test_sculptures_are_closed_and_their_normals_look_out(seed):
    m = sculpture.sculpture(np.random.default_rng(seed), 60)
    a, b, c = (m.v[m.f[:, k]].astype(float) for k in range(3))
    area = np.cross(b - a, c - a) / 2
    assert np.abs(area.sum(0)).max() < 1e-3 * np.linalg.norm(area, axis=1).sum(), "a closed surface has no area in sum"
    assert (a * area).sum() / 3 > 0.05, "its volume is positive: triangles look out"
    assert np.allclose(np.linalg.norm(m.n, axis=1), 1, atol=1e-3)
    size = np.linalg.norm(area, axis=1)
    agree = (m.n[m.f].mean(1) * area).sum(1)[size > 0.05 * size.mean()]
    assert (agree > 0).mean() > 0.9


@pytest.mark.parametrize("sheet", [sculpture.crumpled, sculpture.plaque])
def test_a_sheet_tipped_by_a_quarter_turn_faces_the_viewer(sheet):
    m = sheet(np.random.default_rng(3), 60)
    assert m.n[:, 1].mean() > 0.5 and np.isfinite(m.v).all()
    assert sculpture.lean(m, np.pi / 2).n[:, 2].mean() > 0.5


def test_same_seed_same_pictures(library):
    a, b, c = (dataset.render_pair(Library(), s, 3, 40) for s in (5, 5, 6))
    for key in dataset.ARRAYS:
        assert all(np.array_equal(x[key], y[key]) for x, y in zip(a, b))
    assert not np.array_equal(a[0]["rgb"], c[0]["rgb"])


def test_shards_ring_and_resume(tmp_path, monkeypatch):
    calls = []

    def fake(library, seed, index, size=288, count=32, kinds=None):
        calls.append(index)
        if len(calls) > 9:
            raise KeyboardInterrupt
        z = np.zeros((4, 4), np.uint8)
        return [
            {
                "rgb": np.dstack([z] * 3),
                "inv": z.astype(np.float16),
                "nrm": np.dstack([z] * 3).astype(np.int8),
                "mask": z,
                "vis": z,
                "alb": z,
                "kind": "x",
                "focal": 1.0,
            }
        ] * 2

    monkeypatch.setattr(dataset, "render_shard", fake)
    out = str(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        cli.main(["--out", out, "--ring", "3", "--seed", "4"])
    left = [os.path.basename(s) for s in dataset.shards(out)]
    assert left == [dataset.name(4, i) for i in (6, 7, 8)]
    assert len(list(tmp_path.glob("*.npy"))) == 3 * len(dataset.ARRAYS) and not list(tmp_path.glob("*.tmp"))
    first = dataset.shards(out)[0]
    assert (
        np.load(f"{first}.rgb.npy").shape == (2, 4, 4, 3) and json.loads(Path(f"{first}.json").read_text())["seed"] == 4
    )
    calls.clear()
    cli.main(["--out", out, "--count", "320", "--seed", "4"])
    assert calls == [0, 1, 2, 3, 4, 5, 9], "what is there is not rendered again"
    calls.clear()
    with pytest.raises(KeyboardInterrupt):
        cli.main(["--out", out, "--ring", "2", "--seed", "5"])
    left = [os.path.basename(s) for s in dataset.shards(out)]
    assert left == [dataset.name(5, i) for i in (7, 8)], "a smaller ring of another seed is no larger"
    calls.clear()
    cli.main(["--out", out, "--ring", "2", "--seed", "6", "--parent", str(os.getpid())])
    assert not calls, "whoever started it is gone"


@pytest.mark.parametrize("codes, code", [([0, 0], 0), ([0, -9], 1), ([3, 0], 1)])
def test_a_worker_that_died_is_not_a_success(codes, code, tmp_path, monkeypatch):
    started = []

    class Process:
        def __init__(self, command):
            self.code = codes[len(started)]
            started.append(command)

        def wait(self):
            return self.code

        def terminate(self):
            pass

    monkeypatch.setattr(cli.subprocess, "Popen", Process)
    assert cli.main(["--out", str(tmp_path), "--count", "64", "--workers", "2"]) == code
    assert [c[c.index("--worker") + 1] for c in started] == ["0", "1"]


def test_sun_is_taken_out_of_a_sky():
    a = np.ones((64, 128, 3), np.float32)
    a[16, 96] = 5000
    sky, d, e = split_sun(a)
    assert sky.max() < 3 and e.min() > 0.5 and d @ [np.sin(np.pi / 4), np.cos(np.pi / 4), 0] > 0.99


def test_missing_assets_say_so(tmp_path):
    with pytest.raises(FileNotFoundError, match="--assets"):
        Library(tmp_path)


def pictures(n=2):
    z = np.zeros((4, 4), np.uint8)
    three = np.dstack([z] * 3)
    return [
        {
            "rgb": three,
            "inv": z.astype(np.float16),
            "nrm": three.astype(np.int8),
            "mask": z,
            "vis": z,
            "alb": three,
            "kind": "x",
            "focal": 1.0,
        }
    ] * n


def test_a_shard_is_unmarked_before_it_goes(tmp_path, monkeypatch):
    """Whoever sees a shard's mark finds all of its arrays."""
    for k in range(3):
        dataset.write_shard(tmp_path, 0, k, pictures())
    real = Path.unlink

    def watched(self, missing_ok=False):
        real(self, missing_ok)
        for stem in dataset.shards(tmp_path):
            assert all(os.path.exists(f"{stem}.{a}.npy") for a in dataset.ARRAYS), stem

    monkeypatch.setattr(Path, "unlink", watched)
    dataset.keep_newest(tmp_path, 1)
    assert len(dataset.shards(tmp_path)) == 1


def test_the_newest_stay_whatever_their_names(tmp_path):
    for k, seed in enumerate((9, 5, 1)):
        dataset.write_shard(tmp_path, seed, 0, pictures())
        os.utime(tmp_path / f"{dataset.name(seed, 0)}.json", (1000 + k,) * 2)
    dataset.keep_newest(tmp_path, 1)
    assert [os.path.basename(s) for s in dataset.shards(tmp_path)] == [dataset.name(1, 0)]


def test_the_truth_of_depth_and_that_of_normals_are_of_one_scene():
    """Larger is nearer: the normals of the inverse depth lean as the normals do."""
    from server.scene.normals import normals_from_inverse_depth

    for p in dataset.render_pair(Library(), 5, 3, 96, "object"):
        inside = p["mask"] > 0
        got = normals_from_inverse_depth(np.maximum(p["inv"].astype(np.float32), 1e-3), p["focal"])
        for axis in (0, 1):
            assert np.corrcoef(got[..., axis][inside], p["nrm"][..., axis][inside])[0, 1] > 0.7
