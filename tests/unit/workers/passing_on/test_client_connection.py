"""The connection of a worker to its download."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator

import pytest

from msd.wire.net.poll_loop import PollLoop
from msd.wire.protocol.child_messages import FileReceived, UnitsHeld
from msd.wire.protocol.codec import encode
from msd.wire.protocol.messages import Heartbeat, Join, Joined, Load, Message, QuitOrder
from msd.wire.protocol.states import ReportedState, WantedState
from msd.workers.passing_on.client_connection import ClientConnection
from msd.workers.passing_on.frames import FrameReader

HEARTBEAT = Heartbeat(number=1, epoch=7, state=ReportedState.AWAKE, edition=1, load=Load(bytes_sent=5), sessions=[])


class Download:
    """The other ends of the pipes, and what the connection has called."""

    def __init__(self) -> None:
        self.held: list[int] = []
        self.has_ended = False
        self.readable = 0
        self.files: list[tuple[str, int]] = []
        self.input, self._reader = socket.socketpair()
        self.output, self._writer = os.pipe()
        self.connection = ClientConnection(
            FrameReader(os.dup(self._reader.fileno())),
            self._writer,
            on_file=lambda file, descriptors: self.files.append((file.name, len(descriptors))),
            on_held=self.held.extend,
            on_end=self.end,
        )
        self.poll_loop = PollLoop()
        self.connection.start(self.poll_loop, self.count)
        self.readable = 0

    def end(self) -> None:
        self.has_ended = True

    def count(self) -> None:
        self.readable += 1

    def write(self, data: bytes) -> list[Message]:
        self.input.sendall(data)
        self.poll_loop.wait([self.poll_loop.now + 20])
        self.poll_loop.dispatch()
        return [*self.connection.receive()]

    def close(self) -> None:
        for end in (self.input, self._reader, self.connection):
            end.close()
        for fd in (self.output, self._writer):
            os.close(fd)


def frame(message: Message) -> bytes:
    data = encode(message)
    return struct.pack("!I", len(data)) + data


@pytest.fixture
def download() -> Iterator[Download]:
    download = Download()
    yield download
    download.close()


def test_messages_arrive_in_pieces(download: Download) -> None:
    data = frame(UnitsHeld(units=[1, 5])) + frame(QuitOrder()) + frame(UnitsHeld(units=[2]))
    assert download.write(data[:3]) == []
    assert download.write(data[3:-1]) == [QuitOrder()]
    assert download.held == [1, 5]
    assert download.write(data[-1:]) == []
    assert download.held == [1, 5, 2]


def test_files_come_with_their_descriptors(download: Download) -> None:
    file = FileReceived(name="film", first_unit=3, digests=b"", descriptors=1)
    socket.send_fds(download.input, [frame(file)], [download.output])
    assert download.write(frame(UnitsHeld(units=[3]))) == []
    assert download.write(b"") == [], "what comes after descriptors is read later"
    assert (download.files, download.held) == ([("film", 1)], [3])


def test_the_connection_itself_accepts_the_join(download: Download) -> None:
    assert download.connection.send(Join(rid=4, name="receiver", epoch=7, token=b"", pid=1, endpoint=""))
    download.connection.pass_time(0.0)
    assert download.readable == 1
    assert [*download.connection.receive()] == [Joined(rid=4, number=1, wanted=WantedState.AWAKE, edition=0)]
    assert [*download.connection.receive()] == []


def test_heartbeats_are_written_and_dropped_if_they_are_not_read(download: Download) -> None:
    assert download.connection.send(HEARTBEAT)
    data = os.read(download.output, 65536)
    assert data == frame(HEARTBEAT)
    for _ in range(4000):
        assert download.connection.send(HEARTBEAT)
    data = os.read(download.output, 1 << 20)
    assert len(data) % len(frame(HEARTBEAT)) == 0, "none is written in part"


def test_the_end_of_the_download_is_noticed(download: Download) -> None:
    download.input.close()
    download.poll_loop.wait([download.poll_loop.now + 20])
    download.poll_loop.dispatch()
    assert download.has_ended
