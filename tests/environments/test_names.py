"""Host names with several addresses, and names that cannot be looked up at first."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.environments.recipes import Wrapper, network_namespace, with_files_replaced
from tests.processes import MIB, Download, Serve, Source, System, files_equal, run_msd, wait_for


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
    system, wrapper = serve(film), with_files_replaced(hosts=hosts)
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
            System(film, wrapper=network) as system,
            Download(flags_with(system.wait_until_ready(), "files"), "-o", str(copy), wrapper=wrapper) as download,
        ):
            wait_for("the reason", waits)
            with hosts.open("a") as file:
                file.write("127.0.0.1 files\n")
            download.wait_until_done()
    assert files_equal(film, copy)
