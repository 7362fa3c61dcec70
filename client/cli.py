"""The commands of the client's side: download, list, verify, plot.

Imports nothing heavy: what a command needs is imported when it runs.
"""

from __future__ import annotations

import math
from datetime import UTC
from typing import TYPE_CHECKING, Annotated

import typer

from msd.wire.config.cli_flags import ConfigFlag, HostFlag, JsonFlag, PortsFlag, Server5Flag, ServerKeyFlag, VerboseFlag

if TYPE_CHECKING:
    from types import FrameType

    from msd.client.display.printers import Printer


def download(
    name: Annotated[str | None, typer.Argument(help="The shared file, if there are several.")] = None,
    config: ConfigFlag = None,
    host: HostFlag = None,
    ports: PortsFlag = None,
    server5: Server5Flag = None,
    server_key: ServerKeyFlag = None,
    output: Annotated[str | None, typer.Option("-o", "--output", metavar="OUT", help="The file to create.")] = None,
    interval: Annotated[float, typer.Option("-i", metavar="SECONDS", help="Time between two metrics.")] = 1.0,
    id: Annotated[
        str | None, typer.Option("--id", metavar="ID", help="The version to fetch, as msd list --json shows.")
    ] = None,
    update: Annotated[
        bool, typer.Option("--update", help="Fetch only what OUT lacks, and leave it alone if it is right.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace OUT if it exists.")] = False,
    timeout: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="Give up after so long without progress.")
    ] = None,
    no_sync: Annotated[bool, typer.Option("--no-sync", help="Do not wait for the disk at the end.")] = False,
    report: Annotated[str | None, typer.Option(metavar="FILE", help="Write a report of the download, as JSON.")] = None,
    json: JsonFlag = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")] = False,
    verbose: VerboseFlag = False,
) -> None:
    """Download a file from all its servers at once.

    Example: msd download -i 5 -o finalFile.mp4 -a 127.0.0.1 -p 21018 27215 35416 19222 39223
    """
    from msd.client.report.report_file import ReportFile
    from msd.wire.config.settings import load, locate_servers
    from msd.wire.errors import UsageError

    shown, pace = _choose_show(json=json, quiet=quiet, verbose=verbose)
    try:
        _catch_signals()
        if quiet and (json or verbose):
            other = "--json" if json else "--verbose"
            raise UsageError(f"{other} and --quiet contradict each other: give one of them")
        for flag, seconds in (("-i", interval), ("--timeout", timeout)):
            if seconds is not None and not seconds > 0:
                raise UsageError(f"{flag} {seconds:g}: must be seconds above 0")
        if output in ("", "-"):
            raise UsageError(f"-o {output}: a download is written to a file; give its name")
        record = ReportFile(report)
        settings = load(config)
        from pathlib import Path

        from msd.client.operations.download import download as run
        from msd.wire.support.malloc import keep_freed_memory

        keep_freed_memory()
        with record:
            result = run(
                locate_servers(settings, host=host, ports=ports, server5=server5, server_key=server_key),
                name,
                Path(output) if output is not None else None,
                id=_parse_id(id),
                force=force,
                update=update,
                timeout=timeout,
                sync=not no_sync,
                interval=min(interval, pace),
                memory=settings.memory,
                on_event=record.listener(shown.event),
            )
            record.done(result)
        shown.done(result)
    finally:
        shown.close()


def list_command(
    config: ConfigFlag = None,
    host: HostFlag = None,
    ports: PortsFlag = None,
    server5: Server5Flag = None,
    server_key: ServerKeyFlag = None,
    json: JsonFlag = False,
) -> None:
    """List the shared files.

    Example: msd list --json
    """
    from datetime import datetime

    from msd.client.operations.list_files import list_files
    from msd.wire.config.settings import load, locate_servers
    from msd.wire.support.text import presentable
    from msd.wire.support.units import amount

    files = list_files(locate_servers(load(config), host=host, ports=ports, server5=server5, server_key=server_key))
    modified = {f.name: datetime.fromtimestamp(f.mtime_ns / 1e9, UTC) for f in files}
    if json:
        from json import dumps

        rows = [
            {"name": f.name, "size": f.size, "modified": modified[f.name].isoformat(), "id": f.id.hex()} for f in files
        ]
        print(dumps({"files": rows}))
        return
    for file in files:
        print(f"{amount(file.size):>10}  {modified[file.name]:%Y-%m-%d %H:%M}  {presentable(file.name)}")


