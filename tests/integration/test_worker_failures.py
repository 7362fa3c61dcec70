"""Downloads continue while workers are killed, put to sleep and woken up."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from msd.broker.operator.operator_client import OperatorClient
from msd.wire.protocol.states import WantedState
from tests.processes import (
    MIB,
    Download,
    Serve,
    Source,
    System,
    files_equal,
    is_free,
    wait_for,
)

#: At this rate per worker, four workers take 1.5 s to send 48 MiB: long enough to inject faults.
RATE = ("--rate", "8MiB")
SIZE = 48 * MIB
#: Maximum number of requests in flight from a client to one worker.
WINDOW = 8


def check_result(done: dict[str, Any], source: Path, output: Path, *, in_flight: int = 0) -> None:
    """Checks the output and the byte counts, and that at most ``in_flight`` MiB were wasted."""
    assert files_equal(source, output)
    assert not output.with_name(f".{output.name}.msd-part").exists()
    size = source.stat().st_size
    assert done["bytes"] == size
    assert done["received_bytes"] - done["wasted_bytes"] + done["reused_bytes"] == size
    assert sum(worker["bytes"] for worker in done["workers"].values()) + done["reused_bytes"] == size
    assert done["wasted_bytes"] <= in_flight * MIB


@pytest.mark.parametrize(
    "victims", [*(pytest.param(each, marks=pytest.mark.soak) for each in ((3,), (1, 4))), (1, 2, 3)]
)
def test_killed_workers_waste_only_segments_in_flight(
    serve: Serve, source: Source, tmp_path: Path, victims: tuple[int, ...]
) -> None:
    path = source(SIZE)
    system = serve(path, *RATE)
    with system.download("-o", "copy.bin", cwd=tmp_path) as client:
        client.wait_until_verified(0.3)
        system.kill(*victims)
        done = client.wait_until_done()
    check_result(done, path, tmp_path / "copy.bin", in_flight=WINDOW * len(victims))
    assert all(done["workers"][str(victim)]["failures"] == 1 for victim in victims)
    wait_for("the killed workers to be restarted", lambda: system.states() == ["awake"] * 4)
    assert [worker.restarts for worker in system.status().workers] == [int(n in victims) for n in (1, 2, 3, 4)]


def test_each_worker_can_be_toggled_during_a_download(serve: Serve, source: Source, tmp_path: Path) -> None:
    path = source(SIZE)
    system = serve(path, *RATE)
    with system.download("-o", "copy.bin", cwd=tmp_path) as client:
        client.wait_until_verified(0.1)
        for number in (1, 2, 3, 4):
            system.put_to_sleep(number)
            system.wake(number)
        done = client.wait_until_done()
    check_result(done, path, tmp_path / "copy.bin", in_flight=4 * WINDOW)


def test_a_download_waits_while_all_workers_sleep_and_resumes_with_the_first_awake(
    serve: Serve, source: Source, tmp_path: Path
) -> None:
    """
    1. All four workers are put to sleep: no data arrives; the client reports why and keeps running.
    2. After 3 s worker 3 is woken up: data arrives within 0.2 s, on a busy machine at one of three attempts.
    3. Worker 3 alone sends the rest.
    """
    path = source(24 * MIB)
    system = serve(path, *RATE)
    with system.download("-o", "copy.bin", cwd=tmp_path) as client:
        client.wait_until_verified(0.3)
        system.put_to_sleep(1, 2, 3, 4)
        before = wait_for("the last replies", lambda: client.verified_bytes if client.events_of("waiting") else None)
        wait_for("3 s to pass", lambda: client.events[-1]["at"] - client.events_of("waiting")[0]["at"] > 3 or None)
        assert client.verified_bytes == before
        assert "all 4 workers are asleep" in client.events_of("waiting")[-1]["reason"]
        delays = [delay_of_data(system, client)]
        while min(delays) >= 0.2:
            assert len(delays) < 3, delays
            waits = len(client.events_of("waiting"))
            system.put_to_sleep(3)
            wait_for("the client to wait again", lambda count=waits: len(client.events_of("waiting")) > count)  # type: ignore[misc]
            delays.append(delay_of_data(system, client))
        done = client.wait_until_done()
    check_result(done, path, tmp_path / "copy.bin", in_flight=4 * WINDOW)


def delay_of_data(system: System, client: Download) -> float:
    """Wakes worker 3 up, and returns how many seconds later the client, which waits, has data."""
    before = client.verified_bytes
    with OperatorClient(system.servers) as operator:
        woken_at = time.monotonic()
        assert operator.toggle(3, WantedState.AWAKE).reached
    first_data = wait_for("data", lambda: next((e for e in client.events_of("progress") if e["bytes"] > before), None))
    return float(first_data["at"]) - woken_at


@pytest.mark.soak
@pytest.mark.alone
def test_no_connection_takes_the_default_port_35416_while_its_worker_sleeps(
    serve: Serve, source: Source, tmp_path: Path
) -> None:
    """Port 35416 is in the kernel's ephemeral range. The worker on this port sleeps for some seconds while a client
    runs; during that time no outgoing connection may take the port. ``tests/environments/test_ports.py`` has a machine
    with few such ports.
    """
    seconds = 10
    path = source(2 * (seconds + 2) * MIB)
    ports = (21018, 27215, 35416, 19222, 39223)
    # A closed outgoing connection blocks its port for a minute (TIME_WAIT).
    wait_for("the ports to be free", lambda: all(map(is_free, (*ports, ports[4] + 1))), timeout=70)
    system = serve(path, "--rate", "512KiB", ports=ports)
    with system.download("-o", "copy.bin", cwd=tmp_path) as client:
        client.wait_until_verified(0.02)
        system.put_to_sleep(3)
        asleep_since = client.events[-1]["at"]
        wait_for("the time to pass", lambda: client.events[-1]["at"] - asleep_since > seconds or None)
        system.wake(3)
        before = client.events_of("progress")[-1]["workers"]["3"]["received"]
        wait_for("data from worker 3", lambda: client.events_of("progress")[-1]["workers"]["3"]["received"] > before)
        done = client.wait_until_done(60)
    check_result(done, path, tmp_path / "copy.bin", in_flight=WINDOW)


@pytest.mark.soak
def test_a_hundred_kills_at_random_moments_lose_nothing(
    serve: Serve, source: Source, tmp_path: Path, rng: random.Random
) -> None:
    path = source(256 * MIB)
    system = serve(path, "--rate", "64MiB")
    for number in range(100):
        with system.download("-o", f"copy-{number}", cwd=tmp_path) as client:
            client.wait_until_verified(rng.uniform(0.0, 0.9))
            victim = system.worker(rng.randint(1, 4))
            if victim.pid:
                os.kill(victim.pid, signal.SIGKILL)
            client.wait_until_done()
        assert files_equal(path, tmp_path / f"copy-{number}")
        (tmp_path / f"copy-{number}").unlink()
        for worker in system.status().workers:
            if worker.state == "failed":
                system.wake(worker.number)
