"""What an operator's console shows, from the snapshots of server 5 as they come: a pure core.

Compares each snapshot with the one before and keeps what people want to look back at: the last events,
the last rates. How that is drawn is said in ``broker/views/table.py``. ``now`` is the time of day in
seconds since 1970, for people; beside the order of what is recalled and the pace of the rates nothing is decided by it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from itertools import takewhile

from msgspec import Struct

from msd.wire.net.endpoints import Endpoint
from msd.wire.protocol.messages import LoggedEvent, Status, StatusReport, WorkerStatus
from msd.wire.protocol.states import WantedState, WorkerState

#: Events that are remembered.
EVENTS = 200
#: Of these, those that are told to others.
TOLD = 32
#: Rates that are remembered of each worker, and the seconds between two of them.
RATES, SAMPLE = 30, 1.0
SERVER_5 = "server 5"

#: Who, what, and whether it is bad.
Change = tuple[str, str, bool]


class HistoryEvent(Struct, frozen=True):
    """Something at ``time``, in one line; ``bad`` says that nobody ordered it. ``who`` did it, a worker or
    server 5; it is empty where the text names whoever did.
    """

    time: float
    text: str
    bad: bool = False
    who: str = ""

    @property
    def sentence(self) -> str:
        return f"{self.who} {self.text}".lstrip()


class Row(Struct, frozen=True):
    """What is shown of one worker. ``remark`` says why it is dead, or what is remarkable of it alive."""

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
    def strangers(self) -> int:
        """Messages that were none, and connections that were refused."""
        return self.malformed_messages + self.rejected_connections

    @property
    def is_alive(self) -> bool:
        return self.state is WorkerState.AWAKE


class History:
    """Follows one set of servers. ``snapshot`` and ``lost`` are told in turn, as things come."""

    def __init__(self) -> None:
        #: Newest first.
        self.events: list[HistoryEvent] = []
        #: The newest snapshot, None before the first.
        self.status: Status | None = None
        #: When server 5 was lost, and why; None while it answers.
        self.lost_at: float | None = None
        self.lost_why = ""
        #: It does answer, but does not let this operator in.
        self.is_refused = False
        self._told_at = 0.0
        self._rates: dict[int, deque[float]] = {}
        self._sampled_at = float("-inf")

    @property
    def clients(self) -> int:
        """Clients being served, as far as known. A broker that does not count them leaves that to the workers."""
        return _clients(self.status) if self.status is not None else 0

    def snapshot(self, status: Status, now: float) -> list[HistoryEvent]:
        """Server 5 says so; what has happened since it said something last, the oldest first."""
        before, last = self.status, self.events[0] if self.events else None
        if before and before.epoch == status.epoch and status.seq <= before.seq:
            return []
        was_lost = self.lost_at is not None
        if was_lost and before is not None:
            restarted = "was started again" if before.epoch != status.epoch else "answers again"
            self.note(restarted, now, who=SERVER_5)
        self.lost_at = None
        self.status, self._told_at = status, now
        if before is None and (was_lost or not self.events):
            alive = sum(worker.state is WorkerState.AWAKE for worker in status.workers)
            self.note(f"says: {alive} of {len(status.workers)} workers alive", now, who=SERVER_5)
        elif before is not None:
            for who, text, bad in _changes(before, status):
                self.note(text, now, who=who, bad=bad)
        # The clock may be set back: that must not stop the samples.
        if not 0 <= now - self._sampled_at < SAMPLE * 0.9:
            self._sampled_at = now
            for worker in status.workers:
                self._rates.setdefault(worker.number, deque(maxlen=RATES)).append(worker.rate)
        return [*takewhile(lambda event: event is not last, self.events)][::-1]

    def recall(self, report: StatusReport) -> None:
        """What server 5 remembers of the time before the first snapshot. Its clock may be another: what was
        seen here, too, is known by its words.
        """
        past = [HistoryEvent(event.time, event.text, event.bad) for event in report.events]
        for event in self.events:
            if past and past[0].text == event.sentence:
                del past[0]
        both = sorted([*self.events, *past], key=lambda event: event.time, reverse=True)
        self.events = newest(both, EVENTS)
        for worker, rates in zip(report.status.workers, report.rates, strict=False):
            known = self._rates.setdefault(worker.number, deque(maxlen=RATES))
            known.extendleft(rates[::-1][: RATES - len(known)])

    def told(self) -> tuple[list[LoggedEvent], list[list[float]]]:
        """What others are told of the past: the events and rates of a ``StatusReport``."""
        events = [
            LoggedEvent(time=event.time, text=event.sentence, bad=event.bad) for event in newest(self.events, TOLD)
        ]
        workers = self.status.workers if self.status is not None else []
        return events, [[*self._rates.get(worker.number, ())] for worker in workers]

    def lost(self, why: str, now: float, *, refused: bool = False) -> None:
        """Server 5 does not answer, or lets nobody in. What it said last may be wrong by now."""
        self.lost_why = why
        if self.lost_at is None or refused != self.is_refused:
            self.lost_at = now if self.lost_at is None else self.lost_at
            self.is_refused = refused
            self.note(f"{'refuses' if refused else 'lost'}: {why}", now, who=SERVER_5, bad=True)

    def note(self, text: str, now: float, *, who: str = "", bad: bool = False) -> None:
        self.events = newest([HistoryEvent(now, text, bad, who), *self.events], EVENTS)

    def rows(self, now: float) -> list[Row]:
        """The workers in order of their numbers; no time passes for them while server 5 is lost."""
        if self.status is None:
            return []
        since = 0.0 if self.lost_at is not None else max(0.0, now - self._told_at)
        return [self._row(worker, since) for worker in self.status.workers]

    def _row(self, worker: WorkerStatus, since: float) -> Row:
        return Row(
            number=worker.number,
            endpoint=worker.endpoint,
            pid=worker.pid,
            state=worker.state,
            remark=_remark(worker),
            uptime=worker.uptime + since if worker.pid else 0.0,
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
    """The newest ``count`` of the events, which come newest first. Half of the places are for bad ones: clients
    who come and go, two events each, do not push out what went wrong.
    """
    kept = {id(event) for event in [event for event in events if event.bad][: count // 2]}
    others = [event for event in events if id(event) not in kept][: count - len(kept)]
    kept |= {id(event) for event in others}
    return [event for event in events if id(event) in kept]


def _clients(status: Status) -> int:
    return max([status.clients, *(worker.clients for worker in status.workers)])


def _remark(worker: WorkerStatus) -> str:
    if worker.state is WorkerState.AWAKE:
        return "going to sleep" if worker.wanted is WantedState.ASLEEP else ""
    why = f"{worker.state}: {worker.reason}" if worker.reason else worker.state.value
    if worker.state is WorkerState.DEAD:
        why = worker.reason or "restart pending"
    ordered = {
        (WorkerState.ASLEEP, WantedState.AWAKE): ", waking up",
        (WorkerState.SILENT, WantedState.ASLEEP): ", told to sleep",
    }
    return why + ordered.get((worker.state, worker.wanted), "")


def _changes(before: Status, after: Status) -> Iterator[Change]:
    """What is worth telling of the way from one snapshot to the next."""
    if after.catalogue != before.catalogue and after.catalogue:
        files = f"{after.files:,} file{'' if after.files == 1 else 's'}"
        yield "", f"the shared files changed: {files} now" if before.catalogue else f"{files} shared", False
    if (came := _clients(after) - _clients(before)) and before.epoch == after.epoch:
        clients = f"{'a' if abs(came) == 1 else f'{abs(came):,}'} client{'' if abs(came) == 1 else 's'}"
        yield "", f"{clients} {'came' if came > 0 else 'left'}: {_clients(after):,} served now", False
    known = {worker.number: worker for worker in before.workers}
    for worker in after.workers:
        if worker.number in known:
            yield from _worker_changes(known[worker.number], worker, same_broker=before.epoch == after.epoch)


def _worker_changes(before: WorkerStatus, after: WorkerStatus, *, same_broker: bool) -> Iterator[Change]:
    name = f"worker {after.number}"
    if after.state is not before.state:
        yield _turned(name, before.state, after)
    elif same_broker and after.epoch != before.epoch and before.epoch and after.epoch:
        # It was too fast for the snapshots between.
        yield name, "died and was started again", True
    if same_broker and after.complaints > before.complaints:
        yield name, f"sent a corrupt segment: a client complains ({after.complaints:,} so far)", True


def _turned(name: str, before: WorkerState, worker: WorkerStatus) -> Change:
    """A worker's new state, as an event."""
    why = f": {worker.reason}" if worker.reason else ""
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
            return name, "is being started again", False
        case WorkerState.SILENT:
            return name, "is silent: its heartbeats are missing", True
        case WorkerState.DEAD:
            return name, f"died{why}", True
        case WorkerState.FAILED:
            return name, f"failed{why}; it is not started again until toggled", True
