"""Helpers for tests with real processes: start servers, download from them, read events.

Every process is started through the public command and ended by its pid.
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from functools import cache
from itertools import cycle
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self, TypeVar

from msd.broker.cli import demo
from msd.broker.operator.operator_client import OperatorClient
from msd.client.operations.list_files import list_files
from msd.wire.config.servers import Servers, locate_servers
from msd.wire.config.settings import Config
from msd.wire.protocol.messages import Status, WorkerStatus
from msd.wire.protocol.states import WantedState, WorkerState

MSD = [sys.executable, "-P", "-m", "msd"]
#: Default timeout for every wait, in seconds; MSD_TEST_TIME_FACTOR raises it on slow machines.
TIMEOUT = 30.0 * float(os.environ.get("MSD_TEST_TIME_FACTOR", "1"))

MIB = 1 << 20

Ports = tuple[int, int, int, int, int]

#: Ports for servers under test, the number of test processes that may share them, and from how many ports of a process
#: each call of ``free_ports`` chooses.
PORTS, PORT_SLOTS, PORT_CHOICE = range(20000, 32000), 24, 20
_PORTS_OF_PROCESS = len(PORTS) // PORT_SLOTS
_next_choice = cycle(range(0, _PORTS_OF_PROCESS, PORT_CHOICE))


T = TypeVar("T")


@cache
def _claim_slot() -> tuple[int, socket.socket]:
    """Returns a number below ``PORT_SLOTS``, and the socket that claims it until this process ends."""
    claim = socket.socket(socket.AF_UNIX)
    for slot in range(PORT_SLOTS):
        with suppress(OSError):
            claim.bind(f"\0msd-tests-{slot}")
            return slot, claim
    raise RuntimeError(f"more than {PORT_SLOTS} processes run tests")


def port_slot() -> int:
    """Returns the number of this test process, which no other test process on this machine has, of any pytest.

    A port that is free when a test chooses it may be in use when its servers start, unless no other process chooses it.
    """
    return _claim_slot()[0]


def free_ports() -> Ports:
    """Returns ports that are free now, and that neither another test process nor the next calls choose: servers may
    start later.
    """
    first = PORTS[port_slot() * _PORTS_OF_PROCESS + next(_next_choice)]
    # The control port is one above the last port.
    return demo.free_ports(first, first + PORT_CHOICE - 1)


def wait_for(description: str, probe: Callable[[], T | None], timeout: float = TIMEOUT) -> T:
    """Polls ``probe`` and returns its first truthy value. A timeout error says that it waited for ``description``."""
    deadline = time.monotonic() + timeout
    while True:
        began = time.monotonic()
        if value := probe():
            return value
        now = time.monotonic()
        assert now < deadline, f"timed out after {timeout:g} s waiting for {description}"
        # Leave the processors to the processes under test for most of the time: a probe may start a process.
        time.sleep(max(0.005, min(0.3, 3 * (now - began))))


class Output:
    """The lines that a process has written to a stream, each with the time at which it was read."""

    def __init__(self, stream: IO[str]) -> None:
        self.lines: list[tuple[float, str]] = []
        self._thread = threading.Thread(target=self._read, args=(stream,))
        self._thread.start()

    def _read(self, stream: IO[str]) -> None:
        with stream:
            for line in stream:
                self.lines.append((time.monotonic(), line.rstrip("\n")))

    @property
    def text(self) -> str:
        return "\n".join(line for _, line in self.lines)

    def join(self) -> None:
        self._thread.join()


class Process:
    """A process under test and its two output streams. A context manager: leaving it ends the process.

    ``wrapper`` are words that run the command in another environment: see ``tests/environments/recipes.py``.
    """

    def __init__(self, arguments: list[str], *, wrapper: Sequence[str] = (), **options: Any) -> None:
        self.process = subprocess.Popen(
            [*wrapper, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **{"stdin": subprocess.DEVNULL, **options},
        )
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self.out = Output(self.process.stdout)
        self.err = Output(self.process.stderr)

    @property
    def pid(self) -> int:
        return self.process.pid

    def write_stdin(self, text: str) -> None:
        """Writes to standard input, which must be a pipe."""
        assert self.process.stdin is not None
        self.process.stdin.write(text)
        self.process.stdin.flush()

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self, timeout: float = TIMEOUT) -> int:
        """Waits for the process to end and returns its exit code."""
        code = self.process.wait(timeout)
        self.out.join()
        self.err.join()
        return code

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.wait()
        if self.process.stdin is not None:
            self.process.stdin.close()


class Download(Process):
    """``msd download --json`` and its events; ``server_flags`` are the options that locate the servers."""

    def __init__(self, server_flags: list[str], *arguments: str, interval: float = 0.05, **options: Any) -> None:
        super().__init__([*MSD, "download", *server_flags, "--json", "-i", str(interval), *arguments], **options)
        self._events: list[dict[str, Any]] = []

    @property
    def events(self) -> list[dict[str, Any]]:
        """The events so far, each with an additional key ``at``: the ``time.monotonic()`` at which it was read."""
        # Tests wait for events: each is parsed only once.
        self._events += [{**json.loads(line), "at": at} for at, line in self.out.lines[len(self._events) :]]
        return [*self._events]

    @staticmethod
    def parse(text: str) -> list[dict[str, Any]]:
        """Parses the output of ``msd download --json``."""
        return [json.loads(line) for line in text.splitlines()]

    def events_of(self, kind: str) -> list[dict[str, Any]]:
        """Returns the events of one kind, such as ``"progress"``."""
        return [event for event in self.events if event["event"] == kind]

    @property
    def verified_bytes(self) -> int:
        """The number of verified bytes, according to the last progress event."""
        return int((self.events_of("progress") or [{"bytes": 0}])[-1]["bytes"])

    def wait_until_verified(self, share: float) -> None:
        """Waits until this share of the file (0 to 1) is verified."""

        def reached() -> bool:
            verified = any(e["bytes"] >= share * e["total"] for e in self.events_of("progress"))
            assert verified or self.process.poll() is None, self.out.text[-2000:] + self.err.text
            return verified

        wait_for(f"{share:.0%} of the file", reached)

    def wait_until_done(self, timeout: float = TIMEOUT) -> dict[str, Any]:
        """Waits for the ``done`` event and returns it; if the download fails, the test fails and shows the output."""
        code = self.wait(timeout)
        assert code == 0, f"code {code}: {self.out.text[-2000:]} {self.err.text}"
        assert self.events[-1]["event"] == "done"
        return self.events[-1]


class System(Process):
    """A running ``msd serve``, and methods to control it. Other commands find the servers with ``server_flags``.

    ``workers`` is their number. Each takes a tenth of a second of a processor to start, so a test to which the number
    does not matter has one.
    """

    def __init__(
        self,
        path: Path | str,
        *arguments: str,
        ports: tuple[int, ...] | None = None,
        workers: int = 4,
        host: str = "127.0.0.1",
        **options: Any,
    ) -> None:
        *worker_ports, status_port = free_ports()
        self.ports = ports or (*worker_ports[:workers], status_port)
        self.server_flags = ["-a", host, "-p", *map(str, self.ports)]
        self.servers: Servers = locate_servers(Config(), host=host, ports=self.ports, server5=None)
        number = [] if workers == 4 else ["-n", str(workers)]
        super().__init__([*MSD, "serve", "-f", str(path), *self.server_flags, *number, *arguments], **options)

    def wait_until_ready(self) -> Self:
        def ready() -> bool:
            assert self.process.poll() is None, (self.process.returncode, self.err.text)
            return any(line.startswith("ready") for _, line in [*self.out.lines])

        wait_for("ready", ready)
        return self

    def status(self) -> Status:
        with OperatorClient(self.servers) as operator:
            return operator.status()

    def shared(self) -> dict[str, int]:
        """Returns the size of each shared file, by name."""
        files, _ = list_files(self.servers)
        return {entry.name: entry.size for entry, _ in files if not entry.is_folder}

    def ids(self) -> dict[str, str]:
        """Returns the id of each shared file in hexadecimal digits, by name."""
        files, _ = list_files(self.servers)
        return {entry.name: entry.id.hex() for entry, _ in files if entry.id is not None}

    def worker(self, number: int) -> WorkerStatus:
        return self.status().workers[number - 1]

    def states(self) -> list[str]:
        return [worker.state.value for worker in self.status().workers]

    def put_to_sleep(self, *numbers: int) -> None:
        self._toggle(numbers, WantedState.ASLEEP)

    def wake(self, *numbers: int) -> None:
        self._toggle(numbers, WantedState.AWAKE)

    def _toggle(self, numbers: tuple[int, ...], want: WantedState) -> None:
        with OperatorClient(self.servers) as operator:
            for number in numbers:
                assert operator.toggle(number, want).reached

    def kill(self, *numbers: int) -> None:
        """Sends SIGKILL to workers. First waits for any of them that is being restarted; skips failed workers."""
        for number in numbers:

            def running_or_failed(number: int = number) -> WorkerStatus | None:
                worker = self.worker(number)
                return worker if worker.pid or worker.state is WorkerState.FAILED else None

            # os.kill(0, …) would kill the test process and its whole process group.
            if pid := wait_for(f"the process of worker {number}", running_or_failed).pid:
                os.kill(pid, signal.SIGKILL)

    def download(self, *arguments: str, **options: Any) -> Download:
        return Download(self.server_flags, *arguments, **options)


@contextmanager
def module_system(folder: Path, size: int, *arguments: str) -> Iterator[System]:
    """Runs servers for the tests of a module, which share a file of random bytes in ``folder``. Their runtime and cache
    folders are their own: those of the fixture ``runtime_folder`` end with each test.
    """
    path = make_file(folder / "film.bin", size, random.Random(0))
    with tempfile.TemporaryDirectory(prefix="msd-t-") as runtime:
        env = {**os.environ, "XDG_RUNTIME_DIR": runtime, "XDG_CACHE_HOME": str(folder / "cache")}
        with System(path, *arguments, env=env) as system:
            yield system.wait_until_ready()


def run_msd(
    *arguments: str, timeout: float = TIMEOUT, wrapper: Sequence[str] = (), **options: Any
) -> subprocess.CompletedProcess[str]:
    """Runs one ``msd`` command and waits for it to end."""
    return subprocess.run(
        [*wrapper, *MSD, *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        stdin=subprocess.DEVNULL,
        check=False,
        **options,
    )


def is_free(port: int) -> bool:
    """Returns True if a program can listen on this loopback port now."""
    with closing(socket.socket()) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen()
        except OSError:
            return False
    return True


def make_file(path: Path, size: int, rng: random.Random) -> Path:
    """Writes a file of ``size`` random bytes and returns its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        while size > 0:
            size -= file.write(rng.randbytes(min(size, 4 * MIB)))
    return path


def files_equal(first: Path, second: Path) -> bool:
    """Returns True if two files have the same content."""
    with first.open("rb") as left, second.open("rb") as right:
        while (data := left.read(4 * MIB)) == right.read(4 * MIB):
            if not data:
                return True
    return False


#: The types of the fixtures ``serve`` and ``source``.
Serve = Callable[..., System]
Source = Callable[[int], Path]
