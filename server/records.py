"""job.json: what is known of a job, as it lies on disk and as clients see it."""

import json
import time
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime, timezone
from typing import Any, Dict, List, Optional

from . import jobs
from .errors import ALL, JobNotFound, RelightError

QUEUED, ANALYSING, READY, FAILED = "queued", "analysing", "ready", "failed"
STAGES = {"waiting": 0.0, "reading": 0.05, "estimating": 0.1, "fitting": 0.6, "storing": 0.75, "ready": 1.0, "failed": 1.0}


@dataclass
class Record:
    """One job. Times are seconds since the epoch; `owner` is a digest of the key that made it, "" without keys."""

    job_id: str
    width: int
    height: int
    key: str  # which analysis: a digest of the file's bytes, the models, the analysis size and the owner
    owner: str = ""
    worker: str = ""  # which process works on it
    state: str = QUEUED
    stage: str = "waiting"
    attempts: int = 0
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
        error = self.error and {**self.error, "title": ALL[self.error["code"]].title, "status": ALL[self.error["code"]].status}
        return {
            "job_id": self.job_id, "job_dir": f"jobs/{self.job_id}", "state": self.state,
            "progress": STAGES.get(self.stage, 0.0), "stage": self.stage, "width": self.width, "height": self.height,
            "alpha": self.alpha, "focal": self.focal, "models": self.models, "timings": self.timings,
            "depth_range": self.depth_range, "files": [f.value for f in files if f in jobs.PASSES],
            "created": _iso(self.created), "expires": _iso(used + ttl), "error": error,
        }


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z")


def load(store: jobs.JobStore, job_id: str) -> Record:
    """Read job.json. Raises JobNotFound, also when it is damaged beyond reading."""
    try:
        data = json.loads(store.get(job_id, jobs.File.JOB))
        known = {f.name for f in fields(Record)}
        record = Record(**{k: v for k, v in data.items() if k in known})
    except (ValueError, TypeError, AttributeError, jobs.FileNotFound):
        raise JobNotFound() from None
    if record.job_id != job_id or record.state not in (QUEUED, ANALYSING, READY, FAILED):
        raise JobNotFound()
    return record


def load_owned(store: jobs.JobStore, job_id: str, owner: str) -> Record:
    """The job of that id, as a client sent it. Raises JobNotFound also when it belongs to another owner."""
    record = load(store, jobs.parse_id(job_id))
    if record.owner != owner:
        raise JobNotFound()
    return record


def save(store: jobs.JobStore, record: Record) -> None:
    """Write job.json. Raises JobNotFound when the job was deleted meanwhile, StorageFull."""
    store.put(record.job_id, jobs.File.JOB, record.dump())
