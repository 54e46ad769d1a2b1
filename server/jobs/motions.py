"""Motions: a light that moves over a job's photo, rendered in the background into one file.

A job has one motion. motion.json tells of it; under a lock between processes it is claimed, its progress noted, and its
file put in its place, so that whoever removes motion.json has stopped the motion, in whichever process it renders.
"""

import asyncio
import logging
import threading
import time
import uuid
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Annotated, Any, Callable, ContextManager, Dict, Iterator, List, Literal, Optional, Set, Tuple, Union

import numpy as np
from filelock import Timeout
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..errors import (
    EnvironmentNotFound,
    FileNotFound,
    InvalidRequest,
    JobNotFound,
    MaskNotFound,
    ModelMissing,
    MotionBusy,
    Overloaded,
    RelightError,
    StoreAway,
    Superseded,
)
from ..image import animation
from ..light.lights import BUILT_IN, UPLOADED, Rig
from ..light.maps import Maps
from ..light.motion import Orbit, along, orbit
from ..light.shading import exposure_of, relight
from ..memory import give_back
from ..metrics import StageTimer
from . import look, masks, surroundings
from .base import MOTIONS, Coordination, JobFile, JobStore
from .pool import Pool
from .record import FAILED, READY, Record, StoredError, load_owned_record
from .rendering import Renderer

log = logging.getLogger("relight")
NOTED_SECONDS = 0.2  # between two looks at motion.json: how soon a motion that is stopped ends
LOCKED_SECONDS = 30.0  # how long whoever wants to claim a motion may wait
RENDERING: Literal["rendering"] = "rendering"
BYTES = {"webp": 0.5, "gif": 1.0, "mp4": 0.25}  # a pixel, at most as a rule
SIDES = {"webp": 1024, "gif": 640, "mp4": 1024}  # pixels; usual, and of a GIF the largest
BROKEN_OFF = "The server was stopped while it rendered this motion. Ask for it again."

Room = Callable[[str, int], ContextManager[None]]  # for so many bytes more of an owner


@dataclass(frozen=True)
class MotionOrder:
    """What is wanted: the way of the light (key frames with the same number and kinds of lights, or an orbit), and the
    file. kind: one of animation.KINDS. max_side: pixels. fps: frames a second.
    """

    way: Union[Tuple[Rig, ...], Orbit]
    kind: str = "webp"
    frames: int = 48
    fps: int = 24
    loop: bool = True
    max_side: int = SIDES["webp"]

    @property
    def file(self) -> JobFile:
        """Of the job."""
        return JobFile(f"motion.{self.kind}")

    @property
    def keys(self) -> Tuple[Rig, ...]:
        """The key frames; none of an orbit."""
        return () if isinstance(self.way, Orbit) else self.way

    def rigs(self, maps: Maps) -> List[Rig]:
        """The rigs of all frames over a picture. Where some key frames fix their exposure, the others' is fixed too."""
        if isinstance(self.way, Orbit):
            return orbit(self.way, self.frames, self.loop)
        keys = self.way
        if len({isinstance(rig.exposure, str) for rig in keys}) > 1:
            keys = tuple(replace(rig, exposure=exposure_of(maps, rig)) for rig in keys)
        return along(keys, self.frames, self.loop)


def film(
    path: str,
    order: MotionOrder,
    maps: Maps,
    alpha: Optional[np.ndarray],
    threads: Callable[[], int] = lambda: 1,
    step: Callable[[int], None] = lambda done: None,
) -> None:
    """Write the file of a motion of a picture and its alpha, whose environments are known; see animation.write.

    Only WebP keeps the alpha.
    """
    rigs = order.rigs(maps)
    if order.kind != "webp":
        alpha = None
    target = animation.KINDS[order.kind](path, maps.size, order.fps, order.frames, order.loop)
    animation.write(target, lambda k: look.with_alpha(relight(maps, rigs[k]), alpha), threads, step)


