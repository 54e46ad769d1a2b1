"""The page in a real browser against the real server with the real graphs.

Wants Chromium (on the PATH, or CHROMIUM=/path), the playwright package and, for axe-core, `npm ci` in the root.
Where one is missing these tests skip and say so; with CI=true they fail instead.
"""

import os
import time

import numpy as np
import pytest
from harness import FLAGS, READY, ROOT, Server, chromium, pixels
from PIL import Image

# A browser without WebGL2: the server draws every picture
BLIND = """{
  const real = HTMLCanvasElement.prototype.getContext;
  HTMLCanvasElement.prototype.getContext = function (kind, ...more) {
    return kind === 'webgl2' ? null : real.call(this, kind, ...more);
  };
}"""
AXE = ROOT / "node_modules" / "axe-core" / "axe.min.js"


def need(there, what):
    """Skips with a reason, or fails where everything should be there."""
    if there:
        return
    if os.environ.get("CI"):
        pytest.fail(f"{what}; in CI it must be there")
    pytest.skip(what)


@pytest.fixture(scope="session")
def serve(tmp_path_factory):
    """Starts servers with the given settings and stops them all at the end."""
    started = []

    def start(**settings):
        server = Server(tmp_path_factory.mktemp("jobs"), **settings)
        started.append(server)
        return server.start()

    yield start
    for server in started:
        server.stop()


@pytest.fixture(scope="session")
def server(serve):
    graphs = list((ROOT / "onnx_models").glob("*.onnx"))
    need(graphs, "no graph in onnx_models/: make them with `python export/export_models.py`")
    return serve()


@pytest.fixture(scope="session")
def browser():
    need(chromium(), "no Chromium: install it or set CHROMIUM to its path")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        need(False, "the playwright package is missing")
    with sync_playwright() as playwright:
        instance = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
        yield instance
        instance.close()


class Watch:
    """Everything a page complains about. A test names what it provokes with `expect`."""

    def __init__(self):
        self.heard = []
        self.expected = ["GPU stall due to ReadPixels"]  # without a GPU, the browser reads what WebGL drew

    def expect(self, *words):
        self.expected += words

    def listen(self, page):
        page.on(
            "console",
            lambda m: m.type in ("error", "warning") and self.heard.append(f"{m.text} {m.location.get('url', '')}"),
        )
        page.on("pageerror", lambda e: self.heard.append(f"uncaught: {e}"))
        page.add_init_script(
            "addEventListener('securitypolicyviolation', (e) => console.error('CSP violation: ' + e.violatedDirective))"
        )

    def check(self):
        unexpected = [line for line in self.heard if not any(words in line for words in self.expected)]
        assert not unexpected, "the console is not clean:\n" + "\n".join(unexpected)


@pytest.fixture
def open_page(browser, server):
    """open_page(hash='', server=…, width=…, …) -> a page; afterwards no page may have complained."""
    watch = Watch()
    contexts = []

    def make(hash="", server=server, width=1280, height=800, context=None, live=True, **options):
        if context is None:
            options = {"reduced_motion": "reduce", "color_scheme": options.pop("scheme", "dark"), **options}
            context = browser.new_context(viewport={"width": width, "height": height}, accept_downloads=True, **options)
            context.set_default_timeout(30_000)
            contexts.append(context)
        page = context.new_page()
        page.watch, page.live = watch, live
        if not live:
            page.add_init_script(BLIND)
        watch.listen(page)
        page.on("filechooser", lambda chooser: None)  # from now on, not only once somebody waits for it
        page.goto(server.url + hash)
        return page

    make.watch = watch
    yield make
    for context in contexts:
        context.close()
    watch.check()


@pytest.fixture
def bare(open_page):
    """A page of the server's own, with its policy, and nothing on it."""

    def make(server=None, **options):
        page = open_page("health", **({"server": server} if server else {}), **options)
        page.watch.expect("favicon.ico")  # which only the page names
        return page

    return make


@pytest.fixture(scope="session")
def photo(tmp_path_factory):
    """A matt ball before a wall, lit evenly: any side that is brighter afterwards comes from the light asked for."""
    height, width = 360, 480
    y, x = np.mgrid[:height, :width]
    radius = 125
    d = np.hypot(x - width / 2, y - height / 2) / radius
    facing = np.sqrt(np.clip(1 - d**2, 0, 1))
    ball = 95 + 70 * facing
    wall = 120 + 12 * np.sin(x / 17) * np.sin(y / 23)
    share = np.clip((1 - d) * radius + 0.5, 0, 1)
    grey = ball * share + wall * (1 - share)
    picture = np.stack([grey * 1.08, grey, grey * 0.92], -1) + np.random.default_rng(7).normal(0, 2, (height, width, 1))
    path = tmp_path_factory.mktemp("photo") / "ball.png"
    Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8)).save(path)
    return path


def until(page, condition, seconds=30):
    """Waits for a JavaScript condition. Playwright's own wait_for_function needs an eval that our policy forbids."""
    deadline = time.monotonic() + seconds
    while not page.evaluate(condition):
        assert time.monotonic() < deadline, f"never true: {condition}"
        page.wait_for_timeout(30)


def settled(page):
    """Waits until the newest look is on the screen, sharp."""
    page.wait_for_timeout(30)  # what was just clicked has been heard
    page.wait_for_selector(READY + ("[data-live]" if page.live else ""))
    until(page, "!document.getAnimations().some((a) => a.playState === 'running')")
    page.wait_for_timeout(50)


def choose(page, file):
    """Opens a photo through the file field and waits for its first relit frame."""
    page.get_by_label("Open photo").set_input_files(file)
    settled(page)


def handle(page, number):
    return page.get_by_role("button", name=f"Light {number}", exact=True)


def middle(locator):
    box = locator.bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def on_screen(page, bare=True):
    """The pixels of the photo as they stand on the screen, without the handles: (H, W, 3)."""
    if bare:
        page.evaluate("document.querySelector('#stage').toggleAttribute('data-bare', true)")
        page.evaluate("document.activeElement?.blur()")
    stage = page.locator("#canvas").bounding_box()
    shot = pixels(page.screenshot())
    if bare:
        page.evaluate("document.querySelector('#stage').toggleAttribute('data-bare', false)")
    x, y, w, h = (float(v) for v in page.locator("#canvas").get_attribute("data-box").split())
    scale = shot.shape[1] / page.viewport_size["width"]
    left, top = (stage["x"] + x) * scale, (stage["y"] + y) * scale
    return shot[round(top) + 2 : round(top + h * scale) - 2, round(left) + 2 : round(left + w * scale) - 2]


def job_id(page):
    return page.evaluate("JSON.parse(sessionStorage.getItem('relight.job')).id")
