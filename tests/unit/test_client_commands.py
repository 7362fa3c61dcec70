"""The helpers of the client's commands. The commands themselves: tests/integration."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from client.commands import _parse_id, _write_report
from wire.errors import DiskError, UsageError


def test_no_id_is_no_id() -> None:
    assert _parse_id(None) is None


@pytest.mark.parametrize("text", ["0123456789abcdef" * 4, "0123456789ABCDEF" * 4])
def test_an_id_is_64_hexadecimal_digits(text: str) -> None:
    assert _parse_id(text) == bytes.fromhex("0123456789abcdef") * 4


@pytest.mark.parametrize("text", ["", "ab", "ab" * 31, "ab" * 33, "xy" * 32, "ä" * 64, "a" * 63])
def test_anything_else_is_wrong_use(text: str) -> None:
    with pytest.raises(UsageError, match="an id is 64 hexadecimal digits; msd list --json shows them"):
        _parse_id(text)


def test_a_report_is_written_as_one_line_of_json(tmp_path: Path) -> None:
    _write_report(str(tmp_path / "report.json"), {"bytes": 5, "file": "ä"})
    text = (tmp_path / "report.json").read_text(encoding="utf-8")
    assert text.endswith("}\n")
    assert json.loads(text) == {"bytes": 5, "file": "ä"}


def test_a_report_that_cannot_be_written_is_a_disk_error(tmp_path: Path) -> None:
    with pytest.raises(DiskError, match="the report cannot be written: No such file or directory"):
        _write_report(str(tmp_path / "missing" / "report.json"), {})
