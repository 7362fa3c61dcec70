"""The shared files as lines and as JSON."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec.structs import replace

from msd.client.cli import list_command
from msd.client.cli.list_command import run
from msd.client.manifest.shared_files import SharedFiles
from msd.client.plan.plan import Plan
from msd.wire.config.servers import locate_servers
from msd.wire.config.settings import Config
from msd.wire.errors import NotFoundError
from msd.wire.protocol.messages import Entry

SERVERS = locate_servers(Config())
TIME_NS = 1_600_000_000_123_456_789
ENTRIES = [
    Entry(name="photos/", size=0, mtime_ns=0, mode=0o750),
    Entry(name="photos/a b.jpg", size=3 << 20, mtime_ns=TIME_NS, mode=0o644, id=b"\xab" * 32),
    Entry(name="photos/run", size=5, mtime_ns=TIME_NS, mode=0o4755, id=b"\x01" * 32),
]


def plan_of(entries: list[Entry]) -> Plan:
    plan = Plan(has_units=False)
    plan.add(entries)
    return plan


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Replaces the servers. Returns the names that are requested, the errors that are returned, and the entries that
    other workers share.
    """
    requested: list[Any] = [None, [], []]

    def list_files(servers: object, names: list[str], timeout: float) -> tuple[SharedFiles, list[NotFoundError]]:
        files = SharedFiles()
        files.add(plan_of(ENTRIES), 3)
        if requested[2]:
            files.add(plan_of(requested[2]), 9)
        requested[0] = names
        return files, requested[1]

    monkeypatch.setattr(list_command, "list_files", list_files)
    return requested


def show(*names: str, long: bool = False, as_json: bool = False) -> None:
    run(SERVERS, names, timeout=5.0, long=long, as_json=as_json)


def test_files_are_listed_with_size_and_time(listed: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    show("photos/")
    assert listed[0] == ("photos/",)
    assert capsys.readouterr().out.splitlines() == [
        "   3.0 MiB  2020-09-13 12:26  photos/a b.jpg",
        "       5 B  2020-09-13 12:26  photos/run",
    ]


@pytest.mark.usefixtures("listed")
def test_the_long_list_has_permissions_ids_and_folders(capsys: pytest.CaptureFixture[str]) -> None:
    show(long=True)
    assert capsys.readouterr().out.splitlines() == [
        "drwxr-x---         -  -                 -             photos/",
        "-rw-r--r--   3.0 MiB  2020-09-13 12:26  abababababab  photos/a b.jpg",
        "-rwsr-xr-x       5 B  2020-09-13 12:26  010101010101  photos/run",
    ]


@pytest.mark.usefixtures("listed")
def test_the_json_has_files_and_folders(capsys: pytest.CaptureFixture[str]) -> None:
    show(as_json=True)
    time = {"modified": "2020-09-13T12:26:40.123457+00:00"}
    assert json.loads(capsys.readouterr().out) == {
        "files": [
            {"name": "photos/a b.jpg", "size": 3 << 20, **time, "mode": "0644", "id": "ab" * 32, "workers": 3},
            {"name": "photos/run", "size": 5, **time, "mode": "4755", "id": "01" * 32, "workers": 3},
        ],
        "folders": [{"name": "photos/", "mode": "0750", "workers": 3}],
    }


def test_each_version_of_a_file_has_a_line_with_the_number_of_workers_if_not_all_have_the_same(
    listed: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    listed[2] += [ENTRIES[0], replace(ENTRIES[2], size=7, id=b"\x02" * 32)]
    show()
    assert capsys.readouterr().out.splitlines() == [
        "   3.0 MiB  2020-09-13 12:26   3 of 12  photos/a b.jpg",
        "       7 B  2020-09-13 12:26   9 of 12  photos/run",
        "       5 B  2020-09-13 12:26   3 of 12  photos/run",
    ]
    show(long=True)
    assert capsys.readouterr().out.splitlines()[::2] == [
        "drwxr-x---         -  -                 -             12 of 12  photos/",
        "-rwsr-xr-x       7 B  2020-09-13 12:26  020202020202   9 of 12  photos/run",
    ]


def test_names_that_select_nothing_are_errors_after_the_list(
    listed: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    listed[1] += [NotFoundError("'x' is not shared"), NotFoundError("'y' is not shared")]
    with pytest.raises(NotFoundError, match="'x' is not shared"):
        show("photos/", "x", "y")
    out, err = capsys.readouterr()
    assert (len(out.splitlines()), err) == (2, "msd: 'y' is not shared\n")
