"""Errors as answers: one handler, one shape (RFC 9457 problem details)."""

import logging
from typing import Any, Dict, Sequence

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from python_multipart.exceptions import FormParserError
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Match

from ..errors import (
    InvalidLight,
    InvalidRequest,
    MethodNotAllowed,
    ModelMissing,
    NotFound,
    Overloaded,
    RelightError,
    StorageFull,
    Unauthorized,
    from_oserror,
)
from .schemas import place

log = logging.getLogger("relight")
UNREADABLE = (
    "The body could not be read. /upload takes multipart/form-data with one file in the field `file` and at most "
    "8 other fields, the others take JSON."
)
LONGEST = 200  # characters of a client's own words that an answer repeats


def problem(error: RelightError, request_id: str) -> Dict[str, Any]:
    """The RFC 9457 body of an error."""
    return {
        "type": "about:blank",
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
        "code": error.code,
        "request_id": request_id,
    }


def problem_response(error: RelightError, request_id: str) -> JSONResponse:
    """The HTTP answer for an error."""
    headers = dict(error.headers)
    if isinstance(error, Overloaded):
        headers.setdefault("Retry-After", "1")
    if isinstance(error, Unauthorized):
        headers.setdefault("WWW-Authenticate", "Bearer")
    return JSONResponse(problem(error, request_id), error.status, headers, media_type="application/problem+json")


def printable(text: str) -> str:
    """A client's own words as they may stand in an answer: short, and of characters that UTF-8 has."""
    return text[:LONGEST].encode("utf-8", "replace").decode()


def from_validation(errors: Any) -> RelightError:
    """Pydantic's findings as one sentence naming each field; those about a light get `invalid_light`."""
    parts, light = [], False
    for e in list(errors)[:5]:
        if e.get("type") == "json_invalid":
            return InvalidRequest(f"The body is not JSON, from character {e['loc'][-1]} on.")
        if e.get("type") == "none_required":  # a parameter of an address may be left out, and can not be None
            continue
        where = place(e.get("loc", ()))
        if not where and e.get("type") in ("missing", "model_type", "model_attributes_type"):
            return InvalidRequest("body: send a JSON object, with the header Content-Type: application/json.")
        light = light or where[:1] in (["lights"], ["x"], ["y"], ["z"]) or e.get("type") == "invalid_light"
        parts.append(f"{'.'.join(printable(str(w)) for w in where) or 'body'}: {printable(e.get('msg', 'invalid'))}")
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
        if 400 <= exc.status_code < 500:
            return InvalidRequest(UNREADABLE, exc.headers, exc.status_code)
    if isinstance(exc, FormParserError):  # older versions of Starlette let it through
        return InvalidRequest(UNREADABLE, status=400)
    if isinstance(exc, OSError):
        return from_oserror(exc)
    return RelightError()


def install(app: FastAPI, routes: Sequence[BaseRoute]) -> None:
    """Give every error of the application, FastAPI's own included, the one shape.

    `routes` tell which methods a path has.
    """

    async def handle(request: Request, exc: Exception) -> JSONResponse:
        error = translate(exc)
        if isinstance(error, MethodNotAllowed):  # starlette names those of the first route of that path alone
            here = [r for r in routes if r.matches(request.scope)[0] != Match.NONE]
            error.headers = {"Allow": ", ".join(sorted({m for r in here for m in getattr(r, "methods", None) or ()}))}
        if error.status >= 500 and not isinstance(error, (Overloaded, ModelMissing)):
            used_up = (
                isinstance(exc, StorageFull) and exc.__cause__ is None
            )  # a quota: no fault that a stack would tell more of
            log.error("%s: %s", error.code, error.detail, exc_info=None if used_up else exc)
        request.state.code = error.code
        return problem_response(error, getattr(request.state, "request_id", ""))

    for kind in (RelightError, RequestValidationError, HTTPException, OSError):
        app.add_exception_handler(kind, handle)
