"""Masks in relight.js: the same picture as the server's, and what is painted, late, gone or changed."""

import json

import numpy as np
import pytest
from conftest import until
from support import gradient
from views import REFUSED, apart, blot, bodies, give_mask, open_view, photo, relit, rendered, upload, within

SUN = {"x": -0.6, "y": 0.4, "z": 0.7, "exposure": 0}
LAMP = {"type": "point", "position": [0.4, 0.3, 0.6]}
# A mask of the picture's left part, so many quarters of it, in a canvas of another size
PAINTED = """(quarters) => {
  const canvas = new OffscreenCanvas(view.width * 2, view.height * 2);
  const context = canvas.getContext('2d');
  context.fillStyle = '#fff';
  context.fillRect(0, 0, quarters * view.width / 2, canvas.height);
  return canvas;
}"""


@pytest.fixture(scope="module")
def cat(server):
    """(its job, its picture): masked `blot`, `all` and `none`."""
    picture = np.asarray(photo("chelsea.png", 320))
    job = upload(server, picture)
    for name, mask in (("blot", blot(picture.shape[:2])), ("all", 255), ("none", 0)):
        give_mask(server, job, name, np.full(picture.shape[:2], mask, np.uint8))
    return job, picture


def opened(page, server, job, **options):
    """A view of a job, and a list of the masks that it asks for from then on."""
    open_view(page, server, job, **options)
    asked = []
    page.on("request", lambda request: asked.append(request.url.split("/mask/")[-1]))
    return asked


@pytest.mark.parametrize("name", ["coffee.png", "rocket.jpg"])
def test_the_same_light_within_masks(bare, server, name):
    picture = photo(name, 400)
    job = upload(server, picture)
    for k in (0, 1):
        give_mask(server, job, f"blot-{k}", blot(picture.size[::-1], k))
    page = bare()
    asked = opened(page, server, job)
    for k, body in enumerate(bodies(6, seed=5)):
        masked = within(body, ["blot-0", "blot-1", "sky"], k)
        mean, share, most = apart(rendered(page, masked)[0], relit(server, job, masked))
        assert mean <= 0.5 and share >= 0.999, (masked, mean, share, most)
    assert len(asked) == len(set(asked))  # each once


def test_outside_of_its_mask_the_photo_is_itself_to_the_code(bare, server, cat):
    job, picture = cat
    page = bare()
    opened(page, server, job)
    everywhere, _ = rendered(page, SUN)
    mask = blot(picture.shape[:2])
    for body in (
        {**SUN, "mask": "none"},
        {**SUN, "mask": {"name": "all", "invert": True}, "exposure": "auto"},
        {**SUN, "mask": {"name": "none", "feather": 0.05}},
        {**SUN, "mask": "blot", "strength": 0},
        {"environment": {"type": "preset", "name": "sky-sunset"}, "lights": [{**LAMP, "mask": "blot"}], "mask": "none"},
    ):
        assert np.array_equal(rendered(page, body)[0][..., :3], picture), body
    assert np.array_equal(rendered(page, {**SUN, "mask": "all"})[0], everywhere)
    partly, _ = rendered(page, {**SUN, "mask": "blot"})
    assert np.array_equal(partly[mask == 0][:, :3], picture[mask == 0])
    assert np.array_equal(partly[mask == 255], everywhere[mask == 255])
    rest, _ = rendered(page, {**SUN, "mask": {"name": "blot", "invert": True}})
    assert np.array_equal(rest[mask == 0], everywhere[mask == 0])


def test_the_mask_of_a_light_is_no_other_lights(bare, server, cat):
    """Nor that of the ambient light, of an environment or of what these make shine."""
    job, picture = cat
    page = bare()
    opened(page, server, job)
    inside = blot(picture.shape[:2]) == 255
    around = {
        "environment": {"type": "preset", "name": "studio-window"},
        "ambient": 0.2,
        "specular": {"strength": 0.7},
        "shadow": {"strength": 0.5},
        "exposure": -1,
    }
    sun = {"type": "directional", "direction": [-0.6, 0.4, 0.7]}
    alone, lamp, both = (rendered(page, {**around, "lights": lights})[0] for lights in ([sun], [LAMP], [sun, LAMP]))
    masked, _ = rendered(page, {**around, "lights": [sun, {**LAMP, "mask": "blot"}]})
    assert np.array_equal(masked[inside], both[inside]) and not np.array_equal(both[inside], alone[inside])
    outside = blot(picture.shape[:2]) == 0
    assert abs(masked[outside].astype(int) - alone[outside]).max() <= 1
    split = [{**sun, "mask": {"name": "blot", "invert": True}}, {**LAMP, "mask": "blot"}]
    masked, _ = rendered(page, {**around, "lights": split})
    assert abs(masked[outside].astype(int) - alone[outside]).max() <= 1
    assert abs(masked[inside].astype(int) - lamp[inside]).max() <= 1


