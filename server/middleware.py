"""Round every request.

An id, one log line, limits on the body and on patience, security headers, a net under all faults.
"""

import asyncio
import contextvars
import logging
import time
import uuid
from dataclasses import dataclass
from typing import Any, Callable, Dict, Optional, Sequence, Tuple

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .errors import FileTooLarge, InvalidRequest, Overloaded
from .keys import owner_of
from .metrics import Metrics
from .problems import problem_response, translate
from .settings import Settings

log = logging.getLogger("relight")
request_id: "contextvars.ContextVar[str]" = contextvars.ContextVar("request_id", default="-")

refusal: "contextvars.ContextVar[Optional[str]]" = contextvars.ContextVar(
    "refusal", default=None
)  # why a middleware says no

MAX_JSON_BYTES = 1 << 20
OVERHEAD = 1 << 16  # what multipart may add to the file
DRAIN_SECONDS = 5.0  # how long a refused client may go on sending, so that it reads the answer
SEND_SECONDS = 60.0  # how long a client may take to read one block of an answer
SLOWEST = 8192  # bytes a second that a body must keep on average, after the patience of the first moments
METHODS = ("GET", "HEAD", "POST", "DELETE", "OPTIONS", "PUT", "PATCH")

PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "manifest-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"cross-origin"),
    (b"content-security-policy", PAGE_POLICY.encode()),
)


class RequestIdFilter(logging.Filter):
    """Puts the id of the request being served into every log line."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Never drops a line."""
        record.request_id = request_id.get()
        return True


@dataclass(frozen=True)
class BodyRule:
    """What a route takes as a body.

    `takes` tells it to the middleware, which looks at the key before any byte of it.
    """

    max_bytes: Callable[[Settings], int]
    timeout: Callable[[Settings], float] = lambda s: s.upload_timeout_seconds  # without a byte
    is_file: bool = False  # counts to the room on disk that all unfinished uploads share


JSON_BODY = BodyRule(max_bytes=lambda s: MAX_JSON_BYTES)
FILE_BODY = BodyRule(max_bytes=lambda s: s.max_upload_bytes + OVERHEAD, is_file=True)


def takes(rule: BodyRule) -> Callable[[Any], Any]:
    """Declare what an endpoint takes as a body; one that declares nothing takes JSON's bounds."""

    def declare(endpoint: Any) -> Any:
        endpoint.body_rule = rule
        return endpoint

    return declare


class TooSlow(InvalidRequest):  # type: ignore[valid-type,misc]
    """The body does not arrive."""

    status = 408


class CrossOrigin(CORSMiddleware):
    """CORS whose refusals say what is allowed, and which lets pages of allowed origins call from a public into a
    private network.

    The latter is the preflight of https://wicg.github.io/private-network-access/, for which older Starlette has no
    switch.
    """

    def preflight_response(self, request_headers: Headers) -> Response:
        """The answer to a preflight."""
        kept = [(k, v) for k, v in request_headers.raw if k != b"access-control-request-private-network"]
        response = super().preflight_response(Headers(raw=kept))
        if response.status_code >= 400:
            refusal.set(
                f"A page of that origin may not send this request: RELIGHT_CORS_ORIGINS lists the "
                f"origins that may; the methods "
                f"are {', '.join(self.allow_methods)}, the headers {', '.join(self.allow_headers)}."
            )
        elif request_headers.get("access-control-request-private-network") == "true":
            response.headers["Access-Control-Allow-Private-Network"] = "true"
        return response


