"""The endpoints: HTTP in, service, HTTP out."""

import asyncio
import hashlib
import json
import re
import tempfile
from contextlib import asynccontextmanager
from email.utils import formatdate
from pathlib import Path
from typing import Annotated, Any, AsyncIterator, BinaryIO, Dict, List, Optional, Tuple, Union, cast

from fastapi import APIRouter, Depends, FastAPI, Query, Request
from fastapi import Path as PathParameter
from fastapi.responses import FileResponse, Response, StreamingResponse
from fastapi.routing import APIRoute
from fastapi.staticfiles import StaticFiles
from pydantic import Field
from pydantic.json_schema import SkipJsonSchema
from starlette.datastructures import UploadFile
from starlette.types import Receive, Scope, Send

from ..errors import InvalidRequest, ModelMissing
from ..jobs import archive
from ..jobs import base as jobs
from ..jobs.analysis import IsDisconnected
from ..jobs.service import Service
from ..light import skies
from . import presets, schemas
from .auth import owner_of
from .body import FILE_BODY, JSON_BODY, takes
from .openapi import describe, problems, text_headers
from .problems import printable, problem_response

STATIC = Path(__file__).resolve().parents[1] / "static"
BLOCK = 1 << 18
SPOOLED = 1 << 20  # bytes of a body held in memory; what is larger waits on disk
DIRECT_SECONDS = 60.0  # for which a signed address is valid
PASS = {kind: {"schema": {"type": "string", "format": "binary"}} for kind in jobs.MEDIA_TYPES.values()}
NO_PHOTO = "file: send the photo as multipart/form-data in the field `file`"


def _header(name: str, description: str) -> Dict[str, Any]:
    """How OpenAPI describes a request header."""
    return {
        "name": name,
        "in": "header",
        "required": False,
        "schema": {"type": "string"},
        "description": description,
    }


MAPS_TYPE = "application/octet-stream"
IF_NONE_MATCH = _header("If-None-Match", "ETags of the copies held: if this is one of them, 304")


async def get_service(request: Request) -> Service:
    """The service of the application that serves this request."""
    return request.app.state.service


def disconnection(request: Request) -> IsDisconnected:
    """Tells whether the client has left, and notes it for the log."""

    async def is_disconnected() -> bool:
        request.state.disconnected = await request.is_disconnected()
        return bool(request.state.disconnected)

    return is_disconnected


async def get_owner(request: Request) -> str:
    """A digest of the key sent along, "" on an open server. Raises Unauthorized."""
    return owner_of(request.headers.get("authorization", ""), request.app.state.keys)


Services = Annotated[Service, Depends(get_service)]
Owner = Annotated[str, Depends(get_owner)]
FileName = Annotated[str, PathParameter(json_schema_extra={"enum": [*(p.value for p in jobs.DOWNLOADS), jobs.ARCHIVE]})]
MaskName = Annotated[str, PathParameter(pattern=schemas.MASK_NAME, description="`subject` and `sky` are built in")]
Feather = Annotated[float, Query(ge=0, le=0.1, allow_inf_nan=False, description="as of `mask` in a body")]
Side = Annotated[int, Field(ge=64, le=4096)]
MaskSide = Annotated[Union[Side, SkipJsonSchema[None]], Query(description="pixels; never enlarged")]
FILE_AS_BODY: Dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}
BAD_FILES = ("empty_file", "corrupt_image", "unsupported_image", "file_too_large", "image_too_large")
LIGHT_PROBLEMS = (
    "invalid_request",
    "invalid_light",
    "job_not_found",
    "environment_not_found",
    "mask_not_found",
    "file_too_large",
    "model_error",
    "model_missing",
    "overloaded",
    "storage_full",
)
router = APIRouter(responses=problems("internal"))
guarded = APIRouter(responses=problems("unauthorized", "internal"), dependencies=[Depends(get_owner)])


