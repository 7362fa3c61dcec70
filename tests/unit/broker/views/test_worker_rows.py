"""The rows of the workers fit the given width, have one word for each state, and can be understood without colours."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from msd.broker.status.history import Row
from msd.broker.views.panel_text import Tone
from msd.broker.views.worker_rows import (
    COLUMNS,
    HOSTS,
    MEANINGS,
    SLOWEST,
    TONES,
    WORDS,
    sparkline,
    state_text,
    summary_of,
    worker_details,
    worker_table,
    workers_panel,
)
from msd.wire.protocol.states import WantedState, WorkerState
from tests.unit.snapshots import snapshot

#: The words of all headings.
HEADINGS = {word for column in COLUMNS for word in column.name.split()}
REASON = "killed by SIGKILL, because memory ran out"


def row(state: WorkerState = WorkerState.AWAKE, rates: tuple[float, ...] = (1.0, 2.0, 4.0), **values: object) -> Row:
    defaults = {"pid": 4711, "uptime": 3725.0, "clients": 2, "rate": 7.3e6, "bytes_sent": 123_400_000}
    return Row(replace(snapshot(state).workers[0], **{**defaults, **values}), rates=rates)


def joined_row(state: WorkerState = WorkerState.AWAKE, **values: Any) -> Row:
    """The row of a worker that has joined from another host."""
    defaults: dict[str, Any] = {
        "number": 5,
        "name": "attic",
        "host": "10.0.0.7",
        "endpoint": "tcp://10.0.0.7:21018",
        "pid": 0,
    }
    return row(state, **{**defaults, "catalogue": b"c" * 32, "files": 3, **values})


def line(example: Row, width: int, *, current: bool = True) -> str:
    """The first line of this row in a table of its own."""
    return worker_table([example], width, current=current)[1][0][0]


@pytest.mark.parametrize("width", [*range(28, 130), 133, 200, 240])
def test_every_line_fits_and_no_word_is_cut_off(width: int) -> None:
    longest = row(
        WorkerState.FAILED,
        reason="exited with code 1 " * 10,
        number=64,
        endpoint="tcp://127.0.0.1:65535",
        uptime=1e10,
        restarts=12345,
        clients=54321,
        rate=9.99e14,
        rates=(1.0,) * 30,
        bytes_sent=2**63 - 1,
        complaints=123456,
        malformed_messages=123456,
    )
    joined = replace(longest.worker, name="n" * 64, host="2001:db8:1111:2222:3333:4444:5555:6666", number=1024)
    for example in (row(), longest, replace(longest, worker=joined)):
        heading, (lines,) = worker_table([example], width)
        assert max(map(len, [heading, *lines])) <= width
        assert {*heading.split()} <= HEADINGS
        words = " ".join(lines).split()
        assert ("Failed" in words) or ("Failed:" in words) or example.is_alive
        if not example.is_alive:
            assert words.count("code") == 10, "the whole reason is shown"


@pytest.mark.parametrize(
    ("width", "columns"),
    [
        (100, "Worker State Port Uptime Restarts Clients Rate Last 30 s Sent Errors"),
        (80, "Worker State Port Uptime Restarts Clients Rate Sent Errors"),
        (70, "Worker State Port Restarts Clients Rate Sent Errors"),
        (60, "Worker State Port Clients Rate Sent Errors"),
        (40, "Worker State Port Rate Errors"),
        (25, "Worker State Rate"),
        (12, "Worker State"),
    ],
)
def test_a_narrow_terminal_shows_fewer_columns(width: int, columns: str) -> None:
    assert worker_table([row()], width)[0].split() == columns.split()


@pytest.mark.parametrize(
    ("width", "columns"),
    [
        (130, "Worker Name Host State Port Uptime Restarts Clients Rate Last 30 s Sent Errors"),
        (80, "Worker Name Host State Port Restarts Clients Rate Sent Errors"),
        (60, "Worker Name Host State Port Clients Rate Errors"),
        (44, "Worker Name Host State Port Rate"),
        (30, "Worker Name State Rate"),
        (20, "Worker Name State"),
    ],
)
def test_if_workers_have_joined_the_table_has_their_names_and_hosts(width: int, columns: str) -> None:
    heading, ((local,), (joined,)) = worker_table([row(), joined_row()], width)
    assert heading.split() == columns.split()
    if "Host" in columns:
        assert (local.split()[2:4], joined.split()[2:4]) == (["-", "-"], ["attic", "10.0.0.7"])


def test_each_state_has_a_word_a_meaning_and_a_colour_of_its_own() -> None:
    assert {*WORDS} == {*MEANINGS} == {*TONES} == {*WorkerState}
    assert len({*WORDS.values()}) == len(WorkerState)
    assert [WORDS[state] for state in WorkerState] == [
        "Starting",
        "Alive",
        "Asleep",
        "Not responding",
        "Restarting",
        "Failed",
        "Lost",
        "Unreachable",
    ]
    for state, meaning in MEANINGS.items():
        serves = state in (WorkerState.AWAKE, WorkerState.UNREACHABLE)
        assert ("does not serve" in meaning) is not serves, state


def test_alive_and_any_other_state_differ_by_more_than_colour() -> None:
    assert line(row(), 80).startswith("●    1 Alive ")
    assert line(row(WorkerState.ASLEEP), 80).startswith("○    1 Asleep ")


def test_a_reason_is_in_the_row_if_there_is_room_and_otherwise_below_it() -> None:
    dead = row(WorkerState.DEAD, reason=REASON)
    assert f"Restarting: {REASON} " in line(dead, 140)
    assert worker_table([dead], 80)[1][0][1:] == [f"       {REASON}"]


def test_a_state_that_is_about_to_change_says_so() -> None:
    assert state_text(row(wanted=WantedState.ASLEEP)) == "Alive: going to sleep"
    assert state_text(row(WorkerState.ASLEEP, wanted=WantedState.AWAKE)) == "Asleep: waking up"


def test_a_state_that_is_not_current_has_a_question_mark() -> None:
    assert line(row(), 80, current=False).startswith("○    1 Alive? ")
    text = workers_panel([row()], 80, current=False)
    assert text.titles[-1] == "Workers: 1 of 1 alive when last seen"
    assert text.lines[0].tone is Tone.MUTED


@pytest.mark.parametrize(
    ("rates", "top", "bars"),
    [((0.0, 1.0, 4.0, 8.0), 8.0, " ▂▅█"), ((), 8.0, ""), ((0.0, 0.0), 0.0, "  "), (tuple(range(9)), 8.0, "▂▃▄▅▆▇██")],
)
def test_a_sparkline_shows_the_last_rates(rates: tuple[float, ...], top: float, bars: str) -> None:
    assert sparkline(rates, 8, top) == bars


def test_a_narrow_sparkline_keeps_the_newest_rates() -> None:
    falling = row(rates=tuple(float(rate) for rate in range(30, 0, -1)))
    heading, ((text,),) = worker_table([falling], 92)
    assert "Last 30 s" in heading
    assert sparkline(falling.rates, 30, 30.0)[-9:] in text
    assert sparkline(falling.rates, 30, 30.0)[:9] not in text


def test_the_newest_bar_is_on_the_right() -> None:
    _, ((older,), (younger,)) = worker_table([row(rates=(4.0,) * 30), row(rates=(4.0,) * 3, number=2)], 120)
    assert older.index("█" * 30) + 27 == younger.index("███")


def test_a_worker_without_a_process_has_no_uptime_and_an_idle_worker_no_rate() -> None:
    text = line(row(uptime=0.0, rate=0.4, rates=(), complaints=1), 80)
    assert text.split()[4:8] == ["-", "0", "2", "-"]
    assert text.endswith(" 1")


def test_a_long_name_is_shown_whole_if_there_is_room() -> None:
    name = "a-host-with-a-name-21018"
    assert "a-host-w…me-21018" in line(joined_row(name=name), 80)
    assert name in line(joined_row(name=name), 140)


def test_the_console_groups_joined_workers_by_their_hosts() -> None:
    rows = [row(), joined_row(), joined_row(number=6, name="cellar", host="10.0.0.8"), joined_row(number=7, name="b")]
    text = workers_panel(rows, 100)
    assert [line.key for line in text.lines] == [("host", ""), 1, ("host", "10.0.0.7"), 5, 7, ("host", "10.0.0.8"), 6]
    assert text.lines[2].text == " 10.0.0.7: 2 of 2 workers alive, 13.9 MiB/s"
    assert "Host" not in text.heading
    assert [line.key for line in workers_panel(rows, 100, order=HOSTS).lines] == [
        ("host", ""),
        ("host", "10.0.0.7"),
        ("host", "10.0.0.8"),
    ]
    assert "Host" in workers_panel(rows, 100, order=SLOWEST).heading


def test_the_title_names_the_slow_host() -> None:
    slow = joined_row(number=6, name="cellar", host="10.0.0.8", rate=1e6, rates=(1e6,) * 9)
    others = [row(rates=(7.3e6,) * 9), joined_row(rates=(7.3e6,) * 9, catalogue=b"")]
    text = workers_panel([*others, replace(slow, worker=replace(slow.worker, catalogue=b""))], 100)
    assert text.titles[0] == "Workers: 3 of 3 alive, slow: 10.0.0.8, by number"
    (host,) = [line for line in text.lines if line.key == ("host", "10.0.0.8")]
    assert "slow: " in host.text
    assert host.tone is Tone.WARNING


def test_a_slow_worker_is_marked_by_a_word_in_its_row_its_details_and_the_title() -> None:
    slow = replace(row(number=2, rate=1e6), others_rate=5e6)
    rows = [row(), slow, row(number=3)]
    text = workers_panel(rows, 80)
    assert text.titles[0] == "Workers: 3 of 3 alive, slow: worker 2, by number"
    assert [line.tone for line in text.lines] == [Tone.GOOD, Tone.WARNING, Tone.GOOD]
    assert text.lines[1].text.startswith(" ●    2 Alive, slow ")
    assert worker_details(slow)[:2] == [
        "Worker 2: Alive, slow",
        "It serves clients, but it is slow: it sends 977 KiB/s, the others with the same files 4.8 MiB/s (their "
        "median).",
    ]
    assert [line.key for line in workers_panel(rows, 80, "slow").lines] == [2], "the filter finds the word"
    many = [replace(slow, worker=replace(slow.worker, number=number)) for number in range(1, 9)]
    assert workers_panel(many, 80).titles[0] == "Workers: 8 of 8 alive, slow: 8 workers, by number"


def test_the_last_known_state_does_not_say_that_a_worker_is_slow() -> None:
    text = workers_panel([row(), replace(row(number=2), others_rate=5e6)], 80, current=False)
    assert "slow" not in " ".join([*text.titles, *(line.text for line in text.lines)])
    assert text.lines[1].tone is Tone.MUTED


def test_the_slowest_workers_come_first_if_the_operator_wants_that() -> None:
    rows = [row(number=1, rate=3.0), row(number=2, rate=1.0), row(number=3, rate=2.0)]
    rows.insert(0, row(WorkerState.ASLEEP, number=4, rate=0.0))
    assert [line.key for line in workers_panel(rows, 80, order=SLOWEST).lines] == [2, 3, 1, 4]


def test_workers_are_filtered_by_their_words() -> None:
    rows = [row(), row(WorkerState.ASLEEP, number=2), joined_row()]
    for words, numbers in (
        ("asleep", [2]),
        ("attic", [5]),
        ("10.0.0.7", [5]),
        ("worker 2", [2]),
        ("broker's host", [1, 2]),
    ):
        assert [line.key for line in workers_panel(rows, 90, words).lines if isinstance(line.key, int)] == numbers
    assert "no worker matches" in workers_panel(rows, 90, "xyz").lines[0].text
    assert "no worker has joined yet" in workers_panel([], 90).lines[0].text


def test_the_lines_of_a_reason_belong_to_the_row_of_their_worker() -> None:
    lines = workers_panel([row(WorkerState.FAILED, reason=REASON), row(number=2)], 80).lines
    assert [line.key for line in lines] == [1, None, 2]
    assert [line.tone for line in lines] == [Tone.BAD, Tone.BAD, Tone.GOOD]


def test_a_worker_that_cannot_read_some_files_is_alive_but_not_well() -> None:
    (line,) = workers_panel([row(reason="no permission")], 140).lines
    assert "Alive: cannot read some files: no permission" in line.text
    assert line.tone is Tone.WARNING


def test_the_details_of_a_worker_contain_the_whole_reason_and_all_counts() -> None:
    dead = row(
        WorkerState.DEAD,
        reason="killed by SIGKILL, " * 9 + "the end",
        pid=0,
        restarts=1,
        complaints=2,
        malformed_messages=3,
        rejected_connections=1,
        clients=1,
    )
    text = " ".join(worker_details(dead))
    assert text.startswith("Worker 1: Restarting: killed by SIGKILL")
    for part in (
        "the end",
        "server 5 restarts it",
        "127.0.0.1:21018",
        "no process",
        "1 restart ",
        "2 corrupt segments",
        "3 malformed messages",
        "1 refused connection",
        "1 client served",
        "123,400,000 bytes sent",
    ):
        assert part in text
    assert "server 5 restarts it" not in " ".join(worker_details(dead, current=False)), "that may no longer be so"


def test_the_summary_of_a_worker_is_wrapped_and_ends_with_its_counts() -> None:
    lines = summary_of(row(WorkerState.UNREACHABLE, reason="no answer within 1 s: " * 5), 60)
    assert max(map(len, lines)) <= 60
    text = " ".join(line.strip() for line in lines)
    assert text.startswith("1: Unreachable: no answer")
    assert text.endswith("123,400,000 bytes sent")


def test_the_details_of_a_worker_that_has_joined_name_its_host_and_no_process() -> None:
    text = " ".join(worker_details(joined_row()))
    assert text.startswith(
        "Worker 5 (attic): Alive It serves clients. 10.0.0.7:21018 · joined from 10.0.0.7 1:02:05 ago"
    )
    assert "process" not in text


def test_the_details_of_a_lost_worker_say_why_and_not_since_when_it_has_joined() -> None:
    lost = joined_row(WorkerState.LOST, reason="its key was revoked", uptime=0.0, catalogue=b"", clients=0)
    text = " ".join(worker_details(lost))
    assert text.startswith("Worker 5 (attic): Lost: its key was revoked It does not serve")
    assert "10.0.0.7:21018 · joined from 10.0.0.7 0 clients served" in text


def test_the_details_name_the_rate_limit_of_a_worker() -> None:
    row = joined_row()
    limited = replace(row, worker=replace(row.worker, limit=25 << 20))
    assert "limited to 25.0 MiB/s" in " ".join(worker_details(limited))
    assert "limited" not in " ".join(worker_details(row))
