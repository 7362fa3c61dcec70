"""Keeps the contents of an operator's console: a pure core.

Collects server 5's snapshots, and the events and rates of its reports. Does not format them: see
``broker/views``. ``now`` is wall-clock time in seconds since 1970, used only for display and ordering.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct
from msgspec.structs import replace

from msd.broker.status.slowness import SenderRates, rates_of_others, worker_rates
from msd.wire.net.endpoints import Endpoint
from msd.wire.protocol.messages import (
    DownloadStatus,
    LoggedEvent,
    RequestedSelection,
    Status,
    StatusReport,
    WorkerStatus,
)
from msd.wire.protocol.states import WantedState, WorkerState

#: Maximum number of events kept.
MAX_EVENTS = 200
#: What a worker is about to do, or has been ordered to do, by its state and its wanted state.
PENDING = {
    (WorkerState.AWAKE, WantedState.ASLEEP): "going to sleep",
    (WorkerState.ASLEEP, WantedState.AWAKE): "waking up",
    (WorkerState.SILENT, WantedState.ASLEEP): "ordered to sleep",
    (WorkerState.UNREACHABLE, WantedState.ASLEEP): "ordered to sleep",
    (WorkerState.LOST, WantedState.ASLEEP): "ordered to sleep",
}


class Row(Struct, frozen=True):
    """One worker as displayed: its status, the seconds since that status arrived, and its recent rates.
    ``has_other_list`` is True if the worker has joined with another catalogue than that for which server 5 vouches.
    ``others_rate`` is the median rate of the workers with which this one is compared, in bytes a second; 0 if it is
    not slow.
    """

    worker: WorkerStatus
    age: float = 0.0
    rates: Sequence[float] = ()
    has_other_list: bool = False
    others_rate: float = 0.0

    @property
    def sent(self) -> SenderRates | None:
        """The rates of the worker, to compare them with those of others; None if the worker is not compared."""
        return worker_rates(self.worker, self.rates)

    @property
    def is_slow(self) -> bool:
        return self.others_rate > 0

    @property
    def port(self) -> int:
        return Endpoint.parse(self.worker.endpoint).port

    @property
    def uptime(self) -> float:
        return self.worker.uptime + self.age if self.worker.uptime else 0.0

    @property
    def rejections(self) -> int:
        """Malformed messages and rejected connections."""
        return self.worker.malformed_messages + self.worker.rejected_connections

    @property
    def is_alive(self) -> bool:
        return self.worker.state is WorkerState.AWAKE

    @property
    def remark(self) -> str:
        """Why the worker is not alive, what it cannot do, and that it is about to change state."""
        worker = self.worker
        reason = f"cannot read some files: {worker.reason}" if self.is_alive and worker.reason else worker.reason
        return ", ".join(filter(None, (reason, PENDING.get((worker.state, worker.wanted)))))


class History:
    """The history of one broker and its workers. Call ``on_status``, ``on_report`` and ``on_lost`` in the order of
    arrival.
    """

    def __init__(self) -> None:
        #: Newest first.
        self.events: list[LoggedEvent] = []
        #: The newest snapshot; None before the first.
        self.status: Status | None = None
        #: When contact with server 5 was lost, and why; None while server 5 answers.
        self.lost_at: float | None = None
        self.lost_reason = ""
        #: True if server 5 answers but does not admit this operator.
        self.is_refused = False
        self._received_at = 0.0
        #: The downloads of the clients in the newest report.
        self.downloads: Sequence[DownloadStatus] = ()
        #: What clients have asked for, and the recent rates of all workers together, in the newest report.
        self.requested: Sequence[RequestedSelection] = ()
        self.total_rates: Sequence[float] = ()
        #: The number of receivers that pass on what they have, in the newest report.
        self.receivers = 0
        #: How many files are not shared and why, in the newest report.
        self.not_shared: Sequence[str] = ()
        #: The rates of each worker, by number and name: another worker may take the number.
        self._rates: dict[tuple[int, str], list[float]] = {}
        #: The broker (its epoch) that sent the newest event known, and the number of that event.
        self._newest_event = (0, 0)

    def on_status(self, status: Status, now: float) -> None:
        """Adds a snapshot. Ignores a stale one."""
        before = self.status
        if before and before.epoch == status.epoch and status.seq <= before.seq:
            return
        if self.lost_at is not None:
            is_restarted = before is not None and before.epoch != status.epoch
            self.add(f"server 5 {'restarted' if is_restarted else 'answers again'}", now)
        self.lost_at = None
        self.status, self._received_at = status, now

    def on_report(self, report: StatusReport, now: float) -> None:
        """Adds a report: its snapshot, and the events that no earlier report contained. The broker's clock may differ,
        so the times of its events are converted to this clock.
        """
        self.on_status(report.status, now)
        self.downloads, self.requested = report.downloads, report.requested
        self.total_rates = report.total_rates
        self.receivers = report.receivers
        self.not_shared = report.not_shared
        workers = [(worker.number, worker.name) for worker in report.status.workers]
        self._rates = dict(zip(workers, report.rates, strict=False))
        broker, newest_seq = self._newest_event
        if broker != report.status.epoch:
            newest_seq = 0
        offset = now - report.time
        new = [replace(event, time=event.time + offset) for event in report.events if event.seq > newest_seq]
        if new:
            self._newest_event = report.status.epoch, new[0].seq
            self._keep(sorted([*new, *self.events], key=lambda event: event.time, reverse=True))

    def on_lost(self, reason: str, now: float, *, refused: bool = False) -> None:
        """Records that server 5 does not answer or, if ``refused``, does not admit this operator."""
        self.lost_reason = reason
        if self.lost_at is None or refused != self.is_refused:
            self.lost_at = now if self.lost_at is None else self.lost_at
            self.is_refused = refused
            self.add(f"server 5 {'refuses this operator' if refused else 'lost'}: {reason}", now, is_failure=True)

    def add(self, text: str, now: float, *, worker: int | None = None, is_failure: bool = False) -> None:
        """Adds an event of this console."""
        self._keep([LoggedEvent(time=now, text=text, is_failure=is_failure, worker=worker), *self.events])

    def rows(self, now: float) -> list[Row]:
        """The workers in order of their numbers. Uptimes do not advance while server 5 is lost."""
        if self.status is None:
            return []
        age = 0.0 if self.lost_at is not None else max(0.0, now - self._received_at)
        rows = [
            Row(
                worker,
                age,
                self._rates.get((worker.number, worker.name), []),
                has_other_list=bool(worker.host and worker.catalogue and self.status.catalogue)
                and worker.catalogue != self.status.catalogue,
            )
            for worker in self.status.workers
        ]
        others = rates_of_others([row.sent for row in rows])
        return [replace(row, others_rate=rate) if rate else row for row, rate in zip(rows, others, strict=True)]

    def _keep(self, events: list[LoggedEvent]) -> None:
        self.events = newest(events, MAX_EVENTS)


def newest(events: Sequence[LoggedEvent], count: int) -> list[LoggedEvent]:
    """The newest ``count`` events; both lists are newest first. Half of the places are reserved for failures, so
    that the events of clients that connect and disconnect do not displace them.
    """
    kept = {id(event) for event in [event for event in events if event.is_failure][: count // 2]}
    others = [event for event in events if id(event) not in kept][: count - len(kept)]
    kept |= {id(event) for event in others}
    return [event for event in events if id(event) in kept]
