"""The status socket. Real subscribers are tested in tests/integration."""

from __future__ import annotations

from contextlib import closing

import pytest
import zmq

from msd.broker.network.publisher import MAX_UNKNOWN_TOPIC_BYTES, READS_PER_TURN, Publisher
from msd.wire.net.endpoints import Endpoint
from msd.wire.protocol.codec import STATUS_TOPIC
from tests.processes import free_ports


@pytest.mark.parametrize(
    ("subscription", "is_unknown"),
    [(b"\x01" + STATUS_TOPIC, False), (b"\x01", False), (b"\x00unknown", False), (b"\x01unknown", True)],
)
def test_subscriptions_to_unknown_topics_are_counted(
    subscription: bytes, is_unknown: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A topic is unknown if no status message starts with it."""
    queue: list[list[zmq.Frame]] = []
    monkeypatch.setattr("msd.broker.network.publisher.receive", lambda socket: queue.pop() if queue else None)
    with zmq.Context() as context, closing(Publisher(context, Endpoint("127.0.0.1", free_ports()[4]))) as publisher:
        for _ in range(MAX_UNKNOWN_TOPIC_BYTES // len(subscription) + 1):
            assert not publisher.has_too_many_topics
            queue.append([zmq.Frame(subscription)])
            publisher.drain()
        assert publisher.has_too_many_topics is is_unknown


def test_a_port_that_was_just_closed_can_be_bound_again() -> None:
    endpoint = Endpoint("127.0.0.1", free_ports()[4])
    with zmq.Context() as context:
        for _ in range(5):
            with closing(Publisher(context, endpoint, retry_timeout=10.0)) as publisher:
                assert publisher.socket.getsockopt_string(zmq.LAST_ENDPOINT) == endpoint.url


def test_a_flood_of_subscriptions_is_read_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    read = 0

    def flood(socket: object) -> list[object]:
        nonlocal read
        read += 1
        assert read <= READS_PER_TURN, "drain() did not stop after READS_PER_TURN messages"
        return []

    monkeypatch.setattr("msd.broker.network.publisher.receive", flood)
    with zmq.Context() as context:
        publisher = Publisher(context, Endpoint("127.0.0.1", free_ports()[4]))
        publisher.drain()
        publisher.close()
    assert read == READS_PER_TURN
