"""``msd list``: prints the shared files as lines or as JSON.

``client/operations/list_files.py`` fetches the list.
"""

from __future__ import annotations

import json
import stat
import sys
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime

from msd.client.manifest.shared_files import SharedFiles
from msd.client.operations.list_files import list_files
from msd.wire.config.servers import Servers
from msd.wire.errors import NotFoundError
from msd.wire.protocol.messages import Entry
from msd.wire.support.output import print_line
from msd.wire.support.presentable_names import presentable
from msd.wire.support.units import format_size

#: The number of digits of an id that are printed: far more than are needed to tell the versions of a file apart.
ID_DIGITS = 12


def run(servers: Servers, names: Sequence[str], *, timeout: float, long: bool, as_json: bool) -> None:
    """Prints what ``names`` select, by default all files. Raises ``MsdError``: also if a name selects nothing, after
    the others are printed.
    """
    files, errors = list_files(servers, names, timeout)
    if as_json:
        sys.stdout.writelines(_json_pieces(files))
    else:
        cells = _long_cells if long else _cells
        width = 0 if files.is_uniform else len(_count(files.workers, files))
        shown = ((entry, count) for entry, count in files if long or not entry.is_folder)
        for entry, count in shown:
            column = f"{_count(count, files):>{width}}  " if width else ""
            sys.stdout.write(f"{cells(entry)}  {column}{presentable(entry.name)}\n")
    sys.stdout.flush()
    _report(errors)


def _report(errors: Sequence[NotFoundError]) -> None:
    """Raises the first error, after the others are printed."""
    for error in errors[1:]:
        print_line(f"msd: {error}", sys.stderr)
    if errors:
        raise errors[0]


def _count(count: int, files: SharedFiles) -> str:
    return f"{count} of {files.workers}"


def _cells(entry: Entry) -> str:
    return f"{format_size(entry.size):>10}  {_modified(entry):%Y-%m-%d %H:%M}"


def _long_cells(entry: Entry) -> str:
    """Returns the mode, the size, the time and the beginning of the id. A folder has no time."""
    if entry.id is None:
        cells = stat.filemode(entry.mode | stat.S_IFDIR), "-", "-", "-"
    else:
        mode = stat.filemode(entry.mode | stat.S_IFREG)
        cells = mode, format_size(entry.size), f"{_modified(entry):%Y-%m-%d %H:%M}", entry.id.hex()[:ID_DIGITS]
    return "{}  {:>8}  {:<16}  {:<{}}".format(*cells, ID_DIGITS)


def _modified(entry: Entry) -> datetime:
    return datetime.fromtimestamp(entry.mtime_ns / 1e9, UTC)


def _json_pieces(files: SharedFiles) -> Iterator[str]:
    """Yields an object on one line, in pieces: a list of 100,000 files takes 20 MB."""
    yield '{"files": ['
    yield from _joined(json.dumps(_values(entry, count)) for entry, count in files if not entry.is_folder)
    yield '], "folders": ['
    yield from _joined(json.dumps(_values(entry, count)) for entry, count in files if entry.is_folder)
    yield "]}\n"


def _joined(pieces: Iterable[str]) -> Iterator[str]:
    """Yields the pieces with commas between them."""
    for number, piece in enumerate(pieces):
        if number:
            yield ", "
        yield piece


def _values(entry: Entry, workers: int) -> dict[str, object]:
    mode, count = {"mode": f"{entry.mode:04o}"}, {"workers": workers}
    if entry.id is None:
        return {"name": entry.name, **mode, **count}
    modified = _modified(entry).isoformat()
    return {"name": entry.name, "size": entry.size, "modified": modified, **mode, "id": entry.id.hex(), **count}
