"""Jobs in a bucket.

Under the prefix: `jobs/<uuid4>/index.json` is a job, its record and which object each of its files is now;
`jobs/<uuid4>/<file>/<worker>-<random>` such an object, written once and never changed; `analyses/<fingerprint>/<uuid4>`
which jobs hold that analysis. `workers/`, `locks/`, `streams/` and `metrics/` are those of leases.py.

A job appears when its index is written, the last of its objects, and vanishes when the index becomes empty; a file
changes when the index does. The index is only ever written in place of the one that was read. Whatever else lies in the
bucket is nobody's: it is not read, counted or deleted.
"""

import io
import json
import os
import random
import re
import tempfile
import threading
import time
import uuid
from collections import OrderedDict, deque
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import (
    IO,
    Annotated,
    BinaryIO,
    Callable,
    Deque,
    Dict,
    Iterator,
    List,
    Literal,
    Mapping,
    NamedTuple,
    Optional,
    Set,
    Tuple,
    cast,
)

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..errors import FileNotFound, JobNotFound, Overloaded, RelightError, StoreAway, TakenOver, from_oserror
from .base import Entry, Facts, Held, JobFile, disposition, is_job_folder, media_type
from .bucket import NEW, Bucket, Conflict, Expected, Listed, Missing, Version
from .leases import LeasedProcesses

INDEX = "index.json"
TOKEN = re.compile("[0-9a-f]{32}-[0-9a-f]{16}")  # worker, random
NAMES = {n.value for n in JobFile}
TOUCH_GRAIN = 60.0  # seconds; a job used again within them is not touched again
FRESH = 1.0  # seconds for which an index that was read serves the same request; every request begins by reading it
REMEMBERED = 2000  # indices
KEPT = 60.0  # seconds for which an object is kept that another took the place of: somebody may be about to read it
TRIES = 20  # to change an index that others change too
HEAD = 1 << 17  # bytes read at first from a file that is read from its beginning
SPOOLED = 4 << 20  # bytes of a file held in memory while it is sent; what is larger waits on disk


class Place(BaseModel):
    """Which object a file is, its bytes, and when it was made (seconds since the epoch)."""

    model_config = ConfigDict(strict=True, frozen=True, allow_inf_nan=False)

    object: Annotated[str, Field(pattern=f"^{TOKEN.pattern}$")]
    size: Annotated[int, Field(ge=0)]
    made: float


class Index(BaseModel):
    """A job: job.json as text, and its other files by name."""

    model_config = ConfigDict(strict=True, frozen=True)

    format: Literal[1] = 1
    stamp: str = ""  # of this very write, by which an answer that was lost is made up for
    record: str
    files: Dict[str, Place]

    def place(self, name: JobFile) -> Optional[Place]:
        """Where a file lies."""
        return self.files.get(name.value)


class _Seen(NamedTuple):
    job: Index
    version: Version
    modified: float
    at: float  # steady seconds: when it was asked for, or had been written


Change = Callable[[Index], Index]


def about(name: JobFile) -> Dict[str, str]:
    """The headers with which the store itself gives out a file, by a signed address."""
    return {
        "Content-Type": media_type(name.value),
        "Content-Disposition": disposition(name.value),
        "Cache-Control": "private, no-store",
    }


