"""Folders of many files: kept, resumed and updated, while clients and workers are killed and files change."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import stat
import threading
from pathlib import Path
from typing import Any

import pytest

from msd.client.events import FileCounts, FilesReport
from msd.client.manifest import file_follower
from msd.client.operations.download_files import download_files
from msd.wire.errors import DiskError, NotFoundError
from tests.processes import MIB, MSD, Process, Serve, System, wait_for

#: Small files, and how many times the client is killed.
FILES, KILLS = 800, 6


def make_tree(root: Path, rng: random.Random, files: int = FILES) -> dict[str, bytes]:
    """Makes small files, two large ones, empty ones and an empty folder. Returns their contents by name."""
    contents = {f"{n // 50}/ü {n}": rng.randbytes(rng.choice([0, 1, 5_000, 20_000])) for n in range(files)}
    contents |= {"film": rng.randbytes(5 * MIB), "3/film": rng.randbytes(2 * MIB + 1)}
    for name, content in contents.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    (root / "empty" / "folder").mkdir(parents=True)
    return contents


def fetch(system: System, folder: Path, **options: Any) -> FilesReport:
    return download_files(system.servers, ["**"], folder, timeout=30, **options)


def contents_of(root: Path) -> dict[str, bytes]:
    """The content of each file, also of part files."""
    paths = [Path(folder) / name for folder, _, names in os.walk(root) for name in names]
    return {str(path.relative_to(root)): path.read_bytes() for path in paths}


def is_same(copy: Path, root: Path) -> bool:
    """True if both have the same folders, and files with the same contents, times and executable bits."""

    def describe(root: Path) -> dict[Path, object]:
        return {
            path.relative_to(root): path.is_dir() or (path.stat().st_mtime_ns, path.stat().st_mode & stat.S_IXUSR)
            for path in root.rglob("*")
        }

    return describe(copy) == describe(root) and contents_of(copy) == contents_of(root)


def start_download(system: System, folder: Path) -> Process:
    return Process([*MSD, "download", "**", "-o", str(folder), *system.server_flags, "--quiet"])


def kill_during_downloads(system: System, folder: Path, rng: random.Random, kills: int) -> None:
    """Kills clients at random points of their work, and workers meanwhile."""
    for number in range(kills):
        with start_download(system, folder) as client:
            goal = count(folder) + rng.choice([1, 30, 300])

            def has_arrived(client: Process = client, goal: int = goal) -> bool:
                return count(folder) >= goal or client.process.poll() == 0

            # A download that ends meanwhile is not killed.
            wait_for("files", has_arrived)
            if number % 3 == 2:
                # A worker that was killed a moment ago may have no process.
                with contextlib.suppress(ProcessLookupError):
                    os.kill(system.worker(rng.randint(1, 4)).pid or client.pid, signal.SIGKILL)
            client.signal(signal.SIGKILL)


def count(root: Path) -> int:
    return sum(len(names) for _, _, names in os.walk(root))


def check_kills(serve: Serve, tmp_path: Path, rng: random.Random, kills: int, files: int) -> None:
    shared, copy = tmp_path / "shared", tmp_path / "copy"
    contents = make_tree(shared, rng, files)
    (shared / "0" / "ü 1").chmod(0o755)
    system = serve(shared, "--rate", "6MiB")
    kill_during_downloads(system, copy, rng, kills)
    found = contents_of(copy)
    for name, content in found.items():
        assert name.endswith(".msd-part") or content == contents[name], name
    missing = {name: content for name, content in contents.items() if name not in found}
    large = {name for name in ("film", "3/film") if name in missing}
    report = fetch(system, copy)
    assert is_same(copy, shared)
    assert report.counts == FileCounts(
        listed=len(contents),
        fetched=len(missing),
        kept=len(contents) - len(missing),
        size=sum(map(len, missing.values())),
    )
    fetched = report.received_bytes - report.wasted_bytes
    assert fetched <= sum(map(len, missing.values()))
    assert fetched >= sum(len(content) for name, content in missing.items() if name not in large)


def test_a_client_that_is_killed_again_and_again_leaves_right_files_and_fetches_none_twice(
    serve: Serve, tmp_path: Path, rng: random.Random
) -> None:
    check_kills(serve, tmp_path, rng, KILLS, FILES)


@pytest.mark.soak
def test_a_client_that_is_killed_fifty_times(serve: Serve, tmp_path: Path, rng: random.Random) -> None:
    check_kills(serve, tmp_path, rng, 50, 8000)


def test_an_update_fetches_what_differs_and_hashes_nothing_else(
    serve: Serve, tmp_path: Path, rng: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared, copy = tmp_path / "shared", tmp_path / "copy"
    contents = make_tree(shared, rng, 300)
    fetch(serve(shared, "-i", "0.2", workers=1), copy)
    changed = rng.sample(sorted(name for name, content in contents.items() if 0 < len(content) < MIB), 10)
    for name in changed:
        (copy / name).write_bytes(b"x" * len(contents[name]))
    touched = next(name for name in contents if name not in changed and contents[name])
    (copy / touched).touch()
    hidden = copy / ".mine"
    hidden.write_bytes(b"")
    system = serve(shared, workers=1)
    opened: list[str] = []
    real = os.open

    def record(path: str, flags: int, *arguments: int, **options: int) -> int:
        if "dir_fd" in options and not flags & (os.O_CREAT | os.O_DIRECTORY):
            opened.append(path)
        return real(path, flags, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", record)
        report = fetch(system, copy, update=True)
    assert report.counts.fetched == 10
    assert (report.counts.same, report.counts.failed) == (1, 0)
    assert report.received_bytes - report.wasted_bytes == sum(len(contents[name]) for name in changed)
    assert {*opened} == {Path(name).name for name in [*changed, touched]}
    hidden.unlink()
    assert is_same(copy, shared)
    again = fetch(system, copy, checksum=True)
    assert (again.counts.same, again.received_bytes) == (len(contents), 0)


def test_files_that_change_appear_and_vanish_meanwhile_are_right_or_named(
    serve: Serve, tmp_path: Path, rng: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every content that a file ever had begins with its name and the number of its version."""
    monkeypatch.setattr(file_follower, "INDEXING_TIME_S", 1.0)
    shared, copy = tmp_path / "shared", tmp_path / "copy"
    names = [f"{number % 10}/{number}" for number in range(600)] + ["0/film"]

    def write(name: str, version: int) -> None:
        size = 3 * MIB if name == "0/film" else 10_000 + version
        path = shared / name
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name(".new.msd-part")
        new.write_bytes(content_of(name, version, size))
        new.rename(path)

    def content_of(name: str, version: int, size: int) -> bytes:
        return (f"{name} {version}\n".encode() * size)[:size]

    for name in names:
        write(name, 0)
    system = serve(shared, "-i", "0.2", "--rate", "2MiB")
    ended = threading.Event()
    deleted: set[str] = set()

    def change() -> None:
        chooser = random.Random(rng.random())
        for version in range(1, 40):
            for _ in range(5):
                name = chooser.choice(names)
                if chooser.random() < 0.2:
                    deleted.add(name)
                    (shared / name).unlink(missing_ok=True)
                else:
                    write(name, version)
            write(f"new/{version}", version)
            if ended.wait(0.05):
                return

    thread = threading.Thread(target=change)
    thread.start()
    try:
        report = fetch(system, copy)
    finally:
        ended.set()
        thread.join()
    failed = report.errors.keys()
    for name, content in contents_of(copy).items():
        if name.endswith(".msd-part"):
            continue
        version = int(content.split(b"\n", 1)[0].split()[1])
        assert content == content_of(name, version, len(content)), name
    # A file that was deleted before the listing is in neither.
    assert {*names} - failed - deleted <= contents_of(copy).keys()
    assert report.counts.done + report.counts.failed == report.counts.listed


