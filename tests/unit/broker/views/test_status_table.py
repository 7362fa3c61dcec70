"""The report's status table, and the line with the command for a client."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from msd.broker.views.status_table import address_line, quit_line, ready_line, status_table, suggested_command
from msd.wire.config.servers import Servers
from msd.wire.config.settings import Config, WorkerConfig
from msd.wire.net.endpoints import Endpoint
from msd.wire.protocol.messages import Status
from msd.wire.protocol.states import WorkerState
from msd.wire.security.keys import Credentials, KeyPair
from tests.unit.snapshots import PORTS, snapshot

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


def status(*states: WorkerState, host: str = "127.0.0.1", **values: Any) -> Status:
    """A snapshot of workers on ``host`` in these states; ``values`` apply to every worker."""
    made = snapshot(*states)
    workers = [replace(w, endpoint=w.endpoint.replace("127.0.0.1", host), **values) for w in made.workers]
    return replace(made, workers=workers, control=made.control.replace("127.0.0.1", host))


def with_joined(made: Status, number: int, name: str = "attic", **values: Any) -> Status:
    """The snapshot with a worker that has joined from another host."""
    settings = {"host": "10.0.0.7", "endpoint": "tcp://10.0.0.7:21018", "pid": 0, **values}
    worker = replace(snapshot(WorkerState.AWAKE).workers[0], number=number, name=name, **settings)
    return replace(made, workers=[*made.workers, worker])


def row(state: WorkerState, reason: str = "", **counts: Any) -> str:
    """The table's row for a worker in this state."""
    return status_table(status(state, reason=reason, **counts)).split("\n")[3]


def test_an_unusual_control_port_is_named_for_workers() -> None:
    config = Config(host="10.0.0.5", status_port=5000, control_port=6000, workers=())
    line = ready_line(config, 0)
    expected = "msd worker --join 10.0.0.5:5000 PATH (with control_port = 6000 under [broker] in its config.toml)"
    assert line.endswith(expected)
    made = replace(status(), workers=[], control="tcp://10.0.0.5:6000")
    servers = Servers(Endpoint("10.0.0.5", 5000), {}, pinned=False)
    assert suggested_command(servers, made).command == expected
    assert ready_line(replace(config, control_port=None), 0).endswith("PATH")


def test_the_table_matches_the_report() -> None:
    assert status_table(status(WorkerState.ASLEEP, WorkerState.AWAKE, WorkerState.AWAKE, WorkerState.AWAKE)) == REPORT


def test_the_table_asks_only_if_the_operator_can_answer() -> None:
    made = status(WorkerState.ASLEEP, WorkerState.AWAKE, complaints=1)
    assert status_table(made, asks=False).split("\n")[3:] == [
        "Server 1 at Port: 21018 Status: Dead (1 corrupt segment)",
        "Server 2 at Port: 27215 Status: Alive (1 corrupt segment)",
    ]


def test_only_an_awake_worker_is_shown_as_alive() -> None:
    assert [state for state in WorkerState if "Alive" in row(state)] == [WorkerState.AWAKE]
    assert [state for state in WorkerState if "Dead" in row(state)] == [
        state for state in WorkerState if state is not WorkerState.AWAKE
    ]


def test_an_awake_or_sleeping_worker_has_no_remark() -> None:
    assert row(WorkerState.AWAKE).endswith("enter 1")
    assert row(WorkerState.ASLEEP, "old reason").endswith("enter 1")


def test_an_awake_worker_that_cannot_read_some_files_says_why() -> None:
    assert row(WorkerState.AWAKE, "s3://films: 503").endswith("enter 1 (cannot read some files: s3://films: 503)")


@pytest.mark.parametrize("state", [WorkerState.STARTING, WorkerState.SILENT, WorkerState.DEAD, WorkerState.FAILED])
def test_any_other_state_is_appended_to_the_row(state: WorkerState) -> None:
    plain = "Server 1 at Port: 21018 Status: Dead To shut down/wake up enter 1"
    assert row(state) == f"{plain} ({state.value})"
    assert row(state, "killed by SIGKILL") == f"{plain} ({state.value}: killed by SIGKILL)"


@pytest.mark.parametrize(
    ("counts", "remark"),
    [
        ({"complaints": 1}, "1 corrupt segment"),
        ({"malformed_messages": 12}, "12 malformed messages"),
        ({"rejected_connections": 1234567}, "1,234,567 refused connections"),
        (
            {"complaints": 1, "malformed_messages": 2, "rejected_connections": 3},
            "1 corrupt segment, 2 malformed messages, 3 refused connections",
        ),
    ],
)
def test_failure_counts_are_appended_to_the_row(counts: dict[str, Any], remark: str) -> None:
    plain = "Server 1 at Port: 21018 Status: Alive To shut down/wake up enter 1"
    assert row(WorkerState.AWAKE, **counts) == f"{plain} ({remark})"
    dead = row(WorkerState.DEAD, "killed by SIGKILL", **counts)
    assert dead == f"{plain.replace('Alive', 'Dead')} (dead: killed by SIGKILL, {remark})"


