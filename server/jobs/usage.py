"""Which jobs are in use, so that nobody deletes them meanwhile, and how much all of them may take."""

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Callable, Dict, Iterator, List, Optional

from filelock import Timeout

from ..errors import JobNotFound, Overloaded, StorageFull, TakenOver
from ..settings import Settings
from .base import Coordination, Entry, JobStore, jobs_to_evict
from .record import load_record

READERS = 8  # records read at a time
ROOM_SECONDS = 30.0  # how long whoever changes what takes room may wait for its turn
RECENT = 30.0  # seconds; what was used so lately may be in use in another process, if there is one


@contextmanager
def room_held(processes: Coordination) -> Iterator[None]:
    """The lock of the room. Raises Overloaded where it is not had in time."""
    try:
        with processes.room_lock(ROOM_SECONDS):
            yield
    except Timeout:
        raise Overloaded() from None


class JobsInUse:
    """How many pieces of work hold each job now, in this process. Any thread may ask and hold."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: Counter[str] = Counter()

    def __contains__(self, job_id: str) -> bool:
        with self._lock:
            return self._held[job_id] > 0

    @contextmanager
    def hold(self, job_id: str) -> Iterator[None]:
        """Keep a job from being deleted while it is worked with."""
        with self._lock:
            self._held[job_id] += 1
        try:
            yield
        finally:
            with self._lock:
                self._held[job_id] -= 1
                if not self._held[job_id]:
                    del self._held[job_id]


class Quota:
    """What all jobs together, and those of one key, may take. To be used under the lock of the room."""

    def __init__(
        self,
        settings: Settings,
        store: JobStore,
        processes: Coordination,
        in_use: Callable[[str], bool],
        remove: Callable[[str, Optional[float]], None],
    ):
        self._settings, self._store, self._processes = settings, store, processes
        self._in_use, self._remove = in_use, remove
        self._owners: Dict[str, Optional[str]] = {}  # of jobs that were seen: they never change

    def limits(self, owner: str) -> bool:
        """Is there a limit to what that key may take?"""
        s = self._settings
        return bool(s.jobs_quota_bytes or (owner and (s.key_jobs or s.key_bytes)))

    def fits(self, entries: List[Entry]) -> bool:
        """Do those jobs keep to the limit of all together?"""
        limit = self._settings.jobs_quota_bytes
        return not limit or sum(e.size for e in entries) <= limit

    def make_room(self, owner: str, need: int, jobs: int = 0) -> None:
        """Delete the least recently used jobs until `need` more bytes, of so many new jobs, fit. Raises StorageFull."""
        s = self._settings
        if not self.limits(owner):
            return
        entries = list(self._store.list())
        if owner and (s.key_jobs or s.key_bytes):
            self._learn_owners([e.job_id for e in entries])
            mine = [e for e in entries if self._owners[e.job_id] == owner]
            if s.key_jobs and len(mine) + jobs > s.key_jobs:
                raise StorageFull(f"This key has {len(mine)} jobs and may have {s.key_jobs}. Delete one first.")
            if s.key_bytes and sum(e.size for e in mine) + need > s.key_bytes:
                raise StorageFull(f"The jobs of this key may take {s.key_bytes} bytes. Delete one first.")
        if s.jobs_quota_bytes:
            now, alone = self._store.now(), self._processes.is_alone()
            lately = set() if alone else {e.job_id for e in entries if abs(now - e.used) < RECENT}
            victims = jobs_to_evict(entries, s.jobs_quota_bytes, need, lambda j: j in lately or self._in_use(j))
            if victims is None:
                raise StorageFull()
            used = {e.job_id: e.used for e in entries}
            for job_id in victims:
                with suppress(JobNotFound, TakenOver):  # its owner was quicker
                    self._remove(job_id, used[job_id])

    def _learn_owners(self, job_ids: List[str]) -> None:
        """Read whose jobs these are: those not seen yet, several at a time, as each may be a request to the store."""
        owners = {j: self._owners[j] for j in job_ids if self._owners.get(j) is not None}
        new = [j for j in job_ids if j not in owners]
        if new:
            with ThreadPoolExecutor(READERS) as readers:
                owners.update(zip(new, readers.map(self._owner, new)))
        self._owners = owners

    def _owner(self, job_id: str) -> Optional[str]:
        try:
            return load_record(self._store, job_id).owner
        except JobNotFound:
            return None
