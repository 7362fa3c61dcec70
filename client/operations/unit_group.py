"""The interface of a group of units: how each unit is requested, and what is done with its bytes.

``file_transfer.py`` implements it for the segments of a file, ``bundle_transfer.py`` for a bundle of small files.
``transfer.py`` decides nothing about the content of a unit.
"""

from __future__ import annotations

from collections.abc import Sequence

from msd.wire.errors import SourceError
from msd.wire.protocol.messages import Bundle, Get, GetBundle, Segment
from msd.wire.protocol.states import RefusalReason


class UnitGroup:
    """Units that fail together. Methods raise ``MsdError``.

    ``name`` is the name of the file or, of a bundle, of its first file. ``sizes`` are the sizes of the units in bytes;
    a unit is addressed by its ``index`` in this sequence. The disk may hold the ``unchecked`` ones.

    ``fetched`` counts the verified bytes that the workers have sent, ``outdated`` those of them that belong to an
    earlier version only, ``reused`` the bytes found on the disk, and ``zeros`` those of them that a new file has from
    the beginning.
    """

    name: str
    sizes: Sequence[int]
    unchecked: Sequence[int] = ()
    #: The first of the units in the plan of the receivers that pass on; None if they do not have them.
    plan_unit: int | None = None
    #: The number of the group in the transfer.
    number = 0
    #: False while a new version is compared with what is on the disk: what is verified may have become less.
    is_announced = True
    #: The number of units that are neither written nor found on the disk. The transfer sets it.
    remaining = 0
    #: True if the units could not be fetched, and none has arrived since. Then events would only repeat what is known.
    is_retry = False

    def __init__(self) -> None:
        self.fetched = self.outdated = self.reused = self.zeros = 0

    @property
    def uncopied_bytes(self) -> int:
        """Bytes of verified units that are not in the output yet."""
        return 0

    @property
    def verified(self) -> int:
        """Bytes that are verified and in the output."""
        return self.fetched - self.outdated + self.reused - self.uncopied_bytes

    def request(self, index: int, start: int, length: int) -> Get | GetBundle:
        """Returns the request for ``length`` bytes of a unit from ``start`` on."""
        raise NotImplementedError

    def data_of(self, start: int, length: int, reply: Segment | Bundle, payload: memoryview) -> memoryview:
        """Returns the bytes that were requested; another number of bytes if the worker is faulty."""
        raise NotImplementedError

    def refused_bytes(self, start: int, length: int) -> int:  # noqa: ARG002
        """Returns how many of these bytes of a unit belong to files that are refused."""
        return 0

    def refusal_of(self, reply: Bundle, *, of_peer: bool) -> RefusalReason | None:
        """Returns the reason if the worker has sent nothing that was requested, None if it has sent something."""
        raise NotImplementedError

    def find_corrupt(self, index: int, data: memoryview) -> tuple[bytes, int] | None:
        """Verifies a whole unit. Returns the id of the file and the number of the segment that is corrupt, None if all
        of it is valid.
        """
        raise NotImplementedError

    def write(self, index: int, data: memoryview) -> None:
        """Takes a whole unit, which is valid."""
        raise NotImplementedError

    def lose(self, error: SourceError) -> bool:
        """No worker can be expected to have the missing units. Returns True if they are not needed any more."""
        raise NotImplementedError

    def flush(self) -> None:
        """Passes on what was written, if the output takes the units in order."""
