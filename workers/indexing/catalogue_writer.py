"""Indexes the shared files into an edition of the catalogue.

Unchanged files are not read again: their digests come from the previous catalogue or, after a restart, from the user's
cache. Does not scan the shared folder (``workers/source/scan.py``), does not decide when to index
(``workers/indexing/rescan_policy.py``) and does not read the files (``workers/indexing/file_hasher.py``).
"""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from msd.wire.protocol.child_messages import Indexed, IndexingDone, IndexLine, IndexProgress, IndexSkipped
from msd.wire.protocol.segments import MAX_BUNDLE_SIZE, segment_count
from msd.workers.indexing.digest_cache import DigestCache
from msd.workers.indexing.edition_writer import EditionWriter
from msd.workers.indexing.file_hasher import FileChangedError, HashedFile, hash_files
from msd.workers.indexing.kept_index import KeptIndex
from msd.workers.source.catalogue import VERSION, AnyVersion, Catalogue, SharedFile, SharedFolder, Version
from msd.workers.source.share import Share

if TYPE_CHECKING:
    from msd.workers.source.object_store import ObjectStore

#: Seconds between two progress reports; each is a line in a terminal or a log.
PROGRESS_INTERVAL_S = 3.0
#: Files that are looked up in the cache together, and their digests: large files have many.
MAX_BATCH_FILES, MAX_BATCH_DIGESTS = 256, 1 << 17

#: The permissions of a file that every user may read.
READABLE = 0o444

OnProgress = Callable[[IndexLine], None]


def write_catalogue(
    share: Share,
    wanted: Mapping[str, AnyVersion],
    folder: Path,
    cache: DigestCache,
    on_progress: OnProgress,
    previous: Catalogue | None = None,
    reread: Set[str] = frozenset(),
    stores: Mapping[str, ObjectStore] | None = None,
    kept: Sequence[KeptIndex] = (),
) -> tuple[Indexed, Mapping[str, AnyVersion]]:
    """Indexes the ``wanted`` files and folders of ``share`` into ``folder``, which must exist. Reads a file only if
    neither the ``previous`` catalogue nor the cache has the wanted version of it, or if its name is in ``reread``.

    ``kept`` are the indexes of ``stores`` that lie beside their objects.

    Calls ``on_progress`` to report progress, and to report each file that is left out because it cannot be read. A file
    that changes while it is read keeps its entry from the previous catalogue, if it has one. Returns the final message
    and the versions in the catalogue. Raises ``OSError`` if ``folder`` cannot be written to.
    """
    old = dict(previous.records()) if previous else {}
    names = sorted(wanted)
    changed: dict[str, Version] = {}
    for name in names:
        version = wanted[name]
        if isinstance(version, Version):
            record = old.get(name)
            if record is None or name in reread or record[: VERSION.size] != version.packed:
                changed[name] = version
    progress = _Progress(on_progress, changed)
    results = _index(_Hasher(share, stores or {}, progress), changed, cache, kept, progress, reread)
    indexed: dict[str, AnyVersion] = {}
    files = size = 0
    with closing(progress), EditionWriter(folder) as writer:
        for name in names:
            version = wanted[name]
            result = next(results) if name in changed else None
            if isinstance(version, SharedFolder):
                writer.add(name, version.record)
            elif isinstance(result, HashedFile):
                version = result.version
                writer.add(name, SharedFile(name, version, result.id).record, result.digests)
            elif name in old and (result is None or isinstance(result, FileChangedError)):
                digests = b""
                if previous is not None and (result is not None or version.size > MAX_BUNDLE_SIZE):
                    file = SharedFile.unpack(name, old[name])
                    version = file.version
                    digests = b"" if file.is_small else previous.digests(file, 0, file.segments)
                writer.add(name, old[name], digests)
            elif result is not None:
                on_progress(IndexSkipped(name=name, reason=result.strerror or str(result)))
                continue
            indexed[name] = version
            if isinstance(version, Version):
                files += 1
                size += version.size
        catalogue = writer.finish()
    # One copy of the versions in memory suffices.
    versions = wanted if indexed == wanted else indexed
    return Indexed(files=files, size=size, hashed=progress.hashed, catalogue=catalogue.hex()), versions


