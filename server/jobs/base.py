"""Job storage: what a job consists of, and the small protocol of a place to keep jobs."""

import enum
import uuid
from typing import Any, BinaryIO, Callable, Iterator, List, Mapping, NamedTuple, Optional, Protocol, Tuple

from ..errors import FileNotFound, JobNotFound


class JobFile(str, enum.Enum):
    """Every file a job can have. Nothing else is ever read or written in a job's folder."""

    JOB = "job.json"
    INPUT = "input.png"
    DEPTH = "depth.png"
    NORMALS = "normals.png"
    RELIT = "relit.png"
    ALBEDO = "albedo.png"
    SHADING = "shading.png"
    SURFACE = "surface.png"
    SUBJECT = "subject.png"
    SHEET = "sheet.jpg"
    RELIT16 = "relit16.png"
    EXR = "passes.exr"
    GLB = "scene.glb"
    GEOMETRY = "geometry.npz"
    ENVIRONMENT = "environment.npy"
    MASKS = "masks.json"
    MASK_0 = "mask-0.png"
    MASK_1 = "mask-1.png"
    MASK_2 = "mask-2.png"
    MASK_3 = "mask-3.png"
    MASK_4 = "mask-4.png"
    MASK_5 = "mask-5.png"
    MASK_6 = "mask-6.png"
    MASK_7 = "mask-7.png"
    MASK_8 = "mask-8.png"
    MASK_9 = "mask-9.png"
    MASK_10 = "mask-10.png"
    MASK_11 = "mask-11.png"
    MASK_12 = "mask-12.png"
    MASK_13 = "mask-13.png"
    MASK_14 = "mask-14.png"
    MASK_15 = "mask-15.png"
    MASK_16 = "mask-16.png"
    MAPS_512 = "maps-512.bin"
    MAPS_1024 = "maps-1024.bin"
    MAPS_2048 = "maps-2048.bin"
    MOTION = "motion.json"
    MOTION_WEBP = "motion.webp"
    MOTION_GIF = "motion.gif"
    MOTION_MP4 = "motion.mp4"


# Made of the geometry when they are first asked for
DERIVED = (
    JobFile.DEPTH,
    JobFile.NORMALS,
    JobFile.ALBEDO,
    JobFile.SHADING,
    JobFile.SURFACE,
    JobFile.SUBJECT,  # where a network told it
    JobFile.SHEET,
    JobFile.GLB,
)
LIT = (JobFile.RELIT16, JobFile.EXR)  # likewise, with the lights of the last relight
PASSES = (JobFile.INPUT, *DERIVED, JobFile.RELIT, *LIT)
LARGE = (JobFile.GLB, *LIT)  # of these, HEAD makes none, and room is made for them first
ARCHIVE = "passes.zip"  # of all of them but the mesh; never stored
ARCHIVED = tuple(file for file in PASSES if file != JobFile.GLB)
MOTIONS = (JobFile.MOTION_WEBP, JobFile.MOTION_GIF, JobFile.MOTION_MP4)
DOWNLOADS = (*PASSES, *MOTIONS)


class MapsSide(enum.IntEnum):
    """The longer side, in pixels, of pictures that a browser lights. USUAL: made as soon as a photo is analysed."""

    SMALL = 512
    USUAL = 1024
    LARGE = 2048


MAPS = {MapsSide.SMALL: JobFile.MAPS_512, MapsSide.USUAL: JobFile.MAPS_1024, MapsSide.LARGE: JobFile.MAPS_2048}
ANALYSIS = (JobFile.GEOMETRY, *DERIVED, *MAPS.values())


MAX_MASKS = 8  # of a job
# Where masks lie: those it has, those that relit.png was made with, and the one that comes
MASK_SLOTS = tuple(name for name in JobFile if name.name.startswith("MASK_"))


class Entry(NamedTuple):
    """What `list` tells of a job: its bytes and when it was last used (seconds since the epoch)."""

    job_id: str
    size: int
    used: float


