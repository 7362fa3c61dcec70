"""Makes glibc keep freed memory for reuse instead of returning it to the kernel.

By default glibc returns a freed buffer of 1 MiB to the kernel, and the next buffer then costs a page fault for every 4
KiB. Does nothing with other C libraries.
"""

from __future__ import annotations

import ctypes

#: ``mallopt`` parameters (malloc.h) and their values: three thresholds in bytes, and a single arena, so that the
#: thresholds also apply to memory that ZeroMQ's thread allocates and the main thread frees.
_SETTINGS = {
    "M_TRIM_THRESHOLD": (-1, 256 << 20),
    "M_TOP_PAD": (-2, 64 << 20),
    "M_MMAP_THRESHOLD": (-3, 32 << 20),
    "M_ARENA_MAX": (-8, 1),
}


def keep_freed_memory() -> None:
    """Changes settings of the whole process, so only msd's own processes call this function. They call it before ZeroMQ
    starts its threads.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for parameter, value in _SETTINGS.values():
            mallopt(parameter, value)
