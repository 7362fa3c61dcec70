"""A host for each worker, in a network of namespaces: rates by ``tbf``, links that go down without a word."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from msd.wire.security.keys import Role
from tests.environments.recipes import Wrapper, hosts, run_in, with_clock
from tests.hostile_clients import Keyring
from tests.hosts import Broker, Worker
from tests.processes import MIB, Download, Source, files_equal, wait_for

pytestmark = pytest.mark.usefixtures("runtime_folder")

#: Bytes a second that each host can send: 160 Mbit/s, without the headers of Ethernet, IP and TCP (66 of 1514 bytes).
RATE = 160_000_000 / 8 * 1448 / 1514
WORKERS = 4


class Network:
    """A broker on the first machine, a worker on each of the others but the last, which is that of the clients."""

    def __init__(self, stack: ExitStack, machines: list[Wrapper], path: Path, folder: Path, keys: Keyring) -> None:
        self.machines = machines
        self.folder = folder
        self.broker = stack.enter_context(Broker(folder / "b", host="192.0.2.1", keys=keys, wrapper=machines[0]))
        self._path = path
        self.workers = [self.start(number) for number in range(1, WORKERS + 1)]
        for worker in self.workers:
            stack.enter_context(worker)
        self.broker.wait_for_states(**{f"host-{number}": "awake" for number in range(1, WORKERS + 1)})

    def start(self, number: int) -> Worker:
        """Starts the worker of machine ``number``, counted from 0."""
        flags = (str(self._path), "--listen", "21018")
        return self.broker.worker(f"host-{number}", *flags, owner="hosts", wrapper=self.machines[number])

    def download(self) -> Download:
        return self.broker.download(
            "-o", "copy.bin", "--force", owner="alice", wrapper=self.machines[-1], cwd=self.folder
        )

    def cut(self, number: int, state: str = "down") -> None:
        """The link of this machine goes down, or "up" again; neither side is told."""
        run_in(self.machines[number], f"ip link set e0 {state}")


@pytest.fixture
def keys(tmp_path: Path) -> Keyring:
    keys = Keyring(tmp_path / "keys")
    keys.create_key("hosts", Role.WORKER)
    keys.create_key("alice", Role.CLIENT)
    return keys


@contextmanager
def network(path: Path, folder: Path, keys: Keyring, rate: str = "160mbit") -> Iterator[Network]:
    with hosts(WORKERS + 2, rate) as machines, ExitStack() as stack:
        yield Network(stack, machines, path, folder, keys)


def seconds(done: dict[str, Any]) -> float:
    return float(done["seconds"])


@pytest.mark.alone
@pytest.mark.parametrize("size", [80 * MIB, pytest.param(1600 * MIB, marks=pytest.mark.soak)])
def test_a_download_has_the_sum_of_the_rates_of_all_hosts(
    size: int, source: Source, tmp_path: Path, keys: Keyring
) -> None:
    path = source(size)
    with network(path, tmp_path, keys) as net, net.download() as download:
        done = download.wait_until_done(120)
    assert files_equal(path, tmp_path / "copy.bin")
    ideal = size / (WORKERS * RATE)
    print(f"{ideal / seconds(done):.3f} of the sum of the rates, {done['wasted_bytes']:,} bytes wasted")
    # The machine that runs this test may be busy.
    assert ideal / seconds(done) >= (0.95 if size > 1000 * MIB else 0.8), seconds(done)
    assert done["wasted_bytes"] <= 0.01 * size


@pytest.mark.soak
@pytest.mark.parametrize("how", ["cut off", "killed"])
def test_a_host_that_is_lost_costs_no_more_than_its_rate(
    how: str, source: Source, tmp_path: Path, keys: Keyring
) -> None:
    size = 120 * MIB
    path = source(size)
    with network(path, tmp_path, keys) as net, net.download() as download:
        download.wait_until_verified(0.3)
        lost_at = download.verified_bytes
        if how == "killed":
            net.workers[0].signal(signal.SIGKILL)
        else:
            net.cut(1)
        done = download.wait_until_done(60)
        state = net.broker.wait_for_states(**{"host-1": "silent"})["host-1"]
    assert state["host"] == "192.0.2.2"
    assert files_equal(path, tmp_path / "copy.bin")
    ideal = lost_at / (WORKERS * RATE) + (size - lost_at) / ((WORKERS - 1) * RATE)
    print(f"{how}: {seconds(done) - ideal:+.2f} s, {done['wasted_bytes']:,} bytes wasted")
    allowed = 0.5 if how == "killed" else 2.0
    assert seconds(done) <= ideal + allowed + 1.0, "one more second, because this machine may be busy"
    assert done["wasted_bytes"] <= 0.01 * size


@pytest.mark.parametrize("offset", ["+1h", pytest.param("-1h", marks=pytest.mark.soak)])
def test_a_clock_that_is_an_hour_off_changes_nothing(offset: str, source: Source, tmp_path: Path) -> None:
    """The keys expire in half an hour: a worker with a fast clock must not take them for expired."""
    (tmp_path / "clock").write_text(offset)
    keys = Keyring(tmp_path / "keys")
    for name, role in (("hosts", Role.WORKER), ("alice", Role.CLIENT)):
        keys.create_key(name)
        public = (keys.key_folder(name).path / f"{name}.pub").read_text()
        keys.key_folder("servers").admit(public, role, expires=time.time() + 1800)
    path = source(MIB)
    with Broker(tmp_path / "b", keys=keys) as broker:
        wrapper = with_clock(tmp_path / "clock")
        with broker.worker("attic", str(path), owner="hosts", wrapper=wrapper) as worker:
            worker.wait_until_serving()
            broker.wait_for_states(attic="awake")
            with broker.download("-o", "copy.bin", owner="alice", cwd=tmp_path) as download:
                download.wait_until_done()
    assert files_equal(path, tmp_path / "copy.bin")


@pytest.mark.soak
def test_all_but_one_host_go_and_return_and_so_does_the_broker(source: Source, tmp_path: Path, keys: Keyring) -> None:
    """
    1. All hosts but one are cut off: the download goes on at the rate of the last one.
    2. Their links return: all are awake again, and serve the same download.
    3. The host of the broker is cut off, too: the workers serve on, and find the broker when its link returns.
    """
    size = 160 * MIB
    path = source(size)
    with network(path, tmp_path, keys, "64mbit") as net, net.download() as download:
        download.wait_until_verified(0.1)
        for number in (1, 2, 3):
            net.cut(number)
        at = download.verified_bytes
        wait_for("the progress with one host", lambda: download.verified_bytes > at + 8 * MIB)
        for number in (1, 2, 3):
            net.cut(number, "up")
        returned = {f"host-{number}": "awake" for number in (1, 2, 3, 4)}
        before = net.broker.wait_for_states(**returned)

        def all_serve() -> bool:
            now = net.broker.workers()
            return all(now[name]["bytes_sent"] > before[name]["bytes_sent"] + MIB for name in returned)

        wait_for("data from all hosts", all_serve)
        assert download.process.poll() is None
        net.cut(0)
        done = download.wait_until_done(60)
        net.cut(0, "up")
        net.broker.wait_for_states(**returned)
    assert files_equal(path, tmp_path / "copy.bin")
    assert done["wasted_bytes"] <= 0.01 * size
