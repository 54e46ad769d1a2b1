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


class InvalidRequest(RelightError):
    """What was sent breaks the contract."""

    status = 422
    code = "invalid_request"
    title = "Invalid request"
    default_detail = "The request is not valid."


class InvalidLight(RelightError):
    """A light, or the lights together, break the contract."""

    status = 422
    code = "invalid_light"
    title = "Invalid light"
    default_detail = "A light is not valid."


class NotFound(RelightError):
    """No route has this address."""

    status = 404
    code = "not_found"
    title = "Not found"
    default_detail = "There is nothing at this address. GET /docs lists what there is."


class MethodNotAllowed(RelightError):
    """The address takes other methods."""

    status = 405
    code = "method_not_allowed"
    title = "Method not allowed"
    default_detail = "This address does not take that method. GET /docs lists those it takes."


class JobNotFound(RelightError):
    """No job has this id, or it belongs to another key."""

    status = 404
    code = "job_not_found"
    title = "Job not found"
    default_detail = "There is no such job: it was deleted, has expired, or never was. Upload the photo again."


class FileNotFound(RelightError):
    """The job does not have this file, or not yet."""

    status = 404
    code = "file_not_found"
    title = "File not found"
    default_detail = "There is no such file."


class EnvironmentNotFound(RelightError):
    """The job was given no light from all around."""

    status = 404
    code = "environment_not_found"
    title = "Environment not found"
    default_detail = "This job was given no environment. PUT one to /job/{job_id}/environment first."


class MaskNotFound(RelightError):
    """The job has no mask of this name."""

    status = 404
    code = "mask_not_found"
    title = "Mask not found"
    default_detail = "This job has no mask of that name. PUT one to /job/{job_id}/mask/{name} first."


class InvalidMask(RelightError):
    """A picture that cannot be a mask of this photo, or a name that cannot be given."""

    status = 422
    code = "invalid_mask"
    title = "Invalid mask"
    default_detail = "A mask has the photo's aspect ratio, within 1 %."


class EmptyFile(RelightError):
    """An upload without a byte."""

    status = 422
    code = "empty_file"
    title = "Empty file"
    default_detail = "The uploaded file has no bytes. Send an image file."


class CorruptImage(RelightError):
    """An upload that begins like an image and cannot be decoded."""

    status = 422
    code = "corrupt_image"
    title = "Corrupt image"
    default_detail = "The file could not be decoded: it is damaged or cut short. Export the image again and retry."


class UnsupportedImage(RelightError):
    """An upload in a format that is not read."""

    status = 415
    code = "unsupported_image"
    title = "Unsupported image"
    default_detail = (
        "The file is not an image of a kind this server reads: JPEG, PNG, WebP, AVIF, HEIC, TIFF, BMP, GIF, JPEG 2000, "
        "OpenEXR, Radiance HDR, and JPEG XL where its decoder is installed."
    )


class FileTooLarge(RelightError):
    """More bytes than the limit of the route."""

    status = 413
    code = "file_too_large"
    title = "File too large"
    default_detail = "The file has too many bytes."


class ImageTooLarge(RelightError):
    """More pixels than the limit."""

    status = 413
    code = "image_too_large"
    title = "Image too large"
    default_detail = "The image has too many pixels."


class ModelError(RelightError):
    """The analysis of a photo failed."""

    status = 500
    code = "model_error"
    title = "Model error"
    default_detail = "The analysis of this photo failed. Upload it again; if that fails too, try another image."


class ModelMissing(RelightError):
    """No graph can be run."""

    status = 503
    code = "model_missing"
    title = "Model missing"
    default_detail = "No usable depth model is installed. Rebuild the graphs with `python export/export_models.py`."


class Overloaded(RelightError):
    """All places in line are taken."""

    status = 503
    code = "overloaded"
    title = "Overloaded"
    default_detail = "The server is busy. Retry after a moment."


class StoreAway(Overloaded):
    """The store of the jobs does not answer, or not as it should."""

    default_detail = "The store of the jobs cannot be reached. Retry after a moment."

    def __init__(self) -> None:
        super().__init__(headers={"Retry-After": "5"})


class TakenOver(Overloaded):
    """Another process did something with this job meanwhile, so that what was to be written is out of date."""

    default_detail = "Another process works on this job. Retry after a moment."


class Superseded(RelightError):
    """Nobody waits for this answer any more."""

    status = 409
    code = "superseded"
    title = "Superseded"
    default_detail = "A newer preview of the same stream took this one's place."


class MotionBusy(RelightError):
    """The job's motion is being rendered."""

    status = 409
    code = "motion_busy"
    title = "Motion busy"
    default_detail = "A motion of this job is being rendered. Wait for it, or stop it by DELETE /job/{job_id}/motion."


class StorageFull(RelightError):
    """The disk or a quota is full."""

    status = 507
    code = "storage_full"
    title = "Storage full"
    default_detail = "There is no room left to store this. Delete jobs you no longer need, or raise the quota."


class Unauthorized(RelightError):
    """The key is missing or wrong."""

    status = 401
    code = "unauthorized"
    title = "Unauthorized"
    default_detail = "Send a valid key as `Authorization: Bearer <key>`."


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
        EnvironmentNotFound,
        MaskNotFound,
        InvalidMask,
        EmptyFile,
        CorruptImage,
        UnsupportedImage,
        FileTooLarge,
        ImageTooLarge,
        ModelError,
        ModelMissing,
        Overloaded,
        Superseded,
        MotionBusy,
        StorageFull,
        Unauthorized,
    )
}


class DamagedFile(Exception):
    """A stored file is not what was written there.

    Only code that reads files raises it, so that a fault of the program is never taken for one of the file's. Whoever
    asked for the file decides what becomes of the job.
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
