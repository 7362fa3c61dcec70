"""Formats a log line: time, level, source and text of one event. Writes nothing."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from msd.wire.support.presentable_names import presentable

Level = Literal["debug", "info", "warning", "error"]


def log_line(time: float, level: Level, source: str, text: str) -> str:
    """Returns the line. ``time`` is in seconds since 1970; ``source`` is, for example, ``worker 2`` or ``client``."""
    timestamp = datetime.fromtimestamp(time).astimezone().isoformat(timespec="milliseconds")
    return f"{timestamp} {level:7} {source:8} {presentable(text)}"
