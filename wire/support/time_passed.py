"""The one event that all cores share."""

from __future__ import annotations

from msgspec import Struct


class TimePassed(Struct, frozen=True):
    """Only time has passed: a core does what is due."""
