"""The server on Ray Serve: `serve run server.cluster:app`. Settings come from the environment, as everywhere.

One deployment answers requests, another analyses photos. Both work on the store that RELIGHT_STORE names, and what
passes between them is the id of a job. The nodes need RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH=server.cluster:proxy in
their environment: without it, Ray's proxies use words of their own when a replica dies, and any replica gets a preview.
"""

import asyncio
import importlib
import logging
import re
import time
import uuid
from functools import partial
from typing import Any, Dict, List, Optional, Tuple

from pydantic import BaseModel, Field
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .errors import FileTooLarge, ModelError, Overloaded
from .memory import keep_freed
from .settings import load
from .web.problems import problem_response

log = logging.getLogger("relight")
TRIES, PAUSE = 3, 1.0  # of an analysis whose replica dies; seconds in between
SESSION = b"x-session-id"  # what the router goes by
ROUTER = "ray.serve.experimental.consistent_hash_router.ConsistentHashRouter"
JOB = re.compile(rb"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
SPARE = 1 << 20  # bytes of a body beyond the largest file that Ray's proxies take: the server's bounds are tighter
GONE = "A part of the server has gone and is being replaced. Send the request again after a moment."
PROBLEM = b"application/problem+json"


class Arguments(BaseModel):
    """What `serve run` takes as name=value, and a configuration under `args`."""

    replicas: int = Field(1, ge=1, description="replicas that answer, at least")
    max_replicas: int = Field(8, ge=1, description="and at most")
    cpus: float = Field(1, gt=0, description="processors of each")
    requests: float = Field(8, gt=0, description="requests at a time that one of them is meant for")
    analysts: int = Field(1, ge=1, description="replicas that analyse, at least")
    max_analysts: int = Field(8, ge=1, description="and at most")
    analyst_cpus: float = Field(1, gt=0, description="processors of each")
    analyst_gpus: float = Field(0, ge=0, description="GPUs of each, or the part of one")
    photos: float = Field(2, gt=0, description="photos, waiting or in work, that one of them is meant for")
    engine: str = Field("", description="module:function that makes an engine, for tests; none: that of the settings")


def app(args: Arguments) -> Any:
    """The application, for `serve run` and `serve deploy`."""
    from ray import serve

    def deployment(kind: Any, name: str, replicas: Tuple[int, int], load: float, cpus: float, **more: Any) -> Any:
        least, most = replicas
        return serve.deployment(
            kind,
            name=name,
            autoscaling_config={
                "min_replicas": least,
                "max_replicas": max(least, most),
                "target_ongoing_requests": load,
                "upscale_delay_s": 5,
            },
            ray_actor_options={"num_cpus": cpus, **more.pop("gpus", {})},
            logging_config={"enable_access_log": False, "log_level": "WARNING"},  # the server has a line a request
            graceful_shutdown_timeout_s=120,  # whoever goes ends its work
            health_check_period_s=5,
            health_check_timeout_s=15,
            **more,
        )

    analysts = deployment(
        Analysis,
        "analysis",
        (args.analysts, args.max_analysts),
        args.photos,
        args.analyst_cpus,
        gpus={"num_gpus": args.analyst_gpus},
        max_ongoing_requests=2,  # the next photo is read while the last is estimated
    ).bind(args.analyst_cpus, args.engine)
    return deployment(
        serve.ingress()(Web),
        "web",
        (args.replicas, args.max_replicas),
        args.requests,
        args.cpus,
        max_ongoing_requests=1000,  # who has to wait, and who is refused, is for the server's own queues to say
        request_router_config={"request_router_class": ROUTER},
    ).bind(analysts, args.cpus)


def _threads(cpus: float) -> int:
    """Of a replica that has so many of its machine's processors."""
    return max(1, round(cpus))


class Analysis:
    """Analyses the photos of jobs that others took in. It is a server too, but one that no request reaches."""

    def __init__(self, cpus: float, engine: str = ""):
        from .application import create_app

        keep_freed()
        module, _, function = engine.partition(":")
        made = getattr(importlib.import_module(module), function)() if engine else None
        settings = load(threads=_threads(cpus), decoders=0)  # photos were decoded by who took them in
        self._app = create_app(settings, made)
        self._life: Any = None
        self._lock = asyncio.Lock()

    async def _service(self) -> Any:
        async with self._lock:
            if self._life is None:
                self._life = self._app.router.lifespan_context(self._app)
                await self._life.__aenter__()
        return self._app.state.service

    async def describe(self) -> List[Dict[str, Any]]:
        """The manifests of the models."""
        models: List[Dict[str, Any]] = (await self._service()).models()
        return models

    async def analyse(self, job_id: str) -> None:
        """Analyse that job; its record says what came of it."""
        await asyncio.to_thread((await self._service()).analyst.work, job_id)

    async def check_health(self) -> None:
        """Ray replaces a replica that raises here, and begins none: one whose models are missing, or hang."""
        (await self._service()).check_ready()

    async def __del__(self) -> None:
        if self._life is not None:
            await self._life.__aexit__(None, None, None)


class Elsewhere:
    """The engine of a server whose photos are analysed by another deployment. `handle`: that deployment's."""

    def __init__(self, handle: Any):
        self._handle = handle
        self._models: List[Dict[str, Any]] = handle.describe.remote().result()  # waits until there is a replica

    def describe(self) -> List[Dict[str, Any]]:
        """What runs there."""
        return self._models

    def analyse(self, rgb: Any) -> Any:
        """Pixels never leave for there. Raises ModelError."""
        raise ModelError()


def hand_over(handle: Any, job_id: str) -> None:
    """Have a job analysed, and wait. Raises ModelError when it takes one replica after the other with it."""
    for k in range(TRIES):
        if k:
            time.sleep(PAUSE)
        try:
            handle.analyse.remote(job_id).result()
            return
        except Exception as exc:  # of Ray: what the analysis itself fails with stands in the job's record
            log.warning("job %s: the replica that analysed it has gone", job_id, exc_info=exc)
    raise ModelError("The analysis of this photo broke off several times. Upload another image.")


class Web:
    """Answers requests. Ray builds the application in the replica, and asks it by ASGI."""

    def __init__(self, analysis: Any, cpus: float):
        self._analysis, self._cpus = analysis, cpus

    def __serve_build_asgi_app__(self) -> Any:
        from .application import create_app

        keep_freed()
        return create_app(
            load(threads=_threads(self._cpus)),
            load=partial(Elsewhere, self._analysis),
            analyse=partial(hand_over, self._analysis),
        )


# -- in Ray's proxies


def proxy() -> List[Any]:
    """What stands before each of Ray's proxies."""
    from starlette.middleware import Middleware

    return [Middleware(OwnWords), Middleware(Affinity), Middleware(Bounded, limit=load().max_upload_bytes + SPARE)]


class OwnWords:
    """Answers that are Ray's, since a replica died or there is none, become `overloaded`: ask again.

    Of the ids of a request, the server's stands in the header, as in the body and the log; or else Ray's.
    """

    def __init__(self, app: ASGIApp):
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI has it."""
        if scope["type"] != "http" or scope["path"].startswith("/-/"):  # Ray's own addresses
            await self._app(scope, receive, send)
            return
        started = replaced = False

        async def instead(why: object, request_id: bytes) -> None:
            log.warning("overloaded instead of Ray's own answer: %s", why)
            answer = problem_response(Overloaded(GONE), request_id.decode("ascii", "replace"))
            answer.raw_headers.append((b"x-request-id", request_id))
            await answer(scope, receive, send)

        async def forward(message: Message) -> None:
            nonlocal started, replaced
            if message["type"] == "http.response.start":
                headers = dict(reversed(message["headers"]))  # the first of a name counts
                request_id = headers.get(b"x-request-id", b"-")
                kept = [pair for pair in message["headers"] if pair[0] != b"x-request-id"]
                message = {**message, "headers": [*kept, (b"x-request-id", request_id)]}
                replaced = message["status"] >= 400 and not headers.get(b"content-type", b"").startswith(PROBLEM)
                if replaced:
                    await instead(message["status"], request_id)
                started = True
            if not replaced:
                await send(message)

        fault = "none"
        try:
            await self._app(scope, receive, forward)
        except Exception as exc:
            if started:
                raise  # the answer is cut off
            fault = type(exc).__name__
        if not started:  # when a replica dies, Ray says nothing at all
            await instead(fault, uuid.uuid4().hex.encode())


class Affinity:
    """Requests about one job go to one replica while it lives, which has the job's picture ready.

    The id is in the address, or in a body that is short.
    """

    def __init__(self, app: ASGIApp):
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI has it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        found = JOB.search(scope["path"].encode())
        first: Optional[Message] = None
        if found is None and dict(scope["headers"]).get(b"content-type", b"").startswith(b"application/json"):
            first = await receive()
            found = JOB.search(first.get("body", b""))
        headers = [pair for pair in scope["headers"] if pair[0] != SESSION]
        if found is not None:
            headers.append((SESSION, found[0].lower()))

        async def replay() -> Message:
            nonlocal first
            message, first = first, None
            return message if message is not None else await receive()

        await self._app({**scope, "headers": headers}, replay, send)


class Bounded:
    """Bodies that no replica would take are refused: Ray's proxy would keep in memory as much as a client sends."""

    def __init__(self, app: ASGIApp, limit: int):
        self._app, self._limit = app, limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI has it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        length = dict(scope["headers"]).get(b"content-length", b"0")
        if length.isdigit() and int(length) > self._limit:
            await self._refuse(scope, receive, send)
            return
        seen, refused = 0, False

        async def counted() -> Message:
            nonlocal seen, refused
            message = await receive()
            seen += len(message.get("body", b""))
            if seen <= self._limit or refused:
                return message
            refused = True
            await self._refuse(scope, receive, send)
            return {"type": "http.disconnect"}

        async def forward(message: Message) -> None:
            if not refused:
                await send(message)

        await self._app(scope, counted, forward)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        request_id = uuid.uuid4().hex
        answer = problem_response(FileTooLarge(f"The request has more than {self._limit} bytes."), request_id)
        answer.raw_headers += [(b"x-request-id", request_id.encode()), (b"connection", b"close")]
        await answer(scope, receive, send)
