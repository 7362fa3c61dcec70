"""The command that installs an optional library into this installation of msd."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import PurePath


def install_command(library: str) -> str:
    """Returns the command that installs ``library`` for this interpreter: with pipx, pip or uv, whichever tool created
    this environment.
    """
    return command_for(library, prefix=sys.prefix, executable=sys.executable, has_pip=find_spec("pip") is not None)


def command_for(library: str, *, prefix: str, executable: str, has_pip: bool) -> str:
    """Like ``install_command``, but depends only on its arguments. ``prefix`` is the environment's folder. ``has_pip``
    is True if pip is installed in it; uv creates environments without pip.
    """
    if "pipx" in PurePath(prefix).parts:
        return f"pipx inject multiserver-downloader {library}"
    if has_pip:
        return f"{executable} -m pip install {library}"
    return f"uv pip install --python {prefix} {library}"