def test_a_second_download_into_the_same_folders_is_refused(serve: Serve, tmp_path: Path, rng: random.Random) -> None:
    shared, copy = tmp_path / "shared", tmp_path / "copy"
    make_tree(shared, rng, 100)
    system = serve(shared, "--rate", "400KiB", workers=1)
    with start_download(system, copy) as client:
        wait_for("the first folder", (copy / "3").exists)
        with pytest.raises(DiskError, match="copy/0: another download is writing to this folder"):
            download_files(system.servers, ["0/", "1/"], copy, timeout=30)
        client.signal(signal.SIGINT)
        assert client.wait() == 130
        assert "run the same command to resume" in client.err.text


def test_a_file_that_vanishes_and_one_that_changes_do_not_hold_up_the_others(
    serve: Serve, tmp_path: Path, rng: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_follower, "INDEXING_TIME_S", 1.0)
    shared, copy = tmp_path / "shared", tmp_path / "copy"
    contents = make_tree(shared, rng, 50)
    system = serve(shared, workers=1)
    (shared / "3" / "film").unlink()
    (shared / "film").write_bytes(b"another")
    report = fetch(system, copy)
    assert {name: type(error) for name, error in report.errors.items()} == {"3/film": NotFoundError}
    assert report.counts.fetched == len(contents) - 1
    assert (copy / "film").read_bytes() == b"another"
