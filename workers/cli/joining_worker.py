"""``msd worker``: indexes files of this machine, and serves them as a worker of servers that run anywhere.

Runs in the foreground and restarts nothing: whatever runs programs on a host can run it. ``workers/serving/worker.py``
serves the files.
"""

from __future__ import annotations

import os
import re
import secrets
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

import zmq
from msgspec import Struct

from msd.wire.config.settings import DEFAULT_PORTS, LOOPBACK, Config, load
from msd.wire.errors import DiskError, MsdError, UsageError
from msd.wire.net.endpoints import Endpoint
from msd.wire.net.name_lookup import look_up
from msd.wire.net.poll_loop import PollLoop
from msd.wire.net.ports import HeldPort, PortInUseError, hold_port
from msd.wire.net.sockets import raise_descriptor_limit
from msd.wire.protocol.child_messages import EDITION_FILES, SHARE_FILE, Indexed, WorkerSettings
from msd.wire.security.keys import Credentials, KeyPair, parse_key, select_credentials
from msd.wire.sharing.indexer_supervisor import IndexerSupervisor
from msd.wire.sharing.kept_files import KeptFiles
from msd.wire.sharing.runtime_folder import make_folder, remove_folder
from msd.wire.sharing.shared_paths import share_settings, write_share
from msd.wire.support.line_writer import LineWriter
from msd.wire.support.malloc import keep_freed_memory
from msd.wire.support.presentable_names import presentable
from msd.wire.support.signal_fd import SignalDescriptor
from msd.workers.serving.remote_broker import RemoteBroker
from msd.workers.serving.worker import Worker

#: How many ports are tried, from the first default port on, if no port is given.
PORTS_TRIED = 64
#: Seconds between two checks whether another program has removed files of this process.
RESTORE_INTERVAL_S = 1.0
#: Seconds that a blocked terminal or pipe may take to write the last lines.
CLOSE_TIMEOUT_S = 0.5
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")


class WorkerOptions(Struct, frozen=True):
    """What ``msd worker`` needs: ``control`` is the control socket of server 5, ``listen`` None for any free port on
    ``host``, ``advertise`` None for the listening one, ``name`` empty for one that is made of host name and port.
    """

    config: Config
    control: Endpoint
    credentials: Credentials | None
    host: str
    listen: Endpoint | None
    advertise: Endpoint | None
    name: str
    rate: int


def worker_options(
    config_file: str | None,
    *,
    join: str | None,
    paths: Sequence[str],
    server_key: str | None,
    key_file: str | None,
    listen: str | None,
    advertise: str | None,
    name: str | None,
    rate: str | None,
    excludes: Sequence[str],
    hidden: bool,
    follow_links: bool,
    keep_index: bool,
) -> WorkerOptions:
    """Checks the flags. Raises ``MsdError``."""
    if join is None:
        raise UsageError("the address of server 5 is missing: give --join HOST, or set MSD_JOIN")
    config = load(config_file).with_flags(
        paths=paths,
        excludes=excludes,
        hidden=hidden,
        follow_links=follow_links,
        keep_index=keep_index,
        count=1,
        rate=rate,
    )
    server5 = _endpoint("--join", join, DEFAULT_PORTS[4])
    control = server5.at_port(config.control_port or server5.port + 1)
    host = LOOPBACK if server5.is_loopback else "::" if server5.is_ipv6 else "*"
    listening = None
    if listen is not None:
        listening = _endpoint(
            "--listen", f"{host if ':' not in host else f'[{host}]'}:{listen}" if listen.isdigit() else listen
        )
    if name is not None and not _NAME.fullmatch(name):
        raise UsageError(f"--name {name}: must be 1 to 64 letters, digits and . _ -")
    return WorkerOptions(
        config=config,
        control=control,
        credentials=_credentials(config, server_key, key_file),
        host=host,
        listen=listening,
        advertise=_endpoint("--advertise", advertise) if advertise is not None else None,
        name=name or "",
        rate=config.workers[0].rate,
    )


def run(options: WorkerOptions) -> int:
    """Serves until a signal arrives. Returns the exit code: 0 after SIGTERM, which is an orderly end. Raises
    ``MsdError``.
    """
    share = share_settings(options.config)
    with ExitStack() as stack:
        numbers = [n for n in (signal.SIGINT, signal.SIGHUP) if signal.getsignal(n) is not signal.SIG_IGN]
        signals = SignalDescriptor(signal.SIGTERM, *numbers)
        stack.callback(signals.close)
        lines = LineWriter(2)
        stack.callback(_close_lines, lines)
        listen, holder = _hold_port(options)
        stack.callback(holder.close)
        name = options.name or f"{_host_name()}-{listen.port}"
        folder = make_folder(listen, name)
        stack.callback(remove_folder, folder)
        write_share(folder / "catalogue", share)
        return _Process(options, name, listen, folder, signals, lines, stack).run()


