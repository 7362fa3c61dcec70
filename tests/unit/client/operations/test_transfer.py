"""The loop of a download: how often it polls the network, what it reports, and when it gives up."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from msd.client.events import Event, OnEvent, Progress, Retried, WorkerChanged
from msd.client.network.progress_timeout import ProgressTimeout, WaitingFor
from msd.client.network_events import Ban, ConnectionClosed, NetworkEvent, ReplyReceived, SnapshotReceived, Unban
from msd.client.operations import transfer as transfer_module
from msd.client.operations.transfer import Transfer
from msd.client.storage.part_file import PartFile
from msd.client.storage.segments_on_disk import SegmentsOnDisk
from msd.client.storage.update import UpdatePartFile
from msd.wire.errors import SourceError
from msd.wire.protocol.messages import Get, Refusal, Segment
from msd.wire.protocol.states import RefusalReason
from tests.connections import opened
from tests.unit.client.storage.test_part_file import DATA, MANIFEST, MIB, SIZE, segment_of
from tests.unit.snapshots import snapshot


class FakePool:
    """A connection pool without connections. Returns prepared events and records bans and requests."""

    worker_numbers = (1, 2, 3, 4)
    stalled_seconds = 0.0

    def __init__(self, catalogue: bytes = b"") -> None:
        self.initial = SnapshotReceived(snapshot(catalogue=catalogue, workers=[]))
        self.control: Any = None
        self.transport: Any = None
        self.polls = 0
        self.requests: list[tuple[int, int]] = []
        self.progress_timeout = ProgressTimeout(None, 0.0)
        self.bans: list[tuple[str, int]] = []
        #: The events that the next polls return: one list for each poll.
        self.next_events: list[list[NetworkEvent]] = []

    def wait(self, deadline: float) -> None:
        self.polls += 1

    def events(self) -> list[Any]:
        return self.next_events.pop(0) if self.next_events else []

    def request(self, worker: int, request: Get) -> None:
        self.requests.append((worker, request.index))

    def current_state(self) -> list[NetworkEvent]:
        return [self.initial]

    def handle_ban(self, event: Ban | Unban) -> None:
        self.bans.append((type(event).__name__.lower(), event.worker))


def transfer_of(
    pool: FakePool,
    part: PartFile,
    catalogue: bytes = b"",
    on_event: OnEvent = lambda event: None,
    max_rate: int | None = None,
) -> Transfer:
    return Transfer(
        pool,  # type: ignore[arg-type]
        MANIFEST,
        part,
        catalogue=catalogue,
        memory=64 << 20,
        max_rate=max_rate,
        on_event=on_event,
    )


@pytest.mark.parametrize("update", [False, True])
def test_the_network_is_polled_after_each_hashed_segment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, update: bool
) -> None:
    output = tmp_path / "film.mp4"
    existing = output if update else output.with_name("film.mp4.part")
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
        self.complaints += self.progress_timeout.handle(WaitingFor("?"), self.last_poll_at)
        return super().events()

    def request(self, worker: int, request: Get) -> None:
        super().request(worker, request)
        self.next_events.append([received(request.index, segment_of(DATA, request.index))])


def test_the_wait_for_the_rate_limit_is_not_a_lack_of_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A segment is due every 10 s, and the download gives up after 5 s without progress."""
    pool = PromptPool()
    pool.next_events = [[opened(1)]]
    monkeypatch.setattr(transfer_module, "time", SimpleNamespace(monotonic=lambda: pool.last_poll_at))
    with closing(PartFile(tmp_path / "film.mp4", MANIFEST)) as part:
        transfer = transfer_of(pool, part, max_rate=MIB // 10)
        transfer.run()
    assert pool.complaints == []
    assert pool.last_poll_at == pytest.approx(10 * (MANIFEST.segments - 1), rel=0.02)
    assert (transfer.received, transfer.wasted) == (SIZE, 0)


OLD, NEW = b"o" * 32, b"n" * 32


def refused(worker: int, reason: RefusalReason) -> ReplyReceived:
    request = Get(rid=1, id=MANIFEST.id, index=0)
    return ReplyReceived(worker, request, Refusal(rid=1, epoch=7, reason=reason), None)


@pytest.mark.parametrize("initial", [OLD, NEW])
def test_a_ban_for_an_unknown_file_depends_on_the_catalogue_at_the_start(tmp_path: Path, initial: bytes) -> None:
    """Server 5 publishes the new catalogue before the transfer starts. The only worker has the old catalogue."""
    pool = FakePool(NEW)
    # The new catalogue in the last event unbans the worker. If the transfer has not given up by then, the test ends.
    pool.next_events = [
        [opened(1, catalogue=OLD)],
        [refused(1, RefusalReason.UNKNOWN)],
        [SnapshotReceived(snapshot(catalogue=b"x" * 32, workers=[]))],
    ]
    with closing(PartFile(tmp_path / "film.mp4", MANIFEST)) as part:
        transfer = transfer_of(pool, part, initial)

        def stop(deadline: float) -> None:
            if pool.bans[-1:] == [("unban", 1)]:
                raise KeyboardInterrupt

        pool.wait = stop  # type: ignore[method-assign]
        with pytest.raises(SourceError if initial is OLD else KeyboardInterrupt):
            transfer.run()
    assert pool.bans == [("ban", 1), ("unban", 1)][: 1 if initial is OLD else 2]


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


def received(index: int, data: bytes | memoryview) -> ReplyReceived:
    payload = SimpleNamespace(buffer=memoryview(data))
    request = Get(rid=1, id=MANIFEST.id, index=index)
    return ReplyReceived(1, request, Segment(rid=1, epoch=7, index=index), payload)


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


def test_the_segments_of_a_lost_connection_are_reassigned(tmp_path: Path) -> None:
    pool = FakePool()
    pool.next_events = [[opened(1, catalogue=OLD)], [ConnectionClosed(1)]]
    events: list[Event] = []

    def stop(event: Event) -> None:
        events.append(event)
        if isinstance(event, WorkerChanged) and event.state == "lost":
            raise KeyboardInterrupt

    with closing(PartFile(tmp_path / "film.mp4", MANIFEST)) as part:
        transfer = transfer_of(pool, part, on_event=stop)
        with pytest.raises(KeyboardInterrupt):
            transfer.run()
    count = len(pool.requests)
    assert count > 1
    assert events[-1] == WorkerChanged("1", "lost", f"{count} segments reassigned", count)
    assert transfer.workers[1].failures == 1
