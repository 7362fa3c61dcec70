"""The command that installs an optional library into this installation of msd."""

from __future__ import annotations

import shlex
import sys
from importlib.util import find_spec
from pathlib import Path

#: pipx writes this file into every environment that it creates.
PIPX_FILE = "pipx_metadata.json"


def install_command(library: str) -> str:
    """Returns the command that installs ``library`` for this interpreter: with pipx, pip or uv, whichever tool created
    this environment.
    """
    return command_for(
        library,
        prefix=sys.prefix,
        executable=sys.executable,
        has_pipx=Path(sys.prefix, PIPX_FILE).exists(),
        has_pip=find_spec("pip") is not None,
    )


def command_for(library: str, *, prefix: str, executable: str, has_pipx: bool, has_pip: bool) -> str:
    """Like ``install_command``, but depends only on its arguments. ``prefix`` is the environment's folder. ``has_pipx``
    is True if pipx created it, ``has_pip`` if pip is installed in it; uv creates environments without pip.
    """
    if has_pipx:
        return f"pipx inject multiserver-downloader {library}"
    if has_pip:
        return f"{shlex.quote(executable)} -m pip install {library}"
    return f"uv pip install --python {shlex.quote(prefix)} {library}"
