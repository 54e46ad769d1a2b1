"""Housekeeping: leftovers of dead processes, jobs whose process died, age, quota. One process at a time."""

import logging
import time
from typing import List

from filelock import Timeout

from ..errors import JobNotFound, RelightError, StorageFull, StoreAway, TakenOver
from ..metrics import add_dumps
from .base import Entry, JobFile
from .record import ANALYSING, QUEUED, load_record
from .service import Service

JUMP = 300.0  # seconds
log = logging.getLogger("relight")


def sweep(service: Service, timeout: float = 0) -> bool:
    """One sweep; False when another process is at it."""
    lock = service.processes.sweep_lock(timeout)
    try:
        lock.acquire()
    except Timeout:
        return False
    except StoreAway:
        return True
    try:
        entries = _cleaned(service)
        service.metrics_exchange.fold_dead_metrics(add_dumps)
        jumped = _clock_jumped(service)
        there = {entry.job_id for entry in entries}
        service.settled = {job: version for job, version in service.settled.items() if job in there}
        for entry in entries:
            try:
                if jumped or entry.used > service.store.now() + JUMP:
                    service.store.touch(entry.job_id)  # its age cannot be told: it is young again
                _look_after(service, entry, service.store.now() if jumped else entry.used)
            except (JobNotFound, TakenOver):
                pass
            except StoreAway:  # for all other jobs too
                raise
            except RelightError as exc:
                log.error("sweep: job %s: %s", entry.job_id, exc.detail)
        _keep_to_the_quota(service, entries)
        return True
    except StoreAway:
        return True
    except OSError as exc:
        log.error("sweep: broke off", exc_info=exc)
        return True
    finally:
        lock.release()


def _cleaned(service: Service) -> List[Entry]:
    """Remove leftovers; returns the jobs that are there."""
    try:
        return service.store.clean()
    except OSError as exc:  # jobs expire all the same
        log.error("sweep: leftovers remain", exc_info=exc)
        return list(service.store.list())


def _keep_to_the_quota(service: Service, entries: List[Entry]) -> None:
    """entries: the jobs that were there when the sweep began. Only if they are too many is it looked anew."""
    if service.quota.fits(entries):
        return
    try:
        with service.processes.room_lock(1):
            service.quota.make_room("", 0)
    except Timeout:
        pass  # an upload is making room
    except StorageFull:
        log.warning("sweep: the jobs in use take more than the quota")
    except RelightError as exc:
        log.error("sweep: making room: %s", exc.detail)


def _clock_jumped(service: Service) -> bool:
    """Has the clock leapt since the last look, or the machine slept?

    Then no job has been unused as long as it seems.
    """
    if not service.store.own_clock:
        return False
    wall, steady = time.time(), time.monotonic()
    before, service.clock = service.clock, (wall, steady)
    leap = (wall - before[0]) - (steady - before[1])
    if abs(leap) < JUMP:
        return False
    log.warning("sweep: the clock leapt by %.0f s; no job expires for that", leap)
    return True


def _look_after(service: Service, entry: Entry, used: float) -> None:
    job_id, now = entry.job_id, service.store.now()
    expired = used + service.settings.job_ttl_seconds < now
    if entry.version and service.settled.get(job_id) == entry.version and not expired:
        return
    if service.analyst.holds(job_id):  # asked before its record is read, which its analysis may be about to change
        return
    try:
        record = load_record(service.store, job_id)
    except JobNotFound:  # damaged beyond reading: nobody can reach it
        log.warning("sweep: removed a damaged job folder")
        service.store.delete(job_id)
        return
    unfinished = record.state in (QUEUED, ANALYSING)
    if unfinished and service.processes.is_alive(record.worker) and record.worker != service.processes.worker:
        return
    if unfinished and not (record.worker == service.processes.worker and now - used < 5):  # not one just being made
        if JobFile.INPUT not in service.store.names(job_id):
            service.remove(job_id)
        elif service.engine is not None:
            log.warning("job %s: taking its analysis up again (attempt %d)", job_id, record.attempts + 1)
            service.analyst.adopt(record)
    elif expired and not service.in_use(job_id):
        log.info("job %s: expired", job_id)
        service.remove(job_id, entry.used)
    elif not unfinished:
        service.settled[job_id] = entry.version
