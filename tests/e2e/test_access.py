"""For everyone: keyboard, screen reader, reduced motion, light and dark, phone to 4K."""

import json
import os

import pytest
from conftest import AXE, choose, handle, job_id, need, on_screen, settled, until
from harness import HERE


def axe(page):
    """Violations that are serious or worse."""
    need(AXE.exists(), "axe-core is missing: npm ci")
    page.evaluate(AXE.read_text())  # through the debugger, so the page's own policy stays in force
    result = page.evaluate("async () => (await axe.run(document, { resultTypes: ['violations'] })).violations")
    return [
        f"{v['id']}: {n['html']} {n['failureSummary']}"
        for v in result
        if v["impact"] in ("serious", "critical")
        for n in v["nodes"]
    ]


@pytest.mark.parametrize("scheme", ["dark", "light"])
@pytest.mark.parametrize("size", [(390, 844), (1280, 800)])
def test_axe_finds_nothing_serious(open_page, photo, scheme, size):
    page = open_page(width=size[0], height=size[1], scheme=scheme)
    page.watch.expect("Failed to load resource")
    assert axe(page) == []
    page.get_by_label("Open photo").set_input_files({"name": "bad.png", "mimeType": "image/png", "buffer": b"bad"})
    page.get_by_role("alert").filter(has_text=" ").wait_for()
    assert axe(page) == []
    choose(page, photo)
    page.get_by_label("Spot", exact=True).check()
    page.get_by_role("button", name="Compare").click()
    page.get_by_text("Keyboard", exact=True).click()
    settled(page)
    assert axe(page) == []
    page.get_by_role("button", name="As code").click()
    assert axe(page) == []


def tab_to(page, locator, limit=80):
    for _ in range(limit):
        page.keyboard.press("Tab")
        if locator.evaluate("(e) => e === document.activeElement"):
            outlined = page.evaluate("""() => {
                const e = document.activeElement;
                const seen = [e, e.nextElementSibling, e.closest('label')].filter(Boolean);
                const outlined = (s) => s.outlineStyle !== 'none' && parseFloat(s.outlineWidth) > 1;
                return seen.some((n) => outlined(getComputedStyle(n)));
            }""")
            assert outlined, "the focus cannot be seen"
            return
    raise AssertionError(f"Tab never comes to {locator}")


def test_keyboard_only(open_page, server, photo):
    page = open_page()
    tab_to(page, page.get_by_label("Open photo"))
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    chooser.value.set_files(photo)
    settled(page)
    dim = on_screen(page)
    tab_to(page, handle(page, 1))
    for _ in range(5):
        page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("PageDown")
    settled(page)
    assert "directional:-0.1,0.42,0.6" in page.url
    assert abs(on_screen(page) - dim).mean() > 0.3
    page.wait_for_timeout(600)
    assert "left 0.10, up 0.42, in front 0.60" in page.get_by_role("status").inner_text()
    page.keyboard.press("Control+z")
    until(page, "!location.hash.includes('0.42')")
    tab_to(page, page.get_by_role("button", name="Compare"))
    page.keyboard.press("Space")
    tab_to(page, page.get_by_role("slider", name="Before and after"))
    page.keyboard.press("ArrowLeft")
    tab_to(page, page.get_by_label("Ambient"))
    page.keyboard.press("ArrowRight")
    settled(page)
    assert f"ambient={server.json('models')['defaults']['ambient'] + 0.01:.2f}" in page.url
    page.keyboard.press("Delete")
    settled(page)
    assert "ambient" not in page.url
    tab_to(page, page.get_by_role("button", name="Download"))
    with page.expect_download() as download:
        page.keyboard.press("Enter")
    assert download.value.path().stat().st_size > 1000
    job = job_id(page)
    tab_to(page, page.get_by_role("button", name="Delete"))
    page.keyboard.press("Enter")
    page.wait_for_selector("body[data-state=empty]")
    assert server.call(f"job/{job}")[0] == 404
    assert page.evaluate("document.activeElement.id") == "choose"


