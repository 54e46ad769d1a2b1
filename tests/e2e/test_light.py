"""Light under the hand: what is on the screen follows it."""

import json
import time
from io import BytesIO

import numpy as np
import pytest
from conftest import choose, handle, job_id, middle, on_screen, pixels, settled
from PIL import Image


def sides(picture):
    """Brightness of the ball's left and right half."""
    height, width = picture.shape[:2]
    ball = picture[height // 4 : -height // 4, width // 4 : -width // 4].mean((0, 2))
    return ball[: len(ball) // 2].mean(), ball[len(ball) // 2 :].mean()


def drag(page, locator, to, steps=12):
    page.mouse.move(*middle(locator))
    page.mouse.down()
    page.mouse.move(*to, steps=steps)


def edges(page):
    """Two points of the window well inside the photo's left and right side, at its middle height."""
    stage = page.locator("#canvas").bounding_box()
    x, y, w, h = (float(v) for v in page.locator("#canvas").get_attribute("data-box").split())
    level = stage["y"] + y + h * 0.45
    return (stage["x"] + x + w * 0.06, level), (stage["x"] + x + w * 0.94, level)


def test_dragging_the_light_moves_the_bright_side_on_the_screen(open_page, photo):
    page = open_page()
    choose(page, photo)
    left_end, right_end = edges(page)
    drag(page, handle(page, 1), left_end)
    page.mouse.up()
    settled(page)
    left, right = sides(on_screen(page))
    assert left > right * 1.05
    drag(page, handle(page, 1), right_end)
    page.wait_for_timeout(700)
    during = sides(on_screen(page, bare=False))
    assert during[1] > during[0] * 1.02  # already while the finger is down
    page.mouse.up()
    settled(page)
    left, right = sides(on_screen(page))
    assert right > left * 1.05
    assert "directional:0.8" in page.url


def test_a_frame_on_the_screen_is_never_older_than_the_last(open_page, server, photo):
    """Answers that come late and unevenly.

    One request at a time, and at rest the screen shows the last look asked for.
    """
    page = open_page("#light=point:-0.8,0,0.5;range=0.4&ambient=0.05", live=False)
    page.add_init_script("""
        window.flying = 0;
        window.most = 0;
        const call = window.fetch;
        window.fetch = async (url, options) => {
            if (!String(url).endsWith('/preview')) return call(url, options);
            window.most = Math.max(window.most, window.flying += 1);
            try {
                const response = await call(url, options);
                const blob = await response.blob();
                return new Response(blob, response);
            } finally { window.flying -= 1; }
        };
    """)
    page.reload()
    choose(page, photo)
    bodies = []

    def uneven(route):
        bodies.append(json.loads(route.request.post_data))
        time.sleep([0.25, 0.01, 0.1][len(bodies) % 3])
        route.continue_()

    page.route("**/preview", uneven)
    left_end, right_end = edges(page)
    drag(page, handle(page, 1), right_end, steps=8)
    page.mouse.move(*left_end, steps=8)
    page.mouse.move(*right_end, steps=8)
    page.mouse.up()
    settled(page)
    page.unroute("**/preview")
    assert page.evaluate("window.most") == 1
    streams = [body["stream"] for body in bodies]
    assert len({stream.rsplit("-", 1)[0] for stream in streams}) == 1, "one tab, one name"
    changes = sum(a != b for a, b in zip(streams, streams[1:]))
    assert changes == len(set(streams)) - 1, "a stream that was given up never comes back"
    last = bodies[-1]
    assert min(body["max_side"] for body in bodies) <= last["max_side"]
    want = server.picture("preview", last)
    seen = on_screen(page)
    small = [np.asarray(resized(p), float) for p in (want, seen)]
    assert abs(small[0] - small[1]).mean() < 3
    assert sides(seen)[1] > sides(seen)[0] * 1.1


def resized(picture, size=(96, 72)):
    from PIL import Image

    return Image.fromarray(picture.astype(np.uint8)).resize(size, Image.Resampling.BOX)


def test_two_lights(open_page, server, photo):
    page = open_page("#light=point:-0.9,0,0.4;range=0.3;color=ff2010&ambient=0.02&delight=0")
    choose(page, photo)
    one = on_screen(page)
    page.get_by_role("button", name="Add a light").click()
    settled(page)
    drag(page, handle(page, 2), edges(page)[1])
    page.mouse.up()
    settled(page)
    two = on_screen(page)
    half = one.shape[1] // 2
    assert two[:, half:].mean() > one[:, half:].mean() + 8
    assert abs(two[:, : half // 2].mean() - one[:, : half // 2].mean()) < abs(
        two[:, half:].mean() - one[:, half:].mean()
    )
    assert two[:, : half // 2, 0].mean() > two[:, : half // 2, 2].mean() + 5  # the first one is still red
    page.get_by_role("button", name="Remove").click()
    assert handle(page, 2).count() == 0
    page.get_by_role("button", name="Duplicate").click()
    assert handle(page, 2).count() == 1
    assert page.url.count("color=ff2010") == 2


def test_sixteen_lights_and_no_more(open_page, photo):
    page = open_page("#" + "&".join(f"light=point:{x / 10 - 0.8},0.2,0.5;intensity=0.2" for x in range(15)))
    choose(page, photo)
    add = page.get_by_role("button", name="Add a light")
    add.click()
    settled(page)
    assert handle(page, 16).is_visible()
    assert add.is_disabled()


@pytest.mark.parametrize("kind", ["Sun", "Lamp", "Spot"])
def test_every_kind_and_control_reaches_the_server(open_page, photo, kind):
    page = open_page(live=False)
    choose(page, photo)
    page.get_by_label(kind, exact=True).check()
    settled(page)
    page.get_by_label("Auto exposure").uncheck()
    asked = []
    page.on("request", lambda r: r.url.endswith("/preview") and asked.append(json.loads(r.post_data)))
    for slider in page.locator("#light input[type=range]:visible, #scene input[type=range]:visible").all():
        slider.focus()
        page.keyboard.press("PageDown")
        page.keyboard.press("ArrowRight")
    settled(page)
    light = asked[-1]["lights"][0]
    keys = {
        "Sun": {"direction", "angle"},
        "Lamp": {"position", "radius", "range"},
        "Spot": {"position", "target", "radius", "range", "cone", "blend"},
    }[kind]
    assert keys | {"type", "intensity", "temperature"} == set(light)
    assert {"ambient", "delight", "strength", "exposure", "shadow", "specular"} <= set(asked[-1])
    page.locator("input[type=color]").fill("#3060ff")
    page.get_by_label("Casts shadow").uncheck()
    settled(page)
    light = asked[-1]["lights"][0]
    assert light["color"] == "#3060ff" and "temperature" not in light and light["shadow"] is False
    page.get_by_label("On", exact=True).uncheck()
    settled(page)
    assert asked[-1]["lights"][0]["intensity"] == 0
    assert not page.get_by_role("alert").filter(has_text=" ").is_visible()


def test_auto_exposure_is_on_at_first_and_keeps_the_brightness(open_page, photo):
    page, asked = open_page(live=False), []
    page.on("request", lambda r: r.url.endswith("/preview") and asked.append(json.loads(r.post_data)))
    choose(page, photo)
    auto, exposure = page.get_by_role("switch", name="Auto exposure"), page.get_by_role("slider", name="Exposure")
    assert auto.is_checked() and exposure.is_disabled() and asked[-1]["exposure"] == "auto"
    before = pixels(photo.read_bytes()).mean()
    drag(page, handle(page, 1), edges(page)[0])
    page.mouse.up()
    settled(page)
    assert on_screen(page).mean() == pytest.approx(before, rel=0.1)
    auto.focus()
    page.keyboard.press("Space")
    settled(page)
    assert not exposure.is_disabled() and "exposure" not in asked[-1] and "auto" not in page.url
    assert on_screen(page).mean() < 0.92 * before
    exposure.fill("1.5")
    auto.check()
    settled(page)
    assert exposure.is_disabled() and asked[-1]["exposure"] == "auto"
    page.reload()
    settled(page)
    assert auto.is_checked() and exposure.is_disabled()
    auto.uncheck()
    settled(page)
    assert exposure.get_attribute("aria-valuetext") == "1.50 EV" and asked[-1]["exposure"] == 1.5
    page.get_by_role("button", name="Undo").click()
    settled(page)
    assert auto.is_checked() and asked[-1]["exposure"] == "auto"


def test_a_link_from_before_there_was_auto_exposure_shows_what_it_did(open_page, photo):
    page, asked = open_page("#light=directional:-0.6,0.4,0.7", live=False), []
    page.on("request", lambda r: r.url.endswith("/preview") and asked.append(json.loads(r.post_data)))
    choose(page, photo)
    auto = page.get_by_role("switch", name="Auto exposure")
    assert not auto.is_checked() and "exposure" not in asked[-1]
    page.get_by_role("button", name="Softbox").click()
    settled(page)
    assert auto.is_checked() and asked[-1]["exposure"] == "auto"


def test_presets_are_the_server_s_and_change_the_picture(open_page, photo):
    page = open_page()
    told = page.evaluate("fetch('models').then((answer) => answer.json())")["presets"]
    choose(page, photo)
    names = page.locator("#presets button").all_inner_texts()
    assert names == [preset["title"] for preset in told] and len(names) >= 13
    seen = [on_screen(page)]
    for name in names:
        page.locator("#presets").get_by_role("button", name=name, exact=True).click()
        settled(page)
        seen.append(on_screen(page))
        assert all(abs(seen[-1] - other).mean() > 0.5 for other in seen[:-1]), name
        assert 4 < seen[-1].mean() < 235, name


def test_wheel_slider_and_ball_move_the_light(open_page, photo):
    page = open_page()
    choose(page, photo)
    nearness = page.get_by_label("Nearness")
    before = float(nearness.input_value())
    page.mouse.move(*middle(handle(page, 1)))
    page.mouse.wheel(0, -300)
    page.wait_for_timeout(400)
    assert float(nearness.input_value()) > before
    assert "directional:-0.6,0.4,1&" in page.url
    nearness.fill("-0.4")
    settled(page)
    assert "directional:-0.6,0.4,-0.4" in page.url
    ball = page.locator("#ball").bounding_box()
    page.mouse.click(ball["x"] + ball["width"] * 0.9, ball["y"] + ball["height"] / 2)
    settled(page)
    x, y, z = map(float, page.url.split("directional:")[1].split("&")[0].split(","))
    assert x > 0.5 and abs(y) < 0.1 and z > 0


def test_before_and_after(open_page, server, photo):
    page = open_page("#light=directional:0,0,1&exposure=-2")
    choose(page, photo)
    original = pixels(photo.read_bytes())
    page.get_by_role("button", name="Compare").click()
    page.wait_for_timeout(600)
    seen = on_screen(page)
    half = seen.shape[1] // 2
    clear = half - 40  # away from the divider and its labels
    assert abs(seen[60:, :clear].mean() - original[:, : original.shape[1] // 2].mean()) < 4
    assert seen[60:, -clear:].mean() < 0.7 * seen[60:, :clear].mean()
    divider = page.get_by_role("slider", name="Before and after")
    divider.focus()
    page.keyboard.press("End")
    page.evaluate("document.activeElement.blur()")
    assert on_screen(page)[60:, :-80].mean() > 0.9 * original.mean()
    x, y = middle(divider)
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x - 200, y, steps=4)
    page.mouse.up()
    assert 20 < int(divider.get_attribute("aria-valuenow")) < 90
    page.get_by_role("button", name="Compare").click()
    assert on_screen(page).mean() < 0.7 * original.mean()


def test_depth_and_normals(open_page, server, photo):
    page = open_page()
    choose(page, photo)
    for view in ("Depth", "Normals"):
        page.get_by_label(view, exact=True).check()
        page.wait_for_timeout(600)
        seen = np.asarray(resized(on_screen(page)), float)
        status, content = server.call(f"download/{job_id(page)}/{view.lower()}.png")
        assert status == 200
        from PIL import Image

        image = Image.open(BytesIO(content))
        if view == "Depth":
            image = Image.fromarray((np.asarray(image, float) / 257).round().astype(np.uint8)).convert("RGB")
        assert abs(seen - np.asarray(image.resize((96, 72), Image.Resampling.BOX), float)).mean() < 4
        assert not handle(page, 1).is_visible()


def test_zoom_and_pan(open_page, photo):
    page = open_page()
    choose(page, photo)
    fit = page.locator("#canvas").get_attribute("data-box")
    page.mouse.move(500, 400)
    page.keyboard.down("Control")
    page.mouse.wheel(0, -120)
    page.keyboard.up("Control")
    page.wait_for_timeout(100)
    x, y, w, _ = (float(v) for v in page.locator("#canvas").get_attribute("data-box").split())
    assert w > float(fit.split()[2]) * 1.5
    rig = page.url
    page.mouse.move(300, 400)
    page.mouse.down()
    page.mouse.move(360, 430, steps=3)
    page.mouse.up()
    page.wait_for_timeout(100)
    moved = [float(v) for v in page.locator("#canvas").get_attribute("data-box").split()]
    assert moved[0] - x == pytest.approx(60, abs=1) and moved[1] - y == pytest.approx(30, abs=1)
    assert page.url == rig  # panning is no change of light
    page.get_by_role("button", name="fit to screen").click()
    page.wait_for_timeout(100)
    assert page.locator("#canvas").get_attribute("data-box") == fit


def test_a_finger_and_two(open_page, photo):
    page = open_page(width=390, height=844, has_touch=True, is_mobile=True, device_scale_factor=2)
    choose(page, photo)
    cdp = page.context.new_cdp_session(page)

    def touch(kind, *points):
        cdp.send(
            "Input.dispatchTouchEvent",
            {"type": kind, "touchPoints": [{"x": x, "y": y, "id": i} for i, (x, y) in enumerate(points)]},
        )

    x, y = middle(handle(page, 1))
    touch("touchStart", (x, y))
    for step in range(1, 9):
        touch("touchMove", (x + 20 * step, y + 2 * step))
    touch("touchEnd")
    settled(page)
    assert middle(handle(page, 1))[0] == pytest.approx(x + 160, abs=4)
    assert "#light=directional:0." in page.url
    x, y = middle(handle(page, 1))
    nearness = float(page.get_by_label("Nearness").input_value())
    touch("touchStart", (x + 3, y))
    touch("touchStart", (x + 3, y), (x - 60, y + 60))
    for step in range(1, 9):
        touch("touchMove", (x + 3, y), (x - 60 - 8 * step, y + 60 + 8 * step))
    touch("touchEnd")
    assert float(page.get_by_label("Nearness").input_value()) > nearness + 0.3
    before = float(page.locator("#canvas").get_attribute("data-box").split()[2])
    light, address = handle(page, 1).get_attribute("title"), page.url
    touch("touchStart", (150, 250))
    touch("touchStart", (150, 250), (200, 300))
    for step in range(1, 9):
        touch("touchMove", (150 - 6 * step, 250 - 6 * step), (200 + 6 * step, 300 + 6 * step))
    touch("touchEnd")
    page.wait_for_timeout(100)
    assert float(page.locator("#canvas").get_attribute("data-box").split()[2]) > before * 1.5
    assert handle(page, 1).get_attribute("title") == light and page.url == address  # two fingers are no change of light


def test_the_keys_go_on_where_the_mouse_left_off(open_page, photo):
    """After a drag on the picture itself, not on a handle."""
    page = open_page()
    choose(page, photo)
    left, right = edges(page)
    page.mouse.move(*left)
    page.mouse.down()
    page.mouse.move(*right, steps=4)
    page.mouse.up()
    settled(page)
    placed = handle(page, 1).get_attribute("title")
    page.keyboard.press("ArrowUp")
    assert handle(page, 1).get_attribute("title") != placed
    page.keyboard.press("c")
    assert page.get_by_role("button", name="Compare").get_attribute("aria-pressed") == "true"
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("+")
    assert "125" in page.get_by_role("button", name="fit to screen").inner_text()


def test_the_arrow_keys_move_every_slider(open_page, photo):
    """Also where a step of its track is less than what its value is rounded to."""
    page = open_page("#light=point:0.5,0.5,0.7;intensity=0;temperature=3000")
    choose(page, photo)
    for name in ("Intensity", "Temperature", "Softness", "Reach", "Ambient", "Exposure"):
        slider = page.get_by_role("slider", name=name, exact=True)
        said = [slider.get_attribute("aria-valuetext")]
        for key in ("ArrowRight", "ArrowRight", "ArrowLeft", "ArrowLeft"):
            slider.press(key)
            said.append(slider.get_attribute("aria-valuetext"))
        assert said[0] != said[1] != said[2] and said[4] == said[0], (name, said)
    settled(page)


def test_a_photo_being_read_is_not_lit_yet(open_page, photo):
    page, held = open_page(), []
    page.route("**/events", lambda route: held.append(route))
    with page.expect_request("**/events"):
        page.locator("#file").set_input_files(photo)
    assert page.locator("body").get_attribute("data-state") == "busy"
    x, y = middle(page.locator("#canvas"))
    page.mouse.click(x - 60, y - 40)
    page.mouse.wheel(0, -300)
    page.wait_for_timeout(500)
    assert "light=" not in page.url and page.get_by_role("button", name="Undo").is_disabled()
    held[0].continue_()
    settled(page)


def test_the_picture_is_as_sharp_as_the_window_and_no_sharper(open_page, tmp_path):
    grain = np.random.default_rng(0).integers(0, 256, (900, 1200, 3), np.uint8)
    path = tmp_path / "large.png"
    Image.fromarray(grain).save(path)
    page = open_page(width=800, height=500, live=False)
    choose(page, path)

    def shown():
        return int(page.locator("#readout").inner_text().split()[0])

    assert shown() < 768
    page.set_viewport_size({"width": 1500, "height": 900})
    page.wait_for_timeout(400)
    settled(page)
    assert shown() >= 1000
    page.get_by_role("button", name="Compare").click()
    settled(page)
    page.mouse.move(300, 300)
    for _ in range(4):
        page.keyboard.down("Control")
        page.mouse.wheel(0, -200)
        page.keyboard.up("Control")
    page.wait_for_timeout(600)
    settled(page)
    assert shown() == 1200
    asked = []
    page.on("request", lambda r: r.url.endswith("/preview") and asked.append(r.url))
    for step in range(3):
        page.mouse.down()
        page.mouse.move(320 + 20 * step, 320, steps=2)
        page.mouse.up()
        page.wait_for_timeout(350)
    assert not asked, "there is nothing sharper to be had"


@pytest.mark.parametrize(
    "size, start, end", [((390, 844), (195, 800), (195, 500)), ((740, 360), (600, 340), (600, 100))]
)
def test_a_swipe_reaches_all_controls_on_a_phone(open_page, photo, size, start, end):
    page = open_page(width=size[0], height=size[1], has_touch=True, is_mobile=True, device_scale_factor=2)
    choose(page, photo)
    cdp = page.context.new_cdp_session(page)
    for _ in range(2):
        cdp.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [{"x": start[0], "y": start[1]}]})
        for step in range(1, 11):
            y = start[1] + (end[1] - start[1]) * step / 10
            cdp.send("Input.dispatchTouchEvent", {"type": "touchMove", "touchPoints": [{"x": start[0], "y": y}]})
            page.wait_for_timeout(16)
        cdp.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
        page.wait_for_timeout(300)
    assert page.evaluate("scrollY + document.querySelector('#panel').scrollTop") > 150
