"""``msd verify`` with real servers."""

from __future__ import annotations

import hashlib
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
    server_flags = serve(path, workers=1).server_flags
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
    for arguments, code in ((["missing"], 2), ([str(tmp_path), "film.bin"], 3), ([str(copy), "other.bin"], 3)):
        failed = run_msd("verify", *arguments, *server_flags)
        assert (failed.returncode, failed.stdout, failed.stderr.count("\n")) == (code, "", 1)


def test_a_sha_256_is_checked_before_the_output_is_in_place(serve: Serve, source: Source, tmp_path: Path) -> None:
    path = source(3 * MIB)
    server_flags = serve(path, workers=1).server_flags
    right, wrong = hashlib.sha256(path.read_bytes()).hexdigest(), "0" * 64
    arguments = ["download", *server_flags, "-o", "copy.bin", "--quiet", "--sha256"]
    refused = run_msd(*arguments, wrong, cwd=tmp_path)
    assert (refused.returncode, refused.stdout, refused.stderr.count("\n")) == (5, "", 1)
    assert f"the SHA-256 is {right}, but {wrong} is expected" in refused.stderr
    assert [file.name for file in tmp_path.glob("*copy*")] == [".copy.bin.msd-part"]
    assert run_msd(*arguments, right.upper(), cwd=tmp_path).returncode == 0
    assert files_equal(path, tmp_path / "copy.bin")
    # The flag alone asks no server; with NAME the segments are compared, too.
    nowhere = ["--server5", "127.0.0.1:9"]
    alone = run_msd("verify", "copy.bin", "--sha256", right, *nowhere, cwd=tmp_path)
    assert (alone.returncode, alone.stdout) == (0, f"copy.bin has the SHA-256 {right}\n")
    differs = run_msd("verify", "copy.bin", "--sha256", wrong, *nowhere, cwd=tmp_path)
    assert (differs.returncode, differs.stderr.count("\n")) == (5, 1)
    unreachable = run_msd("verify", "copy.bin", "film.bin", "--timeout", "0.5", *nowhere, cwd=tmp_path)
    assert (unreachable.returncode, "gave up after 0.5 s" in unreachable.stderr) == (7, True)


def test_no_update_is_proposed_for_another_file(serve: Serve, source: Source, tmp_path: Path) -> None:
    server_flags = serve(source(MIB), workers=1).server_flags
    (tmp_path / "api.py").write_text("print()\n" * 300)
    result = run_msd("verify", "api.py", *server_flags, cwd=tmp_path)
    assert (result.returncode, result.stdout) == (5, "")
    assert result.stderr == "msd: api.py is another file than the shared film.bin: most of the data differs\n"