@pytest.mark.parametrize("host", ["*", "[::1]"])
def test_the_port_is_shown_for_every_kind_of_host(host: str) -> None:
    assert "at Port: 21018 Status" in status_table(status(WorkerState.AWAKE, host=host))


def test_the_ready_line_contains_the_command_for_a_client() -> None:
    assert ready_line(Config(), 1) == (
        "ready: 4 workers share 1 file; msd download -a 127.0.0.1 -p 21018 27215 35416 19222 39223"
    )


@pytest.mark.parametrize("files", [0, 2, 1000])
def test_the_ready_line_contains_a_placeholder_unless_exactly_one_file_is_shared(files: int) -> None:
    flags = "-a 127.0.0.1 -p 21018 27215 35416 19222 39223"
    assert ready_line(Config(), files) == f"ready: 4 workers share {files:,} files; msd download NAME {flags}"


def test_the_ready_line_names_server_5_if_there_are_not_four_workers() -> None:
    workers = tuple(WorkerConfig(Endpoint("127.0.0.1", port)) for port in (1001, 1002))
    assert ready_line(Config(workers=workers), 1).endswith("; msd download --server5 127.0.0.1:39223")


def test_the_ready_line_replaces_the_wildcard_address_with_loopback() -> None:
    workers = tuple(WorkerConfig(Endpoint("*", port)) for port in PORTS)
    line = ready_line(Config(host="*", workers=workers), 1)
    assert line.endswith("msd download -a 127.0.0.1 -p 21018 27215 35416 19222 39223")


def test_the_ready_line_replaces_the_wildcard_address_with_one_that_others_can_use() -> None:
    workers = tuple(WorkerConfig(Endpoint("::", port)) for port in PORTS)
    line = ready_line(Config(host="::", workers=workers), 1, None, ["192.0.2.7", "2001:db8::7"])
    assert line.endswith("msd download -a 192.0.2.7 -p 21018 27215 35416 19222 39223")


@pytest.mark.parametrize(
    ("host", "hosts", "line"),
    [
        ("127.0.0.1", [], ""),
        ("*", ["192.0.2.7"], ""),
        ("*", ["192.0.2.7", "10.0.0.7", "fd00::7"], "other addresses of these servers: 10.0.0.7, fd00::7"),
        ("0.0.0.0", [], "other machines cannot reach these servers: this machine has no address for them"),
    ],
)
def test_further_addresses_of_servers_on_a_wildcard_are_listed(host: str, hosts: list[str], line: str) -> None:
    assert address_line(Config(host=host), hosts) == line


def test_the_ready_line_contains_the_servers_key() -> None:
    key = bytes(range(32))
    assert ready_line(Config(), 1, key) == f"{ready_line(Config(), 1)} --server-key {key.hex()}"
    workers = tuple(WorkerConfig(Endpoint("127.0.0.1", port)) for port in (1001, 1002))
    line = ready_line(Config(workers=workers), 2, key)
    assert line.endswith(f"; msd download NAME --server5 127.0.0.1:39223 --server-key {key.hex()}")


def test_the_suggested_command_replaces_the_workers_wildcard_address_with_that_of_server_5() -> None:
    servers = Servers(Endpoint("192.168.1.5", 39223), {}, pinned=False)
    published = status(*[WorkerState.AWAKE] * 4, host="*")
    assert (
        suggested_command(servers, published).command == "msd download -a 192.168.1.5 -p 21018 27215 35416 19222 39223"
    )


@pytest.mark.parametrize(
    ("published", "pinned", "hosts", "shown"),
    [
        ("*", False, ["192.0.2.7", "10.0.0.7"], "192.0.2.7"),
        ("*", True, ["192.0.2.7"], "192.0.2.7"),
        ("*", False, [], "127.0.0.1"),
        ("127.0.0.1", False, ["192.0.2.7"], "127.0.0.1"),
        ("127.0.0.1", True, ["192.0.2.7"], "127.0.0.1"),
    ],
)
def test_the_suggested_command_has_an_address_for_other_machines_if_the_servers_listen_there(
    published: str, pinned: bool, hosts: list[str], shown: str
) -> None:
    workers = {number: Endpoint("127.0.0.1", port) for number, port in enumerate(PORTS[:4], 1)}
    servers = Servers(Endpoint("127.0.0.1", 39223), workers if pinned else {}, pinned=pinned)
    snapshot = status(*[WorkerState.AWAKE] * 4, host=published)
    expected = f"msd download -a {shown} -p 21018 27215 35416 19222 39223"
    assert suggested_command(servers, snapshot, hosts).command == expected


def test_the_suggested_command_keeps_the_address_of_a_proxy() -> None:
    servers = Servers(Endpoint("127.0.0.1", 39223), {1: Endpoint("127.0.0.1", 1001)}, pinned=True)
    command = suggested_command(servers, status(WorkerState.AWAKE, host="*"), ["192.0.2.7"]).command
    assert command == "msd download --server5 127.0.0.1:39223"


