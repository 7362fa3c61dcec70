"""The loop of a download: how often it polls the network, what it reports, and when it gives up."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import zmq
from msgspec.structs import replace

from msd.client.events import Event, OnEvent, Progress, Retried, Waiting, WorkerChanged, WorkerReport
from msd.client.network.progress_timeout import ProgressMade, ProgressTimeout, TimeoutExpired, WaitingFor
from msd.client.network.session import Session, Task
from msd.client.network_events import (
    FIRST_PEER,
    Ban,
    ConnectionClosed,
    NetworkEvent,
    ReplyReceived,
    SnapshotReceived,
    Unban,
)
from msd.client.operations import file_transfer as file_transfer_module
from msd.client.operations import transfer as transfer_module
from msd.client.operations.file_transfer import FileTransfer
from msd.client.operations.source_error import VersionLostError
from msd.client.operations.transfer import HELD_RESERVE, Transfer
from msd.client.scheduling import scheduler
from msd.client.scheduling.scheduler_events import RequestUnit
from msd.client.scheduling.worker_pace import MIN_PART
from msd.client.storage.output import Output
from msd.client.storage.part_file import PartFile
from msd.client.storage.segments_on_disk import SegmentsOnDisk
from msd.client.storage.stream_output import StreamOutput
from msd.client.storage.update import UpdatePartFile
from msd.wire.protocol.messages import PASSES_ON, PROTOCOL_VERSION, Get, Held, Holds, Refusal, Segment, new_rid
from msd.wire.protocol.states import ConnectionRefusal, RefusalReason, WorkerState
from tests.connections import opened
from tests.unit.client.storage.test_part_file import DATA, MANIFEST, MIB, SIZE, segment_of
from tests.unit.client.storage.test_stream_output import FakeStream
from tests.unit.snapshots import snapshot


class FakePool:
    """A connection pool without connections. Returns prepared events and records bans and requests."""

    worker_numbers = (1, 2, 3, 4)
    #: The workers that count as connected once a lost version has returned.
    ready = (1,)
    stalled_seconds = 0.0
    last_poll_at = 0.0
    read_until = math.inf
    local_reason = ""
    places: ClassVar[dict[int, str]] = {5: "attic, 192.0.2.7"}

    def __init__(self, catalogue: bytes = b"") -> None:
        self.initial = SnapshotReceived(snapshot(catalogue=catalogue, workers=[]))
        self.control: Any = None
        self.transport: Any = None
        self.polls = 0
        self.run: Any = None
        self.requests: list[tuple[int, int]] = []
        self.progress_timeout = ProgressTimeout(None, 0.0)
        self.read_errors: dict[int, str] = {}
        self.read_error = ""
        self.bans: list[tuple[str, int]] = []
        #: The events that the next polls return: one list for each poll.
        self.next_events: list[list[NetworkEvent]] = []

    def wait(self, deadline: float) -> None:
        self.polls += 1

    def events(self) -> list[Any]:
        events = self.next_events.pop(0) if self.next_events else []
        return [self.run.expect(event) if isinstance(event, ReplyReceived) else event for event in events]

    def request(self, worker: int, request: Get) -> None:
        self.requests.append((worker, request.index))

    def current_state(self) -> list[NetworkEvent]:
        return [self.initial]

    def handle_ban(self, event: Ban | Unban) -> None:
        self.bans.append((type(event).__name__.lower(), event.worker))


class End(Task):
    """Done once the file is complete or lost."""

    def __init__(self, file: FileTransfer) -> None:
        self._file = file

    def handle(self, event: object) -> None:
        pass

    def pass_time(self) -> float:
        self.is_done = self._file.is_done or self._file.lost is not None
        return math.inf


class FileRun:
    """The transfer of ``MANIFEST`` into ``output``."""

    def __init__(
        self, pool: FakePool, output: Output, catalogue: bytes, on_event: OnEvent, memory: int, max_rate: int | None
    ) -> None:
        self.session = Session(pool)  # type: ignore[arg-type]
        self.transfer = Transfer(self.session, memory=memory, max_rate=max_rate, on_event=on_event)
        self.transfer.total = MANIFEST.size
        pool.run = self
        self.start: Callable[[], FileTransfer] = lambda: FileTransfer(
            self.session,
            self.transfer,
            MANIFEST,
            output,
            catalogue=catalogue,
            memory=memory,
            previous=None,
            on_event=on_event,
        )

    def expect(self, event: ReplyReceived) -> ReplyReceived:
        """Makes the transfer expect a reply, as if it had sent the request. A refusal is for an outstanding request."""
        request = event.request
        if isinstance(event.reply, Refusal):
            outstanding = self.transfer._scheduler.workers[event.worker].outstanding.values()
            sent = self.transfer._requests[event.worker]
            rid = next(rid for rid, (part, *_) in sent.items() if part in outstanding)
            return replace(event, request=replace(request, rid=rid))
        assert isinstance(request, Get)
        request = replace(request, rid=new_rid())
        size = MANIFEST.span(request.index)[1]
        length = len(event.payload.buffer) if event.payload is not None else size
        part = RequestUnit(event.worker, request.index, request.start, length)
        self.transfer._requests[event.worker][request.rid] = part, *self.transfer._locate(part.unit)
        self.session._waiting[event.worker][request.rid] = self.transfer
        return replace(event, request=request)

    def run(self) -> None:
        self.session.start(self.transfer)
        self.file = self.start()
        self.session.run(End(self.file))
        if self.file.lost is not None:
            raise self.file.lost
        self.transfer.emit_progress(is_complete=True)

    @property
    def reused(self) -> int:
        return self.file.reused

    @property
    def received(self) -> int:
        return self.transfer.received

    @property
    def wasted(self) -> int:
        return self.transfer.wasted

    @property
    def workers(self) -> dict[int, WorkerReport]:
        return self.transfer.workers


def transfer_of(
    pool: FakePool,
    output: Output,
    catalogue: bytes = b"",
    on_event: OnEvent = lambda event: None,
    *,
    memory: int = 64 << 20,
    max_rate: int | None = None,
) -> FileRun:
    return FileRun(pool, output, catalogue, on_event, memory, max_rate)


@pytest.mark.parametrize("update", [False, True])
def test_the_network_is_polled_after_each_hashed_segment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, update: bool
) -> None:
    output = tmp_path / "film.mp4"
    existing = output if update else output.with_name(".film.mp4.msd-part")
    existing.write_bytes(DATA)
    pool = FakePool()
    #: For each segment that is hashed, the number of polls before.
    hashed_at: list[int] = []
    try_read = SegmentsOnDisk.try_read

    def count(copy: SegmentsOnDisk, index: int) -> memoryview | None:
        hashed_at.append(pool.polls)
        return try_read(copy, index)

    monkeypatch.setattr(SegmentsOnDisk, "try_read", count)
    with closing(UpdatePartFile(output, MANIFEST) if update else PartFile(output, MANIFEST)) as part:
        transfer = transfer_of(pool, part)
        transfer.run()
    assert transfer.reused == SIZE
    # There is a poll between any two hashes.
    assert len(hashed_at) == len({*hashed_at}) == MANIFEST.segments


class PromptPool(FakePool):
    """A pool whose worker 1 answers each request at once. Each wait lasts until its deadline, on a virtual clock."""

    def __init__(self) -> None:
        super().__init__()
        self.last_poll_at = 0.0
        self.progress_timeout = ProgressTimeout(5.0, 0.0)
        self.complaints: list[object] = []

    def wait(self, deadline: float) -> None:
        self.last_poll_at = max(self.last_poll_at, deadline)

    def events(self) -> list[Any]:
        self.complaints += self.progress_timeout.handle(
            WaitingFor(self.local_reason or "?", is_timed=not self.local_reason), self.last_poll_at
        )
        return super().events()

    def request(self, worker: int, request: Get) -> None:
        super().request(worker, request)
        segment = segment_of(DATA, request.index)
        end = len(segment) if request.length is None else request.start + request.length
        self.next_events.append([received(request.index, segment[request.start : end], request.start)])


def follow_clock_of(pool: PromptPool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the clock of ``pool`` the only one: what the real one says depends on how long the machine has run."""
    clock = SimpleNamespace(monotonic=lambda: pool.last_poll_at)
    for module in (transfer_module, file_transfer_module):
        monkeypatch.setattr(module, "time", clock)


