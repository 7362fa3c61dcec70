"""The Python API: its public names, which are imported on first use."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import msd

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("name", msd.__all__)
def test_each_public_name_exists_and_has_a_docstring(name: str) -> None:
    assert getattr(msd, name).__doc__


@pytest.mark.parametrize("name", ["upload", "ProtocolError", "parse_id"])
def test_any_other_name_is_an_attribute_error(name: str) -> None:
    """``ProtocolError`` and ``parse_id`` exist in modules of the API, but are internal."""
    with pytest.raises(AttributeError, match=f"no attribute '{name}'"):
        getattr(msd, name)


#: The modules whose errors a caller of the API sees. ``wire/config/settings.py`` also checks flags of ``msd serve``.
API_MODULES = [
    ROOT / "client" / "events.py",
    *(path for path in (ROOT / "client").glob("*/*.py") if path.parent.name not in ("cli", "display", "report")),
    *(ROOT / "wire").glob("protocol/*.py"),
    *(ROOT / "wire").glob("net/*.py"),
    ROOT / "wire" / "config" / "servers.py",
]


@pytest.mark.parametrize("path", API_MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_message_of_the_api_names_a_flag_of_the_command_line(path: Path) -> None:
    """The command line adds them. A message may quote another command, such as ``msd list --json``."""
    strings = [
        node.value
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and "\n" not in node.value
    ]
    flag = r"(?<!msd list )(?<!msd keys admit with )(?<!msd toggle all )(?<![\w`-])(-[a-z]|--[a-z][a-z-]*)\b(?!`)"
    flags = [text for text in strings if re.search(flag, text)]
    assert not flags


def test_importing_msd_imports_none_of_its_modules() -> None:
    code = "import sys, msd; print(*(name for name in sys.modules if name.startswith('msd')))"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "msd\n"


def test_download_is_the_function_even_after_its_module_was_imported() -> None:
    code = "import msd.client.operations.download; from msd import download; assert callable(download)"
    subprocess.run([sys.executable, "-c", code], check=True)
