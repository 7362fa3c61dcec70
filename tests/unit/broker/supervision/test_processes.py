"""The processes of the workers. tests/integration runs them; this is the end of one that cannot serve."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path

from msd.broker.supervision.processes import WorkerProcesses
from msd.wire.config.settings import Config
from msd.wire.protocol.states import WantedState
from tests.processes import wait_for


def test_a_worker_that_cannot_serve_is_reaped_with_its_reason(tmp_path: Path) -> None:
    with closing(WorkerProcesses(Config(), tmp_path, f"ipc://{tmp_path}/control", bytes(16))) as processes:
        pid = processes.spawn(1, WantedState.AWAKE, 1)
        assert processes.pids == [pid]
        exited = wait_for("the exit of the worker", processes.reap)
        assert [(process.number, process.pid) for process in exited] == [(1, pid)]
        assert "catalogue" in exited[0].reason
        assert processes.pids == []
        assert processes.reap() == []


def test_an_abandoned_process_is_not_waited_for(tmp_path: Path) -> None:
    with closing(WorkerProcesses(Config(), tmp_path, f"ipc://{tmp_path}/control", bytes(16))) as processes:
        pid = processes.spawn(1, WantedState.AWAKE, 1)
        exited = processes.abandon(1)
        assert (exited.number, exited.pid) == (1, pid)
        assert (processes.pids, processes.abandoned, processes.reap()) == ([], [pid], [])
    os.waitpid(pid, 0)
