"""The parts of ``msd demo`` that need no servers; ``tests/integration`` runs the whole demo."""

from __future__ import annotations

import os
import signal
import socket
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from msd.broker.cli import demo
from msd.wire.errors import Interrupted, UsageError
from msd.wire.support.signal_fd import SignalDescriptor

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture(autouse=True)
def restore_signal_handlers() -> Iterator[None]:
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


def test_five_different_ports_and_the_control_port_are_free() -> None:
    ports = demo.free_ports(20000, 32000)
    assert len(set(ports)) == 5
    for port in (*ports, ports[4] + 1):
        socket.create_server(("127.0.0.1", port)).close()


def test_a_port_in_use_is_not_free() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        port = server.getsockname()[1]
        assert not demo._is_free(port)
    assert demo._is_free(port)


@pytest.mark.parametrize(
    ("size", "seconds", "message"),
    [
        ("large", 10.0, "--size large: must be "),
        ("1023KiB", 10.0, "--size 1023KiB: must be at least 1MiB"),
        ("1MiB", 0.4, "--seconds 0.4: must be from 0.5 to 3600"),
        ("1MiB", 3601.0, "--seconds 3601: must be from 0.5 to 3600"),
    ],
)
def test_invalid_sizes_and_durations_are_usage_errors(size: str, seconds: float, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        demo.run(size, seconds)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_interrupts_the_demo_at_its_next_wait(
    number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The signal arrives while a finalizer runs, where Python discards exceptions. A second signal is ignored."""

    class Finalizer:
        def __del__(self) -> None:
            os.kill(os.getpid(), number)

    def make_file(path: Path, size: int, signals: SignalDescriptor) -> None:
        path.touch()
        Finalizer()
        os.kill(os.getpid(), number)
        demo._wait(signals, None)

    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    handlers = [signal.getsignal(each) for each in SIGNALS]
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(demo, "_make_file", make_file)
    with pytest.raises(Interrupted) as caught:
        demo.run("1MiB", 1)
    assert caught.value.exit_code == 128 + number
    assert list(tmp_path.iterdir()) == []
    assert [signal.getsignal(each) for each in SIGNALS] == handlers


def test_an_ignored_signal_stays_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    def make_file(path: Path, size: int, signals: SignalDescriptor) -> None:
        os.kill(os.getpid(), signal.SIGHUP)
        demo._wait(signals, 0)
        raise InterruptedError

    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    monkeypatch.setattr(demo, "_make_file", make_file)
    with pytest.raises(InterruptedError):
        demo.run("1MiB", 1)
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
