"""The training code: losses that know the truth, augmentation that keeps it, runs that survive being killed."""

import copy
import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs requirements-export.txt")
import checkpoint
import torch
import train
from light_scenes import angles
from network import DIRECTIONS, LIGHT, PARTS, GeometryNet
from training import data, directions, light, loop, losses, processor, views

SIDE = 96


def sphere(radius=0.7, centre=(0.1, -0.05)):
    """A ball before nothing: its picture is its normals, so that what happens to one must happen to the other."""
    y, x = np.mgrid[0:SIDE, 0:SIDE] / (SIDE - 1) * 2 - 1
    nx, ny = (x - centre[0]) / radius, (-y - centre[1]) / radius
    inside = nx**2 + ny**2 < 1
    normals = np.stack([nx, ny, np.sqrt(np.clip(1 - nx**2 - ny**2, 0, 1))], -1) * inside[..., None]
    rgb = np.rint((normals + 1) * 127.5).astype(np.uint8)
    disparity = ((0.5 + 0.5 * normals[..., 2]) * inside).astype(np.float32)
    return data.Sample(rgb, disparity, normals.astype(np.float32), inside.astype(np.float32))


def disagreement(sample):
    """Degrees between the normals and those painted in the picture, at their own resolution, away from the rim."""
    h, w = sample.mask.shape
    painted = data.cv2.resize(np.ascontiguousarray(sample.rgb), (w, h), interpolation=data.cv2.INTER_AREA) / 127.5 - 1
    inner = data.cv2.erode(sample.mask, np.ones((7, 7))) > 0
    assert inner.sum() > 100
    a, b = (v / np.linalg.norm(v, axis=-1, keepdims=True) for v in (painted[inner], sample.normals[inner]))
    return angles(a, b)


@pytest.fixture
def shards(tmp_path):
    folder = tmp_path / "shards"
    folder.mkdir()
    for s in range(2):
        write_shard(folder, s)
    return folder


