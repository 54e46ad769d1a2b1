"""Round every request: an id, one log line, limits on the body and on patience, security headers, a net under all faults."""

import asyncio
import contextvars
import logging
import time
import uuid
from typing import Any, Callable, Dict, Optional, Sequence

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .errors import FileTooLarge, InvalidRequest, Overloaded
from .keys import owner_of
from .metrics import Metrics
from .problems import problem_response, translate

log = logging.getLogger("relight")
request_id: "contextvars.ContextVar[str]" = contextvars.ContextVar("request_id", default="-")

MAX_JSON_BYTES = 1 << 20
WITH_BODY = ("upload", "relight", "preview")
OVERHEAD = 1 << 16  # what multipart may add to the file
DRAIN_SECONDS = 5.0  # how long a refused client may go on sending, so that it reads the answer
SEND_SECONDS = 60.0  # how long a client may take to read one block of an answer
SLOWEST = 8192  # bytes a second that a body must keep on average, after the patience of the first moments
METHODS = ("GET", "HEAD", "POST", "DELETE", "OPTIONS", "PUT", "PATCH")

PAGE_POLICY = ("default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
               "manifest-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'")
HEADERS = ((b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer"),
           (b"cross-origin-resource-policy", b"cross-origin"), (b"content-security-policy", PAGE_POLICY.encode()))


class RequestIdFilter(logging.Filter):
    """Puts the id of the request being served into every log line."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Never drops a line."""
        record.request_id = request_id.get()
        return True


class TooSlow(InvalidRequest):  # type: ignore[valid-type,misc]
    """The body does not arrive."""


class Frame:
    """The outermost middleware: what every answer carries, whoever made it, and what is noted of it."""

    def __init__(self, app: ASGIApp, metrics: Metrics):
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        token = request_id.set(uuid.uuid4().hex)
        state: Dict[str, Any] = scope.setdefault("state", {})
        state["request_id"] = request_id.get()
        started, status, refused = time.perf_counter(), 0, None  # type: float, int, Optional[Message]

        async def send_framed(message: Message) -> None:
            nonlocal refused
            if refused is not None:  # the body of an answer that gives way to ours
                if not message.get("more_body"):
                    kept = {k.decode(): v.decode() for k, v in refused["headers"] if k in (b"vary", b"allow")}
                    error = InvalidRequest(_refusal(message.get("body", b"")), kept)
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
        log.info("%s %s %s %.0fms job=%s%s", method, route, "gone" if told == "499" else told, seconds * 1000,
                 state.get("job_id", "-"), " " + stages if stages else "")


def _refusal(text: bytes) -> str:
    """Why Starlette refused by itself, where our own handlers never came to word, from what it says."""
    if b"CORS" in text:
        return ("A page of that origin may not send this request: RELIGHT_CORS_ORIGINS lists the origins that may; the methods are "
                "GET, HEAD, POST and DELETE, the headers Authorization, Content-Type and If-None-Match.")
    if b"host" in text:
        return "This server does not answer to that host name."
    return "That range of the file cannot be had."


class Body:
    """The innermost: bounds on the bytes of a body and on the time it takes, and the net under all faults."""

    def __init__(self, app: ASGIApp, max_upload_bytes: int, patience: float, keys: Sequence[str] = (), uploads: int = 32):
        self.app, self.max_upload_bytes, self.patience, self.keys = app, max_upload_bytes, patience, keys
        self.room = uploads * max_upload_bytes  # bytes that all unfinished uploads may have brought, on this disk

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        end = scope["path"].rstrip("/").rsplit("/", 1)[-1]
        upload = end == "upload"
        body = Incoming(scope, receive, self.max_upload_bytes + OVERHEAD if upload else MAX_JSON_BYTES, self.patience,
                        self._take if upload else lambda size: None)
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
            if scope["method"] == "POST" and end in WITH_BODY:  # no byte of a stranger's body is read
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
            if upload:
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
            raise TooSlow("The request body came too slowly. Send it again over a better connection.", {"Connection": "close"}) from None
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
