"""Downloads through networks that delay, stall, cut, reset and flip bits, with real processes.

Each worker is reached through a proxy of its own; server 5 is reached directly unless a test says
otherwise.
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
from tests.proxy import Proxy
from tests.system import MIB, Download, Serve, Source, System, files_equal, wait_for


@dataclass
class Network:
    """A system, and a proxy in front of each of its five ports."""

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


def test_a_long_fat_link_is_filled(network: Build, source: Source, tmp_path: Path) -> None:
    """100 ms of round trip, 4 × 10 MiB/s: the rate is reached within a few round trips."""
    path = source(120 * MIB)
    net = network(path, delay=0.05, rate=10 * MIB)
    with net.download(tmp_path / "copy") as client:
        done = client.wait_until_done()
    assert files_equal(path, tmp_path / "copy")
    assert done["wasted_bytes"] <= 0.05 * path.stat().st_size
    # Not a figure of speed (see make bench), but a window that never grew would take four times as long.
    assert done["seconds"] < 3 / 0.6


def test_a_black_hole_in_front_of_one_worker_holds_up_nobody(
    network: Build,
    source: Source,
    tmp_path: Path,
) -> None:
    """Nothing passes any more, nothing is closed: its segments are fetched from the others."""
    path = source(48 * MIB)
    net = network(path, "--rate", "8MiB")
    with net.download(tmp_path / "copy") as client:
        client.wait_until_verified(0.3)
        net.proxies[1].stalled = True
        done = client.wait_until_done()
    assert files_equal(path, tmp_path / "copy")
    assert done["workers"]["2"]["bytes"] < 0.25 * path.stat().st_size
    assert net.system.worker(2).state == WorkerState.AWAKE


def test_connections_that_are_reset_are_opened_again(network: Build, source: Source, tmp_path: Path) -> None:
    path = source(48 * MIB)
    net = network(path, "--rate", "8MiB")
    with net.download(tmp_path / "copy") as client:
        for number, share in enumerate((0.1, 0.2, 0.3, 0.4)):
            client.wait_until_verified(share)
            net.proxies[number].reset()
        done = client.wait_until_done()
    assert files_equal(path, tmp_path / "copy")
    assert [done["workers"][name]["failures"] for name in "1234"] == [1, 1, 1, 1]


def test_connections_cut_again_and_again_still_bring_the_file(network: Build, source: Source, tmp_path: Path) -> None:
    """Each connection carries 3 MiB at most."""
    path = source(32 * MIB)
    net = network(path, cut_after=3 * MIB)
    with net.download(tmp_path / "copy") as client:
        done = client.wait_until_done(60)
    assert files_equal(path, tmp_path / "copy")
    assert sum(worker["failures"] for worker in done["workers"].values()) >= 4


def test_flipped_bits_are_caught_and_the_culprit_named(network: Build, source: Source, tmp_path: Path) -> None:
    path = source(48 * MIB)
    net = network(path, "--rate", "8MiB")
    net.proxies[2].flip_every = 700_001
    with net.download(tmp_path / "copy") as client:
        done = client.wait_until_done()
    assert files_equal(path, tmp_path / "copy")
    assert done["workers"]["3"]["corrupt"] == 3
    assert {"event": "worker", "name": "3", "state": "set aside", "detail": "corrupt"}.items() <= {
        **next(event for event in client.events_of("worker") if event["state"] == "set aside")
    }.items()
    wait_for("the complaints", lambda: net.system.worker(3).complaints == 3)


def test_server_5_cut_off_changes_nothing(network: Build, source: Source, tmp_path: Path) -> None:
    path = source(48 * MIB)
    net = network(path, "--rate", "4MiB", "-i", "0.1")
    with net.download(tmp_path / "copy") as client:
        client.wait_until_verified(0.1)
        net.status.stalled = True
        done = client.wait_until_done()
        net.status.stalled = False
    assert files_equal(path, tmp_path / "copy")
    assert done["wasted_bytes"] == 0


def test_misfortune_of_all_kinds_at_random(
    network: Build,
    source: Source,
    tmp_path: Path,
    rng: random.Random,
) -> None:
    """Stalls, resets, refusals, delays, sleeps and kills, until the file is there."""
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
