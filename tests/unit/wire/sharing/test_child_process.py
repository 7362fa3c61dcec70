"""The reason reported for a process's exit."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from msd.wire.sharing.child_process import exit_reason


def log(folder: Path, text: bytes) -> Path:
    path = folder / "worker-1.log"
    path.write_bytes(text)
    return path


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_the_reason_of_a_killed_process_is_its_signal(tmp_path: Path, number: signal.Signals) -> None:
    assert exit_reason(-number, log(tmp_path, b"an earlier line\n")) == f"killed by {number.name}"


def test_the_reason_is_the_last_line_of_the_log(tmp_path: Path) -> None:
    text = b"Traceback (most recent call last):\n  File x\nValueError: wrong \n\n"
    assert exit_reason(1, log(tmp_path, text)) == "ValueError: wrong"


@pytest.mark.parametrize("text", [b"", b"\n \n"])
def test_the_reason_is_the_exit_code_if_the_log_is_empty(tmp_path: Path, text: bytes) -> None:
    assert exit_reason(7, log(tmp_path, text)) == "exited with code 7"


def test_invalid_utf8_in_the_log_is_replaced(tmp_path: Path) -> None:
    assert exit_reason(1, log(tmp_path, b"\xff\xfebad")) == "\ufffd\ufffdbad"
