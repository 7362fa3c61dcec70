"""The suggested command matches the tool that created the environment."""

from __future__ import annotations

import sys

import pytest

from msd.wire.support.install_command import command_for, install_command


@pytest.mark.parametrize(
    ("prefix", "has_pip", "command"),
    [
        ("/home/me/msd/.venv", True, "/home/me/msd/.venv/bin/python -m pip install matplotlib"),
        ("/home/me/.local/share/pipx/venvs/msd", False, "pipx inject multiserver-downloader matplotlib"),
        ("/home/me/.local/share/pipx/venvs/msd", True, "pipx inject multiserver-downloader matplotlib"),
        (
            "/home/me/.local/share/uv/tools/msd",
            False,
            "uv pip install --python /home/me/.local/share/uv/tools/msd matplotlib",
        ),
    ],
)
def test_the_command_depends_on_the_tool_that_created_the_environment(prefix: str, has_pip: bool, command: str) -> None:
    assert command_for("matplotlib", prefix=prefix, executable=f"{prefix}/bin/python", has_pip=has_pip) == command


def test_in_a_checkout_the_command_uses_the_running_interpreter() -> None:
    assert install_command("matplotlib") == f"{sys.executable} -m pip install matplotlib"
