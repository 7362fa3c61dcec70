"""A broker without workers of its own, and workers that join it: real processes on loopback or in namespaces."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from msd.broker.operator.operator_client import OperatorClient
from msd.broker.status.snapshot import as_json
from msd.wire.config.servers import Servers
from msd.wire.errors import NoAnswerError
from msd.wire.net.endpoints import Endpoint
from msd.wire.security.keys import Credentials
from tests.hostile_clients import Keyring
from tests.processes import MSD, Download, Process, free_ports, run_msd, wait_for


class Broker(Process):
    """``msd serve`` without workers: ``settings`` are further lines of [broker]. A context manager."""

    def __init__(
        self,
        folder: Path,
        *,
        host: str = "127.0.0.1",
        port: int | None = None,
        keys: Keyring | None = None,
        settings: str = "",
        wrapper: Sequence[str] = (),
        **options: Any,
    ) -> None:
        self.folder = folder
        self.host = host
        self.port = port or free_ports()[4]
        self.keys = keys
        self.wrapper = [*wrapper]
        folder.mkdir(parents=True, exist_ok=True)
        self.config = folder / "broker.toml"
        security = "none" if keys is None else "curve"
        text = f'[broker]\nhost = "{host}"\nstatus_port = {self.port}\nsecurity = "{security}"\n{settings}'
        self.config.write_text(text)
        self.server_flags = ["--server5", f"{host}:{self.port}"]
        credentials = None if keys is None else Credentials(keys.servers, keys.servers.public)
        self._servers = Servers(Endpoint(host, self.port), {}, pinned=False, credentials=credentials)
        self.env: dict[str, Any] = {} if keys is None else {"env": keys.env("servers")}
        self._options = options
        if keys is not None:
            self.server_flags += ["--server-key", keys.servers.public.hex()]
        self._arguments = [*MSD, "serve", "-c", str(self.config)]
        super().__init__(self._arguments, wrapper=wrapper, **self.env, **options)

    def start_again(self) -> None:
        """Starts the broker again after it has ended."""
        super().__init__(self._arguments, wrapper=self.wrapper, **self.env, **self._options)

    def worker(self, name: str, *arguments: str, owner: str = "", **options: Any) -> Worker:
        """Starts a worker of this name, if it is not empty, which has the keys of ``owner``."""
        flags = ["--join", f"{self.host}:{self.port}", *(["--name", name] if name else [])]
        if self.keys is not None:
            options["env"] = self.keys.env(owner)
            flags += ["--server-key", self.keys.servers.public.hex()]
        return Worker([*MSD, "worker", *flags, *arguments], **options)

    def download(self, *arguments: str, owner: str = "", **options: Any) -> Download:
        if self.keys is not None:
            options["env"] = self.keys.env(owner)
        return Download(self.server_flags, *arguments, **options)

    def workers(self) -> dict[str, dict[str, Any]]:
        """The workers in the status, by name; empty if the broker does not answer."""
        if self.wrapper:
            # Only a process in the broker's environment may reach it.
            result = run_msd("status", "--json", *self.server_flags, wrapper=self.wrapper, **self.env)
            status = json.loads(result.stdout) if result.returncode == 0 else {"workers": []}
        else:
            try:
                with OperatorClient(self._servers) as operator:
                    status = {**as_json(operator.status())}
            except NoAnswerError:
                return {}
        return {worker["name"]: worker for worker in status["workers"]}

    def wait_for_states(self, **states: str) -> dict[str, dict[str, Any]]:
        """Waits until each of these workers is in this state; returns all workers."""

        def reached() -> dict[str, dict[str, Any]] | None:
            assert self.process.poll() is None, self.err.text
            workers = self.workers()
            found = {name: workers[name]["state"] if name in workers else "" for name in states}
            return workers if found == states else None

        return wait_for(f"{states}", reached)

    def toggle(self, number: int) -> None:
        result = run_msd("toggle", *self.server_flags, str(number), wrapper=self.wrapper, **self.env)
        assert result.returncode == 0, result.stderr


class Worker(Process):
    """``msd worker``. A context manager."""

    def wait_until_serving(self) -> Self:
        return self.wait_until_shown("serving at")

    def wait_until_shown(self, text: str) -> Self:
        """Waits until the worker has said this."""

        def shown() -> bool:
            assert self.process.poll() is None, self.err.text
            return text in self.err.text

        wait_for(f"{text!r} from a worker", shown)
        return self