@guarded.post(
    "/upload",
    response_model=schemas.UploadAnswer,
    tags=["jobs"],
    responses=problems(
        "invalid_request",
        *BAD_FILES,
        "model_missing",
        "overloaded",
        "storage_full",
        statuses=(400, 408),
    ),
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "multipart/form-data": {
                    "schema": {
                        "type": "object",
                        "required": ["file"],
                        "properties": {"file": {"type": "string", "format": "binary"}},
                    }
                }
            },
        }
    },
)
@takes(FILE_BODY)
async def upload(request: Request, service: Services, owner: Owner) -> Any:
    """Store a photo and start its analysis in the background."""
    service.check_model()
    kind = request.headers.get("content-type", "").lower()
    if not kind.startswith("multipart/form-data"):  # before a byte of anything else is parsed
        raise InvalidRequest(NO_PHOTO)
    with service.uploads():
        async with request.form(max_files=1, max_fields=8) as form:
            file = form.get("file")
            if not isinstance(file, UploadFile):
                others = [printable(name) for name, value in form.multi_items() if isinstance(value, UploadFile)]
                raise InvalidRequest(
                    f"{NO_PHOTO}, not in {', '.join(f'`{name}`' for name in others)}" if others else NO_PHOTO
                )
            record = await service.upload(file.file, owner)
    request.state.job_id = record.job_id
    return {
        "job_id": record.job_id,
        "job_dir": f"jobs/{record.job_id}",
        "status": record.state,
        "width": record.width,
        "height": record.height,
    }


@guarded.post(
    "/relight",
    response_model=schemas.RelightAnswer,
    tags=["light"],
    responses=problems(*LIGHT_PROBLEMS, statuses=(400, 408)),
)
@takes(JSON_BODY)
async def relight(body: schemas.RelightBody, request: Request, service: Services, owner: Owner) -> Any:
    """Relight a photo at full size; answers once relit.png is whole on disk."""
    job_id = request.state.job_id = jobs.parse_id(body.job_id)  # first of all: refusals are logged with it too
    record, seconds = await service.relight(job_id, body.rig(), owner, disconnection(request))
    request.state.timings = seconds
    return {
        "status": "ok",
        "job_id": record.job_id,
        "relit_path": f"jobs/{record.job_id}/relit.png",
        "width": record.width,
        "height": record.height,
        "timings": seconds,
    }


@guarded.post(
    "/preview",
    response_class=Response,
    tags=["light"],
    responses={
        200: {
            "content": {"image/jpeg": {"schema": {"type": "string", "format": "binary"}}},
            "description": "The relit picture",
            "headers": text_headers("Server-Timing", "Cache-Control"),
        },
        **problems(*LIGHT_PROBLEMS, "superseded", statuses=(400, 408)),
    },
)
@takes(JSON_BODY)
async def preview(body: schemas.PreviewBody, request: Request, service: Services, owner: Owner) -> Response:
    """Relight a photo at screen size, from memory to memory."""
    job_id = request.state.job_id = jobs.parse_id(body.job_id)
    data, seconds = await service.preview(job_id, body.rig(), body.options(), owner, disconnection(request))
    request.state.timings = seconds
    timing = ", ".join(f"{k};dur={v * 1000:.1f}" for k, v in seconds.items())
    return Response(data, media_type="image/jpeg", headers={"Server-Timing": timing, "Cache-Control": "no-store"})


@guarded.post(
    "/animate",
    response_model=schemas.AnimateAnswer,
    status_code=202,
    tags=["light"],
    responses=problems(*LIGHT_PROBLEMS, "motion_busy", statuses=(400, 408)),
)
@takes(JSON_BODY)
async def animate(body: schemas.AnimateBody, request: Request, service: Services, owner: Owner) -> Any:
    """Render a light that moves over a photo, in the background.

    It takes the place of the job's motion before. The job's state and its events tell how far it is and when the file
    is there. One a job at a time.
    """
    job_id = request.state.job_id = jobs.parse_id(body.job_id)
    order = body.order()
    await service.motions.start(job_id, order, owner)
    return {"status": "rendering", "motion_path": f"jobs/{job_id}/{order.file.value}"}


