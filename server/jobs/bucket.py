"""Objects in a bucket, through obstore: few verbs, our errors, every request counted.

No message of the library's goes anywhere: it may hold an address that is signed.
"""

import logging
import os
import threading
from collections import Counter
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Mapping, NamedTuple, Optional, Union
from urllib.parse import urlsplit

from ..errors import StartupError, StoreAway

log = logging.getLogger("relight")
INSTALL = 'pip install -r requirements-cluster.txt, or "relight-server[cluster]"'
# Away is away: whoever asks is told so within seconds, and asks again. Reads that stall count from byte to byte.
CLIENT = {"connect_timeout": "2s", "read_timeout": "10s", "timeout": "300s"}
RETRIES = {
    "max_retries": 3,
    "retry_timeout": timedelta(seconds=5),
    "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=1), "base": 2},
}
PART = 16 * 2**20  # bytes of a part of what is too large to be sent at once


class Version(NamedTuple):
    """Which object lies under a name now: an ETag, and a generation where the store has those."""

    e_tag: Optional[str]
    generation: Optional[str]


class Found(NamedTuple):
    """An object that was read; `modified` in seconds since the epoch by the store's clock."""

    data: bytes
    version: Version
    modified: float


class Listed(NamedTuple):
    """An object in a listing."""

    path: str
    size: int
    e_tag: str
    modified: float


class Conflict(Exception):
    """Under that name lies another object than was expected, or none."""


class Missing(Exception):
    """There is no such object."""


NEW = "create"  # expected where there must be nothing yet
Expected = Union[None, str, Version]  # None: whatever is there


class Bucket:
    """A bucket, or what lies in it under a prefix. All methods block, and raise StoreAway when it cannot be asked."""

    def __init__(self, objects: Any):
        import obstore

        self._obstore, self._objects = obstore, objects
        self._lock = threading.Lock()
        self.requests: Counter[str] = Counter()  # by verb, those that obstore repeats counted once
        self._away = False

    def _ask(self, verb: str, call: Callable[..., Any], *args: Any, **more: Any) -> Any:
        errors = self._obstore.exceptions
        with self._lock:
            self.requests[verb] += 1
        try:
            answer = call(self._objects, *args, **more)
        except FileNotFoundError as exc:
            if "NoSuchBucket" in str(exc):  # a store that is only just starting says so of all
                raise self._gone(exc) from None
            raise Missing from None
        except (errors.AlreadyExistsError, errors.PreconditionError):
            raise Conflict from None
        except (errors.BaseError, OSError, NotImplementedError) as exc:
            raise self._gone(exc) from None
        if self._away:
            self._away = False
            log.warning("the store answers again")
        return answer

    def _gone(self, exc: Exception) -> StoreAway:
        if not self._away:
            self._away = True
            log.error("the store cannot be asked: %s", type(exc).__name__)
        return StoreAway()

    def find(self, path: str) -> Optional[Found]:
        """An object, if there is one."""
        try:
            got = self._ask("get", self._obstore.get, path)
            data = self._read(got)
        except Missing:
            return None
        meta = got.meta
        return Found(data, Version(meta["e_tag"], meta["version"]), meta["last_modified"].timestamp())

    def get(self, path: str) -> bytes:
        """The bytes of an object. Raises Missing."""
        return self._read(self._ask("get", self._obstore.get, path))

    def _read(self, got: Any) -> bytes:
        try:
            return bytes(got.bytes())
        except FileNotFoundError:
            raise Missing from None
        except (self._obstore.exceptions.BaseError, OSError) as exc:
            raise self._gone(exc) from None

    def stream(self, path: str, first: int, count: int) -> Iterator[bytes]:
        """Bytes of an object, piece by piece. Raises Missing."""
        if not count:
            return
        got = self._ask("get", self._obstore.get, path, options={"range": (first, first + count)})
        try:
            for piece in got.stream(min_chunk_size=2**20):
                yield bytes(piece)
        except FileNotFoundError:
            raise Missing from None
        except (self._obstore.exceptions.BaseError, OSError) as exc:
            raise self._gone(exc) from None

    def put(
        self, path: str, data: bytes, expected: Expected = None, about: Optional[Mapping[str, str]] = None
    ) -> Version:
        """Put an object there, whole or not at all. Raises Conflict where not what is expected lies there.

        about: the headers that it is given out with.
        """
        mode: Any = "overwrite" if expected is None else expected
        if isinstance(expected, Version):
            mode = {k: v for k, v in (("e_tag", expected.e_tag), ("version", expected.generation)) if v is not None}
        try:
            put = self._ask(
                "put",
                self._obstore.put,
                path,
                data,
                mode=mode,
                use_multipart=False,
                attributes=dict(about) if about else None,
            )
        except Missing:  # how some stores say that nothing lies there
            raise Conflict from None
        return Version(put["e_tag"], put["version"])

    def put_file(self, path: str, file: Path, about: Mapping[str, str]) -> None:
        """The same from a file, in parts."""
        self._ask("put", self._obstore.put, path, file, chunk_size=PART, max_concurrency=4, attributes=dict(about))

    def copy(self, source: str, target: str) -> None:
        """Copy an object within the bucket. Raises Missing."""
        self._ask("copy", self._obstore.copy, source, target)

    def list(self, folder: str) -> List[Listed]:
        """All objects whose names begin with `folder/`: one request for every thousand."""

        def pages(objects: Any) -> List[Listed]:
            found = []
            for page in self._obstore.list(objects, f"{folder}/", chunk_size=1000):
                with self._lock:
                    self.requests["list"] += 1
                found += [Listed(m["path"], m["size"], m["e_tag"] or "", m["last_modified"].timestamp()) for m in page]
            return found

        listed: List[Listed] = self._ask("list", pages)
        if listed:
            with self._lock:
                self.requests["list"] -= 1  # pages count, and an empty answer is one
        return listed

    def delete(self, paths: List[str]) -> None:
        """Delete objects, as many as are there."""
        if not paths:
            return
        with suppress(Missing):
            self._ask("delete", self._obstore.delete, paths)

    def signed(self, path: str, seconds: float) -> Optional[str]:
        """An address from which anybody may get an object for so long; None where the store has no such thing."""
        try:
            url: str = self._obstore.sign(self._objects, "GET", path, timedelta(seconds=seconds))
        except (TypeError, ValueError):  # objects in memory
            return None
        except (self._obstore.exceptions.BaseError, OSError) as exc:
            raise self._gone(exc) from None
        return url


