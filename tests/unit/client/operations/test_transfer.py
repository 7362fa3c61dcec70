"""The loop of a download: how long it is away from the network."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from msd.client.events import Event, OnEvent, Progress
from msd.client.network.transport import LinkOpened, ReplyReceived, SnapshotReceived, TransportEvent
from msd.client.operations.transfer import Transfer
from msd.client.storage.local_copy import LocalCopy
from msd.client.storage.part_file import PartFile
from msd.client.storage.update import UpdateFile
from msd.wire.errors import SourceError
from msd.wire.protocol.messages import PROTOCOL_VERSION, Get, Refusal, Segment, Status, Welcome
from msd.wire.protocol.states import RefusalReason
from tests.unit.client.storage.test_part_file import DATA, MIB, SIZE, STAR, piece


class Quiet:
    """ConnectionPool of whom nobody is there; counts how often they were listened to."""

    numbers = (1, 2, 3, 4)
    stalled = 0.0
    looked_at = 0.0

    def __init__(self, catalogue: bytes = b"") -> None:
        self.status = SimpleNamespace(catalogue=catalogue, workers=[])
        self.ready: dict[int, Any] = {}
        self.turns = 0
        self.asked: list[tuple[int, int]] = []
        self.done: list[tuple[str, int]] = []
        #: What the next turns bring.
        self.coming: list[list[TransportEvent]] = []

    def wait(self, deadline: float) -> None:
        self.turns += 1

    def events(self) -> list[Any]:
        return self.coming.pop(0) if self.coming else []

    def request(self, worker: int, request: Get) -> None:
        self.asked.append((worker, request.index))

    def ban(self, worker: int) -> None:
        self.done.append(("set aside", worker))

    def unban(self, worker: int) -> None:
        self.done.append(("readmit", worker))

    def news(self) -> None:
        return None

    def why_waiting(self) -> str:
        return "nobody is there"


def begin(
    peers: Quiet, part: PartFile, catalogue: bytes = b"", on_event: OnEvent = lambda event: None, interval: float = 1.0
) -> Transfer:
    return Transfer(
        peers,  # type: ignore[arg-type]
        STAR,
        part,
        catalogue=catalogue,
        timeout=None,
        interval=interval,
        memory=64 << 20,
        on_event=on_event,
    )


@pytest.mark.parametrize("update", [False, True])
def test_the_network_waits_for_no_more_than_one_segment_s_hash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, update: bool
) -> None:
    output = tmp_path / "film.mp4"
    held = output if update else output.with_name("film.mp4.part")
    held.write_bytes(DATA)
    peers = Quiet()
    hashed_at: list[int] = []
    read = LocalCopy.read

    def counted(copy: LocalCopy, index: int) -> memoryview | None:
        hashed_at.append(peers.turns)
        return read(copy, index)

    monkeypatch.setattr(LocalCopy, "read", counted)
    with closing(UpdateFile(output, STAR) if update else PartFile(output, STAR)) as part:
        transfer = begin(peers, part)
        transfer.run()
    assert transfer.reused == SIZE
    # Each hash in a turn of its own.
    assert len(hashed_at) == len({*hashed_at}) == STAR.segments


OLD, NEW = b"o" * 32, b"n" * 32


def opened(worker: int, catalogue: bytes) -> LinkOpened:
    welcome = Welcome(rid=1, version=PROTOCOL_VERSION, epoch=7, number=worker, files=1, catalogue=catalogue)
    return LinkOpened(worker, welcome, 0.001)


def told(catalogue: bytes) -> SnapshotReceived:
    status = Status(version=1, epoch=1, seq=1, interval=2.0, control="", catalogue=catalogue, files=1, workers=[])
    return SnapshotReceived(status)


def refused(worker: int, reason: RefusalReason) -> ReplyReceived:
    request = Get(rid=1, id=STAR.id, index=0)
    return ReplyReceived(worker, request, Refusal(rid=1, epoch=7, reason=reason), None)


@pytest.mark.parametrize("found_with", [OLD, NEW])
def test_what_was_vouched_for_when_the_file_was_found_decides_whether_it_changed(
    tmp_path: Path, found_with: bytes
) -> None:
    """Server 5 vouches for the new catalogue already when the transfer begins; worker 1 is the only one."""
    peers = Quiet(NEW)
    # Nothing more comes after this: the last event ends the test where nothing was given up.
    peers.coming = [[opened(1, OLD)], [refused(1, RefusalReason.UNKNOWN)], [told(b"x" * 32)]]
    with closing(PartFile(tmp_path / "film.mp4", STAR)) as part:
        transfer = begin(peers, part, found_with)

        def news() -> None:
            if peers.done[-1:] == [("readmit", 1)]:
                raise KeyboardInterrupt

        peers.news = news  # type: ignore[method-assign]
        with pytest.raises(SourceError if found_with is OLD else KeyboardInterrupt):
            transfer.run()
    assert peers.done == [("set aside", 1), ("readmit", 1)][: 1 if found_with is OLD else 2]


def test_progress_does_not_stand_at_its_end_while_an_output_is_copied(tmp_path: Path) -> None:
    """The output differs in its last segment only, which comes at once."""
    output = tmp_path / "film.mp4"
    output.write_bytes(DATA[:-1] + b"?")
    last = STAR.segments - 1
    answer = Segment(rid=1, epoch=7, index=last)
    request = Get(rid=1, id=STAR.id, index=last)
    payload = SimpleNamespace(buffer=piece(DATA, last))
    peers = Quiet()
    peers.coming = [
        [opened(1, OLD)],
        *([[]] * last),
        [ReplyReceived(1, request, answer, payload)],  # type: ignore[arg-type]
    ]
    events: list[Event] = []
    with closing(UpdateFile(output, STAR)) as part:
        transfer = begin(peers, part, on_event=events.append, interval=0.0)
        transfer.run()
        part.publish(replace=True, sync=False)
    assert (transfer.reused, transfer.received, peers.asked) == (SIZE - 1234, 1234, [(1, last)])
    steps = [event.bytes for event in events if isinstance(event, Progress)]
    assert steps == sorted(steps)
    assert steps[-1] == SIZE
    # One more in each turn, and all of them only at the end.
    assert {*steps} >= {1234 + n * MIB for n in range(1, 16)}
    assert len([step for step in steps if step == SIZE]) <= 2
    assert output.read_bytes() == DATA


def test_an_output_that_is_right_counts_as_a_whole(tmp_path: Path) -> None:
    output = tmp_path / "film.mp4"
    output.write_bytes(DATA)
    events: list[Event] = []
    with closing(UpdateFile(output, STAR)) as part:
        transfer = begin(Quiet(), part, on_event=events.append, interval=0.0)
        transfer.run()
    steps = [(event.bytes, event.reused_bytes) for event in events if isinstance(event, Progress)]
    assert {*steps} == {(0, 0), (SIZE, SIZE)}
    assert transfer.reused == SIZE
