"""The photos of jobs as pixels: from memory where they were lately decoded or used, else from input.png."""

import numpy as np

from ..errors import DamagedFile
from ..image.decode import read_png
from .base import JobFile, JobStore
from .cache import Cache
from .record import Record


class Photos:
    """Reads the photos of jobs; keeps the last ones in the cache of prepared pictures."""

    def __init__(self, store: JobStore, cache: Cache):
        self._store, self._cache = store, cache

    def keep(self, job_id: str, pixels: np.ndarray) -> None:
        """Keep a photo that was just decoded and stored, (H, W, 3) or (H, W, 4) uint8."""
        pixels.setflags(write=False)
        self._cache.put((job_id, "photo"), pixels)

    def read(self, record: Record) -> np.ndarray:
        """The photo of a job, (H, W, 3) or (H, W, 4) uint8. Raises FileNotFound, DamagedFile, JobNotFound."""
        pixels: np.ndarray = self._cache.get((record.job_id, "photo"), lambda: self.read_stored(record))
        return pixels

    def read_stored(self, record: Record) -> np.ndarray:
        """The same, certainly from input.png."""
        pixels = read_png(self._store.get(record.job_id, JobFile.INPUT))
        if pixels.ndim != 3 or pixels.shape[2] not in (3, 4) or pixels.shape[:2] != (record.height, record.width):
            raise DamagedFile("another picture")
        pixels.setflags(write=False)
        return pixels
