"""Whether a process may use its terminal; ``tests/environments/test_job_control.py`` tests it with a shell."""

from __future__ import annotations

import os
import pty
import termios
from collections.abc import Iterator

import pytest

from msd.wire.support.job_control import is_in_background, may_write


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A terminal in whose background this process claims to be."""
    master, slave = pty.openpty()
    monkeypatch.setattr(os, "tcgetpgrp", lambda descriptor: os.getpgrp() + 1)
    yield slave
    os.close(master)
    os.close(slave)


def test_a_pipe_has_no_background() -> None:
    reader, writer = os.pipe()
    assert not is_in_background(reader)
    assert may_write(writer)
    os.close(reader)
    os.close(writer)


def test_a_process_may_write_in_the_background_unless_the_terminal_forbids_it(terminal: int) -> None:
    assert is_in_background(terminal)
    assert may_write(terminal)
    settings = termios.tcgetattr(terminal)
    settings[3] |= termios.TOSTOP
    termios.tcsetattr(terminal, termios.TCSANOW, settings)
    assert not may_write(terminal)


def test_a_closed_terminal_does_not_hold_back_output(terminal: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(descriptor: int) -> None:
        raise termios.error(5, "Input/output error")

    monkeypatch.setattr(termios, "tcgetattr", fail)
    assert may_write(terminal)
