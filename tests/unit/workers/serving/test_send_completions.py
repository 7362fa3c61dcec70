"""Zero-copy sends over real sockets, and reports of released frames.

Every test runs three times: with the private part of pyzmq that ``SendCompletions`` replaces, without that part, and
as if replacing the part had no effect.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import cast

import pytest
import zmq
from zmq.utils import garbage

from msd.workers.serving import send_completions
from msd.workers.serving.send_completions import SendCompletions
from tests.processes import wait_for

MIB = 1 << 20
TIMEOUT_MS = 10_000


@pytest.fixture(
    autouse=True,
    params=[send_completions._PYZMQ, {}, {"_gc": None}],
    ids=["private part", "private part missing", "private part without effect"],
)
def replaces_collector(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Sets the globals in which ``SendCompletions`` replaces pyzmq's collector; True if it can be replaced."""
    monkeypatch.setattr(send_completions, "_PYZMQ", request.param)
    return len(request.param) > 1


class Pair:
    """Two connected sockets, and the send completions of the sender."""

    def __init__(self, stack: ExitStack) -> None:
        self.completions: SendCompletions[str] = SendCompletions()
        stack.callback(self.completions.close)
        context: zmq.Context[zmq.Socket[bytes]] = stack.enter_context(zmq.Context())
        self.sender = stack.enter_context(context.socket(zmq.PAIR))
        self.receiver = stack.enter_context(context.socket(zmq.PAIR))
        self.sender.linger = 0
        self.receiver.rcvtimeo = TIMEOUT_MS
        self.sender.bind("inproc://pair")
        self.receiver.connect("inproc://pair")

    def send(self, data: bytes, tag: str) -> None:
        self.sender.send(self.completions.frame(data, tag))

    def collect(self) -> list[str]:
        """Waits until a frame is released; returns the tags of all released frames."""
        assert self.completions.socket.poll(TIMEOUT_MS), "no frame was released"
        return self.completions.collect()


@pytest.fixture
def pair() -> Iterator[Pair]:
    with ExitStack() as stack:
        yield Pair(stack)


@pytest.mark.parametrize("size", [1, MIB])
def test_a_frame_completes_once_it_is_received(pair: Pair, size: int) -> None:
    assert not pair.completions
    pair.send(b"x" * size, "tag")
    assert pair.completions
    assert pair.completions.collect() == []
    assert pair.receiver.recv() == b"x" * size
    assert pair.collect() == ["tag"]
    assert not pair.completions
    assert pair.completions.collect() == []


def test_a_frame_refers_to_the_data_without_copying_it(pair: Pair) -> None:
    data = bytearray(MIB)
    frame = pair.completions.frame(cast("bytes", data), "tag")
    data[0] = 1
    pair.sender.send(frame)
    assert pair.receiver.recv() == data
    assert not pair.completions.socket.poll(50), "the data must not be released while the frame object refers to it"
    del frame
    assert pair.collect() == ["tag"]


def test_frames_complete_in_the_order_in_which_zeromq_releases_them(pair: Pair) -> None:
    for tag in ("first", "second", "third"):
        pair.send(bytes(MIB), tag)
    for tag in ("first", "second", "third"):
        pair.receiver.recv()
        assert pair.collect() == [tag]


def test_a_cancelled_frame_is_released_but_not_reported(pair: Pair) -> None:
    pair.completions.frame(bytes(MIB), "never sent")
    pair.completions.cancel_last()
    assert pair.completions, "a cancelled frame must count as pending until its release is collected"
    assert pair.collect() == []
    assert not pair.completions
    pair.send(b"x", "sent")
    pair.receiver.recv()
    assert pair.collect() == ["sent"]


def test_the_collector_of_pyzmq_keeps_the_buffers_only_if_it_cannot_be_replaced(
    pair: Pair, replaces_collector: bool
) -> None:
    # Buffers of earlier tests may still be in flight.
    wait_for("the release of earlier buffers", lambda: not garbage.gc.refs)
    pair.send(bytes(MIB), "tag")
    assert len(garbage.gc.refs) == (not replaces_collector)
    pair.receiver.recv()
    assert pair.collect() == ["tag"]


def test_close_ignores_releases_that_still_arrive(pair: Pair) -> None:
    for _ in range(50):
        pair.send(b"x", "tag")
        pair.receiver.recv()
    pair.completions.close()


def test_other_zero_copy_sends_of_the_process_use_the_collector_of_pyzmq(pair: Pair) -> None:
    pair.send(bytes(MIB), "tag")
    tracker = pair.sender.send(bytes(MIB), copy=False, track=True)
    pair.receiver.recv()
    pair.receiver.recv()
    tracker.wait(TIMEOUT_MS / 1000)
    assert pair.collect() == ["tag"]
