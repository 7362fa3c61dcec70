"""A firewall that drops the packets of one of the six ports, and a port that outgoing connections could take."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.environments.recipes import SERVER, filter_port, network_namespace, two_machines
from tests.processes import MIB, Source, System, files_equal, free_ports, run_msd

#: Seconds within which a download of 1 MiB ends although one port is filtered.
MAX_SECONDS = 8.0
#: The ports that the kernel gives to outgoing connections, and one of them.
EPHEMERAL, PORT = range(35400, 35440), 35416
#: Waits until nothing listens on the first port. Then connects to the second one until there is no local port for a
#: further connection, and prints the local ports.
CONNECT = """
import socket, sys
closing, listening = map(int, sys.argv[1:])
# An attempt to connect would leave a closed connection, which keeps others from the port.
while f":{closing:04X} 00000000:0000 0A" in open("/proc/net/tcp").read():
    pass
connections = []
try:
    while True:
        connections.append(socket.create_connection(("127.0.0.1", listening)))
except OSError:
    print(*(connection.getsockname()[1] for connection in connections))
"""


@pytest.mark.parametrize(
    "filtered", ["worker", *(pytest.param(name, marks=pytest.mark.soak) for name in ("server 5", "control"))]
)
def test_one_filtered_port_of_six_neither_stops_nor_delays_a_download(
    filtered: str, source: Source, runtime_folder: Path, tmp_path: Path
) -> None:
    film, copy, config = source(MIB), tmp_path / "copy", tmp_path / "config.toml"
    config.write_text('[broker]\nsecurity = "none"\n')
    with (
        two_machines() as (server, client),
        System(film, "-c", str(config), host=SERVER, wrapper=server) as system,
    ):
        system.wait_until_ready()
        port = {"worker": system.ports[1], "server 5": system.ports[4], "control": system.ports[4] + 1}[filtered]
        filter_port(server, port)
        began = time.monotonic()
        ended = run_msd("download", *system.server_flags, "-o", str(copy), wrapper=client)
        assert ended.returncode == 0, ended.stderr
        assert time.monotonic() - began < MAX_SECONDS
        assert files_equal(film, copy)
        if filtered == "control":
            ended = run_msd("toggle", "1", *system.server_flags, wrapper=client)
            assert (ended.returncode, "control port" in ended.stderr) == (7, True), ended.stderr


def test_no_connection_takes_the_port_of_a_worker_that_sleeps(source: Source, runtime_folder: Path) -> None:
    with network_namespace() as network:
        port_range = f"net.ipv4.ip_local_port_range={EPHEMERAL[0]} {EPHEMERAL[-1]}"
        subprocess.run([*network, "sysctl", "--quiet", "--write", port_range], check=True)
        *_, status_port = free_ports()
        with System(source(1000), ports=(PORT, status_port), workers=1, wrapper=network) as system:
            system.wait_until_ready()
            toggle = ("toggle", "1", *system.server_flags)
            assert run_msd(*toggle, "--sleep", wrapper=network).stdout == "worker 1: asleep\n"
            connect = [*network, sys.executable, "-c", CONNECT, str(PORT), str(status_port)]
            printed = subprocess.run(connect, stdout=subprocess.PIPE, text=True, check=True).stdout
            taken = {*map(int, printed.split())}
            assert taken <= {*EPHEMERAL} - {PORT}
            # Connections of the command before may occupy some of them.
            assert len(taken) > len(EPHEMERAL) / 2
            assert run_msd(*toggle, "--wake", wrapper=network).stdout == "worker 1: awake\n"
