"""Prepared pictures in memory: bounded by bytes, least recently used go first."""

import threading
from collections import OrderedDict
from typing import Any, Callable, Dict, Hashable, Set, Tuple


class Cache:
    """Keys are tuples that begin with the job id. Values have `nbytes`, which may grow while they are kept."""

    def __init__(self, max_bytes: int):
        self.max_bytes = max_bytes
        self._lock = threading.Lock()
        self._values: OrderedDict[Tuple[Hashable, ...], Any] = OrderedDict()
        self._making: Dict[Tuple[Hashable, ...], threading.Lock] = {}

    @property
    def nbytes(self) -> int:
        """Bytes held now."""
        with self._lock:
            return sum(v.nbytes for v in self._values.values())

    def get(self, cache_key: Tuple[Hashable, ...], make: Callable[[], Any]) -> Any:
        """The value under a key, made by one caller while others wait for it."""
        with self._lock:
            if cache_key in self._values:
                self._values.move_to_end(cache_key)
                return self._values[cache_key]
            making = self._making.setdefault(cache_key, threading.Lock())
        with making:
            with self._lock:
                if cache_key in self._values:
                    return self._values[cache_key]
            try:
                value = make()
            finally:
                with self._lock:
                    self._making.pop(cache_key, None)
            self.put(cache_key, value)
            return value

    def put(self, cache_key: Tuple[Hashable, ...], value: Any) -> None:
        """Keep a value as the most recently used."""
        with self._lock:
            self._values[cache_key] = value
            self._values.move_to_end(cache_key)
        self.trim()

    def trim(self) -> None:
        """Let go of what is too large alone, then of the least recently used until the rest fits."""
        with self._lock:
            for cache_key in [k for k, v in self._values.items() if v.nbytes > self.max_bytes]:
                del self._values[cache_key]
            total = sum(v.nbytes for v in self._values.values())
            while self._values and total > self.max_bytes:
                total -= self._values.popitem(last=False)[1].nbytes

    def jobs(self) -> Set[Hashable]:
        """The jobs of which something is kept."""
        with self._lock:
            return {k[0] for k in self._values}

    def drop(self, job_id: str) -> None:
        """Let go of all that belongs to a job."""
        with self._lock:
            for cache_key in [k for k in self._values if k[0] == job_id]:
                del self._values[cache_key]
