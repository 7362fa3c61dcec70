"""Writes ``docs/outputs.md``, which shows the output of commands run with real servers: ``make outputs``.

``tests/integration/test_documented_outputs.py`` checks the page: it runs the same commands and compares their output.
"""

from __future__ import annotations

import os
import random
import shlex
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.processes import Ports, System, make_file, run_msd

PAGE = Path(__file__).parent / "outputs.md"
#: The ports that the rest of the documentation also uses.
PORTS: Ports = (21018, 27215, 35416, 19222, 39223)
HEAD = """\
# What the commands print

`make outputs` generates this page with running servers; a test checks it. The commands run in a folder whose
`config.toml` sets `[share] path = "films"` and the ports. The README shows the [console](../README.md) and the demo;
[events.md](events.md) describes the output of `download --json`.
"""
#: Section titles and the commands of each section, in the order in which the commands run.
SECTIONS = (
    ("Which files are shared", ("list", "list --json")),
    ("A download without a terminal, and a second attempt", ("download Star.mp4", "download Star.mp4")),
    (
        "A file that matches the shared one, and one that does not",
        ("download Star.mp4 --update", "verify Star.mp4", "verify Moon.mp4"),
    ),
    (
        "A folder",
        ("list stills/ --long", "download stills/ 'Moon.*' -o copies --dry-run", "download stills/ -o copies"),
    ),
    (
        "A folder of which most is there already",
        ("download stills/ Star.mp4 -o copies", "verify copies/stills", "download stills/ nothing/ -o copies --quiet"),
    ),
    ("Mistyped commands and file names", ("downlod", "download Stra.mp4")),
    ("A worker is shut down", ("toggle 2", "status")),
    ("The worker is woken up", ("toggle 2 --wake",)),
    ("Keys", ("keys init", "keys new laptop", "keys admit keys/laptop.pub --role client", "keys list")),
    ("Shutting down", ("quit", "list")),
)


def page(ports: Ports, folder: Path) -> str:
    """Returns the page, generated with servers on ``ports``; all files are created in ``folder``."""
    return "\n".join([HEAD, *sections(ports, folder)])


def sections(ports: Ports, folder: Path) -> Iterator[str]:
    make_files(ports, folder)
    with System(folder / "films", "-c", "config.toml", ports=ports, cwd=folder) as servers:
        servers.wait_until_ready()
        yield f"## Servers without a terminal\n\n```\n$ msd serve --plain\n{servers.out.text}\n```\n"
        for title, commands in SECTIONS:
            outputs = []
            for command in commands:
                outputs.append(f"$ msd {command}\n{output_of(command, folder)}")
                if command == "quit":
                    servers.wait()
            yield f"## {title}\n\n```\n" + "\n".join(outputs) + "```\n"


def output_of(command: str, folder: Path) -> str:
    """Runs a command and returns its standard error, followed by its standard output."""
    ended = run_msd(*shlex.split(command), cwd=folder)
    return (ended.stderr + ended.stdout).replace(f"{folder}/", "")


def make_files(ports: Ports, folder: Path) -> None:
    """Creates shared files and a shared folder, a changed copy of one file, and the configuration."""
    rng = random.Random(1)  # noqa: S311
    files = {
        "Moon.mp4": 3 << 20,
        "Star.mp4": 12 << 20,
        "stills/1.jpg": 81_234,
        "stills/2.jpg": 64_321,
        "stills/run": 99,
    }
    for name, size in files.items():
        make_file(folder / "films" / name, size, rng)
        (folder / "films" / name).chmod(0o755 if name == "stills/run" else 0o644)
    (folder / "films" / "stills").chmod(0o755)
    shutil.copyfile(folder / "films" / "Moon.mp4", folder / "Moon.mp4")
    with (folder / "Moon.mp4").open("r+b") as file:
        file.seek(1 << 20)
        file.write(b"another scene")
    workers = "".join(f"[[workers]]\nport = {port}\n" for port in ports[:4])
    (folder / "config.toml").write_text(
        f'[share]\npath = "films"\n[broker]\nstatus_port = {ports[4]}\nkeys = "keys"\nsecurity = "none"\n{workers}'
    )


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="msd-") as name:
        os.environ["XDG_RUNTIME_DIR"] = os.environ["XDG_CACHE_HOME"] = name
        PAGE.write_text(page(PORTS, Path(name, "here")), encoding="utf-8")
