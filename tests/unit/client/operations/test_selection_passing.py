"""What is passed on of a selection: units that arrive, and those that are there already."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pytest

from msd.client.network.session import Session
from msd.client.operations.selection_download import SelectionDownload
from msd.client.operations.selection_passing import SelectionPassing
from msd.client.operations.transfer import Transfer
from msd.client.plan.plan import BundleUnit, Plan
from msd.wire.errors import DiskError, NotFoundError
from msd.wire.protocol.messages import Describe, Entry, Get, GetBundle, List, Refusal
from msd.wire.protocol.segments import Manifest
from msd.wire.protocol.states import RefusalReason
from tests.memory_receiver import MemoryOutput, MemoryReceiver
from tests.memory_worker import MemoryWorker, entry_of, manifest_of

MIB = 1 << 20
FILES = {
    "empty": b"",
    "photos/": b"",
    "photos/a": b"a" * 1000,
    "photos/b": b"b" * 2000,
    "photos/film": b"film" * (MIB // 2),
    "photos/kept": b"kept" * (MIB // 2),
    "photos/z": b"z",
}


class Recorder:
    """Takes the place of ``PassingOn``."""

    def __init__(self) -> None:
        self.plan, self.units = b"", 0
        self.files: list[str] = []
        self.received: dict[str, tuple[int, bytes]] = {}
        self.verified: list[int] = []

    def start(
        self, _: object, transfer: Transfer, plan: bytes, units: int, files: Iterable[Entry], *, folder: int
    ) -> None:
        assert folder == 5
        transfer.pass_on(plan, units)
        self.plan, self.units, self.files = plan, units, [file.name for file in files]

    def receive(self, manifest: Manifest, first_unit: int, descriptors: Sequence[int]) -> None:
        assert not descriptors
        self.received[manifest.name] = first_unit, manifest.id

    def add_verified(self, unit: int) -> None:
        self.verified.append(unit)


def download(worker: MemoryWorker, receiver: MemoryReceiver, *names: str) -> tuple[SelectionDownload, Recorder]:
    pool: Any = worker
    session, recorder = Session(pool), Recorder()
    passing: Any = recorder
    transfer = Transfer(session, memory=64 * MIB, max_rate=None, on_event=lambda event: None)
    selection = SelectionDownload(
        session,
        transfer,
        names,
        (),
        receiver,
        memory=MIB,
        on_event=lambda event: None,
        passing=SelectionPassing(session, transfer, passing, 5),
    )
    session.start(transfer)
    session.run(selection)
    assert transfer.remaining == 0
    assert transfer.verified == transfer.total
    return selection, recorder


def plan_of(files: dict[str, bytes]) -> Plan:
    plan = Plan()
    plan.add(entry_of(name, data) for name, data in sorted(files.items()))
    plan.finish()
    return plan


@pytest.mark.parametrize("page_size", [1, 100])
def test_all_units_of_the_plan_are_passed_on(page_size: int) -> None:
    worker, receiver = MemoryWorker({**FILES}, page_size), MemoryReceiver()
    _, recorder = download(worker, receiver, "/")
    assert receiver.files == FILES
    plan = plan_of(FILES)
    assert (recorder.plan, recorder.units) == (plan.id, plan.units)
    assert recorder.files == [name for name, data in FILES.items() if data]
    assert sorted(recorder.verified) == [*range(plan.units)]
    film, kept = (manifest_of(name, FILES[name]).id for name in ("photos/film", "photos/kept"))
    assert recorder.received == {"photos/film": (1, film), "photos/kept": (13, kept)}


def test_files_that_are_there_already_are_passed_on_too() -> None:
    """The digests of a large one are looked up. The plan is the same as without them."""
    worker = MemoryWorker({**FILES})
    receiver = MemoryReceiver(existing={"photos/a": b"same", "photos/kept": b"same", "photos/z": b"same"})
    _, recorder = download(worker, receiver, "/")
    plan = plan_of(FILES)
    assert recorder.plan == plan.id
    assert sorted(recorder.verified) == [*range(plan.units)]
    (bundle,) = [request for request in worker.requests if isinstance(request, GetBundle)]
    assert bundle.ids == entry_of("photos/b", FILES["photos/b"]).id
    assert {request.id for request in worker.requests if isinstance(request, Get)} == {
        recorder.received["photos/film"][1]
    }
    assert {request.name for request in worker.requests if isinstance(request, Describe)} == {
        "photos/film",
        "photos/kept",
    }


def test_a_bundle_that_lacks_a_file_is_not_passed_on() -> None:
    worker, receiver = MemoryWorker({**FILES}), MemoryReceiver("photos/b")
    selection, recorder = download(worker, receiver, "/")
    assert [*selection.errors] == ["photos/b"]
    assert sorted(recorder.verified) == [*range(1, plan_of(FILES).units)]


def test_a_file_of_which_there_is_another_version_is_not_passed_on() -> None:
    """It was listed in the version of the plan; the one that is received is not that one."""
    worker = MemoryWorker({**FILES})
    worker.files["photos/film"] = b"news" * (MIB // 2)
    worker.files["photos/a"] = b"A" * 1000

    class WatchedReceiver(MemoryReceiver):
        def open(self, manifest: Manifest) -> MemoryOutput:
            assert manifest.name in ("photos/film", "photos/kept", "photos/a")
            return super().open(manifest)

    receiver = WatchedReceiver()
    _, recorder = download(worker, receiver, "/")
    assert receiver.files == worker.files
    plan = plan_of(FILES)
    assert {*recorder.received} == {"photos/kept"}
    assert isinstance(plan.unit(0), BundleUnit)
    assert sorted(recorder.verified) == [*range(13, plan.units)]


def test_a_file_that_is_given_back_completes_its_bundle() -> None:
    worker, receiver = MemoryWorker({**FILES}), MemoryReceiver()
    worker.refused_in_bundles = {"photos/a"}
    _, recorder = download(worker, receiver, "/")
    assert sorted(recorder.verified) == [*range(plan_of(FILES).units)]


def test_a_bundle_of_which_a_given_back_file_cannot_be_put_in_place_is_not_passed_on() -> None:
    class FullReceiver(MemoryReceiver):
        def finish(self, manifest: Manifest) -> None:
            if manifest.name == "photos/a":
                raise DiskError("photos/a exists")
            super().finish(manifest)

    worker = MemoryWorker({**FILES})
    worker.refused_in_bundles = {"photos/a"}
    selection, recorder = download(worker, FullReceiver(), "/")
    assert [*selection.errors] == ["photos/a"]
    assert sorted(recorder.verified) == [*range(1, plan_of(FILES).units)]


class ChangingWorker(MemoryWorker):
    """Shares ``later`` instead of what it has listed so far when the third page is requested."""

    def __init__(self, files: dict[str, bytes], later: dict[str, bytes]) -> None:
        super().__init__(files, page_size=2)
        self._later: dict[str, bytes] | None = later

    def _answer(self, request: Any) -> tuple[Any, bytes | None]:
        if self._later is not None and isinstance(request, List) and request.after == "photos/b":
            self.files, self._later = self._later, None
            self._listing = [entry_of(name, data) for name, data in sorted(self.files.items())]
            return Refusal(rid=request.rid, epoch=7, reason=RefusalReason.UNKNOWN), None
        return super()._answer(request)


def test_after_a_listing_that_begins_again_the_last_one_counts() -> None:
    """A file of the first one that is not shared any more fails; nothing was fetched before."""
    later = {name: data for name, data in FILES.items() if name != "photos/a"} | {"photos/b": b"B" * 3000}
    worker, receiver = ChangingWorker({**FILES}, later), MemoryReceiver()
    selection, recorder = download(worker, receiver, "/")
    assert receiver.files == later
    assert {name: type(error) for name, error in selection.errors.items()} == {"photos/a": NotFoundError}
    counts = selection.counts
    assert (counts.listed, counts.fetched, counts.failed) == (6, 5, 1)
    assert selection.progress().is_complete
    assert recorder.plan == plan_of(later).id
    assert sorted(recorder.verified) == [*range(plan_of(later).units)]
