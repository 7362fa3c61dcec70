"""The subscription to server 5, tested with a real XPUB socket."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest
import zmq

from msd.wire.net.endpoints import Endpoint
from msd.wire.net.monitor import ConnectionEvent
from msd.wire.net.status_subscriber import OtherVersion, StatusSubscriber
from msd.wire.protocol.codec import STATUS_TOPIC, encode
from msd.wire.protocol.messages import PROTOCOL_VERSION, Status
from tests.processes import free_ports, wait_for

STATUS = Status(
    version=PROTOCOL_VERSION,
    epoch=1,
    seq=2,
    interval=1.0,
    control="tcp://127.0.0.1:39224",
    catalogue=b"",
    files=0,
    workers=[],
)


class Scene:
    """A publisher in place of server 5, and a subscriber that is connected to it."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]]) -> None:
        self.endpoint = Endpoint("127.0.0.1", free_ports()[4])
        self.publisher = context.socket(zmq.XPUB)
        self.publisher.linger = 0
        self.publisher.bind(self.endpoint.url)
        self.subscriber = StatusSubscriber(context, self.endpoint, None)
        assert self.publisher.poll(10_000)
        assert self.publisher.recv() == b"\x01" + STATUS_TOPIC

    def publish(self, seq: int) -> None:
        self.publisher.send(STATUS_TOPIC + encode(msgspec.structs.replace(STATUS, seq=seq)))

    def next_snapshot(self) -> Status | OtherVersion:
        def read() -> Status | OtherVersion | None:
            return next(self.subscriber.read_snapshots(), None)

        snapshot = wait_for("a snapshot", read)
        assert isinstance(snapshot, Status | OtherVersion)
        return snapshot


@pytest.fixture
def scene() -> Iterator[Scene]:
    with zmq.Context() as context:
        made = Scene(context)
        yield made
        made.subscriber.close()
        made.publisher.close()


def test_a_published_snapshot_is_received(scene: Scene) -> None:
    scene.publisher.send(STATUS_TOPIC + encode(STATUS))
    assert scene.next_snapshot() == STATUS


def test_malformed_snapshots_are_skipped(scene: Scene) -> None:
    scene.publisher.send(STATUS_TOPIC + b"malformed")
    assert wait_for("the message", lambda: scene.subscriber.sources[0].poll(100))
    assert [*scene.subscriber.read_snapshots()] == []
    scene.publisher.send(STATUS_TOPIC + encode(STATUS))
    assert scene.next_snapshot() == STATUS


def test_of_a_snapshot_of_another_version_only_the_version_is_read(scene: Scene) -> None:
    other = {"type": "status", "version": PROTOCOL_VERSION + 1, "seq": "a text in that version"}
    scene.publisher.send(STATUS_TOPIC + msgspec.msgpack.encode(other))
    assert scene.next_snapshot() == OtherVersion(version=PROTOCOL_VERSION + 1)


def test_a_slow_reader_receives_the_latest_snapshot(scene: Scene) -> None:
    for seq in (3, 4, 5):
        scene.publish(seq)
    last = msgspec.structs.replace(STATUS, seq=5)
    assert wait_for("the last snapshot", lambda: scene.next_snapshot() == last)
    assert [*scene.subscriber.read_snapshots()] == []


def test_the_state_of_the_connection_is_reported(scene: Scene) -> None:
    assert wait_for("the handshake", lambda: next(scene.subscriber.read_connection(), None)) is ConnectionEvent.OPENED
    scene.publisher.close()
    assert wait_for("the end", lambda: next(scene.subscriber.read_connection(), None)) is ConnectionEvent.CLOSED