def test_what_is_painted_stands_for_the_mask_until_it_is_stored(bare, server, cat):
    job, picture = cat
    page = bare()
    asked = opened(page, server, job)
    everywhere, _ = rendered(page, SUN)
    width = picture.shape[1]
    for source in (
        "canvas",
        "canvas.transferToImageBitmap()",
        "canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height)",
    ):
        for quarters in (3, 1):
            page.evaluate(
                f"(quarters) => {{ const canvas = ({PAINTED})(quarters); view.setMask('mine', {source}); }}", quarters
            )
            found, _ = rendered(page, {**SUN, "mask": "mine"})
            edge = quarters * width // 4
            assert np.array_equal(found[:, : edge - 2], everywhere[:, : edge - 2])
            assert np.array_equal(found[:, edge + 2 :, :3], picture[:, edge + 2 :])
    assert not asked
    stepped = page.evaluate("body => view.render(body, { step: 2 })", {**SUN, "mask": "mine"})
    assert np.array_equal(rendered(page)[0], found[::2, ::2]) and stepped["mode"] == "webgl"
    page.evaluate("view.resize(512)")  # another view of the same picture, which is painted as well
    assert np.array_equal(rendered(page, {**SUN, "mask": "mine"})[0], found)
    asked.clear()
    give_mask(server, job, "mine", blot(picture.shape[:2], 3))
    page.evaluate("view.setMask('mine', null)")
    body = {**SUN, "mask": {"name": "mine", "feather": 0.01}}
    found, _ = rendered(page, body)
    assert apart(found, relit(server, job, body))[0] <= 0.5 and asked == ["mine?feather=0.01&max_side=512"]
    rendered(page, {**SUN, "mask": {**body["mask"], "invert": True}})
    assert len(asked) == 1


def test_what_is_painted_fades_as_the_servers_masks_do(bare, server):
    """On a photo without edges, that is."""
    job = upload(server, np.full((180, 240, 3), 120, np.uint8))
    page = bare()
    opened(page, server, job)
    page.evaluate(f"view.setMask('half', ({PAINTED})(2))")
    give_mask(server, job, "half", np.repeat(np.repeat(np.uint8([[255, 0]]), 240, 1), 360, 0))
    bright = {**SUN, "exposure": 2}
    for feather in (0.01, 0.1):
        body = {**bright, "mask": {"name": "half", "feather": feather}}
        found = rendered(page, body)[0]
        assert apart(found, relit(server, job, body))[2] <= 8
        assert apart(found, relit(server, job, {**bright, "mask": "half"}))[2] > 24


def test_pictures_that_wait_for_masks_come_in_order(bare, server, cat):
    job, _ = cat
    page = bare()
    opened(page, server, job)
    page.evaluate("""() => {
      window.fetched = [];
      const real = window.fetch;
      window.fetch = async (...what) => {
        const answer = await real(...what);
        if (String(what[0]).includes('/mask/')) await new Promise((resolve) => { fetched.push(resolve); });
        return answer;
      };
      window.at = (mask) => ({ x: -0.6, y: 0.4, z: 0.7, exposure: 0, mask });
    }""")
    before, _ = rendered(page, SUN)
    page.evaluate("() => { window.late = [view.render(at('blot'))]; }")
    until(page, "fetched.length === 1")
    page.evaluate("() => { for (const mask of ['all', 'none']) late.push(view.render(at(mask))); }")
    assert np.array_equal(rendered(page)[0], before)
    lamp, _ = rendered(page, {"lights": [LAMP]})  # needs none: it is drawn at once, and stays
    page.evaluate("fetched[0]()")
    assert page.evaluate("Promise.all(late)") == [None] * 3
    assert np.array_equal(rendered(page)[0], lamp)
    assert rendered(page, {**SUN, "mask": "blot"})[1]["mode"] == "webgl"  # it has come meanwhile

    page.evaluate("() => { fetched.length = 0; window.late = [view.render(at('all'))]; }")
    until(page, "fetched.length === 1")
    page.evaluate("view.setMask('all', null)")  # changed on the way: it is fetched anew
    page.evaluate("fetched[0]()")
    until(page, "fetched.length === 2")
    page.evaluate("fetched[1]()")
    assert page.evaluate("Promise.all(late)") != [None]

    page.evaluate("() => { fetched.length = 0; window.late = [view.render(at('none'))]; }")
    until(page, "fetched.length === 1")
    page.evaluate("view.destroy()")
    page.evaluate("fetched[0]()")
    assert page.evaluate("Promise.all(late)") == [None]


