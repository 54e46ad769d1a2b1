"""The processes that share a bucket: marks of life, turns and tickets, by conditional puts.

No clock is compared with another. A process renews the object `workers/<worker>` again and again; whoever has seen it
unchanged for `lease` seconds of its own steady clock, looking all the while, takes that process for dead, and may take
over its turns and its work. One that was only held up finds so out when it writes: what it writes is conditional.
"""

import logging
import math
import re
import threading
import time
import uuid
from contextlib import suppress
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Set, Tuple

from filelock import Timeout

from ..errors import StoreAway
from .bucket import NEW, Bucket, Conflict, Expected, Missing, Version

log = logging.getLogger("relight")
FREE = b"free"  # what lies there while nobody has a turn
PAUSE, LONGEST_PAUSE = 0.05, 1.0  # seconds between two looks at a turn that another process has
TICKETS_SECONDS = 60.0  # how long a stream's ticket is kept
WORKER = re.compile("[0-9a-f]{32}")


class _Mark(NamedTuple):
    """A mark of life as it was last seen, and since when (steady seconds)."""

    e_tag: str
    since: float


class LeasedProcesses:
    """This process among those over one bucket; see Coordination."""

    def __init__(self, bucket: Bucket, lease: float):
        self.bucket, self.lease = bucket, lease
        self.worker = uuid.uuid4().hex
        self._lock = threading.RLock()
        self._marks: Dict[str, _Mark] = {}
        self._looked = self._renewed = -1e9  # steady seconds
        self._offset = time.time() - time.monotonic()  # of the store's clock from the steady one
        self._turns: Dict[str, threading.Lock] = {}  # by name: within this process
        self.taken = 0.0  # when this process last had a turn (steady seconds): what it knew before may have changed
        self.free: Dict[str, Version] = {}  # turns that this process gave back last
        self.unreleased: Set[Tuple[str, bytes]] = set()  # turns that may still be ours in the store
        self._tickets: Dict[str, Tuple[Version, int, int]] = {}
        self._closing = threading.Event()
        self._beat()
        self._thread = threading.Thread(target=self._live, name="lease", daemon=True)
        self._thread.start()

    # -- marks of life

    def _live(self) -> None:
        while not self._closing.wait(self.lease / 4):
            try:
                self._beat()
            except StoreAway:  # the log has it
                pass
            except Exception as exc:  # whatever it is, the next sign of life must come
                log.error("no sign of life could be given", exc_info=exc)

    def _beat(self) -> None:
        before = time.monotonic()
        self.bucket.put(f"workers/{self.worker}", uuid.uuid4().hex.encode())
        after = time.monotonic()
        with self._lock:
            self._renewed = before
        self._look(renewed=after)
        for path, token in list(self.unreleased):
            self._give_back(path, token)

    def _look(self, renewed: Optional[float] = None) -> None:
        """See who renewed its mark. Raises StoreAway."""
        listed = self.bucket.list("workers")
        now = time.monotonic()
        with self._lock:
            blind = now - self._looked > self.lease / 2  # we were held up, or the store was away: count anew
            marks = {}
            for entry in listed:
                worker = entry.path.rpartition("/")[2]
                old = self._marks.get(worker)
                same = old is not None and old.e_tag == entry.e_tag and not blind
                marks[worker] = old if old is not None and same else _Mark(entry.e_tag, now)
                if worker == self.worker and renewed is not None:
                    self._offset = entry.modified - renewed
            self._marks, self._looked = marks, now

    def now(self) -> float:
        """The store's time, in seconds since the epoch."""
        return time.monotonic() + self._offset

    def is_sure(self) -> bool:
        """Can no other process have taken this one for dead?"""
        return time.monotonic() - self._renewed < 0.8 * self.lease

    def is_alive(self, worker: str) -> bool:
        """Does that worker still run, as far as can be told? Raises StoreAway."""
        if worker == self.worker:
            return True
        if not WORKER.fullmatch(worker):
            return False
        if time.monotonic() - self._looked > self.lease / 2:
            self._look()
        with self._lock:
            mark, looked = self._marks.get(worker), self._looked
        if mark is not None:
            return looked - mark.since < self.lease
        found = self.bucket.find(f"workers/{worker}")
        if found is None:
            return False
        with self._lock:
            self._marks.setdefault(worker, _Mark(found.version.e_tag or "", time.monotonic()))
        return True

    def is_alone(self) -> bool:
        """Is there no mark of life of another process? (One may be seen late by `lease` / 4.)"""
        with self._lock:
            return not any(
                worker != self.worker and self._looked - mark.since < self.lease for worker, mark in self._marks.items()
            )

    def forget_dead(self) -> None:
        """Remove the marks of the dead, and old tickets."""
        with self._lock:
            known = list(self._marks)
        self.bucket.delete([f"workers/{w}" for w in known if WORKER.fullmatch(w) and not self.is_alive(w)])
        late = self.now() - TICKETS_SECONDS
        self.bucket.delete([e.path for e in self.bucket.list("streams") if e.modified < late])

    def close(self) -> None:
        """Give up this process's mark of life."""
        self._closing.set()
        self._thread.join()
        with suppress(StoreAway):
            self.bucket.delete([f"workers/{self.worker}"])

    # -- turns

    def sweep_lock(self, timeout: float) -> "Turn":
        """The turn of sweeping."""
        return Turn(self, "sweep", timeout)

    def room_lock(self, timeout: float) -> "Turn":
        """The turn of making room and taking it."""
        return Turn(self, "room", timeout)

    def analysis_lock(self, fingerprint: str) -> "Turn":
        """The turn of making an analysis, told by its fingerprint (hexadecimal); 256 serve all of them."""
        return Turn(self, f"analysis-{fingerprint[:2]}", -1)

    def motion_lock(self, job_id: str, timeout: float) -> "Turn":
        """The turn of changing what is known of a job's motion; 256 serve all of them."""
        return Turn(self, f"motion-{job_id[:2]}", timeout)

    def here(self, name: str) -> threading.Lock:
        """Who in this process has, or wants, a turn."""
        with self._lock:
            return self._turns.setdefault(name, threading.Lock())

    def _give_back(self, path: str, token: bytes) -> None:
        found = self.bucket.find(path)
        with suppress(Conflict):
            if found is not None and found.data == token:
                self.bucket.put(path, FREE, found.version)
        self.unreleased.discard((path, token))

    # -- which preview of a stream is the newest

    def take_ticket(self, stream: str, came: int) -> Optional[str]:
        """Note that a newer preview of a stream waits here: a number, higher than any before.

        `came` orders those of this process alone. None when no other process could care.
        """
        if self.is_alone():
            return None
        with self.here(f"stream-{stream[:2]}"), suppress(StoreAway):
            known = self._tickets.get(stream)
            for _ in range(5):
                if known is not None and came < known[2]:
                    return f"{known[1] - 1:020d}"  # a newer one was quicker
                expected: Expected = known[0] if known is not None else NEW
                number = (known[1] if known is not None else 0) + 1
                try:
                    version = self.bucket.put(f"streams/{stream}", f"{number} {uuid.uuid4().hex}".encode(), expected)
                except Conflict:
                    found = self.bucket.find(f"streams/{stream}")
                    known = (found.version, _number(found.data), 0) if found is not None else None
                    continue
                with self._lock:
                    if len(self._tickets) > 1000:
                        self._tickets.clear()
                    self._tickets[stream] = (version, number, came)
                return f"{number:020d}"
        return None

    def is_newest(self, stream: str, ticket: Optional[str]) -> bool:
        """Was no newer ticket of that stream taken, by any process?"""
        if ticket is None:
            return True
        try:
            found = self.bucket.find(f"streams/{stream}")
        except StoreAway:
            return True
        return found is None or _number(found.data) <= int(ticket)


