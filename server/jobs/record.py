"""job.json: what is known of a job, as it lies on disk and as clients see it."""

import json
import time
from datetime import datetime, timezone
from typing import Annotated, Any, Dict, List, Literal, Optional, Sequence, Tuple

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError

from ..errors import ALL, FileNotFound, JobNotFound, RelightError
from ..scene.fit import SceneFit
from .base import ARCHIVE, DERIVED, DOWNLOADS, LIT, Held, JobFile, JobStore, parse_id

State = Literal["queued", "analysing", "ready", "failed"]
QUEUED: State = "queued"
ANALYSING: State = "analysing"
READY: State = "ready"
FAILED: State = "failed"
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
Side = Annotated[int, Field(ge=1, lt=2**31)]


class StoredError(BaseModel):
    """What an analysis failed with."""

    model_config = ConfigDict(strict=True)

    code: str = Field(pattern="^(" + "|".join(ALL) + ")$")
    detail: str

    def public(self) -> Dict[str, Any]:
        """As clients see it."""
        kind = ALL[self.code]
        return {**self.model_dump(), "title": kind.title, "status": kind.status}


class Record(BaseModel):
    """One job. Times are seconds since the epoch; `owner` is a digest of the key that made it, "" without keys."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False, populate_by_name=True)

    format_version: int = 1
    job_id: str
    width: Side
    height: Side
    # Which analysis: a digest of the file's bytes, the version, the models, the analysis size and the owner.
    fingerprint: Annotated[str, Field(pattern="^[0-9a-f]{2,128}$", alias="key")]  # "key" in job.json since 1.0
    owner: str = ""
    worker: str = ""  # which process works on it
    state: State = QUEUED
    stage: str = "waiting"
    attempts: int = 0
    healing: bool = False  # analysed anew because its files were damaged, and not read whole since
    created: float = Field(default_factory=time.time)
    format: str = ""
    alpha: bool = False
    focal: Optional[float] = None
    models: List[str] = Field(default_factory=list)
    depth_range: Optional[Annotated[List[float], Field(min_length=2, max_length=2)]] = None
    shading_factor: Optional[Annotated[float, Field(gt=0)]] = None
    subject: bool = False  # did a network tell what stands in front?
    fit: Optional[SceneFit] = None  # of a job that is ready, None means that it was damaged: it is analysed anew
    timings: Dict[str, float] = Field(default_factory=dict)
    error: Optional[StoredError] = None
    _held: Optional[Held] = PrivateAttr(None)  # as it was read or written last: whose it must still be when it is saved

    def note_held(self) -> None:
        """Note that the store holds this record as it is now."""
        self._held = (self.worker, self.attempts)

    @property
    def held(self) -> Optional[Held]:
        """Who held the job when its record was read or written last."""
        return self._held

    def dump(self) -> bytes:
        """As job.json."""
        return self.model_dump_json(by_alias=True).encode()

    def fail(self, error: RelightError) -> None:
        """Note why the analysis failed."""
        self.state, self.stage = FAILED, "failed"
        self.error = StoredError(code=error.code, detail=error.detail)

    def raise_error(self) -> None:
        """Raise what the analysis failed with."""
        raise ALL[self.error.code](self.error.detail) if self.error is not None else RelightError()

    def lacks(self, file: JobFile) -> bool:
        """Is this a pass that can never be made of this job?"""
        return file == JobFile.SUBJECT and not self.subject

    def _downloads(self, files: List[JobFile]) -> List[str]:
        """The names of what can be downloaded: what is there, and what is made when it is asked for."""
        ready, lit = self.state == READY, self.state == READY and JobFile.RELIT in files
        passes = [f for f in DOWNLOADS if not self.lacks(f)]
        there = [f.value for f in passes if f in files or (f in DERIVED and ready) or (f in LIT and lit)]
        return [*there, ARCHIVE] if lit else there

    def public(
        self,
        files: List[JobFile],
        used: float,
        ttl: float,
        environment: Optional[Tuple[int, int]] = None,
        masks: Sequence[str] = (),
        motion: Optional[Dict[str, Any]] = None,
    ) -> Dict[str, Any]:
        """As clients see it.

        environment: (height, width) of the light from all around that it was given. masks: their names. motion: as
        clients see it.
        """
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
            "shading_factor": self.shading_factor,
            "environment": environment and {"width": environment[1], "height": environment[0]},
            "masks": list(masks),
            "motion": motion,
            "files": self._downloads(files),
            "created": _iso(self.created),
            "expires": _iso(used + ttl),
            "error": self.error and self.error.public(),
        }


def _iso(seconds: float) -> str:
    return (
        datetime.fromtimestamp(min(max(seconds, 0.0), LAST_SECOND), timezone.utc)
        .isoformat(timespec="seconds")
        .replace("+00:00", "Z")
    )


def load_record(store: JobStore, job_id: str) -> Record:
    """Read job.json. Raises JobNotFound, also when it is damaged beyond reading; a damaged fit alone is None."""
    try:
        record = _parse(store.get(job_id, JobFile.JOB))
    except (FileNotFound, ValidationError):
        raise JobNotFound() from None
    if record.job_id != job_id:
        raise JobNotFound()
    record.note_held()
    return record


def _parse(text: bytes) -> Record:
    try:
        return Record.model_validate_json(text)
    except ValidationError as exc:
        if {e["loc"][:1] for e in exc.errors()} != {("fit",)}:
            raise
    return Record.model_validate_json(json.dumps({**json.loads(text), "fit": None}))


def load_owned_record(store: JobStore, job_id: str, owner: str) -> Record:
    """The job of that id, as a client sent it. Raises JobNotFound also when it belongs to another owner."""
    record = load_record(store, parse_id(job_id))
    if record.owner != owner:
        raise JobNotFound()
    return record


def save_record(store: JobStore, record: Record) -> None:
    """Write job.json. Raises JobNotFound when the job was deleted meanwhile, TakenOver when it was taken over since it
    was read (where processes can be mistaken for dead), StorageFull."""
    store.put_record(record.job_id, record.dump(), record.held)
    record.note_held()
