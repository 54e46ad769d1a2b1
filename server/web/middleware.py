"""Round every request.

An id, one log line, limits on the body and on patience, security headers, a net under all faults.
"""

import asyncio
import contextvars
import logging
import time
import uuid
from typing import Any, Dict, Optional

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

refusal: "contextvars.ContextVar[Optional[str]]" = contextvars.ContextVar(
    "refusal", default=None
)  # why a middleware says no

SEND_SECONDS = 60.0  # how long a client may take to read one block of an answer
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
                f"A page of that origin may not send this request: RELIGHT_CORS_ORIGINS lists the "
                f"origins that may; the methods "
                f"are {', '.join(self.allow_methods)}, the headers {', '.join(self.allow_headers)}."
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
