"""The log of a download's events that a report keeps, bounded however long it takes.

A pure core: time is told. Writes nothing; that is ``client/report/report_file.py``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

from msd.client.events import Event, Progress, Sampled
from msd.client.report.json_values import event_values

#: Samples kept at most: what a picture can show is far less, and a sample is some 300 bytes.
MAX_SAMPLES = 20_000
#: Other events kept at most, the newest of them.
MAX_EVENTS = 20_000

Entry = Mapping[str, object]


class EventRecorder:
    """Keeps the events it is given, each with the seconds since the start as ``at``.

    Of progress it keeps the samples, evenly thinned out where there are too many.
    """

    def __init__(self) -> None:
        self._samples: list[tuple[float, Entry]] = []
        self._others: deque[tuple[float, Entry]] = deque(maxlen=MAX_EVENTS)
        #: Every so many samples one is kept; how many came since.
        self._every = 1
        self._skipped = 0
        #: The newest sample if it was not kept: the end is never lost.
        self._newest: list[tuple[float, Entry]] = []

    def take(self, event: Event, at: float) -> None:
        match event:
            case Sampled():
                self._sample(at, event_values(event))
            case Progress():
                pass
            case _:
                self._others.append((at, event_values(event)))

    def entries(self) -> list[Entry]:
        """What was kept, in the order of time."""
        kept = sorted([*self._others, *self._samples, *self._newest], key=lambda entry: entry[0])
        return [{"at": round(at, 3), **values} for at, values in kept]

    def _sample(self, at: float, values: Entry) -> None:
        self._skipped += 1
        if self._skipped < self._every:
            self._newest = [(at, values)]
            return
        self._skipped = 0
        self._newest = []
        self._samples.append((at, values))
        if len(self._samples) > MAX_SAMPLES:
            del self._samples[1::2]
            self._every *= 2