def write_shard(folder, index):
    items = [sphere(0.4 + 0.1 * k, (0.1 * index, 0.05 * k)) for k in range(4)]
    stem = folder / f"0_{index:05d}"
    np.save(f"{stem}.rgb.npy", np.stack([i.rgb for i in items]))
    np.save(f"{stem}.inv.npy", np.stack([i.disparity for i in items]).astype(np.float16))
    np.save(f"{stem}.nrm.npy", np.rint(np.stack([i.normals for i in items]) * 127).astype(np.int8))
    half = SIDE // 2
    np.save(f"{stem}.vis.npy", np.full((4, half, half, DIRECTIONS // 8), 255, np.uint8))
    np.save(f"{stem}.alb.npy", np.full((4, half, half, 3), 180, np.uint8))
    np.save(f"{stem}.mask.npy", np.stack([i.mask for i in items]).astype(np.uint8))
    Path(f"{stem}.json").write_text(json.dumps({"kinds": ["ball"] * 4, "focal": [0.9] * 4, "seed": 0, "size": SIDE}))


def truth():
    _, target = data.collate([data.whole(sphere(), SIDE), data.whole(sphere(0.5), SIDE)])
    return target


def test_losses_vanish_for_the_truth_and_only_for_it():
    disparity, normals, mask = truth()
    perfect = losses.losses((disparity, normals, (mask - 0.5) * 60), truth())
    assert all(abs(float(v)) < 2e-3 for v in perfect.values())
    turned = normals[:, [1, 0, 2]]
    wrong = losses.losses((-disparity, turned, (0.5 - mask) * 60), truth())
    assert all(float(wrong[k]) > 0.1 for k in losses.WEIGHTS)


@pytest.mark.parametrize("scale,shift", [(7.0, 3.0), (0.01, -5.0)])
def test_disparity_losses_do_not_see_scale_and_shift(scale, shift):
    disparity, _, mask = truth()
    guess = disparity + 0.1 * torch.randn(disparity.shape, generator=torch.Generator().manual_seed(0))
    for a, b in zip(
        losses.disparity_losses(guess, disparity, mask), losses.disparity_losses(guess * scale + shift, disparity, mask)
    ):
        assert a > 0.01 and torch.isclose(a, b, rtol=1e-2)


def test_order_loss_sees_order_and_nothing_else():
    """Blind to scale and shift.

    A far pair swapped costs as much as a near one, though its disparities hardly differ.
    """
    depth = torch.tensor([1.0, 1.5, 40.0, 60.0]).repeat_interleave(400).view(1, 1, 40, 40)
    target, mask = 1 / depth, torch.ones(1, 1, 40, 40)
    assert losses.order_loss(target * 7 - 3, target, mask) < 1e-6
    near = torch.where(depth == 1, 1 / 1.5, torch.where(depth == 1.5, 1.0, target))
    far = torch.where(depth == 40, 1 / 60, torch.where(depth == 60, 1 / 40, target))
    assert losses.order_loss(near, target, mask) > 1e-3 and losses.order_loss(far, target, mask) > 1e-3
    assert losses.order_loss(far, target, (depth < 10).float()) < 1e-6  # not on the surface


def test_half_of_the_pairs_compared_are_close_together():
    """Two pixels anywhere seldom are a thin thing and what is right behind it."""
    first, second = losses.order_pairs(96, 128, torch.device("cpu"))
    assert first.shape == second.shape == (2 * losses.PAIRS,)
    assert min(first.min(), second.min()) >= 0 and max(first.max(), second.max()) < 96 * 128
    apart = (first // 128 - second // 128).float().hypot((first % 128 - second % 128).float())
    close = apart < 128 / 5
    assert 0.5 < close.float().mean() < 0.65 and apart[close].median() > 3 and apart[~close].median() > 128 / 3


def test_far_corners_of_a_room_count_in_windows_of_their_own():
    """A relief far away that is all but nothing over the whole picture is wrong: where it is alone it shows."""
    near = torch.linspace(1, 0.5, 48).expand(96, 48)
    wave = 0.004 * torch.sin(torch.arange(48) / 4.0).expand(96, 48)
    target = torch.cat((near, 0.1 + wave), 1)[None, None]
    flat = torch.cat((near, torch.full((96, 48), 0.1)), 1)[None, None]
    mask = torch.ones_like(target)
    assert losses.local_loss(target * 3 + 5, target, mask) < 1e-4
    whole = losses.disparity_losses(flat, target, mask)[0]
    assert losses.local_loss(flat, target, mask) > 2 * whole
    mask[..., 48:] = 0
    assert losses.local_loss(flat, target, mask) < 0.02, "what is not there has no relief"


def test_a_corner_seen_from_another_side_is_still_that_corner():
    """Differences between neighbours do not see what all normals have in common; a corner smoothed away they do."""
    g = torch.zeros(1, 3, 32, 32)
    g[:, 0, :, :16], g[:, 0, :, 16:], g[:, 2] = 0.6, -0.6, 0.8
    mask, smooth = torch.ones(1, 1, 32, 32), torch.zeros_like(g)
    smooth[:, 2] = 1
    assert losses.relative_loss(g * 3, g, mask) < 1e-5
    assert losses.relative_loss(smooth, g, mask) > 0.05
    shared = g + torch.tensor([0.0, 0.3, 0.0]).view(1, 3, 1, 1)
    assert losses.relative_loss(shared, g, mask) < 0.1 * losses.relative_loss(smooth, g, mask)


def test_sky_and_void_do_not_count_for_normals():
    _disparity, normals, mask = truth()
    scribbled = torch.where(mask > 0.5, normals, torch.tensor([1.0, 0, 0]).view(1, 3, 1, 1))
    assert all(float(v) < 2e-3 for v in losses.normal_losses(scribbled, normals, mask))


@pytest.mark.parametrize(
    "how", [lambda s: data.whole(s, 64), lambda s: data.resize(s, 192, 192)], ids=["small", "large"]
)
def test_normals_follow_the_picture_to_another_size(how):
    moved = how(sphere())
    assert disagreement(sphere()).mean() < 1 and disagreement(moved).mean() < 2


def test_batches_depend_on_seed_and_step_alone(shards):
    again = [views.batch(data.Shards(shards), 3, 11, 64, range(4)) for _ in range(2)]
    assert torch.equal(again[0][0], again[1][0])
    assert all(torch.equal(a, b) for a, b in zip(again[0][1], again[1][1]))
    halves = [views.batch(data.Shards(shards), 3, 11, 64, r) for r in (range(2), range(2, 4))]
    assert torch.equal(torch.cat([h[0] for h in halves]), again[0][0])
    assert not torch.equal(views.batch(data.Shards(shards), 3, 12, 64, range(4))[0], again[0][0])


def test_shards_come_and_go(shards):
    found = data.Shards(shards, every=0)
    assert len(found) == 8 and found.kind(0) == "ball"
    write_shard(shards, 7)
    found.rescan()
    assert len(found) == 12
    for file in shards.glob("0_00000.*"):
        file.unlink()
    found.rescan()
    assert len(found) == 8


def small():
    """A small network, always with the same weights."""
    torch.manual_seed(0)
    return GeometryNet(0, (16, 16, 16, 16, 16)).to(memory_format=torch.channels_last)


@pytest.fixture
def trained(shards, tmp_path, monkeypatch):
    """Runs the command on a small network: trained(out, *arguments) is what it left in out/checkpoint.pt."""
    monkeypatch.setattr(loop, "WARM_UP", 1)  # a dozen steps are too few to begin gently
    monkeypatch.setattr(loop, "photos", lambda: [np.full((64, 80, 3), 90, np.uint8)])
    net = small()
    checkpoint.save(net, net.state_dict(), tmp_path / "small.safetensors", {})

    def run(out, *arguments):
        assert (
            train.main(
                [
                    "--data",
                    str(shards),
                    "--out",
                    str(out),
                    "--resume",
                    str(tmp_path / "small.safetensors"),
                    "--steps",
                    "12",
                    "--sizes",
                    "32",
                    "32",
                    "64",
                    "64",
                    "--batch",
                    "4",
                    "--workers",
                    "2",
                    "--part",
                    "geometry",
                    *arguments,
                ]
            )
            == 0
        )
        return torch.load(out / "checkpoint.pt", weights_only=True)

    return run


def test_a_killed_run_goes_on_as_if_nothing_had_happened(trained, tmp_path, monkeypatch):
    straight = trained(tmp_path / "a")
    step = loop.train_step

    def killed(state, *rest):
        if state.step == 5:
            raise KeyboardInterrupt
        return step(state, *rest)

    monkeypatch.setattr(loop, "train_step", killed)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "b", "--save-minutes", "0")
    monkeypatch.setattr(loop, "train_step", step)
    assert torch.load(tmp_path / "b" / "checkpoint.pt", weights_only=True)["step"] == 5
    resumed = trained(tmp_path / "b")
    assert resumed["step"] == straight["step"] == 12
    for key, value in straight["ema"].items():
        assert torch.equal(value, resumed["ema"][key]), key


def test_a_run_leaves_its_log_a_contact_sheet_and_weights_that_load(trained, shards, tmp_path):
    trained(tmp_path / "out", "--val", str(shards))
    (entry,) = json.loads((tmp_path / "out" / "log.json").read_text())
    assert entry["step"] == 12 and entry["samples"] == 48 and 0 < entry["validation"]["ball"]["mean"] < 180
    assert (tmp_path / "out" / "sheet_000012.png").exists()
    net, about = checkpoint.load(tmp_path / "out" / "relight-geometry.safetensors")
    assert net.depths == small().depths and about["step"] == 12
    assert trained(tmp_path / "out")["step"] == 12, "a run at its end has nothing left to do"


def test_a_network_that_is_made_deeper_goes_on_as_deep(trained, tmp_path):
    deep = ["--depths", "3", "4", "3", "2"]
    assert trained(tmp_path / "out", "--steps", "1", *deep)["network"]["depths"] == (3, 4, 3, 2)
    assert trained(tmp_path / "out", "--steps", "2")["step"] == 2


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--val", "nowhere"], "no shards in nowhere"),
        (["--data", "nowhere"], "no shards in nowhere"),
        (["--resume", "nowhere.safetensors"], "nowhere.safetensors"),
        (["--resume", __file__], "weights of this network"),
    ],
)
def test_what_is_not_there_is_said_before_training(arguments, words, shards, tmp_path, capsys):
    assert train.main(["--data", str(shards), "--out", str(tmp_path / "out"), "--steps", "1", *arguments]) == 1
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    "cores, arguments, workers",
    [
        (2, [], 2),
        (12, [], 8),
        (64, [], 16),
        (3, ["--batch", "10"], 2),
        (1, [], 1),
        (4, ["--stream"], 2),
        (8, ["--device", "cuda"], 1),
        (2, ["--workers", "4"], 4),
    ],
)
def test_workers_share_a_batch_evenly(cores, arguments, workers, monkeypatch):
    monkeypatch.setattr(train.cpus, "available", lambda: cores)
    args = train.parse(["--data", "x", "--out", "x", "--steps", "1", *arguments])
    assert args.workers == workers
    with pytest.raises(SystemExit):
        train.parse(["--data", "x", "--out", "x", "--steps", "1", *arguments, "--workers", "7"])


