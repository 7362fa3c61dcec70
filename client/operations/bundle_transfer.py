"""The transfer of a bundle of small files: verifies each file against its id, without digests from a worker.

A file that a worker refuses does not hold up its neighbours: it is given back to the owner. Does not request bundles:
``client/operations/transfer.py`` does.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate

from msd.client.operations.unit_group import UnitGroup
from msd.client.plan.plan import Plan
from msd.wire.errors import SourceError
from msd.wire.protocol.messages import FILE_OK, Bundle, Entry, GetBundle, Segment
from msd.wire.protocol.segments import content_id
from msd.wire.protocol.states import RefusalReason


class BundleTransfer(UnitGroup):
    """Fetches the files ``entries``, which are unit ``unit`` of ``plan``.

    ``save`` takes the content of a verified file. ``give_back`` takes the files that the workers refuse: they have
    another version of it, for example.
    """

    def __init__(
        self,
        plan: Plan,
        unit: int,
        entries: Sequence[Entry],
        *,
        save: Callable[[Entry, memoryview], None],
        give_back: Callable[[Entry], None],
    ) -> None:
        super().__init__()
        self.name = entries[0].name
        self._plan = plan
        self._unit = unit
        #: Empty once the files are saved or given back: the transfer keeps this object.
        self._entries = entries
        self._save = save
        self._give_back = give_back
        #: Where each file begins in the unit, and the end of the last one.
        self._bounds = [0, *accumulate(entry.size for entry in entries)]
        self.sizes = [self._bounds[-1]]
        self._lengths = [entry.size for entry in entries]
        #: The files that were refused, by number.
        self._refused: set[int] = set()

    def request(self, index: int, start: int, length: int) -> GetBundle:  # noqa: ARG002
        is_whole = length == self.sizes[0]
        request = self._plan.request(self._unit, start, None if is_whole else length)
        assert isinstance(request, GetBundle)
        return request

    def data_of(self, start: int, length: int, reply: Segment | Bundle, payload: memoryview) -> memoryview:
        """Returns the requested bytes of the unit, with zeros for the files that are refused; none if a file has
        another length than it should have. A worker does not know the length of a file that is unknown to it: instead
        of that file, more of the last one may come.
        """
        assert isinstance(reply, Bundle)
        first = bisect_right(self._bounds, start) - 1
        if length == self.sizes[0] and self._lengths == reply.lengths and set(reply.statuses) == {FILE_OK}:
            return payload
        data, position, has_refused, has_unknown = bytearray(), 0, False, False
        for number, (status, sent) in enumerate(zip(reply.statuses, reply.lengths, strict=True), first):
            expected = min(self._bounds[number + 1], start + length) - max(self._bounds[number], start)
            if status != FILE_OK:
                self._refused.add(number)
                data += bytes(expected)
                has_refused, has_unknown = True, has_unknown or status == RefusalReason.UNKNOWN
            elif sent == expected or (sent > expected and has_unknown):
                data += payload[position : position + expected]
                position += sent
            else:
                return memoryview(b"")
        return memoryview(data) if has_refused else payload

    def refused_bytes(self, start: int, length: int) -> int:
        ends = ((self._bounds[number], self._bounds[number + 1]) for number in self._refused)
        return sum(max(0, min(end, start + length) - max(begin, start)) for begin, end in ends)

    def refusal_of(self, reply: Bundle, *, of_peer: bool) -> RefusalReason | None:
        """Another worker, perhaps on another host, may have all of the files. Which files are not to be had, a peer
        does not say.
        """
        refused = [status for status in reply.statuses if status != FILE_OK]
        is_useful = len(refused) < len(reply.statuses) and not (of_peer and refused)
        return None if is_useful else RefusalReason(refused[0])

    def find_corrupt(self, index: int, data: memoryview) -> tuple[bytes, int] | None:  # noqa: ARG002
        for number, entry in enumerate(self._entries):
            if number not in self._refused and content_id(self._slice(number, data)) != entry.id:
                return entry.id or b"", 0
        return None

    def write(self, index: int, data: memoryview) -> None:  # noqa: ARG002
        for number, entry in enumerate(self._entries):
            if number in self._refused:
                self._give_back(entry)
            else:
                self._save(entry, self._slice(number, data))
        self._entries = ()

    def lose(self, error: SourceError) -> bool:  # noqa: ARG002
        for entry in self._entries:
            self._give_back(entry)
        self._entries = ()
        return True

    def _slice(self, number: int, data: memoryview) -> memoryview:
        return data[self._bounds[number] : self._bounds[number + 1]]
