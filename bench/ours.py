"""msd servers for a benchmark: one to four workers, with or without encryption, in a folder of their own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from msd.broker.operator.operator_client import OperatorClient
from msd.wire.config.servers import Servers, locate_servers
from msd.wire.config.settings import load
from tests.processes import MSD, Process, free_ports, run_msd, wait_for


@dataclass(frozen=True)
class RunningServers:
    """Running servers: their configuration, the options that make a command use them, and the pids of the broker, the
    indexer and the workers. ``output`` is the text that they had printed when they became ready.
    """

    config: Path
    server_flags: list[str]
    env: dict[str, str]
    pids: list[int]
    encrypted: bool
    output: str

    @property
    def servers(self) -> Servers:
        return locate_servers(load(str(self.config)))

    @property
    def workers(self) -> list[int]:
        """The pids of the workers."""
        with OperatorClient(self.servers) as operator:
            return [worker.pid for worker in operator.status().workers]


@contextmanager
def serving(
    source: Path | str, home: Path, *, workers: int = 4, encrypted: bool = False, settings: str = ""
) -> Iterator[RunningServers]:
    """Starts servers for ``source`` with up to four workers and waits until they are ready.

    ``home`` is the folder for the configuration, the cache and the keys. ``settings`` are further lines of
    ``config.toml``.
    """
    home.mkdir(exist_ok=True)
    env = {**os.environ, "XDG_CONFIG_HOME": str(home), "XDG_CACHE_HOME": str(home)}
    config = home / "config.toml"
    ports = free_ports()
    lines = ["[broker]", f"status_port = {ports[4]}", *(['security = "curve"'] if encrypted else [])]
    lines += [line for port in ports[:workers] for line in ("[[workers]]", f"port = {port}")]
    config.write_text("\n".join(lines) + "\n" + settings)
    if encrypted:
        assert run_msd("keys", "init", env=env).returncode == 0
    flags = ["-c", str(config)]
    command = [*MSD, "serve", *flags, "-f", str(source)]
    with Process(command, env=env) as process:

        def is_ready() -> bool:
            assert process.process.poll() is None, process.err.text
            return any(line.startswith("ready") for _, line in [*process.out.lines])

        # The timeout allows for indexing 8 GiB.
        wait_for("ready", is_ready, timeout=120)
        text = process.out.text + "\n" + process.err.text
        pids = [process.pid, *_children(process.pid)]
        yield RunningServers(config, flags, env, pids, encrypted, text)


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