@pytest.mark.parametrize(
    "arguments, rate",
    [([], 1e-3), (["--resume"], 3e-4), (["--resume", "--rate=8e-4"], 8e-4), (["--rate", "2e-3"], 2e-3)],
)
def test_the_rate_given_is_the_rate(arguments, rate):
    assert train.parse(["--data", "x", "--out", "x", "--steps", "1", *arguments]).rate == rate


def test_a_run_until_a_time_of_day_ends_then_though_it_was_killed(monkeypatch):
    class Clock(train.datetime):
        time = (17, 0)

        @classmethod
        def now(cls, zone=None):
            return cls(2026, 5, 4, *cls.time, tzinfo=zone)

    monkeypatch.setattr(train, "datetime", Clock)
    args = train.parse(["--data", "x", "--out", "x", "--until", "18:00"])
    state = loop.start(small(), 1e-3)
    assert train.run_seconds(args, state) == 3600
    Clock.time, state.seconds = (17, 45), 1200.0
    assert train.run_seconds(args, state) == 1200 + 900
    Clock.time = (18, 5)
    assert train.run_seconds(args, state) == 1200, "not tomorrow"
    with pytest.raises(SystemExit):
        train.parse(["--data", "x", "--out", "x", "--until", "25:00"])


def test_training_does_not_go_on_without_its_renderer(tmp_path, monkeypatch):
    monkeypatch.setattr(train, "__file__", str(tmp_path / "train.py"))
    (tmp_path / "render.py").write_text(
        "import sys, time, pathlib\n"
        "pathlib.Path(sys.argv[sys.argv.index('--out') + 1], '1_00000.json').write_text('{}')\n"
        "time.sleep(0.5)\nsys.exit(9)\n"
    )
    args = train.parse(["--stream", "--out", str(tmp_path / "out"), "--steps", "1"])
    with pytest.raises(SystemExit, match="ended with 9"), train.renderer(args) as (ring, check):  # noqa: PT012 -- it waits
        assert ring == tmp_path / "out" / "ring"
        for _ in range(100):
            check()
            train.time.sleep(0.1)


