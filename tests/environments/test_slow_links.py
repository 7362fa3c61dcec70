"""Downloads over slow links that all workers share, as over DSL or a mobile network."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.environments.recipes import Wrapper, slow_link
from tests.processes import Download, Serve, Source, System, files_equal, wait_for


@contextlib.contextmanager
def downloading(
    serve: Serve, path: Path, output: Path, wrapper: Wrapper, timeout: int
) -> Iterator[tuple[System, Download]]:
    system = serve(path, wrapper=wrapper)
    arguments = ("-o", str(output), "--timeout", str(timeout))
    with system.download(*arguments, interval=0.1, wrapper=wrapper) as client:
        yield system, client


def longest_wait(client: Download) -> float:
    """The longest time in seconds in which nothing arrived, while segments were missing."""

    def arrived(event: dict[str, Any]) -> Any:
        # When a part arrives, its worker is asked for another one.
        return event["bytes"], event["wasted_bytes"], [worker["assigned"] for worker in event["workers"].values()]

    moments: list[float] = [client.events_of("start")[0]["at"]]
    for before, after in pairwise(client.events_of("progress")):
        if arrived(after) != arrived(before):
            moments.append(after["at"])
    return max(end - start for start, end in pairwise(moments))


def sent_bytes(wrapper: Wrapper) -> int:
    """How many bytes the link has carried, in both directions."""
    lines = subprocess.run([*wrapper, "cat", "/proc/net/dev"], capture_output=True, text=True, check=True).stdout
    return int(next(line for line in lines.splitlines() if "lo:" in line).split(":")[1].split()[8])


def reset_connections(wrapper: Wrapper, system: System) -> None:
    """Resets all connections to the workers."""
    for port in system.ports[:4]:
        subprocess.run([*wrapper, "ss", "-K", "-tn", "sport", "=", f":{port}"], capture_output=True, check=True)


@pytest.mark.soak
def test_a_download_over_1_mbit_makes_progress_all_the_time(serve: Serve, source: Source, tmp_path: Path) -> None:
    path = source(2_000_000)
    with slow_link("1mbit") as wrapper, downloading(serve, path, tmp_path / "copy", wrapper, 20) as (_, client):
        done = client.wait_until_done(60)
        assert longest_wait(client) <= 2.5
    assert files_equal(path, tmp_path / "copy")
    assert done["seconds"] <= 1.25 * 16
    assert done["wasted_bytes"] <= 0.1 * 2_000_000


@pytest.mark.soak
@pytest.mark.parametrize(
    ("rate", "size", "timeout", "kept"),
    # What the link carries includes headers and acknowledgements, and snapshots of server 5.
    [("1mbit", 30_000_000, 20, 0.85), ("256kbit", 3_000_000, 30, 0.75)],
)
def test_resets_of_all_connections_cost_little_of_what_the_link_carried(
    serve: Serve, source: Source, tmp_path: Path, rate: str, size: int, timeout: int, kept: float
) -> None:
    path = source(size)
    with slow_link(rate) as wrapper, downloading(serve, path, tmp_path / "copy", wrapper, timeout) as (system, client):
        wait_for("the start", lambda: client.events_of("start"))
        before = sent_bytes(wrapper)
        while client.process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                client.process.wait(20)
                break
            reset_connections(wrapper, system)
        client.wait_until_done()
        assert size / (sent_bytes(wrapper) - before) >= kept
        assert longest_wait(client) <= 6.0
    assert files_equal(path, tmp_path / "copy")


@pytest.mark.soak
def test_a_fast_worker_does_not_wait_for_slow_ones(serve: Serve, source: Source, tmp_path: Path) -> None:
    """One worker sends 40 MB/s, the others 128 kbit/s."""
    size = 200_000_000
    path = source(size)
    fast, slow = serve(path, "--rate", "40000000"), serve(path, "--rate", "16000")
    server_flags = ["-a", "127.0.0.1", "-p", *map(str, [fast.ports[0], *slow.ports[1:4], fast.ports[4]])]
    with Download(server_flags, "-o", str(tmp_path / "copy")) as client:
        done = client.wait_until_done()
    assert files_equal(path, tmp_path / "copy")
    assert done["transfer_seconds"] <= 1.05 * size / (40e6 + 3 * 16e3)
    assert done["wasted_bytes"] <= 0.01 * size
