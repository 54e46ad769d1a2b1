"""scene.glb, drawn by three.js in a real browser: from the camera in it, it is the photo; from the side, in relief."""

import base64
import io
import time

import numpy as np
import pytest
from conftest import choose, job_id, need
from fakes import sphere
from harness import ROOT, pixels
from PIL import Image

from server.jobs.glb import scene_glb
from server.light.maps import prepare
from server.scene.fit import fit_scene

THREE = ROOT / "node_modules" / "three"
PAGE = """<!doctype html>
<script type="importmap">{"imports": {"three": "./build/three.module.js", "three/addons/": "./examples/jsm/"}}</script>
<script type="module">
import * as THREE from 'three';
import { GLTFLoader } from 'three/addons/loaders/GLTFLoader.js';

const renderer = new THREE.WebGLRenderer({ alpha: true, preserveDrawingBuffer: true });
/** The scene as a PNG, width x height: turned by so many degrees about the middle of the photo, in one of its looks. */
window.draw = async ({ width, height, turn = 0, look = 'photo', light = null }) => {
  const gltf = await new GLTFLoader().loadAsync('scene.glb');
  const mesh = gltf.scene.getObjectByProperty('isMesh', true);
  const said = gltf.parser.json;
  const { mappings } = said.meshes[0].primitives[0].extensions.KHR_materials_variants;
  const variant = said.extensions.KHR_materials_variants.variants.findIndex(({ name }) => name === look);
  const of = mappings.find(({ variants }) => variants.includes(variant)).material;
  if (of !== 0) {
    mesh.material = await gltf.parser.getDependency('material', of);
    gltf.parser.assignFinalMaterial(mesh);
  }
  const turned = new THREE.Group();
  turned.add(gltf.scene);
  turned.rotation.y = turn * Math.PI / 180;
  if (light) {
    const lamp = new THREE.DirectionalLight('white', 3);
    lamp.position.set(...light);
    turned.add(lamp);
  }
  const scene = new THREE.Scene();
  scene.add(turned);
  const camera = gltf.cameras[0].clone();
  camera.position.set(...said.nodes.find((node) => node.camera === 0).translation);
  renderer.setSize(width, height, false);
  renderer.render(scene, camera);
  return {
    png: renderer.domElement.toDataURL('image/png'),
    triangles: renderer.info.render.triangles,
    calls: renderer.info.render.calls,
    aspect: camera.aspect,
  };
};
</script>"""
KINDS = {".html": "text/html", ".js": "text/javascript", ".glb": "model/gltf-binary"}


@pytest.fixture(scope="module")
def draw(browser):
    """draw(glb, width=…, height=…, …) -> ((H, W, 4) float 0..255, what three.js says of it); see PAGE."""
    need(THREE.exists(), "three is missing: run `npm ci`")
    page, held = browser.new_page(), {}

    def answer(route):
        name = route.request.url.split("scene.test/", 1)[1]
        body = {"page.html": PAGE.encode(), "scene.glb": held.get("glb")}.get(name) or (THREE / name).read_bytes()
        route.fulfill(body=body, content_type=KINDS["." + name.rsplit(".", 1)[1]])

    page.route("http://scene.test/**", answer)

    def made(glb, **how):
        held["glb"] = glb
        page.goto("http://scene.test/page.html")
        page.wait_for_function("() => Boolean(window.draw)")
        said = page.evaluate("(how) => window.draw(how)", how)
        data = base64.b64decode(said.pop("png").split(",")[1])
        return np.asarray(Image.open(io.BytesIO(data)).convert("RGBA"), float), said

    yield made
    page.close()


@pytest.fixture(scope="module")
def job(server, photo):
    """The ball before a wall, as the bundled network sees it: (what the server says of it, its scene.glb)."""
    name, data = "photo.png", photo.read_bytes()
    head = f'--b\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'.encode()
    kind = {"Content-Type": "multipart/form-data; boundary=b"}
    said = server.json("upload", head + data + b"\r\n--b--\r\n", headers=kind)
    deadline = time.monotonic() + 60
    while server.json(f"job/{said['job_id']}")["state"] != "ready" and time.monotonic() < deadline:
        time.sleep(0.1)
    status, content = server.call(f"download/{said['job_id']}/scene.glb")
    assert status == 200, content
    return said, content


def test_from_its_camera_it_is_the_photo(draw, job, photo):
    said, glb = job
    size = {"width": said["width"], "height": said["height"]}
    drawn, told = draw(glb, **size)
    there, original = drawn[..., 3] > 254, pixels(photo.read_bytes())
    assert told["calls"] == 1 and 50 < told["triangles"] <= 60_000
    assert told["aspect"] == pytest.approx(said["width"] / said["height"])
    assert there.mean() > 0.95, "holes"
    off = np.abs(drawn[..., :3] - original).mean(2)[there]
    assert off.mean() < 3 and np.percentile(off, 99) < 12
    moved = np.abs(drawn[:, 3:, :3] - original[:, :-3]).mean(2)[there[:, 3:]]
    assert moved.mean() > 1.2 * off.mean(), "three pixels aside should be seen"


def test_from_the_side_it_is_in_relief_and_cut(draw):
    """A red ball before a blue wall: turned, the ball moves before the wall, and behind it there is nothing."""
    h, w = 240, 320
    geometry = sphere(h, w)
    ball = (geometry.normals[..., :2] != 0).any(2)
    picture = np.where(ball[..., None], np.uint8([220, 20, 20]), np.uint8([20, 20, 220]))
    maps = prepare(picture, geometry, fit_scene(picture, geometry))
    glb = scene_glb(maps, 1.0)
    for turn in (-25, 0, 25):
        drawn, _ = draw(glb, width=w, height=h, turn=turn)
        there, red = drawn[..., 3] > 254, drawn[..., 0] > drawn[..., 2]
        x = np.nonzero(there & red)[1].mean() / w - 0.5
        row = np.nonzero(there[h // 2])[0]
        hole = np.ptp(row) + 1 - len(row)
        if turn:
            assert x * np.sign(turn) > 0.015 and hole > 0.03 * w, (x, hole)
        else:
            assert abs(x) < 0.005 and hole == 0


def test_its_albedo_takes_light(draw, job):
    """Lit from the left, the left half of the ball is the brighter; without a light it is black."""
    said, glb = job
    h, w = said["height"], said["width"]
    ball = np.s_[h // 2 - 40 : h // 2 + 40, w // 2 - 90 : w // 2 + 90]
    for x in (-1, 1):
        drawn, _ = draw(glb, width=w, height=h, look="albedo", light=[x, 0.2, 0.6])
        halves = [half[..., :3].mean() for half in np.split(drawn[ball], 2, 1)]
        assert (halves[0] > 1.2 * halves[1]) if x < 0 else (halves[1] > 1.2 * halves[0]), halves
    dark, _ = draw(glb, width=w, height=h, look="albedo")
    assert dark[ball][..., :3].max() == 0


def test_the_page_saves_it(open_page, server, photo):
    page = open_page()
    choose(page, photo)
    with page.expect_download() as download:
        page.get_by_role("button", name="Save 3D model").click()
    assert download.value.suggested_filename == "ball-scene.glb"
    assert download.value.path().read_bytes() == server.call(f"download/{job_id(page)}/scene.glb")[1]
