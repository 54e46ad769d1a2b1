"""Job storage: what a job consists of, and the small protocol of a place to keep jobs."""

import enum
import os
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


MEDIA_TYPES = {  # of what can be downloaded
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".exr": "image/x-exr",
    ".zip": "application/zip",
    ".glb": "model/gltf-binary",
    ".webp": "image/webp",
    ".gif": "image/gif",
    ".mp4": "video/mp4",
}
SHOWN = ("image/png", "image/jpeg", "image/webp", "image/gif", "video/mp4")  # by browsers


def media_type(name: str) -> str:
    """That of a file by its name."""
    return MEDIA_TYPES.get(os.path.splitext(name)[1], "application/octet-stream")


def disposition(name: str) -> str:
    """How a browser is told to take a file: to show it, or to save it under its name."""
    return f'{"inline" if media_type(name) in SHOWN else "attachment"}; filename="{name}"'


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
    """What `list` tells of a job: its bytes and when it was last used (seconds since the epoch).

    version: another whenever its record or its files are; "" where the store does not tell.
    """

    job_id: str
    size: int
    used: float
    version: str = ""


class Facts(NamedTuple):
    """What is known of an open file: its bytes, a tag that no other content has, when it was made."""

    size: int
    tag: str
    modified: float


Held = Tuple[str, int]  # who works on a job, and at which attempt


class JobStore(Protocol):
    """Where jobs lie. All methods block and raise JobNotFound for an unknown job, StorageFull when there is no room.

    Where a store is away, they raise StoreAway; where a job is to be `held` and another process took it over,
    TakenOver. `now` is the store's time, by which it tells when jobs were used; `own_clock`: that is this machine's,
    which may leap. `look_seconds`: how often to look at what another process changes, and `note_seconds`, to
    note how far work is; `forget_seconds`: how soon what another process deleted leaves the memory of this one.
    """

    look_seconds: float
    note_seconds: float
    forget_seconds: float
    own_clock: bool

    def now(self) -> float: ...
    def create(self, job_id: str, files: Mapping[JobFile, bytes]) -> None: ...
    def put(self, job_id: str, name: JobFile, data: bytes, held: Optional[Held] = None) -> None: ...
    def put_written(self, job_id: str, name: JobFile, write: Callable[[str], None]) -> None: ...
    def put_record(self, job_id: str, data: bytes, held: Optional[Held] = None) -> None: ...
    def discard(self, job_id: str, names: List[JobFile], held: Optional[Held] = None) -> None: ...
    def get(self, job_id: str, name: JobFile) -> bytes: ...
    def open(self, job_id: str, name: JobFile) -> BinaryIO: ...
    def link_files(self, source: str, target: str, names: List[JobFile], held: Optional[Held] = None) -> None: ...
    def names(self, job_id: str) -> List[JobFile]: ...
    def direct(self, job_id: str, name: JobFile, seconds: float) -> Optional[str]: ...
    def delete(self, job_id: str, used: Optional[float] = None) -> None: ...
    def list(self) -> Iterator[Entry]: ...
    def touch(self, job_id: str) -> float: ...
    def exists(self, job_id: str) -> bool: ...
    def register(self, fingerprint: str, job_id: str) -> None: ...
    def unregister(self, fingerprint: str, job_id: str) -> None: ...
    def holders(self, fingerprint: str) -> List[str]: ...
    def clean(self) -> List[Entry]: ...


class Lock(Protocol):
    """A lock between processes. `acquire` raises filelock.Timeout when it is not had in time."""

    def acquire(self, timeout: Optional[float] = None) -> object: ...
    def release(self) -> None: ...
    def __enter__(self) -> object: ...
    def __exit__(self, *exc: Any) -> None: ...


class Coordination(Protocol):
    """What processes that share a store agree on: who lives, whose turn it is, which preview is the newest.

    `worker` names this process; `is_alive` asks about any, so that the work of the dead can be taken up by others.
    `lease`: for how many seconds at most the dead may still seem alive.
    """

    worker: str
    lease: float

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
    """How processes tell each other their metrics, so that whoever is asked can add them up, every `seconds`."""

    seconds: float

    def publish_metrics(self, data: bytes) -> None: ...
    def peer_metrics(self) -> List[Tuple[bytes, bool]]: ...
    def fold_dead_metrics(self, add: Callable[[List[bytes]], bytes]) -> None: ...


def facts(file: BinaryIO) -> Facts:
    """What is known of a file that a store opened."""
    told: Optional[Facts] = getattr(file, "facts", None)
    if told is not None:
        return told
    stat = os.fstat(file.fileno())
    return Facts(stat.st_size, f"{stat.st_mtime_ns}-{stat.st_size}-{stat.st_ino}", stat.st_mtime)


def begin(file: BinaryIO, first: int, count: int) -> None:
    """Stand at byte `first` of an open file; so many can be read from there whatever becomes of the job meanwhile.

    A file of a folder is whole once it is open; one of a bucket is fetched here. Raises JobNotFound, FileNotFound.
    """
    fetch: Optional[Callable[[int, int], None]] = getattr(file, "begin", None)
    if fetch is not None:
        fetch(first, count)
    else:
        file.seek(first)


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
