"""The operator's commands: serve, status, health, toggle, quit, console, demo.

Defines flags and help texts only. Each command imports its implementation when it runs, which keeps ``msd --help``
fast.
"""

from __future__ import annotations

import contextlib
import sys
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from msd.wire.config.cli_flags import ConfigFlag, JsonFlag, ServerFlags, ServerPortsFlag, VerboseFlag, with_server_flags

if TYPE_CHECKING:
    from msd.wire.config.invitations import Invitation
    from msd.wire.config.servers import Servers
    from msd.wire.config.settings import Config


def serve(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PATH|URL …", help="The files and folders to share.  [as configured]", show_default=False
        ),
    ] = None,
    config: ConfigFlag = None,
    interval: Annotated[
        float | None, typer.Option("-i", metavar="SECONDS", help="Seconds between status updates.")
    ] = None,
    count: Annotated[
        int | None,
        typer.Option(
            "-n", metavar="N", help="Number of workers; 0 if all of them join from elsewhere.  [as configured, or 4]"
        ),
    ] = None,
    path: Annotated[str | None, typer.Option("-f", metavar="PATH", help="Another file or folder to share.")] = None,
    host: Annotated[str | None, typer.Option("-a", metavar="HOST", help="IP address to listen on.")] = None,
    ports: ServerPortsFlag = None,
    rate: Annotated[
        str | None, typer.Option(metavar="R", help="Maximum bytes per second per worker, such as 25MiB.  [no limit]")
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(metavar="GLOB", help="Leave out files or folders, such as '*.tmp'; may be repeated."),
    ] = None,
    hidden: Annotated[bool, typer.Option("--hidden", help="Share hidden files inside shared folders, too.")] = False,
    follow_links: Annotated[
        bool, typer.Option("--follow-links", help="Follow links that lead out of a shared folder.")
    ] = False,
    keep_index: Annotated[
        bool, typer.Option("--keep-index", help="Keep the index of an object store there, for other hosts.")
    ] = False,
    until_done: Annotated[
        bool, typer.Option("--until-done", help="Exit once a client has finished downloading.")
    ] = False,
    plain: Annotated[
        bool,
        typer.Option(
            "--plain", help="Print the status table and read choices line by line instead of showing the console."
        ),
    ] = False,
    verbose: VerboseFlag = False,
) -> int:
    """Share files and folders from several worker processes.

    Example: msd serve -i 2 -n 4 -f Star.mp4 -a 127.0.0.1 -p 21018 27215 35416 19222 39223
    """
    from msd.broker.start_up import serve as run
    from msd.broker.terminal.console_process import can_show_console, console_command
    from msd.wire.config.invitations import offered_name
    from msd.wire.config.settings import load

    settings = load(config)
    if ports is not None and count is None:
        # The five ports of the report are for four workers, whatever the file configures.
        count = 4 if len(ports) == 5 else len(settings.workers)
    paths = [*(arguments or []), *([path] if path is not None else [])]
    if settings.is_only_broker and not paths and count is None:
        count = 0
    settings = settings.with_flags(
        paths=paths,
        excludes=exclude or [],
        hidden=hidden,
        follow_links=follow_links,
        keep_index=keep_index,
        interval=interval,
        count=count,
        host=host,
        ports=ports,
        rate=rate,
    )
    resolved = settings.checked().resolved(lambda reason, _: print(f"msd: {reason}", file=sys.stderr))
    has_console = not plain and can_show_console()
    console = partial(console_command, config, host, offered_name(resolved)) if has_console else None
    if resolved.status.is_loopback and not settings.status.is_loopback:
        print(f"msd: only this machine can reach {settings.host} ({resolved.host}): check -a", file=sys.stderr)
    return run(resolved, until_done=until_done, console=console, verbose=verbose)


@with_server_flags
def status(
    flags: ServerFlags,
    json: JsonFlag = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Keep running and print the status again whenever server 5 publishes it.")
    ] = False,
) -> None:
    """Show the state of every worker and the latest events.

    Example: msd status --json
    """
    from msd.broker.operator.status_command import show

    show(flags.find(), json=json, watch=watch)


@with_server_flags
def health(
    flags: ServerFlags,
    worker: Annotated[
        str | None,
        typer.Option(
            metavar="[HOST:]PORT",
            envvar="MSD_LISTEN",
            help="Look for a worker there instead of asking server 5.",
            show_envvar=False,
        ),
    ] = None,
) -> None:
    """Exit with 0 if server 5 is ready, or if a worker is there; otherwise with 1 and the reason.

    The variable MSD_LISTEN stands for --worker, as it stands for --listen in msd worker.

    Example: msd health --worker 21018
    """
    from msd.broker.operator.health import check_broker, check_worker
    from msd.wire.errors import UsageError

    if worker is not None and any(flags):
        raise UsageError("--worker (or MSD_LISTEN) is an address of its own: give no other flag with it")
    print(check_broker(flags.find()) if worker is None else check_worker(worker), flush=True)


