"""Terminals that tell no size or an unusual one, as serial consoles and containers do; and what only they show."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest

from msd.wire.security.keys import KeyFolder
from tests.environments.recipes import SERVER, two_machines
from tests.processes import MIB, MSD, Process, Serve, Source, files_equal, run_msd, wait_for
from tests.terminal import OnTerminal

#: Columns and rows; 0 × 0 means that the size is unknown.
SIZES = [(0, 0), (1, 1), (5, 2), (500, 200)]


@pytest.mark.soak
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_a_download_and_a_console_run_on_a_terminal_of_any_size(
    size: tuple[int, int], serve: Serve, source: Source, on_terminal: OnTerminal, tmp_path: Path
) -> None:
    film, copy = source(2 * MIB), tmp_path / "copy"
    system = serve(film, "--rate", "1MiB")
    terminal = on_terminal("download", *system.server_flags, "-o", str(copy), size=size)
    assert terminal.wait() == 0
    assert "2.0 MiB verified" in terminal.text
    assert files_equal(film, copy)
    terminal = on_terminal("console", *system.server_flags, size=size)
    terminal.expect("\x1b[?1049h")
    after = len(terminal.text)
    terminal.wait_until("a drawing", lambda: len(terminal.text) > after)
    terminal.press("q")
    assert terminal.wait() == 0
    assert "Traceback" not in terminal.text


def test_a_link_for_a_client_is_shown_on_a_terminal_and_nowhere_else(
    runtime_folder: Path, on_terminal: OnTerminal, source: Source, tmp_path: Path
) -> None:
    """
    1. Servers that other machines reach print a link on their terminal. It is enough for a download, also after the
       servers were started again, which shows the same link; the console shows it, too.
    2. Into a pipe they print none.
    """
    film = source(MIB)
    servers, nothing = {"XDG_CONFIG_HOME": str(tmp_path / "servers")}, {"XDG_CONFIG_HOME": str(tmp_path / "nothing")}
    with two_machines() as (server, client):
        serve = [*MSD, "serve", str(film), "-n", "1", "-a", SERVER]
        with Process(serve, wrapper=server, env={**os.environ, **servers}) as unseen:
            wait_for("the servers", lambda: "ready: " in unseen.out.text)
            unseen.signal(signal.SIGTERM)
            unseen.wait()
            assert "msd://" not in unseen.out.text + unseen.err.text
        links = []
        for _ in range(2):
            terminal = on_terminal(*serve[len(MSD) :], program=[*server, *MSD], env=servers, size=(200, 30))
            terminal.expect("1 of 1 alive")
            (link,) = re.findall(r"msd download '?(msd://[\w.:/#-]+)", terminal.text)
            links.append(link)
            copy = tmp_path / f"copy {len(links)}"
            options: dict[str, Any] = {"wrapper": client, "env": {**os.environ, **nothing}}
            ended = run_msd("download", link, "-o", str(copy), "--timeout", "10", **options)
            assert ended.returncode == 0, ended.stderr
            assert files_equal(film, copy)
            before = terminal.press("y")
            terminal.expect(link, before)
            terminal.press("\x03")
            assert terminal.wait() == 130
        assert links[0] == links[1]
        assert len(KeyFolder(tmp_path / "servers" / "msd" / "keys").admitted_keys()) == 1
