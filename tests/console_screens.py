"""Screens of the console, as text: of 1, 4 and 64 workers, with 0, 3 and 300 clients, on terminals of three sizes.

``python -m tests.console_screens`` (``make screenshots``) writes them; ``tests/unit/broker/operator/test_screens.py``
compares them.
"""

from __future__ import annotations

import asyncio
import math
import os
import time
from collections.abc import Awaitable, Callable, Iterator
from itertools import count, product
from pathlib import Path
from typing import Any

from textual.pilot import Pilot

from msd.broker.operator.console_app import ConsoleApp
from msd.broker.operator.status_feed import FeedEvent
from msd.broker.status.history import History
from msd.wire.config.servers import Servers
from msd.wire.net.endpoints import Endpoint
from msd.wire.protocol.messages import (
    PROTOCOL_VERSION,
    DownloadStatus,
    LoggedEvent,
    RequestedSelection,
    Status,
    StatusReport,
    WorkerStatus,
)
from msd.wire.protocol.states import DownloadState, WantedState, WorkerState

SCREENS = Path(__file__).parent / "recordings" / "screens"
SIZES, WORKERS, CLIENTS = ((80, 24), (120, 40), (200, 60)), (1, 4, 64), (0, 3, 300)
#: The time at which the screens are drawn, and the time zone.
NOW, ZONE = 1_800_000_000.0, "UTC"
MIB, GIB = 1 << 20, 1 << 30
SERVERS = Servers(Endpoint("192.0.2.5", 39223), {}, pinned=False)
#: The host that is slow, the worker that does not serve, and the one that is slow.
SLOW_HOST, BROKEN, SLOW = "192.0.2.14", 3, 4
REASON = "exited with code 1: cannot read /srv/films: Permission denied"
FILES = ("film.mkv", "photos/", "backup-2026.tar.zst", "music/ *.flac", "thesis.pdf", "podcast.mp3")
_SEQUENCE = count(1)


class FixedFeed:
    """Has the events that a test puts into it."""

    def __init__(self) -> None:
        self.queued: list[FeedEvent] = []

    def poll(self) -> list[FeedEvent]:
        queued, self.queued = self.queued, []
        return queued

    def toggle(self, number: int) -> None:
        pass

    def close(self) -> None:
        pass


def report(workers: int, clients: int) -> StatusReport:
    """A report with these numbers of workers and clients: from four workers on, one has failed and one is asleep; 64
    workers are on eight hosts, of which one is slow.
    """
    shown = [_worker(number, workers, has_clients=clients > 0) for number in range(1, workers + 1)]
    status = Status(
        version=PROTOCOL_VERSION,
        epoch=1,
        seq=next(_SEQUENCE),
        interval=2.0,
        control="tcp://192.0.2.5:39224",
        catalogue=b"c" * 32,
        files=1234,
        workers=shown,
        clients=clients,
    )
    downloads = [_download(number) for number in range(1, clients + 1)]
    total = sum(worker.rate for worker in shown)
    return StatusReport(
        rid=1,
        status=status,
        time=NOW,
        events=[*_events(workers, clients)][::-1],
        rates=[[worker.rate * (0.8 + 0.2 * math.sin(step)) for step in range(30)] for worker in shown],
        total_rates=[total * (0.7 + 0.3 * math.sin(step / 9)) * min(1.0, step / 30) for step in range(150)],
        downloads=sorted(downloads, key=lambda each: -each.rate),
        requested=[
            RequestedSelection(file, 40 - 5 * index + clients, (40 - 5 * index) * GIB)
            for index, file in enumerate(FILES[: min(len(FILES), clients)])
        ],
    )


def _worker(number: int, workers: int, *, has_clients: bool) -> WorkerStatus:
    host = "" if number <= 8 else f"192.0.2.{10 + (number - 1) // 8}"
    state = {2: WorkerState.ASLEEP, BROKEN: WorkerState.FAILED, 30: WorkerState.SILENT, 40: WorkerState.LOST}.get(
        number, WorkerState.AWAKE
    )
    reasons = {BROKEN: REASON, 40: "no heartbeat for 10 s"}
    is_awake = state is WorkerState.AWAKE
    is_slow = host == SLOW_HOST or number == SLOW
    rate = (1.1 if is_slow else 9.0 + number % 5) * MIB if is_awake and has_clients else 0.0
    return WorkerStatus(
        number=number,
        name=f"attic-{number}" if host else str(number),
        host=host,
        endpoint=f"tcp://{host or '192.0.2.5'}:{21000 + number}",
        catalogue=b"c" * 32,
        files=1234,
        state=state,
        wanted=WantedState.ASLEEP if number == 2 else WantedState.AWAKE,
        epoch=number,
        pid=0 if host or number == BROKEN else 4000 + number,
        restarts=5 if number == BROKEN else 0,
        clients=3 if is_awake and has_clients else 0,
        bytes_sent=number * 3 * GIB if has_clients else 0,
        rate=rate,
        complaints=2 if number == 4 else 0,
        complainants=["anna@laptop-1"] if number == 4 else [],
        uptime=0.0 if number == BROKEN else 93_784.0,
        reason=reasons.get(number, ""),
    )


