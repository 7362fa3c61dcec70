"""``msd demo``: a download from several hosts that continues while workers are put to sleep and a host is killed.

Runs the real commands, without simulation: a broker with two workers, two more that join it as if from other machines
(on other addresses of loopback), a download, toggles and a ``kill -9``. Leaves no files or processes behind, even if a
signal interrupts it.
"""

from __future__ import annotations

import filecmp
import json
import os
import random
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

from msgspec import Struct

from msd.broker.operator.operator_client import OperatorClient
from msd.wire.config.servers import Servers, locate_servers
from msd.wire.config.settings import LOOPBACK, Config
from msd.wire.config.toml_file import parse_size
from msd.wire.errors import Interrupted, MsdError, UsageError
from msd.wire.protocol.states import WantedState, WorkerState
from msd.wire.support.signal_fd import SignalDescriptor
from msd.wire.support.units import format_rate, format_size

NAME = "demo.bin"
#: Minimum size in bytes; the download of a smaller file would end before a worker can be killed.
MIN_SIZE = 1 << 20
#: Bytes generated and written at a time.
BLOCK_SIZE = 4 << 20
#: Seconds between two looks at the download and at the number of bytes sent; the shortest download takes half a second.
POLL_INTERVAL_S = 0.05


#: The hosts whose workers join the broker: addresses of loopback stand for other machines.
HOSTS = {"host-b": "127.0.0.2", "host-c": "127.0.0.3"}


class Fault(Struct, frozen=True):
    """What happens when the workers have sent a ``share`` of the file, and the line that says so."""

    share: float
    text: str
    carry_out: Callable[[OperatorClient], object]


def run(size_text: str, seconds: float) -> int:
    """Runs the demo with a file of the given size, for about ``seconds`` seconds. Returns the exit code."""
    try:
        size = parse_size(size_text)
    except ValueError as error:
        raise UsageError(f"--size {size_text}: must be {error}") from None
    if size < MIN_SIZE:
        raise UsageError(
            f"--size {size_text}: must be at least 1MiB, or the download ends before a worker can be killed"
        )
    if not 0.5 <= seconds <= 3600:
        raise UsageError(f"--seconds {seconds:g}: must be from 0.5 to 3600")
    # If the parent ignores a signal (nohup ignores SIGHUP), leave it ignored.
    numbers = [n for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) is not signal.SIG_IGN]
    with closing(SignalDescriptor(*numbers)) as signals, tempfile.TemporaryDirectory(prefix="msd-demo-") as folder:
        source, output = Path(folder, NAME), Path(folder, "copy-of-" + NAME)
        _print(f"creating a test file of {size:,} random bytes")
        _make_file(source, size, signals)
        ports = free_ports()
        # One worker sleeps for a while and a host is dead for a moment, so each of the four workers gets a little more
        # than a quarter of the total rate.
        rate = ["--rate", str(max(1, int(size / seconds / 3.5)))]
        _print(f"starting the broker and two workers, each limited to {format_rate(int(rate[1]))}")
        own_ports = [str(port) for port in (*ports[:2], ports[4])]
        with ExitStack() as stack:
            broker = stack.enter_context(
                _started("serve", str(source), "-n", "2", "-p", *own_ports, *rate, stdout=subprocess.PIPE)
            )
            _wait_until_ready(broker, signals)
            servers = locate_servers(Config(), server5=f"{LOOPBACK}:{ports[4]}")
            hosts: dict[str, subprocess.Popen[bytes]] = {}

            def start_host(name: str) -> None:
                listen = HOSTS[name], ports[2 + [*HOSTS].index(name)]
                _print(f"msd worker --join {servers.status} --name {name} {NAME}, on {listen[0]}")
                flags = ("--join", str(servers.status), "--name", name, "--listen", f"{listen[0]}:{listen[1]}", *rate)
                hosts[name] = stack.enter_context(_started("worker", *flags, str(source)))

            for name in HOSTS:
                start_host(name)
                _wait_until_awake(servers, name, signals)
            first, *_ = HOSTS
            faults = [
                Fault(0.25, "msd toggle 2: putting worker 2 to sleep", lambda o: o.toggle(2, WantedState.ASLEEP)),
                Fault(0.45, f"kill -9: killing the worker of {first}", lambda _: hosts[first].kill()),
                Fault(0.65, "msd toggle 2: waking worker 2 up", lambda o: o.toggle(2, WantedState.AWAKE)),
                Fault(0.7, f"starting the worker of {first} again", lambda _: start_host(first)),
            ]
            return _download(source, output, servers, faults, signals)


