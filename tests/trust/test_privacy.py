"""Privacy: what a photo knows of its maker stays out of every output, and delete removes everything."""

import io
import logging
import os
import stat

import numpy as np
import pytest
from fakes import SphereEngine
from fastapi.testclient import TestClient
from PIL import Image, ImageCms, PngImagePlugin
from support import encoded, finished, gradient, upload

from server.application import create_app

SECRET = b"SECRET-7f3a"
LIGHT = {"x": 1, "y": 0, "z": 1}
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF>' + SECRET + b"</rdf:RDF></x:xmpmeta>"


def tags():
    exif = Image.Exif()
    exif[0x010F], exif[0x013B], exif[0x8298], exif[0x0112] = SECRET.decode(), SECRET.decode(), SECRET.decode(), 6
    gps = exif.get_ifd(0x8825)
    gps[1], gps[2], gps[29] = "N", (52.0, 31.0, 12.0), SECRET.decode()
    exif.get_ifd(0x8769)[0x9286] = SECRET
    return exif.tobytes()


def tagged(kind):
    """A photo with EXIF, GPS, XMP, a comment, a profile and whatever its format has, all of which hold the secret."""
    image = Image.fromarray(gradient(40, 60))
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    if kind == "PNG":
        text = PngImagePlugin.PngInfo()
        text.add_text("Author", SECRET.decode())
        text.add_text("Comment", SECRET.decode(), zip=True)
        text.add_itxt("XML:com.adobe.xmp", XMP.decode())
        return encoded(image, "PNG", pnginfo=text, exif=tags(), icc_profile=profile)
    if kind == "GIF":
        return encoded(image.quantize(50), "GIF", comment=SECRET)
    if kind == "TIFF":
        return encoded(
            image, "TIFF", description=SECRET.decode(), artist=SECRET.decode(), exif=tags(), icc_profile=profile
        )
    if kind == "BMP":
        return encoded(image, "BMP") + SECRET
    more = {"xmp": XMP} if kind in ("JPEG", "WEBP", "AVIF") else {}
    if kind == "JPEG":
        more["comment"] = SECRET
    return encoded(image, kind, exif=tags(), icc_profile=profile, **more)


@pytest.mark.parametrize("decoders", [0, 1])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF", "TIFF", "BMP", "GIF"])
def test_nothing_of_the_maker_survives(settings, kind, decoders):
    data = tagged(kind)
    assert SECRET in data or kind in ("WEBP", "AVIF", "PNG", "TIFF")
    with TestClient(create_app(settings(decoders=decoders), SphereEngine(side=32))) as client:
        job = upload(client, data, name=f"{SECRET.decode()}.jpg")
        finished(client, job)
        assert client.post("/relight", json={"job_id": job, **LIGHT}).status_code == 200
        outputs = {
            n: client.get(f"/download/{job}/{n}").content
            for n in ("input.png", "depth.png", "normals.png", "relit.png")
        }
        outputs["preview"] = client.post("/preview", json={"job_id": job, **LIGHT}).content
        for name, out in outputs.items():
            image = Image.open(io.BytesIO(out))
            image.load()
            assert SECRET not in out and not dict(image.getexif()), name
            assert not set(image.info) & {
                "exif",
                "icc_profile",
                "xmp",
                "comment",
                "XML:com.adobe.xmp",
                "Author",
                "photoshop",
            }, (name, image.info)
        root = client.app.state.service.store.root
        for path in root.rglob("*"):
            assert SECRET.decode() not in path.name and (not path.is_file() or SECRET not in path.read_bytes()), path


@pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX's")
def test_files_are_for_their_owner_only(settings):
    with TestClient(create_app(settings(), SphereEngine(side=32))) as client:
        job = upload(client)
        finished(client, job)
        client.post("/relight", json={"job_id": job, **LIGHT})
        root = client.app.state.service.store.root
        for path in [root, *root.rglob("*")]:
            mode = stat.S_IMODE(path.stat().st_mode)
            assert mode & 0o077 == 0, f"{path.name}: {mode:o}"


def test_delete_removes_everything(settings):
    with TestClient(create_app(settings(), SphereEngine(side=32))) as client:
        service = client.app.state.service
        first, second = upload(client), upload(client)  # one analysis, shared
        for job in (first, second):
            finished(client, job)
            assert client.post("/relight", json={"job_id": job, **LIGHT}).status_code == 200
            assert client.post("/preview", json={"job_id": job, **LIGHT, "max_side": 64}).status_code == 200
        for job in (first, second):
            assert client.delete(f"/job/{job}").status_code == 200
        left = [p for p in service.store.root.rglob("*") if first in p.name or second in p.name]
        assert left == [] and list((service.store.root / ".analyses").iterdir()) == []
        assert service.cache.jobs() == set() and service.cache.nbytes == 0
        assert [p for p in service.store.root.iterdir() if p.name not in (".workers", ".analyses")] == []


def test_no_log_line_holds_what_a_client_sent(settings, caplog):
    with (
        TestClient(
            create_app(settings(log_level="debug"), SphereEngine(side=32)), raise_server_exceptions=False
        ) as client,
        caplog.at_level(logging.DEBUG),
    ):
        name = SECRET.decode()
        job = upload(client, tagged("JPEG"), name=name)
        finished(client, job)
        for answer in (
            client.post("/upload", files={"file": (name, b"\xff\xd8\xff" + SECRET)}),
            client.post("/upload", files={name: (name, SECRET)}),
            client.post("/upload", content=SECRET, headers={"Content-Type": f"multipart/form-data; boundary={name}"}),
            client.post("/relight", json={"job_id": name, **LIGHT}),
            client.post("/relight", json={"job_id": job, name: 1, **LIGHT}),
            client.get(f"/job/{name}"),
            client.delete(f"/job/{name}%0a{name}"),
            client.get(f"/download/{job}/{name}"),
            client.get(f"/{name}?{name}"),
            client.request(name, "/"),
        ):
            assert 400 <= answer.status_code < 500
        client.post("/preview", json={"job_id": job, **LIGHT, "stream": name})
    ours = [r.getMessage() for r in caplog.records if not r.name.startswith(("httpx", "httpcore", "asyncio", "PIL"))]
    assert ours and not any(name in line for line in ours), [line for line in ours if name in line]
    assert np.all([len(line) < 500 for line in ours])
