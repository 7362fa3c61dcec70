"""Who is let in, in which role: the decision, the admitted keys as they change, and real connections."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import zmq

from msd.wire.net.monitor import Handshake
from msd.wire.protocol.states import ConnectionRefusal
from msd.wire.security.keys import Credentials, KeyFolder, KeyPair, Role
from msd.wire.security.zap import ZapHandler, admitted_role, role_of
from tests.unit.doorway import PATIENCE, Doorway, doorway

OWN, LAPTOP, BOSS, WORKER, STRANGER = (KeyPair.of(bytes([n]) * 32) for n in range(1, 1 + 5))
ROLES = {LAPTOP.public: Role.CLIENT, BOSS.public: Role.OPERATOR, WORKER.public: Role.WORKER}
MECHANISMS = (b"NULL", b"PLAIN", b"CURVE", b"GSSAPI", b"curve", b"")
KEYS = (OWN.public, *ROLES, STRANGER.public, OWN.secret, b"", bytes(32))

#: A message as ZeroMQ's first version sent it, without any handshake.
ZMTP_1 = b"\x01\x00\x06\x00hello"


@pytest.fixture
def folder(tmp_path: Path) -> KeyFolder:
    made = KeyFolder(tmp_path / "keys")
    for name, pair in (("laptop", LAPTOP), ("boss", BOSS), ("worker", WORKER)):
        admit(made, name, pair, ROLES[pair.public])
    return made


def admit(folder: KeyFolder, name: str, pair: KeyPair, role: Role) -> None:
    folder.admit(f"{name} {pair.public.hex()}", role)


@contextmanager
def doorkeeper(folder: KeyFolder) -> Iterator[ZapHandler]:
    with zmq.Context() as context:
        made = ZapHandler(context, OWN, folder.path)
        try:
            yield made
        finally:
            made.close()


def roles(keeper: ZapHandler) -> dict[bytes, Role]:
    return dict(keeper._roles)


# The decision.


@pytest.mark.parametrize("key", KEYS, ids=lambda key: key.hex()[:8])
@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_without_keys_everyone_who_shows_none_is_an_operator(mechanism: bytes, key: bytes) -> None:
    expected = Role.OPERATOR if mechanism == b"NULL" else None
    assert admitted_role(mechanism, key, None, ROLES) is expected


@pytest.mark.parametrize("key", KEYS, ids=lambda key: key.hex()[:8])
@pytest.mark.parametrize("mechanism", [mechanism for mechanism in MECHANISMS if mechanism != b"CURVE"])
def test_with_keys_nothing_but_curve_is_let_in(mechanism: bytes, key: bytes) -> None:
    assert admitted_role(mechanism, key, OWN, ROLES) is None


@pytest.mark.parametrize(
    ("key", "role"),
    [
        (OWN.public, Role.OPERATOR),
        (LAPTOP.public, Role.CLIENT),
        (BOSS.public, Role.OPERATOR),
        (WORKER.public, None),
        (STRANGER.public, None),
        (OWN.secret, None),
        (b"", None),
        (bytes(32), None),
    ],
)
def test_a_key_is_let_in_as_it_was_admitted(key: bytes, role: Role | None) -> None:
    assert admitted_role(b"CURVE", key, OWN, ROLES) is role


def test_the_servers_own_key_is_an_operator_whatever_it_is_admitted_as() -> None:
    assert admitted_role(b"CURVE", OWN.public, OWN, {OWN.public: Role.WORKER}) is Role.OPERATOR


def test_a_frame_of_a_connection_that_nobody_let_in_may_ask_for_nothing() -> None:
    assert role_of(zmq.Frame(b"hello")) is Role.WORKER


# The admitted keys as they change.


def test_a_key_that_is_added_is_let_in_and_disturbs_nobody(folder: KeyFolder) -> None:
    with doorkeeper(folder) as keeper:
        assert roles(keeper) == ROLES
        assert not keeper.reload()
        admit(folder, "new", STRANGER, Role.CLIENT)
        assert not keeper.reload()
        assert roles(keeper) == {**ROLES, STRANGER.public: Role.CLIENT}


def test_a_key_that_is_removed_is_let_in_no_longer(folder: KeyFolder) -> None:
    with doorkeeper(folder) as keeper:
        folder.revoke("laptop")
        assert keeper.reload()
        assert LAPTOP.public not in roles(keeper)
        assert not keeper.reload()


def test_a_role_that_is_lowered_counts_as_less(folder: KeyFolder) -> None:
    with doorkeeper(folder) as keeper:
        admit(folder, "boss", BOSS, Role.CLIENT)
        assert keeper.reload()
        assert roles(keeper)[BOSS.public] is Role.CLIENT


def test_a_role_that_is_raised_holds_from_then_on(folder: KeyFolder) -> None:
    with doorkeeper(folder) as keeper:
        admit(folder, "laptop", LAPTOP, Role.OPERATOR)
        keeper.reload()
        assert roles(keeper)[LAPTOP.public] is Role.OPERATOR


def test_the_first_key_ever_is_noticed(tmp_path: Path) -> None:
    folder = KeyFolder(tmp_path / "keys")
    with doorkeeper(folder) as keeper:
        assert not keeper.reload()
        admit(folder, "laptop", LAPTOP, Role.CLIENT)
        assert not keeper.reload()
        assert roles(keeper) == {LAPTOP.public: Role.CLIENT}


def test_a_file_that_is_damaged_admits_nobody_and_one_that_is_repaired_does(folder: KeyFolder) -> None:
    path = folder.admitted_path / "laptop"
    with doorkeeper(folder) as keeper:
        good = path.read_text()
        path.write_text(good[:-2])
        assert keeper.reload()
        assert LAPTOP.public not in roles(keeper)
        path.write_text(good)
        assert not keeper.reload()
        assert LAPTOP.public in roles(keeper)


def test_a_folder_that_is_gone_admits_nobody(folder: KeyFolder) -> None:
    with doorkeeper(folder) as keeper:
        folder.path.rename(folder.path.with_name("elsewhere"))
        assert keeper.reload()
        assert roles(keeper) == {}


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o701])
def test_a_folder_that_is_open_to_others_admits_nobody_at_the_start(folder: KeyFolder, mode: int) -> None:
    folder.admitted_path.chmod(mode)
    with doorkeeper(folder) as keeper:
        assert roles(keeper) == {}


def test_a_folder_that_is_opened_to_others_admits_nobody_any_more(folder: KeyFolder) -> None:
    with doorkeeper(folder) as keeper:
        folder.admitted_path.chmod(0o755)
        assert keeper.reload()
        assert roles(keeper) == {}


def test_an_open_folder_admits_nobody_from_the_next_change_on(folder: KeyFolder) -> None:
    with doorkeeper(folder) as keeper:
        admit(folder, "new", STRANGER, Role.CLIENT)
        folder.admitted_path.chmod(0o755)
        assert keeper.reload()
        assert roles(keeper) == {}
        folder.admitted_path.chmod(0o700)
        os.utime(folder.admitted_path / "new", (1, 1))
        assert not keeper.reload()
        assert len(roles(keeper)) == 4


def test_where_no_keys_are_taken_there_is_nothing_to_refresh() -> None:
    with zmq.Context() as context:
        keeper = ZapHandler(context, None, None)
        assert not keeper.reload()
        keeper.close()


# Real connections.


@pytest.mark.parametrize(
    ("pair", "role"),
    [(OWN, Role.OPERATOR), (LAPTOP, Role.CLIENT), (BOSS, Role.OPERATOR)],
    ids=["own", "client", "operator"],
)
def test_an_admitted_key_comes_in_and_its_messages_say_in_which_role(
    folder: KeyFolder, pair: KeyPair, role: Role
) -> None:
    with doorway(OWN, folder.path) as door:
        client = door.knock(Credentials(pair, OWN.public))
        door.until(lambda: door.arrived)
        assert door.arrived == [(b"hello", role)]
        assert client.told == [Handshake.UP]
        assert door.doorkeeper.rejected_connections == 0


@pytest.mark.parametrize("pair", [WORKER, STRANGER], ids=["worker", "stranger"])
def test_a_key_that_is_not_admitted_is_refused_and_counted(folder: KeyFolder, pair: KeyPair) -> None:
    with doorway(OWN, folder.path) as door:
        client = door.knock(Credentials(pair, OWN.public))
        door.until(lambda: client.refused)
        assert client.refused == [ConnectionRefusal.KEY]
        assert door.doorkeeper.rejected_connections == 1
        admitted_comes_in(door)


def test_whoever_shows_no_key_is_refused_where_keys_are_taken(folder: KeyFolder) -> None:
    with doorway(OWN, folder.path) as door:
        client = door.knock(None, again_ms=5)
        door.until(lambda: ConnectionRefusal.MECHANISM in client.told)
        assert Handshake.UP not in client.told
        admitted_comes_in(door)


def test_whoever_shows_a_key_is_refused_where_none_are_taken() -> None:
    with doorway() as door:
        client = door.knock(Credentials(LAPTOP, OWN.public), again_ms=5)
        door.until(lambda: ConnectionRefusal.MECHANISM in client.told)
        assert Handshake.UP not in client.told
        plain = door.knock(None, b"plain")
        door.until(lambda: door.arrived)
        assert door.arrived == [(b"plain", Role.OPERATOR)]
        assert plain.told == [Handshake.UP]


def test_a_doorkeeper_that_is_gone_lets_nobody_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("msd.wire.net.sockets.HANDSHAKE_MS", 100)
    with doorway() as door:
        door.doorkeeper.close()
        client = door.knock(None)
        door.until(lambda: client.told)
        assert client.told[0] is Handshake.DOWN
        assert door.arrived == []


@pytest.mark.parametrize(
    "data",
    [ZMTP_1, ZMTP_1 * 50, b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 100, bytes(range(256))],
    ids=["a message", "messages", "http", "a greeting", "every byte"],
)
@pytest.mark.parametrize("own", [None, OWN], ids=["plain", "curve"])
def test_bytes_without_a_handshake_are_no_message(folder: KeyFolder, own: KeyPair | None, data: bytes) -> None:
    with doorway(own, folder.path if own else None) as door, connected(door) as raw:
        raw.sendall(data)
        door.until(lambda: is_closed(raw))
        client = door.knock(Credentials(LAPTOP, OWN.public) if own else None, b"proper")
        door.until(lambda: client.told and door.arrived)
        assert [message for message, _ in door.arrived] == [b"proper"]


def test_without_a_doorkeeper_they_would_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """That is what the bytes above are: whoever changes them sees here whether they still say something."""
    monkeypatch.setattr(ZapHandler, "protect", lambda self, socket: None)
    with doorway() as door, connected(door) as raw:
        raw.sendall(ZMTP_1)
        door.until(lambda: door.arrived)
        assert door.arrived == [(b"hello", Role.WORKER)]


def admitted_comes_in(door: Doorway) -> None:
    """Nothing of what was refused before has arrived, or ever will."""
    assert door.arrived == []
    door.knock(Credentials(LAPTOP, OWN.public), b"admitted")
    door.until(lambda: door.arrived)
    assert door.arrived == [(b"admitted", Role.CLIENT)]


@contextmanager
def connected(door: Doorway) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", int(door.url.rpartition(":")[2])), timeout=PATIENCE) as raw:
        raw.setblocking(False)
        yield raw


def is_closed(raw: socket.socket) -> bool:
    """True once the other side has ended the connection."""
    try:
        while raw.recv(4096):
            pass
    except BlockingIOError:
        return False
    except ConnectionError:
        return True
    return True
