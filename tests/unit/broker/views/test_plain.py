"""The report's status table, and the lines an operator types under it."""

from __future__ import annotations

import pytest

from msd.broker.views.plain import QuitLine, ToggleLine, WrongLine, parse, ready_line, table
from msd.wire.config.settings import Config, WorkerConfig
from msd.wire.net.endpoints import Endpoint
from msd.wire.protocol.messages import PROTOCOL_VERSION, Status, WorkerStatus
from msd.wire.protocol.states import WantedState, WorkerState

PORTS = (21018, 27215, 35416, 19222)
REPORT = """\
-----
MultiServer Downloader
-----
Server 1 at Port: 21018 Status: Dead To shut down/wake up enter 1
Server 2 at Port: 27215 Status: Alive To shut down/wake up enter 2
Server 3 at Port: 35416 Status: Alive To shut down/wake up enter 3
Server 4 at Port: 19222 Status: Alive To shut down/wake up enter 4
To quit, enter -1:

Enter your Choice:"""


def status(
    *states: WorkerState,
    reason: str = "",
    host: str = "127.0.0.1",
    complaints: int = 0,
    malformed_messages: int = 0,
    rejected_connections: int = 0,
) -> Status:
    workers = [
        WorkerStatus(
            number=number,
            endpoint=f"tcp://{host}:{PORTS[number - 1]}",
            state=state,
            wanted=WantedState.AWAKE,
            epoch=1,
            pid=100,
            restarts=0,
            clients=0,
            bytes_sent=0,
            rate=0.0,
            reason=reason,
            complaints=complaints,
            malformed_messages=malformed_messages,
            rejected_connections=rejected_connections,
        )
        for number, state in enumerate(states, 1)
    ]
    return Status(
        version=PROTOCOL_VERSION,
        epoch=1,
        seq=1,
        interval=2.0,
        control="tcp://127.0.0.1:39224",
        catalogue=b"",
        files=1,
        workers=workers,
    )


def row(
    state: WorkerState,
    reason: str = "",
    *,
    complaints: int = 0,
    malformed_messages: int = 0,
    rejected_connections: int = 0,
) -> str:
    told = status(
        state,
        reason=reason,
        complaints=complaints,
        malformed_messages=malformed_messages,
        rejected_connections=rejected_connections,
    )
    return table(told).split("\n")[3]


def test_the_table_is_the_reports() -> None:
    assert table(status(WorkerState.ASLEEP, WorkerState.AWAKE, WorkerState.AWAKE, WorkerState.AWAKE)) == REPORT


def test_only_an_awake_worker_is_alive() -> None:
    assert [state for state in WorkerState if "Alive" in row(state)] == [WorkerState.AWAKE]
    assert [state for state in WorkerState if "Dead" in row(state)] == [
        state for state in WorkerState if state is not WorkerState.AWAKE
    ]


def test_a_worker_that_is_simply_on_or_off_has_no_remark() -> None:
    assert row(WorkerState.AWAKE, "old news").endswith("enter 1")
    assert row(WorkerState.ASLEEP, "old news").endswith("enter 1")


@pytest.mark.parametrize("state", [WorkerState.STARTING, WorkerState.SILENT, WorkerState.DEAD, WorkerState.FAILED])
def test_any_other_state_is_remarked_after_the_reports_row(state: WorkerState) -> None:
    plain = "Server 1 at Port: 21018 Status: Dead To shut down/wake up enter 1"
    assert row(state) == f"{plain} ({state.value})"
    assert row(state, "killed by SIGKILL") == f"{plain} ({state.value}: killed by SIGKILL)"


