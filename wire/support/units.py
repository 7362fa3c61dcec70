"""Formats counts, sizes, rates and times for people. Pure.

Sizes have binary units and at most three digits; only the report's metric lines use kB (1000 bytes).
"""

from __future__ import annotations

from datetime import datetime


def format_count(count: int, noun: str) -> str:
    """Formats a number of things, such as ``1 segment`` or ``1,234 segments``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def format_size(size: float) -> str:
    """Formats ``size`` bytes in at most eight columns, such as ``12 B``, ``3.4 MiB`` or ``256 MiB``."""
    unit, *larger = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
    while size >= 999.5 and larger:
        size /= 1024
        unit, *larger = larger
    return f"{size:.0f} {unit}" if unit == "B" or size >= 99.95 else f"{size:.1f} {unit}"


def format_rate(rate: float) -> str:
    """Formats ``rate`` (bytes a second), such as ``3.4 MiB/s``."""
    return f"{format_size(rate)}/s"


def format_percent(part: int, whole: int) -> str:
    """Formats the share of ``part`` in ``whole`` in at most five columns, such as ``37 %``; ``100 %`` only of all."""
    return f"{part * 100 // whole if part < whole else 100} %"


def format_kb(size: float) -> str:
    """Formats ``size`` bytes for a metric line: a number of kB (1000 bytes), with at most two decimals."""
    return str(round(size / 1000, 2))


def format_kb_rate(rate: float) -> str:
    """Formats ``rate`` (bytes a second) for a metric line: ``7329.56kb/s``, and ``0kb/s`` for zero."""
    text = format_kb(rate)
    return f"{'0' if text == '0.0' else text}kb/s"


def format_duration(seconds: float) -> str:
    """Formats ``seconds`` in at most eight columns, such as ``0:07``, ``1:02:03`` or ``1d 02h``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}d {hours:02}h" if days < 1000 else f"{days}d"
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def format_date(time: float) -> str:
    """Formats seconds since 1970 as the local date and time, such as ``2026-12-06 14:02``."""
    return f"{datetime.fromtimestamp(time):%Y-%m-%d %H:%M}"


def format_time(time: float) -> str:
    """Formats seconds since 1970 as the local time of day, such as ``14:02:31``."""
    return f"{datetime.fromtimestamp(time):%H:%M:%S}"