def test_the_wait_for_the_rate_limit_is_not_a_lack_of_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A part of a segment is due every 8 s, and the download gives up after 5 s without progress."""
    pool = PromptPool()
    pool.next_events = [[opened(1)]]
    follow_clock_of(pool, monkeypatch)
    # Fewer waits.
    monkeypatch.setattr(transfer_module, "PROGRESS_INTERVAL_S", 0.4)
    with closing(PartFile(tmp_path / "film.mp4", MANIFEST)) as part:
        transfer = transfer_of(pool, part, max_rate=MIN_PART // 8)
        transfer.run()
    assert pool.complaints == []
    assert pool.last_poll_at == pytest.approx(8 * SIZE / MIN_PART, rel=0.02)
    assert (transfer.received, transfer.wasted) == (SIZE, 0)


OLD, NEW = b"o" * 32, b"n" * 32


def refused(worker: int, reason: RefusalReason) -> ReplyReceived:
    request = Get(rid=1, id=MANIFEST.id, index=0)
    return ReplyReceived(worker, request, Refusal(rid=1, epoch=7, reason=reason), None)


@pytest.mark.parametrize("initial", [OLD, NEW])
def test_whether_an_unknown_file_is_lost_depends_on_the_catalogue_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, initial: bytes
) -> None:
    """Server 5 publishes the new catalogue before the transfer starts. The reachable worker has the old catalogue."""
    pool = FakePool(NEW)
    # The last event lifts the ban of the worker. If the transfer is not lost by then, the test ends.
    pool.next_events = [
        [opened(1, catalogue=OLD)],
        [refused(1, RefusalReason.UNKNOWN)],
        [SnapshotReceived(snapshot(catalogue=b"x" * 32, workers=[]))],
    ]
    monkeypatch.setattr(scheduler, "CATALOGUE_LOAD_S", 0.0)
    states: list[str] = []

    def stop(event: Event) -> None:
        if isinstance(event, WorkerChanged):
            states.append(event.state)
            if states == ["ready", "set aside", "ready"]:
                raise KeyboardInterrupt

    with closing(PartFile(tmp_path / "film.mp4", MANIFEST)) as part:
        transfer = transfer_of(pool, part, initial, on_event=stop)
        with pytest.raises(VersionLostError if initial is OLD else KeyboardInterrupt):
            transfer.run()
    assert pool.bans == [], "the connection stays open"


@pytest.mark.parametrize(("files", "states"), [(1, ["ready", "set aside"]), (2, ["ready"])])
def test_only_a_ban_from_the_last_file_changes_the_state_of_a_worker(
    tmp_path: Path, files: int, states: list[str]
) -> None:
    pool, events = FakePool(), list[Event]()
    with closing(PartFile(tmp_path / "a", MANIFEST)) as part, closing(PartFile(tmp_path / "b", MANIFEST)) as other:
        file = transfer_of(pool, part, on_event=events.append)
        for output in (part, other)[:files]:
            options: Any = {"catalogue": b"", "memory": MIB, "previous": None, "on_event": events.append}
            FileTransfer(file.session, file.transfer, MANIFEST, output, **options)
        file.transfer.handle(opened(1))
        file.transfer.handle(file.expect(refused(1, RefusalReason.UNREADABLE)))
    assert [event.state for event in events if isinstance(event, WorkerChanged)] == states
    assert [event.cause for event in events if isinstance(event, Retried)] == ["unreadable"]


def test_progress_does_not_reach_the_end_while_the_output_is_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The output differs from the shared file only in the last segment, which arrives as soon as it is requested."""
    monkeypatch.setattr(transfer_module, "PROGRESS_INTERVAL_S", 0.0)
    output = tmp_path / "film.mp4"
    output.write_bytes(DATA[:-1] + b"?")
    last = MANIFEST.segments - 1
    reply = Segment(rid=1, epoch=7, index=last)
    request = Get(rid=1, id=MANIFEST.id, index=last)
    payload = SimpleNamespace(buffer=segment_of(DATA, last))
    pool = FakePool()
    pool.next_events = [
        [opened(1, catalogue=OLD)],
        *([[]] * last),
        [ReplyReceived(1, request, reply, payload)],
    ]
    events: list[Event] = []
    with closing(UpdatePartFile(output, MANIFEST)) as part:
        transfer = transfer_of(pool, part, on_event=events.append)
        transfer.run()
        part.publish(replace=True, sync=False)
    assert (transfer.reused, transfer.received, pool.requests) == (SIZE - 1234, 1234, [(1, last)])
    steps = [event.bytes for event in events if isinstance(event, Progress)]
    assert steps == sorted(steps)
    assert steps[-1] == SIZE
    # Progress grows by one segment after each poll, and reaches the full size only at the end.
    assert {*steps} >= {1234 + n * MIB for n in range(1, 16)}
    assert steps.count(SIZE) == 1
    assert output.read_bytes() == DATA


