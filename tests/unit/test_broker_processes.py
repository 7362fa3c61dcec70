"""Ports held for workers, what the indexer says, and why a process ended. The workers: tests/integration."""

from __future__ import annotations

import errno
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from broker.processes import Indexer, cannot_listen, hold_port, why_ended
from wire.endpoints import Endpoint
from wire.errors import MsdError, NotFoundError, UsageError
from wire.messages import Indexed

LOOPBACK = "127.0.0.1"


def listener(port: int, host: str = LOOPBACK) -> socket.socket:
    """What a worker does: SO_REUSEADDR, bind, listen."""
    listening = socket.socket()
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen()
    except BaseException:
        listening.close()
        raise
    return listening


@pytest.fixture
def port() -> Iterator[int]:
    """A free port outside the range from which the kernel takes ports for others."""
    for number in range(22300, 22400):
        try:
            listener(number).close()
        except OSError:
            continue
        yield number
        return
    pytest.fail("no free port from 22300 to 22399")


def test_a_worker_can_listen_beside_the_held_port(port: int) -> None:
    with closing(hold_port(Endpoint(LOOPBACK, port), "worker 1")), closing(listener(port)):
        client = socket.create_connection((LOOPBACK, port), timeout=2)
        client.close()


def test_nobody_is_connected_to_a_port_that_is_only_held(port: int) -> None:
    with closing(hold_port(Endpoint(LOOPBACK, port), "worker 1")), pytest.raises(ConnectionRefusedError):
        socket.create_connection((LOOPBACK, port), timeout=2)


def test_no_program_without_reuseaddr_can_take_a_held_port(port: int) -> None:
    holder = hold_port(Endpoint(LOOPBACK, port), "worker 1")
    with closing(holder), closing(socket.socket()) as thief, pytest.raises(OSError, match="in use"):
        thief.bind((LOOPBACK, port))


def test_a_port_is_free_again_once_let_go(port: int) -> None:
    hold_port(Endpoint(LOOPBACK, port), "worker 1").close()
    with closing(socket.socket()) as other:
        other.bind((LOOPBACK, port))


@pytest.mark.parametrize("host", [LOOPBACK, "*", "0.0.0.0"])
def test_a_port_where_somebody_listens_is_found_and_named(port: int, host: str) -> None:
    with closing(listener(port)), pytest.raises(UsageError, match=rf"^port {port} \(worker 3\) is in use: "):
        hold_port(Endpoint(host, port), "worker 3")


def test_every_address_can_be_held(port: int) -> None:
    with closing(hold_port(Endpoint("*", port), "worker 1")) as holder:
        assert holder.getsockname() == ("0.0.0.0", port)


def test_a_foreign_address_is_named() -> None:
    with pytest.raises(UsageError, match=r"^192\.0\.2\.1 is not an address of this machine: check -a$"):
        hold_port(Endpoint("192.0.2.1", 22300), "worker 1")


def test_each_reason_not_to_listen_says_what_to_do() -> None:
    endpoint = Endpoint(LOOPBACK, 80)
    told = {
        code: str(cannot_listen(endpoint, "server 5", code))
        for code in (errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.ENODEV, errno.EACCES, errno.ENOBUFS)
    }
    assert told == {
        errno.EADDRINUSE: "port 80 (server 5) is in use: end what listens there, or choose another port",
        errno.EADDRNOTAVAIL: "127.0.0.1 is not an address of this machine: check -a",
        errno.ENODEV: "127.0.0.1 is not an address of this machine: check -a",
        errno.EACCES: "port 80 (server 5) needs root: choose one above 1023",
        errno.ENOBUFS: "port 80 (server 5) cannot be used: No buffer space available",
    }


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A broker's folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "broker"
    (folder / "catalogue").mkdir(parents=True)
    return folder


#: ``python -m workers`` that looks at no file again unless it is nudged, and then soon.
NUDGED = """
import sys
from workers import watching
watching.CALM, watching.ALERT = 3600.0, 0.05
from workers.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


def test_the_indexer_says_each_edition_and_looks_again_when_nudged(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    popen = subprocess.Popen

    def start(command: list[str], **options: Any) -> subprocess.Popen[bytes]:
        assert command[1:4] == ["-P", "-m", "workers"]
        return popen([sys.executable, "-c", NUDGED, *command[4:]], **options)

    monkeypatch.setattr(subprocess, "Popen", start)
    (tmp_path / "numbers").write_bytes(bytes(range(245)))
    with closing(Indexer(tmp_path / "numbers", folder)) as indexer:
        for number in (1, 2):
            while not (indexed := [line for line in indexer.lines() if isinstance(line, Indexed)]):
                pass
            assert [line.edition for line in indexed] == [number]
            (tmp_path / "other").write_bytes(bytes(number))
            (tmp_path / "other").replace(tmp_path / "numbers")
            indexer.nudge()


def test_an_indexer_that_ends_says_why(tmp_path: Path, folder: Path) -> None:
    with closing(Indexer(tmp_path / "none", folder)) as indexer, pytest.raises(MsdError) as caught:
        indexer.lines()
    assert str(caught.value).startswith(f"{tmp_path / 'none'}: no such file or folder to share")
    assert caught.value.exit_code == NotFoundError.exit_code


def log(folder: Path, text: bytes) -> Path:
    path = folder / "worker-1.log"
    path.write_bytes(text)
    return path


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_a_killed_process_is_told_by_its_signal(tmp_path: Path, number: signal.Signals) -> None:
    assert why_ended(-number, log(tmp_path, b"a line that is not the reason\n")) == f"killed by {number.name}"


def test_the_last_line_of_the_log_is_the_reason(tmp_path: Path) -> None:
    text = b"Traceback (most recent call last):\n  File x\nValueError: wrong \n\n"
    assert why_ended(1, log(tmp_path, text)) == "ValueError: wrong"


@pytest.mark.parametrize("text", [b"", b"\n \n"])
def test_without_a_word_the_code_is_the_reason(tmp_path: Path, text: bytes) -> None:
    assert why_ended(7, log(tmp_path, text)) == "ended with code 7"


def test_a_log_that_is_no_text_is_shown_as_far_as_it_can_be(tmp_path: Path) -> None:
    assert why_ended(1, log(tmp_path, b"\xff\xfebad")) == "\ufffd\ufffdbad"
