"""Bounded work beside the event loop: a few threads, a short queue, and a plain "no" when both are full."""

import asyncio
import contextvars
import queue
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Any, Callable, Iterator, Optional

from ..errors import Overloaded


class Pool:
    """At most `threads` pieces of work at a time and `waiting` more in line."""

    def __init__(self, name: str, threads: int, waiting: int):
        self.threads, self.limit = threads, threads + waiting
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._lock = threading.Lock()
        self.pending = 0  # admitted: waiting or running
        self.running = 0

    def _enter(self, force: bool) -> None:
        with self._lock:
            if self.pending >= self.limit and not force:
                raise Overloaded()
            self.pending += 1

    def _leave(self, _: Any = None) -> None:
        with self._lock:
            self.pending -= 1

    @contextmanager
    def admitted(self, force: bool = False) -> Iterator[None]:
        """Hold a place in line from the first moment of a request on. Raises Overloaded, unless `force`."""
        self._enter(force)
        try:
            yield
        finally:
            self._leave()

    def submit(
        self, work: Callable[..., Any], *args: Any, force: bool = False, admitted: bool = False
    ) -> "Future[Any]":
        """Put work in line. Raises Overloaded, unless `force` (work that was promised before a restart).

        `admitted`: the place in line is held by the caller.
        """
        if not admitted:
            self._enter(force)
        context = contextvars.copy_context()

        def run() -> Any:
            with self._lock:
                self.running += 1
            try:
                return context.run(work, *args)
            finally:
                with self._lock:
                    self.running -= 1

        try:
            future = self._executor.submit(run)
        except RuntimeError:  # shutting down
            if not admitted:
                self._leave()
            raise Overloaded() from None
        if not admitted:
            future.add_done_callback(self._leave)
        return future

    async def run(self, work: Callable[..., Any], *args: Any, admitted: bool = False) -> Any:
        """Put work in line and wait for it; cancelling takes it out of the line again."""
        return await asyncio.wrap_future(self.submit(work, *args, admitted=admitted))

    def threads_per_task(self) -> int:
        """How many threads one task may use now, so that all together use `threads`."""
        return max(1, self.threads // max(1, self.running))

    def close(self) -> None:
        """Finish what runs, forget what waits."""
        self._executor.shutdown(wait=True, cancel_futures=True)


class WatchdogThread:
    """One thread for work that may hang: then it is left behind, and the next piece of work gets a new one."""

    def __init__(self, name: str):
        self._name = name
        self._work: Optional[queue.SimpleQueue[Any]] = None

    def _loop(self, work: "queue.SimpleQueue[Any]") -> None:
        while True:
            call, answer = work.get()
            try:
                answer.set_result(call())
            except BaseException as exc:
                answer.set_exception(exc)

    def run(self, call: Callable[[], Any], seconds: float, stop: threading.Event) -> Any:
        """What `call` returns or raises. Raises TimeoutError after so many seconds, or when `stop` is set."""
        if self._work is None:
            self._work = queue.SimpleQueue()
            threading.Thread(target=self._loop, args=(self._work,), daemon=True, name=self._name).start()
        answer: Future[Any] = Future()
        self._work.put((call, answer))
        end = time.monotonic() + seconds
        while not stop.is_set() and time.monotonic() < end:
            if wait([answer], min(0.25, max(0.0, end - time.monotonic()))).done:
                return answer.result()
        self._work = None
        raise TimeoutError
