"""The flags of ``msd worker``: what they mean, and the errors for invalid ones. tests/integration runs the command."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from msd.wire.errors import DiskError, NotAllowedError, UsageError
from msd.wire.net.endpoints import Endpoint
from msd.wire.net.ports import hold_port
from msd.wire.security.keys import KeyFolder, KeyPair
from msd.workers.cli import joining_worker
from msd.workers.cli.joining_worker import WorkerOptions, worker_options
from tests.processes import free_ports

SERVER = KeyPair.from_secret(b"\2" * 32)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, without a configuration or keys."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path


def options(join: str | None = "10.0.0.5", config_file: str | None = None, **flags: Any) -> WorkerOptions:
    values: dict[str, Any] = {
        **dict.fromkeys(("server_key", "key_file", "listen", "advertise", "name", "rate")),
        **{"paths": ["film"], "excludes": [], "hidden": False, "follow_links": False, "keep_index": False},
    }
    return worker_options(config_file, join=join, **{**values, **flags})


@pytest.mark.parametrize(
    ("join", "control", "host"),
    [
        ("10.0.0.5", "10.0.0.5:39224", "*"),
        ("10.0.0.5:500", "10.0.0.5:501", "*"),
        ("127.0.0.1:500", "127.0.0.1:501", "127.0.0.1"),
        ("[2001:db8::1]", "[2001:db8::1]:39224", "::"),
    ],
)
def test_the_control_port_follows_that_of_server_5_and_the_worker_listens_where_others_reach_it(
    join: str, control: str, host: str
) -> None:
    assert options(join).control == Endpoint.parse(control)
    assert options(join).host == host
    assert options(join, listen="7000").listen == Endpoint(host, 7000)


def test_a_configured_control_port_is_used(folder: Path) -> None:
    (folder / "config.toml").write_text("[broker]\ncontrol_port = 800\n")
    assert options().control == Endpoint("10.0.0.5", 800)


def test_the_flags_are_taken() -> None:
    taken = options(listen="10.0.0.7:7000", advertise="192.0.2.9:80", name="attic", rate="2MiB")
    assert (taken.listen, taken.advertise) == (Endpoint("10.0.0.7", 7000), Endpoint("192.0.2.9", 80))
    assert (taken.name, taken.rate, taken.credentials) == ("attic", 2 << 20, None)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"join": None}, "the address of server 5 is missing: give --join HOST"),
        ({"join": "a b"}, "--join "),
        ({"join": "10.0.0.5:0"}, "--join "),
        ({"listen": "70000"}, "--listen "),
        ({"advertise": "10.0.0.7"}, "--advertise "),
        ({"name": "my host"}, "--name my host: must be 1 to 64 letters, digits and . _ -"),
        ({"name": ""}, "--name : must be"),
        ({"rate": "fast"}, "--rate fast: must be "),
        ({"server_key": "12"}, "--server-key must be a key of 64 hexadecimal digits, as printed by msd serve"),
        ({"key_file": "k"}, "--key-file needs --server-key"),
    ],
)
def test_an_invalid_flag_is_named(flags: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        options(**flags)
    assert str(caught.value).startswith(message)


def test_the_key_is_that_of_the_file(folder: Path) -> None:
    own = KeyPair.from_secret(b"\1" * 32)
    (folder / "secret").write_text(own.secret.hex() + "\n")
    (folder / "secret").chmod(0o444)  # As an orchestrator mounts it.
    credentials = options(server_key=SERVER.public.hex(), key_file="secret").credentials
    assert credentials is not None
    assert (credentials.own, credentials.server) == (own, SERVER.public)


def test_the_key_of_the_servers_themselves_is_never_used(folder: Path) -> None:
    keys = KeyFolder(folder / "config" / "msd" / "keys")
    server = keys.init()
    with pytest.raises(NotAllowedError, match=r"contains no worker key: create one .* with --role worker"):
        options(server_key=server.public.hex())
    own, _ = keys.new("attic")
    credentials = options(server_key=server.public.hex()).credentials
    assert credentials is not None
    assert credentials.own == own


def test_an_invalid_key_file_is_an_error_that_does_not_quote_it(folder: Path) -> None:
    with pytest.raises(DiskError, match=r"^--key-file missing: No such file or directory"):
        options(server_key=SERVER.public.hex(), key_file="missing")
    (folder / "bad").write_text("secret words")
    with pytest.raises(UsageError, match="not a secret key") as caught:
        options(server_key=SERVER.public.hex(), key_file="bad")
    assert "words" not in str(caught.value)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def test_the_first_port_that_is_not_held_is_taken(stack: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    first, *others = free_ports()
    monkeypatch.setattr(joining_worker, "DEFAULT_PORTS", (first, *others))
    monkeypatch.setattr(joining_worker, "PORTS_TRIED", 3)
    stack.callback(hold_port(Endpoint("127.0.0.1", first), "worker").close)
    taken = options("127.0.0.1:39223")
    endpoint, holder = joining_worker._hold_port(taken)
    stack.callback(holder.close)
    assert first < endpoint.port < first + 3
    monkeypatch.setattr(joining_worker, "PORTS_TRIED", 1)
    with pytest.raises(UsageError, match="--listen PORT"):
        joining_worker._hold_port(taken)
