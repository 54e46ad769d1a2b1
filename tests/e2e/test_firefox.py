"""The page and relight.js in a second engine: Firefox, driven by WebDriver BiDi, with WebGL by Mesa on the processor.

Wants firefox-esr or firefox, Xvfb (without a screen, Firefox has no WebGL here) and the websockets package.
"""

import base64
import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from conftest import need
from harness import READY
from test_live import SUN
from views import OPEN, RENDER, apart, blot, bodies, give_mask, photo, relit, upload

PREFERENCES = {"webgl.force-enabled": True, "remote.active-protocols": 1, "browser.shell.checkDefaultBrowser": False}


class Firefox:
    """One page of a Firefox of its own, with a profile that is thrown away."""

    def __init__(self, folder):
        from websockets.sync.client import connect

        lines = [f"user_pref({json.dumps(name)}, {json.dumps(value)});\n" for name, value in PREFERENCES.items()]
        (folder / "user.js").write_text("".join(lines))
        told, tell = os.pipe()
        self.screen = subprocess.Popen(
            ["Xvfb", "-displayfd", str(tell), "-screen", "0", "1280x1024x24"],
            pass_fds=[tell],
            stderr=subprocess.DEVNULL,
        )
        os.close(tell)
        with os.fdopen(told) as pipe:
            display = pipe.readline().strip()
        command = [firefox(), "--no-remote", "--profile", str(folder), "--remote-debugging-port", "0", "about:blank"]
        env = {**os.environ, "DISPLAY": f":{display}", "LIBGL_ALWAYS_SOFTWARE": "1"}
        with open(folder / "said", "w") as said:
            self.process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=said)
        deadline = time.monotonic() + 60
        while not (found := re.search(r"WebDriver BiDi listening on (ws://\S+)", (folder / "said").read_text())):
            assert self.process.poll() is None and time.monotonic() < deadline, (folder / "said").read_text()
            time.sleep(0.1)
        self.open = ExitStack()
        self.socket = self.open.enter_context(connect(found[1] + "/session", max_size=None))
        self.sent = 0
        self.call("session.new", capabilities={})
        self.context = self.call("browsingContext.getTree")["contexts"][0]["context"]

    def call(self, method, **params):
        """The result of a command."""
        self.sent += 1
        self.socket.send(json.dumps({"id": self.sent, "method": method, "params": params}))
        while True:
            answer = json.loads(self.socket.recv(timeout=60))
            if answer.get("id") == self.sent:
                assert answer["type"] == "success", answer
                return answer["result"]

    def goto(self, url):
        self.call("browsingContext.navigate", context=self.context, url=url, wait="complete")

    def evaluate(self, function, *arguments):
        """What a JavaScript function of JSON gives."""
        result = self.call(
            "script.callFunction",
            functionDeclaration=f"async (text) => JSON.stringify((await ({function})(...JSON.parse(text))) ?? null)",
            arguments=[{"type": "string", "value": json.dumps(arguments)}],
            target={"context": self.context},
            awaitPromise=True,
        )
        assert result["type"] == "success", result
        return json.loads(result["result"]["value"])

    def close(self):
        self.open.close()
        for process in (self.process, self.screen):
            process.kill()
            process.wait()


def firefox():
    return shutil.which("firefox-esr") or shutil.which("firefox")


@pytest.fixture(scope="module")
def fox():
    need(firefox() and shutil.which("Xvfb"), "no Firefox or no Xvfb: install firefox-esr and xvfb")
    pytest.importorskip("websockets", reason="the websockets package is missing")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        browser = Firefox(Path(folder))
        yield browser
        browser.close()


def test_the_same_light_in_firefox(fox, server):
    picture = photo("coffee.png")
    job = upload(server, picture)
    give_mask(server, job, "blot", blot(picture.size[::-1]))
    fox.goto(server.url + "docs")
    base = server.url.rstrip("/")
    told = fox.evaluate(OPEN, [f"{base}/static/relight.js", {"base": base, "jobId": job}])
    need(told["mode"] == "webgl", "Firefox has no WebGL2 here: install libgl1 and libgl1-mesa-dri")
    masked = {**SUN, "mask": {"name": "blot", "feather": 0.01, "invert": True}}
    for body in [*bodies(16)[1::2], masked, {**SUN, "strength": 0}]:
        drawn = fox.evaluate(RENDER, body)
        pixels = np.frombuffer(base64.b64decode(drawn["data"]), np.uint8)
        found, wanted = pixels.reshape(drawn["height"], drawn["width"], 4), relit(server, job, body)
        mean, within, most = apart(found, wanted)
        assert mean <= 0.5 and within >= 0.999, (body, mean, within, most)
    assert np.array_equal(found, wanted)  # strength 0


def test_the_page_in_firefox(fox, server):
    fox.goto(server.url)
    fox.evaluate("() => document.querySelector('#example').click()")
    deadline = time.monotonic() + 60
    while not fox.evaluate("(ready) => Boolean(document.querySelector(ready + '[data-live]'))", READY):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    before = fox.evaluate("() => location.hash")
    fox.evaluate("() => [...document.querySelectorAll('.preset')].find((b) => b.innerText === 'Rim').click()")
    time.sleep(0.5)
    assert fox.evaluate("() => location.hash") != before
    assert fox.evaluate("() => document.querySelector('#readout').title") == "Lit in this browser"
    assert fox.evaluate("() => document.querySelector('#problem').hidden")
    fox.evaluate("() => document.querySelector('#paint').click()")
    while not fox.evaluate("() => Boolean(document.querySelector('.stage[data-brush]'))"):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    x, y = fox.evaluate("""() => {
        const { left, top, width, height } = document.querySelector('#live').getBoundingClientRect();
        return [Math.round(left + width / 2), Math.round(top + height / 2)];
    }""")
    move = [{"type": "pointerMove", "x": x + 10 * step, "y": y} for step in range(5)]
    stroke = [move[0], {"type": "pointerDown", "button": 0}, *move[1:], {"type": "pointerUp", "button": 0}]
    fox.call(
        "input.performActions", context=fox.context, actions=[{"type": "pointer", "id": "hand", "actions": stroke}]
    )
    job = fox.evaluate("() => JSON.parse(sessionStorage.getItem('relight.job')).id")
    while server.json(f"job/{job}")["masks"] != ["painted-1"]:
        assert time.monotonic() < deadline
        time.sleep(0.1)