@with_server_flags
def toggle(
    flags: ServerFlags,
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="N …", help="Numbers or names of workers, or all.", show_default=False),
    ] = None,
    sleep: Annotated[bool, typer.Option("--sleep", help="Shut down (do not toggle).")] = False,
    wake: Annotated[bool, typer.Option("--wake", help="Wake up (do not toggle).")] = False,
) -> None:
    """Shut workers down or wake them up.

    Example: msd toggle 1 3
    """
    from msd.broker.operator.worker_selection import check_words, select_workers
    from msd.broker.status.worker_names import worker_label
    from msd.wire.errors import NoAnswerError, UsageError
    from msd.wire.protocol.states import WantedState, WorkerState

    if sleep and wake:
        raise UsageError("--sleep and --wake contradict each other: give only one of them")
    wanted = WantedState.ASLEEP if sleep else WantedState.AWAKE if wake else None
    check_words(words or [])
    from msd.broker.operator.operator_client import OperatorClient

    unchanged: list[str] = []
    lost: list[str] = []
    with OperatorClient(flags.find()) as operator:
        for worker in select_workers(words or [], operator.latest.workers):
            label = worker_label(worker.number, worker.name)
            toggled = operator.toggle(worker.number, wanted)
            # If the output pipe is closed, still toggle the remaining workers.
            with contextlib.suppress(BrokenPipeError):
                print(f"worker {label}: {toggled.state}", flush=True)
            if not toggled.reached:
                (lost if toggled.state == WorkerState.LOST else unchanged).append(label)
    problems = []
    if unchanged:
        workers = "worker" if len(unchanged) == 1 else "workers"
        problems.append(f"{workers} {', '.join(unchanged)} did not change state within 3 s: see msd status")
    problems += [f"worker {label} is lost, and gets the order when it returns" for label in lost]
    if problems:
        raise NoAnswerError("; ".join(problems))


@with_server_flags
def quit(flags: ServerFlags) -> None:
    """Shut down the broker and the workers that it has started.

    Example: msd quit -a 127.0.0.1 -p 21018 27215 35416 19222 39223
    """
    from msd.broker.operator.operator_client import OperatorClient
    from msd.broker.views.status_table import quit_line

    with OperatorClient(flags.find()) as operator:
        operator.quit()
        line = quit_line(operator.latest)
    # The servers shut down even if the output pipe is closed.
    with contextlib.suppress(BrokenPipeError):
        print(line, flush=True)


@with_server_flags
def console(
    flags: ServerFlags,
    supervisor: Annotated[int | None, typer.Option(hidden=True)] = None,
    invite: Annotated[str | None, typer.Option(hidden=True)] = None,
) -> int:
    """Watch the servers and toggle workers in a full-screen console.

    Example: msd console --server5 192.168.1.5:39223
    """
    from msd.broker.operator.operator_client import OperatorClient
    from msd.broker.terminal.console_process import can_show_console
    from msd.wire.errors import UsageError

    if not can_show_console():
        raise UsageError("msd console needs a terminal in the foreground: use msd status --watch instead")
    settings, servers = flags.load()
    if supervisor is None:
        # Fail before the full-screen console starts, so that the error message stays visible.
        OperatorClient(servers).close()
    from msd.broker.operator.run_console import run

    offer = partial(_offer, settings.with_flags(host=flags.host), servers, invite) if invite is not None else None
    return run(servers, supervisor, offer)


def _offer(settings: Config, servers: Servers, name: str) -> Invitation:
    """Returns the invitation for ``name`` that the console of ``msd serve`` shows. Raises ``MsdError``."""
    import time

    from msd.wire.config.invitations import address_for_others, standing_invitation

    # Its port may be another one than that of the configuration.
    status = settings.status.at_port(servers.status.port)
    return standing_invitation(settings.key_folder, address_for_others(status), name, now=time.time())


def demo(
    size: Annotated[str, typer.Option(metavar="BYTES", help="Size of the test file.")] = "256MiB",
    seconds: Annotated[float, typer.Option(metavar="SECONDS", help="Approximate duration.")] = 10.0,
) -> int:
    """Run a demo download while workers are put to sleep and killed.

    Example: msd demo
    """
    from msd.broker.cli.demo import run

    return run(size, seconds)


def mount(app: typer.Typer) -> None:
    """Adds these commands to ``app``."""
    for command in (serve, status, health, toggle, quit, console, demo):
        app.command(command.__name__)(command)  # ``msd/cli.py`` looks commands up by this name.
