"""What a parent process left is put in order; each test runs in a process of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

STREAMS = """
import fcntl, os, sys
from msd.wire.support.inherited_state import open_closed_streams
report = fcntl.fcntl({open}, fcntl.F_DUPFD, 10)
open_closed_streams()
print("text", flush=True)
print("text", file=sys.stderr, flush=True)
os.write(report, " ".join(os.readlink(f"/proc/self/fd/{{fd}}") for fd in {closed}).encode())
"""

SIGNALS = """
import signal
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGCHLD})
for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGCHLD):
    signal.signal(number, signal.SIG_IGN)
from msd.wire.support.inherited_state import reset_signals
reset_signals()
assert not signal.pthread_sigmask(signal.SIG_BLOCK, ())
print(*[n.name for n in signal.valid_signals() if signal.getsignal(n) is signal.SIG_IGN])
"""


@pytest.mark.parametrize(("closed", "open"), [((0, 1), 2), ((1,), 2), ((2,), 1), ((0, 2), 1)])
def test_closed_streams_are_replaced_by_the_null_device(closed: tuple[int, ...], open: int) -> None:
    code = STREAMS.format(closed=closed, open=open)
    redirections = " ".join(f"{descriptor}>&-" for descriptor in closed)
    ended = subprocess.run(
        ["sh", "-c", f'exec "$@" {redirections}', "sh", sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
    )
    text = ended.stderr if open == 2 else ended.stdout
    assert text.replace("text\n", "") == " ".join(["/dev/null"] * len(closed))


def test_only_sigterm_and_sigchld_are_reset() -> None:
    ended = subprocess.run([sys.executable, "-c", SIGNALS], capture_output=True, text=True, check=True)
    assert {*ended.stdout.split()} - {"SIGPIPE", "SIGXFSZ"} == {"SIGINT", "SIGHUP"}
