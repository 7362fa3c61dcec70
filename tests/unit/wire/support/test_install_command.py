"""The install command in an error message suits the tool that created the environment."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from msd.wire.support.install_command import PIPX_FILE, command_for, install_command


@pytest.mark.parametrize(
    ("has_pipx", "has_pip", "command"),
    [
        (False, True, "/opt/msd/bin/python -m pip install matplotlib"),
        (True, False, "pipx inject multiserver-downloader matplotlib"),
        (True, True, "pipx inject multiserver-downloader matplotlib"),
        (False, False, "uv pip install --python /opt/msd matplotlib"),
    ],
)
def test_the_command_depends_on_the_tool_that_created_the_environment(
    has_pipx: bool, has_pip: bool, command: str
) -> None:
    assert command == command_for(
        "matplotlib", prefix="/opt/msd", executable="/opt/msd/bin/python", has_pipx=has_pipx, has_pip=has_pip
    )


def test_a_path_with_a_space_is_quoted_for_the_shell() -> None:
    command = command_for("matplotlib", prefix="/my env", executable="/my env/bin/python", has_pipx=False, has_pip=True)
    assert command == "'/my env/bin/python' -m pip install matplotlib"


def test_pipx_is_recognised_by_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    assert "pipx" not in install_command("matplotlib").split()
    (tmp_path / PIPX_FILE).touch()
    assert install_command("matplotlib") == "pipx inject multiserver-downloader matplotlib"
