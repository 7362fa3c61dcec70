"""Caches the digests of files between runs, so that an unchanged file is not read again.

The cache is one SQLite database for all shares of a user; several indexers may use it at the same time. It only saves
time: if it cannot be used, this is reported once and the files are read. Does not read the shared files.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import struct
import time
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from msgspec import Struct

from msd.wire.protocol.segments import DIGEST_SIZE, MAX_BUNDLE_SIZE, file_id
from msd.workers.source.catalogue import Version

#: Digests of a file that changed more recently than this (seconds) are not cached: it may change again within the same
#: clock tick of its file system, which leaves its timestamps unchanged.
SETTLED_AFTER_S = 2.0
#: Entries not used for this many days are removed. The day of the last use is written at most once a week, so that a
#: start with an unchanged share writes nothing.
MAX_AGE_DAYS, MARK_INTERVAL_DAYS = 30, 7
DAY_S = 86400
#: New entries are written together: when they have this many bytes of digests, or after this many seconds.
MAX_UNWRITTEN_BYTES, WRITE_INTERVAL_S = 4 << 20, 2.0
#: How long to wait (seconds) for another process that uses the database. Each write takes a fraction of a second.
BUSY_TIMEOUT_S = 5.0
#: The application id of the database: "msd1" in ASCII.
APPLICATION_ID = 0x6D736431
#: The file and its version are packed numbers, because SQLite has no unsigned integers of 64 bits. ``digests`` is empty
#: for a small file.
SCHEMA = """
    CREATE TABLE digests (
        file BLOB PRIMARY KEY, version BLOB, id BLOB, digests BLOB, checksum INTEGER, used INTEGER
    ) WITHOUT ROWID
