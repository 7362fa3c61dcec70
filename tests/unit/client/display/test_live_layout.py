"""The content of the live view, at any terminal size."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from msd.client.display.live_layout import LiveLayout
from msd.client.events import (
    FileChanged,
    FileCounts,
    FileProgress,
    FilesProgress,
    FilesStarted,
    Hashing,
    Progress,
    Started,
    Syncing,
    Waiting,
    WorkerChanged,
    WorkerProgress,
)
from msd.wire.support.units import format_rate

MIB = 1 << 20
STARTED = Started("Star.mp4", Path("out/final.mp4"), "ab" * 32, 100 * MIB, 100)


def progress(seconds: float, *, reused: int = 0, wasted: int = 0, workers: int = 4, rate: float = MIB) -> Progress:
    """The progress after ``seconds``: each worker sends ``rate`` bytes a second and has 3 MiB in flight."""
    received = int(seconds * MIB)
    rows = tuple(WorkerProgress(str(n), received, received + 3 * MIB, rate) for n in range(1, workers + 1))
    done = workers * received + reused
    received_bytes = workers * received + wasted
    return Progress(done, 100 * MIB, reused, wasted, seconds, 0.0, rows, received_bytes=received_bytes)


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
        f"final.mp4 {'━' * 12}{'╌' * 51}  20 %\n"
        "20.0 MiB of 100 MiB  4.0 MiB/s  0:05 elapsed  0:20 left\n"
        "          state       rate  received  in flight\n"
        "worker 1  ready  1.0 MiB/s   5.0 MiB    3.0 MiB\n"
        "worker 2  ready  1.0 MiB/s   5.0 MiB    3.0 MiB\n"
        "worker 3  ready  1.0 MiB/s   5.0 MiB    3.0 MiB\n"
        "worker 4  ready  1.0 MiB/s   5.0 MiB    3.0 MiB"
    )


def test_received_reused_and_wasted_bytes_are_shown_separately() -> None:
    shown = text(running(reused=10 * MIB, wasted=2 * MIB))
    assert "30.0 MiB of 100 MiB" in shown
    assert "22.0 MiB received" in shown
    assert "10.0 MiB reused from disk" in shown
    assert "2.0 MiB wasted (duplicate, corrupt or outdated)" in shown


def test_a_new_version_starts_with_what_is_kept() -> None:
    view = running()
    view.handle(Waiting("the file changed", 1.0), 5.0)
    view.handle(FileChanged("Star.mp4", 1, "cd" * 32, 10 * MIB, 12, 5 * MIB), 5.0)
    assert text(view).startswith(f"final.mp4 {'━' * 31}{'╌' * 32}  50 %\n5.0 MiB of 10.0 MiB")
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


def test_a_worker_on_another_host_is_shown_with_its_name_and_host() -> None:
    view = running(workers=2)
    view.handle(WorkerChanged("2", "unreachable", "192.0.2.7:21018 does not answer", place="attic, 192.0.2.7"), 5.0)
    wide = text(view, width=120).split("\n")[-2:]
    assert wide[0].startswith("worker 1                     ready      ")
    assert wide[1].startswith("worker 2 (attic, 192.0.2.7)  unreachable  1.0 MiB/s ")
    assert wide[1].endswith("  192.0.2.7:21018 does not answer")


def test_the_reason_for_a_dead_worker_is_shown_and_not_hidden_by_the_lost_connection() -> None:
    view = running()
    view.handle(WorkerChanged("2", "dead", "killed by SIGKILL"), 5.0)
    view.handle(WorkerChanged("2", "lost", "3 segments reassigned", 3), 5.0)
    view.handle(WorkerChanged("3", "lost", "1 segment reassigned", 1), 5.0)
    rows = text(view).split("\n")[-4:]
    assert rows[1] == "worker 2  dead   1.0 MiB/s   5.0 MiB    3.0 MiB  killed by SIGKILL"
    assert rows[2] == "worker 3  lost   1.0 MiB/s   5.0 MiB    3.0 MiB"
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
    assert lines[-4:] == [f"worker {n}  ready  1.0 MiB/s   5.0 MiB" for n in (1, 2, 3, 4)]
    assert "20 %" in lines[0]


@pytest.mark.parametrize(("seconds", "now", "elapsed"), [(0.0, 9.0, ""), (3.4, 9.0, "0:03"), (3.4, 70.0, "1:04")])
def test_the_time_since_the_first_request_goes_on_without_progress(seconds: float, now: float, elapsed: str) -> None:
    view = LiveLayout()
    view.handle(STARTED, 0.0)
    view.handle(progress(seconds), 9.0)
    shown = "\n".join(line.plain for line in view.lines(79, 23, now))
    assert f"  {elapsed} elapsed" in shown if elapsed else "elapsed" not in shown


def test_a_long_name_has_a_line_of_its_own() -> None:
    view = LiveLayout()
    view.handle(replace(STARTED, output=Path("The.long.name.of.a.film.2026.mkv")), 0.0)
    lines = text(view, 59).split("\n")
    assert lines[:2] == ["The.long.name.of.a.film.2026.mkv", f"{'╌' * 53}   0 %"]
    assert text(view, 70).split("\n")[0].startswith("The.long.name.of.a.film.2026.mkv ╌")


@pytest.mark.parametrize(("height", "shown"), [(5, 3), (23, 7), (60, 18)])
def test_a_message_takes_at_most_a_third_of_the_height(height: int, shown: int) -> None:
    view = LiveLayout()
    view.handle(Waiting("word " * 200, 1.0), 5.0)
    lines = text(view, 60, height).split("\n")
    assert len(lines) == shown
    assert lines[-1].endswith("…") == (height < 60)


def test_workers_and_peers_that_do_not_fit_are_folded() -> None:
    view = running(workers=9)
    assert "9 workers  ready  9.0 MiB/s  45.0 MiB" in text(view, 79, 7)
    last = progress(5.0, workers=9)
    peers = (WorkerProgress("peer a", MIB, 2 * MIB, 3.0 * MIB), WorkerProgress("peer b", MIB, MIB, 0.0))
    view.handle(replace(last, workers=(*last.workers, *peers)), 5.0)
    assert text(view).split("\n")[-1] == "2 peers   1 sending  3.0 MiB/s   2.0 MiB    1.0 MiB"
    assert text(view, 79, 3).split("\n")[-1] == "9 workers 9.0 MiB/s · 2 peers 3.0 MiB/s"


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


# Several files.

FILES_STARTED = FilesStarted(("photos/", "docs/*.pdf"), (), Path("out"))
IN_FLIGHT = (FileProgress("film 映画.mkv", 34 * MIB, 1234 * MIB), FileProgress("b\x1b", 0, 12 * MIB))


def running_files(
    *, is_listed: bool = True, counts: FileCounts | None = None, in_flight: tuple[FileProgress, ...] = IN_FLIGHT
) -> LiveLayout:
    """The live view of a download of several files after 5 seconds."""
    view = LiveLayout()
    view.handle(FILES_STARTED, 0.0)
    view.handle(WorkerChanged("1", "ready"), 0.0)
    counts = counts or FileCounts(listed=10_003, fetched=1_234)
    for step in range(21):
        files = FilesProgress(counts, is_listed, in_flight)
        view.handle(replace(progress(step / 4, workers=1), files=files), step / 4)
    return view


def test_the_view_of_several_files_at_80_columns() -> None:
    counts = FileCounts(listed=10_003, fetched=1_234, kept=34, same=2, failed=1)
    assert text(running_files(counts=counts)) == (
        f"photos/ docs/*.pdf {'━' * 2}{'╌' * 52}   5 %\n"
        "1,270 of 10,003 files  34 kept  2 verified on disk  1 failed\n"
        "5.0 MiB of 100 MiB  1.0 MiB/s  0:05 elapsed  1:35 left\n"
        "film 映画.mkv  34.0 MiB of  1.2 GiB\n"
        r"b\x1b               0 B of 12.0 MiB"
        "\n          state       rate  received  in flight\n"
        "worker 1  ready  1.0 MiB/s   5.0 MiB    3.0 MiB"
    )


def test_the_end_is_unknown_while_files_are_listed() -> None:
    shown = text(running_files(is_listed=False, in_flight=()))
    assert "1,234 of 10,003+ files\n5.0 MiB of 100 MiB+  1.0 MiB/s  0:05 elapsed\n" in shown
    assert "left" not in shown
    assert "%" not in shown


def test_before_the_list_arrives_the_message_says_what_happens() -> None:
    view = LiveLayout()
    view.handle(FILES_STARTED, 0.0)
    assert text(view).splitlines()[-1] == "connecting to the servers"
    view.handle(Waiting("no worker is reachable", 1.0), 1.0)
    view.handle(replace(progress(0.0), files=FilesProgress(FileCounts(), False, ())), 1.1)
    assert "no worker is reachable" in text(view)
    assert "0 of 0" not in text(view)
    view.handle(replace(progress(0.0), files=FilesProgress(FileCounts(listed=3, kept=3), False, ())), 1.2)
    assert "no worker is reachable" not in text(view)


@pytest.mark.parametrize("width", [1, 5, 20, 39, 59, 79])
@pytest.mark.parametrize("height", [1, 2, 5, 8, 23])
def test_several_files_fit_into_any_terminal(width: int, height: int) -> None:
    in_flight = tuple(replace(IN_FLIGHT[0], name=f"a/long/name/of/a/folder/film {n}.mkv") for n in range(8))
    lines = running_files(in_flight=in_flight).lines(width, height, 5.0)
    assert len(lines) <= height
    assert all(line.cell_len <= width for line in lines)


def test_of_a_long_name_the_end_is_shown() -> None:
    file = replace(IN_FLIGHT[0], name=f"a/long/name/{'日本' * 20}/film.mkv")
    row = next(line for line in text(running_files(in_flight=(file,)), 50).splitlines() if "film" in line)
    assert row.startswith("…")
    assert "日本/film.mkv  " in row


@pytest.mark.parametrize(("height", "files"), [(23, 4), (12, 3), (9, 2), (6, 1), (5, 0)])
def test_the_files_leave_room_for_the_workers(height: int, files: int) -> None:
    in_flight = tuple(replace(IN_FLIGHT[0], name=f"film {n}") for n in range(8))
    assert text(running_files(in_flight=in_flight), height=height).count("film") == files


def test_a_new_version_of_a_file_does_not_change_the_totals() -> None:
    view = running_files()
    before = text(view)
    view.handle(FileChanged("film", 1, "cd" * 32, 5, 5, 0), 5.0)
    assert text(view) == before


def test_of_a_slow_limit_the_rate_is_not_higher_than_the_limit() -> None:
    view = LiveLayout()
    view.handle(replace(FILES_STARTED, max_rate=MIB // 2), 0.0)
    for step in range(21):
        files = FilesProgress(FileCounts(listed=3), True, ())
        view.handle(replace(progress(step / 4, workers=1), files=files), step / 4)
    assert "3:12 left  limited to 512 KiB/s" in text(view)
