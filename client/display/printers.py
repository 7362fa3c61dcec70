"""What a download prints: the report's metric lines for people, or JSON lines for programs.

Formats values; measures and decides nothing.
"""

from __future__ import annotations

import json
import sys
import time
from datetime import datetime, timedelta
from typing import Protocol

from msd.client.events import Event, Progress, Report, Retried, Sampled, Started, Syncing, Waiting, WorkerChanged
from msd.client.report.json_values import event_values, report_values
from msd.wire.support.log_line import Level, log_line
from msd.wire.support.output import print_line
from msd.wire.support.text import presentable
from msd.wire.support.units import amount, kb, speed


class Printer(Protocol):
    """How a download is shown. Why one has failed is told by ``msd.py``."""

    def event(self, event: Event) -> None: ...

    def done(self, report: Report) -> None: ...

    def close(self) -> None:
        """Nothing more will be shown."""


class LinePrinter:
    """The report's metric lines on standard error, one line of result on standard output; the one without
    the other, or neither.
    """

    def __init__(self, *, quiet: bool, result: bool | None = None) -> None:
        self._quiet = quiet
        self._tells_result = not quiet if result is None else result

    def event(self, event: Event) -> None:
        if not self._quiet and (line := told(event)):
            _say(line)

    def done(self, report: Report) -> None:
        if self._tells_result:
            print_line(result(report), sys.stdout)

    def close(self) -> None:
        pass


class LogPrinter:
    """A line for each event on standard error, with its time, a level and the worker; what else there is to
    be shown is another's.
    """

    def __init__(self, show: Printer) -> None:
        self._show = show

    def event(self, event: Event) -> None:
        self._show.event(event)
        if (line := logged(event)) is not None:
            _say(log_line(time.time(), *line))

    def done(self, report: Report) -> None:
        self._show.done(report)

    def close(self) -> None:
        self._show.close()


class JsonPrinter:
    """A JSON object a line on standard output, each with its ``event``."""

    def event(self, event: Event) -> None:
        if not isinstance(event, Sampled):
            _put(event_values(event))

    def done(self, report: Report) -> None:
        _put({"event": "done", **report_values(report)})

    def close(self) -> None:
        pass


def told(event: Event) -> str:
    """An event as a line for people, or some lines of metrics; empty for what is not told."""
    match event:
        case Started(name, output, _, size, segments):
            return f"{name}: {amount(size)} in {segments} segments, to {output}"
        case Progress():
            return metrics(event)
        case WorkerChanged(_, state) if state != "ready":
            return presentable(" ".join(_change(event)))
        case Waiting(reason, seconds):
            return presentable(f"waiting since {since(seconds)}: {reason}")
        case Retried(worker, segment, "corrupt"):
            return f"worker {worker} sent segment {segment} corrupt: asking another one"
        case Syncing():
            return "syncing to disk"
        case _:
            return ""


def logged(event: Event) -> tuple[Level, str, str] | None:
    """An event as a line of a log: its level, whom it is about, what there is to say. None for a sample."""
    match event:
        case Started(name, output, id, size, segments):
            return "info", "client", f"{name} ({id[:16]}…): {size:,} bytes in {segments:,} segments, to {output}"
        case Progress():
            told = (
                f"{event.bytes:,} of {event.total:,} bytes verified, {event.reused_bytes:,} of them found on the disk"
            )
            return "debug", "client", f"{told}; {event.wasted_bytes:,} received in vain"
        case WorkerChanged(_, state):
            return "info" if state in ("ready", "asleep") else "warning", *_change(event)
        case Waiting(reason, seconds):
            return "warning", "client", f"waiting for {seconds:.1f} s: {reason}"
        case Retried(worker, segment, cause, detail):
            told = f"segment {segment} will be asked for again: {cause}{' (' + detail + ')' if detail else ''}"
            return "warning", f"worker {worker}", told
        case Syncing():
            return "info", "client", "syncing to disk"
        case Sampled():
            return None


def _change(event: WorkerChanged) -> tuple[str, str]:
    """Who has changed, and what there is to say of it."""
    who = f"worker {event.name}" if event.name.isdigit() else event.name
    return who, f"{event.state}: {event.detail}" if event.detail else event.state


def metrics(progress: Progress) -> str:
    """The report's lines: for each server what was received of what was assigned and its speed,
    then the total. Amounts in kB of 1000 bytes; the total's speed is all verified bytes over the
    time.
    """
    lines = [
        f"Server{w.name}: {kb(w.received)}/{kb(w.assigned)}, download speed: {speed(w.rate)}" for w in progress.workers
    ]
    total = f"Total: {kb(progress.bytes)}, download speed: {speed(progress.rate)}"
    if progress.reused_bytes:
        total += f", verified on disk: {kb(progress.reused_bytes)}"
    return "\n".join([*lines, total])


def since(seconds: float) -> str:
    """The time of day so many seconds ago."""
    return f"{datetime.now() - timedelta(seconds=seconds):%H:%M:%S}"


def result(report: Report) -> str:
    """What came from where, in one line; in a second one what went wrong on the way, if anything did."""
    if report.unchanged:
        return f"{report.output}: already right, all {amount(report.bytes)} of it ({report.seconds:.2f} s)"
    sources = [f"worker {name} {amount(w.bytes)}" for name, w in report.workers.items() if w.bytes]
    if report.reused_bytes:
        sources.append(f"disk {amount(report.reused_bytes)}")
    rate = f", {amount(report.received_bytes / report.seconds)}/s" if report.received_bytes else ""
    where = f" ({', '.join(sources)})" if sources else ""
    line = f"{report.output}: {amount(report.bytes)} verified in {report.seconds:.2f} s{rate}{where}"
    return "\n".join(filter(None, (line, _trouble(report))))


def _trouble(report: Report) -> str:
    """One line about retries, waiting and waste, and the rate in spite of them; empty if all went well."""
    told = []
    if report.retries:
        causes = ", ".join(f"{count} {cause}" for cause, count in report.retries.items())
        told.append(f"asked again for segments: {causes}")
    if report.waited_seconds:
        told.append(f"waited {report.waited_seconds:.1f} s")
    if report.wasted_bytes:
        told.append(f"{amount(report.wasted_bytes)} received in vain")
    if told and report.rate_p50:
        told.append(f"median {amount(report.rate_p50)}/s, peak {amount(report.rate_peak)}/s")
    return "  " + "; ".join(told) if told else ""


def _say(text: str) -> None:
    print_line(text, sys.stderr)


def _put(values: dict[str, object]) -> None:
    print_line(json.dumps(values), sys.stdout)
