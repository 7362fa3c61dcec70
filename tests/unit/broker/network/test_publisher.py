"""The status socket, with real subscribers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing

import pytest
import zmq

from msd.broker.network.publisher import MAX_UNKNOWN_TOPIC_BYTES, READS_PER_TURN, Publisher
from msd.wire.net.endpoints import Endpoint
from msd.wire.protocol.codec import STATUS_TOPIC
from msd.wire.security.zap import ZapHandler
from tests.processes import free_ports, wait_for


class Bench:
    """A publisher without keys, its subscribers, and the addresses of those that were disconnected."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self.context: zmq.Context[zmq.Socket[bytes]] = stack.enter_context(zmq.Context())
        self._zap = stack.enter_context(closing(ZapHandler(self.context, None, None)))
        self.disconnected: list[str] = []
        endpoint = Endpoint("127.0.0.1", free_ports()[4])
        self.publisher = stack.enter_context(
            closing(Publisher(self.context, endpoint, self._zap, lambda peer: self.disconnected.append(peer.host)))
        )
        self._url = endpoint.url

    def subscriber(self) -> zmq.Socket[bytes]:
        subscriber = self._stack.enter_context(self.context.socket(zmq.XSUB))
        subscriber.linger = 0
        subscriber.reconnect_ivl = -1
        subscriber.connect(self._url)
        return subscriber

    def poll(self) -> list[str]:
        """Handles what has arrived; returns the addresses of the subscribers that were disconnected."""
        self._zap.handle()
        self.publisher.drain()
        return self.disconnected

    def receives(self, subscriber: zmq.Socket[bytes]) -> bool:
        """True if ``subscriber`` receives a message that is published now."""
        self.poll()
        self.publisher.socket.send(STATUS_TOPIC + b"now")
        is_readable = bool(subscriber.poll(10))
        while subscriber.poll(0):
            subscriber.recv()
        return is_readable


@pytest.fixture
def bench() -> Iterator[Bench]:
    with ExitStack() as stack:
        yield Bench(stack)


@pytest.mark.parametrize(
    ("messages", "is_misuse"),
    [
        ([b"\x01" + STATUS_TOPIC, b"\x01"] * (MAX_UNKNOWN_TOPIC_BYTES // 3), False),
        ([b"\x00unknown"] * MAX_UNKNOWN_TOPIC_BYTES, False),
        ([b"\x02" + bytes(500)] * 100, False),
        ([b"\x01" + b"x" * (MAX_UNKNOWN_TOPIC_BYTES - 1)], False),
        ([b"\x01%3d" % number + b"x" * 60 for number in range(MAX_UNKNOWN_TOPIC_BYTES // 64 + 1)], True),
    ],
    ids=["known topics", "unsubscriptions", "messages", "few unknown topics", "many unknown topics"],
)
def test_only_a_subscriber_of_many_unknown_topics_is_disconnected(
    bench: Bench, messages: list[bytes], is_misuse: bool
) -> None:
    honest, subscriber = bench.subscriber(), bench.subscriber()
    for peer in (honest, subscriber):
        peer.send(b"\x01" + STATUS_TOPIC)
        wait_for("the subscription", lambda peer=peer: bench.receives(peer))  # type: ignore[misc]
    for message in messages:
        subscriber.send(message)
    if is_misuse:
        wait_for("the disconnection", bench.poll)
        assert bench.disconnected == ["127.0.0.1"]
        wait_for("the end of the connection", lambda: not bench.receives(subscriber))
    else:
        wait_for("another snapshot", lambda: bench.receives(subscriber))
        assert bench.disconnected == []
    wait_for("a snapshot", lambda: bench.receives(honest))


def test_a_flood_of_subscriptions_is_read_in_parts(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    read = 0

    def flood(socket: object) -> list[object]:
        nonlocal read
        read += 1
        assert read <= READS_PER_TURN, "drain() did not stop after READS_PER_TURN messages"
        return []

    monkeypatch.setattr("msd.broker.network.publisher.receive", flood)
    bench.publisher.drain()
    assert read == READS_PER_TURN
