"""Jobs from one store to another: a folder, or a bucket. What was copied before is left alone, so that it can go on."""

import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Callable, NamedTuple

from ..errors import FileNotFound, JobNotFound, RelightError, StartupError, StoreAway, from_oserror
from ..settings import Settings, load
from .backend import Backend, check, open_backend
from .base import LIT, JobFile, JobStore
from .record import READY, load_record

AT_ONCE = 4  # jobs; each is in memory with all its files


class Copied(NamedTuple):
    """How many jobs were copied, were there already, could not be copied."""

    copied: int
    there: int
    failed: int


def settings_of(place: str) -> Settings:
    """Settings with the store of that name: an address as RELIGHT_STORE takes it, or a folder. Raises StartupError."""
    if "://" in place:  # a scheme that is none is refused, and does not become a folder's name
        return load(store=place)
    return load(store="", jobs_dir=Path(place))


def copy_all(source: Backend, target: Backend, say: Callable[[str], None]) -> Copied:
    """Copy every job that the target does not have. Its age begins anew there."""

    def one(job_id: str) -> str:
        try:
            return "there" if target.store.exists(job_id) else _copy(source.store, target.store, job_id)
        except JobNotFound:  # deleted meanwhile, or damaged
            return "gone"
        except (RelightError, OSError) as exc:
            error = exc if isinstance(exc, RelightError) else from_oserror(exc)
            say(f"job {job_id}: {error.detail}")
            return "failed"

    results = {"copied": 0, "there": 0, "gone": 0, "failed": 0}
    jobs = sorted(entry.job_id for entry in source.store.list())
    with ThreadPoolExecutor(AT_ONCE) as pool:
        try:
            for k, result in enumerate(pool.map(one, jobs), 1):
                results[result] += 1
                if k % 100 == 0:
                    say(f"{k} of {len(jobs)} jobs")
        except BaseException:
            pool.shutdown(cancel_futures=True)  # else all that wait would be copied first
            raise
    return Copied(results["copied"], results["there"], results["failed"])


def _copy(source: JobStore, target: JobStore, job_id: str) -> str:
    record, files = load_record(source, job_id), {}
    for name in source.names(job_id):
        if name not in LIT:  # large, and made again when they are asked for
            try:
                files[name] = source.get(job_id, name)
            except FileNotFound:  # dropped since
                continue
    target.create(job_id, {**{n: d for n, d in files.items() if n != JobFile.JOB}, JobFile.JOB: record.dump()})
    if record.state == READY:
        target.register(record.fingerprint, job_id)
    return "copied"


def run(source: str, target: str) -> int:
    """What `relight-server migrate` does; returns the exit status. Raises StartupError."""
    if "://" not in source and not Path(source).is_dir():
        raise StartupError(f"{source}: there is no such folder")
    settings = [settings_of(place) for place in (source, target)]
    if settings[0].store == settings[1].store and settings[0].jobs_dir.resolve() == settings[1].jobs_dir.resolve():
        raise StartupError("the two are one and the same")
    for each in settings:
        if each.store.startswith("memory:"):
            raise StartupError("RELIGHT_STORE: memory:// is that of one process, and ends with this one")
        check(each)
    with ExitStack() as stack:
        try:
            backends = [open_backend(each) for each in settings]
        except StoreAway as exc:
            raise StartupError(exc.detail) from None
        for backend in backends:
            stack.callback(backend.processes.close)
        done = copy_all(backends[0], backends[1], lambda text: print(text, file=sys.stderr, flush=True))
    print(f"{done.copied} jobs copied, {done.there} were there, {done.failed} could not be copied")
    return 1 if done.failed else 0
