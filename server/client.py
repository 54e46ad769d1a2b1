"""A client of the HTTP API, for blocking and for asynchronous programs: `pip install relight-server[client]`.

    with RelightClient("http://127.0.0.1:8000") as relight:
        job = relight.upload("photo.jpg")
        relight.relight(job, preset="golden-hour")
        relight.download(job, "relit.png", to="relit.png")

Where the server says that it is overloaded, the client comes back when it is told to; a connection that breaks is tried
again where asking twice does no harm.
"""

import asyncio
import json
import os
import time
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import (
    Any,
    AsyncIterator,
    BinaryIO,
    Callable,
    Dict,
    Iterator,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Tuple,
    TypedDict,
    Union,
    cast,
)
from urllib.parse import quote

import httpx

Photo = Union[str, "os.PathLike[str]", bytes, BinaryIO]
Progress = Callable[["State"], object]
PATIENCE = 60.0  # seconds: no server is waited for longer at a time
BLOCK = 1 << 18


class Upload(TypedDict):
    """The answer of POST /upload."""

    job_id: str
    job_dir: str
    status: str
    width: int
    height: int


class Relit(TypedDict):
    """The answer of POST /relight."""

    status: str
    job_id: str
    relit_path: str
    width: int
    height: int
    timings: Dict[str, float]


class Size(TypedDict):
    """The answer of PUT /job/{job_id}/environment, in pixels."""

    width: int
    height: int


class Animated(TypedDict):
    """The answer of POST /animate."""

    status: str
    motion_path: str


class Motion(TypedDict):
    """Of a job's state: its motion."""

    state: str  # rendering, ready or failed
    progress: float
    error: Optional[Dict[str, Any]]


class Mask(Size):
    """The answer of PUT /job/{job_id}/mask/{name}: the mask's size is the photo's."""

    name: str


class State(TypedDict):
    """The answer of GET /job/{job_id}."""

    job_id: str
    job_dir: str
    state: str  # queued, analysing, ready or failed
    progress: float
    stage: str
    width: int
    height: int
    alpha: bool
    focal: Optional[float]
    models: List[str]
    timings: Dict[str, float]
    depth_range: Optional[List[float]]
    shading_factor: Optional[float]
    environment: Optional[Size]
    motion: Optional[Motion]
    masks: List[str]
    files: List[str]
    created: str
    expires: str
    error: Optional[Dict[str, Any]]


Job = Union[str, Upload, State]  # a job: its id, or an answer that has it


class RelightError(Exception):
    """What the server answered instead: `code` to branch on, `detail` to show (RFC 9457)."""

    def __init__(self, status: int, code: str, title: str, detail: str, request_id: str = ""):
        super().__init__(f"{detail} ({code})")
        self.status, self.code, self.title, self.detail, self.request_id = status, code, title, detail, request_id


class _Call(NamedTuple):
    method: str
    path: str
    read: Callable[[httpx.Response], Any] = lambda response: response.json()
    more: Mapping[str, Any] = MappingProxyType({})
    repeatable: bool = True  # may it be sent again when nobody knows whether it arrived?


def _id(job: Job) -> str:
    return job if isinstance(job, str) else job["job_id"]


def _path(*names: str) -> str:
    """A path whose every part is one name: none leads to another address, which may be that of a whole job."""
    for name in names:
        if name in (".", ".."):
            raise RelightError(422, "invalid_request", "Invalid request", f"{name!r} is no name of anything.")
    return "/".join(quote(name, safe="") for name in names)


def _failure(response: httpx.Response) -> RelightError:
    try:
        said = json.loads(response.content)
        return RelightError(
            response.status_code, said["code"], said["title"], said["detail"], said.get("request_id", "")
        )
    except (ValueError, KeyError, TypeError):  # a proxy's answer
        text = response.reason_phrase or f"status {response.status_code}"
        return RelightError(response.status_code, "unknown", text, f"The server answered: {text}.")


def _backoff(attempt: int) -> float:
    """Seconds until the next attempt, where the server does not say."""
    return min(0.25 * 2.0**attempt, PATIENCE)


def _pause(response: httpx.Response, attempt: int) -> float:
    """Seconds until the next attempt."""
    try:
        return min(max(float(response.headers["retry-after"]), 0.05), PATIENCE)
    except (KeyError, ValueError):
        return _backoff(attempt)


