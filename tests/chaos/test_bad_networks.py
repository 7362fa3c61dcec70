"""Real downloads through networks that delay data, flip bits, and stall, cut and reset connections.

The client connects to each worker and to server 5 through a separate proxy. Faults apply to the workers only,
unless a test says otherwise.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from msd.wire.protocol.states import WorkerState
from tests.network_fault_proxy import Proxy
from tests.processes import MIB, Download, Serve, Source, System, files_equal, wait_for


@dataclass
class Network:
    """A system and a proxy for each of its five ports: ``proxies`` for the workers, ``status`` for server 5."""

    system: System
    proxies: list[Proxy]
    status: Proxy

    def download(self, output: Path, *arguments: str) -> Download:
        ports = [str(proxy.port) for proxy in (*self.proxies, self.status)]
        return Download(["-a", "127.0.0.1", "-p", *ports], "-o", str(output), "--no-sync", *arguments)


@pytest.fixture
def network(serve: Serve) -> Iterator[Callable[..., Network]]:
    with ExitStack() as stack:

        def build(path: Path, *arguments: str, **faults: Any) -> Network:
            system = serve(path, *arguments)
            proxies = [stack.enter_context(Proxy(port)) for port in system.ports]
            for proxy in proxies[:4]:
                for name, value in faults.items():
                    setattr(proxy, name, value)
            return Network(system, proxies[:4], proxies[4])

        yield build


Build = Callable[..., Network]


def test_a_long_fat_network_is_used_fully(network: Build, source: Source, tmp_path: Path) -> None:
    """With a round-trip time of 100 ms, the client uses at least 60 % of the 4 × 10 MiB/s, start-up included."""
    path = source(120 * MIB)
    net = network(path, delay=0.05, rate=10 * MIB)
    with net.download(tmp_path / "copy") as client:
        done = client.wait_until_done()
    assert files_equal(path, tmp_path / "copy")
    assert done["wasted_bytes"] <= 0.05 * path.stat().st_size
    # If the window never grew, the download would take four times as long. This is not a benchmark; see make bench.
    assert done["seconds"] < 3 / 0.6


def test_a_stalled_connection_to_one_worker_does_not_stall_the_download(
    network: Build,
    source: Source,
    tmp_path: Path,
) -> None:
    """The proxy forwards nothing but keeps the connection open: the client fetches the segments from other workers."""
    path = source(48 * MIB)
    net = network(path, "--rate", "8MiB")
    with net.download(tmp_path / "copy") as client:
        client.wait_until_verified(0.3)
        net.proxies[1].stalled = True
        done = client.wait_until_done()
    assert files_equal(path, tmp_path / "copy")
    assert done["workers"]["2"]["bytes"] < 0.25 * path.stat().st_size
    assert net.system.worker(2).state == WorkerState.AWAKE


def test_the_client_reconnects_after_a_reset(network: Build, source: Source, tmp_path: Path) -> None:
    path = source(48 * MIB)
    net = network(path, "--rate", "8MiB")
    with net.download(tmp_path / "copy") as client:
        for number, share in enumerate((0.1, 0.2, 0.3, 0.4)):
            client.wait_until_verified(share)
            net.proxies[number].reset()
        done = client.wait_until_done()
    assert files_equal(path, tmp_path / "copy")
    assert [done["workers"][name]["failures"] for name in "1234"] == [1, 1, 1, 1]


def test_a_download_succeeds_over_connections_that_are_cut_repeatedly(
    network: Build, source: Source, tmp_path: Path
) -> None:
    """The proxy cuts each connection after 3 MiB."""
    path = source(32 * MIB)
    net = network(path, cut_after=3 * MIB)
    with net.download(tmp_path / "copy") as client:
        done = client.wait_until_done(60)
    assert files_equal(path, tmp_path / "copy")
    assert sum(worker["failures"] for worker in done["workers"].values()) >= 4


def test_flipped_bits_are_detected_and_their_worker_is_banned(network: Build, source: Source, tmp_path: Path) -> None:
    path = source(48 * MIB)
    net = network(path, "--rate", "8MiB")
    net.proxies[2].flip_every = 700_001
    with net.download(tmp_path / "copy") as client:
        done = client.wait_until_done()
    assert files_equal(path, tmp_path / "copy")
    assert done["workers"]["3"]["corrupt"] == 3
    assert {"event": "worker", "name": "3", "state": "set aside", "detail": "sent corrupt data"}.items() <= {
        **next(event for event in client.events_of("worker") if event["state"] == "set aside")
    }.items()
    wait_for("three complaints", lambda: net.system.worker(3).complaints == 3)


def test_a_stalled_connection_to_server_5_does_not_disturb_a_download(
    network: Build, source: Source, tmp_path: Path
) -> None:
    path = source(32 * MIB)
    net = network(path, "--rate", "4MiB", "-i", "0.1")
    with net.download(tmp_path / "copy") as client:
        client.wait_until_verified(0.1)
        net.status.stalled = True
        done = client.wait_until_done()
        net.status.stalled = False
    assert files_equal(path, tmp_path / "copy")
    # Nothing on a machine that is not busy.
    assert done["wasted_bytes"] <= 2 * MIB


def test_a_download_survives_random_faults(
    network: Build,
    source: Source,
    tmp_path: Path,
    rng: random.Random,
) -> None:
    """Connections are stalled, reset, refused or delayed, and workers put to sleep or killed, in random order."""
    path = source(64 * MIB)
    net = network(path, "--rate", "8MiB")
    with net.download(tmp_path / "copy") as client:
        for step in range(1, 13):
            wait_for("progress", lambda due=step: client.verified_bytes > due * 4 * MIB or client.events_of("done"))  # type: ignore[misc]
            if client.events_of("done"):
                break
            victim = rng.choice(net.proxies)
            for proxy in net.proxies:
                proxy.stalled = proxy.refusing = False
                proxy.delay = 0.0
            number = net.proxies.index(victim) + 1
            match rng.choice(["stall", "reset", "refuse", "delay", "sleep", "kill"]):
                case "stall":
                    victim.stalled = True
                case "reset":
                    victim.reset()
                case "refuse":
                    victim.refusing = True
                    victim.reset()
                case "delay":
                    victim.delay = rng.uniform(0, 0.2)
                case "sleep":
                    net.system.put_to_sleep(number)
                    net.system.wake(number)
                case "kill":
                    net.system.kill(number)
        client.wait_until_done(60)
    assert files_equal(path, tmp_path / "copy")