class JobStore(Protocol):
    """Where jobs lie. All methods block and raise JobNotFound for an unknown job, StorageFull when there is no room."""

    def create(self, job_id: str, files: Mapping[JobFile, bytes]) -> None: ...
    def put(self, job_id: str, name: JobFile, data: bytes) -> None: ...
    def put_written(self, job_id: str, name: JobFile, write: Callable[[str], None]) -> None: ...
    def discard(self, job_id: str, names: List[JobFile]) -> None: ...
    def get(self, job_id: str, name: JobFile) -> bytes: ...
    def open(self, job_id: str, name: JobFile) -> BinaryIO: ...
    def link_files(self, source: str, target: str, names: List[JobFile]) -> None: ...
    def names(self, job_id: str) -> List[JobFile]: ...
    def delete(self, job_id: str) -> None: ...
    def list(self) -> Iterator[Entry]: ...
    def touch(self, job_id: str) -> float: ...
    def exists(self, job_id: str) -> bool: ...
    def register(self, fingerprint: str, job_id: str) -> None: ...
    def unregister(self, fingerprint: str, job_id: str) -> None: ...
    def holders(self, fingerprint: str) -> List[str]: ...
    def clean(self) -> None: ...


class Lock(Protocol):
    """A lock between processes. `acquire` raises filelock.Timeout when it is not had in time."""

    def acquire(self, timeout: Optional[float] = None) -> object: ...
    def release(self) -> None: ...
    def __enter__(self) -> object: ...
    def __exit__(self, *exc: Any) -> None: ...


class Coordination(Protocol):
    """What processes that share a store agree on: who lives, whose turn it is, which preview is the newest.

    `worker` names this process; `is_alive` asks about any, so that the work of the dead can be taken up by others.
    """

    worker: str

    def is_alive(self, worker: str) -> bool: ...
    def is_alone(self) -> bool: ...
    def analysis_lock(self, fingerprint: str) -> Lock: ...
    def motion_lock(self, job_id: str, timeout: float) -> Lock: ...
    def sweep_lock(self, timeout: float) -> Lock: ...
    def room_lock(self, timeout: float) -> Lock: ...
    def take_ticket(self, stream: str, came: int) -> Optional[str]: ...
    def is_newest(self, stream: str, ticket: Optional[str]) -> bool: ...
    def forget_dead(self) -> None: ...
    def close(self) -> None: ...


class MetricsExchange(Protocol):
    """How processes tell each other their metrics, so that whoever is asked can add them up."""

    def publish_metrics(self, data: bytes) -> None: ...
    def peer_metrics(self) -> List[Tuple[bytes, bool]]: ...
    def fold_dead_metrics(self, add: Callable[[List[bytes]], bytes]) -> None: ...


def parse_id(text: str) -> str:
    """The canonical form, in small letters, of a job id.

    Raises JobNotFound for what is no UUID4 of 8-4-4-4-12 digits.
    """
    try:
        value = uuid.UUID(text)
    except (ValueError, AttributeError, TypeError):
        raise JobNotFound() from None
    if str(value) != text.lower() or value.version != 4:
        raise JobNotFound()
    return str(value)


def is_job_folder(name: str) -> bool:
    """Does a job's folder have this name? Other spellings of an id are somebody else's folders."""
    try:
        return parse_id(name) == name
    except JobNotFound:
        return False


def parse_download(text: str) -> JobFile:
    """The pass or motion of that file name. Raises FileNotFound for any other name."""
    for name in DOWNLOADS:
        if name.value == text:
            return name
    raise FileNotFound(f"There is no such file. A job has {', '.join(n.value for n in DOWNLOADS)} and {ARCHIVE}.")


def jobs_to_evict(entries: List[Entry], quota: int, need: int, keep: Callable[[str], bool]) -> Optional[List[str]]:
    """Which jobs must go, least recently used first, so that `need` more bytes fit a quota. None: it cannot be done."""
    total = sum(e.size for e in entries) + need
    victims: List[str] = []
    for e in sorted(entries, key=lambda e: e.used):
        if total <= quota:
            break
        if not keep(e.job_id):
            victims.append(e.job_id)
            total -= e.size
    return victims if total <= quota else None
