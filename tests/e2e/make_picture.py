#!/usr/bin/env python3
"""Makes the picture of the page for the README: python tests/e2e/make_picture.py

Starts the server with the graphs of onnx_models/, opens a photo in Chromium, lights it and takes a screenshot.
"""

import argparse
import io
import tempfile
from pathlib import Path

from harness import FLAGS, HERE, READY, ROOT, Server, chromium
from PIL import Image
from playwright.sync_api import sync_playwright

LOOK = (
    "#light=directional:0.95,0.4,0.45;intensity=1.5;temperature=3200;angle=4"
    "&light=directional:-0.9,0.35,0.1;intensity=0.8;temperature=9000&ambient=0.16"
)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photo", type=Path, default=ROOT / "server/static/example.jpg")
    parser.add_argument("--out", type=Path, default=HERE / "picture.jpg")
    parser.add_argument("--look", default=LOOK, help="the part of a shared link from # on")
    parser.add_argument("--scheme", choices=["dark", "light"], default="dark")
    parser.add_argument("--size", type=int, nargs=2, default=[1280, 800])
    parser.add_argument("--largest", type=int, default=200_000, help="bytes; the JPEG's quality gives way")
    arguments = parser.parse_args()
    if not chromium():
        parser.error("no Chromium: install it or set CHROMIUM to its path")
    with tempfile.TemporaryDirectory() as jobs, sync_playwright() as playwright:
        server = Server(jobs).start()
        try:
            browser = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
            width, height = arguments.size
            page = browser.new_page(
                viewport={"width": width, "height": height},
                color_scheme=arguments.scheme,
                reduced_motion="reduce",
                device_scale_factor=1.25,
            )
            page.goto(server.url + arguments.look)
            page.get_by_label("Open photo").set_input_files(arguments.photo)
            page.wait_for_selector(READY, timeout=120_000)
            page.get_by_role("button", name="Compare").click()
            page.wait_for_timeout(1500)
            divider = page.get_by_role("slider", name="Before and after")
            for _ in range(8):
                divider.press("ArrowLeft")
            for key in (
                "ArrowRight",
                "ArrowLeft",
                "ArrowRight",
                "ArrowLeft",
            ):  # the read-out of a server that has warmed up
                page.get_by_role("button", name="Light 1", exact=True).press(key)
                page.wait_for_timeout(100)
                page.wait_for_selector(READY)
            page.evaluate("document.activeElement.blur()")
            page.mouse.move(0, 0)
            page.wait_for_timeout(500)
            picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
            browser.close()
        finally:
            server.stop()
    for quality in range(90, 40, -5):
        picture.save(arguments.out, quality=quality, optimize=True, progressive=True)
        if arguments.out.stat().st_size <= arguments.largest:
            break
    print(f"{arguments.out}: {picture.width} x {picture.height}, {arguments.out.stat().st_size // 1000} kB")


if __name__ == "__main__":
    main()
