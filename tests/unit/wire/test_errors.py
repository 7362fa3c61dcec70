"""The exit codes, on which scripts depend."""

from __future__ import annotations

import signal

import pytest

from msd.wire import errors


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (errors.MsdError, 1),
        (errors.UsageError, 2),
        (errors.NotFoundError, 3),
        (errors.NotAllowedError, 4),
        (errors.SourceError, 5),
        (errors.DiskError, 6),
        (errors.NoAnswerError, 7),
        (errors.OutputClosedError, 141),
        (errors.ProtocolError, 1),
    ],
)
def test_each_error_has_its_exit_code(kind: type[errors.MsdError], code: int) -> None:
    error = kind("what is wrong: what to do")
    assert error.exit_code == code
    assert str(error) == "what is wrong: what to do"
    assert isinstance(error, errors.MsdError)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_exit_code_of_a_signal_is_its_number_plus_128(number: int, code: int) -> None:
    error = errors.Interrupted("interrupted", number)
    assert error.exit_code == code
    assert str(error) == "interrupted"
    assert errors.Interrupted.exit_code == errors.MsdError.exit_code, (
        "setting the exit code of an instance must not change that of the class"
    )
