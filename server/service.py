"""What the endpoints do, without HTTP: upload, wait, relight, preview, hand out, delete."""

import asyncio
import hashlib
import logging
import time
import uuid
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, AsyncIterator, Awaitable, BinaryIO, Callable, Dict, Iterator, Optional, Tuple

import numpy as np

from . import imaging, jobs, models, records
from .analysis import Analyst, unpack
from .cache import Cache
from .encoding import encode_jpeg, encode_png
from .errors import FileTooLarge, JobNotFound, ModelMissing, Overloaded, RelightError, StorageFull, Superseded
from .geometry import Geometry
from .jobs import File, LocalStore
from .pool import Pool
from .records import Record
from .schemas import PreviewBody, RelightBody
from .settings import Settings
from .shading import prepare, relight

log = logging.getLogger("relight")
RECENT = 60.0  # seconds; what was used so lately, here or in another process, is in use
KEPT_ALIVE = 15.0  # seconds between two looks at a job that an event stream watches


@dataclass
class Prepared:
    """A picture ready to be relit at one size."""

    maps: Any
    alpha: Optional[np.ndarray]

    @property
    def nbytes(self) -> int:
        """Bytes held now."""
        return int(self.maps.nbytes) + (self.alpha.nbytes if self.alpha is not None else 0)


@dataclass
class Held:
    """Geometry in the cache."""

    geometry: Geometry

    @property
    def nbytes(self) -> int:
        """Bytes held now."""
        g = self.geometry
        return sum(a.nbytes for a in (g.inverse_depth, g.normals, g.mask) if a is not None)


class Turn:
    """One preview of a stream: it waits until it is started, and may be superseded until then."""

    def __init__(self) -> None:
        self.started = False
        self.replaced: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def begin(self) -> None:
        """Called where the work begins."""
        if self.replaced.done():
            raise Superseded()
        self.started = True


