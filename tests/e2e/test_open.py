"""A photo comes in: chosen, dropped, pasted, the example; and what is no photo is refused in words."""

import base64
import json

import pytest
from conftest import READY, ROOT, choose, job_id, need, on_screen, pixels, settled

from server.jobs.record import STAGES

FILE_IN_PAGE = (
    "([data, name]) => new File([Uint8Array.from(atob(data), (c) => c.charCodeAt(0))], name, { type: 'image/png' })"
)


def as_file(page, path):
    return page.evaluate_handle(FILE_IN_PAGE, [base64.b64encode(path.read_bytes()).decode(), path.name])


def test_upload_by_file_chooser(open_page, server, photo):
    page = open_page()
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Choose a photo").click()
    chooser.value.set_files(photo)
    settled(page)
    state = server.json(f"job/{job_id(page)}")
    assert state["state"] == "ready"
    assert (state["width"], state["height"]) == pixels(photo.read_bytes()).shape[1::-1]
    assert "480 × 360" in page.locator("#readout").inner_text()
    assert "ms" in page.locator("#readout").inner_text()


@pytest.mark.parametrize("way", ["drop", "paste"])
def test_upload_by(way, open_page, photo):
    page = open_page()
    page.evaluate(
        """([way, file]) => {
        const data = new DataTransfer();
        data.items.add(file);
        const options = { bubbles: true, cancelable: true };
        const fire = (event) => document.querySelector('#stage').dispatchEvent(event);
        if (way === 'paste') fire(new ClipboardEvent('paste', { ...options, clipboardData: data }));
        else for (const type of ['dragenter', 'dragover', 'drop'])
            fire(new DragEvent(type, { ...options, dataTransfer: data }));
    }""",
        [way, as_file(page, photo)],
    )
    page.wait_for_selector(READY)
    assert page.title().startswith("ball")
    assert not page.locator(".dropzone").is_visible()


def test_stages_are_named_while_the_photo_is_read(open_page, photo):
    page = open_page()
    page.evaluate("""() => {
        window.seen = new Set();
        new MutationObserver(() => window.seen.add(document.querySelector('#work-label').textContent))
          .observe(document.querySelector('#work-label'), { childList: true, characterData: true, subtree: true });
    }""")
    choose(page, photo)
    seen = set(page.evaluate("[...window.seen]"))
    assert "Sending the photo" in seen
    assert len(seen - {""}) >= 2, seen
    assert not page.locator("#work").is_visible()


def test_the_page_names_the_servers_stages_one_to_one(open_page):
    stages = list(STAGES)
    words = open_page().evaluate("import('./static/notices.js').then((notices) => notices.SERVER_STAGES)")
    assert list(words) == stages and "fitting" in stages
    assert len(set(words.values())) == len(stages)


def test_the_example(open_page, server):
    need((ROOT / "server/static/example.jpg").exists(), "server/static/example.jpg is missing")
    page = open_page()
    page.get_by_role("button", name="Try the example").click()
    settled(page)
    assert on_screen(page).std() > 10


@pytest.mark.parametrize("content", [b"no picture at all", None, b""], ids=["text", "cut short", "empty"])
def test_a_bad_file_is_refused_in_the_servers_words(open_page, server, photo, content):
    content = photo.read_bytes()[:-5000] if content is None else content
    boundary = "limit"
    body = (
        b'--limit\r\nContent-Disposition: form-data; name="file"; filename="bad.png"\r\nContent-Type: image/png\r\n\r\n'
    )
    status, answer = server.call(
        "upload",
        body + content + b"\r\n--limit--\r\n",
        method="POST",
        headers={"Content-Type": f"multipart/form-data; boundary={boundary}"},
    )
    assert 400 <= status < 500
    detail = json.loads(answer)["detail"]
    page = open_page()
    page.watch.expect("Failed to load resource")
    page.get_by_label("Open photo").set_input_files({"name": "bad.png", "mimeType": "image/png", "buffer": content})
    alert = page.get_by_role("alert").filter(has_text=detail)
    alert.wait_for()
    assert page.locator("body").get_attribute("data-state") == "empty"
    choose(page, photo)  # and the next good one works
    assert not alert.is_visible()


def test_a_bad_file_leaves_the_photo_before_it(open_page, photo):
    page = open_page()
    page.watch.expect("Failed to load resource")
    choose(page, photo)
    before, job = on_screen(page), job_id(page)
    page.get_by_label("Open photo").set_input_files({"name": "bad.png", "mimeType": "image/png", "buffer": b"bad"})
    page.get_by_role("button", name="Dismiss").click()
    settled(page)
    page.wait_for_timeout(400)
    assert job_id(page) == job
    assert abs(on_screen(page) - before).mean() < 3


def test_the_page_frees_its_memory(open_page, photo):
    page = open_page()
    page.add_init_script("""
        window.alive = 0;
        const make = window.createImageBitmap;
        window.createImageBitmap = async (...args) => {
            const bitmap = await make(...args);
            window.alive += 1;
            return bitmap;
        };
        const close = ImageBitmap.prototype.close;
        ImageBitmap.prototype.close = function () { if (this.width) window.alive -= 1; close.call(this); };
    """)
    page.reload()
    for _ in range(2):
        choose(page, photo)
        page.get_by_label("Depth", exact=True).check()
        page.wait_for_timeout(300)
        page.get_by_label("Relit", exact=True).check()
        page.get_by_role("button", name="Compare").click()
        page.wait_for_timeout(300)
    assert 1 <= page.evaluate("window.alive") <= 4
    page.get_by_role("button", name="Delete").click()
    page.wait_for_selector("body[data-state=empty]")
    assert page.evaluate("window.alive") == 0
