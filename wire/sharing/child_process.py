"""The command of a child process, what its exit means, and how its streams are closed. Starts no process."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from msd.wire.support.presentable_names import presentable


def workers_command(*arguments: str) -> list[str]:
    """Returns the command that runs ``msd.workers`` with these arguments in another process."""
    return [sys.executable, "-P", "-m", "msd.workers", *arguments]


def exit_reason(code: int, log: Path) -> str:
    """Why a process exited, in one line: its signal, or the last line of its log."""
    if code < 0:
        names = {number.value: number.name for number in signal.Signals}
        return f"killed by {names.get(-code, f'signal {-code}')}"
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError:
        lines = []
    lines = [line for line in lines if line.strip()]
    return presentable(lines[-1].strip()) if lines else f"exited with code {code}"


def close_streams(process: subprocess.Popen[bytes]) -> None:
    """Closes the standard streams of a process that has ended."""
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()
