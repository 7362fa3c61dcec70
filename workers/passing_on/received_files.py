"""The files that a download receives, wherever their bytes lie at present: a ``Source``.

A file that is received by segments has descriptors, which remain valid when it is renamed; a download is not told that
another program has opened its part file. Any other file is read from its path: it has its name, or still that of its
part file. Everything is compared with its digest before it is returned, because other programs may change the files.

Does not know how files make up units, except for segments: see ``workers/passing_on/holdings.py`` for what is held.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from stat import S_ISREG

from msgspec import Struct

from msd.wire.protocol.segments import DIGEST_SIZE, content_id, digest, segments_of, span
from msd.wire.protocol.states import RefusalReason
from msd.wire.support.part_names import part_name, short_name
from msd.workers.source.catalogue import SharedFile
from msd.workers.source.source import ReadRefused, Wait

#: The number of files whose descriptors stay open: more than a download receives and syncs at the same time, so any
#: other one has its name.
MAX_OPEN_FILES = 256
MISSING = ReadRefused(RefusalReason.MISSING, "not received yet")
CHANGED = ReadRefused(RefusalReason.CHANGED, "the file was changed or removed")
_FOLDER_FLAGS = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: without it, opening a FIFO that has no writer blocks.
_FILE_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class _Segments(Struct):
    """A file that is received by segments: its first unit, their digests, and descriptors that may have them."""

    first_unit: int
    digests: bytes
    descriptors: tuple[int, ...]


class ReceivedFiles:
    """The files below the folder of descriptor ``folder``; None if there are no paths. ``holds`` says whether a unit is
    verified.
    """

    def __init__(self, folder: int | None, holds: Callable[[int], bool]) -> None:
        self._folder = folder
        self._holds = holds
        self._segments: dict[str, _Segments] = {}
        #: The names of the files with descriptors, in the order in which they came.
        self._open: OrderedDict[str, None] = OrderedDict()

    def add(self, name: str, first_unit: int, digests: bytes, descriptors: Sequence[int]) -> None:
        """A file is received by segments. The descriptors now belong to this object."""
        self._close(name)
        self._segments[name] = _Segments(first_unit, digests, tuple(descriptors))
        if descriptors:
            self._open[name] = None
            if len(self._open) > MAX_OPEN_FILES:
                self._close(next(iter(self._open)))

    def waits_for(self, file: SharedFile) -> Wait | None:  # noqa: ARG002
        return None

    def has_reliable_versions(self, file: SharedFile) -> bool:  # noqa: ARG002
        """True: ``read`` compares the digests itself, because there may be several copies to read from."""
        return True

    def read(self, file: SharedFile, offset: int, length: int) -> bytes | ReadRefused:
        segments = self._segments.get(file.name)
        if segments is None:
            return self._read_small(file, offset, length) if file.is_small and self._folder is not None else MISSING
        indexes = segments_of(file.size, offset, length)
        if not all(self._holds(segments.first_unit + index) for index in indexes):
            return MISSING
        start, end = span(file.size, indexes[0])[0], sum(span(file.size, indexes[-1]))
        for data in self._copies(file.name, segments.descriptors, start, end - start):
            if all(_is_valid(file, segments, index, memoryview(data), start) for index in indexes):
                return data if len(data) == length else data[offset - start : offset - start + length]
        return CHANGED

    def close_unread(self) -> None:
        """Does nothing: a large file that was deleted can still be passed on."""

    def close(self) -> None:
        """Does nothing: the worker closes its source whenever it closes its port. The process ends soon."""

    def _read_small(self, file: SharedFile, offset: int, length: int) -> bytes | ReadRefused:
        for data in self._copies(file.name, (), 0, file.size):
            if content_id(memoryview(data)) == file.id:
                return data[offset : offset + length]
        return CHANGED

    def _copies(self, name: str, descriptors: tuple[int, ...], offset: int, length: int) -> Iterator[bytes]:
        """Yields the range of each file that may have its bytes."""
        for fd in descriptors:
            with suppress(OSError):
                if len(data := os.pread(fd, length, offset)) == length:
                    yield data
        if self._folder is None:
            return
        folder, _, base = name.rpartition("/")
        # The first name once more: the file may have been renamed meanwhile.
        for candidate in (base, part_name(base), short_name(base), base):
            with suppress(OSError):
                fd = _open_below(self._folder, folder, candidate)
                try:
                    data = os.pread(fd, length, offset)
                finally:
                    os.close(fd)
                if len(data) == length:
                    yield data

    def _close(self, name: str) -> None:
        if name in self._open:
            del self._open[name]
            for fd in self._segments[name].descriptors:
                os.close(fd)
            self._segments[name].descriptors = ()


def _is_valid(file: SharedFile, segments: _Segments, index: int, data: memoryview, start: int) -> bool:
    """True if ``data``, which begins at ``start`` in the file, has the verified content of a segment."""
    offset, length = span(file.size, index)
    expected = segments.digests[DIGEST_SIZE * index : DIGEST_SIZE * (index + 1)]
    return digest(data[offset - start : offset - start + length]) == expected


def _open_below(root: int, folder: str, name: str) -> int:
    """Opens a regular file below the folder of descriptor ``root``, without following a link. Raises ``OSError``."""
    opened: list[int] = []
    try:
        for part in folder.split("/") if folder else ():
            if part in ("", ".", ".."):
                raise PermissionError(1, "not a name below the folder", folder)
            opened.append(os.open(part, _FOLDER_FLAGS, dir_fd=opened[-1] if opened else root))
        fd = os.open(name, _FILE_FLAGS, dir_fd=opened[-1] if opened else root)
    finally:
        for descriptor in opened:
            os.close(descriptor)
    if not S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise PermissionError(1, "not a regular file", name)
    return fd