def test_masks_that_are_not_there_and_jobs_that_are_gone(bare, server):
    picture = gradient(90, 120)
    job = upload(server, picture)
    give_mask(server, job, "all", np.full((90, 120), 255, np.uint8))
    page = bare()
    page.watch.expect("Failed to load resource", "CONTEXT_LOST_WEBGL")
    asked = opened(page, server, job)
    before, _ = rendered(page, SUN)
    unmasked = page.evaluate("view.bytes.gpu")
    dark = {**LAMP, "mask": {"name": "nobody", "feather": 0.1}}
    for body in ({**SUN, "mask": "nobody"}, {"lights": [{**LAMP, "mask": "all"}, dark, {**LAMP, "mask": "nobody"}]}):
        problem = json.loads(server.call("relight", {**body, "job_id": job})[1])
        refused = page.evaluate(REFUSED, body)
        assert refused["code"] == problem["code"] == "mask_not_found" and refused["status"] == 404
        assert refused["message"] == problem["detail"] and refused["name"] == "RelightError"
        assert np.array_equal(rendered(page)[0], before)
    masked = [rendered(page, {**SUN, "mask": mask})[0] for mask in ("all", {"name": "all", "invert": True})]
    assert np.array_equal(masked[0], before) and np.array_equal(masked[1][..., :3], picture)
    assert page.evaluate("view.bytes.gpu") == unmasked + 120 * 90
    server.call(f"job/{job}", method="DELETE")
    asked.clear()
    assert page.evaluate(REFUSED, {**SUN, "mask": "sky"})["code"] == "job_not_found"
    page.evaluate("""() => {
      window.heard = [];
      view.addEventListener('restored', () => heard.push('restored'));
      window.loss = view.canvas.getContext('webgl2').getExtension('WEBGL_lose_context');
      loss.loseContext();
    }""")
    page.evaluate("() => { setTimeout(() => loss.restoreContext(), 50); }")
    until(page, "heard.length === 1")
    assert np.array_equal(rendered(page)[0], masked[1])  # what stood there, with its mask
    assert np.array_equal(rendered(page, {**SUN, "mask": "all"})[0], before) and len(asked) == 1


def test_what_is_no_mask_is_refused_in_the_words_of_the_server(bare, server, cat):
    page = bare()
    opened(page, server, cat[0])
    for mask in (
        7,
        "",
        "Up",
        [],
        {},
        {"name": None},
        {"name": "up/../down"},
        {"name": "all", "invert": 1},
        {"name": "all", "feather": 0.2},
        {"name": "all", "feather": "soft", "colour": "red"},
    ):
        for body in ({**SUN, "mask": mask}, {"lights": [LAMP, {**LAMP, "mask": mask}]}):
            status, content = server.call("relight", {**body, "job_id": cat[0]})
            problem = json.loads(content)
            assert status == 422, (body, content)
            refused = page.evaluate(REFUSED, body)
            assert (refused["code"], refused["message"]) == (problem["code"], problem["detail"]), body
    assert page.evaluate(REFUSED, {**SUN, "mask": None}) is None


def test_where_the_server_draws_it_knows_the_masks(bare, server, cat):
    job, picture = cat
    page = bare(live=False)
    page.watch.expect("willReadFrequently")  # by the test
    asked = opened(page, server, job)
    page.evaluate("view.setMask('none', new ImageData(8, 8))")
    found, drawn = rendered(page, {**SUN, "mask": {"name": "none", "invert": True}})
    assert drawn["mode"] == "preview" and not [url for url in asked if "/job/" in url]
    assert abs(found[..., :3] - relit(server, job, SUN)[..., :3].astype(int)).mean() < 3
    page.evaluate("view.setMask('none', null)")
    found, _ = rendered(page, {**SUN, "mask": "none"})
    assert abs(found[..., :3] - picture.astype(int)).mean() < 3
