"""Tells whoever waits on an event loop that a job has changed, from any thread."""

import asyncio
import threading
from contextlib import contextmanager, suppress
from typing import Any, Dict, Iterator, Set


class Notifier:
    """Wakes those who wait for a job to change."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._subscribers: Dict[str, Set[Any]] = {}

    def notify(self, job_id: str) -> None:
        """Wake the subscribers of a job; may be called from any thread."""
        with self._lock:
            subscribers = list(self._subscribers.get(job_id, ()))
        for loop, event in subscribers:
            with suppress(RuntimeError):  # its loop has closed
                loop.call_soon_threadsafe(event.set)

    @contextmanager
    def subscribe(self, job_id: str) -> Iterator[asyncio.Event]:
        """An event that is set at each notification."""
        entry = (asyncio.get_running_loop(), asyncio.Event())
        with self._lock:
            self._subscribers.setdefault(job_id, set()).add(entry)
        try:
            yield entry[1]
        finally:
            with self._lock:
                self._subscribers[job_id].discard(entry)
                if not self._subscribers[job_id]:
                    del self._subscribers[job_id]
