"""Limits how often a consumer of events receives ``Progress``. Pure: a ``Progress`` event contains its time."""

from __future__ import annotations

from msd.client.events import Event, OnEvent, Progress


class ProgressThrottle:
    """Passes events on to ``on_event``, but drops each ``Progress`` that comes less than ``interval`` seconds after the
    last one passed on. Never drops the final one of a download. The rates of the workers are averages since the
    previous ``Progress`` that was passed on.
    """

    def __init__(self, on_event: OnEvent, interval: float) -> None:
        self._on_event = on_event
        self._interval = interval
        self._last: Progress | None = None

    def handle(self, event: Event) -> None:
        if isinstance(event, Progress):
            last_at = self._last.seconds if self._last else 0.0
            if event.seconds < last_at + self._interval and event.bytes < event.total:
                return
            event = self._last = event.since(self._last)
        self._on_event(event)
