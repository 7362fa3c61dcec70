"""Records events for the log and for operators who connect later: a pure core.

Follows the supervisor's events and the broker's snapshots. Every event becomes at most one log line; events found
by comparing snapshots are also kept for status reports. Does not write the log.
"""

from __future__ import annotations

from collections.abc import Callable

from msd.broker.status.history import SERVER_5, History
from msd.broker.supervision import supervisor
from msd.wire.protocol.messages import Status, StatusReport
from msd.wire.support.core import Stalled
from msd.wire.support.log_line import Level

#: Writes a log line: level, source (a worker or server 5), text.
Log = Callable[[Level, str, str], None]


class EventLog:
    """The events of one broker. Calls ``log`` for every line."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._history = History()
        self._is_quitting = False

    def on_event(self, event: supervisor.Event) -> None:
        """Logs an event that the supervisor is about to handle."""
        match event:
            case supervisor.Spawned(number, pid):
                self._log("info", f"worker {number}", f"started (pid {pid})")
            case supervisor.ToggleReceived(number, wanted):
                self._log("info", f"worker {number}", f"wanted state set to {wanted}" if wanted else "toggled")
            case supervisor.CatalogueReady(edition):
                self._log("info", SERVER_5, f"catalogue edition {edition} is ready")
            case supervisor.QuitReceived():
                self._is_quitting = True
                self._log("info", SERVER_5, "shutting down")
            case Stalled(seconds):
                self._log("warning", SERVER_5, f"event loop stalled for {seconds:.1f} s")
            case _:
                pass  # Heartbeats and time are not logged; an exit is logged when the next snapshot shows it.

    def on_snapshot(self, status: Status, now: float) -> None:
        """Logs the changes since the last snapshot. ``now`` is in seconds since 1970."""
        if self._is_quitting:
            return  # Workers that exit during a shutdown did not fail.
        for event in self._history.on_snapshot(status, now):
            self._log("warning" if event.is_failure else "info", event.source or SERVER_5, event.text)

    def report(self, rid: int, status: Status) -> StatusReport:
        """The reply to an operator's status request."""
        events, rates = self._history.recent()
        return StatusReport(rid=rid, status=status, events=events, rates=rates)
