"""Formats the lines of the operator's console for a given width: a pure core.

Handles columns and units; colours and the terminal are left to the caller. Widths are in columns.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

from msd.broker.status.history import History, Row, newest
from msd.wire.protocol.messages import LoggedEvent, WorkerStatus
from msd.wire.support.presentable_names import presentable
from msd.wire.support.units import format_count, format_duration, format_rate, format_size, format_time

BARS = "▁▂▃▄▅▆▇█"
#: The columns of the workers' table after the number, and their minimum widths; a terminal of 80 columns has room for
#: all. The sparkline has no heading.
STATUS, SPARKLINE = "Status", ""
COLUMNS = {"Port": 5, STATUS: 15, "Uptime": 8, "Rst": 3, "Cli": 3, "Rate": 10, SPARKLINE: 8, "Sent": 9, "Bad": 5}
#: The columns that a narrower terminal does not show, the first to be left out first.
LEFT_OUT = (SPARKLINE, "Uptime", "Rst", "Sent", "Cli", "Bad", "Rate", "Port")
#: Maximum widths.
MAX_STATUS, MAX_SPARKLINE = 48, 30
#: Width of the mark, the sign and the number before the columns.
NUMBER_WIDTH = 5
#: Maximum number of events in an overview.
OVERVIEW_EVENTS = 10


def heading(width: int) -> str:
    """Returns the heading line with the names of the columns."""
    return _line("    #", {name: name for name in COLUMNS}, _widths(width))


def worker_line(row: Row, width: int, top: float, *, selected: bool = False, current: bool = True) -> str:
    """Returns a worker's row. ``top`` is the rate (bytes per second) that fills the sparkline's height; ``current`` is
    False if the row is only the last known state.
    """
    mark, sign = "›" if selected else " ", "●" if row.is_alive else "○"
    worker, widths = row.worker, _widths(width)
    cells = {
        "Port": str(row.port),
        STATUS: _status_text(row, current=current),
        "Uptime": format_duration(row.uptime) if row.uptime else "-",
        "Rst": str(worker.restarts),
        "Cli": str(worker.clients),
        "Rate": format_rate(worker.rate) if worker.rate >= 0.5 else "-",
        SPARKLINE: sparkline(row.rates, widths.get(SPARKLINE, 1), top),
        "Sent": format_size(worker.bytes_sent),
        "Bad": f"{worker.complaints:,}/{row.rejections:,}" if worker.complaints or row.rejections else "-",
    }
    return _line(f"{mark}{sign} {worker.number:>2}", cells, widths)


def details(row: Row, width: int, *, current: bool = True) -> list[str]:
    """Returns everything known about a worker, wrapped to ``width``. Its state with the full reason comes first."""
    worker = row.worker
    parts = [f"{worker.number} {_status_text(row, current=current)}", worker.endpoint.removeprefix("tcp://")]
    parts.append(f"process {worker.pid}" if worker.pid else "no process")
    if worker.restarts:
        parts.append(format_count(worker.restarts, "restart"))
    parts += failure_counts(worker)
    parts += [clients_served(worker.clients), f"{worker.bytes_sent:,} bytes sent"]
    return wrap(" · ".join(parts), width)


def failure_counts(worker: WorkerStatus) -> list[str]:
    """Returns each kind of failure counted for a worker; kinds with a count of 0 are left out."""
    clients = f" (reported by {', '.join(map(presentable, worker.complainants))})" if worker.complainants else ""
    counts = (
        (worker.complaints, "corrupt segment", clients),
        (worker.malformed_messages, "malformed message", ""),
        (worker.rejected_connections, "refused connection", ""),
    )
    return [format_count(count, noun) + detail for count, noun, detail in counts if count]


def overview(history: History, command: str, width: int, now: float) -> str:
    """Returns the contents of the console as one text: summary, workers, last events and the client's ``command``."""
    rows = history.rows(now)
    top = max((rate for row in rows for rate in row.rates), default=0.0)
    lines = [summary(history), "", heading(width).rstrip(), *(worker_line(row, width, top).rstrip() for row in rows)]
    for row in rows:
        if row.remark or failure_counts(row.worker):
            lines += ["", *details(row, width)]
    lines += ["", "Events, newest first"]
    for event in newest(history.events, OVERVIEW_EVENTS):
        lines += event_lines(event, width)
    return "\n".join([*lines, "", "Command for a client", wrap_command(command, width)])


