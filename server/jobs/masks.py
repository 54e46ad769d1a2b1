"""The masks of jobs: their names in masks.json, a part of the job's record; their pictures in numbered slots.

What lies in a slot never changes: a new picture comes into a free one before the name stands for it, and relit.png
holds on to those it was made with, for the passes that are made of it later. So whoever reads a mask needs no lock;
whoever writes one holds that of the room on disk.
"""

import re
import uuid
from contextlib import suppress
from dataclasses import replace
from typing import Annotated, BinaryIO, Callable, Dict, Optional, Sequence, Set, Tuple

import numpy as np
from pydantic import Field, TypeAdapter, ValidationError

from ..errors import DamagedFile, FileNotFound, InvalidMask, MaskNotFound, StorageFull, UnsupportedImage
from ..image.decode import read_png
from ..image.decoder_pool import Decoded
from ..image.encode import encode_png, png_about
from ..image.resample import Size
from ..light.lights import BUILT_IN, Mask, Rig
from ..light.masks import fits, mask_of, scaled
from . import look
from .base import MASK_SLOTS, MAX_MASKS, JobFile, JobStore
from .record import Record

NAME = "^[a-z0-9_-]{1,32}$"
VERSION = "^([0-9]|1[0-6])-[0-9a-f]{32}$"  # the number of a slot, and a mark that no other picture bears
LINEAR = ("EXR", "HDR")  # formats whose numbers are exposed when they are read
HEAD = 256  # bytes of a slot's file among which its mark stands
VERSIONS: "TypeAdapter[Dict[str, str]]" = TypeAdapter(
    Dict[Annotated[str, Field(pattern=NAME)], Annotated[str, Field(pattern=VERSION)]]
)


def versions(store: JobStore, job_id: str) -> Dict[str, str]:
    """Which picture each name of a job stands for; none where that cannot be read. Raises JobNotFound."""
    try:
        return VERSIONS.validate_json(store.get(job_id, JobFile.MASKS))
    except (FileNotFound, ValidationError):
        return {}


def open_version(store: JobStore, job_id: str, version: str) -> BinaryIO:
    """The file of a picture, open at its beginning. Raises JobNotFound, MaskNotFound when there is none any more."""
    try:
        stream = store.open(job_id, _slot(version))
    except FileNotFound:
        raise MaskNotFound() from None
    if png_about(stream.read(HEAD)) != version.split("-")[1]:
        stream.close()
        raise MaskNotFound()
    stream.seek(0)
    return stream


def read_version(store: JobStore, job_id: str, version: str) -> np.ndarray:
    """A picture (H, W) uint8, of the photo's size. Raises JobNotFound, MaskNotFound."""
    try:
        with open_version(store, job_id, version) as stream:
            mask = read_png(stream.read())
    except DamagedFile:
        raise MaskNotFound("This mask is damaged. PUT it again.") from None
    mask.setflags(write=False)
    return mask


def found(store: JobStore, record: Record, rig: Rig, told: Callable[[], Sequence[str]]) -> Rig:
    """A rig whose masks have their versions; those that have one keep it.

    told: which masks that are built in the photo has. Raises JobNotFound, MaskNotFound, which names the field.
    """
    named = versions(store, record.job_id) if any(mask.name not in BUILT_IN for mask in rig.masks) else {}

    def find(mask: Optional[Mask], field: str) -> Optional[Mask]:
        try:
            return None if mask is None else resolved(mask, named, told)
        except MaskNotFound as exc:
            raise MaskNotFound(f"{field}: {exc.detail}") from None

    lights = (replace(lamp, mask=find(lamp.mask, f"lights.{k}.mask")) for k, lamp in enumerate(rig.lights))
    return replace(rig, mask=find(rig.mask, "mask"), lights=tuple(lights))


def resolved(mask: Mask, named: Dict[str, str], told: Callable[[], Sequence[str]]) -> Mask:
    """A mask with its version, by the names of a job; see found. Raises MaskNotFound."""
    if mask.version:
        return mask
    if mask.name in BUILT_IN:
        if mask.name not in told():
            raise MaskNotFound(f"The models that analysed this photo give no {mask.name}: PUT a mask of another name.")
        return mask
    if mask.name not in named:
        raise MaskNotFound(_none_of_that_name(named))
    return replace(mask, version=named[mask.name])


