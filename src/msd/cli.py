"""The command ``msd``: registers the commands of all packages, and turns errors into messages and exit codes.

Defines no command itself. ``msd --help`` imports only Typer and the signatures of the commands.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import io
import os
import re
import select
import signal
import sys
from itertools import pairwise
from typing import Annotated, NoReturn, TextIO

# Imports create tens of thousands of long-lived objects; a high GC threshold avoids about 80 useless collections. The
# hot path creates no reference cycles, so the threshold stays high.
gc.set_threshold(50_000)

# During imports, let SIGINT kill the process without a traceback. If the parent ignores SIGINT (background job), leave
# it ignored.
_SIGINT_IS_HANDLED = signal.getsignal(signal.SIGINT) is signal.default_int_handler
if _SIGINT_IS_HANDLED:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import typer  # noqa: E402

from msd.broker.cli import commands, key_commands  # noqa: E402
from msd.client.cli import commands as client_commands  # noqa: E402
from msd.wire.config.cli_flags import Command  # noqa: E402
from msd.workers.cli import commands as worker_commands  # noqa: E402

app = typer.Typer(
    name="msd",
    help="MultiServer Downloader: keeps going when servers fail, and verifies every byte.",
    # Importing rich for Typer's help takes twice as long as all other imports together.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for package in (commands, key_commands, client_commands, worker_commands):
    package.mount(app)
for group in (app, *(registered.typer_instance for registered in app.registered_groups)):
    for command in group.registered_commands if group else ():
        command.cls = Command


def _print_version(requested: bool) -> None:
    if requested:
        from importlib.metadata import version

        print(f"msd {version('multiserver-downloader')}")
        raise typer.Exit()


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    pass


def main() -> NoReturn:
    """Runs the command line and ends the process with the documented exit code."""
    from msd.wire.support import inherited_state

    inherited_state.use_utf8_file_names()
    inherited_state.reset_signals()
    inherited_state.open_closed_streams()
    inherited_state.make_streams_blocking()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # An old terminal may not support all characters: print a question mark for each unsupported one.
            if stream.encoding.lower() not in ("utf-8", "utf8"):
                stream.reconfigure(errors="replace")
            # A local file may have a name that is not UTF-8: print its bytes unchanged.
            elif stream.errors == "strict":
                stream.reconfigure(errors="surrogateescape")
    if _SIGINT_IS_HANDLED:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    _unregister_other_commands(sys.argv[1] if len(sys.argv) > 1 else "")
    code = _run()
    # The exit code is final: ignore signals from here on.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):  # Already reported, or the reader closed the pipe.
            stream.flush()
    # All resources are closed and output flushed; skip interpreter teardown (saves 15 ms).
    os._exit(code)


def _run() -> int:
    try:
        code = int(app(prog_name="msd", standalone_mode=False) or 0)
        sys.stdout.flush()
        return code
    except typer.TyperException as error:
        where = context.command_path if (context := getattr(error, "ctx", None)) else _failed_command()
        return _fail(f"{_reworded(error.format_message().rstrip('.'), where)} (see {where} --help)", 2)
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except SystemExit:
        # Typer exits this way if the output pipe is closed, which is not an error.
        return 0
    except BrokenPipeError:
        return 0
    except Exception as error:
        from msd.wire.errors import Interrupted, MsdError, OutputClosedError

        # A signal may interrupt the standard library where it then fails itself: for example, the start of a thread, or
        # the definition of a class.
        if not isinstance(error, MsdError):
            if isinstance(error.__context__, KeyboardInterrupt):
                return 130
            if isinstance(error.__context__, Interrupted):
                error = error.__context__
        if isinstance(error, OutputClosedError) and "--json" not in sys.argv:
            return error.exit_code
        if isinstance(error, MsdError):
            from msd.wire.config.error_flags import with_flags

            return _fail(with_flags(error), error.exit_code)
        # Errors from writing files were already converted to DiskError; this one is from printing.
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return _fail(f"cannot write the output: {error.strerror}: free some space", 6)
        if os.environ.get("MSD_DEBUG"):
            raise
        problem = f"internal error: {type(error).__name__}: {error}"
        return _fail(f"{problem}: please report it (MSD_DEBUG=1 shows a traceback)", 1)


#: Typer's messages that need other words: a pattern, and the text that replaces it.
_REWORDED = (
    (
        r"Option '(-p|--ports)' requires.*|Invalid value for '-p' / '--ports'.*",
        "-p takes the port of each worker and of server 5, as in -p 21018 27215 35416 19222 39223",
    ),
    (r"Got unexpected extra argument\(s\) \((.*)\)", r"too many arguments: leave out \1"),
    (r"No such command (.*)\. Did you mean (.*)\?", r"no such command \1: did you mean \2?"),
    (r"No such command (.*)", r"no such command \1"),
    (r"Missing command", "a command is needed"),
    (r"Missing (?:argument|option) '([^']+)'", r"\1 is missing"),
    (r"Missing option '([^']+)'\. Choose from: (.*)", r"\1 is missing: give one of \2"),
    (r"No such option: (\S+) \(Possible options: (.*)\)", r"no such option \1: did you mean \2?"),
    (r"No such option: (\S+)", r"no such option \1"),
    (r"Option '([^']+)' requires an argument", r"\1 needs a value"),
    (r"Option '([^']+)' does not take a value", r"\1 takes no value"),
    (r"Invalid value for '([^']+)'.*?: (['\"])(.*)\2 is not a valid int", r"\1 \3: must be a whole number"),
    (r"Invalid value for '([^']+)'.*?: (['\"])(.*)\2 is not a valid float", r"\1 \3: must be a number"),
    (r"Invalid value for '([^']+)'.*?: (['\"])(.*)\2 is not one of (.*)", r"\1 \3: must be one of \4"),
)


def _reworded(message: str, command: str) -> str:
    """Returns one of Typer's error messages in the form of our own messages. ``command`` is the command that failed."""
    # At the prompt of ``msd serve``, -1 quits.
    if command == "msd toggle" and re.fullmatch(r"No such option: -\d", message):
        return f"{message[16:]} is not a worker: give numbers, such as 1 3, or all; msd quit stops the servers"
    for pattern, text in _REWORDED:
        if match := re.fullmatch(pattern, message, re.DOTALL):
            return match.expand(text)
    return message


