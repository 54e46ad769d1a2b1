"""The analysis of photos in the background.

Once for the same bytes, taken up again after a crash, waited for by others.
"""

import asyncio
import dataclasses
import logging
import threading
from contextlib import contextmanager, suppress
from typing import Any, AsyncGenerator, Awaitable, Callable, Dict, Iterator, Optional, Set

import numpy as np
from filelock import Timeout

from ..errors import (
    DamagedFile,
    FileNotFound,
    JobNotFound,
    ModelError,
    ModelMissing,
    Overloaded,
    RelightError,
    StorageFull,
    StoreAway,
    Superseded,
    TakenOver,
    from_oserror,
)
from ..light.maps import prepare_grid
from ..light.passes import shading_factor
from ..memory import give_back
from ..metrics import StageTimer
from ..model.engine import Engine
from ..scene.fit import SceneFit
from ..scene.geometry import Geometry, checked, pack, unpack
from ..scene.passes import depth_range
from ..scene.pipeline import estimate, read_scene
from .base import ANALYSIS, Coordination, JobFile, JobStore, MapsSide
from .live import can_be_lit, maps_file, pack_maps, side_of
from .notifier import Notifier
from .photos import Photos
from .pool import Pool, WatchdogThread
from .record import ANALYSING, FAILED, QUEUED, READY, Record, State, load_record, save_record

log = logging.getLogger("relight")
IsDisconnected = Callable[[], Awaitable[bool]]  # has the client left?
MAX_ATTEMPTS = 3  # the first, and twice more after a crash
MAX_STUCK = 3
POLL_SECONDS = 0.25  # how often a turn is asked for while the server may be stopping
AWAY_SECONDS = 1.0  # how soon an analysis is tried again whose store was away


