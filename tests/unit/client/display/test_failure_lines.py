"""The first failures have a line each, the others none."""

from __future__ import annotations

from msd.client.display.failure_lines import MAX_FAILURES, FailureLines
from msd.client.events import FileResult, Outcome
from msd.wire.errors import DiskError


def failed(number: int) -> FileResult:
    error = DiskError(f"out/{number} exists", arguments=("output", "force"))
    return FileResult(str(number), Outcome.FAILED, error=error)


def test_a_failure_is_one_line_that_names_the_flags() -> None:
    failures = FailureLines()
    assert failures.line(failed(1)) == "msd: out/1 exists (-o, --force)"
    assert failures.line(FileResult("2", Outcome.FETCHED, 5)) == ""
    assert failures.lines == ["msd: out/1 exists (-o, --force)"]


def test_after_the_first_failures_one_line_says_that_there_are_more() -> None:
    failures = FailureLines()
    lines = [failures.line(failed(number)) for number in range(MAX_FAILURES + 5)]
    assert all(line.startswith("msd: out/") for line in lines[:MAX_FAILURES])
    assert lines[MAX_FAILURES:] == ["msd: more files failed: they are only counted", "", "", "", ""]
    assert failures.lines == lines[: MAX_FAILURES + 1]


def test_failures_with_the_same_text_have_one_line() -> None:
    failures = FailureLines()
    error = DiskError("out/a is not a folder")
    lines = [failures.line(FileResult(f"a/{number}", Outcome.FAILED, error=error)) for number in range(50)]
    assert lines == ["msd: out/a is not a folder", *[""] * 49]
    assert failures.line(failed(1)) == "msd: out/1 exists (-o, --force)"


def test_control_characters_are_escaped() -> None:
    error = DiskError("out/\x1b[2J exists")
    assert FailureLines().line(FileResult("x", Outcome.FAILED, error=error)) == r"msd: out/\x1b[2J exists"
