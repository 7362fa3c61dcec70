"""Events are wrapped in whole words, and limited to failures, to a worker and to words."""

from __future__ import annotations

from typing import Any

from msd.broker.views.event_rows import event_details, event_lines, events_panel
from msd.broker.views.panel_text import Tone
from msd.wire.protocol.messages import LoggedEvent
from msd.wire.support.units import format_time


def event(text: str, seq: int = 1, **values: Any) -> LoggedEvent:
    return LoggedEvent(**{"seq": seq, "time": float(seq), "is_failure": False, "text": text, **values})


EVENTS = [
    event("worker 12 died", 3, is_failure=True, worker=12),
    event("worker 1 woke up", 2, worker=1),
    event("sharing 3 files", 1),
]


def shown(*words: str, **limits: Any) -> list[str]:
    return [" ".join(line.text.split()[1:]) for line in events_panel(EVENTS, 80, *words, **limits).lines]


def test_a_failure_has_a_mark_and_not_only_a_colour() -> None:
    lines = events_panel(EVENTS, 80).lines
    assert lines[0].text == f" {format_time(3.0)} ! worker 12 died"
    assert [line.tone for line in lines] == [Tone.BAD, Tone.NORMAL, Tone.NORMAL]


def test_events_are_limited_by_level_worker_and_words() -> None:
    assert shown(failures=True) == ["! worker 12 died"]
    assert shown(worker=1) == ["worker 1 woke up"]
    assert shown("SHARING") == ["sharing 3 files"]
    assert "event matches" in shown("sharing", worker=1)[0]
    title = events_panel(EVENTS, 80, failures=True, worker=1).titles[0]
    assert title == "Events: failures only, worker 1 only, newest first"


def test_without_events_it_says_so() -> None:
    assert events_panel([], 80).lines[0].text == " no events yet"


def test_control_characters_in_an_event_are_escaped() -> None:
    assert "\x1b" not in event_lines(event("worker 1 died: \x1b[2J", is_failure=True), 80)[0]
    assert "\x1b" not in "".join(event_details(event("\x1b")))


def test_a_long_event_is_wrapped_and_not_truncated() -> None:
    reason = "exited with code 1: " + "the broker's folder and its catalogue were removed " * 3
    lines = event_lines(event(f"worker 1 died: {reason}", is_failure=True), 79)
    assert max(map(len, lines)) <= 79
    assert " ".join(line.strip() for line in lines).endswith(reason.strip())
    assert all(line.startswith(" " * 11) for line in lines[1:])
    keys = [line.key for line in events_panel([event(reason), *EVENTS], 60).lines]
    assert keys[0] is not None
    assert keys[1:3] == [None, None], "the lines of one event are one row"
