"""The lines of the operator's console, as text for a width: a pure core.

Knows columns and units; not the terminal, nor colours.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from datetime import datetime

from msd.broker.status.history import History, HistoryEvent, Row, newest
from msd.wire.protocol.messages import WorkerStatus
from msd.wire.support.text import presentable

BARS = "▁▂▃▄▅▆▇█"
#: Columns of the sparkline: where there is room, and at 80 columns.
SPARK_WIDE, SPARK = 30, 8
#: Columns of a row beside the status and the sparkline, the gaps between them included.
FIXED = 57
#: Events that an overview shows.
LAST = 10
#: The narrowest status, and from which width on it and the sparkline may grow.
STATUS = 15


def heading(width: int) -> str:
    """The names of the columns."""
    status, spark = _flexible(width)
    rate = f"{'Rate':>10} {'':{spark}}"
    return f"    # {'Port':>5} {'Status':{status}} {'Uptime':>8} {'Rst':>3} {'Cli':>3} {rate} {'Sent':>9} {'Bad':>5}"


def line(row: Row, width: int, top: float, *, selected: bool = False, known: bool = True) -> str:
    """A worker's row. ``top`` is the rate that fills the sparkline's height; ``known`` is false while nobody
    can say whether it is still so.
    """
    mark = "›" if selected else " "
    status, spark = _flexible(width)
    sign, said = "●" if row.is_alive else "○", _said(row, known=known)
    bad = f"{row.complaints:,}/{row.strangers:,}" if row.complaints or row.strangers else "-"
    return (
        f"{mark}{sign} {row.number:>2} {row.port:>5} {clip(said, status):{status}} {lasting(row.uptime):>8}"
        f" {clip(str(row.restarts), 3):>3} {clip(str(row.clients), 3):>3} {rate(row.rate):>10}"
        f" {sparkline(row.rates, spark, top):>{spark}} {amount(row.bytes_sent):>9} {clip(bad, 5):>5}"
    )


def details(row: Row, width: int, *, known: bool = True) -> list[str]:
    """All that is known of a worker, its whole reason first, on as many lines as that needs."""
    told = [f"{row.number} {_said(row, known=known)}", row.endpoint.removeprefix("tcp://")]
    told.append(f"process {row.pid}" if row.pid else "no process")
    if row.restarts:
        told.append(f"{row.restarts:,} restart{'' if row.restarts == 1 else 's'}")
    told += wrongs(row)
    told += [served(row.clients), f"{row.bytes_sent:,} bytes sent"]
    return wrapped(" · ".join(told), width)


def wrongs(worker: Row | WorkerStatus) -> list[str]:
    """What went wrong with a worker, counted; nothing of what did not."""
    counts = (
        (worker.complaints, "corrupt segment", "corrupt segments"),
        (worker.malformed_messages, "message that was none", "messages that were none"),
        (worker.rejected_connections, "connection refused", "connections refused"),
    )
    return [f"{count:,} {one if count == 1 else many}" for count, one, many in counts if count]


def overview(history: History, command: str, width: int, now: float) -> str:
    """All of it at once, for those who have no console: the last events too, and the line for a client."""
    rows = history.rows(now)
    top = max((rate for row in rows for rate in row.rates), default=0.0)
    lines = [summary(history), "", heading(width).rstrip(), *(line(row, width, top).rstrip() for row in rows)]
    for row in rows:
        if row.remark or row.complaints or row.strangers:
            lines += ["", *details(row, width)]
    lines += ["", "Events, the newest first"]
    for event in newest(history.events, LAST):
        lines += event_lines(event, width)
    return "\n".join([*lines, "", "For a client", pasted(command, width)])


def summary(history: History) -> str:
    """How everything is, in one line."""
    status = history.status
    if status is None:
        return "waiting for server 5"
    alive = sum(row.is_alive for row in history.rows(0.0))
    files = f"{status.files:,} file{'' if status.files == 1 else 's'}" if status.catalogue else "indexing the files"
    total = sum(worker.rate for worker in status.workers)
    return f"{alive} of {len(status.workers)} alive · {served(history.clients)} · {rate(total)} · {files}"


def served(clients: int) -> str:
    return f"{clients:,} client{'' if clients == 1 else 's'} served"


def alarm(history: History) -> str:
    """What is wrong with server 5; empty while nothing is."""
    if history.lost_at is None:
        return ""
    since = f"since {clock(history.lost_at)}"
    shown = "; what is shown was so then" if history.status else ""
    what = "REFUSES THIS CONSOLE" if history.is_refused else "DOES NOT ANSWER"
    return f"! SERVER 5 {what} {since}{shown} ({history.lost_why})"


def event_lines(event: HistoryEvent, width: int) -> list[str]:
    """An event on as many lines as it needs."""
    return wrapped(f"{clock(event.time)} {'!' if event.bad else ' '} {presentable(event.sentence)}", width, indent=11)


def wrapped(text: str, width: int, indent: int = 2) -> list[str]:
    """A text as lines, all but the first of them indented."""
    return textwrap.wrap(text, max(width, indent + 10), subsequent_indent=" " * indent, break_on_hyphens=False)


def pasted(command: str, width: int) -> str:
    """A command over as many lines as it needs, so that all of them together can be pasted into a shell."""
    lines = textwrap.wrap(command, max(width - 2, 20), break_long_words=False, break_on_hyphens=False)
    return " \\\n".join(lines)


def sparkline(rates: Sequence[float], width: int, top: float) -> str:
    """The last rates as bars; a rate of 0 is a blank."""
    last = rates[-width:]
    return "".join(BARS[min(int(r / top * len(BARS)), len(BARS) - 1)] if r > 0 < top else " " for r in last)


def rate(bytes_a_second: float) -> str:
    return f"{amount(bytes_a_second)}/s" if bytes_a_second >= 0.5 else "-"


def amount(size: float) -> str:
    """Bytes in the unit of 1000s that suits them."""
    unit, *larger = ("B", "kB", "MB", "GB", "TB", "PB")
    while size >= 999.5 and larger:
        size /= 1000
        unit, *larger = larger
    return f"{size:.0f} {unit}" if unit == "B" or size >= 99.95 else f"{size:.1f} {unit}"


def lasting(seconds: float) -> str:
    """A length of time in at most eight columns; nothing for 0."""
    if seconds <= 0:
        return "-"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}d {hours:02}h" if days < 10000 else f"{days}d"
    return f"{hours}:{minutes:02}:{rest:02}"


def clock(time: float) -> str:
    return f"{datetime.fromtimestamp(time):%H:%M:%S}"


def clip(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def _said(row: Row, *, known: bool) -> str:
    """Alive or Dead, and why."""
    word = "Alive" if row.is_alive else "Dead"
    return f"{word}{'' if known else '?'}{f': {presentable(row.remark)}' if row.remark else ''}"


def _flexible(width: int) -> tuple[int, int]:
    """The columns of the status and of the sparkline."""
    room = max(width - FIXED, STATUS + SPARK)
    spark = min(SPARK_WIDE, max(SPARK, room // 3))
    return min(room - spark, 48), spark
