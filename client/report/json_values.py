"""Converts events and reports to JSON values, in the schema of ``--json`` and of a report's events.

Prints and writes nothing. ``docs/events.md`` documents the schema.
"""

from __future__ import annotations

from typing import Any

from msgspec import to_builtins

from msd.client.events import Event, Hashing, Progress, Report, Started, Syncing, Totals, Waiting, WorkerChanged
from msd.wire.errors import MsdError

#: Version of the schema. New events and keys do not change the version; existing ones keep their names and meanings.
VERSION = 1


def event_values(event: Event) -> dict[str, Any]:
    """Converts an event to JSON values, with rounded times and rates."""
    values: dict[str, Any] = to_builtins(event, enc_hook=str)
    match event:
        case Started():
            return {"event": values["event"], "version": VERSION, **values}
        case Progress(seconds=seconds, rate=rate):
            workers = {w.pop("name"): {**w, "rate": round(w["rate"])} for w in values["workers"]}
            return {**values, "seconds": round(seconds, 3), "rate": round(rate), "workers": workers}
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
    """Converts an error to JSON values: its exit code and its message."""
    return {"code": error.exit_code, "message": str(error)}


def report_values(report: Report) -> dict[str, Any]:
    """Converts a report to JSON values, with rounded times and rates."""
    values: dict[str, Any] = to_builtins(report, enc_hook=str)
    del values["totals"]
    unchanged = values.pop("unchanged")
    times = {"seconds": round(report.seconds, 6), "transfer_seconds": round(report.transfer_seconds, 6)}
    return {**values, **times, "rate": round(report.rate), **totals_values(report.totals), "unchanged": unchanged}


def totals_values(totals: Totals) -> dict[str, Any]:
    """Converts totals to JSON values, with rounded times and rates."""
    return {
        "retries": totals.retries,
        "waited_seconds": round(totals.waited_seconds, 3),
        "rate_p50": round(totals.rate_p50),
        "rate_peak": round(totals.rate_peak),
    }