@pytest.mark.parametrize(
    ("complaints", "malformed_messages", "rejected_connections", "remark"),
    [
        (1, 0, 0, "1 corrupt segment"),
        (0, 12, 0, "12 messages that were none"),
        (0, 0, 1234567, "1,234,567 connections refused"),
        (1, 2, 3, "1 corrupt segment, 2 messages that were none, 3 connections refused"),
    ],
)
def test_what_went_wrong_is_counted_after_the_reports_row(
    complaints: int, malformed_messages: int, rejected_connections: int, remark: str
) -> None:
    plain = "Server 1 at Port: 21018 Status: Alive To shut down/wake up enter 1"
    assert (
        row(
            WorkerState.AWAKE,
            complaints=complaints,
            malformed_messages=malformed_messages,
            rejected_connections=rejected_connections,
        )
        == f"{plain} ({remark})"
    )
    dead = row(
        WorkerState.DEAD,
        "killed by SIGKILL",
        complaints=complaints,
        malformed_messages=malformed_messages,
        rejected_connections=rejected_connections,
    )
    assert dead == f"{plain.replace('Alive', 'Dead')} (dead: killed by SIGKILL, {remark})"


@pytest.mark.parametrize("host", ["*", "[::1]"])
def test_the_port_is_shown_whatever_the_host(host: str) -> None:
    assert "at Port: 21018 Status" in table(status(WorkerState.AWAKE, host=host))


@pytest.mark.parametrize(("line", "number"), [("1", 1), ("4\n", 4), ("  2 \r\n", 2), ("03", 3)])
def test_a_number_toggles_that_worker(line: str, number: int) -> None:
    assert parse(line, 4) == ToggleLine(number)


@pytest.mark.parametrize("line", ["-1", " -1 \n", "-1\r\n"])
def test_minus_one_quits(line: str) -> None:
    assert parse(line, 4) == QuitLine()


@pytest.mark.parametrize("line", ["", "\n", "  \t\r\n"])
def test_an_empty_line_means_nothing(line: str) -> None:
    assert parse(line, 4) is None


@pytest.mark.parametrize("line", ["0", "5", "-2", "- 1", "+1", "1.0", "1 2", "one", "²", "٣", "quit", "--1"])
def test_anything_else_is_wrong_and_says_what_is_right(line: str) -> None:
    assert parse(line, 4) == WrongLine(f"{line!r} is no choice: enter 1 to 4, or -1 to quit")


def test_a_wrong_line_is_quoted_in_part_and_without_control_characters() -> None:
    wrong = parse("\x1b[2J" + "x" * 5000, 4)
    assert isinstance(wrong, WrongLine)
    assert wrong.message.isprintable()
    assert len(wrong.message) < 120


def test_thousands_of_digits_are_wrong_and_nothing_worse() -> None:
    assert isinstance(parse("9" * 8000, 4), WrongLine)


def test_the_ready_line_says_what_a_client_has_to_be_told() -> None:
    assert ready_line(Config(), 1) == (
        "ready: 4 workers share 1 file; msd download -a 127.0.0.1 -p 21018 27215 35416 19222 39223"
    )


@pytest.mark.parametrize("files", [0, 2, 1000])
def test_the_ready_line_asks_for_a_name_where_there_is_not_just_one_file(files: int) -> None:
    where = "-a 127.0.0.1 -p 21018 27215 35416 19222 39223"
    assert ready_line(Config(), files) == f"ready: 4 workers share {files} files; msd download NAME {where}"


def test_the_ready_line_names_server_5_where_the_ports_alone_do_not_say_it() -> None:
    workers = tuple(WorkerConfig(Endpoint("127.0.0.1", port)) for port in (1001, 1002))
    assert ready_line(Config(workers=workers), 1).endswith("; msd download --server5 127.0.0.1:39223")


def test_the_ready_line_of_servers_on_all_addresses_can_be_pasted_here() -> None:
    workers = tuple(WorkerConfig(Endpoint("*", port)) for port in PORTS)
    told = ready_line(Config(host="*", workers=workers), 1)
    assert told.endswith("msd download -a 127.0.0.1 -p 21018 27215 35416 19222 39223")


def test_the_ready_line_of_servers_that_take_keys_says_theirs() -> None:
    key = bytes(range(32))
    assert ready_line(Config(), 1, key) == f"{ready_line(Config(), 1)} --server-key {key.hex()}"
    workers = tuple(WorkerConfig(Endpoint("127.0.0.1", port)) for port in (1001, 1002))
    told = ready_line(Config(workers=workers), 2, key)
    assert told.endswith(f"; msd download NAME --server5 127.0.0.1:39223 --server-key {key.hex()}")
