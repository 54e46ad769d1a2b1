"""/docs in the browser: every endpoint is listed and requests can be tried, with keys and without, under our policy."""

import json

import pytest
from conftest import until


def endpoint(page, method, path):
    """The box of an endpoint, open."""
    box = page.locator(".opblock", has=page.locator(f"[data-path='{path}']")).and_(page.locator(f".opblock-{method}"))
    box.locator(".opblock-summary-control").click()
    box.locator(".opblock-body").wait_for()
    return box


def sent(box):
    """Send the request; returns (status, body as text) of the answer it shows."""
    box.get_by_role("button", name="Execute").click()
    live = box.locator(".live-responses-table .response")
    live.wait_for()
    status = live.locator(".response-col_status").inner_text().split()[0]
    return int(status), live.locator("pre").first.inner_text() if live.locator("pre").count() else ""


def test_every_endpoint_is_listed(open_page, server):
    page = open_page("docs")
    page.locator(".opblock").first.wait_for()
    shown = set()
    for box in page.locator(".opblock").all():
        method = box.locator(".opblock-summary-method").inner_text().lower()
        shown.add((method, box.locator("[data-path]").get_attribute("data-path")))
    paths = server.json("openapi.json")["paths"]
    assert shown == {(method, path) for path, methods in paths.items() for method in methods}


def test_requests_can_be_tried(open_page, server, photo):
    """A photo is uploaded, relit and looked at without leaving the page."""
    page = open_page("docs")
    upload = endpoint(page, "post", "/upload")
    upload.locator("input[type=file]").set_input_files(photo)
    status, text = sent(upload)
    assert status == 200
    job = json.loads(text)["job_id"]
    relight = endpoint(page, "post", "/relight")
    relight.locator("textarea").fill(json.dumps({"job_id": job, "x": -0.6, "y": 0.4, "z": 0.7}))
    assert sent(relight)[0] == 200
    download = endpoint(page, "get", "/download/{job_id}/{filename}")
    download.locator("[data-param-name=job_id] input").fill(job)
    download.locator("[data-param-name=filename] select").select_option("relit.png")
    assert sent(download)[0] == 200
    until(page, "[...document.querySelectorAll('.live-responses-table img')].some((i) => i.naturalWidth === 480)")


def test_a_refused_request_shows_our_error(open_page):
    page = open_page("docs")
    page.watch.expect("Failed to load resource")
    relight = endpoint(page, "post", "/relight")
    relight.locator("textarea").fill('{"job_id": "nobody", "x": 0, "y": 0, "z": 1}')
    status, text = sent(relight)
    assert status == 404 and json.loads(text)["code"] == "job_not_found"


@pytest.fixture(scope="module")
def keyed(serve):
    return serve(api_keys="key-one-5f3a", decoders=0)


def test_requests_can_be_tried_with_a_key(open_page, keyed):
    page = open_page("docs", server=keyed)
    page.watch.expect("401")
    models = endpoint(page, "get", "/models")
    status, text = sent(models)
    assert status == 401 and json.loads(text)["code"] == "unauthorized"
    page.get_by_role("button", name="Authorize", exact=True).click()
    dialog = page.locator(".dialog-ux")
    dialog.locator("input").fill("key-one-5f3a")
    dialog.get_by_role("button", name="Apply credentials").click()
    dialog.get_by_role("button", name="Close", exact=True).click()
    status, text = sent(models)
    assert status == 200 and json.loads(text)["defaults"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_follows_the_colour_scheme(open_page, scheme):
    page = open_page("docs", scheme=scheme)
    page.locator(".opblock").first.wait_for()
    red, green, blue = page.evaluate(
        "getComputedStyle(document.querySelector('.info .title')).color.match(/\\d+/g).slice(0, 3).map(Number)"
    )
    assert (red + green + blue > 382) == (scheme == "dark")
