"""The workers as rows, for the console and ``msd status``: the word for each state, and why a worker is in it. Pure.

Does not decide which one is slow: see ``broker/status/slowness.py``. Widths are in columns.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

from msd.broker.status.history import Row
from msd.broker.status.worker_names import worker_label
from msd.broker.views.columns import Cells, Column, fit, heading, line, text_width, wrap
from msd.broker.views.host_rates import HostRate, host_rates
from msd.broker.views.panel_text import Line, PanelText, Tone, matches, note, titles
from msd.broker.views.status_table import failure_counts
from msd.wire.protocol.states import WorkerState
from msd.wire.support.presentable_names import presentable
from msd.wire.support.units import format_count, format_duration, format_rate, format_size

BARS = "▁▂▃▄▅▆▇█"
#: The word for each state.
WORDS = {
    WorkerState.STARTING: "Starting",
    WorkerState.AWAKE: "Alive",
    WorkerState.ASLEEP: "Asleep",
    WorkerState.SILENT: "Not responding",
    WorkerState.UNREACHABLE: "Unreachable",
    WorkerState.DEAD: "Restarting",
    WorkerState.FAILED: "Failed",
    WorkerState.LOST: "Lost",
}
#: Follows the word for a worker that is slow.
SLOW_WORD = "slow"
#: Maximum number of slow workers that the title names.
MAX_NAMED = 3
#: What each state means for the operator.
MEANINGS = {
    WorkerState.STARTING: "It does not serve yet: its process has started and has not reported yet.",
    WorkerState.AWAKE: "It serves clients.",
    WorkerState.ASLEEP: "It does not serve: an operator has shut it down. The key t wakes it up.",
    WorkerState.SILENT: "It does not serve: its process runs, but sends no heartbeats. Server 5 ends and restarts a "
    "process of its own that stays silent.",
    WorkerState.UNREACHABLE: "Clients cannot reach it: server 5 could not connect to its address.",
    WorkerState.DEAD: "It does not serve: its process has ended, and server 5 restarts it. The key t does so at once.",
    WorkerState.FAILED: "It does not serve: its process has ended too often. Server 5 does not restart it until it is "
    "toggled: the key t does that.",
    WorkerState.LOST: "It does not serve: it runs on another host, and nothing was heard of it for 10 s.",
}
TONES = {
    WorkerState.AWAKE: Tone.GOOD,
    WorkerState.STARTING: Tone.WARNING,
    WorkerState.ASLEEP: Tone.MUTED,
    WorkerState.DEAD: Tone.WARNING,
    WorkerState.SILENT: Tone.WARNING,
    WorkerState.UNREACHABLE: Tone.WARNING,
    WorkerState.FAILED: Tone.BAD,
    WorkerState.LOST: Tone.BAD,
}
#: The sign of a worker that is alive, and of any other.
ALIVE, NOT_ALIVE = "●", "○"
WORKER, NAME, HOST, STATE, PORT, UPTIME = "Worker", "Name", "Host", "State", "Port", "Uptime"
RESTARTS, CLIENTS, RATE, LATELY, SENT, ERRORS = "Restarts", "Clients", "Rate", "Last 30 s", "Sent", "Errors"
#: The number of bars, one for each second.
LATELY_S = 30
COLUMNS = (
    Column(WORKER, 6),
    Column(NAME, 12, rank=1, most=24, is_left=True),
    Column(HOST, 15, rank=4, most=39, is_left=True),
    Column(STATE, 5, is_left=True),
    Column(PORT, 5, rank=3),
    Column(UPTIME, 8, rank=9),
    Column(RESTARTS, 8, rank=8),
    Column(CLIENTS, 7, rank=6),
    Column(RATE, 10, rank=2),
    Column(LATELY, 9, rank=10, most=LATELY_S, is_left=True),
    Column(SENT, 8, rank=7),
    Column(ERRORS, 6, rank=5),
)
#: How the console can sort workers.
BY_NUMBER, SLOWEST, HOSTS = ORDERS = ("by number", "slowest first", "hosts only")
#: Follows the number of files if a worker has another list than server 5.
OTHER_LIST = "not the list of server 5"


def state_text(row: Row, *, current: bool = True) -> str:
    """Returns the word for the state, with a ``?`` if it is only the last known one, and the remark."""
    return f"{_word(row, current=current)}{f': {presentable(row.remark)}' if row.remark else ''}"


def worker_table(
    rows: Sequence[Row], width: int, *, current: bool = True, has_hosts: bool = True
) -> tuple[str, Sequence[Sequence[str]]]:
    """Returns the heading and, for each worker, its lines: a remark that does not fit into the row follows it.
    ``current`` is False if the rows are only the last known state. The columns fit the width, the least important ones
    are left out; with ``has_hosts`` the hosts of the workers that have joined are a column.
    """
    is_joined = any(row.worker.host for row in rows)
    left_out = {*(() if is_joined else (NAME, HOST)), *(() if has_hosts else (HOST,))}
    words = [_word(row, current=current) for row in rows]
    # A remark may widen its column, but displaces no other one.
    state = Column(STATE, max(map(len, words), default=0), most=60, is_left=True)
    columns = [state if column.name == STATE else column for column in COLUMNS if column.name not in left_out]
    top = max((rate for row in rows for rate in row.rates), default=0.0)
    cells = [_cells(row, top, current=current) for row in rows]
    room = fit(columns, cells, width)[STATE]
    # The other columns get what remarks that do not fit would have taken.
    fitting = [
        each if text_width(each[STATE]) <= room else {**each, STATE: word}
        for each, word in zip(cells, words, strict=True)
    ]
    widths = fit(columns, fitting, width)
    lines = [
        _lines(columns, row, each, widths, width, word=word) for row, each, word in zip(rows, cells, words, strict=True)
    ]
    return heading(columns, widths), lines


def workers_panel(
    rows: Sequence[Row], width: int, words: str = "", order: str = BY_NUMBER, *, current: bool = True
) -> PanelText:
    """Returns the panel of the workers that match ``words``: if some have joined, grouped by their hosts."""
    hosts = host_rates(rows)
    alive = sum(row.is_alive for row in rows)
    slow = _slow_ones(rows, hosts) if current else []
    remarks = [f"{SLOW_WORD}: {', '.join(slow)}"] if slow else []
    count = f"{alive} of {len(rows)} alive{'' if current else ' when last seen'}"
    names = titles("Workers", count, order, words, *remarks)
    shown = [
        row
        for row in rows
        if matches(words, state_text(row), row.worker.name, row.worker.host or hosts[0].name, f"worker {_label(row)}")
    ]
    if not shown:
        text = "no worker matches" if rows else "no worker has joined yet: the command below starts one"
        return note(names, text, width)
    groups = [(each, [row for row in shown if row.worker.host == each.host]) for each in hosts]
    is_grouped = any(row.worker.host for row in rows) and order != SLOWEST
    if order == SLOWEST:
        # A worker that does not serve is not slow.
        shown = sorted(shown, key=lambda row: (not row.is_alive, row.worker.rate, row.worker.number))
    elif is_grouped:
        shown = [row for _, members in groups for row in members]
    head, texts = worker_table(shown, width - 1, current=current, has_hosts=not is_grouped)
    lines_of = {row.worker.number: lines for row, lines in zip(shown, texts, strict=True)}
    lines: list[Line] = []
    for host, members in groups if is_grouped else [(None, shown)]:
        if host is not None and members:
            lines += _host_lines(host, width)
        if host is None or order != HOSTS:
            for row in members:
                lines += _row_lines(row, lines_of[row.worker.number], current=current)
    return PanelText(names, lines, f" {head}" if not is_grouped or order != HOSTS else "")


def worker_details(row: Row, *, current: bool = True) -> list[str]:
    """Returns everything known about a worker, one paragraph an entry. Its state with the full reason comes first."""
    worker = row.worker
    counts = [clients_served(worker.clients), f"{format_rate(worker.rate)} at present"]
    counts += [f"limited to {format_rate(worker.limit)}"] if worker.limit else []
    counts += [f"{worker.bytes_sent:,} bytes sent", *failure_counts(worker)]
    return [
        f"Worker {_label(row)}: {state_text(row, current=current)}",
        *([_meaning(row)] if current else []),
        " · ".join([worker.endpoint.removeprefix("tcp://"), *_origin(row)]),
        " · ".join(counts),
    ]


def summary_of(row: Row, width: int) -> list[str]:
    """Returns what ``worker_details`` says as one wrapped paragraph, without what the state means."""
    state, _, origin, counts = worker_details(row)
    return wrap(" · ".join([state.removeprefix("Worker "), origin, counts]), width)


def clients_served(clients: int) -> str:
    return f"{format_count(clients, 'client')} served"


def sparkline(rates: Sequence[float], width: int, top: float) -> str:
    """Returns the last ``width`` rates as bars; a rate of 0 becomes a blank."""
    last = rates[-width:]
    return "".join(BARS[min(int(r / top * len(BARS)), len(BARS) - 1)] if r > 0 < top else " " for r in last)


def _word(row: Row, *, current: bool) -> str:
    word = WORDS[row.worker.state]
    if not current:
        return f"{word}?"
    return f"{word}, {SLOW_WORD}" if row.is_slow else word


def _meaning(row: Row) -> str:
    if not row.is_slow:
        return MEANINGS[row.worker.state]
    own, others = format_rate(row.worker.rate), format_rate(row.others_rate)
    return f"It serves clients, but it is slow: it sends {own}, the others with the same files {others} (their median)."


def _slow_ones(rows: Sequence[Row], hosts: Sequence[HostRate]) -> Sequence[str]:
    """Returns the names of the hosts that are slow, and those of the slow workers of other hosts."""
    slow_hosts = {each.host: each.name for each in hosts if each.is_slow}
    slow = [f"worker {_label(row)}" for row in rows if row.is_slow and row.worker.host not in slow_hosts]
    return [*slow_hosts.values(), *(slow if len(slow) <= MAX_NAMED else [f"{len(slow)} workers"])]


def _label(row: Row) -> str:
    return worker_label(row.worker.number, row.worker.name)


def _cells(row: Row, top: float, *, current: bool) -> Cells:
    worker = row.worker
    errors = worker.complaints + row.rejections
    return {
        WORKER: f"{ALIVE if row.is_alive and current else NOT_ALIVE} {worker.number:>4}",
        NAME: worker.name if worker.host else "-",
        HOST: worker.host or "-",
        STATE: state_text(row, current=current),
        PORT: str(row.port),
        UPTIME: format_duration(row.uptime) if row.uptime else "-",
        RESTARTS: f"{worker.restarts:,}",
        CLIENTS: f"{worker.clients:,}",
        RATE: format_rate(worker.rate) if worker.rate >= 0.5 else "-",
        # The newest rate is on the right, also of a worker that has not been alive for so long.
        LATELY: sparkline(row.rates, LATELY_S, top).rjust(LATELY_S),
        SENT: format_size(worker.bytes_sent),
        ERRORS: f"{errors:,}" if errors else "-",
    }


def _lines(
    columns: Sequence[Column], row: Row, cells: Cells, widths: Mapping[str, int], width: int, *, word: str
) -> Sequence[str]:
    """Returns the lines of a worker."""
    room = widths.get(LATELY, 0)
    # The newest rates are those that are kept.
    cells = {**cells, LATELY: cells[LATELY][-room:] if room else ""}
    if text_width(cells[STATE]) <= widths[STATE]:
        return [line(columns, cells, widths)]
    whole = line(columns, {**cells, STATE: word}, widths)
    return [whole, *(f"       {text}" for text in wrap(presentable(row.remark), width - 7, indent=0))]


def _row_lines(row: Row, texts: Sequence[str], *, current: bool) -> list[Line]:
    tone = TONES[row.worker.state] if current else Tone.MUTED
    if row.is_alive and current and (row.remark or row.is_slow):
        tone = Tone.WARNING
    key: Hashable = row.worker.number
    return [Line(None if number else key, f" {text}", tone) for number, text in enumerate(texts)]


def _host_lines(host: HostRate, width: int) -> list[Line]:
    texts = wrap(host.text, width - 1)
    tone = Tone.WARNING if host.is_slow else Tone.STRONG
    return [Line(None if number else ("host", host.host), f" {text}", tone) for number, text in enumerate(texts)]


def _origin(row: Row) -> list[str]:
    """Returns which process this worker is or, if it has joined, from where and how long ago; and what it serves."""
    worker = row.worker
    if worker.host:
        texts = [f"joined from {worker.host}{f' {format_duration(row.uptime)} ago' if row.uptime else ''}"]
    else:
        texts = [f"process {worker.pid}" if worker.pid else "no process"]
    if worker.restarts:
        texts.append(format_count(worker.restarts, "restart"))
    if worker.host and worker.catalogue:
        texts.append(format_count(worker.files, "file") + (f" ({OTHER_LIST})" if row.has_other_list else ""))
    return texts