def summary(history: History) -> str:
    """Returns the state of all servers in one line."""
    status = history.status
    if status is None:
        return "waiting for server 5"
    alive = sum(row.is_alive for row in history.rows(0.0))
    files = format_count(status.files, "file") if status.catalogue else "indexing the files"
    if status.indexing is not None:
        files += f" ({'indexing: ' if status.catalogue else ''}{status.indexing} %)"
    total = sum(worker.rate for worker in status.workers)
    return f"{alive} of {len(status.workers)} alive · {clients_served(status.clients)} · {format_rate(total)} · {files}"


def clients_served(clients: int) -> str:
    return f"{format_count(clients, 'client')} served"


def keys(width: int, *, owns_servers: bool) -> str:
    """Returns the line that names the keys. ``owns_servers`` is True if the servers end with the console."""
    quits = "q stop the servers" if owns_servers else "q leave"
    line = f"1…9 shut down/wake up   ↑ ↓ Enter selected worker   {quits}   ? help"
    return line if len(line) <= width else f"1…9 ↑ ↓ Enter toggle   {quits}   ? help"


def alarm(history: History) -> str:
    """Returns the alarm while server 5 does not answer or refuses this operator, otherwise an empty string."""
    if history.lost_at is None:
        return ""
    since = f"since {format_time(history.lost_at)}"
    hint = "; showing the last known state" if history.status else ""
    problem = "HAS REFUSED THIS CONSOLE" if history.is_refused else "HAS NOT ANSWERED"
    return f"! SERVER 5 {problem} {since}{hint} ({history.lost_reason})"


def event_lines(event: LoggedEvent, width: int) -> list[str]:
    """Returns an event as lines of at most ``width`` columns."""
    return wrap(
        f"{format_time(event.time)} {'!' if event.is_failure else ' '} {presentable(event.text)}", width, indent=11
    )


def wrap(text: str, width: int, indent: int = 2) -> list[str]:
    """Wraps a text; every line but the first is indented."""
    return textwrap.wrap(text, max(width, indent + 10), subsequent_indent=" " * indent, break_on_hyphens=False)


def wrap_command(command: str, width: int) -> str:
    """Wraps a command with backslashes at the line ends, so that it can be pasted into a shell."""
    lines = textwrap.wrap(command, max(width - 2, 20), break_long_words=False, break_on_hyphens=False)
    return " \\\n".join(lines)


def sparkline(rates: Sequence[float], width: int, top: float) -> str:
    """Returns the last ``width`` rates as bars; a rate of 0 becomes a blank."""
    last = rates[-width:]
    return "".join(BARS[min(int(r / top * len(BARS)), len(BARS) - 1)] if r > 0 < top else " " for r in last)


def clip(text: str, width: int) -> str:
    """Cuts a text to ``width`` columns, with an ellipsis if it was longer."""
    return text if len(text) <= width else text[: width - 1] + "…"


def _status_text(row: Row, *, current: bool) -> str:
    """Returns Alive or Dead, a ``?`` if the state is not current, and the remark."""
    state = "Alive" if row.is_alive else "Dead"
    return f"{state}{'' if current else '?'}{f': {presentable(row.remark)}' if row.remark else ''}"


def _line(number: str, cells: Mapping[str, str], widths: Mapping[str, int]) -> str:
    aligned = (f"{clip(cells[name], width):{'<' if name == STATUS else '>'}{width}}" for name, width in widths.items())
    return " ".join((number, *aligned))


def _widths(width: int) -> Mapping[str, int]:
    """Returns the columns that fit, and their widths. The status and the sparkline take the room that remains."""
    widths = dict(COLUMNS)
    for name in LEFT_OUT:
        if (spare := width - NUMBER_WIDTH - sum(widths.values()) - len(widths)) >= 0:
            break
        del widths[name]
    spare = max(0, spare)
    if SPARKLINE in widths:
        flexible = widths[STATUS] + widths[SPARKLINE] + spare
        wider = min(MAX_SPARKLINE, max(widths[SPARKLINE], flexible // 3)) - widths[SPARKLINE]
        widths[SPARKLINE] += wider
        spare -= wider
    widths[STATUS] = min(MAX_STATUS, widths[STATUS] + spare)
    return widths
