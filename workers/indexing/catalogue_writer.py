"""Hashes the segments of the shared files and writes the catalogue.

Unchanged files are not read again: their digests come from the previous catalogue or, after a restart, from the user's
cache folder. Does not scan the shared folder (``workers/source/scan.py``) and does not decide when to index
(``workers/indexing/rescan_policy.py``).
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Callable, Iterable, Mapping, Set
from pathlib import Path

import msgspec
from msgspec import structs

from msd.wire.protocol.child_messages import Indexed, IndexLine, IndexProgress, IndexSkipped
from msd.wire.protocol.segments import DIGEST_SIZE, digest, file_id, segment_count, span
from msd.wire.support.files import replace_file
from msd.workers.source.catalogue import (
    PERMISSIONS,
    AnyVersion,
    Catalogue,
    SharedFile,
    SharedFolder,
    Version,
    versions_of,
)
from msd.workers.source.listing import Listing
from msd.workers.source.local_files import open_shared
from msd.workers.source.share import Share

#: Seconds between two progress reports; each is a line in a terminal or a log.
PROGRESS_INTERVAL_S = 3.0
#: Digests of a file that changed more recently than this (seconds) are not cached: it may change again within the same
#: clock tick of its file system, which leaves its timestamps unchanged.
SETTLED_AFTER_S = 2.0
#: Digests not used for this long (seconds) are removed from the cache.
CACHE_MAX_AGE_S = 30 * 86400.0

OnProgress = Callable[[IndexLine], None]


#: The reason that is given for a file that changed while it was being read.
CHANGED = "changed while being read"


class FileChangedError(OSError):
    """A file changed while it was being read."""


def write_catalogue(
    share: Share,
    wanted: Mapping[str, AnyVersion],
    folder: Path,
    cache: DigestCache,
    on_progress: OnProgress,
    previous: Catalogue | None = None,
    reread: Set[str] = frozenset(),
) -> tuple[Indexed, dict[str, AnyVersion]]:
    """Indexes the ``wanted`` files and folders of ``share`` into ``folder``, which must exist. Opens a file only if the
    ``previous`` catalogue does not contain the wanted version of it, or to read it again because its name is in
    ``reread``.

    Calls ``on_progress`` to report progress, and to report each file that is left out because it cannot be read. A file
    that changes while it is read keeps its entry from the previous catalogue, if it has one. Returns the final message
    and the versions in the catalogue. Raises ``OSError`` if ``folder`` cannot be written to.
    """
    old_files = {file.name: file for file in previous.files} if previous else {}
    folders = [version for _, version in sorted(wanted.items()) if isinstance(version, SharedFolder)]
    versions = {name: version for name, version in sorted(wanted.items()) if isinstance(version, Version)}
    changed = {
        name
        for name, version in versions.items()
        if name in reread or name not in old_files or old_files[name].version != version
    }
    progress = _Progress(on_progress, sum(versions[name].size for name in changed))
    files: list[SharedFile] = []
    first_digest = 0
    with (folder / "digests").open("wb") as digests_file:
        for name in versions:
            file = old_files.get(name)
            digests = previous.digests(file, 0, file.segments) if previous and file else b""
            if name in changed:
                try:
                    status, digests = _index_file(share, name, cache, progress, reread=name in reread)
                    id = file_id(status.st_size, digests)
                    file = SharedFile(name, Version.of(status), id, 0, status.st_mode & PERMISSIONS)
                except OSError as error:
                    if file is None or not isinstance(error, FileChangedError):
                        on_progress(IndexSkipped(name=name, reason=error.strerror or str(error)))
                        continue
                finally:
                    progress.done += versions[name].size
            assert file is not None
            digests_file.write(digests)
            files.append(structs.replace(file, first_digest=first_digest))
            first_digest += file.segments
    (folder / "files.jsonl").write_bytes(msgspec.json.Encoder().encode_lines(files))
    (folder / "folders.jsonl").write_bytes(msgspec.json.Encoder().encode_lines(folders))
    size = sum(file.size for file in files)
    id = Listing([*files, *folders]).id
    indexed = Indexed(files=len(files), size=size, hashed=progress.hashed, catalogue=id.hex())
    return indexed, versions_of(files, folders)


class DigestCache:
    """Caches the digests of files by version, one cache entry (a file in ``folder``) per version.

    An entry holds the file's id followed by its digests, so that damaged entries are detected and ignored.
    Write errors are ignored too: the cache only saves time.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def load(self, version: Version) -> bytes | None:
        """Returns the digests of a version, or None if there is no intact entry. Marks the entry as used now."""
        path = self._path(version)
        try:
            content = path.read_bytes()
            os.utime(path)
        except OSError:
            return None
        id, digests = content[:DIGEST_SIZE], content[DIGEST_SIZE:]
        return digests if id == file_id(version.size, digests) else None

    def store(self, version: Version, digests: bytes, started: float) -> None:
        """Stores the digests of a version that was opened and read after ``started`` (seconds since 1970), unless the
        file changed less than ``SETTLED_AFTER_S`` before ``started``.
        """
        if started - max(version.mtime_ns, version.ctime_ns) / 1e9 < SETTLED_AFTER_S:
            return
        with contextlib.suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            replace_file(self._path(version), file_id(version.size, digests) + digests)

    def expire(self, used: Iterable[Version]) -> None:
        """Removes entries that were not used for ``CACHE_MAX_AGE_S``. The versions in ``used`` count as used now."""
        for version in used:
            with contextlib.suppress(OSError):
                os.utime(self._path(version))
        oldest = time.time() - CACHE_MAX_AGE_S
        with contextlib.suppress(OSError):
            for path in self._folder.iterdir():
                if path.stat().st_mtime < oldest:
                    path.unlink()

    def _path(self, version: Version) -> Path:
        return self._folder / digest(msgspec.json.encode(version)).hex()


