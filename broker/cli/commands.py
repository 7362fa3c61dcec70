"""The commands of the operator's side: serve, status, toggle, quit, console, demo.

Imports nothing heavy: what a command needs is imported when it runs.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Annotated

import typer

from msd.wire.config.cli_flags import (
    ConfigFlag,
    HostFlag,
    JsonFlag,
    Ports,
    PortsFlag,
    Server5Flag,
    ServerKeyFlag,
    VerboseFlag,
)

if TYPE_CHECKING:
    from msd.broker.operator.operator_client import OperatorClient


def serve(
    config: ConfigFlag = None,
    interval: Annotated[float | None, typer.Option("-i", metavar="SECONDS", help="Status interval.")] = None,
    count: Annotated[int | None, typer.Option("-n", metavar="N", help="Number of workers.")] = None,
    path: Annotated[str | None, typer.Option("-f", metavar="PATH", help="The file or folder to share.")] = None,
    host: Annotated[str | None, typer.Option("-a", metavar="HOST", help="IP address to serve on.")] = None,
    ports: PortsFlag = None,
    rate: Annotated[
        str | None, typer.Option(metavar="R", help="Limit each worker, in bytes a second (like 25MiB).  [none]")
    ] = None,
    until_done: Annotated[bool, typer.Option("--until-done", help="End when a client has everything.")] = False,
    plain: Annotated[bool, typer.Option("--plain", help="Print the status table and read choices as lines.")] = False,
    verbose: VerboseFlag = False,
) -> int:
    """Share a file or a folder from several worker processes.

    Example: msd serve -i 2 -n 4 -f Star.mp4 -a 127.0.0.1 -p 21018 27215 35416 19222 39223
    """
    from msd.broker.server import serve as run
    from msd.broker.terminal.console_process import console_command, is_terminal
    from msd.wire.config.settings import load

    settings = load(config).with_flags(path=path, interval=interval, count=count, host=host, ports=ports, rate=rate)
    console = None if plain or not is_terminal() else console_command(config, host, ports)
    return run(settings.checked().resolved(), until_done=until_done, console=console, verbose=verbose)


def status(
    config: ConfigFlag = None,
    host: HostFlag = None,
    ports: PortsFlag = None,
    server5: Server5Flag = None,
    server_key: ServerKeyFlag = None,
    json: JsonFlag = False,
    watch: Annotated[bool, typer.Option("--watch", help="Print each status that server 5 publishes.")] = False,
) -> None:
    """Show what every worker is doing.

    Example: msd status --json
    """
    from msd.broker.operator.status_command import show
    from msd.wire.config.settings import load, locate_servers

    show(
        locate_servers(load(config), host=host, ports=ports, server5=server5, server_key=server_key),
        json=json,
        watch=watch,
    )


def toggle(
    # At most ``msd.wire.config.toml_file.MAX_WORKERS``, which would be heavy to import here.
    numbers: Annotated[list[int], typer.Argument(metavar="N …", min=1, max=64, help="The workers' numbers.")],
    config: ConfigFlag = None,
    host: HostFlag = None,
    ports: PortsFlag = None,
    server5: Server5Flag = None,
    server_key: ServerKeyFlag = None,
    sleep: Annotated[bool, typer.Option("--sleep", help="Shut them down, whatever they are.")] = False,
    wake: Annotated[bool, typer.Option("--wake", help="Wake them up, whatever they are.")] = False,
) -> None:
    """Shut workers down, or wake them up.

    Example: msd toggle 1 3
    """
    from msd.wire.errors import NoAnswerError, UsageError
    from msd.wire.protocol.states import WantedState

    if sleep and wake:
        raise UsageError("--sleep and --wake contradict each other: give one of them")
    want = WantedState.ASLEEP if sleep else WantedState.AWAKE if wake else None
    late = []
    with _operator(config, host, ports, server5, server_key) as operator:
        for number in numbers:
            toggled = operator.toggle(number, want)
            # Nobody reads any more: no reason to leave the other workers as they are.
            with contextlib.suppress(BrokenPipeError):
                print(f"worker {number}: {toggled.state}", flush=True)
            if not toggled.reached:
                late.append(str(number))
    if late:
        raise NoAnswerError(f"worker {', '.join(late)} did not get there within 3 s: see msd status")


def quit(
    config: ConfigFlag = None,
    host: HostFlag = None,
    ports: PortsFlag = None,
    server5: Server5Flag = None,
    server_key: ServerKeyFlag = None,
) -> None:
    """End the servers in an orderly way.

    Example: msd quit -a 127.0.0.1 -p 21018 27215 35416 19222 39223
    """
    with _operator(config, host, ports, server5, server_key) as operator:
        operator.quit()
        workers = len(operator.latest.workers)
    # Nobody reads any more: the servers end all the same.
    with contextlib.suppress(BrokenPipeError):
        print(f"server 5 and its {workers} workers are ending", flush=True)


def console(
    config: ConfigFlag = None,
    host: HostFlag = None,
    ports: PortsFlag = None,
    server5: Server5Flag = None,
    server_key: ServerKeyFlag = None,
    supervisor: Annotated[int | None, typer.Option(hidden=True)] = None,
) -> int:
    """Watch the servers and toggle workers on the whole terminal.

    Example: msd console --server5 192.168.1.5:39223
    """
    from msd.broker.operator.operator_client import OperatorClient
    from msd.broker.terminal.console_process import is_terminal
    from msd.wire.config.settings import load, locate_servers
    from msd.wire.errors import UsageError

    if not is_terminal():
        raise UsageError("msd console needs a terminal in the foreground: use msd status --watch elsewhere")
    found = locate_servers(load(config), host=host, ports=ports, server5=server5, server_key=server_key)
    if supervisor is None:
        # What is wrong from the beginning is said where it stays to be read.
        OperatorClient(found).close()
    from msd.broker.operator.console_app import run

    return run(found, supervisor)


def demo(
    size: Annotated[str, typer.Option(metavar="BYTES", help="Size of the file.")] = "256MiB",
    seconds: Annotated[float, typer.Option(metavar="SECONDS", help="How long it should take.")] = 10.0,
) -> int:
    """Watch a download go on while workers sleep and die.

    Example: msd demo
    """
    from msd.broker.cli.demo import run

    return run(size, seconds)


def mount(app: typer.Typer) -> None:
    """Adds these commands to ``app``."""
    for command in (serve, status, toggle, quit, console, demo):
        app.command(command.__name__)(command)  # The name is what ``msd.py`` finds it by.


def _operator(
    config: str | None, host: str | None, ports: Ports | None, server5: str | None, server_key: str | None
) -> OperatorClient:
    from msd.broker.operator.operator_client import OperatorClient
    from msd.wire.config.settings import load, locate_servers

    return OperatorClient(locate_servers(load(config), host=host, ports=ports, server5=server5, server_key=server_key))
