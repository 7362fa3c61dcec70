"""The parts of the client's commands that need no server. Tests of whole commands: tests/integration."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from msd.client.cli import commands
from msd.client.operations import verify
from msd.wire.errors import SourceError


class ClosedPipe:
    """A pipe whose reader has closed it."""

    def write(self, text: str) -> int:
        raise BrokenPipeError

    def flush(self) -> None:
        raise BrokenPipeError


def test_a_difference_is_an_error_even_if_the_pipe_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    def differs(*_: Any) -> verify.Comparison:
        return verify.Comparison("film.bin", size=9, local_size=9, segments=9, differing=(1, 3, 5), compared=9, equal=6)

    monkeypatch.setattr(verify, "verify", differs)
    monkeypatch.setattr(sys, "stdout", ClosedPipe())
    with pytest.raises(
        SourceError, match=r"copy\.bin differs from the shared film\.bin: repair it with msd download film\.bin"
    ):
        commands.verify(file="copy.bin")
