"""Standard input, a line at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from msd.broker.terminal.line_reader import MAX_LINE, LineReader


@pytest.fixture
def typed() -> Iterator[tuple[LineReader, int]]:
    """What reads, and the descriptor to type into."""
    reader, writer = os.pipe()
    with open(reader, "rb", buffering=0), open(writer, "wb", buffering=0, closefd=False):
        yield LineReader(reader), writer
        os.close(writer)


def test_a_line_is_told_once_it_has_ended(typed: tuple[LineReader, int]) -> None:
    lines, writer = typed
    told = []
    for text in (b"1", b"2\n-", b"1\n\n3"):
        os.write(writer, text)
        told.append(lines.read())
    assert told == [[], ["12"], ["-1", ""]]


def test_a_line_without_an_end_is_kept_in_part(typed: tuple[LineReader, int]) -> None:
    lines, writer = typed
    for _ in range(10):
        os.write(writer, b"x" * MAX_LINE)
        assert lines.read() == []
    os.write(writer, b"\n")
    assert [len(line) for line in lines.read() or []] == [MAX_LINE]


def test_what_is_no_text_is_replaced(typed: tuple[LineReader, int]) -> None:
    lines, writer = typed
    os.write(writer, b"\xff1\n")
    assert lines.read() == ["\ufffd1"]


def test_the_end_of_the_input_is_told() -> None:
    with open(os.devnull, "rb") as empty:
        assert LineReader(empty.fileno()).read() is None


def test_a_descriptor_that_is_closed_has_ended() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    os.close(writer)
    assert LineReader(reader).read() is None
