"""The page over relight.js: every move is lit in the browser."""

import json
import re

import numpy as np
import pytest
from conftest import choose, handle, job_id, on_screen, settled
from fakes import SeeingEngine
from PIL import Image
from support import encoded, gradient, serving
from test_light import drag, edges, sides
from views import relit

from server.application import create_app
from server.settings import load


def test_a_drag_sends_no_request_and_ends_in_the_servers_picture(open_page, server, photo):
    page = open_page()
    choose(page, photo)
    requests = []
    page.on("request", lambda r: r.url.endswith("icon.svg") or requests.append(r.url))  # the tab's picture is late
    left_end, right_end = edges(page)
    drag(page, handle(page, 1), left_end, steps=20)
    page.mouse.move(*right_end, steps=20)
    page.mouse.up()
    settled(page)
    shown = on_screen(page)
    left, right = sides(shown)
    assert right > left * 1.05 and not requests
    [light] = re.findall(r"directional:([-\d.,]+)", page.url)
    wanted = relit(server, job_id(page), dict(zip("xyz", map(float, light.split(",")))))
    scaled = np.asarray(Image.fromarray(wanted[..., :3]).resize(shown.shape[1::-1], Image.BILINEAR), float)
    assert abs(shown - scaled).mean() < 2.5  # two scalings, nothing else


def test_light_goes_on_while_the_server_is_away(open_page, serve, photo):
    own = serve()
    page = open_page(server=own)
    page.watch.expect("Failed to load resource", "ERR_CONNECTION_REFUSED")
    choose(page, photo)
    before = on_screen(page)
    own.stop()
    page.get_by_role("button", name="From below").click()
    settled(page)
    assert abs(on_screen(page) - before).mean() > 1
    page.get_by_role("button", name="Download").click()
    page.get_by_role("alert").get_by_role("button", name="Try again").wait_for()
    own.start()


def test_a_photo_that_is_gone_is_offered_to_be_sent_again(open_page, server, photo):
    page = open_page()
    page.watch.expect("Failed to load resource")
    choose(page, photo)
    old = job_id(page)
    server.call(f"job/{old}", method="DELETE")
    page.get_by_role("button", name="Download").click()
    page.get_by_role("button", name="Upload it again").click()
    settled(page)
    assert job_id(page) != old


def test_the_light_alone_and_the_albedo(open_page, photo):
    page = open_page()
    choose(page, photo)
    whole = on_screen(page)
    page.get_by_role("radio", name="Light", exact=True).check()
    settled(page)
    alone = on_screen(page)
    assert abs(alone - alone.mean(2, keepdims=True)).max() < 3 < abs(whole - whole.mean(2, keepdims=True)).max()
    drag(page, handle(page, 1), edges(page)[1])
    page.mouse.up()
    settled(page)
    assert abs(on_screen(page) - alone).mean() > 2  # it follows the light
    page.get_by_role("radio", name="Albedo").check()
    page.wait_for_timeout(1500)
    assert abs(on_screen(page) - alone).mean() > 5
    page.reload()
    settled(page)
    assert page.get_by_role("radio", name="Albedo").is_checked()  # it survives a reload
    page.get_by_role("radio", name="Relit").check()


def test_a_look_is_held_beside_the_next(open_page, photo):
    page = open_page()
    choose(page, photo)
    held = on_screen(page)
    page.get_by_role("button", name="Hold").click()
    page.get_by_role("button", name="From below").click()
    settled(page)
    assert page.locator("#divider").get_by_text("Held").is_visible()
    both, half = on_screen(page), held.shape[1] // 2
    assert abs(both - held)[:, : half - 20].mean() < 1 < abs(both - held)[:, half + 20 :].mean()
    page.get_by_role("button", name="Hold").click()
    assert page.locator("#divider").is_hidden()
    assert page.get_by_role("button", name="Hold").get_attribute("aria-pressed") == "false"
    page.get_by_role("button", name="Hold").click()
    assert page.locator("#divider").get_by_text("Held").is_visible()
    page.get_by_role("button", name="Compare").click()
    assert page.locator("#divider").is_hidden()


def test_where_the_photo_was_lit_from(open_page, photo):
    page = open_page()
    choose(page, photo)
    page.get_by_role("button", name="The photo was lit from here").click()
    settled(page)
    [light] = re.findall(r"directional:([-\d.,]+)", page.url)
    direction = np.array([float(v) for v in light.split(",")])
    assert np.linalg.norm(direction) == pytest.approx(1, abs=0.01)
    assert handle(page, 1).evaluate("(node) => node === document.activeElement")


def test_the_keys_are_shown_on_a_question_mark(open_page, photo):
    page = open_page()
    choose(page, photo)
    assert not page.get_by_text("undo, redo").is_visible()
    page.keyboard.press("?")
    assert page.get_by_text("undo, redo").is_visible()


