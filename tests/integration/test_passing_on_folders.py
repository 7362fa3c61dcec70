"""Downloads of folders that pass on what they have: real processes on loopback."""

from __future__ import annotations

import random
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from msd.client.operations.list_files import list_files
from msd.client.plan.plan import Plan
from msd.wire.security.keys import Role
from tests.hostile_clients import Keyring, process_and_children
from tests.passing import (
    FILES,
    WrongReceiver,
    folders_equal,
    from_peers,
    holders,
    make_folder,
    summary,
    wait_until_serving,
)
from tests.processes import MIB, Download, Serve, System, make_file, wait_for


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    return make_folder(tmp_path / "shared")


def receive(system: System, folder: Path, name: str, *arguments: str, **options: Any) -> Download:
    return system.download(".", "-o", name, "--pass-on", *arguments, cwd=folder, **options)


def received_from_peers(download: Download) -> int:
    """The bytes that a running download has received from others so far."""
    workers = (download.events_of("progress") or [{"workers": {}}])[-1]["workers"]
    return sum(report["received"] for name, report in workers.items() if name.startswith("peer"))


def test_a_folder_is_passed_on(serve: Serve, shared: Path, tmp_path: Path) -> None:
    """
    1. A download is complete, and keeps serving. Another one gets most from it, or a part of it on a busy machine.
    2. The first one is started again, with one file less than before: it serves what it kept, too, as well as what it
       fetches again. So a third one gets most from it.
    3. SIGTERM ends each in order.
    """
    size = sum(path.stat().st_size for path in shared.rglob("*") if path.is_file())
    system = serve(shared, "--rate", "1MiB")
    with receive(system, tmp_path, "first", "--keep-serving", "10m") as first:
        wait_until_serving(first)
        with receive(system, tmp_path, "second") as second:
            assert from_peers(summary(second)) > size / 10
        first.signal(signal.SIGTERM)
        assert summary(first)["passed_on_bytes"] > size / 10
    assert folders_equal(shared, tmp_path / "first")
    assert folders_equal(shared, tmp_path / "second")
    (tmp_path / "first" / "sub 0" / "file 0").unlink()
    with receive(system, tmp_path, "first", "--keep-serving", "10m") as first:
        wait_until_serving(first)
        with receive(system, tmp_path, "third") as third:
            assert from_peers(summary(third)) > size / 10
        first.signal(signal.SIGTERM)
        assert summary(first)["files"]["kept"] == FILES - 1
    assert folders_equal(shared, tmp_path / "third")


def test_receivers_of_a_folder_pass_on_to_one_another(serve: Serve, shared: Path, tmp_path: Path) -> None:
    """Three begin together, one of them with an old copy. Its files that have changed are fetched."""
    shutil.copytree(shared, tmp_path / "old")
    (tmp_path / "old" / "large 0").write_bytes(bytes(2 * MIB))
    (tmp_path / "old" / "sub 1" / "ü" / "file 1").write_bytes(b"old")
    system = serve(shared, "--rate", "512KiB")
    with (
        receive(system, tmp_path, "one") as one,
        receive(system, tmp_path, "two") as two,
        receive(system, tmp_path, "old", "--update") as old,
    ):
        reports = [summary(download) for download in (one, two, old)]
    assert all(folders_equal(shared, tmp_path / name) for name in ("one", "two", "old"))
    # On a busy machine, one may have most of it before another one begins.
    assert sum(map(from_peers, reports)) > MIB // 2
    assert reports[2]["files"]["same"] + reports[2]["files"]["kept"] == FILES - 2


