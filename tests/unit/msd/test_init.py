"""The Python API: its public names, which are imported on first use."""

from __future__ import annotations

import subprocess
import sys

import pytest

import msd


@pytest.mark.parametrize("name", msd.__all__)
def test_each_public_name_exists_and_has_a_docstring(name: str) -> None:
    assert getattr(msd, name).__doc__


@pytest.mark.parametrize("name", ["upload", "ProtocolError", "parse_id"])
def test_any_other_name_is_an_attribute_error(name: str) -> None:
    """``ProtocolError`` and ``parse_id`` exist in modules of the API, but are internal."""
    with pytest.raises(AttributeError, match=f"no attribute '{name}'"):
        getattr(msd, name)


def test_importing_msd_imports_none_of_its_modules() -> None:
    code = "import sys, msd; print(*(name for name in sys.modules if name.startswith('msd')))"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "msd\n"


def test_download_is_the_function_even_after_its_module_was_imported() -> None:
    code = "import msd.client.operations.download; from msd import download; assert callable(download)"
    subprocess.run([sys.executable, "-c", code], check=True)
