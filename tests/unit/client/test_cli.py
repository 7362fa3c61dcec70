"""The helpers of the client's commands. The commands themselves: tests/integration."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from msd.client import cli
from msd.client.cli import _parse_id
from msd.client.operations import verify
from msd.wire.errors import SourceError, UsageError


def test_no_id_is_no_id() -> None:
    assert _parse_id(None) is None


@pytest.mark.parametrize("text", ["0123456789abcdef" * 4, "0123456789ABCDEF" * 4])
def test_an_id_is_64_hexadecimal_digits(text: str) -> None:
    assert _parse_id(text) == bytes.fromhex("0123456789abcdef") * 4


@pytest.mark.parametrize("text", ["", "ab", "ab" * 31, "ab" * 33, "xy" * 32, "ä" * 64, "a" * 63])
def test_anything_else_is_wrong_use(text: str) -> None:
    with pytest.raises(UsageError, match="an id is 64 hexadecimal digits; msd list --json shows them"):
        _parse_id(text)


class Closed:
    """A pipe that nobody reads any more."""

    def write(self, text: str) -> int:
        raise BrokenPipeError

    def flush(self) -> None:
        raise BrokenPipeError


def test_a_file_that_differs_does_so_though_nobody_reads_the_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    def differs(*_: Any) -> verify.Comparison:
        return verify.Comparison("film.bin", size=9, held=9, segments=9, bad=(1, 3, 5))

    monkeypatch.setattr(verify, "verify", differs)
    monkeypatch.setattr(sys, "stdout", Closed())
    with pytest.raises(SourceError, match=r"is not film\.bin as it is shared"):
        cli.verify("copy.bin")
