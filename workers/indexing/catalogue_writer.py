"""Cuts every shared file into segments and writes the catalogue.

Files that have not changed are not read again: their digests come from the catalogue before, or, in
another run, from the user's cache folder. Which files there are is found out in ``workers/source/scan.py``;
when that is done, and done again, is said in ``workers/indexing/indexer.py``.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import msgspec
from msgspec import structs

from msd.wire.protocol.child_messages import Indexed, IndexLine, IndexProgress, IndexSkipped
from msd.wire.protocol.segments import DIGEST_SIZE, digest, file_id, segment_count, span
from msd.workers.source.catalogue import Catalogue, SharedFile, Version, catalogue_id
from msd.workers.source.local_files import open_shared

#: Seconds between two lines of progress.
PROGRESS_INTERVAL = 0.1
#: A file changed more recently than this (seconds) may change again within the same clock tick of
#: its file system, unseen; its digests are not kept.
SETTLED = 2.0
#: Digests not used for this long (seconds) are removed from the cache.
CACHE_AGE = 30 * 86400.0

Report = Callable[[IndexLine], None]


class Moved(OSError):
    """A file that changed while it was read."""


def write_catalogue(
    root: Path,
    wanted: Mapping[str, Version],
    folder: Path,
    cache: DigestCache,
    report: Report,
    previous: Catalogue | None = None,
) -> tuple[Indexed, dict[str, Version]]:
    """Indexes the ``wanted`` files of ``root`` into ``folder``, which must exist. Opens only those that
    the ``previous`` catalogue does not hold in the wanted version.

    ``report`` is called with progress and with each file that is left out because it cannot be read.
    One that changes meanwhile stays as it was in the previous catalogue. Also returns the versions
    that it holds. Raises ``OSError`` if ``folder`` cannot be written to.
    """
    before = {name: file for name in wanted if (file := previous.find(name, None))} if previous else {}
    same = {name for name, file in before.items() if file.version == wanted[name]}
    progress = _Progress(report, sum(version.size for name, version in wanted.items() if name not in same))
    files: list[SharedFile] = []
    first = 0
    with (folder / "digests").open("wb") as digests:
        for name in sorted(wanted):
            reused = name in same
            if not reused:
                try:
                    version, its_digests = _index_file(root, name, cache, progress)
                except OSError as error:
                    reused = isinstance(error, Moved) and name in before
                    if not reused:
                        report(IndexSkipped(name=name, why=error.strerror or str(error)))
                        continue
                finally:
                    progress.file_done(wanted[name].size)
            if reused:
                assert previous is not None
                file = structs.replace(before[name], first=first)
                its_digests = previous.all_digests(before[name])
            else:
                file = SharedFile(name, version, file_id(version.size, its_digests), first)
            digests.write(its_digests)
            files.append(file)
            first += file.segments
    (folder / "files.jsonl").write_bytes(msgspec.json.Encoder().encode_lines(files))
    size = sum(file.size for file in files)
    indexed = Indexed(files=len(files), size=size, hashed=progress.hashed, catalogue=catalogue_id(files).hex())
    return indexed, {file.name: file.version for file in files}


class DigestCache:
    """Digests of files by their version, one file for each in ``folder``.

    Each holds the id and then the digests, so that a damaged one is recognised and ignored.
    Failures to write are ignored too: the cache only saves time.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def load(self, version: Version) -> bytes | None:
        path = self._path(version)
        try:
            content = path.read_bytes()
            os.utime(path)
        except OSError:
            return None
        id, digests = content[:DIGEST_SIZE], content[DIGEST_SIZE:]
        return digests if id == file_id(version.size, digests) else None

    def store(self, version: Version, digests: bytes, began: float) -> None:
        """Keeps the digests of a version that was looked up and read after ``began`` (seconds of the
        clock of the files), unless it was changed so shortly before that it may not be settled.
        """
        if began - max(version.mtime_ns, version.ctime_ns) / 1e9 < SETTLED:
            return
        path = self._path(version)
        temporary = path.with_suffix(f".{os.getpid()}")
        with contextlib.suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(file_id(version.size, digests) + digests)
            temporary.replace(path)

    def expire(self, used: Iterable[Version]) -> None:
        """Removes what was not used for ``CACHE_AGE``; these versions are in use."""
        for version in used:
            with contextlib.suppress(OSError):
                os.utime(self._path(version))
        oldest = time.time() - CACHE_AGE
        with contextlib.suppress(OSError):
            for path in self._folder.iterdir():
                if path.stat().st_mtime < oldest:
                    path.unlink()

    def _path(self, version: Version) -> Path:
        return self._folder / digest(msgspec.json.encode(version)).hex()


class _Progress:
    """Counts what was read and reports it now and then."""

    def __init__(self, report: Report, total: int) -> None:
        self._report = report
        self._total = total
        self._done = 0
        self._next = 0.0
        self.hashed = 0

    def read(self, name: str, done: int, length: int) -> None:
        """``length`` more bytes of file ``name`` were read, ``done`` of them in all."""
        self.hashed += length
        now = time.monotonic()
        if now >= self._next:
            self._next = now + PROGRESS_INTERVAL
            self._report(IndexProgress(name=name, done=min(self._done + done, self._total), total=self._total))

    def file_done(self, size: int) -> None:
        self._done += size


def _index_file(root: Path, name: str, cache: DigestCache, progress: _Progress) -> tuple[Version, bytes]:
    """The version of a file and its digests. Raises ``OSError``; ``Moved`` if it does not stand still."""
    # Before anything is looked at: hashing takes long, and must not make the file look settled.
    began = time.time()
    fd, status = open_shared(root, name)
    with os.fdopen(fd, "rb", buffering=0):
        version = Version.of(status)
        digests = cache.load(version)
        if digests is None:
            digests = _hash(fd, version, name, progress)
            cache.store(version, digests, began)
    return version, digests


def _hash(fd: int, version: Version, name: str, progress: _Progress) -> bytes:
    """The digests of an open file. Raises ``Moved`` as soon as it is not this version any more."""
    size = version.size
    digests = bytearray()
    buffer = memoryview(bytearray(span(size, 0)[1] if size else 0))
    zeros = memoryview(bytes(len(buffer)))
    for index in range(segment_count(size)):
        offset, length = span(size, index)
        if _is_hole(fd, offset, length):
            # Zeros, that need not be read; the same buffer of them for all holes.
            digests += digest(zeros[:length])
            read = length
        else:
            read = os.preadv(fd, [buffer[:length]], offset)
            digests += digest(buffer[:length])
            progress.read(name, offset + read, read)
        if read != length or Version.of(os.fstat(fd)) != version:
            raise Moved(0, "it keeps changing while it is read")
    return bytes(digests)


def _is_hole(fd: int, offset: int, length: int) -> bool:
    """True if the file system says that there is nothing but a hole."""
    try:
        return os.lseek(fd, offset, os.SEEK_DATA) >= offset + length
    except OSError as error:
        return error.errno == errno.ENXIO  # No data from there to the end.