class _Process:
    """The process of ``msd worker``: the indexer, and the worker as soon as there is something to serve."""

    def __init__(
        self,
        options: WorkerOptions,
        name: str,
        listen: Endpoint,
        folder: Path,
        signals: SignalDescriptor,
        lines: LineWriter,
        stack: ExitStack,
    ) -> None:
        self._options = options
        self._name = name
        self._listen = listen
        self._folder = folder
        self._signals = signals
        self._lines = lines
        self._kept_files = KeptFiles(folder)
        stack.callback(self._kept_files.close)
        self._kept_files.keep("share", [f"catalogue/{SHARE_FILE}"])
        self._next_restore = 0.0
        self._caught = 0
        self._worker: Worker | None = None
        self._poll_loop = PollLoop()
        self._poll_loop.register(signals.fileno(), self._on_signal)
        self._indexer = IndexerSupervisor(
            folder, self._poll_loop, note=self._show, on_edition=self._on_edition, on_left_out=lambda line: None
        )
        stack.callback(self._indexer.close)

    def run(self) -> int:
        while not self._indexer.latest.edition and not self._caught:
            self._poll_loop.wait([time.monotonic() + RESTORE_INTERVAL_S])
            self._poll_loop.dispatch()
        if not self._caught:
            self._serve()
        return 0 if self._caught in (0, signal.SIGTERM) else 128 + self._caught

    def _serve(self) -> None:
        options = self._options
        own = KeyPair.generate() if options.credentials is not None else None
        settings = WorkerSettings(
            name=self._name,
            number=None,
            parent=0,
            bind=self._listen.bind_url,
            token=secrets.token_bytes(16),
            catalogue=str(self._folder / "catalogue"),
            edition=self._indexer.latest.edition,
            rate=options.rate,
            wanted=None,
            endpoint=(options.advertise or self._listen).url,
            secret=own.secret if own is not None else b"",
        )
        raise_descriptor_limit()
        keep_freed_memory()
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        broker = RemoteBroker(context, options.control, options.credentials, self._show)
        self._worker = Worker(
            context,
            settings,
            broker,
            self._poll_loop,
            show=self._show,
            on_stale=self._indexer.request_rescan,
            on_turn=self._pass_time,
        )
        try:
            self._worker.run()
        finally:
            context.term()
            self._worker.close()

    def _pass_time(self, now: float) -> None:
        self._indexer.pass_time(now)
        if now >= self._next_restore:
            self._next_restore = now + RESTORE_INTERVAL_S
            with suppress(MsdError, OSError):
                if self._kept_files.restore():
                    self._show(f"{self._folder} was removed by another program: it is restored")

    def _on_edition(self, indexed: Indexed) -> None:
        with suppress(OSError):  # Already replaced by a newer edition.
            names = [f"catalogue/{indexed.edition}/{name}" for name in EDITION_FILES]
            self._kept_files.keep("catalogue", names)
        if self._worker is not None:
            self._worker.switch_to(indexed.edition)

    def _on_signal(self) -> None:
        self._caught = max(self._signals.read())
        if self._worker is not None:
            self._worker.stop()

    def _show(self, text: str) -> None:
        self._lines.write(f"msd: {presentable(text)}\n".encode("utf-8", "surrogateescape"))


def _close_lines(lines: LineWriter) -> None:
    with suppress(OSError):
        lines.close(CLOSE_TIMEOUT_S)


def _hold_port(options: WorkerOptions) -> tuple[Endpoint, HeldPort]:
    """Returns the endpoint to listen on, with its port reserved. Raises ``UsageError``."""
    if options.listen is not None:
        return options.listen, hold_port(options.listen, "worker")
    for port in range(DEFAULT_PORTS[0], DEFAULT_PORTS[0] + PORTS_TRIED):
        endpoint = Endpoint(options.host, port)
        with suppress(PortInUseError):
            return endpoint, hold_port(endpoint, "worker")
    last = DEFAULT_PORTS[0] + PORTS_TRIED - 1
    raise UsageError(f"the ports {DEFAULT_PORTS[0]} to {last} are in use: give another one with --listen PORT")


def _endpoint(flag: str, text: str, default_port: int | None = None) -> Endpoint:
    """Parses the address in a flag, and looks up its host. Raises ``MsdError``."""
    try:
        endpoint = Endpoint.parse(text, default_port)
        name = endpoint.name_to_look_up
        return endpoint.with_addresses(look_up([name], on_waiting=_print_waiting)) if name is not None else endpoint
    except UsageError as error:
        raise UsageError(f"{flag} {error}") from None


def _print_waiting(reason: str, seconds: float) -> None:  # noqa: ARG001
    print(f"msd: {reason}", file=sys.stderr)


def _credentials(config: Config, server_key: str | None, key_file: str | None) -> Credentials | None:
    """Returns the key with which the worker joins, None without keys. Raises ``MsdError``."""
    server = config.server_key
    if server_key is not None:
        try:
            server = parse_key(server_key)
        except ValueError as allowed:
            # Do not quote it: it may be a secret key.
            raise UsageError(f"--server-key must be {allowed}, as printed by msd serve") from None
    if server is None:
        if key_file is not None:
            raise UsageError("--key-file needs --server-key, the key that msd serve prints")
        return None
    if key_file is None:
        return select_credentials(config.key_folder, server, config.key, may_be_server=False)
    try:
        text = sys.stdin.read(4096) if key_file == "-" else Path(key_file).read_text(encoding="ascii")[:4096]
        return Credentials(KeyPair.from_secret(parse_key(text.strip())), server)
    except OSError as error:
        raise DiskError(
            f"--key-file {key_file}: {error.strerror}: give the file that msd keys new has written"
        ) from None
    except ValueError:
        raise UsageError(
            f"--key-file {key_file}: not a secret key: give the file that msd keys new has written"
        ) from None


def _host_name() -> str:
    """Returns the name of this machine, as far as a worker's name may contain it."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", os.uname().nodename)[:50] or "host"
