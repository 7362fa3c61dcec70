"""Converts a download's events into the lines of the live view, for a given width and height.

Pure: no clock, no output. ``client/display/terminal_painter.py`` draws the lines.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from msgspec.structs import replace
from rich.cells import cell_len
from rich.text import Text

from msd.client.display.files_text import file_figures, known_size, selection_title
from msd.client.display.peer_totals import PeerTotals, split_peers
from msd.client.display.time_left import TimeLeft
from msd.client.display.waiting_text import waiting_text
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
from msd.wire.support.units import format_duration, format_rate, format_size

#: Minimum and maximum width of the bar in columns. The maximum keeps the line short, so that it rarely wraps when the
#: terminal becomes narrower.
MIN_BAR_WIDTH, MAX_BAR_WIDTH = 8, 40
#: Maximum width of the file's name in columns.
MAX_NAME_WIDTH = 32
#: Maximum number of files in flight that are shown.
MAX_FILES = 4
#: Maximum number of lines per message.
MAX_MESSAGE_LINES = 3
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
        #: How each worker is called, by name.
        self._labels: dict[str, str] = {}
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
                self._labels[name] = event.label
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
        messages = [
            line for text in (self._server5_message, self._waiting_text(now)) for line in _wrap_text(text, width)
        ]
        available = max(0, height - len(head) - len(messages))
        rows = [*self._file_rows(width, min(MAX_FILES, available // 3)), *self._rows(width)]
        if len(rows) > available:
            rows = [*rows[: max(0, available - 1)], Text(f"… {len(rows) - available + 1} more")][:available]
        lines = [*head, *rows, *messages][:height]
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
        share = done / total if total else float(is_known)
        yield self._bar(title, share if is_known else None, width)
        if files is not None:
            yield from _wrap_parts(file_figures(files), width)
        rate = progress.current_rate if progress else 0.0
        left = self._time_left.seconds(now)
        size = known_size(progress) if files is not None and progress else format_size(total)
        figures = [f"{format_size(done)} of {size}", format_rate(rate)]
        if left is not None and is_known and 0 < share < 1:
            figures.append(f"{format_duration(left)} left")
        if started.max_rate:
            figures.append(f"limited to {format_rate(started.max_rate)}")
        if progress and progress.reused_bytes:
            figures.append(f"{format_size(done - progress.reused_bytes)} received")
            if on_disk := progress.reused_bytes - progress.zero_bytes:
                figures.append(f"{format_size(on_disk)} reused from disk")
            if progress.zero_bytes:
                figures.append(f"{format_size(progress.zero_bytes)} zeros")
        if progress and progress.wasted_bytes:
            figures.append(f"{format_size(progress.wasted_bytes)} wasted (duplicate, corrupt or outdated)")
        yield from _wrap_parts(figures, width)

    def _bar(self, title: str, share: float | None, width: int) -> Text:
        """Returns the line with the bar. ``share`` is None while it is unknown."""
        name = Text(presentable(title))
        name.truncate(max(1, min(MAX_NAME_WIDTH, width - MIN_BAR_WIDTH - 7)), overflow="ellipsis")
        bar = min(MAX_BAR_WIDTH, max(0, width - name.cell_len - 7))
        full = int(bar * (share or 0.0))
        percent = f" {share:4.0%}" if share is not None else ""
        return Text.assemble(
            name, " ", (self._done_char * full, "green"), (self._remaining_char * (bar - full), "dim"), percent
        )

    def _file_rows(self, width: int, limit: int) -> list[Text]:
        """Returns a row for each of the largest files in flight: its name and its bytes."""
        files = self._progress.files if self._progress else None
        cells = [
            (presentable(file.name), f"{format_size(file.bytes)} of {format_size(file.total)}")
            for file in (files.in_flight[:limit] if files else ())
        ]
        widths = [max((cell_len(row[column]) for row in cells), default=0) for column in (0, 1)]
        widths[0] = max(1, min(widths[0], width - widths[1] - 2))
        return [_row((_end_of(name, widths[0]), size), widths, "") for name, size in cells]

    def _rows(self, width: int) -> list[Text]:
        """Returns a row for each worker: state, rate, bytes received / requested, and bytes in flight.

        Columns that do not fit are omitted, from the right.
        """
        workers, peers = split_peers(self._progress.workers if self._progress else ())
        rows = [self._cells(worker) for worker in workers]
        styles = [self._style(worker.name) for worker in workers]
        if peers is not None:
            rows.append(_peer_cells(peers))
            styles.append("")
        for columns in ((0, 1, 2, 3, 4), (0, 1, 2, 3), (0, 1, 2)):
            widths = [max((cell_len(row[column]) for row in rows), default=0) for column in columns]
            spare = width - sum(widths) - 2 * (len(widths) - 1)
            # The state explains why a worker is down: omit the bytes in flight before shortening the state, and omit
            # received / requested before shortening the state to less than 6 columns.
            if spare >= 0 or (len(columns) < 5 and widths[1] + spare >= 6):
                break
        widths[1] = max(1, widths[1] + min(0, spare))
        return [
            _row([row[column] for column in columns], widths, style) for row, style in zip(rows, styles, strict=True)
        ]

    def _cells(self, worker: WorkerProgress) -> tuple[str, str, str, str, str]:
        state, detail = self._states.get(worker.name, ("not connected", ""))
        has_reason = detail and state not in ("ready", "lost", "asleep")
        in_flight = worker.assigned - worker.received
        return (
            presentable(self._labels.get(worker.name, f"worker {worker.name}")),
            f"{state}: {presentable(detail)}" if has_reason else state,
            format_rate(worker.rate),
            f"{format_size(worker.received)}/{format_size(worker.assigned)}",
            f"{format_size(in_flight)} in flight" if in_flight else "",
        )

    def _style(self, worker: str) -> str:
        state = self._states.get(worker, ("",))[0]
        return "" if state == "ready" else "yellow"


def _peer_cells(peers: PeerTotals) -> tuple[str, str, str, str, str]:
    """Returns the cells of a row for all peers."""
    in_flight = peers.assigned - peers.received
    return (
        peers.label,
        f"{peers.active} sending",
        format_rate(peers.rate),
        f"{format_size(peers.received)}/{format_size(peers.assigned)}",
        f"{format_size(in_flight)} in flight" if in_flight else "",
    )


def _is_listed(files: FilesProgress | None) -> bool:
    return files is not None and files.is_listed


def _has_new_files(last: Progress | None, progress: Progress) -> bool:
    """True if the number of files has changed since the last progress."""
    before = last.files.counts if last and last.files else None
    return progress.files is not None and progress.files.counts.listed > 0 and progress.files.counts != before


def _row(cells: Sequence[str], widths: Sequence[int], style: str) -> Text:
    line = Text()
    for position, (cell, width) in enumerate(zip(cells, widths, strict=True)):
        text = Text(cell, style=style if position == 1 else "")
        text.truncate(width, overflow="ellipsis", pad=True)
        line.append("  " if position else "").append_text(text)
    line.rstrip()
    return line


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


def _wrap_text(text: str, width: int) -> list[Text]:
    """Wraps a message at spaces and keeps at most ``MAX_MESSAGE_LINES`` lines."""
    lines = [*_wrap_parts(presentable(text).split(), width, " ")]
    if len(lines) > MAX_MESSAGE_LINES:
        lines[MAX_MESSAGE_LINES - 1].append(" …")
    return lines[:MAX_MESSAGE_LINES]
