"""The clients' downloads as rows, for the console and ``msd status``. Pure.

``broker/status/downloads.py`` has sorted them by their rates. Widths are in columns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from msd.broker.status.downloads import ENDED, SILENT_S
from msd.broker.status.history import History
from msd.broker.views.columns import Cells, Column, fit, heading, line
from msd.broker.views.panel_text import Line, PanelText, Tone, matches, note, titles
from msd.wire.protocol.messages import DownloadStatus
from msd.wire.protocol.states import DownloadState
from msd.wire.support.presentable_names import presentable
from msd.wire.support.units import format_count, format_duration, format_percent, format_rate, format_size, format_time

CLIENT, SELECTION, VERIFIED, RATE, TIME = "Client", "Downloads", "Verified", "Rate", "For"
WORKERS, PEERS, PASSES_ON = "Workers", "Peers", "Passes on"
#: The columns. Those for peers are shown if there are any.
COLUMNS = (
    Column(CLIENT, 20, most=64, is_left=True),
    Column(SELECTION, 16, rank=2, most=120, is_left=True),
    Column(VERIFIED, 17, rank=3),
    Column(RATE, 12, rank=1),
    Column(TIME, 7, rank=6),
    Column(WORKERS, 7, rank=5),
    Column(PEERS, 5, rank=4),
    Column(PASSES_ON, 9, rank=7),
)
#: How the console can sort clients.
ORDERS: Mapping[str, Callable[[DownloadStatus], Any]] = {
    "fastest first": lambda each: -each.rate,
    "most bytes first": lambda each: -each.received,
    "longest first": lambda each: -each.seconds,
    "by name": lambda each: each.client,
}
FASTEST = next(iter(ORDERS))


def downloads_table(downloads: Sequence[DownloadStatus], width: int, count: int) -> list[str]:
    """Returns a heading and a line for each of the first ``count`` downloads that have not ended, and a line for the
    others; no line if there is none.
    """
    running = [each for each in downloads if each.state not in ENDED]
    if not running:
        return []
    # A line that says that there is one more is as long as that one.
    shown = running if len(running) <= count + 1 else running[:count]
    head, lines = _table(shown, width)
    if rest := running[len(shown) :]:
        rate = format_rate(sum(each.rate for each in rest))
        lines.append(f"{format_count(len(rest), 'other client')}, together at {rate}"[:width])
    return [head, *lines]


def receivers_line(downloads: Sequence[DownloadStatus], receivers: int) -> str:
    """Returns how many clients pass on what they have, and how far those are that still download; empty if there are
    none.
    """
    if not receivers:
        return ""
    passing = [each for each in downloads if each.passes_on and each.state not in ENDED]
    shares = [min(100, each.bytes * 100 // each.total) if each.total else 100 for each in passing]
    number = f"{format_count(receivers, 'receiver')} pass{'es' if receivers == 1 else ''} on"
    if not shares:
        return f"{number} a complete download"
    verified = f"{sum(shares) // len(shares)} % verified on average ({min(shares)} to {max(shares)} %)"
    return f"{number}: {len(shares):,} still downloading, {verified}"


def recent_use(history: History) -> str:
    """Returns a sentence about the downloads that run or, if none does, about the clients of the last 30 s; empty if
    there were none.
    """
    ended = sum(each.state in ENDED for each in history.downloads)
    if running := len(history.downloads) - ended:
        return f"{format_count(running, 'download')} {'is' if running == 1 else 'are'} running."
    # A client that has ended is not served any more, and a worker cannot tell one that was killed from one that is
    # quiet. Some clients report no download.
    clients = max(ended, history.status.clients if history.status is not None else 0)
    return f"{format_count(clients, 'client')} {'was' if clients == 1 else 'were'} connected in the last 30 s." * (
        clients > 0
    )


def clients_panel(
    downloads: Sequence[DownloadStatus],
    width: int,
    words: str = "",
    order: str = FASTEST,
    *,
    served: int = 0,
    receivers: int = 0,
) -> PanelText:
    """Returns the downloads that match ``words``, sorted by ``order``; those that have ended are at the end. ``served``
    is the number of clients that workers serve; old ones do not report. ``receivers`` is the number of those that pass
    on what they have.
    """
    running = sum(each.state not in ENDED for each in downloads)
    shown = [each for each in downloads if matches(words, each.client, each.host, each.selection, _rate_text(each))]
    shown.sort(key=lambda each: (each.state in ENDED, ORDERS[order](each), each.number))
    passing_on = [f"{receivers:,} pass{'es' if receivers == 1 else ''} on"] if receivers else []
    names = titles("Clients", format_count(running, "download"), order, words, *passing_on)
    if not shown:
        unknown = f"{format_count(served, 'client')} served, but none says what it downloads"
        return note(
            names, "no client matches" if words else unknown if served else "no client downloads at present", width
        )
    head, lines = _table(shown, width - 1)
    return PanelText(
        names,
        [Line(each.number, f" {text}", _tone(each)) for each, text in zip(shown, lines, strict=True)],
        f" {head}",
    )


def client_details(download: DownloadStatus, now: float) -> list[str]:
    """Returns everything known about a download, one paragraph an entry. ``now`` is in seconds since 1970."""
    seconds, start = _seconds(download), max(0.0, now - download.seconds - download.silent_seconds)
    began = f"since {format_time(start)}, for {format_duration(seconds)}"
    if download.state in ENDED:
        began = f"from {format_time(start)} to {format_time(start + seconds)}, for {format_duration(seconds)}"
    verified = f"{_verified(download)}{f' verified ({download.bytes:,} bytes)' if download.total else ''}"
    sources = f"from {format_count(download.workers, 'worker')} and {format_count(download.peers, 'peer')}"
    received = f"{format_size(download.received)} received, {format_size(download.peer_bytes)} of them from peers"
    passes_on = "passes on what it has to other clients" if download.passes_on else "passes nothing on"
    if download.state in ENDED:
        passes_on = "passed on what it had to other clients" if download.passes_on else "passed nothing on"
    return [
        f"Client {presentable(download.client)} at {download.host}: {_rate_text(download)}",
        f"downloads {presentable(download.selection)} ({format_count(download.files, 'file')})",
        f"{verified} · {began}",
        f"{sources} · {received} · {passes_on}",
    ]


def _table(downloads: Sequence[DownloadStatus], width: int) -> tuple[str, list[str]]:
    """Returns the heading and a line for each download."""
    left_out = {
        *(() if any(each.passes_on for each in downloads if each.state not in ENDED) else (PASSES_ON,)),
        *(() if any(each.peers for each in downloads) else (PEERS,)),
    }
    columns = [column for column in COLUMNS if column.name not in left_out]
    cells = [_cells(each) for each in downloads]
    widths = fit(columns, cells, width)
    return heading(columns, widths), [line(columns, each, widths) for each in cells]


def _cells(download: DownloadStatus) -> Cells:
    return {
        CLIENT: presentable(download.client),
        SELECTION: presentable(download.selection),
        VERIFIED: _verified(download),
        RATE: _rate_text(download),
        TIME: format_duration(_seconds(download)),
        WORKERS: f"{download.workers:,}",
        PEERS: f"{download.peers:,}",
        PASSES_ON: "-" if download.state in ENDED else "yes" if download.passes_on else "no",
    }


def _seconds(download: DownloadStatus) -> float:
    """Returns how long a download has taken so far, or took if it has ended."""
    return download.seconds if download.state in ENDED else download.seconds + download.silent_seconds


def _verified(download: DownloadStatus) -> str:
    if not download.total and download.state is DownloadState.DOWNLOADING:
        return "size not known"
    return f"{format_percent(download.bytes, download.total)} of {format_size(download.total)}"


def _rate_text(download: DownloadStatus) -> str:
    """Returns the rate, or why there is none."""
    match download.state:
        case DownloadState.DONE:
            return "done"
        case DownloadState.BROKEN:
            return "broken"
        case DownloadState.FINISHING:
            return "finishing"
    if download.silent_seconds >= SILENT_S:
        return f"silent {format_duration(download.silent_seconds)}"
    return format_rate(download.rate) if download.rate >= 0.5 else "waiting"


def _tone(download: DownloadStatus) -> Tone:
    if download.state is DownloadState.DONE:
        return Tone.MUTED
    if download.state is DownloadState.BROKEN:
        return Tone.BAD
    return Tone.WARNING if download.silent_seconds >= SILENT_S else Tone.NORMAL