@guarded.delete(
    "/job/{job_id}/motion",
    response_model=schemas.DeleteAnswer,
    tags=["light"],
    responses=problems("job_not_found", "file_not_found", "overloaded"),
)
async def delete_motion(job_id: str, request: Request, service: Services, owner: Owner) -> Any:
    """Stop a job's motion, or remove the one that was made."""
    job_id = request.state.job_id = jobs.parse_id(job_id)
    await service.motions.stop(job_id, owner)
    return {"status": "deleted"}


@guarded.get(
    "/job/{job_id}/maps",
    response_class=Response,
    tags=["light"],
    responses={
        200: {
            "content": {MAPS_TYPE: {"schema": {"type": "string", "format": "binary"}}},
            "description": "The maps, as /static/relight.js reads them",
            "headers": text_headers("ETag", "Cache-Control"),
        },
        304: {"description": "Not modified", "headers": text_headers("ETag")},
        **problems("invalid_request", "job_not_found", "model_error", "model_missing", "overloaded", "storage_full"),
    },
    openapi_extra={"parameters": [IF_NONE_MATCH]},
)
async def maps(
    job_id: str, request: Request, service: Services, owner: Owner, max_side: jobs.MapsSide = jobs.MapsSide.USUAL
) -> Response:
    """What a page needs to light a photo itself, at one picture size; waits for the analysis.

    `/static/relight.js` reads it. Where the models do not say what the photo's surfaces see, `live` in it is false and
    there is nothing to light: then use /preview.
    """
    job_id = request.state.job_id = jobs.parse_id(job_id)
    file = await service.open_maps(job_id, max_side, owner, disconnection(request))
    contract: bytes = await asyncio.to_thread(request.app.state.contract)
    headers = {"ETag": _etag([file], contract), "Cache-Control": "private, no-cache"}
    if _is_known(headers["ETag"], request):
        file.close()
        return Response(status_code=304, headers=headers)
    size = jobs.facts(file).size
    await _begin(file, 0, size)
    headers["Content-Length"] = str(len(contract) + size)
    return _FilesResponse(_blocks(file, size, contract), [file], 200, headers, MAPS_TYPE)


@guarded.head("/download/{job_id}/{filename}", include_in_schema=False)
@guarded.get(
    "/download/{job_id}/{filename}",
    response_class=Response,
    tags=["jobs"],
    responses={
        200: {
            "content": PASS,
            "description": "The pass",
            "headers": text_headers("ETag", "Last-Modified", "Cache-Control", "Accept-Ranges"),
        },
        206: {
            "content": PASS,
            "description": "The bytes asked for",
            "headers": text_headers("ETag", "Last-Modified", "Cache-Control", "Accept-Ranges", "Content-Range"),
        },
        304: {"description": "Not modified", "headers": text_headers("ETag")},
        307: {
            "description": "Where the store sends the pass from",
            "headers": text_headers("Location", "Cache-Control"),
        },
        **problems(
            "invalid_request",
            "job_not_found",
            "file_not_found",
            "mask_not_found",
            "model_missing",
            "overloaded",
            "storage_full",
            statuses=(416,),
        ),
    },
    openapi_extra={
        "parameters": [
            IF_NONE_MATCH,
            _header(
                "Range", "one range of bytes, such as bytes=0-1023 or bytes=-500; anything else gets the whole pass"
            ),
            _header("If-Range", "the ETag of the copy begun: the range is sent only of that one, else the whole pass"),
        ]
    },
)
async def download(
    job_id: str, filename: FileName, request: Request, service: Services, owner: Owner, direct: bool = False
) -> Response:
    """One pass, such as normals.png or relit.png, or all of them in passes.zip; or the job's motion.

    Those that take the lights of the last relight, and scene.glb, are made when they are first asked for, unless by
    HEAD. HEAD answers likewise, without the bytes. `direct`: where the server allows it, answer with an address, valid
    for a minute, from which the store of the jobs sends the pass; else the pass is sent as without it.
    """
    job_id = request.state.job_id = jobs.parse_id(job_id)
    make = request.method != "HEAD"
    if filename == jobs.ARCHIVE:
        return await _archive(await service.open_archive(job_id, owner, make), request)
    name, file = await service.open_pass(job_id, filename, owner, make)
    stat = jobs.facts(file)
    media_type = jobs.media_type(name.value)
    headers = {
        "ETag": _etag([file]),
        "Cache-Control": "private, no-cache",
        "Accept-Ranges": "bytes",
        "Last-Modified": formatdate(stat.modified, usegmt=True),
        "Content-Disposition": jobs.disposition(name.value),
    }
    if _is_known(headers["ETag"], request):
        file.close()
        return Response(status_code=304, headers=headers)
    if not make:
        file.close()
        return Response(headers={**headers, "Content-Length": str(stat.size)}, media_type=media_type)
    url = await service.direct(job_id, name, DIRECT_SECONDS) if direct else None
    if url is not None:
        file.close()
        return Response(status_code=307, headers={"Location": url, "Cache-Control": "no-store"})
    try:
        first, count, status = _share(headers, stat.size, request)
    except InvalidRequest:
        file.close()
        raise
    await _begin(file, first, count)
    return _FilesResponse(_blocks(file, count), [file], status, headers, media_type)


