"""What a monitor makes of a handshake, told by real sockets."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import zmq

from msd.wire.net import monitor
from msd.wire.net.monitor import PROMPT, Handshake, Monitor
from msd.wire.net.sockets import tune
from msd.wire.protocol.states import ConnectionRefusal
from msd.wire.security.keys import Credentials, KeyFolder, KeyPair, Role
from tests.unit.doorway import PATIENCE, doorway

OWN, LAPTOP, STRANGER = (KeyPair.of(bytes([n]) * 32) for n in range(1, 1 + 3))
SHOWN = Credentials(LAPTOP, OWN.public)


@pytest.fixture
def folder(tmp_path: Path) -> KeyFolder:
    made = KeyFolder(tmp_path / "keys")
    made.admit(f"laptop {LAPTOP.public.hex()}", Role.CLIENT)
    return made


# Servers that answer.


@pytest.mark.parametrize("own", [None, OWN], ids=["plain", "curve"])
def test_a_connection_comes_up_and_goes_down(folder: KeyFolder, own: KeyPair | None) -> None:
    with doorway(own, folder.path if own else None) as door:
        client = door.knock(SHOWN if own else None)
        door.until(lambda: client.told)
        assert client.monitor.is_up
        door.socket.close(0)
        door.until(lambda: len(client.told) > 1)
        assert client.told == [Handshake.UP, Handshake.DOWN]
        assert not client.monitor.is_up


@pytest.mark.parametrize(
    ("shown", "why"),
    [
        (Credentials(STRANGER, OWN.public), ConnectionRefusal.KEY),
        (Credentials(LAPTOP, STRANGER.public), ConnectionRefusal.HANDSHAKE),
    ],
    ids=["another client's key", "another server's key"],
)
def test_a_refusal_is_told_with_its_reason_and_then_the_end(
    folder: KeyFolder, shown: Credentials, why: ConnectionRefusal
) -> None:
    with doorway(OWN, folder.path) as door:
        client = door.knock(shown)
        door.until(lambda: Handshake.DOWN in client.told)
        assert client.told[:2] == [why, Handshake.DOWN]
        assert Handshake.UP not in client.told
        assert not client.monitor.is_up
        assert door.arrived == []


@pytest.mark.parametrize(("own", "shown"), [(OWN, None), (None, SHOWN)], ids=["no key", "a key in vain"])
def test_that_one_side_takes_keys_and_the_other_does_not_is_told_sooner_or_later(
    folder: KeyFolder, own: KeyPair | None, shown: Credentials | None
) -> None:
    """Both sides look: where the server is the first, all that this one sees is that it breaks off."""
    with doorway(own, folder.path if own else None) as door:
        client = door.knock(shown, again_ms=5)
        door.until(lambda: ConnectionRefusal.MECHANISM in client.told and client.told[-1] is Handshake.DOWN)
        assert client.refused[-1] is ConnectionRefusal.MECHANISM
        assert set(client.refused[:-1]) <= ({ConnectionRefusal.HANDSHAKE} if shown else set())
        assert Handshake.UP not in client.told
        assert door.arrived == []


def test_servers_of_another_key_break_off_again_and_again(folder: KeyFolder) -> None:
    with doorway(OWN, folder.path) as door:
        client = door.knock(Credentials(LAPTOP, STRANGER.public), again_ms=1)
        door.until(lambda: len(client.refused) >= 3)
        assert set(client.refused) == {ConnectionRefusal.HANDSHAKE}


# A server that breaks off the handshake, as one that dies does.


class Clock:
    """Stands still unless the test moves it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(monitor, "time", made)
    return made


class Dialled:
    """A socket that connects to ``port`` once, and its monitor."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], port: int, *, encrypted: bool) -> None:
        self.socket = context.socket(zmq.DEALER)
        tune(self.socket, credentials=SHOWN if encrypted else None)
        self.socket.linger = 0
        self.socket.reconnect_ivl = -1
        self.monitor = Monitor(self.socket, encrypted=encrypted)
        self.socket.connect(f"tcp://127.0.0.1:{port}")

    def read(self) -> list[Handshake | ConnectionRefusal]:
        """What it tells next, which may be nothing that matters."""
        assert self.monitor.socket.poll(int(PATIENCE * 1000))
        return [*self.monitor.read()]

    def close(self) -> None:
        self.monitor.close()
        self.socket.close()


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(PATIENCE)
        yield listening


def broken_off(
    listener: socket.socket, clock: Clock, *, encrypted: bool, after: float
) -> list[Handshake | ConnectionRefusal]:
    """What is told of a server that ends the connection so many seconds after it was made."""
    with zmq.Context() as context, closing(Dialled(context, listener.getsockname()[1], encrypted=encrypted)) as dialled:
        taken, _ = listener.accept()
        with taken:
            assert dialled.read() == []
            clock.now += after
        told: list[Handshake | ConnectionRefusal] = []
        give_up = time.monotonic() + PATIENCE
        while Handshake.DOWN not in told:
            assert time.monotonic() < give_up
            told += dialled.read()
        return told[: told.index(Handshake.DOWN) + 1]


@pytest.mark.parametrize(
    ("encrypted", "after", "told"),
    [
        (True, PROMPT - 0.01, [ConnectionRefusal.HANDSHAKE, Handshake.DOWN]),
        (True, PROMPT, [Handshake.DOWN]),
        (True, 5.0, [Handshake.DOWN]),
        (False, 0.0, [Handshake.DOWN]),
        (False, 5.0, [Handshake.DOWN]),
    ],
)
def test_only_a_prompt_end_of_an_encrypted_handshake_may_be_a_refusal(
    listener: socket.socket, clock: Clock, encrypted: bool, after: float, told: list[Handshake | ConnectionRefusal]
) -> None:
    assert broken_off(listener, clock, encrypted=encrypted, after=after) == told


def test_a_port_where_nobody_listens_is_no_event(listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    listener.close()
    with zmq.Context() as context, closing(Dialled(context, port, encrypted=True)) as dialled:
        assert dialled.read() == []


# For people.


@pytest.mark.parametrize("encrypted", [True, False])
@pytest.mark.parametrize("why", list(ConnectionRefusal))
def test_every_refusal_says_in_a_line_who_refuses_and_what_to_do(why: ConnectionRefusal, encrypted: bool) -> None:
    told = why.explained("10.0.0.1:39223", encrypted=encrypted)
    assert told.startswith("10.0.0.1:39223 ")
    assert "\n" not in told
    assert any(hint in told for hint in ("msd keys admit", "--server-key", "update"))


def test_a_key_that_is_missing_is_not_told_as_one_too_many() -> None:
    assert "give --server-key" in ConnectionRefusal.MECHANISM.explained("a", encrypted=False)
    assert "leave --server-key out" in ConnectionRefusal.MECHANISM.explained("a", encrypted=True)