class Motion(BaseModel):
    """motion.json. token: of the request that began it; worker: the process that renders it."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)

    token: str
    worker: str
    state: Literal["rendering", "ready", "failed"] = RENDERING
    progress: Annotated[float, Field(ge=0, le=1)] = 0.0
    error: Optional[StoredError] = None


class _Stopped(Exception):
    """Nobody wants this motion any more."""


class Motions:
    """Renders motions, one at a time, beside what other work there is. Lives on one event loop."""

    def __init__(
        self,
        store: JobStore,
        renderer: Renderer,
        processes: Coordination,
        pool: Pool,
        own_pool: Pool,
        room: Room,
    ):
        self.store, self.renderer, self.processes = store, renderer, processes
        self.pool, self.own_pool, self.room = pool, own_pool, room
        self.analyst = renderer.analyst
        self._mine: Set[str] = set()  # tokens of what waits or renders here
        self._tasks: Set[asyncio.Task[None]] = set()
        self._closing = threading.Event()

    # -- motion.json

    @contextmanager
    def _locked(self, job_id: str) -> Iterator[None]:
        try:
            with self.processes.motion_lock(job_id, LOCKED_SECONDS):
                yield
        except Timeout:
            raise Overloaded() from None

    def _load(self, job_id: str) -> Optional[Motion]:
        """What is known of a job's motion. Raises JobNotFound."""
        try:
            return Motion.model_validate_json(self.store.get(job_id, JobFile.MOTION))
        except (FileNotFound, ValidationError):
            return None

    def _save(self, job_id: str, motion: Motion) -> None:
        self.store.put(job_id, JobFile.MOTION, motion.model_dump_json().encode())
        self.analyst.notifier.notify(job_id)

    def _renders(self, motion: Optional[Motion]) -> bool:
        """Is somebody at it? Whoever died is not."""
        if motion is None or motion.state != RENDERING:
            return False
        if motion.worker == self.processes.worker:
            return motion.token in self._mine
        return self.processes.is_alive(motion.worker)

    def _check(self, job_id: str, token: str) -> Motion:
        """The motion of that token. Raises _Stopped, JobNotFound."""
        motion = self._load(job_id)
        if self._closing.is_set() or motion is None or motion.token != token:
            raise _Stopped()
        return motion

    def _note(self, job_id: str, token: str, **news: Any) -> None:
        """Write down what became of a motion. Raises _Stopped, JobNotFound, StorageFull."""
        with self._locked(job_id):
            self._save(job_id, self._check(job_id, token).model_copy(update=news))
        self.store.touch(job_id)  # nobody takes it for unused meanwhile

    def public(self, job_id: str) -> Optional[Dict[str, Any]]:
        """What clients may know of a job's motion; None: it has none. Raises JobNotFound."""
        motion = self._load(job_id)
        if motion is None:
            return None
        if motion.state == RENDERING and not self._renders(motion):
            motion = self._load(job_id) or motion  # it may have ended while we asked
            if motion.state == RENDERING:
                motion.state, motion.error = "failed", StoredError(code=Overloaded.code, detail=BROKEN_OFF)
        error = motion.error and motion.error.public()
        return {"state": motion.state, "progress": round(motion.progress, 4), "error": error}

    # -- from start to end

    async def start(self, job_id: str, order: MotionOrder, owner: str) -> None:
        """Begin a motion, which drops the one before; returns when it is claimed.

        Raises JobNotFound, EnvironmentNotFound, MaskNotFound, InvalidRequest, MotionBusy, Overloaded, StorageFull, what
        the analysis failed with.
        """
        if order.kind not in animation.available():
            raise InvalidRequest(f"format: {animation.NO_VIDEO}")
        token = uuid.uuid4().hex
        with ExitStack() as held:
            held.enter_context(self.pool.admitted())
            held.enter_context(self.renderer.in_use.hold(job_id))
            held.callback(self._mine.discard, token)
            self._mine.add(token)
            await asyncio.to_thread(self._claim, job_id, order, owner, token)
            task = asyncio.create_task(self._run(job_id, order, owner, token, held.pop_all()))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _claim(self, job_id: str, order: MotionOrder, owner: str, token: str) -> None:
        record = load_owned_record(self.store, job_id, owner)
        if record.state == FAILED:
            record.raise_error()
        if record.state != READY and self.analyst.engine is None:
            raise ModelMissing()
        self._check_names(record, order)
        side = min(order.max_side, max(record.width, record.height)) / max(record.width, record.height)
        need = int(record.width * side * record.height * side * order.frames * BYTES[order.kind])
        with self._locked(job_id):
            if self._renders(self._load(job_id)):
                raise MotionBusy()
            with self.room(owner, need):
                self._save(job_id, Motion(token=token, worker=self.processes.worker))
                self.store.discard(job_id, list(MOTIONS))  # not before: where there is no room, the one before stays
        self.store.touch(job_id)

    def _check_names(self, record: Record, order: MotionOrder) -> None:
        """Raises MaskNotFound, EnvironmentNotFound, JobNotFound, where that can be told now."""
        for k, rig in enumerate(order.keys):
            try:
                masks.found(self.store, record, rig, lambda: BUILT_IN)  # the models may tell fewer
            except MaskNotFound as exc:
                raise MaskNotFound(f"keyframes.{k}.{exc.detail}") from None
            around = rig.environment
            if around is None or not around.of:
                continue
            if around.of != UPLOADED:
                load_owned_record(self.store, around.of, record.owner)
            elif surroundings.size(self.store, record.job_id) is None:
                raise EnvironmentNotFound()

    async def _run(self, job_id: str, order: MotionOrder, owner: str, token: str, held: ExitStack) -> None:
        """Render a motion, once its job is ready, and write down what came of it."""

        async def is_stopped() -> bool:
            try:
                await asyncio.to_thread(self._check, job_id, token)
                return False
            except StoreAway:
                return False
            except _Stopped:
                return True

        with held:
            timer = StageTimer(self.renderer.observe)
            try:
                record, keys = await self.renderer.settled(job_id, order.keys, owner, is_stopped)
                timer.lap("wait")
                order = replace(order, way=keys) if keys else order
                await self.own_pool.run(self._render, record, order, token, timer, admitted=True)
                log.info("job %s: motion of %d frames in %.1f s", job_id, order.frames, timer.seconds["motion"])
            except (_Stopped, Superseded, JobNotFound):
                log.info("job %s: motion stopped", job_id)
            except Exception as exc:
                await asyncio.to_thread(self._fail, job_id, token, exc)
        self.analyst.notifier.notify(job_id)

    def _fail(self, job_id: str, token: str, exc: Exception) -> None:
        error = exc if isinstance(exc, RelightError) else RelightError()
        log.error("job %s: motion failed: %s", job_id, error.detail, exc_info=exc)
        with suppress(_Stopped, RelightError):  # without room for that, it has broken off
            self._note(job_id, token, state="failed", error=StoredError(code=error.code, detail=error.detail))

    def _render(self, record: Record, order: MotionOrder, token: str, timer: StageTimer) -> None:
        job_id, noted = record.job_id, 0.0

        def step(done: int) -> None:
            nonlocal noted
            if time.monotonic() - noted > max(NOTED_SECONDS, self.store.note_seconds) or self._closing.is_set():
                with suppress(StoreAway):  # it may be back at the end
                    self._note(job_id, token, progress=done / order.frames)
                noted = time.monotonic()

        step(0)
        timer.lap("queue")
        keys, maps, alpha = self.renderer.prepared(record, order.keys, order.max_side)
        order = replace(order, way=keys) if keys else order
        timer.lap("maps")
        with ExitStack() as held:

            def write(path: str) -> None:
                film(path, order, maps, alpha, self._threads, step)
                held.enter_context(self._locked(job_id))  # so that nobody stops it before it is in its place
                self._check(job_id, token)

            self.store.put_written(job_id, order.file, write)
            motion = Motion(token=token, worker=self.processes.worker, state="ready", progress=1.0)
            self._save(job_id, motion)
        timer.lap("motion")
        self.renderer.cache.trim()
        give_back()

    def _threads(self) -> int:
        """Those that other work leaves."""
        return max(1, self.pool.threads - self.pool.running)

    async def stop(self, job_id: str, owner: str) -> None:
        """Stop a job's motion, or remove the one that is there. Raises JobNotFound, FileNotFound."""

        def work() -> None:
            record = load_owned_record(self.store, job_id, owner)
            with self._locked(record.job_id):
                there = [name for name in (JobFile.MOTION, *MOTIONS) if name in self.store.names(record.job_id)]
                if not there:
                    raise FileNotFound("This job has no motion. POST /animate makes one.")
                self.store.discard(record.job_id, there)
            self.analyst.notifier.notify(record.job_id)

        await asyncio.to_thread(work)

    async def close(self) -> None:
        """Stop all that wait or render here, and wait for their end."""
        self._closing.set()
        await asyncio.gather(*self._tasks, return_exceptions=True)
