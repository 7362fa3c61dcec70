"""The JSON of events, reports and errors. tests/unit/client/test_events.py compares the keys with docs/events.md."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from msd.client.events import (
    Event,
    Hashing,
    Progress,
    Report,
    Retried,
    Started,
    Syncing,
    Totals,
    Waiting,
    WorkerChanged,
    WorkerProgress,
    WorkerReport,
)
from msd.client.report.json_values import error_values, event_values, report_values, totals_values
from msd.wire.errors import NoAnswerError
from msd.wire.net.diagnosis import Contact, Outcome
from msd.wire.net.endpoints import Endpoint

ID = "ab" * 32
TOTALS = Totals({"corrupt": 2}, 0.12345, 2.4, 2.6)
TOTALS_JSON = '"retries": {"corrupt": 2}, "waited_seconds": 0.123, "rate_p50": 2, "rate_peak": 3'
REPORT = Report(
    file="film.mp4",
    output=Path("out/final.mp4"),
    id=ID,
    bytes=5,
    seconds=1.23456789,
    received_bytes=3,
    wasted_bytes=1,
    reused_bytes=2,
    workers={"1": WorkerReport(bytes=3, segments=3, failures=1, corrupt=2)},
    totals=TOTALS,
    transfer_seconds=1.0,
    rate=2.9,
)
NO_ADDRESSES = '"addresses": []'
CONTACTS = (Contact("worker 1", Endpoint("::1", 9001), Outcome.VERSION, "7"),)


@pytest.mark.parametrize(
    ("event", "text"),
    [
        (
            Started("film.mp4", Path("out/copy.mp4"), ID, 10, 2),
            f'"event": "start", "version": 2, "file": "film.mp4", "output": "out/copy.mp4", "id": "{ID}", '
            '"bytes": 10, "segments": 2, "max_rate": 0',
        ),
        (
            Started("film.mp4", Path("out/copy.mp4"), ID, 10, 2, 50),
            f'"event": "start", "version": 2, "file": "film.mp4", "output": "out/copy.mp4", "id": "{ID}", '
            '"bytes": 10, "segments": 2, "max_rate": 50',
        ),
        (
            Progress(5, 10, 2, 1, 1.23456, 2.4, (WorkerProgress("1", 3, 4, 2.6), WorkerProgress("2", 0, 1, 0.0))),
            '"event": "progress", "bytes": 5, "total": 10, "reused_bytes": 2, "wasted_bytes": 1, "seconds": 1.235, '
            '"rate": 2, "workers": {"1": {"received": 3, "assigned": 4, "rate": 3}, '
            '"2": {"received": 0, "assigned": 1, "rate": 0}}, "zero_bytes": 0, "received_bytes": 0',
        ),
        (
            WorkerChanged("1", "lost", "1 segment reassigned", 1),
            '"event": "worker", "name": "1", "state": "lost", "detail": "1 segment reassigned", "place": ""',
        ),
        (
            Waiting("0 of 4 workers alive", 1.23456, CONTACTS, 30.0),
            '"event": "waiting", "reason": "0 of 4 workers alive", "seconds": 1.235, "addresses": '
            '[{"name": "worker 1", "address": "[::1]:9001", "outcome": "other-version", "detail": "7"}]',
        ),
        (
            Retried("1", 7, "unreadable", "why"),
            '"event": "retry", "worker": "1", "segment": 7, "cause": "unreadable", "detail": "why"',
        ),
        (
            Hashing(),
            '"event": "waiting", "reason": "computing the SHA-256", "seconds": 0.0, ' + NO_ADDRESSES,
        ),
        (
            Syncing(),
            '"event": "waiting", "reason": "syncing to disk", "seconds": 0.0, ' + NO_ADDRESSES,
        ),
    ],
    ids=lambda value: "" if isinstance(value, str) else type(value).__name__,
)
def test_the_json_of_an_event(event: Event, text: str) -> None:
    assert json.dumps(event_values(event)) == f"{{{text}}}"


def test_the_json_of_a_report() -> None:
    assert json.dumps(report_values(REPORT)) == (
        f'{{"file": "film.mp4", "output": "out/final.mp4", "id": "{ID}", "bytes": 5, "seconds": 1.234568, '
        '"received_bytes": 3, "wasted_bytes": 1, "reused_bytes": 2, '
        '"workers": {"1": {"bytes": 3, "segments": 3, "failures": 1, "corrupt": 2}}, '
        '"transfer_seconds": 1.0, "rate": 3, "zero_bytes": 0, "passed_on_bytes": 0, '
        f'{TOTALS_JSON}, "unchanged": false}}'
    )


def test_the_json_of_totals() -> None:
    assert json.dumps(totals_values(TOTALS)) == f"{{{TOTALS_JSON}}}"


def test_an_error_has_its_exit_code_and_message() -> None:
    assert error_values(NoAnswerError("no answer")) == {"code": NoAnswerError.exit_code, "message": "no answer"}
