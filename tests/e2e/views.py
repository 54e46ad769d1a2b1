"""relight.js in a browser beside the server: what the tests, `make parity` and the benchmark share."""

import base64
import io
import itertools
import json
from pathlib import Path

import numpy as np
from PIL import Image
from serving import multipart
from support import encoded

# Opens a view of a job in a canvas of its own, on a page of any origin
OPEN = """async ([module, options]) => {
  const { relight } = await import(module);
  const canvas = document.createElement('canvas');
  document.body.replaceChildren(canvas);
  window.view = await relight(canvas, options);
  return { mode: view.mode, width: view.width, height: view.height, bytes: view.bytes };
}"""
# Lights the photo and tells what stands in the canvas
RENDER = """async (body) => {
  const drawn = body && await view.render(body);
  const { data, width, height } = view.pixels();
  let text = '';
  for (let i = 0; i < data.length; i += 32768) text += String.fromCharCode(...data.subarray(i, i + 32768));
  return { drawn, width, height, data: btoa(text) };
}"""
# What renders and rejects with, as the API would say it
REFUSED = """async (body) => view.render(body).then(() => null, ({ name, code, status, message }) => (
  { name, code, status, message }))"""


def photo(name, side=600):
    """A photograph that comes with scikit-image, at most so many pixels long."""
    from skimage import data

    image = Image.open(Path(data.__file__).parent / name).convert("RGB")
    image.thumbnail((side, side))
    return image


def upload(server, pixels, **headers):
    """Upload a picture array, or PIL image, to a server of the harness; the job's id."""
    kind, data = multipart(encoded(pixels))
    status, content = server.call("upload", data, headers={**kind, **headers})
    assert status == 200, content
    return json.loads(content)["job_id"]


def give_mask(server, job_id, name, mask):
    """Give a job a mask (H, W) uint8."""
    status, content = server.call(f"job/{job_id}/mask/{name}", encoded(mask), method="PUT")
    assert status == 200, content


def blot(size, seed=0):
    """(H, W) uint8: a mask as people paint them: a few strokes, some soft, over part of the picture."""
    (h, w), rng = size, np.random.default_rng(seed)
    y, x = np.mgrid[:h, :w] / max(h, w)
    mask = np.zeros((h, w))
    for _ in range(4):
        cx, cy, r = rng.uniform(0, w / max(h, w)), rng.uniform(0, h / max(h, w)), rng.uniform(0.08, 0.3)
        soft = rng.choice([0.002, 0.05])
        mask = np.maximum(mask, np.clip((r - np.hypot(x - cx, y - cy)) / soft + 0.5, 0, 1))
    return np.rint(mask * 255).astype(np.uint8)


def within(body, names, seed):
    """A body whose picture or lights, or both, are masked: inverted and feathered or not."""
    rng = np.random.default_rng(seed)

    def mask():
        name = str(rng.choice(names))
        more = {"invert": bool(rng.random() < 0.5), "feather": float(rng.choice([0, 0.004, 0.03, 0.1]))}
        return name if rng.random() < 0.3 else {"name": name, **more}

    lights = [{**light, "mask": mask()} if rng.random() < 0.6 else light for light in body.get("lights", [])]
    both = {**body, **({"lights": lights} if lights else {})}
    return {**both, "mask": mask()} if lights == body.get("lights", []) or rng.random() < 0.5 else both


def open_view(page, server, job_id, **options):
    """Make `view` of a job on a page; what it tells of itself."""
    base = server.url.rstrip("/")
    return page.evaluate(OPEN, [f"{base}/static/relight.js", {"base": base, "jobId": job_id, **options}])


def rendered(page, body=None):
    """(H, W, 4) uint8: what stands in the canvas, after lighting the photo by a body; and what `render` told."""
    told = page.evaluate(RENDER, body)
    pixels = np.frombuffer(base64.b64decode(told["data"]), np.uint8)
    return pixels.reshape(told["height"], told["width"], 4), told["drawn"]