def _share(headers: Dict[str, str], size: int, request: Request) -> Tuple[int, int, int]:
    """What of a file of `size` bytes is asked for: the first byte, their number, the status; the headers tell it.

    Raises InvalidRequest (416).
    """
    asked = request.headers.get("range", "")
    same = request.headers.get("if-range", headers["ETag"]).strip() == headers["ETag"]
    part = byte_range(asked, size) if same else None
    first, count = part or (0, size)
    headers["Content-Length"] = str(count)
    if part:
        headers["Content-Range"] = f"bytes {first}-{first + count - 1}/{size}"
    return first, count, 206 if part else 200


async def _begin(file: BinaryIO, first: int, count: int) -> None:
    """Have so many bytes of an open file ready, before a word is sent. Closes it where they cannot be had."""
    try:
        await asyncio.to_thread(jobs.begin, file, first, count)
    except BaseException:
        file.close()
        raise


async def _archive(files: List[Tuple[str, BinaryIO]], request: Request) -> Response:
    """passes.zip of open files, which are closed; none: of HEAD while some are not made."""
    headers = {"Cache-Control": "private, no-cache", "Content-Disposition": jobs.disposition(jobs.ARCHIVE)}
    media_type, opened = jobs.media_type(jobs.ARCHIVE), [file for _, file in files]
    size = archive.size([(name, jobs.facts(file).size) for name, file in files]) if files else None
    if files:
        headers["ETag"] = _etag(opened)
    if size is not None:
        headers["Accept-Ranges"] = "bytes"
    if files and _is_known(headers["ETag"], request):
        _close(opened)
        return Response(status_code=304, headers=headers)
    if request.method == "HEAD":
        _close(opened)
        answer = Response(headers=headers, media_type=media_type)
        del answer.headers["content-length"]  # of no body
        if size is not None:
            answer.headers["Content-Length"] = str(size)
        return answer
    blocks, status = archive.stream(files), 200
    if size is not None:
        try:
            first, count, status = _share(headers, size, request)
        except InvalidRequest:
            _close(opened)
            raise
        blocks = archive.part(blocks, first, count)
    return _FilesResponse(blocks, opened, status, headers, media_type)


def _close(files: List[BinaryIO]) -> None:
    for file in files:
        file.close()


def _etag(files: List[BinaryIO], before: bytes = b"") -> str:
    """Changes whenever one of the open files is another, or what is sent before them."""
    text = " ".join(jobs.facts(file).tag for file in files)
    return '"' + hashlib.sha256(before + text.encode()).hexdigest()[:32] + '"'


def _is_known(etag: str, request: Request) -> bool:
    known = [t.strip().removeprefix("W/") for t in request.headers.get("if-none-match", "").split(",")]
    return etag in known or "*" in known