@contextmanager
def _opened(photo: Photo, name: str) -> Iterator[Tuple[str, Any]]:
    """(name, content) of a photo to upload."""
    if isinstance(photo, (str, os.PathLike)):
        with open(photo, "rb") as file:
            yield name or Path(photo).name, file
    else:
        if not isinstance(photo, bytes):
            photo.seek(0)
        yield name or "photo", photo


def _relight(job: Job, body: Mapping[str, Any]) -> _Call:
    return _Call("POST", "relight", more={"json": {"job_id": _id(job), **body}})


def _preview(job: Job, body: Mapping[str, Any]) -> _Call:
    return _Call("POST", "preview", lambda response: response.content, {"json": {"job_id": _id(job), **body}})


def _animate(job: Job, body: Mapping[str, Any]) -> _Call:
    return _Call("POST", "animate", more={"json": {"job_id": _id(job), **body}}, repeatable=False)


def _delete_motion(job: Job) -> _Call:
    return _Call("DELETE", _path("job", _id(job), "motion"), repeatable=False)


def _put_environment(job: Job, content: Any) -> _Call:
    return _Call("PUT", _path("job", _id(job), "environment"), more={"content": content})


def _delete_environment(job: Job) -> _Call:
    return _Call("DELETE", _path("job", _id(job), "environment"), repeatable=False)


def _put_mask(job: Job, name: str, content: Any) -> _Call:
    return _Call("PUT", _path("job", _id(job), "mask", name), more={"content": content})


def _mask(job: Job, name: str, query: Mapping[str, Any]) -> _Call:
    return _Call("GET", _path("job", _id(job), "mask", name), lambda response: response.content, {"params": query})


def _delete_mask(job: Job, name: str) -> _Call:
    return _Call("DELETE", _path("job", _id(job), "mask", name), repeatable=False)


def _states(lines: Iterator[str]) -> Iterator[State]:
    """The states in lines of server-sent events."""
    for line in lines:
        if line.startswith("data: "):
            yield cast(State, json.loads(line[6:]))


class _Client:
    """What both clients have in common."""

    def __init__(self, base_url: str, key: Optional[str], retries: int):
        self.base_url, self.retries = base_url.rstrip("/") + "/", retries
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}

    def _tries_again(self, call: _Call, attempt: int, response: Optional[httpx.Response]) -> Optional[float]:
        """Seconds until a call is made again, None: it is not. response: None where the connection broke."""
        if attempt >= self.retries:
            return None
        if response is None:
            return _backoff(attempt) if call.repeatable else None
        return (
            _pause(response, attempt)
            if response.status_code == 503 and _failure(response).code == "overloaded"
            else None
        )

    def _judged(self, call: _Call, attempt: int, response: httpx.Response) -> Tuple[Any, Optional[float]]:
        """(what was answered, None), or seconds until the call is to be made again. Raises RelightError."""
        if not response.is_error:
            return call.read(response), None
        pause = self._tries_again(call, attempt, response)
        if pause is None:
            raise _failure(response)
        return None, pause