def test_an_up_to_date_output_counts_completely(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer_module, "PROGRESS_INTERVAL_S", 0.0)
    output = tmp_path / "film.mp4"
    output.write_bytes(DATA)
    events: list[Event] = []
    with closing(UpdatePartFile(output, MANIFEST)) as part:
        transfer = transfer_of(FakePool(), part, on_event=events.append)
        transfer.run()
    steps = [(event.bytes, event.reused_bytes) for event in events if isinstance(event, Progress)]
    assert {*steps} == {(0, 0), (SIZE, SIZE)}
    assert transfer.reused == SIZE


def received(index: int, data: bytes | memoryview, start: int = 0, *, worker: int = 1) -> ReplyReceived:
    payload = SimpleNamespace(buffer=memoryview(data))
    request = Get(rid=1, id=MANIFEST.id, index=index, start=start)
    return ReplyReceived(worker, request, Segment(rid=1, epoch=7, index=index, start=start), payload)


def test_a_corrupt_segment_is_counted_retried_and_reported_to_server_5(tmp_path: Path) -> None:
    pool = FakePool()
    complaints: list[tuple[str, int, bytes, int]] = []
    pool.control = "control"
    pool.transport = SimpleNamespace(report_corrupt=lambda *complaint: complaints.append(complaint))
    segments: list[list[NetworkEvent]] = [
        [received(index, segment_of(DATA, index))] for index in range(MANIFEST.segments)
    ]
    pool.next_events = [[opened(1, catalogue=OLD)], [received(0, b"?" * MIB)], *segments]
    events: list[Event] = []
    with closing(PartFile(tmp_path / "film.mp4", MANIFEST)) as part:
        transfer = transfer_of(pool, part, on_event=events.append)
        transfer.run()
    assert (transfer.received, transfer.wasted, transfer.workers[1].corrupt) == (SIZE + MIB, MIB, 1)
    assert Retried("1", 0, "corrupt") in events
    assert complaints == [("control", 1, MANIFEST.id, 0)]


