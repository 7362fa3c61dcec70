"""Records the arrivals of real downloads for ``tests/unit/client/display/test_recordings.py``.

``python -m tests.recordings.record [NAME …]`` runs the named scenarios, or all of them (four minutes), with real
servers that share a file at a limited rate, and writes ``tests/recordings/NAME.json``: the size of the file, the times
at which the scenario changed the rate, and the calls that the client made to the rate meters of the workers.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import msgspec

import msd.client.operations.download as download_module
from msd.client.events import Event, Progress
from msd.client.operations import transfer
from msd.client.report.rate_meter import RateMeter
from msd.wire.config.servers import locate_servers
from msd.wire.config.settings import Config
from tests.network_fault_proxy import Proxy
from tests.processes import MIB, System, make_file

FOLDER = Path(__file__).parent
#: Kinds of recorded calls other than an arrival, which is recorded as its number of bytes.
START, STOP = "start", "stop"

Action = Callable[[System, Sequence[Proxy]], None]


class Scenario(msgspec.Struct, frozen=True):
    """A download of ``size`` bytes from four workers that send ``rate`` each.

    ``changes`` are the seconds at which an action changes the rate. A recording ends after ``seconds``, or with the
    download. ``reused`` bytes are on the disk already; the workers in ``asleep`` sleep at the start. With ``proxied``
    each worker is behind a proxy.
    """

    size: int
    rate: str
    seconds: float = 60.0
    changes: tuple[tuple[float, Action], ...] = ()
    reused: int = 0
    asleep: tuple[int, ...] = ()
    proxied: bool = False


def sleep(*numbers: int) -> Action:
    return lambda system, _: system.put_to_sleep(*numbers)


def wake(*numbers: int) -> Action:
    return lambda system, _: system.wake(*numbers)


def kill(number: int) -> Action:
    return lambda system, _: system.kill(number)


def limit(rate: float) -> Action:
    """Limits each proxy to ``rate`` bytes per second."""

    def run(_: System, proxies: Sequence[Proxy]) -> None:
        for proxy in proxies:
            proxy.rate = rate

    return run


SCENARIOS = {
    "steady-fast": Scenario(256 * MIB, "8MiB"),
    "steady-slow": Scenario(30 * MIB, "512KiB"),
    "three-of-four-asleep": Scenario(120 * MIB, "2MiB", 22.0, ((8.0, sleep(2, 3, 4)),)),
    "killed": Scenario(112 * MIB, "2MiB", changes=((6.0, kill(2)),)),
    "all-asleep": Scenario(104 * MIB, "2MiB", changes=((6.0, sleep(1, 2, 3, 4)), (16.0, wake(1, 2, 3, 4)))),
    "ramp-up": Scenario(120 * MIB, "2MiB", changes=tuple((6.5 * n, wake(n + 1)) for n in (1, 2, 3)), asleep=(2, 3, 4)),
    "alternating": Scenario(
        420 * MIB,
        "50MiB",
        40.0,
        ((0.0, limit(5 * MIB)), (10.0, limit(MIB / 2)), (20.0, limit(5 * MIB)), (30.0, limit(MIB / 2))),
        proxied=True,
    ),
    "four-seconds-a-segment": Scenario(28 * MIB, "256KiB"),
    "resumed": Scenario(144 * MIB, "2MiB", reused=64 * MIB),
    "short": Scenario(32 * MIB, "2MiB"),
}


class Enough(Exception):
    """The recording is long enough."""


class RecordedMeter(RateMeter):
    """A meter that records the calls to it."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[float, str | int]] = []

    def start(self, now: float, *, is_first_request: bool = False) -> None:
        # The time of the call: ``now`` may be earlier.
        self.calls.append((time.monotonic(), START))
        super().start(now, is_first_request=is_first_request)

    def stop(self) -> None:
        self.calls.append((time.monotonic(), STOP))
        super().stop()

    def count(self, size: int, now: float) -> None:
        self.calls.append((now, size))
        super().count(size, now)


class RecordedTransfer(transfer.Transfer):
    """A transfer whose meters can be read after its end."""

    last: RecordedTransfer

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        RecordedTransfer.last = self


def record(scenario: Scenario, folder: Path) -> dict[str, Any]:
    """Runs a scenario and returns its recording."""
    with ExitStack() as stack:
        system = stack.enter_context(
            System(make_file(folder / "film", scenario.size, random.Random(1)), "--rate", scenario.rate)
        )
        system.wait_until_ready()
        ports = [*system.ports]
        proxies = [stack.enter_context(Proxy(port)) for port in ports[:4]] if scenario.proxied else []
        ports[: len(proxies)] = [proxy.port for proxy in proxies]
        system.put_to_sleep(*scenario.asleep)
        copy = folder / "copy"
        if scenario.reused:
            (folder / ".copy.msd-part").write_bytes((folder / "film").read_bytes()[: scenario.reused])
        changes: list[float] = []
        began: list[float] = []

        def on_event(event: Event) -> None:
            if isinstance(event, Progress):
                if event.seconds > scenario.seconds:
                    raise Enough
                if not began:
                    began.append(time.monotonic() - event.seconds)
                    threads.extend(
                        threading.Timer(max(0.0, at - event.seconds), change, (action,))
                        for at, action in scenario.changes
                        if at
                    )
                    for thread in threads:
                        thread.start()

        def change(action: Action) -> None:
            changes.append(time.monotonic())
            action(system, proxies)

        threads: list[threading.Timer] = []
        for at, action in scenario.changes:
            if not at:
                action(system, proxies)
        servers = locate_servers(Config(), host="127.0.0.1", ports=tuple(ports), server5=None)
        with suppress(Enough):
            download_module.download(servers, output=copy, interval=0.0, sync=False, on_event=on_event)
        for thread in threads:
            thread.cancel()
            thread.join()
        last = RecordedTransfer.last
    meters = {number: meter for number, meter in last._meters.items() if isinstance(meter, RecordedMeter)}
    calls = sorted((at, number, what) for number, meter in meters.items() for at, what in meter.calls)
    return {
        "size": scenario.size,
        "reused": scenario.reused,
        "changes": [0.0, *(round(at - last.started, 2) for at in changes)],
        "calls": [[round(at - last.started, 2), number, what] for at, number, what in calls],
    }


if __name__ == "__main__":
    download_module.Transfer = RecordedTransfer  # type: ignore[attr-defined]
    transfer.RateMeter = RecordedMeter  # type: ignore[attr-defined]
    for name in sys.argv[1:] or SCENARIOS:
        with tempfile.TemporaryDirectory(prefix="msd-", dir="/dev/shm") as folder:
            recording = record(SCENARIOS[name], Path(folder))
        (FOLDER / f"{name}.json").write_text(json.dumps(recording, separators=(",", ":")) + "\n", encoding="utf-8")
