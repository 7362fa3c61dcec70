"""The flags in the messages of errors. That the flags and arguments exist is tested in tests/unit/msd/test_cli.py."""

from __future__ import annotations

import pytest

from msd.wire.config.error_flags import with_flags
from msd.wire.errors import MsdError


def test_an_error_gets_the_flags_of_the_arguments_that_may_help() -> None:
    assert with_flags(MsdError("film exists: replace it")) == "film exists: replace it"
    error = MsdError("film exists: replace it", arguments=("output", "force"))
    assert with_flags(error) == "film exists: replace it (-o, --force)"


@pytest.mark.parametrize(
    ("message", "arguments", "shown"),
    [
        ("server_key must be a key", ("server_key",), "--server-key must be a key"),
        ("id 12: an id has 64 digits", ("id",), "--id 12: an id has 64 digits"),
        ("identical files: replace one", ("id", "force"), "identical files: replace one (--id, --force)"),
    ],
)
def test_an_error_that_begins_with_an_argument_begins_with_its_flag(
    message: str, arguments: tuple[str, ...], shown: str
) -> None:
    assert with_flags(MsdError(message, arguments=arguments)) == shown
