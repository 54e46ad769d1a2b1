"""Folders of photographs, relit here or by a server: `relight-server relight photos/*.jpg --preset rim --out lit/`.

What is made is whole or not there; a report beside it tells what was made of what, so that the same command goes on
where it was stopped.
"""

import hashlib
import json
import logging
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Optional, Protocol, TextIO, Tuple

import cv2
import numpy as np

from .image.decode import read_png
from .image.decoder_pool import Decoders
from .image.encode import encode_jpeg, encode_png
from .image.resample import shrink_image
from .jobs import glb, look
from .jobs.motions import SIDES, MotionOrder, film
from .light.lights import Rig
from .light.maps import Maps, prepare, prepare_picture
from .light.masks import built_in_alone, masked
from .light.motion import Orbit
from .light.passes import albedo_pass, deep_pass, shading_factor, shading_pass, surface_pass
from .light.shading import relight
from .model.engine import Engine, digest
from .scene.geometry import Geometry, checked, pack, unpack
from .scene.passes import depth_pass, normals_pass
from .scene.pipeline import estimate, read_scene
from .scene.subject import subject_pass
from .settings import Settings

if TYPE_CHECKING:  # it takes httpx
    from .client import RelightClient

log = logging.getLogger("relight")

REPORT = "relight-report.json"
WHOLE_FILES = {"exr": "passes.exr", "glb": "scene.glb"}  # passes that are no PNGs, as a server names them
PASSES = ("normals", "depth", "albedo", "shading", "surface", "subject", "relit16", "exr", "glb")


@dataclass(frozen=True)
class Order:
    """What is wanted of every picture. `passes` are names of PASSES; `out` is a folder; `quality` is of JPEGs.

    rig: of the relit picture; None: it is not wanted. orbit: the format of a motion, a light that goes round, if that
    is wanted.
    """

    rig: Optional[Rig]
    out: Path
    format: str = "png"
    quality: int = 92
    passes: Tuple[str, ...] = ()
    orbit: Optional[str] = None

    def last(self, stem: str) -> str:
        """The name of the file that is written last: all others are there with it."""
        return f"{stem}_orbit.{self.orbit}" if self.orbit else f"{stem}.{self.format}"


@dataclass
class Picture:
    """One photograph, and the stem of its files in the folder."""

    path: Path
    stem: str


def pictures(paths: List[Path]) -> List[Picture]:
    """The photographs with a stem each, no two alike whatever the case of letters: the second a.jpg becomes a-2."""
    found, taken = [], set()
    for path in paths:
        stem, number = path.stem, 1
        while stem.lower() in taken:
            number += 1
            stem = f"{path.stem}-{number}"
        taken.add(stem.lower())
        found.append(Picture(path, stem))
    return found


class Maker(Protocol):
    """What makes the files of a picture. `identity` changes when it would make others; so many work at a time."""

    identity: str
    workers: int

    def make(self, order: Order, picture: Picture) -> List[str]:
        """Write all files into order.out; returns their names. Raises OSError, and what has a `code` and `detail`."""
        ...

    def close(self) -> None:
        """No more will be made."""
        ...


def run(order: Order, paths: List[Path], maker: Maker, stream: Optional[TextIO] = None) -> int:
    """Relight all; returns how many could not be.

    Progress goes to the stream, stderr by default; all that is known to out/REPORT.
    """
    order.out.mkdir(parents=True, exist_ok=True)
    lights = order.rig and json.loads(look.dump(order.rig))
    if lights and lights["environment"]:  # people read this
        lights["environment"]["texels"] = hashlib.sha256(lights["environment"]["texels"].encode()).hexdigest()
    wanted: Dict[str, Any] = {"lights": lights, "format": order.format}
    wanted |= {"passes": list(order.passes), "quality": order.quality, "orbit": order.orbit, "made_by": maker.identity}
    report, told = _Report(order.out / REPORT, wanted), _Progress(len(paths), stream or sys.stderr)
    todo = [picture for picture in pictures(paths) if not report.has(picture, order)]
    told.skip(len(paths) - len(todo))
    try:
        with ThreadPoolExecutor(max(1, min(maker.workers, len(todo)))) as pool:
            works = {pool.submit(_one, maker, order, picture): picture for picture in todo}
            try:
                for work in as_completed(works):
                    entry = work.result()
                    report.add(works[work], entry)
                    told.step(works[work], entry)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    finally:
        maker.close()
        report.save()
    return told.end()