def test_training_lowers_the_loss(trained, tmp_path):
    def loss_of(weights):
        """On two balls that are never drawn as they are."""
        net = small()
        net.load_state_dict(weights)
        image, target = data.collate([data.whole(sphere(), SIDE), data.whole(sphere(0.5), SIDE)])
        with torch.no_grad():
            return float(losses.total(losses.losses(net.train()(image), target)))

    assert loss_of(trained(tmp_path / "c", "--rate", "2e-3", "--steps", "24")["net"]) < 0.9 * loss_of(
        small().state_dict()
    )


def test_skies_are_painted_where_there_is_no_surface_alone():
    sample = sphere(0.5)
    painted = data.paint_sky(sample, np.random.default_rng(1))
    inner = data.cv2.erode(sample.mask, np.ones((9, 9))) > 0
    outer = data.cv2.dilate(sample.mask, np.ones((9, 9))) == 0
    assert (painted.rgb[inner] == sample.rgb[inner]).all() and (painted.rgb[outer] != sample.rgb[outer]).mean() > 0.5
    assert all(a is b for a, b in zip(painted[1:], sample[1:]))
    walls = sample._replace(mask=np.ones_like(sample.mask))
    assert data.paint_sky(walls, np.random.default_rng(1)) is walls


@pytest.mark.parametrize("part", ["mask", "light"])
def test_a_branch_learns_and_the_rest_stays(part, trained, tmp_path):
    before = trained(tmp_path / part, "--part", part, "--rate", "1e-2", "--steps", "1")["net"]
    after = trained(tmp_path / part, "--part", part, "--rate", "1e-2")["net"]
    moved = {k for k, v in before.items() if not torch.equal(v, after[k])}
    committed = checkpoint.load(tmp_path / "small.safetensors")[0].state_dict()
    moved |= {k for k, v in committed.items() if not torch.equal(v, after[k])}
    assert moved and all(k.split(".")[0] in PARTS[part] for k in moved)
    assert any(k.startswith("light.") for k in after) == (part == "light")


