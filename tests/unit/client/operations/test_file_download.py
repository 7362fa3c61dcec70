"""How the decisions about a changing file are carried out. The decisions: tests/unit/client/manifest."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from msd.client.manifest.awaited_workers import Majority
from msd.client.network.session import Session
from msd.client.network_events import SnapshotReceived
from msd.client.operations import file_download
from msd.client.operations.file_download import FileDownload
from msd.client.operations.source_error import VersionLostError
from msd.wire.errors import DiskError, MsdError, NotFoundError, SourceError
from msd.wire.protocol.messages import Status
from msd.wire.protocol.segments import Manifest, digest
from tests.unit.snapshots import snapshot

OLD, NEW = (Manifest.build("film", 1, digest(text)) for text in (b"o", b"n"))
CATALOGUE = b"c" * 32


class FakePool:
    """A pool that publishes ``CATALOGUE``. Each wait lasts until its deadline, on a virtual clock."""

    worker_numbers = ()
    stalled_seconds = 0.0

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        self.status: Status | None = snapshot(catalogue=CATALOGUE, workers=[])
        self.file_reasons: dict[object, str] = {}
        self.read_errors: dict[int, str] = {}
        self.read_error = ""
        self.reasons: list[str] = []
        monkeypatch.setattr(file_download, "time", SimpleNamespace(monotonic=lambda: self.now))

    def wait(self, deadline: float) -> None:
        if deadline > self.now:
            self.reasons += self.file_reasons.values()
            self.now = deadline

    def current_state(self) -> list[SnapshotReceived]:
        return []

    def events(self) -> list[SnapshotReceived]:
        return [SnapshotReceived(self.status)] if self.status else []


class FakeLookUp:
    """A look-up that is done at once."""

    is_done = True

    def __init__(self, found: Manifest | MsdError, majority: Majority | None = None) -> None:
        self._found = found
        self.majority = majority

    @property
    def result(self) -> tuple[Manifest, bytes]:
        if isinstance(self._found, MsdError):
            raise self._found
        return self._found, CATALOGUE

    def handle(self, event: object) -> None:
        pass

    def pass_time(self) -> float:
        return float("inf")


class FakeTransfer:
    """A transfer that is lost ``losses`` times, once each time that it is started or resumed."""

    output = SimpleNamespace(can_restart=True)
    fetched = 0

    def __init__(self, manifest: Manifest, losses: int, log: list[Any], error: SourceError) -> None:
        self.manifest = manifest
        self._losses, self._log, self._error = losses, log, error
        self.is_done = False
        self.lost: SourceError | None = None
        self.disk_error = None
        self._run()

    def resume(self) -> None:
        self._log.append("resume")
        self._run()

    def _run(self) -> None:
        self.lost = self._error if self._losses else None
        self.is_done = not self._losses
        self._losses -= 1


class Scene:
    """Look-ups that find the given versions, and transfers that complete unless their version is in ``losses``."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *found: Manifest | MsdError) -> None:
        self.pool = FakePool(monkeypatch)
        self.found = [*found]
        #: What happened, in order.
        self.log: list[Any] = []
        #: The number of times that the transfer of each version is lost, and why.
        self.losses = {OLD.id: 100, NEW.id: 0}
        self.error: SourceError = VersionLostError("every worker failed")
        #: The versions whose output cannot be opened.
        self.broken: set[bytes] = set()
        self.majority: Majority | None = None
        self.warnings: list[str] = []
        monkeypatch.setattr(file_download, "LookUp", self.look_up)

    def look_up(self, session: object, name: str | None, id: bytes | None, *, known: Manifest | None) -> FakeLookUp:
        self.log.append(("look up", name, known))
        return FakeLookUp(self.found.pop(0), self.majority)

    def start(self, manifest: Manifest, catalogue: bytes, previous: Any) -> Any:
        assert catalogue == CATALOGUE
        assert previous is None or previous.is_done, "it would go on with an output that is closed"
        self.log.append(("start", manifest, previous and previous.manifest))
        if manifest.id in self.broken:
            raise DiskError("no space left")
        return FakeTransfer(manifest, self.losses[manifest.id], self.log, self.error)

    def run(self, pinned_by: str | None = None) -> Any:
        session = Session(self.pool)  # type: ignore[arg-type]
        download = FileDownload(
            session, None, None, pinned_by=pinned_by, start_transfer=self.start, on_warning=self.warnings.append
        )
        session.run(download)
        return download.result


def test_a_new_version_is_started_with_the_counts_of_the_old_one(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, OLD, NEW)
    assert scene.run().manifest == NEW
    assert scene.log == [("look up", None, None), ("start", OLD, None), ("look up", "film", OLD), ("start", NEW, OLD)]
    assert scene.pool.reasons == []


def test_the_user_learns_once_that_server_5_does_not_vouch_for_the_version(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, OLD, NEW)
    scene.majority = Majority(2, 3)
    scene.run()
    assert scene.warnings == [scene.majority.warning("film", OLD.id)]


def test_a_version_that_returns_is_continued(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, OLD, OLD, OLD)
    scene.losses[OLD.id] = 2
    assert scene.run().manifest == OLD
    again = [("look up", "film", OLD), "resume"]
    assert scene.log == [("look up", None, None), ("start", OLD, None), *again, *again]
    assert scene.pool.reasons == ["film changed on the servers: waiting until they have indexed it"]
    assert scene.pool.file_reasons == {}


def test_a_file_that_is_found_leaves_the_reasons_of_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, OLD, OLD, NEW)
    scene.losses[OLD.id] = 2
    scene.pool.file_reasons = {"another download": "another file changed"}
    scene.run()
    assert len(scene.pool.reasons) == 2, "this download waited, too"
    assert scene.pool.file_reasons == {"another download": "another file changed"}


def test_another_catalogue_ends_the_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, OLD, NotFoundError("'film' is not shared"), NEW)

    def wait(deadline: float) -> None:
        if deadline > scene.pool.now:
            scene.pool.status = snapshot(catalogue=b"x")

    monkeypatch.setattr(scene.pool, "wait", wait)
    assert scene.run().manifest == NEW
    assert scene.pool.now == 100.0


def test_a_download_of_one_version_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SourceError, match="the id names a version"):
        Scene(monkeypatch, OLD).run("id")


def test_a_file_that_no_worker_can_send_is_not_looked_up_again(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, OLD)
    scene.error = SourceError("every worker sent corrupt data")
    with pytest.raises(SourceError, match="corrupt data"):
        scene.run()


def test_an_error_of_the_first_look_up_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, NotFoundError("'film' is not shared"))
    scene.pool.status = None
    with pytest.raises(NotFoundError):
        scene.run()


@pytest.mark.parametrize("found", [(OLD,), (NEW, OLD)])
def test_a_version_whose_output_cannot_be_opened_ends_the_download(
    monkeypatch: pytest.MonkeyPatch, found: tuple[Manifest, ...]
) -> None:
    scene = Scene(monkeypatch, *found)
    scene.losses[NEW.id] = 1
    scene.broken = {OLD.id}
    with pytest.raises(DiskError, match="no space left"):
        scene.run()
