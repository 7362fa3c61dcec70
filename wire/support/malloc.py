"""How glibc keeps the memory of freed segments: for the next ones, instead of giving it back.

Its own rules return a freed buffer of 1 MiB to the kernel, and the next one costs a page fault for every
4 KiB. Does nothing where the C library is another one.
"""

from __future__ import annotations

import ctypes

#: ``mallopt`` parameters (malloc.h) and their values in bytes, but for the last: one arena, so that what ZeroMQ's
#: thread allocates and the main thread frees lies where these settings hold.
_SETTINGS = {
    "M_TRIM_THRESHOLD": (-1, 256 << 20),
    "M_TOP_PAD": (-2, 64 << 20),
    "M_MMAP_THRESHOLD": (-3, 32 << 20),
    "M_ARENA_MAX": (-8, 1),
}


def keep_freed_memory() -> None:
    """Call it before ZeroMQ's threads start. For processes of our own, not for those that import us."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for parameter, value in _SETTINGS.values():
            mallopt(parameter, value)