def test_everything_learns_together(trained, shards, tmp_path):
    """Encoder, heads and both branches; the losses of geometry and light of balls not drawn as they are all fall."""
    first, last = (
        trained(tmp_path / "all", "--part", "all", "--rate", "2e-3", "--steps", n)["net"] for n in ("1", "30")
    )
    for name in ("encoder.blocks.6", "refine.0", "head", "sky.head", "light.branch", "light.seen", "light.shading"):
        assert any(not torch.equal(v, last[k]) for k, v in first.items() if k.startswith(name)), name
    image, truth = views.batch(data.Shards(shards), 99, 0, 64, range(8))

    def terms(weights):
        net = GeometryNet(**small().shape | {"light": LIGHT})
        net.load_state_dict(weights)
        with torch.no_grad():
            found, total = loop.objective(net.train()(image), truth, "all")
        return found | {"total": total}

    before, after = terms(first), terms(last)
    assert before.keys() == {*losses.WEIGHTS, *light.WEIGHTS, "total"}, "no two terms share a name"
    assert all(after[k] < before[k] for k in ("total", "chord", "disparity", "seen", "relit"))


def test_where_the_light_does_not_learn_it_stays(trained, tmp_path):
    lit = small().shape | {"light": LIGHT}
    torch.manual_seed(1)
    net = GeometryNet(**lit)
    checkpoint.save(net, net.state_dict(), tmp_path / "lit.safetensors", {})
    after = trained(tmp_path / "geometry", "--resume", str(tmp_path / "lit.safetensors"))["net"]
    before = checkpoint.load(tmp_path / "lit.safetensors")[0].state_dict()
    moved = {k.split(".")[0] for k, v in before.items() if not torch.equal(v, after[k])}
    assert "head" in moved and "light" not in moved, "its running means neither"


def lit_ball():
    """A ball lit from the left, and what is known of its light: all of it open."""
    ball = sphere()
    half = SIDE // 2
    n = data.cv2.resize(ball.normals, (half, half), interpolation=data.cv2.INTER_AREA)
    bits = np.packbits(n @ directions.directions().T > 0, axis=2)
    on = (np.linalg.norm(n, axis=2) > 0.9).astype(np.float32)
    return light.Lit(ball.rgb, n, bits, np.log(1.5 + n), np.full_like(n, 0.5), on)


def lit_balls():
    """The truth of a batch of two."""
    return light.collate([lit_ball(), lit_ball()], light.facing()[:3])[1]


def test_light_losses_vanish_for_the_truth_and_a_factor_of_the_shading():
    truth = lit_balls()
    normals, seen, shading = truth[:3]
    brighter = shading + torch.tensor([0.3, -0.2, 1.0]).view(1, 3, 1, 1)
    right = light.losses((None, normals, None, (seen * 2 - 1) * 20, brighter), truth)
    wrong = light.losses((None, -normals, None, (1 - seen * 2) * 20, -shading), truth)
    assert right["shading"] < 1e-5 and right["edges"] < 1e-5 and right["seen"] < 1e-5 and right["relit"] < 0.02
    assert all(wrong[k] > 5 * right[k] + 0.05 for k in right)


def test_a_picture_lit_anew_is_as_far_off_as_its_light():
    """Half of the pixels twice as bright: the relative error of the best factor is 1 / sqrt(10), by hand."""
    on = torch.ones(1, 1, 4, 4)
    albedo, truly, too_much = on.expand(1, 3, 4, 4) / 2, on.expand(1, 2, 4, 4), torch.zeros(1, 3, 4, 4)
    too_much[..., :2] = -np.log(2)
    errors = light.relit_errors(truly, too_much, truly, albedo, on)
    assert errors.shape == (1, 2) and torch.allclose(errors, torch.tensor(0.1**0.5), atol=1e-4)
    assert torch.allclose(
        light.relit_errors(3 * truly, too_much * 0 + 1, truly, albedo, on), torch.tensor(1e-3), atol=1e-3
    )
    unknown = on.clone()
    unknown[..., :2] = 0
    assert light.relit_errors(truly, too_much, truly, albedo, unknown).max() < 2e-3


def test_hard_kinds_are_drawn_more_often(shards):
    kinds = ["object"] * 4 + ["outdoor"] * 4
    found = data.Shards(shards)
    found.kind = lambda k: kinds[k]
    rng = np.random.default_rng(0)
    drawn = [kinds[data.draw(found, rng)] for _ in range(400)]
    assert 2.5 < drawn.count("object") / drawn.count("outdoor") < 6.5  # 4 : 1