class Analyst:
    """Takes jobs from `queued` to `ready` or `failed`, one at a time (the graph itself uses all processors).

    elsewhere: has another process analyse the job of that id, and returns when it is done; None: it is done here.
    """

    def __init__(
        self,
        store: JobStore,
        photos: Photos,
        processes: Coordination,
        engine: Optional[Engine],
        pool: Pool,
        timeout: float,
        observe: Any,
        elsewhere: Optional[Callable[[str], None]] = None,
    ):
        self.store, self.photos, self.processes, self.engine = store, photos, processes, engine
        self.pool, self.timeout, self.elsewhere = pool, timeout, elsewhere
        self.observe = observe  # (stage, seconds)
        self.notifier = Notifier()
        self.closing = threading.Event()
        self.stuck = 0  # analyses that hang
        self._thread = WatchdogThread("estimate")  # always the same thread: providers keep state by thread
        self._lock = threading.Lock()
        self._mine: Set[str] = set()  # queued or running here
        self.unsaved: Dict[str, RelightError] = {}  # what analyses ended with whose very state could not be written

    @property
    def hangs(self) -> bool:
        """Did so many analyses hang that no more are begun?"""
        return self.stuck >= MAX_STUCK

    def holds(self, job_id: str) -> bool:
        """Is that job queued or running in this process?"""
        with self._lock:
            return job_id in self._mine

    def start(self, job_id: str, force: bool = False) -> None:
        """Put a job in line. Raises Overloaded, unless forced."""
        with self._lock:
            if job_id in self._mine:
                return
            self._mine.add(job_id)
        self.unsaved.pop(job_id, None)
        try:
            future = self.pool.submit(self._hand_over if self.elsewhere else self.work, job_id, force=force)
        except Overloaded:
            self._done(job_id)
            raise
        future.add_done_callback(lambda _: self._done(job_id))

    def _done(self, job_id: str) -> None:
        with self._lock:
            self._mine.discard(job_id)
        self.notifier.notify(job_id)

    def forget(self, job_id: str) -> None:
        """A job was deleted."""
        self.unsaved.pop(job_id, None)
        self.notifier.notify(job_id)

    def _step(self, record: Record, stage: str, state: State = ANALYSING) -> None:
        record.stage, record.state = stage, state
        save_record(self.store, record)
        self.notifier.notify(record.job_id)

    def _hand_over(self, job_id: str) -> None:
        try:
            assert self.elsewhere is not None
            self.elsewhere(job_id)
        except RelightError as exc:
            self.unsaved[job_id] = exc
            log.error("job %s: %s", job_id, exc.detail)

    def work(self, job_id: str) -> None:
        """Analyse a job here and now, in the calling thread; its record says what came of it."""
        away = False
        while self._work_once(job_id, away):
            away = True
            if self.closing.wait(AWAY_SECONDS):
                return

    def _work_once(self, job_id: str, away: bool) -> bool:
        """Analyse a job, unless it is done. True when the store was away and it has to be tried again."""
        try:
            record = load_record(self.store, job_id)
            if away and record.worker == self.processes.worker:
                record.attempts = max(0, record.attempts - 1)  # no fault of the photo's
            if record.state not in (READY, FAILED):
                self._attempt(record)
        except StoreAway:
            return True
        except TakenOver:
            log.warning("job %s: another process took its analysis over", job_id)
        except JobNotFound:
            log.info("job %s: deleted during its analysis", job_id)
        except StorageFull as exc:
            self.unsaved[job_id] = exc
            log.error("job %s: no room for its state; the sweep will take it up again", job_id)
        except Exception as exc:
            self.unsaved[job_id] = exc if isinstance(exc, RelightError) else RelightError()
            log.error("job %s: analysis broke off", job_id, exc_info=exc)
        return False

    def _attempt(self, record: Record) -> None:
        """Analyse a job and write down what came of it. Raises JobNotFound, StorageFull, StoreAway, TakenOver."""
        record.worker = self.processes.worker
        record.attempts += 1
        self._step(record, "reading")
        try:
            with self._locked(record.fingerprint):
                if record.attempts > 1:
                    _whole(record, self.photos.read_stored)  # something was wrong with this job: is it the photo?
                if not self._take_over_twin(record):
                    if self.engine is None:
                        raise ModelMissing()
                    self._analyse(record, self.engine)
                self.store.register(record.fingerprint, record.job_id)
                self._step(record, "ready", READY)
        except JobNotFound:
            self.store.unregister(record.fingerprint, record.job_id)
            raise
        except (StoreAway, TakenOver):
            raise
        except Exception as exc:
            self._note_failure(record, exc)

    def _note_failure(self, record: Record, exc: Exception) -> None:
        if self.closing.is_set():
            record.attempts -= 1  # no fault of the photo's: the next start takes it up again
            save_record(self.store, record)
            return
        error = exc if isinstance(exc, RelightError) else ModelError()
        if isinstance(exc, OSError):
            error = from_oserror(exc)
        log.error("job %s: analysis failed: %s", record.job_id, error.detail, exc_info=exc)
        record.fail(error)
        self.store.discard(record.job_id, list(ANALYSIS), record.held)  # of no use, and on a full disk room to say so
        save_record(self.store, record)

    @contextmanager
    def _locked(self, fingerprint: str) -> Iterator[None]:
        """Hold the lock of an analysis; whoever holds it may hang, so that stopping does not wait for it.

        Raises Overloaded then.
        """
        lock = self.processes.analysis_lock(fingerprint)
        while True:
            try:
                lock.acquire(timeout=POLL_SECONDS)
                break
            except Timeout:
                if self.closing.is_set():
                    raise Overloaded() from None
        try:
            yield
        finally:
            lock.release()

    def _take_over_twin(self, record: Record) -> bool:
        """Take over the analysis of a twin, if there is one."""
        for other in self.store.holders(record.fingerprint):
            try:
                twin = load_record(self.store, other)
                if other == record.job_id or twin.state != READY or twin.fingerprint != record.fingerprint:
                    continue
                unpack(self.store.get(other, JobFile.GEOMETRY))
                maps = maps_file(MapsSide.USUAL, record.width, record.height)
                there = maps in self.store.names(other)
                self.store.link_files(other, record.job_id, [JobFile.GEOMETRY, *([maps] if there else [])], record.held)
            except (StoreAway, TakenOver):
                raise
            except (RelightError, DamagedFile):
                if not (self.store.names(record.job_id)):
                    raise JobNotFound() from None
                continue
            record.models, record.fit = twin.models, twin.fit
            record.depth_range, record.shading_factor = twin.depth_range, twin.shading_factor
            record.subject = twin.subject
            record.timings = {"shared": 0.0}
            return True
        return False

    def _analyse(self, record: Record, engine: Engine) -> None:
        timer = StageTimer(self.observe, digits=4)
        record.timings = timer.seconds
        photo = _whole(record, self.photos.read)
        rgb = np.ascontiguousarray(photo[..., :3])
        timer.lap("reading")
        self._step(record, "estimating")
        geometry = estimate(rgb, lambda inside: self._ask(engine, inside))
        give_back()
        if record.focal is not None:
            geometry = dataclasses.replace(geometry, focal=record.focal)
        timer.lap("estimating")
        self._step(record, "fitting")
        geometry, record.fit = read_scene(rgb, geometry)
        timer.lap("fitting")
        self._step(record, "storing")
        packed = pack(geometry)
        self.store.put(record.job_id, JobFile.GEOMETRY, packed, record.held)
        record.depth_range = list(depth_range(geometry, rgb.shape[:2]))
        record.subject = geometry.subject is not None
        record.models = [str(m.get("name", "")) for m in engine.describe()]
        self._prepare(record, photo, unpack(packed), record.fit)  # as it will be read
        timer.lap("storing")

    def _prepare(self, record: Record, photo: np.ndarray, geometry: Geometry, fit: SceneFit) -> None:
        """Make what a browser lights the photo with, before anybody asks for it."""
        shared = prepare_grid(geometry, fit)
        record.shading_factor = shading_factor(shared.light_samples)
        if can_be_lit(geometry):
            file = maps_file(MapsSide.USUAL, record.width, record.height)
            self.store.put(record.job_id, file, pack_maps(photo, side_of(file), shared), record.held)

    def _ask(self, engine: Engine, rgb: np.ndarray) -> Geometry:
        """Ask the engine, in a thread that is left behind when it hangs."""
        if self.hangs:
            raise ModelError("The model hangs. The server has to be started again.")
        try:
            geometry = self._thread.run(lambda: engine.analyse(rgb), self.timeout, self.closing)
        except TimeoutError:
            self.stuck += 1
            raise ModelError(
                "The analysis of this photo took too long. Upload it again; if that fails too, try another image."
            ) from None
        return checked(geometry)

    def as_it_stands(self, record: Record) -> Record:
        """The record, failed where that could not be written down."""
        error = self.unsaved.get(record.job_id)
        if error is not None and record.state not in (READY, FAILED):
            record.fail(error)
        return record

    async def watch(self, job_id: str) -> AsyncGenerator[Record, None]:
        """The record of a job, at once, then whenever it may have changed, and now and then all the same.

        Has no end of its own. Raises JobNotFound.
        """
        seen = False
        with self.notifier.subscribe(job_id) as changed:
            while True:
                changed.clear()
                try:
                    record = self.as_it_stands(await asyncio.to_thread(load_record, self.store, job_id))
                    seen = True
                    yield record
                except StoreAway:  # who watches is patient once there was something to see
                    if not seen:
                        raise
                with suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(changed.wait(), self.store.look_seconds)

    async def ready(self, job_id: str, is_disconnected: IsDisconnected) -> Record:
        """Wait until a job is ready.

        Raises JobNotFound, ModelMissing, what the analysis failed with; Superseded when the client has left.
        """
        watched = self.watch(job_id)
        try:
            async for record in watched:
                if record.state in (READY, FAILED):
                    break
                if self.engine is None:
                    raise ModelMissing()  # nobody takes it up
                if await is_disconnected():
                    raise Superseded("The client has gone.")
        finally:
            await watched.aclose()
        if record.state == FAILED:
            record.raise_error()
        return record

    def adopt(self, record: Record) -> None:
        """Take up a job whose process died, or whose files are gone; one that keeps killing its process fails."""
        if record.attempts >= MAX_ATTEMPTS:
            record.fail(ModelError("The analysis of this photo broke off several times. Upload another image."))
            save_record(self.store, record)
            return
        record.worker, record.state, record.stage = self.processes.worker, QUEUED, "waiting"
        save_record(self.store, record)
        self.start(record.job_id, force=True)


def _whole(record: Record, read: Callable[[Record], np.ndarray]) -> np.ndarray:
    """The photo of a job. Raises ModelError where it cannot be read, JobNotFound."""
    try:
        return read(record)
    except (FileNotFound, DamagedFile) as exc:
        raise ModelError("The stored photo of this job is damaged. Upload it again.") from exc