class KnownHosts(TrustedHostMiddleware):
    """TrustedHostMiddleware whose refusals say that it was the host."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        refusal.set("This server does not answer to that host name.")
        await super().__call__(scope, receive, send)

    def __init__(self, app: ASGIApp, **options: Any):
        async def known(scope: Scope, receive: Receive, send: Send) -> None:
            refusal.set(None)
            await app(scope, receive, send)

        super().__init__(known, **options)


class Frame:
    """The outermost middleware: what every answer carries, whoever made it, and what is noted of it."""

    def __init__(self, app: ASGIApp, metrics: Metrics):
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        token = request_id.set(uuid.uuid4().hex)
        refusal.set(None)
        state: Dict[str, Any] = scope.setdefault("state", {})
        state["request_id"] = request_id.get()
        started, status, refused = time.perf_counter(), 0, None  # type: float, int, Optional[Message]

        async def send_framed(message: Message) -> None:
            nonlocal refused
            if refused is not None:  # the body of an answer that gives way to ours
                if not message.get("more_body"):
                    kept = {
                        k.decode(): v.decode()
                        for k, v in refused["headers"]
                        if k in (b"vary", b"allow", b"content-range")
                    }
                    ranged = any(k == b"range" for k, _ in scope["headers"])
                    why = refusal.get() or ("That range of the file cannot be had." if ranged else None)
                    error = InvalidRequest(why, kept, refused["status"])
                    state["code"] = error.code
                    await problem_response(error, state["request_id"])(scope, receive, send_out)
                return
            if message["type"] == "http.response.start":
                headers = list(message.get("headers", []))
                kinds = [v for k, v in headers if k == b"content-type"]
                if message["status"] >= 400 and not any(v.startswith(b"application/problem+json") for v in kinds):
                    refused = {**message, "headers": headers}
                    return
            await send_out(message)

        async def send_out(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = list(message.get("headers", []))
                names = {k for k, _ in headers}
                headers += [h for h in HEADERS if h[0] not in names]
                headers.append((b"x-request-id", state["request_id"].encode()))
                message = {**message, "headers": headers}
            try:
                await asyncio.wait_for(send(message), SEND_SECONDS)
            except asyncio.TimeoutError:
                state["gone"] = True
                raise ClientDisconnect() from None

        try:
            await self.app(scope, receive, send_framed)
        except ClientDisconnect:
            state["gone"] = True
        finally:
            self._note(scope, state, status, time.perf_counter() - started)
            request_id.reset(token)

    def _note(self, scope: Scope, state: Dict[str, Any], status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", None) or "other"
        method = scope["method"] if scope["method"] in METHODS else "other"
        told = "499" if state.get("gone") or not status else str(status)
        self.metrics.requests.labels(method, route, told).inc()
        self.metrics.duration.labels(route).observe(seconds)
        if "code" in state and told != "499":
            self.metrics.errors.labels(state["code"]).inc()
        stages = " ".join(f"{k}={v * 1000:.0f}ms" for k, v in state.get("timings", {}).items())
        log.info(
            "%s %s %s %.0fms job=%s%s",
            method,
            route,
            "gone" if told == "499" else told,
            seconds * 1000,
            state.get("job_id", "-"),
            " " + stages if stages else "",
        )


class Body:
    """The innermost: bounds on the bytes of a body and on the time it takes, and the net under all faults."""

    def __init__(
        self,
        app: ASGIApp,
        settings: Settings,
        open_routes: Sequence[BaseRoute],
        guarded: Sequence[BaseRoute],
        keys: Sequence[str] = (),
    ):
        self.app, self.settings, self.open_routes, self.guarded, self.keys = app, settings, open_routes, guarded, keys
        # bytes that all unfinished uploads may have brought, on this disk
        self.room = (settings.processors + settings.max_queue) * settings.max_upload_bytes

    def _route(self, scope: Scope) -> Tuple[BodyRule, bool]:
        """What the route of a request takes as a body, and whether it wants a key."""
        for routes, guarded in ((self.guarded, True), (self.open_routes, False)):
            for route in routes:
                if route.matches(scope)[0] == Match.FULL:
                    return getattr(getattr(route, "endpoint", None), "body_rule", JSON_BODY), guarded
        return JSON_BODY, False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        rule, guarded = self._route(scope)
        body = Incoming(
            scope,
            receive,
            rule.max_bytes(self.settings),
            rule.timeout(self.settings),
            self._take if rule.is_file else lambda size: None,
        )
        begun = False

        async def answer(message: Message) -> None:
            nonlocal begun
            begun = True
            if message["type"] == "http.response.body" and not message.get("more_body") and body.unread:
                await send({**message, "more_body": True})
                await body.drain()
                message = {"type": "http.response.body", "body": b"", "more_body": False}
            await send(message)

        try:
            if guarded:  # no byte of a stranger's body is read
                owner_of(dict(scope["headers"]).get(b"authorization", b"").decode("latin-1"), self.keys)
            await self.app(scope, body.receive, answer)
        except ClientDisconnect:
            raise
        except Exception as exc:
            error = translate(exc)
            if error.status >= 500:
                log.error("unhandled: %s", error.code, exc_info=exc)
            if begun:
                raise ClientDisconnect() from exc  # all that can be done is to end the connection
            scope["state"]["code"] = error.code
            await problem_response(error, scope["state"]["request_id"])(scope, receive, answer)
        finally:
            if rule.is_file:
                self.room += body.taken

    def _take(self, size: int) -> None:
        """Room for that many bytes more of an upload. Raises Overloaded."""
        if size > self.room:
            raise Overloaded()
        self.room -= size


class Incoming:
    """The body of one request as it arrives."""

    def __init__(self, scope: Scope, receive: Receive, limit: int, patience: float, take: Callable[[int], None]):
        self._receive, self.limit, self.patience, self._state = receive, limit, patience, scope["state"]
        self._take, self.taken = take, 0
        self.declared: Optional[int] = None
        chunked = False
        for name, value in scope["headers"]:
            if name == b"content-length" and value.isdigit():
                self.declared = int(value)
            chunked = chunked or name == b"transfer-encoding"
        self.unread = chunked or bool(self.declared)  # is there more to come?
        self.seen, self.started = 0, time.monotonic()

    async def _next(self, seconds: float) -> Message:
        message = await asyncio.wait_for(self._receive(), seconds)
        if message["type"] == "http.request":
            self.seen += len(message.get("body", b""))
            self.unread = bool(message.get("more_body"))
        else:
            self._state["gone"] = self._state.get("gone") or self.unread
            self.unread = False
        return message

    async def receive(self) -> Message:
        """The next message. Raises FileTooLarge, TooSlow."""
        if not self.unread:
            return await self._receive()  # a body that is complete: this waits for the client to leave
        if self.declared is not None and self.declared > self.limit:
            raise FileTooLarge(f"The request has {self.declared} bytes; at most {self.limit} are taken.")
        now = time.monotonic()
        left = self.started + self.patience + self.seen / SLOWEST - now
        try:
            message = await self._next(max(0.0, min(self.patience, left)))
        except asyncio.TimeoutError:
            self.unread = False  # and will not be waited for
            raise TooSlow(
                "The request body came too slowly. Send it again over a better connection.", {"Connection": "close"}
            ) from None
        if self.seen > self.limit:
            raise FileTooLarge(f"The request has more than {self.limit} bytes.")
        self._take(self.seen - self.taken)
        self.taken = self.seen
        return message

    async def drain(self) -> None:
        """Read on for a while after the answer, so that the client is done sending and reads it."""
        end = time.monotonic() + DRAIN_SECONDS
        most = self.seen + 4 * self.limit + (1 << 24)
        while self.unread and self.seen < most:
            try:
                await self._next(max(0.0, end - time.monotonic()))
            except asyncio.TimeoutError:
                return