@pytest.mark.parametrize("dtype, close", [(torch.float32, 1e-5), (torch.bfloat16, 0.02)])
@pytest.mark.parametrize("kernel, stride, pad", [(5, 1, 2), (3, 1, 1), (5, 2, 0), (3, 2, 0)])
def test_depthwise_gradients_are_those_of_the_convolution(kernel, stride, pad, dtype, close):
    generator = torch.Generator().manual_seed(kernel + stride)
    x, weight, bias = (
        torch.randn(shape, generator=generator) for shape in ((2, 520, 9, 7), (520, 1, kernel, kernel), (520,))
    )
    x = x.to(dtype).contiguous(memory_format=torch.channels_last)
    results = []
    for convolve, exact in (
        (processor.Depthwise.apply, False),
        (partial(torch.nn.functional.conv2d, groups=520), True),
    ):
        inputs = [(t.double() if exact else t).clone().requires_grad_() for t in (x, weight, bias)]
        y = convolve(*inputs, stride, pad)
        g = torch.randn(y.shape, generator=torch.Generator().manual_seed(3)).to(dtype)
        y.backward(g.to(y.dtype))
        results.append([y.detach(), *(t.grad for t in inputs)])
    for ours, truth in zip(*results, strict=True):
        assert (ours.double() - truth).abs().max() < close * truth.abs().max()


def test_a_network_made_for_the_processor_computes_the_same(shards):
    plain = small()
    quick = copy.deepcopy(plain)
    processor.install(quick)
    image, target = views.batch(data.Shards(shards), 0, 0, 64, range(4))
    gradients = []
    for net in (plain, quick):
        losses.total(losses.losses(net.train()(image), target[:3])).backward()
        gradients.append({name: p.grad for name, p in net.named_parameters()})
    assert plain.state_dict().keys() == quick.state_dict().keys()
    whole = sum(g.norm() ** 2 for g in gradients[0].values()) ** 0.5
    for name, g in gradients[0].items():
        assert (g - gradients[1][name]).norm() < 1e-3 * (g.norm() + 1e-3 * whole), name