def verify(
    file: Annotated[str, typer.Argument(metavar="FILE", help="The file on this disk.")],
    name: Annotated[
        str | None, typer.Argument(help="The shared file.  [the only one, or the one that is called like FILE]")
    ] = None,
    config: ConfigFlag = None,
    host: HostFlag = None,
    ports: PortsFlag = None,
    server5: Server5Flag = None,
    server_key: ServerKeyFlag = None,
) -> None:
    """Compare a file with the one that is shared, segment by segment.

    Example: msd verify Star.mp4
    """
    import contextlib
    from pathlib import Path

    from msd.client.operations.verify import mismatches, verify
    from msd.wire.config.settings import load, locate_servers
    from msd.wire.errors import SourceError

    verdict = verify(
        locate_servers(load(config), host=host, ports=ports, server5=server5, server_key=server_key), Path(file), name
    )
    if not verdict.is_same:
        # Whoever reads only the first lines is told by the exit code all the same.
        with contextlib.suppress(OSError):
            for line in mismatches(verdict):
                print(line)
        raise SourceError(
            f"{file} is not {verdict.name} as it is shared: msd download {verdict.name} --update -o {file} mends it"
        )
    print(f"{file}: {verdict.name} as it is shared, all {verdict.segments} segments of it")


def plot(
    report: Annotated[str, typer.Argument(metavar="REPORT", help="What msd download --report has written.")],
    output: Annotated[
        str, typer.Option("-o", "--output", metavar="FILE", help="The picture: a file named .svg, .png or .pdf.")
    ],
) -> None:
    """Draw a download as a picture: the rate by worker over time, and what happened to whom.

    Example: msd plot report.json -o run.svg
    """
    from msd.client.report.chart import plot as draw

    draw(report, output)


def mount(app: typer.Typer) -> None:
    """Adds these commands to ``app``."""
    app.command("download")(download)
    app.command("list")(list_command)
    app.command("verify")(verify)
    app.command("plot")(plot)


def _parse_id(text: str | None) -> bytes | None:
    from msd.wire.errors import UsageError

    if text is None:
        return None
    try:
        id = bytes.fromhex(text)
    except ValueError:
        id = b""
    if len(id) != 32:
        raise UsageError(f"--id {text}: an id is 64 hexadecimal digits; msd list --json shows them")
    return id


def _choose_show(*, json: bool, quiet: bool, verbose: bool) -> tuple[Printer, float]:
    """How the download is shown, and how often (seconds) that needs to know how far it is."""
    import os
    import sys

    from msd.client.display.printers import JsonPrinter, LinePrinter, LogPrinter

    if verbose:
        # Nothing else may be drawn on standard error then.
        return LogPrinter(JsonPrinter() if json else LinePrinter(quiet=True, result=True)), math.inf
    if json:
        return JsonPrinter(), math.inf
    if quiet or not sys.stderr.isatty() or os.environ.get("TERM", "dumb") in ("", "dumb"):
        return LinePrinter(quiet=quiet), math.inf
    from msd.client.display.live_view import LIVE_INTERVAL, LiveView

    return LiveView(sys.stderr), LIVE_INTERVAL


def _catch_signals() -> None:
    """Has SIGINT and SIGTERM end the download in order."""
    import signal

    from msd.wire.errors import Interrupted

    def interrupt(number: int, _: FrameType | None) -> None:
        raise Interrupted("interrupted: run the same command again to go on", number)

    signal.signal(signal.SIGINT, interrupt)
    signal.signal(signal.SIGTERM, interrupt)
