"""News of jobs: from any thread to whoever waits on an event loop."""

import asyncio
import threading
from contextlib import contextmanager
from typing import Any, Dict, Iterator, Set


class Notifier:
    """Wakes those who wait for news of a job."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: Dict[str, Set[Any]] = {}

    def tell(self, job_id: str) -> None:
        """There is news (from any thread)."""
        with self._lock:
            waiting = list(self._waiting.get(job_id, ()))
        for loop, event in waiting:
            try:
                loop.call_soon_threadsafe(event.set)
            except RuntimeError:  # its loop has closed
                pass

    @contextmanager
    def listen(self, job_id: str) -> Iterator[asyncio.Event]:
        """An event that is set at each piece of news."""
        entry = (asyncio.get_running_loop(), asyncio.Event())
        with self._lock:
            self._waiting.setdefault(job_id, set()).add(entry)
        try:
            yield entry[1]
        finally:
            with self._lock:
                self._waiting[job_id].discard(entry)
                if not self._waiting[job_id]:
                    del self._waiting[job_id]
