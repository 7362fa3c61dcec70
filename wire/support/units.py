"""Formats counts, sizes, rates and durations, for messages and for the report's metric lines. Pure."""

from __future__ import annotations


def format_count(count: int, noun: str) -> str:
    """Formats a number of things, such as ``1 segment`` or ``1,234 segments``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def format_kb(size: float) -> str:
    """Formats ``size`` bytes as a number of kB (1000 bytes), with at most two decimals."""
    return str(round(size / 1000, 2))


def format_rate(rate: float) -> str:
    """Formats ``rate`` (bytes a second) as the report does: ``7329.56kb/s``, and ``0kb/s`` for zero."""
    text = format_kb(rate)
    return f"{'0' if text == '0.0' else text}kb/s"


def format_size(size: float) -> str:
    """Formats ``size`` bytes, such as ``12 B`` or ``3.4 MiB``."""
    if size < 1024:
        return f"{size:.0f} B"
    for unit in ("KiB", "MiB", "GiB"):
        size /= 1024
        if size < 1024:
            return f"{size:.1f} {unit}"
    return f"{size / 1024:.1f} TiB"


def format_duration(seconds: float) -> str:
    """Formats ``seconds``, such as ``1:02:03`` or ``0:07``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
