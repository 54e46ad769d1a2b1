"""One family of exceptions. problems.py turns them into answers."""

import errno
from typing import Mapping, Optional


class RelightError(Exception):
    """A fault with a public code. `detail` says what happened and what to do, and never holds a path or a stack."""

    status = 500
    code = "internal"
    title = "Internal error"
    default_detail = "Something went wrong on our side. The log has the details under this request id."

    def __init__(
        self, detail: Optional[str] = None, headers: Optional[Mapping[str, str]] = None, status: Optional[int] = None
    ):
        super().__init__(detail or self.default_detail)
        self.detail = detail or self.default_detail
        self.headers = dict(headers or {})
        self.status = status or self.status  # what Starlette refuses keeps the status it was refused with


def _kind(name: str, status: int, code: str, title: str, detail: str) -> type:
    return type(
        name,
        (RelightError,),
        {"status": status, "code": code, "title": title, "default_detail": detail, "__module__": __name__},
    )


InvalidRequest = _kind("InvalidRequest", 422, "invalid_request", "Invalid request", "The request is not valid.")
InvalidLight = _kind("InvalidLight", 422, "invalid_light", "Invalid light", "A light is not valid.")
NotFound = _kind(
    "NotFound", 404, "not_found", "Not found", "There is nothing at this address. GET /docs lists what there is."
)
MethodNotAllowed = _kind(
    "MethodNotAllowed",
    405,
    "method_not_allowed",
    "Method not allowed",
    "This address does not take that method. GET /docs lists those it takes.",
)
JobNotFound = _kind(
    "JobNotFound",
    404,
    "job_not_found",
    "Job not found",
    "There is no such job: it was deleted, has expired, or never was. Upload the photo again.",
)
FileNotFound = _kind("FileNotFound", 404, "file_not_found", "File not found", "There is no such file.")
EmptyFile = _kind("EmptyFile", 422, "empty_file", "Empty file", "The uploaded file has no bytes. Send an image file.")
CorruptImage = _kind(
    "CorruptImage",
    422,
    "corrupt_image",
    "Corrupt image",
    "The file could not be decoded: it is damaged or cut short. Export the image again and retry.",
)
UnsupportedImage = _kind(
    "UnsupportedImage",
    415,
    "unsupported_image",
    "Unsupported image",
    "The file is not an image of a kind this server reads: JPEG, PNG, WebP, AVIF, TIFF, BMP, GIF.",
)
FileTooLarge = _kind("FileTooLarge", 413, "file_too_large", "File too large", "The file has too many bytes.")
ImageTooLarge = _kind("ImageTooLarge", 413, "image_too_large", "Image too large", "The image has too many pixels.")
ModelError = _kind(
    "ModelError",
    500,
    "model_error",
    "Model error",
    "The analysis of this photo failed. Upload it again; if that fails too, try another image.",
)
ModelMissing = _kind(
    "ModelMissing",
    503,
    "model_missing",
    "Model missing",
    "No usable depth model is installed. Rebuild the graphs with `python export/export_models.py`.",
)
Overloaded = _kind("Overloaded", 503, "overloaded", "Overloaded", "The server is busy. Retry after a moment.")
Superseded = _kind(
    "Superseded", 409, "superseded", "Superseded", "A newer preview of the same stream took this one's place."
)
StorageFull = _kind(
    "StorageFull",
    507,
    "storage_full",
    "Storage full",
    "There is no room left to store this. Delete jobs you no longer need, or raise the quota.",
)
Unauthorized = _kind(
    "Unauthorized", 401, "unauthorized", "Unauthorized", "Send a valid key as `Authorization: Bearer <key>`."
)

ALL = {
    e.code: e
    for e in (
        RelightError,
        InvalidRequest,
        InvalidLight,
        NotFound,
        MethodNotAllowed,
        JobNotFound,
        FileNotFound,
        EmptyFile,
        CorruptImage,
        UnsupportedImage,
        FileTooLarge,
        ImageTooLarge,
        ModelError,
        ModelMissing,
        Overloaded,
        Superseded,
        StorageFull,
        Unauthorized,
    )
}


class DamagedFile(Exception):
    """A stored file that is not what was written there. Raised by what reads files alone, so that no fault of the
    program is taken for one of the file's; whoever asked for the file decides what becomes of the job.
    """


class StartupError(RuntimeError):
    """The server must not start: the message is one line with the reason and the cure."""


def from_oserror(exc: OSError) -> RelightError:
    """A disk that is full or may not be written to is `storage_full`; any other fault of the system is ours."""
    if exc.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC), errno.EFBIG):
        return StorageFull()
    if exc.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return StorageFull("The server may not write to its jobs folder. Its operator has to give it the right to.")
    return RelightError()
