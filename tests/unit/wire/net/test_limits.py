"""Limits that are too low are refused with the limit and the value that it needs."""

from __future__ import annotations

import math
import os
import resource
import threading
from contextlib import nullcontext
from pathlib import Path

import pytest

from msd.wire.errors import UsageError
from msd.wire.net import limits

PURPOSE = "4 workers"


def test_enough_is_enough_and_leaves_no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "FAR_AWAY", math.inf)
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
    monkeypatch.setattr(limits, "FAR_AWAY", math.inf)


@pytest.mark.parametrize("near", ["", "user", "kernel", "cgroup", "unknown"])
def test_threads_are_started_only_if_a_limit_is_near(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, near: str
) -> None:
    running = 70
    texts = {
        "/proc/loadavg": "" if near == "unknown" else f"0.01 0.02 0.03 2/{running} 4711\n",
        "/proc/sys/kernel/threads-max": f"{running + (999 if near == 'kernel' else 1000)}\n",
        "/proc/sys/kernel/pid_max": f"{running + 1000}\n",
        "/proc/self/cgroup": "0::/a\n",
        f"{tmp_path}/a/pids.max": "1019\n" if near == "cgroup" else "1020\n",
        f"{tmp_path}/a/pids.current": "20\n",
    }
    user = running + (999 if near == "user" else 1000)
    monkeypatch.setattr(limits, "CGROUPS", tmp_path)
    monkeypatch.setattr(Path, "read_text", lambda path: texts[str(path)] if str(path) in texts else path.open().read())
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (user, user))
    monkeypatch.setattr(resource, "setrlimit", lambda kind, limit: None)
    monkeypatch.setattr(limits, "_can_start", lambda count: False)
    with pytest.raises(UsageError) if near else nullcontext():
        limits.require(1, 6, PURPOSE)


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


def test_a_thread_that_has_just_ended_does_not_hide_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    own = len(os.listdir("/proc/self/task"))
    monkeypatch.setattr(limits, "_cgroup_limits", lambda: [("/group", 22, own - 1)])
    assert limits._process_limit(23) == "pids.max in /group is 22 and must be at least 23"
