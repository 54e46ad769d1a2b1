"""What a network says about a photograph, on the network's own grid; as an object and as a file."""

import io
import struct
import zipfile
import zlib
from dataclasses import dataclass
from typing import Any, Dict, NamedTuple, Optional

import numpy as np

from ..errors import DamagedFile, ModelError

NUMBERS = ("focal", "shading_share")
BYTES = ("seen", "subject")
# What NumPy and the ZIP reader below it raise for damaged bytes; RuntimeError: flags of an encryption that is not
# there.
UNREADABLE = (
    OSError,
    EOFError,
    ValueError,
    MemoryError,
    OverflowError,
    RuntimeError,
    struct.error,
    zlib.error,
    zipfile.BadZipFile,
)


class Visibility(NamedTuple):
    """What a photograph's surfaces see, whatever the lights: the share of a distant light that arrives.

    seen: (K, h', w') uint8, 255 = all of it, on a grid of its own over the photograph.
    directions: (K, 3) float32 unit vectors toward the light, +x right, +y up, +z toward the viewer.
    """

    seen: np.ndarray
    directions: np.ndarray


@dataclass(frozen=True)
class Geometry:
    """Arrays of one size (h, w) that keep the photograph's aspect ratio.

    inverse_depth: (h, w) float32, larger is nearer, relative: scale and shift unknown.
    normals: (h, w, 3) float32 unit vectors, +x right, +y up, +z toward the viewer; None: derived from the depth.
    mask: (h, w) float32 0..1, 1 where there is a surface (not sky or void); None: a surface everywhere.
    focal: focal length in units of the picture width (fx / width); None: unknown.
    relief: 0..1, how much of what the photograph's shading says against the normals is believed (see refinement.py).
    visibility: what the surfaces see; None: unknown.
    shading: (h, w, 3) float32, the natural logarithm of the light that the photograph was taken in, red, green and
    blue, each up to a factor; None: unknown.
    shading_share: 0..1, how much of the photograph's own light is taken from it, the rest being fitted to the normals.
    subject: (h', w') uint8, 255 = this stands in front, on a grid of its own over the photograph; None: unknown.
    """

    inverse_depth: np.ndarray
    normals: Optional[np.ndarray] = None
    mask: Optional[np.ndarray] = None
    focal: Optional[float] = None
    relief: float = 0.0
    visibility: Optional[Visibility] = None
    shading: Optional[np.ndarray] = None
    shading_share: float = 0.0
    subject: Optional[np.ndarray] = None


def pack(geometry: Geometry) -> bytes:
    """Geometry as geometry.npz: inverse depth float32, visibility and subject uint8, all else float16."""
    arrays: Dict[str, Any] = {"inverse_depth": geometry.inverse_depth.astype(np.float32)}
    if geometry.normals is not None:
        arrays["normals"] = geometry.normals.astype(np.float16)
    if geometry.mask is not None:
        arrays["mask"] = geometry.mask.astype(np.float16)
    if geometry.focal is not None:
        arrays["focal"] = np.float32(geometry.focal)
    if geometry.visibility is not None:
        arrays["seen"], arrays["directions"] = geometry.visibility
    if geometry.shading is not None:
        arrays["shading"], arrays["shading_share"] = geometry.shading.astype(np.float16), geometry.shading_share
    if geometry.subject is not None:
        arrays["subject"] = geometry.subject
    out = io.BytesIO()
    np.savez(out, **arrays)
    return out.getvalue()


def unpack(data: bytes) -> Geometry:
    """The opposite of `pack`. Raises DamagedFile for bytes that are not what `pack` writes."""
    found = _arrays(data)
    if "inverse_depth" not in found or any(found[name].shape != () for name in NUMBERS if name in found):
        raise DamagedFile("no geometry")
    geometry = Geometry(
        found["inverse_depth"],
        found.get("normals"),
        found.get("mask"),
        float(found["focal"]) if "focal" in found else None,
        visibility=Visibility(found["seen"], found["directions"]) if {"seen", "directions"} <= set(found) else None,
        shading=found.get("shading"),
        shading_share=float(found.get("shading_share", 0)),
        subject=found.get("subject"),
    )
    try:
        return checked(geometry)
    except ModelError as exc:
        raise DamagedFile("the geometry's arrays do not fit together") from exc


def _arrays(data: bytes) -> Dict[str, np.ndarray]:
    """The arrays of an .npz archive that a geometry may have, float32 (BYTES: uint8). Raises DamagedFile."""
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as z:
            return {
                name: np.asarray(z[name], np.uint8 if name in BYTES else np.float32)
                for name in ("inverse_depth", "normals", "mask", "directions", "shading", *BYTES, *NUMBERS)
                if name in z
            }
    except UNREADABLE as exc:
        raise DamagedFile("no readable archive") from exc


def checked(geometry: Geometry) -> Geometry:
    """Whatever engine or file it came from: the right shapes, and no value that is not finite. Raises ModelError."""
    if np.ndim(geometry.inverse_depth) != 2:
        raise ModelError()
    h, w = np.shape(geometry.inverse_depth)
    wanted = (
        (geometry.inverse_depth, (h, w)),
        (geometry.normals, (h, w, 3)),
        (geometry.mask, (h, w)),
        (geometry.shading, (h, w, 3)),
    )
    for array, shape in wanted:
        if array is not None and np.shape(array) != shape:
            raise ModelError()
        if array is not None and not np.isfinite(array).all():
            raise ModelError("The model answered with values that are not finite for this photo. Upload another image.")
    if not 0 <= geometry.shading_share <= 1:
        raise ModelError()
    subject = geometry.subject
    if subject is not None and (subject.ndim != 2 or 0 in subject.shape or subject.dtype != np.uint8):
        raise ModelError()
    if geometry.visibility is not None:
        seen, directions = geometry.visibility
        fits = np.ndim(seen) == 3 and np.shape(directions) == (len(seen), 3) and 0 not in np.shape(seen)
        if not fits or seen.dtype != np.uint8 or not np.isfinite(directions).all():
            raise ModelError()
    return geometry
