"""A light that moves on the page: an orbit or a recorded drag, played in the browser, rendered by the server, saved."""

import io
import json

import numpy as np
import pytest
from conftest import choose, handle, job_id, middle, on_screen, settled, until
from PIL import Image

PLAYING = "document.querySelector('#stage').hasAttribute('data-playing')"


def pictures(page, count, pause=150):
    """So many pictures on the screen, one after the other."""
    out = []
    for _ in range(count):
        page.wait_for_timeout(pause)
        out.append(on_screen(page, bare=False).astype(int))
    return out


def record(page):
    """Record a drag from the left to the right, which ends when it is let go of."""
    page.get_by_role("button", name="Record a drag").click()
    x, y = middle(handle(page, 1))
    page.mouse.move(x, y)
    page.mouse.down()
    for k in range(12):
        page.mouse.move(x + 25 * k, y, steps=2)
        page.wait_for_timeout(30)
    page.mouse.up()
    assert page.get_by_label("Recorded").is_checked()


def saved(page):
    """The order that the page sent, and the file that it saved."""
    with page.expect_request("**/animate") as asked, page.expect_download() as download:
        page.get_by_role("button", name="Save motion").click()
    return json.loads(asked.value.post_data), download.value


@pytest.mark.parametrize("live", [True, False], ids=["gpu", "server"])
def test_an_orbit_is_played_and_stops_where_it_was(open_page, photo, live):
    page = open_page(live=live)
    choose(page, photo)
    before, address = on_screen(page), page.url
    page.get_by_role("button", name="Play").click()
    shown = pictures(page, 4, 300)
    assert page.evaluate(PLAYING) and max(np.abs(one - shown[0]).mean() for one in shown[1:]) > 1
    page.get_by_role("button", name="Stop", exact=True).click()
    settled(page)
    assert np.abs(on_screen(page) - before).mean() < 0.5 and page.url == address


def test_an_orbit_is_saved(open_page, server, photo):
    page = open_page("#light=point:0.5,0.3,0.6;temperature=3200&ambient=0.2")
    choose(page, photo)
    page.get_by_role("slider", name="Length").fill("0.5")
    order, file = saved(page)
    assert file.suggested_filename == "ball-motion.webp" and order["frames"] == 12 and order["loop"] is True
    film = Image.open(file.path())
    assert film.n_frames == 12 and film.size == (480, 360) and film.info["loop"] == 0
    places = np.array([key["lights"][0]["position"] for key in order["keyframes"]])
    assert len(places) == 16 and np.allclose(np.hypot(*places[:, :2].T), np.hypot(0.5, 0.3), atol=2e-3)
    assert np.allclose(places[8], [-0.5, -0.3, 0.6], atol=2e-3) and np.allclose(places[:, 2], 0.6)
    first = server.picture(
        "preview", {"job_id": job_id(page), "lights": [dict(order["keyframes"][0]["lights"][0])], "ambient": 0.2}
    )
    assert np.abs(np.asarray(film.convert("RGB"), float) - first).mean() < 4


def test_a_drag_is_recorded_played_and_saved(open_page, photo):
    page = open_page()
    choose(page, photo)
    assert page.get_by_label("Recorded").is_disabled()
    record(page)
    settled(page)
    page.get_by_role("button", name="Play").click()
    shown = pictures(page, 3, 120)
    assert max(np.abs(one - shown[0]).mean() for one in shown[1:]) > 1
    page.locator("#motion-format").select_option("gif")
    page.get_by_role("slider", name="Length").fill("0.5")
    order, file = saved(page)
    assert not page.evaluate(PLAYING) and file.suggested_filename == "ball-motion.gif"
    xs = [key["lights"][0]["direction"][0] for key in order["keyframes"]]
    assert xs[0] < xs[4] < xs[8] > xs[12] > xs[15] and xs[8] - xs[0] > 0.3, "there and back"
    assert Image.open(io.BytesIO(file.path().read_bytes())).n_frames == order["frames"]
    assert order["frames"] / order["fps"] == 1
    page.get_by_role("slider", name="Length").fill("5")
    order, _ = saved(page)
    assert order["frames"] / order["fps"] == 10, "as slow as it was recorded, there and back"
    page.get_by_label("Loop").uncheck()
    order, _ = saved(page)
    xs = [key["lights"][0]["direction"][0] for key in order["keyframes"]]
    assert xs == sorted(xs) and order["loop"] is False


def test_by_keyboard_alone(open_page, photo):
    page = open_page()
    choose(page, photo)
    page.get_by_role("button", name="Record a drag").focus()
    page.keyboard.press("Enter")
    handle(page, 1).focus()
    for _ in range(4):
        page.keyboard.press("Shift+ArrowRight")
        page.wait_for_timeout(60)
    page.get_by_role("button", name="Stop recording").focus()
    page.keyboard.press("Enter")
    assert page.get_by_label("Recorded").is_checked()
    page.get_by_role("button", name="Play").focus()
    page.keyboard.press("Enter")
    until(page, PLAYING)
    page.keyboard.press("Enter")
    assert not page.evaluate(PLAYING)
    page.keyboard.press("Enter")
    page.get_by_role("slider", name="Ambient").press("ArrowRight")
    assert not page.evaluate(PLAYING), "whoever changes the light wants to see that"
    page.get_by_role("button", name="Record a drag").click()
    page.get_by_role("button", name="Stop recording").click()
    assert page.get_by_label("Recorded").is_disabled() and page.get_by_label("Orbit").is_checked()


def test_it_is_cancelled(open_page, server, photo):
    page = open_page()
    choose(page, photo)
    page.get_by_role("slider", name="Length").fill("5")
    page.route("**/job/*/events", lambda route: route.abort())  # then the page asks for the state, now and then
    page.watch.expect("net::ERR_FAILED")
    page.get_by_role("button", name="Save motion").click()
    page.get_by_role("button", name="Cancel").click()
    until(page, "document.querySelector('#toast').textContent.includes('Stopped')")
    page.unroute("**/job/*/events")
    until(page, "!document.querySelector('#save-motion').disabled")
    assert page.locator("#cancel-motion").is_hidden() and page.locator("#problem").is_hidden()
    assert page.locator("#work").is_hidden()
    assert server.json(f"job/{job_id(page)}")["motion"] is None


def test_one_that_renders_already_can_be_cancelled(open_page, photo):
    """It was asked for before a reload, say: the page says so in its own words."""
    page = open_page()
    choose(page, photo)
    page.watch.expect("Failed to load resource")
    busy = {
        "title": "Motion busy",
        "code": "motion_busy",
        "status": 409,
        "detail": "stop it by DELETE",
        "request_id": "",
    }
    page.route("**/animate", lambda route: route.fulfill(status=409, json=busy))
    page.get_by_role("button", name="Save motion").click()
    words = page.get_by_role("alert").get_by_text("cancel it")
    words.wait_for()
    assert "DELETE" not in page.get_by_role("alert").inner_text()
    page.get_by_role("button", name="Cancel").click()
    until(page, "document.querySelector('#toast').textContent.includes('Stopped')")
    assert page.locator("#cancel-motion").is_hidden()
