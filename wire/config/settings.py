"""The configuration: built-in defaults, ``config.toml``, and the flags that override it.

Every command locates the servers with this module, so servers and clients can share one file.
``wire/config/toml_file.py`` parses the file. Does not touch shared files; it
uses the network only to look up names.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct
from msgspec.structs import replace

from msd.wire.config.toml_file import MAX_WORKERS, parse_interval, parse_size, parse_text, read_sections
from msd.wire.errors import NotAllowedError, UsageError
from msd.wire.net.endpoints import ANY_HOSTS, Endpoint, check_port
from msd.wire.net.name_lookup import look_up
from msd.wire.security.keys import SERVER, KeyFolder, KeyPair

if TYPE_CHECKING:
    from msd.wire.config.store_urls import StoreUrl

DEFAULT_FILE = Path("config.toml")
LOOPBACK = "127.0.0.1"
#: The ports of the report's example; the fifth is server 5.
DEFAULT_PORTS = (21018, 27215, 35416, 19222, 39223)


class WorkerConfig(Struct, frozen=True):
    """A worker's endpoint, and its rate limit in bytes a second (0 = unlimited)."""

    endpoint: Endpoint
    rate: int = 0


class Config(Struct, frozen=True):
    """A complete configuration. Times are in seconds, sizes in bytes.

    ``control_port`` None means the status port plus one; ``metrics_port`` None means no metrics endpoint.
    """

    #: The files and folders to share; which files below them are left out.
    paths: tuple[Path | StoreUrl, ...] = ()
    excludes: tuple[str, ...] = ()
    hidden: bool = False
    follow_links: bool = False
    #: True if the index of a store is kept beside its objects.
    keep_index: bool = False
    #: The configuration file that names ``paths``; None if no file does.
    share_file: Path | None = None
    #: True if there is a ``./config.toml`` that was passed over, because it has no section of msd.
    passed_over_file: bool = False
    #: True if a file configures a broker, but no workers and nothing to share: the workers join.
    is_only_broker: bool = False
    host: str = LOOPBACK
    status_port: int = DEFAULT_PORTS[4]
    control_port: int | None = None
    metrics_port: int | None = None
    #: The file that gets a line for each download that has ended; None for no such file.
    access_log: Path | None = None
    interval: float = 2.0
    hang_limit: float = 60.0
    #: "none", "curve", or "" for keys only if other machines can reach the servers.
    security: str = ""
    #: The folder of the keys; None for the user's default folder.
    keys: Path | None = None
    #: The public key of servers on another machine.
    server_key: bytes | None = None
    #: The name of the key pair that a client uses; None if there is only one pair.
    key: str | None = None
    #: The name of the worker whose files are the right ones; empty for those of the broker itself, if it shares any.
    authority: str = ""
    #: The workers that the broker starts; none if it only serves those that join.
    workers: tuple[WorkerConfig, ...] = tuple(WorkerConfig(Endpoint(LOOPBACK, port)) for port in DEFAULT_PORTS[:4])
    #: True if neither a flag nor a file gives a port: the defaults may be replaced by free ports.
    has_default_ports: bool = True
    #: The settings of [store]; ``store_cache`` is what each worker keeps of a store in memory, in bytes.
    store: dict[str, str] = {}
    store_cache: int = 64 << 20
    memory: int = 64 << 20
    #: The maximum rate of a download in bytes a second (0 = unlimited).
    max_rate: int = 0
    #: How a client calls itself to the operators of the servers; empty if it does not.
    name: str = ""

    @property
    def status(self) -> Endpoint:
        """The endpoint at which server 5 publishes snapshots."""
        return Endpoint(self.host, self.status_port)

    @property
    def control(self) -> Endpoint:
        """The endpoint for requests to the broker."""
        return Endpoint(self.host, self.control_port or self.status_port + 1)

    @property
    def metrics(self) -> Endpoint | None:
        """The endpoint of the metrics, None if none are served."""
        return Endpoint(self.host, self.metrics_port) if self.metrics_port else None

    def checked(self) -> Config:
        """Returns this configuration unchanged. Raises ``UsageError`` if it uses a port twice."""
        uses = [(f"worker {n}", worker.endpoint) for n, worker in enumerate(self.workers, 1)]
        uses += [("server 5", self.status), ("the control port", self.control)]
        if self.metrics is not None:
            uses.append(("the metrics port", self.metrics))
        uses_by_port: dict[int, list[tuple[str, Endpoint]]] = {}
        for purpose, endpoint in uses:
            check_port(endpoint.port, purpose)
            other_uses = uses_by_port.setdefault(endpoint.port, [])
            for other, other_endpoint in other_uses:
                if other_endpoint.host == endpoint.host or {other_endpoint.host, endpoint.host} & {*ANY_HOSTS}:
                    hint = " (the fifth port + 1)" if purpose == "the control port" and not self.control_port else ""
                    raise UsageError(f"port {endpoint.port} is given twice: for {other} and for {purpose}{hint}")
            other_uses.append((purpose, endpoint))
        return self

    def _counted_workers(self, count: int) -> tuple[WorkerConfig, ...]:
        """The first ``count`` workers of this configuration. If it has fewer, each further worker listens on the port
        after that of the previous worker.
        """
        last = self.workers[-1].endpoint.port if self.workers else self.status_port + 1
        more = range(last + 1, last + 1 + count - len(self.workers))
        return self.workers[:count] + tuple(WorkerConfig(Endpoint(self.host, port)) for port in more)

    def with_other_ports(self, distance: int) -> Config:
        """Returns this configuration with the ports of the workers and of server 5 ``distance`` higher."""
        ports = [worker.endpoint.port + distance for worker in self.workers]
        workers = [replace(w, endpoint=Endpoint(w.endpoint.host, p)) for w, p in zip(self.workers, ports, strict=True)]
        return replace(self, workers=tuple(workers), status_port=self.status_port + distance)

    @property
    def key_folder(self) -> KeyFolder:
        """The folder of the keys. Raises ``UsageError`` if the user has no home directory."""
        if self.keys is not None:
            return KeyFolder(self.keys)
        if home := os.environ.get("XDG_CONFIG_HOME"):
            return KeyFolder(Path(home, "msd", "keys"))
        try:
            return KeyFolder(Path.home() / ".config" / "msd" / "keys")
        except RuntimeError:
            raise UsageError("no home directory for the keys: set XDG_CONFIG_HOME") from None

    @property
    def exposed_endpoint(self) -> Endpoint | None:
        """The first endpoint of the servers that other machines can reach, None if there is none."""
        endpoints = (self.status, *(worker.endpoint for worker in self.workers))
        return next((endpoint for endpoint in endpoints if not endpoint.is_loopback), None)

    @property
    def uses_keys(self) -> bool:
        """True if the servers use keys: by configuration, or because other machines can reach them."""
        if self.security:
            return self.security == "curve"
        return self.keys is not None or self.exposed_endpoint is not None

    def load_server_keys(self) -> KeyPair | None:
        """Returns the servers' key pair, None if they use no keys. Raises ``NotAllowedError`` if it is missing."""
        if not self.uses_keys:
            return None
        pair = self.key_folder.load(SERVER)
        if pair is None:
            raise NotAllowedError(f"no server key in {self.key_folder.path}: create it with msd keys init")
        return pair

    def resolved(self, on_waiting: Callable[[str, float], None] = lambda reason, seconds: None) -> Config:
        """Returns this configuration with numeric addresses, because ZeroMQ binds only to those. Raises ``UsageError``
        for an unknown host. ``on_waiting`` is called with the reason and the seconds so far if a look-up takes long.
        """
        endpoints = (self.status, *(worker.endpoint for worker in self.workers))
        names = {name for endpoint in endpoints if (name := endpoint.name_to_look_up) is not None}
        addresses = look_up(names, on_waiting=on_waiting) if names else {}
        workers = [
            replace(worker, endpoint=worker.endpoint.with_addresses(addresses).addresses[0]) for worker in self.workers
        ]
        return replace(self, host=self.status.with_addresses(addresses).host, workers=tuple(workers))

    def with_flags(
        self,
        *,
        paths: Sequence[str] = (),
        excludes: Sequence[str] = (),
        hidden: bool = False,
        follow_links: bool = False,
        keep_index: bool = False,
        interval: float | None = None,
        count: int | None = None,
        host: str | None = None,
        ports: tuple[int, ...] | None = None,
        rate: str | None = None,
        max_rate: str | None = None,
    ) -> Config:
        """Returns this configuration, overridden by the flags that are not None or empty. Raises ``UsageError``."""
        if count is not None and not 0 <= count <= MAX_WORKERS:
            raise UsageError(f"-n {count}: must be a number of workers from 0 to {MAX_WORKERS}")
        changed = self
        if ports is not None:
            for port in ports:
                check_port(port, "ports")
            if count is not None and len(ports) != count + 1:
                own = "1 worker" if count == 1 else f"{count} workers"
                needed = f"{own} and server 5 need {count + 1} ports" if count else "server 5 alone needs 1 port"
                problem = f"{needed}, but -p has {len(ports)}"
                raise UsageError(f"{problem}: give as many, or another number of workers with -n")
            if len(ports) > MAX_WORKERS + 1:
                raise UsageError(f"{len(ports)} ports: at most {MAX_WORKERS} workers and server 5 are allowed")
            endpoints = [Endpoint(host or self.host, port) for port in ports[:-1]]
            rates = [w.rate for w in self.workers] if len(self.workers) == len(endpoints) else [0] * len(endpoints)
            changed = replace(changed, status_port=ports[-1], workers=tuple(map(WorkerConfig, endpoints, rates)))
            changed = replace(changed, has_default_ports=False)
        elif count is not None:
            changed = replace(changed, workers=self._counted_workers(count))
        if host is not None:
            workers = (replace(w, endpoint=Endpoint(host, w.endpoint.port)) for w in changed.workers)
            changed = replace(changed, host=host, workers=tuple(workers))
        if paths:
            locations = (_location(_parse_flag("PATH", parse_text, path)) for path in paths)
            changed = replace(changed, paths=tuple(locations), share_file=None)
        if excludes:
            changed = replace(changed, excludes=tuple(_parse_flag("--exclude", parse_text, text) for text in excludes))
        changed = replace(changed, hidden=hidden or self.hidden, follow_links=follow_links or self.follow_links)
        changed = replace(changed, keep_index=keep_index or self.keep_index)
        if interval is not None:
            changed = replace(changed, interval=_parse_flag("-i", parse_interval, interval))
        if rate is not None:
            limit = _parse_flag("--rate", parse_size, rate)
            changed = replace(changed, workers=tuple(replace(w, rate=limit) for w in changed.workers))
        if max_rate is not None:
            changed = replace(changed, max_rate=_parse_flag("--max-rate", parse_size, max_rate))
        return changed


