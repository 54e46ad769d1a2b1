"""One family of exceptions, one handler, one shape of answer (RFC 9457 problem details)."""

import errno
import logging
from typing import Any, Dict, Mapping, Optional

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

log = logging.getLogger("relight")


class RelightError(Exception):
    """A fault with a public code. `detail` says what happened and what to do, and never holds a path or a stack."""

    status = 500
    code = "internal"
    title = "Internal error"
    default_detail = "Something went wrong on our side. The log has the details under this request id."

    def __init__(self, detail: Optional[str] = None, headers: Optional[Mapping[str, str]] = None):
        super().__init__(detail or self.default_detail)
        self.detail = detail or self.default_detail
        self.headers = dict(headers or {})


def _kind(name: str, status: int, code: str, title: str, detail: str) -> type:
    return type(name, (RelightError,), {"status": status, "code": code, "title": title, "default_detail": detail,
                                        "__module__": __name__})


InvalidRequest = _kind("InvalidRequest", 422, "invalid_request", "Invalid request", "The request is not valid.")
InvalidLight = _kind("InvalidLight", 422, "invalid_light", "Invalid light", "A light is not valid.")
NotFound = _kind("NotFound", 404, "not_found", "Not found", "There is nothing at this address. GET /docs lists what there is.")
MethodNotAllowed = _kind("MethodNotAllowed", 405, "method_not_allowed", "Method not allowed",
                         "This address does not take that method. GET /docs lists those it takes.")
JobNotFound = _kind("JobNotFound", 404, "job_not_found", "Job not found",
                    "There is no such job: it was deleted, has expired, or never was. Upload the photo again.")
FileNotFound = _kind("FileNotFound", 404, "file_not_found", "File not found", "There is no such file.")
EmptyFile = _kind("EmptyFile", 422, "empty_file", "Empty file", "The uploaded file has no bytes. Send an image file.")
CorruptImage = _kind("CorruptImage", 422, "corrupt_image", "Corrupt image",
                     "The file could not be decoded: it is damaged or cut short. Export the image again and retry.")
UnsupportedImage = _kind("UnsupportedImage", 415, "unsupported_image", "Unsupported image",
                         "The file is not an image of a kind this server reads: JPEG, PNG, WebP, AVIF, TIFF, BMP, GIF.")
FileTooLarge = _kind("FileTooLarge", 413, "file_too_large", "File too large", "The file has too many bytes.")
ImageTooLarge = _kind("ImageTooLarge", 413, "image_too_large", "Image too large", "The image has too many pixels.")
ModelError = _kind("ModelError", 500, "model_error", "Model error",
                   "The analysis of this photo failed. Upload it again; if that fails too, try another image.")
ModelMissing = _kind("ModelMissing", 503, "model_missing", "Model missing",
                     "No usable depth model is installed. Rebuild the graphs with `python export/export_models.py`.")
Overloaded = _kind("Overloaded", 503, "overloaded", "Overloaded", "The server is busy. Retry after a moment.")
Superseded = _kind("Superseded", 409, "superseded", "Superseded", "A newer preview of the same stream took this one's place.")
StorageFull = _kind("StorageFull", 507, "storage_full", "Storage full",
                    "There is no room left to store this. Delete jobs you no longer need, or raise the quota.")
Unauthorized = _kind("Unauthorized", 401, "unauthorized", "Unauthorized",
                     "Send a valid key as `Authorization: Bearer <key>`.")

ALL = {e.code: e for e in (RelightError, InvalidRequest, InvalidLight, NotFound, MethodNotAllowed, JobNotFound, FileNotFound,
                           EmptyFile, CorruptImage, UnsupportedImage, FileTooLarge, ImageTooLarge, ModelError, ModelMissing,
                           Overloaded, Superseded, StorageFull, Unauthorized)}


class StartupError(RuntimeError):
    """The server must not start: the message is one line with the reason and the cure."""


def from_oserror(exc: OSError) -> RelightError:
    """A full disk is `storage_full`; any other fault of the system is ours."""
    if exc.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC), errno.EFBIG):
        return StorageFull()
    return RelightError()


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


def from_validation(errors: Any) -> RelightError:
    """Pydantic's findings as one sentence naming each field; those about a light get `invalid_light`."""
    parts, light = [], False
    for e in list(errors)[:5]:
        loc = [str(p) for p in e.get("loc", ()) if p not in ("body", "query", "path", "directional", "point", "spot")]
        light = light or bool(loc and loc[0] in ("lights", "x", "y", "z")) or e.get("type") == "invalid_light"
        field = ".".join(loc) or "body"
        parts.append(f"{field}: {e.get('msg', 'invalid')}")
    return (InvalidLight if light else InvalidRequest)("; ".join(parts) or None)


def translate(exc: Exception) -> RelightError:
    """Any exception as one of ours. What is not a known kind is `internal`."""
    if isinstance(exc, RelightError):
        return exc
    if isinstance(exc, RequestValidationError):
        return from_validation(exc.errors())
    if isinstance(exc, HTTPException):
        if exc.status_code == 404:
            return NotFound()
        if exc.status_code == 405:
            return MethodNotAllowed(headers=exc.headers)
        if exc.status_code == 413:
            return FileTooLarge()
        if 400 <= exc.status_code < 500:
            return InvalidRequest("The request could not be read: " + str(exc.detail))
    if isinstance(exc, OSError):
        return from_oserror(exc)
    return RelightError()


def install(app: FastAPI) -> None:
    """Give every error of the application, FastAPI's own included, the one shape."""

    async def handle(request: Request, exc: Exception) -> JSONResponse:
        error = translate(exc)
        if error.status >= 500 and not isinstance(error, (Overloaded, ModelMissing)):
            log.error("%s: %s", error.code, error.detail, exc_info=exc)
        return problem_response(error, getattr(request.state, "request_id", ""))

    for kind in (RelightError, RequestValidationError, HTTPException, OSError):
        app.add_exception_handler(kind, handle)
