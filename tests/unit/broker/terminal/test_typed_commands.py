"""The lines that an operator types at the plain console."""

from __future__ import annotations

import pytest

from msd.broker.terminal.typed_commands import InvalidLine, QuitLine, ToggleLine, parse_line

WORKERS = (1, 2, 3, 4)


@pytest.mark.parametrize(("line", "number"), [("1", 1), ("4\n", 4), ("  2 \r\n", 2), ("03", 3)])
def test_a_number_toggles_that_worker(line: str, number: int) -> None:
    assert parse_line(line, WORKERS) == ToggleLine(number)


@pytest.mark.parametrize("line", ["-1", " -1 \n", "-1\r\n"])
def test_minus_one_quits(line: str) -> None:
    assert parse_line(line, WORKERS) == QuitLine()


@pytest.mark.parametrize("line", ["", "\n", "  \t\r\n"])
def test_an_empty_line_is_ignored(line: str) -> None:
    assert parse_line(line, WORKERS) is None


@pytest.mark.parametrize("line", ["0", "5", "-2", "- 1", "+1", "1.0", "1 2", "one", "²", "٣", "quit", "--1"])
def test_any_other_line_is_invalid_and_the_message_lists_the_choices(line: str) -> None:
    assert parse_line(line, WORKERS) == InvalidLine(f"invalid choice {line!r}: enter 1 to 4, or -1 to quit")


def test_an_invalid_line_is_truncated_and_quoted_without_control_characters() -> None:
    invalid = parse_line("\x1b[2J" + "x" * 5000, WORKERS)
    assert isinstance(invalid, InvalidLine)
    assert invalid.message.isprintable()
    assert len(invalid.message) < 120


def test_thousands_of_digits_are_an_invalid_line() -> None:
    assert isinstance(parse_line("9" * 8000, WORKERS), InvalidLine)


@pytest.mark.parametrize(
    ("numbers", "choices"), [((1,), "1 to 1, or -1"), ((2, 7), "2, 7, or -1"), ((), "-1")], ids=["one", "gaps", "none"]
)
def test_the_choices_are_the_numbers_of_the_workers(numbers: tuple[int, ...], choices: str) -> None:
    assert parse_line("3", numbers) == InvalidLine(f"invalid choice '3': enter {choices} to quit")
