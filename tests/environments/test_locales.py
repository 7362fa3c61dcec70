"""Locales and encodings: file names are UTF-8 in all of them, and text is printed as well as the encoding allows."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.environments.recipes import Wrapper, with_encoding
from tests.processes import MIB, System, files_equal, make_file, run_msd

#: A name with a character of Latin-1 and one that only Unicode has.
NAME = "Über 📼.bin"


def with_locale(name: str, **variables: str) -> Wrapper:
    return ["env", f"LC_ALL={name}", *(f"{variable}={value}" for variable, value in variables.items())]


#: Locales; in those marked as ASCII, Python is told not to use UTF-8 instead.
LOCALES: dict[str, Callable[[Path], Wrapper]] = {
    "C": lambda folder: with_locale("C"),
    "POSIX": lambda folder: with_locale("POSIX"),
    "C, as ASCII": lambda folder: with_locale("C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0"),
    "Latin-1": lambda folder: with_encoding(folder, "ISO-8859-1"),
    "KOI8-R": lambda folder: with_encoding(folder, "KOI8-R"),
    "a locale that does not exist": lambda folder: with_locale("xx_XX.UTF-8"),
    "UTF-8, with output in Latin-1": lambda folder: with_locale("C.UTF-8", PYTHONIOENCODING="latin-1"),
}


@pytest.mark.soak
@pytest.mark.parametrize("name", LOCALES)
def test_a_file_keeps_its_name_in_every_locale(
    name: str, runtime_folder: Path, tmp_path: Path, rng: random.Random
) -> None:
    film = make_file(tmp_path / "shared" / NAME, MIB, rng)
    wrapper = LOCALES[name](tmp_path)

    def msd(*arguments: str) -> subprocess.CompletedProcess[str]:
        ended = run_msd(*arguments, *system.server_flags, wrapper=wrapper, cwd=tmp_path, errors="surrogateescape")
        assert ended.returncode == 0, ended.stderr
        return ended

    with System(film.parent, wrapper=wrapper) as system:
        system.wait_until_ready()
        listed = msd("list").stdout
        assert (listed.count("ber "), listed.count(".bin")) == (1, 1)
        msd("download")
        assert files_equal(film, tmp_path / NAME)
        msd("download", NAME, "-o", "Ü")
        assert files_equal(film, tmp_path / "Ü")
