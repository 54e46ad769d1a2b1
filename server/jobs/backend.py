"""Where jobs lie and how processes agree: in a folder, or in a bucket, as RELIGHT_STORE says."""

import uuid
from pathlib import Path
from typing import NamedTuple

from ..settings import Settings
from . import bucket
from .base import Coordination, JobStore, MetricsExchange
from .leases import BucketMetricsExchange, LeasedProcesses
from .object_store import ObjectStore
from .processes import LocalMetricsExchange, ProcessRegistry, check_writable
from .store import LocalStore


class Backend(NamedTuple):
    """The three that go together."""

    processes: Coordination
    store: JobStore
    metrics_exchange: MetricsExchange


def check(settings: Settings) -> None:
    """Raises StartupError where jobs cannot be kept there."""
    if settings.store:
        bucket.check(bucket.connect(settings.store), uuid.uuid4().hex)
    else:
        check_writable(settings.jobs_dir)


def open_backend(settings: Settings) -> Backend:
    """Become one of the processes over the store of the settings. Raises StoreAway, StartupError."""
    if settings.store:
        return over_bucket(bucket.connect(settings.store), settings)
    return over_folder(settings.jobs_dir)


def over_folder(root: Path) -> Backend:
    """One more process over a folder."""
    processes = ProcessRegistry(root)
    return Backend(processes, LocalStore(root, processes), LocalMetricsExchange(processes))


def over_bucket(objects: bucket.Bucket, settings: Settings) -> Backend:
    """One more process over a bucket."""
    processes = LeasedProcesses(objects, settings.lease_seconds)
    return Backend(
        processes, ObjectStore(objects, processes, settings.job_ttl_seconds), BucketMetricsExchange(processes)
    )
