"""Writes the file for ``--report``: the result or the error of a download, and all its events.

The file is written atomically. ``docs/operations.md`` documents its content.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from msd.client.events import Event, FilesReport, OnEvent, Report, Started
from msd.client.report.event_recorder import EventRecorder
from msd.client.report.json_values import error_values, files_report_values, report_values, totals_values
from msd.client.report.totals import RunningTotals
from msd.wire.errors import DiskError, MsdError, UsageError
from msd.wire.support.files import check_replaceable, replace_file
from msd.wire.support.output import print_line

#: Version of the file format. New keys do not change the version.
VERSION = 1


class ReportFile:
    """Records a download and writes its report. If the ``with`` block fails, the report contains the error.

    Raises ``UsageError`` or ``DiskError`` at once if ``file`` cannot be created.
    """

    def __init__(self, file: str) -> None:
        #: None once the report is written.
        self._file: str | None = file
        self._started = time.monotonic()
        self._event_recorder = EventRecorder()
        self._totals = RunningTotals()
        check_writable(file, "--report")

    def recorder(self, on_event: OnEvent) -> OnEvent:
        """Returns a function that records an event and passes it on to ``on_event``."""

        def record(event: Event) -> None:
            self._record(event)
            on_event(event)

        return record

    def write(self, report: Report | FilesReport) -> None:
        """Writes the report of a finished download. Raises ``DiskError``."""
        self._write(files_report_values(report) if isinstance(report, FilesReport) else report_values(report))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # After a usage error there is no download to report on.
        if isinstance(error, MsdError) and not isinstance(error, UsageError):
            totals = self._totals.compute(time.monotonic() - self._started)
            try:
                self._write({"error": error_values(error), **totals_values(totals)})
            except DiskError as write_error:
                # Print this error in addition to the original one.
                print_line(f"msd: {write_error}", sys.stderr)

    def _record(self, event: Event) -> None:
        now = time.monotonic() - self._started
        self._event_recorder.handle(event, now)
        self._totals.handle(event, now)
        if isinstance(event, Started):
            download_paths = (event.output, event.output.with_name(f".{event.output.name}.msd-part"))
            if os.path.realpath(self._file or "") in map(os.path.realpath, download_paths):
                raise UsageError(f"--report {self._file} is the output or its part file: give the report another name")

    def _write(self, values: dict[str, object]) -> None:
        file, self._file = self._file, None
        if file is None:
            return
        text = json.dumps({"version": VERSION, **values, "events": self._event_recorder.entries()})
        try:
            write_file(Path(file), text.encode() + b"\n")
        except OSError as error:
            raise DiskError(f"{file}: cannot write the report: {error.strerror}: choose another file for it") from None


def check_writable(file: str, flag: str) -> None:
    """Raises ``UsageError`` if ``file``, the value of ``flag``, is a folder or is in a folder that does not exist, and
    ``DiskError`` if ``write_file`` cannot create or open it. Writes nothing to it.
    """
    path = Path(file)
    if not path.parent.is_dir() or path.is_dir():
        raise UsageError(f"{flag} {file}: must be a file in an existing folder")
    try:
        if _is_written_directly(path):
            _check_access(path)
        else:
            check_replaceable(path)
    except OSError as error:
        raise DiskError(f"{flag} {file}: cannot be created: {error.strerror}: choose another file") from None


def write_file(path: Path, data: bytes) -> None:
    """Writes a file atomically, but writes directly to anything other than a regular file (a pipe, a device, a link).
    Raises ``OSError``.
    """
    if _is_written_directly(path):
        path.write_bytes(data)
    else:
        replace_file(path, data)


def _is_written_directly(path: Path) -> bool:
    """True unless ``path`` is a regular file, or does not exist."""
    with contextlib.suppress(FileNotFoundError):
        return not stat.S_ISREG(path.lstat().st_mode)
    return False


def _check_access(path: Path) -> None:
    """Raises ``OSError`` if ``path``, or the folder of the missing file that it links to, may not be written. Does not
    open it: a pipe would have to wait for its reader.
    """
    if not os.access(path if path.exists() else path.resolve().parent, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