class RelightClient(_Client):
    """The blocking client. Use it in a `with` statement, or `close()` it. It may be used in many threads.

    base_url: of the server, with the path under which a proxy shows it. key: where the server has keys. retries: how
    often a call is made again. transport: of httpx, for tests. Methods raise RelightError for what the server refuses,
    and httpx.TransportError when it cannot be reached.
    """

    def __init__(
        self,
        base_url: str = "http://127.0.0.1:8000",
        key: Optional[str] = None,
        timeout: float = 120,
        retries: int = 5,
        transport: Optional[httpx.BaseTransport] = None,
    ):
        super().__init__(base_url, key, retries)
        self._http = httpx.Client(
            base_url=self.base_url, headers=self._headers, timeout=timeout, transport=transport, follow_redirects=True
        )

    def __enter__(self) -> "RelightClient":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def upload(self, photo: Photo, name: str = "") -> Upload:
        """Store a photo, a path, bytes or an open binary file; its analysis begins."""
        attempt = 0
        while True:
            with _opened(photo, name) as file:
                call = _Call("POST", "upload", more={"files": {"file": file}}, repeatable=False)
                answer, pause = self._once(call, attempt)
            if pause is None:
                return cast(Upload, answer)
            time.sleep(pause)
            attempt += 1

    def relight(self, job: Job, **body: Any) -> Relit:
        """Relight a job at full size, with the fields of the body of /relight."""
        return cast(Relit, self._do(_relight(job, body)))

    def preview(self, job: Job, **body: Any) -> bytes:
        """A relit JPEG of screen size, with the fields of the body of /preview."""
        return cast(bytes, self._do(_preview(job, body)))

    def state(self, job: Job) -> State:
        """The state of a job."""
        return cast(State, self._do(_Call("GET", _path("job", _id(job)))))

    def events(self, job: Job) -> Iterator[State]:
        """The state of a job, at once and whenever it changes, until it is ready or failed."""
        with self._http.stream("GET", _path("job", _id(job), "events")) as response:
            if response.is_error:
                response.read()
                raise _failure(response)
            yield from _states(response.iter_lines())

    def wait(self, job: Job, progress: Optional[Progress] = None) -> State:
        """Wait until a job is ready; `progress` is called with its states. Raises RelightError when it failed."""
        return _ended(self._until(_is_over, job, progress))

    def _until(self, is_over: Callable[[State], bool], job: Job, progress: Optional[Progress]) -> State:
        for attempt in range(self.retries + 1):
            try:
                for state in self.events(job):
                    if progress:
                        progress(state)
                    if is_over(state):
                        return state
            except httpx.TransportError:
                if attempt == self.retries:
                    raise
            time.sleep(_backoff(attempt))
        return self.state(job)

    def animate(self, job: Job, **body: Any) -> Animated:
        """Begin to render a light that moves, with the fields of the body of /animate; `wait_for_motion` follows it."""
        return cast(Animated, self._do(_animate(job, body)))

    def wait_for_motion(self, job: Job, progress: Optional[Progress] = None) -> State:
        """Wait until a job's motion is rendered; `progress` is called with the job's states.

        Raises RelightError when it failed, or was stopped.
        """
        return _rendered(self._until(_is_rendered, job, progress))

    def delete_motion(self, job: Job) -> None:
        """Stop a job's motion, or remove the one that was made."""
        self._do(_delete_motion(job))

    def maps(self, job: Job, max_side: int = 1024) -> bytes:
        """What a page lights the photo with, as relight.js reads it; max_side: 512, 1024 or 2048."""
        return cast(bytes, self._do(_maps(job, max_side)))

    def download(self, job: Job, filename: str, to: Optional[Union[str, "os.PathLike[str]"]] = None) -> bytes:
        """A pass of a job, such as "relit.png". With `to`, it is written to that path, whole or not, and b"" comes."""
        call = _Call("GET", _path("download", _id(job), filename), lambda response: response.content)
        if to is None:
            return cast(bytes, self._do(call))
        attempt, draft = 0, Path(f"{os.fspath(to)}.part")
        while True:
            try:
                with self._http.stream("GET", call.path) as response:
                    if not response.is_error:
                        with open(draft, "wb") as file:
                            for block in response.iter_bytes(BLOCK):
                                file.write(block)
                        os.replace(draft, to)
                        return b""
                    response.read()
                pause, failure = self._tries_again(call, attempt, response), _failure(response)
            except httpx.TransportError as exc:
                pause, failure = self._tries_again(call, attempt, None), cast(Any, exc)
            finally:
                draft.unlink(missing_ok=True)
            if pause is None:
                raise failure
            time.sleep(pause)
            attempt += 1

    def delete(self, job: Job) -> None:
        """Delete a job and all its files."""
        self._do(_Call("DELETE", _path("job", _id(job)), repeatable=False))

    def put_environment(self, job: Job, picture: Photo) -> Size:
        """Give a job light from all around, an equirectangular picture: a path, bytes or an open binary file."""
        with _opened(picture, "") as (_, content):
            data = content if isinstance(content, bytes) else content.read()
        return cast(Size, self._do(_put_environment(job, data)))

    def delete_environment(self, job: Job) -> None:
        """Take a job's light from all around away."""
        self._do(_delete_environment(job))

    def put_mask(self, job: Job, name: str, picture: Photo) -> Mask:
        """Give a job a mask by that name, a picture: a path, bytes or an open binary file. White is wholly in."""
        with _opened(picture, "") as (_, content):
            data = content if isinstance(content, bytes) else content.read()
        return cast(Mask, self._do(_put_mask(job, name, data)))

    def mask(self, job: Job, name: str, **query: Any) -> bytes:
        """A mask of a job as a PNG, also "sky" and "subject"; `invert`, `feather`, `max_side`: as lights take it."""
        return cast(bytes, self._do(_mask(job, name, query)))

    def delete_mask(self, job: Job, name: str) -> None:
        """Take a mask of a job away."""
        self._do(_delete_mask(job, name))

    def models(self) -> Dict[str, Any]:
        """The models that run, the presets and environments, the defaults and the limits."""
        return cast(Dict[str, Any], self._do(_Call("GET", "models")))

    def ready(self) -> Dict[str, Any]:
        """Are the models loaded? Raises RelightError (`model_missing`) where they are not."""
        return cast(Dict[str, Any], self._do(_Call("GET", "ready")))

    def health(self) -> Dict[str, Any]:
        """Is the server alive?"""
        return cast(Dict[str, Any], self._do(_Call("GET", "health")))

    def metrics(self) -> str:
        """Prometheus metrics."""
        return cast(str, self._do(_Call("GET", "metrics", lambda response: response.text)))

    def _once(self, call: _Call, attempt: int) -> Tuple[Any, Optional[float]]:
        """(what was answered, None), or seconds until the call is to be made again."""
        try:
            response = self._http.request(call.method, call.path, **call.more)
        except httpx.TransportError:
            pause = self._tries_again(call, attempt, None)
            if pause is None:
                raise
            return None, pause
        return self._judged(call, attempt, response)

    def _do(self, call: _Call) -> Any:
        attempt = 0
        while True:
            answer, pause = self._once(call, attempt)
            if pause is None:
                return answer
            time.sleep(pause)
            attempt += 1