def relit(server, job_id, body):
    """(H, W, 4) uint8: the same by the server. Of photos no larger than a preview, what /preview has before JPEG."""
    status, content = server.call("relight", {**body, "job_id": job_id})
    assert status == 200, content
    return np.asarray(Image.open(io.BytesIO(server.call(f"download/{job_id}/relit.png")[1])).convert("RGBA"))


def apart(found, wanted):
    """(mean difference in codes, the share of pixels within 3 codes, the greatest difference)."""
    difference = abs(found[..., :3].astype(int) - wanted[..., :3])
    return float(difference.mean()), float((difference.max(-1) <= 3).mean()), int(difference.max())


def bodies(count, seed=0):
    """So many different bodies of /relight, of every kind of light, with and without everything else."""
    rng = np.random.default_rng(seed)
    kinds = itertools.cycle(["xyz", "sun", "point", "spot", "preset", "many", "around", "around too"])
    presets = itertools.cycle(["window-left", "rim", "golden-hour", "rembrandt", "neon-pair", "moonlight", "softbox"])
    return [_body(kind, rng, next(presets)) for kind in itertools.islice(kinds, count)]


def _body(kind, rng, preset):
    if kind == "xyz":
        body = {"x": _number(rng, -1, 1), "y": _number(rng, -1, 1), "z": _number(rng, 0.05, 1)}
    elif kind == "preset":
        body = {"preset": preset}
    elif kind.startswith("around"):
        names = [f"sky-{name}" for name in ("overcast", "golden-hour", "sunset", "night-street")]
        names += ["studio-softboxes", "studio-window"]
        body = {"environment": {"type": "preset", "name": str(rng.choice(names)), "rotation": _number(rng, -360, 360)}}
        if kind == "around too":
            body["lights"] = [_light(k, rng) for k in rng.choice(["directional", "point"], rng.integers(0, 3))]
            body["environment"]["intensity"] = _number(rng, 0.2, 2)
    elif kind == "many":
        kinds = rng.choice(["directional", "point", "spot"], rng.integers(2, 17))
        body = {"lights": [_light(k, rng) for k in kinds]}
    else:
        body = {"lights": [_light({"sun": "directional"}.get(kind, kind), rng)]}
    for share, more in (
        (0.4, {"ambient": _number(rng, 0, 0.6)}),
        (0.3, {"delight": _number(rng, 0, 1)}),
        (0.3, {"strength": _number(rng, 0.2, 1)}),
        (0.5, {"shadow": {"strength": _number(rng, 0, 1)}}),
        (0.4, {"specular": {"strength": _number(rng, 0.1, 1), "roughness": _number(rng, 0.1, 1)}}),
        (0.5, {"exposure": "auto" if rng.random() < 0.5 else _number(rng, -1, 1)}),
    ):
        if rng.random() < share:
            body.update(more)
    return body


def _number(rng, low, high):
    return round(float(rng.uniform(low, high)), 3)


def _light(kind, rng):
    place = [_number(rng, -1.2, 1.2), _number(rng, -0.8, 0.8), _number(rng, 0.1, 1.5)]
    made = {"type": str(kind), "intensity": _number(rng, 0.3, 2), "shadow": bool(rng.random() < 0.8)}
    if kind == "directional":
        made.update(direction=place, angle=_number(rng, 0, 60))
    else:
        made.update(position=place, radius=_number(rng, 0, 0.6), range=_number(rng, 0.3, 3))
    if kind == "spot":
        made.update(target=[_number(rng, -0.5, 0.5), 0, 0], cone=_number(rng, 15, 120), blend=_number(rng, 0, 1))
    tint = rng.random()
    if tint < 0.3:
        made["color"] = "#" + rng.integers(1, 256, 3).astype(np.uint8).tobytes().hex()
    elif tint < 0.6:
        made["temperature"] = _number(rng, 1500, 15000)
    return made
