"""The client's commands: download, list, verify, plot; and invite, which makes the link for a download.

Each command imports its modules when it runs, so that ``msd`` starts quickly.
"""

from __future__ import annotations

from typing import Annotated

import typer

from msd.wire.config.cli_flags import ConfigFlag, JsonFlag, ServerFlags, VerboseFlag, with_server_flags

AnswerTimeoutFlag = Annotated[
    float, typer.Option("--timeout", metavar="SECONDS", help="Give up after SECONDS without an answer.")
]


@with_server_flags
def download(
    flags: ServerFlags,
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[LINK | NAME...]",
            help="A link (- reads it from standard input), the shared file, or several files, folders (DIR/) and globs"
            " ('*.mkv').  [default: the only file]",
        ),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "-o",
            "--output",
            metavar="OUT",
            help="The file to create, the folder to put it in (DIR/ is made), or - for standard output.  [default: .]",
        ),
    ] = None,
    interval: Annotated[float, typer.Option("-i", metavar="SECONDS", help="Seconds between progress lines.")] = 1.0,
    id: Annotated[
        str | None, typer.Option("--id", metavar="ID", help="The version to download, or the first digits of its id.")
    ] = None,
    sha256: Annotated[
        str | None, typer.Option("--sha256", metavar="HEX", help="Fail unless the file has this SHA-256.")
    ] = None,
    update: Annotated[
        bool, typer.Option("--update", help="Reuse an existing OUT: fetch only the differences.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace OUT if it exists.")] = False,
    checksum: Annotated[
        bool, typer.Option("--checksum", help="Keep existing files only if they have the shared content.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print which files would be fetched, and write nothing.")
    ] = False,
    exclude: Annotated[
        list[str] | None, typer.Option("--exclude", metavar="GLOB", help="Leave these files out of folders and globs.")
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="Give up after SECONDS without progress.  [default: never]"),
    ] = None,
    max_rate: Annotated[
        str | None, typer.Option("--max-rate", metavar="R", help="Maximum bytes per second, such as 5MiB.  [no limit]")
    ] = None,
    pass_on: Annotated[
        bool, typer.Option("--pass-on", help="Pass on to other downloads what this one has received.")
    ] = False,
    listen: Annotated[
        str | None,
        typer.Option("--listen", metavar="[HOST:]PORT", help="Where to listen for them.  [a free port from 24018 on]"),
    ] = None,
    max_upload: Annotated[
        str | None, typer.Option("--max-upload", metavar="R", help="Maximum bytes per second passed on.  [no limit]")
    ] = None,
    keep_serving: Annotated[
        str | None,
        typer.Option("--keep-serving", metavar="TIME", help="Go on passing on after the end, such as 90m or 12h."),
    ] = None,
    no_sync: Annotated[bool, typer.Option("--no-sync", help="Do not wait until the data is on the disk.")] = False,
    no_space_check: Annotated[
        bool, typer.Option("--no-space-check", help="Begin even if the disk reports too little free space.")
    ] = False,
    report: Annotated[str | None, typer.Option(metavar="FILE", help="Write a report of the download as JSON.")] = None,
    json: JsonFlag = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print only errors.")] = False,
    verbose: VerboseFlag = False,
) -> int:
    """Download a file, or several files, from all workers at once.

    Example: msd download -i 5 -o finalFile.mp4 -a 127.0.0.1 -p 21018 27215 35416 19222 39223

    Folders: msd download photos/ 'docs/*.pdf' -o copies/
    """
    from msd.client.cli.download_command import DownloadFlags, run

    options = DownloadFlags(
        names=tuple(names or ()),
        output=output,
        interval=interval,
        id=id,
        sha256=sha256,
        update=update,
        force=force,
        checksum=checksum,
        dry_run=dry_run,
        exclude=tuple(exclude or ()),
        timeout=timeout,
        max_rate=max_rate,
        pass_on=pass_on,
        listen=listen,
        max_upload=max_upload,
        keep_serving=keep_serving,
        sync=not no_sync,
        check_space=not no_space_check,
        report=report,
        json=json,
        quiet=quiet,
        verbose=verbose,
    )
    return run(flags, options)


@with_server_flags
def list_command(
    flags: ServerFlags,
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME]...", help="Only these files, folders (DIR/) and globs ('*.mkv').  [default: all files]"
        ),
    ] = None,
    long: Annotated[
        bool, typer.Option("--long", help="Print permissions, folders, and the first digits of the ids, too.")
    ] = False,
    timeout: AnswerTimeoutFlag = 5.0,
    json: JsonFlag = False,
) -> None:
    """List the shared files.

    Example: msd list 'photos/**/*.jpg' --long
    """
    from msd.client.cli.link_argument import find_servers, link_refusals
    from msd.client.cli.list_command import run

    _check_seconds("--timeout", timeout)
    servers, selected = find_servers(names or [], flags)
    with link_refusals(names or []):
        run(servers, selected, timeout=timeout, long=long, as_json=json)


@with_server_flags
def verify(
    flags: ServerFlags,
    path: Annotated[str, typer.Argument(metavar="PATH", help="The local file or folder.")],
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME",
            help="The shared file or folder, . for everything.  [default: the one with PATH's base name, the only file,"
            " or for a folder everything]",
        ),
    ] = None,
    sha256: Annotated[
        str | None,
        typer.Option("--sha256", metavar="HEX", help="Compare with this SHA-256; without NAME, ask no server."),
    ] = None,
    timeout: AnswerTimeoutFlag = 5.0,
    json: JsonFlag = False,
) -> None:
    """Compare a local file or folder with the shared one.

    Example: msd verify Star.mp4
    """
    from msd.client.cli.verify_command import run

    _check_seconds("--timeout", timeout)
    run(flags, path, name, sha256=sha256, timeout=timeout, as_json=json)


def plot(
    report: Annotated[str, typer.Argument(metavar="REPORT", help="A report written by msd download --report.")],
    output: Annotated[
        str, typer.Option("-o", "--output", metavar="FILE", help="The file to create (.svg, .png or .pdf).")
    ],
) -> None:
    """Draw a chart of a download: rates and events over time.

    Example: msd plot report.json -o run.svg
    """
    from msd.client.report.chart import plot as draw

    draw(report, output)


def invite(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The shared file or folder; . for everything.")],
    valid_for: Annotated[
        str, typer.Option("--for", metavar="TIME", help="How long it is valid, such as 90m, 12h, 7d, or unlimited.")
    ] = "24h",
    config: ConfigFlag = None,
    host: Annotated[str | None, typer.Option("-a", metavar="HOST", help="IP address of the servers.")] = None,
    server5: Annotated[
        str | None,
        typer.Option("--server5", metavar="HOST[:PORT]", help="Address of server 5 for others.  [as configured]"),
    ] = None,
) -> None:
    """Make a link for a file or folder (run on the servers' machine).

    Example: msd invite Star.mp4 --for 7d
    """
    from msd.client.cli.invite_command import run
    from msd.wire.config.settings import load

    run(load(config).with_flags(host=host), name, valid_for, server5)


def mount(app: typer.Typer) -> None:
    """Adds these commands to ``app``."""
    app.command("download")(download)
    app.command("list")(list_command)
    app.command("verify")(verify)
    app.command("invite")(invite)
    app.command("plot")(plot)


def _check_seconds(flag: str, seconds: float | None) -> None:
    from msd.wire.errors import UsageError

    if seconds is not None and not seconds > 0:
        raise UsageError(f"{flag} {seconds:g}: must be more than 0 seconds")