def test_the_look_as_javascript_lights_the_photo(open_page, server, photo):
    page = open_page()
    choose(page, photo)
    page.get_by_role("button", name="As code").click()
    page.get_by_role("radio", name="JavaScript").check()
    code = page.locator("#snippet").inner_text()
    assert job_id(page) in code and "/static/relight.js" in code
    [body] = re.findall(r"view\.render\((.*)\);", code, re.S)
    assert json.loads(body)["lights"][0]["type"] == "directional"
    other = open_page("health")
    other.watch.expect("favicon.ico")
    other.evaluate("document.body.append(document.createElement('canvas'))")
    rendered = re.sub(r"^import (.*) from (.*);", r"const \1 = await import(\2);", code)
    assert rendered.startswith("const { relight } = await import(")
    drawn = other.evaluate("async () => { " + rendered + " return [view.mode, view.width]; }")
    assert drawn == ["webgl", 480]


def test_a_server_without_a_model_says_so_at_once(open_page, tmp_path):
    settings = load(jobs_dir=tmp_path / "jobs", models_dir=tmp_path / "none")
    with serving(create_app(settings)) as address:

        class Served:
            url = address + "/"

        page = open_page(server=Served)
        page.watch.expect("503")
        page.get_by_role("alert").get_by_text("export_models.py").wait_for()


def test_a_model_that_does_not_see_is_lit_by_the_server(open_page, tmp_path):
    from fakes import SphereEngine

    for engine, live in ((SphereEngine(), False), (SeeingEngine(), True)):
        with serving(create_app(load(jobs_dir=tmp_path / str(live)), engine)) as address:

            class Served:
                url = address + "/"

            page = open_page(server=Served)
            page.live = live
            path = tmp_path / "photo.png"
            path.write_bytes(encoded(gradient(90, 120)))
            choose(page, path)
            page.get_by_role("button", name="Rim").click()
            settled(page)
            page.wait_for_timeout(300)
            assert page.evaluate("'live' in document.body.dataset") == live


def test_the_page_asks_for_all_its_modules_at_once_and_for_no_more_than_it_needs(open_page):
    page = open_page()
    page.wait_for_load_state("networkidle")
    asked, hinted = page.evaluate("""() => [
      performance.getEntriesByType('resource').map(({ name }) => name).filter((name) => name.endsWith('.js')),
      [...document.querySelectorAll('link[rel=modulepreload]')].map(({ href }) => href),
    ]""")
    assert {name for name in asked if not name.endswith("/app.js")} == set(hinted)
    assert not any(name.endswith("relight.js") for name in asked)


def test_surroundings_light_the_photo_and_turn_with_the_ball(open_page, photo):
    page = open_page()
    choose(page, photo)
    plain = on_screen(page)
    page.get_by_label("Light from all around").select_option("sky-sunset")
    settled(page)
    sunset = on_screen(page)
    assert (sunset - plain)[..., 0].mean() > (sunset - plain)[..., 2].mean() + 5  # it is red
    ball = page.locator("#environment-ball")
    ball.scroll_into_view_if_needed()
    box = ball.bounding_box()
    page.mouse.move(box["x"] + 10, box["y"] + 30)
    page.mouse.down()
    page.mouse.move(box["x"] + 60, box["y"] + 30, steps=5)
    page.mouse.up()
    settled(page)
    assert "environment=sky-sunset;rotation=125" in page.url
    assert abs(on_screen(page) - sunset).mean() > 1
    page.reload()
    settled(page)
    assert page.get_by_label("Light from all around").input_value() == "sky-sunset"
    page.get_by_role("button", name="Undo").click()
    settled(page)
    page.get_by_label("Light from all around").select_option("None")
    settled(page)
    assert abs(on_screen(page) - plain).mean() < 1 and "environment" not in page.url


def test_the_light_of_another_photo(open_page, server, photo, tmp_path):
    page = open_page()
    page.watch.expect("Failed to load resource")
    choose(page, photo)
    plain, mine = on_screen(page), job_id(page)
    other = tmp_path / "other whose name is rather long, as cameras and phones do it.png"
    other.write_bytes(encoded(gradient(200, 300)))
    with page.expect_response(lambda r: r.url.endswith("/upload")) as sent:
        page.get_by_label("Photo whose light to match").set_input_files(other)
    page.wait_for_timeout(300)
    settled(page)
    assert page.get_by_label("Light from all around").input_value() == "photo"
    words, choice = page.get_by_text("Light from all around", exact=True), page.get_by_label("Light from all around")
    words, choice, room = (place.bounding_box() for place in (words, choice, page.locator("#scene")))
    assert words["height"] < choice["height"], "on one line, however long the file's name is"
    assert words["x"] + words["width"] <= choice["x"] and choice["x"] + choice["width"] <= room["x"] + room["width"] + 1
    assert abs(on_screen(page) - plain).mean() > 0.5 and job_id(page) == mine
    server.call(f"job/{sent.value.json()['job_id']}", method="DELETE")
    page.get_by_role("button", name="From below").click()  # a preset brings its own surroundings: none
    settled(page)
    assert page.get_by_label("Light from all around").input_value() == ""
