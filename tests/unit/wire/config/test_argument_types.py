"""The types and ranges of the arguments of the Python API."""

from __future__ import annotations

from pathlib import Path

import pytest

from msd.wire.config.argument_types import check_ranges, check_types, optional
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


@pytest.mark.parametrize(
    ("values", "error"),
    [
        ({"memory": 0, "rate": 0}, "memory 0: must be more than 0"),
        ({"memory": float("nan"), "rate": 0}, "memory nan: must be more than 0"),
        ({"memory": 1, "rate": -0.5}, "rate -0.5: must not be negative"),
        ({"memory": 1, "rate": float("nan")}, "rate nan: must not be negative"),
    ],
)
def test_an_error_names_the_argument_that_is_out_of_its_range(values: dict[str, float], error: str) -> None:
    with pytest.raises(UsageError, match=f"^{error}$"):
        check_ranges(values, positive=["memory"], not_negative=["rate"])


@pytest.mark.parametrize("values", [{"memory": 1, "rate": 0}, {"memory": None, "rate": None}])
def test_values_in_range_and_none_are_accepted(values: dict[str, object]) -> None:
    check_ranges(values, positive=["memory"], not_negative=["rate"])
