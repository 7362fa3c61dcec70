"""Converts a download's events into the lines of the live view, for a given width and height.

Pure: no clock, no output. ``client/display/terminal_painter.py`` draws the lines.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from msgspec.structs import replace
from rich.cells import cell_len
from rich.text import Text

from msd.client.display.files_text import file_figures, known_size, selection_title
from msd.client.display.peer_totals import split_peers
from msd.client.display.time_left import TimeLeft
from msd.client.display.waiting_text import waiting_text
from msd.client.display.worker_table import READY, WorkerLine, worker_table
from msd.client.events import (
    Event,
    FileChanged,
    FilesProgress,
    FilesStarted,
    Hashing,
    Progress,
    Started,
    Syncing,
    Waiting,
    WorkerChanged,
    WorkerProgress,
)
from msd.wire.support.presentable_names import presentable
from msd.wire.support.units import format_duration, format_percent, format_rate, format_size

#: Columns of the bar's line after its name: a space, and the percentage.
PERCENT_WIDTH = 6
#: The share of the width that a name may take before the bar; a longer one has a line of its own.
MAX_NAME_SHARE = 0.5
#: Maximum number of files in flight that are shown.
MAX_FILES = 4
#: Maximum share of the height for the lines of a message, and the lines that it has in any case.
MAX_MESSAGE_SHARE, MIN_MESSAGE_LINES = 1 / 3, 3
#: States reported by server 5 that explain a lost connection; the less specific ``lost`` does not replace them.
DOWN_STATES = ("asleep", "dead", "failed")


class LiveLayout:
    """The content of the live view of one download. Times are in seconds of the monotonic clock."""

    def __init__(self, bar: tuple[str, str] = ("━", "╌")) -> None:
        #: The characters for the completed and the remaining part of the bar.
        self._done_char, self._remaining_char = bar
        self._started: Started | FilesStarted | None = None
        self._progress: Progress | None = None
        #: State and detail of each worker, by name.
        self._states: dict[str, tuple[str, str]] = {}
        #: The name and the host of each worker that has joined from another host, by name.
        self._places: dict[str, str] = {}
        #: The time of the first request; None before it.
        self._requested_at: float | None = None
        #: The status message, and the time when the current stall began; None if the download is not stalled.
        self._message = "connecting to the servers"
        self._stalled_since: float | None = None
        #: The message about server 5; empty unless server 5 has a problem.
        self._server5_message = ""
        self._time_left = TimeLeft()

    def handle(self, event: Event, now: float) -> None:
        match event:
            case Started():
                self._started = event
                self._set_message("")
            case FilesStarted():
                self._started = event
            case Progress():
                self._on_progress(event, now)
            case FileChanged() if isinstance(self._started, Started):
                self._on_file_changed(event, self._started)
            case WorkerChanged("server 5", state, detail):
                self._server5_message = f"server 5 {state}: {detail}" if detail else ""
            case WorkerChanged(name, state, detail):
                self._places[name] = event.place
                if state != "lost" or self._states.get(name, ("",))[0] not in DOWN_STATES:
                    self._states[name] = (state, detail)
            case Waiting(_, seconds):
                self._set_message(waiting_text(event), now - seconds)
            case Hashing(reason=reason) | Syncing(reason=reason):
                self._set_message(reason)
                if self._progress is not None:
                    workers = tuple(replace(worker, rate=0.0) for worker in self._progress.workers)
                    self._progress = replace(self._progress, workers=workers)
            case _:
                pass

    def lines(self, width: int, height: int, now: float) -> list[Text]:
        """Returns at most ``height`` lines, each at most ``width`` columns wide."""
        width, height = max(width, 1), max(height, 1)
        head = [*self._head(width, now)]
        message_lines = max(MIN_MESSAGE_LINES, int(height * MAX_MESSAGE_SHARE))
        messages = [
            line
            for text in (self._server5_message, self._waiting_text(now))
            for line in _wrap_text(text, width, message_lines)
        ]
        available = max(0, height - len(head) - len(messages))
        files = self._file_rows(width, min(MAX_FILES, available // 3))
        lines = [*head, *files, *self._workers(width, available - len(files)), *messages][:height]
        for line in lines:
            line.truncate(width, overflow="ellipsis")
        return lines

    def _set_message(self, message: str, stalled_since: float | None = None) -> None:
        self._message, self._stalled_since = message, stalled_since

    def _waiting_text(self, now: float) -> str:
        return (
            self._message
            if self._stalled_since is None
            else f"waiting {format_duration(now - self._stalled_since)}: {self._message}"
        )

    def _on_progress(self, progress: Progress, now: float) -> None:
        last = self._progress
        if progress.bytes > (last.bytes if last else 0) or _has_new_files(last, progress):
            self._set_message("")
        self._time_left.update(progress.total - progress.bytes, self._expected_rate(progress.current_rate), now)
        self._progress = progress
        self._requested_at = now - progress.seconds if progress.seconds else None

    def _on_file_changed(self, event: FileChanged, started: Started) -> None:
        self._set_message("")
        self._started = replace(started, id=event.id, bytes=event.bytes, segments=event.segments)
        if self._progress is not None:
            self._progress = replace(self._progress, bytes=event.kept_bytes, total=event.bytes)

    def _expected_rate(self, rate: float) -> float:
        """Returns the rate for the time left. A low limit is a better estimate than what few segments show."""
        if self._started is None or not self._started.max_rate:
            return rate
        is_slow = isinstance(self._started, Started) and self._started.seconds_per_segment > 1
        limits_most = is_slow and self._stalled_since is None
        return self._started.max_rate if limits_most else min(rate, self._started.max_rate)

    def _head(self, width: int, now: float) -> Iterator[Text]:
        """Yields the lines with the bar and the figures."""
        started, progress = self._started, self._progress
        if started is None:
            return
        files = progress.files if progress else None
        done = progress.bytes if progress else 0
        if isinstance(started, Started):
            title, total, is_known = started.output.name, started.bytes, True
        else:
            title, total, is_known = selection_title(started), progress.total if progress else 0, _is_listed(files)
        share = (done / total if total else 1.0) if is_known else 0.0
        yield from self._bar(presentable(title), share, format_percent(done, total) if is_known else "", width)
        if files is not None and not files.is_listed and not files.counts.listed:
            return
        if files is not None:
            yield from _wrap_parts(file_figures(files), width)
        rate = progress.current_rate if progress else 0.0
        left = self._time_left.seconds(now)
        size = known_size(progress) if files is not None and progress else format_size(total)
        figures = [f"{format_size(done)} of {size}", format_rate(rate)]
        if self._requested_at is not None:
            figures.append(f"{format_duration(now - self._requested_at)} elapsed")
        if left is not None and 0 < share < 1:
            figures.append(f"{format_duration(left)} left")
        if started.max_rate:
            figures.append(f"limited to {format_rate(started.max_rate)}")
        if progress and progress.reused_bytes:
            figures.append(f"{format_size(progress.received_bytes)} received")
            if on_disk := progress.reused_bytes - progress.zero_bytes:
                figures.append(f"{format_size(on_disk)} reused from disk")
            if progress.zero_bytes:
                figures.append(f"{format_size(progress.zero_bytes)} zeros")
        if progress and progress.wasted_bytes:
            figures.append(f"{format_size(progress.wasted_bytes)} wasted (duplicate, corrupt or outdated)")
        yield from _wrap_parts(figures, width)

    def _bar(self, title: str, share: float, percent: str, width: int) -> Iterator[Text]:
        """Yields the line with the bar, which is as wide as the terminal. ``percent`` is empty while it is unknown."""
        if cell_len(title) > width * MAX_NAME_SHARE:
            yield Text(title)
            name = ""
        else:
            name = f"{title} "
        bar = max(0, width - cell_len(name) - PERCENT_WIDTH)
        full = int(bar * share)
        parts = ((self._done_char * full, "green"), (self._remaining_char * (bar - full), "dim"))
        yield Text.assemble(name, *parts, f" {percent:>{PERCENT_WIDTH - 1}}" if percent else "")

    def _file_rows(self, width: int, limit: int) -> list[Text]:
        """Returns a row for each of the largest files in flight: its name and its bytes."""
        files = self._progress.files if self._progress else None
        shown = files.in_flight[:limit] if files else ()
        done, totals = [format_size(file.bytes) for file in shown], [format_size(file.total) for file in shown]
        widths = [max(map(len, column), default=0) for column in (done, totals)]
        names = [presentable(file.name) for file in shown]
        name_width = max(1, min(max(map(cell_len, names), default=0), width - sum(widths) - 6))
        rows = []
        for name, size, total in zip(names, done, totals, strict=True):
            row = Text(_end_of(name, name_width))
            row.truncate(name_width, pad=True)
            rows.append(row.append(f"  {size:>{widths[0]}} of {total:>{widths[1]}}"))
        return rows

    def _workers(self, width: int, height: int) -> list[Text]:
        workers, peers = split_peers(self._progress.workers if self._progress else ())
        return worker_table([*map(self._worker_line, workers)], peers, width, height)

    def _worker_line(self, worker: WorkerProgress) -> WorkerLine:
        state, detail = self._states.get(worker.name, ("not connected", ""))
        return WorkerLine(
            name=worker.name,
            place=self._places.get(worker.name, ""),
            state=state,
            rate=worker.rate,
            received=worker.received,
            in_flight=worker.assigned - worker.received,
            reason=detail if state not in (READY, "lost", "asleep") else "",
        )


def _is_listed(files: FilesProgress | None) -> bool:
    return files is not None and files.is_listed


def _has_new_files(last: Progress | None, progress: Progress) -> bool:
    """True if the number of files has changed since the last progress."""
    before = last.files.counts if last and last.files else None
    return progress.files is not None and progress.files.counts.listed > 0 and progress.files.counts != before


def _end_of(name: str, width: int) -> str:
    """Returns the end of a name that is wider than ``width`` columns: it says more than the first folders."""
    if cell_len(name) <= width:
        return name
    end = name[-width:]
    while cell_len(end) >= width:
        end = end[1:]
    return f"…{end}"


def _wrap_parts(parts: Sequence[str], width: int, gap: str = "  ") -> Iterator[Text]:
    """Joins ``parts`` with gaps into lines of at most ``width`` columns. A part is never split, even if it is wider."""
    line = ""
    for part in parts:
        if line and cell_len(line) + len(gap) + cell_len(part) > width:
            yield Text(line)
            line = ""
        line = f"{line}{gap}{part}" if line else part
    if line:
        yield Text(line)


def _wrap_text(text: str, width: int, limit: int) -> list[Text]:
    """Wraps a message at spaces and keeps at most ``limit`` lines."""
    lines = [*_wrap_parts(presentable(text).split(), width, " ")]
    if len(lines) > limit:
        lines[limit - 1].append(" …")
    return lines[:limit]
