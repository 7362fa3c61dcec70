"""The status socket. What a real subscriber gets from it: tests/integration."""

from __future__ import annotations

import pytest
import zmq

from msd.broker.network.publisher import READS_PER_TURN, Publisher
from msd.wire.net.endpoints import Endpoint
from tests.system import free_ports


def test_a_flood_of_subscriptions_is_read_a_part_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    read = 0

    def flood(socket: object) -> list[object]:
        nonlocal read
        read += 1
        assert read <= READS_PER_TURN, "it reads for ever"
        return []

    monkeypatch.setattr("msd.broker.network.publisher.receive", flood)
    with zmq.Context() as context:
        publisher = Publisher(context, Endpoint("127.0.0.1", free_ports()[4]))
        publisher.drain()
        publisher.close()
    assert read == READS_PER_TURN
