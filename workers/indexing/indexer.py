"""The indexing process: indexes what is shared, and again whenever that has changed.

Each time it writes a whole new catalogue, an *edition*, into a folder of its own. Workers turn to
it when the broker tells them. How a file is hashed is said in ``workers/indexing/catalogue_writer.py``, when to
look and what to index in ``workers/indexing/rescan_policy.py``.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from msgspec import structs

from msd.wire.errors import DiskError, MsdError, NotFoundError
from msd.wire.protocol.child_messages import IndexLine, IndexSkipped
from msd.wire.support.text import presentable
from msd.workers.indexing.catalogue_writer import DigestCache, Report, write_catalogue
from msd.workers.indexing.rescan_policy import Watch
from msd.workers.source.catalogue import Catalogue, Version, editions, open_edition
from msd.workers.source.scan import Look, look, unshareable

#: Editions kept: a worker may be about to open the one before the last.
KEPT = 2
#: Seconds between two times that the cache is cleared of what is old.
EXPIRY = 86400.0
#: What is not shared while an edition cannot be written.
CHANGES = "what has changed"


def keep_indexed(root: Path, folder: Path, cache: DigestCache, report: Report) -> None:
    """Writes an edition of the catalogue of ``root`` into ``folder``, and one more after each change,
    until standard input ends. A line on it says that something may have changed.

    Raises ``MsdError`` if nothing can be indexed to begin with. Later, or with editions from before, that
    is an edition of no files or leads to another attempt.
    """
    indexer = _Indexer(root, folder, cache, report)
    if indexer.is_first:
        indexer.look()
    # From now on it competes with the workers.
    os.nice(10)
    while _wait(indexer.watch):
        indexer.look()


class _Indexer:
    """Adds editions to ``folder``, each a folder that is named by its number."""

    def __init__(self, root: Path, folder: Path, cache: DigestCache, report: Report) -> None:
        self._root = root
        self._folder = folder
        self._cache = cache
        self._notes = _Notes(report)
        self._expire_at = 0.0
        #: True while this process has added none: the first one is added although nothing may have changed.
        self._is_new = True
        with self._previous() as previous:
            self.is_first = previous is None
            self.watch = Watch({file.name: file.version for file in previous.files} if previous else {})

    def look(self) -> None:
        """Looks once, and adds an edition if there is reason to. Raises ``MsdError`` while there is none."""
        began = time.monotonic()
        try:
            found = look(self._root)
        except MsdError as error:
            if self.is_first:
                raise
            found = Look({}, {presentable(self._root.name): str(error)})
        self._notes.looked(found)
        now = time.monotonic()
        wanted = self.watch.looked(found.files, now - began, now)
        if wanted is None:
            return
        held = self.watch.held
        try:
            held = self._index(wanted)
        except MsdError as error:
            if self.is_first:
                raise
            self._notes(IndexSkipped(name=CHANGES, why=str(error)))
        else:
            self._notes.indexed(held)
            self.is_first = False
        self.watch.indexed(held, time.monotonic())

    def _index(self, wanted: Mapping[str, Version]) -> Mapping[str, Version]:
        """Adds an edition of what is wanted, if it is another one; the versions that are held now."""
        # Not among the others before it is complete, whatever ends this process.
        unfinished = self._folder / "unfinished"
        try:
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir()
            with self._previous() as previous:
                indexed, held = write_catalogue(self._root, wanted, unfinished, self._cache, self._notes, previous)
            if self.is_first and not held:
                raise self._nothing(wanted)
            if held == self.watch.held and not self._is_new:
                return held
            numbers = editions(self._folder)
            number = numbers[-1] + 1 if numbers else 1
            unfinished.rename(self._folder / str(number))
        except OSError as error:
            raise DiskError(f"{self._folder}: {error.strerror or error}") from None
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
        for old in numbers[: 1 - KEPT]:
            shutil.rmtree(self._folder / str(old), ignore_errors=True)
        self._notes(structs.replace(indexed, edition=number))
        self._is_new = False
        self._expire(held)
        return held

    def _nothing(self, wanted: Mapping[str, Version]) -> MsdError:
        for name in wanted:
            return unshareable(self._root, self._notes.said[name])
        return NotFoundError(f"{self._root}: holds no file that can be shared")

    @contextlib.contextmanager
    def _previous(self) -> Iterator[Catalogue | None]:
        """The latest edition, if there is one."""
        try:
            _, catalogue = open_edition(self._folder, 0)
        except FileNotFoundError:
            yield None
            return
        except OSError as error:
            raise DiskError(f"{self._folder}: {error.strerror}") from None
        try:
            yield catalogue
        finally:
            catalogue.close()

    def _expire(self, held: Mapping[str, Version]) -> None:
        if time.monotonic() >= self._expire_at:
            self._expire_at = time.monotonic() + EXPIRY
            self._cache.expire(held.values())


class _Notes:
    """Reports, but says only once why something is not shared."""

    def __init__(self, report: Report) -> None:
        self._report = report
        #: Why, by name; as long as it is so.
        self.said: dict[str, str] = {}

    def __call__(self, line: IndexLine) -> None:
        if isinstance(line, IndexSkipped):
            if self.said.get(line.name) == line.why:
                return
            self.said[line.name] = line.why
        self._report(line)

    def looked(self, found: Look) -> None:
        """Says what cannot be shared; what is not there any more would be said again."""
        there = {CHANGES, *found.files, *found.skipped}
        self.said = {name: why for name, why in self.said.items() if name in there}
        for name, why in found.skipped.items():
            self(IndexSkipped(name=name, why=why))

    def indexed(self, held: Mapping[str, Version]) -> None:
        """These are shared now, and an edition could be written."""
        self.said = {name: why for name, why in self.said.items() if name not in held and name != CHANGES}


def _wait(watch: Watch[Version]) -> bool:
    """Waits until it is time to look; False if standard input has ended."""
    while (left := watch.next_look - time.monotonic()) > 0:
        if select.select([0], [], [], left)[0]:
            if not os.read(0, 4096):
                return False
            watch.nudge()
    return True
