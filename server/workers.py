"""The processes that share a jobs folder: marks of life, and the locks under which they take turns."""

import errno
import os
import time
import uuid
from pathlib import Path

from filelock import FileLock, Timeout

from .errors import StartupError, StorageFull, from_oserror

NEWBORN = 60.0  # seconds


def check_writable(root: Path) -> None:
    """Raises StartupError when jobs cannot be kept in that folder. (A full disk is no reason not to start.)"""
    probe = root / f".probe-{uuid.uuid4().hex}"
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(probe, os.O_WRONLY | os.O_CREAT, 0o600))
        probe.unlink()
    except OSError as exc:
        if not isinstance(from_oserror(exc), StorageFull) or exc.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise StartupError(f"RELIGHT_JOBS_DIR: {root} cannot be written to ({exc.strerror})") from None


class Workers:
    """This process among those over one folder. Each holds the lock of its own file; the system drops it at death."""

    def __init__(self, root: Path):
        self.root = Path(root)
        self.worker = uuid.uuid4().hex
        try:
            for folder in (self.root, self.root / ".workers"):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._alive = self.lock_worker(self.worker)
        except OSError as exc:
            raise from_oserror(exc) from exc

    def close(self) -> None:
        """Give up this process's mark of life."""
        self._alive.release()
        (self.root / ".workers" / f"{self.worker}.lock").unlink(missing_ok=True)

    def lock_worker(self, worker: str) -> FileLock:
        """The held lock of that worker. Raises Timeout while it lives elsewhere."""
        lock = FileLock(self.root / ".workers" / f"{worker}.lock", timeout=0, mode=0o600, thread_local=False)
        lock.acquire()
        return lock

    def sweep_lock(self, timeout: float) -> FileLock:
        """The lock under which one process at a time sweeps."""
        return FileLock(self.root / ".workers" / "sweep", timeout=timeout, mode=0o600, thread_local=False)

    def room_lock(self, timeout: float) -> FileLock:
        """The lock under which one process at a time makes room and takes it. Raises Timeout."""
        return FileLock(self.root / ".workers" / "room", timeout=timeout, mode=0o600, thread_local=False, poll_interval=0.01)

    def analysis_lock(self, key: str) -> FileLock:
        """The lock under which the analysis of one key, a hexadecimal digest, is made once. 256 locks serve all keys."""
        return FileLock(self.root / ".workers" / f"analysis-{key[:2]}", mode=0o600, thread_local=False)

    def is_alone(self) -> bool:
        """Is there no mark of life of another process? (A mark may outlive its process until the next sweep.)"""
        return not any(e.name.endswith(".lock") and e.name[:-5] != self.worker for e in os.scandir(self.root / ".workers"))

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
        (self.root / ".workers" / f"{worker}.lock").unlink(missing_ok=True)
        return False

    def forget_dead(self) -> None:
        """Remove the marks of the dead. A young one may not be locked yet."""
        for lock in list(os.scandir(self.root / ".workers")):
            try:
                if lock.name.endswith(".lock") and abs(time.time() - lock.stat().st_mtime) > NEWBORN:
                    self.is_alive(lock.name[:-5])
            except OSError:
                pass
