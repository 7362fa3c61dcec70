"""The live view of a download says all there is to say, in whatever room there is."""

from __future__ import annotations

from pathlib import Path

import pytest

from msd.client.display.live_layout import LiveLayout
from msd.client.events import Progress, Started, Syncing, Waiting, WorkerChanged, WorkerProgress

MIB = 1 << 20
STARTED = Started("Star.mp4", Path("out/final.mp4"), "ab" * 32, 100 * MIB, 100)


def progress(seconds: float, *, reused: int = 0, wasted: int = 0, workers: int = 4) -> Progress:
    """Each worker sends 1 MiB a second and owes 3."""
    each = int(seconds * MIB)
    rows = tuple(WorkerProgress(str(n), each, each + 3 * MIB, 0.0) for n in range(1, workers + 1))
    done = workers * each + reused
    return Progress(done, 100 * MIB, reused, seconds, 0.0, rows, wasted)


def running(**values: int) -> LiveLayout:
    """A view of a download after 5 seconds."""
    view = LiveLayout()
    view.take(STARTED, 0.0)
    for number in range(1, values.get("workers", 4) + 1):
        view.take(WorkerChanged(str(number), "ready"), 0.0)
    for step in range(21):
        view.take(progress(step / 4, **values), step / 4)
    return view


def text(view: LiveLayout, width: int = 79, height: int = 23) -> str:
    return "\n".join(line.plain for line in view.lines(width, height, 5.0))


def test_what_is_seen_at_80_columns() -> None:
    assert text(running()) == (
        f"final.mp4 {'━' * 8}{'╌' * 32}  20%\n"
        "20.0 MiB of 100.0 MiB  4.0 MiB/s  0:20 left\n"
        "worker 1  ready  1.0 MiB/s  5.0 MiB/8.0 MiB  owes 3.0 MiB\n"
        "worker 2  ready  1.0 MiB/s  5.0 MiB/8.0 MiB  owes 3.0 MiB\n"
        "worker 3  ready  1.0 MiB/s  5.0 MiB/8.0 MiB  owes 3.0 MiB\n"
        "worker 4  ready  1.0 MiB/s  5.0 MiB/8.0 MiB  owes 3.0 MiB"
    )


def test_what_was_received_is_told_apart_from_what_was_verified_on_disk_and_what_was_in_vain() -> None:
    told = text(running(reused=10 * MIB, wasted=2 * MIB))
    assert "30.0 MiB of 100.0 MiB" in told
    assert "20.0 MiB received" in told
    assert "10.0 MiB verified on disk" in told
    assert "2.0 MiB in vain" in told


def test_a_worker_that_is_down_says_why_and_a_lost_connection_does_not_hide_it() -> None:
    view = running()
    view.take(WorkerChanged("2", "dead", "killed by SIGKILL"), 5.0)
    view.take(WorkerChanged("2", "lost", "3 segments go to others", 3), 5.0)
    view.take(WorkerChanged("3", "lost", "1 segments go to others", 1), 5.0)
    assert "worker 2  dead: killed by SIGKILL  " in text(view)
    assert "worker 3  lost " in text(view)
    view.take(WorkerChanged("2", "ready"), 5.0)
    assert "worker 2  ready" in text(view)


def test_why_nothing_moves_is_said_until_something_does() -> None:
    view = running()
    view.take(Waiting("0 of 4 workers alive (1 asleep, 2 asleep, 3 asleep, 4 asleep)", 1.0), 5.0)
    narrow = text(view, 40).split("\n")[-2:]
    assert narrow[0].startswith("waiting 0:01: ")
    assert " ".join(narrow).endswith("0 of 4 workers alive (1 asleep, 2 asleep, 3 asleep, 4 asleep)")
    assert "waiting 1:01: 0 of 4" in "\n".join(line.plain for line in view.lines(79, 23, 65.0))
    view.take(progress(5.5), 5.5)
    assert "waiting" not in text(view)


def test_while_nothing_moves_there_is_neither_a_rate_nor_a_remaining_time() -> None:
    view = running()
    view.take(progress(5.0), 30.0)
    told = "\n".join(line.plain for line in view.lines(79, 23, 30.0))
    assert "left" not in told
    assert told.count("0 B/s") == 5


def test_before_the_file_is_known_it_says_what_it_looks_for() -> None:
    view = LiveLayout()
    assert text(view) == "looking for the servers"
    view.take(WorkerChanged("server 5", "lost", "it does not answer; going on without its status"), 0.0)
    assert text(view).startswith("server 5 lost: it does not answer; going on without its status\n")


def test_at_the_end_it_waits_for_the_disk() -> None:
    view = running()
    view.take(Syncing(), 5.0)
    assert text(view).endswith("\nsyncing to disk")


@pytest.mark.parametrize("width", [1, 5, 20, 39, 59, 79, 200])
@pytest.mark.parametrize("height", [1, 3, 9, 59])
def test_it_fits_whatever_terminal_there_is(width: int, height: int) -> None:
    view = running(reused=10 * MIB, wasted=MIB, workers=9)
    view.take(WorkerChanged("5", "dead", "killed by SIGKILL"), 5.0)
    view.take(Waiting("nobody answers at 127.0.0.1:39223: is msd serve running there?", 3.0), 5.0)
    lines = view.lines(width, height, 5.0)
    assert len(lines) <= height
    assert max(line.cell_len for line in lines) <= width


def test_at_40_columns_the_state_and_the_rate_of_each_worker_are_seen() -> None:
    lines = text(running(), 39).split("\n")
    assert lines[2:] == [f"worker {n}  ready  1.0 MiB/s" for n in (1, 2, 3, 4)] or lines[3:] == [
        f"worker {n}  ready  1.0 MiB/s" for n in (1, 2, 3, 4)
    ]
    assert "20%" in lines[0]


def test_where_there_is_no_room_for_all_workers_the_others_are_counted() -> None:
    assert text(running(workers=9), 79, 7).split("\n")[-1] == "… 5 more"


def test_wide_characters_take_the_columns_they_take() -> None:
    view = LiveLayout()
    view.take(Started("x", Path("映画" * 30), "ab" * 32, 100, 1), 0.0)
    assert all(line.cell_len <= 40 for line in view.lines(40, 10, 0.0))


def test_what_others_say_cannot_act_on_the_terminal() -> None:
    view = running()
    view.take(WorkerChanged("2", "dead", "\x1b[2J"), 5.0)
    view.take(Waiting("\x1b[2J", 1.0), 5.0)
    view.take(WorkerChanged("server 5", "lost", "\x1b]0;x\x07"), 5.0)
    assert not set(text(view)) & {"\x1b", "\x07"}
