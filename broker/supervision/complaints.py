"""Decides which complaints about corrupt segments are valid and new, and remembers who complained about each worker.

Reads the ids of the shared files from the catalogue. Does not verify that the segment was corrupt: only the client has
received it.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, defaultdict
from collections.abc import Mapping
from pathlib import Path

from msd.wire.protocol.child_messages import RECORD, RECORDS
from msd.wire.protocol.messages import Complaint
from msd.wire.protocol.segments import DIGEST_SIZE, segment_count

#: Maximum number of complaints that are remembered. A complaint that was forgotten no longer counts for its client, and
#: is counted again if it returns.
MAX_REMEMBERED = 65536
#: Maximum number of clients named for each worker: those with the most complaints.
MAX_NAMED = 3


def read_segment_counts(edition: Path) -> dict[bytes, int]:
    """Returns the number of segments of each shared file, by id. Raises ``OSError`` if the edition cannot be read."""
    records = (edition / RECORDS).read_bytes()[DIGEST_SIZE:]
    counts = {id: segment_count(size) for _, _, size, _, _, _, id, _ in RECORD.iter_unpack(records)}
    counts.pop(bytes(DIGEST_SIZE), None)  # Folders.
    return counts


class Complaints:
    """The complaints of all clients. A client is identified by the name of its key or, without keys, by its address."""

    def __init__(self) -> None:
        #: The name of the client of each complaint.
        self._known: OrderedDict[tuple[str, int, bytes, int], str] = OrderedDict()
        self._clients: dict[int, Counter[str]] = defaultdict(Counter)

    def is_new(self, client: str, complaint: Complaint, name: str = "") -> bool:
        """Records a complaint. Returns False if this client has already complained about this segment and worker.
        ``name`` is what operators call the client, if that is something else.
        """
        key = (client, complaint.number, complaint.id, complaint.index)
        if key in self._known:
            return False
        self._known[key] = name or client
        self._clients[complaint.number][name or client] += 1
        if len(self._known) > MAX_REMEMBERED:
            (_, number, *_), forgotten = self._known.popitem(last=False)
            self._clients[number][forgotten] -= 1
            if not self._clients[number][forgotten]:
                del self._clients[number][forgotten]
        return True

    def forget(self, number: int) -> None:
        """Forgets the complaints about worker ``number``."""
        for key in [key for key in self._known if key[1] == number]:
            del self._known[key]
        self._clients.pop(number, None)

    def clients(self, number: int) -> list[str]:
        """Returns the clients with the most complaints about worker ``number``, most complaints first."""
        return [client for client, _ in self._clients[number].most_common(MAX_NAMED)]


def rejection(complaint: Complaint, segment_counts: Mapping[bytes, int]) -> str:
    """Returns why a complaint about an existing worker is rejected; empty if it is valid."""
    count = segment_counts.get(complaint.id)
    if count is None:
        return "no shared file has this id"
    return "" if complaint.index < count else f"no segment {complaint.index}: the file has {count} segments"