class AsyncRelightClient(_Client):
    """The asynchronous client: RelightClient with `await`. Use it in an `async with` statement, or `await close()`."""

    def __init__(
        self,
        base_url: str = "http://127.0.0.1:8000",
        key: Optional[str] = None,
        timeout: float = 120,
        retries: int = 5,
        transport: Optional[httpx.AsyncBaseTransport] = None,
    ):
        super().__init__(base_url, key, retries)
        self._http = httpx.AsyncClient(
            base_url=self.base_url, headers=self._headers, timeout=timeout, transport=transport, follow_redirects=True
        )

    async def __aenter__(self) -> "AsyncRelightClient":
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def upload(self, photo: Photo, name: str = "") -> Upload:
        """See RelightClient."""
        with _opened(photo, name) as (called, content):
            data = content if isinstance(content, bytes) else await asyncio.to_thread(content.read)
        call = _Call("POST", "upload", more={"files": {"file": (called, data)}}, repeatable=False)
        return cast(Upload, await self._do(call))

    async def relight(self, job: Job, **body: Any) -> Relit:
        """See RelightClient."""
        return cast(Relit, await self._do(_relight(job, body)))

    async def preview(self, job: Job, **body: Any) -> bytes:
        """See RelightClient."""
        return cast(bytes, await self._do(_preview(job, body)))

    async def state(self, job: Job) -> State:
        """See RelightClient."""
        return cast(State, await self._do(_Call("GET", _path("job", _id(job)))))

    async def events(self, job: Job) -> AsyncIterator[State]:
        """See RelightClient."""
        async with self._http.stream("GET", _path("job", _id(job), "events")) as response:
            if response.is_error:
                await response.aread()
                raise _failure(response)
            async for line in response.aiter_lines():
                for state in _states(iter([line])):
                    yield state

    async def wait(self, job: Job, progress: Optional[Progress] = None) -> State:
        """See RelightClient."""
        return _ended(await self._until(_is_over, job, progress))

    async def _until(self, is_over: Callable[[State], bool], job: Job, progress: Optional[Progress]) -> State:
        for attempt in range(self.retries + 1):
            try:
                async for state in self.events(job):
                    if progress:
                        progress(state)
                    if is_over(state):
                        return state
            except httpx.TransportError:
                if attempt == self.retries:
                    raise
            await asyncio.sleep(_backoff(attempt))
        return await self.state(job)

    async def animate(self, job: Job, **body: Any) -> Animated:
        """See RelightClient."""
        return cast(Animated, await self._do(_animate(job, body)))

    async def wait_for_motion(self, job: Job, progress: Optional[Progress] = None) -> State:
        """See RelightClient."""
        return _rendered(await self._until(_is_rendered, job, progress))

    async def delete_motion(self, job: Job) -> None:
        """See RelightClient."""
        await self._do(_delete_motion(job))

    async def maps(self, job: Job, max_side: int = 1024) -> bytes:
        """See RelightClient."""
        return cast(bytes, await self._do(_maps(job, max_side)))

    async def download(self, job: Job, filename: str) -> bytes:
        """A pass of a job, such as "relit.png"."""
        call = _Call("GET", _path("download", _id(job), filename), lambda response: response.content)
        return cast(bytes, await self._do(call))

    async def delete(self, job: Job) -> None:
        """See RelightClient."""
        await self._do(_Call("DELETE", _path("job", _id(job)), repeatable=False))

    async def put_environment(self, job: Job, picture: Photo) -> Size:
        """See RelightClient."""
        with _opened(picture, "") as (_, content):
            data = content if isinstance(content, bytes) else await asyncio.to_thread(content.read)
        return cast(Size, await self._do(_put_environment(job, data)))

    async def delete_environment(self, job: Job) -> None:
        """See RelightClient."""
        await self._do(_delete_environment(job))

    async def put_mask(self, job: Job, name: str, picture: Photo) -> Mask:
        """See RelightClient."""
        with _opened(picture, "") as (_, content):
            data = content if isinstance(content, bytes) else await asyncio.to_thread(content.read)
        return cast(Mask, await self._do(_put_mask(job, name, data)))

    async def mask(self, job: Job, name: str, **query: Any) -> bytes:
        """See RelightClient."""
        return cast(bytes, await self._do(_mask(job, name, query)))

    async def delete_mask(self, job: Job, name: str) -> None:
        """See RelightClient."""
        await self._do(_delete_mask(job, name))

    async def models(self) -> Dict[str, Any]:
        """See RelightClient."""
        return cast(Dict[str, Any], await self._do(_Call("GET", "models")))

    async def ready(self) -> Dict[str, Any]:
        """See RelightClient."""
        return cast(Dict[str, Any], await self._do(_Call("GET", "ready")))

    async def health(self) -> Dict[str, Any]:
        """See RelightClient."""
        return cast(Dict[str, Any], await self._do(_Call("GET", "health")))

    async def metrics(self) -> str:
        """See RelightClient."""
        return cast(str, await self._do(_Call("GET", "metrics", lambda response: response.text)))

    async def _do(self, call: _Call) -> Any:
        attempt = 0
        while True:
            try:
                response = await self._http.request(call.method, call.path, **call.more)
            except httpx.TransportError:
                pause = self._tries_again(call, attempt, None)
                if pause is None:
                    raise
            else:
                answer, pause = self._judged(call, attempt, response)
                if pause is None:
                    return answer
            await asyncio.sleep(pause)
            attempt += 1


def _maps(job: Job, max_side: int) -> _Call:
    return _Call("GET", f"{_path('job', _id(job), 'maps')}?max_side={max_side}", lambda response: response.content)


def _is_over(state: State) -> bool:
    return state["state"] in ("ready", "failed")


def _is_rendered(state: State) -> bool:
    return state["motion"] is None or state["motion"]["state"] != "rendering"


def _ended(state: State) -> State:
    """The state of a job that is ready. Raises RelightError for one that failed."""
    if state["state"] == "failed":
        raise _told(state["error"] or {})
    return state


def _rendered(state: State) -> State:
    """The state of a job with a motion. Raises RelightError for one that failed or is gone."""
    motion = state["motion"]
    if motion is None:
        raise RelightError(404, "file_not_found", "File not found", "The motion was stopped.")
    if motion["state"] == "failed":
        raise _told(motion["error"] or {})
    return state


def _told(error: Mapping[str, Any]) -> RelightError:
    """An error of a job's state."""
    return RelightError(
        error.get("status", 500), error.get("code", "internal"), error.get("title", ""), error.get("detail", "")
    )
