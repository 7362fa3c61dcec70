"""The first and the last line of the console: the state of all servers, and the keys. Pure.

Widths are in columns.
"""

from __future__ import annotations

from collections.abc import Sequence

from msd.broker.status.history import History
from msd.broker.views.columns import first_that_fits
from msd.broker.views.worker_rows import clients_served
from msd.wire.protocol.messages import Status
from msd.wire.protocol.states import WorkerState
from msd.wire.support.units import format_count, format_rate, format_time

#: Follows the number of files if server 5 vouches for no catalogue.
UNVOUCHED = "(server 5 vouches for none)"


def summary(history: History) -> str:
    """Returns the state of all servers in one line."""
    return " · ".join(_parts(history))


def title(history: History, server5: str, width: int) -> str:
    """Returns the summary as a title of at most ``width`` columns. The address ``server5`` is left out if the rest fits
    only without it, then the files and the rate: other parts of the screen have them, too.
    """
    parts = _parts(history)
    texts = [" · ".join(["msd", server5, *parts])]
    texts += [" · ".join(["msd", *parts[:count]]) for count in range(len(parts), 0, -1)]
    texts.insert(2, " · ".join(parts))
    return first_that_fits([*texts, parts[0]], width)


def alarm(history: History, width: int) -> str:
    """Returns the alarm while server 5 does not answer or refuses this operator, otherwise an empty string."""
    if history.lost_at is None:
        return ""
    since = f"since {format_time(history.lost_at)}"
    hint = "; showing the last known state" if history.status else ""
    problem = "HAS REFUSED THIS CONSOLE" if history.is_refused else "HAS NOT ANSWERED"
    start = f"! SERVER 5 {problem} {since}"
    # The events have the reason, too.
    return first_that_fits([f"{start}{hint} ({history.lost_reason})", f"{start}{hint}", start], width)


def keys(width: int, special: Sequence[str], *, owns_servers: bool, has_link: bool) -> str:
    """Returns the line that names the keys, the least important ones left out if they do not fit. ``special`` are those
    of the focused panel. ``owns_servers`` is True if the servers end with the console, ``has_link`` if ``y`` copies a
    link and not a command.
    """
    last = ["q stop servers" if owns_servers else "q leave", "? help"]
    others = [
        "1…9 toggle",
        "Tab panel",
        "Enter details",
        "/ filter",
        f"y {'link' if has_link else 'copy'}",
        *special,
        "↑↓ row",
    ]
    texts = ["  ".join([*others[:count], *last]) for count in range(len(others), -1, -1)]
    return first_that_fits([*texts, *last[::-1]], width)


def _parts(history: History) -> list[str]:
    """Returns the parts of the summary, the most important ones first."""
    status = history.status
    if status is None:
        return ["waiting for server 5"]
    alive = sum(worker.state is WorkerState.AWAKE for worker in status.workers)
    workers = f"{alive} of {len(status.workers)} alive" if status.workers else "no workers yet"
    rate = format_rate(sum(worker.rate for worker in status.workers))
    return [workers, clients_served(status.clients), rate, _files(status)]


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
