"""The message after an interrupt, the progress events, the arguments. Tests of whole downloads: tests/integration."""

from __future__ import annotations

import hashlib
import inspect
import math
import signal
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from msd.client.events import Event, OnEvent, Progress, Report, Started, Warned
from msd.client.network.progress_timeout import ProgressTimeout
from msd.client.network.session import Session, Task
from msd.client.operations import download, file_download
from msd.client.storage.output import Output
from msd.client.storage.part_file import PartFile
from msd.wire.config.servers import locate_servers
from msd.wire.config.settings import Config
from msd.wire.errors import Interrupted, SourceError, UsageError
from msd.wire.protocol.segments import Manifest, digest, segment_count, span
from tests.memory_worker import MemoryWorker

DATA = bytes(range(245)) * 10


def interrupt(*_: object, **__: object) -> None:
    raise Interrupted("interrupted: run the same command to resume", signal.SIGINT)


def fake_transfer(*, verified: int, run: Callable[[], None]) -> Callable[..., SimpleNamespace]:
    """Returns a replacement for the class ``FileTransfer``. ``run`` is called once the download waits for segments."""

    def create(session: Session, transfer: object, manifest: Manifest, output: Output, **_: object) -> SimpleNamespace:
        session.start(RunTask(run))
        return SimpleNamespace(
            manifest=manifest, output=output, verified=verified, fetched=0, lost=None, disk_error=None, is_done=False
        )

    return create


class RunTask(Task):
    """Calls ``run``."""

    def __init__(self, run: Callable[[], None]) -> None:
        self._run = run

    def pass_time(self) -> float:
        self._run()
        return math.inf


class FakeLookUp(Task):
    """A look-up that has found ``manifest``."""

    is_done = True
    majority = None

    def __init__(self, manifest: Manifest) -> None:
        self.result = manifest, b""

    def pass_time(self) -> float:
        return math.inf