def _failed_command() -> str:
    """Returns the command whose help explains an error of which Typer does not say where it occurred."""
    names = {command.name for command in app.registered_commands}
    return f"msd {sys.argv[1]}" if len(sys.argv) > 1 and sys.argv[1] in names else "msd"


def _unregister_other_commands(name: str) -> None:
    """Unregisters all commands except ``name``, if there is such a command: Typer prepares the flags of every
    registered command before it runs one, which takes 15 ms.
    """
    commands = [command for command in app.registered_commands if command.name == name]
    if commands:
        app.registered_commands, app.registered_groups = commands, []


def _fail(message: str, code: int) -> int:
    """Prints an error message to standard error and, with ``--json``, an event to standard output, unless that receives
    the file. Returns ``code``.
    """
    from msd.wire.errors import Interrupted

    # Some of Typer's messages have several lines.
    message = " ".join(message.split())
    # A signal ends the wait for a reader that does not read.
    with contextlib.suppress(OSError, KeyboardInterrupt, Interrupted):
        has_event = "--json" in sys.argv and not _writes_file_to_stdout(sys.argv)
        if has_event and (code < 128 or _is_writable(sys.stdout)):
            import json

            print(json.dumps({"event": "error", "code": code, "message": message}), flush=True)
    with contextlib.suppress(OSError, KeyboardInterrupt, Interrupted):
        if code < 128 or _is_writable(sys.stderr):
            print(f"msd: {message}", file=sys.stderr)
    return code


def _is_writable(stream: TextIO) -> bool:
    """False if the stream is a pipe whose reader does not read."""
    return bool(select.select([], [stream], [], 0)[1])


def _writes_file_to_stdout(words: list[str]) -> bool:
    """True if the command line names the standard output as the output. It may be invalid in other respects."""
    from msd.client.storage.stream import is_standard_output

    separate = [word for flag, word in pairwise(words) if flag in ("-o", "--output")]
    joined = [word.removeprefix(flag) for word in words for flag in ("-o", "--output=") if word.startswith(flag)]
    return any(map(is_standard_output, separate + joined))
