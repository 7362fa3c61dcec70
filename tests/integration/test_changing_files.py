"""Shared files change or disappear while the servers run, and the indexer is killed or restarted."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

from tests.processes import (
    MIB,
    Serve,
    Source,
    System,
    files_equal,
    make_file,
    run_msd,
    wait_for,
)


def end_by_quit(system: System) -> None:
    assert run_msd("quit", *system.server_flags).returncode == 0


def test_one_of_two_identical_files_may_be_deleted(serve: Serve, tmp_path: Path, rng: random.Random) -> None:
    """Identical files have the same id, so the workers read the remaining file."""
    for kept, deleted in (("a", "b"), ("b", "a")):
        folder = tmp_path / f"without-{deleted}"
        make_file(folder / "a", 3 * MIB, rng)
        (folder / "b").write_bytes((folder / "a").read_bytes())
        system = serve(folder, workers=1)
        (folder / deleted).unlink()
        with system.download("-o", str(tmp_path / f"copy-{deleted}"), kept) as client:
            client.wait_until_done()
        assert files_equal(folder / kept, tmp_path / f"copy-{deleted}")


def test_changed_files_are_indexed_and_served_without_a_restart(
    serve: Serve, tmp_path: Path, rng: random.Random
) -> None:
    root = tmp_path / "shared"
    path = make_file(root / "film.bin", 24 * MIB, rng)
    system = serve(root, "--rate", "2MiB")
    system.put_to_sleep(4)
    before = system.status().catalogue
    with system.download("film.bin", "-o", "copy.bin", cwd=tmp_path) as client:
        # A new file and a new modification time do not stop the download.
        make_file(root / "new.bin", MIB, rng)
        os.utime(path)
        client.wait_until_verified(0.05)
        wait_for("a new catalogue", lambda: system.status().catalogue != before)
        assert not client.events_of("done")
        client.wait_until_done()
    assert files_equal(path, tmp_path / "copy.bin")
    wait_for("new.bin to be listed", lambda: [*system.shared()] == ["film.bin", "new.bin"])
    # The file is rewritten: no worker serves the new content before it is indexed.
    make_file(path, 3 * MIB + 5, rng)
    wait_for(
        "the new version",
        lambda: (
            not run_msd("download", "film.bin", *system.server_flags, "-o", "b", "--force", cwd=tmp_path).returncode
        ),
    )
    assert files_equal(path, tmp_path / "b")
    # The file is replaced while worker 4 is asleep; worker 4 has the new catalogue when it wakes up.
    os.replace(make_file(root / "x.tmp", MIB, rng), path)
    path.with_name("new.bin").unlink()
    wait_for("new.bin to disappear from the list", lambda: [*system.shared()] == ["film.bin"])
    system.wake(4)
    system.put_to_sleep(1, 2, 3)
    with system.download("-o", "c", cwd=tmp_path) as client:
        assert client.wait_until_done()["workers"]["4"]["bytes"] == MIB
    assert files_equal(path, tmp_path / "c")
    assert [worker.restarts for worker in system.status().workers] == [0] * 4


def test_a_killed_indexer_is_restarted(serve: Serve, source: Source) -> None:
    path = source(MIB)
    system = serve(path, workers=1)
    children = Path(f"/proc/{system.pid}/task/{system.pid}/children").read_text().split()
    workers = [worker.pid for worker in system.status().workers]
    [indexer] = {*map(int, children)} - {*workers}
    os.kill(indexer, signal.SIGKILL)
    wait_for(
        "the indexer's exit message",
        lambda: "indexer exited (killed by SIGKILL)" in system.out.text + system.err.text,
    )
    path.write_bytes(b"new")
    wait_for("the new version", lambda: system.shared() == {path.name: 3})
    assert [worker.pid for worker in system.status().workers] == workers


def test_a_restart_does_not_read_unchanged_files(serve: Serve, source: Source, runtime_folder: Path) -> None:
    """The servers start twice, once the file is old enough for the digest cache to trust its timestamps."""
    path = source(3 * MIB)
    wait_for("the file to be old enough", lambda: time.time() - path.stat().st_ctime > 2.1)
    first = serve(path, workers=1)
    end_by_quit(first)
    first.wait()
    assert "indexing" in first.err.text
    second = serve(path, workers=1)
    end_by_quit(second)
    second.wait()
    assert "indexing" not in second.err.text
