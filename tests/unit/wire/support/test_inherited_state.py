"""What a parent process left is put in order; each test runs in a process of its own."""

from __future__ import annotations

import codecs
import os
import socket
import subprocess
import sys
from pathlib import Path

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


#: Reports whether standard output blocks, then writes more than a pipe or socket holds.
WRITE = """
import os
from msd.wire.support.inherited_state import make_streams_blocking
make_streams_blocking()
print(os.get_blocking(1), "x" * 2_000_000)
"""

QUIET = """
import sys
from msd.wire.support.inherited_state import make_streams_blocking
make_streams_blocking()
sys.stderr.write("after")
"""


#: Reports the encodings of file names and output, and the bytes of the argument.
ENCODINGS = """
import os, sys
from msd.wire.support.inherited_state import use_utf8_file_names
use_utf8_file_names()
print(sys.getfilesystemencoding(), sys.stdout.encoding, os.fsencode(sys.argv[1]))
"""


@pytest.mark.parametrize(
    ("variables", "output"),
    [({}, "ascii"), ({"PYTHONIOENCODING": "latin-1"}, "latin-1"), ({"PYTHONUTF8": "1"}, "utf-8")],
    ids=str,
)
def test_file_names_are_utf8_in_every_locale_and_text_is_not(variables: dict[str, str], output: str) -> None:
    # With these variables Python behaves in the locale C as in others that are not UTF-8.
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", **variables}
    ended = subprocess.run(
        [sys.executable, "-c", ENCODINGS, "Ü".encode()], env=environment, capture_output=True, text=True, check=True
    )
    encodings, _, argument = ended.stdout.strip().rpartition(" b")
    file_names, _, text = encodings.partition(" ")
    assert (file_names, argument) == ("utf-8", repr("Ü".encode())[1:])
    assert codecs.lookup(text) == codecs.lookup(output)


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
    # Python ignores SIGPIPE and SIGXFSZ; a shell ignores SIGQUIT in what it runs in the background.
    assert {*ended.stdout.split()} - {"SIGPIPE", "SIGXFSZ", "SIGQUIT"} == {"SIGINT", "SIGHUP"}


@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_a_stream_that_does_not_block_blocks_for_this_process(kind: str) -> None:
    if kind == "pipe":
        read, write = os.pipe()
    else:
        read, write = (end.detach() for end in socket.socketpair())
    os.set_blocking(write, False)
    with open(read, "rb") as reader, open(write, "wb") as writer:
        process = subprocess.Popen([sys.executable, "-c", WRITE], stdout=writer)
        writer.close()
        output = reader.read()
        assert process.wait() == 0
    assert output == b"True " + b"x" * 2_000_000 + b"\n"


def test_the_open_file_of_the_parent_and_a_regular_file_stay_as_they_are(tmp_path: Path) -> None:
    read, write = os.pipe()
    os.set_blocking(write, False)
    with open(read, "rb"), open(write, "wb") as writer, (tmp_path / "log").open("wb") as log:
        log.write(b"before ")
        log.flush()
        os.set_blocking(log.fileno(), False)
        subprocess.run([sys.executable, "-c", QUIET], stdout=writer, stderr=log, check=True)
        assert not os.get_blocking(writer.fileno())
    assert (tmp_path / "log").read_bytes() == b"before after"


def test_a_fifo_whose_reader_has_closed_it_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    read = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    with open(tmp_path / "fifo", "wb") as writer:
        os.close(read)
        os.set_blocking(writer.fileno(), False)
        subprocess.run([sys.executable, "-c", QUIET], stdout=writer, check=True, timeout=10)