def _one(maker: Maker, order: Order, picture: Picture) -> Dict[str, Any]:
    """Relight a picture. Returns its entry in the report."""
    began = time.monotonic()
    try:
        files = maker.make(order, picture)
    except OSError as exc:
        return {"error": {"code": "file", "detail": exc.strerror or str(exc)}}
    except Exception as exc:  # whatever it is, the other pictures go on
        code, detail = getattr(exc, "code", None), getattr(exc, "detail", None)
        if code is None or detail is None:
            log.error("%s: a fault of ours", picture.path, exc_info=exc)
            code, detail = "internal", f"A fault of ours: {type(exc).__name__}."
        return {"error": {"code": code, "detail": detail}}
    return {"files": files, "seconds": round(time.monotonic() - began, 3)}


class Here:
    """Makes pictures in this process, each on a processor of its own."""

    def __init__(self, engine: Engine, settings: Settings):
        self._engine, self.identity, self.workers = engine, digest(engine), settings.processors
        count = min(self.workers, settings.decoder_processes)
        self._decoders = Decoders(count, settings.max_pixels, settings.max_upload_bytes)
        cv2.setNumThreads(1)

    def make(self, order: Order, picture: Picture) -> List[str]:
        """See Maker."""
        with open(picture.path, "rb") as file:
            decoded = self._decoders.decode(file, os.fstat(file.fileno()).st_size)
        rgb = np.ascontiguousarray(decoded.pixels[..., :3])
        alpha = np.ascontiguousarray(decoded.pixels[..., 3]) if decoded.pixels.shape[2] == 4 else None
        geometry = estimate(rgb, lambda inside: checked(self._engine.analyse(inside)))
        if decoded.focal is not None:
            geometry = replace(geometry, focal=decoded.focal)
        geometry, fit = read_scene(rgb, geometry)
        geometry = unpack(pack(geometry))  # as precise as a job keeps it: the same picture as the server's
        maps = masked(
            prepare(rgb, geometry, fit),
            order.rig or Rig(),
            lambda mask, at: built_in_alone(mask, at, geometry, decoded.pixels),
        )
        names = _write_all(order, picture.stem, maps, geometry, alpha)
        if order.orbit:
            names.append(order.last(picture.stem))
            _whole(order.out / names[-1], lambda path: _write_orbit(path, str(order.orbit), decoded.pixels, maps))
        return names

    def close(self) -> None:
        """See Maker."""
        self._decoders.close()


class Elsewhere:
    """Has a running server make pictures. body: of /relight, the same lights as those of the order."""

    def __init__(self, client: "RelightClient", body: Dict[str, Any], workers: int):
        self._client, self._body, self.workers = client, body, workers
        self.identity = hashlib.sha256(json.dumps(client.models()["models"], sort_keys=True).encode()).hexdigest()[:32]

    def make(self, order: Order, picture: Picture) -> List[str]:
        """See Maker."""
        job = self._client.upload(picture.path)
        try:
            names = []
            if order.rig:
                self._client.relight(job, **self._body)
            for name in order.passes:
                theirs = WHOLE_FILES.get(name, f"{name}.png")
                names.append(_file_name(picture.stem, name))
                self._client.download(job, theirs, to=order.out / names[-1])
            if order.rig:
                data = self._client.download(job, "relit.png")
                if order.format == "jpg":
                    data = encode_jpeg(np.ascontiguousarray(read_png(data)[..., :3]), order.quality)
                names.append(f"{picture.stem}.{order.format}")
                _whole(order.out / names[-1], _bytes(data))
            if order.orbit:
                self._client.animate(job, orbit={}, format=order.orbit)
                self._client.wait_for_motion(job)
                names.append(order.last(picture.stem))
                self._client.download(job, f"motion.{order.orbit}", to=order.out / names[-1])
        finally:
            self._client.delete(job)
        return names

    def close(self) -> None:
        """See Maker."""
        self._client.close()


def _write_orbit(path: str, kind: str, pixels: np.ndarray, maps: Maps) -> None:
    """Write a light that goes round a photo (H, W, 3) or (H, W, 4), as the server does that is asked for no more."""
    order = MotionOrder(Orbit(), kind, max_side=SIDES[kind])
    small = shrink_image(pixels, order.max_side)
    alpha = np.ascontiguousarray(small[..., 3]) if small.shape[2] == 4 else None
    film(path, order, prepare_picture(np.ascontiguousarray(small[..., :3]), maps.shared, 1, maps.samples), alpha)


def _file_name(stem: str, name: str) -> str:
    """The file of a pass."""
    return f"{stem}.{name}" if name in WHOLE_FILES else f"{stem}_{name}.png"


