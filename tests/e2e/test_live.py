"""relight.js: the browser lights the photo as the server does, and tells people what goes wrong."""

import functools
import http.server
import json
import re
import threading

import numpy as np
import pytest
from conftest import until
from fakes import SeeingEngine, SphereEngine
from harness import ROOT, pixels
from PIL import Image
from support import encoded, gradient, serving
from views import REFUSED, apart, bodies, open_view, photo, relit, rendered, upload

from server.application import create_app

PHOTOS = ("chelsea.png", "coffee.png", "astronaut.png")
SUN = {"x": -0.6, "y": 0.4, "z": 0.7}


@pytest.fixture(scope="module")
def cat(server):
    return upload(server, photo("chelsea.png"))


@pytest.mark.parametrize("k, name", list(enumerate(PHOTOS)))
def test_the_same_light(bare, server, k, name):
    page = bare()
    job = upload(server, photo(name))
    assert open_view(page, server, job)["mode"] == "webgl"
    requests = []
    page.on("request", lambda request: requests.append(request.url))
    for body in [*bodies(32)[k::4], bodies(32)[4 * k + 3]]:
        found, drawn = rendered(page, body)
        mean, within, most = apart(found, relit(server, job, body))
        assert mean <= 0.5 and within >= 0.999, (body, mean, within, most)
        assert drawn["mode"] == "webgl" and (drawn["height"], drawn["width"]) == found.shape[:2]
    assert not requests


def test_another_light_is_another_picture(bare, server, cat):
    """Else the test above could be passed by a picture that nothing changes."""
    page = bare()
    open_view(page, server, cat)
    wrong = rendered(page, {"x": 0.9, "y": 0.1, "z": 0.3})[0]
    assert apart(wrong, relit(server, cat, {"x": -0.9, "y": 0.1, "z": 0.3}))[0] > 3


def test_at_strength_0_the_photo_is_itself_to_the_code(bare, server):
    rgba = np.dstack([gradient(97, 131), np.arange(97 * 131).reshape(97, 131) % 256]).astype(np.uint8)
    page = bare()
    assert open_view(page, server, upload(server, rgba))["mode"] == "webgl"
    assert np.array_equal(rendered(page, {**SUN, "strength": 0})[0], rgba)
    lit = rendered(page, SUN)[0]
    assert np.array_equal(lit[..., 3], rgba[..., 3]) and not np.array_equal(lit, rgba)


@pytest.mark.parametrize("size", [(1, 1), (3, 7), (41, 300), (257, 255)])
def test_odd_sizes(bare, server, size):
    picture = gradient(*size)
    job = upload(server, picture)
    page = bare()
    told = open_view(page, server, job)
    assert (told["height"], told["width"]) == size
    for body in (SUN, {"lights": [{"type": "point", "position": [0.3, 0.2, 0.8]}], "specular": {"strength": 0.5}}):
        mean, within, most = apart(rendered(page, body)[0], relit(server, job, body))
        assert mean <= 0.5 and (within >= 0.999 or most <= 4), (body, mean, within, most)


def test_the_light_of_another_photo_is_the_servers_and_comes_the_same_way(bare, server, cat):
    other = upload(server, photo("coffee.png"))
    page = bare()
    open_view(page, server, cat)
    body = {"environment": {"type": "photo", "job_id": other}}
    found, drawn = rendered(page, body)
    mean, _, _ = apart(found, relit(server, cat, body))
    assert mean < 4 and drawn["mode"] == "preview"  # a JPEG
    assert apart(found, relit(server, cat, SUN))[0] > mean
    assert rendered(page, SUN)[1]["mode"] == "webgl"
    page.watch.expect("Failed to load resource")
    assert page.evaluate(REFUSED, {"environment": {"type": "upload"}})["code"] == "environment_not_found"


