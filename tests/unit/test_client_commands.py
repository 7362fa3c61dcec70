"""The helpers of the client's commands. The commands themselves: tests/integration."""

from __future__ import annotations

import pytest

from client.commands import _parse_id
from wire.errors import UsageError


def test_no_id_is_no_id() -> None:
    assert _parse_id(None) is None


@pytest.mark.parametrize("text", ["0123456789abcdef" * 4, "0123456789ABCDEF" * 4])
def test_an_id_is_64_hexadecimal_digits(text: str) -> None:
    assert _parse_id(text) == bytes.fromhex("0123456789abcdef") * 4


@pytest.mark.parametrize("text", ["", "ab", "ab" * 31, "ab" * 33, "xy" * 32, "ä" * 64, "a" * 63])
def test_anything_else_is_wrong_use(text: str) -> None:
    with pytest.raises(UsageError, match="an id is 64 hexadecimal digits; msd list --json shows them"):
        _parse_id(text)
