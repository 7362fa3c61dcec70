"""The configuration: built-in defaults, ``config.toml``, and the flags that win over it.

Every command finds the servers through here, so that a server and its clients can share one file.
Opens no socket and looks at no shared file.
"""

from __future__ import annotations

import difflib
import ipaddress
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from wire.endpoints import ANY_HOSTS, Endpoint, check_port
from wire.errors import NotAllowedError, UsageError

DEFAULT_FILE = Path("config.toml")
LOOPBACK = "127.0.0.1"
#: The ports of the report's example; the fifth is server 5.
DEFAULT_PORTS = (21018, 27215, 35416, 19222, 39223)
#: A status snapshot names every worker; more would not fit a calm one.
MAX_WORKERS = 64
#: No size in bytes is as large: it has to fit a ``Natural`` of the protocol.
MAX_SIZE = 1 << 62

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?(?:/s)?", re.IGNORECASE)


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
            changed = replace(changed, interval=_flag("-i", _seconds, interval))
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
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if file is None:
            return Config()
        raise UsageError(f"{file}: no such file; -c names a config.toml") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    except (ValueError, RecursionError) as error:  # also for a number of 5000 digits
        raise UsageError(f"{path}: not valid TOML: {error}") from None
    try:
        return _read(table, path.parent)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None


# What each key may hold. A parser takes the TOML value and raises ValueError(what is allowed).


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError("a text that is not empty")
    return value


def _host(value: Any) -> str:
    host = _text(value)
    # Names and IPv4 have no colon; whatever else has one must be IPv6.
    if ":" in host:
        try:
            return str(ipaddress.IPv6Address(host.strip("[]")))
        except ValueError:
            raise ValueError("a host name or an IP address, without a port") from None
    return host


def _port(value: Any) -> int:
    if type(value) is not int or not 1 <= value <= 65535:
        raise ValueError("a port from 1 to 65535")
    return value


def _seconds(value: Any) -> float:
    if type(value) not in (int, float) or not 0.05 <= value <= 86400:
        raise ValueError("seconds from 0.05 to 86400")
    return float(value)


def _hang_limit(value: Any) -> float:
    # Below a second, the heartbeats of a healthy worker would come too late.
    if type(value) not in (int, float) or not 1 <= value <= 86400:
        raise ValueError("seconds from 1 to 86400")
    return float(value)


def _security(value: Any) -> str:
    if value != "none":
        raise ValueError('"none", or the key left out')
    return "none"


def _memory(value: Any) -> int:
    size = parse_size(value)
    if size < 4 << 20:
        raise ValueError('at least "4MiB"')
    return size


def parse_size(value: Any) -> int:
    """Bytes from a number or a text such as ``"40MiB"``, ``"1.5 GB"``, ``"500k"``, ``"25MiB/s"``."""
    match = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    if type(value) is int and 0 <= value < MAX_SIZE:
        return value
    if match is None:
        raise ValueError('bytes, such as 1048576 or "40MiB"')
    number, unit, binary = match.groups()
    if binary and not unit:
        raise ValueError('bytes, such as 1048576 or "40MiB"')
    factor = 1024 ** "kmgt".index(unit.lower()) * 1024 if binary else _UNITS[unit.lower()]
    size = float(number) * factor
    if size >= MAX_SIZE or 0 < size < 1:
        raise ValueError('bytes, such as 1048576 or "40MiB"')
    return int(size)


_KEYS: dict[str, dict[str, Callable[[Any], Any]]] = {
    "share": {"path": _text},
    "broker": {
        "host": _host,
        "status_port": _port,
        "control_port": _port,
        "interval": _seconds,
        "hang_limit": _hang_limit,
        "security": _security,
    },
    "workers": {"port": _port, "host": _host, "rate": parse_size},
    "client": {"memory": _memory},
}


def _read(table: dict[str, Any], folder: Path) -> Config:
    sections: dict[str, Any] = {}
    for name, value in table.items():
        _known(name, _KEYS, "section")
        expected = list if name == "workers" else dict
        if not isinstance(value, expected):
            raise UsageError(f"{name} must be written as {'[[workers]]' if expected is list else f'[{name}]'}")
        sections[name] = (
            [_section("workers", f"[[workers]] {n}: ", item) for n, item in enumerate(value, 1)]
            if expected is list
            else _section(name, f"[{name}] ", value)
        )
    broker = sections.get("broker", {})
    host = broker.get("host", LOOPBACK)
    settings = {**broker, **sections.get("client", {})}
    if "path" in sections.get("share", {}):
        settings["path"] = folder / sections["share"]["path"]
    workers = sections.get("workers", [{"port": port} for port in DEFAULT_PORTS[:4]])
    if len(workers) > MAX_WORKERS:
        raise UsageError(f"{len(workers)} [[workers]]: at most {MAX_WORKERS}")
    for number, worker in enumerate(workers, 1):
        if "port" not in worker:
            raise UsageError(f"[[workers]] {number}: port is missing")
    settings["workers"] = tuple(
        WorkerConfig(Endpoint(w.get("host", host), w["port"]), w.get("rate", 0)) for w in workers
    )
    return Config(**settings)


def _section(name: str, where: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UsageError(f"{where}must be a table")
    parsed = {}
    for key, raw in value.items():
        _known(key, _KEYS[name], f"{where}key")
        try:
            parsed[key] = _KEYS[name][key](raw)
        except ValueError as allowed:
            raise UsageError(f"{where}{key} = {raw!r}: must be {allowed}") from None
    return parsed


def _known(name: str, names: Mapping[str, object], what: str) -> None:
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"; did you mean {near[0]}?" if near else f"; there are {', '.join(names)}"
        raise UsageError(f"unknown {what} {name!r}{hint}")


def _flag(flag: str, parse: Callable[[Any], Any], value: Any) -> Any:
    try:
        return parse(value)
    except ValueError as allowed:
        raise UsageError(f"{flag} {value}: must be {allowed}") from None
