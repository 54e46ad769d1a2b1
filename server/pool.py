"""Bounded work beside the event loop: a few threads, a short queue, and a plain "no" when both are full."""

import asyncio
import contextvars
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Callable, Iterator

from .errors import Overloaded


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
    def admitted(self) -> Iterator[None]:
        """Hold a place in line while waiting for something else. Raises Overloaded."""
        self._enter(False)
        try:
            yield
        finally:
            self._leave()

    def submit(self, work: Callable[..., Any], *args: Any, force: bool = False) -> "Future[Any]":
        """Put work in line. Raises Overloaded, unless `force` (work that was promised before a restart)."""
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
            self._leave()
            raise Overloaded() from None
        future.add_done_callback(self._leave)
        return future

    async def run(self, work: Callable[..., Any], *args: Any) -> Any:
        """Put work in line and wait for it; cancelling takes it out of the line again."""
        return await asyncio.wrap_future(self.submit(work, *args))

    def share(self) -> int:
        """How many threads one piece of work may use for itself now, so that all together use `threads`."""
        return max(1, self.threads // max(1, self.running))

    def close(self) -> None:
        """Finish what runs, forget what waits."""
        self._executor.shutdown(wait=True, cancel_futures=True)
