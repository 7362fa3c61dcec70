"""A log line: one an event, with its time, a level and whom it is about. Text only: writes nothing."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from msd.wire.support.text import presentable

Level = Literal["debug", "info", "warning", "error"]


def log_line(time: float, level: Level, who: str, text: str) -> str:
    """``time`` is in seconds since 1970; ``who`` is ``worker 2``, ``server 5``, ``client`` or the like."""
    moment = datetime.fromtimestamp(time).astimezone().isoformat(timespec="milliseconds")
    return f"{moment} {level:7} {who:8} {presentable(text)}"