def connect(url: str) -> Bucket:
    """The bucket at that address: s3://bucket/prefix, gs://, az:// or memory://.

    Credentials come from the environment or from the machine's role, as obstore finds them. Raises StartupError.
    """
    try:
        from obstore.store import from_url
    except ImportError:
        raise StartupError(f"RELIGHT_STORE takes obstore, which is not installed: {INSTALL}") from None
    options: Dict[str, Any] = dict(CLIENT)
    if os.environ.get("AWS_ALLOW_HTTP", "").lower() in ("1", "true"):  # obstore's own variable, which options hide
        options["allow_http"] = True
    try:
        if urlsplit(url).scheme == "memory":
            return Bucket(from_url("memory:///"))
        return Bucket(from_url(url, client_options=options, retry_config=RETRIES))  # type: ignore[call-overload]
    except Exception as exc:  # what the library says may hold a credential
        raise StartupError(f"RELIGHT_STORE: this store cannot be opened ({type(exc).__name__})") from None


def check(bucket: Bucket, name: str) -> None:
    """Raises StartupError where the bucket cannot be used, or keeps no promise that processes agree by.

    name: a name that nobody else uses.
    """
    path, first = f"probes/{name}", None
    try:
        first = bucket.put(path, b"1", NEW)
        kept = [_refused(bucket, path, NEW)]
        bucket.put(path, b"2", first)
        kept += [_refused(bucket, path, first), [f.path for f in bucket.list("probes") if f.path == path] == [path]]
        found = bucket.find(path)
        kept.append(found is not None and found.data == b"2")
        bucket.delete([path])
        kept.append(bucket.find(path) is None)
    except (StoreAway, Conflict, Missing):
        if first is not None:
            with suppress(StoreAway):
                bucket.delete([path])
        raise StartupError(
            "RELIGHT_STORE: the store cannot be read and written: is the bucket there, is the address right, may these "
            "credentials get, put, list and delete, and has it conditional puts?"
        ) from None
    if not all(kept):
        raise StartupError(
            "RELIGHT_STORE: this store has no conditional puts (If-Match, If-None-Match), by which processes take turns"
        )


def _refused(bucket: Bucket, path: str, expected: Expected) -> bool:
    try:
        bucket.put(path, b"never", expected)
    except Conflict:
        return True
    return False