def test_one_name_for_one_thing(open_page, photo):
    """Names that a test or a voice user relies on are there, once each."""
    page = open_page("#light=directional:0,0,1&light=point:0.4,0.1,0.5")
    choose(page, photo)
    for name in ("Light 1", "Light 2", "Download", "Delete", "Compare", "Undo", "Redo"):
        assert page.get_by_role("button", name=name).count() == 1, name
    assert page.locator("input[type=file]").count() == 2
    for name in ("Open photo", "Photo whose light to match"):
        assert page.get_by_label(name).get_attribute("type") == "file"
    unnamed = page.evaluate("""() => [...document.querySelectorAll('button, input, [role=slider]')].filter((e) =>
        !(e.ariaLabel || e.textContent.trim() || e.labels?.length || e.getAttribute('aria-labelledby')))
        .map((e) => e.outerHTML)""")
    assert unnamed == []


def test_motion_only_for_those_who_want_it(open_page, photo):
    page = open_page(reduced_motion="no-preference")
    first = page.locator("#hero-ball").screenshot()
    page.wait_for_timeout(300)
    assert page.locator("#hero-ball").screenshot() != first
    page = open_page()
    page.wait_for_timeout(200)
    first = page.locator("#hero-ball").screenshot()
    page.wait_for_timeout(300)
    assert page.locator("#hero-ball").screenshot() == first
    page.get_by_label("Open photo").set_input_files(photo)
    page.wait_for_selector("body[data-state=busy]")
    assert page.evaluate("document.getAnimations().length") == 0
    settled(page)
    assert page.evaluate("document.getAnimations().length") == 0


# What of the tools under the picture, or of the panel's buttons, lies beyond its edge
CUT = """() => {
  const cut = [];
  for (const [box, inside] of [['.tools', '*'], ['#stage', '.tools'], ['.tools .segments', 'label'],
      ['.panel > section', 'button, select']]) {
    for (const outer of document.querySelectorAll(box)) {
      const room = outer.getBoundingClientRect();
      for (const inner of outer.querySelectorAll(inside)) {
        const { left, right, width } = inner.getBoundingClientRect();
        if (!width) continue; // it is not shown
        const slides = inner.closest('.presets') !== null;
        const words = inner.matches('button:not(.chip), label') && inner.scrollWidth > inner.clientWidth;
        if (!slides && (left < room.left - 1 || right > room.right + 1) || words) cut.push(inner.outerHTML);
      }
    }
  }
  return cut;
}"""


@pytest.mark.parametrize(
    "size", [(320, 640), (390, 844), (844, 390), (667, 375), (821, 900), (1280, 800), (2560, 1440)]
)
def test_fits_the_screen(open_page, photo, size):
    phone = size[0] < 900
    page = open_page(
        "#light=directional:1.3,0.9,0.4&light=point:-1.5,-1,0.5",
        width=size[0],
        height=size[1],
        scheme="light" if size[0] % 20 else "dark",
        has_touch=phone,
        is_mobile=phone,
    )
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
    assert page.get_by_role("button", name="Choose a photo").is_visible()
    choose(page, photo)
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
    stage = page.locator("#stage").bounding_box()
    for number in (1, 2):  # within reach, however far out the light is
        box = handle(page, number).bounding_box()
        assert box["x"] >= stage["x"] and box["x"] + box["width"] <= stage["x"] + stage["width"]
        assert min(box["width"], box["height"]) >= 44
    for name in ("Download", "Compare", "Undo"):
        box = page.get_by_role("button", name=name).bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= size[0], name
        assert min(box["width"], box["height"]) >= 24, name
    assert page.evaluate(CUT) == []
    picture = json.loads("[" + page.locator("#canvas").get_attribute("data-box").replace(" ", ",") + "]")
    assert picture[2] * picture[3] > 0.2 * stage["width"] * stage["height"]
    page.get_by_role("button", name="As code").click()
    last, copy = page.get_by_text("JavaScript").bounding_box(), page.get_by_role("button", name="Copy", exact=True)
    copy = copy.bounding_box()
    assert last["x"] + last["width"] <= copy["x"] or last["y"] + last["height"] <= copy["y"], "one lies over the other"
    page.keyboard.press("Escape")
    if os.environ.get("E2E_SHOTS"):
        (HERE / "shots").mkdir(exist_ok=True)
        page.screenshot(path=HERE / "shots" / f"{size[0]}x{size[1]}.png")
