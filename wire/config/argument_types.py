"""Checks the types and the ranges of the arguments of the Python API, which a caller may mistake."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import NoneType
from typing import Any

from msd.wire.errors import UsageError

#: For an argument: its types, and what it takes as text for the user.
ArgumentType = tuple[tuple[Any, ...], str]


def optional(*types: type, takes: str) -> ArgumentType:
    """An argument that may be None."""
    return (*types, NoneType), takes


def check_types(arguments: Mapping[str, object], allowed: Mapping[str, ArgumentType]) -> None:
    """Raises ``UsageError`` for the first argument of ``allowed`` whose value has another type."""
    for name, (types, takes) in allowed.items():
        value = arguments[name]
        # True and False are numbers in Python, but no amounts.
        if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
            raise UsageError(f"{name} {value!r}: must be {takes}")


def check_ranges(arguments: Mapping[str, Any], *, positive: Iterable[str], not_negative: Iterable[str]) -> None:
    """Raises ``UsageError`` for an argument that is named and has a value out of its range. None is always allowed."""
    for name in positive:
        value = arguments[name]
        if value is not None and not value > 0:
            raise UsageError(f"{name} {value:g}: must be more than 0")
    for name in not_negative:
        value = arguments[name]
        if value is not None and not value >= 0:
            raise UsageError(f"{name} {value:g}: must not be negative")