@contextmanager
def _started(*arguments: str, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Runs a command that serves, and ends it afterwards. It runs in a session of its own: otherwise Ctrl-C reaches all
    processes, and each prints a message.
    """
    command = [sys.executable, "-P", "-m", "msd", *arguments]
    # No buffer holds a line that ``_wait`` does not see. The current folder may have a config.toml.
    fixed: dict[str, Any] = {"stdin": subprocess.DEVNULL, "bufsize": 0, "start_new_session": True, "cwd": "/"}
    with subprocess.Popen(command, **fixed, **options) as process:
        try:
            yield process
        finally:
            process.terminate()


def _wait(signals: SignalDescriptor, timeout: float | None, *descriptors: int) -> None:
    """Waits until a descriptor is readable, or for ``timeout`` seconds. Raises ``Interrupted`` after a signal.

    Signals take effect only here. An exception that a signal handler raises can come between the start of a process and
    the code that stops it, and Python discards it if a finalizer happens to be running.
    """
    if signals.fileno() in select.select([signals.fileno(), *descriptors], [], [], timeout)[0]:
        raise Interrupted("demo interrupted", signals.read()[0])


def free_ports(lowest: int = 20000, highest: int = 32000) -> tuple[int, int, int, int, int]:
    """Returns five free ports; the port after the fifth (the control port) is also free. The default range does not
    overlap the kernel's range of ephemeral ports.
    """
    chosen: list[int] = []
    while len(chosen) < 5:
        port = random.randrange(lowest, highest)  # noqa: S311
        wanted = [port, port + 1] if len(chosen) == 4 else [port]
        if not set(wanted) & set(chosen) and all(map(_is_free, wanted)):
            chosen.append(port)
    return chosen[0], chosen[1], chosen[2], chosen[3], chosen[4]


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _make_file(path: Path, size: int, signals: SignalDescriptor) -> None:
    with path.open("wb") as file:
        while (bytes_left := size - file.tell()) > 0:
            _wait(signals, 0)
            file.write(os.urandom(min(BLOCK_SIZE, bytes_left)))


def _wait_until_ready(broker: subprocess.Popen[bytes], signals: SignalDescriptor) -> None:
    assert broker.stdout is not None
    line = None
    while line != b"":
        _wait(signals, None, broker.stdout.fileno())
        line = broker.stdout.readline()
        if line.startswith(b"ready"):
            return
    raise MsdError("the servers exited before they were ready: see the messages above")


def _wait_until_awake(servers: Servers, name: str, signals: SignalDescriptor) -> None:
    with OperatorClient(servers) as operator:
        while not any(w.name == name and w.state is WorkerState.AWAKE for w in operator.status().workers):
            _wait(signals, POLL_INTERVAL_S)


def _download(source: Path, output: Path, servers: Servers, faults: Sequence[Fault], signals: SignalDescriptor) -> int:
    report = output.with_suffix(".json")
    flags = ["--server5", str(servers.status)]
    command = [sys.executable, "-P", "-m", "msd", "download", NAME, *flags, "-i", "1", "-o", str(output)]
    _print(f"msd download {NAME} {' '.join(flags)}")
    # Turn the live view off: it cannot share a terminal with the output of the demo and the servers.
    environment = {**os.environ, "TERM": "dumb"}
    command += ["--report", str(report)]
    with subprocess.Popen(command, start_new_session=True, env=environment, cwd="/") as client:
        try:
            _inject_faults(client, servers, faults, source.stat().st_size, signals)
            while (code := client.poll()) is None:
                _wait(signals, POLL_INTERVAL_S)
        finally:
            # Do not send SIGTERM: the client would print how to resume, but the part file is removed with the folder.
            client.kill()
    if code:
        raise MsdError(f"the download failed with code {code}: see the messages above")
    identical = filecmp.cmp(source, output, shallow=False)
    _print_summary(json.loads(report.read_text(encoding="utf-8")), identical=identical)
    return 0 if identical else 1


def _inject_faults(
    client: subprocess.Popen[bytes], servers: Servers, faults: Sequence[Fault], size: int, signals: SignalDescriptor
) -> None:
    """Carries out each fault when the workers have sent its share of the file."""
    waiting = [*faults]
    with OperatorClient(servers) as operator:
        #: Bytes sent by each worker process, keyed by epoch: a restarted worker counts from 0 again.
        bytes_sent: dict[int, int] = {}
        while waiting and client.poll() is None:
            for worker in operator.status().workers:
                bytes_sent[worker.epoch] = max(bytes_sent.get(worker.epoch, 0), worker.bytes_sent)
            if sum(bytes_sent.values()) >= waiting[0].share * size:
                fault = waiting.pop(0)
                _print(fault.text)
                fault.carry_out(operator)
            _wait(signals, POLL_INTERVAL_S)


def _print_summary(report: dict[str, Any], *, identical: bool) -> None:
    shares = (f"{format_size(worker['bytes'])} from worker {name}" for name, worker in report["workers"].items())
    _print(f"received {', '.join(shares)}")
    _print(
        f"received {report['received_bytes']:,} bytes, {report['wasted_bytes']:,} of them wasted (duplicate or corrupt)"
    )
    _print("the copy is identical to the original" if identical else "THE COPY DIFFERS FROM THE ORIGINAL")


def _print(text: str) -> None:
    print(f"demo: {text}", flush=True)
