"""Compares the content of an open file with that of a shared file, in steps. Only reads."""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path

from msd.client.storage.segments_on_disk import disk_errors, read_error
from msd.wire.protocol.messages import Entry
from msd.wire.protocol.segments import digest, file_id, segment_size

#: How much of a file is read and hashed in a step, in bytes.
STEP = 4 << 20


def compare_content(fd: int, entry: Entry, path: Path) -> Generator[bool | None]:
    """Compares the open file with the shared file ``entry``. Yields None while there is more to read, and then True if
    they have the same content. Raises ``DiskError``, which names ``path``.
    """
    length, digests, read = max(1, segment_size(entry.size)), [], 0
    data = memoryview(bytearray(length))
    for offset in range(0, entry.size, length):
        with disk_errors(path, read_error):
            size = os.preadv(fd, [data[: min(length, entry.size - offset)]], offset)
        digests.append(digest(data[:size]))
        read += size
        if read >= STEP:
            read = 0
            yield None
    with disk_errors(path, read_error):
        local_size = os.fstat(fd).st_size
    yield local_size == entry.size and file_id(entry.size, b"".join(digests)) == entry.id
