"""Locating the servers from the configuration and the flags."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from msd.wire.config.servers import Servers, locate_servers
from msd.wire.config.settings import Config
from msd.wire.errors import NotAllowedError, UsageError
from msd.wire.net import name_lookup, own_addresses
from msd.wire.net.endpoints import Endpoint
from msd.wire.security.keys import Credentials
from tests.unit.wire.config.configurations import KEY, PORTS, create_server_pair, workers


def test_the_servers_are_located_by_the_file() -> None:
    config = Config(workers=workers(1, 2), has_default_ports=False)
    servers = locate_servers(config, host=None, ports=None, server5=None)
    loopback = "127.0.0.1"
    assert servers == Servers(
        Endpoint(loopback, 39223), {1: Endpoint(loopback, 1), 2: Endpoint(loopback, 2)}, pinned=False
    )


def test_ports_on_the_command_line_are_pinned() -> None:
    servers = locate_servers(Config(), host="127.0.0.2", ports=PORTS, server5=None)
    assert servers.pinned
    assert not servers.guessed
    assert servers.status == Endpoint("127.0.0.2", 5005)
    assert servers.workers == {number: Endpoint("127.0.0.2", 5000 + number) for number in (1, 2, 3, 4)}


def test_a_host_on_the_command_line_is_not_pinned() -> None:
    servers = locate_servers(Config(), host="127.0.0.2", ports=None, server5=None)
    assert not servers.pinned
    assert servers.guessed
    assert {endpoint.host for endpoint in (servers.status, *servers.workers.values())} == {"127.0.0.2"}


def test_with_only_server_5_the_workers_are_unknown_at_first() -> None:
    servers = locate_servers(Config(), host=None, ports=None, server5="127.0.0.3:7000")
    assert servers == Servers(Endpoint("127.0.0.3", 7000), {}, pinned=False)


def test_server_5_and_ports_can_be_combined() -> None:
    servers = locate_servers(Config(), host="127.0.0.2", ports=PORTS, server5="127.0.0.3:7000")
    assert servers.pinned
    assert servers.status == Endpoint("127.0.0.3", 7000)
    assert servers.workers[4] == Endpoint("127.0.0.2", 5004)


@pytest.mark.parametrize("host", ["*", "0.0.0.0", "::"])
def test_servers_on_a_wildcard_are_reached_on_loopback(host: str) -> None:
    servers = locate_servers(Config(host=host, workers=workers(1, host=host)), host=None, ports=None, server5=None)
    assert servers.status == Endpoint("127.0.0.1", 39223)
    assert servers.workers == {1: Endpoint("127.0.0.1", 1)}


def test_each_host_name_is_looked_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def addresses_of(name: str) -> tuple[str, ...]:
        asked.append(name)
        return ("::1", "127.0.0.1")

    monkeypatch.setattr(name_lookup, "addresses_of", addresses_of)
    servers = locate_servers(Config(), host="files", ports=PORTS, server5="files:7000")
    assert servers.status == Endpoint("files", 7000)
    assert asked == []
    servers = servers.resolved()
    assert asked == ["files"]
    assert servers.names == {"files"}
    for endpoint in (servers.status, *servers.workers.values()):
        assert [address.host for address in endpoint.addresses] == ["::1", "127.0.0.1"]


def test_addresses_are_not_looked_up() -> None:
    servers = locate_servers(Config(), host="127.0.0.2", ports=PORTS, server5="[::1]:7000")
    assert servers.names == set()
    assert servers.resolved() is servers


@pytest.mark.parametrize(
    ("server5", "host"), [("127.0.0.3", "127.0.0.3"), ("[::1]", "::1"), ("tcp://127.0.0.3", "127.0.0.3")]
)
def test_server_5_without_a_port_is_at_its_usual_port(server5: str, host: str) -> None:
    assert locate_servers(Config(status_port=7000), server5=server5).status == Endpoint(host, 39223)


@pytest.mark.parametrize("server5", ["", "7000", "host:", "127.0.0.1:70000"])
def test_an_invalid_server_5_is_a_usage_error(server5: str) -> None:
    with pytest.raises(UsageError):
        locate_servers(Config(), host=None, ports=None, server5=server5)


def test_a_client_refuses_conflicting_ports() -> None:
    with pytest.raises(UsageError, match="port 5001 is given twice"):
        locate_servers(Config(), host=None, ports=(5001, 5001, 5003, 5004, 5005), server5=None)


# Credentials.


def test_servers_without_keys_need_no_credentials(home: Path) -> None:
    create_server_pair(home / ".config" / "msd" / "keys")
    assert locate_servers(Config()).credentials is None
    assert locate_servers(Config(host="10.0.0.1", security="none")).credentials is None


@pytest.mark.parametrize("flags", [{}, {"server5": "127.0.0.3:7000"}, {"ports": PORTS}])
def test_the_servers_of_this_machine_are_used_with_their_own_pair(tmp_path: Path, flags: dict[str, Any]) -> None:
    config = Config(keys=tmp_path / "keys")
    assert locate_servers(config, **flags).credentials is None
    pair = create_server_pair(tmp_path / "keys")
    assert locate_servers(config, **flags).credentials == Credentials(pair, pair.public)


@pytest.mark.parametrize(
    ("server5", "security", "is_used"),
    [
        ("192.0.2.7:7000", "", True),
        ("192.0.2.7", "none", False),
        ("192.0.2.8", "", False),
        ("films.example.org", "", False),
        ("127.0.0.1", "", False),
    ],
)
def test_server_5_at_another_address_of_this_machine_is_used_with_its_own_pair(
    home: Path, monkeypatch: pytest.MonkeyPatch, server5: str, security: str, is_used: bool
) -> None:
    monkeypatch.setattr(own_addresses, "own_addresses", lambda: [ip_address("127.0.0.1"), ip_address("192.0.2.7")])
    pair = create_server_pair(home / ".config" / "msd" / "keys")
    expected = Credentials(pair, pair.public) if is_used else None
    assert locate_servers(Config(security=security), server5=server5).credentials == expected


def test_a_server_key_on_the_command_line_overrides_the_file(tmp_path: Path) -> None:
    config = Config(keys=tmp_path / "keys", server_key=b"\x01" * 32)
    pair, _ = config.key_folder.new("laptop")
    assert locate_servers(config).credentials == Credentials(pair, b"\x01" * 32)
    assert locate_servers(config, server_key=KEY).credentials == Credentials(pair, b"\xab" * 32)


def test_a_server_key_requires_a_client_key() -> None:
    with pytest.raises(NotAllowedError, match="contains no client key: create one with msd keys new NAME"):
        locate_servers(Config(), server_key=KEY)


@pytest.mark.parametrize("text", ["", "abc", KEY[2:], KEY + "ab", "laptop " + KEY])
def test_an_invalid_server_key_is_a_usage_error_and_not_quoted(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        locate_servers(Config(), server_key=text)
    assert str(caught.value) == "server_key must be a key of 64 hexadecimal digits, as printed by msd serve"
    assert caught.value.arguments == ("server_key",)


@pytest.mark.parametrize(
    ("text", "problem"),
    [("7000", "'7000' is not HOST or HOST:PORT"), ("host:99999", "host:99999: 99999 is not a valid")],
)
def test_an_invalid_address_of_server_5_is_a_usage_error_that_names_the_argument(text: str, problem: str) -> None:
    with pytest.raises(UsageError, match=f"^server5 {problem}") as caught:
        locate_servers(Config(), server5=text)
    assert caught.value.arguments == ("server5",)
