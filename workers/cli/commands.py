"""The command ``msd worker``.

Defines flags and help texts only. ``workers/cli/joining_worker.py`` is imported when the command runs.
"""

from __future__ import annotations

from typing import Annotated

import typer

from msd.wire.config.cli_flags import ConfigFlag


def worker(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PATH|URL …", help="The files and folders to share.  [as configured]", show_default=False
        ),
    ] = None,
    join: Annotated[
        str | None,
        typer.Option(metavar="HOST[:PORT]", envvar="MSD_JOIN", help="Address of server 5.", show_envvar=False),
    ] = None,
    path: Annotated[str | None, typer.Option("-f", metavar="PATH", help="Another file or folder to share.")] = None,
    server_key: Annotated[
        str | None,
        typer.Option(metavar="KEY", envvar="MSD_SERVER_KEY", help="Public key of server 5.  [none]", show_envvar=False),
    ] = None,
    key_file: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            envvar="MSD_KEY_FILE",
            help="Secret key that is admitted as a worker.  [the only key of msd keys new]",
            show_envvar=False,
        ),
    ] = None,
    listen: Annotated[
        str | None,
        typer.Option(
            metavar="[HOST:]PORT",
            envvar="MSD_LISTEN",
            help="Where to listen for clients.  [a free port from 21018 on]",
            show_envvar=False,
        ),
    ] = None,
    advertise: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            envvar="MSD_ADVERTISE",
            help="Where clients find this worker, if elsewhere: a forwarded port.  [as server 5 sees it]",
            show_envvar=False,
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", envvar="MSD_NAME", help="Name of this worker.  [host name and port]", show_envvar=False
        ),
    ] = None,
    rate: Annotated[
        str | None,
        typer.Option(
            metavar="R",
            envvar="MSD_RATE",
            help="Maximum bytes per second, such as 25MiB.  [no limit]",
            show_envvar=False,
        ),
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
    config: ConfigFlag = None,
) -> int:
    """Share files from this machine as one more worker of servers that run anywhere.

    Flags with a value may also be given as environment variables: MSD_JOIN, MSD_SERVER_KEY, MSD_KEY_FILE, MSD_LISTEN,
    MSD_ADVERTISE, MSD_NAME, MSD_RATE.

    Example: msd worker --join 192.168.1.5 Star.mp4
    """
    from msd.workers.cli.joining_worker import run, worker_options

    return run(
        worker_options(
            config,
            join=join,
            paths=[*(arguments or []), *([path] if path is not None else [])],
            server_key=server_key,
            key_file=key_file,
            listen=listen,
            advertise=advertise,
            name=name,
            rate=rate,
            excludes=exclude or [],
            hidden=hidden,
            follow_links=follow_links,
            keep_index=keep_index,
        )
    )


def mount(app: typer.Typer) -> None:
    """Adds the command to ``app``."""
    app.command("worker")(worker)
