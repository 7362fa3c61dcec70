"""The types of the arguments of the Python API."""

from __future__ import annotations

from pathlib import Path

import pytest

from msd.wire.config.argument_types import check_types, optional
from msd.wire.errors import UsageError

ALLOWED = {"path": ((str, Path), "a path"), "limit": optional(int, takes="a number of bytes")}


@pytest.mark.parametrize("values", [{"path": "x", "limit": 5}, {"path": Path("x"), "limit": None}])
def test_right_types_are_accepted(values: dict[str, object]) -> None:
    check_types(values, ALLOWED)


@pytest.mark.parametrize(
    ("values", "error"),
    [
        ({"path": None, "limit": 5}, "path None: must be a path"),
        ({"path": "x", "limit": "5MiB"}, "limit '5MiB': must be a number of bytes"),
        ({"path": "x", "limit": True}, "limit True: must be a number of bytes"),
    ],
)
def test_an_error_names_the_argument_and_what_it_takes(values: dict[str, object], error: str) -> None:
    with pytest.raises(UsageError, match=f"^{error}$"):
        check_types(values, ALLOWED)
