"""Converts events and reports to JSON values, in the schema of ``--json`` and of a report's events.

Prints and writes nothing. ``docs/events.md`` documents the schema.
"""

from __future__ import annotations

from typing import Any

from msgspec import to_builtins

from msd.client.events import (
    Event,
    FileResult,
    FilesProgress,
    FilesReport,
    FilesStarted,
    Hashing,
    Progress,
    Report,
    Started,
    Syncing,
    Totals,
    Waiting,
    WorkerChanged,
)
from msd.wire.errors import MsdError

#: Version of the schema. New events and keys do not change the version; existing ones keep their names and meanings.
VERSION = 2


def event_values(event: Event) -> dict[str, Any]:
    """Converts an event to JSON values, with rounded times and rates."""
    values: dict[str, Any] = to_builtins(event, enc_hook=str)
    match event:
        case Started() | FilesStarted():
            return {"event": values["event"], "version": VERSION, **values}
        case Progress(seconds=seconds, rate=rate):
            workers = {w.pop("name"): {**w, "rate": round(w["rate"])} for w in values["workers"]}
            del values["files"]
            files = {"files": _files_values(event.files)} if event.files is not None else {}
            return {**values, "seconds": round(seconds, 3), "rate": round(rate), "workers": workers, **files}
        case FileResult(error=error):
            del values["error"]
            return {**values, **(error_values(error) if error is not None else {"code": 0, "message": ""})}
        case WorkerChanged():
            del values["segments"]
        case Waiting(seconds=seconds, addresses=addresses):
            del values["timeout"]
            values["seconds"] = round(seconds, 3)
            values["addresses"] = [
                {"name": contact.name, "address": str(contact.endpoint), "outcome": contact.outcome.value}
                | {"detail": contact.detail}
                for contact in addresses
            ]
        case Hashing(reason=reason) | Syncing(reason=reason):
            return event_values(Waiting(reason, 0.0))
    return values


def error_values(error: MsdError) -> dict[str, object]:
    """Converts an error to JSON values: its exit code and its message, which names the flags that may help."""
    from msd.wire.config.error_flags import with_flags

    return {"code": error.exit_code, "message": with_flags(error)}


def report_values(report: Report) -> dict[str, Any]:
    """Converts a report to JSON values, with rounded times and rates."""
    values: dict[str, Any] = to_builtins(report, enc_hook=str)
    del values["totals"]
    unchanged = values.pop("unchanged")
    times = {"seconds": round(report.seconds, 6), "transfer_seconds": round(report.transfer_seconds, 6)}
    return {**values, **times, "rate": round(report.rate), **totals_values(report.totals), "unchanged": unchanged}


def files_report_values(report: FilesReport) -> dict[str, Any]:
    """Converts the report of several files to JSON values, with rounded times and rates."""
    values: dict[str, Any] = to_builtins(report, enc_hook=str)
    del values["totals"], values["wanted"]
    counts, errors = values.pop("counts"), report.errors.items()
    return {
        **values,
        "bytes": counts.pop("size"),
        "files": counts,
        "errors": [{"file": name, **error_values(error)} for name, error in errors],
        "seconds": round(report.seconds, 6),
        "transfer_seconds": round(report.transfer_seconds, 6),
        "rate": round(report.rate),
        **totals_values(report.totals),
    }


def _files_values(files: FilesProgress) -> dict[str, Any]:
    values: dict[str, Any] = to_builtins(files)
    counts = values.pop("counts")
    del counts["size"]
    return {**counts, **values}


def totals_values(totals: Totals) -> dict[str, Any]:
    """Converts totals to JSON values, with rounded times and rates."""
    return {
        "retries": totals.retries,
        "waited_seconds": round(totals.waited_seconds, 3),
        "rate_p50": round(totals.rate_p50),
        "rate_peak": round(totals.rate_peak),
    }
