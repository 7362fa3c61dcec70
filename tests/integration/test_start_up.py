"""What a small download imports: each module costs every download at least 0.1 ms, and some cost several."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

from tests.processes import TIMEOUT, Serve, make_file

#: Prints the modules that a command imports besides the libraries that every download needs.
PROGRAM = (
    "import sys, blake3, msgpack, msgspec, typer, zmq; before = {*sys.modules}; import msd.cli;"
    " code = msd.cli._run(); print(*{*sys.modules} - before); sys.exit(code)"
)
#: The modules of the standard library that a download may import, without those that the libraries import.
STANDARD_MODULES = {"_ctypes", "array", "ctypes", "gc", "resource", "unicodedata"}
#: The maximum number of msd's modules that a download may import. Instead of raising it, import modules that most
#: downloads do not need where they are used.
MAX_MODULES = 102


def test_a_small_download_imports_only_what_it_needs(serve: Serve, tmp_path: Path, rng: random.Random) -> None:
    system = serve(make_file(tmp_path / "small.bin", 1024, rng), workers=1)
    arguments = ["download", *system.server_flags, "--quiet", "-o", "copy.bin"]
    result = subprocess.run(
        [sys.executable, "-P", "-c", PROGRAM, *arguments],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        timeout=TIMEOUT,
    )
    loaded = result.stdout.split()
    ours = [name for name in loaded if name.split(".")[0] == "msd"]
    assert {name.split(".")[0] for name in loaded} - {"msd", "typer"} <= STANDARD_MODULES
    assert len(ours) <= MAX_MODULES, sorted(ours)
