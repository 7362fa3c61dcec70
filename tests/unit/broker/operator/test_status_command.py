"""``msd status`` prints the table, the details and JSON, using a fake operator client."""

from __future__ import annotations

import json
from typing import Self

import pytest

from msd.broker.operator import status_command
from msd.wire.config.servers import Servers
from msd.wire.errors import NoAnswerError
from msd.wire.net.endpoints import Endpoint
from msd.wire.protocol.messages import StatusReport
from msd.wire.protocol.states import WorkerState
from tests.unit.broker.views.test_client_rows import download
from tests.unit.snapshots import report, snapshot

SERVERS = Servers(Endpoint("127.0.0.1", 39223), {}, pinned=False)


class FakeOperator:
    """Reports four awake workers, publishes one snapshot, and then stops answering."""

    def __init__(self, servers: Servers) -> None:
        assert servers is SERVERS
        asleep = (WorkerState.AWAKE, WorkerState.ASLEEP, WorkerState.AWAKE, WorkerState.AWAKE)
        self._snapshots = [snapshot(), snapshot(*asleep)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def report(self) -> StatusReport:
        texts = ["worker 2 woke up", "worker 2 fell asleep"][: 3 - len(self._snapshots)]
        return report(self._snapshots.pop(0), *texts, time=4.25, downloads=[download()])

    def next_snapshot(self) -> None:
        if not self._snapshots:
            raise NoAnswerError("server 5 does not answer")


@pytest.fixture(autouse=True)
def operator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status_command, "OperatorClient", FakeOperator)


def test_the_status_is_one_table_which_asks_for_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    status_command.show(SERVERS, json=False, watch=False)
    text = capsys.readouterr().out
    assert text.startswith("4 of 4 alive · 0 clients served")
    assert [line.split()[3] for line in text.splitlines() if "Alive" in line] == ["21018", "27215", "35416", "19222"]
    assert "enter" not in text
    assert "worker 2 woke up\n" in text
    assert "\nlaptop film.mkv " in text
    assert text.endswith("\nmsd download -a 127.0.0.1 -p 21018 27215 35416 19222 39223\n")


def test_json_contains_workers_and_events(capsys: pytest.CaptureFixture[str]) -> None:
    status_command.show(SERVERS, json=True, watch=False)
    status = json.loads(capsys.readouterr().out)
    assert [worker["state"] for worker in status["workers"]] == ["awake"] * 4
    assert status["events"] == [{"time": 3.25, "text": "worker 2 woke up", "bad": False}]
    assert status["receivers"] == 0
    (listed,) = status["downloads"]
    assert (listed["client"], listed["state"], listed["selection"]) == ("laptop", "downloading", "film.mkv")


def test_on_a_terminal_watch_redraws_in_the_same_place(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LINES", "12")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    with pytest.raises(NoAnswerError):
        status_command.show(SERVERS, json=False, watch=True)
    _, *screens = capsys.readouterr().out.split("\x1b[H")
    assert len(screens) == 2
    for screen in screens:
        *lines, rest = screen.split("\n")
        assert rest == "\x1b[J"
        assert len(lines) == 11, "the cursor stands in the last line of the terminal"
        assert lines[0].startswith("4 of 4 alive" if screen is screens[0] else "3 of 4 alive")
        assert lines[-1].startswith("… ")
        assert all(line.endswith("\x1b[K") for line in lines)


def test_watch_prints_every_snapshot_until_server_5_stops_answering(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(NoAnswerError):
        status_command.show(SERVERS, json=True, watch=True)
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert (first["workers"][1]["state"], second["workers"][1]["state"]) == ("awake", "asleep")
    assert second["events"][0]["text"] == "worker 2 fell asleep"
