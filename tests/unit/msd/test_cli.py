"""The command line: help, completion, Typer's errors, and the libraries that a command imports."""

from __future__ import annotations

import inspect
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main

from msd.cli import _fail, _reworded, _run, _unregister_other_commands, app
from msd.client.manifest.file_follower import PINNED
from msd.client.operations.download import download
from msd.wire.config.error_flags import FLAGS
from msd.wire.config.servers import Servers
from msd.wire.errors import Interrupted
from tests.processes import MSD, run_msd

#: The path of the installed command. Typer generates completion scripts for the name of the running program.
INSTALLED = str(Path(sys.executable).with_name("msd"))
ROOT = typer.main.get_command(app)


def commands(group: object = ROOT, *before: str) -> Iterator[tuple[tuple[str, ...], object]]:
    """Yields each command, excluding groups, with the words that invoke it."""
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        words = (*before, name)
        if hasattr(command, "commands"):
            yield from commands(command, *words)
        else:
            yield words, command


COMMANDS = dict(commands())
#: The names of the top-level commands.
TOP_LEVEL = {words[0] for words in COMMANDS if len(words) == 1}


@pytest.mark.parametrize(
    ("message", "command", "shown"),
    [
        ("Missing command", "msd", "a command is needed"),
        ("Missing argument 'FILE'", "msd verify", "FILE is missing"),
        ("Missing option '--role'. Choose from: a, b", "msd keys admit", "--role is missing: give one of a, b"),
        ("Option '--id' requires an argument", "msd", "--id needs a value"),
        ("Option '--json' does not take a value", "msd", "--json takes no value"),
        ("No such command 'x'", "msd", "no such command 'x'"),
        ("Got unexpected extra argument(s) (a b)", "msd list", "too many arguments: leave out a b"),
    ],
)
def test_a_message_of_typer_is_reworded(message: str, command: str, shown: str) -> None:
    assert _reworded(message, command) == shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "msd: a command is needed (see msd --help)"),
        (["verify"], "msd: PATH is missing (see msd verify --help)"),
        (["download", "--id"], "msd: --id needs a value (see msd download --help)"),
        (["download", "--json=1"], "msd: --json takes no value (see msd download --help)"),
    ],
)
def test_the_messages_of_the_installed_typer_are_reworded(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    monkeypatch.setattr(sys, "argv", ["msd", *arguments])
    assert _run() == 2
    assert capsys.readouterr().err.rstrip("\n") == message


@pytest.mark.parametrize(
    "signalled", [Interrupted("interrupted: run the same command to resume", signal.SIGINT), KeyboardInterrupt()]
)
def test_a_signal_that_interrupts_the_start_of_a_thread_is_no_internal_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], signalled: BaseException
) -> None:
    """``Thread.start`` fails itself if a signal handler raises an error in it, once the thread has begun."""

    def interrupted(*_: object, **__: object) -> None:
        try:
            raise signalled
        finally:
            starting: dict[str, None] = {}
            del starting["thread"]

    monkeypatch.setattr("msd.cli.app", interrupted)
    assert _run() == 130
    assert "internal error" not in capsys.readouterr().err


def test_each_flag_of_an_error_exists_and_is_an_argument_of_the_api() -> None:
    options = {option for parameter in COMMANDS[("download",)].params for option in parameter.opts}  # type: ignore[attr-defined]
    assert options >= {*FLAGS.values()}
    arguments = {*inspect.signature(download).parameters, *inspect.signature(Servers.find).parameters}
    assert arguments >= {*FLAGS} >= {*PINNED}


