"""What the endpoints do, without HTTP: upload, tell, hand out, delete; relighting is rendering.py."""

import asyncio
import hashlib
import logging
import os
import time
import uuid
from contextlib import contextmanager, nullcontext
from typing import Any, AsyncIterator, BinaryIO, Callable, Dict, Iterator, List, Optional, Tuple

from .. import __version__
from ..errors import (
    EnvironmentNotFound,
    FileNotFound,
    FileTooLarge,
    JobNotFound,
    ModelMissing,
    Overloaded,
    RelightError,
    StoreAway,
)
from ..image import animation
from ..image.decoder_pool import Decoders
from ..image.encode import encode_png
from ..light.lights import Mask, Rig
from ..model import sessions
from ..model.engine import Engine
from ..model.engine import digest as digest_of
from ..scene.subject import UNKNOWN
from ..settings import Settings
from . import glb, masks, surroundings
from .analysis import Analyst, IsDisconnected
from .backend import open_backend
from .base import ARCHIVE, ARCHIVED, DERIVED, LARGE, LIT, JobFile, begin, facts, parse_download
from .cache import Cache
from .motions import RENDERING, Motions
from .photos import Photos
from .pool import Pool
from .preview_queue import PreviewQueue
from .record import ANALYSING, FAILED, QUEUED, READY, Record, load_owned_record, load_record
from .rendering import PreviewOptions, Renderer
from .sheet import Looks
from .usage import JobsInUse, Quota, room_held

log = logging.getLogger("relight")
LIT_BYTES = {JobFile.RELIT16: 6, JobFile.EXR: 40}  # a pixel, at most as a rule
ARRIVING = 8  # uploads on their way for each place in line
KEPT_ALIVE = 15.0  # seconds between two looks at a job that an event stream watches


