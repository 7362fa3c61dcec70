"""Prints the progress and the result of a download: as metric lines, as JSON lines or as a log.

Only formats values; measures nothing. Events are printed from a separate thread: a reader that does not read
never stops a download. The result, and with JSON the events before it, wait for their reader.
"""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Protocol, TextIO

from msd.client.display.peer_totals import PeerTotals, passed_on_text, peer_bytes, split_peers
from msd.client.display.waiting_text import waiting_text
from msd.client.events import (
    STANDARD_OUTPUT,
    Event,
    FileChanged,
    FileResult,
    FilesReport,
    FilesStarted,
    Hashing,
    Outcome,
    Progress,
    Report,
    Retried,
    Started,
    Syncing,
    Waiting,
    Warned,
    WorkerChanged,
    WorkerProgress,
    is_peer_name,
)
from msd.wire.support.output import print_line
from msd.wire.support.presentable_names import presentable
from msd.wire.support.units import format_count, format_kb, format_kb_rate, format_rate, format_size, format_time

if TYPE_CHECKING:
    from msd.client.display.failure_lines import FailureLines
    from msd.wire.support.line_writer import LineWriter
    from msd.wire.support.log_line import Level

#: Seconds that the reader of metric lines or of the log has for the last lines.
CLOSE_TIMEOUT_S = 1.0
#: The bytes of JSON that may wait for a reader: thousands of files may be complete at once.
JSON_QUEUE_SIZE = 8 << 20
#: The text for each cause of a retry.
RETRY_CAUSES = {
    "lost": "connection lost",
    "corrupt": "corrupt",
    "sleeping": "worker asleep",
    "busy": "worker busy",
    "unknown": "file not shared",
    "changed": "file changed",
    "unreadable": "file unreadable",
    "missing": "not received yet",
    "unavailable": "file unavailable",
    "bad-request": "bad request",
    "version": "other protocol version",
    "other": "unknown reason",
}


class Printer(Protocol):
    """Shows the events and the result of a download. ``msd.cli`` prints errors."""

    def on_event(self, event: Event) -> None: ...

    def on_done(self, report: Report | FilesReport) -> None: ...

    def close(self, timeout: float | None = None) -> None:
        """Ends the output, after an error, too. Waits at most ``timeout`` seconds for the reader of the events. Raises
        ``OSError`` if events could not be printed for another reason.
        """


class LinePrinter:
    """Prints events to standard error unless ``quiet``, and the result. Files that fail are printed in any case.

    ``metrics`` is True if ``Progress`` is printed, too, but not that of a dry run.
    """

    def __init__(self, *, quiet: bool, metrics: bool = True) -> None:
        self._quiet = quiet
        self._metrics = metrics
        self._lines = _EventLines("stderr")
        #: None while no file has failed.
        self._failures: FailureLines | None = None

    def on_event(self, event: Event) -> None:
        if isinstance(event, FilesStarted) and event.dry_run:
            self._metrics = False
        if isinstance(event, FileResult):
            self._on_file(event)
        elif not self._quiet and (self._metrics or not isinstance(event, Progress)) and (line := event_lines(event)):
            self._lines.print(line)

    def _on_file(self, event: FileResult) -> None:
        if event.outcome is Outcome.FAILED:
            if self._failures is None:
                from msd.client.display.failure_lines import FailureLines

                self._failures = FailureLines()
            if line := self._failures.line(event):
                self._lines.print(line)

    def on_done(self, report: Report | FilesReport) -> None:
        try:
            self.close()
        finally:
            if not self._quiet:
                print_result(report)

    def close(self, timeout: float | None = CLOSE_TIMEOUT_S) -> None:
        self._lines.close(timeout)


class ResultPrinter:
    """Prints only the result."""

    def on_event(self, event: Event) -> None:
        pass

    def on_done(self, report: Report | FilesReport) -> None:
        print_result(report)

    def close(self, timeout: float | None = None) -> None:
        pass


class LogPrinter:
    """Logs each event to standard error, with time, level and source. Passes events and result to ``printer``."""

    def __init__(self, printer: Printer) -> None:
        self._printer = printer
        self._lines = _EventLines("stderr")

    def on_event(self, event: Event) -> None:
        from msd.wire.support.log_line import log_line  # Not needed without ``--verbose``.

        self._printer.on_event(event)
        self._lines.print(log_line(time.time(), *log_entry(event)))

    def on_done(self, report: Report | FilesReport) -> None:
        try:
            self._lines.close(CLOSE_TIMEOUT_S)
        finally:
            self._printer.on_done(report)

    def close(self, timeout: float | None = None) -> None:
        try:
            self._lines.close(CLOSE_TIMEOUT_S)
        finally:
            self._printer.close(timeout)


