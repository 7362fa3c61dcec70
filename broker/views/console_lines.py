"""Formats the lines of the operator's console for a given width: a pure core.

Handles columns and units; colours and the terminal are left to the caller. Widths are in columns.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

from msd.broker.status.history import History, Row, newest
from msd.broker.status.worker_names import worker_label
from msd.broker.views.downloads_table import downloads_table
from msd.broker.views.status_table import SuggestedCommand, failure_counts
from msd.wire.protocol.messages import LoggedEvent, Status
from msd.wire.protocol.states import WorkerState
from msd.wire.support.presentable_names import presentable
from msd.wire.support.units import format_count, format_duration, format_rate, format_size, format_time

BARS = "▁▂▃▄▅▆▇█"
#: The columns of the workers' table, and their minimum widths. Name and host are shown if workers have joined; a
#: terminal of 80 columns has room for all others. The number follows the mark and the sign; the sparkline has no
#: heading.
NUMBER, NAME, HOST, STATUS, SPARKLINE = "#", "Name", "Host", "Status", ""
COLUMNS = {
    NUMBER: 5,
    NAME: 12,
    HOST: 15,
    "Port": 5,
    STATUS: 15,
    "Uptime": 8,
    "Rst": 3,
    "Cli": 3,
    "Rate": 10,
    SPARKLINE: 8,
    "Sent": 9,
    "Bad": 5,
}
LEFT_ALIGNED = (NAME, HOST, STATUS)
#: The columns that a narrower terminal does not show, the first to be left out first.
LEFT_OUT = (SPARKLINE, "Uptime", "Rst", "Sent", "Cli", HOST, "Bad", "Rate", "Port", NAME)
#: The minimum width of the status, from 80 columns on, if workers have joined: they have more states with reasons.
JOINED_STATUS = 24
#: Maximum widths.
MAX_NAME, MAX_HOST, MAX_STATUS, MAX_SPARKLINE = 24, 39, 48, 30
#: Follows the number of files if server 5 vouches for no catalogue, and if a worker has another one.
UNVOUCHED, OTHER_LIST = "(server 5 vouches for none)", "not the list of server 5"
#: Maximum numbers of events and of clients in an overview.
OVERVIEW_EVENTS, OVERVIEW_CLIENTS = 10, 10


def columns(rows: Sequence[Row], width: int) -> Mapping[str, int]:
    """Returns the columns for ``rows`` that fit, and their widths. Of the room that remains, the name takes up to half,
    the host up to half of the rest, and the status and the sparkline share what is left.
    """
    widths = dict(COLUMNS)
    longest_number = max((len(str(row.worker.number)) for row in rows), default=1)
    widths[NUMBER] = max(widths[NUMBER], len("›● ") + longest_number)
    names = [row.worker.name for row in rows if row.worker.host]
    hosts = [row.worker.host for row in rows if row.worker.host]
    wanted = {
        NAME: min(MAX_NAME, max(map(len, [NAME, *names]))),
        HOST: min(MAX_HOST, max(map(len, [HOST, *hosts]))),
    }
    for name, longest in wanted.items():
        if hosts:
            widths[name] = min(widths[name], longest)
            widths[STATUS] = max(COLUMNS[STATUS], min(JOINED_STATUS, width * 3 // 10))
        else:
            del widths[name]
    for name in LEFT_OUT:
        if width + 1 >= sum(widths.values()) + len(widths):
            break
        widths.pop(name, None)
    spare = max(0, width + 1 - sum(widths.values()) - len(widths))
    for name, longest in wanted.items():
        if name in widths:
            wider = min(spare // 2, longest - widths[name])
            widths[name] += wider
            spare -= wider
    if SPARKLINE in widths:
        flexible = widths[STATUS] + widths[SPARKLINE] + spare
        wider = min(MAX_SPARKLINE, max(widths[SPARKLINE], flexible // 3)) - widths[SPARKLINE]
        widths[SPARKLINE] += wider
        spare -= wider
    widths[STATUS] = min(MAX_STATUS, widths[STATUS] + spare)
    return widths


def heading(widths: Mapping[str, int]) -> str:
    """Returns the heading line with the names of the columns."""
    return _line({name: name for name in COLUMNS}, widths)


def worker_line(
    row: Row, widths: Mapping[str, int], top: float, *, selected: bool = False, current: bool = True
) -> str:
    """Returns a worker's row. ``top`` is the rate (bytes per second) that fills the sparkline's height; ``current`` is
    False if the row is only the last known state.
    """
    mark, sign = "›" if selected else " ", "●" if row.is_alive else "○"
    worker = row.worker
    cells = {
        NUMBER: f"{mark}{sign} {worker.number:>{widths[NUMBER] - len('›● ')}}",
        NAME: worker.name if worker.host else "-",
        HOST: worker.host or "-",
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
    return _line(cells, widths)


def details(row: Row, width: int, *, current: bool = True) -> list[str]:
    """Returns everything known about a worker, wrapped to ``width``. Its state with the full reason comes first."""
    worker = row.worker
    label = worker_label(worker.number, worker.name)
    parts = [f"{label} {_status_text(row, current=current)}", worker.endpoint.removeprefix("tcp://"), _origin(row)]
    if worker.restarts:
        parts.append(format_count(worker.restarts, "restart"))
    if worker.host and worker.catalogue:
        parts.append(format_count(worker.files, "file") + (f" ({OTHER_LIST})" if row.has_other_list else ""))
    parts += failure_counts(worker)
    parts += [clients_served(worker.clients), f"{worker.bytes_sent:,} bytes sent"]
    return wrap(" · ".join(parts), width)


def overview(history: History, suggested: SuggestedCommand, width: int, now: float) -> str:
    """Returns the state of the servers as one text: summary, workers, clients, last events, ``suggested`` command."""
    rows = history.rows(now)
    top = max((rate for row in rows for rate in row.rates), default=0.0)
    widths = columns(rows, width)
    lines = [summary(history), "", heading(widths).rstrip(), *(worker_line(row, widths, top).rstrip() for row in rows)]
    for row in rows:
        if row.remark or row.has_other_list or failure_counts(row.worker):
            lines += ["", *details(row, width)]
    if clients := downloads_table(history.downloads, width, OVERVIEW_CLIENTS):
        lines += ["", *clients]
    lines += ["", "Events, newest first"]
    for event in newest(history.events, OVERVIEW_EVENTS):
        lines += event_lines(event, width)
    return "\n".join([*lines, "", suggested.title, wrap_command(suggested.command, width)])


def summary(history: History) -> str:
    """Returns the state of all servers in one line."""
    status = history.status
    if status is None:
        return "waiting for server 5"
    alive = sum(row.is_alive for row in history.rows(0.0))
    total = sum(worker.rate for worker in status.workers)
    workers = f"{alive} of {len(status.workers)} alive" if status.workers else "no workers yet"
    return f"{workers} · {clients_served(status.clients)} · {format_rate(total)} · {_files(status)}"


def title(history: History, server5: str, width: int) -> str:
    """Returns the summary as a title of at most ``width`` columns. The address ``server5`` is left out if the rest fits
    only without it: the command below has it, too.
    """
    state = summary(history)
    whole = f"msd · {server5} · {state}"
    return next((text for text in (whole, f"msd · {state}", state) if len(text) <= width), clip(whole, width))


def _files(status: Status) -> str:
    """Returns how many files are shared, and the progress of the indexing."""
    if status.catalogue:
        progress = f" (indexing: {status.indexing} %)" if status.indexing is not None else ""
        return format_count(status.files, "file") + progress
    # No worker of these servers starts before the first indexing ends.
    if any(not w.host and w.state is WorkerState.STARTING and not w.epoch for w in status.workers):
        return f"indexing the files{f' ({status.indexing} %)' if status.indexing is not None else ''}"
    # Workers that have joined may share different files: their total is unknown.
    return f"{format_count(status.files, 'file')} {UNVOUCHED}" if status.files else "0 files"


def clients_served(clients: int) -> str:
    return f"{format_count(clients, 'client')} served"


def keys(width: int, *, owns_servers: bool, has_link: bool = False) -> str:
    """Returns the line that names the keys. ``owns_servers`` is True if the servers end with the console, ``has_link``
    if it offers a link for a client.
    """
    rest = (
        f"{'y link for a client   ' if has_link else ''}{'q stop the servers' if owns_servers else 'q leave'}   ? help"
    )
    line = f"1…9 shut down/wake up   ↑ ↓ Enter selected worker   {rest}"
    return line if len(line) <= width else f"1…9 ↑ ↓ Enter toggle   {rest}"


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


def _origin(row: Row) -> str:
    """Returns which process this worker is or, if it has joined, from where and how long ago."""
    worker = row.worker
    if not worker.host:
        return f"process {worker.pid}" if worker.pid else "no process"
    return f"joined from {worker.host}{f' {format_duration(row.uptime)} ago' if row.uptime else ''}"


def _line(cells: Mapping[str, str], widths: Mapping[str, int]) -> str:
    aligned = (
        f"{clip(cells[name], width):{'<' if name in LEFT_ALIGNED else '>'}{width}}" for name, width in widths.items()
    )
    return " ".join(aligned)
