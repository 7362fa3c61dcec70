"""The text of ``msd status``: everything from top to bottom, and commands that can be pasted."""

from __future__ import annotations

from msd.broker.status.history import History
from msd.broker.views.overview import overview, wrap_command
from msd.broker.views.status_table import SuggestedCommand
from msd.wire.protocol.states import WorkerState
from msd.wire.support.units import format_time
from tests.unit.broker.views.test_worker_rows import joined_row
from tests.unit.snapshots import report, snapshot, with_worker


def test_a_wrapped_command_can_be_pasted() -> None:
    command = f"msd download -a 127.0.0.1 -p 1 2 3 4 5 --server-key {'f' * 64}"
    lines = wrap_command(command, 80)
    assert len(lines) == 2
    assert max(map(len, lines)) <= 80
    assert "".join(line.removesuffix("\\") for line in lines) == command


def test_the_overview_contains_everything_that_an_operator_may_ask() -> None:
    history = History()
    reason = "killed by SIGKILL, possibly by the kernel's out-of-memory killer"
    status = with_worker(snapshot(WorkerState.AWAKE, WorkerState.DEAD, clients=1), 2, reason=reason)
    skips = ["2 files: Permission denied (2)"]
    history.on_report(report(status, f"worker 2 died: {reason}", is_failure=True, time=2.0, not_shared=skips), 2.0)
    text = overview(history, SuggestedCommand("Command for a client", "msd download -p 1 2 3 4 5"), 80, 1.0)
    for part in (
        "1 of 2 alive · 1 client served",
        "Not shared: 2 files: Permission denied (2)",
        "Worker State Port Uptime",
        f"○ 2 Restarting 27215 - 0 0 - 0 B - {reason} ",
        f"{format_time(1.0)} ! worker 2 died: {reason}",
        "Command for a client msd download -p 1 2 3 4 5",
    ):
        assert " ".join(part.split()) in " ".join(text.split()), part
    assert max(map(len, text.split("\n"))) <= 80


def test_a_worker_with_other_files_than_those_of_server_5_is_named() -> None:
    history = History()
    same, other = joined_row(rate=0.0).worker, joined_row(number=6, name="cellar", catalogue=b"d" * 32).worker
    history.on_status(snapshot(workers=[same, other]), 0.0)
    text = overview(history, SuggestedCommand("Command for a client", "msd"), 120, 0.0)
    assert "6 (cellar): Alive" in text
    assert "3 files (not the list of server 5)" in text
    assert "5 (attic): Alive" not in text
