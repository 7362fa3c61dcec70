"""On which ports a broker is started, and what happens before and after it runs."""

from __future__ import annotations

import os
import socket
from contextlib import closing
from pathlib import Path

import pytest
from msgspec.structs import replace

from msd.broker import server, start_up
from msd.broker.server import Broker
from msd.broker.start_up import PORT_DISTANCE
from msd.wire.config.settings import Config
from msd.wire.errors import UsageError
from msd.wire.net.endpoints import Endpoint
from msd.wire.net.ports import PortInUseError
from tests.unit.broker.test_server import config as config


def test_serve_closes_the_broker_and_returns_its_exit_code(
    config: Config, runtime_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Broker, "run", lambda broker: 7)
    with Path(os.devnull).open("wb") as null:
        assert start_up.serve(config, until_done=False, stdout=null.fileno()) == 7
    assert [*runtime_folder.iterdir()] == []


@pytest.mark.parametrize("passed_over", [False, True])
def test_a_configuration_file_that_is_passed_over_is_mentioned(
    config: Config,
    runtime_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    passed_over: bool,
) -> None:
    monkeypatch.setattr(Broker, "run", lambda broker: 0)
    with Path(os.devnull).open("wb") as null:
        start_up.serve(replace(config, passed_over_file=passed_over), until_done=False, stdout=null.fileno())
    note = "config.toml in the current folder has no section of msd: it is not used"
    assert (note in capfd.readouterr().err) == passed_over


def test_busy_default_ports_on_loopback_are_replaced_together(
    config: Config, runtime_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Broker, "run", lambda broker: broker._config.status_port)
    default = replace(config, control_port=None)
    fixed = replace(default, has_default_ports=False)
    with Path(os.devnull).open("wb") as null, closing(socket.socket()) as user:
        assert start_up.serve(default, until_done=False, stdout=null.fileno()) == config.status_port
        user.bind(("127.0.0.1", config.workers[1].endpoint.port))
        user.listen()
        assert start_up.serve(default, until_done=False, stdout=null.fileno()) == config.status_port + PORT_DISTANCE
        with pytest.raises(UsageError, match="is in use"):
            start_up.serve(fixed, until_done=False, stdout=null.fileno())


def test_a_port_of_closed_connections_is_waited_for(
    config: Config, runtime_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fixed = replace(config, has_default_ports=False)
    monkeypatch.setattr(Broker, "run", lambda broker: 7)
    monkeypatch.setattr(start_up, "PORT_RETRY_INTERVAL_S", 0)
    port = config.workers[0].endpoint.port
    attempts = iter([True, True, False])

    def hold(endpoint: Endpoint, purpose: str) -> socket.socket:
        if next(attempts, False):
            raise PortInUseError("in use", port, frees_itself=True)
        return socket.socket()

    monkeypatch.setattr(server, "hold_port", hold)
    with Path(os.devnull).open("wb") as null:
        assert start_up.serve(fixed, until_done=False, stdout=null.fileno()) == 7
    assert next(attempts, None) is None


def test_a_port_that_stays_occupied_by_closed_connections_is_given_up(
    config: Config, runtime_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hold(endpoint: Endpoint, purpose: str) -> None:
        raise PortInUseError("in use", endpoint.port, frees_itself=True)

    monkeypatch.setattr(server, "hold_port", hold)
    monkeypatch.setattr(start_up, "CLOSED_CONNECTION_S", 0.0)
    with Path(os.devnull).open("wb") as null, pytest.raises(PortInUseError):
        start_up.serve(replace(config, has_default_ports=False), until_done=False, stdout=null.fileno())
