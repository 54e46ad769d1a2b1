"""Errors as answers: one handler, one shape (RFC 9457 problem details)."""

import logging
from typing import Any, Dict, Sequence

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Match

from .errors import (
    FileTooLarge,
    InvalidLight,
    InvalidRequest,
    MethodNotAllowed,
    ModelMissing,
    NotFound,
    Overloaded,
    RelightError,
    Unauthorized,
    from_oserror,
)

log = logging.getLogger("relight")
LONGEST = 200  # characters of a client's own words that an answer repeats


def problem(error: RelightError, request_id: str) -> Dict[str, Any]:
    """The RFC 9457 body of an error."""
    return {"type": "about:blank", "title": error.title, "status": error.status, "detail": error.detail,
            "code": error.code, "request_id": request_id}


def problem_response(error: RelightError, request_id: str) -> JSONResponse:
    """The HTTP answer for an error."""
    headers = dict(error.headers)
    if isinstance(error, Overloaded):
        headers.setdefault("Retry-After", "1")
    if isinstance(error, Unauthorized):
        headers.setdefault("WWW-Authenticate", "Bearer")
    return JSONResponse(problem(error, request_id), error.status, headers, media_type="application/problem+json")


def _printable(text: str) -> str:
    """A client's own words as they may stand in an answer: short, and of characters that UTF-8 has."""
    return text[:LONGEST].encode("utf-8", "replace").decode()


def from_validation(errors: Any) -> RelightError:
    """Pydantic's findings as one sentence naming each field; those about a light get `invalid_light`."""
    parts, light = [], False
    for e in list(errors)[:5]:
        loc = [_printable(str(p)) for p in e.get("loc", ()) if p not in ("body", "query", "path", "directional", "point", "spot")]
        light = light or bool(loc and loc[0] in ("lights", "x", "y", "z")) or e.get("type") == "invalid_light"
        field = ".".join(loc) or "body"
        parts.append(f"{field}: {_printable(e.get('msg', 'invalid'))}")
    return (InvalidLight if light else InvalidRequest)("; ".join(parts) or None)


def translate(exc: Exception) -> RelightError:
    """Any exception as one of ours. What is not a known kind is `internal`."""
    if isinstance(exc, RelightError):
        return exc
    if isinstance(exc, RequestValidationError):
        return from_validation(exc.errors())
    if isinstance(exc, HTTPException):
        if isinstance(exc.__cause__, RelightError):  # raised while FastAPI read the body
            return exc.__cause__
        if exc.status_code == 404:
            return NotFound()
        if exc.status_code == 405:
            return MethodNotAllowed()
        if exc.status_code == 413:
            return FileTooLarge()
        if 400 <= exc.status_code < 500:
            return InvalidRequest("The body could not be read. /upload takes multipart/form-data with one file in the field "
                                  "`file`, the others take JSON.")
    if isinstance(exc, OSError):
        return from_oserror(exc)
    return RelightError()


def install(app: FastAPI, routes: Sequence[BaseRoute]) -> None:
    """Give every error of the application, FastAPI's own included, the one shape. `routes` tell which methods a path has."""

    async def handle(request: Request, exc: Exception) -> JSONResponse:
        error = translate(exc)
        if isinstance(error, MethodNotAllowed):  # starlette names those of the first route of that path alone
            here = [r for r in routes if r.matches(request.scope)[0] != Match.NONE]
            error.headers = {"Allow": ", ".join(sorted({m for r in here for m in getattr(r, "methods", None) or ()}))}
        if error.status >= 500 and not isinstance(error, (Overloaded, ModelMissing)):
            log.error("%s: %s", error.code, error.detail, exc_info=exc)
        request.state.code = error.code
        return problem_response(error, getattr(request.state, "request_id", ""))

    for kind in (RelightError, RequestValidationError, HTTPException, OSError):
        app.add_exception_handler(kind, handle)
