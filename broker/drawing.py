"""The lines of the operator's console, as text for a width: a pure core.

Knows columns and units; not the terminal, nor colours.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from datetime import datetime

from broker.history import Happened, History, Row
from wire.names import presentable

BARS = "▁▂▃▄▅▆▇█"
#: Columns of the sparkline: where there is room, and at 80 columns.
SPARK_WIDE, SPARK = 30, 8
#: Columns of a row beside the status and the sparkline, the gaps between them included.
FIXED = 57
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
    sign, word = ("●", "Alive") if row.is_alive else ("○", "Dead")
    said = f"{word}{'' if known else '?'}{f': {row.remark}' if row.remark else ''}"
    bad = f"{row.complaints:,}/{row.strangers:,}" if row.complaints or row.strangers else "-"
    return (
        f"{mark}{sign} {row.number:>2} {row.port:>5} {clip(said, status):{status}} {lasting(row.uptime):>8}"
        f" {clip(str(row.restarts), 3):>3} {clip(str(row.clients), 3):>3} {rate(row.rate):>10}"
        f" {sparkline(row.rates, spark, top):>{spark}} {amount(row.bytes_sent):>9} {clip(bad, 5):>5}"
    )


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
    return f"! SERVER 5 DOES NOT ANSWER {since}{shown} ({history.lost_why})"


def event_line(event: Happened) -> str:
    return f"{clock(event.time)} {'!' if event.bad else ' '} {presentable(event.text)}"


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


def _flexible(width: int) -> tuple[int, int]:
    """The columns of the status and of the sparkline."""
    room = max(width - FIXED, STATUS + SPARK)
    spark = min(SPARK_WIDE, max(SPARK, room // 3))
    return min(room - spark, 48), spark
