"""Output is printed in order, and neither a full nor a closed pipe blocks the caller."""

from __future__ import annotations

import fcntl
import os
import select
import threading
from collections.abc import Iterator

import pytest

from msd.broker.terminal.output_thread import OutputThread
from msd.wire.support.line_writer import MAX_QUEUED
from tests.processes import TIMEOUT


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe with a capacity of 4096 bytes."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    yield reader, writer
    os.close(writer)
    if _is_open(reader):
        os.close(reader)


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def printed(reader: int) -> str:
    return os.read(reader, 65536).decode()


def test_lines_are_printed_in_order(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    output = OutputThread(writer)
    for word in ("one", "two", "three"):
        output.print_line(word)
    output.close()
    assert printed(reader) == "one\ntwo\nthree\n"


def test_a_table_is_printed_again_only_if_it_has_changed(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    output = OutputThread(writer)
    for table in ("A", "A", "B", "B", "A"):
        output.show_table(table)
    output.close()
    assert printed(reader) == "A\nB\nA\n"


def test_a_line_in_between_does_not_cause_the_table_to_be_repeated(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    output = OutputThread(writer)
    output.show_table("A")
    output.print_line("line")
    output.show_table("A")
    output.close()
    assert printed(reader) == "A\nline\n"


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"prints_tables": True}, "table\n"),
        ({"prints_tables": False}, "event\n"),
        ({"prints_tables": False, "verbose": True}, ""),
    ],
)
def test_events_are_printed_where_neither_tables_nor_the_log_show_them(
    pipe: tuple[int, int], options: dict[str, bool], text: str
) -> None:
    reader, writer = pipe
    output = OutputThread(writer, **options)
    output.show_table("table")
    output.print_event("event")
    output.print_line("end")
    output.close()
    assert printed(reader) == f"{text}end\n"


def fill(output: OutputThread) -> None:
    """Fills the pipe and the queue until a text is dropped."""
    while output._stdout.write(b"x" * 1000 + b"\n"):
        pass


def read_all(output: OutputThread, reader: int) -> str:
    """Closes the output and returns all text that is written until then."""
    closing = threading.Thread(target=output._stdout.close)
    closing.start()
    text = ""
    while closing.is_alive() or select.select([reader], [], [], 0)[0]:
        if select.select([reader], [], [], 0.05)[0]:
            text += printed(reader)
    closing.join()
    return text


def test_a_dropped_table_is_printed_the_next_time(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    output = OutputThread(writer)
    output.show_table("A")
    fill(output)
    output.show_table("B")
    while output._stdout._queue.qsize() >= MAX_QUEUED:
        printed(reader)
    output.show_table("B")
    assert read_all(output, reader).endswith("x\nB\n")


def test_an_announcement_is_never_dropped(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    output = OutputThread(writer)
    fill(output)
    output.print_line("just a line")
    output.announce("ready")
    text = read_all(output, reader)
    assert text.endswith("x\nready\n")
    assert "just a line" not in text


def test_a_full_pipe_does_not_block(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    output = OutputThread(writer)
    ended = threading.Event()

    def print_tables() -> None:
        for number in range(10 * MAX_QUEUED):
            output.show_table(f"{number:05} " + "x" * 1000)
        output.close()
        ended.set()

    threading.Thread(target=print_tables, daemon=True).start()
    assert ended.wait(TIMEOUT), "the full pipe blocked the caller"
    # The first texts are printed in full; texts that did not fit into the queue are dropped.
    assert printed(reader).startswith("00000 xxx")
    os.close(reader)
    # End the thread before another test reuses the number of the file descriptor.
    output.close()


def test_a_closed_pipe_is_not_an_error(pipe: tuple[int, int], capfd: pytest.CaptureFixture[str]) -> None:
    reader, writer = pipe
    os.close(reader)
    output = OutputThread(writer)
    output.print_line("lost")
    output.note("still here")
    output.close()
    assert capfd.readouterr().err == "still here\n"


def test_notes_go_to_standard_error(pipe: tuple[int, int], capfd: pytest.CaptureFixture[str]) -> None:
    reader, writer = pipe
    output = OutputThread(writer)
    output.note("indexing: 50 %")
    output.print_line("table")
    output.close()
    assert capfd.readouterr() == ("", "indexing: 50 %\n")
    assert printed(reader) == "table\n"


def test_characters_that_cannot_be_encoded_are_replaced(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    output = OutputThread(writer)
    output.print_line("caf\udce9 é")
    output.close()
    assert printed(reader) == "caf? é\n"


def test_while_suspended_announcements_are_held_back_and_other_texts_dropped(
    pipe: tuple[int, int], capfd: pytest.CaptureFixture[str]
) -> None:
    reader, writer = pipe
    output = OutputThread(writer)
    output.show_table("A")
    output.suspend()
    output.show_table("B")
    output.print_line("line")
    output.note("note")
    output.announce("ready")
    output.resume("restored")
    output.show_table("A")
    output.close()
    assert printed(reader) == "A\nrestored\nready\nA\n"
    # Standard error is not a terminal in this test, so the note is printed at once.
    assert capfd.readouterr().err == "note\n"


def test_a_pipe_that_is_not_read_does_not_hold_up_the_other_stream(
    pipe: tuple[int, int], capfd: pytest.CaptureFixture[str]
) -> None:
    reader, writer = pipe
    output = OutputThread(writer)
    fill(output)
    output.note("still here")
    output._stderr.close()
    assert capfd.readouterr().err == "still here\n"
    read_all(output, reader)


def test_tables_and_notes_on_one_terminal_keep_their_order(capfd: pytest.CaptureFixture[str]) -> None:
    saved = os.dup(2)
    os.dup2(1, 2)
    try:
        output = OutputThread(1)
        for number in range(100):
            output.print_line(f"line {number}")
            output.note(f"note {number}")
        output.close()
    finally:
        os.dup2(saved, 2)
        os.close(saved)
    expected = [text for number in range(100) for text in (f"line {number}", f"note {number}")]
    assert capfd.readouterr().out.splitlines() == expected
