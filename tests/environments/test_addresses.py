"""Servers and clients at addresses of every kind: both families, several interfaces, link-local, names."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from tests.environments.recipes import network_namespace
from tests.processes import MIB, MSD, Process, Source, files_equal, free_ports, run_msd, wait_for

#: An interface with addresses of every kind.
INTERFACE = (
    "ip link add e0 type veth peer name e1",
    "ip address add 192.0.2.7/24 dev e0",
    "ip address add 2001:db8::7/64 dev e0 nodad",
    "ip address add fe80::7/64 dev e0 nodad",
    "ip link set e0 up",
    "ip link set e1 up",
)


def serve(path: Path, host: str, wrapper: Sequence[str]) -> Process:
    """Starts servers that listen on ``host`` without keys."""
    config = path.parent.parent / "config.toml"
    config.write_text(f'[broker]\nhost = "{host}"\nsecurity = "none"\n[share]\npath = "{path}"\n')
    ports = map(str, free_ports())
    return Process([*MSD, "serve", "-c", str(config), "-p", *ports], wrapper=wrapper, cwd=path.parent)


def ready_lines(server: Process) -> list[str]:
    """Waits until the servers are ready and have printed their addresses; returns their output."""

    def ready() -> bool:
        assert server.process.poll() is None, server.err.text
        return server.out.text.startswith("ready")

    wait_for("ready", ready)
    return server.out.text.splitlines()


def test_servers_on_all_addresses_of_both_families_are_reached_at_each(
    source: Source, runtime_folder: Path, tmp_path: Path
) -> None:
    film = source(MIB)
    with network_namespace(*INTERFACE) as wrapper, serve(film, "::", wrapper) as server:
        command = ready_lines(server)[0].partition("; msd ")[2]
        assert " -a 192.0.2.7 -p " in command
        wait_for("the other addresses", lambda: "other addresses of these servers: 2001:db8::7" in server.out.text)
        status = run_msd("status", *command.replace("-a 192.0.2.7", "").split()[1:], wrapper=wrapper)
        assert f"msd {command}" in status.stdout
        for host in ("192.0.2.7", "127.0.0.1", "::1", "2001:db8::7", "fe80::7%e0"):
            copy = tmp_path / host
            words = shlex.split(command.replace("-a 192.0.2.7", f"-a {host}"))
            ended = run_msd(*words, "-o", str(copy), "--timeout", "5", wrapper=wrapper)
            assert ended.returncode == 0, (host, ended.stderr)
            assert files_equal(film, copy)


def test_servers_on_a_link_local_address_tell_it_so_that_a_client_finds_them(
    source: Source, runtime_folder: Path, tmp_path: Path
) -> None:
    film, copy = source(MIB), tmp_path / "copy"
    with network_namespace(*INTERFACE) as wrapper, serve(film, "fe80::7%e0", wrapper) as server:
        port = ready_lines(server)[0].split()[-1]
        server5 = f"[fe80::7%e0]:{port}"
        ended = run_msd("download", "--server5", server5, "-o", str(copy), "--timeout", "5", wrapper=wrapper)
        assert ended.returncode == 0, ended.stderr
        assert files_equal(film, copy)


def test_other_machines_cannot_reach_servers_on_a_machine_without_a_network(
    source: Source, runtime_folder: Path
) -> None:
    with network_namespace() as wrapper, serve(source(100), "0.0.0.0", wrapper) as server:
        ready_lines(server)
        wait_for("the warning", lambda: "other machines cannot reach these servers" in server.out.text)
