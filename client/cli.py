"""The client's commands: download, list, verify, plot.

Each command imports its modules when it runs, so that ``msd`` starts quickly.
"""

from __future__ import annotations

import contextlib
from datetime import UTC
from typing import TYPE_CHECKING, Annotated

import typer

from msd.wire.config.cli_flags import JsonFlag, ServerFlags, VerboseFlag, with_server_flags

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

    from msd.client.events import OnEvent
    from msd.client.storage.existing_file import Policy

#: Descriptors and threads that a download needs.
FILES, THREADS = 48, 6
#: Seconds that a reader has for the last lines of an interrupted download.
INTERRUPTED_OUTPUT_TIMEOUT_S = 1.0


AnswerTimeoutFlag = Annotated[
    float, typer.Option("--timeout", metavar="SECONDS", help="Give up after SECONDS without an answer.")
]


@with_server_flags
def download(
    flags: ServerFlags,
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME]...",
            help="The shared file, or several files, folders (DIR/) and globs ('*.mkv').  [default: the only file]",
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
        bool, typer.Option("--checksum", help="Compare the content of existing files even if size and time are equal.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be fetched, and write nothing.")] = False,
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
    no_sync: Annotated[bool, typer.Option("--no-sync", help="Do not wait until the data is on the disk.")] = False,
    no_space_check: Annotated[
        bool, typer.Option("--no-space-check", help="Begin even if the disk reports too little free space.")
    ] = False,
    report: Annotated[str | None, typer.Option(metavar="FILE", help="Write a report of the download as JSON.")] = None,
    json: JsonFlag = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print only errors.")] = False,
    verbose: VerboseFlag = False,
) -> None:
    """Download a file, or several files, from all workers at once.

    Example: msd download -i 5 -o finalFile.mp4 -a 127.0.0.1 -p 21018 27215 35416 19222 39223
    """
    from msd.client.display.choose_printer import choose_printer
    from msd.client.report.progress_throttle import ProgressThrottle
    from msd.client.storage.stream import is_standard_output
    from msd.wire.errors import Interrupted, UsageError

    if exclude or checksum or dry_run or _may_be_several(names or []):
        from msd.client.storage.existing_file import Policy

        if not names:
            raise UsageError("--exclude leaves files out of folders and globs: give a NAME, such as '**' for all files")
        single_file_flags = {
            "--id": id,
            "--sha256": sha256,
            "--report": report,
            "--json": json,
            "--verbose": verbose,
        }
        for flag, value in single_file_flags.items():
            if value:
                raise UsageError(f"{flag} is for a single file: download the files one by one, or leave it out")
        _download_several(
            flags,
            names,
            output or ".",
            exclude or [],
            interval=interval,
            policy=Policy(update=update, force=force, checksum=checksum),
            dry_run=dry_run,
            timeout=timeout,
            sync=not no_sync,
            check_space=not no_space_check,
            max_rate=max_rate,
            quiet=quiet,
        )
        return
    name = names[0] if names else None
    to_stdout = is_standard_output(output)
    printer, max_interval = choose_printer(json=json, quiet=quiet, verbose=verbose, to_stdout=to_stdout)
    try:
        _install_signal_handlers()
        if quiet and (json or verbose):
            other = "--json" if json else "--verbose"
            raise UsageError(f"{other} and --quiet contradict each other: give only one")
        _check_seconds("-i", interval)
        _check_seconds("--timeout", timeout)
        if json and to_stdout:
            raise UsageError(f"--json and -o {output} both write to standard output: record the events with --report")
        report_file = None
        if report is not None:
            from msd.client.report.report_file import ReportFile

            report_file = ReportFile(report)
        from msd.client.operations.download import download as run
        from msd.wire.net import limits
        from msd.wire.support.malloc import keep_freed_memory

        keep_freed_memory()
        limits.require(FILES, THREADS, "connections to the servers")
        # The report records all progress; only the printer is throttled.
        on_event: OnEvent = ProgressThrottle(printer.on_event, min(interval, max_interval)).handle
        if report_file is not None:
            on_event = report_file.recorder(on_event)
        with report_file or contextlib.nullcontext(), _name_suggestions(name):
            settings, servers = flags.load()
            settings = settings.with_flags(max_rate=max_rate)
            result = run(
                servers,
                name,
                output,
                id=id,
                sha256=sha256,
                force=force,
                update=update,
                timeout=timeout,
                sync=not no_sync,
                check_space=not no_space_check,
                interval=0.0,
                memory=settings.memory,
                max_rate=settings.max_rate,
                on_event=on_event,
            )
            if report_file is not None:
                report_file.write(result)
        printer.on_done(result)
    except BaseException as error:
        with contextlib.suppress(OSError):
            printer.close(INTERRUPTED_OUTPUT_TIMEOUT_S if isinstance(error, Interrupted) else None)
        raise
    printer.close()


def _may_be_several(names: list[str]) -> bool:
    """True unless the names are none, or the name of a single file."""
    return len(names) > 1 or any(name.endswith("/") or "*" in name or "?" in name for name in names)


