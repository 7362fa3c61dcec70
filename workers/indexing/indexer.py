"""The indexing process: indexes the shared files, and indexes them again after each change.

Each time it writes a complete new catalogue, an *edition*, into a separate folder. Workers switch to an edition
when the broker orders them to. Does not hash files (``workers/indexing/catalogue_writer.py``) and does not decide
when to scan or what to index (``workers/indexing/rescan_policy.py``).
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import shutil
import time
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from pathlib import Path

import msgspec
from blake3 import blake3
from msgspec import structs

from msd.wire.config.store_urls import WEB
from msd.wire.errors import DiskError, MsdError, SourceError
from msd.wire.protocol.child_messages import (
    Indexed,
    IndexLeftOut,
    IndexLine,
    IndexNote,
    IndexSkipped,
    IndexSkips,
    RescanRequest,
)
from msd.wire.protocol.messages import SuspectSegment
from msd.wire.protocol.segments import content_id, digest, span
from msd.wire.support.core import TimePassed
from msd.wire.support.units import format_count
from msd.workers.indexing.catalogue_writer import OnProgress, write_catalogue
from msd.workers.indexing.digest_cache import DigestCache
from msd.workers.indexing.file_hasher import CHANGED
from msd.workers.indexing.kept_index import MAX_SIZE, KeptIndex, encode
from msd.workers.indexing.rescan_policy import (
    CheckFiles,
    ContentChanged,
    FilesChecked,
    IndexFiles,
    IndexingEnded,
    RescanPolicy,
    Scanned,
    ScanRequested,
    StartScan,
)
from msd.workers.source.catalogue import (
    AnyVersion,
    Catalogue,
    SharedFile,
    Version,
    editions,
    open_edition,
)
from msd.workers.source.file_systems import FileSystems
from msd.workers.source.local_files import open_shared
from msd.workers.source.scan import Scan, current_versions, scan
from msd.workers.source.share import Share, left_out_text

#: Editions kept on disk. Two, because a worker may be about to open the one before the latest.
KEPT_EDITIONS = 2
#: Seconds between two scans if stores are shared: each takes a request for a thousand objects.
STORE_SCAN_INTERVAL_S = 60.0
#: Seconds between two removals of expired digests from the cache.
CACHE_EXPIRY_INTERVAL_S = 86400.0
#: While an edition cannot be written, this is reported as not shared, in place of a file name.
LATEST_CHANGES = "the latest changes"
#: Maximum number of skipped files reported by name for an edition; the others are only counted. Limited because a
#: folder may contain any number of such files.
MAX_NAMED_SKIPS = 20
#: Maximum number of reasons, and of characters of a reason, in the line that counts such files.
MAX_REASONS, MAX_REASON_LENGTH = 4, 100
#: Reported for a file whose data differs although its times are those of the indexed version, where times are reliable.
#: It is not indexed again: clients would take the damaged data for a new version.
DAMAGED = "its content changed but its times did not: check the disk, then touch the file to share it as it is"


def keep_indexed(share: Share, folder: Path, cache: DigestCache, on_progress: OnProgress) -> None:
    """Writes an edition of the catalogue of ``share`` into ``folder``, and another one after each change, until
    standard input is closed. A line on standard input, a ``RescanRequest``, requests a scan.

    Raises ``MsdError`` if the first edition cannot be written. Once ``folder`` holds an edition, an error leads to an
    edition without files or to a retry.
    """
    indexer = _Indexer(share, folder, cache, on_progress)
    if not indexer.has_edition:
        indexer.update()
    # Workers are serving from now on: give them priority over indexing.
    os.nice(10)
    requests = _Requests()
    while True:
        indexer.write_cache()
        match _wait(indexer, requests):
            case StartScan():
                indexer.update()
            case CheckFiles(names):
                indexer.check_versions(names)
            case None:
                break


class _Indexer:
    """Adds editions to ``folder``, each in a subfolder named by its number."""

    def __init__(self, share: Share, folder: Path, cache: DigestCache, on_progress: OnProgress) -> None:
        self._share = share
        self._stores = share.open_stores()
        #: The indexes that lie beside the objects of stores; None before they are read. They are used once.
        self._kept: list[KeptIndex] | None = None
        #: What was written last, by the name of the store.
        self._written: dict[str, bytes] = {}
        self._folder = folder
        self._cache = cache
        self._progress = _ProgressFilter(on_progress)
        self._file_systems = FileSystems()
        self._expire_at = 0.0
        #: True until this process has added an edition: its first edition is added even if nothing changed.
        self._is_new = True
        with self._latest_edition() as latest:
            self.has_edition = latest is not None
            min_interval = STORE_SCAN_INTERVAL_S if self._stores else 0.0
            self.policy: RescanPolicy[AnyVersion] = RescanPolicy(latest.versions if latest else {}, min_interval)
        #: The versions that the last scan saw.
        self._last: Mapping[str, AnyVersion] = self.policy.indexed

    def update(self) -> None:
        """Scans once, and adds an edition if needed. Raises ``MsdError`` only while there is no edition."""
        started = time.monotonic()
        result = scan(self._share, tolerant=self.has_edition, known=self.policy.indexed, stores=self._stores)
        self._progress.on_scan(result)
        self._last = result.versions
        self._handle(Scanned(self._last, time.monotonic() - started))

    def check_versions(self, names: Set[str]) -> None:
        """Looks at changed files once more, and adds an edition if some have stopped changing."""
        started = time.monotonic()
        versions = current_versions(self._share, names, self._last)
        self._handle(FilesChecked(versions, time.monotonic() - started))

    def write_cache(self) -> None:
        """Writes new digests to the cache, and once a day removes expired ones."""
        self._cache.write()
        if time.monotonic() >= self._expire_at:
            self._expire_at = time.monotonic() + CACHE_EXPIRY_INTERVAL_S
            self._cache.expire(version for version in self.policy.indexed.values() if isinstance(version, Version))

    def check(self, suspect: SuspectSegment) -> None:
        """Reads a segment of the latest edition, and has each file indexed again whose data there is another one
        although its version is the indexed one. Reads the whole of a small file: if it was in a bundle, the client does
        not know which segment differs.
        """
        with self._latest_edition() as latest:
            if latest is None or (found := latest.find(None, suspect.id)) is None:
                return  # The file has already been indexed again.
            for file in latest.copies(found):
                # A worker does not suspect the objects of stores.
                if self._share.is_in_store(file.name) or not self._differs(latest, file, suspect.index):
                    continue
                if self._file_systems.has_reliable_times(file.version.device):
                    self._progress(IndexSkipped(name=file.name, reason=DAMAGED))
                else:
                    self.policy.handle(ContentChanged(file.name), time.monotonic())

    def _handle(self, event: Scanned[AnyVersion] | FilesChecked[AnyVersion]) -> None:
        for action in self.policy.handle(event, time.monotonic()):
            assert isinstance(action, IndexFiles)
            self._try_index(action.versions, action.reread)

    def _differs(self, catalogue: Catalogue, file: SharedFile, index: int) -> bool:
        """True if the file has the indexed version, but a segment, or a small file as a whole, has other data."""
        try:
            fd, status = open_shared(self._share, file.name)
            with os.fdopen(fd, "rb", buffering=0):
                if Version.of(status) != file.version:
                    return False
                if file.is_small:
                    return content_id(memoryview(os.pread(fd, file.size, 0))) != file.id
                offset, length = span(file.size, index)
                return digest(os.pread(fd, length, offset)) != catalogue.digests(file, index, 1)
        except OSError:
            return False

    def _try_index(self, wanted: Mapping[str, AnyVersion], reread: Set[str]) -> None:
        indexed = self.policy.indexed
        try:
            indexed = self._index(wanted, reread)
        except MsdError as error:
            if not self.has_edition:
                raise
            self._progress(IndexSkipped(name=LATEST_CHANGES, reason=str(error)))
        else:
            self._progress.on_indexed(indexed)
            self.has_edition = True
            self._kept = []
            if self._share.keep_index:
                self._write_indexes()
        self.policy.handle(IndexingEnded(indexed), time.monotonic())

    def _index(self, wanted: Mapping[str, AnyVersion], reread: Set[str]) -> Mapping[str, AnyVersion]:
        """Indexes the ``wanted`` versions, and adds an edition if the result differs from the latest edition. Returns
        the versions in the latest edition.
        """
        # Write under another name and rename at the end: an interrupted run must not leave an incomplete edition.
        unfinished = self._folder / "unfinished"
        try:
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir()
            with self._latest_edition() as latest:
                line, indexed = write_catalogue(
                    self._share,
                    wanted,
                    unfinished,
                    self._cache,
                    self._progress,
                    latest,
                    reread,
                    self._stores,
                    self._kept_indexes(),
                )
                has_same_content = latest is not None and latest.id.hex() == line.catalogue
            # An empty folder may fill later; files of which none can be read are a mistake.
            files = [name for name, version in wanted.items() if isinstance(version, Version)]
            if not self.has_edition and files and not line.files:
                reason = self._progress.last_reasons[files[0]]
                error = SourceError if reason == CHANGED or self._share.is_in_store(files[0]) else DiskError
                raise error(f"{self._share}: cannot be shared: {reason}")
            if indexed == self.policy.indexed and has_same_content and not self._is_new:
                return indexed
            numbers = editions(self._folder)
            number = numbers[-1] + 1 if numbers else 1
            unfinished.rename(self._folder / str(number))
        except OSError as error:
            raise DiskError(
                f"{self._folder}: cannot write the index: {error.strerror or error}: free some space there,"
                " or set XDG_RUNTIME_DIR to another folder"
            ) from None
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
        for old in numbers[: 1 - KEPT_EDITIONS]:
            shutil.rmtree(self._folder / str(old), ignore_errors=True)
        self._progress(structs.replace(line, edition=number))
        self._is_new = False
        return indexed

    def _kept_indexes(self) -> list[KeptIndex]:
        """Returns the indexes that lie beside the objects of stores. Reads them at the first call."""
        if self._kept is None:
            self._kept = []
            for store in self._stores.values():
                if store.url.scheme in WEB:
                    continue
                try:
                    self._kept.append(KeptIndex.decode(store.read_whole(store.index_key, MAX_SIZE), store.device))
                except (OSError, ValueError) as error:
                    if getattr(error, "errno", 0) != errno.ENOENT:
                        self._progress(IndexNote(text=f"cannot use the index that {store.url} keeps: {_text(error)}"))
        return self._kept

    def _write_indexes(self) -> None:
        """Writes the index of each store beside its objects, if it has changed."""
        for root, store in self._stores.items():
            with self._latest_edition() as latest:
                assert latest is not None
                files = [
                    f for f in latest.files if self._share.is_in_store(f.name) and self._share.split(f.name)[0] == root
                ]
                data = encode((f.version, f.id, b"" if f.is_small else latest.digests(f, 0, f.segments)) for f in files)
            if blake3(data).digest() == self._written.get(root):
                continue
            try:
                store.write_whole(store.index_key, data)
            except OSError as error:
                self._progress(IndexNote(text=f"cannot keep the index in {store.url}: {_text(error)}"))
            self._written[root] = blake3(data).digest()

    def _latest_edition(self) -> contextlib.AbstractContextManager[Catalogue | None]:
        """Opens the latest edition; None if there is none."""
        try:
            _, catalogue = open_edition(self._folder, 0)
            return contextlib.closing(catalogue)
        except FileNotFoundError:
            return contextlib.nullcontext()
        except OSError as error:
            raise DiskError(f"{self._folder}: cannot read the index: {error.strerror}: start msd serve again") from None


def _text(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)


class _ProgressFilter:
    """Forwards progress, but reports the reason why a file is not shared only when the reason changes, and only for the
    first ``MAX_NAMED_SKIPS`` files of an edition.
    """

    def __init__(self, on_progress: OnProgress) -> None:
        self._on_progress = on_progress
        #: The reported reasons by file name, as long as they apply.
        self.last_reasons: dict[str, str] = {}
        #: The files left out, as last reported.
        self.left_out = ""
        #: The files that cannot be shared, as last reported.
        self._skips = ""
        self._skipped = 0

    def __call__(self, line: IndexLine) -> None:
        if isinstance(line, IndexSkipped):
            if self.last_reasons.get(line.name) == line.reason:
                return
            self.last_reasons[line.name] = line.reason
            self._skipped += 1
            if self._skipped > MAX_NAMED_SKIPS:
                return
        elif isinstance(line, Indexed):
            line = structs.replace(line, unnamed=max(self._skipped - MAX_NAMED_SKIPS, 0))
            self._skipped = 0
        self._on_progress(line)

    def on_scan(self, result: Scan) -> None:
        """Reports the files that cannot be shared. Forgets deleted files: if they return, they are reported again."""
        present = ({LATEST_CHANGES}, result.files, result.skipped)
        reasons = self.last_reasons.items()
        self.last_reasons = {name: reason for name, reason in reasons if any(name in names for names in present)}
        for name, reason in result.skipped.items():
            self(IndexSkipped(name=name, reason=reason))
        if (left_out := left_out_text(result.left_out)) != self.left_out:
            self.left_out = left_out
            self(IndexLeftOut(text=left_out))
        self._report_skips()

    def on_indexed(self, indexed: Mapping[str, AnyVersion]) -> None:
        """Forgets the reasons reported for files that are now shared, and for a failure to write an edition."""
        self.last_reasons = {
            name: reason for name, reason in self.last_reasons.items() if name not in indexed and name != LATEST_CHANGES
        }
        self._report_skips()

    def _report_skips(self) -> None:
        """Reports how many files cannot be shared, if that has changed."""
        text = skips_text([reason for name, reason in self.last_reasons.items() if name != LATEST_CHANGES])
        if text != self._skips:
            self._skips = text
            self(IndexSkips(text=text))


def skips_text(reasons: Sequence[str]) -> str:
    """Returns how many files cannot be shared, for the ``reasons`` of all of them; empty if there are none."""
    if not reasons:
        return ""
    counts = Counter(reasons).most_common()
    texts = [f"{reason[:MAX_REASON_LENGTH]} ({count:,})" for reason, count in counts[:MAX_REASONS]]
    if others := sum(count for _, count in counts[MAX_REASONS:]):
        texts.append(f"other reasons ({others:,})")
    return f"{format_count(len(reasons), 'file')}: {', '.join(texts)}"


class _Requests:
    """The requests of the broker: lines on standard input."""

    def __init__(self) -> None:
        self._partial_line = b""

    def read(self) -> list[RescanRequest] | None:
        """Returns the requests that have arrived; None if standard input was closed."""
        data = os.read(0, 4096)
        if not data:
            return None
        *lines, self._partial_line = (self._partial_line + data).split(b"\n")
        return [msgspec.json.decode(line, type=RescanRequest) for line in lines]


def _wait(indexer: _Indexer, requests: _Requests) -> StartScan | CheckFiles | None:
    """Waits until a scan or a check is due, and compares suspect segments meanwhile; returns None if standard input was
    closed.
    """
    policy = indexer.policy
    while not (actions := policy.handle(TimePassed(), now := time.monotonic())):
        deadline = policy.next_deadline(now)
        assert deadline is not None
        if select.select([0], [], [], max(0.0, deadline - now))[0]:
            if (received := requests.read()) is None:
                return None
            for suspect in {request.suspect for request in received if request.suspect is not None}:
                indexer.check(suspect)
            policy.handle(ScanRequested(), time.monotonic())
    (action,) = actions
    assert not isinstance(action, IndexFiles)
    return action
