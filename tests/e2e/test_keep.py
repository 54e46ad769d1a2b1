"""Keeping and passing on: downloads, links, code, delete, undo."""

import os
import subprocess
import sys

import numpy as np
import pytest
from conftest import choose, handle, job_id, middle, on_screen, pixels, settled

LOOK = (
    "#light=point:0.5,0.3,0.6;radius=0.2;temperature=3200&light=directional:-1,0.2,0.4;intensity=0.4;shadow=0"
    "&ambient=0.2&specular.strength=0.3&auto=1"
)


def rig(page):
    """What the controls show of the rig."""
    return page.locator("#light input[type=range]:visible, #scene input[type=range]").evaluate_all(
        "(all) => all.map((e) => e.value)"
    )


def test_download_is_what_the_api_serves(open_page, server, photo):
    page = open_page(LOOK)
    choose(page, photo)
    with page.expect_download() as download:
        page.get_by_role("button", name="Download").click()
    assert download.value.suggested_filename == "ball-relit.png"
    status, content = server.call(f"download/{job_id(page)}/relit.png")
    assert status == 200
    assert download.value.path().read_bytes() == content
    for name in ("depth", "normals", "input"):
        with page.expect_download() as download:
            page.get_by_role("button", name=f"Save {name}").click()
        assert download.value.suggested_filename == f"ball-{name}.png"
        assert download.value.path().read_bytes() == server.call(f"download/{job_id(page)}/{name}.png")[1]


def test_delete(open_page, server, photo):
    page = open_page()
    choose(page, photo)
    job = job_id(page)
    assert (server.jobs / job).exists()
    page.get_by_role("button", name="Delete").click()
    page.wait_for_selector("body[data-state=empty]")
    assert server.call(f"job/{job}")[0] == 404
    assert not (server.jobs / job).exists()
    assert "Deleted" in page.get_by_role("status").inner_text()
    page.get_by_role("button", name="Upload again").click()
    settled(page)
    assert job_id(page) != job


def test_what_was_sent_for_its_light_is_deleted_too(open_page, server, photo):
    page = open_page()
    choose(page, photo)
    with page.expect_response(lambda answer: answer.url.endswith("/upload")) as sent:
        page.get_by_label("Photo whose light to match").set_input_files(photo)
    other = sent.value.json()["job_id"]
    page.wait_for_timeout(300)
    settled(page)
    assert page.get_by_label("Light from all around").input_value() == "photo" and (server.jobs / other).exists()
    with page.expect_response(lambda answer: answer.url.endswith(other)):
        page.get_by_role("button", name="Delete").click()
    assert server.call(f"job/{other}")[0] == 404 and not (server.jobs / other).exists()
    page.get_by_role("button", name="Upload again").click()
    settled(page)
    assert page.get_by_label("Light from all around").input_value() == ""


def test_a_slow_delete_closes_no_other_photo(open_page, server, photo):
    page = open_page()
    choose(page, photo)
    first, held = job_id(page), []
    page.route("**/job/*", lambda route: held.append(route) if route.request.method == "DELETE" else route.continue_())
    page.get_by_role("button", name="Delete").click()
    choose(page, photo)
    second = job_id(page)
    with page.expect_response(lambda r: r.request.method == "DELETE"):
        held[0].continue_()
    page.wait_for_timeout(200)
    assert server.call(f"job/{first}")[0] == 404
    assert page.locator("body").get_attribute("data-state") == "ready" and job_id(page) == second
    page.reload()  # and it is the one that a reload brings back
    settled(page)
    assert job_id(page) == second


def test_undo_redo_and_the_back_button(open_page, photo):
    page = open_page()
    choose(page, photo)
    first, url = rig(page), page.url
    assert page.get_by_role("button", name="Undo").is_disabled()
    page.get_by_role("button", name="Golden hour").click()
    settled(page)
    golden, golden_url, picture = rig(page), page.url, on_screen(page)
    assert golden != first
    page.get_by_role("button", name="From below").click()
    settled(page)
    page.go_back()
    settled(page)
    assert (rig(page), page.url) == (golden, golden_url)
    assert abs(on_screen(page) - picture).mean() < 1
    page.get_by_role("button", name="Undo").click()
    page.wait_for_url(url)
    settled(page)
    assert rig(page) == first
    assert page.get_by_role("button", name="Undo").is_disabled()
    page.keyboard.press("Control+Shift+z")
    page.wait_for_url(golden_url)
    page.keyboard.press("Control+y")
    page.wait_for_url(lambda u: u not in (url, golden_url))
    page.keyboard.press("Control+z")
    page.wait_for_url(golden_url)
    settled(page)
    assert rig(page) == golden


