"""Masks on the page: painted with mouse, pen and finger, found by one click, for one light or the whole picture."""

import io
import json
from dataclasses import replace

import numpy as np
import pytest
from conftest import choose, job_id, on_screen, settled, until
from fakes import SeeingEngine
from harness import Server
from PIL import Image
from support import encoded, gradient, serving
from test_access import axe

from server.application import create_app
from server.settings import load

H, W = 180, 240


class Quick(Server):
    """A server over an analytic engine."""

    def __init__(self, url):
        self.url, self.headers = url + "/", {}


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    with serving(
        create_app(load(jobs_dir=tmp_path_factory.mktemp("jobs"), log_level="warning"), SeeingEngine())
    ) as url:
        yield Quick(url)


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    path = tmp_path_factory.mktemp("picture") / "gradient.png"
    path.write_bytes(encoded(gradient(H, W) // 2 + 60))
    return path


@pytest.fixture
def start(open_page, quick, picture):
    """start(hash='', …) -> a page with a photo, lit."""

    def make(hash="", brush=True, **options):
        page = open_page(hash, server=quick, **options)
        choose(page, picture)
        if brush:
            take_brush(page)
        return page

    return make


def take_brush(page):
    page.get_by_role("button", name="Paint", exact=True).click()
    page.get_by_role("group", name="Brush").wait_for()


def at(page, u, v):
    """A point of the window at shares of the picture's width and height."""
    stage = page.locator("#canvas").bounding_box()
    x, y, w, h = (float(each) for each in page.locator("#canvas").get_attribute("data-box").split())
    return stage["x"] + x + w * u, stage["y"] + y + h * v


def stroke(page, *points, steps=6):
    """Paints with the mouse along points, as shares of the picture."""
    page.mouse.move(*at(page, *points[0]))
    page.mouse.down()
    for point in points[1:]:
        page.mouse.move(*at(page, *point), steps=steps)
    page.mouse.up()


def by_touch(page, kind, *points):
    """Fingers, as shares of the picture, through the browser's own input."""
    page.touches = getattr(page, "touches", None) or page.context.new_cdp_session(page)
    spots = [dict(zip("xy", at(page, *point)), id=number) for number, point in enumerate(points)]
    page.touches.send("Input.dispatchTouchEvent", {"type": f"touch{kind}", "touchPoints": spots})


def by_pen(page, kind, point, force):
    page.pen = getattr(page, "pen", None) or page.context.new_cdp_session(page)
    where = dict(zip("xy", at(page, *point)))
    event = {"type": f"mouse{kind}", "button": "left", "buttons": 1, "pointerType": "pen", "force": force, **where}
    page.pen.send("Input.dispatchMouseEvent", {**event, "clickCount": 1})


def stored(page, server, name="painted-1", when=lambda mask: mask.any()):
    """The mask that the server has, (H, W) float 0..1, once it is as a test waits for."""
    for _ in range(100):
        status, content = server.call(f"job/{job_id(page)}/mask/{name}")
        if status == 200:
            mask = np.asarray(Image.open(io.BytesIO(content)), float) / 255
            assert mask.ndim == 2
            if when(mask):
                return mask
        page.wait_for_timeout(50)
    raise AssertionError("the mask never came")


def near(mask, u, v, reach=0.02):
    """The mask's mean about a point."""
    h, w = mask.shape
    y, x, r = round(v * h), round(u * w), max(1, round(reach * w))
    return mask[max(0, y - r) : y + r, max(0, x - r) : x + r].mean()


def paint_by(page, kind):
    """A level stroke at 0.4 of the height, from 0.3 to 0.7 of the width."""
    points = [(0.3 + 0.04 * k, 0.4) for k in range(11)]
    if kind == "mouse":
        stroke(page, *points)
    elif kind == "touch":
        by_touch(page, "Start", points[0])
        for point in points[1:]:
            by_touch(page, "Move", point)
        by_touch(page, "End")
    else:
        by_pen(page, "Pressed", points[0], 1.0)
        for point in points[1:]:
            by_pen(page, "Moved", point, 1.0)
        by_pen(page, "Released", points[-1], 0)


@pytest.mark.parametrize("kind", ["mouse", "touch", "pen"])
def test_a_stroke_is_stored_where_it_was_painted(start, quick, kind):
    page = start(has_touch=kind == "touch")
    if kind == "touch":  # two fingers move the picture, and paint nothing
        by_touch(page, "Start", (0.4, 0.8))
        page.wait_for_timeout(60)
        by_touch(page, "Start", (0.4, 0.8), (0.6, 0.8))
        by_touch(page, "Move", (0.3, 0.8), (0.7, 0.8))
        by_touch(page, "End")
        assert page.locator("#fit").text_content() == "200 %" and "mask" not in page.url
        page.keyboard.press("0")
    paint_by(page, kind)
    mask = stored(page, quick)
    assert mask.shape == (H, W)
    for u in (0.3, 0.5, 0.7):
        assert near(mask, u, 0.4) > 0.95
    assert max(near(mask, u, v) for u, v in ((0.4, 0.8), (0.5, 0.1), (0.1, 0.4), (0.9, 0.4))) == 0
    size = 60 / page.evaluate("Number(document.querySelector('#canvas').dataset.box.split(' ')[3])")
    tall = (mask[:, W // 2] > 0.5).mean()
    assert 0.6 * size < tall < size  # as large as the ring shows, less its soft edge
    assert ";mask=painted-1" in page.url
    if kind == "pen":  # it paints as broadly as it is pressed
        by_pen(page, "Pressed", (0.3, 0.8), 0.2)
        by_pen(page, "Moved", (0.6, 0.8), 0.2)
        by_pen(page, "Released", (0.6, 0.8), 0)
        mask = stored(page, quick, when=lambda mask: near(mask, 0.5, 0.8, 0.005) > 0.9)
        assert 0 < (mask[H * 6 // 10 :, W // 2] > 0.5).mean() * 0.4 < 0.6 * tall


def test_a_stroke_crosses_the_divider(start, quick):
    """Its line is not taken by a brush; its knob still is."""
    page = start(brush=False)
    page.get_by_role("button", name="Compare").click()
    take_brush(page)
    stroke(page, (0.5, 0.2), (0.5, 0.6))
    mask = stored(page, quick)
    assert near(mask, 0.5, 0.4) > 0.95
    divider = page.locator("#divider")
    assert divider.get_attribute("aria-valuenow") == "50"
    stroke(page, (0.5, 0.8), (0.8, 0.8))
    assert divider.get_attribute("aria-valuenow") == "80"
    page.wait_for_function("document.body.dataset.frame === 'still'")
    assert near(stored(page, quick), 0.65, 0.8) == 0


def test_erasing_undoing_inverting_and_clearing(start, quick):
    page = start()
    stroke(page, (0.2, 0.5), (0.8, 0.5))
    page.keyboard.press("x")
    assert page.get_by_role("radio", name="Erase").is_checked()
    stroke(page, (0.5, 0.4), (0.5, 0.6))
    cut = stored(page, quick, when=lambda mask: near(mask, 0.5, 0.5) < 0.05 < near(mask, 0.3, 0.5))
    assert near(cut, 0.25, 0.5) > 0.95 and near(cut, 0.75, 0.5) > 0.95
    page.keyboard.press("Control+z")
    whole = stored(page, quick, when=lambda mask: near(mask, 0.5, 0.5) > 0.95)
    page.keyboard.press("Control+Shift+z")
    again = stored(page, quick, when=lambda mask: near(mask, 0.5, 0.5) < 0.05)
    assert abs(again - cut).max() == 0 < abs(whole - cut).max()
    page.get_by_role("button", name="Invert mask").click()
    turned = stored(page, quick, when=lambda mask: near(mask, 0.5, 0.1) > 0.95)
    assert abs(1 - turned - cut).max() < 0.01
    page.get_by_role("button", name="Clear mask").click()
    stored(page, quick, when=lambda mask: not mask.any())
    page.get_by_role("button", name="Undo stroke").click()
    stored(page, quick, when=lambda mask: abs(mask - turned).max() == 0)
    page.keyboard.press("x")
    size = page.get_by_label("Brush size")
    larger = size.get_attribute("aria-valuetext")
    page.keyboard.press("]")
    assert size.get_attribute("aria-valuetext") != larger
    page.keyboard.press("[")
    page.keyboard.press("Escape")
    assert page.get_by_role("group", name="Brush").count() == 0
    page.keyboard.press("Control+z")  # now it is the page's: the light has no mask
    until(page, "!location.hash.includes('mask')")


@pytest.mark.parametrize("live", [True, False])
def test_the_picture_changes_only_where_nothing_is_painted(start, quick, live):
    """The only light goes where it is painted: there it looks as before, elsewhere it is gone."""
    page = start("#light=directional:0,0,1&ambient=0.2&exposure=0", live=live)
    until(page, "document.querySelector('#cover') === null")
    page.keyboard.press("o")  # the mask is not shown
    before = on_screen(page)
    page.mouse.move(*at(page, 0.2, 0.5))
    page.mouse.down()
    page.mouse.move(*at(page, 0.8, 0.5), steps=8)
    if live:
        page.wait_for_timeout(300)
        assert on_screen(page)[: H // 8].mean() < before[: H // 8].mean() - 20  # already while it is painted
    page.mouse.up()
    mask = stored(page, quick)
    page.keyboard.press("Escape")
    until(page, "location.hash.includes('mask')")
    page.wait_for_timeout(300)
    settled(page)
    after = on_screen(page)
    mask = np.asarray(Image.fromarray(mask.astype(np.float32)).resize(after.shape[1::-1], Image.BILINEAR))
    change = abs(after - before).max(2)
    assert change[mask > 0.99].mean() < 3 and change[mask < 0.01].mean() > 20
    with page.expect_download() as download:
        page.get_by_role("button", name="Download").click()
    taken = np.asarray(Image.open(download.value.path()).convert("RGB").resize(after.shape[1::-1]), float)
    assert abs(taken - after).mean() < 4


def test_a_mask_for_each_light_and_one_for_the_picture(start, quick):
    page = start("#light=directional:0,0,1&light=point:0.5,0,0.5;color=ff2010")
    stroke(page, (0.2, 0.3), (0.8, 0.3))
    stored(page, quick)
    page.get_by_role("button", name="Done").click()
    page.get_by_role("radio", name="Whole picture").check()
    assert page.get_by_role("button", name="Everywhere").get_attribute("aria-pressed") == "true"
    take_brush(page)
    stroke(page, (0.5, 0.2), (0.5, 0.8))
    stored(page, quick, "painted-2")
    page.keyboard.press("Escape")
    page.get_by_role("radio", name="This light").check()
    page.get_by_role("button", name="2: Lamp").click()
    page.get_by_role("button", name="Painted 1").click()
    page.get_by_label("Invert", exact=True).check()
    page.get_by_label("Feather").focus()
    for _ in range(20):
        page.keyboard.press("ArrowRight")
    settled(page)
    page.get_by_role("button", name="As code").click()
    body = json.loads(page.locator("#snippet").inner_text())
    page.keyboard.press("Escape")
    assert body["mask"] == {"name": "painted-2"}
    assert [light["mask"] for light in body["lights"]] == [
        {"name": "painted-1"},
        {"name": "painted-1", "invert": True, "feather": 0.02},
    ]
    shown = on_screen(page)
    page.reload()
    settled(page)
    page.wait_for_timeout(200)
    settled(page)
    assert abs(on_screen(page) - shown).mean() < 0.5
    page.get_by_role("button", name="2: Lamp").click()
    assert page.get_by_label("Invert", exact=True).is_checked()
    page.get_by_label("Invert", exact=True).uncheck()
    take_brush(page)  # on what was painted before
    stroke(page, (0.2, 0.8), (0.8, 0.8))
    mask = stored(page, quick, when=lambda mask: near(mask, 0.5, 0.8) > 0.95)
    assert near(mask, 0.5, 0.3) > 0.95
    page.get_by_role("button", name="Discard mask").click()
    until(page, "!location.hash.includes('painted-1')")
    assert page.get_by_role("button", name="Painted 1").count() == 0
    assert "mask=painted-2" in page.url
    assert quick.json(f"job/{job_id(page)}")["masks"] == ["painted-2"]


def test_whoever_leaves_before_a_stroke_is_stored_is_asked(start, quick):
    page, asked = start(), []

    def stay(dialog):
        asked.append(dialog.type)
        dialog.dismiss()

    page.on("dialog", stay)
    stroke(page, (0.3, 0.4), (0.7, 0.4))
    page.evaluate("location.reload()")
    assert near(stored(page, quick), 0.5, 0.4) > 0.95, "it is sent meanwhile"
    assert asked == ["beforeunload"]
    page.wait_for_timeout(100)
    settled(page)
    page.reload()
    settled(page)
    assert asked == ["beforeunload"], "there is nothing that could be lost"
    assert "mask=painted-1" in page.url


def test_a_look_whose_mask_the_photo_does_not_have(start, quick):
    page = start("#light=directional:0.3,0,0.9;mask=painted-7&mask=!somewhere,0.02", brush=False)
    assert page.get_by_text("does not have the mask").is_visible()
    assert "mask" not in page.url
    assert page.get_by_role("button", name="Everywhere").get_attribute("aria-pressed") == "true"
    assert page.get_by_role("button", name="Subject").count() == page.get_by_role("button", name="Sky").count() == 0
    painters = """performance.getEntriesByType('resource').map(({ name }) => name)
        .filter((name) => /brush|painting/.test(name)).length"""
    assert page.evaluate(painters) == 0  # not before somebody paints
    take_brush(page)
    assert page.evaluate(painters) == 2
    page.keyboard.press("x")  # to erase first is to take a part out of everywhere
    stroke(page, (0.2, 0.5), (0.8, 0.5))
    mask = stored(page, quick)
    assert near(mask, 0.5, 0.5) < 0.05 and near(mask, 0.5, 0.1) > 0.95


def test_a_photo_that_is_gone_is_not_called_a_refused_light(start, quick):
    page = start()
    stroke(page, (0.3, 0.5), (0.7, 0.5))
    stored(page, quick)
    page.get_by_role("button", name="Everywhere").click()
    page.reload()
    settled(page)
    page.watch.expect("Failed to load resource")
    quick.call(f"job/{job_id(page)}", method="DELETE")
    page.get_by_role("button", name="Painted 1").click()
    page.get_by_role("alert").get_by_text("Upload the photo again").wait_for()
    assert "not found" in page.get_by_role("alert").inner_text() and "refused" not in page.content()


@pytest.mark.parametrize("size, scheme", [((390, 844), "light"), ((1280, 800), "dark")])
def test_the_brush_is_for_everyone(start, quick, size, scheme):
    """By keys alone, to a screen reader, and on small screens."""
    page = start(width=size[0], height=size[1], scheme=scheme, brush=False)
    stage = page.locator("#stage").bounding_box()
    page.locator("body").press("b")
    bar = page.get_by_role("group", name="Brush")
    bar.wait_for()
    assert axe(page) == []
    assert page.evaluate("document.activeElement.closest('.brush-tools') !== null")
    for width in (size[0], 320) if size[0] < 820 else (size[0],):
        page.set_viewport_size({"width": width, "height": size[1]})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        room = page.locator("#stage").bounding_box()["width"]
        for tool in bar.get_by_role("button").all():
            box = tool.bounding_box()
            assert box["x"] >= 0 and box["x"] + box["width"] <= room and min(box["width"], box["height"]) >= 24
    page.set_viewport_size({"width": size[0], "height": size[1]})
    bar.get_by_role("button", name="Show mask").click()
    assert bar.get_by_role("button", name="Show mask").get_attribute("aria-pressed") == "false"
    page.get_by_role("button", name="Painted 1").click()
    assert "mask" not in page.url and bar.is_visible()  # nothing is painted yet
    below = page.get_by_label("Brush size").bounding_box()
    ring = page.get_by_role("button", name="Brush", exact=True)
    ring.focus()
    page.keyboard.down("Space")
    for _ in range(3):
        page.keyboard.press("Shift+ArrowRight")
    page.keyboard.up("Space")
    mask = stored(page, quick)
    assert near(mask, 0.5, 0.5) > 0.95
    assert page.get_by_label("Brush size").bounding_box() == below
    page.wait_for_timeout(100)
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.id") == "paint"
    after = page.locator("#stage").bounding_box()
    assert (after["width"], after["height"]) == (stage["width"], stage["height"])


class Outdoors(SeeingEngine):
    """A sphere before the sky, its left half the subject; a photo that is taller than wide has neither."""

    def analyse(self, rgb):
        geometry = super().analyse(rgb)
        if rgb.shape[0] > rgb.shape[1]:
            return replace(geometry, mask=np.ones_like(geometry.mask))
        subject = (255 * geometry.mask).astype(np.uint8)
        subject[:, subject.shape[1] // 2 :] = 0
        return replace(geometry, subject=subject)

    def describe(self):
        return [{**each, "roles_filled": each["roles"]} for each in super().describe()]


def test_sky_and_subject_by_one_click(open_page, tmp_path, picture):
    settings = load(jobs_dir=tmp_path / "jobs", log_level="warning")
    with serving(create_app(settings, Outdoors(mask=True))) as url:
        page = open_page("#light=directional:0,0,1;intensity=0.2&ambient=0&exposure=0", server=Quick(url))
        choose(page, picture)
        photo = np.asarray(Image.open(picture).resize(on_screen(page).shape[1::-1]), float)
        relit = on_screen(page)
        page.get_by_role("radio", name="Whole picture").check()
        page.get_by_role("button", name="Sky", exact=True).click()
        settled(page)
        sky = on_screen(page)
        assert abs(sky - photo).mean() < 3 < 20 < abs(relit - photo).mean()  # what is no sky is as it was
        page.get_by_label("Invert", exact=True).check()
        settled(page)
        assert abs(on_screen(page) - relit).mean() < 3
        assert page.get_by_role("button", name="Discard mask").is_disabled()
        page.get_by_label("Invert", exact=True).uncheck()
        page.get_by_role("button", name="Subject", exact=True).click()
        settled(page)
        subject, (h, w) = on_screen(page), relit.shape[:2]
        left, right = (np.s_[h // 3 : h // 2, w * k // 16 : w * (k + 1) // 16] for k in (6, 9))  # within the sphere
        assert abs(subject - relit)[left].mean() < 3 < 20 < abs(subject - photo)[left].mean()
        assert abs(subject - photo)[right].mean() < 3 < 20 < abs(subject - relit)[right].mean()
        take_brush(page)  # a mask of one's own begins with it
        stroke(page, (0.9, 0.1), (0.95, 0.1))
        mask = stored(page, Quick(url))
        assert near(mask, 6.5 / 16, 0.4) > 0.95 and near(mask, 0.92, 0.1) > 0.95 and near(mask, 9.5 / 16, 0.4) == 0
        page.keyboard.press("Escape")
        page.get_by_role("button", name="Sky", exact=True).click()
        tall = tmp_path / "tall.png"
        tall.write_bytes(encoded(gradient(W, H)))
        choose(page, tall)
        assert "mask=sky" in page.url  # that photo can have one too
        assert page.get_by_role("button", name="Subject").count() == 0
        page.get_by_role("button", name="Everywhere").click()
        page.get_by_role("button", name="Sky", exact=True).click()
        page.get_by_text("Sky: nothing of it was found in this photo.").wait_for()
