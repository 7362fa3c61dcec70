"""``msd status``: prints the state of the servers, once or after every published snapshot.

Does not format it: see ``broker/views/overview.py``. The report's table, which asks for a choice, belongs to the
terminal of ``msd serve``.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Mapping
from json import dumps

import msgspec

from msd.broker.operator.operator_client import OperatorClient
from msd.broker.status.history import History
from msd.broker.status.snapshot import as_json
from msd.broker.views.overview import overview
from msd.broker.views.status_table import suggested_command
from msd.wire.config.servers import Servers
from msd.wire.net.own_addresses import hosts_for_others
from msd.wire.protocol.messages import LoggedEvent, StatusReport
from msd.wire.support.output import has_cursor_movement

#: Moves the cursor to the top left corner, clears the rest of a line, and the rest of the screen.
HOME, CLEAR_LINE, CLEAR_BELOW = "\x1b[H", "\x1b[K", "\x1b[J"


def show(servers: Servers, *, json: bool, watch: bool) -> None:
    """Prints the status of ``servers``, and with ``watch`` again after every snapshot: on a terminal in the same place.
    Raises ``MsdError``.
    """
    history = History()
    redraws = watch and not json and sys.stdout.isatty() and has_cursor_movement()
    with OperatorClient(servers) as operator:
        while True:
            report, now = operator.report(), time.time()
            history.on_report(report, now)
            status = report.status
            if json:
                print(dumps(_as_json(report)), flush=True)
            else:
                command = suggested_command(servers, status, hosts_for_others("::" if servers.status.is_ipv6 else "*"))
                width, height = shutil.get_terminal_size()
                text = overview(history, command, width, now)
                print(_screen(text, width, height) if redraws else text, end="" if redraws else "\n", flush=True)
            if not watch:
                return
            operator.next_snapshot()
            if not json and not redraws:
                print()


def _screen(text: str, width: int, height: int) -> str:
    """Returns the text that replaces the whole screen with the first lines of ``text``."""
    lines = text.split("\n")
    if len(lines) >= height:
        hidden = len(lines) - height + 2
        lines = [*lines[:-hidden], f"… {hidden} more lines: enlarge the terminal, or use msd console"[:width]]
    return HOME + "".join(f"{line}{CLEAR_LINE}\n" for line in lines) + CLEAR_BELOW


def _as_json(report: StatusReport) -> Mapping[str, object]:
    downloads = msgspec.to_builtins(report.downloads)
    events = [*map(_event_as_json, report.events)]
    return {
        **as_json(report.status),
        "not_shared": report.not_shared,
        "receivers": report.receivers,
        "downloads": downloads,
        "events": events,
    }


def _event_as_json(event: LoggedEvent) -> Mapping[str, object]:
    return {"time": round(event.time, 3), "text": event.text, "bad": event.is_failure}
