"""What the endpoints do, without HTTP: upload, tell, hand out, delete; relighting is rendering.py."""

import asyncio
import hashlib
import logging
import time
import uuid
from contextlib import contextmanager, suppress
from typing import Any, AsyncIterator, BinaryIO, Callable, Dict, Iterator, Optional, Tuple

from filelock import Timeout

from .. import __version__
from ..errors import FileNotFound, FileTooLarge, JobNotFound, ModelMissing, Overloaded, RelightError, StorageFull
from ..image.decoder_pool import Decoders
from ..model import engine as models
from ..settings import Settings
from . import base as jobs
from . import record as records
from .analysis import Analyst
from .base import JobFile
from .cache import Cache
from .pool import Pool
from .processes import LocalMetricsExchange, ProcessRegistry
from .record import Record
from .rendering import Renderer
from .store import LocalStore

log = logging.getLogger("relight")
RECENT = 30.0  # seconds; what was used so lately may be in use in another process, if there is one
ROOM_SECONDS = 30.0  # how long an upload may wait for its turn to take room
ARRIVING = 8  # uploads on their way for each place in line
KEPT_ALIVE = 15.0  # seconds between two looks at a job that an event stream watches


class Service:
    """Holds everything the application owns. Methods that are `async` run on the event loop and never block it."""

    def __init__(
        self,
        settings: Settings,
        engine: Optional[models.Engine],
        problem: Optional[RelightError],
        observe: Callable[[str, float], None],
    ):
        self.settings, self.engine, self.problem, self.observe = settings, engine, problem, observe
        self.processes: jobs.Coordination = ProcessRegistry(settings.jobs_dir)
        self.store: jobs.JobStore = LocalStore(settings.jobs_dir, self.processes)
        self.metrics_exchange: jobs.MetricsExchange = LocalMetricsExchange(self.processes)
        threads = settings.processors
        self.pool = Pool("work", threads, settings.max_queue)
        self.analysis_pool = Pool("analysis", 1, settings.max_queue)
        self.cache = Cache(settings.maps_cache_bytes)
        self.analyst = Analyst(
            self.store, self.processes, engine, self.analysis_pool, settings.analysis_timeout_seconds, observe
        )
        self.decoders = Decoders(settings.decoder_processes, settings.max_pixels, settings.max_upload_bytes)
        self.engine_digest = models.digest(engine) if engine is not None else ""
        self.renderer = Renderer(self.store, self.processes, self.analyst, self.pool, self.cache, observe)
        self._uploads = 0
        self.clock = (time.time(), time.monotonic())  # at the last sweep

    def close(self) -> None:
        """Finish what runs and give up the store."""
        self.analyst.closing.set()
        self.pool.close()
        self.analysis_pool.close()
        self.decoders.close()
        self.processes.close()

    # -- what is in use, and room

    def in_use(self, job_id: str) -> bool:
        """Is this job worked with, here or by what its state says?"""
        if self.renderer.uses(job_id) or self.analyst.holds(job_id):
            return True
        try:
            return records.load(self.store, job_id).state in (records.QUEUED, records.ANALYSING)
        except JobNotFound:
            return False

    def make_room(self, owner: str, need: int) -> None:
        """Delete the least recently used jobs until `need` more bytes fit the quota. Raises StorageFull.

        To be called under the store's room lock.
        """
        s = self.settings
        if not (s.jobs_quota_bytes or s.key_jobs or s.key_bytes):
            return
        entries = list(self.store.list())
        if owner and (s.key_jobs or s.key_bytes):
            mine = [e for e in entries if self._owner(e.job_id) == owner]
            if s.key_jobs and len(mine) >= s.key_jobs:
                raise StorageFull(f"This key has {len(mine)} jobs and may have {s.key_jobs}. Delete one first.")
            if s.key_bytes and sum(e.size for e in mine) + need > s.key_bytes:
                raise StorageFull(f"The jobs of this key may take {s.key_bytes} bytes. Delete one first.")
        if s.jobs_quota_bytes:
            now, alone = time.time(), self.processes.is_alone()
            lately = set() if alone else {e.job_id for e in entries if abs(now - e.used) < RECENT}
            victims = jobs.jobs_to_evict(entries, s.jobs_quota_bytes, need, lambda j: j in lately or self.in_use(j))
            if victims is None:
                raise StorageFull()
            for job_id in victims:
                with suppress(JobNotFound):  # its owner was quicker
                    self.remove(job_id)

    def _owner(self, job_id: str) -> Optional[str]:
        try:
            return records.load(self.store, job_id).owner
        except JobNotFound:
            return None

    def remove(self, job_id: str) -> None:
        """Delete a job and all that is known of it. Raises JobNotFound."""
        try:
            key = records.load(self.store, job_id).key
        except JobNotFound:
            key = ""
        self.store.delete(job_id)
        if key:
            self.store.unregister(key, job_id)
        self.cache.drop(job_id)
        self.analyst.forget(job_id)

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
        if self.engine is None:
            raise self.problem or ModelMissing()
        with self.analysis_pool.admitted():
            record = await self.pool.run(self._store_upload, file, owner)
        self.analyst.start(record.job_id, force=True)  # the place in line was held above
        return record

    def _store_upload(self, file: BinaryIO, owner: str) -> Record:
        digest, size = hashlib.sha256(), 0
        while True:
            block = file.read(1 << 20)
            if not block:
                break
            digest.update(block)
            size += len(block)
        if size > self.settings.max_upload_bytes:
            raise FileTooLarge(f"The file has more than {self.settings.max_upload_bytes} bytes.")
        file.seek(0)
        photo = self.decoders.decode(file, size)
        digest.update(f"|{__version__}|{self.engine_digest}|{owner}".encode())
        record = Record(
            job_id=str(uuid.uuid4()),
            width=photo.width,
            height=photo.height,
            key=digest.hexdigest(),
            owner=owner,
            worker=self.processes.worker,
            format=photo.format,
            alpha=photo.alpha,
            focal=photo.focal,
        )
        try:
            with self.processes.room_lock(ROOM_SECONDS):
                self.make_room(owner, len(photo.png))
                self.store.create(record.job_id, {JobFile.INPUT: photo.png, JobFile.JOB: record.dump()})
        except Timeout:
            raise Overloaded() from None
        return record

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
        record = self.analyst.as_it_stands(records.load_owned(self.store, job_id, owner))
        used = self.store.touch(record.job_id)
        return record.public(self.store.names(record.job_id), used, self.settings.job_ttl_seconds)

    async def events(self, job_id: str, owner: str) -> AsyncIterator[Optional[Dict[str, Any]]]:
        """The state whenever it changes, until the job is ready, failed or deleted.

        None now and then as a sign of life.
        """
        last, quiet = None, time.monotonic()
        with self.analyst.watch.listen(job_id) as news:
            while True:
                news.clear()
                try:
                    state = await self.state(job_id, owner)
                except JobNotFound:
                    return
                if state != last:
                    last, quiet = state, time.monotonic()
                    yield state
                    if state["state"] in (records.READY, records.FAILED):
                        return
                elif time.monotonic() - quiet > KEPT_ALIVE:
                    quiet = time.monotonic()
                    yield None
                try:
                    await asyncio.wait_for(news.wait(), 0.25)
                except asyncio.TimeoutError:
                    pass

    async def open_pass(self, job_id: str, name: str, owner: str) -> Tuple[JobFile, BinaryIO]:
        """A pass, open for reading."""
        return await asyncio.to_thread(self._open_pass, job_id, name, owner)

    def _open_pass(self, job_id: str, name: str, owner: str) -> Tuple[JobFile, BinaryIO]:
        record = records.load_owned(self.store, job_id, owner)
        file = jobs.parse_pass(name)
        self.store.touch(record.job_id)
        try:
            stream = self.store.open(record.job_id, file)
        except FileNotFound:
            if record.state == records.READY and file in jobs.ANALYSIS:
                raise self.renderer.damaged(record) from None
            raise
        if record.state == records.READY and file in jobs.ANALYSIS:
            self.renderer.whole(record)
        return file, stream

    async def delete(self, job_id: str, owner: str) -> None:
        """Delete a job. Raises JobNotFound."""

        def work() -> None:
            self.remove(records.load_owned(self.store, job_id, owner).job_id)

        await asyncio.to_thread(work)
