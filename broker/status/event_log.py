"""Records events and rates for the log and for operators: a pure core.

Turns the supervisor's events and actions into text. Every event becomes at most one log line; events that concern
operators are also kept for status reports. Does not write the log. ``now`` is wall-clock time in seconds since 1970.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Set
from types import MappingProxyType

from msgspec.structs import replace

from msd.broker.status.client_arrivals import ClientArrivals
from msd.broker.status.history import newest
from msd.broker.status.worker_names import worker_label
from msd.broker.supervision import supervisor_events
from msd.broker.supervision.supervisor_events import AN_OPERATOR
from msd.wire.protocol.child_messages import IndexLeftOut, IndexSkipped, IndexSkips, NotShared
from msd.wire.protocol.messages import (
    MAX_RATE,
    TOTAL_RATE_S,
    DownloadStatus,
    LoggedEvent,
    RequestedSelection,
    Status,
    StatusReport,
    WorkerStatus,
)
from msd.wire.protocol.states import WorkerState
from msd.wire.sharing.indexer_notes import indexer_notes
from msd.wire.support.core import Stalled
from msd.wire.support.log_line import Level
from msd.wire.support.presentable_names import presentable
from msd.wire.support.units import format_count

#: Maximum number of events kept.
MAX_EVENTS = 32
#: Number of rates kept per worker, and seconds between two rates.
MAX_RATES, SAMPLE_INTERVAL_S = 30, 1.0
#: Number of total rates kept, each the mean of ``TOTAL_RATE_S`` seconds: five minutes.
MAX_TOTAL_RATES = 300 // TOTAL_RATE_S
SERVER_5 = "server 5"
NO_NAMES: Mapping[int, str] = MappingProxyType({})
#: Maximum number of characters of an event, as the protocol allows.
MAX_TEXT = 1024
#: A worker that may not join tries again every second. It is recorded again after this many seconds without an attempt.
#: As many refusals are remembered; further ones are not recorded, or they would push out all other events.
REFUSED_AGAIN_S, MAX_REFUSED = 60.0, 16
#: Maximum number of files that are recorded by name when they cannot be shared: more would push out other failures.
MAX_NAMED_SKIPS = 3

#: Writes a log line: level, source (a worker or server 5), text.
Log = Callable[[Level, str, str], None]
#: Shows an event that concerns operators: text, and whether it is a failure.
Show = Callable[[str, bool], None]


class EventLog:
    """The events of one broker. Calls ``log`` for every line, and ``show`` for the events that concern operators."""

    def __init__(self, log: Log, show: Show = lambda text, is_failure: None) -> None:
        self._log = log
        self._show = show
        #: Newest first.
        self._events: list[LoggedEvent] = []
        #: The texts of those among these events that say to operators who did something, for all others; by number.
        self._public_texts: dict[int, str] = {}
        self._clients = ClientArrivals()
        self._rates: defaultdict[int, deque[float]] = defaultdict(lambda: deque(maxlen=MAX_RATES))
        self._total_rates: deque[float] = deque(maxlen=MAX_TOTAL_RATES)
        #: The rates of which the mean is the next total rate.
        self._latest_totals: list[float] = []
        #: What is not shared, as the indexer reported last: what is left out, and what cannot be shared.
        self._left_out = self._skips = ""
        #: The number of files that were found since the last ``IndexSkips`` and cannot be shared.
        self._new_skips = 0
        #: Why workers that are awake cannot read some files.
        self._troubles: dict[int, str] = {}
        #: The names of the workers that have joined.
        self._names: dict[int, str] = {}
        #: When the last join was refused, by host and reason.
        self._refused: dict[tuple[str, str], float] = {}
        self._is_quitting = False

    def forget(self, number: int) -> None:
        """Forgets the rates of worker ``number``."""
        self._rates.pop(number, None)

    def on_event(self, event: supervisor_events.Event) -> None:
        """Logs an event that the supervisor is about to handle."""
        match event:
            case supervisor_events.Spawned(number, pid):
                self._log("info", self._source(number), f"started (pid {pid})")
            case supervisor_events.WorkerJoined(number, join, _, host) if host:
                self._names[number] = join.name
                self._log("info", self._source(number), f"joined from {host}")
            case supervisor_events.ToggleReceived(number, wanted, operator):
                order = f"wanted state set to {wanted}" if wanted else "toggled"
                self._log("info", self._source(number), f"{order} by {operator}")
            case supervisor_events.CatalogueReady(edition):
                self._log("info", SERVER_5, f"catalogue edition {edition} is ready")
            case supervisor_events.QuitReceived():
                self._is_quitting = True
                self._log("info", SERVER_5, "shutting down")
            case Stalled(seconds):
                self._log("warning", SERVER_5, f"event loop stalled for {seconds:.1f} s")
            case _:
                pass  # Heartbeats and time are not logged; ``on_change`` logs what an exit or a complaint has changed.

    def on_change(self, change: supervisor_events.Change, now: float) -> None:
        """Records a change that the supervisor reports."""
        match change:
            case supervisor_events.StateChanged(number):
                if change.after is WorkerState.AWAKE:
                    # The seconds in which it did not serve are no rates of what it can send.
                    self.forget(number)
                text, is_failure = _state_text(change)
                public_text, _ = _state_text(replace(change, operator=change.operator and AN_OPERATOR))
                self._record(text, now, public_text=public_text, worker=number, is_failure=is_failure)
            case supervisor_events.ComplaintCounted(number, complaints, client):
                text = f"sent a corrupt segment (reported by {client}, {complaints:,} so far)"
                self._record(text, now, worker=number, is_failure=True)

    def on_catalogue(self, files: int, now: float, *, is_first: bool) -> None:
        """Records that the workers serve another catalogue, of this many files."""
        count = format_count(files, "file")
        self._record(f"sharing {count}" if is_first else f"shared files changed: now {count}", now)

    def on_left_out(self, line: NotShared, now: float) -> None:
        """Records which files are not shared: by name only the first ``MAX_NAMED_SKIPS`` that cannot be shared. The
        broker prints and logs the notes itself.
        """
        match line:
            case IndexLeftOut(text):
                self._left_out = text
                self._keep(indexer_notes(line)[0], now)
            case IndexSkipped(_, reason):
                self._new_skips += 1
                if self._new_skips <= MAX_NAMED_SKIPS:
                    # Such a name may contain anything. Only operators may know it.
                    self._keep(presentable(indexer_notes(line)[0])[:MAX_TEXT], now, is_failure=True)
                    self._public_texts[self._events[0].seq] = presentable(f"not shared: a file: {reason}")[:MAX_TEXT]
            case IndexSkips(text):
                self._skips = presentable(text)[:MAX_TEXT]
                if self._new_skips > MAX_NAMED_SKIPS:
                    self._keep(f"not shared: {self._skips}"[:MAX_TEXT], now, is_failure=True)
                self._new_skips = 0

    def on_access_log(self, problem: str, now: float) -> None:
        """Records why the access log cannot be written."""
        self._record(problem, now, is_failure=True)

    def sample(
        self, status: Status, now: float, sessions: Set[int] = frozenset(), names: Mapping[int, str] = NO_NAMES
    ) -> None:
        """Records the rates and the clients: their open ``sessions``, and their ``names`` by session. Call it every
        ``SAMPLE_INTERVAL_S`` seconds.
        """
        for worker in status.workers:
            self._rates[worker.number].append(worker.rate)
            self._sample_trouble(worker, now)
        self._latest_totals.append(sum(worker.rate for worker in status.workers))
        if len(self._latest_totals) * SAMPLE_INTERVAL_S >= TOTAL_RATE_S:
            # Workers that have joined say themselves what they have sent: the sum must still fit into a message.
            self._total_rates.append(min(sum(self._latest_totals) / len(self._latest_totals), MAX_RATE))
            self._latest_totals.clear()
        for event in self._clients.sample(sessions, names, status.clients):
            self._record(event.text, now, public_text=event.public_text)

    def _sample_trouble(self, worker: WorkerStatus, now: float) -> None:
        """Records that a worker that is awake begins or ceases to have files that it cannot read."""
        trouble = worker.reason if worker.state is WorkerState.AWAKE else ""
        before = self._troubles.pop(worker.number, "")
        if trouble:
            self._troubles[worker.number] = trouble
        if trouble and trouble != before:
            self._record(f"cannot read some files: {trouble}", now, worker=worker.number, is_failure=True)
        elif before and not trouble and worker.state is WorkerState.AWAKE:
            self._record("reads its files again", now, worker=worker.number)

    def on_misuse(self, subscriber: str, now: float) -> None:
        """Records that a subscriber (the name of its key, or its address) was disconnected."""
        self._record(f"disconnected {subscriber}: too many subscriptions to unknown topics", now, is_failure=True)

    def on_join_refused(self, name: str, host: str, reason: str, now: float) -> None:
        """Records that the worker ``name`` from ``host`` may not join: once for each host and reason while it tries."""
        self._refused = {key: seen for key, seen in self._refused.items() if now < seen + REFUSED_AGAIN_S}
        is_known = (host, reason) in self._refused
        if is_known or len(self._refused) < MAX_REFUSED:
            self._refused[host, reason] = now
            if not is_known:
                # The reason may quote what a malicious worker has sent.
                text = presentable(f"refused worker {name} from {host}: {reason}")[:MAX_TEXT]
                self._record(text, now, is_failure=True)

    def on_receiver_banned(self, name: str, place: str, now: float) -> None:
        """Records that a receiver is not named to others any more. ``name`` is empty if it is not known."""
        receiver = f"receiver {presentable(name)} at {place}" if name else f"the receiver at {place}"
        text = "has sent wrong data to others: it is not named to them any more"
        self._record(f"{receiver} {text}", now, public_text=f"a receiver {text}", is_failure=True)

    def report(
        self,
        rid: int,
        status: Status,
        now: float,
        downloads: list[DownloadStatus] | None = None,
        requested: list[RequestedSelection] | None = None,
        *,
        is_operator: bool = True,
    ) -> StatusReport:
        """The reply to a status request. Only for operators, events say who did something."""
        return StatusReport(
            rid=rid,
            status=status,
            time=now,
            events=self._events if is_operator else [*map(self._as_public, self._events)],
            rates=[[*self._rates[worker.number]] for worker in status.workers],
            total_rates=[*self._total_rates],
            downloads=downloads or [],
            requested=requested or [],
            not_shared=[text for text in (self._skips, self._left_out) if text] if is_operator else [],
        )

    def _record(
        self, text: str, now: float, *, public_text: str = "", worker: int | None = None, is_failure: bool = False
    ) -> None:
        """Records an event. ``public_text`` is what others than operators may know; empty if that is all of it."""
        if self._is_quitting:
            return  # Workers that exit during a shutdown did not fail.
        source = SERVER_5 if worker is None else self._source(worker)
        self._log("warning" if is_failure else "info", source, text)
        subject = "" if worker is None else f"{source} "
        self._show(f"{subject}{text}", is_failure)
        self._keep(f"{subject}{text}", now, worker=worker, is_failure=is_failure)
        if public_text not in ("", text):
            self._public_texts[self._events[0].seq] = f"{subject}{public_text}"

    def _source(self, number: int) -> str:
        return f"worker {worker_label(number, self._names.get(number, ''))}"

    def _keep(self, text: str, now: float, *, worker: int | None = None, is_failure: bool = False) -> None:
        seq = self._events[0].seq + 1 if self._events else 1
        event = LoggedEvent(seq=seq, time=now, text=text, is_failure=is_failure, worker=worker)
        self._events = newest([event, *self._events], MAX_EVENTS)
        kept = {each.seq for each in self._events}
        self._public_texts = {number: text for number, text in self._public_texts.items() if number in kept}

    def _as_public(self, event: LoggedEvent) -> LoggedEvent:
        text = self._public_texts.get(event.seq)
        return event if text is None else replace(event, text=text)


def _state_text(change: supervisor_events.StateChanged) -> tuple[str, bool]:
    """The text of a change of state, and whether it is a failure."""
    reason = f": {change.reason}" if change.reason else ""
    match change.after:
        case WorkerState.AWAKE if change.before is WorkerState.ASLEEP:
            return f"was woken up by {change.operator}" if change.operator else "woke up", False
        case WorkerState.AWAKE if change.before is WorkerState.UNREACHABLE:
            return "can be reached", False
        case WorkerState.AWAKE if change.before in (WorkerState.SILENT, WorkerState.LOST):
            return "answers again", False
        case WorkerState.AWAKE:
            return "is alive", False
        case WorkerState.ASLEEP if not change.operator:
            return "fell asleep", False
        case WorkerState.ASLEEP if change.before is WorkerState.AWAKE:
            return f"was put to sleep by {change.operator}", False
        case WorkerState.ASLEEP:
            return f"is asleep: put to sleep by {change.operator}", False
        case WorkerState.STARTING if change.operator:
            return f"is restarting, ordered by {change.operator}", False
        case WorkerState.STARTING:
            has_process = change.before in (WorkerState.DEAD, WorkerState.FAILED)
            return "is restarting" if has_process else "has joined again", False
        case WorkerState.SILENT:
            return "is silent: heartbeats missing", True
        case WorkerState.UNREACHABLE:
            return f"cannot be reached{reason}", True
        case WorkerState.LOST:
            return f"is lost{reason}", change.reason != supervisor_events.LEFT
        case WorkerState.DEAD:
            return f"died{reason}", True
        case WorkerState.FAILED:
            return f"failed{reason}; not restarted until toggled", True
