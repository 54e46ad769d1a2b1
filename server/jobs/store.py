"""Jobs in a folder of this machine.

Layout of the folder: `<uuid4>/` one job; `.new-<worker>-<n>-<random>/` a job being made, `.gone-...` one being deleted,
`.workers/<worker>.lock` held by a living process, `.analyses/<fingerprint>/<uuid4>` which jobs hold that analysis.
A job appears by one rename and vanishes by one rename; each file lands by write to a temporary, fsync, rename.
"""

import errno
import os
import re
import shutil
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Callable, Dict, Iterator, List, Mapping, Optional, Tuple

from ..errors import FileNotFound, JobNotFound, from_oserror
from .base import Entry, Held, JobFile, is_job_folder
from .processes import ProcessRegistry

TEMPORARY = re.compile(r"\.(new|gone|tmp)-([0-9a-f]{32})-[0-9]+-[0-9a-f]{8}")  # kind, worker
NAMES = {n.value for n in JobFile}
TOUCH_GRAIN = 10.0  # seconds; a job used again within them is not touched again


def _sync_folder(path: Path) -> None:
    """Make renames in a folder durable where the system can (POSIX, and not every file system)."""
    if os.name == "posix":
        fd = os.open(path, os.O_RDONLY)
        try:
            os.fsync(fd)
        except OSError as exc:
            if exc.errno not in (errno.EINVAL, errno.ENOTSUP):
                raise
        finally:
            os.close(fd)