@pytest.mark.parametrize(
    ("words", "has_event"),
    [
        ("-o - --json", False),
        ("-o- --json", False),
        ("--json --output=/dev/stdout x y", False),
        ("--json --output - --bad", False),
        ("-o x --json -", True),
        ("-o x", False),
    ],
)
def test_no_error_is_mixed_with_a_file_on_standard_output(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: str, has_event: bool
) -> None:
    monkeypatch.setattr(sys, "argv", ["msd", "download", *words.split()])
    assert _fail("wrong use", 2) == 2
    event = '{"event": "error", "code": 2, "message": "wrong use"}\n'
    assert capsys.readouterr() == (event if has_event else "", "msd: wrong use\n")


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_the_help_of_a_command_has_one_valid_example(words: tuple[str, ...]) -> None:
    command = COMMANDS[words]
    (example,) = re.findall(r"^ *Example: (.+)$", command.help or "", re.MULTILINE)  # type: ignore[attr-defined]
    prefix = ["msd", *words]
    arguments = shlex.split(example)
    assert arguments[: len(prefix)] == prefix
    # Raises an error for invalid arguments, and does not run the command.
    command.make_context(words[-1], arguments[len(prefix) :])  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("line", "completions"),
    [
        ("msd dow", ["download"]),
        ("msd keys re", ["revoke"]),
        ("msd download --up", ["--update"]),
        ("msd keys admit x --role c", ["client"]),
    ],
)
def test_a_shell_can_complete_commands_flags_and_values(line: str, completions: list[str]) -> None:
    variables = {"_MSD_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(line.split()) - 1)}
    environment = {**os.environ, **variables}
    result = subprocess.run([INSTALLED], env=environment, capture_output=True, text=True, check=False)
    assert result.stdout.split() == completions


def test_completion_can_be_printed_and_installed(tmp_path: Path) -> None:
    # Typer detects the shell from the parent process, so the command must be run by a shell.
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
    ("arguments", "suggestion"),
    [
        (["downlod"], "no such command 'downlod': did you mean 'download'? (see msd --help)"),
        (["keys", "amit"], "no such command 'amit': did you mean 'admit'? (see msd keys --help)"),
        (["download", "--updat"], "no such option --updat: did you mean --update?"),
        (["keys", "admit", "x", "--role", "operatr"], "operator"),
    ],
)
def test_a_misspelled_word_is_answered_with_a_suggestion(arguments: list[str], suggestion: str) -> None:
    result = run_msd(*arguments)
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert suggestion in result.stderr


@pytest.mark.parametrize(
    ("name", "left"), [("download", {"download"}), ("list", {"list"}), ("keys", TOP_LEVEL), ("", TOP_LEVEL)]
)
def test_only_the_named_command_stays_registered(monkeypatch: pytest.MonkeyPatch, name: str, left: set[str]) -> None:
    monkeypatch.setattr(app, "registered_commands", app.registered_commands)
    monkeypatch.setattr(app, "registered_groups", app.registered_groups)
    _unregister_other_commands(name)
    assert {command.name for command in app.registered_commands} == left
    assert bool(app.registered_groups) == (left == TOP_LEVEL)


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["download", "--help"]])
def test_output_to_a_full_disk_is_a_disk_error(arguments: list[str]) -> None:
    with open("/dev/full", "w") as full:
        result = subprocess.run([*MSD, *arguments], check=False, stdout=full, stderr=subprocess.PIPE, text=True)
    assert result.returncode == 6
    assert result.stderr == "msd: cannot write the output: No space left on device: free some space\n"


def test_a_closed_output_pipe_is_not_an_error() -> None:
    with subprocess.Popen([*MSD, "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert (process.wait(), process.stderr.read()) == (0, "")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["download", "--timeout", "0.2", "-p", "1001", "1002", "1003", "1004", "1005"], 7),
        (["list", "-c", "missing.toml"], 2),
        (["status", "-c", "missing.toml"], 2),
    ],
)
def test_a_command_imports_no_large_library_that_it_does_not_use(arguments: list[str], code: int) -> None:
    large_libraries = {"textual", "matplotlib", "prometheus_client", "rich", "numpy", "asyncio"}
    program = (
        f"import sys, msd.cli; sys.argv = ['msd', *sys.argv[1:]]; assert msd.cli._run() == {code};"
        f" print(*sorted({{name.split('.')[0] for name in sys.modules}} & {large_libraries!r}))"
    )
    result = subprocess.run(
        [sys.executable, "-P", "-c", program, *arguments], capture_output=True, text=True, check=True
    )
    assert result.stdout.split() == []
