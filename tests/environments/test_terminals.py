"""Terminals that tell no size or an unusual one, as serial consoles and containers do."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.processes import MIB, Serve, Source, files_equal
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
