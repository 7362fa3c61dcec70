"""Time: the time of day jumps, and either side is suspended for a while, as a laptop that is closed and opened."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.environments.recipes import with_clock
from tests.processes import MIB, Serve, Source, System, files_equal

pytestmark = pytest.mark.soak

#: The client gives up after this many seconds without progress, but not because of a jump or a suspension.
TIMEOUT_S = 2
SUSPENDED_S = 3.0


@contextmanager
def suspended(pids: list[int]) -> Iterator[None]:
    """Stops processes meanwhile, the parents first, so that none of them sees another one stopped."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in reversed(pids):
            os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize("jump", ["+1000d", "-1000d", "+61m"])
@pytest.mark.parametrize("side", ["client", "servers"])
def test_a_jump_of_the_time_of_day_changes_nothing(
    side: str, jump: str, serve: Serve, source: Source, tmp_path: Path
) -> None:
    film, copy, clock = source(8 * MIB), tmp_path / "copy", tmp_path / "clock"
    clock.write_text("+0\n")
    wrapper = {side: with_clock(clock)}
    system = serve(film, "--rate", "1MiB", wrapper=wrapper.get("servers", []))
    began = time.monotonic()
    flags = ["-o", str(copy), "--timeout", str(TIMEOUT_S), "--no-sync"]
    with system.download(*flags, wrapper=wrapper.get("client", [])) as download:
        download.wait_until_verified(0.2)
        clock.write_text(f"{jump}\n")
        done = download.wait_until_done()
    assert files_equal(film, copy)
    assert done["seconds"] < time.monotonic() - began
    assert all(worker.restarts == 0 for worker in system.status().workers)
    assert not download.events_of("waiting")


def processes(system: System) -> list[int]:
    """The processes of the servers, the broker first."""
    return [system.pid, *(worker.pid for worker in system.status().workers)]


@pytest.mark.parametrize(
    "side",
    [
        pytest.param("client"),
        pytest.param("servers", marks=pytest.mark.soak),
        pytest.param("both", marks=pytest.mark.soak),
    ],
)
def test_a_download_continues_after_either_side_was_suspended(
    side: str, serve: Serve, source: Source, tmp_path: Path
) -> None:
    film, copy = source(8 * MIB), tmp_path / "copy"
    system = serve(film, "--rate", "1MiB")
    servers = processes(system) if side != "client" else []
    timeout = [] if side == "servers" else ["--timeout", str(TIMEOUT_S)]
    with system.download("-o", str(copy), *timeout) as download:
        download.wait_until_verified(0.2)
        with suspended([*servers, *([download.pid] if side != "servers" else [])]):
            time.sleep(SUSPENDED_S)
        done = download.wait_until_done()
    assert files_equal(film, copy)
    assert done["received_bytes"] <= film.stat().st_size + 4 * MIB
    assert all(worker.restarts == 0 for worker in system.status().workers)
