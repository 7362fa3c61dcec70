"""Builds the contents of an operator's console from server 5's snapshots: a pure core.

Compares each snapshot with the previous one and keeps the latest events and rates. Does not format them: see
``broker/views/console_lines.py``. ``now`` is wall-clock time in seconds since 1970, used only for display, ordering and
sampling.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from itertools import takewhile

from msgspec import Struct

from msd.wire.net.endpoints import Endpoint
from msd.wire.protocol.messages import LoggedEvent, Status, StatusReport, WorkerStatus
from msd.wire.protocol.states import WantedState, WorkerState
from msd.wire.support.units import format_count

#: Maximum number of events kept.
MAX_EVENTS = 200
#: Maximum number of events included in a ``StatusReport``.
MAX_REPORTED_EVENTS = 32
#: Number of rates kept per worker, and seconds between two rates.
MAX_RATES, SAMPLE_INTERVAL_S = 30, 1.0
SERVER_5 = "server 5"

#: The source, text and ``is_failure`` of an event.
Change = tuple[str, str, bool]


class HistoryEvent(Struct, frozen=True):
    """An event at ``time``, in one line. ``is_failure`` is True for failures, such as a crash or a failed order.
    ``source`` is the worker or server 5; it is empty if ``text`` already names the source.
    """

    time: float
    text: str
    is_failure: bool = False
    source: str = ""

    @property
    def sentence(self) -> str:
        return f"{self.source} {self.text}".lstrip()


class Row(Struct, frozen=True):
    """The displayed values of one worker. ``remark`` says why the worker is not alive, or that it is about to change
    state.
    """

    number: int
    endpoint: str
    pid: int
    state: WorkerState
    remark: str
    uptime: float
    restarts: int
    clients: int
    rate: float
    rates: tuple[float, ...]
    bytes_sent: int
    complaints: int
    malformed_messages: int
    rejected_connections: int

    @property
    def port(self) -> int:
        return Endpoint.parse(self.endpoint).port

    @property
    def rejections(self) -> int:
        """Malformed messages and rejected connections."""
        return self.malformed_messages + self.rejected_connections

    @property
    def is_alive(self) -> bool:
        return self.state is WorkerState.AWAKE


class History:
    """The history of one broker and its workers. Call ``on_snapshot`` and ``on_lost`` in the order of arrival."""

    def __init__(self) -> None:
        #: Newest first.
        self.events: list[HistoryEvent] = []
        #: The newest snapshot; None before the first.
        self.status: Status | None = None
        #: When contact with server 5 was lost, and why; None while server 5 answers.
        self.lost_at: float | None = None
        self.lost_reason = ""
        #: True if server 5 answers but does not admit this operator.
        self.is_refused = False
        self._received_at = 0.0
        self._rates: dict[int, deque[float]] = {}
        self._sampled_at = float("-inf")

    @property
    def clients(self) -> int:
        """Number of clients being served: the broker's count or the largest worker's count, whichever is higher."""
        return _clients(self.status) if self.status is not None else 0

    def on_snapshot(self, status: Status, now: float) -> list[HistoryEvent]:
        """Adds a snapshot; returns the new events, oldest first. Ignores a stale snapshot."""
        before, last = self.status, self.events[0] if self.events else None
        if before and before.epoch == status.epoch and status.seq <= before.seq:
            return []
        was_lost = self.lost_at is not None
        if was_lost and before is not None:
            text = "restarted" if before.epoch != status.epoch else "answers again"
            self.add(text, now, source=SERVER_5)
        self.lost_at = None
        self.status, self._received_at = status, now
        if before is None and (was_lost or not self.events):
            alive = sum(worker.state is WorkerState.AWAKE for worker in status.workers)
            self.add(f"reports {alive} of {len(status.workers)} workers alive", now, source=SERVER_5)
        elif before is not None:
            for source, text, is_failure in _changes(before, status):
                self.add(text, now, source=source, is_failure=is_failure)
        # Keep sampling even if the clock is set back.
        if not 0 <= now - self._sampled_at < SAMPLE_INTERVAL_S * 0.9:
            self._sampled_at = now
            for worker in status.workers:
                self._rates.setdefault(worker.number, deque(maxlen=MAX_RATES)).append(worker.rate)
        return [*takewhile(lambda event: event is not last, self.events)][::-1]

    def merge(self, report: StatusReport) -> None:
        """Adds the events and rates that server 5 recorded before the first snapshot. The broker's clock may
        differ, so events seen on both sides are matched by text.
        """
        past = [HistoryEvent(event.time, event.text, event.is_failure) for event in report.events]
        for event in self.events:
            if past and past[0].text == event.sentence:
                del past[0]
        merged = sorted([*self.events, *past], key=lambda event: event.time, reverse=True)
        self.events = newest(merged, MAX_EVENTS)
        for worker, rates in zip(report.status.workers, report.rates, strict=False):
            known = self._rates.setdefault(worker.number, deque(maxlen=MAX_RATES))
            known.extendleft(rates[::-1][: MAX_RATES - len(known)])

    def recent(self) -> tuple[list[LoggedEvent], list[list[float]]]:
        """The events and rates for a ``StatusReport``."""
        events = [
            LoggedEvent(time=event.time, text=event.sentence, is_failure=event.is_failure)
            for event in newest(self.events, MAX_REPORTED_EVENTS)
        ]
        workers = self.status.workers if self.status is not None else []
        return events, [[*self._rates.get(worker.number, ())] for worker in workers]

    def on_lost(self, reason: str, now: float, *, refused: bool = False) -> None:
        """Records that server 5 does not answer or, if ``refused``, does not admit this operator."""
        self.lost_reason = reason
        if self.lost_at is None or refused != self.is_refused:
            self.lost_at = now if self.lost_at is None else self.lost_at
            self.is_refused = refused
            text = f"{'refuses this operator' if refused else 'lost'}: {reason}"
            self.add(text, now, source=SERVER_5, is_failure=True)

    def add(self, text: str, now: float, *, source: str = "", is_failure: bool = False) -> None:
        self.events = newest([HistoryEvent(now, text, is_failure, source), *self.events], MAX_EVENTS)

    def rows(self, now: float) -> list[Row]:
        """The workers in order of their numbers. Uptimes do not advance while server 5 is lost."""
        if self.status is None:
            return []
        age = 0.0 if self.lost_at is not None else max(0.0, now - self._received_at)
        return [self._row(worker, age) for worker in self.status.workers]

    def _row(self, worker: WorkerStatus, age: float) -> Row:
        return Row(
            number=worker.number,
            endpoint=worker.endpoint,
            pid=worker.pid,
            state=worker.state,
            remark=_remark(worker),
            uptime=worker.uptime + age if worker.pid else 0.0,
            restarts=worker.restarts,
            clients=worker.clients,
            rate=worker.rate,
            rates=tuple(self._rates.get(worker.number, ())),
            bytes_sent=worker.bytes_sent,
            complaints=worker.complaints,
            malformed_messages=worker.malformed_messages,
            rejected_connections=worker.rejected_connections,
        )


def newest(events: Sequence[HistoryEvent], count: int) -> list[HistoryEvent]:
    """The newest ``count`` events; both lists are newest first. Half of the places are reserved for failures, so
    that the events of clients that connect and disconnect do not displace them.
    """
    kept = {id(event) for event in [event for event in events if event.is_failure][: count // 2]}
    others = [event for event in events if id(event) not in kept][: count - len(kept)]
    kept |= {id(event) for event in others}
    return [event for event in events if id(event) in kept]


def _clients(status: Status) -> int:
    return max([status.clients, *(worker.clients for worker in status.workers)])


def _remark(worker: WorkerStatus) -> str:
    if worker.state is WorkerState.AWAKE:
        return "going to sleep" if worker.wanted is WantedState.ASLEEP else ""
    reason = f"{worker.state}: {worker.reason}" if worker.reason else worker.state.value
    if worker.state is WorkerState.DEAD:
        reason = worker.reason or "restart pending"
    pending = {
        (WorkerState.ASLEEP, WantedState.AWAKE): ", waking up",
        (WorkerState.SILENT, WantedState.ASLEEP): ", ordered to sleep",
    }
    return reason + pending.get((worker.state, worker.wanted), "")


def _changes(before: Status, after: Status) -> Iterator[Change]:
    """The events between two consecutive snapshots."""
    if after.catalogue != before.catalogue and after.catalogue:
        files = format_count(after.files, "file")
        yield "", f"shared files changed: now {files}" if before.catalogue else f"sharing {files}", False
    if (gained := _clients(after) - _clients(before)) and before.epoch == after.epoch:
        clients = "client" if abs(gained) == 1 else f"{abs(gained):,} clients"
        yield "", f"{clients} {'connected' if gained > 0 else 'disconnected'}: now serving {_clients(after):,}", False
    known = {worker.number: worker for worker in before.workers}
    for worker in after.workers:
        if worker.number in known:
            yield from _worker_changes(known[worker.number], worker, same_broker=before.epoch == after.epoch)


def _worker_changes(before: WorkerStatus, after: WorkerStatus, *, same_broker: bool) -> Iterator[Change]:
    name = f"worker {after.number}"
    if after.state is not before.state:
        yield _state_change(name, before.state, after)
    elif same_broker and after.epoch != before.epoch and before.epoch and after.epoch:
        # The restart took less time than the interval between the snapshots.
        yield name, "died and was restarted", True
    if same_broker and after.complaints > before.complaints:
        yield name, f"sent a corrupt segment (reported by a client, {after.complaints:,} so far)", True


def _state_change(name: str, before: WorkerState, worker: WorkerStatus) -> Change:
    reason = f": {worker.reason}" if worker.reason else ""
    match worker.state:
        case WorkerState.AWAKE if before is WorkerState.ASLEEP:
            return name, "woke up", False
        case WorkerState.AWAKE if before is WorkerState.SILENT:
            return name, "answers again", False
        case WorkerState.AWAKE:
            return name, "is alive", False
        case WorkerState.ASLEEP:
            return name, "fell asleep", False
        case WorkerState.STARTING:
            return name, "is restarting", False
        case WorkerState.SILENT:
            return name, "is silent: heartbeats missing", True
        case WorkerState.DEAD:
            return name, f"died{reason}", True
        case WorkerState.FAILED:
            return name, f"failed{reason}; not restarted until toggled", True
