"""Formats the indexer's messages as human-readable notes. Does not print them."""

from __future__ import annotations

from msd.wire.protocol.child_messages import (
    Indexed,
    IndexingDone,
    IndexLeftOut,
    IndexLine,
    IndexNote,
    IndexProgress,
    IndexSkipped,
    IndexSkips,
)
from msd.wire.support.units import format_count, format_size

#: Longer names are shortened: a path may have 4095 characters.
MAX_NAME_LENGTH = 200


def indexer_notes(line: IndexLine) -> list[str]:
    """The notes for one line of the indexer's output."""
    match line:
        case IndexProgress(name=name, files=files, total_files=total_files):
            percent = f"indexing {_shortened(name)}: {line.percent} %"
            return [percent if total_files == 1 else f"{percent} ({files:,} of {total_files:,} files)"]
        case IndexNote(text=text):
            return [text]
        case IndexingDone() | IndexSkips():
            return []
        case IndexSkipped(name=name, reason=reason):
            return [f"not shared: {_shortened(name)}: {reason}"]
        case IndexLeftOut(text=text):
            return [f"not shared: {text}" if text else "not shared: nothing is left out any more"]
        case Indexed(files=files, size=size, hashed=hashed, unnamed=unnamed):
            skipped = [f"not shared: {unnamed:,} more"] if unnamed else []
            indexed = f"indexed {format_count(files, 'file')}, {format_size(size)}"
            if hashed < size:
                indexed += f" ({format_size(hashed)} read)" if hashed else " (from cache)"
            return [*skipped, indexed]


def _shortened(name: str) -> str:
    half = MAX_NAME_LENGTH // 2
    return name if len(name) <= MAX_NAME_LENGTH else f"{name[:half]}…{name[-half:]}"