def _none_of_that_name(named: Dict[str, str]) -> str:
    has = f"has {', '.join(sorted(named))}" if named else "was given none"
    return (
        f"This job has no mask of that name; it {has}, and {' and '.join(BUILT_IN)} are built in. "
        "PUT one to /job/{job_id}/mask/{name} first."
    )


def made_of(decoded: Decoded, photo: Size) -> np.ndarray:
    """An upload as a mask (H, W) uint8 of a photo of that size (H, W). Raises UnsupportedImage, InvalidMask."""
    if decoded.format in LINEAR:
        raise UnsupportedImage("A mask is no picture of light: send a PNG, JPEG, WebP, AVIF, TIFF, BMP or GIF file.")
    (h, w), (H, W) = decoded.pixels.shape[:2], photo
    if not fits((h, w), photo):
        raise InvalidMask(
            f"This mask is {w} x {h}, and the photo {W} x {H}: their aspect ratios must agree within 1 %."
        )
    return scaled(mask_of(decoded.pixels), photo)


def check_writable(name: str) -> None:
    """Raises InvalidMask for the names of those that are built in."""
    if name in BUILT_IN:
        raise InvalidMask(f"{name} is built in, and can neither be written nor deleted. Take another name.")


def check_count(store: JobStore, job_id: str, name: str) -> None:
    """Raises InvalidMask where a job has so many masks that it may not have one more; JobNotFound."""
    named = versions(store, job_id)
    if name not in named and len(named) >= MAX_MASKS:
        raise InvalidMask(f"This job has {len(named)} masks, which is the most. Delete one first.")


def encoded(mask: np.ndarray, threads: int) -> Tuple[bytes, str]:
    """A mask (H, W) uint8 as a PNG, and the mark that it bears."""
    mark = uuid.uuid4().hex
    return encode_png(mask, threads, mark), mark


def put(store: JobStore, job_id: str, name: str, data: bytes, mark: str) -> None:
    """Give a name what `encoded` made. To be used under the lock of the room.

    Raises JobNotFound, InvalidMask, StorageFull.
    """
    check_count(store, job_id, name)
    named = versions(store, job_id)
    kept = {_slot(version) for version in _held(store, job_id, named)}
    number = next(k for k, slot in enumerate(MASK_SLOTS) if slot not in kept)
    store.put(job_id, MASK_SLOTS[number], data)
    try:
        _save(store, job_id, {**named, name: f"{number}-{mark}"})
    except StorageFull:
        store.discard(job_id, [MASK_SLOTS[number]])
        raise


def delete(store: JobStore, job_id: str, name: str) -> None:
    """Take a name away. To be used under the lock of the room. Raises JobNotFound, MaskNotFound, StorageFull."""
    named = versions(store, job_id)
    if name not in named:
        raise MaskNotFound(_none_of_that_name(named))
    _save(store, job_id, {other: version for other, version in named.items() if other != name})


def are_kept(store: JobStore, job_id: str, rig: Rig) -> bool:
    """Are the pictures of a rig's masks there still, as no name came to stand for others? Raises JobNotFound.

    To be used under the lock of the room, by whoever makes relit.png hold on to them.
    """
    wanted, named = {mask.version for mask in rig.masks if mask.version}, versions(store, job_id)
    return wanted <= set(named.values()) or wanted <= _held(store, job_id, named)


def _save(store: JobStore, job_id: str, named: Dict[str, str]) -> None:
    """Write down which picture each name stands for, and let go of those that nobody needs."""
    store.put(job_id, JobFile.MASKS, VERSIONS.dump_json(named))
    kept = {_slot(version) for version in _held(store, job_id, named)}
    store.discard(job_id, [slot for slot in MASK_SLOTS if slot not in kept])


def _held(store: JobStore, job_id: str, named: Dict[str, str]) -> Set[str]:
    """The pictures that names stand for, and those that relit.png was made with."""
    held = set(named.values())
    with suppress(FileNotFound, DamagedFile), store.open(job_id, JobFile.RELIT) as relit:
        held |= {mask.version for mask in look.parse(look.carried(relit.read(look.HEAD))).masks if mask.version}
    return held


def _slot(version: str) -> JobFile:
    """Raises MaskNotFound for what is no version."""
    if not re.fullmatch(VERSION, version):
        raise MaskNotFound()
    return MASK_SLOTS[int(version.split("-")[0])]
