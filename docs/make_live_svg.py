"""Creates ``docs/live.svg`` from a real download: ``python -m docs.make_live_svg`` (``make screenshots``).

``msd download`` runs on a pseudo-terminal and uses the workers of three hosts, each in a network namespace of its own
(which needs root); the second host is cut off. This module draws nothing itself: the picture is the last frame that
``msd download`` wrote to the terminal.
"""

from __future__ import annotations

import io
import os
import random
import re
import tempfile
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console
from rich.text import Text

from tests.environments.recipes import hosts, run_in
from tests.hosts import Broker
from tests.processes import MIB, MSD, make_file
from tests.terminal import Terminal

PICTURE = Path(__file__).with_name("live.svg")
#: Columns of the pseudo-terminal.
WIDTH = 80
FILE_BYTES = 240 * MIB
#: Verified percentages of the file at which a host is cut off and at which the picture is taken.
CUT_AT, PICTURE_AT = 25, 45
#: The names of the hosts' workers.
NAMES = ("attic", "cellar", "yard")


def frames(output: str) -> list[str]:
    """Returns the complete frames of the live view, which turns line wrapping off before each frame and on after it."""
    return [frame.replace("\x1b[K", "") for frame in re.findall(r"\x1b\[\?7l(.*?)\x1b\[\?7h", output, re.DOTALL)]


def percent(output: str) -> int:
    """Returns the percentage of verified bytes that the last frame shows."""
    shown = re.findall(r"(\d+) %", output)
    return int(shown[-1]) if shown else 0


def save_svg(frame: str, path: Path) -> None:
    """Saves a frame with its colours as an SVG file."""
    console = Console(width=WIDTH, file=io.StringIO(), record=True, force_terminal=True)
    for line in frame.splitlines():
        console.print(Text.from_ansi(line), soft_wrap=True)
    console.save_svg(str(path), title="msd download", unique_id="live")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="msd-") as folder:
        os.environ["XDG_RUNTIME_DIR"] = os.environ["XDG_CACHE_HOME"] = folder
        film = make_file(Path(folder, "Star.mp4"), FILE_BYTES, random.Random(1))  # noqa: S311
        copy = Path(folder, "finalFile.mp4")
        with hosts(len(NAMES) + 2) as (broker_host, *worker_hosts, client_host), ExitStack() as stack:
            settings = f'authority = "{NAMES[0]}"\n'
            broker = stack.enter_context(
                Broker(Path(folder, "broker"), host="192.0.2.1", settings=settings, wrapper=broker_host)
            )
            for name, host in zip(NAMES, worker_hosts, strict=True):
                worker = broker.worker(name, str(film), "--rate", "8MiB", wrapper=host)
                stack.enter_context(worker).wait_until_serving()
            flags = ["download", *broker.server_flags, "-o", str(copy)]
            terminal = stack.enter_context(Terminal(*flags, program=[*client_host, *MSD]))
            terminal.wait_until("a quarter of the file", lambda: percent(terminal.text) >= CUT_AT)
            run_in(worker_hosts[1], "ip link set e0 down")
            terminal.wait_until("more of the file", lambda: percent(terminal.text) >= PICTURE_AT)
            save_svg(frames(terminal.text)[-1], PICTURE)
