"""The shared flags: their names, how their values are parsed, and their help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import pytest
import typer
from typer.testing import CliRunner

from msd.wire.config.cli_flags import Command, JsonFlag, Ports, ServerFlags, VerboseFlag, with_server_flags
from msd.wire.errors import UsageError
from msd.wire.net.endpoints import Endpoint

app = typer.Typer(rich_markup_mode=None)
#: The arguments of the last call to ``command``.
parsed: dict[str, Any] = {}


@app.command(cls=Command)
@with_server_flags
def command(
    flags: ServerFlags,
    numbers: Annotated[list[int] | None, typer.Argument()] = None,
    verbose: VerboseFlag = False,
    json: JsonFlag = False,
) -> None:
    """Records its arguments."""
    parsed.clear()
    parsed.update(flags._asdict(), numbers=numbers, verbose=verbose, json=json)


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
        "numbers": None,
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
        (["-p", "1", "2", "--json"], "ports", (1, 2)),
        (["--json", "-p", "1", "2", "3", "--", "7"], "ports", (1, 2, 3)),
        (["--server5", "10.0.0.1:5"], "server5", "10.0.0.1:5"),
        (["--server-key", "ab"], "server_key", "ab"),
        (["7", "8"], "numbers", [7, 8]),
        (["--verbose"], "verbose", True),
        (["--json"], "json", True),
    ],
)
def test_each_flag_sets_its_value(arguments: list[str], name: str, value: object) -> None:
    assert run(*arguments) == 0
    assert parsed[name] == value


@pytest.mark.parametrize("ports", [[], ["1"], ["x"], ["1", "x"], ["--json"]])
def test_ports_are_at_least_two_numbers(ports: list[str]) -> None:
    assert run("-p", *ports) == 2


@pytest.mark.parametrize("more", [["-a", "h"], ["--address", "h"], ["--server5=h"], ["-p", "1", "2"]])
def test_a_flag_with_one_value_is_given_once(more: list[str]) -> None:
    once = ["-a", "h", "--server5", "h", "-p", "1", "2"]
    assert run(*once) == 0
    result = CliRunner().invoke(app, [*once, *more])
    assert result.exit_code == 2
    assert "is given 2 times: give it once" in result.output


def test_a_flag_without_a_value_may_be_repeated() -> None:
    assert run("--json", "--json") == 0
    assert parsed["json"] is True


def test_in_toggle_numbers_up_to_64_after_the_ports_are_workers() -> None:
    toggle = typer.Typer(rich_markup_mode=None)
    toggle.command("toggle", cls=Command)(command)
    assert CliRunner().invoke(toggle, ["-p", "5001", "5002", "5003", "2", "64"]).exit_code == 0
    assert (parsed["ports"], parsed["numbers"]) == ((5001, 5002, 5003), [2, 64])


def test_the_help_has_one_line_for_each_flag_and_the_servers_flags_come_first() -> None:
    help_text = CliRunner().invoke(app, ["--help"], terminal_width=200).output
    assert "Records its arguments." in help_text
    flags = (
        "-c, --config FILE",
        "-a, --address HOST",
        "-p, --ports P1 P2 P3 P4 P5",
        "--server5 HOST[:PORT]",
        "--server-key KEY",
    )
    for flag in flags:
        (line,) = [line for line in help_text.splitlines() if flag in line]
        assert len(line.split(flag)[1].split()) >= 2, f"{flag} has no help"
    positions = [help_text.index(flag) for flag in (*flags, "--verbose", "--json")]
    assert positions == sorted(positions)


def test_the_flags_locate_the_servers(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text('[client]\nmemory = "8MiB"\n')
    settings, servers = ServerFlags(str(config), "127.0.0.2", Ports((1, 2, 3, 4, 5))).load()
    assert settings.memory == 8 << 20
    assert (servers.status, servers.pinned) == (Endpoint("127.0.0.2", 5), True)
    assert ServerFlags(str(config), server5="127.0.0.3:7").find().status == Endpoint("127.0.0.3", 7)


def test_an_invalid_flag_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="server_key must be"):
        ServerFlags(server_key="ab").find()
