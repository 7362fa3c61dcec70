"""Records a download's events for its report, in bounded memory.

Pure: times are arguments. Writes no file; ``client/report/report_file.py`` does that.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

from msd.client.events import Event, FileResult, Outcome, Progress
from msd.client.report.json_values import event_values

#: Maximum number of ``Progress`` events (samples): far more than a chart can show, at about 300 bytes each.
MAX_SAMPLES = 20_000
#: Maximum number of other events; the newest are kept.
MAX_EVENTS = 20_000

Entry = Mapping[str, object]


class EventRecorder:
    """Records events. ``now`` is in seconds since the start; the report calls it ``at``.

    If there are too many ``Progress`` events, they are thinned out evenly. Of the results for files, only failures are
    recorded.
    """

    def __init__(self) -> None:
        self._samples: list[tuple[float, Entry]] = []
        self._others: deque[tuple[float, Entry]] = deque(maxlen=MAX_EVENTS)
        #: Every ``_sampling_step``-th sample is kept; ``_skipped`` counts the samples since the last kept one.
        self._sampling_step = 1
        self._skipped = 0
        #: The newest sample if it was skipped, so that the end is always recorded.
        self._newest: list[tuple[float, Entry]] = []

    def handle(self, event: Event, now: float) -> None:
        if isinstance(event, Progress):
            self._add_sample(now, event_values(event))
        elif not isinstance(event, FileResult) or event.outcome is Outcome.FAILED:
            self._others.append((now, event_values(event)))

    def entries(self) -> list[Entry]:
        """Returns the recorded events in chronological order."""
        kept = sorted([*self._others, *self._samples, *self._newest], key=lambda entry: entry[0])
        return [{"at": round(at, 3), **values} for at, values in kept]

    def _add_sample(self, at: float, values: Entry) -> None:
        self._skipped += 1
        if self._skipped < self._sampling_step:
            self._newest = [(at, values)]
            return
        self._skipped = 0
        self._newest = []
        self._samples.append((at, values))
        if len(self._samples) > MAX_SAMPLES:
            del self._samples[1::2]
            self._sampling_step *= 2
