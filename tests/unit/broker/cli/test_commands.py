"""What the operator's commands make of their arguments and of a closed pipe."""

from __future__ import annotations

import sys
from typing import Self

import pytest
import typer

from msd.broker.cli import commands
from msd.broker.cli.commands import quit, toggle
from msd.wire.config.toml_file import MAX_WORKERS
from msd.wire.errors import NoAnswerError
from msd.wire.protocol.messages import Toggled
from msd.wire.protocol.states import WantedState, WorkerState
from tests.system import run_msd
from tests.unit.snapshots import snapshot


class FakeOperator:
    """Does what is ordered at once, and answers no question; worker 3 is frozen."""

    def __init__(self) -> None:
        self.orders: list[tuple[int, WantedState | None]] = []
        self.latest = snapshot()
        self.has_quit = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def quit(self) -> None:
        self.has_quit = True

    def toggle(self, number: int, want: WantedState | None) -> Toggled:
        self.orders.append((number, want))
        state = WorkerState.SILENT if number == 3 else WorkerState.ASLEEP
        return Toggled(rid=1, number=number, state=state, reached=number != 3)


@pytest.fixture
def operator(monkeypatch: pytest.MonkeyPatch) -> FakeOperator:
    made = FakeOperator()
    monkeypatch.setattr(commands, "_operator", lambda *where: made)
    return made


class ClosedPipe:
    def write(self, text: str) -> int:
        raise BrokenPipeError

    def flush(self) -> None:
        raise BrokenPipeError


def test_a_closed_pipe_does_not_stop_the_orders(operator: FakeOperator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", ClosedPipe())
    toggle([1, 2, 4], sleep=True)
    assert operator.orders == [(1, WantedState.ASLEEP), (2, WantedState.ASLEEP), (4, WantedState.ASLEEP)]


def test_a_worker_that_is_late_does_not_stop_the_orders(
    operator: FakeOperator, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(NoAnswerError, match="worker 3 did not get there"):
        toggle([1, 3, 4])
    assert capsys.readouterr().out == "worker 1: asleep\nworker 3: silent\nworker 4: asleep\n"


def test_quit_asks_nothing_before_its_order(operator: FakeOperator, capsys: pytest.CaptureFixture[str]) -> None:
    quit()
    assert operator.has_quit
    assert capsys.readouterr().out == "server 5 and its 4 workers are ending\n"


@pytest.mark.parametrize("number", ["0", "-3", "65", "18446744073709551616"])
def test_a_number_that_no_worker_can_have_is_wrong_use(number: str) -> None:
    wrong = run_msd("toggle", "--", number)
    assert (wrong.returncode, wrong.stdout, wrong.stderr.count("\n")) == (2, "", 1)
    assert f"'N …': {number} is not in the range 1<=x<={MAX_WORKERS}" in wrong.stderr


def test_typer_is_all_that_is_needed_to_mount_the_commands() -> None:
    app = typer.Typer()
    commands.mount(app)
    assert [command.callback.__name__ for command in app.registered_commands if command.callback] == [
        "serve", "status", "toggle", "quit", "console", "demo",
    ]  # fmt: skip
