"""Limits how often a consumer of events receives ``Progress``. Pure: a ``Progress`` event contains its time."""

from __future__ import annotations

from msd.client.events import Event, OnEvent, Progress


class ProgressThrottle:
    """Passes events on to ``on_event``, but drops each ``Progress`` that comes less than ``interval`` seconds after the
    last one passed on. Never drops the final one of a download.
    """

    def __init__(self, on_event: OnEvent, interval: float) -> None:
        self._on_event = on_event
        self._interval = interval
        self._last_at = 0.0

    def handle(self, event: Event) -> None:
        if isinstance(event, Progress):
            if event.seconds < self._last_at + self._interval and not event.is_complete:
                return
            self._last_at = event.seconds
        self._on_event(event)
