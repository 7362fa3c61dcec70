"""``msd status``: the report's table and all that a console would show, once or as often as server 5 publishes it.

What is shown is decided in ``broker/views/plain.py`` and ``broker/views/table.py``.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from json import dumps

from msd.broker.operator.operator_client import OperatorClient
from msd.broker.status.history import History
from msd.broker.status.snapshot import as_json
from msd.broker.views.plain import client_line, table
from msd.broker.views.table import overview
from msd.wire.config.settings import Servers
from msd.wire.protocol.messages import LoggedEvent


def show(servers: Servers, *, json: bool, watch: bool) -> None:
    """Prints the status of ``servers``, with ``watch`` each one that server 5 publishes. Raises ``MsdError``."""
    history = History()
    with OperatorClient(servers) as operator:
        report = operator.report()
        history.recall(report)
        status = report.status
        while True:
            now = time.time()
            history.snapshot(status, now)
            if json:
                print(dumps({**as_json(status), "events": [*map(_values, history.told()[0])]}), flush=True)
            else:
                shown = overview(history, client_line(servers, status), shutil.get_terminal_size().columns, now)
                print(table(status).partition("\nTo quit")[0], shown, sep="\n\n", flush=True)
            if not watch:
                return
            status = operator.next_snapshot()


def _values(event: LoggedEvent) -> Mapping[str, object]:
    return {"time": round(event.time, 3), "text": event.text, "bad": event.bad}
