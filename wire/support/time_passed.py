"""The event that all pure cores share."""

from __future__ import annotations

from msgspec import Struct


class TimePassed(Struct, frozen=True):
    """No event but the passing of time: the core does what is due."""
