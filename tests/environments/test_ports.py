"""A firewall that drops the packets of one of the six ports."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.environments.recipes import SERVER, filter_port, two_machines
from tests.processes import MIB, Source, System, files_equal, run_msd

#: Seconds within which a download of 1 MiB ends although one port is filtered.
MAX_SECONDS = 8.0


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
