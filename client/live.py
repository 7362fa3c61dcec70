"""The live view of a download on a terminal: a total bar, and a row for each worker.

Draws from a thread of its own, a few times a second, from the last ``Progress``: the loop
that transfers only puts a reference there.
"""

from __future__ import annotations

import sys

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from client.events import Event, Progress, Report, Retried, Started, Syncing, Waiting, WorkerChanged
from client.show import amount, print_line, result, since, span
from wire.errors import MsdError

#: Redraws a second.
REDRAWS = 8
#: Seconds between two looks at the rates.
LIVE_INTERVAL = 0.25
#: Share of the newest measurement in the rate from which the remaining time is told.
SMOOTHING = 0.2


class LiveView:
    """Shows a download on the terminal of standard error; the result goes to standard output."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._started: Started | None = None
        self._progress: Progress | None = None
        self._states: dict[str, str] = {}
        self._message = "looking for the servers"
        #: What is to be known of server 5, if it is not well.
        self._status = ""
        #: Smoothed rates in bytes a second, by worker.
        self._rates: dict[str, float] = {}
        self._live = Live(get_renderable=self._draw, console=self._console, refresh_per_second=REDRAWS, transient=True)
        self._live.start()

    def event(self, event: Event) -> None:
        match event:
            case Started():
                self._started = event
                self._message = ""
            case Progress():
                if event.bytes > (self._progress.bytes if self._progress else 0):
                    self._message = ""
                for worker in event.workers:
                    before = self._rates.get(worker.name, worker.rate)
                    self._rates[worker.name] = before + SMOOTHING * (worker.rate - before)
                self._progress = event
            case WorkerChanged("server 5", state, detail):
                self._status = f"server 5 {state}: {detail}" if detail else ""
            case WorkerChanged(name, state, detail):
                self._states[name] = f"{state}: {detail}" if state == "set aside" else state
            case Waiting(reason, seconds):
                self._message = f"waiting since {since(seconds)}: {reason}"
            case Retried(worker, segment, "corrupt"):
                self._console.print(f"worker {worker} sent segment {segment} corrupt: asking another one")
            case Syncing():
                self._message = "syncing to disk"
            case _:
                pass

    def done(self, report: Report) -> None:
        self.close()
        print_line(result(report), sys.stdout)

    def failed(self, error: MsdError) -> None:
        pass

    def close(self) -> None:
        self._live.stop()

    def _draw(self) -> Group:
        """What is shown now; called by the drawing thread."""
        started, progress = self._started, self._progress
        parts: list[Table | Text] = []
        if started is not None:
            parts.append(self._total(started, progress))
        if progress is not None:
            parts.append(self._workers(progress))
        for line in filter(None, (self._status, self._message)):
            parts.append(Text(line, overflow="ellipsis", no_wrap=True))
        return Group(*parts)

    def _total(self, started: Started, progress: Progress | None) -> Table:
        done = progress.bytes if progress else 0
        share = done / started.bytes if started.bytes else 1.0
        row = Table.grid(padding=(0, 1), expand=True)
        row.add_column(no_wrap=True, overflow="ellipsis", ratio=2)
        row.add_column(ratio=3)
        row.add_column(no_wrap=True, justify="right")
        rate = sum([*self._rates.values()])
        left = f"{span((started.bytes - done) / rate)} left" if rate > 1 and share < 1 and not self._message else ""
        disk = f"  {amount(progress.reused_bytes)} verified on disk" if progress and progress.reused_bytes else ""
        figures = f"{share:4.0%}  {amount(done)} of {amount(started.bytes)}  {amount(rate)}/s  {left}{disk}"
        row.add_row(Text(started.output.name, overflow="ellipsis"), ProgressBar(total=1.0, completed=share), figures)
        return row

    def _workers(self, progress: Progress) -> Table:
        table = Table.grid(padding=(0, 2))
        for worker in progress.workers:
            state = self._states.get(worker.name, "not connected")
            table.add_row(
                f"worker {worker.name}",
                state,
                f"{amount(self._rates[worker.name])}/s",
                f"{amount(worker.received)} of {amount(worker.assigned)}",
            )
        return table
