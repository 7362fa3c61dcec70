"""How the Python API is called, and the name of the output where the user gives none. The download itself:
tests/integration.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.downloading import safe_name


def test_the_python_api_is_a_function_in_a_fresh_process() -> None:
    code = "from client import download; import client; assert callable(download) and client.download is download"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("Star.mp4", "Star.mp4"),
        ("films/2020/Star.mp4", "Star.mp4"),
        ("../../etc/passwd", "passwd"),
        ("/etc/passwd", "passwd"),
        (".hidden", ".hidden"),
        ("ä b (1).mp4", "ä b (1).mp4"),
        ("C:\\Windows\\win.ini", "C:_Windows_win.ini"),
        ("a\x00b\x1b[31m\x7f\n", "a_b_[31m__"),
        ("", "download"),
        (".", "download"),
        ("..", "download"),
        ("films/..", "download"),
        ("films/", "download"),
    ],
)
def test_the_base_name_fit_to_be_a_file_here(name: str, safe: str) -> None:
    assert safe_name(name) == safe


@given(st.text(max_size=50))
def test_no_name_leads_anywhere_else(name: str) -> None:
    safe = safe_name(name)
    assert safe
    assert Path(safe).name == safe
    assert os.path.normpath(safe) == safe
    assert not any(ord(character) < 32 or character in "/\\\x7f" for character in safe)
