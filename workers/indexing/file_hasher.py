"""Reads shared files and computes their digests.

Reads ahead, so that a disk works on several small files at once. Several threads hash a large file: BLAKE3 and reads
release Python's lock. For small files threads would be slower, because opening and describing a file holds it.

Does not cache digests (``workers/indexing/digest_cache.py``) and does not choose the files.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache

from msgspec import Struct

from msd.wire.protocol.segments import (
    DIGEST_SIZE,
    MAX_BUNDLE_SIZE,
    content_id,
    digest,
    file_id,
    segment_count,
    segment_size,
    span,
)
from msd.workers.source.catalogue import Version
from msd.workers.source.local_files import open_shared
from msd.workers.source.share import Share

#: Files that are opened ahead of the file that is read. With 8 a cold disk takes half the time, with 64 no less.
READ_AHEAD = 8
#: Threads that hash a large file, and the number of segments from which on they are worth their start.
MAX_THREADS, MIN_SEGMENTS = 4, 8
#: The reason that is given for a file that changed while it was being read.
CHANGED = "changed while being read"

#: Called for each piece of a file that was processed, also from other threads: the name of the file, the length of the
#: piece in bytes, and how many of them had to be read.
OnRead = Callable[[str, int, int], None]


class FileChangedError(OSError):
    """A file changed while it was being read."""


class HashedFile(Struct, frozen=True):
    """A version of a file, with its id and, if it is large, the digests of its segments. ``opened_at`` is in seconds
    since 1970.
    """

    version: Version
    id: bytes
    digests: bytes
    opened_at: float


def hash_files(share: Share, names: Iterable[str], on_read: OnRead) -> Iterator[HashedFile | OSError]:
    """Reads and hashes files, and yields a result for each in the same order; an error if it cannot be read, in
    particular ``FileChangedError`` if the file changes meanwhile.
    """
    opened: deque[_OpenFile | OSError] = deque()
    try:
        for name in names:
            opened.append(_open(share, name))
            if len(opened) > READ_AHEAD:
                yield _hash(opened.popleft(), on_read)
        while opened:
            yield _hash(opened.popleft(), on_read)
    finally:
        for file in opened:
            if isinstance(file, _OpenFile):
                os.close(file.fd)


class _OpenFile(Struct, frozen=True):
    name: str
    fd: int
    version: Version
    opened_at: float


def _open(share: Share, name: str) -> _OpenFile | OSError:
    """Opens a file and has the system read its beginning."""
    # Record the time before opening the file: hashing may take long and must not make the file look settled.
    opened_at = time.time()
    try:
        fd, status = open_shared(share, name)
    except OSError as error:
        return error
    if status.st_size:
        os.posix_fadvise(fd, 0, MAX_BUNDLE_SIZE, os.POSIX_FADV_WILLNEED)
    return _OpenFile(name, fd, Version.of(status), opened_at)


def _hash(file: _OpenFile | OSError, on_read: OnRead) -> HashedFile | OSError:
    """Returns the result for a file, and closes it."""
    if isinstance(file, OSError):
        return file
    try:
        size = file.version.size
        if size <= MAX_BUNDLE_SIZE:
            return HashedFile(file.version, _hash_small(file, on_read), b"", file.opened_at)
        digests = _hash_large(file, on_read)
        return HashedFile(file.version, file_id(size, digests), digests, file.opened_at)
    except OSError as error:
        return error
    finally:
        os.close(file.fd)


def _hash_small(file: _OpenFile, on_read: OnRead) -> bytes:
    """Returns the id of a small file."""
    data = os.pread(file.fd, file.version.size, 0)
    _check_unchanged(file, is_complete=len(data) == file.version.size)
    on_read(file.name, len(data), len(data))
    return content_id(memoryview(data))


def _hash_large(file: _OpenFile, on_read: OnRead) -> bytes:
    """Returns the digests of a large file."""
    count = segment_count(file.version.size)
    digests = bytearray(DIGEST_SIZE * count)
    # All threads take their next segment from this iterator: Python's lock allows only one of them at a time.
    indexes = iter(range(count))
    failures: list[BaseException] = []

    def hash_segments() -> None:
        try:
            buffer = memoryview(bytearray(segment_size(file.version.size)))
            for index in indexes:
                if failures:
                    break
                value = _hash_segment(file, index, buffer, on_read)
                digests[DIGEST_SIZE * index : DIGEST_SIZE * (index + 1)] = value
        except BaseException as error:
            failures.append(error)

    threads: list[threading.Thread] = []
    # RuntimeError: the limit of threads is reached; those that run suffice.
    with contextlib.suppress(RuntimeError):
        for _ in range(min(MAX_THREADS, len(os.sched_getaffinity(0))) - 1 if count >= MIN_SEGMENTS else 0):
            thread = threading.Thread(target=hash_segments)
            thread.start()
            threads.append(thread)
    hash_segments()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return bytes(digests)


def _hash_segment(file: _OpenFile, index: int, buffer: memoryview, on_read: OnRead) -> bytes:
    """Returns the digest of a segment. Raises ``FileChangedError`` as soon as the file is no longer the version."""
    offset, length = span(file.version.size, index)
    if _is_hole(file.fd, offset, length):
        _check_unchanged(file)
        on_read(file.name, length, 0)
        return _digest_of_zeros(length)
    read = os.preadv(file.fd, [buffer[:length]], offset)
    _check_unchanged(file, is_complete=read == length)
    on_read(file.name, length, length)
    return digest(buffer[:length])


def _check_unchanged(file: _OpenFile, *, is_complete: bool = True) -> None:
    if not is_complete or Version.of(os.fstat(file.fd)) != file.version:
        raise FileChangedError(0, CHANGED)


def _is_hole(fd: int, offset: int, length: int) -> bool:
    """True if the file system reports the whole range as a hole."""
    try:
        return os.lseek(fd, offset, os.SEEK_DATA) >= offset + length
    except OSError as error:
        return error.errno == errno.ENXIO  # There is no data from ``offset`` to the end of the file.


@lru_cache(2)
def _digest_of_zeros(length: int) -> bytes:
    """The digest of a hole, which is not read. A file has segments of at most two lengths."""
    return digest(bytes(length))
