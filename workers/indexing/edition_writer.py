"""Writes the files of an edition of the catalogue, and computes the digest of the catalogue.

Does not read the shared files: see ``workers/indexing/file_hasher.py``.
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Self

from blake3 import blake3

from msd.wire.protocol.child_messages import DIGESTS, NAMES, RECORD, RECORDS
from msd.wire.protocol.segments import DIGEST_SIZE

#: What the digest of a catalogue covers of a record: the modification time, the permissions and the id.
COVERED = slice(32, 74)
#: The position of the first digest in a record.
FIRST_DIGEST = slice(74, 82)
assert RECORD.size == FIRST_DIGEST.stop


class EditionWriter:
    """An edition in ``folder``, which must exist. A context manager. Raises ``OSError`` if it cannot be written."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._names: list[str] = []
        self._records = bytearray(DIGEST_SIZE)
        self._digests_file = (folder / DIGESTS).open("wb")
        self._digests = 0
        self._hasher = blake3()

    def add(self, name: str, record: bytes, digests: bytes = b"") -> None:
        """Adds a file or folder. Call it in the order of the names."""
        if digests:
            record = record[: FIRST_DIGEST.start] + self._digests.to_bytes(8, "big")
            self._digests_file.write(digests)
            self._digests += len(digests) // DIGEST_SIZE
        self._names.append(name)
        self._records += record
        self._hasher.update(b"%b\0%b" % (name.encode(), record[COVERED]))

    def finish(self) -> bytes:
        """Writes all files; returns the digest of the catalogue."""
        id = self._hasher.digest()
        self._records[:DIGEST_SIZE] = id
        self._digests_file.close()
        (self._folder / NAMES).write_bytes("".join(f"{name}\0" for name in self._names).encode())
        (self._folder / RECORDS).write_bytes(self._records)
        return id

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._digests_file.close()
