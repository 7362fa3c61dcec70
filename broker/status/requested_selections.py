"""Which selections clients have asked for, how often, and how many bytes they received: a pure core without deadlines.

Keeps the selections that were asked for last. Knows nothing of running downloads: see ``broker/status/downloads.py``.
"""

from __future__ import annotations

from collections import OrderedDict

from msd.wire.protocol.messages import RequestedSelection

#: The maximum number of selections: with their texts they add at most 20 KB to a report.
MAX_SELECTIONS = 64


class RequestedSelections:
    """The selections of one broker."""

    def __init__(self) -> None:
        #: The number of downloads and of received bytes of each selection; the one requested last is at the end.
        self._counts: OrderedDict[str, tuple[int, int]] = OrderedDict()

    def on_download(self, selection: str) -> None:
        """Counts a new download."""
        downloads, received = self._counts.get(selection, (0, 0))
        self._counts[selection] = downloads + 1, received
        self._counts.move_to_end(selection)
        if len(self._counts) > MAX_SELECTIONS:
            self._counts.popitem(last=False)

    def on_received(self, selection: str, size: int) -> None:
        """Adds ``size`` bytes to a selection, unless it is forgotten."""
        if selection in self._counts:
            downloads, received = self._counts[selection]
            # The counts of a client are not verified: the sum must still fit into a message.
            self._counts[selection] = downloads, min(received + size, 2**63 - 1)

    def latest(self) -> list[RequestedSelection]:
        """Returns all selections, the one requested last first."""
        return [RequestedSelection(selection, *counts) for selection, counts in reversed(self._counts.items())]
