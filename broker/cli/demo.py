"""``msd demo``: a download that goes on while workers are put to sleep and killed.

Everything is real and runs through the public commands: a broker with four workers, a download, a
toggle, a ``kill -9``. Nothing is left behind, also when a signal ends it.
"""

from __future__ import annotations

import contextlib
import filecmp
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from msd.broker.operator.operator_client import OperatorClient
from msd.wire.config.settings import Config, Servers, locate_servers
from msd.wire.config.toml_file import parse_size
from msd.wire.errors import Interrupted, MsdError, UsageError
from msd.wire.protocol.states import WantedState

NAME = "demo.bin"
#: Bytes of the smallest file that a worker can be killed over.
SMALLEST = 1 << 20
#: Bytes made, and written, at once.
BLOCK = 4 << 20
#: Seconds the servers may take to get ready, and to end.
PATIENCE = 30.0


def run(size_text: str, seconds: float) -> int:
    """Runs the demo with a file of this size; it takes about ``seconds``. The exit code."""
    try:
        size = parse_size(size_text)
    except ValueError as allowed:
        raise UsageError(f"--size {size_text}: must be {allowed}") from None
    if size < SMALLEST:
        raise UsageError(f"--size {size_text}: must be at least 1MiB, or all is over before anything has happened")
    if not 0.5 <= seconds <= 3600:
        raise UsageError(f"--seconds {seconds:g}: must be from 0.5 to 3600")
    with _orderly_end(), tempfile.TemporaryDirectory(prefix="msd-demo-") as folder:
        source, output = Path(folder, NAME), Path(folder, "copy-of-" + NAME)
        _say(f"making a file of {size:,} bytes of noise")
        _make_file(source, size)
        ports = free_ports()
        # One worker is asleep for a while and one is dead for a moment: the other two carry on, so
        # the four of them are given a little more than a quarter of the rate each.
        rate = max(1, int(size / seconds / 3.5))
        serve = [sys.executable, "-P", "-m", "msd", "serve", "-f", str(source), "--rate", str(rate)]
        _say(f"starting the broker and four workers, each limited to {rate / 1e6:.1f} MB/s")
        with subprocess.Popen(
            [*serve, "-p", *map(str, ports)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as broker:
            try:
                _wait_until_ready(broker)
                return _show(source, output, ports)
            finally:
                broker.terminate()


@contextlib.contextmanager
def _orderly_end() -> Iterator[None]:
    """Has a signal raise ``Interrupted``, so that what was started is ended on the way out.

    What is started must have a session of its own: Ctrl-C goes to all processes of the terminal's, and
    each of them would have something to say.
    """
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def interrupt(number: int, _: FrameType | None) -> None:
        # The end takes a moment, and is not to be interrupted itself.
        for each in numbers:
            signal.signal(each, signal.SIG_IGN)
        raise Interrupted("demo interrupted", number)

    # A signal that is ignored, as by nohup, stays so.
    before = {n: signal.signal(n, interrupt) for n in numbers if signal.getsignal(n) is not signal.SIG_IGN}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def free_ports(lowest: int = 20000, highest: int = 32000) -> tuple[int, int, int, int, int]:
    """Five ports that are free now, and the one after the fifth, from a range outside of that from
    which the kernel takes ports for outgoing connections.
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


def _make_file(path: Path, size: int) -> None:
    with path.open("wb") as file:
        while (left := size - file.tell()) > 0:
            file.write(os.urandom(min(BLOCK, left)))


def _wait_until_ready(broker: subprocess.Popen[str]) -> None:
    assert broker.stdout is not None
    for line in broker.stdout:
        if line.startswith("ready"):
            return
    raise MsdError("the servers ended before they were ready")


def _show(source: Path, output: Path, ports: tuple[int, int, int, int, int]) -> int:
    report = output.with_suffix(".json")
    where = ["-a", "127.0.0.1", "-p", *map(str, ports)]
    command = [sys.executable, "-P", "-m", "msd", "download", NAME, *where, "-i", "1", "-o", str(output)]
    _say(f"msd download {NAME} {' '.join(where)}")
    found = locate_servers(Config(), host="127.0.0.1", ports=ports, server5=None)
    # Lines, not a live view: that cannot be drawn while others print to the same terminal.
    lines = {**os.environ, "TERM": "dumb"}
    with subprocess.Popen([*command, "--report", str(report)], start_new_session=True, env=lines) as client:
        try:
            _disturb(client, found, source.stat().st_size)
            code = client.wait()
        finally:
            client.kill()  # Not in order: it would say how to go on, but its part file goes with the folder.
    if code:
        raise MsdError(f"the download ended with code {code}")
    same = filecmp.cmp(source, output, shallow=False)
    _sum_up(json.loads(report.read_text(encoding="utf-8")), same=same)
    return 0 if same else 1


def _disturb(client: subprocess.Popen[bytes], found: Servers, size: int) -> None:
    """Puts worker 2 to sleep, kills worker 3, and wakes worker 2, as the download advances."""
    with OperatorClient(found) as operator:
        faults: list[tuple[float, str, Callable[[], object]]] = [
            (0.25, "msd toggle 2: worker 2 is put to sleep", lambda: operator.toggle(2, WantedState.ASLEEP)),
            (0.45, "kill -9: worker 3 is killed", lambda: _kill(operator, 3)),
            (0.65, "msd toggle 2: worker 2 is woken up", lambda: operator.toggle(2, WantedState.AWAKE)),
        ]
        sent_before: dict[int, int] = {}
        while faults and client.poll() is None:
            for worker in operator.status().workers:
                key = worker.epoch
                sent_before[key] = max(sent_before.get(key, 0), worker.bytes_sent)
            at, what, act = faults[0]
            if sum(sent_before.values()) >= at * size:
                _say(what)
                act()
                faults.pop(0)
            time.sleep(0.05)


def _kill(operator: OperatorClient, number: int) -> None:
    # Between two processes it has the pid 0, which would mean this process and its group.
    if pid := operator.status().workers[number - 1].pid:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _sum_up(report: dict[str, Any], *, same: bool) -> None:
    shares = ", ".join(f"{name}: {worker['bytes'] / 1e6:.1f} MB" for name, worker in report["workers"].items())
    _say(f"from the workers {shares}")
    _say(f"received {report['received_bytes']:,} bytes, {report['wasted_bytes']:,} of them in vain")
    _say("the copy and the original are " + ("the same, byte for byte" if same else "NOT THE SAME"))


def _say(text: str) -> None:
    print(f"demo: {text}", flush=True)
