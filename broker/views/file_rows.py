"""The console's files as rows: what clients have asked for, how often, and what reads it now. Pure.

A row is a *selection*, as clients report it: the name of a file, or the names and patterns of several.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from msd.broker.status.downloads import ENDED
from msd.broker.views.columns import Column, fit, heading, line
from msd.broker.views.panel_text import Line, PanelText, Tone, matches, note, titles
from msd.wire.protocol.messages import DownloadStatus, RequestedSelection
from msd.wire.support.presentable_names import presentable
from msd.wire.support.units import format_count, format_rate, format_size

FILE, READERS, REQUESTS, RECEIVED, RATE = "File", "Readers", "Requests", "Received", "Rate"
COLUMNS = (
    Column(FILE, 16, most=120, is_left=True),
    Column(READERS, 7, rank=1),
    Column(REQUESTS, 8, rank=3),
    Column(RECEIVED, 8, rank=2),
    Column(RATE, 10, rank=4),
)
#: How the rows can be sorted.
ORDERS = ("most readers first", "most bytes first", "most requests first")


class RequestedFile(Struct, frozen=True):
    """A selection: the numbers of its running downloads and of all, the bytes that clients have received, and how many
    they receive a second.
    """

    selection: str
    readers: int = 0
    requests: int = 0
    received: int = 0
    rate: float = 0.0


def requested_files(
    requested: Sequence[RequestedSelection], downloads: Sequence[DownloadStatus]
) -> Sequence[RequestedFile]:
    """Joins what the broker counts with the downloads that it knows: it forgets the counts of old selections first."""
    counts = {each.selection: (each.downloads, each.received) for each in requested}
    running: dict[str, list[DownloadStatus]] = {}
    for download in downloads:
        readers = running.setdefault(download.selection, [])
        if download.state not in ENDED:
            readers.append(download)
    files = []
    for selection in {**running, **counts}:
        readers = running.get(selection, [])
        requests, received = counts.get(selection, (len(readers), sum(each.received for each in readers)))
        rate = sum(each.rate for each in readers)
        files.append(RequestedFile(selection, len(readers), requests, received, rate))
    return files


def files_panel(
    files: Sequence[RequestedFile], width: int, words: str = "", order: str = ORDERS[0], *, shared: int = 0
) -> PanelText:
    """Returns the files that match ``words``, sorted by ``order``. ``shared`` is the number of shared files."""
    keys = {
        ORDERS[0]: lambda file: (-file.readers, -file.received),
        ORDERS[1]: lambda file: -file.received,
        ORDERS[2]: lambda file: -file.requests,
    }
    shown = sorted((file for file in files if matches(words, file.selection)), key=keys[order])
    names = titles("Files", f"{len(files):,} requested", order, words)
    if not shown:
        text = "no file matches" if words else f"no client has asked for any of {format_count(shared, 'file')} yet"
        return note(names, text, width)
    rows = [_cells(file) for file in shown]
    widths = fit(COLUMNS, rows, width - 1)
    lines = [
        Line(file.selection, f" {line(COLUMNS, cells, widths)}", Tone.NORMAL if file.readers else Tone.MUTED)
        for file, cells in zip(shown, rows, strict=True)
    ]
    return PanelText(names, lines, f" {heading(COLUMNS, widths)}")


def file_details(file: RequestedFile, downloads: Sequence[DownloadStatus]) -> list[str]:
    """Returns everything known about a file, one paragraph an entry."""
    readers = [each for each in downloads if each.selection == file.selection and each.state not in ENDED]
    names = ", ".join(presentable(each.client) for each in readers)
    requests = f"{format_count(file.requests, 'request')} since server 5 started, {format_size(file.received)} received"
    now = f"{format_count(file.readers, 'client')} at {format_rate(file.rate)}: {names}" if readers else "not read now"
    return [presentable(file.selection), requests, now]


def _cells(file: RequestedFile) -> dict[str, str]:
    return {
        FILE: presentable(file.selection),
        READERS: f"{file.readers:,}",
        REQUESTS: f"{file.requests:,}",
        RECEIVED: format_size(file.received),
        RATE: format_rate(file.rate) if file.rate >= 0.5 else "-",
    }
