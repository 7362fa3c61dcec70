"""The command ``msd``: mounts each folder's commands, and turns errors into lines and exit codes.

Does nothing else. ``msd --help`` imports Typer and the signatures of the commands, no more.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import io
import os
import re
import signal
import sys
from typing import Annotated, NoReturn

# What is imported makes tens of thousands of objects, none of which is garbage: not worth looking at 80 times. It
# stays so: what comes a thousand times a second makes no cycles.
gc.set_threshold(50_000)

# Until the command runs, Ctrl-C simply ends the process: Python would show where in an import it was.
# One that is ignored, as in the background of a shell, stays so.
_PYTHONS_OWN = signal.getsignal(signal.SIGINT) is signal.default_int_handler
if _PYTHONS_OWN:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import typer  # noqa: E402

from msd.broker.cli import commands, key_commands  # noqa: E402
from msd.client import cli as client_commands  # noqa: E402

app = typer.Typer(
    name="msd",
    help="MultiServer Downloader: the download that does not stop, does not lie and does not wait.",
    # Typer's rich help takes twice as long to import as all the rest.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
commands.mount(app)
key_commands.mount(app)
client_commands.mount(app)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"msd {version('multiserver-downloader')}")
        raise typer.Exit()


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    pass


def main() -> NoReturn:
    """Runs the command line and ends the process with the documented exit code."""
    # Started with a closed stream, as by ">&-": what is printed there goes nowhere.
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w"))
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):
            # An old terminal may not know all characters: each of them is a question mark there.
            if stream.encoding.lower() not in ("utf-8", "utf8"):
                stream.reconfigure(errors="replace")
            # A file of the user may have a name that is not UTF-8: it is shown as it is.
            elif stream.errors == "strict":
                stream.reconfigure(errors="surrogateescape")
    if _PYTHONS_OWN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    _leave_only(sys.argv[1] if len(sys.argv) > 1 else "")
    code = _run()
    # The result stands; nothing is left to be interrupted.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):  # That was told already, or there is nobody to tell.
            stream.flush()
    # Everything is closed and said: taking the interpreter apart, object by object, would take 15 ms.
    os._exit(code)


def _run() -> int:
    try:
        code = int(app(prog_name="msd", standalone_mode=False) or 0)
        sys.stdout.flush()
        return code
    except typer.TyperException as error:
        where = context.command_path if (context := getattr(error, "ctx", None)) else "msd"
        message = error.format_message().rstrip(".")
        # Too few; or a flag was taken for one of them.
        if re.match(r"Option '(-p|--ports)' requires|Invalid value for '-p' / '--ports': '-", message):
            return _fail("-p takes five ports, of four workers and of server 5: -p 21018 27215 35416 19222 39223", 2)
        return _fail(f"{message} (see {where} --help)", 2)
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except SystemExit:
        # Typer's way to end at a closed pipe, which is not an error.
        return 0
    except BrokenPipeError:
        return 0
    except Exception as error:
        from msd.wire.errors import MsdError

        if isinstance(error, MsdError):
            return _fail(str(error), error.exit_code)
        # All other disks have been told of by then.
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return _fail(f"cannot print: {error.strerror}: make room where the output goes", 6)
        if os.environ.get("MSD_DEBUG"):
            raise
        return _fail(f"a bug: {type(error).__name__}: {error} (MSD_DEBUG=1 shows where; please report it)", 1)


def _leave_only(name: str) -> None:
    """Leaves no command but the one of this name for the rest of this process, if there is one: Typer works out the
    flags of all of them before it runs one, which takes 15 ms.
    """
    commands = [command for command in app.registered_commands if command.name == name]
    if commands:
        app.registered_commands, app.registered_groups = commands, []


def _fail(message: str, code: int) -> int:
    """Says what was wrong, to people and with ``--json`` to programs, too."""
    # Some of Typer's are of several lines.
    message = " ".join(message.split())
    if "--json" in sys.argv:
        import json

        with contextlib.suppress(OSError):
            print(json.dumps({"event": "error", "code": code, "message": message}), flush=True)
    with contextlib.suppress(OSError):
        print(f"msd: {message}", file=sys.stderr)
    return code
