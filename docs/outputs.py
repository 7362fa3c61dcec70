"""Makes ``docs/outputs.md``, what commands print, from a real system: ``python -m docs.outputs`` (``make outputs``).

``tests/integration/test_documented_outputs.py`` runs the same commands and compares what they print.
"""

from __future__ import annotations

import os
import random
import shlex
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.system import Ports, System, make_file, run_msd

PAGE = Path(__file__).parent / "outputs.md"
#: The report's ports, for they are what the rest of the documentation shows.
PORTS: Ports = (21018, 27215, 35416, 19222, 39223)
HEAD = """\
# What the commands print

Made by `make outputs` from servers at work, and kept as it is by a test. Here `config.toml` in the current folder says
`[share] path = "films"`, and where the servers are. What `serve`, `console` and `demo` show is in the
[README](../README.md); what `download --json` prints, in [events.md](events.md).
"""
#: What is run, in this order, and what it shows.
STORY = (
    ("Which files are shared", ("list", "list --json")),
    ("A download without a terminal, and once more", ("download Star.mp4", "download Star.mp4")),
    ("A file that is right, and one that is not", ("download Star.mp4 --update", "verify Star.mp4", "verify Moon.mp4")),
    ("What is mistyped", ("downlod", "download Stra.mp4")),
    ("A worker is shut down", ("toggle 2", "status")),
    ("It is woken up", ("toggle 2 --wake",)),
    ("Keys", ("keys init", "keys new laptop", "keys admit keys/laptop.pub --role client", "keys list")),
    ("The end", ("quit", "list")),
)


def page(ports: Ports, folder: Path) -> str:
    """The page, from servers at these ports; all files are made in ``folder``."""
    return "\n".join([HEAD, *sections(ports, folder)])


def sections(ports: Ports, folder: Path) -> Iterator[str]:
    prepare(ports, folder)
    with System(folder / "films", "-c", "config.toml", ports=ports, cwd=folder) as servers:
        servers.wait_until_ready()
        yield f"## Servers without a terminal\n\n```\n$ msd serve --plain\n{servers.out.text}\n```\n"
        for title, commands in STORY:
            shown = []
            for command in commands:
                shown.append(f"$ msd {command}\n{printed(command, folder)}")
                if command == "quit":
                    servers.wait()
            yield f"## {title}\n\n```\n" + "\n".join(shown) + "```\n"


def printed(command: str, folder: Path) -> str:
    """What a command prints, on both streams."""
    ended = run_msd(*shlex.split(command), cwd=folder)
    return (ended.stderr + ended.stdout).replace(f"{folder}/", "")


def prepare(ports: Ports, folder: Path) -> None:
    """Two shared files, another version of one of them, and the configuration."""
    rng = random.Random(1)  # noqa: S311
    for name, size in (("Moon.mp4", 3 << 20), ("Star.mp4", 12 << 20)):
        make_file(folder / "films" / name, size, rng)
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
