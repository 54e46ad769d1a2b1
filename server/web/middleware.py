"""Round every request: an id, one log line, security headers, known hosts and origins, a net under all faults."""

import asyncio
import contextvars
import logging
import time
import uuid
from typing import Any, Dict, Optional, Sequence

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..errors import InvalidRequest
from ..metrics import Metrics
from .problems import problem_response

log = logging.getLogger("relight")
request_id: "contextvars.ContextVar[str]" = contextvars.ContextVar("request_id", default="-")

# Why a middleware says no.
refusal: "contextvars.ContextVar[Optional[str]]" = contextvars.ContextVar("refusal", default=None)

SEND_SECONDS = 60.0  # how long a client may take to read one block of an answer
KEPT_OF_A_REFUSAL = (b"vary", b"allow", b"content-range")
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


class CrossOriginMiddleware(CORSMiddleware):
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
                "A page of that origin may not send this request: RELIGHT_CORS_ORIGINS lists the origins that may; "
                f"the methods are {', '.join(self.allow_methods)}, the headers {', '.join(self.allow_headers)}."
            )
        elif request_headers.get("access-control-request-private-network") == "true":
            response.headers["Access-Control-Allow-Private-Network"] = "true"
        return response


class KnownHostsMiddleware(TrustedHostMiddleware):
    """TrustedHostMiddleware whose refusals say that it was the host."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        refusal.set("This server does not answer to that host name.")
        await super().__call__(scope, receive, send)

    def __init__(self, app: ASGIApp, allowed_hosts: Sequence[str]):
        async def known(scope: Scope, receive: Receive, send: Send) -> None:
            refusal.set(None)
            await app(scope, receive, send)

        super().__init__(known, allowed_hosts=allowed_hosts, www_redirect=False)


class RequestContextMiddleware:
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
        started, answer = time.perf_counter(), _Answer(scope, receive, send)
        try:
            await self.app(scope, receive, answer.send)
        except ClientDisconnect:
            state["disconnected"] = True
        finally:
            self._note(scope, state, answer.status, time.perf_counter() - started)
            request_id.reset(token)

    def _note(self, scope: Scope, state: Dict[str, Any], status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", None) or "other"
        method = scope["method"] if scope["method"] in METHODS else "other"
        told = "499" if state.get("disconnected") or not status else str(status)
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


class _Answer:
    """The answer to one request on its way out: our headers are added, and a refusal of another shape becomes ours."""

    def __init__(self, scope: Scope, receive: Receive, send: Send):
        self._scope, self._receive, self._send = scope, receive, send
        self._state: Dict[str, Any] = scope["state"]
        self._refused: Optional[Message] = None  # the start of an answer that gives way to ours
        self.status = 0  # as sent; 0: nothing was

    async def send(self, message: Message) -> None:
        """Pass a message on. Raises ClientDisconnect when the client does not take it."""
        if self._refused is not None:
            if not message.get("more_body"):
                await self._send_refusal(self._refused)
        elif message["type"] == "http.response.start" and self._is_foreign_refusal(message):
            self._refused = message
        else:
            await self._send_out(message)

    @staticmethod
    def _is_foreign_refusal(message: Message) -> bool:
        kinds = [v for k, v in message.get("headers", []) if k == b"content-type"]
        return message["status"] >= 400 and not any(v.startswith(b"application/problem+json") for v in kinds)

    async def _send_refusal(self, refused: Message) -> None:
        kept = {k.decode(): v.decode() for k, v in refused.get("headers", []) if k in KEPT_OF_A_REFUSAL}
        ranged = any(k == b"range" for k, _ in self._scope["headers"])
        why = refusal.get() or ("That range of the file cannot be had." if ranged else None)
        error = InvalidRequest(why, kept, refused["status"])
        self._state["code"] = error.code
        await problem_response(error, self._state["request_id"])(self._scope, self._receive, self._send_out)

    async def _send_out(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = list(message.get("headers", []))
            names = {k for k, _ in headers}
            headers += [h for h in HEADERS if h[0] not in names]
            headers.append((b"x-request-id", self._state["request_id"].encode()))
            message = {**message, "headers": headers}
        try:
            await asyncio.wait_for(self._send(message), SEND_SECONDS)
        except asyncio.TimeoutError:
            self._state["disconnected"] = True
            raise ClientDisconnect() from None
