"""The configuration: built-in defaults, ``config.toml``, and the flags that win over it.

Every command finds the servers through here, so that a server and its clients can share one file.
What the file may hold is said in ``wire/config_file.py``. Looks at no shared file, and asks the
network for nothing but the addresses of hosts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from wire.config_file import parse_interval, parse_size, read_sections
from wire.endpoints import ANY_HOSTS, Endpoint, check_port
from wire.errors import NotAllowedError, UsageError

DEFAULT_FILE = Path("config.toml")
LOOPBACK = "127.0.0.1"
#: The ports of the report's example; the fifth is server 5.
DEFAULT_PORTS = (21018, 27215, 35416, 19222, 39223)


@dataclass(frozen=True, slots=True)
class WorkerConfig:
    """One worker: where it listens, and its limit in bytes a second (0 = none)."""

    endpoint: Endpoint
    rate: int = 0


@dataclass(frozen=True, slots=True)
class Config:
    """A complete configuration. Times are in seconds, sizes in bytes.

    ``control_port`` is None where it is to be the status port plus one.
    """

    path: Path | None = None
    host: str = LOOPBACK
    status_port: int = DEFAULT_PORTS[4]
    control_port: int | None = None
    interval: float = 2.0
    hang_limit: float = 60.0
    security: str = ""
    workers: tuple[WorkerConfig, ...] = tuple(WorkerConfig(Endpoint(LOOPBACK, port)) for port in DEFAULT_PORTS[:4])
    memory: int = 64 << 20

    @property
    def status(self) -> Endpoint:
        """Server 5."""
        return Endpoint(self.host, self.status_port)

    @property
    def control(self) -> Endpoint:
        return Endpoint(self.host, self.control_port or self.status_port + 1)

    def checked(self) -> Config:
        """This configuration, if its ports can work together; raises ``UsageError`` otherwise."""
        if not self.workers:
            raise UsageError("no worker is configured: give -p, or [[workers]] in config.toml")
        uses = [(f"worker {n}", worker.endpoint) for n, worker in enumerate(self.workers, 1)]
        uses += [("server 5", self.status), ("the control port", self.control)]
        seen: dict[int, list[tuple[str, Endpoint]]] = {}
        for what, endpoint in uses:
            check_port(endpoint.port, what)
            others = seen.setdefault(endpoint.port, [])
            for other, taken in others:
                if taken.host == endpoint.host or {taken.host, endpoint.host} & {*ANY_HOSTS}:
                    hint = " (the fifth port + 1)" if what == "the control port" and not self.control_port else ""
                    raise UsageError(f"port {endpoint.port} is given twice: for {other} and for {what}{hint}")
            others.append((what, endpoint))
        return self

    def bindable(self) -> Config:
        """This configuration, if a server may bind it; raises ``NotAllowedError`` otherwise."""
        exposed = [e for e in (self.status, *(w.endpoint for w in self.workers)) if not e.is_loopback]
        if exposed and self.security != "none":
            raise NotAllowedError(
                f"{exposed[0].host} can be reached from other machines, and anyone there could read the shared"
                ' files: bind to 127.0.0.1, or write security = "none" under [broker] in config.toml'
            )
        return self

    def resolved(self) -> Config:
        """This configuration with numeric addresses, which is all that ZeroMQ binds to. Raises
        ``UsageError`` for an unknown host.
        """
        workers = tuple(replace(worker, endpoint=worker.endpoint.resolve()) for worker in self.workers)
        return replace(self, host=self.status.resolve().host, workers=workers)

    def with_flags(
        self,
        *,
        path: str | None = None,
        interval: float | None = None,
        count: int | None = None,
        host: str | None = None,
        ports: tuple[int, ...] | None = None,
        rate: str | None = None,
    ) -> Config:
        """This configuration with the flags of the command line put over it."""
        changed = self
        if ports is not None:
            if count not in (None, 4):
                raise UsageError(f"-p goes with four workers, not -n {count}: list another number in config.toml")
            for port in ports:
                check_port(port, "-p")
            rates = [w.rate for w in self.workers] if len(self.workers) == 4 else [0] * 4
            workers = (
                WorkerConfig(Endpoint(host or self.host, port), rate)
                for port, rate in zip(ports[:4], rates, strict=True)
            )
            changed = replace(changed, status_port=ports[4], workers=tuple(workers))
        if count is not None and count != len(changed.workers):
            raise UsageError(
                f"-n {count}, but {len(changed.workers)} workers are configured: config.toml lists them as [[workers]]"
            )
        if host is not None:
            workers = (replace(w, endpoint=Endpoint(host, w.endpoint.port)) for w in changed.workers)
            changed = replace(changed, host=host, workers=tuple(workers))
        if path is not None:
            changed = replace(changed, path=Path(path))
        if interval is not None:
            changed = replace(changed, interval=_flag("-i", parse_interval, interval))
        if rate is not None:
            limit = _flag("--rate", parse_size, rate)
            changed = replace(changed, workers=tuple(replace(w, rate=limit) for w in changed.workers))
        return changed


@dataclass(frozen=True, slots=True)
class Servers:
    """Where a client or an operator finds the servers.

    ``workers`` maps numbers (from 1) to endpoints. ``pinned`` says that they were given on the
    command line and that what server 5 says of endpoints is to be ignored, so that proxies and
    address translation work.
    """

    status: Endpoint
    workers: Mapping[int, Endpoint]
    pinned: bool


def servers(config: Config, *, host: str | None, ports: tuple[int, ...] | None, server5: str | None) -> Servers:
    """The servers named by ``config`` and the flags, by numeric address. Raises ``UsageError``."""
    config = config.with_flags(host=host, ports=ports).checked()
    if server5 is not None:
        status = Endpoint.parse(server5).resolve()
        workers = {}
        if ports is not None:
            workers = _by_number(config)
        return Servers(status, workers, ports is not None)
    return Servers(config.status.seen_from(LOOPBACK).resolve(), _by_number(config), ports is not None)


def _by_number(config: Config) -> dict[int, Endpoint]:
    numbered = enumerate(config.workers, 1)
    return {number: worker.endpoint.seen_from(LOOPBACK).resolve() for number, worker in numbered}


def load(file: str | None) -> Config:
    """The configuration in ``file``; without one that in ``./config.toml``, if it is there.

    Relative paths in it count from its folder. Raises ``UsageError``, naming the key, its value
    and what is allowed.
    """
    path = Path(file) if file is not None else DEFAULT_FILE
    try:
        sections = read_sections(path)
    except FileNotFoundError:
        if file is None:
            return Config()
        raise UsageError(f"{file}: no such file; -c names a config.toml") from None
    broker = sections.get("broker", {})
    settings = {**broker, **sections.get("client", {})}
    if "path" in sections.get("share", {}):
        settings["path"] = path.parent / sections["share"]["path"]
    host = broker.get("host", LOOPBACK)
    workers = sections.get("workers", [{"port": port} for port in DEFAULT_PORTS[:4]])
    settings["workers"] = tuple(
        WorkerConfig(Endpoint(w.get("host", host), w["port"]), w.get("rate", 0)) for w in workers
    )
    return Config(**settings)


def _flag(flag: str, parse: Callable[[Any], Any], value: Any) -> Any:
    try:
        return parse(value)
    except ValueError as allowed:
        raise UsageError(f"{flag} {value}: must be {allowed}") from None
