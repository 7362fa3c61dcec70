"""Cuts every shared file into segments and writes the catalogue.

Files that have not changed since an earlier run are not read again: their digests are kept in the
user's cache folder. When that is done, and done again, is said in ``workers/indexer.py``.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from wire.errors import NotFoundError, SourceError
from wire.messages import Indexed, IndexLine, IndexProgress, IndexSkipped
from wire.names import is_presentable, presentable
from wire.segments import DIGEST_SIZE, MAX_FILE_SIZE, digest, file_id, segment_count, span
from workers.catalogue import SharedFile, Version, catalogue_id
from workers.library import open_shared

#: Seconds between two lines of progress.
PROGRESS_INTERVAL = 0.1
#: A file changed more recently than this (seconds) may change again within the same clock tick of
#: its file system, unseen; its digests are not kept.
SETTLED = 2.0
#: Digests not used for this long (seconds) are removed from the cache.
CACHE_AGE = 30 * 86400.0
#: A file that changes while it is read is read again this often before it is left out.
ATTEMPTS = 3

Report = Callable[[IndexLine], None]


def write_catalogue(root: Path, folder: Path, cache: DigestCache, report: Report) -> Indexed:
    """Indexes ``root`` (a file or a folder) into ``folder``, which must exist.

    ``report`` is called with progress and with each file that is left out. Raises ``MsdError`` if
    there is nothing to share: a single file that cannot be shared, or no file at all.
    """
    found = sorted(found_below(root, report))
    progress = _Progress(report, sum(seen.size for _, seen in found))
    files: list[SharedFile] = []
    first = 0
    with (folder / "digests").open("wb") as digests:
        for name, seen in found:
            try:
                version, its_digests = _index_file(root, name, cache, progress)
            except OSError as error:
                why = error.strerror or str(error)
                if not root.is_dir():
                    raise SourceError(f"{root}: cannot be shared: {why}") from None
                report(IndexSkipped(name=name, why=why))
                continue
            finally:
                progress.file_done(seen.size)
            digests.write(its_digests)
            files.append(SharedFile(name, version, file_id(version.size, its_digests), first))
            first += segment_count(version.size)
    if not files:
        raise NotFoundError(f"{root}: holds no file that can be shared")
    return _written(folder, files, progress.hashed)


def write_empty(folder: Path) -> Indexed:
    """Writes a catalogue of no files into ``folder``, which must exist."""
    (folder / "digests").touch()
    return _written(folder, [], 0)


def _written(folder: Path, files: list[SharedFile], hashed: int) -> Indexed:
    (folder / "files.jsonl").write_bytes(msgspec.json.Encoder().encode_lines(files))
    size = sum(file.size for file in files)
    return Indexed(files=len(files), size=size, hashed=hashed, catalogue=catalogue_id(files).hex())


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

    def expire(self) -> None:
        """Removes what was not used for ``CACHE_AGE``."""
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


def found_below(root: Path, report: Report) -> Iterator[tuple[str, Version]]:
    """The name and version of each file that may be shared; reports the others. Raises ``MsdError``
    if ``root`` is a file that may not be shared, or nothing.
    """
    if not root.exists():
        raise NotFoundError(f"{root}: no such file or folder to share: check -f or [share] path")
    if not root.is_dir():
        try:
            yield root.name, _seen(root.name, root)
        except OSError as error:
            raise SourceError(f"{root}: cannot be shared: {error.strerror}") from None
        return

    def skip(path: Path, error: OSError) -> None:
        report(IndexSkipped(name=presentable(str(path.relative_to(root))), why=str(error.strerror)))

    for folder, folders, names in os.walk(root, onerror=lambda error: skip(Path(error.filename), error)):
        for base in folders:
            if Path(folder, base).is_symlink():
                skip(Path(folder, base), OSError(0, "a link to a folder"))
        for base in names:
            path = Path(folder, base)
            name = str(path.relative_to(root))
            try:
                seen = _seen(name, path)
            except OSError as error:
                skip(path, error)
            else:
                yield name, seen


def _seen(name: str, path: Path) -> Version:
    """The version of a file that may be shared. Raises ``OSError`` if it may not be. What it really is,
    is checked when it is opened.
    """
    try:
        name.encode()
    except UnicodeEncodeError:
        raise OSError(0, "its name is not UTF-8") from None
    if not is_presentable(name):
        raise OSError(0, "its name holds control characters")
    if len(name) > 4096:
        raise OSError(0, "its name is longer than 4096 characters")
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise OSError(0, "not a regular file")
    if status.st_size > MAX_FILE_SIZE:
        raise OSError(0, f"larger than {MAX_FILE_SIZE} bytes")
    return Version.of(status)


def _index_file(root: Path, name: str, cache: DigestCache, progress: _Progress) -> tuple[Version, bytes]:
    """The version of a file and its digests. Raises ``OSError``, also if it does not stand still."""
    for _ in range(ATTEMPTS):
        # Before anything is looked at: hashing takes long, and must not make the file look settled.
        began = time.time()
        fd, status = open_shared(root, name)
        with os.fdopen(fd, "rb", buffering=0):
            version = Version.of(status)
            cached = cache.load(version)
            if cached is not None:
                return version, cached
            digests = _hash(fd, version.size, name, progress)
            if digests is not None and Version.of(os.fstat(fd)) == version:
                cache.store(version, digests, began)
                return version, digests
    raise OSError(0, "it keeps changing while it is read")


def _hash(fd: int, size: int, name: str, progress: _Progress) -> bytes | None:
    """The digests of the ``size`` bytes of an open file, or None if it ends before."""
    digests = bytearray()
    buffer = memoryview(bytearray(span(size, 0)[1] if size else 0))
    zeros = memoryview(bytes(len(buffer)))
    for index in range(segment_count(size)):
        offset, length = span(size, index)
        if _is_hole(fd, offset, length):
            # Zeros, that need not be read; the same buffer of them for all holes.
            digests += digest(zeros[:length])
            continue
        if os.preadv(fd, [buffer[:length]], offset) != length:
            return None
        digests += digest(buffer[:length])
        progress.read(name, offset + length, length)
    return bytes(digests)


def _is_hole(fd: int, offset: int, length: int) -> bool:
    """True if the file system says that there is nothing but a hole."""
    try:
        return os.lseek(fd, offset, os.SEEK_DATA) >= offset + length
    except OSError as error:
        return error.errno == errno.ENXIO  # No data from there to the end.
