"""The screen prints, and stops nobody: not with a pipe that nobody reads, nor with a closed one."""

from __future__ import annotations

import fcntl
import os
import select
import sys
import threading
from collections.abc import Iterator

import pytest

from msd.broker.terminal.output_thread import DEPTH, OutputThread


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe that holds one page."""
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


def test_what_is_said_is_printed_in_order(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    screen = OutputThread(writer)
    for word in ("one", "two", "three"):
        screen.say(word)
    screen.close()
    assert printed(reader) == "one\ntwo\nthree\n"


def test_a_table_is_shown_once_until_it_changes(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    screen = OutputThread(writer)
    for table in ("A", "A", "B", "B", "A"):
        screen.show(table)
    screen.close()
    assert printed(reader) == "A\nB\nA\n"


def test_a_line_between_does_not_show_the_table_again(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    screen = OutputThread(writer)
    screen.show("A")
    screen.say("line")
    screen.show("A")
    screen.close()
    assert printed(reader) == "A\nline\n"


def fill(screen: OutputThread, writer: int) -> None:
    """Until texts are dropped: the pipe is full, and all that may wait is waiting."""
    while screen._put(writer, "x" * 1000):
        pass


def read_all(screen: OutputThread, reader: int) -> str:
    """All that is written until the screen has ended."""
    closing = threading.Thread(target=screen.close)
    closing.start()
    text = ""
    while screen._thread.is_alive() or select.select([reader], [], [], 0)[0]:
        if select.select([reader], [], [], 0.05)[0]:
            text += printed(reader)
    closing.join()
    return text


def test_a_table_that_was_dropped_is_shown_the_next_time(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    screen = OutputThread(writer)
    screen.show("A")
    fill(screen, writer)
    screen.show("B")
    while screen._texts.qsize() >= DEPTH:
        printed(reader)
    screen.show("B")
    assert read_all(screen, reader).endswith("x\nB\n")


def test_an_announcement_is_never_dropped(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    screen = OutputThread(writer)
    fill(screen, writer)
    screen.say("just a line")
    screen.announce("ready")
    text = read_all(screen, reader)
    assert text.endswith("x\nready\n")
    assert "just a line" not in text


def test_a_pipe_nobody_reads_does_not_block(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    screen = OutputThread(writer)
    ended = threading.Event()

    def work() -> None:
        for number in range(10 * DEPTH):
            screen.show(f"{number:05} " + "x" * 1000)
        screen.close()
        ended.set()

    threading.Thread(target=work, daemon=True).start()
    assert ended.wait(5), "it blocks"
    # It goes on where it was: the first texts are whole, what did not fit is missing.
    assert printed(reader).startswith("00000 xxx")
    os.close(reader)
    screen.close()  # Its thread must not write to this descriptor when another test has it.


def test_a_closed_pipe_is_no_error(pipe: tuple[int, int], capfd: pytest.CaptureFixture[str]) -> None:
    reader, writer = pipe
    os.close(reader)
    screen = OutputThread(writer)
    screen.say("to nobody")
    screen.note("still here")
    screen.close()
    assert capfd.readouterr().err == "still here\n"


def test_notes_go_to_standard_error(pipe: tuple[int, int], capfd: pytest.CaptureFixture[str]) -> None:
    reader, writer = pipe
    screen = OutputThread(writer)
    screen.note("indexing: 50 %")
    screen.say("table")
    screen.close()
    assert capfd.readouterr() == ("", "indexing: 50 %\n")
    assert printed(reader) == "table\n"


def test_without_a_standard_error_notes_are_dropped(pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = pipe
    monkeypatch.setattr(sys, "stderr", None)
    screen = OutputThread(writer)
    screen.note("indexing: 50 %")
    screen.say("table")
    screen.close()
    assert printed(reader) == "table\n"


def test_what_cannot_be_encoded_is_replaced(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    screen = OutputThread(writer)
    screen.say("caf\udce9 é")
    screen.close()
    assert printed(reader) == "caf? é\n"


def test_while_another_has_the_terminal_announcements_wait_and_the_rest_is_dropped(
    pipe: tuple[int, int], capfd: pytest.CaptureFixture[str]
) -> None:
    reader, writer = pipe
    screen = OutputThread(writer)
    screen.show("A")
    screen.hold()
    screen.show("B")
    screen.say("line")
    screen.note("note")
    screen.announce("ready")
    screen.release("restored")
    screen.show("A")
    screen.close()
    assert printed(reader) == "A\nrestored\nready\nA\n"
    # Its standard error is no terminal here.
    assert capfd.readouterr().err == "note\n"
