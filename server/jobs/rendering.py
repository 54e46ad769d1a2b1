"""Relit pictures of jobs.

Waiting for the analysis, prepared maps in memory, previews of which only the newest counts.
"""

import asyncio
import hashlib
import logging
import time
from collections import Counter
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Callable, Dict, Iterator, Optional, Tuple

import numpy as np

from ..errors import DamagedFile, FileNotFound, ModelMissing, Overloaded, RelightError, StorageFull, Superseded
from ..image import decode as imaging
from ..image.encode import encode_jpeg, encode_png
from ..light.shading import prepare, relight
from ..metrics import StageTimer
from ..scene.geometry import Geometry, unpack
from ..web.schemas import PreviewBody, RelightBody
from . import record as records
from .analysis import Analyst, Gone, read_photo
from .base import Coordination, JobFile, JobStore
from .cache import Cache
from .pool import Pool
from .record import Record

log = logging.getLogger("relight")


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
        self.inherits = False  # the place in line of the one it replaces
        self.stream, self.ticket = "", None  # type: str, Optional[str]
        self.replaced: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def begin(self) -> None:
        """Called where the work begins."""
        if self.replaced.done():
            raise Superseded()
        self.started = True


class Renderer:
    """Makes relit pictures. Methods that are `async` run on the event loop and never block it."""

    def __init__(
        self,
        store: JobStore,
        processes: Coordination,
        analyst: Analyst,
        pool: Pool,
        cache: Cache,
        observe: Callable[[str, float], None],
    ):
        self.store, self.processes, self.analyst = store, processes, analyst
        self.pool, self.cache, self.observe = pool, cache, observe
        self._streams: Dict[Tuple[str, str], Turn] = {}
        self._using: Counter[str] = Counter()

    def uses(self, job_id: str) -> bool:
        """Is a picture of this job being made?"""
        return job_id in self._using

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

    def _geometry(self, record: Record) -> Geometry:
        def make() -> Held:
            try:
                return Held(unpack(self.store.get(record.job_id, JobFile.GEOMETRY)))
            except (FileNotFound, DamagedFile) as exc:
                raise self.damaged(record) from exc

        return self.cache.get((record.job_id, "geometry"), make).geometry

    def damaged(self, record: Record) -> RelightError:
        """A ready job whose files were lost is analysed anew, once; meanwhile the client is told to come back.

        What is damaged still, right after it was made anew, is a fault of ours: analysing it again and again would not
        end. Without an engine it stays what it is: some of its passes may still be whole.
        """
        if self.analyst.engine is None:
            return ModelMissing()
        if record.healing:
            return RelightError(
                "The files of this job were damaged, and are so again after it was analysed anew. "
                "Upload the photo again."
            )
        log.error("job %s: its files are missing or damaged; analysing it again", record.job_id)
        self.cache.drop(record.job_id)
        self.store.unregister(record.key, record.job_id)  # no twin may take over what is damaged
        record.attempts = 1  # its analysis went well before
        record.healing = True
        self.analyst.adopt(record)
        return Overloaded("The files of this job were damaged; it is being analysed again. Retry after a moment.")

    def whole(self, record: Record) -> None:
        """Note that a job which was analysed anew could be read: should it be damaged again, it is healed again."""
        if record.healing:
            record.healing = False
            with suppress(StorageFull):  # it is lit all the same
                records.save(self.store, record)

    def _prepared(self, record: Record, max_side: int) -> Prepared:
        side = min(max_side, max(record.width, record.height))

        def make() -> Prepared:
            geometry = self._geometry(record)
            try:
                pixels = read_photo(self.store, record)
            except (FileNotFound, DamagedFile) as exc:
                raise self.damaged(record) from exc
            if record.fit is None:
                raise self.damaged(record)
            self.whole(record)
            pixels = imaging.fit_within(pixels, side)
            alpha = np.ascontiguousarray(pixels[..., 3]) if pixels.shape[2] == 4 else None
            return Prepared(prepare(np.ascontiguousarray(pixels[..., :3]), geometry, record.fit), alpha)

        return self.cache.get((record.job_id, side), make)

    async def _ready(self, job_id: str, owner: str, gone: Gone) -> Record:
        record = await asyncio.to_thread(records.load_owned, self.store, job_id, owner)
        await asyncio.to_thread(self.store.touch, record.job_id)
        if record.state == records.READY:
            return record
        return await self.analyst.ready(record.job_id, gone)

    async def relight(self, body: RelightBody, owner: str, gone: Gone) -> Tuple[Record, Dict[str, float]]:
        """Make relit.png; returns when it is whole on disk. Also returns seconds by stage."""
        clock = StageTimer(self.observe)
        job_id = body.job_id
        with self.pool.admitted(), self.using(job_id):
            record = await self._ready(job_id, owner, gone)
            clock.lap("wait")
            await self.pool.run(self._relight, record, body, clock, admitted=True)
        return record, clock.seconds

    def _relight(self, record: Record, body: RelightBody, clock: StageTimer) -> None:
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
        self.store.put(record.job_id, JobFile.RELIT, data)
        clock.lap("store")

    async def preview(self, body: PreviewBody, owner: str, gone: Gone) -> Tuple[bytes, Dict[str, float]]:
        """A relit JPEG from memory, and seconds by stage.

        Raises Superseded when a newer one of its stream came first.
        """
        clock, turn = StageTimer(self.observe), Turn()
        job_id = body.job_id
        key = (job_id, owner + "|" + (body.stream or ""))
        if body.stream:
            older = self._streams.get(key)
            if older is not None and not older.started and not older.replaced.done():
                older.replaced.set_result(None)
                turn.inherits = True
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

    async def _preview(
        self, job_id: str, body: PreviewBody, owner: str, turn: Turn, clock: StageTimer, gone: Gone
    ) -> bytes:
        with self.pool.admitted(force=turn.inherits), self.using(job_id):
            if body.stream:
                turn.stream = hashlib.sha256(f"{job_id}|{owner}|{body.stream}".encode("utf-8", "replace")).hexdigest()[
                    :32
                ]
                turn.ticket = await asyncio.to_thread(self.processes.take_ticket, turn.stream, time.time_ns())
            record = await self._ready(job_id, owner, gone)
            clock.lap("wait")
            if await gone():
                raise Superseded("The client has gone.")
            return await self.pool.run(self._render_preview, record, body, turn, clock, admitted=True)

    def _render_preview(self, record: Record, body: PreviewBody, turn: Turn, clock: StageTimer) -> bytes:
        turn.begin()
        if not self.processes.is_newest(turn.stream, turn.ticket):  # a newer one came to another process
            raise Superseded()
        clock.lap("queue")
        ready = self._prepared(record, body.max_side)
        clock.lap("maps")
        out = relight(ready.maps, body.rig(), threads=self.pool.share())
        self.cache.trim()
        clock.lap("shade")
        data = encode_jpeg(out, body.quality)
        clock.lap("encode")
        return data
