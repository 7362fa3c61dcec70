"""A small language for tests with real processes: a system of servers, downloads from it, events.

Everything is started through the public command and ended by its pid.
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self, TypeVar

from msd.broker.cli import demo
from msd.broker.operator.operator_client import OperatorClient
from msd.wire.config.settings import Config, Servers, locate_servers
from msd.wire.protocol.messages import Status, WorkerStatus
from msd.wire.protocol.states import WantedState, WorkerState

MSD = [sys.executable, "-P", "-m", "msd"]
#: Seconds that anything awaited may take; slow machines raise it.
PATIENCE = 30.0 * float(os.environ.get("MSD_TEST_TIME_FACTOR", "1"))

MIB = 1 << 20

Ports = tuple[int, int, int, int, int]

#: Which of the processes that run tests side by side this is, and how many there may be.
SIDE, SIDES = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")), 4


T = TypeVar("T")


def free_ports() -> Ports:
    """Ports that are free now, and that no test beside this one will take."""
    share = 12000 // SIDES
    return demo.free_ports(20000 + SIDE % SIDES * share, 20000 + (SIDE % SIDES + 1) * share)


def wait_for(what: str, probe: Callable[[], T | None], patience: float = PATIENCE) -> T:
    """The first value of ``probe`` that is true; fails naming ``what`` after ``patience`` seconds."""
    deadline = time.monotonic() + patience
    while not (value := probe()):
        assert time.monotonic() < deadline, f"waited {patience:g} s for {what}"
        time.sleep(0.005)
    return value


class Output:
    """The lines of a process's stream as they come, each with the time it came."""

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
    """A process under test with its two streams; ended with the ``with`` block at the latest."""

    def __init__(self, arguments: list[str], **options: Any) -> None:
        self.process = subprocess.Popen(
            arguments,
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

    def enter(self, text: str) -> None:
        """Writes to its standard input, which must be a pipe."""
        assert self.process.stdin is not None
        self.process.stdin.write(text)
        self.process.stdin.flush()

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self, patience: float = PATIENCE) -> int:
        """The exit code."""
        code = self.process.wait(patience)
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
    """``msd download --json``: its events as they come."""

    def __init__(self, where: list[str], *arguments: str, interval: float = 0.05, **options: Any) -> None:
        super().__init__([*MSD, "download", *where, "--json", "-i", str(interval), *arguments], **options)

    @property
    def events(self) -> list[dict[str, Any]]:
        return [{**json.loads(line), "at": at} for at, line in [*self.out.lines]]

    @staticmethod
    def parse(text: str) -> list[dict[str, Any]]:
        """The events in what such a command has printed."""
        return [json.loads(line) for line in text.splitlines()]

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["event"] == kind]

    @property
    def received(self) -> int:
        """Bytes verified so far, as far as told."""
        return int((self.of("progress") or [{"bytes": 0}])[-1]["bytes"])

    def wait_until(self, share: float) -> None:
        """Waits until this share of the file is verified."""

        def is_there() -> bool:
            there = any(e["bytes"] >= share * e["total"] for e in self.of("progress"))
            assert there or self.process.poll() is None, self.out.text[-2000:] + self.err.text
            return there

        wait_for(f"{share:.0%} of the file", is_there)

    def done(self, patience: float = PATIENCE) -> dict[str, Any]:
        """The ``done`` event; fails with what was printed if there is none."""
        code = self.wait(patience)
        assert code == 0, f"code {code}: {self.out.text[-2000:]} {self.err.text}"
        assert self.events[-1]["event"] == "done"
        return self.events[-1]


class System(Process):
    """``msd serve``, and an operator for it."""

    def __init__(self, path: Path, *arguments: str, ports: Ports | None = None, **options: Any) -> None:
        self.ports = ports or free_ports()
        self.where = ["-a", "127.0.0.1", "-p", *map(str, self.ports)]
        self.servers: Servers = locate_servers(Config(), host="127.0.0.1", ports=self.ports, server5=None)
        super().__init__([*MSD, "serve", "-f", str(path), *self.where, *arguments], **options)

    def wait_until_ready(self) -> Self:
        def ready() -> bool:
            assert self.process.poll() is None, self.err.text
            return any(line.startswith("ready") for _, line in [*self.out.lines])

        wait_for("ready", ready)
        return self

    def status(self) -> Status:
        with OperatorClient(self.servers) as operator:
            return operator.status()

    def worker(self, number: int) -> WorkerStatus:
        return self.status().workers[number - 1]

    def states(self) -> list[str]:
        return [worker.state.value for worker in self.status().workers]

    def shut(self, *numbers: int) -> None:
        """Puts workers to sleep."""
        self._toggle(numbers, WantedState.ASLEEP)

    def wake(self, *numbers: int) -> None:
        self._toggle(numbers, WantedState.AWAKE)

    def _toggle(self, numbers: tuple[int, ...], want: WantedState) -> None:
        with OperatorClient(self.servers) as operator:
            for number in numbers:
                assert operator.toggle(number, want).reached

    def kill(self, *numbers: int) -> None:
        """Kills workers with -9, each as soon as it has a process; one that is failed gets none."""
        for number in numbers:

            def living(number: int = number) -> WorkerStatus | None:
                worker = self.worker(number)
                return worker if worker.pid or worker.state is WorkerState.FAILED else None

            # To kill the pid 0 would kill the tests themselves.
            if pid := wait_for(f"a process of worker {number}", living).pid:
                os.kill(pid, signal.SIGKILL)

    def download(self, *arguments: str, **options: Any) -> Download:
        return Download(self.where, *arguments, **options)


def run_msd(*arguments: str, patience: float = PATIENCE, **options: Any) -> subprocess.CompletedProcess[str]:
    """Runs one command to its end."""
    return subprocess.run(
        [*MSD, *arguments],
        capture_output=True,
        text=True,
        timeout=patience,
        stdin=subprocess.DEVNULL,
        check=False,
        **options,
    )


def is_free(port: int) -> bool:
    """True if a server could listen on a port of loopback now."""
    with closing(socket.socket()) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen()
        except OSError:
            return False
    return True


def make_file(path: Path, size: int, rng: random.Random) -> Path:
    """A file of ``size`` bytes of noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        while size > 0:
            size -= file.write(rng.randbytes(min(size, 4 * MIB)))
    return path


def same(one: Path, other: Path) -> bool:
    """True if two files are equal, byte for byte."""
    with one.open("rb") as left, other.open("rb") as right:
        while (data := left.read(4 * MIB)) == right.read(4 * MIB):
            if not data:
                return True
    return False


#: What the fixtures ``serve`` and ``source`` are.
Serve = Callable[..., System]
Source = Callable[[int], Path]