class ObjectStore:
    """Jobs in a bucket, shared by any number of processes; see JobStore."""

    look_seconds = note_seconds = 1.0
    forget_seconds = 10.0
    own_clock = False

    def __init__(self, bucket: Bucket, processes: LeasedProcesses, ttl: float):
        self.bucket, self.processes = bucket, processes
        self._grain = min(TOUCH_GRAIN, ttl / 10)
        self._lock = threading.Lock()
        self._memory: OrderedDict[str, _Seen] = OrderedDict()
        self._pending: Set[str] = set()  # objects being written, that no index knows yet
        self._replaced: Deque[Tuple[float, str]] = deque()  # objects to delete, from then on (steady seconds)
        self._whole: Dict[str, Tuple[str, Set[str]]] = {}  # jobs whose objects are all known to their index

    def now(self) -> float:
        """The store's time, in seconds since the epoch."""
        return self.processes.now()

    # -- the index of a job

    def _load(self, job_id: str) -> _Seen:
        """Read an index. Raises JobNotFound."""
        asked = time.monotonic()
        found = self.bucket.find(f"jobs/{job_id}/{INDEX}")
        try:
            if found is None or not found.data:
                raise JobNotFound()
            index = Index.model_validate_json(found.data)
        except (JobNotFound, ValidationError):
            with self._lock:
                self._memory.pop(job_id, None)
            raise JobNotFound() from None
        return self._remember(job_id, _Seen(index, found.version, found.modified, asked))

    def _remember(self, job_id: str, seen: _Seen) -> _Seen:
        with self._lock:
            known = self._memory.get(job_id)
            if known is not None and known.at > seen.at:
                return seen  # this answer was asked for before, and may be the older one
            self._memory[job_id] = seen
            self._memory.move_to_end(job_id)
            if len(self._memory) > REMEMBERED:
                self._memory.popitem(last=False)
        return seen

    def _recent(self, job_id: str) -> _Seen:
        with self._lock:
            seen = self._memory.get(job_id)
        since = max(time.monotonic() - FRESH, self.processes.taken)
        return seen if seen is not None and seen.at > since else self._load(job_id)

    def _write(self, job_id: str, index: Index, expected: Expected) -> None:
        """Write an index in place of the one expected. Raises Conflict."""
        index = index.model_copy(update={"stamp": uuid.uuid4().hex})
        try:
            version = self.bucket.put(f"jobs/{job_id}/{INDEX}", index.model_dump_json().encode(), expected)
        except Conflict:
            if self._load(job_id).job.stamp != index.stamp:
                raise
            return  # it was ours, and the answer was lost
        self._remember(job_id, _Seen(index, version, self.now(), time.monotonic()))

    def _change(self, job_id: str, change: Change, held: Optional[Held] = None) -> Index:
        """Change an index; `change` is asked again when another process was quicker. Returns the one before.

        Raises TakenOver where the job is to be held and is not.
        """

        def changed(index: Index) -> Index:
            if held is not None and _holder(index.record) != held:
                raise TakenOver()
            return change(index)

        with self._lock:
            known = self._memory.get(job_id)
        if known is not None:  # what is remembered may be out of date, and nothing is to be made of that
            with suppress(Conflict, TakenOver):
                self._write(job_id, changed(known.job), known.version)
                return known.job
        for attempt in range(TRIES):
            time.sleep(random.uniform(0, 0.01 * 2 ** min(attempt, 5)) if attempt else 0)
            seen = self._load(job_id)
            with suppress(Conflict):
                self._write(job_id, changed(seen.job), seen.version)
                return seen.job
        raise Overloaded()

    # -- files

    @contextmanager
    def _writing(self, job_id: str, names: List[JobFile]) -> Iterator[Dict[JobFile, str]]:
        """Names for new objects of files; without an index that knows them they are removed again.

        Where the store was away, an index may know them all the same: a sweep finds out.
        """
        tokens = {n: f"{self.processes.worker}-{uuid.uuid4().hex[:16]}" for n in names}
        with self._lock:
            self._pending.update(tokens.values())
        try:
            yield tokens
            if not self.processes.is_sure():  # they may have been taken for leftovers of the dead
                self._check_written(job_id, tokens)
        except StoreAway:
            raise
        except BaseException:
            with suppress(RelightError):
                self.bucket.delete([self._path(job_id, n, t) for n, t in tokens.items()])
            raise
        finally:
            with self._lock:
                self._pending.difference_update(tokens.values())

    def _check_written(self, job_id: str, tokens: Mapping[JobFile, str]) -> None:
        there = {entry.path for entry in self.bucket.list(f"jobs/{job_id}")}
        if not all(self._path(job_id, n, t) in there for n, t in tokens.items()):
            self.discard(job_id, list(tokens))
            raise StoreAway()

    @staticmethod
    def _path(job_id: str, name: JobFile, token: str) -> str:
        return f"jobs/{job_id}/{name.value}/{token}"

    def _place(self, token: str, size: int) -> Place:
        return Place(object=token, size=size, made=self.now())

    def create(self, job_id: str, files: Mapping[JobFile, bytes]) -> None:
        """A new job with its first files, all or nothing."""
        others = {n: data for n, data in files.items() if n != JobFile.JOB}
        with self._writing(job_id, list(others)) as tokens:
            for name, data in others.items():
                self.bucket.put(self._path(job_id, name, tokens[name]), data, about=about(name))
            places = {n.value: self._place(tokens[n], len(data)) for n, data in others.items()}
            index = Index(record=files.get(JobFile.JOB, b"").decode(), files=places)
            try:
                self._write(job_id, index, NEW)
            except (Conflict, JobNotFound):
                raise RelightError() from None
            except StoreAway:  # was it written?
                with suppress(RelightError):
                    self.delete(job_id)
                raise

    def put(self, job_id: str, name: JobFile, data: bytes, held: Optional[Held] = None) -> None:
        """Replace one file of a job, all or nothing."""
        if name == JobFile.JOB:
            self.put_record(job_id, data, held)
            return
        with self._writing(job_id, [name]) as tokens:
            self.bucket.put(self._path(job_id, name, tokens[name]), data, about=about(name))
            self._enter(job_id, {name: self._place(tokens[name], len(data))}, held)

    def put_written(self, job_id: str, name: JobFile, write: Callable[[str], None]) -> None:
        """The same with what `write(path)` writes into an empty file: for what is too large to be held."""
        with tempfile.TemporaryDirectory(prefix="relight-") as folder, self._writing(job_id, [name]) as tokens:
            path = Path(folder, "file")
            try:
                path.touch(0o600)
                write(str(path))
                size = path.stat().st_size
            except OSError as exc:
                raise from_oserror(exc) from exc
            self.bucket.put_file(self._path(job_id, name, tokens[name]), path, about(name))
            self._enter(job_id, {name: self._place(tokens[name], size)})

    def put_record(self, job_id: str, data: bytes, held: Optional[Held] = None) -> None:
        """Replace job.json. Raises TakenOver where it is no longer held as told."""

        self._change(job_id, lambda index: index.model_copy(update={"record": data.decode()}), held)

    def _enter(self, job_id: str, places: Mapping[JobFile, Place], held: Optional[Held] = None) -> None:
        """Make files of a job out of objects that are there."""
        new = {n.value: place for n, place in places.items()}
        before = self._change(job_id, lambda index: index.model_copy(update={"files": {**index.files, **new}}), held)
        self._forget(job_id, [(n, before.place(n)) for n in places])

    def _forget(self, job_id: str, places: List[Tuple[JobFile, Optional[Place]]]) -> None:
        """Delete objects that are no files any more, but not at once."""
        due = time.monotonic() + KEPT
        with self._lock:
            self._replaced.extend((due, self._path(job_id, n, p.object)) for n, p in places if p is not None)
        self._delete_replaced()

    def _delete_replaced(self) -> None:
        with self._lock:
            paths = []
            while self._replaced and self._replaced[0][0] <= time.monotonic():
                paths.append(self._replaced.popleft()[1])
        with suppress(StoreAway):
            self.bucket.delete(paths)

    def discard(self, job_id: str, names: List[JobFile], held: Optional[Held] = None) -> None:
        """Remove files of a job, as far as that can be done."""
        with suppress(RelightError):
            if not any(self._recent(job_id).job.place(n) for n in names):
                return
            gone = {n.value for n in names}
            before = self._change(
                job_id,
                lambda index: index.model_copy(
                    update={"files": {n: place for n, place in index.files.items() if n not in gone}}
                ),
                held,
            )
            self._forget(job_id, [(n, before.place(n)) for n in names])

    def link_files(self, source: str, target: str, names: List[JobFile], held: Optional[Held] = None) -> None:
        """Give one job copies of files of another, made within the store."""
        theirs = self._load(source).job
        with self._writing(target, names) as tokens:
            places = {}
            for name in names:
                place = theirs.place(name)
                try:
                    if place is None:
                        raise Missing
                    self.bucket.copy(self._path(source, name, place.object), self._path(target, name, tokens[name]))
                except Missing:
                    raise FileNotFound(f"{name.value} is not made yet for this job.") from None
                places[name] = self._place(tokens[name], place.size)
            self._enter(target, places, held)

    def _find(self, job_id: str, name: JobFile, index: Index) -> Place:
        place = index.place(name)
        if place is None:
            raise FileNotFound(f"{name.value} is not made yet for this job.")
        return place

    def open(self, job_id: str, name: JobFile) -> BinaryIO:
        """The file, open for reading; see `begin` in base.py."""
        index = self._recent(job_id).job
        if name == JobFile.JOB:
            return io.BytesIO(index.record.encode())
        return cast(BinaryIO, RemoteFile(self, job_id, name, self._find(job_id, name, index)))

    def get(self, job_id: str, name: JobFile) -> bytes:
        """The bytes of a file."""
        if name == JobFile.JOB:
            return self._load(job_id).job.record.encode()
        seen = self._recent(job_id)
        for _ in range(TRIES):
            try:
                return self.bucket.get(self._path(job_id, name, self._find(job_id, name, seen.job).object))
            except Missing:  # another took its place
                before, seen = seen, self._load(job_id)
                if before.job.place(name) == seen.job.place(name):
                    break
        raise FileNotFound(f"{name.value} is not made yet for this job.")

    def read_part(self, job_id: str, name: JobFile, place: Place, first: int, count: int, into: IO[bytes]) -> None:
        """Read bytes of a file that was opened. Raises JobNotFound, FileNotFound where it is no more."""
        try:
            for piece in self.bucket.stream(self._path(job_id, name, place.object), first, count):
                into.write(piece)
        except Missing:
            self._find(job_id, name, self._load(job_id).job)
            raise FileNotFound(f"{name.value} was made anew just now. Ask again.") from None

    def direct(self, job_id: str, name: JobFile, seconds: float) -> Optional[str]:
        """An address from which anybody may read a file for so long; None where the store has no such thing."""
        index = self._recent(job_id).job
        return self.bucket.signed(self._path(job_id, name, self._find(job_id, name, index).object), seconds)

    def exists(self, job_id: str) -> bool:
        """Is there such a job?"""
        try:
            self._load(job_id)
        except JobNotFound:
            return False
        return True

    def names(self, job_id: str) -> List[JobFile]:
        """Which files a job has; none where there is no such job."""
        try:
            index = self._recent(job_id).job
        except JobNotFound:
            return []
        return [n for n in JobFile if n == JobFile.JOB or index.place(n)]

    # -- jobs

    def delete(self, job_id: str, used: Optional[float] = None) -> None:
        """Make a job vanish at once, then free its objects. Raises TakenOver where it was used since `used`."""
        path = f"jobs/{job_id}/{INDEX}"
        with self._lock:
            known = self._memory.pop(job_id, None)
        there = (known.version, known.modified) if known is not None else self._version(path)
        for _ in range(TRIES):
            if used is not None and there[1] > used:
                raise TakenOver()
            try:
                self.bucket.put(path, b"", there[0])
                break
            except Conflict:
                there = self._version(path)
        else:
            raise Overloaded()
        with suppress(StoreAway):  # the sweep does the rest
            self._delete_objects(job_id, [e for e in self.bucket.list(f"jobs/{job_id}") if _parse(e.path)])

    def _version(self, path: str) -> Tuple[Version, float]:
        found = self.bucket.find(path)
        if found is None or not found.data:
            raise JobNotFound()
        return found.version, found.modified

    def _delete_objects(self, job_id: str, entries: List[Listed]) -> None:
        index = f"jobs/{job_id}/{INDEX}"
        self.bucket.delete([e.path for e in entries if e.path != index])
        self.bucket.delete([index])  # the last, so that a sweep knows of what remains

    def _jobs(self) -> Dict[str, List[Listed]]:
        """All our objects by job."""
        jobs: Dict[str, List[Listed]] = {}
        for entry in self.bucket.list("jobs"):
            parsed = _parse(entry.path)
            if parsed is not None:
                jobs.setdefault(parsed[0], []).append(entry)
        return jobs

    def list(self) -> Iterator[Entry]:
        """All jobs, in no order."""
        for job_id, entries in self._jobs().items():
            entry = _entry(job_id, entries)
            if entry is not None:
                yield entry

    def touch(self, job_id: str) -> float:
        """Note that a job is used now; returns when it was last used (seconds since the epoch)."""
        seen = self._recent(job_id)
        if abs(self.now() - seen.modified) <= self._grain:
            return seen.modified
        self._change(job_id, lambda index: index)
        return self._recent(job_id).modified

    # -- shared analyses

    def register(self, fingerprint: str, job_id: str) -> None:
        """Note that this job holds that analysis. Not being able to is no fault: then nobody shares it."""
        with suppress(StoreAway):
            self.bucket.put(f"analyses/{fingerprint}/{job_id}", b"")

    def unregister(self, fingerprint: str, job_id: str) -> None:
        """Forget that note."""
        with suppress(StoreAway):
            self.bucket.delete([f"analyses/{fingerprint}/{job_id}"])

    def holders(self, fingerprint: str) -> List[str]:
        """The jobs noted under a fingerprint."""
        names = (e.path.rpartition("/")[2] for e in self.bucket.list(f"analyses/{fingerprint}"))
        return sorted(filter(is_job_folder, names))

    # -- leftovers

    def clean(self) -> List[Entry]:
        """Remove what dead processes left; returns the jobs that are there, by the one listing that it takes.

        Objects without an index that knows them, notes of jobs that are gone.
        """
        self._delete_replaced()
        notes = [e.path for e in self.bucket.list("analyses")]  # before the jobs: a job is there before its note
        jobs, living = self._jobs(), {}
        for job_id, entries in jobs.items():
            gone = self._clean_job(job_id, entries)
            entry = _entry(job_id, [e for e in entries if e.path not in gone])
            if entry is not None:
                living[job_id] = entry
        self._whole = {j: w for j, w in self._whole.items() if j in jobs}
        parts = [(path, path.split("/")) for path in notes]
        self.bucket.delete([path for path, p in parts if len(p) == 3 and is_job_folder(p[2]) and p[2] not in living])
        self.processes.forget_dead()
        return list(living.values())

    def _clean_job(self, job_id: str, entries: List[Listed]) -> Set[str]:
        """Remove what is left of a job, or in it; returns the names of those objects."""
        listed = _index_of(entries)
        if listed is not None and not listed.size:
            self._delete_objects(job_id, entries)
            return {e.path for e in entries}
        files = [e for e in entries if e is not listed]
        state = (listed.e_tag if listed is not None else "", {e.path for e in files})
        if listed is not None and self._whole.get(job_id) == state:
            return set()
        left = [e.path for e in files if self._may_be_left(e.path)]  # asked before the index is read
        try:
            index: Optional[Index] = self._load(job_id).job
        except JobNotFound:
            if listed is not None:  # damaged: that is for the sweep to judge
                return set()
            index = None
        known = {f"jobs/{job_id}/{n}/{p.object}" for n, p in index.files.items()} if index else set()
        gone = [path for path in left if path not in known]
        self.bucket.delete(gone)
        if index is not None and state[1] <= known:
            self._whole[job_id] = state
        return set(gone)

    def _may_be_left(self, path: str) -> bool:
        """Was this object written by a process that is dead, or by us and not about to become a file?"""
        token = path.rpartition("/")[2]
        worker = token[:32]
        if worker != self.processes.worker:
            return not self.processes.is_alive(worker)
        with self._lock:
            return token not in self._pending and not any(path == p for _, p in self._replaced)