class JsonPrinter:
    """Prints each event and the result to standard output, each as one line of JSON."""

    def __init__(self) -> None:
        self._lines = _EventLines("stdout", queue_size=JSON_QUEUE_SIZE)

    def on_event(self, event: Event) -> None:
        from msd.client.report.json_values import event_values  # Not needed without ``--json``.

        self._lines.print(json.dumps(event_values(event)))

    def on_done(self, report: Report | FilesReport) -> None:
        from msd.client.report.json_values import files_report_values, report_values

        try:
            self.close()
        finally:
            if isinstance(report, FilesReport):
                values = {"event": "summary", **files_report_values(report)}
            else:
                values = {"event": "done", **report_values(report)}
            print_line(json.dumps(values), sys.stdout)

    def close(self, timeout: float | None = None) -> None:
        self._lines.close(timeout)


class _EventLines:
    """Prints lines to a standard stream without waiting for its reader. Drops lines if the reader is far behind."""

    def __init__(self, stream_name: str, queue_size: int = 0) -> None:
        self._stream_name = stream_name
        self._queue_size = queue_size
        self._writer: LineWriter | None = None

    def print(self, text: str) -> None:
        stream: TextIO = getattr(sys, self._stream_name)
        if self._writer is None:
            from msd.wire.support.line_writer import LineWriter  # A quiet download prints no lines.

            try:
                self._writer = LineWriter(stream.fileno(), queue_size=self._queue_size)
            except (OSError, ValueError):  # A stream in memory.
                print_line(text, stream)
                return
        self._writer.write(f"{text}\n".encode(stream.encoding, stream.errors or "strict"))

    def close(self, timeout: float | None = None) -> None:
        """Waits until all lines are printed, at most ``timeout`` seconds. Raises ``OSError`` if one cannot be."""
        if self._writer is not None:
            self._writer.close(timeout)


def event_lines(event: Event) -> str:
    """Returns an event as text (several lines for ``Progress``), or an empty string if the event is not shown."""
    match event:
        case Started(name, output, _, size, segments):
            return f"{name}: {format_size(size)} in {format_count(segments, 'segment')}, to {output}{_limit(event)}"
        case FilesStarted():
            from msd.client.display.files_text import selection_text  # A single file needs none of that.

            return selection_text(event)
        case Progress():
            return metric_lines(event)
        case FileResult(error=error) if error is not None:
            return presentable(f"failed: {error}")
        case FileChanged(name, _, _, size, _, kept):
            kept_size = f", {format_size(kept)} kept" if kept else ""
            return f"{name} changed on the servers: going on with the new version, {format_size(size)}{kept_size}"
        # Peers come and go: only one that is not used any more matters.
        case WorkerChanged(name, state) if state != "ready" and (not is_peer_name(name) or state == "set aside"):
            return presentable(" ".join(_worker_change(event)))
        case Waiting(_, seconds):
            return presentable(f"waiting since {format_time(time.time() - seconds)}: {waiting_text(event)}")
        case Retried(worker, segment, "corrupt"):
            return f"{_sender(worker)} sent a corrupt copy of segment {segment}; retrying elsewhere"
        case Warned(text):
            return presentable(f"warning: {text}")
        case Hashing(reason=reason) | Syncing(reason=reason):
            return reason
        case _:
            return ""


def log_entry(event: Event) -> tuple[Level, str, str]:
    """Returns the level, the source and the text of an event's log line."""
    match event:
        case Started(name, output, id, size, segments):
            content = f"{format_count(size, 'byte')} in {format_count(segments, 'segment')}"
            return "info", "client", f"{name} ({id[:16]}…): {content}, to {output}{_limit(event)}"
        case FilesStarted():
            from msd.client.display.files_text import selection_text

            return "info", "client", selection_text(event)
        case FileResult(error=error) if error is not None:
            return "error", "client", presentable(str(error))
        case FileResult(name, outcome, size):
            return "debug", "client", f"{presentable(name)}: {outcome.value} ({format_count(size, 'byte')})"
        case Progress():
            on_disk = event.reused_bytes - event.zero_bytes
            verified = f"{event.bytes:,} of {event.total:,} bytes verified, {on_disk:,} reused from disk"
            return "debug", "client", f"{verified}, {event.wasted_bytes:,} wasted (duplicate, corrupt or outdated)"
        case FileChanged(name, changes, id, size, segments, kept):
            content = f"{format_count(size, 'byte')} in {format_count(segments, 'segment')}, {kept:,} bytes kept"
            return "warning", "client", f"{name} changed on the servers, change {changes}: {id[:16]}…: {content}"
        case WorkerChanged(_, state):
            return "info" if state in ("ready", "asleep") else "warning", *_worker_change(event)
        case Waiting(_, seconds):
            return "warning", "client", f"waiting for {seconds:.1f} s: {waiting_text(event)}"
        case Retried(worker, segment, cause, detail):
            reason = RETRY_CAUSES.get(cause, cause) + (f" ({detail})" if detail else "")
            return "warning", _sender(worker), f"retrying segment {segment}: {reason}"
        case Warned(text):
            return "warning", "client", presentable(text)
        case Hashing(reason=reason) | Syncing(reason=reason):
            return "info", "client", reason


