"""Lines are read from a descriptor without blocking."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from msd.broker.terminal import line_reader
from msd.broker.terminal.line_reader import MAX_LINE, LineReader


@pytest.fixture
def reader_and_input() -> Iterator[tuple[LineReader, int]]:
    """A line reader, and the descriptor to write its input to."""
    reader, writer = os.pipe()
    with open(reader, "rb", buffering=0), open(writer, "wb", buffering=0, closefd=False):
        yield LineReader(reader), writer
        os.close(writer)


def test_a_line_is_returned_once_it_is_complete(reader_and_input: tuple[LineReader, int]) -> None:
    reader, writer = reader_and_input
    lines = []
    for text in (b"1", b"2\n-", b"1\n\n3"):
        os.write(writer, text)
        lines.append(reader.read())
    assert lines == [[], ["12"], ["-1", ""]]


def test_an_unfinished_line_is_truncated(reader_and_input: tuple[LineReader, int]) -> None:
    reader, writer = reader_and_input
    for _ in range(10):
        os.write(writer, b"x" * MAX_LINE)
        assert reader.read() == []
    os.write(writer, b"\n")
    assert [len(line) for line in reader.read() or []] == [MAX_LINE]


def test_bytes_that_are_not_utf_8_are_replaced(reader_and_input: tuple[LineReader, int]) -> None:
    reader, writer = reader_and_input
    os.write(writer, b"\xff1\n")
    assert reader.read() == ["\ufffd1"]


def test_the_end_of_the_input_returns_none() -> None:
    with open(os.devnull, "rb") as empty:
        assert LineReader(empty.fileno()).read() is None


def test_a_closed_descriptor_is_the_end_of_the_input() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    os.close(writer)
    assert LineReader(reader).read() is None


def test_input_in_the_background_is_not_the_end_of_the_input(monkeypatch: pytest.MonkeyPatch) -> None:
    """The shell moves the process to the background after it was found in the foreground: reading fails."""
    reader, writer = os.pipe()
    os.close(reader)
    os.close(writer)
    monkeypatch.setattr(line_reader, "is_in_background", lambda descriptor: descriptor == reader)
    assert not LineReader(reader).may_read
    assert LineReader(reader).read() == []
