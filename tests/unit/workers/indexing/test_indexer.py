"""The indexing process as the broker starts it: an edition of the catalogue for each state of the files."""

from __future__ import annotations

import errno
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from msd.wire.errors import DiskError, NotFoundError, SourceError
from msd.wire.protocol.child_messages import Indexed, IndexLine, IndexSkipped
from msd.workers.indexing import catalogue_writer
from msd.workers.indexing.catalogue_writer import DigestCache
from msd.workers.indexing.indexer import KEPT
from msd.workers.indexing.indexer import _Indexer as Indexer
from msd.workers.source.catalogue import Catalogue
from tests.system import PATIENCE

WORKERS = [sys.executable, "-m", "msd.workers"]
#: The same, but files that nobody nudges it for are never looked at again, the others soon.
NUDGED = """
import sys
from msd.workers.indexing import rescan_policy
rescan_policy.CALM, rescan_policy.ALERT, rescan_policy.RETRY_FIRST = 3600.0, 0.05, 0.05
from msd.workers.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


class IndexerSupervisor:
    """A process that keeps ``root`` indexed, and what it has printed."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._rest = b""
        self._lines: list[IndexLine] = []
        self.skipped: list[IndexSkipped] = []

    def next(self) -> Indexed:
        """Waits for the next edition."""
        deadline = time.monotonic() + PATIENCE
        while True:
            while self._lines:
                line = self._lines.pop(0)
                if isinstance(line, Indexed):
                    return line
                if isinstance(line, IndexSkipped):
                    self.skipped.append(line)
            self._read(deadline)

    @property
    def pid(self) -> int:
        return self._process.pid

    def nudge(self) -> None:
        assert self._process.stdin is not None
        os.write(self._process.stdin.fileno(), b"\n")

    @property
    def is_quiet(self) -> bool:
        """True if it prints nothing for as long as some looks take."""
        assert self._process.stdout is not None
        return not self._lines and not select.select([self._process.stdout], [], [], 0.25)[0]

    def end(self) -> int:
        """Closes its standard input; its exit code. It prints no more editions."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        code = self._process.wait(PATIENCE)
        assert self._process.stdout is not None
        assert self._process.stdout.read() == b""
        return code

    def _read(self, deadline: float) -> None:
        assert self._process.stdout is not None
        stdout = self._process.stdout.fileno()
        assert select.select([stdout], [], [], max(0.0, deadline - time.monotonic()))[0], "nothing is printed"
        data = os.read(stdout, 65536)
        assert data, "it has ended"
        *whole, self._rest = (self._rest + data).split(b"\n")
        self._lines += [msgspec.json.decode(line, type=IndexLine) for line in whole]


@contextmanager
def indexing(root: Path, folder: Path, *, nudged: bool = True) -> Iterator[IndexerSupervisor]:
    command = [sys.executable, "-c", NUDGED] if nudged else WORKERS
    with subprocess.Popen(
        [*command, "index", str(root), str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        try:
            yield IndexerSupervisor(process)
        finally:
            process.kill()


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root = tmp_path / "shared"
    root.mkdir()
    return root


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "catalogue"
    folder.mkdir()
    return folder


def put(path: Path, data: bytes) -> Path:
    """Makes or replaces a file, in one step: no look sees half of it."""
    path.parent.mkdir(exist_ok=True)
    new = path.parents[1] / "new"
    new.write_bytes(data)
    return new.rename(path)


def editions(folder: Path) -> set[int]:
    return {int(path.name) for path in folder.iterdir() if path.is_dir()}


def shared(folder: Path, edition: Indexed) -> dict[str, int]:
    """The sizes of the files of an edition by their names, as a worker reads them."""
    catalogue = Catalogue(folder / str(edition.edition))
    catalogue.close()
    sizes = {file.name: file.size for file in catalogue.files}
    assert catalogue.id.hex() == edition.catalogue
    assert (len(sizes), sum(sizes.values())) == (edition.files, edition.size)
    return sizes


def test_a_changed_file_is_indexed_again_until_standard_input_ends(root: Path, folder: Path) -> None:
    put(root / "numbers", bytes(range(245)))
    with indexing(root, folder, nudged=False) as process:
        first = process.next()
        assert (first.edition, first.hashed) == (1, 245)
        assert shared(folder, first) == {"numbers": 245}
        assert os.fsdecode((folder / "root").read_bytes()) == str(root)
        assert {path.name for path in folder.iterdir()} == {"1", "root"}
        put(root / "numbers", bytes(range(100)))
        process.nudge()
        second = process.next()
        assert (second.edition, second.hashed) == (2, 100)
        assert shared(folder, second) == {"numbers": 100}
        assert shared(folder, first) == {"numbers": 245}, "workers may read it still"
        assert process.end() == 0


def test_what_comes_and_goes_in_a_folder_is_an_edition_of_which_the_last_ones_are_kept(
    root: Path, folder: Path
) -> None:
    put(root / "one", b"1")
    with indexing(root, folder) as process:
        assert shared(folder, process.next()) == {"one": 1}
        put(root / "sub" / "two", b"22")
        process.nudge()
        assert shared(folder, process.next()) == {"one": 1, "sub/two": 2}
        (root / "one").unlink()
        process.nudge()
        assert shared(folder, process.next()) == {"sub/two": 2}
        (root / "sub" / "two").rename(root / "two")
        process.nudge()
        last = process.next()
        assert shared(folder, last) == {"two": 2}
        assert (last.edition, editions(folder)) == (4, set(range(5 - KEPT, 5)))
        assert process.end() == 0
        assert process.skipped == []


def test_a_process_started_again_goes_on_counting_and_keeps_the_last_edition(root: Path, folder: Path) -> None:
    put(root / "one", b"1")
    for number in (1, 2, 3):
        with indexing(root, folder) as process:
            assert process.next().edition == number
            assert process.end() == 0
        assert editions(folder) == set(range(max(1, number - KEPT + 1), number + 1))


def test_a_single_file_that_is_gone_leaves_an_edition_of_no_files_until_it_is_back(root: Path, folder: Path) -> None:
    path = put(root / "numbers", bytes(range(245)))
    with indexing(path, folder) as process:
        first = process.next()
        path.unlink()
        process.nudge()
        second = process.next()
        assert (second.edition, shared(folder, second)) == (2, {})
        (skipped,) = process.skipped
        assert skipped.name == "numbers"
        assert "no such file or folder to share" in skipped.why
        put(path, bytes(range(245)))
        process.nudge()
        third = process.next()
        assert (third.edition, third.catalogue) == (3, first.catalogue)
        assert shared(folder, third) == {"numbers": 245}
        assert len(process.skipped) == 1
        assert process.end() == 0


def test_a_nudge_for_nothing_is_no_edition(root: Path, folder: Path) -> None:
    put(root / "one", b"1")
    with indexing(root, folder) as process:
        process.next()
        (root / "empty folder").mkdir()
        process.nudge()
        assert process.is_quiet
        put(root / "two", b"22")
        process.nudge()
        assert shared(folder, process.next()) == {"one": 1, "two": 2}
        assert process.is_quiet
        assert process.end() == 0


def test_nothing_to_share_at_the_start_is_an_error_of_one_line(root: Path, folder: Path) -> None:
    command = [*WORKERS, "index", str(root), str(folder)]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=PATIENCE
    )
    said = f"{root}: holds no file that can be shared\n"
    assert (done.returncode, done.stdout, done.stderr) == (NotFoundError.exit_code, "", said)


def test_a_file_that_never_stands_still_delays_no_other(root: Path, folder: Path) -> None:
    put(root / "one", b"1")
    log = put(root / "log", b"0")
    stop = threading.Event()

    def write() -> None:
        while not stop.wait(0.001):
            with log.open("ab") as file:
                file.write(b"more")

    with indexing(root, folder) as process:
        assert shared(folder, process.next()) == {"log": 1, "one": 1}
        writer = threading.Thread(target=write)
        writer.start()
        try:
            put(root / "two", b"22")
            process.nudge()
            second = process.next()
            assert shared(folder, second) == {"log": 1, "one": 1, "two": 2}
            assert second.hashed == 2
        finally:
            stop.set()
            writer.join()
        process.nudge()
        assert shared(folder, process.next()) == {"log": log.stat().st_size, "one": 1, "two": 2}
        assert process.skipped == []


def test_a_link_that_leads_out_is_said_once_and_its_target_makes_no_editions(
    root: Path, folder: Path, tmp_path: Path
) -> None:
    put(root / "one", b"1")
    target = put(tmp_path / "outside" / "target", b"1")
    (root / "link").symlink_to(target)
    put(root / "film.part", b"1")
    with indexing(root, folder) as process:
        assert shared(folder, process.next()) == {"one": 1}
        put(target, b"changed")
        put(root / "film.part", b"more of it")
        process.nudge()
        assert process.is_quiet
        put(root / "two", b"22")
        process.nudge()
        assert shared(folder, process.next()) == {"one": 1, "two": 2}
        assert {line.name for line in process.skipped} == {"link", "film.part"}
        assert len(process.skipped) == 2


def test_nothing_to_share_after_a_restart_is_an_edition_of_no_files(root: Path, folder: Path) -> None:
    put(root / "one", b"1")
    with indexing(root, folder) as process:
        assert process.next().edition == 1
        assert process.end() == 0
    (root / "one").unlink()
    root.rmdir()
    with indexing(root, folder, nudged=False) as process:
        second = process.next()
        assert (second.edition, shared(folder, second)) == (2, {})
        own = os.getpriority(os.PRIO_PROCESS, 0)
        assert os.getpriority(os.PRIO_PROCESS, process.pid) == min(own + 10, 19), "workers serve meanwhile"
        (skipped,) = process.skipped
        assert "no such file or folder to share" in skipped.why
        root.mkdir()
        put(root / "one", b"1")
        assert shared(folder, process.next()) == {"one": 1}
        assert process.end() == 0


class Direct:
    """An indexer within this process, whose every look is called for; and what it has said."""

    def __init__(self, root: Path, folder: Path, cache: Path) -> None:
        self.lines: list[IndexLine] = []
        self.cache = DigestCache(cache)
        self.indexer = Indexer(root, folder, self.cache, self.lines.append)

    def look(self, *, later: float = 0.0) -> None:
        """Two looks, so that what has changed stands still; any attempt that is put off is due now."""
        watch = self.indexer.watch
        watch._failed = {name: (wait, until - later) for name, (wait, until) in watch._failed.items()}
        self.indexer.look()
        self.indexer.look()

    @property
    def editions(self) -> list[Indexed]:
        return [line for line in self.lines if isinstance(line, Indexed)]

    @property
    def skipped(self) -> list[tuple[str, str]]:
        return [(line.name, line.why) for line in self.lines if isinstance(line, IndexSkipped)]


@pytest.fixture
def direct(root: Path, folder: Path, tmp_path: Path) -> Direct:
    put(root / "one", b"1")
    direct = Direct(root, folder, tmp_path / "digests")
    direct.indexer.look()
    assert len(direct.editions) == 1
    return direct


def test_what_could_not_be_read_for_a_moment_is_tried_again_and_said_once(
    direct: Direct, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(root / "two", b"22")
    with monkeypatch.context() as broken:

        def fail(root: Path, name: str) -> None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        broken.setattr(catalogue_writer, "open_shared", fail)
        for _ in range(3):
            direct.look(later=60)
    assert direct.skipped == [("two", "Input/output error")]
    assert len(direct.editions) == 1, "it would be the same one again"
    direct.look()
    assert len(direct.editions) == 1, "it waits"
    direct.look(later=60)
    assert len(direct.editions) == 2
    assert set(direct.indexer.watch.held) == {"one", "two"}


def test_an_edition_that_cannot_be_written_is_tried_again_and_said_once(
    direct: Direct, root: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(root / "two", b"22")
    with monkeypatch.context() as full:
        full.setattr(Path, "write_bytes", no_room)
        for _ in range(3):
            direct.look(later=60)
    assert direct.skipped == [("what has changed", f"{folder}: No space left on device")]
    assert [path.name for path in folder.iterdir()] == ["1"]
    direct.look(later=60)
    assert len(direct.editions) == 2


def no_room(path: Path, data: bytes) -> int:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_first_edition_that_cannot_be_written_is_an_error_of_one_line(
    root: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(root / "one", b"1")
    monkeypatch.setattr(Path, "write_bytes", no_room)
    with pytest.raises(DiskError) as caught:
        Direct(root, folder, tmp_path / "digests").indexer.look()
    assert str(caught.value) == f"{folder}: No space left on device"


def test_a_first_and_only_file_that_cannot_be_read_is_an_error_of_one_line(
    root: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = put(root / "one", b"1")

    def fail(root: Path, name: str) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(catalogue_writer, "open_shared", fail)
    with pytest.raises(SourceError) as caught:
        Direct(path, folder, tmp_path / "digests").indexer.look()
    assert str(caught.value) == f"{path}: cannot be shared: Permission denied"
    assert list(folder.iterdir()) == []


def test_a_share_that_may_not_be_looked_at_any_more_is_an_edition_of_no_files(
    direct: Direct, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    with monkeypatch.context() as locked:
        locked.setattr(os, "scandir", fail)
        direct.look()
    assert direct.indexer.watch.held == {}
    assert "cannot be shared: Permission denied" in direct.skipped[0][1]
    direct.look()
    assert set(direct.indexer.watch.held) == {"one"}


def test_the_cache_is_cleared_once_a_day_of_what_no_edition_holds(
    direct: Direct, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cleared: list[int] = []
    monkeypatch.setattr(direct.cache, "expire", lambda used: cleared.append(len(list(used))))
    put(root / "two", b"22")
    direct.look()
    assert cleared == [], "it was at the start"
    direct.indexer._expire_at = 0.0
    for name in ("three", "four"):
        put(root / name, b"333")
        direct.look()
    assert cleared == [3]
