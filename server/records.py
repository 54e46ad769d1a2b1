"""job.json: what is known of a job, as it lies on disk and as clients see it."""

import json
import re
import time
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime, timezone
from typing import Any, Dict, List, Optional

from . import jobs
from .errors import ALL, JobNotFound, RelightError
from .illumination import is_finite_number

QUEUED, ANALYSING, READY, FAILED = "queued", "analysing", "ready", "failed"
LAST_SECOND = 253402300799.0  # of the year 9999
STAGES = {
    "waiting": 0.0,
    "reading": 0.05,
    "estimating": 0.1,
    "fitting": 0.6,
    "storing": 0.75,
    "ready": 1.0,
    "failed": 1.0,
}


@dataclass
class Record:
    """One job. Times are seconds since the epoch; `owner` is a digest of the key that made it, "" without keys."""

    job_id: str
    width: int
    height: int
    key: str  # which analysis: a digest of the file's bytes, the version, the models, the analysis size and the owner
    owner: str = ""
    worker: str = ""  # which process works on it
    state: str = QUEUED
    stage: str = "waiting"
    attempts: int = 0
    healing: bool = False  # analysed anew because its files were damaged, and not read whole since
    created: float = field(default_factory=time.time)
    format: str = ""
    alpha: bool = False
    focal: Optional[float] = None
    models: List[str] = field(default_factory=list)
    depth_range: Optional[List[float]] = None
    fit: Optional[Dict[str, Any]] = None
    timings: Dict[str, float] = field(default_factory=dict)
    error: Optional[Dict[str, str]] = None

    def dump(self) -> bytes:
        """As job.json."""
        return json.dumps({"format_version": 1, **asdict(self)}, allow_nan=False).encode()

    def fail(self, error: RelightError) -> None:
        """Note why the analysis failed."""
        self.state, self.stage = FAILED, "failed"
        self.error = {"code": error.code, "detail": error.detail}

    def raise_error(self) -> None:
        """Raise what the analysis failed with."""
        error = self.error or {}
        raise ALL.get(error.get("code", ""), RelightError)(error.get("detail"))

    def public(self, files: List[jobs.File], used: float, ttl: float) -> Dict[str, Any]:
        """As clients see it."""
        error = self.error and {
            **self.error,
            "title": ALL[self.error["code"]].title,
            "status": ALL[self.error["code"]].status,
        }
        return {
            "job_id": self.job_id,
            "job_dir": f"jobs/{self.job_id}",
            "state": self.state,
            "progress": STAGES.get(self.stage, 0.0),
            "stage": self.stage,
            "width": self.width,
            "height": self.height,
            "alpha": self.alpha,
            "focal": self.focal,
            "models": self.models,
            "timings": self.timings,
            "depth_range": self.depth_range,
            "files": [f.value for f in files if f in jobs.PASSES],
            "created": _iso(self.created),
            "expires": _iso(used + ttl),
            "error": error,
        }


REQUIRED = {"job_id", "width", "height", "key"}  # fields without a default


def _iso(seconds: float) -> str:
    return (
        datetime.fromtimestamp(min(max(seconds, 0.0), LAST_SECOND), timezone.utc)
        .isoformat(timespec="seconds")
        .replace("+00:00", "Z")
    )


def load(store: jobs.JobStore, job_id: str) -> Record:
    """Read job.json. Raises JobNotFound, also when it is damaged beyond reading."""
    try:
        text = store.get(job_id, jobs.File.JOB)
    except jobs.FileNotFound:
        raise JobNotFound() from None
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        raise JobNotFound() from None
    if not isinstance(data, dict) or not REQUIRED <= set(data):
        raise JobNotFound()
    record = Record(**{f.name: data[f.name] for f in fields(Record) if f.name in data})
    if record.job_id != job_id or not _is_sound(record):
        raise JobNotFound()
    return record


def _is_sound(r: Record) -> bool:
    """Is every field what it should be? (The file may have been damaged, or written by somebody else.)"""
    return (
        r.state in (QUEUED, ANALYSING, READY, FAILED)
        and all(isinstance(v, str) for v in (r.key, r.owner, r.worker, r.stage, r.format))
        and all(isinstance(v, int) and 1 <= v < 2**31 for v in (r.width, r.height))
        and isinstance(r.attempts, int)
        and isinstance(r.healing, bool)
        and bool(re.fullmatch("[0-9a-f]{2,128}", r.key))
        and is_finite_number(r.created)
        and isinstance(r.alpha, bool)
        and (r.focal is None or is_finite_number(r.focal))
        and (isinstance(r.fit, dict) or (r.fit is None and r.state != READY))
        and isinstance(r.models, list)
        and all(isinstance(m, str) for m in r.models)
        and (
            r.depth_range is None
            or (
                isinstance(r.depth_range, list)
                and len(r.depth_range) == 2
                and all(map(is_finite_number, r.depth_range))
            )
        )
        and isinstance(r.timings, dict)
        and all(map(is_finite_number, r.timings.values()))
        and (
            r.error is None
            or (
                isinstance(r.error, dict)
                and r.error.get("code") in list(ALL)
                and isinstance(r.error.get("detail"), str)
            )
        )
    )


def load_owned(store: jobs.JobStore, job_id: str, owner: str) -> Record:
    """The job of that id, as a client sent it. Raises JobNotFound also when it belongs to another owner."""
    record = load(store, jobs.parse_id(job_id))
    if record.owner != owner:
        raise JobNotFound()
    return record


def save(store: jobs.JobStore, record: Record) -> None:
    """Write job.json. Raises JobNotFound when the job was deleted meanwhile, StorageFull."""
    store.put(record.job_id, jobs.File.JOB, record.dump())