"""
_FILE, _VERSION = struct.Struct(">QQ"), struct.Struct(">Qqq")
#: Errors for which the database is not to blame. After any other error it is damaged.
_ENVIRONMENT_ERRORS = {
    sqlite3.SQLITE_AUTH,
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_NOLFS,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_PROTOCOL,
    sqlite3.SQLITE_READONLY,
}


T = TypeVar("T")


class CachedDigests(Struct, frozen=True):
    """The id of a file and, if the file is large, the digests of its segments."""

    id: bytes
    digests: bytes


class DigestCache:
    """The cache in the database ``path``. Calls ``on_failure`` with the reason if it cannot be used. Call ``close()``.

    Entries are kept by device and inode; a new version of a file replaces the entry of the old one.
    """

    def __init__(self, path: Path, on_failure: Callable[[str], None]) -> None:
        self._path = path
        self._on_failure = on_failure
        self._database: sqlite3.Connection | None = None
        #: After a failure, the database is not read or not written until the next ``expire()``.
        self._is_readable = self._is_writable = True
        #: True if a damaged database was removed: a second one means that the disk is not reliable.
        self._is_replaced = False
        #: Entries to write: the columns of the table.
        self._unwritten: list[tuple[bytes, bytes, bytes, bytes, int, int]] = []
        self._unwritten_bytes = 0
        self._next_write = time.monotonic() + WRITE_INTERVAL_S

    def load(self, versions: Iterable[Version]) -> dict[Version, CachedDigests]:
        """Returns what is known of up to some hundred versions."""
        keys = {_FILE.pack(version.device, version.inode): version for version in versions}
        if not keys or not self._is_readable or (self._database is None and not os.path.exists(self._path)):
            return {}
        marks = ",".join("?" * len(keys))
        query = f"SELECT file, version, id, digests, checksum FROM digests WHERE file IN ({marks})"  # noqa: S608
        rows = self._use(lambda database: database.execute(query, [*keys]).fetchall())
        found = {}
        for file, packed, id, digests, checksum in rows or []:
            # A damaged key may be found in place of another one.
            version = keys.get(file)
            if version is None or packed != _pack(version) or not _is_intact(version, id, digests):
                continue
            if checksum == _checksum(file, packed, id):
                found[version] = CachedDigests(id, digests)
        return found

    def store(self, version: Version, id: bytes, digests: bytes, opened_at: float) -> None:
        """Stores the digests of a version that was opened at ``opened_at`` (seconds since 1970) and then read, unless
        the file had changed less than ``SETTLED_AFTER_S`` before.
        """
        if opened_at - max(version.mtime_ns, version.ctime_ns) / 1e9 < SETTLED_AFTER_S:
            return
        file, packed = _FILE.pack(version.device, version.inode), _pack(version)
        self._unwritten.append((file, packed, id, digests, _checksum(file, packed, id), _today()))
        self._unwritten_bytes += len(digests)
        if self._unwritten_bytes > MAX_UNWRITTEN_BYTES or time.monotonic() >= self._next_write:
            self.write()

    def write(self) -> None:
        """Writes the stored entries to the database."""
        entries, self._unwritten, self._unwritten_bytes = self._unwritten, [], 0
        if entries:
            self._write("INSERT OR REPLACE INTO digests VALUES (?, ?, ?, ?, ?, ?)", entries)
        self._next_write = time.monotonic() + WRITE_INTERVAL_S

    def expire(self, used: Iterable[Version]) -> None:
        """Removes the entries that were not used for ``MAX_AGE_DAYS``; the versions in ``used`` count as used now.
        After a failure, the database is tried again from now on.
        """
        self._is_readable = self._is_writable = True
        today = _today()
        files = (_FILE.pack(version.device, version.inode) for version in used)
        marks = ((today, file, today - MARK_INTERVAL_DAYS, today) for file in files)
        if os.path.exists(self._path):
            self._write("UPDATE digests SET used = ? WHERE file = ? AND used NOT BETWEEN ? AND ?", marks)
            # A day in the future is from a time when the clock was wrong.
            oldest = [(today - MAX_AGE_DAYS, today + 1)]
            self._write("DELETE FROM digests WHERE used NOT BETWEEN ? AND ?", oldest)
        # Earlier versions of msd had a file for each entry in this folder.
        shutil.rmtree(self._path.with_suffix(""), ignore_errors=True)

    def close(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None

    def _write(self, statement: str, rows: Iterable[tuple[object, ...]]) -> None:
        """Executes a statement for all rows in one transaction."""

        def write(database: sqlite3.Connection) -> None:
            database.execute("BEGIN IMMEDIATE")
            try:
                database.executemany(statement, rows)
                database.execute("COMMIT")
            except BaseException:
                # Some errors have ended the transaction.
                with contextlib.suppress(sqlite3.Error):
                    database.execute("ROLLBACK")
                raise

        if self._is_readable and self._is_writable:
            self._use(write, writes=True)

    def _use(self, operation: Callable[[sqlite3.Connection], T], *, writes: bool = False) -> T | None:
        """Returns the result of an operation on the database, None if it fails. Removes a damaged database."""
        try:
            if self._database is None:
                self._database = _open(self._path)
            return operation(self._database)
        except (sqlite3.Error, OSError, UnicodeDecodeError) as error:
            if _is_damage(error) and not self._is_replaced:
                self._is_replaced = True
                self.close()
                for suffix in ("", "-journal"):
                    with contextlib.suppress(OSError):
                        os.unlink(f"{self._path}{suffix}")
                self._on_failure(f"the digest cache {self._path} was damaged: a new one replaces it")
            else:
                self._is_writable = False
                self._is_readable = writes and self._database is not None
                reason = getattr(error, "strerror", None) or error
                self._on_failure(f"cannot {'write' if writes else 'read'} the digest cache {self._path}: {reason}")
            return None


def _open(path: Path) -> sqlite3.Connection:
    """Opens the database, and creates it if it is missing or empty. Raises ``OSError`` and ``sqlite3.Error``."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    database = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None)
    try:
        database.execute("PRAGMA synchronous = NORMAL")
        if _application_id(database) != APPLICATION_ID:
            database.execute("PRAGMA auto_vacuum = FULL")
            # Another process may be creating it, too.
            database.execute("BEGIN IMMEDIATE")
            if (application := _application_id(database)) != APPLICATION_ID:
                if application or database.execute("SELECT name FROM sqlite_master").fetchone():
                    raise OSError(0, "it belongs to another program")
                database.execute(SCHEMA)
                database.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            database.execute("COMMIT")
    except BaseException:
        database.close()
        raise
    return database


def _application_id(database: sqlite3.Connection) -> int:
    return int(database.execute("PRAGMA application_id").fetchone()[0])


def _is_damage(error: Exception) -> bool:
    """True if the database is to blame. ``UnicodeDecodeError``: SQLite quotes damaged text in a message."""
    if isinstance(error, OSError):
        return False
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF not in _ENVIRONMENT_ERRORS


def _is_intact(version: Version, id: object, digests: object) -> bool:
    """True if an entry of the database can be the one of this version. Damage may also change types."""
    if not isinstance(id, bytes) or not isinstance(digests, bytes):
        return False
    is_small = version.size <= MAX_BUNDLE_SIZE
    return not digests and len(id) == DIGEST_SIZE if is_small else file_id(version.size, digests) == id


def _pack(version: Version) -> bytes:
    return _VERSION.pack(version.size, version.mtime_ns, version.ctime_ns)


def _checksum(file: bytes, version: bytes, id: bytes) -> int:
    return zlib.crc32(file + version + id)


def _today() -> int:
    return int(time.time() // DAY_S)
