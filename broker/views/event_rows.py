"""The console's events as rows: filtered by words, by level and by worker, and wrapped. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from msd.broker.views.columns import wrap
from msd.broker.views.panel_text import Line, PanelText, Tone, matches, note, titles
from msd.wire.protocol.messages import LoggedEvent
from msd.wire.support.presentable_names import presentable
from msd.wire.support.units import format_time


def events_panel(
    events: Sequence[LoggedEvent], width: int, words: str = "", *, failures: bool = False, worker: int | None = None
) -> PanelText:
    """Returns the events that match ``words``, newest first: with ``failures`` only failures, with ``worker`` only the
    events of that worker.
    """
    shown = [
        event
        for event in events
        if (event.is_failure or not failures)
        and (worker is None or event.worker == worker)
        and matches(words, event.text)
    ]
    limits = [*(["failures only"] if failures else []), *([f"worker {worker} only"] if worker is not None else [])]
    names = titles("Events", ", ".join([*limits, "newest first"]), words=words)
    if not shown:
        return note(names, "no event matches" if limits or words else "no events yet", width)
    lines: list[Line] = []
    for event in shown:
        tone = Tone.BAD if event.is_failure else Tone.NORMAL
        key = (event.seq, event.time, event.text)
        texts = event_lines(event, width - 1)
        lines += [Line(None if number else key, f" {text}", tone) for number, text in enumerate(texts)]
    return PanelText(names, lines)


def event_lines(event: LoggedEvent, width: int) -> list[str]:
    """Returns an event as lines of at most ``width`` columns."""
    return wrap(
        f"{format_time(event.time)} {'!' if event.is_failure else ' '} {presentable(event.text)}", width, indent=11
    )


def event_details(event: LoggedEvent) -> list[str]:
    """Returns everything known about an event, one paragraph an entry."""
    level = "a failure" if event.is_failure else "no failure"
    return [f"Event at {format_time(event.time)}, {level}", presentable(event.text)]