def byte_range(asked: str, size: int) -> Optional[Tuple[int, int]]:
    """The first byte and the number of bytes that a Range header asks for of `size`; None: the whole.

    RFC 9110, section 14. What is no single well-formed range of bytes is ignored, as the RFC allows. Raises
    InvalidRequest (416) for one beyond the end.
    """
    found = re.fullmatch(r"bytes=[ \t]*([0-9]{0,18})-([0-9]{0,18})[ \t]*", asked, re.IGNORECASE)
    if not found or not (found[1] or found[2]) or (found[1] and found[2] and int(found[1]) > int(found[2])):
        return None
    if found[1]:
        first, last = int(found[1]), int(found[2] or size)
    else:
        first, last = max(0, size - int(found[2])), size
    count = min(last, size - 1) - first + 1
    if count < 1:
        raise InvalidRequest(
            f"That range cannot be had: the file has {size} bytes.", {"Content-Range": f"bytes */{size}"}, 416
        )
    return first, count


class _FilesResponse(StreamingResponse):
    """What is read from open files, which are closed however the answer ends."""

    def __init__(self, content: Any, files: List[BinaryIO], status_code: int, headers: Dict[str, str], media_type: str):
        super().__init__(content, status_code, headers, media_type)
        self._files = files

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            _close(self._files)


async def _blocks(file: BinaryIO, count: int, before: bytes = b"") -> AsyncIterator[bytes]:
    if before:
        yield before
    while count > 0:
        block = await asyncio.to_thread(file.read, min(BLOCK, count))
        if not block:
            return
        count -= len(block)
        yield block


@guarded.delete(
    "/job/{job_id}",
    response_model=schemas.DeleteAnswer,
    tags=["jobs"],
    responses=problems("job_not_found", "overloaded"),
)
async def delete(job_id: str, request: Request, service: Services, owner: Owner) -> Any:
    """Delete a job and all its files."""
    job_id = request.state.job_id = jobs.parse_id(job_id)
    await service.delete(job_id, owner)
    return {"status": "deleted"}


@asynccontextmanager
async def received(request: Request, service: Service) -> AsyncIterator[BinaryIO]:
    """The body of a request as a file; past SPOOLED it waits on disk. It counts as an upload."""
    if request.headers.get("content-type", "").lower().startswith("multipart/"):
        raise InvalidRequest("body: send the picture itself as the body, not a form with it (curl: -T picture.png).")
    with service.uploads(), tempfile.SpooledTemporaryFile(SPOOLED) as file:
        async for block in request.stream():
            await asyncio.to_thread(file.write, block)
        yield cast(BinaryIO, file)


@guarded.put(
    "/job/{job_id}/environment",
    response_model=schemas.Size,
    tags=["light"],
    responses=problems(
        "invalid_request",
        "job_not_found",
        *BAD_FILES,
        "overloaded",
        "storage_full",
        statuses=(400, 408),
    ),
    openapi_extra=FILE_AS_BODY,
)
@takes(FILE_BODY)
async def put_environment(job_id: str, request: Request, service: Services, owner: Owner) -> Any:
    """Give a job light from all around, for `{"type": "upload"}`.

    The body is an equirectangular picture, twice as wide as high: Radiance HDR, OpenEXR, or 8-bit PNG, JPEG or WebP,
    whose middle is what the viewer looks at. It takes the place of the one before. The answer is the size it is kept
    in, at most 512 x 256.
    """
    job_id = request.state.job_id = jobs.parse_id(job_id)
    await service.check_job(job_id, owner)
    async with received(request, service) as file:
        height, width = await service.put_environment(job_id, file, owner)
    return {"width": width, "height": height}


@guarded.delete(
    "/job/{job_id}/environment",
    response_model=schemas.DeleteAnswer,
    tags=["light"],
    responses=problems("job_not_found", "environment_not_found", "overloaded"),
)
async def delete_environment(job_id: str, request: Request, service: Services, owner: Owner) -> Any:
    """Take a job's light from all around away; what was made with it stays."""
    job_id = request.state.job_id = jobs.parse_id(job_id)
    await service.delete_environment(job_id, owner)
    return {"status": "deleted"}


