"""Memory that was freed, given back to the system."""

import ctypes
import sys


def give_back() -> None:
    """Let the C library return what it holds of freed memory: glibc keeps it for ever where threads come and go."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # musl has none, and needs none
        if trim is not None:
            trim(0)
