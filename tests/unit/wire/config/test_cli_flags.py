"""The shared flags: their names, how their values are parsed, and their help."""

from __future__ import annotations

from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from msd.wire.config.cli_flags import (
    ConfigFlag,
    HostFlag,
    JsonFlag,
    PortsFlag,
    Server5Flag,
    ServerKeyFlag,
    VerboseFlag,
)

app = typer.Typer(rich_markup_mode=None)
#: The arguments of the last call of ``command``.
parsed: dict[str, Any] = {}


@app.command()
def command(
    config: ConfigFlag = None,
    host: HostFlag = None,
    ports: PortsFlag = None,
    server5: Server5Flag = None,
    server_key: ServerKeyFlag = None,
    verbose: VerboseFlag = False,
    json: JsonFlag = False,
) -> None:
    parsed.clear()
    parsed.update(locals())


def run(*arguments: str) -> int:
    return CliRunner().invoke(app, arguments).exit_code


def test_without_flags_every_value_is_unset() -> None:
    assert run() == 0
    assert parsed == {
        "config": None,
        "host": None,
        "ports": None,
        "server5": None,
        "server_key": None,
        "verbose": False,
        "json": False,
    }


@pytest.mark.parametrize(
    ("arguments", "name", "value"),
    [
        (["-c", "my.toml"], "config", "my.toml"),
        (["--config", "my.toml"], "config", "my.toml"),
        (["-a", "10.0.0.1"], "host", "10.0.0.1"),
        (["--address", "10.0.0.1"], "host", "10.0.0.1"),
        (["-p", "1", "2", "3", "4", "5"], "ports", (1, 2, 3, 4, 5)),
        (["--ports", "1", "2", "3", "4", "5"], "ports", (1, 2, 3, 4, 5)),
        (["--server5", "10.0.0.1:5"], "server5", "10.0.0.1:5"),
        (["--server-key", "ab"], "server_key", "ab"),
        (["--verbose"], "verbose", True),
        (["--json"], "json", True),
    ],
)
def test_each_flag_sets_its_value(arguments: list[str], name: str, value: object) -> None:
    assert run(*arguments) == 0
    assert parsed[name] == value


@pytest.mark.parametrize("ports", [["1", "2", "3", "4"], ["1", "2", "3", "4", "5", "6"], ["1", "2", "3", "4", "x"]])
def test_ports_are_exactly_five_numbers(ports: list[str]) -> None:
    assert run("-p", *ports) == 2


def test_the_help_has_one_line_for_each_flag() -> None:
    help_text = CliRunner().invoke(app, ["--help"], terminal_width=200).output
    for flag in ("-c, --config FILE", "-a, --address HOST", "-p, --ports P1 P2 P3 P4 P5", "--server5 HOST:PORT"):
        (line,) = [line for line in help_text.splitlines() if flag in line]
        assert len(line.split(flag)[1].split()) >= 2, f"{flag} has no help"
