"""A stand-in for the image from which the Dockerfile starts: no registry of images need be reached.

It has this machine's Python and the programs that the Dockerfile runs, with their libraries, and the wheels to install:
the Dockerfile is built as it is, without a network.
"""

from __future__ import annotations

import importlib.util
import io
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Iterable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
#: Written by ``make test-engine``: what the image needs, and what builds it.
WHEELS = ROOT / ".venv" / "wheels"
#: What ``docker import --change`` adds: where the programs and the wheels are.
CHANGES = ("ENV PATH=/usr/local/bin:/bin PIP_NO_INDEX=1 PIP_FIND_LINKS=/wheels",)
#: Packages with libraries that are loaded from the system.
WITH_LIBRARIES = ("zmq", "msgpack", "msgspec", "blake3", "obstore")
#: What the image does not need: tests, other packages, a window system.
LEFT_OUT = shutil.ignore_patterns(
    "test",
    "tests",
    "idlelib",
    "turtledemo",
    "tkinter",
    "_tkinter*",
    "_test*",
    "site-packages",
    "__pycache__",
    "config-*",
)


def write_base_image(path: Path) -> None:
    """Writes the root file system of the image as a tar archive."""
    if not WHEELS.is_dir():
        pytest.skip("there are no wheels: make test-engine fetches them")
    python = Path(sys.executable).resolve()
    library = Path(sysconfig.get_path("stdlib"))
    if not (library / "ensurepip" / "_bundled").is_dir():
        pytest.skip(f"{python} cannot make virtual environments by itself")
    programs = {name: Path(shutil.which(name) or name).resolve() for name in ("sh", "cat", "install")}
    extensions = [file for file in (library / "lib-dynload").iterdir() if not LEFT_OUT("", [file.name])]
    for name in WITH_LIBRARIES:
        package = importlib.util.find_spec(name)
        assert package is not None
        extensions += Path(str(package.origin)).parent.rglob("*.so")
    with tarfile.open(path, "w") as archive:
        archive.add(python, "usr/local/bin/python")
        archive.add(library, f"usr/local/lib/{library.name}", filter=_without_left_out)
        archive.add(WHEELS, "wheels")
        for name, program in programs.items():
            archive.add(program, f"bin/{name}")
        for needed in _libraries([python, *programs.values(), *extensions]):
            # The dynamic linker has a fixed path, the others are found in /lib.
            own_path = needed.startswith(("/lib64/ld-", "/lib/ld-"))
            archive.add(os.path.realpath(needed), needed if own_path else f"lib/{os.path.basename(needed)}")
        users = b"root:x:0:0:root:/root:/bin/sh\n"
        entry = tarfile.TarInfo("etc/passwd")
        entry.size = len(users)
        archive.addfile(entry, io.BytesIO(users))
        entry = tarfile.TarInfo("tmp")
        entry.type, entry.mode = tarfile.DIRTYPE, 0o1777
        archive.addfile(entry)


def _without_left_out(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    return None if LEFT_OUT("", [os.path.basename(entry.name)]) else entry


def _libraries(files: Iterable[Path]) -> set[str]:
    """The libraries of the system that these files are linked with, directly or not."""
    result = subprocess.run(["ldd", *map(str, files)], capture_output=True, text=True, check=False)
    paths = {word for line in result.stdout.splitlines() if "(0x" in line for word in line.split() if word[0] == "/"}
    return {path for path in paths if "site-packages" not in path}
