"""The processes that share a jobs folder: marks of life, and the locks under which they take turns."""

import os
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Callable, List, Optional, Tuple

from filelock import FileLock, Timeout

from ..errors import StartupError, from_oserror

NEWBORN = 60.0  # seconds


def make_folders(root: Path) -> None:
    """The folder of the jobs, in it those of marks and of notes, for their owner only, if they are not there."""
    for path in (root, root / ".workers", root / ".analyses"):
        path.mkdir(mode=0o700, parents=True, exist_ok=True)


def check_writable(root: Path) -> None:
    """Raises StartupError when no file can be made there: files of no bytes, as a full disk is no reason to refuse."""
    name = uuid.uuid4().hex
    try:
        make_folders(root)
        for probe in (root / f".probe-{name}", root / ".workers" / f"{name}.draft"):
            os.close(os.open(probe, os.O_WRONLY | os.O_CREAT, 0o600))
            probe.unlink()
    except OSError as exc:
        raise StartupError(f"RELIGHT_JOBS_DIR: {root} cannot be written to ({exc.strerror})") from None


class ProcessRegistry:
    """This process among those over one folder. Each holds the lock of its own file; the system drops it at death."""

    lease = 0.0

    def __init__(self, root: Path):
        self.root = Path(root)
        self.folder = self.root / ".workers"
        self.worker = uuid.uuid4().hex
        try:
            make_folders(self.root)
            self._alive = self.lock_worker(self.worker)
        except OSError as exc:
            raise from_oserror(exc) from exc

    def close(self) -> None:
        """Give up this process's mark of life."""
        self._alive.release()
        (self.folder / f"{self.worker}.lock").unlink(missing_ok=True)

    def lock_worker(self, worker: str) -> FileLock:
        """The held lock of that worker. Raises Timeout while it lives elsewhere."""
        lock = FileLock(self.folder / f"{worker}.lock", timeout=0, mode=0o600, thread_local=False)
        lock.acquire()
        return lock

    def sweep_lock(self, timeout: float) -> FileLock:
        """The lock under which one process at a time sweeps."""
        make_folders(self.root)  # somebody may have removed them
        return FileLock(self.folder / "sweep", timeout=timeout, mode=0o600, thread_local=False)

    def room_lock(self, timeout: float) -> FileLock:
        """The lock under which one process at a time makes room and takes it. Raises Timeout."""
        make_folders(self.root)
        return FileLock(self.folder / "room", timeout=timeout, mode=0o600, thread_local=False, poll_interval=0.01)

    def analysis_lock(self, fingerprint: str) -> FileLock:
        """The lock under which an analysis, told by its fingerprint (hexadecimal), is made once.

        256 locks serve all of them.
        """
        return FileLock(self.folder / f"analysis-{fingerprint[:2]}", mode=0o600, thread_local=False)

    def motion_lock(self, job_id: str, timeout: float) -> FileLock:
        """The lock under which one process at a time changes what is known of a job's motion. Raises Timeout.

        256 locks serve all of them.
        """
        path = self.folder / f"motion-{job_id[:2]}"
        return FileLock(path, timeout=timeout, mode=0o600, thread_local=False, poll_interval=0.01)

    def is_alone(self) -> bool:
        """Is there no mark of life of another process? (A mark may outlive its process until the next sweep.)"""
        return not any(name.endswith(".lock") and name[:-5] != self.worker for name in os.listdir(self.folder))

    def is_alive(self, worker: str) -> bool:
        """Does that worker still run? (Its lock falls when it dies, however it dies.)"""
        if worker == self.worker:
            return True
        try:
            lock = self.lock_worker(uuid.UUID(worker).hex)
        except Timeout:
            return True
        except (ValueError, OSError):
            return False
        lock.release()
        (self.folder / f"{worker}.lock").unlink(missing_ok=True)
        return False

    # -- which preview of a stream is the newest

    def take_ticket(self, stream: str, came: int) -> Optional[str]:
        """Note that a newer preview of a stream (a hexadecimal digest) waits here since `came` (time.time_ns()).

        None when no other process could care.
        """
        if self.is_alone():
            return None
        ticket = f"{came:020d}-{self.worker}"
        try:
            draft = self.folder / f"stream-{stream}-{self.worker}-{uuid.uuid4().hex}"
            _leave(draft, ticket.encode())
            os.replace(draft, self.folder / f"stream-{stream}")
        except OSError:
            return None
        return ticket

    def is_newest(self, stream: str, ticket: Optional[str]) -> bool:
        """Was no newer ticket of that stream taken, by any process?"""
        if ticket is None:
            return True
        try:
            return (self.folder / f"stream-{stream}").read_text() <= ticket
        except OSError:
            return True

    def forget_dead(self) -> None:
        """Remove the marks of the dead, and old tickets. A young mark may not be locked yet."""
        for mark in list(os.scandir(self.folder)):
            try:
                if abs(time.time() - mark.stat().st_mtime) <= NEWBORN:
                    continue
                if mark.name.startswith("stream-") or mark.name.endswith(".draft"):  # a draft lives for a moment
                    os.unlink(mark.path)
                elif mark.name.endswith(".lock"):
                    self.is_alive(mark.name[:-5])
            except OSError:
                pass


class LocalMetricsExchange:
    """Each process leaves its metrics beside its mark of life; see MetricsExchange."""

    seconds = 0.5

    def __init__(self, processes: ProcessRegistry):
        self.processes = processes

    def publish_metrics(self, data: bytes) -> None:
        """Leave this process's numbers for the others; not being able to is no fault."""
        try:
            draft = self.processes.folder / f"{self.processes.worker}.draft"
            _leave(draft, data)
            os.replace(draft, self.processes.folder / f"{self.processes.worker}.numbers")
        except OSError:
            pass

    def peer_metrics(self) -> List[Tuple[bytes, bool]]:
        """What the other processes left last, and whether they live."""
        out = []
        for entry in list(os.scandir(self.processes.folder)):
            if entry.name.endswith(".numbers") and entry.name != f"{self.processes.worker}.numbers":
                with suppress(OSError):
                    out.append((Path(entry.path).read_bytes(), self.processes.is_alive(entry.name[:-8])))
        return out

    def fold_dead_metrics(self, add: Callable[[List[bytes]], bytes]) -> None:
        """Under the sweep lock: put the numbers of the dead into one sum, or forget them when nobody else lives."""
        folder = self.processes.folder
        dead = [
            p
            for p in folder.glob("*.numbers")
            if p.stem not in (self.processes.worker, "buried") and not self.processes.is_alive(p.stem)
        ]
        buried = folder / "buried.numbers"
        try:
            if self.processes.is_alone():
                for path in [*dead, buried]:
                    path.unlink(missing_ok=True)
            elif dead:
                parts = [p.read_bytes() for p in [*dead, buried] if p.exists()]
                draft = folder / "buried.draft"
                _leave(draft, add(parts))
                os.replace(draft, buried)
                for path in dead:
                    path.unlink(missing_ok=True)
        except (OSError, ValueError):
            pass


def _leave(path: Path, data: bytes) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as f:
        f.write(data)
