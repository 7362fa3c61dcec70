"""``msd verify`` with real servers."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.processes import (
    MIB,
    Serve,
    Source,
    files_equal,
    run_msd,
)


def flip(path: Path, offset: int) -> None:
    """Inverts all bits of the byte at ``offset``."""
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)
        file.seek(offset)
        file.write(bytes([byte[0] ^ 255]))


def test_verify_reports_the_segments_that_differ(serve: Serve, source: Source, tmp_path: Path) -> None:
    path = source(15 * MIB)
    server_flags = serve(path).server_flags
    copy = tmp_path / "a copy.bin"
    shutil.copyfile(path, copy)
    intact = run_msd("verify", str(copy), *server_flags)
    assert (intact.returncode, intact.stderr) == (0, "")
    assert "matches film.bin (15 segments verified)" in intact.stdout
    for number in (3, 7, 8):
        flip(copy, number * MIB + 5)
    with copy.open("ab") as file:
        file.write(b"more")
    damaged = run_msd("verify", str(copy), "film.bin", *server_flags)
    assert damaged.returncode == 5
    assert damaged.stdout.splitlines() == [
        "segment 3 differs: bytes 3145728 to 4194303",
        "segments 7 to 8 differ: bytes 7340032 to 9437183",
        "4 bytes longer than film.bin",
    ]
    assert "--update" in damaged.stderr
    repaired = run_msd("download", *server_flags, "-o", str(copy), "--update", "--json")
    assert repaired.returncode == 0
    assert files_equal(path, copy)
    for arguments, code in ((["missing"], 2), ([str(tmp_path)], 2), ([str(copy), "other.bin"], 3)):
        failed = run_msd("verify", *arguments, *server_flags)
        assert (failed.returncode, failed.stdout, failed.stderr.count("\n")) == (code, "", 1)
