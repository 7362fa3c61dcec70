"""The text of ``msd status``: the state of the servers from top to bottom. Pure.

Does not print it: see ``broker/operator/status_command.py``.
"""

from __future__ import annotations

import textwrap

from msd.broker.status.history import History, newest
from msd.broker.views.client_rows import downloads_table, receivers_line
from msd.broker.views.columns import wrap
from msd.broker.views.event_rows import event_lines
from msd.broker.views.headline import summary
from msd.broker.views.status_table import SuggestedCommand, failure_counts
from msd.broker.views.worker_rows import summary_of, worker_table

#: Maximum numbers of events and of clients in an overview.
MAX_EVENTS, MAX_CLIENTS = 10, 10


def overview(history: History, suggested: SuggestedCommand, width: int, now: float) -> str:
    """Returns the state of the servers as one text: summary, workers, clients, last events, ``suggested`` command."""
    rows = history.rows(now)
    head, workers = worker_table(rows, width)
    not_shared = [line for text in history.not_shared for line in wrap(f"Not shared: {text}", width, indent=2)]
    lines = [summary(history), *not_shared, "", head, *(line for texts in workers for line in texts)]
    for row in rows:
        if row.has_other_list or failure_counts(row.worker):
            lines += ["", *summary_of(row, width)]
    if clients := downloads_table(history.downloads, width, MAX_CLIENTS):
        lines += ["", *clients]
    if receivers := receivers_line(history.downloads, history.receivers):
        lines += ["", receivers[:width]]
    lines += ["", "Events, newest first"]
    for event in newest(history.events, MAX_EVENTS):
        lines += event_lines(event, width)
    return "\n".join([*lines, "", suggested.title, *wrap_command(suggested.command, width)])


def wrap_command(command: str, width: int) -> list[str]:
    """Wraps a command with backslashes at the line ends, so that it can be pasted into a shell."""
    lines = textwrap.wrap(command, max(width - 2, 20), break_long_words=False, break_on_hyphens=False)
    return [f"{line} \\" for line in lines[:-1]] + lines[-1:]
