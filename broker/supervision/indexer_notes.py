"""Formats the indexer's messages as human-readable notes.

Does not print them. A folder may contain any number of files that cannot be shared, so only the first few are named.
"""

from __future__ import annotations

from msd.wire.protocol.child_messages import Indexed, IndexLine, IndexProgress, IndexSkipped
from msd.wire.support.units import format_count, format_size

#: Maximum number of skipped files reported by name; the others are only counted.
MAX_NAMED_SKIPS = 20


class IndexerNotes:
    """Formats the messages about one edition of the catalogue."""

    def __init__(self) -> None:
        self._skipped = 0

    def format(self, line: IndexLine) -> list[str]:
        """The notes for one line of the indexer's output; empty for a skipped file beyond the limit."""
        match line:
            case IndexProgress(name=name, done=done, total=total):
                return [f"indexing {name}: {100 * done // max(total, 1)} %"]
            case IndexSkipped(name=name, reason=reason):
                self._skipped += 1
                return [f"not shared: {name}: {reason}"] if self._skipped <= MAX_NAMED_SKIPS else []
            case Indexed(files=files, size=size, hashed=hashed):
                unnamed = self._skipped - MAX_NAMED_SKIPS
                skipped = [f"not shared: {unnamed:,} more"] if unnamed > 0 else []
                indexed = f"indexed {format_count(files, 'file')}, {format_size(size)}"
                if hashed < size:
                    indexed += f" ({format_size(hashed)} read, the rest from cache)" if hashed else " (from cache)"
                return [*skipped, indexed]
