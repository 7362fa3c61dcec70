"""The configuration: built-in defaults, ``config.toml``, and the flags that win over it.

Every command finds the servers through here, so that a server and its clients can share one file.
What the file may hold is said in ``wire/config/toml_file.py``. Looks at no shared file, and asks the
network for nothing but the addresses of hosts.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from msd.wire.config.toml_file import parse_interval, parse_size, read_sections
from msd.wire.errors import NotAllowedError, UsageError
from msd.wire.net.endpoints import ANY_HOSTS, Endpoint, check_port
from msd.wire.security.keys import SERVER, Credentials, KeyFolder, KeyPair, credentials, parse_key

DEFAULT_FILE = Path("config.toml")
LOOPBACK = "127.0.0.1"
#: The ports of the report's example; the fifth is server 5.
DEFAULT_PORTS = (21018, 27215, 35416, 19222, 39223)


class WorkerConfig(Struct, frozen=True):
    """One worker: where it listens, and its limit in bytes a second (0 = none)."""

    endpoint: Endpoint
    rate: int = 0


class Config(Struct, frozen=True):
    """A complete configuration. Times are in seconds, sizes in bytes.

    ``control_port`` is None where it is to be the status port plus one, ``metrics_port`` where there
    are to be no metrics.
    """

    path: Path | None = None
    host: str = LOOPBACK
    status_port: int = DEFAULT_PORTS[4]
    control_port: int | None = None
    metrics_port: int | None = None
    interval: float = 2.0
    hang_limit: float = 60.0
    #: "none", "curve", or "" where that depends on who could reach the servers.
    security: str = ""
    #: The folder of the keys, and the servers' public key where they are not this machine's.
    keys: Path | None = None
    server_key: bytes | None = None
    #: Which pair a client shows, by name; None for the only one.
    key: str | None = None
    workers: tuple[WorkerConfig, ...] = tuple(WorkerConfig(Endpoint(LOOPBACK, port)) for port in DEFAULT_PORTS[:4])
    memory: int = 64 << 20

    @property
    def status(self) -> Endpoint:
        """Server 5."""
        return Endpoint(self.host, self.status_port)

    @property
    def control(self) -> Endpoint:
        return Endpoint(self.host, self.control_port or self.status_port + 1)

    @property
    def metrics(self) -> Endpoint | None:
        return Endpoint(self.host, self.metrics_port) if self.metrics_port else None

    def checked(self) -> Config:
        """This configuration, if its ports can work together; raises ``UsageError`` otherwise."""
        if not self.workers:
            raise UsageError("no worker is configured: give -p, or [[workers]] in config.toml")
        uses = [(f"worker {n}", worker.endpoint) for n, worker in enumerate(self.workers, 1)]
        uses += [("server 5", self.status), ("the control port", self.control)]
        if self.metrics is not None:
            uses.append(("the metrics port", self.metrics))
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

    @property
    def exposed(self) -> Endpoint | None:
        """One of the endpoints that other machines can reach."""
        every = (self.status, *(worker.endpoint for worker in self.workers))
        return next((endpoint for endpoint in every if not endpoint.is_loopback), None)

    @property
    def is_encrypted(self) -> bool:
        """True if these servers take keys: where it is said so, and wherever other machines could reach them."""
        if self.security:
            return self.security == "curve"
        return self.keys is not None or self.exposed is not None

    @property
    def key_folder(self) -> KeyFolder:
        """Where the keys lie. Raises ``UsageError`` for a user without a home."""
        if self.keys is not None:
            return KeyFolder(self.keys)
        if home := os.environ.get("XDG_CONFIG_HOME"):
            return KeyFolder(Path(home, "msd", "keys"))
        try:
            return KeyFolder(Path.home() / ".config" / "msd" / "keys")
        except RuntimeError:
            raise UsageError("there is no home for keys: set XDG_CONFIG_HOME") from None

    def server_keys(self) -> KeyPair | None:
        """The servers' own pair, None if they take no keys. Raises ``NotAllowedError`` if they would
        have to.
        """
        if not self.is_encrypted:
            return None
        pair = self.key_folder.load(SERVER)
        if pair is None and self.exposed is not None:
            raise NotAllowedError(
                f"{self.exposed.host} can be reached from other machines, and anyone there could read the shared"
                ' files: make keys with msd keys init, or write security = "none" under [broker] in config.toml'
            )
        if pair is None:
            raise NotAllowedError(f"there is no key of the servers in {self.key_folder.path}: msd keys init makes it")
        return pair

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


class Servers(Struct, frozen=True):
    """Where a client or an operator finds the servers.

    ``workers`` maps numbers (from 1) to endpoints. ``pinned`` says that they were given on the
    command line and that what server 5 says of endpoints is to be ignored, so that proxies and
    address translation work. ``credentials`` are what to show them, None if they take no keys.
    """

    status: Endpoint
    workers: Mapping[int, Endpoint]
    pinned: bool
    credentials: Credentials | None = None

    @classmethod
    def find(
        cls,
        host: str | None = None,
        *,
        ports: Sequence[int] | None = None,
        server5: str | None = None,
        server_key: str | None = None,
        config: str | Path | None = None,
    ) -> Servers:
        """Finds the servers as every command does.

        ``config`` is a configuration file, by default ``./config.toml`` if there is one. ``host`` and ``ports``
        (those of four workers, then that of server 5) win over it. ``server5`` is the ``HOST:PORT`` of server 5,
        which knows the workers. ``server_key`` is the public key that the servers print, for servers that take keys.

        Raises ``UsageError`` for wrong values and unknown hosts, ``NotAllowedError`` where a key is missing.
        """
        if ports is not None and len(ports) != len(DEFAULT_PORTS):
            raise UsageError(f"{len(ports)} ports: there are five, of four workers and of server 5")
        return locate_servers(
            load(config),
            host=host,
            ports=tuple(ports) if ports is not None else None,
            server5=server5,
            server_key=server_key,
        )


def locate_servers(
    config: Config,
    *,
    host: str | None = None,
    ports: tuple[int, ...] | None = None,
    server5: str | None = None,
    server_key: str | None = None,
) -> Servers:
    """The servers named by ``config`` and the flags, by numeric address. Raises ``MsdError``."""
    config = config.with_flags(host=host, ports=ports).checked()
    key = config.server_key
    if server_key is not None:
        try:
            key = parse_key(server_key)
        except ValueError as allowed:
            raise UsageError(f"--server-key: must be {allowed}, as msd serve prints it") from None
    shown = credentials(config.key_folder, key, config.key) if key is not None or config.is_encrypted else None
    if server5 is not None:
        status = Endpoint.parse(server5).resolve()
        workers = {}
        if ports is not None:
            workers = _by_number(config)
        return Servers(status, workers, ports is not None, shown)
    return Servers(config.status.seen_from(LOOPBACK).resolve(), _by_number(config), ports is not None, shown)


def _by_number(config: Config) -> dict[int, Endpoint]:
    numbered = enumerate(config.workers, 1)
    return {number: worker.endpoint.seen_from(LOOPBACK).resolve() for number, worker in numbered}


def load(file: str | Path | None) -> Config:
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
    if "keys" in settings:
        try:
            settings["keys"] = path.parent / Path(settings["keys"]).expanduser()
        except RuntimeError:
            raise UsageError(f"{path}: [broker] keys = {settings['keys']!r}: there is no such home") from None
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