def test_one_file_is_passed_on_however_it_was_selected(serve: Serve, shared: Path, tmp_path: Path) -> None:
    """A small file is downloaded by its name, and passed on to a download of a folder that has no other content."""
    make_file(shared / "album" / "photo", MIB // 2, random.Random(2))
    (shared / "album" / "empty").touch()
    system = serve(shared, "--rate", "64KiB")
    flags = ("--pass-on", "--keep-serving", "10m")
    with system.download("album/photo", "-o", "first", *flags, cwd=tmp_path) as first:
        wait_until_serving(first)
        with system.download("album/", "-o", "second", "--pass-on", cwd=tmp_path) as second:
            assert from_peers(summary(second)) > MIB // 8
    assert (tmp_path / "second" / "album" / "photo").read_bytes() == (tmp_path / "first").read_bytes()


def test_another_selection_is_another_plan(serve: Serve, shared: Path, tmp_path: Path) -> None:
    system = serve(shared, "--rate", "4MiB")
    with receive(system, tmp_path, "first", "--keep-serving", "10m") as first:
        wait_until_serving(first)
        with system.download("sub 0/", "large 0", "-o", "part", "--pass-on", cwd=tmp_path) as other:
            assert from_peers(summary(other)) == 0
    assert (tmp_path / "part" / "large 0").read_bytes() == (shared / "large 0").read_bytes()


def test_a_receiver_that_is_killed_leaves_no_process_and_serves_again_what_it_had(
    serve: Serve, shared: Path, tmp_path: Path
) -> None:
    """
    1. Two receivers pass on. One is killed: the process that passes on for it ends, and the other receiver finishes.
    2. The first one is started again. It keeps what it had saved.
    3. A third one begins. Then all workers are put to sleep: it gets all the rest from the first one.
    """
    size = sum(path.stat().st_size for path in shared.rglob("*") if path.is_file())
    system = serve(shared, "--rate", "1MiB")
    # Slow enough to find the first one in time on a busy machine, too.
    slow = receive(system, tmp_path, "second", "--max-rate", "2MiB")
    with receive(system, tmp_path, "first") as first, slow as second:
        first.wait_until_verified(0.5)
        wait_for("passing on", lambda: received_from_peers(second))
        _, child = process_and_children(first.pid)
        first.signal(signal.SIGKILL)
        first.wait()
        wait_for("the end of its process", lambda: not Path(f"/proc/{child}").exists())
        summary(second)
    assert folders_equal(shared, tmp_path / "second")
    with receive(system, tmp_path, "first", "--keep-serving", "10m") as first:
        wait_until_serving(first)
        # Slow enough not to end before, and to have asked the workers for the digests of all files: peers do not say
        # what is right.
        with receive(system, tmp_path, "third", "--max-rate", "4MiB") as third:
            wait_for("a peer", lambda: [e for e in third.events_of("worker") if e["name"].startswith("peer")])
            third.wait_until_verified(0.2)
            system.put_to_sleep(1, 2, 3, 4)
            assert from_peers(summary(third)) > size // 2
        first.signal(signal.SIGTERM)
        report = summary(first)
    # What was verified last, and small files that had no name yet, are fetched again.
    assert report["reused_bytes"] > 0
    assert report["received_bytes"] <= size - report["reused_bytes"] + report["wasted_bytes"]
    assert all(folders_equal(shared, tmp_path / name) for name in ("first", "third"))


def test_a_receiver_that_sends_wrong_units_of_a_folder_is_named_by_its_key_and_address(
    serve: Serve, shared: Path, tmp_path: Path
) -> None:
    keys = Keyring(tmp_path / "keys")
    alice = keys.create_key("alice", Role.CLIENT)
    system = keys.serve(serve, shared, "--rate", "1MiB")
    plan = Plan()
    entries = [entry for entry, _ in list_files(system.servers)[0]]
    plan.add(entries)
    plan.finish()
    sizes = {entry.id: entry.size for entry in entries if entry.id is not None}
    with WrongReceiver(system, plan.id, sizes, alice) as receiver:
        wait_for("the wrong receiver", lambda: holders(system.ports[4], plan.id, alice))
        with receive(system, tmp_path, "copy", env=keys.env("alice")) as download:
            report = summary(download)
    assert folders_equal(shared, tmp_path / "copy")
    bans = [event for event in download.events_of("worker") if event["detail"] == "sent corrupt data"]
    assert receiver.key is not None
    place = (
        f"{receiver.endpoint.replace('*', '127.0.0.1').removeprefix('tcp://')}, key {receiver.key.public.hex()[:16]}"
    )
    assert [(event["name"], event["place"]) for event in bans] == [("peer 1", place)]
    assert report["workers"]["peer 1"]["bytes"] == 0
    assert report["workers"]["peer 1"]["corrupt"] <= 3


@pytest.mark.soak
def test_a_file_that_changes_while_its_folder_is_passed_on(
    serve: Serve, shared: Path, tmp_path: Path, rng: random.Random
) -> None:
    """All receivers end with the new version of a file that none of them had complete. A small file, which they may
    have had, is in its old or its new version.
    """
    make_file(shared / "film", 8 * MIB, rng)
    new = make_file(tmp_path / "new", 8 * MIB + 5, rng)
    old_text, new_text = (shared / "program").read_bytes(), b"#!/bin/false\n"
    system = serve(shared, "-i", "0.2", "--rate", "1MiB")
    with receive(system, tmp_path, "first") as first, receive(system, tmp_path, "second") as second:
        for download in (first, second):
            download.wait_until_verified(0.05)
        assert first.verified_bytes + second.verified_bytes < 8 * MIB
        new.replace(shared / "film")
        (shared / "program").write_bytes(new_text)
        reports = [summary(download) for download in (first, second)]
    assert all(from_peers(report) > MIB for report in reports)
    for copy in (tmp_path / "first", tmp_path / "second"):
        assert (copy / "program").read_bytes() in (old_text, new_text)
        (copy / "program").write_bytes(new_text)
        assert folders_equal(shared, copy)
