"""``--update``: an older ``OUT`` as one more source of segments, read and never written.

What it holds of the wanted version is copied into the part file, which replaces it in the end. While
nothing has turned out to be different, nothing is copied: an ``OUT`` that is right is left alone.
"""

from __future__ import annotations

import os
import stat
from collections import deque
from pathlib import Path

from msd.client.storage.local_copy import LocalCopy, disk_error, unreadable
from msd.client.storage.part_file import PartFile
from msd.wire.errors import DiskError
from msd.wire.protocol.segments import Manifest


class UpdateFile(PartFile):
    """The part file of an ``output`` that exists. Where both hold a segment, the part file's is kept.

    Where ``output`` is a link, the file it leads to is brought up to date, and the link stays.
    """

    def __init__(self, output: Path, manifest: Manifest) -> None:
        if output.is_symlink():
            output = output.resolve()
        try:
            self._old = os.open(output, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise unreadable(output, error) from None
        self._as_opened = os.fstat(self._old)
        self._is_same = self._as_opened.st_size == manifest.size
        #: Segments that ``output`` holds and the part file may lack.
        self._borrowed: deque[int] = deque()
        self._borrowed_bytes = 0
        self._source = LocalCopy(self._old, manifest)
        try:
            held = {*self._source.candidates()}
            super().__init__(output, manifest)
        except BaseException as error:
            os.close(self._old)
            if isinstance(error, OSError):
                raise disk_error(output, error) from None
            raise
        self._in_part = {*self._left}
        self._left = sorted(self._in_part | held)

    @property
    def is_same(self) -> bool:
        """True while all that was looked at is right; at the end ``output`` is left alone then."""
        return self._is_same

    def holds(self, index: int) -> bool:
        if not self._is_same:
            return self._adopt(index)
        if self._source.read(index) is not None:
            self._borrowed.append(index)
            self._borrowed_bytes += self._manifest.span(index)[1]
            return True
        self._diverge()
        return self._is_in_part(index)

    def write(self, index: int, data: memoryview) -> None:
        if self._is_same:
            self._diverge()
        super().write(index, data)

    def settle(self) -> bool:
        """Copies one of the segments that ``output`` alone holds."""
        if self._is_same or not self._borrowed:
            return False
        index = self._borrowed.popleft()
        self._borrowed_bytes -= self._manifest.span(index)[1]
        if not self._is_in_part(index):
            try:
                data = self._source.load(index)
            except OSError as error:
                raise unreadable(self._output, error) from None
            if data is None:
                raise self._changed()
            self.write(index, data)
        return True

    @property
    def unsettled(self) -> int:
        """What ``output`` alone holds: it is to be copied, unless all of it turns out right."""
        return self._borrowed_bytes

    def sync(self) -> None:
        if not self._is_same:
            super().sync()
            return
        try:
            os.fdatasync(self._old)
        except OSError as error:
            raise disk_error(self._output, error) from None

    def publish(self, *, replace: bool, sync: bool) -> None:
        try:
            now = os.stat(self._output)
        except OSError:
            raise self._changed() from None
        if not os.path.samestat(now, self._as_opened) or _state(now) != _state(self._as_opened):
            raise self._changed()
        if self._is_same:
            self._discard()
            return
        self._take_over_mode()
        super().publish(replace=replace, sync=sync)

    def close(self) -> None:
        os.close(self._old)
        super().close()

    def _prepare(self) -> None:
        # As long as the output may be right as it is, no room is needed.
        if not self._is_same:
            # The next run must be able to go on with it, even if the output is not to be written.
            self._take_over_mode(also=stat.S_IRUSR | stat.S_IWUSR)
            super()._prepare()

    def _take_over_mode(self, also: int = 0) -> None:
        """Lets nobody do more with the new file than with the old one."""
        mode = self._as_opened.st_mode & 0o777 | also
        try:
            if os.fstat(self._fd).st_mode & 0o777 != mode:
                os.fchmod(self._fd, mode)
        except OSError as error:
            raise disk_error(self.path, error) from None

    def _diverge(self) -> None:
        """Something is different: there will be a new file."""
        self._is_same = False
        try:
            self._prepare()
        except OSError as error:
            raise disk_error(self.path, error) from None

    def _adopt(self, index: int) -> bool:
        """True if the part file holds the segment, or gets it now."""
        if self._is_in_part(index):
            return True
        data = self._source.read(index)
        if data is None:
            return False
        self.write(index, data)
        return True

    def _is_in_part(self, index: int) -> bool:
        """True if the part file has the segment, if only as a hole that is to be one."""
        return super().holds(index) if index in self._in_part else self._copy.is_zeros(index)

    def _changed(self) -> DiskError:
        return DiskError(f"{self._output} was changed by somebody else meanwhile: run it again")


def _state(status: os.stat_result) -> tuple[int, int]:
    return status.st_size, status.st_mtime_ns