class Service:
    """Holds everything the application owns. Methods that are `async` run on the event loop and never block it."""

    def __init__(self, settings: Settings, engine: Optional[models.Engine], problem: Optional[RelightError],
                 observe: Callable[[str, float], None]):
        self.settings, self.engine, self.problem, self.observe = settings, engine, problem, observe
        self.store = LocalStore(settings.jobs_dir)
        threads = settings.processors
        self.pool = Pool("work", threads, settings.max_queue)
        self.analysis_pool = Pool("analysis", 1, settings.max_queue)
        self.cache = Cache(settings.maps_cache_bytes)
        self.analyst = Analyst(self.store, engine, self.analysis_pool, settings.max_pixels, observe)
        self.formats = imaging.FORMATS + imaging.heif_formats()
        self.engine_digest = models.digest(engine) if engine is not None else ""
        self._streams: Dict[Tuple[str, str], Turn] = {}
        self._using: Counter[str] = Counter()
        self._uploads = 0

    def close(self) -> None:
        """Finish what runs and give up the store."""
        self.pool.close()
        self.analysis_pool.close()
        self.store.close()

    # -- who may, and what is in use

    def _load(self, job_id: str, owner: str) -> Record:
        record = records.load(self.store, jobs.parse_id(job_id))
        if record.owner != owner:
            raise JobNotFound()
        return record

    @contextmanager
    def using(self, job_id: str) -> Iterator[None]:
        """Keep a job from being swept while it is worked with."""
        self._using[job_id] += 1
        try:
            yield
        finally:
            self._using[job_id] -= 1
            if self._using[job_id] <= 0:
                del self._using[job_id]

    def in_use(self, job_id: str) -> bool:
        """Is this job worked with, here or by what its state says?"""
        if job_id in self._using or self.analyst.holds(job_id):
            return True
        try:
            return records.load(self.store, job_id).state in (records.QUEUED, records.ANALYSING)
        except JobNotFound:
            return False

    def make_room(self, owner: str, need: int) -> None:
        """Delete the least recently used jobs until `need` more bytes fit the quota. Raises StorageFull."""
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
            now = time.time()
            used = {e.job_id: e.used for e in entries}
            victims = jobs.free_of(entries, s.jobs_quota_bytes, need,
                                   lambda j: abs(now - used[j]) < RECENT and self.in_use(j) or j in self._using)
            if victims is None:
                raise StorageFull()
            for job_id in victims:
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
        self.analyst.watch.tell(job_id)

    # -- upload

    @contextmanager
    def uploads(self) -> Iterator[None]:
        """A place for one upload, from its first byte on. Raises Overloaded."""
        if self.analysis_pool.pending >= self.analysis_pool.limit:
            raise Overloaded()
        self._uploads += 1
        try:
            if self._uploads > self.pool.limit:
                raise Overloaded()
            yield
        finally:
            self._uploads -= 1

    async def upload(self, file: BinaryIO, owner: str) -> Record:
        """Decode, check and store a photo and start its analysis. Raises the errors of a bad file, Overloaded, StorageFull."""
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
        photo = imaging.decode(file, self.settings.max_pixels, self.formats)
        data = encode_png(photo.pixels)
        self.make_room(owner, len(data))
        digest.update(f"|{self.engine_digest}|{self.settings.analysis_size}|{owner}".encode())
        h, w = photo.pixels.shape[:2]
        record = Record(job_id=str(uuid.uuid4()), width=w, height=h, key=digest.hexdigest(), owner=owner, worker=self.store.worker,
                        format=photo.format, alpha=photo.pixels.shape[2] == 4, focal=photo.focal)
        self.store.create(record.job_id, {File.INPUT: data, File.JOB: record.dump()})
        return record

    # -- relight and preview

    def _geometry(self, record: Record) -> Geometry:
        def make() -> Held:
            try:
                return Held(unpack(self.store.get(record.job_id, File.GEOMETRY)))
            except (jobs.FileNotFound, ValueError, KeyError, EOFError, OSError) as exc:
                raise self._damaged(record) from exc

        return self.cache.get((record.job_id, "geometry"), make).geometry

    def _damaged(self, record: Record) -> RelightError:
        """A ready job whose files were lost is analysed anew; meanwhile the client is told to come back."""
        log.error("job %s: its files are missing or damaged; analysing it again", record.job_id)
        record.attempts = 0
        self.analyst.adopt(record)
        return Overloaded("The files of this job were damaged; it is being analysed again. Retry after a moment.")

    def _prepared(self, record: Record, max_side: int) -> Prepared:
        side = min(max_side, max(record.width, record.height))

        def make() -> Prepared:
            geometry = self._geometry(record)
            pixels = imaging.fit_within(imaging.read_png(self.store.get(record.job_id, File.INPUT)), side)
            alpha = np.ascontiguousarray(pixels[..., 3]) if pixels.shape[2] == 4 else None
            return Prepared(prepare(np.ascontiguousarray(pixels[..., :3]), geometry, record.fit), alpha)

        return self.cache.get((record.job_id, side), make)

    async def _ready(self, job_id: str, owner: str) -> Record:
        record = await asyncio.to_thread(self._load, job_id, owner)
        await asyncio.to_thread(self.store.touch, record.job_id)
        if record.state == records.READY:
            return record
        with self.pool.admitted():
            return await self.analyst.ready(record.job_id)

    async def relight(self, body: RelightBody, owner: str) -> Tuple[Record, Dict[str, float]]:
        """Make relit.png; returns when it is whole on disk. Also returns seconds by stage."""
        clock = Laps(self.observe)
        job_id = jobs.parse_id(body.job_id)
        with self.using(job_id):
            record = await self._ready(job_id, owner)
            clock.lap("wait")
            await self.pool.run(self._relight, record, body, clock)
        return record, clock.seconds

    def _relight(self, record: Record, body: RelightBody, clock: "Laps") -> None:
        clock.lap("queue")
        ready = self._prepared(record, max(record.width, record.height))
        clock.lap("maps")
        out = relight(ready.maps, body.rig(), threads=self.pool.share())
        self.cache.trim()
        if ready.alpha is not None:
            out = np.dstack([out, ready.alpha])
        clock.lap("shade")
        data = encode_png(out)
        clock.lap("encode")
        self.store.put(record.job_id, File.RELIT, data)
        clock.lap("store")

    async def preview(self, body: PreviewBody, owner: str, gone: Callable[[], Awaitable[bool]]) -> Tuple[bytes, Dict[str, float]]:
        """A relit JPEG from memory, and seconds by stage. Raises Superseded when a newer one of its stream came first."""
        clock, turn = Laps(self.observe), Turn()
        job_id = jobs.parse_id(body.job_id)
        key = (job_id, owner + "|" + (body.stream or ""))
        if body.stream:
            older = self._streams.get(key)
            if older is not None and not older.started and not older.replaced.done():
                older.replaced.set_result(None)
            self._streams[key] = turn
        work = asyncio.ensure_future(self._preview(job_id, body, owner, turn, clock, gone))
        try:
            await asyncio.wait({work, turn.replaced}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                raise Superseded()
            return work.result(), clock.seconds
        finally:
            work.cancel()
            if self._streams.get(key) is turn:
                del self._streams[key]

    async def _preview(self, job_id: str, body: PreviewBody, owner: str, turn: Turn, clock: "Laps",
                       gone: Callable[[], Awaitable[bool]]) -> bytes:
        with self.using(job_id):
            record = await self._ready(job_id, owner)
            clock.lap("wait")
            if await gone():
                raise Superseded("The client has gone.")
            return await self.pool.run(self._render_preview, record, body, turn, clock)

    def _render_preview(self, record: Record, body: PreviewBody, turn: Turn, clock: "Laps") -> bytes:
        turn.begin()
        clock.lap("queue")
        ready = self._prepared(record, body.max_side)
        clock.lap("maps")
        out = relight(ready.maps, body.rig(), threads=self.pool.share())
        self.cache.trim()
        clock.lap("shade")
        data = encode_jpeg(out, body.quality)
        clock.lap("encode")
        return data

    # -- the rest

    async def state(self, job_id: str, owner: str) -> Dict[str, Any]:
        """What clients may know of a job."""
        return await asyncio.to_thread(self._state, job_id, owner)

    def _state(self, job_id: str, owner: str) -> Dict[str, Any]:
        record = self._load(job_id, owner)
        used = self.store.touch(record.job_id)
        return record.public(self.store.names(record.job_id), used, self.settings.job_ttl_seconds)

    async def events(self, job_id: str, owner: str) -> AsyncIterator[Optional[Dict[str, Any]]]:
        """The state whenever it changes, until the job is ready, failed or deleted; None now and then as a sign of life."""
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

    async def open_pass(self, job_id: str, name: str, owner: str) -> Tuple[File, BinaryIO]:
        """A pass, open for reading."""
        return await asyncio.to_thread(self._open_pass, job_id, name, owner)

    def _open_pass(self, job_id: str, name: str, owner: str) -> Tuple[File, BinaryIO]:
        record = self._load(job_id, owner)
        file = jobs.parse_pass(name)
        self.store.touch(record.job_id)
        return file, self.store.open(record.job_id, file)

    async def delete(self, job_id: str, owner: str) -> None:
        """Delete a job. Raises JobNotFound."""

        def work() -> None:
            self.remove(self._load(job_id, owner).job_id)

        await asyncio.to_thread(work)


class Laps:
    """Seconds by stage."""

    def __init__(self, observe: Callable[[str, float], None]):
        self.seconds: Dict[str, float] = {}
        self._observe, self._last = observe, time.perf_counter()

    def lap(self, stage: str) -> None:
        """The stage that ends now."""
        now = time.perf_counter()
        self.seconds[stage] = round(now - self._last, 5)
        self._observe(stage, now - self._last)
        self._last = now