def test_the_suggested_command_contains_the_configured_workers_if_they_are_pinned() -> None:
    workers = {number: Endpoint("192.168.1.5", 1000 + number) for number in (1, 2, 3, 4)}
    servers = Servers(Endpoint("192.168.1.5", 39223), workers, pinned=True)
    published = status(*[WorkerState.AWAKE] * 4, host="*")
    assert suggested_command(servers, published).command == "msd download -a 192.168.1.5 -p 1001 1002 1003 1004 39223"


def test_the_row_of_a_worker_that_has_joined_ends_with_its_name_and_host() -> None:
    table = status_table(with_joined(status(WorkerState.AWAKE), 3)).split("\n")
    assert table[3] == "Server 1 at Port: 21018 Status: Alive To shut down/wake up enter 1"
    assert table[4] == "Server 3 at Port: 21018 Status: Alive To shut down/wake up enter 3 (attic on 10.0.0.7)"
    reason = "its key was revoked"
    lost = status_table(with_joined(status(), 5, state=WorkerState.LOST, reason=reason)).split("\n")
    assert lost[-4].endswith(f"Status: Dead To shut down/wake up enter 5 (attic on 10.0.0.7, lost: {reason})")


def test_with_keys_a_note_says_how_a_client_without_one_gets_a_link() -> None:
    credentials = Credentials(KeyPair(b"p" * 32, b"s" * 32), b"k" * 32)
    endpoint = Endpoint("127.0.0.1", 39223)
    with_keys = suggested_command(Servers(endpoint, {}, pinned=False, credentials=credentials), status())
    without = suggested_command(Servers(endpoint, {}, pinned=False), status())
    assert [note for note in with_keys.notes if note not in without.notes] == [
        "The client needs a key that is admitted. For one without, run msd invite NAME: it makes a link."
    ]


@pytest.mark.parametrize("server5", ["127.0.0.1", "192.168.1.5"])
def test_the_client_command_names_only_server_5_if_workers_have_joined(server5: str) -> None:
    servers = Servers(Endpoint(server5, 39223), {}, pinned=False)
    for own in (3, 4):
        started = status(*[WorkerState.AWAKE] * own, host="*")
        # The endpoint of such a worker on the machine of server 5 may have a wildcard as its host.
        for endpoint in ("tcp://*:20000", "tcp://10.0.0.7:20000"):
            suggested = suggested_command(servers, with_joined(started, own + 1, endpoint=endpoint))
            assert suggested.command == f"msd download --server5 {server5}:39223"
            # Another machine cannot use a loopback address.
            place = " on this machine" if server5 == "127.0.0.1" else ""
            assert suggested.title == f"Command for a client{place}"
            assert [note[:27] for note in suggested.notes] == ["Only clients on this machin"] * (server5 == "127.0.0.1")


@pytest.mark.parametrize(
    ("control", "hosts", "address"),
    [
        ("tcp://*:39224", ["192.0.2.7"], "192.0.2.7"),
        ("tcp://*:39224", [], "127.0.0.1"),
        ("tcp://127.0.0.1:39224", ["192.0.2.7"], "127.0.0.1"),
    ],
)
def test_without_workers_the_command_for_a_worker_has_an_address_for_other_machines(
    control: str, hosts: list[str], address: str
) -> None:
    key = KeyPair(bytes(32), bytes(32))
    for credentials, flag in (
        (None, ""),
        (Credentials(key, bytes(range(32))), f" --server-key {bytes(range(32)).hex()}"),
    ):
        servers = Servers(Endpoint("127.0.0.1", 39223), {}, pinned=False, credentials=credentials)
        nothing = replace(status(), workers=[], control=control)
        lost = with_joined(nothing, 1, state=WorkerState.LOST)
        for without in (nothing, lost):
            suggested = suggested_command(servers, without, hosts)
            assert suggested.title == f"Command for a worker on {'this' if address == '127.0.0.1' else 'any'} machine"
            assert suggested.command == f"msd worker --join {address}:39223{flag} PATH"
        client = suggested_command(servers, with_joined(nothing, 1), hosts)
        assert client.command == f"msd download --server5 {address}:39223{flag}"


def test_the_ready_line_of_a_broker_without_workers_has_the_command_for_a_worker() -> None:
    line = ready_line(Config(host="*", workers=()), 0, None, ["192.0.2.7"])
    assert line == "ready: server 5 without workers of its own; msd worker --join 192.0.2.7:39223 PATH"


@pytest.mark.parametrize(
    ("own", "joined", "line"),
    [
        (4, 0, "shutting down the broker and 4 workers"),
        (1, 1, "shutting down the broker and 1 worker; 1 worker that joined keeps running"),
        (0, 2, "shutting down the broker; 2 workers that joined keep running"),
        (0, 0, "shutting down the broker"),
    ],
)
def test_the_line_about_a_shutdown_says_which_workers_keep_running(own: int, joined: int, line: str) -> None:
    published = replace(status(), workers=status(*[WorkerState.AWAKE] * own).workers if own else [])
    published = with_joined(published, 9, state=WorkerState.LOST)
    for number in range(joined):
        published = with_joined(published, 10 + number)
    assert quit_line(published) == line + (": stop such a worker on its own host" if joined else "")