def _download_several(
    flags: ServerFlags,
    names: list[str],
    output: str,
    exclude: list[str],
    *,
    interval: float,
    policy: Policy,
    dry_run: bool,
    timeout: float | None,
    sync: bool,
    check_space: bool,
    max_rate: str | None,
    quiet: bool,
) -> None:
    """Downloads several files into the folder ``output``. Raises the error of the first one that failed."""
    import sys
    from pathlib import Path

    from msd.client.display.printers import LinePrinter
    from msd.client.operations.download_files import download_files
    from msd.client.report.progress_throttle import ProgressThrottle
    from msd.client.storage.stream import is_stream
    from msd.client.storage.tree import DESCRIPTORS
    from msd.wire.errors import UsageError
    from msd.wire.net import limits
    from msd.wire.support.output import print_line
    from msd.wire.support.units import format_count, format_duration, format_size

    _install_signal_handlers()
    _check_seconds("-i", interval)
    _check_seconds("--timeout", timeout)
    if is_stream(output):
        raise UsageError(f"-o {output} takes a single file: give a folder for several files")
    limits.require(FILES + DESCRIPTORS, THREADS, "the folders and the connections to the servers")
    settings, servers = flags.load()
    settings = settings.with_flags(max_rate=max_rate)
    printer = LinePrinter(quiet=quiet)
    try:
        report = download_files(
            servers,
            names,
            Path(output),
            exclude=exclude,
            update=policy.update,
            force=policy.force,
            checksum=policy.checksum,
            dry_run=dry_run,
            timeout=timeout,
            sync=sync,
            check_space=check_space,
            memory=settings.memory,
            max_rate=settings.max_rate,
            on_event=ProgressThrottle(printer.on_event, interval).handle,
        )
    finally:
        printer.close()
    if not quiet:
        size, duration = format_size(report.counts.size), format_duration(report.seconds)
        print(f"{format_count(report.counts.fetched, 'file')}, {size} in {duration}: {report.output}")
    failed = [*report.errors.values()]
    for error in failed[1:]:
        print_line(f"msd: {error}", sys.stderr)
    if failed:
        raise failed[0]


@with_server_flags
def list_command(flags: ServerFlags, timeout: AnswerTimeoutFlag = 5.0, json: JsonFlag = False) -> None:
    """List the shared files.

    Example: msd list --json
    """
    from datetime import datetime

    from msd.client.operations.list_files import list_files
    from msd.wire.support.presentable_names import presentable
    from msd.wire.support.units import format_size

    _check_seconds("--timeout", timeout)
    files = list_files(flags.find(), timeout)
    modified = {f.name: datetime.fromtimestamp(f.mtime_ns / 1e9, UTC) for f in files}
    if json:
        from json import dumps

        rows = [
            {
                "name": file.name,
                "size": file.size,
                "modified": modified[file.name].isoformat(),
                "id": (file.id or b"").hex(),
            }
            for file in files
        ]
        print(dumps({"files": rows}))
        return
    for file in files:
        print(f"{format_size(file.size):>10}  {modified[file.name]:%Y-%m-%d %H:%M}  {presentable(file.name)}")


@with_server_flags
def verify(
    flags: ServerFlags,
    file: Annotated[str, typer.Argument(metavar="FILE", help="The local file.")],
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="The shared file.  [default: the only file, or the one with FILE's name]"),
    ] = None,
    sha256: Annotated[
        str | None,
        typer.Option("--sha256", metavar="HEX", help="Compare with this SHA-256; without NAME, ask no server."),
    ] = None,
    timeout: AnswerTimeoutFlag = 5.0,
) -> None:
    """Compare a local file with the shared file, segment by segment.

    Example: msd verify Star.mp4
    """
    from pathlib import Path

    from msd.client.operations.verify import mismatch_lines, verify, verify_sha256
    from msd.wire.errors import SourceError
    from msd.wire.support.units import format_count

    _check_seconds("--timeout", timeout)
    if sha256 is not None:
        print(f"{file} has the SHA-256 {verify_sha256(Path(file), sha256)}")
        if name is None:
            return
    with _name_suggestions(name):
        comparison = verify(flags.find(), Path(file), name, timeout)
    if not comparison.matches:
        if not comparison.is_copy:
            raise SourceError(f"{file} is another file than the shared {comparison.name}: most of the data differs")
        # If the reader closes the pipe early, the exit code still reports the difference.
        with contextlib.suppress(OSError):
            for line in mismatch_lines(comparison):
                print(line)
        repair = f"msd download {comparison.name} --update -o {file}"
        raise SourceError(f"{file} differs from the shared {comparison.name}: repair it with {repair}")
    print(f"{file} matches {comparison.name} ({format_count(comparison.segments, 'segment')} verified)")


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


def mount(app: typer.Typer) -> None:
    """Adds these commands to ``app``."""
    app.command("download")(download)
    app.command("list")(list_command)
    app.command("verify")(verify)
    app.command("plot")(plot)


def _check_seconds(flag: str, seconds: float | None) -> None:
    from msd.wire.errors import UsageError

    if seconds is not None and not seconds > 0:
        raise UsageError(f"{flag} {seconds:g}: must be more than 0 seconds")


@contextlib.contextmanager
def _name_suggestions(name: str | None) -> Iterator[None]:
    """Suggests similar names in the error about a file that is not shared. ``name`` is None if the user omitted it."""
    from msd.wire.errors import NotFoundError

    try:
        yield
    except NotFoundError as error:
        if error.name is None:
            raise
        from msd.client.manifest.name_suggestions import suggestion

        hint = suggestion(error.name, error.names)
        if name is None:
            problem = f"no shared file is named {error.name!r}: give the name of a shared file"
            raise NotFoundError(f"{problem}; {hint}") from None
        raise NotFoundError(f"{error}; {hint}") from None


def _install_signal_handlers() -> None:
    """Makes SIGINT and SIGTERM raise ``Interrupted``. If the parent ignores SIGINT (background job of a script),
    leaves it ignored.
    """
    import signal

    from msd.wire.errors import Interrupted

    def interrupt(number: int, _: FrameType | None) -> None:
        raise Interrupted("interrupted: run the same command to resume", number)

    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, interrupt)
    signal.signal(signal.SIGTERM, interrupt)
