"""Memory: what is freed is kept for the next picture while one is worked on, and given back to the system after."""

import ctypes
import sys
from typing import Any

MMAP_THRESHOLD, TRIM_THRESHOLD = -3, -1  # of mallopt, see malloc.h
KEPT = 32 << 20  # bytes


def _libc(name: str) -> Any:
    """A function of the C library, or None: only glibc has these, and only it needs them."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None


def keep_freed() -> None:
    """From now on, arrays of up to 32 MB are taken from what others have left: pages of the system's cost time."""
    set_option = _libc("mallopt")
    if set_option is not None:
        set_option(MMAP_THRESHOLD, KEPT)
        set_option(TRIM_THRESHOLD, 2 * KEPT)


def give_back() -> None:
    """Give what is free back to the system, which glibc does not do by itself where threads come and go."""
    trim = _libc("malloc_trim")
    if trim is not None:
        trim(0)