@pytest.mark.parametrize("units", [1, 8, 9, 1000])
def test_what_a_peer_says_that_it_has_is_limited_by_the_units_of_the_plan(units: int, tmp_path: Path) -> None:
    """Bits beyond the last unit are ignored. A peer that sends many more is not used any more."""
    pool, events = FakePool(), list[Event]()
    length = -(-units // 8)
    with closing(PartFile(tmp_path / "copy", MANIFEST)) as part:
        transfer = FileRun(pool, part, b"", events.append, 8 * MIB, None).transfer
        transfer.pass_on(MANIFEST.id, units)
        for peer, size in ((FIRST_PEER, length + HELD_RESERVE), (FIRST_PEER + 1, length + HELD_RESERVE + 1)):
            transfer.handle(opened(peer, features=[PASSES_ON]))
            held: Any = zmq.Frame(b"\xff" * size)
            transfer.handle(ReplyReceived(peer, Holds(rid=5), Held(rid=5, epoch=7, plan=MANIFEST.id), held))
    assert transfer._held == {FIRST_PEER: (1 << 8 * length) - 1}
    assert pool.bans == [("ban", FIRST_PEER + 1)]
    changes = [(event.name, event.detail) for event in events if isinstance(event, WorkerChanged) and event.detail]
    assert changes == [("peer 2", "sent a malformed reply")]


def test_a_peer_that_has_another_plan_has_nothing_and_is_not_banned(tmp_path: Path) -> None:
    """Its plan has more units: for example, it has the new version of a file that has grown."""
    pool = FakePool()
    with closing(PartFile(tmp_path / "copy", MANIFEST)) as part:
        transfer = FileRun(pool, part, b"", lambda _: None, 8 * MIB, None).transfer
        transfer.pass_on(MANIFEST.id, 8)
        transfer.handle(opened(FIRST_PEER, features=[PASSES_ON]))
        held: Any = zmq.Frame(b"\xff" * (HELD_RESERVE + 2))
        transfer.handle(ReplyReceived(FIRST_PEER, Holds(rid=5), Held(rid=5, epoch=7, plan=b"o" * 32), held))
    assert transfer._held == {FIRST_PEER: 0}
    assert pool.bans == []


def test_a_worker_that_lacks_the_version_is_named_with_its_host_and_the_reason(tmp_path: Path) -> None:
    events: list[Event] = []
    refusal = Refusal(rid=1, epoch=7, reason=RefusalReason.CHANGED)
    with closing(PartFile(tmp_path / "film.mp4", MANIFEST)) as part:
        run = transfer_of(FakePool(), part, on_event=events.append)
        run.session.start(run.transfer)
        run.start()
        run.transfer.handle(opened(5))
        run.transfer.handle(run.expect(ReplyReceived(5, Get(rid=0, id=MANIFEST.id, index=0), refusal, None)))
    place = "attic, 192.0.2.7"
    assert [event for event in events if isinstance(event, WorkerChanged)] == [
        WorkerChanged("5", "ready", place=place),
        WorkerChanged("5", "set aside", "has another version of the file", place=place),
    ]


def test_a_lost_connection_is_reported_once_however_often_the_next_attempts_fail(tmp_path: Path) -> None:
    events: list[Event] = []
    with closing(PartFile(tmp_path / "film.mp4", MANIFEST)) as part:
        run = transfer_of(FakePool(), part, on_event=events.append)
        closed = ConnectionClosed(1)
        happened: list[NetworkEvent] = [opened(1), closed, closed, closed, opened(1), closed]
        for event in happened:
            run.transfer.handle(event)
    states = [event.state for event in events if isinstance(event, WorkerChanged)]
    assert states == ["ready", "lost", "ready", "lost"]


def test_another_protocol_version_is_reported_once_with_both_versions(tmp_path: Path) -> None:
    pool = FakePool()
    refused = [ConnectionClosed(2, ConnectionRefusal.VERSION, version) for version in (7, 7, 8)]
    pool.next_events = [[opened(1, catalogue=OLD), opened(2, catalogue=OLD), *refused], [ConnectionClosed(1)]]
    lost: list[str] = []

    def stop(event: Event) -> None:
        if isinstance(event, WorkerChanged) and event.state == "lost":
            if event.name == "1":
                raise KeyboardInterrupt
            lost.append(event.detail)

    with closing(PartFile(tmp_path / "film.mp4", MANIFEST)) as part, pytest.raises(KeyboardInterrupt):
        transfer_of(pool, part, on_event=stop).run()
    this = f"but this client uses version {PROTOCOL_VERSION}: update the older side"
    assert lost == [f"it uses protocol version {version}, {this}" for version in (7, 8)]


def test_the_segments_of_a_lost_connection_are_reassigned(tmp_path: Path) -> None:
    pool = FakePool()
    pool.next_events = [[opened(1)], [received(0, segment_of(DATA, 0)[:MIN_PART])], [ConnectionClosed(1)]]
    events: list[Event] = []

    def stop(event: Event) -> None:
        events.append(event)
        if isinstance(event, WorkerChanged) and event.state == "lost":
            raise KeyboardInterrupt

    with closing(PartFile(tmp_path / "film.mp4", MANIFEST)) as part:
        transfer = transfer_of(pool, part, on_event=stop)
        with pytest.raises(KeyboardInterrupt):
            transfer.run()
    count = len({index for _, index in pool.requests})
    assert count == 1
    assert events[-1] == WorkerChanged("1", "lost", "1 segment reassigned", 1)
    assert transfer.workers[1].failures == 1


def test_a_transfer_without_missing_units_does_not_wake_up_again_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = PromptPool()
    follow_clock_of(pool, monkeypatch)
    # Fewer waits.
    monkeypatch.setattr(transfer_module, "PROGRESS_INTERVAL_S", 0.4)
    with closing(PartFile(tmp_path / "film.mp4", MANIFEST)) as part:
        transfer = transfer_of(pool, part).transfer
        transfer.total = 0
        pool.last_poll_at += 10.0
        assert transfer.pass_time() > pool.last_poll_at


# Segments that arrive in parts.


def parts_of(index: int, data: memoryview, *workers: int) -> list[NetworkEvent]:
    """The replies with equal parts of a segment, each from another worker."""
    size = len(data) // len(workers)
    return [
        received(index, data[number * size : (number + 1) * size], number * size, worker=worker)
        for number, worker in enumerate(workers)
    ]


def test_parts_of_a_segment_are_joined_and_count_for_their_senders(tmp_path: Path) -> None:
    pool = FakePool()
    twice = parts_of(0, segment_of(DATA, 0), 1, 1, 2, 2)
    segments: list[list[NetworkEvent]] = [
        [received(index, segment_of(DATA, index))] for index in range(1, MANIFEST.segments)
    ]
    pool.next_events = [[opened(1), opened(2)], [*twice[:3], twice[1], twice[3]], *segments]
    with closing(PartFile(tmp_path / "film.mp4", MANIFEST)) as part:
        transfer = transfer_of(pool, part)
        transfer.run()
        part.publish(replace=False, sync=False)
    assert (tmp_path / "film.mp4").read_bytes() == DATA
    assert (transfer.received, transfer.wasted) == (SIZE + MIB // 4, MIB // 4)
    assert transfer.workers[1].bytes == SIZE - MIB // 2
    assert (transfer.workers[2].bytes, transfer.workers[2].segments) == (MIB // 2, 1)


def test_a_part_is_progress_but_verified_only_with_its_segment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer_module, "PROGRESS_INTERVAL_S", 0.0)
    pool = FakePool()
    made: list[object] = []
    pool.progress_timeout = SimpleNamespace(handle=lambda event, now: made.append(event))  # type: ignore[assignment]
    pool.next_events = [[opened(1)], [received(0, segment_of(DATA, 0)[:MIN_PART])]]
    progress: list[Progress] = []

    def stop(event: Event) -> None:
        if isinstance(event, Progress):
            progress.append(event)
            if not pool.next_events and event.workers[0].rate:
                raise KeyboardInterrupt

    with closing(PartFile(tmp_path / "film.mp4", MANIFEST)) as part, pytest.raises(KeyboardInterrupt):
        transfer_of(pool, part, on_event=stop).run()
    assert made == [ProgressMade()]
    worker = progress[-1].workers[0]
    assert (progress[-1].bytes, worker.received) == (0, 0)
    assert worker.assigned > MIN_PART


def test_a_corrupt_segment_of_several_senders_is_fetched_again_and_no_worker_is_blamed(tmp_path: Path) -> None:
    pool = FakePool()
    wrong = parts_of(0, memoryview(b"?" * MIB), 1, 2)
    segments: list[list[NetworkEvent]] = [
        [received(index, segment_of(DATA, index))] for index in range(MANIFEST.segments)
    ]
    pool.next_events = [[opened(1), opened(2)], wrong, *segments]
    events: list[Event] = []
    with closing(PartFile(tmp_path / "film.mp4", MANIFEST)) as part:
        transfer = transfer_of(pool, part, on_event=events.append)
        transfer.run()
    assert Retried("1 or 2", 0, "corrupt") in events
    assert (transfer.received, transfer.wasted) == (SIZE + MIB, MIB)
    assert [transfer.workers[number].corrupt for number in (1, 2)] == [0, 0]


def test_a_corrupt_segment_in_parts_of_one_sender_is_its_fault(tmp_path: Path) -> None:
    pool = FakePool()
    complaints: list[tuple[str, int, bytes, int]] = []
    pool.control = "control"
    pool.transport = SimpleNamespace(report_corrupt=lambda *complaint: complaints.append(complaint))
    wrong = parts_of(0, memoryview(b"?" * MIB), 2, 2)
    segments: list[list[NetworkEvent]] = [
        [received(index, segment_of(DATA, index))] for index in range(MANIFEST.segments)
    ]
    pool.next_events = [[opened(1), opened(2)], wrong, *segments]
    with closing(PartFile(tmp_path / "film.mp4", MANIFEST)) as part:
        transfer = transfer_of(pool, part)
        transfer.run()
    assert complaints == [("control", 2, MANIFEST.id, 0)]
    assert transfer.workers[2].corrupt == 1


@pytest.mark.parametrize(
    "event",
    [
        refused(1, RefusalReason.SLEEPING),
        refused(1, RefusalReason.UNREADABLE),
        ConnectionClosed(1),
        SnapshotReceived(snapshot(WorkerState.ASLEEP)),
        SnapshotReceived(snapshot(WorkerState.DEAD)),
    ],
    ids=["sleeping", "banned", "lost", "asleep", "dead"],
)
def test_a_worker_that_is_known_to_send_nothing_has_the_rate_0_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, event: NetworkEvent
) -> None:
    monkeypatch.setattr(transfer_module, "PROGRESS_INTERVAL_S", 0.0)
    pool = FakePool()
    arrivals: list[list[NetworkEvent]] = [[received(index, segment_of(DATA, index))] for index in (0, 1)]
    pool.next_events = [[opened(1), opened(2)], *arrivals, [event]]
    rates: list[float] = []

    def stop(event: Event) -> None:
        if isinstance(event, Progress):
            rates.append(event.workers[0].rate)
            if not pool.next_events:
                raise KeyboardInterrupt

    with closing(PartFile(tmp_path / "film.mp4", MANIFEST)) as part, pytest.raises(KeyboardInterrupt):
        transfer_of(pool, part, on_event=stop).run()
    assert [rate > 0 for rate in rates[-3:]] == [True, True, False]


# Streams.


class PoolWithReader(PromptPool):
    """The reader of ``stream`` takes nothing for 10 polls, each of which takes 100 seconds, and then half a segment in
    each poll.
    """

    def __init__(self, stream: FakeStream, output: StreamOutput) -> None:
        super().__init__()
        self.stream, self.output = stream, output
        self.next_events = [[opened(1)]]
        self.full_polls = 0
        self.transport = SimpleNamespace(watch_output=self.watch_output)

    def watch_output(self, fd: int, *, is_full: bool) -> None:
        self.full_polls += is_full

    def wait(self, deadline: float) -> None:
        if 0 < self.full_polls <= 10:
            self.last_poll_at += 100
        elif self.output.waits_for_reader:
            self.stream.room += MIB // 2

    def request(self, worker: int, request: Get) -> None:
        super().request(worker, request)
        # There is memory for two segments: the one that is being written, and the next.
        assert request.index <= self.output.position + 1


def test_a_slow_reader_limits_the_requests_and_is_not_a_failure_of_the_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = FakeStream(room=0)
    output = StreamOutput(stream, SIZE)  # type: ignore[arg-type]
    pool = PoolWithReader(stream, output)
    follow_clock_of(pool, monkeypatch)
    events: list[Event] = []
    transfer_of(pool, output, on_event=events.append, memory=2 * MIB).run()
    assert stream.received == DATA
    assert pool.last_poll_at == 1000, "the timeout of 5 s would have expired"
    reasons = {complaint.reason for complaint in pool.complaints if isinstance(complaint, Waiting)}
    assert reasons == {"/dev/stdout is full: its reader does not read"}
    assert not [complaint for complaint in pool.complaints if isinstance(complaint, TimeoutExpired)]
    # Only the last event has the full size.
    sizes = [event.bytes for event in events if isinstance(event, Progress)]
    assert (sizes.count(SIZE), sizes[-1]) == (1, SIZE)


def test_a_file_that_changes_while_it_is_written_to_a_stream_cannot_be_continued() -> None:
    """The stream has received the first segment. Then the only other known workers refuse the file, too."""
    pool = FakePool(OLD)
    pool.transport = SimpleNamespace(watch_output=lambda fd, is_full: None)
    refusals: list[NetworkEvent] = [refused(number, RefusalReason.CHANGED) for number in (1, 2, 3, 4)]
    pool.next_events = [[opened(number) for number in (1, 2, 3, 4)], [received(0, segment_of(DATA, 0))], refusals]
    transfer = transfer_of(pool, StreamOutput(FakeStream(room=SIZE), SIZE))  # type: ignore[arg-type]
    with pytest.raises(VersionLostError):
        transfer.run()
    assert not transfer.file.output.can_restart
