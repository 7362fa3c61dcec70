"""The table of the live view: what each worker, and all peers together, send. Pure.

Too many rows are folded: into one for each state, and then into one line for all. Columns and names are shortened
before a figure is cut off.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from msgspec import Struct
from rich.cells import cell_len
from rich.text import Text

from msd.client.display.peer_totals import PeerTotals
from msd.wire.support.presentable_names import presentable
from msd.wire.support.units import format_count, format_rate, format_size

#: Maximum number of workers that have a row each.
MAX_ROWS = 16
#: Maximum number of columns for the numbers of the workers of a folded row.
MAX_NUMBERS_WIDTH = 12
#: The state of a worker that is asked for segments.
READY = "ready"
#: The headings of the columns, of which the first two have words and the others figures.
HEADINGS = ("", "state", "rate", "received", "in flight")
GAP = "  "


class WorkerLine(Struct, frozen=True):
    """What is shown of a worker, ``rate`` in bytes per second. ``place`` is the name and the host of a worker that has
    joined from another host; ``reason`` is why the worker is in this state, empty if that goes without saying.
    """

    name: str
    state: str
    rate: float
    received: int
    in_flight: int
    place: str = ""
    reason: str = ""


class _Row(Struct, frozen=True):
    """A row of the table. ``names`` are forms of its name, from the longest to the shortest."""

    names: tuple[str, str, str]
    state: str
    figures: tuple[str, str, str]
    reason: str = ""


def worker_table(workers: Sequence[WorkerLine], peers: PeerTotals | None, width: int, height: int) -> list[Text]:
    """Returns the table in at most ``height`` lines of ``width`` columns, as detailed as possible."""
    if not workers and peers is None:
        return []
    tables = [_folded(workers)] if len(workers) > MAX_ROWS else [[*map(_row, workers)], _folded(workers)]
    for rows in tables:
        lines = _lines([*rows, *([_peers_row(peers)] if peers is not None else [])], width)
        if len(lines) <= height:
            return lines
        if len(lines) - 1 == height:
            return lines[1:]  # Without the headings.
    return [Text(_total_line(workers, peers))][:height]


def _folded(workers: Sequence[WorkerLine]) -> list[_Row]:
    """Returns a row for each state, beginning with that of the workers that send."""
    groups: dict[str, list[WorkerLine]] = {READY: []}
    for worker in workers:
        groups.setdefault(worker.state, []).append(worker)
    return [_row(group[0]) if len(group) == 1 else _group_row(group) for group in groups.values() if group]


def _row(worker: WorkerLine) -> _Row:
    label = f"worker {worker.name}" if worker.name.isdigit() else worker.name
    places = (worker.place, worker.place.partition(",")[0])
    full, short = (presentable(f"{label} ({place})" if place else label) for place in places)
    figures = _figures(worker.rate, worker.received, worker.in_flight)
    return _Row((full, short, presentable(label)), worker.state, figures, presentable(worker.reason))


def _group_row(workers: Sequence[WorkerLine]) -> _Row:
    numbers = ", ".join(worker.name for worker in workers)
    is_named = workers[0].state != READY and len(numbers) <= MAX_NUMBERS_WIDTH
    name = f"workers {numbers}" if is_named else format_count(len(workers), "worker")
    return _Row((name, name, name), workers[0].state, _figures(*_sums(workers)))


def _peers_row(peers: PeerTotals) -> _Row:
    figures = _figures(peers.rate, peers.received, peers.assigned - peers.received)
    return _Row((peers.label, peers.label, peers.label), f"{peers.active} sending", figures)


def _sums(workers: Sequence[WorkerLine]) -> tuple[float, int, int]:
    return (
        sum(worker.rate for worker in workers),
        sum(worker.received for worker in workers),
        sum(worker.in_flight for worker in workers),
    )


def _figures(rate: float, received: int, in_flight: int) -> tuple[str, str, str]:
    return format_rate(rate), format_size(received), format_size(in_flight)


def _total_line(workers: Sequence[WorkerLine], peers: PeerTotals | None) -> str:
    """Returns the rates of all workers and of all peers."""
    parts = [f"{format_count(len(workers), 'worker')} {format_rate(_sums(workers)[0])}"] if workers else []
    if peers is not None:
        parts.append(f"{peers.label} {format_rate(peers.rate)}")
    return " · ".join(parts)


def _lines(rows: Sequence[_Row], width: int) -> list[Text]:
    """Returns the headings and the rows, the figures below one another. A reason that does not fit into the line of its
    worker has lines of its own.
    """
    cells, widths = _fitting_cells(rows, width)
    lines = [_line(HEADINGS[: len(widths)], widths, "dim", "dim")]
    for row, row_cells in zip(rows, cells, strict=True):
        line = _line(row_cells, widths, "" if row.state == READY or "sending" in row.state else "yellow")
        if row.reason and line.cell_len + len(GAP) + cell_len(row.reason) <= width:
            line.append(f"{GAP}{row.reason}")
            lines.append(line)
        else:
            lines += [line, *(Text(f"{GAP}{text}") for text in _wrapped(row.reason, width - len(GAP)))]
    return lines


def _fitting_cells(rows: Sequence[_Row], width: int) -> tuple[list[list[str]], list[int]]:
    """Returns the cells of each row and the widths of the columns. The places of the workers are left out before a
    column is, and columns are left out before the state is cut off.
    """
    cells, widths = [[""]], [0]
    for count in (5, 4, 3):
        for form in (0, 1, 2):
            cells = [[row.names[form], row.state, *row.figures][:count] for row in rows]
            columns = zip(HEADINGS[:count], *cells, strict=True)
            widths = [max(map(cell_len, column)) for column in columns]
            if sum(widths) + len(GAP) * (count - 1) <= width:
                return cells, widths
    widths[1] = max(1, widths[1] + width - sum(widths) - len(GAP) * 2)
    return cells, widths


def _line(cells: Sequence[str], widths: Sequence[int], state_style: str, style: str = "") -> Text:
    line = Text(style=style)
    for position, (cell, width) in enumerate(zip(cells, widths, strict=True)):
        text = Text(cell, style=state_style if position == 1 else "")
        text.truncate(width, overflow="ellipsis", pad=position < 2)
        line.append(GAP if position else "").append(" " * (width - text.cell_len)).append_text(text)
    return line


def _wrapped(text: str, width: int) -> Iterator[str]:
    """Yields the lines of a text that is wrapped at spaces."""
    line = ""
    for word in text.split():
        if line and cell_len(line) + 1 + cell_len(word) > width:
            yield line
            line = ""
        line = f"{line} {word}" if line else word
    if line:
        yield line