class _Hasher:
    """Reads and hashes shared files, wherever they are."""

    def __init__(self, share: Share, stores: Mapping[str, ObjectStore], progress: _Progress) -> None:
        self._share = share
        self._stores = stores
        self._on_read = progress.on_read

    def hash(self, names: Sequence[str], versions: Mapping[str, Version]) -> Iterator[HashedFile | OSError]:
        """Yields the result for each file, in the same order."""
        if not self._stores:
            return hash_files(self._share, names, self._on_read)
        return self._hash_both(names, versions)

    def _hash_both(self, names: Sequence[str], versions: Mapping[str, Version]) -> Iterator[HashedFile | OSError]:
        # Importing it takes time that shares of local files save.
        from msd.workers.indexing.object_hasher import hash_objects

        objects = [(name, versions[name]) for name in names if self._share.is_in_store(name)]
        local = hash_files(self._share, [n for n in names if not self._share.is_in_store(n)], self._on_read)
        remote = hash_objects(self._share, self._stores, objects, self._on_read)
        for name in names:
            yield next(remote if self._share.is_in_store(name) else local)

    def is_readable(self, name: str, version: Version) -> bool:
        """True if this user may read a file. The cache may be from a time when root used it."""
        return version.mode & READABLE == READABLE or os.access(self._share.locate(name), os.R_OK)


def _index(
    hasher: _Hasher,
    changed: Mapping[str, Version],
    cache: DigestCache,
    kept: Sequence[KeptIndex],
    progress: _Progress,
    reread: Set[str],
) -> Iterator[HashedFile | OSError]:
    """Yields the result for each changed file, in the same order. Reads the files that are not in the cache, and a file
    that has several names only once.
    """
    repeated = {version for version, count in Counter(changed.values()).items() if count > 1}
    #: The results of these versions.
    known: dict[Version, HashedFile] = {}
    for names in _batches(changed):
        cached = cache.load(changed[name] for name in names if name not in reread)
        for index in kept:
            cached |= index.load(changed[name] for name in names)
        to_read: list[str] = []
        being_read: set[Version] = set()
        for name in names:
            version = changed[name]
            is_known = version in known or version in being_read or (version in cached and name not in reread)
            if not is_known or not hasher.is_readable(name, version):
                to_read.append(name)
                if version in repeated:
                    being_read.add(version)
        progress.begin(names, to_read)
        read: dict[str, HashedFile | OSError] = {}
        for name, result in zip(to_read, hasher.hash(to_read, changed), strict=True):
            progress.files += 1
            read[name] = result
            if isinstance(result, HashedFile):
                cache.store(result.version, result.id, result.digests, result.opened_at)
                if changed[name] in repeated:
                    known[changed[name]] = result
        for name in names:
            version = changed[name]
            if name in read:
                yield read[name]
            elif version in known:
                yield known[version]
            elif version in cached and name not in reread:
                yield HashedFile(version, cached[version].id, cached[version].digests, 0.0)
            else:  # Under its other name, the file could not be read.
                yield next(hasher.hash([name], changed))


def _batches(files: Mapping[str, Version]) -> Iterator[list[str]]:
    """Divides files into batches that are small enough to keep all digests of a batch in memory."""
    batch: list[str] = []
    digests = 0
    for name, version in files.items():
        if batch and (len(batch) == MAX_BATCH_FILES or digests > MAX_BATCH_DIGESTS):
            yield batch
            batch, digests = [], 0
        batch.append(name)
        digests += segment_count(version.size)
    if batch:
        yield batch


class _Progress:
    """Counts the files and bytes of an indexing, and reports them every ``PROGRESS_INTERVAL_S``."""

    def __init__(self, on_progress: OnProgress, changed: Mapping[str, Version]) -> None:
        self._on_progress = on_progress
        self._changed = changed
        self._total = self._size_of(changed)
        #: The files that have been processed, the bytes of the batches before this one, and the bytes of this one.
        self.files = 0
        self._done = self._batch_done = self._batch_size = 0
        self._next_report = 0.0
        #: The bytes that were read and hashed.
        self.hashed = 0
        self._lock = threading.Lock()

    def begin(self, names: Sequence[str], to_read: Sequence[str]) -> None:
        """Begins a batch. The files that need not be read have been processed."""
        self.files += len(names) - len(to_read)
        self._done += self._batch_size
        self._batch_size = self._size_of(names)
        self._batch_done = self._batch_size - self._size_of(to_read)

    def on_read(self, name: str, length: int, hashed: int) -> None:
        """Counts ``length`` more bytes of the file ``name`` as processed, ``hashed`` of which had to be read."""
        with self._lock:
            self.hashed += hashed
            self._batch_done += length
            now = time.monotonic()
            if now < self._next_report:
                return
            self._next_report = now + PROGRESS_INTERVAL_S
            done = min(self._done + self._batch_done, self._total)
            self._on_progress(IndexProgress(name, done, self._total, self.files, len(self._changed)))

    def close(self) -> None:
        """Reports the end of the indexing, if it has reported progress."""
        if self._next_report:
            self._on_progress(IndexingDone())

    def _size_of(self, names: Iterable[str]) -> int:
        return sum(self._changed[name].size for name in names)
