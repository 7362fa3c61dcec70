"""Makes ``docs/console.svg`` from a real system: ``python -m docs.screenshots`` (``make screenshots``).

Four workers; worker 3 was killed and has come back, worker 2 is asleep, one download is going on.
"""

from __future__ import annotations

import asyncio
import os
import random
import tempfile
from collections.abc import Callable
from pathlib import Path

from textual.pilot import Pilot

from msd.broker.operator.console_app import ConsoleApp
from msd.broker.operator.status_feed import StatusFeed
from tests.system import MIB, TIMEOUT, System, make_file

DOCS = Path(__file__).parent
#: The report's ports, for they are what the rest of the documentation shows.
PORTS = (21018, 27215, 35416, 19222, 39223)
SIZE = (100, 24)
FILE = 400 * MIB


async def take(app: ConsoleApp, servers: System, path: Path) -> None:
    """Takes the picture in the middle of it all."""

    async def until(probe: Callable[[], bool]) -> None:
        async with asyncio.timeout(TIMEOUT):
            while not probe():
                await asyncio.sleep(0.05)

    def rows() -> list[tuple[bool, int]]:
        return [(row.is_alive, len([r for r in row.rates if r])) for row in app.history.rows(0.0)]

    async def act(pilot: Pilot[int]) -> None:
        await until(lambda: any(measured >= 5 for _, measured in rows()))
        await asyncio.to_thread(servers.kill, 3)
        await until(lambda: app.history.rows(0.0)[2].restarts == 1 and rows()[2][0])
        await pilot.press("2")
        await until(lambda: rows()[1] == (False, rows()[1][1]) and rows()[2][1] >= 9)
        app.save_screenshot(path.name, str(path.parent))

    async with app.run_test(size=SIZE) as pilot:
        await act(pilot)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="msd-") as folder:
        os.environ["XDG_RUNTIME_DIR"] = os.environ["XDG_CACHE_HOME"] = folder
        film = make_file(Path(folder, "Star.mp4"), FILE, random.Random(1))  # noqa: S311
        with (
            System(film, "--rate", "6MiB", ports=PORTS).wait_until_ready() as servers,
            servers.download("-o", str(Path(folder, "copy.mp4"))),
        ):
            feed = StatusFeed(servers.servers)
            asyncio.run(take(ConsoleApp(feed, servers.servers), servers, DOCS / "console.svg"))
            feed.close()
