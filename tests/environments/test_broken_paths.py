"""Networks whose addresses change, or that forget connections, under a download."""

from __future__ import annotations

import contextlib
import itertools
from pathlib import Path

import pytest

from tests.environments.recipes import (
    CLIENT,
    SERVER,
    network_namespace,
    run_in,
    two_machines,
    with_files_replaced,
    with_variables,
)
from tests.processes import MIB, Download, Source, System, files_equal, free_ports

#: The rate of each worker, so that the download is in progress when its network changes.
RATE = "2MiB"
#: The maximum number of seconds without data, from the last bytes before the change to the first ones after it.
MAX_GAP_S = 5.0
WORKERS = 4
#: A third address in the network of ``two_machines``.
OTHER = "192.0.2.3"


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


@pytest.mark.parametrize("side", [pytest.param("client", marks=pytest.mark.soak), "network"])
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
            run_in(client, f"ip address del {CLIENT}/24 dev e0")
            run_in(client, f"ip address add {OTHER}/24 dev e0")
        else:
            run_in(client, f"ip address add {OTHER}/24 dev e0")
            run_in(client, f"ip route replace 192.0.2.0/24 dev e0 src {OTHER}")
            run_in(server, f"ip route add blackhole {CLIENT}/32")
        done = download.wait_until_done()
        assert longest_gap(download) < MAX_GAP_S
        # What was verified is not fetched again; what was in flight may arrive twice, from two workers.
        assert done["received_bytes"] <= film.stat().st_size + WORKERS * MIB
        assert files_equal(film, copy)


@pytest.mark.soak
def test_a_download_follows_the_name_of_servers_whose_address_is_replaced(
    source: Source, keyless: Path, runtime_folder: Path, tmp_path: Path
) -> None:
    film, copy, hosts = source(16 * MIB), tmp_path / "copy", tmp_path / "hosts"
    hosts.write_text(f"{SERVER} files\n")
    with (
        two_machines() as (server, client),
        System(film, "--rate", RATE, "-i", "1", "-c", str(keyless), host="0.0.0.0", wrapper=server) as system,
        Download(
            ["-a", "files", *system.wait_until_ready().server_flags[2:]],
            *("-o", str(copy)),
            wrapper=[*client, *with_files_replaced(hosts=hosts)],
        ) as download,
    ):
        download.wait_until_verified(0.2)
        run_in(server, f"ip address del {SERVER}/24 dev e0")
        run_in(server, f"ip address add {OTHER}/24 dev e0")
        hosts.write_text(f"{OTHER} files\n")
        done = download.wait_until_done()
        assert longest_gap(download) < MAX_GAP_S
        assert done["received_bytes"] <= film.stat().st_size + WORKERS * MIB
        assert files_equal(film, copy)
        # Server 5 is found as soon as the workers: otherwise it would count as lost.
        assert not [event for event in download.events_of("worker") if event["name"] == "server 5"]


@pytest.mark.soak
def test_a_download_continues_when_an_address_moves_to_another_machine(
    source: Source, keyless: Path, runtime_folder: Path, tmp_path: Path
) -> None:
    """Two machines share the same file; the second takes over the address of the first, as with VRRP."""
    film, copy = source(16 * MIB), tmp_path / "copy"
    bridge = ("ip link add e0 type bridge", f"ip address add {CLIENT}/24 dev e0", "ip link set e0 up")
    with network_namespace() as first, network_namespace() as second, network_namespace(*bridge) as client:
        for number, server in enumerate((first, second)):
            run_in(client, f"ip link add e{number + 1} type veth peer name e0 netns {server[-1]}")
            run_in(client, f"ip link set e{number + 1} master e0 up")
            run_in(server, "ip link set e0 up")
        run_in(first, f"ip address add {SERVER}/24 dev e0")
        ports = free_ports()
        with contextlib.ExitStack() as stack:
            for number, server in enumerate((first, second)):
                folder = runtime_folder / str(number)
                folder.mkdir(mode=0o700)
                wrapper = [*server, *with_variables(XDG_RUNTIME_DIR=str(folder))]
                arguments = ["--rate", RATE, "-c", str(keyless)]
                system = System(film, *arguments, ports=ports, host="0.0.0.0", wrapper=wrapper)
                stack.enter_context(system).wait_until_ready()
            flags = ["-a", SERVER, "-p", *map(str, ports)]
            download = stack.enter_context(Download(flags, "-o", str(copy), wrapper=client))
            download.wait_until_verified(0.2)
            run_in(first, f"ip address del {SERVER}/24 dev e0")
            run_in(second, f"ip address add {SERVER}/24 dev e0")
            # The second machine announces that the address is its own now.
            run_in(client, "ip neigh flush dev e0")
            done = download.wait_until_done()
        assert longest_gap(download) < MAX_GAP_S
        assert done["received_bytes"] <= film.stat().st_size + WORKERS * MIB
        assert files_equal(film, copy)
