"""``python -m msd`` runs the command line."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version


def test_python_dash_m_msd_is_the_command() -> None:
    command = [sys.executable, "-m", "msd", "--version"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout == f"msd {version('multiserver-downloader')}\n"
