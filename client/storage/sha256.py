"""The SHA-256 of a whole file, as publishers print it beside a download.

Only reads. Segments are verified with their own digests, in ``client/operations/transfer.py``.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from msd.wire.errors import UsageError

if TYPE_CHECKING:
    from hashlib import _Hash

#: Bytes read at a time: large enough for the full speed of the hash, small enough for the processor's caches.
CHUNK_SIZE = 1 << 18


def parse_sha256(text: str) -> str:
    """Returns a SHA-256 in lower case. ``text`` may also be ``sha256:HEX`` or a line of ``sha256sum``. Raises
    ``UsageError`` for anything else.
    """
    match = re.fullmatch(r"(?:sha256:)?([0-9A-Fa-f]{64})(?: [ *].+)?", text)
    if match is None:
        raise UsageError(f"sha256 {text}: a SHA-256 has 64 hexadecimal digits", arguments=("sha256",))
    return match[1].lower()


def new_sha256() -> _Hash:
    import hashlib  # Rarely needed, and slow to import.

    return hashlib.sha256()


def sha256_of(fd: int) -> str:
    """Returns the SHA-256 of an open file as hexadecimal digits. Raises ``OSError`` if the file cannot be read."""
    total = new_sha256()
    buffer = memoryview(bytearray(CHUNK_SIZE))
    offset = 0
    while read := os.preadv(fd, [buffer], offset):
        total.update(buffer[:read])
        offset += read
    return total.hexdigest()
