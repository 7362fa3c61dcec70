"""The files that a download is receiving, as far as it has verified them: a ``Source``.

A range is read only if the download has verified all its segments; the client has told which. The caller compares what
is read with its digest, because other programs may change the files. Does not know how units are numbered: see
``workers/passing_on/holdings.py``.
"""

from __future__ import annotations

import os

from msd.wire.protocol.segments import segments_of
from msd.wire.protocol.states import RefusalReason
from msd.workers.source.catalogue import SharedFile
from msd.workers.source.source import ReadRefused, Wait

MISSING = ReadRefused(RefusalReason.MISSING, "not received yet")


class PartFiles:
    """The files of these descriptors, by name. A descriptor remains valid when the file is renamed, and the download is
    not told that another program has opened the file.
    """

    def __init__(self, descriptors: dict[str, int]) -> None:
        self._open = descriptors
        #: The segments of each file that are verified.
        self._held: dict[str, set[int]] = {name: set() for name in descriptors}

    def add(self, name: str, index: int) -> None:
        """A segment of a file was verified."""
        self._held[name].add(index)

    def waits_for(self, file: SharedFile) -> Wait | None:  # noqa: ARG002
        return None

    def has_reliable_versions(self, file: SharedFile) -> bool:  # noqa: ARG002
        return False

    def read(self, file: SharedFile, offset: int, length: int) -> bytes | ReadRefused:
        held = self._held[file.name]
        # A small file is compared as a whole.
        indexes = range(file.segments) if file.is_small else segments_of(file.size, offset, length)
        if not all(index in held for index in indexes):
            return MISSING
        try:
            data = os.pread(self._open[file.name], length, offset)
        except OSError as error:
            return ReadRefused(RefusalReason.UNREADABLE, os.strerror(error.errno or 0))
        if len(data) != length:
            return ReadRefused(RefusalReason.CHANGED, "the file was truncated")
        return data

    def close_unread(self) -> None:
        """Does nothing: a file that was deleted can still be passed on."""

    def close(self) -> None:
        """Does nothing: the worker closes its source whenever it closes its port. The process ends soon."""
