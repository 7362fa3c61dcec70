"""How the decisions about a changing file are carried out. The decisions: tests/unit/client/manifest."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from msd.client.network.session import Session
from msd.client.operations import version_loop
from msd.client.operations.source_error import VersionLostError
from msd.client.operations.version_loop import VersionLoop
from msd.wire.errors import MsdError, NotFoundError, SourceError
from msd.wire.protocol.messages import Status
from msd.wire.protocol.segments import Manifest, digest
from tests.unit.snapshots import snapshot

OLD, NEW = (Manifest.build("film", 1, digest(text)) for text in (b"o", b"n"))
CATALOGUE = b"c" * 32


class FakePool:
    """A pool that publishes ``CATALOGUE``. Each poll lasts until its deadline, on a virtual clock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        self.status: Status | None = snapshot(catalogue=CATALOGUE, workers=[])
        self.file_reason = ""
        self.reasons: list[str] = []
        monkeypatch.setattr(version_loop, "time", SimpleNamespace(monotonic=lambda: self.now))

    def poll(self, deadline: float) -> None:
        self.reasons.append(self.file_reason)
        self.now = deadline


class Scene:
    """Look-ups that find the given versions, and transfers that complete unless their version is in ``lost``."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *found: Manifest | MsdError) -> None:
        self.pool = FakePool(monkeypatch)
        self.found = [*found]
        #: What happened, in order.
        self.log: list[Any] = []
        #: The number of times that the transfer of each version loses it.
        self.losses = {OLD.id: 100, NEW.id: 0}
        monkeypatch.setattr(version_loop, "find_manifest", self.find)

    def find(self, pool: object, name: str | None, id: bytes | None, *, known: Manifest | None) -> Any:
        self.log.append(("look up", name, known))
        found = self.found.pop(0)
        if isinstance(found, MsdError):
            raise found
        return found, CATALOGUE

    def start(self, manifest: Manifest, catalogue: bytes, previous: Any) -> Any:
        assert catalogue == CATALOGUE
        self.log.append(("start", manifest, previous and previous.manifest))

        def run() -> None:
            self.log.append("run")
            if self.losses[manifest.id]:
                self.losses[manifest.id] -= 1
                raise VersionLostError("every worker failed")

        return SimpleNamespace(
            manifest=manifest,
            output=SimpleNamespace(can_restart=True),
            fetched=0,
            run=run,
            lift_bans=lambda: self.log.append("lift bans"),
        )

    def run(self, pinned_by: str | None = None) -> Any:
        loop = VersionLoop(Session(self.pool), None, None, pinned_by=pinned_by, start_transfer=self.start)  # type: ignore[arg-type]
        return loop.run()


def test_a_new_version_is_started_with_the_counts_of_the_old_one(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, OLD, NEW)
    assert scene.run().manifest == NEW
    first = [("look up", None, None), ("start", OLD, None), "run"]
    assert scene.log == [*first, "lift bans", ("look up", "film", OLD), ("start", NEW, OLD), "run"]
    assert scene.pool.reasons == []


def test_a_version_that_returns_is_continued(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, OLD, OLD, OLD)
    scene.losses[OLD.id] = 2
    assert scene.run().manifest == OLD
    again = ["lift bans", ("look up", "film", OLD), "run"]
    assert scene.log == [("look up", None, None), ("start", OLD, None), "run", *again, *again]
    assert scene.pool.reasons == ["film changed on the servers: waiting until they have indexed it"]


def test_another_catalogue_ends_the_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, OLD, NotFoundError("'film' is not shared"), NEW)
    monkeypatch.setattr(scene.pool, "poll", lambda deadline: setattr(scene.pool, "status", snapshot(catalogue=b"x")))
    assert scene.run().manifest == NEW
    assert scene.pool.now == 100.0


def test_a_download_of_one_version_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SourceError, match="the id names a version"):
        Scene(monkeypatch, OLD).run("id")


def test_an_error_of_the_first_look_up_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, NotFoundError("'film' is not shared"))
    scene.pool.status = None
    with pytest.raises(NotFoundError):
        scene.run()
