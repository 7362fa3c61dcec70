"""The JSON values of errors, reports and totals. For the values of events see tests/unit/client/test_events.py."""

from __future__ import annotations

import json
from pathlib import Path

from msd.client.events import Progress, Report, WorkerProgress, WorkerReport
from msd.client.report.json_values import error_values, event_values, report_values, totals_values
from msd.client.report.totals import Totals
from msd.wire.errors import NoAnswerError

REPORT = Report(
    file="film.mp4",
    output=Path("out/final.mp4"),
    id="ab" * 32,
    bytes=5,
    seconds=1.23456789,
    received_bytes=3,
    wasted_bytes=1,
    reused_bytes=2,
    workers={"1": WorkerReport(bytes=3, segments=3, failures=1, corrupt=2)},
    retries={"corrupt": 2},
    waited_seconds=0.12345,
    rate_p50=2.4,
    rate_peak=2.6,
)


def test_a_report_becomes_plain_json() -> None:
    values = report_values(REPORT)
    assert json.loads(json.dumps(values)) == values
    assert values["output"] == "out/final.mp4"
    assert values["seconds"] == 1.234568
    assert values["workers"] == {"1": {"bytes": 3, "segments": 3, "failures": 1, "corrupt": 2}}


def test_totals_are_rounded() -> None:
    totals = {"retries": {"corrupt": 2}, "waited_seconds": 0.123, "rate_p50": 2, "rate_peak": 3}
    assert totals_values(Totals({"corrupt": 2}, 0.12345, 2.4, 2.6)) == totals
    assert {key: report_values(REPORT)[key] for key in totals} == totals


def test_an_error_has_its_exit_code_and_message() -> None:
    assert error_values(NoAnswerError("no answer")) == {"code": NoAnswerError.exit_code, "message": "no answer"}


def test_the_rates_of_progress_are_rounded() -> None:
    progress = Progress(5, 10, 2, 1.23456, 2.4, (WorkerProgress("1", 3, 4, 2.6),), 1)
    assert (event_values(progress)["seconds"], event_values(progress)["rate"]) == (1.235, 2)
    assert event_values(progress)["workers"] == {"1": {"received": 3, "assigned": 4, "rate": 3}}
