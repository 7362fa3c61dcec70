"""A selection of files in one session: bundles, large files, and files that fail or change."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from msd.client.events import Event, FileCounts, FileResult, FilesProgress, OnEvent, Outcome, Warned
from msd.client.manifest.awaited_workers import Majority
from msd.client.network.session import Session
from msd.client.network_events import SnapshotReceived
from msd.client.operations import selection_download
from msd.client.operations.selection_download import SelectionDownload
from msd.client.operations.transfer import Transfer
from msd.client.storage.existing_file import Decision
from msd.client.storage.segments_on_disk import UnusableDiskError
from msd.client.storage.tree import Saved
from msd.wire.errors import DiskError, MsdError, NotFoundError, SourceError
from msd.wire.protocol.messages import Describe, Entry, Get, GetBundle, List, Refusal
from msd.wire.protocol.states import RefusalReason
from tests.connections import opened
from tests.listings import CATALOGUE
from tests.memory_receiver import MemoryOutput, MemoryReceiver
from tests.memory_worker import MemoryWorker, entry_of
from tests.unit.snapshots import snapshot

MIB = 1 << 20
FILES = {
    "empty": b"",
    "photos/": b"",
    "photos/a": b"a" * 1000,
    "photos/b": b"b" * 2000,
    "photos/film": b"film" * (MIB // 2),
    "photos/z": b"z",
}


def download(
    worker: MemoryWorker,
    receiver: MemoryReceiver,
    *names: str,
    excludes: tuple[str, ...] = (),
    fetches: bool = True,
    on_event: OnEvent = lambda event: None,
) -> tuple[SelectionDownload, Transfer]:
    pool: Any = worker
    session = Session(pool)
    transfer = Transfer(session, memory=64 * MIB, max_rate=None, on_event=lambda event: None)
    selection = SelectionDownload(
        session,
        transfer,
        names,
        excludes,
        receiver,
        memory=MIB,
        on_event=on_event,
        fetches=fetches,
    )
    session.start(transfer)
    session.run(selection)
    return selection, transfer


def errors_of(selection: SelectionDownload) -> dict[str, type[MsdError]]:
    return {name: type(error) for name, error in selection.errors.items()}


@pytest.mark.parametrize("page_size", [1, 2, 100])
def test_a_folder_arrives_in_bundles_and_segments(page_size: int) -> None:
    worker, receiver = MemoryWorker({**FILES}, page_size), MemoryReceiver()
    selection, transfer = download(worker, receiver, "photos/", "empty")
    assert receiver.files == FILES
    total = sum(map(len, FILES.values()))
    assert (selection.counts, selection.errors) == (FileCounts(listed=5, fetched=5, size=total), {})
    assert (transfer.total, transfer.verified, transfer.received, transfer.wasted) == (total, total, total, 0)
    bundles = [request for request in worker.requests if isinstance(request, GetBundle)]
    assert len(bundles) == 2, "the film separates the files before it from the one after it"
    assert {request.index for request in worker.requests if isinstance(request, Get)} == {*range(12)}


def test_the_user_learns_that_server_5_does_not_vouch_for_the_files() -> None:
    worker, receiver = MemoryWorker({**FILES}, page_size=1), MemoryReceiver()
    host = replace(snapshot().workers[0], host="192.0.2.1", catalogue=CATALOGUE)
    status = SnapshotReceived(snapshot(catalogue=b"", workers=[host]))
    worker.current_state = lambda: [status, *worker.ready.values()]  # type: ignore[method-assign]
    events: list[Event] = []
    download(worker, receiver, "photos/", on_event=events.append)
    warnings = [event for event in events if isinstance(event, Warned)]
    assert warnings == [Warned(Majority(1, 1).warning("these files", CATALOGUE))]


def test_replies_are_handled_while_a_page_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection_download, "CHECK_S", 0.0)
    monkeypatch.setattr(selection_download, "CHECKED_AT_ONCE", 1)
    files = {f"photos/{number}": b"film" * (MIB // 2) for number in range(5)}
    worker = MemoryWorker(files)
    requested: list[int] = []

    class WatchedReceiver(MemoryReceiver):
        def check(self, entry: Entry) -> Decision:
            requested.append(sum(isinstance(request, Get) for request in worker.requests))
            return super().check(entry)

    def record(event: object, now: float) -> list[object]:
        progress.append(event)
        return []

    receiver = WatchedReceiver()
    progress: list[object] = []
    worker.progress_timeout.handle = record
    selection, _ = download(worker, receiver, "photos/")
    assert receiver.files == files
    assert requested[0] == 0 < requested[-1], "the first file is described and requested before the last one is checked"
    assert len(progress) > len(files)
    assert selection.progress().is_complete


def test_a_file_that_is_put_in_place_is_progress() -> None:
    """The live view then shows no reason for waiting any more: it has to be reported again."""
    worker, progress = MemoryWorker({**FILES}), list[object]()
    seen: list[int] = []

    class WatchedReceiver(MemoryReceiver):
        def complete(self) -> list[Saved]:
            seen.append(len(progress))
            return super().complete()

    worker.progress_timeout.handle = lambda event, now: progress.append(event)
    download(worker, WatchedReceiver(), "photos/")
    assert len(progress) == seen[-1] + 1


def test_a_single_file_is_fetched_by_segments_whatever_its_size() -> None:
    worker, receiver = MemoryWorker({**FILES}), MemoryReceiver()
    download(worker, receiver, "photos/a")
    assert receiver.files == {"photos/a": FILES["photos/a"]}
    assert not any(isinstance(request, GetBundle) for request in worker.requests)


class WorkerOfAnotherHost(MemoryWorker):
    """A pool that is also connected to worker 2, which shares none of the files."""

    worker_numbers = (1, 2)

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(files)
        self.ready[2] = opened(2, catalogue=b"o" * 32)
        self.refused = 0

    def request(self, worker: int, request: Any) -> None:
        files, self.files = self.files, self.files if worker == 1 else {}
        self.refused += worker == 2
        super().request(worker, request)
        self._replies[-1] = replace(self._replies[-1], worker=worker)
        self.files = files


def test_a_bundle_of_which_a_worker_has_no_file_is_requested_from_another_one() -> None:
    """The files are not looked up one by one."""
    worker, receiver = WorkerOfAnotherHost({f"d/{n}": bytes([n]) * 100_000 for n in range(100)}), MemoryReceiver()
    events: list[Event] = []
    selection, transfer = download(worker, receiver, "d/", on_event=events.append)
    assert receiver.files == worker.files
    assert worker.refused > 0
    assert transfer.wasted == 0
    assert not [request for request in worker.requests if isinstance(request, Describe)]
    assert not selection.errors


def test_excluded_files_are_not_requested() -> None:
    worker, receiver = MemoryWorker({**FILES}), MemoryReceiver()
    selection, _ = download(worker, receiver, "photos/", excludes=("film", "b"))
    assert sorted(receiver.files) == ["photos/", "photos/a", "photos/z"]
    assert selection.counts.fetched == 2


def test_a_file_that_changed_since_the_listing_is_fetched_in_its_new_version() -> None:
    worker, receiver = MemoryWorker({**FILES}), MemoryReceiver()
    worker.files |= {"photos/a": b"new" * 500, "photos/film": b"cut" * MIB}
    selection, transfer = download(worker, receiver, "photos/")
    assert receiver.files == {name: data for name, data in worker.files.items() if name != "empty"}
    assert selection.errors == {}
    assert transfer.verified == 1500 + 2000 + 3 * MIB + 1
    assert any(request.name == "photos/a" for request in worker.requests if isinstance(request, Describe))


def test_a_file_that_was_deleted_since_the_listing_fails_alone() -> None:
    worker, receiver = MemoryWorker({**FILES}), MemoryReceiver()
    del worker.files["photos/a"]
    selection, _ = download(worker, receiver, "photos/")
    assert sorted(receiver.files) == ["photos/", "photos/b", "photos/film", "photos/z"]
    assert errors_of(selection) == {"photos/a": NotFoundError}


@pytest.mark.parametrize("broken", ["photos/a", "photos/film"])
def test_a_file_that_cannot_be_saved_fails_alone(broken: str) -> None:
    worker, receiver = MemoryWorker({**FILES}), MemoryReceiver(broken)
    selection, _ = download(worker, receiver, "photos/")
    assert {*receiver.files} == {*FILES} - {"empty", broken}
    assert errors_of(selection) == {broken: DiskError}
    assert (selection.counts.fetched, selection.counts.failed) == (3, 1)


def test_a_name_that_selects_nothing_is_named() -> None:
    worker, receiver = MemoryWorker({**FILES}), MemoryReceiver()
    selection, _ = download(worker, receiver, "photos/a", "music/", "*.txt")
    assert receiver.files == {"photos/a": FILES["photos/a"]}
    assert errors_of(selection) == {"music/": NotFoundError, "*.txt": NotFoundError}
    assert selection.counts == FileCounts(listed=1, fetched=1, size=1000), "only files are counted"


def test_a_folder_that_cannot_be_made_is_not_counted_as_a_file() -> None:
    receiver = MemoryReceiver("photos/")
    selection, _ = download(MemoryWorker({**FILES}), receiver, "photos/")
    assert errors_of(selection) == {"photos/": DiskError}
    assert (selection.counts.fetched, selection.counts.failed) == (4, 0)
    assert selection.progress().is_complete


class ForgetfulWorker(MemoryWorker):
    """Does not have its catalogue any more when the second page is requested, but lists another one."""

    forgets = True

    def _answer(self, request: Any) -> tuple[Any, bytes | None]:
        if self.forgets and isinstance(request, List) and request.after:
            self.forgets = False
            return Refusal(rid=request.rid, epoch=7, reason=RefusalReason.UNKNOWN), None
        return super()._answer(request)


@pytest.mark.parametrize("page_size", [1, 2, 3, 4])
def test_a_listing_that_begins_again_loses_no_file_and_saves_none_twice(page_size: int) -> None:
    files = {"a/": b"", "a/1": b"1", "a/2": b"2", "a/film": b"film" * MIB, "a/x": b"x", "a/y": b"", "a/z": b"z"}
    worker, receiver = ForgetfulWorker({**files}, page_size), MemoryReceiver()
    selection, transfer = download(worker, receiver, "a/")
    assert not worker.forgets
    assert receiver.files == files
    total = sum(map(len, files.values()))
    assert (selection.counts, selection.errors) == (FileCounts(listed=6, fetched=6, size=total), {})
    assert (transfer.total, transfer.verified) == (total, total)


class FickleWorker(MemoryWorker):
    """Refuses segments of the film, which it describes and lists, as unreadable."""

    def _answer(self, request: Any) -> tuple[Any, bytes | None]:
        if isinstance(request, Get):
            return Refusal(rid=request.rid, epoch=7, reason=RefusalReason.UNREADABLE), None
        return super()._answer(request)


def test_a_file_that_no_worker_can_read_fails_alone() -> None:
    worker, receiver = FickleWorker({**FILES}), MemoryReceiver()
    selection, transfer = download(worker, receiver, "photos/", "empty")
    assert {*receiver.files} == {*FILES} - {"photos/film"}
    assert errors_of(selection) == {"photos/film": SourceError}
    assert transfer.remaining == 0
    assert transfer.total == transfer.verified == selection.counts.size == 3001


def test_a_file_with_the_shared_content_is_kept_and_one_that_differs_is_fetched_if_it_may_be_replaced() -> None:
    existing = {"photos/a": b"same", "photos/b": b"other", "photos/film": b"mine", "photos/z": b"same"}
    worker, receiver = MemoryWorker({**FILES}), MemoryReceiver(existing=existing)
    events: list[Event] = []
    selection, transfer = download(worker, receiver, "photos/", on_event=events.append)
    assert receiver.files == {"photos/": b"", "photos/b": FILES["photos/b"]}
    results = [event for event in events if isinstance(event, FileResult)]
    assert {(result.name, result.outcome, result.bytes) for result in results} == {
        ("photos/a", Outcome.SAME, 1000),
        ("photos/b", Outcome.FETCHED, 2000),
        ("photos/film", Outcome.FAILED, 0),
        ("photos/z", Outcome.SAME, 1),
    }
    assert {result.name: result.error for result in results if result.error} == selection.errors
    assert selection.counts == FileCounts(listed=4, fetched=1, same=2, failed=1, size=2000)
    assert errors_of(selection) == {"photos/film": DiskError}
    assert transfer.total == transfer.received == 2000


def test_a_dry_run_requests_nothing_but_the_listing() -> None:
    worker, receiver = MemoryWorker({**FILES}), MemoryReceiver(existing={"photos/a": b"same"})
    events: list[Event] = []
    selection, transfer = download(worker, receiver, "photos/", "empty", fetches=False, on_event=events.append)
    assert sorted(file.name for file in selection.wanted) == ["empty", "photos/b", "photos/film", "photos/z"]
    assert {file.outcome for file in selection.wanted} == {Outcome.MISSING}
    assert events == [*selection.wanted[:2], *selection.wanted[2:], FileResult("photos/a", Outcome.SAME, 1000)]
    assert receiver.files == {}
    assert {type(request) for request in worker.requests} == {List}
    assert transfer.total == 0


def test_a_large_file_gets_the_time_of_the_listing() -> None:
    worker, receiver = MemoryWorker({**FILES}), MemoryReceiver()
    download(worker, receiver, "photos/")
    assert receiver.manifests["photos/film"].mtime_ns == entry_of("photos/film", b"").mtime_ns > 0


@pytest.mark.parametrize("method", ["write", "candidates"])
def test_a_file_that_cannot_be_written_fails_alone(monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    def fail(output: MemoryOutput, *arguments: Any) -> Any:
        raise DiskError(f"{output.manifest.name}: Input/output error")

    monkeypatch.setattr(MemoryOutput, "holds" if method == "candidates" else "write", fail)
    if method == "candidates":
        monkeypatch.setattr(MemoryOutput, "candidates", lambda output: [3])
    worker, receiver = MemoryWorker({**FILES}), MemoryReceiver()
    selection, transfer = download(worker, receiver, "photos/")
    assert sorted(receiver.files) == ["photos/", "photos/a", "photos/b", "photos/z"]
    assert errors_of(selection) == {"photos/film": DiskError}
    assert transfer.remaining == 0


def test_a_disk_that_is_too_small_is_noticed_before_a_page_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is checked is requested at once, and could fill the disk before the check of the page ends."""
    monkeypatch.setattr(selection_download, "CHECK_S", 0.0)
    monkeypatch.setattr(selection_download, "CHECKED_AT_ONCE", 1)
    checked: list[str] = []

    class SmallReceiver(MemoryReceiver):
        def check(self, entry: Entry) -> Decision:
            checked.append(entry.name)
            return super().check(entry)

        def check_free_space(self, needed: int) -> None:
            if needed > 2 * MIB:
                raise DiskError("too small")

    worker = MemoryWorker({f"photos/{number}": b"film" * (MIB // 2) for number in range(5)})
    with pytest.raises(DiskError, match="too small"):
        download(worker, SmallReceiver(), "photos/")
    assert len(checked) == 2


def test_a_full_disk_ends_the_download() -> None:
    class FullReceiver(MemoryReceiver):
        def save(self, entry: Entry, data: memoryview) -> None:
            raise UnusableDiskError("no space left")

    with pytest.raises(UnusableDiskError):
        download(MemoryWorker({**FILES}), FullReceiver(), "photos/")


def test_the_progress_has_the_numbers_of_files_and_those_in_flight() -> None:
    seen: list[FilesProgress] = []

    class WatchedWorker(MemoryWorker):
        def wait(self, deadline: float) -> None:
            super().wait(deadline)
            seen.append(selection.progress())

    pool: Any = WatchedWorker({**FILES}, page_size=3)
    session = Session(pool)
    transfer = Transfer(session, memory=64 * MIB, max_rate=None, on_event=lambda event: None)
    options: Any = {"memory": MIB, "on_event": lambda event: None}
    selection = SelectionDownload(session, transfer, ["photos/"], (), MemoryReceiver(), **options)
    session.start(transfer)
    session.run(selection)
    assert seen[0] == FilesProgress(FileCounts(), is_listed=False, in_flight=())
    assert not any(progress.is_complete for progress in seen)
    assert all(file.bytes for progress in seen for file in progress.in_flight), "no file is named before it arrives"
    (film,) = {file.name: file.total for progress in seen for file in progress.in_flight}.items()
    assert film == ("photos/film", 2 * MIB)
    assert selection.progress() == FilesProgress(selection.counts, is_listed=True, in_flight=())
    assert selection.progress().counts is not selection.counts
    assert selection.progress().is_complete
