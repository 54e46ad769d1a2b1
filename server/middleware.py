"""Round every request: an id, one log line, limits on the body, security headers, and the net under all faults."""

import contextvars
import logging
import time
import uuid
from typing import Any, Dict, Optional

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .errors import FileTooLarge
from .metrics import Metrics
from .problems import problem_response, translate

log = logging.getLogger("relight")
request_id: "contextvars.ContextVar[str]" = contextvars.ContextVar("request_id", default="-")

MAX_JSON_BYTES = 1 << 20
OVERHEAD = 1 << 16  # what multipart may add to the file
DRAIN_SECONDS = 5.0

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


class Frame:
    """The outermost middleware."""

    def __init__(self, app: ASGIApp, metrics: Metrics, max_upload_bytes: int):
        self.app, self.metrics, self.max_upload_bytes = app, metrics, max_upload_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        token = request_id.set(uuid.uuid4().hex)
        state: Dict[str, Any] = scope.setdefault("state", {})
        state["request_id"] = request_id.get()
        started, status = time.perf_counter(), 0

        async def send_framed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = list(message.get("headers", []))
                names = {k for k, _ in headers}
                headers += [h for h in HEADERS if h[0] not in names]
                headers.append((b"x-request-id", state["request_id"].encode()))
                message = {**message, "headers": headers}
            await send(message)

        limit = MAX_JSON_BYTES
        if scope["path"].rstrip("/").endswith("/upload"):
            limit = self.max_upload_bytes + OVERHEAD
        try:
            await self.app(scope, _limited(scope, receive, limit), send_framed)
        except Exception as exc:
            error = translate(exc)
            if error.status >= 500:
                log.error("unhandled: %s", error.code, exc_info=exc)
            if not status:
                await problem_response(error, state["request_id"])(scope, receive, send_framed)
        finally:
            self._note(scope, state, status, time.perf_counter() - started)
            request_id.reset(token)

    def _note(self, scope: Scope, state: Dict[str, Any], status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", None) or "other"
        self.metrics.requests.labels(scope["method"], route, str(status or 499)).inc()
        self.metrics.duration.labels(route).observe(seconds)
        stages = " ".join(f"{k}={v * 1000:.0f}ms" for k, v in state.get("timings", {}).items())
        log.info("%s %s %s %.0fms job=%s%s", scope["method"], route, status or "gone", seconds * 1000, state.get("job_id", "-"),
                 " " + stages if stages else "")


def _limited(scope: Scope, receive: Receive, limit: int) -> Receive:
    """`receive`, refusing a body of more than `limit` bytes while it streams in."""
    declared: Optional[int] = None
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            declared = int(value)
    seen = 0

    async def drain(message: Message) -> None:
        """Read on a little, so that the client is done sending and reads the answer."""
        nonlocal seen
        deadline = time.monotonic() + DRAIN_SECONDS
        while message.get("more_body") and seen < 4 * limit + (1 << 24) and time.monotonic() < deadline:
            message = await receive()
            seen += len(message.get("body", b""))

    async def limited() -> Message:
        nonlocal seen
        message = await receive()
        if message["type"] == "http.request":
            seen += len(message.get("body", b""))
            if seen > limit or (declared is not None and declared > limit):
                await drain(message)
                raise FileTooLarge(f"The request has more than {limit} bytes.")
        return message

    return limited