class LocalStore:
    """Jobs in a folder on this machine, shared by any number of processes."""

    look_seconds = 0.25
    note_seconds = 0.0
    forget_seconds = 2.0
    own_clock = True

    def __init__(self, root: Path, processes: ProcessRegistry):
        self.root, self.processes = Path(root), processes
        self._count = 0

    def _temporary(self, kind: str) -> str:
        self._count += 1
        return f".{kind}-{self.processes.worker}-{self._count}-{uuid.uuid4().hex[:8]}"

    def now(self) -> float:
        """The time, in seconds since the epoch."""
        return time.time()

    # -- files

    def _write(self, path: Path, data: bytes) -> None:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600)
        with os.fdopen(fd, "wb") as f:
            f.write(data)
            f.flush()
            os.fsync(f.fileno())

    def _guard(self, job_id: str, work: Callable[[Path], None]) -> None:
        """Run file work in a job's folder; a vanished folder is JobNotFound, a full disk StorageFull."""
        folder = self.root / job_id
        try:
            work(folder)
        except OSError as exc:
            if not folder.is_dir():
                raise JobNotFound() from None
            raise from_oserror(exc) from exc

    def create(self, job_id: str, files: Mapping[JobFile, bytes]) -> None:
        """A new job with its first files, all or nothing."""
        draft = self.root / self._temporary("new")
        try:
            draft.mkdir(mode=0o700)
            for name, data in files.items():
                self._write(draft / name.value, data)
            _sync_folder(draft)
            os.rename(draft, self.root / job_id)
            _sync_folder(self.root)
        except OSError as exc:
            for folder in (draft, self.root / job_id):
                shutil.rmtree(folder, ignore_errors=True)
            raise from_oserror(exc) from exc

    # `held` needs no look here: the lock that a process lives by falls with the process, and not before.

    def put(self, job_id: str, name: JobFile, data: bytes, held: Optional[Held] = None) -> None:
        """Replace one file of a job, all or nothing."""
        self._put(job_id, name, lambda draft: self._write(draft, data))

    def put_written(self, job_id: str, name: JobFile, write: Callable[[str], None]) -> None:
        """The same with what `write(path)` writes into an empty file: for what is too large to be held."""

        def fill(draft: Path) -> None:
            self._write(draft, b"")
            write(str(draft))
            with open(draft, "rb+") as f:
                os.fsync(f.fileno())

        self._put(job_id, name, fill)

    def put_record(self, job_id: str, data: bytes, held: Optional[Held] = None) -> None:
        """Replace job.json."""
        self.put(job_id, JobFile.JOB, data)

    def _put(self, job_id: str, name: JobFile, fill: Callable[[Path], None]) -> None:
        def work(folder: Path) -> None:
            draft = folder / self._temporary("tmp")
            try:
                fill(draft)
                _replace(draft, folder / name.value)
                _sync_folder(folder)
            except BaseException:
                draft.unlink(missing_ok=True)
                raise

        self._guard(job_id, work)

    def discard(self, job_id: str, names: List[JobFile], held: Optional[Held] = None) -> None:
        """Remove files of a job, as far as that can be done."""
        for name in names:
            with suppress(OSError):
                (self.root / job_id / name.value).unlink(missing_ok=True)

    def link_files(self, source: str, target: str, names: List[JobFile], held: Optional[Held] = None) -> None:
        """Give one job files of another: by hard link where the file system can, else by copy."""

        def work(folder: Path) -> None:
            for name in names:
                draft = folder / self._temporary("tmp")
                try:
                    try:
                        os.link(self.root / source / name.value, draft)
                    except (OSError, AttributeError, NotImplementedError):
                        self._write(draft, (self.root / source / name.value).read_bytes())
                    _replace(draft, folder / name.value)
                finally:
                    draft.unlink(missing_ok=True)  # renaming a link onto its twin leaves it behind
            _sync_folder(folder)

        self._guard(target, work)

    def open(self, job_id: str, name: JobFile) -> BinaryIO:
        """The file, open for reading: what is read stays whole though it be replaced or deleted meanwhile."""
        try:
            return open(self.root / job_id / name.value, "rb")
        except FileNotFoundError:
            if (self.root / job_id / JobFile.JOB.value).exists():
                raise FileNotFound(f"{name.value} is not made yet for this job.") from None
            raise JobNotFound() from None
        except OSError as exc:
            raise from_oserror(exc) from exc

    def get(self, job_id: str, name: JobFile) -> bytes:
        """The bytes of a file."""
        with self.open(job_id, name) as f:
            return f.read()

    def exists(self, job_id: str) -> bool:
        """Is there such a job?"""
        return (self.root / job_id / JobFile.JOB.value).exists()

    def names(self, job_id: str) -> List[JobFile]:
        """Which files a job has."""
        return [n for n in JobFile if (self.root / job_id / n.value).is_file()]

    def direct(self, job_id: str, name: JobFile, seconds: float) -> Optional[str]:
        """None: nobody but the server reads a folder."""
        return None

    # -- jobs

    def delete(self, job_id: str, used: Optional[float] = None) -> None:
        """Make a job vanish at once, then free its files."""
        gone = self.root / self._temporary("gone")
        try:
            os.rename(self.root / job_id, gone)
        except FileNotFoundError:
            raise JobNotFound() from None
        except OSError as exc:  # Windows, while a file of it is open: take away what can be taken
            if not (self.root / job_id).is_dir():
                raise JobNotFound() from None
            gone = self.root / job_id
            try:
                (gone / JobFile.JOB.value).unlink(missing_ok=True)
            except OSError:
                raise from_oserror(exc) from exc
        shutil.rmtree(gone, ignore_errors=True)

    def list(self) -> Iterator[Entry]:
        """All jobs, in no order."""
        for folder in list(os.scandir(self.root)):
            if not is_job_folder(folder.name):
                continue
            try:
                with os.scandir(folder.path) as inside:
                    stats = {f.name: f.stat() for f in inside if f.name in NAMES}
                last = stats[JobFile.JOB.value] if JobFile.JOB.value in stats else folder.stat()
            except OSError:
                continue
            if stats:  # else it is somebody else's folder
                yield Entry(folder.name, sum(s.st_size for s in stats.values()), last.st_mtime)

    def touch(self, job_id: str) -> float:
        """Note that a job is used now; returns when it was last used (seconds since the epoch)."""
        path = self.root / job_id / JobFile.JOB.value
        try:
            now, used = time.time(), path.stat().st_mtime
            if abs(now - used) > TOUCH_GRAIN:
                try:
                    os.utime(path)
                except PermissionError:  # a folder that became read-only can still be read from
                    return used
                except OSError as exc:
                    if exc.errno != errno.EROFS:
                        raise
                    return used
                return now
            return used
        except FileNotFoundError:
            raise JobNotFound() from None
        except OSError as exc:
            raise from_oserror(exc) from exc

    # -- shared analyses

    def register(self, fingerprint: str, job_id: str) -> None:
        """Note that this job holds that analysis. Not being able to is no fault: then nobody shares it."""
        folder = self.root / ".analyses" / fingerprint
        for _ in range(100):
            try:
                folder.mkdir(mode=0o700, exist_ok=True)
                os.close(os.open(folder / job_id, os.O_WRONLY | os.O_CREAT, 0o600))
                return
            except (FileNotFoundError, FileExistsError):  # the last note went, and the folder with it
                continue
            except OSError:
                return

    def unregister(self, fingerprint: str, job_id: str) -> None:
        """Forget that note, and the fingerprint with its last one."""
        folder = self.root / ".analyses" / fingerprint
        try:
            (folder / job_id).unlink(missing_ok=True)
            folder.rmdir()
        except OSError:  # others are noted there
            pass

    def holders(self, fingerprint: str) -> List[str]:
        """The jobs noted under a fingerprint."""
        try:
            return sorted(os.listdir(self.root / ".analyses" / fingerprint))
        except OSError:
            return []

    # -- leftovers

    def clean(self) -> List[Entry]:
        """Remove what dead processes left; returns the jobs that are there.

        Half-made and half-deleted jobs, temporaries, notes of jobs that are gone.
        """
        leftovers = _Leftovers(self.processes)
        for entry in list(os.scandir(self.root)):
            if leftovers.holds(entry.name, ("new", "gone")):
                shutil.rmtree(entry.path, ignore_errors=True)
            elif is_job_folder(entry.name):
                self._clean_job(Path(entry.path), leftovers)
        self.processes.forget_dead()
        for notes in (self.root / ".analyses").glob("*"):
            for job_id in self.holders(notes.name):
                if not (self.root / job_id / JobFile.JOB.value).exists():
                    self.unregister(notes.name, job_id)
            with suppress(OSError):
                notes.rmdir()  # empty, if its last note was never written
        return list(self.list())

    def _clean_job(self, folder: Path, leftovers: "_Leftovers") -> None:
        try:
            inside = os.listdir(folder)
            if not inside:  # its files went, and then a reader held it (Windows)
                folder.rmdir()
        except OSError:
            return
        for name in inside:
            if leftovers.holds(name, ("tmp",)):
                (folder / name).unlink(missing_ok=True)


class _Leftovers:
    """Tells whose temporaries may go; asks of each process once whether it lives."""

    def __init__(self, processes: ProcessRegistry):
        self._processes = processes
        self._alive: Dict[str, bool] = {processes.worker: True}

    def holds(self, name: str, kinds: Tuple[str, ...]) -> bool:
        """Is this the name of a temporary, of one of these kinds, that nobody will finish?"""
        found = TEMPORARY.fullmatch(name)  # whatever else lies here is not ours
        if not found or found[1] not in kinds:
            return False
        kind, worker = found[1], found[2]
        if kind == "gone" and worker == self._processes.worker:  # it could not be removed at first (Windows)
            return True
        if worker not in self._alive:
            self._alive[worker] = self._processes.is_alive(worker)
        return not self._alive[worker]


def _replace(source: Path, target: Path) -> None:
    """os.replace, patient on Windows with a reader that has the target open."""
    for attempt in range(50):
        try:
            return os.replace(source, target)
        except PermissionError:
            if os.name != "nt" or attempt == 49:
                raise
            time.sleep(0.02)
