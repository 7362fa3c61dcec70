"""Log lines: their columns, and the escaping of control characters."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime

import pytest

from msd.wire.support.log_line import Level, log_line

#: 2026-01-02 00:04:05.678 in the time zone of the fixture.
MOMENT = 1_767_319_445.678


@pytest.fixture
def time_zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Sets the local time zone to UTC-2 for the test."""
    with monkeypatch.context() as patched:
        patched.setenv("TZ", "MSD+2")
        time.tzset()
        yield
    time.tzset()


def test_a_line_has_local_time_level_source_and_text(time_zone: None) -> None:
    line = log_line(MOMENT, "info", "worker 2", "woke up")
    assert line == "2026-01-02T00:04:05.678-02:00 info    worker 2 woke up"


@pytest.mark.parametrize("level", ["debug", "info", "warning", "error"])
def test_the_columns_are_aligned_and_the_time_can_be_parsed(level: Level) -> None:
    timestamp, found, rest = log_line(MOMENT, level, "client", "text").split(maxsplit=2)
    assert datetime.fromisoformat(timestamp).timestamp() == pytest.approx(MOMENT)
    assert found == level
    assert rest == "client   text"
    assert len(log_line(MOMENT, level, "client", "")) == len(log_line(MOMENT, "info", "server 5", ""))


def test_text_that_could_control_a_terminal_is_escaped() -> None:
    line = log_line(MOMENT, "error", "client", "a\x1b[2J\nb")
    assert line.endswith(r"a\x1b[2J\nb")
