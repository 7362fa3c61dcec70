"""What works in which environment: one row for each environment, one cell for each command.

The rows use the recipes of ``tests/environments/recipes.py``; ``docs/operations.md`` describes them for users.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from msd.wire.errors import NoAnswerError
from tests.environments.recipes import (
    Wrapper,
    as_unknown_user,
    in_pid_namespace,
    in_removed_folder,
    limited,
    process_state,
    with_non_blocking_streams,
    with_signals_blocked,
    with_signals_ignored,
    with_streams_closed,
    with_umask,
    with_variables,
    without_new_privileges,
)
from tests.processes import MIB, Serve, Source, System, files_equal, run_msd, wait_for

#: Environments in which servers start, a download gets its file, and ``msd quit`` stops the servers.
WORKING: dict[str, Callable[[Path], Wrapper]] = {
    "an empty environment": lambda folder: with_variables(),
    "no home folder that exists": lambda folder: with_variables(HOME=str(folder / "none"), TMPDIR=str(folder)),
    "a user without an account": lambda folder: as_unknown_user(),
    "all standard streams closed": lambda folder: with_streams_closed(0, 1, 2),
    "all signals blocked": lambda folder: with_signals_blocked(*signal.valid_signals() - {9, 19}),
    "process 1 of a container": lambda folder: in_pid_namespace(),
}
#: Further ones, for ``make soak``.
UNUSUAL: dict[str, Callable[[Path], Wrapper]] = {
    "standard input closed": lambda folder: with_streams_closed(0),
    "SIGCHLD ignored": lambda folder: with_signals_ignored("CHLD"),
    "a home folder that cannot be written": lambda folder: ["env", "HOME=/proc", "XDG_CACHE_HOME=/proc/cache"],
    "a current folder that was removed": in_removed_folder,
    "a umask that leaves others everything": lambda folder: with_umask("0"),
    "a umask that leaves the group nothing": lambda folder: with_umask("077"),
    "a stack of 1 MiB": lambda folder: limited("--stack=1048576"),
    "an unlimited stack": lambda folder: limited("--stack=unlimited"),
    "an address space of 300 MiB": lambda folder: limited(f"--as={300 * MIB}"),
    "no core dumps, no locked memory": lambda folder: limited("--core=0", "--memlock=0"),
    "no new privileges": lambda folder: without_new_privileges(),
    "a lower priority": lambda folder: ["nice", "-n", "19"],
    "standard streams that do not block": lambda folder: with_non_blocking_streams(),
}


def answers(system: System) -> bool:
    assert system.process.poll() is None, system.err.text
    try:
        return system.states() == ["awake"]
    except NoAnswerError:
        return False


@pytest.mark.parametrize("name", [*WORKING, *(pytest.param(name, marks=pytest.mark.soak) for name in UNUSUAL)])
def test_servers_and_downloads_work(name: str, runtime_folder: Path, source: Source, tmp_path: Path) -> None:
    path = source(MIB)
    for folder in (runtime_folder, *tmp_path.parents[:3], tmp_path):
        folder.chmod(0o777)
    wrapper = {**WORKING, **UNUSUAL}[name](tmp_path)
    with System(path, workers=1, wrapper=wrapper) as system:
        wait_for("the servers", lambda: answers(system))
        ended = run_msd("download", *system.server_flags, "-o", str(tmp_path / "copy"), wrapper=wrapper)
        assert ended.returncode == 0, ended.stderr
        assert files_equal(path, tmp_path / "copy")
        assert run_msd("quit", *system.server_flags, wrapper=wrapper).returncode == 0
        assert system.wait() == 0, system.err.text
    assert not [*runtime_folder.iterdir()]


@pytest.mark.parametrize(
    "ignored", [pytest.param(signal.SIGINT, marks=pytest.mark.soak), signal.SIGHUP, signal.SIGTERM]
)
def test_ignored_signals_stay_ignored_except_sigterm(
    ignored: signal.Signals, serve: Serve, source: Source, tmp_path: Path
) -> None:
    """A script ignores SIGINT for a background job, ``nohup`` ignores SIGHUP; SIGTERM always ends a command."""
    wrapper = with_signals_ignored(ignored.name.removeprefix("SIG"))
    system = serve(source(8 * MIB), "--rate", "2m", workers=1, wrapper=wrapper)
    with system.download("-o", str(tmp_path / "copy"), wrapper=wrapper) as client:
        client.wait_until_verified(0.05)
        if ignored != signal.SIGTERM:
            client.signal(ignored)
            system.signal(ignored)
            client.wait_until_verified(0.15)
            assert answers(system)
        for process in (client, system):
            process.signal(signal.SIGTERM)
            assert process.wait() == 128 + signal.SIGTERM


def test_process_1_of_a_container_reaps_orphans(serve: Serve, source: Source) -> None:
    orphan = ["sh", "-c", '(sleep 0.1 &); exec "$@"', "sh"]
    system = serve(source(1000), wrapper=[*in_pid_namespace(), *orphan])
    (process_1,) = children(system.pid)
    wait_for("the orphan's end", lambda: not [pid for pid in children(process_1) if process_state(pid) == "Z"])
    assert len(children(process_1)) == 5
    assert run_msd("quit", *system.server_flags).returncode == 0
    assert system.wait() == 0


def children(pid: int) -> list[int]:
    return [*map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]
