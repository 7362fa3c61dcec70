"""Host names with several addresses, and names that cannot be looked up at first."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from tests.environments.recipes import SERVER, Wrapper, network_namespace, run_in, two_machines, with_files_replaced
from tests.processes import MIB, Download, Process, Serve, Source, System, files_equal, run_msd, wait_for

#: Seconds within which a download of 1 MiB ends although an address of its name is dead.
MAX_SECONDS = 5.0
#: A name server for which every name has the address 127.0.0.1. It answers after 0.8 seconds, or fails for two seconds.
NAME_SERVER = """
import socket, sys, time
server = socket.socket(type=socket.SOCK_DGRAM)
server.bind(("127.0.0.9", 53))
print("bound", flush=True)
began = time.monotonic()
while True:
    query, client = server.recvfrom(512)
    question = query[12 : query.index(b"\\0", 12) + 5]
    has_address = question[-4:] == b"\\0\\1\\0\\1"
    fails = "fails" in sys.argv[1] and time.monotonic() < began + 2
    flags = b"\\x81\\x82" if fails else b"\\x81\\x80"
    answers = int(has_address and not fails)
    header = query[:2] + flags + b"\\0\\1" + bytes([0, answers]) + bytes(4)
    answer = b"\\xc0\\x0c\\0\\1\\0\\1" + (60).to_bytes(4, "big") + b"\\0\\4\\x7f\\0\\0\\1"
    time.sleep(0.8 if sys.argv[1] == "slow" else 0)
    server.sendto(header + question + answer * answers, client)
"""


@pytest.fixture
def hosts(tmp_path: Path) -> Path:
    """The file that commands see as /etc/hosts."""
    path = tmp_path / "hosts"
    path.write_text("127.0.0.1 localhost\n::1 localhost\n")
    return path


def flags_with(system: System, host: str) -> list[str]:
    return ["-a", host, *system.server_flags[2:]]


def test_the_address_of_a_name_that_works_is_used(serve: Serve, source: Source, hosts: Path, tmp_path: Path) -> None:
    """The servers listen on 127.0.0.1; the name has two addresses, the other one first."""
    film, copy = source(MIB), tmp_path / "copy"
    system, wrapper = serve(film, workers=1), with_files_replaced(hosts=hosts)
    flags = flags_with(system, "localhost")
    assert run_msd("download", *flags, "--timeout", "5", "-o", str(copy), wrapper=wrapper).returncode == 0
    assert files_equal(film, copy)
    assert run_msd("toggle", "1", *flags, wrapper=wrapper).stdout == "worker 1: asleep\n"


def test_a_name_that_cannot_be_looked_up_now_is_waited_for(
    source: Source, hosts: Path, runtime_folder: Path, tmp_path: Path
) -> None:
    film, copy, resolver = source(MIB), tmp_path / "copy", tmp_path / "resolv.conf"
    resolver.write_text("nameserver 127.0.0.9\n")

    def waits() -> bool:
        assert download.process.poll() is None, download.err.text
        return any("'files' cannot be looked up now" in event["reason"] for event in download.events_of("waiting"))

    with network_namespace() as network:
        wrapper: Wrapper = [*network, *with_files_replaced(hosts=hosts, resolv_conf=resolver)]
        with (
            System(film, workers=1, wrapper=network) as system,
            Download(flags_with(system.wait_until_ready(), "files"), "-o", str(copy), wrapper=wrapper) as download,
        ):
            wait_for("the reason", waits)
            with hosts.open("a") as file:
                file.write("127.0.0.1 files\n")
            download.wait_until_done()
    assert files_equal(film, copy)


@pytest.mark.parametrize("dead", ["192.0.2.77", pytest.param("2001:db8::77", marks=pytest.mark.soak)])
def test_a_name_with_a_dead_address_is_used_at_the_other_one_without_delay(
    dead: str, source: Source, hosts: Path, runtime_folder: Path, tmp_path: Path
) -> None:
    film, copy, config = source(MIB), tmp_path / "copy", tmp_path / "config.toml"
    config.write_text('[broker]\nsecurity = "none"\n')
    hosts.write_text(f"{dead} files\n{SERVER} files\n")
    with (
        two_machines() as (server, client),
        System(film, "-c", str(config), workers=1, host=SERVER, wrapper=server) as system,
    ):
        system.wait_until_ready()
        run_in(client, "ip address add 2001:db8::2/64 dev e0 nodad")
        began = time.monotonic()
        wrapper = [*client, *with_files_replaced(hosts=hosts)]
        ended = run_msd("download", *flags_with(system, "files"), "-o", str(copy), wrapper=wrapper)
        assert ended.returncode == 0, ended.stderr
        assert time.monotonic() - began < MAX_SECONDS
        assert files_equal(film, copy)


@pytest.mark.soak
@pytest.mark.parametrize("fault", ["slow", "fails at first"])
def test_the_answer_of_a_faulty_name_server_is_waited_for(
    fault: str, source: Source, hosts: Path, runtime_folder: Path, tmp_path: Path
) -> None:
    film, copy, resolver = source(MIB), tmp_path / "copy", tmp_path / "resolv.conf"
    resolver.write_text("nameserver 127.0.0.9\noptions timeout:1 attempts:1\n")
    with network_namespace() as network:
        wrapper: Wrapper = [*network, *with_files_replaced(hosts=hosts, resolv_conf=resolver)]
        with (
            System(film, wrapper=network) as system,
            Process([sys.executable, "-c", NAME_SERVER, fault], wrapper=network) as name_server,
        ):
            system.wait_until_ready()
            wait_for("the name server", lambda: name_server.out.lines)
            ended = run_msd("download", *flags_with(system, "files.test"), "-o", str(copy), wrapper=wrapper)
            assert ended.returncode == 0, ended.stderr
    assert files_equal(film, copy)
