"""Amounts, rates and times as people and the report write them. Pure: formats what it is given."""

from __future__ import annotations


def kb(size: float) -> str:
    return str(round(size / 1000, 2))


def speed(rate: float) -> str:
    """Bytes a second as the report writes them: nothing at all is a plain 0."""
    text = kb(rate)
    return f"{'0' if text == '0.0' else text}kb/s"


def amount(size: float) -> str:
    """A number of bytes for people, as ``12 B`` or ``3.4 MiB``."""
    if size < 1024:
        return f"{size:.0f} B"
    for unit in ("KiB", "MiB", "GiB"):
        size /= 1024
        if size < 1024:
            return f"{size:.1f} {unit}"
    return f"{size / 1024:.1f} TiB"


def span(seconds: float) -> str:
    """A time for people, as ``1:02:03`` or ``0:07``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
