"""Downloads by name while their files are rewritten, renamed over, truncated, appended to, deleted and put back."""

from __future__ import annotations

import os
import random
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from msd.client.events import Event, Progress, WorkerChanged
from msd.client.manifest import file_follower
from msd.client.operations.download import download
from msd.wire.errors import NotFoundError
from tests.processes import MIB, TIMEOUT, Download, Serve, System, make_file, wait_for

#: The ways in which a file changes.
KINDS = ("rewrite", "rename", "truncate", "append", "return")


class ChangingFile:
    """A shared file, and the content of all its versions."""

    def __init__(self, path: Path, size: int, rng: random.Random) -> None:
        self.path = make_file(path, size, rng)
        self.versions = [path.read_bytes()]
        self._size = size
        self._rng = rng

    def change(self, kind: str) -> None:
        """Changes the file in the way that ``kind`` names; ``return`` deletes it and puts it back as it was."""
        latest = self.versions[-1]
        half = self._size // 2
        match kind:
            case "rewrite":
                self.versions.append(latest[:half] + self._rng.randbytes(self._size - half))
                with self.path.open("r+b") as file:
                    file.write(self.versions[-1])
                    file.truncate()
            case "rename":
                self.versions.append(latest[:half] + self._rng.randbytes(self._size - half))
                self.put()
            case "truncate":
                self.versions.append(latest[: half + 3])
                os.truncate(self.path, half + 3)
            case "append":
                added = self._rng.randbytes(self._size // 3 + 1)
                self.versions.append(latest + added)
                with self.path.open("ab") as file:
                    file.write(added)
            case "return":
                self.path.unlink()
                self.put()

    def put(self) -> None:
        """Puts the latest version in place."""
        new = self.path.with_name(".new.msd-part")
        new.write_bytes(self.versions[-1])
        os.replace(new, self.path)


def download_around_changes(
    system: System, folder: Path, changes: list[tuple[ChangingFile, str]], clients: int
) -> list[Any]:
    """Starts ``clients`` downloads around a change of each file. Returns what went wrong."""
    failed: list[Any] = []
    downloads: list[tuple[ChangingFile, str, Path, Download]] = []
    for number in range(clients):
        for file, kind in changes:
            copy = folder / f"{file.path.name}-{number}"
            downloads.append((file, kind, copy, system.download(file.path.name, "-o", str(copy))))
            if number == clients // 2:
                next(client for other, _, _, client in downloads if other is file).wait_until_verified(0.05)
                file.change(kind)
    for file, kind, copy, client in downloads:
        with client:
            code = client.wait(60)
        if code or copy.read_bytes() not in file.versions:
            failed.append((kind, code, client.events[-1]))
        copy.unlink(missing_ok=True)
    return failed


def test_downloads_around_changes_of_their_files_end_with_one_of_the_versions(
    serve: Serve, tmp_path: Path, rng: random.Random
) -> None:
    """15 downloads, five changes, and a worker that is killed at the same time."""
    changes = [(ChangingFile(tmp_path / "shared" / kind, 3 * MIB, rng), kind) for kind in KINDS]
    system = serve(tmp_path / "shared", "--rate", "3MiB")
    system.kill(2)
    assert download_around_changes(system, tmp_path, changes, 3) == []
    assert [worker.restarts for worker in system.status().workers] == [0, 1, 0, 0]


@pytest.mark.soak
def test_five_hundred_downloads_around_a_hundred_changes(serve: Serve, tmp_path: Path, rng: random.Random) -> None:
    files = [ChangingFile(tmp_path / "shared" / f"file {number}", 13 * MIB, rng) for number in range(4)]
    system = serve(tmp_path / "shared", "--rate", "15MiB")
    failed = []
    for number in range(25):
        changes = [(file, KINDS[(number + shift) % len(KINDS)]) for shift, file in enumerate(files)]
        failed += download_around_changes(system, tmp_path, changes, 5)
        for file in files:
            file.versions = file.versions[-1:]
    assert failed == []


def test_a_new_version_keeps_what_both_have_in_common(serve: Serve, tmp_path: Path, rng: random.Random) -> None:
    """The file grows, and the first of its segments stay equal. The report counts what was received, and what not."""
    file = ChangingFile(tmp_path / "film.bin", 24 * MIB, rng)
    system = serve(file.path, "--rate", "1MiB")
    with system.download("-o", "copy.bin", cwd=tmp_path) as client:
        client.wait_until_verified(0.7)
        file.change("rewrite")
        done = client.wait_until_done()
    assert (tmp_path / "copy.bin").read_bytes() == file.versions[-1]
    [changed] = client.events_of("changed")
    assert done["id"] == changed["id"] != client.events_of("start")[0]["id"]
    assert changed["kept_bytes"] == 12 * MIB
    assert done["wasted_bytes"] >= 0.2 * 24 * MIB - MIB
    assert done["reused_bytes"] == 0, "it was all received by this download"
    assert done["received_bytes"] == done["bytes"] + done["wasted_bytes"] - done["reused_bytes"]
    assert sum(worker["bytes"] for worker in done["workers"].values()) <= done["received_bytes"]
    assert [worker["segments"] > 0 for worker in done["workers"].values()] == [True] * 4
    # The verified bytes become fewer only after the event.
    position = client.events.index(changed)
    for events in (client.events[:position], client.events[position:]):
        verified = [event["bytes"] for event in events if event["event"] == "progress"]
        assert verified == sorted(verified)


@pytest.mark.soak
def test_a_deleted_file_is_waited_for_as_long_as_an_indexing_takes(
    serve: Serve, tmp_path: Path, rng: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One file returns once its deletion is published, one does not return. One download gives up earlier."""
    returning, deleted = (ChangingFile(tmp_path / "shared" / name, 6 * MIB, rng) for name in ("a", "b"))
    system = serve(tmp_path / "shared")
    # A short indexing time for the download in this process.
    indexing_time = 4.0
    monkeypatch.setattr(file_follower, "INDEXING_TIME_S", indexing_time)
    events: list[Event] = []
    with (
        system.download("a", "-o", "a", "--max-rate", "1MiB", cwd=tmp_path) as first,
        system.download("b", "-o", "b", "--max-rate", "512KiB", "--timeout", "2", cwd=tmp_path) as second,
        ThreadPoolExecutor(1) as pool,
    ):
        third = pool.submit(download, system.servers, "b", tmp_path / "c", max_rate=MIB / 2, on_event=events.append)
        for client in (first, second):
            client.wait_until_verified(0.05)
        wait_for("a segment", lambda: any(isinstance(event, Progress) and event.bytes for event in events))
        deleted_at = time.monotonic()
        for file in (returning, deleted):
            file.path.unlink()
        wait_for("the deletion to be published", lambda: not system.shared())
        returning.put()
        first.wait_until_done()
        assert second.wait() == 7
        lost = "b is no longer shared: waiting for it to return"
        assert second.events[-1]["message"].endswith(f"without progress: {lost}")
        with pytest.raises(NotFoundError, match=r"^b is no longer shared, and did not return"):
            third.result(TIMEOUT)
        assert indexing_time <= time.monotonic() - deleted_at <= indexing_time + 10
    assert (tmp_path / "a").read_bytes() == returning.versions[-1]
    # The attempts in between are not reported.
    assert len([event for event in events if isinstance(event, WorkerChanged) and event.state == "set aside"]) <= 8


def changes_are(client: Download, number: int) -> bool:
    return len(client.events_of("changed")) == number


@pytest.mark.soak
def test_a_file_that_changes_a_sixth_time_ends_the_download(serve: Serve, tmp_path: Path, rng: random.Random) -> None:
    file = ChangingFile(tmp_path / "film.bin", 32 * MIB, rng)
    system = serve(file.path)
    with system.download("-o", "copy.bin", "--max-rate", "4MiB", cwd=tmp_path) as client:
        for number in range(5):
            wait_for("the version to be fetched", partial(changes_are, client, number))
            file.change("rename")
        assert client.wait() == 5
    assert "film.bin changed on the servers 5 times" in client.events[-1]["message"]
    assert (tmp_path / ".copy.bin.msd-part").exists()
