"""Formats the clients' downloads as a table for a given width: a pure core.

Does not sort them: ``broker/status/downloads.py`` does. Widths are in columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msd.broker.status.downloads import SILENT_S
from msd.wire.protocol.messages import DownloadStatus
from msd.wire.protocol.states import DownloadState
from msd.wire.support.presentable_names import presentable
from msd.wire.support.units import format_count, format_duration, format_rate, format_size

#: The columns and their widths. Those for peers are shown if there are any.
CLIENT, SELECTION, VERIFIED, RATE, TIME = "Client", "Downloads", "Verified", "Rate", "For"
WORKERS, PEERS, PASSES_ON = "Workers", "Peers", "Passes on"
COLUMNS = {CLIENT: 15, SELECTION: 14, VERIFIED: 17, RATE: 12, TIME: 7, WORKERS: 7, PEERS: 5, PASSES_ON: 9}
LEFT_ALIGNED = (CLIENT, SELECTION)
#: The columns that a narrow terminal does not show, the first to be left out first.
LEFT_OUT = (PASSES_ON, TIME, WORKERS, PEERS, VERIFIED, SELECTION)
#: Maximum widths.
MAX_CLIENT, MAX_SELECTION = 40, 80


def downloads_table(downloads: Sequence[DownloadStatus], width: int, count: int) -> list[str]:
    """Returns a heading and a line for each of the first ``count`` downloads that have not ended, and a line for the
    others; no line if there is none.
    """
    running = [each for each in downloads if each.state not in (DownloadState.DONE, DownloadState.BROKEN)]
    if not running:
        return []
    # A line that says that there is one more is as long as that one.
    shown = running if len(running) <= count + 1 else running[:count]
    widths = _widths(shown, width)
    lines = [_line({name: name for name in COLUMNS}, widths), *(_line(_cells(each), widths) for each in shown)]
    if rest := running[len(shown) :]:
        rate = format_rate(sum(each.rate for each in rest))
        lines.append(f"{format_count(len(rest), 'other client')}, together at {rate}"[:width])
    return lines


def _widths(downloads: Sequence[DownloadStatus], width: int) -> Mapping[str, int]:
    """Returns the columns that fit, and their widths. The client takes up to half of the room that remains; the texts
    take no more than they need.
    """
    widths = dict(COLUMNS)
    if not any(each.passes_on for each in downloads):
        del widths[PASSES_ON]
    if not any(each.peers for each in downloads):
        del widths[PEERS]
    for name in LEFT_OUT:
        if width + 1 >= sum(widths.values()) + len(widths):
            break
        widths.pop(name, None)
    spare = max(0, width + 1 - sum(widths.values()) - len(widths))
    cells = [_cells(each) for each in downloads]
    for name, largest, share in ((CLIENT, MAX_CLIENT, 2), (SELECTION, MAX_SELECTION, 1)):
        if name in widths:
            longest = min(largest, max(len(name), *(len(each[name]) for each in cells)))
            wider = min(spare // share, longest - widths[name])
            widths[name] += wider
            spare -= wider
    return widths


def _cells(download: DownloadStatus) -> Mapping[str, str]:
    part = f"{download.bytes * 100 // download.total} %" if download.bytes < download.total else "100 %"
    return {
        CLIENT: presentable(download.client),
        SELECTION: presentable(download.selection),
        VERIFIED: f"{part} of {format_size(download.total)}",
        RATE: _rate_text(download),
        TIME: format_duration(download.seconds + download.silent_seconds),
        WORKERS: str(download.workers),
        PEERS: str(download.peers),
        PASSES_ON: "yes" if download.passes_on else "no",
    }


def _rate_text(download: DownloadStatus) -> str:
    """Returns the rate, or why there is none."""
    if download.state is DownloadState.FINISHING:
        return "finishing"
    if download.silent_seconds >= SILENT_S:
        return f"silent {format_duration(download.silent_seconds)}"
    return format_rate(download.rate) if download.rate >= 0.5 else "waiting"


def _line(cells: Mapping[str, str], widths: Mapping[str, int]) -> str:
    aligned = (
        f"{_clipped(cells[name], width):{'<' if name in LEFT_ALIGNED else '>'}{width}}"
        for name, width in widths.items()
    )
    return " ".join(aligned).rstrip()


def _clipped(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"