class _Progress:
    """Counts the bytes read, and reports them every ``PROGRESS_INTERVAL_S``."""

    def __init__(self, on_progress: OnProgress, total: int) -> None:
        self._on_progress = on_progress
        self._total = total
        #: The size of the files that have been processed.
        self.done = 0
        self._next_report = 0.0
        self.hashed = 0

    def on_read(self, name: str, done: int, length: int) -> None:
        """Counts ``length`` more bytes read from file ``name``. Its first ``done`` bytes have now been processed."""
        self.hashed += length
        now = time.monotonic()
        if now >= self._next_report:
            self._next_report = now + PROGRESS_INTERVAL_S
            self._on_progress(IndexProgress(name=name, done=min(self.done + done, self._total), total=self._total))


def _index_file(
    share: Share, name: str, cache: DigestCache, progress: _Progress, *, reread: bool
) -> tuple[os.stat_result, bytes]:
    """Returns the status of a file and its digests; with ``reread`` not those in the cache.

    Raises ``OSError``; in particular ``FileChangedError`` if the file changes while it is read.
    """
    # Record the time before opening the file: hashing may take long and must not make the file look settled.
    started = time.time()
    fd, status = open_shared(share, name)
    with os.fdopen(fd, "rb", buffering=0):
        version = Version.of(status)
        digests = None if reread else cache.load(version)
        if digests is None:
            digests = _hash(fd, version, name, progress)
            cache.store(version, digests, started)
    return status, digests


def _hash(fd: int, version: Version, name: str, progress: _Progress) -> bytes:
    """Returns the digests of an open file. Raises ``FileChangedError`` as soon as the file is no longer ``version``."""
    size = version.size
    digests = bytearray()
    buffer = memoryview(bytearray(span(size, 0)[1] if size else 0))
    zeros = memoryview(bytes(len(buffer)))
    for index in range(segment_count(size)):
        offset, length = span(size, index)
        if _is_hole(fd, offset, length):
            # A hole reads as zeros: hash the same zeros for every hole instead of reading the file.
            digests += digest(zeros[:length])
            read = length
        else:
            read = os.preadv(fd, [buffer[:length]], offset)
            digests += digest(buffer[:length])
            progress.on_read(name, offset + read, read)
        if read != length or Version.of(os.fstat(fd)) != version:
            raise FileChangedError(0, CHANGED)
    return bytes(digests)


def _is_hole(fd: int, offset: int, length: int) -> bool:
    """True if the file system reports the whole range as a hole."""
    try:
        return os.lseek(fd, offset, os.SEEK_DATA) >= offset + length
    except OSError as error:
        return error.errno == errno.ENXIO  # There is no data from ``offset`` to the end of the file.
