"""Creates ``docs/live.svg`` from a real download: ``python -m docs.make_live_svg`` (``make screenshots``).

``msd download`` runs on a pseudo-terminal and uses four workers; worker 2 is put to sleep. This module draws
nothing itself: the picture is the last frame that ``msd download`` wrote to the terminal.
"""

from __future__ import annotations

import io
import os
import random
import re
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

from tests.processes import MIB, System, make_file
from tests.terminal import Terminal

PICTURE = Path(__file__).with_name("live.svg")
#: Columns of the pseudo-terminal.
WIDTH = 80
FILE_BYTES = 240 * MIB
#: Verified percentages of the file at which worker 2 is put to sleep and at which the picture is taken.
SLEEP_AT, PICTURE_AT = 25, 45


def frames(output: str) -> list[str]:
    """Returns the complete frames of the live view, which turns line wrapping off before each frame and on after it."""
    return [frame.replace("\x1b[K", "") for frame in re.findall(r"\x1b\[\?7l(.*?)\x1b\[\?7h", output, re.DOTALL)]


def percent(output: str) -> int:
    """Returns the percentage of verified bytes that the last frame shows."""
    shown = re.findall(r"(\d+)%", output)
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
        with (
            System(film, "--rate", "6MiB").wait_until_ready() as servers,
            Terminal("download", *servers.server_flags, "-o", str(copy)) as terminal,
        ):
            terminal.wait_until("a quarter of the file", lambda: percent(terminal.text) >= SLEEP_AT)
            servers.put_to_sleep(2)
            terminal.wait_until("more of the file", lambda: percent(terminal.text) >= PICTURE_AT)
            save_svg(frames(terminal.text)[-1], PICTURE)
