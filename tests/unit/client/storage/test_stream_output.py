"""A stream receives the segments in order, however they arrive and however little its reader takes."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path
from typing import Any

import pytest

from msd.client.storage.stream_output import StreamOutput
from msd.wire.errors import OutputClosedError


class FakeStream:
    """A stream that takes ``room`` bytes."""

    path = Path("/dev/stdout")
    fd = 99

    def __init__(self, room: int) -> None:
        self.room = room
        self.received = b""
        self.is_closed = False

    def write(self, data: memoryview) -> int:
        count = min(self.room, len(data))
        self.room -= count
        self.received += data[:count]
        return count

    def check_reader(self) -> None:
        if self.is_closed:
            raise OutputClosedError("the reader closed it")


def output_of(room: int, size: int = 10_000) -> tuple[StreamOutput, Any]:
    stream: Any = FakeStream(room)
    return StreamOutput(stream, size), stream


def test_segments_that_arrive_early_wait_for_the_earlier_ones() -> None:
    output, stream = output_of(100)
    for index, data, received in ((2, b"c", b""), (0, b"aa", b"aa"), (3, b"d", b"aa"), (1, b"bbb", b"aabbbcd")):
        output.write(index, memoryview(data))
        output.flush()
        assert stream.received == received
        assert output.written_bytes == len(received)
        assert not output.waits_for_reader
    assert (output.position, output.uncopied_bytes) == (4, 0)


def test_a_segment_is_written_in_pieces_if_the_reader_takes_less() -> None:
    output, stream = output_of(2)
    output.write(0, memoryview(b"abc"))
    output.write(1, memoryview(b"de"))
    output.flush()
    assert (stream.received, output.position, output.uncopied_bytes, output.waits_for_reader) == (b"ab", 0, 3, True)
    output.flush()
    assert stream.received == b"ab"
    stream.room = 2
    output.flush()
    assert (stream.received, output.position, output.uncopied_bytes, output.waits_for_reader) == (b"abcd", 1, 1, True)
    stream.room = 9
    output.flush()
    assert (stream.received, output.position, output.uncopied_bytes, output.waits_for_reader) == (b"abcde", 2, 0, False)


def test_any_order_and_any_reader_give_the_file(rng: random.Random) -> None:
    segments = [rng.randbytes(rng.randint(1, 50)) for _ in range(100)]
    output, stream = output_of(0)
    for index in rng.sample(range(100), 100):
        output.write(index, memoryview(segments[index]))
        stream.room = rng.randint(0, 60)
        output.flush()
        expected = b"".join(segments[: output.position])
        assert stream.received[: len(expected)] == expected
        assert len(stream.received) == output.written_bytes
    stream.room = 10_000
    output.flush()
    assert stream.received == b"".join(segments)


def test_the_download_can_restart_until_the_first_byte_is_written() -> None:
    output, stream = output_of(0)
    output.write(0, memoryview(b"abc"))
    output.flush()
    assert output.can_restart
    stream.room = 1
    output.flush()
    assert not output.can_restart


def test_a_closed_reader_is_noticed_while_there_is_nothing_to_write() -> None:
    output, stream = output_of(9)
    output.write(1, memoryview(b"b"))
    output.flush()
    stream.is_closed = True
    with pytest.raises(OutputClosedError):
        output.flush()


def test_a_reader_may_close_the_stream_after_the_last_byte() -> None:
    output, stream = output_of(room=3, size=3)
    output.write(0, memoryview(b"abc"))
    stream.is_closed = True
    output.flush()
    assert stream.received == b"abc"


def test_the_sha256_is_that_of_the_bytes_in_their_order() -> None:
    stream: Any = FakeStream(3)
    output = StreamOutput(stream, 6, with_sha256=True)
    output.write(1, memoryview(b"def"))
    output.write(0, memoryview(b"abc"))
    output.flush()
    stream.room = 9
    output.flush()
    assert output.sha256() == hashlib.sha256(b"abcdef").hexdigest()
