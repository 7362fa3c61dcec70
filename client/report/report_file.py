"""The file of ``--report``: what became of a download, with its events, also where it failed.

Writes it whole or not at all. What stands in it is said in ``docs/operations.md``.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from msd.client.events import Event, OnEvent, Report, Started
from msd.client.report.event_log import EventRecorder
from msd.client.report.json_values import error_values, report_values, totals_values
from msd.client.report.totals import RunningTotals
from msd.wire.errors import DiskError, MsdError, UsageError
from msd.wire.support.output import print_line

#: Of the file's format; keys may be added without another one.
VERSION = 1


class ReportFile:
    """Records a download while its ``with`` block lasts, and writes the report at its end.

    ``file`` None records and writes nothing. Raises ``UsageError`` where the report could not be
    written: now, not after the download.
    """

    def __init__(self, file: str | None) -> None:
        self._file = file
        self._started = time.monotonic()
        self._recording = EventRecorder()
        self._summary = RunningTotals()
        if file is not None:
            check_file(file, "--report")

    def listener(self, on_event: OnEvent) -> OnEvent:
        """What to give the events to, instead of ``on_event``, which gets them all the same."""
        if self._file is None:
            return on_event

        def listen(event: Event) -> None:
            self._take(event)
            on_event(event)

        return listen

    def done(self, report: Report) -> None:
        """The download is through. Raises ``DiskError``."""
        self._write(report_values(report))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Of a command that was wrong there is nothing to report.
        if isinstance(error, MsdError) and not isinstance(error, UsageError):
            totals = self._summary.totals(time.monotonic() - self._started)
            try:
                self._write({"error": error_values(error), **totals_values(totals)})
            except DiskError as failed:
                # Beside the error itself, which is what counts.
                print_line(f"msd: {failed}", sys.stderr)

    def _take(self, event: Event) -> None:
        now = time.monotonic() - self._started
        self._recording.take(event, now)
        self._summary.take(event, now)
        if isinstance(event, Started):
            ours = (event.output, event.output.with_name(event.output.name + ".part"))
            if os.path.realpath(self._file or "") in map(os.path.realpath, ours):
                raise UsageError(f"--report {self._file}: is the file to download; give the report another name")

    def _write(self, values: dict[str, object]) -> None:
        file, self._file = self._file, None
        if file is None:
            return
        text = json.dumps({"version": VERSION, **values, "events": self._recording.entries()})
        try:
            replace_file(Path(file), text.encode() + b"\n")
        except OSError as error:
            raise DiskError(f"{file}: the report cannot be written: {error.strerror}") from None


def check_file(file: str, flag: str) -> None:
    """Raises ``UsageError`` where ``file``, given with ``flag``, cannot be written."""
    path = Path(file)
    if not path.parent.is_dir() or path.is_dir():
        raise UsageError(f"{flag} {file}: not a file in a folder that exists")


def replace_file(path: Path, data: bytes) -> None:
    """Writes a file whole or not at all: beside its name first. What is no regular file (a pipe, a
    device, a link) is written to as it is. Raises ``OSError``.
    """
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISREG(path.lstat().st_mode):
            path.write_bytes(data)
            return
    beside = path.with_name(f".msd-{os.getpid()}.part")
    try:
        beside.write_bytes(data)
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
