"""``msd download``: runs the download of a file, or of several files, and shows it.

Parses no command line: ``client/cli/commands.py`` does. What is printed is decided in ``client/display``.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable
from types import FrameType

from msgspec import Struct
from msgspec.structs import replace

from msd.client.cli.link_argument import find_link, follow, link_error
from msd.client.display.choose_printer import choose_printer
from msd.client.events import FilesReport, OnEvent, Report
from msd.client.report.progress_throttle import ProgressThrottle
from msd.client.storage.stream import is_standard_output, is_stream
from msd.wire.config.cli_flags import ServerFlags
from msd.wire.config.servers import Servers
from msd.wire.config.settings import Config
from msd.wire.config.toml_file import parse_duration, parse_size
from msd.wire.errors import Interrupted, NotAllowedError, NotFoundError, UsageError
from msd.wire.net import limits
from msd.wire.support.malloc import keep_freed_memory

#: Descriptors and threads that a download needs.
FILES, THREADS = 48, 6
#: Seconds that a reader has for the last lines of an interrupted download.
INTERRUPTED_OUTPUT_TIMEOUT_S = 1.0


class DownloadFlags(Struct, frozen=True, kw_only=True):
    """The NAMEs and flags of ``msd download``, without those that locate the servers."""

    names: tuple[str, ...]
    output: str | None
    interval: float
    id: str | None
    sha256: str | None
    update: bool
    force: bool
    checksum: bool
    dry_run: bool
    exclude: tuple[str, ...]
    timeout: float | None
    max_rate: str | None
    pass_on: bool
    listen: str | None
    max_upload: str | None
    keep_serving: str | None
    sync: bool
    check_space: bool
    report: str | None
    json: bool
    quiet: bool
    verbose: bool


def run(server_flags: ServerFlags, flags: DownloadFlags) -> int:
    """Downloads what the flags say and returns the exit code. Raises ``MsdError``."""
    to_stdout = is_standard_output(flags.output)
    printer, max_interval = choose_printer(
        json=flags.json, quiet=flags.quiet, verbose=flags.verbose, to_stdout=to_stdout
    )
    try:
        _install_signal_handlers()
        _check(flags, to_stdout=to_stdout)
        keep_freed_memory()
        limits.require(FILES, THREADS, "connections to the servers")
        # The report records all progress; only the printer is throttled.
        on_event: OnEvent = ProgressThrottle(printer.on_event, min(flags.interval, max_interval)).handle
        if flags.report is None:
            report = _download(server_flags, flags, on_event)
            printer.on_done(report)
        else:
            from msd.client.report.report_file import ReportFile

            with ReportFile(flags.report) as report_file:
                report = _download(server_flags, flags, report_file.recorder(on_event))
                try:
                    report_file.write(report)
                finally:
                    # The download is complete, even if the disk has no room for its report.
                    printer.on_done(report)
    except BaseException as error:
        with contextlib.suppress(OSError):
            printer.close(INTERRUPTED_OUTPUT_TIMEOUT_S if isinstance(error, Interrupted) else None)
        raise
    printer.close()
    if isinstance(report, FilesReport):
        for failure in report.errors.values():
            if flags.json:
                # The last event is the error.
                raise failure
            return failure.exit_code
    return 0


def _download(server_flags: ServerFlags, flags: DownloadFlags, on_event: OnEvent) -> Report | FilesReport:
    if (link := find_link(flags.names, server_flags)) is not None:
        settings, servers, name = follow(link, server_flags)
        flags = replace(flags, names=(name,))
        try:
            return _download_from(settings, servers, flags, on_event)
        except NotAllowedError as error:
            raise link_error(error) from None
    settings, servers = server_flags.load()
    return _download_from(settings, servers, flags, on_event)


def _download_from(settings: Config, servers: Servers, flags: DownloadFlags, on_event: OnEvent) -> Report | FilesReport:
    settings = settings.with_flags(max_rate=flags.max_rate)
    if _selects_several(servers, flags, on_event):
        return _download_several(settings, servers, flags, on_event)
    try:
        if flags.dry_run:
            return _dry_run(servers, flags, on_event)
        return _download_one(settings, servers, flags, on_event)
    except NotFoundError as error:
        from msd.client.manifest.name_suggestions import with_suggestion

        raise with_suggestion(error, flags.names[0] if flags.names else None) from None


def _selects_several(servers: Servers, flags: DownloadFlags, on_event: OnEvent) -> bool:
    """True unless the flags select one file by its name, or the only one. Asks the servers only about a single NAME
    that looks like a glob: it may be the name of a file.
    """
    names = flags.names
    if flags.exclude and not names:
        raise UsageError("--exclude leaves files out of folders and globs: give a NAME, such as . for all files")
    if len(names) > 1 or flags.exclude:
        return True
    name = names[0] if names else ""
    if name.endswith("/") or name == ".":
        return True
    if not any(wildcard in name for wildcard in "*?["):
        return False
    from msd.client.operations.list_files import looks_like_several

    return looks_like_several(servers, name, timeout=flags.timeout, on_event=on_event)


def _parsed(flag: str, text: str | None, parse: Callable[[str], float]) -> float:
    """Returns the value of a flag, 0 without it. Raises ``UsageError``."""
    try:
        return 0.0 if text is None else parse(text)
    except ValueError as allowed:
        raise UsageError(f"{flag} {text}: must be {allowed}") from None


def _download_one(settings: Config, servers: Servers, flags: DownloadFlags, on_event: OnEvent) -> Report:
    from msd.client.operations.download import download

    return download(
        servers,
        flags.names[0] if flags.names else None,
        flags.output,
        id=flags.id,
        sha256=flags.sha256,
        force=flags.force,
        update=flags.update,
        checksum=flags.checksum,
        timeout=flags.timeout,
        sync=flags.sync,
        check_space=flags.check_space,
        interval=0.0,
        memory=settings.memory,
        max_rate=settings.max_rate,
        pass_on=flags.pass_on,
        listen=flags.listen,
        max_upload=_parsed("--max-upload", flags.max_upload, parse_size),
        keep_serving=_parsed("--keep-serving", flags.keep_serving, parse_duration),
        on_event=on_event,
    )


def _dry_run(servers: Servers, flags: DownloadFlags, on_event: OnEvent) -> FilesReport:
    from msd.client.operations.dry_run import dry_run

    if flags.sha256 is not None:
        raise UsageError("--sha256 needs the content of the file: leave out --dry-run")
    return dry_run(
        servers,
        flags.names[0] if flags.names else None,
        flags.output,
        id=flags.id,
        update=flags.update,
        force=flags.force,
        checksum=flags.checksum,
        timeout=flags.timeout,
        on_event=on_event,
    )


def _download_several(settings: Config, servers: Servers, flags: DownloadFlags, on_event: OnEvent) -> FilesReport:
    for flag, value in {"--id": flags.id, "--sha256": flags.sha256}.items():
        if value is not None:
            raise UsageError(f"{flag} is for a single file: leave it out, or download the files one by one")
    if flags.output is not None and is_stream(flags.output):
        raise UsageError(f"-o {flags.output} takes a single file: give a folder for several files")
    from msd.client.operations.download_files import download_files
    from msd.client.storage.tree import DESCRIPTORS

    limits.require(FILES + DESCRIPTORS, THREADS, "the folders and the connections to the servers")
    return download_files(
        servers,
        flags.names,
        flags.output,
        exclude=flags.exclude,
        update=flags.update,
        force=flags.force,
        checksum=flags.checksum,
        dry_run=flags.dry_run,
        timeout=flags.timeout,
        sync=flags.sync,
        check_space=flags.check_space,
        memory=settings.memory,
        max_rate=settings.max_rate,
        pass_on=flags.pass_on,
        listen=flags.listen,
        max_upload=_parsed("--max-upload", flags.max_upload, parse_size),
        keep_serving=_parsed("--keep-serving", flags.keep_serving, parse_duration),
        on_event=on_event,
    )


def _check(flags: DownloadFlags, *, to_stdout: bool) -> None:
    """Raises ``UsageError`` if flags contradict each other."""
    if flags.quiet and (flags.json or flags.verbose):
        other = "--json" if flags.json else "--verbose"
        raise UsageError(f"{other} and --quiet contradict each other: give only one")
    for flag, seconds in {"-i": flags.interval, "--timeout": flags.timeout}.items():
        if seconds is not None and not seconds > 0:
            raise UsageError(f"{flag} {seconds:g}: must be more than 0 seconds")
    if flags.json and to_stdout:
        raise UsageError(f"--json and -o {flags.output} both write to standard output: record the events with --report")
    passing = {"--listen": flags.listen, "--max-upload": flags.max_upload, "--keep-serving": flags.keep_serving}
    for flag, value in passing.items():
        if value is not None and not flags.pass_on:
            raise UsageError(f"{flag} is for a download that passes on what it has: add --pass-on")


def _install_signal_handlers() -> None:
    """Makes SIGINT and SIGTERM raise ``Interrupted``. If the parent ignores SIGINT (background job of a script),
    leaves it ignored.
    """

    def interrupt(number: int, _: FrameType | None) -> None:
        raise Interrupted("interrupted: run the same command to resume", number)

    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, interrupt)
    signal.signal(signal.SIGTERM, interrupt)