def _holder(record: str) -> Optional[Held]:
    try:
        found = json.loads(record)
        return found["worker"], found["attempts"]
    except (ValueError, KeyError, TypeError):
        return None


def _parse(path: str) -> Optional[Tuple[str, str]]:
    """(job, file) of an object of ours."""
    parts = path.split("/")
    if len(parts) not in (3, 4) or parts[0] != "jobs" or not is_job_folder(parts[1]):
        return None
    if parts[2:] == [INDEX]:
        return parts[1], INDEX
    return (parts[1], parts[2]) if len(parts) == 4 and parts[2] in NAMES and TOKEN.fullmatch(parts[3]) else None


def _index_of(entries: List[Listed]) -> Optional[Listed]:
    return next((e for e in entries if e.path.endswith(f"/{INDEX}") and e.path.count("/") == 2), None)


def _entry(job_id: str, entries: List[Listed]) -> Optional[Entry]:
    """A job by its objects; None where there is none, or no more."""
    index = _index_of(entries)
    if index is None or not index.size:
        return None
    return Entry(job_id, sum(e.size for e in entries), index.modified, index.e_tag)


class RemoteFile(io.RawIOBase):
    """A file of a job, open for reading. Nothing is fetched before it is read, or begun."""

    def __init__(self, store: ObjectStore, job_id: str, name: JobFile, place: Place):
        self._store, self._job_id, self._name, self._place = store, job_id, name, place
        self._held: Optional[IO[bytes]] = None  # bytes that were fetched
        self._first, self._count = 0, 0  # which
        self._at = 0

    @property
    def facts(self) -> Facts:
        """What is known of it."""
        return Facts(self._place.size, self._place.object, self._place.made)

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def tell(self) -> int:
        """Where it is."""
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go there."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._place.size}[whence]
        self._at = max(0, start + offset)
        return self._at

    def begin(self, first: int, count: int) -> None:
        """Fetch so many bytes and stand at the first."""
        count = max(0, min(count, self._place.size - first))
        if not (self._held is not None and self._first <= first and first + count <= self._first + self._count):
            self._let_go()
            held = tempfile.SpooledTemporaryFile(SPOOLED)  # noqa: SIM115  # closed with this file
            try:
                self._store.read_part(self._job_id, self._name, self._place, first, count, held)
            except OSError as exc:
                held.close()
                raise from_oserror(exc) from exc
            except BaseException:
                held.close()
                raise
            self._held, self._first, self._count = held, first, count
        self._at = first

    def read(self, size: int = -1) -> bytes:
        """At most so many bytes; -1: all that follow."""
        rest = max(0, self._place.size - self._at)
        size = rest if size is None or size < 0 else min(size, rest)
        if not size:
            return b""
        at = self._at
        if self._held is None or not (self._first <= at and at + size <= self._first + self._count):
            short = at == 0 and self._held is None and size <= HEAD
            self.begin(at, HEAD if short else rest)
        assert self._held is not None
        self._held.seek(at - self._first)
        data = self._held.read(size)
        self._at = at + len(data)
        return data

    def readall(self) -> bytes:
        """All that follow."""
        return self.read()

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]  # what `io` calls with
        """Fill a buffer."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def _let_go(self) -> None:
        if self._held is not None:
            self._held.close()
            self._held = None

    def close(self) -> None:
        """Let go of what was fetched."""
        self._let_go()
        super().close()
