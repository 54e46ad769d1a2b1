"""scene.glb, drawn by three.js in a real browser: from the camera in it, it is the photo; from the side, in relief."""

import base64
import json
import time

import numpy as np
import pytest
from conftest import need, pixels
from harness import ROOT
from PIL import Image

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
        return np.asarray(Image.open(__import__("io").BytesIO(data)).convert("RGBA"), float), said

    yield made
    page.close()