@pytest.fixture
def _without_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes downloads find the manifest of ``DATA`` without any server. Only what is on the disk can be downloaded."""
    spans = (span(len(DATA), index) for index in range(segment_count(len(DATA))))
    manifest = Manifest.build("film", len(DATA), b"".join(digest(DATA[at : at + length]) for at, length in spans))
    pool = SimpleNamespace(
        peers=None,
        read_until=math.inf,
        close=lambda: None,
        current_state=list,
        events=list,
        wait=lambda deadline: None,
        worker_numbers=(),
        stalled_seconds=0.0,
        status=None,
        control=None,
        session=7,
        report_progress=lambda progress: None,
        file_reasons={},
        read_errors={},
        read_error="",
        progress_timeout=ProgressTimeout(None, 0.0),
    )
    monkeypatch.setattr(download, "ConnectionPool", lambda *_, **__: pool)
    monkeypatch.setattr(file_download, "LookUp", lambda *_, **__: FakeLookUp(manifest))


@pytest.fixture
def interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, _without_servers: None) -> Any:
    """A function that interrupts a download of ``DATA`` after ``verified`` bytes and returns the error message."""

    def run(verified: int, *, update: bool = False) -> str:
        monkeypatch.setattr(download, "FileTransfer", fake_transfer(verified=verified, run=interrupt))
        with pytest.raises(Interrupted) as raised:
            download.download(
                locate_servers(Config(), host=None, ports=None, server5=None), output=tmp_path / "copy", update=update
            )
        assert raised.value.exit_code == 130
        return str(raised.value).replace(f"{tmp_path}/", "")

    return run


def test_an_interrupted_resume_keeps_the_whole_part_file(tmp_path: Path, interrupted: Any) -> None:
    (tmp_path / ".copy.msd-part").write_bytes(DATA)
    message = "interrupted: 21 B of 2.4 KiB verified; progress saved in .copy.msd-part; run the same command to resume"
    assert interrupted(21) == message
    assert (tmp_path / ".copy.msd-part").read_bytes() == DATA


def test_an_interrupted_update_names_a_part_file_only_if_there_is_one(tmp_path: Path, interrupted: Any) -> None:
    (tmp_path / "copy").write_bytes(DATA)
    message = "interrupted: 21 B of 2.4 KiB verified; run the same command to resume"
    assert interrupted(21, update=True) == message
    assert not (tmp_path / ".copy.msd-part").exists()
    (tmp_path / "copy").write_bytes(DATA[1:])
    assert "progress saved in .copy.msd-part" in interrupted(21, update=True)
    assert (tmp_path / ".copy.msd-part").exists()


@pytest.mark.usefixtures("_without_servers")
def test_an_interrupted_stream_says_how_much_was_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "FileTransfer", fake_transfer(verified=21, run=interrupt))
    message = (
        "^interrupted: 21 B of 2.4 KiB verified; all of that was written to /dev/null; "
        "the same command starts from the beginning$"
    )
    with pytest.raises(Interrupted, match=message):
        download.download(locate_servers(Config()), output="/dev/null")


@pytest.mark.usefixtures("_without_servers")
def test_an_interrupt_after_the_rename_does_not_name_a_part_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish = PartFile.publish

    def publish_and_interrupt(part: PartFile, **options: bool) -> None:
        publish(part, **options)
        interrupt()

    monkeypatch.setattr(PartFile, "publish", publish_and_interrupt)
    (tmp_path / ".copy.msd-part").write_bytes(DATA)
    with pytest.raises(Interrupted) as raised:
        download.download(locate_servers(Config()), output=tmp_path / "copy")
    assert "msd-part" not in str(raised.value)
    assert (tmp_path / "copy").exists()


@pytest.mark.usefixtures("_without_servers")
@pytest.mark.parametrize(("interval", "count"), [(0.0, 24), (1.0, 2), (60.0, 0)])
def test_progress_is_emitted_every_interval(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, interval: float, count: int
) -> None:
    def transfer_with_events(*arguments: Any, on_event: OnEvent, **_: object) -> SimpleNamespace:
        def run() -> None:
            for step in range(1, 25):
                on_event(Progress(step, len(DATA), 0, 0, step / 10, 10.0, ()))
            interrupt()

        return fake_transfer(verified=24, run=run)(*arguments)

    monkeypatch.setattr(download, "FileTransfer", transfer_with_events)
    events: list[Event] = []
    with pytest.raises(Interrupted):
        download.download(
            locate_servers(Config(), host=None, ports=None, server5=None),
            output=tmp_path / "copy",
            interval=interval,
            on_event=events.append,
        )
    assert len([event for event in events if isinstance(event, Progress)]) == count


@pytest.mark.usefixtures("_without_servers")
@pytest.mark.parametrize("update", [False, True])
def test_a_file_with_another_sha_256_is_not_put_in_place(tmp_path: Path, update: bool) -> None:
    """The data arrives as shared; with ``update`` it is in the output already, and the output is left alone."""
    output = tmp_path / "copy"
    (output if update else tmp_path / ".copy.msd-part").write_bytes(DATA)

    def run(sha256: str) -> Report:
        return download.download(locate_servers(Config()), output=output, sha256=sha256, update=update)

    sha256 = hashlib.sha256(DATA).hexdigest()
    with pytest.raises(SourceError) as raised:
        run("0" * 64)
    message = str(raised.value)
    expected = f"film: the SHA-256 is {sha256}, but {'0' * 64} is expected: the sum is wrong, or the servers"
    assert message.startswith(expected)
    assert ("; the data is kept in" in message) != update
    assert output.exists() == update
    with pytest.raises(UsageError, match="a SHA-256 has 64 hexadecimal digits"):
        run("0" * 63)
    assert run(sha256.upper()).unchanged == update
    assert output.read_bytes() == DATA


def test_no_part_file_is_kept_of_an_empty_file(tmp_path: Path) -> None:
    manifest = Manifest.build("film", 0, b"")
    with closing(PartFile(tmp_path / "copy", manifest)) as part, pytest.raises(SourceError) as raised:
        download._check_sha256(part, manifest, "0" * 64)
    assert str(raised.value).endswith(f"the servers share other content, id {manifest.id.hex()}: check the sum")
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"timeout": 0}, "timeout 0: must be more than 0"),
        ({"timeout": -1}, "timeout -1: must be more than 0"),
        ({"memory": 0}, "memory 0: must be more than 0"),
        ({"interval": -0.5}, "interval -0.5: must not be negative"),
        ({"max_rate": -1}, "max_rate -1: must not be negative"),
        ({"max_rate": "5MiB"}, "max_rate '5MiB': must be a number of bytes per second; None or 0 for no limit"),
        ({"timeout": "x"}, "timeout 'x': must be a number of seconds, or None for no limit"),
        ({"name": 5}, "name 5: must be the name of a shared file"),
        ({"on_event": 5}, "on_event 5: must be a function that takes an event"),
    ],
)
def test_a_wrong_argument_is_a_usage_error(arguments: dict[str, Any], error: str) -> None:
    with pytest.raises(UsageError, match=f"^{error}$"):
        download.download(locate_servers(Config()), **arguments)


@pytest.mark.parametrize("output", ["-", "/dev/null"])
def test_an_update_of_a_stream_is_a_usage_error(output: str) -> None:
    with pytest.raises(UsageError, match=rf"^{output} is a stream, which cannot be updated: choose a file$"):
        download.download(locate_servers(Config()), output=output, update=True)


def test_the_type_of_every_argument_is_checked() -> None:
    assert [*inspect.signature(download.download).parameters] == [*download._ARGUMENT_TYPES]


@pytest.mark.usefixtures("_without_servers")
@pytest.mark.parametrize(("max_rate", "limit"), [(None, 0), (0, 0), (math.inf, 0), (2.5, 3), (50, 50)])
def test_the_first_event_has_the_limit_and_a_very_low_one_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, max_rate: float | None, limit: int
) -> None:
    monkeypatch.setattr(download, "FileTransfer", fake_transfer(verified=0, run=interrupt))
    events: list[Event] = []
    with pytest.raises(Interrupted):
        download.download(locate_servers(Config()), output=tmp_path / "copy", max_rate=max_rate, on_event=events.append)
    (started,) = [event for event in events if isinstance(event, Started)]
    assert started.max_rate == limit
    warnings = [event.text for event in events if isinstance(event, Warned)]
    text = "at 3 B/s, the limit of the rate, one segment of 204 B takes 1:08: check the unit of the limit"
    assert warnings == ([text] if limit == 3 else [])


def test_a_name_may_begin_with_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names: list[str] = []

    def look_up(_: object, name: str, *__: object, **___: object) -> None:
        names.append(name)
        interrupt()

    monkeypatch.setattr(download, "ConnectionPool", lambda *_, **__: SimpleNamespace(close=lambda: None, status=None))
    monkeypatch.setattr(file_download, "LookUp", look_up)
    with pytest.raises(Interrupted):
        download.download(locate_servers(Config()), "./dir/film", tmp_path / "copy")
    assert names == ["dir/film"]


def test_an_existing_file_is_kept_with_a_checksum_only_if_it_has_the_shared_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = MemoryWorker({"film": DATA})
    monkeypatch.setattr(worker, "close", lambda: None, raising=False)
    monkeypatch.setattr(download, "ConnectionPool", lambda *_, **__: worker)

    def run(content: bytes, **options: Any) -> Report:
        (tmp_path / "film").write_bytes(content)
        return download.download(locate_servers(Config()), "film", tmp_path, **options)

    assert run(DATA, checksum=True).unchanged
    with pytest.raises(UsageError, match="film exists: choose another path"):
        run(b"mine" + DATA[4:], checksum=True)
    assert (tmp_path / "film").read_bytes() == b"mine" + DATA[4:]
    report = run(b"mine" + DATA[4:], checksum=True, force=True)
    assert (report.unchanged, report.received_bytes) == (False, 205)
    assert run(DATA, checksum=True, update=True).unchanged
    assert [*tmp_path.iterdir()] == [tmp_path / "film"]
