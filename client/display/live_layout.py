"""What the live view of a download shows, as lines for a width and a height: a pure core.

Follows the events of one download. How lines come onto a terminal is said in ``client/display/terminal_painter.py``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.cells import cell_len
from rich.text import Text

from msd.client.display.rate_meter import LATELY, RateMeter, TimeRemaining
from msd.client.events import Event, Progress, Started, Syncing, Waiting, WorkerChanged, WorkerProgress
from msd.wire.support.text import presentable
from msd.wire.support.units import amount, span

#: Columns of the bar at least and at most (a short line is not broken where the terminal becomes narrower), and
#: of the file's name at most.
BAR, BAR_MOST, NAME = 8, 40, 32
#: Lines of a reason at most.
MESSAGE = 3
#: Said by server 5: a connection that is lost as well says less.
DOWN = ("asleep", "dead", "failed")


class LiveLayout:
    """Everything a view of one download has to show. ``take`` every event, with ``now`` in seconds."""

    def __init__(self, bar: tuple[str, str] = ("━", "╌")) -> None:
        #: What is done, and what is not.
        self._full, self._empty = bar
        self._started: Started | None = None
        self._progress: Progress | None = None
        self._states: dict[str, tuple[str, str]] = {}
        #: What it waits for, and since when if that is more than usual.
        self._message = "looking for the servers"
        self._waits_since: float | None = None
        #: What is to be known of server 5, if it is not well.
        self._status = ""
        self._meter, self._remaining = RateMeter(LATELY), TimeRemaining()
        self._workers: dict[str, RateMeter] = {}

    def take(self, event: Event, now: float) -> None:
        match event:
            case Started():
                self._started = event
                self._say("")
            case Progress():
                self._advance(event, now)
            case WorkerChanged("server 5", state, detail):
                self._status = f"server 5 {state}: {detail}" if detail else ""
            case WorkerChanged(name, state, detail):
                if state != "lost" or self._states.get(name, ("",))[0] not in DOWN:
                    self._states[name] = (state, detail)
            case Waiting(reason, seconds):
                self._say(reason, now - seconds)
            case Syncing():
                self._say("syncing to disk")
            case _:
                pass

    def lines(self, width: int, height: int, now: float) -> list[Text]:
        """The picture: no line is wider than ``width``, and there are no more than ``height``."""
        width, height = max(width, 1), max(height, 1)
        head = [*self._head(width, now)]
        reasons = [line for text in (self._status, self._waits(now)) for line in _wrapped(text, width)]
        rows = self._rows(width, now)
        room = max(0, height - len(head) - len(reasons))
        if len(rows) > room:
            rows = [*rows[: max(0, room - 1)], Text(f"… {len(rows) - room + 1} more")][:room]
        lines = [*head, *rows, *reasons][:height]
        for line in lines:
            line.truncate(width, overflow="ellipsis")
        return lines

    def _say(self, message: str, waits_since: float | None = None) -> None:
        self._message, self._waits_since = message, waits_since

    def _waits(self, now: float) -> str:
        return (
            self._message if self._waits_since is None else f"waiting {span(now - self._waits_since)}: {self._message}"
        )

    def _advance(self, progress: Progress, now: float) -> None:
        before = self._progress
        if progress.bytes > (before.bytes if before else 0):
            self._say("")
        received = progress.bytes - progress.reused_bytes
        self._meter.take(received, now)
        self._remaining.take(received, progress.total - progress.bytes, now)
        for worker in progress.workers:
            self._workers.setdefault(worker.name, RateMeter(LATELY)).take(worker.received, now)
        self._progress = progress

    def _head(self, width: int, now: float) -> Iterator[Text]:
        """The bar and the figures."""
        started, progress = self._started, self._progress
        if started is None:
            return
        done = progress.bytes if progress else 0
        share = done / started.bytes if started.bytes else 1.0
        name = Text(presentable(started.output.name))
        name.truncate(max(1, min(NAME, width - BAR - 7)), overflow="ellipsis")
        bar = min(BAR_MOST, max(0, width - name.cell_len - 7))
        full = int(bar * share)
        yield Text.assemble(
            name, " ", (self._full * full, "green"), (self._empty * (bar - full), "dim"), f" {share:4.0%}"
        )
        rate = self._meter.rate(now)
        left = self._remaining.seconds(now)
        figures = [f"{amount(done)} of {amount(started.bytes)}", f"{amount(rate)}/s"]
        if left is not None and 0 < share < 1:
            figures.append(f"{span(left)} left")
        if progress and progress.reused_bytes:
            figures.append(f"{amount(done - progress.reused_bytes)} received")
            figures.append(f"{amount(progress.reused_bytes)} verified on disk")
        if progress and progress.wasted_bytes:
            figures.append(f"{amount(progress.wasted_bytes)} in vain")
        yield from _flowing(figures, width)

    def _rows(self, width: int, now: float) -> list[Text]:
        """A line a worker: its state, its rate, X/Y, and what it owes. What has no room is left out."""
        workers = self._progress.workers if self._progress else ()
        rows = [self._cells(worker, now) for worker in workers]
        for columns in ((0, 1, 2, 3, 4), (0, 1, 2, 3), (0, 1, 2)):
            widths = [max((cell_len(row[column]) for row in rows), default=0) for column in columns]
            # The state gives way, but not all of it.
            spare = width - sum(widths) - 2 * (len(widths) - 1)
            if spare >= 0 or widths[1] + spare >= 6:
                break
        widths[1] = max(1, widths[1] + min(0, spare))
        return [_row([row[column] for column in columns], widths, self._style(row[0])) for row in rows]

    def _cells(self, worker: WorkerProgress, now: float) -> tuple[str, str, str, str, str]:
        state, detail = self._states.get(worker.name, ("not connected", ""))
        why = f"{state}: {presentable(detail)}" if detail and state not in ("ready", "lost", "asleep") else state
        owed = worker.assigned - worker.received
        return (
            f"worker {worker.name}",
            why,
            f"{amount(self._workers[worker.name].rate(now))}/s",
            f"{amount(worker.received)}/{amount(worker.assigned)}",
            f"owes {amount(owed)}" if owed else "",
        )

    def _style(self, worker: str) -> str:
        state = self._states.get(worker.removeprefix("worker "), ("",))[0]
        return "" if state == "ready" else "yellow"


def _row(cells: Sequence[str], widths: Sequence[int], style: str) -> Text:
    line = Text()
    for position, (cell, width) in enumerate(zip(cells, widths, strict=True)):
        text = Text(cell, style=style if position == 1 else "")
        text.truncate(width, overflow="ellipsis", pad=True)
        line.append("  " if position else "").append_text(text)
    line.rstrip()
    return line


def _flowing(parts: Sequence[str], width: int, gap: str = "  ") -> Iterator[Text]:
    """Parts with gaps between them, on as many lines as they need; none is broken."""
    line = ""
    for part in parts:
        if line and cell_len(line) + len(gap) + cell_len(part) > width:
            yield Text(line)
            line = ""
        line = f"{line}{gap}{part}" if line else part
    if line:
        yield Text(line)


def _wrapped(text: str, width: int) -> list[Text]:
    """A reason on the lines that it needs; what is beyond ``MESSAGE`` of them is left out."""
    lines = [*_flowing(presentable(text).split(), width, " ")]
    if len(lines) > MESSAGE:
        lines[MESSAGE - 1].append(" …")
    return lines[:MESSAGE]
