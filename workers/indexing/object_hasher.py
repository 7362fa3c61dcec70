"""Reads objects of stores and computes their digests.

Several ranges are read at once, of one large object or of several small ones, because each has to wait for the store.
``workers/indexing/file_hasher.py`` reads local files. Does not cache digests and does not choose the objects.
"""

from __future__ import annotations

import errno
import math
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Set
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, islice

from msgspec import Struct

from msd.wire.protocol.segments import MAX_BUNDLE_SIZE, content_id, digest, file_id, segment_size
from msd.workers.indexing.file_hasher import CHANGED, FileChangedError, HashedFile, OnRead
from msd.workers.source.catalogue import Version
from msd.workers.source.object_store import ObjectStore, StoreError
from msd.workers.source.share import Share

#: Ranges that are read at once, and those that are begun before the result of the first is needed.
THREADS, AHEAD = 16, 32
#: The size in bytes of a range of a large object, unless a segment of the object is larger.
RANGE_SIZE = 4 << 20
#: Attempts to read a range, if the store sends it wrongly or does not answer.
ATTEMPTS = 3


class _Range(Struct, frozen=True):
    """A range of an object, which consists of whole segments: ``is_last`` says whether it is the last one of it."""

    store: ObjectStore
    path: str
    name: str
    version: Version
    offset: int
    length: int
    is_last: bool


def hash_objects(
    share: Share, stores: Mapping[str, ObjectStore], objects: Iterable[tuple[str, Version]], on_read: OnRead
) -> Iterator[HashedFile | OSError]:
    """Reads and hashes objects, given by name and version, and yields a result for each in the same order; an error if
    it cannot be read, in particular ``FileChangedError`` if it was replaced.
    """
    with ThreadPoolExecutor(THREADS, thread_name_prefix="objects") as pool:
        pending: deque[tuple[_Range, Future[bytes]]] = deque()
        digests: list[bytes] = []
        #: Of the present object, and the objects of which no further range is read.
        failure: OSError | None = None
        failed: set[str] = set()
        wanted = chain.from_iterable(_ranges(share, stores, name, version) for name, version in objects)
        try:
            while True:
                for part in islice(wanted, AHEAD - len(pending)):
                    pending.append((part, pool.submit(_hash_range, part, on_read, failed)))
                if not pending:
                    return
                part, future = pending.popleft()
                try:
                    digests.append(future.result())
                except OSError as error:
                    failure = failure or error
                    failed.add(part.name)
                if part.is_last:
                    yield failure or _hashed(part.version, digests)
                    digests, failure = [], None
                    failed.discard(part.name)
        finally:
            for _, future in pending:
                future.cancel()


def _ranges(share: Share, stores: Mapping[str, ObjectStore], name: str, version: Version) -> Iterator[_Range]:
    root, path = share.split(name)
    store = stores[root]
    if version.size <= MAX_BUNDLE_SIZE:
        yield _Range(store, path, name, version, 0, version.size, is_last=True)
        return
    segment = segment_size(version.size)
    size = segment * max(1, RANGE_SIZE // segment)
    for offset in range(0, version.size, size):
        end = min(offset + size, version.size)
        yield _Range(store, path, name, version, offset, end - offset, is_last=end == version.size)


def _hash_range(part: _Range, on_read: OnRead, failed: Set[str]) -> bytes:
    """Returns the digests of the segments of a range, or the id of a small object. Raises ``OSError``, at once if the
    object is one of ``failed``.
    """
    if part.name in failed:
        raise StoreError(errno.ECANCELED, "another range of the object cannot be read")
    for attempt in range(1, ATTEMPTS + 1):
        try:
            data = _read(part)
            break
        except StoreError as error:
            if error.errno not in (errno.EAGAIN, errno.EIO) or attempt == ATTEMPTS:
                raise
    on_read(part.name, len(data), len(data))
    if part.version.size <= MAX_BUNDLE_SIZE:
        return content_id(data)
    segment = segment_size(part.version.size)
    return b"".join(digest(data[start : start + segment]) for start in range(0, len(data), segment))


def _read(part: _Range) -> memoryview:
    key = part.store.key(part.path)
    data = memoryview(b"")
    if part.length == 0:
        # A folder may be marked by an empty object, whose name ends in "/": it is listed, but cannot be found.
        found = part.store.find(key)
    else:
        data, found, _ = part.store.read(key, part.offset, part.length, None)
    if (found.inode, found.size) != (part.version.inode, part.version.size):
        raise FileChangedError(0, CHANGED)
    return data


def _hashed(version: Version, digests: list[bytes]) -> HashedFile:
    # The version of an object tells of each change, so it may be cached at once.
    if version.size <= MAX_BUNDLE_SIZE:
        return HashedFile(version, digests[0], b"", math.inf)
    joined = b"".join(digests)
    return HashedFile(version, file_id(version.size, joined), joined, math.inf)
