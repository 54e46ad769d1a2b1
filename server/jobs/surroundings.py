"""The environments of jobs, as files: environment.npy, linear light as half floats."""

import io
from typing import BinaryIO, Optional, Tuple

import numpy as np

from ..errors import DamagedFile, EnvironmentNotFound, FileNotFound
from .base import JobFile, JobStore

LONGEST = 128  # bytes of a header: what NumPy writes before so small an array


def pack(radiance: np.ndarray) -> bytes:
    """Radiance (h, w, 3) float16 as environment.npy."""
    out = io.BytesIO()
    np.save(out, radiance, allow_pickle=False)
    return out.getvalue()


def size(store: JobStore, job_id: str) -> Optional[Tuple[int, int]]:
    """(height, width) of a job's environment; None where it has none that can be read. Raises JobNotFound."""
    try:
        with store.open(job_id, JobFile.ENVIRONMENT) as file:
            return _shape(file)[:2]
    except (FileNotFound, DamagedFile):
        return None


def radiance(store: JobStore, job_id: str) -> np.ndarray:
    """A job's environment (h, w, 3) float16. Raises JobNotFound, EnvironmentNotFound."""
    try:
        file = io.BytesIO(store.get(job_id, JobFile.ENVIRONMENT))
        shape = _shape(file)
        found = np.frombuffer(file.read(), np.float16).reshape(shape)
        if not np.isfinite(found).all():
            raise DamagedFile("radiance that is not finite")
        return found
    except (FileNotFound, DamagedFile, ValueError):
        raise EnvironmentNotFound() from None


def _shape(file: BinaryIO) -> Tuple[int, int, int]:
    """The shape that the beginning of environment.npy tells. Raises DamagedFile."""
    try:
        np.lib.format.read_magic(file)
        shape, fortran, kind = np.lib.format.read_array_header_1_0(file, max_header_size=LONGEST)
    except (ValueError, EOFError, SyntaxError, TypeError) as exc:
        raise DamagedFile("no readable array") from exc
    if len(shape) != 3 or shape[2] != 3 or fortran or kind != np.float16:
        raise DamagedFile("no picture")
    return shape