class Turn:
    """A turn that one at a time has, of all processes; see Lock. It ends with its holder's life."""

    def __init__(self, processes: LeasedProcesses, name: str, timeout: float):
        self._processes, self._name, self._timeout = processes, name, timeout
        self._path = f"locks/{name}"
        self._token = b""
        self._version = Version(None, None)

    def acquire(self, timeout: Optional[float] = None) -> "Turn":
        """Wait for it; below 0: for ever. Raises Timeout, StoreAway."""
        timeout = self._timeout if timeout is None else timeout
        end = time.monotonic() + timeout if timeout >= 0 else math.inf
        here = self._processes.here(self._name)
        if not here.acquire(timeout=timeout if timeout >= 0 else -1):
            raise Timeout(self._name)
        try:
            pause = PAUSE
            while not self._take():
                rest = end - time.monotonic()
                if rest <= 0:
                    raise Timeout(self._name)
                time.sleep(min(pause, rest))
                pause = min(1.5 * pause, LONGEST_PAUSE)
        except BaseException:
            here.release()
            raise
        self._processes.taken = time.monotonic()
        return self

    def _take(self) -> bool:
        processes, bucket = self._processes, self._processes.bucket
        expected: Expected = processes.free.pop(self._name, None)
        if expected is None:
            found = bucket.find(self._path)
            if (
                found is not None
                and found.data != FREE
                and processes.is_alive(found.data[:32].decode("ascii", "replace"))
            ):
                return False
            expected = found.version if found is not None else NEW
        self._token = f"{processes.worker} {uuid.uuid4().hex}".encode()
        try:
            try:
                self._version = bucket.put(self._path, self._token, expected)
            except Conflict:
                found = bucket.find(self._path)  # an answer may have been lost, and this be our own
                if found is None or found.data != self._token:
                    return False
                self._version = found.version
            return True
        except StoreAway:
            processes.unreleased.add((self._path, self._token))
            raise

    def release(self) -> None:
        """Give it back; where the store cannot be asked, with the next sign of life."""
        try:
            self._processes.free[self._name] = self._processes.bucket.put(self._path, FREE, self._version)
        except Conflict:  # we were taken for dead
            pass
        except StoreAway:
            self._processes.unreleased.add((self._path, self._token))
        finally:
            self._processes.here(self._name).release()

    def __enter__(self) -> "Turn":
        return self.acquire()

    def __exit__(self, *exc: Any) -> None:
        self.release()


