"""Download times under faults, compared with the ideal time and with that of aria2 using four nginx servers.

The *ideal* time is the file size divided by the sum of the available rates. The time of msd is ``seconds`` in its
``done`` event; the time of aria2 is the run time of its process. aria2 and nginx are Debian packages; without them, the
aria2 column is empty. nginx servers have the same rates as the workers, but nginx sends the quota of a connection's
first second in one burst, so aria2 can beat the ideal time (by 0.5 to 1 s here). A burst of a worker is one segment.
The broker restarts a killed worker; a killed nginx stays down.
"""

from __future__ import annotations

import os
import shutil
import signal
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from bench.bounds import Bound, conclude
from bench.measuring import make_random_file, memory_folder
from tests.network_fault_proxy import Proxy
from tests.processes import MIB, Download, System, free_ports

ROUNDS = 3
SIZE = 384 * MIB
#: Timeout for one download, in seconds.
TIMEOUT = 60.0


class Servers(Protocol):
    """Four servers that share one file. They are numbered from 1, and faults can be injected into them."""

    def freeze(self, number: int) -> None: ...
    def thaw(self, number: int) -> None: ...
    def kill(self, number: int) -> None: ...
    def all_down(self) -> None: ...
    def all_up(self) -> None: ...


@dataclass(frozen=True)
class Case:
    """A download under faults. ``inject`` starts when the download starts and runs in parallel. ``rates`` are in MiB/s
    per server, ``ideal`` and ``delay`` in seconds. The limit is ``times`` × ``ideal`` + ``plus`` seconds.
    """

    name: str
    rates: tuple[float, float, float, float]
    ideal: float
    inject: Callable[[Servers], None] | None = None
    times: float = 1.0
    plus: float = 0.0
    delay: float = 0.0
    size: int = SIZE

    @property
    def limit(self) -> float:
        """The maximum download time of msd, in seconds."""
        return self.times * self.ideal + self.plus


def after(*steps: tuple[float, Callable[[Servers], None]]) -> Callable[[Servers], None]:
    """Returns a function that runs the actions in order and waits the given number of seconds before each."""

    def run(servers: Servers) -> None:
        for seconds, action in steps:
            time.sleep(seconds)
            action(servers)

    return run


FREEZE_AND_THAW = [step for _ in range(30) for step in ((1.0, lambda s: s.freeze(2)), (1.0, lambda s: s.thaw(2)))]
EQUAL = (40.0, 40.0, 40.0, 40.0)
CASES = [
    Case("equal rates", EQUAL, 384 / 160, times=1.03),
    Case("40/40/40/4", (40, 40, 40, 4), 384 / 124, times=1.05),
    Case("40/20/10/5", (40, 20, 10, 5), 384 / 75, times=1.05),
    Case("one worker at 1 %", (40, 40, 40, 0.4), 384 / 120, times=1.05),
    Case("one worker killed after 1 s", EQUAL, 1 + 224 / 120, after((1, lambda s: s.kill(2))), plus=0.15),
    Case("one worker frozen after 1 s", EQUAL, 1 + 224 / 120, after((1, lambda s: s.freeze(2))), plus=0.5),
    Case(
        "workers frozen after 1 s and 1.5 s",
        EQUAL,
        1.5 + 164 / 80,
        after((1, lambda s: s.freeze(2)), (0.5, lambda s: s.freeze(3))),
        plus=0.8,
    ),
    Case(
        "one worker frozen every other second", EQUAL, 2 * 768 / 280, after(*FREEZE_AND_THAW), times=1.1, size=768 * MIB
    ),
    Case(
        "all workers down for 2 s",
        EQUAL,
        2 + 384 / 160,
        after((1, lambda s: s.all_down()), (2, lambda s: s.all_up())),
        plus=0.3,
    ),
    Case("RTT 100 ms, 4 × 25 MiB/s, 500 MiB", (25, 25, 25, 25), 5.0, times=1.11, delay=0.05, size=500 * MIB),
]


class OurServers:
    def __init__(self, system: System) -> None:
        self._system = system
        self._pids = {worker.number: worker.pid for worker in system.status().workers}

    def freeze(self, number: int) -> None:
        os.kill(self._pids[number], signal.SIGSTOP)

    def thaw(self, number: int) -> None:
        os.kill(self._pids[number], signal.SIGCONT)

    def kill(self, number: int) -> None:
        os.kill(self._pids[number], signal.SIGKILL)

    def all_down(self) -> None:
        self._system.put_to_sleep(1, 2, 3, 4)

    def all_up(self) -> None:
        self._system.wake(1, 2, 3, 4)


class Nginx:
    """Four nginx servers with one process each."""

    def __init__(self, source: Path, folder: Path, case: Case) -> None:
        self._commands: list[list[str]] = []
        self._running: dict[int, subprocess.Popen[bytes]] = {}
        self.ports = free_ports()[:4]
        for number, (port, rate) in enumerate(zip(self.ports, case.rates, strict=True), 1):
            config = folder / f"nginx-{number}.conf"
            config.write_text(
                f"daemon off; master_process off; pid {folder}/{number}.pid; error_log /dev/null;"
                f"events {{}} http {{ access_log off; server {{ listen 127.0.0.{number}:{port};"
                f" root {source.parent}; limit_rate {int(rate * 1024)}k; }} }}"
            )
            self._commands.append(["nginx", "-c", str(config), "-p", str(folder)])
        self.all_up()

    def freeze(self, number: int) -> None:
        self._running[number].send_signal(signal.SIGSTOP)

    def thaw(self, number: int) -> None:
        self._running[number].send_signal(signal.SIGCONT)

    def kill(self, number: int) -> None:
        self._running[number].kill()
        self._running.pop(number).wait()

    def all_down(self) -> None:
        for number in [*self._running]:
            self.kill(number)

    def all_up(self) -> None:
        for number, command in enumerate(self._commands, 1):
            self._running[number] = subprocess.Popen(command, stderr=subprocess.DEVNULL)


