"""The install command in an error message suits the tool that created the environment."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from msd.wire.support import install_command as module
from msd.wire.support.install_command import PIPX_FILE, install_command


@pytest.fixture(params=["env", "my env"])
def prefix(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of an environment; with a space, its path must be quoted for the shell."""
    folder = tmp_path / str(request.param)
    folder.mkdir()
    monkeypatch.setattr(sys, "prefix", str(folder))
    monkeypatch.setattr(sys, "executable", f"{folder}/bin/python")
    return folder


@pytest.mark.parametrize("has_pip", [False, True])
def test_the_command_depends_on_the_tool_that_created_the_environment(
    prefix: Path, monkeypatch: pytest.MonkeyPatch, has_pip: bool
) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: name if has_pip else None)
    quote = "'" if " " in prefix.name else ""
    if has_pip:
        assert install_command("matplotlib") == f"{quote}{prefix}/bin/python{quote} -m pip install matplotlib"
    else:
        assert install_command("matplotlib") == f"uv pip install --python {quote}{prefix}{quote} matplotlib"
    (prefix / PIPX_FILE).touch()
    assert install_command("matplotlib") == "pipx inject multiserver-downloader matplotlib"
