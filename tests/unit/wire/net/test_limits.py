"""Limits that are too low are refused with the limit and the value that it needs."""

from __future__ import annotations

import os
import resource
import threading
from pathlib import Path

import pytest

from msd.wire.errors import UsageError
from msd.wire.net import limits

PURPOSE = "4 workers"


def test_enough_is_enough_and_leaves_no_threads() -> None:
    before = threading.active_count(), threading.stack_size()
    limits.require(10, 10, PURPOSE)
    assert (threading.active_count(), threading.stack_size()) == before


def test_a_limit_on_open_files_names_the_value_that_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (24, 24))
    monkeypatch.setattr(resource, "setrlimit", lambda kind, limit: None)
    with pytest.raises(UsageError) as caught:
        limits.require(56, 1, PURPOSE)
    problem = "the limit on open files is 24, but 4 workers need at least 56"
    assert str(caught.value) == f"{problem}: raise it with ulimit, or LimitNOFILE of the service"


def limited_to(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """Only ``count`` threads can be started."""
    start = threading.Thread.start

    def start_or_fail(thread: threading.Thread) -> None:
        if threading.active_count() > count + 1:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_or_fail)


@pytest.mark.parametrize(
    ("membership", "folder"), [("4:cpu,pids:/a/b\n0::/\n", "pids/a"), ("0::/a/b\n", "a"), ("0::/a/b\n", ".")]
)
def test_the_cgroup_that_leaves_the_fewest_processes_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, membership: str, folder: str
) -> None:
    monkeypatch.setattr(limits, "CGROUPS", tmp_path)
    for name, text in (("pids/a/b", "max"), ("a/b", "max"), (folder, "12")):
        (tmp_path / name).mkdir(parents=True, exist_ok=True)
        (tmp_path / name / "pids.max").write_text(f"{text}\n")
        (tmp_path / name / "pids.current").write_text("8\n")
    # This process has three threads; a thread that has just ended may still be listed.
    monkeypatch.setattr(os, "listdir", lambda path: ["1", "2", "3"])
    read_text = Path.read_text
    monkeypatch.setattr(Path, "read_text", lambda p: membership if str(p) == "/proc/self/cgroup" else read_text(p))
    limited_to(monkeypatch, 7)
    with pytest.raises(UsageError) as caught:
        limits.require(1, 23, PURPOSE)
    group = tmp_path / folder
    assert str(caught.value) == (
        f"4 workers need 23 processes and threads: pids.max in {group} is 12 and must be at least 28"
    )


@pytest.mark.parametrize(
    ("soft", "text"),
    [(30, "the limit of this user is 30: raise it with ulimit"), (-1, "this machine cannot start as many")],
)
def test_without_a_cgroup_the_limit_of_the_user_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, soft: int, text: str
) -> None:
    monkeypatch.setattr(limits, "CGROUPS", tmp_path)
    getrlimit = resource.getrlimit
    monkeypatch.setattr(
        resource, "getrlimit", lambda kind: (soft, soft) if kind == resource.RLIMIT_NPROC else getrlimit(kind)
    )
    limited_to(monkeypatch, 7)
    with pytest.raises(UsageError, match=text):
        limits.require(1, 23, PURPOSE)
