"""The indexing process: indexes what is shared, and again whenever that has changed.

Each time it writes a whole new catalogue, an *edition*, into a folder of its own. Workers turn to
it when the broker tells them. How a file is hashed is said in ``workers/index.py``, when to look in
``workers/watching.py``.
"""

from __future__ import annotations

import os
import select
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
from msgspec import structs

from wire.errors import MsdError
from wire.messages import Indexed, IndexSkipped
from wire.names import presentable
from wire.segments import digest
from workers.index import DigestCache, Report, found_below, write_catalogue, write_empty
from workers.watching import Watch

#: Editions kept: a worker may be about to open the one before the last.
KEPT = 2


def keep_indexed(root: Path, folder: Path, cache: DigestCache, report: Report) -> None:
    """Writes an edition of the catalogue of ``root`` into ``folder``, and one more after each change,
    until standard input ends. A line on it says that something may have changed.

    Raises ``MsdError`` if there is nothing to share to begin with. What is shared may vanish later:
    there is an edition of no files then.
    """
    editions = _Editions(folder)
    seen = _look(root)
    report(editions.add(lambda into: write_catalogue(root, into, cache, report)))
    cache.expire()
    # From now on it competes with the workers.
    os.nice(10)
    watch = Watch(seen, time.monotonic())
    while _wait(watch):
        began = time.monotonic()
        seen = _look(root)
        now = time.monotonic()
        if watch.looked(seen, now - began, now):
            try:
                indexed = editions.add(lambda into: write_catalogue(root, into, cache, report))
            except MsdError as error:
                report(IndexSkipped(name=presentable(root.name), why=str(error)))
                indexed = editions.add(write_empty)
            report(indexed)
            watch.indexed(seen, time.monotonic() - now)


class _Editions:
    """The editions in ``folder``, each in a folder that is named by its number."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def add(self, write: Callable[[Path], Indexed]) -> Indexed:
        """One more, written by ``write`` into the folder that it is given."""
        # Not among the others before it is complete, whatever ends this process.
        unfinished = self._folder / "unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        indexed = write(unfinished)
        numbers = sorted(int(name) for name in os.listdir(self._folder) if name.isdigit())
        number = numbers[-1] + 1 if numbers else 1
        unfinished.rename(self._folder / str(number))
        for old in numbers[: 1 - KEPT]:
            shutil.rmtree(self._folder / str(old), ignore_errors=True)
        return structs.replace(indexed, edition=number)


def _wait(watch: Watch) -> bool:
    """Waits until it is time to look; False if standard input has ended."""
    while (left := watch.next_look - time.monotonic()) > 0:
        if select.select([0], [], [], left)[0]:
            if not os.read(0, 4096):
                return False
            watch.nudge()
    return True


def _look(root: Path) -> bytes:
    """What tells this state of the shared files from others."""
    try:
        found = sorted(found_below(root, lambda line: None))
    except MsdError as error:
        return str(error).encode()
    return digest(msgspec.json.Encoder().encode_lines(found))
