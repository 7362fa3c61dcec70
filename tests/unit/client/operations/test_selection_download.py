"""A selection of files in one session: bundles, large files, and files that fail or change."""

from __future__ import annotations

from typing import Any

import pytest

from msd.client.network.session import Session
from msd.client.operations.selection_download import SelectionDownload
from msd.client.operations.transfer import Transfer
from msd.client.storage.output import Output
from msd.wire.errors import DiskError, MsdError, NotFoundError, SourceError
from msd.wire.protocol.messages import Describe, Entry, Get, GetBundle, List, Refusal
from msd.wire.protocol.segments import Manifest
from msd.wire.protocol.states import RefusalReason
from tests.memory_worker import MemoryWorker

MIB = 1 << 20
FILES = {
    "empty": b"",
    "photos/": b"",
    "photos/a": b"a" * 1000,
    "photos/b": b"b" * 2000,
    "photos/film": b"film" * (MIB // 2),
    "photos/z": b"z",
}


class MemoryOutput(Output):
    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self.data = bytearray(manifest.size)

    def write(self, index: int, data: memoryview) -> None:
        offset, length = self.manifest.span(index)
        self.data[offset : offset + length] = data


class MemoryReceiver:
    """Keeps the files; ``broken`` names cannot be saved."""

    def __init__(self, *broken: str) -> None:
        self.files: dict[str, bytes] = {}
        self._broken = broken

    def add_folder(self, entry: Entry) -> None:
        self.files[entry.name] = b""

    def save(self, entry: Entry, data: memoryview) -> None:
        if entry.name in self._broken:
            raise DiskError(f"{entry.name}: no space left")
        self.files[entry.name] = bytes(data)

    def open(self, manifest: Manifest) -> MemoryOutput:
        if manifest.name in self._broken:
            raise DiskError(f"{manifest.name}: no space left")
        return MemoryOutput(manifest)

    def discard(self, output: Output) -> None:
        pass

    def finish(self, output: Output) -> None:
        assert isinstance(output, MemoryOutput)
        self.files[output.manifest.name] = bytes(output.data)


def download(
    worker: MemoryWorker, receiver: MemoryReceiver, *names: str, excludes: tuple[str, ...] = ()
) -> tuple[SelectionDownload, Transfer]:
    pool: Any = worker
    session = Session(pool)
    transfer = Transfer(session, memory=64 * MIB, max_rate=None, on_event=lambda event: None)
    selection = SelectionDownload(session, transfer, names, excludes, receiver, memory=MIB, on_event=lambda event: None)
    session.start(transfer)
    session.run(selection)
    return selection, transfer


def errors_of(selection: SelectionDownload) -> dict[str, type[MsdError]]:
    return {name: type(error) for name, error in selection.failed.items()}


@pytest.mark.parametrize("page_size", [1, 2, 100])
def test_a_folder_arrives_in_bundles_and_segments(page_size: int) -> None:
    worker, receiver = MemoryWorker({**FILES}, page_size), MemoryReceiver()
    selection, transfer = download(worker, receiver, "photos/", "empty")
    assert receiver.files == FILES
    assert (selection.files, selection.failed) == (5, {})
    total = sum(map(len, FILES.values()))
    assert (transfer.total, transfer.verified, transfer.received, transfer.wasted) == (total, total, total, 0)
    bundles = [request for request in worker.requests if isinstance(request, GetBundle)]
    assert len(bundles) == 2, "the film separates the files before it from the one after it"
    assert {request.index for request in worker.requests if isinstance(request, Get)} == {*range(12)}


def test_a_single_file_is_fetched_by_segments_whatever_its_size() -> None:
    worker, receiver = MemoryWorker({**FILES}), MemoryReceiver()
    download(worker, receiver, "photos/a")
    assert receiver.files == {"photos/a": FILES["photos/a"]}
    assert not any(isinstance(request, GetBundle) for request in worker.requests)


def test_excluded_files_are_not_requested() -> None:
    worker, receiver = MemoryWorker({**FILES}), MemoryReceiver()
    selection, _ = download(worker, receiver, "photos/", excludes=("film", "b"))
    assert sorted(receiver.files) == ["photos/", "photos/a", "photos/z"]
    assert selection.files == 2


def test_a_file_that_changed_since_the_listing_is_fetched_in_its_new_version() -> None:
    worker, receiver = MemoryWorker({**FILES}), MemoryReceiver()
    worker.files |= {"photos/a": b"new" * 500, "photos/film": b"cut" * MIB}
    selection, transfer = download(worker, receiver, "photos/")
    assert receiver.files == {name: data for name, data in worker.files.items() if name != "empty"}
    assert selection.failed == {}
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
    assert selection.files == 3


def test_a_name_that_selects_nothing_is_named() -> None:
    worker, receiver = MemoryWorker({**FILES}), MemoryReceiver()
    selection, _ = download(worker, receiver, "photos/a", "music/", "*.txt")
    assert receiver.files == {"photos/a": FILES["photos/a"]}
    assert errors_of(selection) == {"music/": NotFoundError, "*.txt": NotFoundError}


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
    assert (selection.files, selection.size, selection.failed) == (6, total, {})
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
    assert transfer.total == transfer.verified == selection.size == 3001