def _download(number: int) -> DownloadStatus:
    names = ("anna@laptop", "ben@attic", "office")
    return DownloadStatus(
        number=number,
        client=f"{names[number % 3]}-{number}",
        host=f"198.51.100.{number % 250}",
        state=DownloadState.FINISHING if number % 50 == 49 else DownloadState.DOWNLOADING,
        selection=FILES[number * number % len(FILES)],
        bytes=number * 7 % 100 * GIB // 12,
        total=8 * GIB + number * MIB,
        received=number * 7 % 100 * GIB // 12,
        files=1,
        rate=(number * 37 % 101 + 1) * MIB / 2.0,
        seconds=60.0 + number,
        workers=3,
        peers=number % 3,
        peer_bytes=GIB,
        passes_on=number % 2 == 0,
        exit_code=0,
        silent_seconds=0.0,
    )


def _events(workers: int, clients: int) -> Iterator[LoggedEvent]:
    texts: list[tuple[str, int | None, bool]] = [("sharing 1,234 files", None, False)]
    texts += [(f"worker {number} is alive", number, False) for number in range(1, min(workers, 4) + 1)]
    if workers >= BROKEN:
        for attempt in range(5):
            texts.append((f"worker {BROKEN} died: {REASON}", BROKEN, True))
            texts += [(f"worker {BROKEN} is restarting", BROKEN, False)] if attempt < 4 else []
        texts += [(f"worker {BROKEN} failed: {REASON}; not restarted until toggled", BROKEN, True)]
        texts += [("worker 2 was put to sleep by the operator anna", 2, False)]
    if clients:
        names = sorted(_download(number).client for number in range(1, clients + 1))
        others = f"{names[2]} and {clients - 3} others" if clients > 3 else f"and {names[2]}"
        text = f"clients {names[0]}, {names[1]}{',' if clients > 3 else ''} {others} connected: now serving {clients}"
        texts.append((text, None, False))
    for seq, (text, worker, is_failure) in enumerate(texts, 1):
        yield LoggedEvent(
            seq=seq, time=NOW - 20 * (len(texts) - seq) - 5, text=text, worker=worker, is_failure=is_failure
        )


def screen_text(app: ConsoleApp) -> str:
    """What the screen shows, without blanks at the ends of the lines."""
    strips = app.screen._compositor.render_strips()
    return "\n".join(strip.text.rstrip() for strip in strips) + "\n"


def run(steps: Callable[[ConsoleApp, FixedFeed, Pilot[int]], Awaitable[None]], **settings: Any) -> None:
    """Runs a console at a fixed time."""
    before = os.environ.get("TZ")
    os.environ["TZ"] = ZONE
    time.tzset()
    feed = FixedFeed()
    app = ConsoleApp(feed, SERVERS, clock=lambda: NOW, **settings)

    async def run_steps() -> None:
        async with app.run_test(size=SIZES[0]) as pilot:
            await steps(app, feed, pilot)

    try:
        asyncio.run(run_steps())
    finally:
        os.environ.pop("TZ")
        if before is not None:
            os.environ["TZ"] = before
        time.tzset()


def draw(on_screen: Callable[[str, ConsoleApp], None]) -> None:
    """Calls ``on_screen`` with the name of each screen while the console shows it."""

    async def steps(app: ConsoleApp, feed: FixedFeed, pilot: Pilot[int]) -> None:
        for width, height in SIZES:
            await pilot.resize_terminal(width, height)
            for workers, clients in product(WORKERS, CLIENTS):
                app.history = History()
                for view in app._row_views.values():
                    view._kept = None
                feed.queued.append(report(workers, clients))
                await settle(app, feed, pilot)
                on_screen(f"{width}x{height}-{workers}-workers-{clients}-clients", app)

    run(steps)


async def settle(app: ConsoleApp, feed: FixedFeed, pilot: Pilot[int]) -> None:
    """Waits until the console shows all that it has received."""
    async with asyncio.timeout(10):
        while feed.queued or app.size != app._drawn_size or app._needs_redraw:
            await pilot.pause()
            app._tick()
    await pilot.pause()


def save(name: str, app: ConsoleApp) -> None:
    Path(SCREENS, f"{name}.txt").write_text(screen_text(app), encoding="utf-8")


if __name__ == "__main__":
    SCREENS.mkdir(exist_ok=True)
    for path in SCREENS.glob("*.txt"):
        path.unlink()
    draw(save)