@guarded.put(
    "/job/{job_id}/mask/{name}",
    response_model=schemas.MaskAnswer,
    tags=["light"],
    responses=problems(
        "invalid_request",
        "invalid_mask",
        "job_not_found",
        *BAD_FILES,
        "overloaded",
        "storage_full",
        statuses=(400, 408),
    ),
    openapi_extra=FILE_AS_BODY,
)
@takes(FILE_BODY)
async def put_mask(job_id: str, name: MaskName, request: Request, service: Services, owner: Owner) -> Any:
    """Give a job a mask by that name, for `mask` in a body; it takes the place of the one before.

    The body is a picture of the photo's aspect ratio, within 1 %, and is scaled to the photo. Its alpha is the mask, or
    where that hides nothing, its gray: white is wholly in. A job has at most 8.
    """
    job_id = request.state.job_id = jobs.parse_id(job_id)
    await service.check_mask(job_id, name, owner)
    async with received(request, service) as file:
        height, width = await service.put_mask(job_id, name, file, owner)
    return {"name": name, "width": width, "height": height}


@guarded.head("/job/{job_id}/mask/{name}", include_in_schema=False)
@guarded.get(
    "/job/{job_id}/mask/{name}",
    response_class=Response,
    tags=["light"],
    responses={
        200: {
            "content": {"image/png": {"schema": {"type": "string", "format": "binary"}}},
            "description": "The mask, 8-bit gray",
            "headers": text_headers("ETag", "Cache-Control"),
        },
        304: {"description": "Not modified", "headers": text_headers("ETag")},
        **problems(
            "invalid_request",
            "job_not_found",
            "mask_not_found",
            "model_error",
            "model_missing",
            "overloaded",
            "storage_full",
        ),
    },
    openapi_extra={"parameters": [IF_NONE_MATCH]},
)
async def get_mask(
    job_id: str,
    name: MaskName,
    request: Request,
    service: Services,
    owner: Owner,
    invert: bool = False,
    feather: Feather = 0.0,
    max_side: MaskSide = None,
) -> Response:
    """A mask as a picture, as lights take it: `sky` and, where the models give one, `subject` too.

    Of the photo's size, or that of previews and maps of `max_side`. What is built in or feathered waits for the
    analysis. HEAD makes nothing.
    """
    job_id = request.state.job_id = jobs.parse_id(job_id)
    mask = schemas.Mask(name=name, invert=invert, feather=feather).to_mask()
    headers = {"Cache-Control": "private, no-cache"}

    def is_wanted(tag: str) -> bool:
        headers["ETag"] = f'"{hashlib.sha256(tag.encode()).hexdigest()[:32]}"'
        return request.method != "HEAD" and not _is_known(headers["ETag"], request)

    data = await service.mask(job_id, mask, max_side, owner, is_wanted, disconnection(request))
    if data is None and _is_known(headers["ETag"], request):
        return Response(status_code=304, headers=headers)
    return Response(data, media_type="image/png", headers=headers)


@guarded.delete(
    "/job/{job_id}/mask/{name}",
    response_model=schemas.DeleteAnswer,
    tags=["light"],
    responses=problems(
        "invalid_request", "invalid_mask", "job_not_found", "mask_not_found", "overloaded", "storage_full"
    ),
)
async def delete_mask(job_id: str, name: MaskName, request: Request, service: Services, owner: Owner) -> Any:
    """Take a mask of a job away; what was made with it stays."""
    job_id = request.state.job_id = jobs.parse_id(job_id)
    await service.delete_mask(job_id, name, owner)
    return {"status": "deleted"}


@guarded.get(
    "/job/{job_id}", response_model=schemas.JobState, tags=["jobs"], responses=problems("job_not_found", "overloaded")
)
async def job(job_id: str, request: Request, service: Services, owner: Owner) -> Any:
    """The state of a job."""
    job_id = request.state.job_id = jobs.parse_id(job_id)
    return await service.state(job_id, owner)


