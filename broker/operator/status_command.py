"""``msd status``: prints the contents of the console, once or after every published snapshot.

Does not format them: see ``broker/views/console_lines.py``. The report's table, which asks for a choice, belongs to the
terminal of ``msd serve``.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from json import dumps

from msd.broker.operator.operator_client import OperatorClient
from msd.broker.status.history import History
from msd.broker.status.snapshot import as_json
from msd.broker.views.console_lines import overview
from msd.broker.views.status_table import suggested_command
from msd.wire.config.servers import Servers
from msd.wire.net.own_addresses import hosts_for_others
from msd.wire.protocol.messages import LoggedEvent


def show(servers: Servers, *, json: bool, watch: bool) -> None:
    """Prints the status of ``servers``, and with ``watch`` again after every snapshot. Raises ``MsdError``."""
    history = History()
    with OperatorClient(servers) as operator:
        while True:
            report, now = operator.report(), time.time()
            history.on_report(report, now)
            status = report.status
            if json:
                print(dumps({**as_json(status), "events": [*map(_as_json, report.events)]}), flush=True)
            else:
                command = suggested_command(servers, status, hosts_for_others("::" if servers.status.is_ipv6 else "*"))
                text = overview(history, command, shutil.get_terminal_size().columns, now)
                print(text, flush=True)
            if not watch:
                return
            operator.next_snapshot()
            if not json:
                print()


def _as_json(event: LoggedEvent) -> Mapping[str, object]:
    return {"time": round(event.time, 3), "text": event.text, "bad": event.is_failure}