def test_a_lost_context_comes_back_with_its_picture(bare, server, cat):
    page = bare()
    page.watch.expect("CONTEXT_LOST_WEBGL")
    open_view(page, server, cat)
    before, _ = rendered(page, SUN)
    page.evaluate("""() => {
      window.heard = [];
      for (const name of ['lost', 'restored', 'error']) view.addEventListener(name, () => heard.push(name));
      window.loss = view.canvas.getContext('webgl2').getExtension('WEBGL_lose_context');
      loss.loseContext();
    }""")
    until(page, "heard.length === 1")
    page.evaluate("() => { window.late = view.render({ x: 0.9, y: 0, z: 0.3 }); }")
    page.evaluate("() => loss.restoreContext()")
    until(page, "heard.length === 2")
    assert page.evaluate("heard") == ["lost", "restored"]
    assert page.evaluate("late") is not None
    assert np.array_equal(rendered(page, SUN)[0], before)


def test_another_size(bare, server):
    job = upload(server, np.tile(gradient(90, 160), (8, 8, 1)))
    page = bare()
    assert open_view(page, server, job, maxSide=512)["width"] == 512
    small, _ = rendered(page, SUN)
    page.evaluate("view.resize(1024)")
    large, _ = rendered(page)
    assert large.shape[:2] == (576, 1024) and small.shape[:2] == (288, 512)
    shrunk = np.asarray(Image.fromarray(large[..., :3]).resize((512, 288), Image.BOX))
    assert abs(shrunk.astype(int) - small[..., :3]).mean() < 3


def test_a_job_that_was_deleted_meanwhile(bare, server):
    job = upload(server, photo("coffee.png"))
    page = bare()
    page.watch.expect("Failed to load resource")
    open_view(page, server, job)
    before, _ = rendered(page, SUN)
    server.call(f"job/{job}", method="DELETE")
    refused = "view.resize(512).catch(({ code, message }) => [code, message])"
    code, sentence = page.evaluate(refused)
    assert code == "job_not_found" and sentence.endswith(".")
    assert np.array_equal(rendered(page)[0], before)  # the picture stays
    assert rendered(page, {"x": 1, "y": 0, "z": 1})[1]["mode"] == "webgl"  # and can still be lit
    gone = page.evaluate(
        """async (job) => (await import('/static/relight.js')).relight(
      document.createElement('canvas'), { jobId: job }).catch(({ name, code, status }) => [name, code, status])""",
        job,
    )
    assert gone == ["RelightError", "job_not_found", 404]


def test_keys(bare, serve):
    own = serve(api_keys="the-key")
    job = upload(own, gradient(), Authorization="Bearer the-key")
    page = bare(own)
    page.watch.expect("Failed to load resource")
    refused = """async ([job, key]) => (await import('/static/relight.js')).relight(
      document.createElement('canvas'), { jobId: job, key }).catch(({ code }) => code)"""
    assert page.evaluate(refused, [job, None]) == "unauthorized"
    assert page.evaluate(refused, [job, "another"]) == "unauthorized"
    assert open_view(page, own, job, key="the-key")["mode"] == "webgl"
    assert rendered(page, SUN)[1]["mode"] == "webgl"


