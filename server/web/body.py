"""What a route takes as a body, and the bounds on its bytes and on the time it takes."""

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import Any, Callable, Optional, Sequence, Tuple

from starlette.requests import ClientDisconnect
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..errors import FileTooLarge, InvalidRequest, Overloaded
from ..settings import Settings
from .auth import owner_of
from .problems import problem_response, translate

log = logging.getLogger("relight")
MAX_JSON_BYTES = 1 << 20
MULTIPART_OVERHEAD = 1 << 16  # what multipart may add to the file
DRAIN_SECONDS = 5.0  # how long a refused client may go on sending, so that it reads the answer
MIN_BYTES_PER_SECOND = 8192  # bytes a second that a body must keep on average, after the timeout of the first moments


@dataclass(frozen=True)
class BodyRule:
    """What a route takes as a body.

    `takes` tells it to the middleware, which looks at the key before any byte of it.
    """

    max_bytes: Callable[[Settings], int]
    timeout: Callable[[Settings], float] = lambda s: s.upload_timeout_seconds  # without a byte
    is_file: bool = False  # counts to the room on disk that all unfinished uploads share


JSON_BODY = BodyRule(max_bytes=lambda s: MAX_JSON_BYTES)
FILE_BODY = BodyRule(max_bytes=lambda s: s.max_upload_bytes + MULTIPART_OVERHEAD, is_file=True)


def takes(rule: BodyRule) -> Callable[[Any], Any]:
    """Declare what an endpoint takes as a body; one that declares nothing takes JSON's bounds."""

    def declare(endpoint: Any) -> Any:
        endpoint.body_rule = rule
        return endpoint

    return declare


class TooSlow(InvalidRequest):
    """The body does not arrive."""

    status = 408


class BodyLimitMiddleware:
    """The innermost: bounds on the bytes of a body and on the time it takes, and the net under all faults."""

    def __init__(
        self,
        app: ASGIApp,
        settings: Settings,
        open_routes: Sequence[BaseRoute],
        guarded: Sequence[BaseRoute],
        api_keys: Sequence[str] = (),
    ):
        self.app, self.settings, self.open_routes, self.guarded, self.api_keys = (
            app,
            settings,
            open_routes,
            guarded,
            api_keys,
        )
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
        body = LimitedReceive(
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
                owner_of(dict(scope["headers"]).get(b"authorization", b"").decode("latin-1"), self.api_keys)
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


class LimitedReceive:
    """The body of one request as it arrives."""

    def __init__(self, scope: Scope, receive: Receive, limit: int, timeout: float, take: Callable[[int], None]):
        self._receive, self.limit, self.timeout, self._state = receive, limit, timeout, scope["state"]
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
            self._state["disconnected"] = self._state.get("disconnected") or self.unread
            self.unread = False
        return message

    async def receive(self) -> Message:
        """The next message. Raises FileTooLarge, TooSlow."""
        if not self.unread:
            return await self._receive()  # a body that is complete: this waits for the client to leave
        if self.declared is not None and self.declared > self.limit:
            raise FileTooLarge(f"The request has {self.declared} bytes; at most {self.limit} are taken.")
        now = time.monotonic()
        left = self.started + self.timeout + self.seen / MIN_BYTES_PER_SECOND - now
        try:
            message = await self._next(max(0.0, min(self.timeout, left)))
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
        max_seen = self.seen + 4 * self.limit + (1 << 24)
        while self.unread and self.seen < max_seen:
            try:
                await self._next(max(0.0, end - time.monotonic()))
            except asyncio.TimeoutError:
                return