def _sender(name: str) -> str:
    return name if is_peer_name(name) else f"worker {name}"


def _limit(started: Started) -> str:
    return f", limited to {format_rate(started.max_rate)}" if started.max_rate else ""


def _worker_change(event: WorkerChanged) -> tuple[str, str]:
    """Returns the source of a state change and the text that describes the change."""
    return event.label, f"{event.state}: {event.detail}" if event.detail else event.state


def metric_lines(progress: Progress) -> str:
    """Returns the metric lines: bytes received / assigned and download speed of each server, then the total.

    Amounts are in kB (1000 bytes). The speed of a server is its current rate, the total speed is the average since the
    first request. Of several files, the numbers of files follow.
    """
    workers, peers = split_peers(progress.workers)
    sources: list[tuple[str, WorkerProgress | PeerTotals]] = [(f"Server{worker.name}", worker) for worker in workers]
    if peers is not None:
        sources.append((f"Peers ({peers.count})", peers))
    lines = [
        f"{name}: {format_kb(w.received)}/{format_kb(w.assigned)}, download speed: {format_kb_rate(w.rate)}"
        for name, w in sources
    ]
    total = f"Total: {format_kb(progress.bytes)}, download speed: {format_kb_rate(progress.rate)}"
    if on_disk := progress.reused_bytes - progress.zero_bytes:
        total += f", verified on disk: {format_kb(on_disk)}"
    if progress.zero_bytes:
        total += f", zeros: {format_kb(progress.zero_bytes)}"
    lines.append(total)
    if progress.files is not None:
        from msd.client.display.files_text import files_lines

        lines += files_lines(progress)
    return "\n".join(lines)


def print_result(report: Report | FilesReport) -> None:
    """Prints the result to standard output, or to standard error if standard output has received the file."""
    if isinstance(report, FilesReport):
        from msd.client.display.files_text import files_result

        if report.counts.listed or not report.errors:
            lines = (files_result(report), _problems(report))
            print_line("\n".join(filter(None, lines)), sys.stdout)
        return
    print_line(result_lines(report), sys.stderr if report.output == STANDARD_OUTPUT else sys.stdout)


def result_lines(report: Report) -> str:
    """Returns a line with the result and the sources of the data, and a second line if there were problems."""
    if report.unchanged:
        return f"{report.output}: already up to date ({format_size(report.bytes)}){passed_on_text(report)}"
    own = {name: worker for name, worker in report.workers.items() if worker.bytes and not is_peer_name(name)}
    sources = [f"worker {name} {format_size(worker.bytes)}" for name, worker in own.items()]
    count, from_peers = peer_bytes(report.workers)
    if count:
        sources.append(f"{format_count(count, 'peer')} {format_size(from_peers)}")
    if on_disk := report.reused_bytes - report.zero_bytes:
        sources.append(f"disk {format_size(on_disk)}")
    if report.zero_bytes:
        sources.append(f"zeros {format_size(report.zero_bytes)}")
    rate = f", {format_rate(report.rate)}" if report.rate else ""
    origin = f" ({', '.join(sources)})" if sources else ""
    line = f"{report.output}: {format_size(report.bytes)} verified in {report.transfer_seconds:.2f} s{rate}{origin}"
    return "\n".join(filter(None, (line + passed_on_text(report), _problems(report))))


def _problems(report: Report | FilesReport) -> str:
    """Returns one line about retries, waiting time, wasted bytes and rates; empty if there were no problems."""
    totals, problems = report.totals, []
    if totals.retries:
        causes = ", ".join(f"{count} ({RETRY_CAUSES.get(cause, cause)})" for cause, count in totals.retries.items())
        problems.append(f"retried segments: {causes}")
    if totals.waited_seconds:
        problems.append(f"waited {totals.waited_seconds:.1f} s")
    if report.wasted_bytes:
        problems.append(f"{format_size(report.wasted_bytes)} wasted (duplicate, corrupt or outdated)")
    if problems and totals.rate_p50:
        problems.append(f"median {format_rate(totals.rate_p50)}, peak {format_rate(totals.rate_peak)}")
    return "  " + "; ".join(problems) if problems else ""
