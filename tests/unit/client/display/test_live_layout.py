"""The content of the live view, at any terminal size."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from msd.client.display.live_layout import LiveLayout
from msd.client.events import FileChanged, Hashing, Progress, Started, Syncing, Waiting, WorkerChanged, WorkerProgress
from msd.wire.support.units import format_rate

MIB = 1 << 20
STARTED = Started("Star.mp4", Path("out/final.mp4"), "ab" * 32, 100 * MIB, 100)


def progress(seconds: float, *, reused: int = 0, wasted: int = 0, workers: int = 4, rate: float = MIB) -> Progress:
    """The progress after ``seconds``: each worker sends ``rate`` bytes a second and has 3 MiB in flight."""
    received = int(seconds * MIB)
    rows = tuple(WorkerProgress(str(n), received, received + 3 * MIB, rate) for n in range(1, workers + 1))
    done = workers * received + reused
    return Progress(done, 100 * MIB, reused, wasted, seconds, 0.0, rows)


def running(**values: int) -> LiveLayout:
    """The live view of a download after 5 seconds."""
    view = LiveLayout()
    view.handle(STARTED, 0.0)
    for number in range(1, values.get("workers", 4) + 1):
        view.handle(WorkerChanged(str(number), "ready"), 0.0)
    for step in range(21):
        view.handle(progress(step / 4, **values), step / 4)
    return view


def text(view: LiveLayout, width: int = 79, height: int = 23) -> str:
    return "\n".join(line.plain for line in view.lines(width, height, 5.0))


def test_the_view_at_80_columns() -> None:
    assert text(running()) == (
        f"final.mp4 {'━' * 8}{'╌' * 32}  20%\n"
        "20.0 MiB of 100 MiB  4.0 MiB/s  0:20 left\n"
        "worker 1  ready  1.0 MiB/s  5.0 MiB/8.0 MiB  3.0 MiB in flight\n"
        "worker 2  ready  1.0 MiB/s  5.0 MiB/8.0 MiB  3.0 MiB in flight\n"
        "worker 3  ready  1.0 MiB/s  5.0 MiB/8.0 MiB  3.0 MiB in flight\n"
        "worker 4  ready  1.0 MiB/s  5.0 MiB/8.0 MiB  3.0 MiB in flight"
    )


def test_received_reused_and_wasted_bytes_are_shown_separately() -> None:
    shown = text(running(reused=10 * MIB, wasted=2 * MIB))
    assert "30.0 MiB of 100 MiB" in shown
    assert "20.0 MiB received" in shown
    assert "10.0 MiB reused from disk" in shown
    assert "2.0 MiB wasted (duplicate, corrupt or outdated)" in shown


def test_a_new_version_starts_with_what_is_kept() -> None:
    view = running()
    view.handle(Waiting("the file changed", 1.0), 5.0)
    view.handle(FileChanged("Star.mp4", 1, "cd" * 32, 10 * MIB, 12, 5 * MIB), 5.0)
    assert text(view).startswith(f"final.mp4 {'━' * 20}{'╌' * 20}  50%\n5.0 MiB of 10.0 MiB")
    assert "waiting" not in text(view)


def test_zeros_are_not_called_data_from_disk() -> None:
    view = LiveLayout()
    view.handle(STARTED, 0.0)
    view.handle(Progress(30 * MIB, 100 * MIB, 30 * MIB, 0, 1.0, 0.0, (), zero_bytes=30 * MIB), 1.0)
    assert "0 B received  30.0 MiB zeros" in text(view)
    assert "disk" not in text(view)


@pytest.mark.parametrize(
    ("limit", "rate", "left"),
    [
        (1000, 0.0, "1d 04h left"),
        (1000, 50 * MIB, "1d 04h left"),
        (8 * MIB, MIB, "0:25 left"),
        (8 * MIB, 8 * MIB, "0:12 left"),
    ],
)
def test_the_limit_is_named_and_bounds_the_time_left(limit: int, rate: float, left: str) -> None:
    """A low limit gives the time left alone: so few segments arrive that no rate can be measured."""
    view = LiveLayout()
    view.handle(replace(STARTED, max_rate=limit), 0.0)
    view.handle(progress(0.25, rate=rate), 5.0)
    assert f"limited to {format_rate(limit)}" in text(view)
    assert left in text(view)
    view.handle(Waiting("all 4 workers are asleep", 1.0), 5.0)
    view.handle(progress(0.25, rate=0.0), 5.0)
    assert "left" not in text(view)


def test_the_reason_for_a_dead_worker_is_shown_and_not_hidden_by_the_lost_connection() -> None:
    view = running()
    view.handle(WorkerChanged("2", "dead", "killed by SIGKILL"), 5.0)
    view.handle(WorkerChanged("2", "lost", "3 segments reassigned", 3), 5.0)
    view.handle(WorkerChanged("3", "lost", "1 segment reassigned", 1), 5.0)
    assert "worker 2  dead: killed by SIGKILL  " in text(view)
    assert "worker 3  lost " in text(view)
    view.handle(WorkerChanged("2", "ready"), 5.0)
    assert "worker 2  ready" in text(view)


def test_the_reason_for_a_stall_is_shown_until_there_is_progress() -> None:
    view = running()
    view.handle(Waiting("0 of 2 workers alive (worker 1 asleep, worker 2 dead)", 1.0), 5.0)
    narrow = text(view, 40).split("\n")[-3:]
    assert narrow[0].startswith("waiting 0:01: ")
    assert " ".join(narrow).endswith("dead) (Ctrl-C ends the wait)")
    assert "waiting 1:01: 0 of 2" in "\n".join(line.plain for line in view.lines(79, 23, 65.0))
    view.handle(progress(5.5), 5.5)
    assert "waiting" not in text(view)


def test_during_a_stall_rates_are_zero_and_no_remaining_time_is_shown() -> None:
    view = running()
    view.handle(progress(5.0, rate=0.0), 30.0)
    shown = "\n".join(line.plain for line in view.lines(79, 23, 30.0))
    assert "left" not in shown
    assert shown.count("0 B/s") == 5


def test_before_the_file_is_known_the_view_says_that_it_connects() -> None:
    view = LiveLayout()
    assert text(view) == "connecting to the servers"
    view.handle(WorkerChanged("server 5", "lost", "it does not answer; continuing without its status"), 0.0)
    assert text(view).startswith("server 5 lost: it does not answer; continuing without its status\n")


def test_at_the_end_the_view_says_what_it_waits_for() -> None:
    view = running()
    view.handle(Hashing(), 5.0)
    assert text(view).endswith("\ncomputing the SHA-256")
    view.handle(Syncing(), 6.0)
    assert text(view).endswith("\nsyncing to disk")
    assert text(view).count("0 B/s") == 5


@pytest.mark.parametrize("width", [1, 5, 20, 39, 59, 79, 200])
@pytest.mark.parametrize("height", [1, 3, 9, 59])
def test_the_view_fits_any_terminal(width: int, height: int) -> None:
    view = running(reused=10 * MIB, wasted=MIB, workers=9)
    view.handle(WorkerChanged("5", "dead", "killed by SIGKILL"), 5.0)
    view.handle(Waiting("no answer from 127.0.0.1:39223: is msd serve running there?", 3.0), 5.0)
    lines = view.lines(width, height, 5.0)
    assert len(lines) <= height
    assert max(line.cell_len for line in lines) <= width


def test_at_40_columns_the_state_and_the_rate_of_each_worker_are_shown() -> None:
    lines = text(running(), 39).split("\n")
    assert lines[2:] == [f"worker {n}  ready  1.0 MiB/s" for n in (1, 2, 3, 4)] or lines[3:] == [
        f"worker {n}  ready  1.0 MiB/s" for n in (1, 2, 3, 4)
    ]
    assert "20%" in lines[0]


def test_the_bytes_in_flight_are_dropped_before_a_state_is_shortened() -> None:
    view = running(workers=1)
    view.handle(WorkerChanged("1", "dead", "killed by SIGKILL"), 5.0)
    row = "worker 1  dead: killed by SIGKILL  1.0 MiB/s  5.0 MiB/8.0 MiB"
    in_flight = "  3.0 MiB in flight"
    assert text(view, len(row + in_flight)).split("\n")[-1] == row + in_flight
    assert text(view, len(row + in_flight) - 1).split("\n")[-1] == row
    assert text(view, len(row)).split("\n")[-1] == row
    assert text(view, len(row) - 1).split("\n")[-1] == row.replace("SIGKILL", "SIGKI…")


def test_workers_that_do_not_fit_are_counted() -> None:
    assert text(running(workers=9), 79, 7).split("\n")[-1] == "… 5 more"


def test_wide_characters_count_as_two_columns() -> None:
    view = LiveLayout()
    view.handle(Started("x", Path("映画" * 30), "ab" * 32, 100, 1), 0.0)
    assert all(line.cell_len <= 40 for line in view.lines(40, 10, 0.0))


def test_text_from_the_network_cannot_control_the_terminal() -> None:
    view = running()
    view.handle(WorkerChanged("2", "dead", "\x1b[2J"), 5.0)
    view.handle(Waiting("\x1b[2J", 1.0), 5.0)
    view.handle(WorkerChanged("server 5", "lost", "\x1b]0;x\x07"), 5.0)
    assert not set(text(view)) & {"\x1b", "\x07"}
