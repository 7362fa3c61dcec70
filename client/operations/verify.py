"""``msd verify``: compares a local file with the shared file, segment by segment, or with a SHA-256.

Fetches only the digests and changes no file.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

from msd.client.manifest.look_up import find_manifest
from msd.client.network.pool import ConnectionPool
from msd.client.network.session import Session
from msd.client.storage.segments_on_disk import SegmentsOnDisk, read_error
from msd.client.storage.sha256 import parse_sha256, sha256_of
from msd.wire.config.servers import Servers
from msd.wire.errors import SourceError, UsageError
from msd.wire.protocol.segments import Manifest, span
from msd.wire.support.presentable_names import presentable
from msd.wire.support.units import format_count

#: How long to wait for each answer.
ANSWER_TIMEOUT_S = 5.0


class Comparison(Struct, frozen=True):
    """The result of comparing a local file with the shared file ``name``.

    ``size`` is the shared file's size in bytes and ``segments`` its number of segments. ``local_size`` is the local
    file's size in bytes. ``differing`` lists the segments that do not match, in ascending order. ``compared`` counts
    the segments that lie within both files and are not all zeros, ``equal`` those of them that match.
    """

    name: str
    size: int
    local_size: int
    segments: int
    differing: tuple[int, ...]
    compared: int
    equal: int

    @property
    def is_copy(self) -> bool:
        """True if the local file seems to be a damaged, incomplete or older copy of the shared file: at least half of
        the data that both could have in common is equal. Zeros do not count: unrelated disk images share many.
        """
        return 0 < self.compared <= 2 * self.equal

    @property
    def matches(self) -> bool:
        return not self.differing and self.local_size == self.size


def verify(servers: Servers, file: Path, name: str | None = None, timeout: float = ANSWER_TIMEOUT_S) -> Comparison:
    """Compares ``file`` with the shared file ``name``.

    ``name`` may be omitted if only one file is shared, or if one shared file has the same base name as ``file``.

    Raises ``MsdError``; ``NoAnswerError`` after ``timeout`` seconds without an answer.
    """
    with _opened(file) as fd:
        with contextlib.closing(ConnectionPool(servers, download=False, timeout=timeout)) as pool:
            manifest, _ = find_manifest(Session(pool), name and name.removeprefix("./"), None, fallback_name=file.name)
        return compare(fd, manifest)


def verify_sha256(file: Path, sha256: str) -> str:
    """Compares the SHA-256 of ``file`` with ``sha256``, without any server. Returns its hexadecimal digits.

    Raises ``MsdError``; ``SourceError`` if the file has another SHA-256.
    """
    expected = parse_sha256(sha256)
    with _opened(file) as fd:
        actual = sha256_of(fd)
    if actual != expected:
        raise SourceError(f"{file}: the SHA-256 is {actual}, but {expected} is expected")
    return actual


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[int]:
    """Opens a regular file for reading; raises ``MsdError`` if that fails or if the file cannot be read."""
    try:
        fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise UsageError(f"{file}: no such file or folder: check the path") from None
    except OSError as error:
        raise read_error(file, error) from None
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise UsageError(f"{file} is not a regular file: give the path of the file to verify")
        yield fd
    except OSError as error:
        raise read_error(file, error) from None
    finally:
        os.close(fd)


def compare(fd: int, manifest: Manifest) -> Comparison:
    """Compares an open file with a manifest, without reading holes. Raises ``OSError`` if the file cannot be read."""
    copy = SegmentsOnDisk(fd, manifest)
    local_size = os.fstat(fd).st_size
    with_data = {*copy.candidates()}

    def matches(index: int) -> bool:
        if index in with_data:
            return copy.read(index) is not None
        return sum(manifest.span(index)) <= local_size and copy.is_all_zeros(index)

    indexes = range(manifest.segments)
    differing = tuple(index for index in indexes if not matches(index))
    compared = {i for i in indexes if sum(manifest.span(i)) <= local_size and not copy.is_all_zeros(i)}
    equal = len(compared.difference(differing))
    return Comparison(manifest.name, manifest.size, local_size, manifest.segments, differing, len(compared), equal)


def mismatch_lines(comparison: Comparison) -> Iterator[str]:
    """Yields the differences as text: one line for each run of differing segments, and one if the sizes differ."""
    name = presentable(comparison.name)
    for first, last in _runs(comparison.differing):
        start, (offset, length) = span(comparison.size, first)[0], span(comparison.size, last)
        difference = f"segment {first} differs" if first == last else f"segments {first} to {last} differ"
        yield f"{difference}: bytes {start} to {offset + length - 1}"
    excess = comparison.local_size - comparison.size
    if excess:
        yield f"{format_count(abs(excess), 'byte')} {'longer' if excess > 0 else 'shorter'} than {name}"


def _runs(numbers: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """Yields the first and the last number of each run of consecutive numbers."""
    first = 0
    for position, number in enumerate(numbers):
        if position + 1 == len(numbers) or numbers[position + 1] != number + 1:
            yield numbers[first], number
            first = position + 1