def load(file: str | Path | None) -> Config:
    """Reads the configuration from ``file``, by default from ``./config.toml`` if it exists and has a section of msd.

    Relative paths in the file are relative to its folder. Raises ``UsageError`` with the key, its value and the
    allowed values.
    """
    path = Path(file) if file is not None else DEFAULT_FILE
    try:
        sections = read_sections(path, may_be_foreign=file is None)
    except FileNotFoundError:
        if file is None:
            return Config()
        raise UsageError(f"{file}: no such file: give the path of a config.toml") from None
    broker = sections.get("broker", {})
    settings = {**broker, **sections.get("client", {}), "passed_over_file": file is None and not sections}
    if "keys" in settings:
        try:
            settings["keys"] = path.parent / Path(settings["keys"]).expanduser()
        except RuntimeError:
            raise UsageError(f"{path}: [broker] keys = {settings['keys']!r}: no such home directory") from None
    if "access_log" in settings:
        settings["access_log"] = path.parent / settings["access_log"]
    share = sections.get("share", {})
    settings |= {key: share[key] for key in ("hidden", "follow_links", "keep_index") if key in share}
    settings["excludes"] = share.get("exclude", ())
    if "path" in share:
        settings |= {"paths": tuple(_location(name, path.parent) for name in share["path"]), "share_file": path}
    store = sections.get("store", {})
    if "cache" in store:
        settings["store_cache"] = store.pop("cache")
    settings["store"] = {key: value for key, value in store.items() if value}
    settings["has_default_ports"] = "workers" not in sections and not {"status_port", "control_port"} & broker.keys()
    host = broker.get("host", LOOPBACK)
    settings["is_only_broker"] = bool(broker) and not {"share", "workers"} & sections.keys()
    workers = sections.get("workers", [{"port": port} for port in DEFAULT_PORTS[:4]])
    settings["workers"] = tuple(
        WorkerConfig(Endpoint(w.get("host", host), w["port"]), w.get("rate", 0)) for w in workers
    )
    return Config(**settings)


def _location(text: str, folder: Path = Path()) -> Path | StoreUrl:
    """Returns a URL, or a path relative to ``folder``. Raises ``UsageError``."""
    if "://" not in text:
        return folder / text
    # Importing it takes a millisecond, which most commands save.
    from msd.wire.config.store_urls import StoreUrl

    return StoreUrl.parse(text)


def _parse_flag(flag: str, parse: Callable[[Any], Any], value: Any) -> Any:
    try:
        return parse(value)
    except ValueError as allowed:
        shown = value if value != "" else "''"
        raise UsageError(f"{flag} {shown}: must be {allowed}") from None
