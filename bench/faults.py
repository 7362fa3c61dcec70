"""Download times under faults, compared with the ideal time and with that of aria2 using four nginx servers.

The servers are in one network namespace and the client in another. Each server has a link of its own between them,
whose rate is limited (``tbf``): the same links for both programs. Neither limits its own rate. The *ideal* time is the
file size divided by the sum of the rates that are left. The time of msd is ``seconds`` in its ``done`` event; the time
of aria2 is the run time of its process. The broker restarts a killed worker; a killed nginx stays down. Needs root;
aria2 and nginx are Debian packages, without which the aria2 column is empty.
"""

from __future__ import annotations

import os
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from bench.bounds import Bound, conclude
from bench.measuring import make_random_file, memory_folder
from tests.environments.recipes import Wrapper, network_namespace, run_in
from tests.hosts import Broker
from tests.processes import MIB, Download, wait_for

ROUNDS = int(os.environ.get("MSD_BENCH_ROUNDS") or 3)
SIZE = 384 * MIB
#: Timeout for one download, in seconds.
TIMEOUT = 60.0
NUMBERS = (1, 2, 3, 4)
#: The port of every server; the broker has the next one.
PORT = 20000
#: The bytes of a full Ethernet frame, as ``tbf`` counts them, and of the TCP payload in it.
FRAME, FRAME_PAYLOAD = 1514, 1448


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
    """A broker and its four workers. The worker with number N serves at ``address(N)``."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._pids = {
            worker["number"]: worker["pid"]
            for worker in broker.wait_for_states(**dict.fromkeys(map(str, NUMBERS), "awake")).values()
        }

    def freeze(self, number: int) -> None:
        os.kill(self._pids[number], signal.SIGSTOP)

    def thaw(self, number: int) -> None:
        os.kill(self._pids[number], signal.SIGCONT)

    def kill(self, number: int) -> None:
        os.kill(self._pids[number], signal.SIGKILL)

    def all_down(self) -> None:
        self._toggle()

    def all_up(self) -> None:
        self._toggle()

    def _toggle(self) -> None:
        # At the console, which takes no time; the process of a command would.
        self._broker.write_stdin("".join(f"{number}\n" for number in self._pids))


class Nginx:
    """Four nginx servers with one process each. The one with number N serves at ``address(N)``."""

    def __init__(self, source: Path, folder: Path, wrapper: Wrapper) -> None:
        self._wrapper = wrapper
        self._commands: list[list[str]] = []
        self._running: dict[int, subprocess.Popen[bytes]] = {}
        for number in NUMBERS:
            config = folder / f"nginx-{number}.conf"
            config.write_text(
                f"daemon off; master_process off; pid {folder}/{number}.pid; error_log /dev/null;"
                f"events {{}} http {{ access_log off; server {{ listen {address(number)}:{PORT};"
                f" root {source.parent}; }} }}"
            )
            self._commands.append([*wrapper, "nginx", "-c", str(config), "-p", str(folder)])
        self.all_up()
        wait_for("nginx", self._listens)

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
        for number, command in zip(NUMBERS, self._commands, strict=True):
            self._running[number] = subprocess.Popen(command, stderr=subprocess.DEVNULL)

    def _listens(self) -> bool:
        command = [*self._wrapper, "ss", "-Htln", f"sport = :{PORT}"]
        return len(subprocess.run(command, check=True, capture_output=True).stdout.splitlines()) == len(NUMBERS)


def address(number: int) -> str:
    """Returns the address of the servers with this number; 0 is that of the broker."""
    return f"198.18.{number}.1"


@contextmanager
def links(rates: Sequence[float]) -> Iterator[tuple[Wrapper, Wrapper]]:
    """A namespace for the servers and one for the client, and a link between them for each server, which carries its
    rate (MiB/s of TCP payload) towards the client. The link of the broker has no limit.
    """
    with network_namespace() as servers, network_namespace() as client:
        for number in (0, *NUMBERS):
            run_in(servers, f"ip link add e{number} type veth peer name e{number} netns {client[-1]}")
            for wrapper, end in ((servers, 1), (client, 2)):
                run_in(wrapper, f"ip address add 198.18.{number}.{end}/24 dev e{number}")
                run_in(wrapper, f"ip link set e{number} up")
        for number, rate in zip(NUMBERS, rates, strict=True):
            bits = int(rate * MIB * 8 * FRAME / FRAME_PAYLOAD)
            run_in(servers, f"tc qdisc add dev e{number} root tbf rate {bits}bit burst 64kb latency 50ms")
        yield servers, client


@contextmanager
def delayed(client: Wrapper, seconds: float) -> Iterator[list[str]]:
    """Yields ports of the client's machine that are forwarded to the servers, and to the broker, with a delay."""
    targets = [*(f"{address(number)}:{PORT}" for number in NUMBERS), f"{address(0)}:{PORT + 1}"]
    command = [*client, sys.executable, "-m", "bench.delay", str(seconds), *targets]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as proxy:
        try:
            assert proxy.stdout is not None
            yield proxy.stdout.readline().split()
        finally:
            proxy.kill()


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
    workers = "".join(f'[[workers]]\nhost = "{address(number)}"\nport = {PORT}\n' for number in NUMBERS)
    (folder / "copy").unlink(missing_ok=True)
    with ExitStack() as stack:
        server, client = stack.enter_context(links(case.rates))
        broker = Broker(
            folder / "servers",
            host=address(0),
            port=PORT + 1,
            settings=f'[share]\npath = "{source}"\n{workers}',
            wrapper=server,
            stdin=subprocess.PIPE,
        )
        stack.enter_context(broker)
        servers = OurServers(broker)
        flags = broker.server_flags
        if case.delay:
            flags = ["-a", "127.0.0.1", "-p", *stack.enter_context(delayed(client, case.delay))]
        options = ["-o", str(folder / "copy"), "--no-sync", "--timeout", str(TIMEOUT)]
        download = stack.enter_context(Download(flags, *options, interval=0.5, wrapper=client))
        download.wait_until_verified(1e-9)
        with faults(case, servers, lambda: download.process.poll() is not None):
            done = download.wait_until_done(2 * TIMEOUT)
    return float(done["seconds"]), done["wasted_bytes"] / done["bytes"]


def run_aria2(case: Case, source: Path, folder: Path) -> float:
    """Downloads with aria2 over one connection to each of four nginx servers. Returns the time in seconds; infinity
    after a timeout.
    """
    (folder / "copy").unlink(missing_ok=True)
    options = ["-q", "-x1", "-s4", "-k1M", "--file-allocation=none", "--retry-wait=1", "-m0"]
    with ExitStack() as stack:
        server, client = stack.enter_context(links(case.rates))
        servers = Nginx(source, folder, server)
        stack.callback(servers.all_down)
        places = [f"{address(number)}:{PORT}" for number in NUMBERS]
        if case.delay:
            ports = stack.enter_context(delayed(client, case.delay))
            # A different address for each server, because aria2 limits the connections to one.
            places = [f"127.0.0.{number}:{port}" for number, port in zip(NUMBERS, ports, strict=False)]
        urls = [f"http://{place}/{source.name}" for place in places]
        command = [*client, "aria2c", *options, "-d", str(folder), "-o", "copy", *urls]
        began = time.monotonic()
        aria2 = stack.enter_context(subprocess.Popen(command, stdout=subprocess.DEVNULL))
        with faults(case, servers, lambda: aria2.poll() is not None):
            try:
                aria2.wait(TIMEOUT)
            except subprocess.TimeoutExpired:
                aria2.kill()
                return float("inf")
        return time.monotonic() - began


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
                if have_aria2:
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
