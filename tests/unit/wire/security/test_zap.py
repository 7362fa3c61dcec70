"""Admission of connections: the decision, changes to the admitted keys, and real connections."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import zmq

from msd.wire.net.monitor import ConnectionEvent
from msd.wire.protocol.states import ConnectionRefusal
from msd.wire.security.keys import Credentials, KeyFolder, KeyPair, Role, key_hash
from msd.wire.security.zap import BAN_S, DATA_ROLES, Admission, ZapHandler, admitted_role
from tests.unit.zap_server import TIMEOUT, ZapServer, zap_server

SERVER, LAPTOP, OPERATOR, WORKER, UNKNOWN = (KeyPair.from_secret(bytes([n]) * 32) for n in range(1, 6))
ROLES = {LAPTOP.public: Role.CLIENT, OPERATOR.public: Role.OPERATOR, WORKER.public: Role.WORKER}
ADMISSIONS = {key_hash(key): Admission(role) for key, role in ROLES.items()}
MECHANISMS = (b"NULL", b"PLAIN", b"CURVE", b"GSSAPI", b"curve", b"")
KEYS = (SERVER.public, *ROLES, UNKNOWN.public, SERVER.secret, b"", bytes(32))

#: A message in ZMTP 1, which has no handshake.
ZMTP_1 = b"\x01\x00\x06\x00hello"


@pytest.fixture
def folder(tmp_path: Path) -> KeyFolder:
    """A key folder in which LAPTOP, OPERATOR and WORKER are admitted."""
    keys = KeyFolder(tmp_path / "keys")
    for name, pair in (("laptop", LAPTOP), ("operator", OPERATOR), ("worker", WORKER)):
        admit(keys, name, pair, ROLES[pair.public])
    return keys


def admit(folder: KeyFolder, name: str, pair: KeyPair, role: Role) -> None:
    folder.admit(f"{name} {pair.public.hex()}", role)


@contextmanager
def zap_handler(folder: KeyFolder) -> Iterator[ZapHandler]:
    with zmq.Context() as context:
        handler = ZapHandler(context, SERVER, folder.path)
        try:
            yield handler
        finally:
            handler.close()


def roles(handler: ZapHandler) -> dict[bytes, Role]:
    return {admitted.key: admitted.role for admitted in handler.admitted_keys}


# The decision.


@pytest.mark.parametrize("key", KEYS, ids=lambda key: key.hex()[:8])
@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_without_keys_every_plain_connection_may_do_everything(mechanism: bytes, key: bytes) -> None:
    expected = Role.ANYONE if mechanism == b"NULL" else None
    assert admitted_role(mechanism, key, None, ADMISSIONS, DATA_ROLES, 0.0) is expected


@pytest.mark.parametrize("key", KEYS, ids=lambda key: key.hex()[:8])
@pytest.mark.parametrize("mechanism", [mechanism for mechanism in MECHANISMS if mechanism != b"CURVE"])
def test_with_keys_only_curve_is_admitted(mechanism: bytes, key: bytes) -> None:
    assert admitted_role(mechanism, key, SERVER, ADMISSIONS, DATA_ROLES, 0.0) is None


@pytest.mark.parametrize(
    ("key", "role"),
    [
        (SERVER.public, Role.OPERATOR),
        (LAPTOP.public, Role.CLIENT),
        (OPERATOR.public, Role.OPERATOR),
        (WORKER.public, None),
        (UNKNOWN.public, None),
        (SERVER.secret, None),
        (b"", None),
        (bytes(32), None),
    ],
)
def test_a_key_has_its_admitted_role(key: bytes, role: Role | None) -> None:
    assert admitted_role(b"CURVE", key, SERVER, ADMISSIONS, DATA_ROLES, 0.0) is role


def test_the_servers_own_key_is_an_operator_even_if_admitted_in_another_role() -> None:
    admissions = {key_hash(SERVER.public): Admission(Role.WORKER)}
    assert admitted_role(b"CURVE", SERVER.public, SERVER, admissions, DATA_ROLES, 0.0) is Role.OPERATOR


def test_workers_may_connect_where_their_role_may() -> None:
    assert admitted_role(b"CURVE", WORKER.public, SERVER, ADMISSIONS, {*Role}, 0.0) is Role.WORKER


def test_a_key_is_admitted_until_it_expires() -> None:
    admissions = {key_hash(LAPTOP.public): Admission(Role.CLIENT, until=5.0)}
    roles = [admitted_role(b"CURVE", LAPTOP.public, SERVER, admissions, DATA_ROLES, now) for now in (4.9, 5.0)]
    assert roles == [Role.CLIENT, None]


# Changes to the admitted keys.


def test_a_new_key_is_admitted_and_no_key_is_revoked(folder: KeyFolder) -> None:
    with zap_handler(folder) as handler:
        assert roles(handler) == ROLES
        assert not handler.reload()
        admit(folder, "new", UNKNOWN, Role.CLIENT)
        assert not handler.reload()
        assert roles(handler) == {**ROLES, UNKNOWN.public: Role.CLIENT}


def test_a_revoked_key_is_reported_once(folder: KeyFolder) -> None:
    with zap_handler(folder) as handler:
        folder.revoke("laptop")
        assert handler.reload()
        assert LAPTOP.public not in roles(handler)
        assert not handler.reload()


def test_a_key_that_may_no_longer_connect_is_revoked(folder: KeyFolder) -> None:
    with zap_handler(folder) as handler:
        admit(folder, "operator", OPERATOR, Role.WORKER)
        assert handler.reload()
        assert handler.role_of(OPERATOR.public) is None


def test_a_lowered_role_applies_at_once_and_is_no_revocation(folder: KeyFolder) -> None:
    with zap_handler(folder) as handler:
        assert handler.role_of(OPERATOR.public) is Role.OPERATOR
        admit(folder, "operator", OPERATOR, Role.CLIENT)
        assert not handler.reload()
        assert handler.role_of(OPERATOR.public) is Role.CLIENT


def test_a_raised_role_applies_at_once_and_is_no_revocation(folder: KeyFolder) -> None:
    with zap_handler(folder) as handler:
        admit(folder, "laptop", LAPTOP, Role.OPERATOR)
        assert not handler.reload()
        assert roles(handler)[LAPTOP.public] is Role.OPERATOR


def test_the_first_admitted_key_is_detected(tmp_path: Path) -> None:
    folder = KeyFolder(tmp_path / "keys")
    with zap_handler(folder) as handler:
        assert not handler.reload()
        admit(folder, "laptop", LAPTOP, Role.CLIENT)
        assert not handler.reload()
        assert roles(handler) == {LAPTOP.public: Role.CLIENT}


def test_a_damaged_key_file_is_ignored_until_it_is_repaired(folder: KeyFolder) -> None:
    path = folder.admitted_path / "laptop"
    with zap_handler(folder) as handler:
        valid = path.read_text()
        path.write_text(valid[:-2])
        assert handler.reload()
        assert LAPTOP.public not in roles(handler)
        path.write_text(valid)
        assert not handler.reload()
        assert LAPTOP.public in roles(handler)


def test_without_its_folder_no_key_is_admitted(folder: KeyFolder) -> None:
    with zap_handler(folder) as handler:
        folder.path.rename(folder.path.with_name("elsewhere"))
        assert handler.reload()
        assert roles(handler) == {}


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o701])
def test_keys_in_a_folder_open_to_other_users_are_not_admitted(folder: KeyFolder, mode: int) -> None:
    folder.admitted_path.chmod(mode)
    with zap_handler(folder) as handler:
        assert roles(handler) == {}


def test_opening_the_folder_to_other_users_revokes_all_keys(folder: KeyFolder) -> None:
    with zap_handler(folder) as handler:
        folder.admitted_path.chmod(0o755)
        assert handler.reload()
        assert roles(handler) == {}


def test_closing_the_folder_to_other_users_admits_its_keys_again(folder: KeyFolder) -> None:
    with zap_handler(folder) as handler:
        admit(folder, "new", UNKNOWN, Role.CLIENT)
        folder.admitted_path.chmod(0o755)
        assert handler.reload()
        assert roles(handler) == {}
        folder.admitted_path.chmod(0o700)
        os.utime(folder.admitted_path / "new", (1, 1))
        assert not handler.reload()
        assert len(roles(handler)) == 4


def test_keys_have_the_names_under_which_they_are_admitted(folder: KeyFolder) -> None:
    with zap_handler(folder) as handler:
        names = [handler.name_of(pair.public) for pair in (SERVER, LAPTOP, WORKER, UNKNOWN)]
        assert names == ["server", "laptop", "worker", ""]


def test_keys_are_admitted_by_their_hashes_alone() -> None:
    with zmq.Context() as context:
        handler = ZapHandler(context, SERVER)
        try:
            assert not handler.admit(ADMISSIONS)
            assert handler.role_of(LAPTOP.public) is Role.CLIENT
            assert handler.admit({key_hash(OPERATOR.public): Admission(Role.OPERATOR)})
            assert handler.role_of(LAPTOP.public) is None
        finally:
            handler.close()


def test_an_admitted_key_of_the_folder_expires(folder: KeyFolder) -> None:
    folder.admit(f"laptop {LAPTOP.public.hex()}", Role.CLIENT, expires=time.time() + 3600)
    folder.admit(f"operator {OPERATOR.public.hex()}", Role.OPERATOR, expires=time.time() - 1)
    with zap_handler(folder) as handler:
        assert handler.role_of(LAPTOP.public) is Role.CLIENT
        assert handler.role_of(OPERATOR.public) is None


def test_without_keys_there_is_nothing_to_reload() -> None:
    with zmq.Context() as context:
        handler = ZapHandler(context, None, None)
        assert not handler.reload()
        handler.close()


# Real connections.


@pytest.mark.parametrize(
    ("pair", "role"),
    [(SERVER, Role.OPERATOR), (LAPTOP, Role.CLIENT), (OPERATOR, Role.OPERATOR)],
    ids=["server", "client", "operator"],
)
def test_messages_of_an_admitted_key_carry_its_role(folder: KeyFolder, pair: KeyPair, role: Role) -> None:
    with zap_server(SERVER, folder.path) as server:
        client = server.connect(Credentials(pair, SERVER.public))
        server.wait_until(lambda: server.received)
        assert server.received == [(b"hello", role)]
        assert client.events == [ConnectionEvent.OPENED]
        assert server.zap_handler.rejected_connections == 0


def test_a_key_that_was_admitted_a_moment_ago_is_found_at_once(folder: KeyFolder) -> None:
    with zap_server(SERVER, folder.path) as server:
        admit(folder, "new", UNKNOWN, Role.CLIENT)
        folder.revoke("laptop")
        server.connect(Credentials(UNKNOWN, SERVER.public))
        server.wait_until(lambda: server.received)
        assert server.received == [(b"hello", Role.CLIENT)]
        assert server.zap_handler.reload(), "the revocation that was found on the way is lost"
        assert not server.zap_handler.reload()


def test_the_scope_of_an_invitation_is_known(folder: KeyFolder) -> None:
    folder.admit(f"laptop {LAPTOP.public.hex()}", Role.CLIENT, scope="my photos/")
    with zap_handler(folder) as handler:
        assert [handler.scope_of(pair.public) for pair in (LAPTOP, OPERATOR, UNKNOWN)] == ["my photos/", "", ""]


def test_a_message_carries_the_key_of_its_sender(folder: KeyFolder) -> None:
    with zap_server(SERVER, folder.path) as server:
        server.connect(Credentials(LAPTOP, SERVER.public))
        server.wait_until(lambda: server.received)
        folder.revoke("laptop")
        assert server.zap_handler.reload()
        server.clients[0].socket.send(b"after the revocation")
        server.wait_until(lambda: len(server.received) == 2)
        assert [role for _, role in server.received] == [Role.CLIENT, None]


def test_a_banned_key_is_rejected_for_a_while(folder: KeyFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    with zap_server(SERVER, folder.path) as server:
        server.zap_handler.ban(LAPTOP.public)
        client = server.connect(Credentials(LAPTOP, SERVER.public))
        server.wait_until(lambda: client.refusals)
        assert server.zap_handler.rejected_connections == 1
        operator = server.connect(Credentials(OPERATOR, SERVER.public), b"operator")
        server.wait_until(lambda: server.received)
        assert operator.events == [ConnectionEvent.OPENED]
        banned_at = time.monotonic()
        monkeypatch.setattr("msd.wire.security.zap.time.monotonic", lambda: banned_at + BAN_S)
        server.connect(Credentials(LAPTOP, SERVER.public))
        server.wait_until(lambda: len(server.received) == 2)


def test_without_keys_a_ban_has_no_effect() -> None:
    with zap_server() as server:
        server.zap_handler.ban(b"")
        server.connect(None)
        server.wait_until(lambda: server.received)


@pytest.mark.parametrize(
    ("pair", "refusal"),
    [(WORKER, ConnectionRefusal.ROLE), (UNKNOWN, ConnectionRefusal.KEY)],
    ids=["worker", "unknown"],
)
def test_a_connection_of_another_key_is_rejected_and_counted(
    folder: KeyFolder, pair: KeyPair, refusal: ConnectionRefusal
) -> None:
    with zap_server(SERVER, folder.path) as server:
        client = server.connect(Credentials(pair, SERVER.public))
        server.wait_until(lambda: client.refusals)
        assert client.refusals == [refusal]
        assert server.zap_handler.rejected_connections == 1
        check_only_admitted_messages_arrive(server)


def test_a_client_without_a_key_is_refused_by_servers_with_keys(folder: KeyFolder) -> None:
    with zap_server(SERVER, folder.path) as server:
        client = server.connect(None, reconnect_ms=5)
        server.wait_until(lambda: ConnectionRefusal.MECHANISM in client.events)
        assert ConnectionEvent.OPENED not in client.events
        check_only_admitted_messages_arrive(server)


def test_a_client_with_a_key_is_refused_by_servers_without_keys() -> None:
    with zap_server() as server:
        client = server.connect(Credentials(LAPTOP, SERVER.public), reconnect_ms=5)
        server.wait_until(lambda: ConnectionRefusal.MECHANISM in client.events)
        assert ConnectionEvent.OPENED not in client.events
        plain = server.connect(None, b"plain")
        server.wait_until(lambda: server.received)
        assert server.received == [(b"plain", Role.ANYONE)]
        assert plain.events == [ConnectionEvent.OPENED]


def test_after_the_handler_is_closed_all_connections_are_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("msd.wire.net.sockets.HANDSHAKE_TIMEOUT_MS", 100)
    with zap_server() as server:
        server.zap_handler.close()
        client = server.connect(None)
        server.wait_until(lambda: client.events)
        assert client.events[0] is ConnectionEvent.CLOSED
        assert server.received == []


@pytest.mark.parametrize(
    "data",
    [ZMTP_1, ZMTP_1 * 50, b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 100, bytes(range(256))],
    ids=["one message", "messages", "http", "a greeting", "all bytes"],
)
@pytest.mark.parametrize("own", [None, SERVER], ids=["plain", "curve"])
def test_bytes_without_a_handshake_are_not_received(folder: KeyFolder, own: KeyPair | None, data: bytes) -> None:
    with zap_server(own, folder.path if own else None) as server, tcp_connection(server) as connection:
        connection.sendall(data)
        server.wait_until(lambda: is_closed(connection))
        client = server.connect(Credentials(LAPTOP, SERVER.public) if own else None, b"valid")
        server.wait_until(lambda: client.events and server.received)
        assert [message for message, _ in server.received] == [b"valid"]


def test_without_a_handler_bytes_without_a_handshake_are_received(monkeypatch: pytest.MonkeyPatch) -> None:
    """Proves that the test above is valid: a socket without a ZAP handler receives these bytes as a message."""
    monkeypatch.setattr(ZapHandler, "protect", lambda self, socket: None)
    with zap_server() as server, tcp_connection(server) as connection:
        connection.sendall(ZMTP_1)
        server.wait_until(lambda: server.received)
        assert server.received == [(b"hello", Role.ANYONE)]


def check_only_admitted_messages_arrive(server: ZapServer) -> None:
    """Asserts that no message has been received so far, and that a client with an admitted key can send one."""
    assert server.received == []
    server.connect(Credentials(LAPTOP, SERVER.public), b"admitted")
    server.wait_until(lambda: server.received)
    assert server.received == [(b"admitted", Role.CLIENT)]


@contextmanager
def tcp_connection(server: ZapServer) -> Iterator[socket.socket]:
    port = int(server.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT) as connection:
        connection.setblocking(False)
        yield connection


def is_closed(connection: socket.socket) -> bool:
    """True if the server has closed the connection."""
    try:
        while connection.recv(4096):
            pass
    except BlockingIOError:
        return False
    except ConnectionError:
        return True
    return True
