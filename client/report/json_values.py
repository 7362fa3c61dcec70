"""Converts events and reports to JSON values: the schema of ``--json`` and of a report's events.

Prints and writes nothing. ``docs/events.md`` documents the schema.
"""

from __future__ import annotations

from msgspec.structs import asdict

from msd.client.events import Event, Progress, Report, Retried, Started, Syncing, Waiting, WorkerChanged
from msd.client.report.totals import Totals
from msd.wire.errors import MsdError

#: Version of the schema. New events and keys do not change it; existing ones keep their name and meaning.
VERSION = 1


def event_values(event: Event) -> dict[str, object]:
    """Converts an event to JSON values."""
    match event:
        case Started():
            return {
                "event": "start",
                "version": VERSION,
                "file": event.name,
                "output": str(event.output),
                "id": event.id,
                "bytes": event.bytes,
                "segments": event.segments,
            }
        case Progress():
            workers = {
                w.name: {"received": w.received, "assigned": w.assigned, "rate": round(w.rate)} for w in event.workers
            }
            return {
                "event": "progress",
                "bytes": event.bytes,
                "total": event.total,
                "reused_bytes": event.reused_bytes,
                "wasted_bytes": event.wasted_bytes,
                "seconds": round(event.seconds, 3),
                "rate": round(event.rate),
                "workers": workers,
            }
        case WorkerChanged(name, state, detail):
            return {"event": "worker", "name": name, "state": state, "detail": detail}
        case Waiting(reason, seconds):
            return {"event": "waiting", "reason": reason, "seconds": round(seconds, 3)}
        case Retried(worker, segment, cause, detail):
            return {"event": "retry", "worker": worker, "segment": segment, "cause": cause, "detail": detail}
        case Syncing():
            return {"event": "waiting", "reason": "syncing to disk", "seconds": 0.0}


def error_values(error: MsdError) -> dict[str, object]:
    """Converts an error to JSON values: its exit code and its message."""
    return {"code": error.exit_code, "message": str(error)}


def report_values(report: Report) -> dict[str, object]:
    """Converts a report to JSON values, with rounded times and rates."""
    return {
        **asdict(report),
        "output": str(report.output),
        "workers": {number: asdict(worker) for number, worker in report.workers.items()},
        "seconds": round(report.seconds, 6),
        **totals_values(Totals(report.retries, report.waited_seconds, report.rate_p50, report.rate_peak)),
    }


def totals_values(totals: Totals) -> dict[str, object]:
    """Converts totals to JSON values, with rounded times and rates."""
    return {
        "retries": totals.retries,
        "waited_seconds": round(totals.waited_seconds, 3),
        "rate_p50": round(totals.rate_p50),
        "rate_peak": round(totals.rate_peak),
    }
