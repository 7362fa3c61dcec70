"""Networks whose addresses change, or that forget connections, under a download."""

from __future__ import annotations

import contextlib
import itertools
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.environments.recipes import Wrapper, network_namespace
from tests.processes import MIB, Download, Source, System, files_equal

#: The rate of each worker, so that the download is in progress when its network changes.
RATE = "2MiB"
#: The maximum number of seconds without data, from the last bytes before the change to the first ones after it.
MAX_GAP_S = 5.0
WORKERS = 4
SERVER, CLIENT, OTHER = "192.0.2.1", "192.0.2.2", "192.0.2.3"


@contextlib.contextmanager
def two_machines() -> Iterator[tuple[Wrapper, Wrapper]]:
    """A machine for the servers and one for the client, in one network."""
    with network_namespace() as server:
        name = server[-1]
        link = f"ip link add c0 type veth peer name s0 netns {name}"
        with network_namespace(link, f"ip address add {CLIENT}/24 dev c0", "ip link set c0 up") as client:
            run(server, f"ip address add {SERVER}/24 dev s0")
            run(server, "ip link set s0 up")
            yield server, client


def run(wrapper: Wrapper, command: str) -> None:
    subprocess.run([*wrapper, *command.split()], check=True)


def longest_gap(download: Download) -> float:
    """The longest time between two moments at which the download had more bytes than before."""
    moments: list[float] = []
    most = -1
    for event in download.events_of("progress"):
        if event["bytes"] > most:
            most = event["bytes"]
            moments.append(event["at"])
    return max(after - before for before, after in itertools.pairwise(moments))


@pytest.fixture
def keyless(tmp_path: Path) -> Path:
    config = tmp_path / "config.toml"
    config.write_text('[broker]\nsecurity = "none"\n')
    return config


@pytest.mark.parametrize("side", ["client", "network"])
def test_a_download_continues_when_an_address_is_replaced(
    side: str, source: Source, keyless: Path, runtime_folder: Path, tmp_path: Path
) -> None:
    """In the case "network" packets of old connections are dropped silently, as by a translator that forgot them."""
    film, copy = source(16 * MIB), tmp_path / "copy"
    with (
        two_machines() as (server, client),
        System(film, "--rate", RATE, "-c", str(keyless), host=SERVER, wrapper=server) as system,
        Download(system.wait_until_ready().server_flags, "-o", str(copy), wrapper=client) as download,
    ):
        download.wait_until_verified(0.2)
        if side == "client":
            run(client, f"ip address del {CLIENT}/24 dev c0")
            run(client, f"ip address add {OTHER}/24 dev c0")
        else:
            run(client, f"ip address add {OTHER}/24 dev c0")
            run(client, f"ip route replace 192.0.2.0/24 dev c0 src {OTHER}")
            run(server, f"ip route add blackhole {CLIENT}/32")
        done = download.wait_until_done()
        assert longest_gap(download) < MAX_GAP_S
        # What was verified is not fetched again; what was in flight may arrive twice, from two workers.
        assert done["received_bytes"] <= film.stat().st_size + WORKERS * MIB
        assert files_equal(film, copy)
