"""What the indexer says, as notes for people.

Text only: prints nothing. A folder may hold any number of files that cannot be shared, so only the
first of them are named.
"""

from __future__ import annotations

from msd.wire.protocol.child_messages import Indexed, IndexLine, IndexProgress, IndexSkipped

#: Files named that are not shared; the others are counted.
MOST_SKIPPED = 20


class IndexerNotes:
    """Turns the lines of one run of the indexer into notes."""

    def __init__(self) -> None:
        self._skipped = 0

    def of(self, line: IndexLine) -> list[str]:
        match line:
            case IndexProgress(name=name, done=done, total=total):
                return [f"indexing {name}: {100 * done // max(total, 1)} %"]
            case IndexSkipped(name=name, why=why):
                self._skipped += 1
                return [f"not shared: {name}: {why}"] if self._skipped <= MOST_SKIPPED else []
            case Indexed(files=files, size=size, hashed=hashed):
                more = self._skipped - MOST_SKIPPED
                counted = [f"not shared: {more:,} more"] if more > 0 else []
                indexed = f"indexed {files:,} file{'' if files == 1 else 's'}, {size:,} bytes"
                return [*counted, f"{indexed} ({hashed:,} of them read)"]
