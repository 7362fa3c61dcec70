"""One file to many machines at once: msd with and without ``--pass-on``, beside libtorrent, on links of the same rate.

Each machine is a network namespace whose link carries 24 Mbit/s each way (``tbf``). Four of them have the file, and the
others receive it at the same time; server 5, or the tracker, is on one more. The figure is the time of the slowest
receiver, as a multiple of one msd receiver alone. Both programs verify every piece of 1 MiB before it is passed on;
msd encrypts (CURVE), libtorrent does not; it uses TCP only. Needs root, and libtorrent for its rows.

MSD_BENCH_CASES selects numbers of receivers, such as ``4,16``.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path

from bench.bounds import Bound, conclude
from bench.measuring import memory_folder
from bench.torrent import make_torrent
from msd.wire.security.keys import Role
from tests.environments.recipes import Wrapper, hosts
from tests.environments.test_passing_on import Cluster, share_of_peers
from tests.hostile_clients import Keyring
from tests.processes import MIB, files_equal, make_file

RATE, SOURCES = "24mbit", 4
#: The number of receivers, and the size of the file in bytes.
CASES = {1: 40 * MIB, 4: 40 * MIB, 16: 40 * MIB, 24: 192 * MIB}
TRACKER_PORT, PEER_PORT = 6969, 6881


def run() -> None:
    wanted = os.environ.get("MSD_BENCH_CASES")
    cases = [int(number) for number in wanted.split(",")] if wanted else [*CASES]
    bounds: list[Bound] = []
    print("receivers  size      alone   pass on         from peers  not       libtorrent")
    for receivers in cases:
        bounds += _run_case(receivers, CASES[receivers])
    conclude("fanout", {}, bounds)


def _run_case(receivers: int, size: int) -> list[Bound]:
    with memory_folder() as folder, tempfile.TemporaryDirectory() as runtime:
        os.environ["XDG_RUNTIME_DIR"] = runtime
        path = make_file(folder / "film.bin", size, random.Random(1))
        keys = Keyring(folder / "keys")
        keys.create_key("hosts", Role.WORKER)
        keys.create_key("alice", Role.CLIENT)
        with hosts(1 + SOURCES + receivers, RATE, both_ways=True) as machines, ExitStack() as stack:
            cluster = Cluster(stack, machines, SOURCES, path, folder, keys)
            with cluster.receive(0) as download:
                alone = float(download.wait_until_done(600)["seconds"])
            reports = cluster.receive_all("--pass-on")
            passed = max(float(report["seconds"]) for report in reports)
            for number in range(receivers):
                assert files_equal(path, folder / f"copy-{number}"), number
                (folder / f"copy-{number}").unlink()
            # Without passing on, the sources need this multiple of the time; only small cases are worth the wait.
            direct = None
            if receivers <= 16:
                direct = max(float(report["seconds"]) for report in cluster.receive_all())
        torrent = None
        if find_spec("libtorrent") is not None:
            with hosts(1 + SOURCES + receivers, RATE, both_ways=True) as machines:
                torrent = _torrent(machines, path, folder)
        share = share_of_peers(reports)
        print(
            f"{receivers:9}  {size // MIB:3} MiB  {alone:5.1f} s  {passed:5.1f} s {passed / alone:5.2f} ×  {share:9.0%}"
            f"  {_times(direct, alone)}  {_times(torrent, alone)}"
        )
    if receivers < 16:
        return []
    bounds = [
        Bound(f"{receivers} receivers, × one alone", [passed / alone], 1.4 if receivers > 16 else 1.8, at_most=True)
    ]
    bounds.append(Bound(f"{receivers} receivers, share of peers", [share], 0.75))
    if torrent is not None:
        bounds.append(Bound(f"{receivers} receivers, × libtorrent", [passed / torrent], 1.15, at_most=True))
    return bounds


def _times(seconds: float | None, alone: float) -> str:
    return "-       " if seconds is None else f"{seconds / alone:6.2f} ×"


def _torrent(machines: list[Wrapper], path: Path, folder: Path) -> float:
    """Returns the seconds of the slowest receiver."""
    torrent = folder / "film.torrent"
    make_torrent(path, torrent, f"http://192.0.2.1:{TRACKER_PORT}/announce")
    with ExitStack() as stack:

        def start(wrapper: Wrapper, *arguments: str) -> subprocess.Popen[str]:
            command = [*wrapper, sys.executable, "-m", "bench.torrent", *arguments]
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            stack.callback(_end, process)
            return process

        start(machines[0], "tracker", str(TRACKER_PORT))
        peers = []
        for number, machine in enumerate(machines[1:], 1):
            is_source = number <= SOURCES
            target = path.parent if is_source else folder / f"torrent-{number}"
            target.mkdir(exist_ok=True)
            kind = "seed" if is_source else "receive"
            peer = start(machine, kind, str(torrent), str(target), str(PEER_PORT))
            assert peer.stdout is not None
            if is_source:
                peer.stdout.readline()
            else:
                peers.append((peer, target))
        seconds = []
        for peer, target in peers:
            assert peer.stdout is not None
            seconds.append(float(peer.stdout.readline()))
            assert files_equal(path, target / path.name)
    return max(seconds)


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()