class Service:
    """Holds everything the application owns. Methods that are `async` run on the event loop and never block it."""

    def __init__(
        self,
        settings: Settings,
        engine: Optional[Engine],
        problem: Optional[RelightError],
        observe: Callable[[str, float], None],
        looks: Looks = (),
        analyse: Optional[Callable[[str], None]] = None,
    ):
        self.settings, self.engine, self.problem, self.observe = settings, engine, problem, observe
        self.processes, self.store, self.metrics_exchange = open_backend(settings)
        threads = settings.processors
        self.pool = Pool("work", threads, settings.max_queue)
        at_once = settings.max_queue + 1 if analyse else 1  # those made elsewhere are only waited for
        self.analysis_pool = Pool("analysis", at_once, settings.max_queue + 1 - at_once)
        self.cache = Cache(settings.maps_cache_bytes)
        self.photos = Photos(self.store, self.cache)
        self.analyst = Analyst(
            self.store,
            self.photos,
            self.processes,
            engine,
            self.analysis_pool,
            settings.analysis_timeout_seconds,
            observe,
            analyse,
        )
        self.decoders = Decoders(settings.decoder_processes, settings.max_pixels, settings.max_upload_bytes)
        self.engine_digest = digest_of(engine) if engine is not None else ""
        self.jobs_in_use = JobsInUse()
        self.quota = Quota(settings, self.store, self.processes, self.in_use, self.remove)
        previews = PreviewQueue(self.processes)
        self.renderer = Renderer(
            self.store, self.photos, previews, self.analyst, self.pool, self.cache, self.jobs_in_use, observe, looks
        )
        self.motion_pool = Pool("motion", 1, settings.max_queue)
        self.motions = Motions(self.store, self.renderer, self.processes, self.pool, self.motion_pool, self._room)
        self._uploads = 0
        self.clock = (time.time(), time.monotonic())  # at the last sweep
        self.settled: Dict[str, str] = {}  # jobs that a sweep found ready or failed, and the version it looked at

    def close(self) -> None:
        """Finish what runs and give up the store; `motions` are closed before."""
        self.analyst.closing.set()
        self.motion_pool.close()
        self.pool.close()
        self.analysis_pool.close()
        self.decoders.close()
        self.processes.close()

    # -- what is in use

    def in_use(self, job_id: str) -> bool:
        """Is this job worked with, here or by what its state says?"""
        if job_id in self.jobs_in_use or self.analyst.holds(job_id):
            return True
        try:
            return load_record(self.store, job_id).state in (QUEUED, ANALYSING)
        except JobNotFound:
            return False

    def remove(self, job_id: str, used: Optional[float] = None) -> None:
        """Delete a job and all that is known of it. Raises JobNotFound, TakenOver where it was used since `used`."""
        try:
            fingerprint = load_record(self.store, job_id).fingerprint
        except JobNotFound:
            fingerprint = ""
        self.store.delete(job_id, used)
        if fingerprint:
            self.store.unregister(fingerprint, job_id)
        self.cache.drop(job_id)
        self.analyst.forget(job_id)

    # -- the models

    def check_model(self) -> None:
        """Raises ModelMissing when photos cannot be analysed."""
        if self.engine is None:
            raise self.problem or ModelMissing()

    def check_ready(self) -> None:
        """Raises ModelMissing when photos cannot be analysed, or when the model hangs."""
        self.check_model()
        if self.analyst.hangs:
            raise ModelMissing("The model hangs. The server has to be started again.")

    def models(self) -> List[Dict[str, Any]]:
        """The manifests of the models that run."""
        return self.engine.describe() if self.engine is not None else []

    def describe(self) -> Dict[str, Any]:
        """The models, what runs them, and the limits of an upload."""
        s = self.settings
        return {
            "models": self.models(),
            "runtime": sessions.runtime(),
            "threads": s.processors,
            "limits": {
                "upload_bytes": s.max_upload_bytes,
                "pixels": s.max_pixels,
                "formats": list(self.decoders.formats),
                "motions": list(animation.available()),
                "job_ttl_seconds": s.job_ttl_seconds,
            },
        }

    def peer_metrics(self) -> List[Tuple[bytes, bool]]:
        """The metrics of the other processes, and whether they live; see MetricsExchange."""
        return self.metrics_exchange.peer_metrics()

    # -- light

    async def relight(
        self, job_id: str, rig: Rig, owner: str, is_disconnected: IsDisconnected
    ) -> Tuple[Record, Dict[str, float]]:
        """Make relit.png of a job; see Renderer."""
        return await self.renderer.relight(job_id, rig, owner, is_disconnected)

    async def preview(
        self, job_id: str, rig: Rig, options: PreviewOptions, owner: str, is_disconnected: IsDisconnected
    ) -> Tuple[bytes, Dict[str, float]]:
        """A relit JPEG; see Renderer."""
        return await self.renderer.preview(job_id, rig, options, owner, is_disconnected)

    async def open_maps(self, job_id: str, max_side: int, owner: str, is_disconnected: IsDisconnected) -> BinaryIO:
        """The maps by which a browser lights a job's photo, open for reading; see Renderer.

        max_side: one of MAPS. Waits for the analysis.
        """
        return await self.renderer.open_maps(job_id, max_side, owner, is_disconnected)

    # -- upload

    @contextmanager
    def uploads(self) -> Iterator[None]:
        """A place for one upload, from its first byte on: slow ones take none of the places in line.

        Raises Overloaded.
        """
        if self.analysis_pool.pending >= self.analysis_pool.limit:
            raise Overloaded()
        self._uploads += 1
        try:
            if self._uploads > ARRIVING * self.pool.limit:
                raise Overloaded()
            yield
        finally:
            self._uploads -= 1

    async def upload(self, file: BinaryIO, owner: str) -> Record:
        """Decode, check and store a photo and start its analysis.

        Raises the errors of a bad file, Overloaded, StorageFull.
        """
        self.check_model()
        with self.analysis_pool.admitted():
            record = await self.pool.run(self._store_upload, file, owner)
        self.analyst.start(record.job_id, force=True)  # the place in line was held above
        return record

    def _check_bytes(self, size: int) -> None:
        if size > self.settings.max_upload_bytes:
            raise FileTooLarge(f"The file has more than {self.settings.max_upload_bytes} bytes.")

    def _measured(self, file: BinaryIO) -> int:
        """The bytes of a file, which is at its beginning then. Raises FileTooLarge."""
        size = file.seek(0, os.SEEK_END)
        self._check_bytes(size)
        file.seek(0)
        return size

    def _store_upload(self, file: BinaryIO, owner: str) -> Record:
        digest, size = hashlib.sha256(), 0
        while True:
            block = file.read(1 << 20)
            if not block:
                break
            digest.update(block)
            size += len(block)
        self._check_bytes(size)
        file.seek(0)
        photo = self.decoders.decode(file, size)
        digest.update(f"|{__version__}|{self.engine_digest}|{owner}".encode())
        record = Record(
            job_id=str(uuid.uuid4()),
            width=photo.pixels.shape[1],
            height=photo.pixels.shape[0],
            fingerprint=digest.hexdigest(),
            owner=owner,
            worker=self.processes.worker,
            format=photo.format,
            alpha=photo.pixels.shape[2] == 4,
            focal=photo.focal,
        )
        png = encode_png(photo.pixels, self.pool.threads_per_task())
        with self._room(owner, len(png), jobs=1) if self.quota.limits(owner) else nullcontext():
            self.store.create(record.job_id, {JobFile.INPUT: png, JobFile.JOB: record.dump()})
        self.photos.keep(record.job_id, photo.pixels)
        return record

    @contextmanager
    def _room(self, owner: str, need: int, jobs: int = 0) -> Iterator[None]:
        """Room for so many bytes more, of so many new jobs, while they are taken. Raises StorageFull, Overloaded."""
        with room_held(self.processes):
            self.quota.make_room(owner, need, jobs)
            yield

    # -- light from all around

    async def check_job(self, job_id: str, owner: str) -> None:
        """Raises JobNotFound where the owner has no such job."""
        await asyncio.to_thread(load_owned_record, self.store, job_id, owner)

    async def put_environment(self, job_id: str, file: BinaryIO, owner: str) -> Tuple[int, int]:
        """Give a job an environment; returns its (height, width) as stored.

        Raises JobNotFound, the errors of a bad file, Overloaded, StorageFull.
        """
        with self.jobs_in_use.hold(job_id):
            size: Tuple[int, int] = await self.pool.run(self._store_environment, job_id, file, owner)
        return size

    def _store_environment(self, job_id: str, file: BinaryIO, owner: str) -> Tuple[int, int]:
        radiance = self.decoders.decode_environment(file, self._measured(file))
        record, data = load_owned_record(self.store, job_id, owner), surroundings.pack(radiance)
        with self._room(owner, len(data)):
            self.store.put(record.job_id, JobFile.ENVIRONMENT, data)
        return radiance.shape[0], radiance.shape[1]

    async def delete_environment(self, job_id: str, owner: str) -> None:
        """Take a job's environment away. Raises JobNotFound, EnvironmentNotFound."""

        def work() -> None:
            record = load_owned_record(self.store, job_id, owner)
            if JobFile.ENVIRONMENT not in self.store.names(record.job_id):
                raise EnvironmentNotFound()
            self.store.discard(record.job_id, [JobFile.ENVIRONMENT])

        await asyncio.to_thread(work)

    # -- masks

    async def check_mask(self, job_id: str, name: str, owner: str) -> None:
        """Raises JobNotFound, and InvalidMask where the job cannot be given a mask of that name."""

        def work() -> None:
            record = load_owned_record(self.store, job_id, owner)
            masks.check_writable(name)
            masks.check_count(self.store, record.job_id, name)

        await asyncio.to_thread(work)

    async def put_mask(self, job_id: str, name: str, file: BinaryIO, owner: str) -> Tuple[int, int]:
        """Give a job a mask; returns its (height, width) as stored.

        Raises JobNotFound, InvalidMask, the errors of a bad file, Overloaded, StorageFull.
        """
        with self.jobs_in_use.hold(job_id):
            size: Tuple[int, int] = await self.pool.run(self._store_mask, job_id, name, file, owner)
        return size

    def _store_mask(self, job_id: str, name: str, file: BinaryIO, owner: str) -> Tuple[int, int]:
        decoded = self.decoders.decode(file, self._measured(file))
        record = load_owned_record(self.store, job_id, owner)
        mask = masks.made_of(decoded, (record.height, record.width))
        data, mark = masks.encoded(mask, self.pool.threads_per_task())
        with self._room(owner, len(data)):
            masks.put(self.store, record.job_id, name, data, mark)
        return record.height, record.width

    async def mask(
        self,
        job_id: str,
        mask: Mask,
        max_side: Optional[int],
        owner: str,
        is_wanted: Callable[[str], bool],
        is_disconnected: IsDisconnected,
    ) -> Optional[bytes]:
        """A mask of a job as a PNG; see Renderer."""
        return await self.renderer.mask(job_id, mask, max_side, owner, is_wanted, is_disconnected)

    async def delete_mask(self, job_id: str, name: str, owner: str) -> None:
        """Take a mask away. Raises JobNotFound, InvalidMask, MaskNotFound, Overloaded, StorageFull."""

        def work() -> None:
            record = load_owned_record(self.store, job_id, owner)
            masks.check_writable(name)
            with room_held(self.processes):
                masks.delete(self.store, record.job_id, name)

        await asyncio.to_thread(work)

    def forget_deleted(self) -> None:
        """Let go of what is kept in memory of jobs that other processes have deleted."""
        for job_id in {*map(str, self.cache.jobs()), *self.analyst.unsaved}:
            if not self.store.exists(job_id):
                self.cache.drop(job_id)
                self.analyst.forget(job_id)

    # -- the rest

    async def state(self, job_id: str, owner: str) -> Dict[str, Any]:
        """What clients may know of a job."""
        return await asyncio.to_thread(self._state, job_id, owner)

    def _state(self, job_id: str, owner: str) -> Dict[str, Any]:
        return self._public(self.analyst.as_it_stands(load_owned_record(self.store, job_id, owner)))

    def _public(self, record: Record) -> Dict[str, Any]:
        used, files = self.store.touch(record.job_id), self.store.names(record.job_id)
        around = surroundings.size(self.store, record.job_id) if JobFile.ENVIRONMENT in files else None
        names = sorted(masks.versions(self.store, record.job_id)) if JobFile.MASKS in files else []
        motion = self.motions.public(record.job_id) if JobFile.MOTION in files else None
        return record.public(files, used, self.settings.job_ttl_seconds, around, names, motion)

    async def events(self, job_id: str, owner: str) -> AsyncIterator[Optional[Dict[str, Any]]]:
        """The state whenever it changes, until the job is ready, failed or deleted and no motion of it renders.

        None now and then as a sign of life.
        """
        watched = self.analyst.watch(job_id)
        last, quiet = None, time.monotonic()
        try:
            async for record in watched:
                if record.owner != owner:
                    return
                try:
                    state = await asyncio.to_thread(self._public, record)
                except StoreAway:  # as patient as `watch`
                    continue
                if state != last:
                    last, quiet = state, time.monotonic()
                    yield state
                elif time.monotonic() - quiet > KEPT_ALIVE:
                    quiet = time.monotonic()
                    yield None
                if state["state"] in (READY, FAILED) and (state["motion"] or {}).get("state") != RENDERING:
                    return
        except JobNotFound:
            return
        finally:
            await watched.aclose()

    async def open_pass(self, job_id: str, name: str, owner: str, make: bool = True) -> Tuple[JobFile, BinaryIO]:
        """A pass or motion, open for reading; passes that follow from others are made when first asked for.

        make: also those of LARGE. Raises JobNotFound, FileNotFound; for what has to be
        made, Overloaded and StorageFull.
        """
        record = await asyncio.to_thread(load_owned_record, self.store, job_id, owner)
        file = parse_download(name)
        await asyncio.to_thread(self.store.touch, record.job_id)
        return file, await self._open(record, file, make)

    async def _open(self, record: Record, file: JobFile, make: bool) -> BinaryIO:
        if record.state == READY and record.lacks(file):
            raise FileNotFound(UNKNOWN)
        derived, lit = (record.state == READY and file in kind for kind in (DERIVED, LIT))
        try:
            stream = await asyncio.to_thread(self._open_current if lit else self.store.open, record.job_id, file)
        except FileNotFound:
            if not (derived or lit) or (file in LARGE and not make):
                raise
            if file in LARGE:
                await asyncio.to_thread(self._make_room, record, file)
            await self.renderer.make_pass(record, file)
            stream = await asyncio.to_thread(self.store.open, record.job_id, file)
        if derived:
            await asyncio.to_thread(self.renderer.note_whole, record)
        return stream

    def _open_current(self, job_id: str, file: JobFile) -> BinaryIO:
        """A pass of LIT, unless it was made with other lights than those of relit.png. Raises FileNotFound."""
        stream = self.store.open(job_id, file)
        if not self.renderer.is_current(job_id, stream):
            stream.close()
            raise FileNotFound(f"{file.value} is not made yet for this job.")
        return stream

    def _make_room(self, record: Record, file: JobFile) -> None:
        if file in LIT and JobFile.RELIT not in self.store.names(record.job_id):
            return  # nothing will be made
        need = record.width * record.height * LIT_BYTES[file] if file in LIT else glb.BYTES
        with self.renderer.in_use.hold(record.job_id), self._room(record.owner, need):
            pass

    async def direct(self, job_id: str, file: JobFile, seconds: float) -> Optional[str]:
        """An address from which anybody may read a pass for so long; None where the server alone can send it."""
        if not self.settings.direct_downloads:
            return None
        return await asyncio.to_thread(self.store.direct, job_id, file, seconds)

    async def open_archive(self, job_id: str, owner: str, make: bool = True) -> List[Tuple[str, BinaryIO]]:
        """All passes of a job that was relit, open for reading, by name.

        Those that are missing are made; unless they are to be, there are none where one is missing.

        Raises what open_pass does.
        """
        record = await asyncio.to_thread(load_owned_record, self.store, job_id, owner)
        await asyncio.to_thread(self.store.touch, record.job_id)
        there = await asyncio.to_thread(self.store.names, record.job_id)
        if record.state != READY or JobFile.RELIT not in there:
            raise FileNotFound(f"{ARCHIVE} holds what the last relight made. Relight the job first.")
        wanted = [file for file in ARCHIVED if not record.lacks(file)]
        files: List[Tuple[str, BinaryIO]] = []
        if not make and not set(wanted) <= set(there):
            return files
        try:
            for file in wanted:
                stream = await self._open(record, file, make)
                files.append((file.value, stream))
                if make:
                    await asyncio.to_thread(begin, stream, 0, facts(stream).size)
        except BaseException:
            for _, stream in files:
                stream.close()
            raise
        return files

    async def delete(self, job_id: str, owner: str) -> None:
        """Delete a job. Raises JobNotFound."""

        def work() -> None:
            self.remove(load_owned_record(self.store, job_id, owner).job_id)

        await asyncio.to_thread(work)
