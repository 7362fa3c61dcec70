"""The servers as a download sees them: whose silence is whose."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from msd.client.network.connection import Answer
from msd.client.network.pool import STALL, ConnectionPool
from msd.client.network.transport import ReplyReceived, SnapshotReceived, TransportEvent
from msd.wire.config.settings import Config, locate_servers
from msd.wire.protocol.messages import Get, Segment
from msd.wire.protocol.states import WorkerState
from tests.unit.snapshots import snapshot

SECONDS = 60.0
REPLY = Answer(Get(rid=1, id=bytes(32), index=0), Segment(rid=1, epoch=7, index=0), None)
SEGMENT = ReplyReceived(1, REPLY.request, REPLY.reply, None)
ASLEEP = [WorkerState.ASLEEP] * 4


class Scene:
    """ConnectionPool whose sockets bring what ``comes`` says, a turn each, at the time ``now``."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        self.comes: list[TransportEvent] = []
        monkeypatch.setattr("time.monotonic", lambda: self.now)
        self.peers = ConnectionPool(
            locate_servers(Config(), host="127.0.0.1", ports=None, server5=None), download=False
        )
        monkeypatch.setattr(self.peers.transport, "wait", lambda timeout: None)
        monkeypatch.setattr(self.peers.transport, "read", lambda: iter([self.comes.pop(0)] if self.comes else []))

    def turn(self, *, takes: float) -> list[TransportEvent]:
        """One turn, in which each event takes so many seconds to be dealt with."""
        self.peers.wait(self.now)
        taken = []
        for event in self.peers.events():
            taken.append(event)
            self.now += takes
        return taken


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    scene = Scene(monkeypatch)
    with closing(scene.peers):
        scene.comes = [SnapshotReceived(snapshot(*ASLEEP, interval=0.2))]
        assert scene.turn(takes=0.0)
        yield scene


def test_a_disk_that_blocks_for_long_is_not_server_5_s_silence(scene: Scene) -> None:
    scene.comes = [SEGMENT, SnapshotReceived(snapshot(*ASLEEP, interval=0.2))]
    assert scene.turn(takes=SECONDS) == [SEGMENT]
    assert scene.peers.status is not None
    assert scene.peers.news() is None
    assert len(scene.turn(takes=0.0)) == 1, "the snapshot that had waited"
    assert scene.peers.stalled == SECONDS > STALL
    assert scene.peers.news() is None


def test_server_5_that_says_nothing_in_all_that_time_is_silent(scene: Scene) -> None:
    scene.comes = [SEGMENT]
    scene.turn(takes=SECONDS)
    assert scene.turn(takes=0.0) == []
    assert scene.peers.status is None
    news = scene.peers.news()
    assert news is not None
    assert news.state == "lost"
