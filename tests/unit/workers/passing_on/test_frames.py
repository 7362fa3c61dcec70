"""Frames and descriptors of a download."""

from __future__ import annotations

import os
import socket
import struct
from contextlib import closing
from pathlib import Path

from msd.workers.passing_on.frames import FrameReader


def test_descriptors_belong_to_the_frame_with_which_they_came(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    reader = FrameReader(theirs.detach())
    frames: list[bytes] = []
    taken: list[str] = []
    with closing(ours):
        for number, count in enumerate((0, 2, 0, 1)):
            path = tmp_path / str(number)
            path.touch()
            fds = [os.open(path, os.O_RDONLY) for _ in range(count)]
            data = struct.pack("!I", 2) + f"{count}!".encode()
            if fds:
                socket.send_fds(ours, [data], fds)
            else:
                ours.sendall(data)
            for fd in fds:
                os.close(fd)
    while reader.read():
        for frame in reader.frames():
            frames.append(frame)
            taken += [os.readlink(f"/proc/self/fd/{fd}") for fd in reader.take_descriptors(frame[0] - ord("0"))]
    assert frames == [b"0!", b"2!", b"0!", b"1!"]
    assert taken == [str(tmp_path / name) for name in ("1", "1", "3")]
    assert reader.take_descriptors(1) == []
    reader.close()


def test_an_incomplete_frame_waits() -> None:
    ours, theirs = socket.socketpair()
    reader = FrameReader(theirs.detach())
    assert reader.fileno() >= 0
    with closing(ours):
        ours.sendall(b"\0\0\0\2a")
        assert reader.read()
        assert [*reader.frames()] == []
        ours.sendall(b"b\0")
        assert reader.read()
        assert [*reader.frames()] == [b"ab"]
    assert not reader.read()
    reader.close()
