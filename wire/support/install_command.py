"""The command that installs an optional library into this installation of msd."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import PurePath


def install_command(library: str) -> str:
    """How to install ``library`` so that this interpreter finds it: with pipx, pip or uv, whichever made this
    environment.
    """
    return command_for(library, prefix=sys.prefix, executable=sys.executable, has_pip=find_spec("pip") is not None)


def command_for(library: str, *, prefix: str, executable: str, has_pip: bool) -> str:
    """``install_command`` as a function of its arguments. ``prefix`` is the folder of the environment, ``has_pip`` says
    whether pip is installed in it; uv makes environments without pip.
    """
    if "pipx" in PurePath(prefix).parts:
        return f"pipx inject multiserver-downloader {library}"
    if has_pip:
        return f"{executable} -m pip install {library}"
    return f"uv pip install --python {prefix} {library}"
