"""Receivers that pass on what they have, each on a machine of its own: namespaces with links limited by ``tbf``."""

from __future__ import annotations

import random
import shutil
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from msd.wire.security.keys import Role
from tests.environments.recipes import Wrapper, hosts
from tests.hostile_clients import Keyring
from tests.hosts import Broker
from tests.passing import folders_equal, make_folder, summary, wait_until_serving
from tests.processes import MIB, Download, files_equal, make_file

pytestmark = pytest.mark.usefixtures("runtime_folder")


class Cluster:
    """Server 5, workers on ``sources`` machines, and the others for receivers; all have the same rate each way."""

    def __init__(
        self, stack: ExitStack, machines: list[Wrapper], sources: int, path: Path, folder: Path, keys: Keyring
    ) -> None:
        self.machines = machines[sources + 1 :]
        self.folder = folder
        self.broker = stack.enter_context(Broker(folder / "b", host="192.0.2.1", keys=keys, wrapper=machines[0]))
        for number in range(1, sources + 1):
            flags = (str(path), "--listen", "21018")
            worker = self.broker.worker(f"host-{number}", *flags, owner="hosts", wrapper=machines[number])
            stack.enter_context(worker)
        self.broker.wait_for_states(**{f"host-{number}": "awake" for number in range(1, sources + 1)})

    def receive(self, number: int, *arguments: str) -> Download:
        """Starts the download of a receiver."""
        wrapper = self.machines[number]
        flags = ["-o", f"copy-{number}", "--force", *arguments]
        return self.broker.download(*flags, owner="alice", wrapper=wrapper, cwd=self.folder)

    def receive_all(self, *arguments: str) -> list[dict[str, Any]]:
        """Downloads on all machines at once; returns what each reports at its end."""
        with ExitStack() as stack:
            downloads = [stack.enter_context(self.receive(n, *arguments)) for n in range(len(self.machines))]
            return [download.wait_until_done(180) for download in downloads]


@pytest.fixture
def keys(tmp_path: Path) -> Keyring:
    keys = Keyring(tmp_path / "keys")
    keys.create_key("hosts", Role.WORKER)
    keys.create_key("alice", Role.CLIENT)
    return keys


@contextmanager
def cluster(sources: int, receivers: int, path: Path, folder: Path, keys: Keyring, rate: str) -> Iterator[Cluster]:
    with hosts(1 + sources + receivers, rate, both_ways=True) as machines, ExitStack() as stack:
        yield Cluster(stack, machines, sources, path, folder, keys)


def share_of_peers(reports: list[dict[str, Any]]) -> float:
    """Returns which share of the bytes of all receivers has come from peers."""
    sent = [(name, report["bytes"]) for done in reports for name, report in done["workers"].items()]
    total = sum(size for _, size in sent)
    return float(sum(size for name, size in sent if name.startswith("peer")) / total)


def check(reports: list[dict[str, Any]], alone: float, size: int, limit: float, least: float) -> None:
    """The slowest receiver took at most ``limit`` times as long as one ``alone`` (seconds), and at least the share
    ``least`` of the bytes came from peers. Each has received ``size`` bytes.
    """
    slowest = max(float(done["seconds"]) for done in reports)
    share = share_of_peers(reports)
    wasted = sum(done["wasted_bytes"] for done in reports) / (len(reports) * size)
    print(f"{len(reports)} receivers: {slowest / alone:.2f} × one alone ({alone:.1f} s), {share:.0%} from peers,")
    print(f"{wasted:.1%} arrived twice")
    assert slowest / alone <= limit
    assert share >= least


@pytest.mark.parametrize(
    ("sources", "receivers", "size", "rate", "limit", "least"),
    [
        pytest.param(1, 4, 12 * MIB, "48mbit", 3.0, 0.3, marks=pytest.mark.soak),
        pytest.param(4, 16, 40 * MIB, "24mbit", 1.8, 0.7, marks=pytest.mark.soak),
    ],
)
def test_receivers_pass_on_what_they_have(
    sources: int, receivers: int, size: int, rate: str, limit: float, least: float, tmp_path: Path, keys: Keyring
) -> None:
    path = make_file(tmp_path / "film", size, random.Random(1))
    with cluster(sources, receivers, path, tmp_path, keys, rate) as net:
        with net.receive(0) as alone:
            seconds = float(alone.wait_until_done(120)["seconds"])
        reports = net.receive_all("--pass-on")
    assert all(files_equal(path, tmp_path / f"copy-{number}") for number in range(receivers))
    check(reports, seconds, size, limit, least)


