"""The command line as a whole: every command explains itself, and a shell can complete it."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main

from msd.cli import _leave_only, app
from tests.system import MSD, run_msd

#: The command as it is installed: its name is what a shell completes.
INSTALLED = str(Path(sys.executable).with_name("msd"))
ROOT = typer.main.get_command(app)


def commands(group: object = ROOT, *before: str) -> Iterator[tuple[tuple[str, ...], object]]:
    """Every command that does something, with the words that call it."""
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        words = (*before, name)
        if hasattr(command, "commands"):
            yield from commands(command, *words)
        else:
            yield words, command


COMMANDS = dict(commands())
#: Those that are not in a group.
TOP = {words[0] for words in COMMANDS if len(words) == 1}


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_the_help_of_a_command_has_one_example_that_it_understands(words: tuple[str, ...]) -> None:
    command = COMMANDS[words]
    (example,) = re.findall(r"^ *Example: (.+)$", command.help or "", re.MULTILINE)  # type: ignore[attr-defined]
    called = ["msd", *words]
    given = shlex.split(example)
    assert given[: len(called)] == called
    # Raises what wrong use raises; runs nothing.
    command.make_context(words[-1], given[len(called) :])  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("msd dow", ["download"]),
        ("msd keys re", ["revoke"]),
        ("msd download --up", ["--update"]),
        ("msd keys admit x --role c", ["client"]),
    ],
)
def test_a_shell_can_complete_commands_flags_and_values(line: str, offered: list[str]) -> None:
    asked = {"_MSD_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(line.split()) - 1)}
    told = subprocess.run([INSTALLED], env={**os.environ, **asked}, capture_output=True, text=True, check=False)
    assert told.stdout.split() == offered


def test_completion_can_be_shown_and_installed(tmp_path: Path) -> None:
    # The shell is found out from the process that calls, which must be one.
    def in_bash(flag: str) -> str:
        command = f"{shlex.join([INSTALLED, flag])}; exit $?"
        environment = {**os.environ, "HOME": str(tmp_path)}
        return subprocess.run(
            ["bash", "-c", command], env=environment, capture_output=True, text=True, check=True
        ).stdout

    assert "complete -o default -F _msd_completion msd" in in_bash("--show-completion")
    in_bash("--install-completion")
    (script,) = (tmp_path / ".bash_completions").iterdir()
    assert "_MSD_COMPLETE=complete_bash" in script.read_text()
    assert str(script) in (tmp_path / ".bashrc").read_text()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["downlod"], "Did you mean 'download'?"),
        (["keys", "amit"], "Did you mean 'admit'?"),
        (["download", "--updat"], "--update"),
        (["keys", "admit", "x", "--role", "operatr"], "operator"),
    ],
)
def test_what_is_mistyped_is_answered_with_what_may_have_been_meant(arguments: list[str], says: str) -> None:
    ended = run_msd(*arguments)
    assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (2, "", 1)
    assert says in ended.stderr


@pytest.mark.parametrize(("name", "left"), [("download", {"download"}), ("list", {"list"}), ("keys", TOP), ("", TOP)])
def test_typer_works_out_the_flags_of_one_command_alone(
    monkeypatch: pytest.MonkeyPatch, name: str, left: set[str]
) -> None:
    monkeypatch.setattr(app, "registered_commands", app.registered_commands)
    monkeypatch.setattr(app, "registered_groups", app.registered_groups)
    _leave_only(name)
    assert {command.name for command in app.registered_commands} == left
    assert bool(app.registered_groups) == (left == TOP)


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["download", "--help"]])
def test_a_disk_that_is_full_where_the_output_goes_is_no_bug(arguments: list[str]) -> None:
    with open("/dev/full", "w") as full:
        ended = subprocess.run([*MSD, *arguments], check=False, stdout=full, stderr=subprocess.PIPE, text=True)
    assert ended.returncode == 6
    assert ended.stderr == "msd: cannot print: No space left on device: make room where the output goes\n"


def test_whoever_reads_only_the_beginning_makes_no_error() -> None:
    with subprocess.Popen([*MSD, "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert (process.wait(), process.stderr.read()) == (0, "")


@pytest.mark.parametrize(
    ("arguments", "code", "loads"),
    [
        (["download", "--timeout", "0.2", "-p", "1001", "1002", "1003", "1004", "1005"], 7, set()),
        (["list", "-c", "missing.toml"], 2, set()),
        (["status", "-c", "missing.toml"], 2, set()),
    ],
)
def test_a_command_loads_no_library_that_is_anothers(arguments: list[str], code: int, loads: set[str]) -> None:
    heavy = {"textual", "matplotlib", "prometheus_client", "rich", "numpy", "asyncio"}
    program = (
        f"import sys, msd.cli; sys.argv = ['msd', *sys.argv[1:]]; assert msd.cli._run() == {code};"
        f" print(*sorted({{name.split('.')[0] for name in sys.modules}} & {heavy!r}))"
    )
    ended = subprocess.run(
        [sys.executable, "-P", "-c", program, *arguments], capture_output=True, text=True, check=True
    )
    assert {*ended.stdout.split()} == loads
