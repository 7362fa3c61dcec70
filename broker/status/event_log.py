"""What happened, for operators who come later and for the log: a pure core.

Follows the supervisor's events and the snapshots. Each of them is a line of the log at most; what the
snapshots tell is remembered, too.
"""

from __future__ import annotations

from collections.abc import Callable

from msd.broker.status.history import SERVER_5, History
from msd.broker.supervision import supervisor
from msd.wire.protocol.messages import Status, StatusReport
from msd.wire.support.log_line import Level

#: Takes a line of the log: its level, whom it is about, what there is to say.
Log = Callable[[Level, str, str], None]


class EventLog:
    """Of one broker. ``log`` is given what is to be logged."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._history = History()
        self._is_ending = False

    def take(self, event: supervisor.Event) -> None:
        """The supervisor is told this."""
        match event:
            case supervisor.Spawned(number, pid):
                self._log("info", f"worker {number}", f"is process {pid}")
            case supervisor.ToggleReceived(number, want):
                self._log("info", f"worker {number}", f"is told to be {want}" if want else "is toggled")
            case supervisor.CatalogueReady(edition):
                self._log("info", SERVER_5, f"edition {edition} of the catalogue is ready")
            case supervisor.QuitReceived():
                self._is_ending = True
                self._log("info", SERVER_5, "ends, and all workers")
            case supervisor.Stalled(seconds):
                self._log("warning", SERVER_5, f"did not look for {seconds:.1f} s")
            case _:
                pass  # Heartbeats, time, and what the next snapshot tells.

    def snapshot(self, status: Status, now: float) -> None:
        """How everything is now, published or not; ``now`` is in seconds since 1970."""
        if self._is_ending:
            return  # That the workers end was ordered, and is no failure of theirs.
        for event in self._history.snapshot(status, now):
            self._log("warning" if event.bad else "info", event.who or SERVER_5, event.text)

    def report(self, rid: int, status: Status) -> StatusReport:
        """The answer to an operator who asks for the status."""
        events, rates = self._history.told()
        return StatusReport(rid=rid, status=status, events=events, rates=rates)
