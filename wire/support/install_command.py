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
    this environment. uv creates environments without pip.
    """
    if Path(sys.prefix, PIPX_FILE).exists():
        return f"pipx inject multiserver-downloader {library}"
    if find_spec("pip") is not None:
        return f"{shlex.quote(sys.executable)} -m pip install {library}"
    return f"uv pip install --python {shlex.quote(sys.prefix)} {library}"