def test_under_autocast_the_first_and_last_layers_stay_in_float32():
    net = small()
    processor.install(net)
    seen = {}
    for name in ("encoder.stem", "encoder.blocks.3.project", "encoder.blocks.4.project"):
        net.get_submodule(name).register_forward_hook(lambda m, i, y, name=name: seen.__setitem__(name, y.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        outputs = net(torch.randn(1, 3, 64, 64))
    assert [o.dtype for o in outputs] == [torch.float32] * 3
    assert list(seen.values()) == [torch.float32, torch.float32, torch.bfloat16]


def test_roughened_pictures_have_more_detail_and_the_same_tones():
    rng = np.random.default_rng(4)
    x = data.cv2.GaussianBlur(rng.random((96, 96, 3), dtype=np.float32), (0, 0), 3) * 3 - 1
    x = np.clip(x, 0.1, 0.9)

    def detail(a):
        return (a - data.cv2.GaussianBlur(a, (0, 0), 1.0)).std()

    gains = []
    for seed in range(40):
        y = data.roughen(x, np.random.default_rng(seed))
        assert y.dtype == np.float32 and y.shape == x.shape and y.min() >= 0 and y.max() <= 1
        assert abs(y.mean() - x.mean()) < 0.05
        gains.append(detail(y) / detail(x))
    assert min(gains) > 0.9 and np.median(gains) > 1.3


def test_pairs_count_where_both_are_surface():
    target = torch.rand(1, 1, 40, 40, generator=torch.Generator().manual_seed(1)) + 0.5
    mask = torch.zeros_like(target)
    mask[..., :20] = 1
    target = torch.where(mask > 0, target, torch.zeros(()))
    guess = torch.where(
        mask > 0, target, torch.ones(())
    )  # the void in the midst of the surfaces: no order of surfaces is wrong
    assert (
        losses.order_loss(guess, target, mask) < 1e-6 < 0.05 < losses.order_loss(guess, target, torch.ones_like(mask))
    )


def test_pairs_far_apart_need_not_be_farther():
    target = torch.tensor([1.0, 2.0, 4.0, 20.0]).repeat_interleave(400).view(1, 1, 40, 40)
    evenly = torch.tensor([1.0, 2.0, 3.0, 4.0]).repeat_interleave(400).view(1, 1, 40, 40)
    assert losses.order_loss(evenly, target, torch.ones_like(target)) < 1e-6


def test_gradients_count_both_ways_and_coarse_ones_more():
    target = torch.rand(2, 1, 64, 64, generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(target)
    ramp = torch.linspace(0, 0.5, 64).expand_as(target)
    across, down = (losses.disparity_losses(target + r, target, mask)[1] for r in (ramp, ramp.transpose(-1, -2)))
    assert torch.isclose(across, down, rtol=0.3)
    assert across > 4 * losses.disparity_losses(target + ramp, target, mask, scales=1)[1]


def test_an_error_in_the_sky_costs_half():
    target = torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(1))
    mask = torch.zeros_like(target)
    mask[..., :32] = 1
    off = torch.zeros_like(target)
    off[..., 4:12, 4:12] = 0.5
    there, sky = (losses.disparity_losses(target + o, target, mask)[0] for o in (off, off.flip(-1)))
    assert 0 < sky < 0.85 * there


def test_normals_that_nobody_could_tell_count_little():
    generator = torch.Generator().manual_seed(2)
    target = torch.zeros(1, 3, 40, 80)
    target[:, 2] = 1
    leaves = torch.nn.functional.normalize(torch.randn(1, 3, 40, 40, generator=generator), dim=1)
    target[..., 40:] = torch.where(leaves[:, 2:] < 0, -leaves, leaves)
    mask = torch.ones(1, 1, 40, 80)
    smooth, noisy = target.clone(), target.clone()
    smooth[..., 5:35, 5:35] *= -1
    noisy[..., 5:35, 45:75] *= -1
    assert losses.normal_losses(noisy, target, mask)[0] < 0.6 * losses.normal_losses(smooth, target, mask)[0]


def test_depths_are_never_averaged_and_the_mask_goes_with_the_majority():
    step = sphere()._replace(
        disparity=np.where(np.arange(SIDE) % 5 < 3, np.float32(1), np.float32(0.2)) * np.ones((SIDE, 1), np.float32),
        mask=(np.arange(SIDE) % 12 == 0) * np.ones((SIDE, 1), np.float32),
    )
    small = data.resize(step, 64, 64)
    assert set(np.unique(small.disparity)) == {np.float32(0.2), np.float32(1)}
    assert small.mask.mean() < 0.05


def test_the_network_is_trained_on_the_pixels_it_is_served():
    from adapters import bundled

    from server.model.engine import input_size, resized, to_input
    from server.model.manifest import InputSpec

    sample = sphere()
    image, _ = data.collate([sample])
    spec = InputSpec(**bundled.input_spec(SIDE, 32, [bundled.MEAN] * 3, [bundled.STD] * 3))
    sizes = input_size(sample.rgb.shape[1], sample.rgb.shape[0], SIDE, spec.multiple, spec.size_rule)
    assert np.allclose(image.numpy(), to_input(resized(sample.rgb, sizes), spec, sizes)[0], atol=1e-5)


def test_a_shard_that_goes_while_it_is_read_is_no_fault(shards):
    (shards / "0_00001.nrm.npy").unlink()
    found = data.Shards(shards, every=0)
    assert len(found) == 4 and found[3].rgb.shape == (SIDE, SIDE, 3)


def test_the_rate_warms_up_and_cools_down():
    rates = [loop.learning_rate(s, s / 3000) for s in range(3001)]
    top = int(np.argmax(rates))
    assert rates[0] < 0.01 and 0.95 < rates[top] <= 1 and top < 300
    assert (np.diff(rates[:100]) > 0).all() and (np.diff(rates[top:]) <= 0).all() and rates[-1] == pytest.approx(0.01)


def test_two_workers_do_what_one_would():  # noqa: C901 -- one story from start to end
    """The gradient of a batch is the mean of its halves', and so are the running statistics."""
    x = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    nets = [small(), small()]
    for net in nets:
        for m in net.modules():
            if isinstance(m, torch.nn.BatchNorm2d):
                m.momentum = 1.0

    def work(parts):
        def run(net, part):
            net.train()
            loss = sum(o.mean() for o in net(parts[part]))
            loss.backward()
            return {"loss": loss.item()}

        return run

    both = loop.Workers(nets[0], 2)
    result = both.gradients(work(x.chunk(2)))
    alone, stats = [], []
    for half in x.chunk(2):
        net = small()
        for m in net.modules():
            if isinstance(m, torch.nn.BatchNorm2d):
                m.momentum = 1.0
        one = loop.Workers(net, 1)
        alone.append(one.gradients(work([half])))
        stats.append(([p.grad for p in net.parameters()], [b for b in net.buffers() if b.is_floating_point()]))
    assert result["loss"] == pytest.approx(np.mean([a["loss"] for a in alone]), rel=1e-4)
    for p, a, b in zip(nets[0].parameters(), stats[0][0], stats[1][0]):
        if p.grad is not None:
            assert torch.allclose(p.grad, (a + b) / 2, rtol=1e-3, atol=1e-6)
    floating = [[b for b in net.buffers() if b.is_floating_point()] for net in both.nets]
    for ours, other, a, b in zip(*floating, stats[0][1], stats[1][1]):
        assert torch.allclose(ours, (a + b) / 2, rtol=1e-3, atol=1e-5) and torch.equal(ours, other)


def one_step(state, spoil=None, factor=1.0):
    image, target = data.collate([data.whole(sphere(), 64), data.whole(sphere(0.5), 64)])
    if spoil is not None:
        image[0, 0, 0, 0] = spoil
    batch = image, views.Truth(*target, *[torch.zeros(1)] * 5)  # of its light nothing is known
    return loop.train_step(state, loop.Workers(state.net, 1), lambda part: batch, 0.0, "cpu", False, "geometry")


def test_a_loss_that_is_not_finite_ends_the_run():
    state = loop.start(small(), 1e-3)
    before = {k: v.clone() for k, v in state.net.named_parameters()}
    with pytest.raises(FloatingPointError, match="step 0"):
        one_step(state, float("nan"))
    assert all(torch.equal(v, before[k]) for k, v in state.net.named_parameters()) and state.step == 0


def test_gradients_are_clipped(monkeypatch):
    monkeypatch.setattr(loop.losses, "total", lambda terms: 1e4 * terms["cosine"])
    state = loop.start(small(), 1e-3)
    one_step(state)
    norm = sum(p.grad.square().sum() for p in state.net.parameters() if p.grad is not None) ** 0.5
    assert 0.9 * loop.CLIP < norm < 1.01 * loop.CLIP


def test_the_encoder_learns_slowly_and_its_frozen_blocks_not_at_all(monkeypatch):
    monkeypatch.setattr(loop, "WARM_UP", 1)
    net = small()
    state = loop.start(net, 1e-3, freeze=2)
    before = {k: v.detach().clone() for k, v in net.named_parameters()}
    one_step(state)
    moved = {k: (v.detach() - before[k]).abs().max().item() for k, v in net.named_parameters()}
    frozen = [k for k in moved if k.startswith(("encoder.stem.", "encoder.blocks.0.", "encoder.blocks.1."))]
    assert frozen and all(moved[k] == 0 for k in frozen)
    encoder = [v for k, v in moved.items() if k.startswith("encoder.") and k not in frozen]
    rest = [v for k, v in moved.items() if not k.startswith("encoder.")]
    assert min(max(encoder), max(rest)) > 0 and max(encoder) < 0.2 * max(rest)


def test_the_average_of_the_weights_is_slow():
    state = loop.start(small(), 1e-3)
    name = next(k for k, v in state.ema.items() if v.is_floating_point())
    state.step = 100_000
    with torch.no_grad():
        state.net.state_dict()[name].add_(1.0)
    before = state.ema[name].clone()
    loop.update_average(state)
    assert torch.allclose(state.ema[name] - before, torch.full_like(before, 1 / 250), rtol=1e-2)


def test_a_run_killed_while_it_saves_keeps_what_was_saved(tmp_path, monkeypatch):
    state = loop.start(small(), 1e-3)
    state.save(tmp_path / "checkpoint.pt")

    def killed(what, path):
        Path(path).write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(loop.torch, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        state.save(tmp_path / "checkpoint.pt")
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == 0


class Knowing(torch.nn.Module):
    """Answers with the truth of a batch of pictures it was shown before."""

    def __init__(self, shards, size):
        super().__init__()
        self.p = torch.nn.Parameter(torch.zeros(1))
        self.known = {}
        for k in range(len(shards)):
            image, target = data.collate([data.whole(shards[k], size)])
            self.known[image.numpy().tobytes()] = target

    def forward(self, image):
        disparity, normals, mask = self.known[image.contiguous().numpy().tobytes()]
        void = torch.tensor([1.0, 0, 0]).view(1, 3, 1, 1)
        return disparity, torch.where(mask > 0.5, normals, void), (mask - 0.5) * 20


def test_the_truth_has_perfect_scores(shards):
    found = data.Shards(shards)
    scores = loop.validate(Knowing(found, 64), found, 64)["all"]
    assert scores["mean"] < 0.5 and scores["under30"] == 100 and scores["ordinal"] == 100 and scores["mask"] == 100
    assert scores["images"] == len(found) and scores["facing"] > 20
