"""Which flags of ``msd download`` go together, and whether one file or several are downloaded."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from msd.client.cli import download_command
from msd.client.cli.download_command import DownloadFlags, run
from msd.client.events import FileCounts, FilesReport, Report
from msd.client.operations import download as download_module
from msd.client.operations import download_files as download_files_module
from msd.client.operations import dry_run as dry_run_module
from msd.client.operations import list_files as list_module
from msd.wire.config.cli_flags import ServerFlags
from msd.wire.errors import DiskError, NotFoundError, UsageError

FLAGS = DownloadFlags(
    names=(),
    output=None,
    interval=1.0,
    id=None,
    sha256=None,
    update=False,
    force=False,
    checksum=False,
    dry_run=False,
    exclude=(),
    timeout=None,
    max_rate=None,
    pass_on=False,
    listen=None,
    max_upload=None,
    keep_serving=None,
    sync=True,
    check_space=True,
    report=None,
    json=False,
    quiet=True,
    verbose=False,
)
REPORT = Report("film", Path("film"), "00", 1, 1.0, 1, 0, 0)
FILES_REPORT = FilesReport(Path(), FileCounts(listed=1, fetched=1), {}, 1.0, 1, 0, 0)


def options(**changes: Any) -> DownloadFlags:
    values = {field: getattr(FLAGS, field) for field in FLAGS.__struct_fields__}
    return DownloadFlags(**{**values, **changes})


class Calls:
    """Replaces the downloads, and records which one runs with which arguments."""

    def __init__(self) -> None:
        self.one: list[dict[str, Any]] = []
        self.dry: list[dict[str, Any]] = []
        self.several: list[dict[str, Any]] = []
        self.files_report = FILES_REPORT
        #: The names that were looked up.
        self.looked_up: list[str] = []

    def download(self, servers: object, name: object, output: object, **options: Any) -> Report:
        self.one.append({"name": name, "output": output, **options})
        return REPORT

    def dry_run(self, servers: object, name: object, output: object, **options: Any) -> FilesReport:
        self.dry.append({"name": name, "output": output, **options})
        return self.files_report

    def download_files(self, servers: object, names: object, output: object, **options: Any) -> FilesReport:
        self.several.append({"names": names, "output": output, **options})
        return self.files_report

    def looks_like_several(self, servers: object, name: str, **_: Any) -> bool:
        self.looked_up.append(name)
        return name != "film [1].mkv"


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Calls]:
    calls = Calls()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(download_module, "download", calls.download)
    monkeypatch.setattr(dry_run_module, "dry_run", calls.dry_run)
    monkeypatch.setattr(download_files_module, "download_files", calls.download_files)
    monkeypatch.setattr(list_module, "looks_like_several", calls.looks_like_several)
    monkeypatch.setattr(download_command, "keep_freed_memory", lambda: None)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield calls
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("changes", "is_several", "is_looked_up"),
    [
        ({}, False, False),
        ({"names": ("film.mkv",)}, False, False),
        ({"names": ("film.mkv",), "checksum": True}, False, False),
        ({"names": ("film [1].mkv",)}, False, True),
        ({"names": ("film [1].mkv",), "sha256": "ab"}, False, True),
        ({"names": ("*.mkv",)}, True, True),
        ({"names": ("film?",)}, True, True),
        ({"names": ("photos/",)}, True, False),
        ({"names": (".",)}, True, False),
        ({"names": ("a", "b")}, True, False),
        ({"names": ("a",), "exclude": ("*.tmp",)}, True, False),
    ],
    ids=str,
)
def test_one_name_is_a_single_file_unless_it_is_a_folder_or_a_glob(
    calls: Calls, changes: dict[str, Any], is_several: bool, is_looked_up: bool
) -> None:
    assert run(ServerFlags(), options(**changes)) == 0
    assert (len(calls.several), len(calls.one)) == ((1, 0) if is_several else (0, 1))
    assert bool(calls.looked_up) is is_looked_up


def test_the_dry_run_of_a_single_file_takes_its_output(calls: Calls) -> None:
    run(ServerFlags(), options(names=("film.mkv",), output="copy.mkv", dry_run=True, update=True, id="abcdef"))
    (call,) = calls.dry
    assert (call["name"], call["output"], call["update"], call["id"]) == ("film.mkv", "copy.mkv", True, "abcdef")
    assert not calls.one
    with pytest.raises(UsageError, match="--sha256 needs the content of the file: leave out --dry-run"):
        run(ServerFlags(), options(names=("film.mkv",), dry_run=True, sha256="ab"))


def test_all_flags_reach_the_download_of_several_files(calls: Calls) -> None:
    changes: dict[str, Any] = {
        "exclude": ("*.tmp",),
        "update": True,
        "force": True,
        "checksum": True,
        "dry_run": True,
        "timeout": 3.0,
        "sync": False,
        "check_space": False,
        "pass_on": True,
        "listen": "5000",
    }
    texts = {"max_rate": "1k", "max_upload": "2k", "keep_serving": "1m"}
    run(ServerFlags(), options(names=("a", "b/"), output="out", **texts, **changes))
    (call,) = calls.several
    parsed = {"max_rate": 1000, "max_upload": 2000, "keep_serving": 60.0}
    expected = {"names": ("a", "b/"), "output": "out", "memory": 64 << 20, **parsed, **changes}
    assert {**call, "on_event": None} == {**expected, "on_event": None}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"id": "abcdef"}, "--id is for a single file: leave it out, or download the files one by one"),
        ({"sha256": "ab"}, "--sha256 is for a single file"),
        ({"output": "-"}, "-o - takes a single file: give a folder for several files"),
        ({"json": True}, "--json and --quiet contradict each other"),
        ({"interval": 0.0}, "-i 0: must be more than 0 seconds"),
        ({"timeout": -1.0}, "--timeout -1: must be more than 0 seconds"),
        ({"json": True, "quiet": False, "output": "-"}, "--json and -o - both write to standard output"),
        ({"names": (), "exclude": ("x",)}, "--exclude leaves files out of folders and globs: give a NAME"),
    ],
    ids=str,
)
def test_flags_that_do_not_go_together_are_an_error(calls: Calls, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        run(ServerFlags(), options(**{"names": ("photos/",), **changes}))
    assert str(caught.value).startswith(message)
    assert not calls.several


@pytest.mark.parametrize("errors", [{}, {"a": DiskError("a: full"), "b/": NotFoundError("'b/' is not shared")}])
def test_the_exit_code_is_that_of_the_first_failure(calls: Calls, errors: dict[str, Any]) -> None:
    calls.files_report = FilesReport(Path(), FileCounts(listed=2), errors, 1.0, 1, 0, 0)
    assert run(ServerFlags(), options(names=("a", "b/"))) == (6 if errors else 0)


def test_with_json_the_first_failure_is_the_last_event(calls: Calls, capsys: pytest.CaptureFixture[str]) -> None:
    calls.files_report = FilesReport(Path(), FileCounts(listed=2), {"a": DiskError("a: full")}, 1.0, 1, 0, 0)
    with pytest.raises(DiskError):
        run(ServerFlags(), options(names=("a", "b/"), json=True, quiet=False))
    assert capsys.readouterr().out.startswith('{"event": "summary"')