def test_a_drag_is_one_step_back(open_page, photo):
    page = open_page()
    choose(page, photo)
    url = page.url
    x, y = middle(handle(page, 1))
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 200, y + 60, steps=15)
    page.mouse.up()
    settled(page)
    assert page.url != url
    page.go_back()
    page.wait_for_url(url)


def test_a_shared_link_restores_the_look(open_page, photo):
    page = open_page(LOOK)
    choose(page, photo)
    picture, controls = on_screen(page), rig(page)
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy link").click()
    link = page.evaluate("navigator.clipboard.readText()")
    assert job_id(page) not in link  # the look is shared, the photo is not
    other = open_page("#" + link.split("#")[1])
    other.get_by_text("This link holds a look").wait_for()
    choose(other, photo)
    assert rig(other) == controls
    assert handle(other, 2).is_visible()
    assert abs(on_screen(other) - picture).mean() < 1


def test_reload_brings_photo_and_look_back(open_page, photo):
    page = open_page(LOOK)
    choose(page, photo)
    job, picture = job_id(page), on_screen(page)
    page.reload()
    settled(page)
    assert job_id(page) == job
    assert abs(on_screen(page) - picture).mean() < 1


HOSTILE = [
    "#light=directional:NaN,Infinity,x",
    "#light=directional:0,0,0",
    "#light=spot:1,1,1;target=1,1,1",
    "#light=point:1e999,-5,3;radius=-9;range=0;color=zz%3Cscript%3E",
    "#" + "light=point:0,0,1&" * 40,
    "#light=%00:%ff",
    "#light=__proto__:1,2,3",
    "#ambient=<img src=x onerror=alert(1)>",
    "#light=directional:9e9,-9e9,1;angle=1e9;temperature=-5&exposure=99&strength=-1",
    "#",
    "#light=",
    "#light=directional:0.5,0.5,0.7;color=000000",
    "#light=directional:0,0,1&auto=perhaps&exposure=auto",
]


@pytest.mark.parametrize("live", [True, False], ids=["here", "by the server"])
def test_whatever_the_address_holds_the_light_asked_for_is_valid(open_page, photo, live):
    page = open_page(HOSTILE[0], live=live)
    choose(page, photo)
    answers = []
    page.on("response", lambda r: r.url.endswith("/preview") and answers.append(r.status))
    for hash in HOSTILE:
        page.evaluate("(hash) => { location.hash = hash; }", hash)
        page.wait_for_timeout(50)
        settled(page)
        assert handle(page, 1).is_visible(), hash
        assert not page.get_by_role("alert").filter(has_text=" ").is_visible(), hash
    assert live or (set(answers) == {200} and len(answers) >= 5)
    page.get_by_role("button", name="Undo").click()  # each was a step of its own
    settled(page)


@pytest.mark.parametrize("language", ["JSON", "curl", "Python"])
def test_code_makes_the_picture_of_the_page(open_page, server, photo, tmp_path, language):
    page = open_page(LOOK)
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    choose(page, photo)
    with page.expect_download() as download:
        page.get_by_role("button", name="Download").click()
    want = pixels(download.value.path().read_bytes())
    page.get_by_role("button", name="As code").click()
    page.get_by_label(language, exact=True).check()
    page.get_by_role("button", name="Copy", exact=True).click()
    code = page.evaluate("navigator.clipboard.readText()")
    server.call("relight", {"job_id": job_id(page), "x": 1, "y": 0, "z": 0})  # something else in between
    assert not np.array_equal(server.picture(f"download/{job_id(page)}/relit.png"), want)
    if language == "JSON":
        status, answer = server.call("relight", code.encode(), headers={"Content-Type": "application/json"})
        assert status == 200, answer
        made = server.call(f"download/{job_id(page)}/relit.png")[1]
    else:
        command = ["bash", "-ec", code] if language == "curl" else [sys.executable, "-c", code]
        subprocess.run(
            command, cwd=tmp_path, check=True, timeout=60, env={"PATH": os.environ["PATH"]}, capture_output=True
        )
        made = (tmp_path / "relit.png").read_bytes()
    assert np.array_equal(pixels(made), want)  # pixels: the same may be compressed in more than one way