class BucketMetricsExchange:
    """Each process leaves its metrics in the bucket; see MetricsExchange."""

    seconds = 5.0

    def __init__(self, processes: LeasedProcesses):
        self.processes, self.bucket = processes, processes.bucket

    def publish_metrics(self, data: bytes) -> None:
        """Leave this process's numbers for the others; not being able to is no fault."""
        with suppress(StoreAway):
            self.bucket.put(f"metrics/{self.processes.worker}", data)

    def _others(self) -> List[str]:
        names = [entry.path.rpartition("/")[2] for entry in self.bucket.list("metrics")]
        return [n for n in names if WORKER.fullmatch(n) and n != self.processes.worker]

    def _read(self, name: str) -> Optional[bytes]:
        try:
            return self.bucket.get(f"metrics/{name}")
        except Missing:
            return None

    def peer_metrics(self) -> List[Tuple[bytes, bool]]:
        """What the other processes left last, and whether they live."""
        found = []
        with suppress(StoreAway):
            for name in [*self._others(), "buried"]:
                data = self._read(name)
                if data is not None:
                    found.append((data, name != "buried" and self.processes.is_alive(name)))
        return found

    def fold_dead_metrics(self, add: Callable[[List[bytes]], bytes]) -> None:
        """In the turn of sweeping: put the numbers of the dead into one sum, or forget them when nobody else lives."""
        with suppress(StoreAway, ValueError):
            dead = [name for name in self._others() if not self.processes.is_alive(name)]
            if self.processes.is_alone():
                self.bucket.delete([f"metrics/{name}" for name in [*dead, "buried"]])
            elif dead:
                parts = [data for data in map(self._read, [*dead, "buried"]) if data is not None]
                self.bucket.put("metrics/buried", add(parts))
                self.bucket.delete([f"metrics/{name}" for name in dead])


def _number(data: bytes) -> int:
    """That of a ticket; 0 where somebody else wrote there."""
    first = data.split(b" ")[0]
    return int(first) if first.isdigit() and len(first) <= 19 else 0
