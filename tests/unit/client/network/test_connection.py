"""Which messages are valid replies on a connection, and what they mean."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import msgpack
import pytest
import zmq

from msd.client.network.connection import Connection
from msd.client.network_events import ConnectionOpened, ReplyReceived
from msd.wire.errors import ProtocolError
from msd.wire.net.endpoints import Endpoint
from msd.wire.protocol.codec import encode
from msd.wire.protocol.messages import (
    PROTOCOL_VERSION,
    Correlated,
    Get,
    GetBundle,
    Hello,
    List,
    Message,
    Refusal,
    Segment,
    Welcome,
)
from msd.wire.protocol.states import ConnectionRefusal, RefusalReason

EPOCH = 7
WELCOME = Welcome(rid=1, version=PROTOCOL_VERSION, epoch=EPOCH, number=3, files=1, catalogue=b"")
HELLO = Hello(rid=1, version=PROTOCOL_VERSION, session=0)


def frames(message: Message, *payload: bytes) -> list[zmq.Frame]:
    return [zmq.Frame(encode(message)), *map(zmq.Frame, payload)]


@pytest.fixture
def connection() -> Iterator[Connection]:
    """A connection to worker 3, before the welcome of the worker."""
    with zmq.Context() as context, closing(Connection(context, 3, Endpoint("127.0.0.1", 1), None)) as connection:
        yield connection


@pytest.fixture
def open_connection(connection: Connection) -> Connection:
    """A connection to worker 3, after the welcome of the worker."""
    connection.send(HELLO)
    connection.handle_message(frames(WELCOME))
    return connection


def test_a_welcome_opens_the_connection(connection: Connection) -> None:
    connection.send(HELLO)
    event = connection.handle_message(frames(WELCOME))
    assert isinstance(event, ConnectionOpened)
    assert (event.worker, event.welcome) == (3, WELCOME)
    assert event.round_trip > 0


def test_a_reply_comes_with_its_request_and_payload(open_connection: Connection) -> None:
    request, reply = Get(rid=2, id=bytes(32), index=5), Segment(rid=2, epoch=EPOCH, index=5)
    open_connection.send(request)
    event = open_connection.handle_message(frames(reply, b"data"))
    assert isinstance(event, ReplyReceived)
    assert (event.worker, event.request, event.reply) == (3, request, reply)
    assert event.payload is not None
    assert event.payload.bytes == b"data"


def test_only_the_first_reply_to_a_request_counts(open_connection: Connection) -> None:
    open_connection.send(Get(rid=2, id=bytes(32), index=5))
    reply = frames(Segment(rid=2, epoch=EPOCH, index=5), b"data")
    assert open_connection.handle_message(reply) is not None
    assert open_connection.handle_message(reply) is None


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(frames(Segment(rid=2, epoch=EPOCH + 1, index=5), b"data"), id="another process"),
        pytest.param(frames(Segment(rid=2, epoch=EPOCH, index=6), b"data"), id="another segment"),
        pytest.param(frames(Segment(rid=2, epoch=EPOCH, index=5, start=1), b"data"), id="another part"),
        pytest.param(frames(Segment(rid=2, epoch=EPOCH, index=5), b"data", b"more"), id="three frames"),
        pytest.param(frames(HELLO), id="our own hello"),
        pytest.param([zmq.Frame(b"\xc1")], id="malformed"),
        pytest.param([], id="no frame"),
    ],
)
def test_a_message_that_cannot_be_a_reply_is_a_protocol_error(
    open_connection: Connection, reply: list[zmq.Frame]
) -> None:
    open_connection.send(Get(rid=2, id=bytes(32), index=5))
    with pytest.raises(ProtocolError):
        open_connection.handle_message(reply)


@pytest.mark.parametrize(
    "reply",
    [
        Welcome(rid=1, version=7, epoch=EPOCH, number=3, files=1, catalogue=b""),
        Refusal(rid=1, epoch=EPOCH, reason=RefusalReason.VERSION, versions=[6, 7, 5]),
    ],
    ids=["welcome", "refusal"],
)
def test_a_worker_of_another_version_refuses_the_connection(connection: Connection, reply: Message) -> None:
    connection.send(HELLO)
    with pytest.raises(ProtocolError):
        connection.handle_message(frames(reply))
    assert (connection.refusal, connection.other_version) == (ConnectionRefusal.VERSION, 7)


def test_a_refusal_without_versions_says_nothing_about_the_version(connection: Connection) -> None:
    connection.send(HELLO)
    with pytest.raises(ProtocolError):
        connection.handle_message(frames(Refusal(rid=1, epoch=EPOCH, reason=RefusalReason.VERSION)))
    assert connection.refusal is None


ENTRY = {"name": "a", "size": 1, "mtime_ns": 1, "mode": 0o644, "id": bytes(32)}
PAGE = {"type": "catalog", "rid": 2, "epoch": EPOCH, "catalogue": bytes(32), "more": False}
BUNDLE = {"type": "bundle", "rid": 2, "epoch": EPOCH}


@pytest.mark.parametrize(
    ("request_message", "header", "payload"),
    [
        pytest.param(List(rid=2), {**PAGE, "entries": [ENTRY] * 1_000_000}, b"", id="a million entries"),
        pytest.param(List(rid=2), {**PAGE, "entries": [0] * 1_000_000}, b"", id="a million numbers"),
        pytest.param(List(rid=2), {**PAGE, "entries": [ENTRY] * 2}, b"", id="a name twice"),
        pytest.param(List(rid=2, prefix="b"), {**PAGE, "entries": [ENTRY]}, b"", id="another prefix"),
        pytest.param(
            GetBundle(rid=2, ids=bytes(64)),
            {**BUNDLE, "statuses": ["ok"] * 2, "lengths": [2**63 - 1, 2**63 - 1]},
            b"data",
            id="huge lengths",
        ),
        pytest.param(
            GetBundle(rid=2, ids=bytes(64)),
            {**BUNDLE, "statuses": ["ok"] * 2, "lengths": [4, -1]},
            b"dat",
            id="a negative length",
        ),
        pytest.param(
            GetBundle(rid=2, ids=bytes(64)),
            {**BUNDLE, "statuses": ["ok"] * 1_000_000, "lengths": [0] * 1_000_000},
            b"",
            id="a million files",
        ),
        pytest.param(
            GetBundle(rid=2, ids=bytes(64)),
            {**BUNDLE, "statuses": ["ok"] * 2, "lengths": [4, 4]},
            bytes(5 << 20),
            id="more than requested",
        ),
    ],
)
def test_a_hostile_page_or_bundle_is_malformed_and_takes_little_memory(
    open_connection: Connection, request_message: Correlated, header: dict[str, Any], payload: bytes
) -> None:
    open_connection.send(request_message)
    reply = [zmq.Frame(msgpack.packb(header)), *([zmq.Frame(payload)] if payload else [])]
    tracemalloc.start()
    try:
        with pytest.raises(ProtocolError):
            open_connection.handle_message(reply)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1 << 20


def test_the_reply_to_hello_must_be_a_welcome(connection: Connection) -> None:
    connection.send(HELLO)
    with pytest.raises(ProtocolError):
        connection.handle_message(frames(Segment(rid=1, epoch=EPOCH, index=0)))
