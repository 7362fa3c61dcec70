"""The loop that polls sources and calls their handlers."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest

from msd.wire.net.poll_loop import PollLoop
from msd.wire.support.stall_detector import STALL_THRESHOLD_S


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    read_end, write_end = os.pipe()
    yield read_end, write_end
    os.close(read_end)
    os.close(write_end)


def test_the_handler_of_a_readable_source_is_called(pipe: tuple[int, int]) -> None:
    calls: list[bytes] = []
    loop = PollLoop()
    loop.register(pipe[0], lambda: calls.append(os.read(pipe[0], 10)))
    loop.wait([time.monotonic()])
    loop.dispatch()
    assert calls == []
    os.write(pipe[1], b"x")
    assert loop.wait([time.monotonic() + 60.0]) == 0.0
    loop.dispatch()
    assert calls == [b"x"]


def test_the_first_deadline_ends_the_wait_and_none_is_no_deadline(pipe: tuple[int, int]) -> None:
    loop = PollLoop()
    loop.register(pipe[0], lambda: None)
    began = time.monotonic()
    loop.wait([None, began + 60.0, began + 0.01])
    assert 0.01 <= time.monotonic() - began < 30.0


def test_a_source_that_an_earlier_handler_unregistered_is_not_called(pipe: tuple[int, int]) -> None:
    read_end, write_end = os.pipe()
    calls: list[int] = []
    loop = PollLoop()
    for source, other in ((pipe[0], read_end), (read_end, pipe[0])):

        def handle(source: int = source, other: int = other) -> None:
            calls.append(source)
            loop.unregister(other)

        loop.register(source, handle)
    os.write(pipe[1], b"x")
    os.write(write_end, b"x")
    loop.wait([time.monotonic() + 60.0])
    loop.dispatch()
    assert len(calls) == 1
    os.close(read_end)
    os.close(write_end)


def test_a_wait_that_lasts_too_long_is_a_stall(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([0.0, 1.0, 1.0 + 2 * STALL_THRESHOLD_S])
    monkeypatch.setattr("msd.wire.net.poll_loop.time.monotonic", lambda: next(now))
    loop = PollLoop()
    assert loop.wait([1.0]) > STALL_THRESHOLD_S


def test_a_handler_that_lasts_too_long_is_a_stall(pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([0.0, 0.0, 0.0, 2 * STALL_THRESHOLD_S])
    monkeypatch.setattr("msd.wire.net.poll_loop.time.monotonic", lambda: next(now))
    loop = PollLoop()
    loop.register(pipe[0], lambda: None)
    os.write(pipe[1], b"x")
    loop.wait([60.0])
    assert loop.dispatch() == loop.now == 2 * STALL_THRESHOLD_S
