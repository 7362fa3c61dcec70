"""``python -m msd`` runs the command line."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version


def test_python_dash_m_msd_is_the_command() -> None:
    command = [sys.executable, "-m", "msd", "--version"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout == f"msd {version('multiserver-downloader')}\n"


def test_an_interrupted_import_ends_the_command_without_a_traceback() -> None:
    program = """
import sys

before = {*sys.modules}
import msd.__main__

assert {*sys.modules} - before <= {"msd", "msd.__main__", "__future__"}, "an interrupt meanwhile is not caught"

class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == "msd.cli":
            raise KeyboardInterrupt

sys.meta_path.insert(0, Interrupt())
msd.__main__.main()
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "")
