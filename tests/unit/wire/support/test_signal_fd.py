"""The file descriptor that becomes readable when a signal arrives."""

from __future__ import annotations

import select
import signal
from contextlib import closing
from typing import Any

import pytest

from msd.wire.support.signal_fd import SignalDescriptor


def test_a_signal_makes_the_descriptor_readable_and_is_read_once() -> None:
    with closing(SignalDescriptor(signal.SIGUSR1, signal.SIGUSR2)) as signals:
        assert not select.select([signals.fileno()], [], [], 0)[0]
        signal.raise_signal(signal.SIGUSR1)
        signal.raise_signal(signal.SIGUSR2)
        assert select.select([signals.fileno()], [], [], 5)[0]
        assert [*signals.read()] == [signal.SIGUSR1, signal.SIGUSR2]
        assert not select.select([signals.fileno()], [], [], 0)[0]


def test_closing_restores_the_previous_handlers() -> None:
    before = signal.getsignal(signal.SIGUSR1)
    SignalDescriptor(signal.SIGUSR1).close()
    assert signal.getsignal(signal.SIGUSR1) == before
    assert signal.set_wakeup_fd(-1) == -1


def test_a_signal_that_arrives_as_soon_as_it_is_handled_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    def install(number: signal.Signals, handler: Any) -> Any:
        previous = real_install(number, handler)
        if callable(handler):
            signal.raise_signal(number)
        return previous

    real_install = signal.signal
    monkeypatch.setattr(signal, "signal", install)
    with closing(SignalDescriptor(signal.SIGUSR1)) as signals:
        assert [*signals.read()] == [signal.SIGUSR1]
