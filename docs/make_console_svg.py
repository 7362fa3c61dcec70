"""Writes ``docs/console.svg``, a screenshot of the console: ``python -m docs.make_console_svg`` (``make screenshots``).

The console shows four workers and three clients: worker 3 has been killed and restarted, and worker 2 is asleep.
"""

from __future__ import annotations

import asyncio
import os
import random
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from textual.pilot import Pilot

from msd.broker.operator.console_app import ConsoleApp
from msd.broker.operator.status_feed import StatusFeed
from tests.processes import MIB, TIMEOUT, System, make_file

DOCS = Path(__file__).parent
#: The ports that the rest of the documentation also uses.
PORTS = (21018, 27215, 35416, 19222, 39223)
#: Columns and lines of the terminal.
SIZE = (112, 36)
FILE_BYTES = 400 * MIB
CLIENTS = ("anna@laptop", "ben@attic", "office")


async def save_screenshot(app: ConsoleApp, servers: System, path: Path) -> None:
    """Runs the console, kills worker 3, puts worker 2 to sleep, and saves a screenshot."""

    async def wait_until(condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(TIMEOUT):
            while not condition():
                await asyncio.sleep(0.05)

    def rows() -> list[tuple[bool, int]]:
        """Returns, for each worker, whether it is alive and how many of its recent rates are above 0."""
        return [(row.is_alive, len([rate for rate in row.rates if rate])) for row in app.history.rows(0.0)]

    async def run_steps(pilot: Pilot[int]) -> None:
        await wait_until(lambda: any(rates >= 5 for _, rates in rows()))
        await asyncio.to_thread(servers.kill, 3)
        await wait_until(lambda: app.history.rows(0.0)[2].worker.restarts == 1 and rows()[2][0])
        await pilot.press("2")
        await wait_until(lambda: not rows()[1][0] and rows()[2][1] >= 9)
        app.save_screenshot(path.name, str(path.parent))

    async with app.run_test(size=SIZE) as pilot:
        await run_steps(pilot)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="msd-") as folder:
        os.environ["XDG_RUNTIME_DIR"] = os.environ["XDG_CACHE_HOME"] = folder
        film = make_file(Path(folder, "Star.mp4"), FILE_BYTES, random.Random(1))  # noqa: S311
        with System(film, "--rate", "6MiB", ports=PORTS).wait_until_ready() as servers, ExitStack() as downloads:
            for name in CLIENTS:
                own = Path(folder, name)
                own.mkdir()
                Path(own, "config.toml").write_text(f"[client]\nname = '{name}'\n")
                downloads.enter_context(servers.download("-o", "copy.mp4", cwd=own))
            feed = StatusFeed(servers.servers)
            asyncio.run(save_screenshot(ConsoleApp(feed, servers.servers), servers, DOCS / "console.svg"))
            feed.close()