@guarded.get(
    "/job/{job_id}/events",
    response_class=Response,
    tags=["jobs"],
    responses={
        200: {
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
            "description": "Events named `state`; the data is that of GET /job/{job_id}",
        },
        **problems("job_not_found", "overloaded"),
    },
)
async def events(job_id: str, request: Request, service: Services, owner: Owner) -> Response:
    """The state of a job whenever it changes, until it is ready or failed and no motion of it renders."""
    job_id = request.state.job_id = jobs.parse_id(job_id)
    await service.state(job_id, owner)

    async def stream() -> AsyncIterator[str]:
        async for state in service.events(job_id, owner):
            yield f"event: state\ndata: {json.dumps(state)}\n\n" if state is not None else ": still here\n\n"

    return StreamingResponse(
        stream(), media_type="text/event-stream", headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    )


@router.head("/health", include_in_schema=False)
@router.get("/health", tags=["server"])
async def health() -> Dict[str, str]:
    """Is the process alive?"""
    return {"status": "alive"}


@router.head("/ready", include_in_schema=False)
@router.get("/ready", tags=["server"], responses=problems("model_missing"))
async def ready(request: Request, service: Services) -> Any:
    """Are the models loaded and warm, and on which provider do they really run?"""
    try:
        service.check_ready()
    except ModelMissing as exc:  # no fault that the counters should tell of
        return problem_response(exc, request.state.request_id)
    return {
        "ready": True,
        "keys": bool(request.app.state.keys),
        "models": [
            {"name": m.get("name"), "provider": m.get("provider"), "roles": m.get("roles_filled")}
            for m in service.models()
        ],
    }


@guarded.get("/models", tags=["server"])
async def models(service: Services) -> Dict[str, Any]:
    """The models that run, the presets and environments, and the defaults and limits of /relight and /upload."""
    told = await asyncio.to_thread(service.describe)
    limits = {"lights": schemas.MAX_LIGHTS, **told["limits"]}
    return {
        **told,
        "defaults": schemas.defaults(),
        "presets": presets.told(),
        "environments": skies.told(),
        "limits": limits,
    }


@guarded.get(
    "/metrics",
    response_class=Response,
    tags=["server"],
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "Prometheus text"}},
)
async def metrics(request: Request, service: Services) -> Response:
    """Prometheus metrics."""
    text = await asyncio.to_thread(lambda: request.app.state.metrics.text(service.peer_metrics()))
    return Response(text, media_type="text/plain; version=0.0.4")


@router.head("/", include_in_schema=False)
@router.get("/", include_in_schema=False)
async def page() -> Response:
    """The page."""
    return FileResponse(STATIC / "index.html", headers={"Cache-Control": "no-cache"})


@router.head("/docs", include_in_schema=False)
@router.get("/docs", include_in_schema=False)
async def docs() -> Response:
    """The OpenAPI page."""
    return FileResponse(STATIC / "docs.html", headers={"Cache-Control": "no-cache"})


class _Fresh(StaticFiles):
    """The page's files, asked for again each time (by ETag), so that no browser mixes old and new modules."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers["Cache-Control"] = "no-cache"
        return response


def cross_origin() -> Tuple[List[str], List[str], List[str]]:
    """The methods and request headers that other origins' pages may use, and the response headers they may read."""
    methods, asked, answered = (
        {"GET"},
        {"Authorization", "Content-Type"},
        {"X-Request-ID", "Retry-After", "WWW-Authenticate"},
    )
    for route in [*router.routes, *guarded.routes]:
        if isinstance(route, APIRoute):
            methods |= route.methods or set()
            asked |= {p["name"] for p in (route.openapi_extra or {}).get("parameters", ()) if p["in"] == "header"}
            answered |= {name for answer in route.responses.values() for name in answer.get("headers", ())}
    return sorted(methods), sorted(asked), sorted(answered)


def install(app: FastAPI) -> None:
    """Give the application its endpoints."""
    app.include_router(router)
    app.include_router(guarded)
    app.mount("/static", _Fresh(directory=STATIC), name="static")
    describe(app)