def _write_all(order: Order, stem: str, maps: Maps, geometry: Geometry, alpha: Optional[np.ndarray]) -> List[str]:
    """Write the relit picture, after its passes; returns the names."""
    rig = order.rig or Rig()
    size, text = maps.size, look.dump(rig)
    factor = shading_factor(maps.shared.light_samples)

    made: Dict[str, Callable[[], np.ndarray]] = {
        "normals": lambda: normals_pass(geometry, size),
        "depth": lambda: depth_pass(geometry, size),
        "albedo": lambda: albedo_pass(maps, factor),
        "shading": lambda: shading_pass(maps, factor),
        "surface": lambda: surface_pass(maps),
        "subject": lambda: subject_pass(geometry, maps.rgb, alpha),
        "relit16": lambda: look.with_alpha(deep_pass(maps, rig), alpha),
    }
    names = []
    for name in order.passes:
        names.append(_file_name(stem, name))
        if name == "exr":
            _whole(order.out / names[-1], lambda path: look.write_exr(path, maps, alpha, rig, text))
        elif name == "glb":
            _whole(order.out / names[-1], _bytes(glb.scene_glb(maps, factor, alpha)))
        else:
            _whole(order.out / names[-1], _bytes(encode_png(made[name](), 1, text if name == "relit16" else "")))
    if order.rig is None:
        return names
    relit = relight(maps, rig)
    jpg = order.format == "jpg"
    data = encode_jpeg(relit, order.quality) if jpg else encode_png(look.with_alpha(relit, alpha), 1, text)
    names.append(f"{stem}.{order.format}")
    _whole(order.out / names[-1], _bytes(data))
    return names


def _bytes(data: bytes) -> Callable[[str], None]:
    return lambda path: _save(path, data)


def _save(path: str, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)


def _whole(path: Path, write: Callable[[str], None]) -> None:
    """Have a file written beside its place, and put it there when it is whole."""
    draft = path.with_name(f".{path.name}.part")  # one that a killed run left is written anew
    try:
        write(str(draft))
        os.replace(draft, path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


class _Report:
    """out/REPORT: what was wanted, and what came of each photograph, by its path."""

    def __init__(self, path: Path, wanted: Dict[str, Any]):
        self._path, self._saved = path, 0.0
        self._told: Dict[str, Any] = {"wanted": wanted, "pictures": {}}
        try:
            before = json.loads(path.read_text("utf-8"))
            if before["wanted"] == wanted and isinstance(before["pictures"], dict):
                self._told["pictures"] = before["pictures"]
        except (OSError, ValueError, KeyError, TypeError):  # none yet, or not one of ours
            pass

    def has(self, picture: Picture, order: Order) -> bool:
        """Was it made as it is wanted, of the same file?"""
        entry = self._told["pictures"].get(str(picture.path), {})
        try:
            return (
                entry.get("of") == _state(picture.path)
                and order.last(picture.stem) in entry["files"]
                and all((order.out / name).is_file() for name in entry["files"])
            )
        except (OSError, KeyError, TypeError):
            return False

    def add(self, picture: Picture, entry: Dict[str, Any]) -> None:
        """Note what came of a photograph."""
        if "files" in entry:
            entry = {"of": _state(picture.path), **entry}
        self._told["pictures"][str(picture.path)] = entry
        if time.monotonic() - self._saved > 1:
            self.save()

    def save(self) -> None:
        """Write it."""
        _whole(self._path, _bytes(json.dumps(self._told, indent=1).encode()))
        self._saved = time.monotonic()


def _state(path: Path) -> List[int]:
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns]


class _Progress:
    """A bar with pictures a second and the time left; where nobody looks, a line now and then."""

    def __init__(self, total: int, stream: TextIO):
        self._total, self._stream, self._began, self._said = total, stream, time.monotonic(), -1e9
        self._made = self._skipped = 0
        self._failures: List[str] = []

    def skip(self, count: int) -> None:
        """So many were done before."""
        self._skipped += count

    def step(self, picture: Picture, entry: Dict[str, Any]) -> None:
        """One more is done."""
        self._made += 1
        if "error" in entry:
            self._failures.append(f"{picture.path}: {entry['error']['detail']}")
        now, live, done = time.monotonic(), self._stream.isatty(), self._made + self._skipped
        if now - self._said < (0.1 if live else 30) and done < self._total:
            return
        self._said = now
        rate = self._made / max(now - self._began, 1e-9)
        left = int((self._total - done) / rate)
        bar = ("#" * (24 * done // self._total)).ljust(24)
        text = f"[{bar}] {done}/{self._total}  {rate:.2f} pictures/s  {left // 60}:{left % 60:02d} left"
        self._stream.write(f"\r{text}\033[K" if live else f"{text}\n")
        self._stream.flush()

    def end(self) -> int:
        """Say how it went. Returns the number of failures."""
        seconds = time.monotonic() - self._began
        before = f", {self._skipped} were there before" if self._skipped else ""
        lines = [f"{self._made - len(self._failures)} relit in {seconds:.1f} s{before}", *self._failures]
        self._stream.write("\n" * self._stream.isatty() + "\n".join(lines) + "\n")
        return len(self._failures)
