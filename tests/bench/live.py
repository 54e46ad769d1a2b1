"""Light in the browser: pictures a second, bytes, and when the first one is there; beside the server's previews.

    PYTHONPATH=.:tests:tests/e2e python tests/bench/live.py [--photos DIR]

Drives headless Chromium with WebGL on the processor, over a server of its own on the same machine, so that both share
its processors. Photos are made 1024 pixels long. A picture counts once it can be on the screen: one a frame.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from harness import FLAGS, Server, chromium
from PIL import Image
from playwright.sync_api import sync_playwright
from views import open_view, upload

SECONDS = 4
ROUNDS = 3
DRAG = """async ([seconds, look]) => {
  const looks = {
    shorthand: (t) => ({ x: Math.cos(t), y: 0.3, z: 0.6 }),
    lamp: (t) => ({ lights: [{ type: 'point', position: [Math.cos(t), 0.3, 0.6] }] }),
    'four suns': (t) => ({ lights: [0, 1, 2, 3].map((k) => (
      { type: 'directional', direction: [Math.cos(t + k), 0.3, 0.6], intensity: 0.3 })) }),
  };
  const start = performance.now();
  let pictures = 0;
  while (performance.now() - start < seconds * 1000) {
    await new Promise(requestAnimationFrame);
    await view.render(looks[look](pictures / 10));
    pictures += 1;
  }
  view.pixels(); // what is drawn is waited for
  return (1000 * pictures) / (performance.now() - start);
}"""
FIRST = """async (job) => {
  const { relight } = await import('/static/relight.js');
  const start = performance.now();
  window.view = await relight(document.createElement('canvas'), { jobId: job });
  await view.render({ x: -0.6, y: 0.4, z: 0.7 });
  view.pixels();
  return performance.now() - start;
}"""


def photos(folder):
    """Photographs 1024 pixels long: of a folder, or those that come with scikit-image."""
    if folder is None:
        from skimage import data

        folder = Path(data.__file__).parent
        names = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "camera.png", "motorcycle_left.png")
        files = [folder / name for name in names]
    else:
        files = sorted(p for p in folder.iterdir() if p.suffix in (".jpg", ".png"))[:10]
    for file in files:
        image = Image.open(file).convert("RGB")
        scale = 1024 / max(image.size)
        yield file.name, image.resize((round(image.width * scale), round(image.height * scale)), Image.LANCZOS)


def drag(page, look):
    """Pictures a second while a light moves, and the requests meanwhile."""
    requests = []

    def note(request):
        requests.append(request.url)

    page.on("request", note)
    rate = page.evaluate(DRAG, [SECONDS, look])
    page.remove_listener("request", note)
    return rate, len(requests)


def main():
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as jobs, sync_playwright() as playwright:
        server = Server(jobs).start()
        browser = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
        received, firsts, biggest = [], [], (0, None, None)
        for name, image in photos(args.photos):
            job = upload(server, image)
            while server.json(f"job/{job}")["state"] != "ready":
                time.sleep(0.02)
            page = browser.new_page(viewport={"width": 1280, "height": 1100})  # nothing is warm in a new page
            page.goto(server.url + "health")
            firsts.append(page.evaluate(FIRST, job))
            told = page.evaluate("({ ...view.bytes, width: view.width, height: view.height })")
            received.append(told["received"])
            biggest = max(biggest, (told["gpu"], told["width"], told["height"]))
            print(
                f"{name:24s} {told['received'] / 1e6:5.2f} MB received, first picture {firsts[-1]:4.0f} ms", flush=True
            )
            page.close()
        print(f"median: {statistics.median(received) / 1e6:.2f} MB, {statistics.median(firsts):.0f} ms")
        print(f"on the GPU: {biggest[0] / 1e6:.1f} MB at {biggest[1]} x {biggest[2]}")
        pages = {}
        for mode in ("webgl", "preview"):
            pages[mode] = browser.new_page(viewport={"width": 1280, "height": 1100})
            pages[mode].goto(server.url + "health")
            open_view(pages[mode], server, job, mode=mode)
        for look in ("shorthand", "lamp", "four suns"):
            found = {mode: [] for mode in pages}
            for _ in range(ROUNDS):
                for mode, page in pages.items():
                    page.bring_to_front()
                    found[mode].append(drag(page, look))
            here, there = (max(rate for rate, _ in found[mode]) for mode in ("webgl", "preview"))
            print(
                f"{look:10s} {here:5.1f} pictures a second here, {sum(n for _, n in found['webgl'])} requests; "
                f"{there:5.1f} by previews; {here / there:.1f} x"
            )
        browser.close()
        server.stop()


if __name__ == "__main__":
    main()