@pytest.mark.soak
@pytest.mark.parametrize(
    ("sources", "receivers", "rate", "limit", "least"),
    [pytest.param(1, 4, "48mbit", 3.0, 0.3), pytest.param(4, 12, "24mbit", 1.8, 0.5)],
)
def test_receivers_pass_on_a_folder(
    sources: int, receivers: int, rate: str, limit: float, least: float, tmp_path: Path, keys: Keyring
) -> None:
    """It has large and small files. The last receiver has a part of it already, in an old version."""
    shared = make_folder(tmp_path / "shared")
    film = make_file(shared / "film", 6 * MIB + 5, random.Random(2))
    for number in range(200):
        make_file(shared / "many" / f"{number % 7}" / f"{number}", 5000 + number, random.Random(number))
    size = sum(path.stat().st_size for path in shared.rglob("*") if path.is_file())
    with cluster(sources, receivers, shared, tmp_path, keys, rate) as net, ExitStack() as stack:
        with net.receive(0, ".", "--update") as alone:
            seconds = float(summary(alone, 120)["seconds"])
        shutil.rmtree(tmp_path / "copy-0")
        old = make_file(tmp_path / f"copy-{receivers - 1}" / "film", 3 * MIB, random.Random(3))
        old.write_bytes(film.read_bytes()[: 3 * MIB] + old.read_bytes())
        downloads = [stack.enter_context(net.receive(n, ".", "--update", "--pass-on")) for n in range(receivers)]
        reports = [summary(download, 180) for download in downloads]
    assert all(folders_equal(shared, tmp_path / f"copy-{number}") for number in range(receivers))
    check(reports, seconds, size, limit, least)
    assert reports[-1]["reused_bytes"] >= 2 * MIB


@pytest.mark.soak
def test_the_broker_is_killed_while_many_pass_on(tmp_path: Path, keys: Keyring) -> None:
    """All finish. When it is started again, a new receiver finds the others."""
    path = make_file(tmp_path / "film", 16 * MIB, random.Random(1))
    with cluster(2, 17, path, tmp_path, keys, "24mbit") as net, ExitStack() as stack:
        flags = ("--pass-on", "--keep-serving", "10m")
        downloads = [stack.enter_context(net.receive(number, *flags)) for number in range(16)]
        for download in downloads:
            download.wait_until_verified(0.2)
        net.broker.signal(signal.SIGKILL)
        net.broker.wait()
        for number, download in enumerate(downloads):
            wait_until_serving(download)
            assert files_equal(path, tmp_path / f"copy-{number}")
        net.broker.start_again()
        net.broker.wait_for_states(**{"host-1": "awake", "host-2": "awake"})
        with net.receive(16, "--pass-on") as last:
            share = share_of_peers([last.wait_until_done(60)])
        print(f"{share:.0%} from peers")
    assert share >= 0.25
    assert files_equal(path, tmp_path / "copy-16")


@pytest.mark.soak
def test_a_receiver_that_is_killed_holds_up_no_one_and_leaves_no_process(tmp_path: Path, keys: Keyring) -> None:
    """One is killed, one is stopped, and server 5 is killed: the others finish."""
    path = make_file(tmp_path / "film", 10 * MIB, random.Random(1))
    with cluster(1, 4, path, tmp_path, keys, "24mbit") as net, ExitStack() as stack:
        downloads = [stack.enter_context(net.receive(number, "--pass-on")) for number in range(4)]
        for download in downloads:
            download.wait_until_verified(0.2)
        downloads[0].signal(signal.SIGKILL)
        downloads[1].signal(signal.SIGSTOP)
        net.broker.signal(signal.SIGKILL)
        for number in (2, 3):
            downloads[number].wait_until_done(60)
            assert files_equal(path, tmp_path / f"copy-{number}")
        downloads[1].signal(signal.SIGKILL)