@contextmanager
def faults(case: Case, servers: Servers, done: Callable[[], bool]) -> Iterator[None]:
    """Injects the faults of a case in a thread. Ignores errors once ``done()``: the download may end first."""

    def inject() -> None:
        try:
            if case.inject is not None:
                case.inject(servers)
        except (ProcessLookupError, KeyError, AssertionError):
            assert done()

    thread = threading.Thread(target=inject, daemon=True)
    thread.start()
    yield


def run_ours(case: Case, source: Path, folder: Path) -> tuple[float, float]:
    """Downloads with msd. Returns the download time in seconds and the share of wasted bytes."""
    config = folder / "config.toml"
    ports = free_ports()
    workers = "".join(
        f"[[workers]]\nport = {p}\nrate = {int(r * MIB)}\n" for p, r in zip(ports[:4], case.rates, strict=True)
    )
    config.write_text(f"[broker]\nstatus_port = {ports[4]}\n{workers}")
    (folder / "copy").unlink(missing_ok=True)
    with ExitStack() as stack:
        system = stack.enter_context(System(source, "-c", str(config), ports=ports)).wait_until_ready()
        server_flags = system.server_flags
        if case.delay:
            proxies = [stack.enter_context(Proxy(port)) for port in ports[:4]]
            for proxy in proxies:
                proxy.delay = case.delay
            server_flags = ["-a", "127.0.0.1", "-p", *(str(proxy.port) for proxy in proxies), str(ports[4])]
        servers = OurServers(system)
        client = stack.enter_context(
            Download(server_flags, "-o", str(folder / "copy"), "--no-sync", "--timeout", str(TIMEOUT), interval=0.5)
        )
        client.wait_until_verified(1e-9)
        with faults(case, servers, lambda: client.process.poll() is not None):
            done = client.wait_until_done(2 * TIMEOUT)
    return float(done["seconds"]), done["wasted_bytes"] / done["bytes"]


def run_aria2(case: Case, source: Path, folder: Path) -> float:
    """Downloads with aria2 over one connection to each of four nginx servers. Returns the time in seconds; infinity
    after a timeout.
    """
    servers = Nginx(source, folder, case)
    (folder / "copy").unlink(missing_ok=True)
    # Use a different address for each server, because aria2 limits connections per host.
    urls = [f"http://127.0.0.{number}:{port}/{source.name}" for number, port in enumerate(servers.ports, 1)]
    command = ["aria2c", "-q", "-x1", "-s4", "-k1M", "--file-allocation=none", "--retry-wait=1", "-m0"]
    time.sleep(0.3)  # nginx does not report when it is ready.
    began = time.monotonic()
    try:
        with subprocess.Popen([*command, "-d", str(folder), "-o", "copy", *urls], stdout=subprocess.DEVNULL) as aria2:
            with faults(case, servers, lambda: aria2.poll() is not None):
                try:
                    aria2.wait(TIMEOUT)
                except subprocess.TimeoutExpired:
                    aria2.kill()
                    return float("inf")
            return time.monotonic() - began
    finally:
        servers.all_down()


def run() -> None:
    have_aria2 = shutil.which("aria2c") and shutil.which("nginx")
    if not have_aria2:
        print("aria2 is skipped because aria2 or nginx is not installed: run apt install aria2 nginx-light")
    print(f"{'case':36} {'ideal':>6} {'msd':>6} {'msd − ideal':>12} {'msd/ideal':>10} {'limit':>6} {'waste':>6}  aria2")
    figures: dict[str, dict[str, list[float]]] = {}
    with memory_folder() as folder:
        (folder / "shared").mkdir()
        for case in CASES:
            source = make_random_file(folder / "shared" / "film.bin", case.size)
            own_runs, aria2_runs = [], []
            for _ in range(ROUNDS):
                own_runs.append(run_ours(case, source, folder))
                if have_aria2 and not case.delay:
                    aria2_runs.append(run_aria2(case, source, folder))
            seconds = statistics.median(second for second, _ in own_runs)
            waste = max(share for _, share in own_runs)
            aria2 = f"{statistics.median(aria2_runs):6.2f}" if aria2_runs else "     –"
            print(
                f"{case.name:36} {case.ideal:6.2f} {seconds:6.2f} {seconds - case.ideal:+12.2f}"
                f" {seconds / case.ideal:10.3f} {case.limit:6.2f} {waste:6.1%} {aria2}",
                flush=True,
            )
            figures[case.name] = {
                "msd": [s for s, _ in own_runs],
                "waste": [w for _, w in own_runs],
                "aria2": aria2_runs,
            }
    bounds = [Bound(f"seconds, {c.name}", figures[c.name]["msd"], round(c.limit, 2), at_most=True) for c in CASES]
    conclude("faults", figures, bounds)
