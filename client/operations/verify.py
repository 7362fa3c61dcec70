"""``msd verify``: a file on this disk compared with the shared one, segment by segment.

Fetches digests only, and changes nothing.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

from msd.client.manifest.fetch import find_manifest
from msd.client.network.pool import ConnectionPool
from msd.client.storage.local_copy import LocalCopy, unreadable
from msd.wire.config.settings import Servers
from msd.wire.errors import UsageError
from msd.wire.protocol.segments import Manifest, span
from msd.wire.support.text import presentable

#: Seconds after which nobody is taken to answer any more.
PATIENCE = 5.0


class Comparison(Struct, frozen=True):
    """What became of the comparison: ``size`` is what the file should have, ``held`` what it has, in
    bytes; ``bad`` are the segments that it does not hold as they were shared.
    """

    name: str
    size: int
    held: int
    segments: int
    bad: tuple[int, ...]

    @property
    def is_same(self) -> bool:
        return not self.bad and self.held == self.size


def verify(servers: Servers, file: Path, name: str | None = None, patience: float = PATIENCE) -> Comparison:
    """Compares ``file`` with the shared file ``name``, which may be left out where one is shared, or one that is
    called as ``file`` is.

    Raises ``MsdError``, ``NoAnswerError`` after ``patience`` seconds without an answer.
    """
    try:
        fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise UsageError(f"{file}: no such file to verify") from None
    except OSError as error:
        raise unreadable(file, error) from None
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise UsageError(f"{file} is not a regular file: give one to verify")
        peers = ConnectionPool(servers, download=False)
        try:
            manifest, _ = find_manifest(
                peers, name, None, timeout=patience, on_event=lambda event: None, guess=file.name
            )
        finally:
            peers.close()
        try:
            return compare(fd, manifest)
        except OSError as error:
            raise unreadable(file, error) from None
    finally:
        os.close(fd)


def compare(fd: int, manifest: Manifest) -> Comparison:
    """Reads and hashes an open file, but for its holes. Raises ``OSError`` where it cannot be read."""
    copy = LocalCopy(fd, manifest)
    held = os.fstat(fd).st_size
    data = {*copy.candidates()}

    def is_right(index: int) -> bool:
        if index in data:
            return copy.load(index) is not None
        return sum(manifest.span(index)) <= held and copy.is_zeros(index)

    bad = tuple(index for index in range(manifest.segments) if not is_right(index))
    return Comparison(manifest.name, manifest.size, held, manifest.segments, bad)


def mismatches(verdict: Comparison) -> Iterator[str]:
    """What is not as it was shared, for people: a line for each run of bad segments."""
    name = presentable(verdict.name)
    for first, last in _runs(verdict.bad):
        start, (offset, length) = span(verdict.size, first)[0], span(verdict.size, last)
        which = f"segment {first} differs" if first == last else f"segments {first} to {last} differ"
        yield f"{which}: bytes {start} to {offset + length - 1}"
    if verdict.held > verdict.size:
        yield f"{verdict.held - verdict.size} bytes more than {name} has"
    elif verdict.held < verdict.size:
        yield f"{verdict.size - verdict.held} bytes less than {name} has"


def _runs(numbers: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """The first and the last number of each run of consecutive ones."""
    first = 0
    for position, number in enumerate(numbers):
        if position + 1 == len(numbers) or numbers[position + 1] != number + 1:
            yield numbers[first], number
            first = position + 1