def test_what_the_server_refuses_is_refused_here_in_its_words(bare, server, cat):
    page = bare()
    open_view(page, server, cat)
    lamp = {"type": "point", "position": [0, 0, 1]}
    sun = {"type": "directional", "direction": [0, 0, 1]}
    wrong = [
        {},
        {"x": 1},
        {"x": 0, "y": 0, "z": 0},
        {**SUN, "lights": [lamp]},
        {**SUN, "preset": "rim"},
        {"preset": "rim", "lights": [lamp]},
        {"preset": "noon"},
        {"preset": 7},
        {"lights": []},
        {"lights": [lamp] * 17},
        {"lights": lamp},
        {"lights": [7]},
        {"lights": [{"type": "area"}]},
        {"lights": [{"position": [0, 0, 1]}]},
        {"lights": [{**lamp, "position": [0, 0]}]},
        {"lights": [{**lamp, "position": [0, 0, 1, 2]}]},
        {"lights": [{**lamp, "position": [0, 0, 101]}]},
        {"lights": [{**lamp, "position": "up"}]},
        {"lights": [{**lamp, "angle": 3}]},
        {"lights": [{**lamp, "range": 0}]},
        {"lights": [{**lamp, "radius": -1}]},
        {"lights": [{**lamp, "intensity": "bright"}]},
        {"lights": [{**lamp, "shadow": 1}]},
        {"lights": [{**lamp, "color": "red"}]},
        {"lights": [{**lamp, "color": "#000000"}]},
        {"lights": [{**lamp, "color": "#ffffff", "temperature": 5000}]},
        {"lights": [{**lamp, "temperature": 999}]},
        {"lights": [{**sun, "direction": [0, 0, 0]}]},
        {"lights": [{**sun, "angle": 91}, {**lamp, "cone": 3}]},
        {"lights": [{"type": "spot", "position": [0, 0, 1], "target": [0, 0, 1]}]},
        {"lights": [{"type": "spot", "position": [0, 0, 1], "target": [0, 0, 0], "cone": 0.5, "blend": 2}]},
        {**SUN, "ambient": -1},
        {**SUN, "ambient": True},
        {**SUN, "strength": 1.1, "delight": 2},
        {**SUN, "shadow": 1},
        {**SUN, "shadow": {"strength": 2}},
        {**SUN, "shadow": {"soft": 1}},
        {**SUN, "specular": {"roughness": 0.01}},
        {**SUN, "exposure": 6},
        {**SUN, "exposure": "bright"},
        {**SUN, "sparkle": 1},
        {"x": "left", "y": 0, "z": 1},
        {"environment": 3},
        {"environment": {"type": "area"}},
        {"environment": {"type": "preset"}},
        {"environment": {"type": "preset", "name": "sky-none"}},
        {"environment": {"type": "preset", "name": "sky-overcast", "rotation": 400}},
        {"environment": {"type": "preset", "name": "sky-overcast"}, "x": 1},
        {"environment": {"type": "preset", "name": "sky-overcast", "intensity": -1}, **SUN},
    ]
    before, _ = rendered(page, SUN)
    for body in wrong:
        status, content = server.call("relight", {**body, "job_id": cat})
        problem = json.loads(content)
        assert status == 422, (body, content)
        refused = page.evaluate(REFUSED, body)
        assert refused == {
            "name": "RelightError",
            "code": problem["code"],
            "status": 422,
            "message": problem["detail"],
        }, body
    assert np.array_equal(rendered(page)[0], before)
    for body in ({**SUN, "exposure": None}, {"lights": None, **SUN}, {"preset": "rim", "strength": 0.5}):
        assert page.evaluate(REFUSED, body) is None


def test_where_the_server_has_to_draw(bare, open_page, tmp_path):
    """A model that does not say what surfaces see, a browser without WebGL2, or by request: the same interface."""
    from server.settings import load

    for engine, blind in ((SphereEngine(), False), (SeeingEngine(), True)):
        folder = tmp_path / str(blind)
        with serving(create_app(load(jobs_dir=folder), engine)) as address:

            class Served:
                url = address + "/"

            page = bare(Served, live=not blind)
            job = page.evaluate(
                """async (data) => {
              const form = new FormData();
              form.append('file', new Blob([Uint8Array.from(data)]));
              return (await (await fetch('/upload', { method: 'POST', body: form })).json()).job_id;
            }""",
                list(encoded(gradient(90, 120))),
            )
            assert open_view(page, Served, job) == {
                "mode": "preview",
                "width": 120,
                "height": 90,
                "bytes": {"received": page.evaluate("view.bytes.received"), "gpu": 0},
            }
            found, drawn = rendered(page, SUN)
            jpeg = page.evaluate(
                """async (body) => Array.from(new Uint8Array(await (await fetch('/preview', {
              method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(body),
            })).arrayBuffer()))""",
                {**SUN, "job_id": job, "quality": 90},
            )
            assert drawn["mode"] == "preview" and drawn["exposure"] is None
            assert abs(found[..., :3] - pixels(bytes(jpeg))).mean() < 1
            assert page.evaluate(REFUSED, {**SUN, "ambient": 11})["code"] == "invalid_request"
            last = page.evaluate("""async () => {
              const ask = (k) => view.render({ x: k - 1.5, y: 0, z: 1 });
              const first = ask(0);
              await new Promise((resolve) => { setTimeout(resolve); }); // it is under way
              return (await Promise.all([first, ask(1), ask(2), ask(3)])).map(Boolean);
            }""")
            assert last == [True, False, False, True]  # one at a time; of those that wait, the newest


