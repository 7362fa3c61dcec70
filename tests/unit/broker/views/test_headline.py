"""The first line counts, the alarm says since when, and the last line names the keys: as much as fits."""

from __future__ import annotations

import pytest

from msd.broker.status.history import History
from msd.broker.views import headline
from msd.wire.protocol.states import WorkerState
from msd.wire.support.units import format_time
from tests.unit.broker.views.test_worker_rows import joined_row
from tests.unit.snapshots import snapshot


def test_the_alarm_contains_the_time_and_the_reason() -> None:
    history = History()
    history.on_status(snapshot(), 0.0)
    assert headline.alarm(history, 200) == ""
    history.on_lost("connection refused", 60.0)
    alarm = headline.alarm(history, 200)
    assert "SERVER 5 HAS NOT ANSWERED since " + format_time(60.0) + "; showing the last known state" in alarm
    assert "connection refused" in alarm


def test_the_summary_counts_workers_clients_and_files() -> None:
    history = History()
    assert headline.summary(history) == "waiting for server 5"
    history.on_status(snapshot(WorkerState.AWAKE, WorkerState.ASLEEP, clients=1), 0.0)
    assert headline.summary(history) == "1 of 2 alive · 1 client served · 0 B/s · 1 file"
    history.on_status(snapshot(WorkerState.STARTING, catalogue=b"", files=0), 1.0)
    assert headline.summary(history) == "0 of 1 alive · 0 clients served · 0 B/s · indexing the files"
    history.on_status(snapshot(WorkerState.STARTING, catalogue=b"", files=0, indexing=7), 2.0)
    assert headline.summary(history) == "0 of 1 alive · 0 clients served · 0 B/s · indexing the files (7 %)"
    history.on_status(snapshot(WorkerState.AWAKE, indexing=7), 3.0)
    assert headline.summary(history) == "1 of 1 alive · 0 clients served · 0 B/s · 1 file (indexing: 7 %)"


def test_before_a_worker_has_joined_the_summary_does_not_speak_of_indexing() -> None:
    history = History()
    history.on_status(snapshot(catalogue=b"", files=0, workers=[]), 0.0)
    assert headline.summary(history) == "no workers yet · 0 clients served · 0 B/s · 0 files"


def test_without_a_catalogue_the_summary_says_that_server_5_vouches_for_no_files() -> None:
    history = History()
    workers = [joined_row().worker, joined_row(number=6, name="cellar", rate=0.0).worker]
    history.on_status(snapshot(catalogue=b"", files=3, workers=workers), 0.0)
    text = "2 of 2 alive · 0 clients served · 7.0 MiB/s · 3 files (server 5 vouches for none)"
    assert headline.summary(history) == text
    starting = joined_row(WorkerState.STARTING, epoch=0, rate=0.0).worker
    history.on_status(snapshot(catalogue=b"", files=0, workers=[starting]), 1.0)
    assert headline.summary(history) == "0 of 1 alive · 0 clients served · 0 B/s · 0 files"


def test_the_alarm_leaves_out_the_reason_first() -> None:
    history = History()
    history.on_status(snapshot(), 0.0)
    history.on_lost("connection refused", 60.0)
    start = f"! SERVER 5 HAS NOT ANSWERED since {format_time(60.0)}"
    assert headline.alarm(history, 80) == f"{start}; showing the last known state"
    assert headline.alarm(history, 50) == start


def test_the_title_leaves_out_the_address_before_what_server_5_vouches_for() -> None:
    history = History()
    history.on_status(snapshot(catalogue=b"", files=3, workers=[joined_row(rate=0.0).worker]), 0.0)
    state = "1 of 1 alive · 0 clients served · 0 B/s · 3 files (server 5 vouches for none)"
    texts = [headline.title(history, "10.0.0.5:39223", width) for width in (120, 90, 80, 60, 15, 5)]
    assert texts == [
        f"msd · 10.0.0.5:39223 · {state}",
        f"msd · {state}",
        state,
        "msd · 1 of 1 alive · 0 clients served · 0 B/s",
        "1 of 1 alive",
        "",
    ]


@pytest.mark.parametrize("width", range(20, 160))
def test_the_keys_fit_and_none_is_cut_off(width: int) -> None:
    special = ("t toggle row", "s sort")
    whole = headline.keys(200, special, owns_servers=True, has_link=True).split("  ")
    shown = headline.keys(width, special, owns_servers=True, has_link=True)
    assert len(shown) <= width
    assert set(shown.split("  ")) <= set(whole)
    if width >= 22:
        assert "? help" in shown
    if width >= 80:
        assert "y link" in shown


def test_the_keys_say_what_q_and_y_do() -> None:
    owner = headline.keys(200, [], owns_servers=True, has_link=True)
    guest = headline.keys(200, [], owns_servers=False, has_link=False)
    assert ("q stop servers" in owner, "y link" in owner) == (True, True)
    assert ("q leave" in guest, "y copy" in guest) == (True, True)
