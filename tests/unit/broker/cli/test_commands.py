"""The operator's commands: invalid arguments, a frozen worker and a closed pipe."""

from __future__ import annotations

import sys
from typing import Self

import pytest
import typer

from msd.broker.cli import commands
from msd.broker.cli.commands import health, quit, toggle
from msd.broker.operator import operator_client
from msd.wire.errors import NoAnswerError, UsageError
from msd.wire.protocol.messages import Toggled
from msd.wire.protocol.states import WantedState, WorkerState
from tests.unit.snapshots import snapshot, with_worker


class FakeOperator:
    """Records orders. Workers fall asleep immediately, except those that are frozen."""

    def __init__(self) -> None:
        self.orders: list[tuple[int, WantedState | None]] = []
        self.latest = snapshot()
        self.has_quit = False
        self.frozen = {3}
        self.lost: set[int] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def quit(self) -> None:
        self.has_quit = True

    def toggle(self, number: int, wanted: WantedState | None) -> Toggled:
        self.orders.append((number, wanted))
        states = {WorkerState.SILENT: self.frozen, WorkerState.LOST: self.lost}
        state = next((state for state, numbers in states.items() if number in numbers), WorkerState.ASLEEP)
        return Toggled(rid=1, number=number, state=state, reached=state is WorkerState.ASLEEP)


@pytest.fixture
def operator(monkeypatch: pytest.MonkeyPatch) -> FakeOperator:
    fake = FakeOperator()
    monkeypatch.setattr(operator_client, "OperatorClient", lambda servers: fake)
    return fake


class ClosedPipe:
    def write(self, text: str) -> int:
        raise BrokenPipeError

    def flush(self) -> None:
        raise BrokenPipeError


def test_after_a_closed_pipe_the_other_workers_are_toggled(
    operator: FakeOperator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", ClosedPipe())
    toggle(words=["1", "2", "4"], sleep=True)
    assert operator.orders == [(1, WantedState.ASLEEP), (2, WantedState.ASLEEP), (4, WantedState.ASLEEP)]


def test_after_a_frozen_worker_the_other_workers_are_toggled(
    operator: FakeOperator, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(NoAnswerError, match="worker 3 did not change state within 3 s"):
        toggle(words=["1", "3", "4"])
    assert capsys.readouterr().out == "worker 1: asleep\nworker 3: silent\nworker 4: asleep\n"


def test_all_frozen_workers_are_named(operator: FakeOperator) -> None:
    operator.frozen = {1, 3}
    with pytest.raises(NoAnswerError, match="workers 1, 3 did not change state within 3 s"):
        toggle(words=["all"])


def test_workers_that_have_joined_are_toggled_by_name(
    operator: FakeOperator, capsys: pytest.CaptureFixture[str]
) -> None:
    operator.latest = with_worker(snapshot(), 4, number=6, name="attic", host="10.0.0.7")
    toggle(words=["attic", "2"])
    assert operator.orders == [(6, None), (2, None)]
    assert capsys.readouterr().out == "worker 6 (attic): asleep\nworker 2: asleep\n"


def test_an_order_to_a_lost_worker_says_when_it_takes_effect(
    operator: FakeOperator, capsys: pytest.CaptureFixture[str]
) -> None:
    operator.latest = with_worker(snapshot(), 4, number=6, name="attic", host="10.0.0.7")
    operator.lost = {6}
    text = (
        r"^worker 3 did not change state within 3 s: see msd status;"
        r" worker 6 \(attic\) is lost, and gets the order when it returns$"
    )
    with pytest.raises(NoAnswerError, match=text):
        toggle(words=["all"])
    assert capsys.readouterr().out.endswith("worker 3: silent\nworker 6 (attic): lost\n")


def test_quit_sends_its_order_without_a_status_request(
    operator: FakeOperator, capsys: pytest.CaptureFixture[str]
) -> None:
    quit()
    assert operator.has_quit
    assert capsys.readouterr().out == "shutting down the broker and 4 workers\n"


@pytest.mark.parametrize("number", ["0", "5", "18446744073709551616"])
def test_if_one_number_is_wrong_no_worker_is_toggled(operator: FakeOperator, number: str) -> None:
    with pytest.raises(UsageError, match=f"no worker {number}: the workers are numbered 1 to 4"):
        toggle(words=["1", number])
    assert operator.orders == []


def test_the_health_of_a_worker_takes_no_address_of_server_5() -> None:
    with pytest.raises(UsageError, match="--worker \\(or MSD_LISTEN\\) is an address of its own"):
        health(host="192.0.2.1", worker="21018")


def test_mount_registers_every_command() -> None:
    app = typer.Typer()
    commands.mount(app)
    assert [command.callback.__name__ for command in app.registered_commands if command.callback] == [
        "serve", "status", "health", "toggle", "quit", "console", "demo",
    ]  # fmt: skip