def test_two_hundred_photos_in_one_page_leave_nothing_behind(bare, server):
    job = upload(server, gradient(64, 64))
    page = bare()
    session = page.context.new_cdp_session(page)
    session.send("HeapProfiler.enable")
    page.evaluate("""() => {
      window.alive = 0;
      const gl = WebGL2RenderingContext.prototype;
      for (const kind of ['Texture', 'Program', 'Framebuffer']) {
        const [make, drop] = [gl[`create${kind}`], gl[`delete${kind}`]];
        gl[`create${kind}`] = function () { window.alive += 1; return make.call(this); };
        gl[`delete${kind}`] = function (it) { window.alive -= 1; return drop.call(this, it); };
      }
      window.round = async (job, times) => {
        const { relight } = await import('/static/relight.js');
        const canvas = document.querySelector('canvas') ?? document.body.appendChild(document.createElement('canvas'));
        for (let k = 0; k < times; k += 1) {
          const view = await relight(canvas, { jobId: job });
          await view.render({ x: 1, y: k / times, z: 1 });
          view.destroy();
        }
      };
    }""")

    def heap():
        session.send("HeapProfiler.collectGarbage")
        return session.send("Runtime.getHeapUsage")

    page.evaluate("(job) => round(job, 20)", job)
    before = heap()
    page.evaluate("(job) => round(job, 180)", job)
    after = heap()
    assert page.evaluate("alive") == 0
    assert after["usedSize"] - before["usedSize"] < 1e6
    assert after.get("backingStorageSize", 0) - before.get("backingStorageSize", 0) < 1e6


def test_several_canvases_and_a_view_that_was_destroyed(bare, server, cat):
    page = bare()
    told = page.evaluate(
        """async (job) => {
      const { relight } = await import('/static/relight.js');
      const canvases = [0, 1, 2].map(() => document.body.appendChild(document.createElement('canvas')));
      const views = await Promise.all(canvases.map((canvas) => relight(canvas, { jobId: job })));
      await Promise.all(views.map((view, k) => view.render({ x: k - 1, y: 0.2, z: 0.4 })));
      views[0].destroy();
      const refused = await views[0].render({ x: 1, y: 0, z: 1 }).catch(({ code }) => code);
      const mean = ({ data }) => data.reduce((sum, v) => sum + v, 0) / data.length;
      return [refused, mean(views[1].pixels()) !== mean(views[2].pixels())];
    }""",
        cat,
    )
    assert told == ["destroyed", True]


def test_the_example_of_the_readme_on_a_page_of_another_origin(browser, serve, tmp_path):
    [example] = re.findall(r"```html\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.S)
    (tmp_path / "picture.jpg").write_bytes(encoded(photo("coffee.png"), "JPEG"))
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    handler.log_message = lambda *_: None
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as elsewhere:
        threading.Thread(target=elsewhere.serve_forever, daemon=True).start()
        origin = f"http://127.0.0.1:{elsewhere.server_address[1]}"
        own = serve(cors_origins=origin)
        (tmp_path / "index.html").write_text(example.replace("http://127.0.0.1:8000", own.url.rstrip("/")))
        page = browser.new_page()
        complaints = []
        page.on("pageerror", lambda e: complaints.append(str(e)))
        page.goto(origin)
        page.get_by_label("Photo").set_input_files(tmp_path / "picture.jpg")
        page.wait_for_selector("canvas[data-lit]", timeout=30_000)
        page.wait_for_timeout(100)
        left = pixels(page.locator("canvas").screenshot())
        box = page.locator("canvas").bounding_box()
        requests = []
        page.on("request", lambda request: requests.append(request.url))
        page.mouse.move(box["x"] + box["width"] * 0.95, box["y"] + box["height"] / 2)
        page.wait_for_timeout(200)
        right = pixels(page.locator("canvas").screenshot())
        page.close()
        elsewhere.shutdown()
    assert not complaints and not requests
    width = left.shape[1] // 2
    assert (right[:, width:].mean() - right[:, :width].mean()) > (left[:, width:].mean() - left[:, :width].mean()) + 1
