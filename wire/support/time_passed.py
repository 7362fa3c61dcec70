"""The event that all pure cores share."""

from __future__ import annotations

from msgspec import Struct


class TimePassed(Struct, frozen=True):
    """Only time has passed: the core handles its expired deadlines."""
