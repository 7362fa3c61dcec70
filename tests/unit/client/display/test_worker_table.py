"""The table of workers and peers in the live view, at any width and height."""

from __future__ import annotations

import pytest

from msd.client.display.peer_totals import PeerTotals
from msd.client.display.worker_table import MAX_ROWS, WorkerLine, worker_table

MIB = 1 << 20
PEERS = PeerTotals(count=12, active=5, received=40 * MIB, assigned=48 * MIB, rate=61.0 * MIB)
#: What makes the table wide: the longest state and rate, and the name of a host.
WIDE = (
    WorkerLine("1", "ready", 99.9 * MIB, 100 * MIB, 2 * MIB),
    WorkerLine("64", "not connected", 0.0, 0, 0, place="attic, 192.0.2.107"),
)


def line(number: int, state: str = "ready", reason: str = "") -> WorkerLine:
    return WorkerLine(str(number), state, 1.5 * MIB, 10 * MIB, 2 * MIB, reason=reason)


def table(workers: list[WorkerLine] | tuple[WorkerLine, ...], width: int = 79, height: int = 20) -> list[str]:
    return [text.plain for text in worker_table(workers, None, width, height)]


def test_the_figures_stand_below_one_another_and_peers_have_one_row() -> None:
    workers = [line(1), WorkerLine("10", "asleep", 0.0, 999, 0)]
    assert [text.plain for text in worker_table(workers, PEERS, 79, 20)] == [
        "           state            rate  received  in flight",
        "worker 1   ready       1.5 MiB/s  10.0 MiB    2.0 MiB",
        "worker 10  asleep          0 B/s     999 B        0 B",
        "12 peers   5 sending  61.0 MiB/s  40.0 MiB    8.0 MiB",
    ]


def test_without_workers_there_is_no_table() -> None:
    assert table([]) == []


def test_more_workers_than_rows_are_folded_by_state() -> None:
    workers = [line(number) for number in range(1, 65)]
    assert len(table(workers[:MAX_ROWS])) == MAX_ROWS + 1
    for number in (3, 17, 20):
        workers[number - 1] = line(number, "asleep")
    workers[8] = line(9, "dead", "killed by SIGKILL")
    workers[29:60] = [line(number, "lost") for number in range(30, 61)]
    assert table(workers) == [
        "                   state         rate  received  in flight",
        "29 workers         ready   43.5 MiB/s   290 MiB   58.0 MiB",
        "workers 3, 17, 20  asleep   4.5 MiB/s  30.0 MiB    6.0 MiB",
        "worker 9           dead     1.5 MiB/s  10.0 MiB    2.0 MiB  killed by SIGKILL",
        "31 workers         lost    46.5 MiB/s   310 MiB   62.0 MiB",
    ]


def test_a_table_that_is_too_high_is_folded_and_then_one_line() -> None:
    workers = [line(number) for number in range(1, 5)]
    assert len(table(workers, height=5)) == 5
    assert table(workers, height=4)[0].startswith("worker 1")
    assert [len(table(workers, height=height)) for height in (3, 2, 1, 0)] == [2, 2, 1, 0]
    assert table(workers, height=2)[1] == "4 workers  ready  6.0 MiB/s  40.0 MiB    8.0 MiB"
    assert table(workers, height=1) == ["4 workers  ready  6.0 MiB/s  40.0 MiB    8.0 MiB"]
    workers[0] = line(1, "asleep")
    assert table(workers, height=1) == ["4 workers 6.0 MiB/s"]
    assert [text.plain for text in worker_table(workers, PEERS, 79, 1)] == ["4 workers 6.0 MiB/s · 12 peers 61.0 MiB/s"]
    assert [text.plain for text in worker_table([], PEERS, 79, 0)] == []


@pytest.mark.parametrize(
    ("width", "name", "columns"),
    [
        (79, "worker 64 (attic, 192.0.2.107)", 5),
        (77, "worker 64 (attic)", 5),
        (64, "worker 64", 5),
        (57, "worker 64", 5),
        (56, "worker 64 (attic)", 4),
        (40, "worker 64", 3),
    ],
)
def test_at_60_columns_every_column_is_there(width: int, name: str, columns: int) -> None:
    """The host is left out before a column is, and nothing is cut off."""
    headings, _, row = table(WIDE, width)
    assert row.startswith(f"{name}  not connected  ")
    assert len(headings.replace("in flight", "in-flight").split()) == columns - 1
    assert "…" not in row


@pytest.mark.parametrize("width", range(1, 80))
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    workers = [*WIDE, line(3, "unreachable", "192.0.2.7:21018 does not answer")]
    if width >= 28:
        assert all(len(text) <= width for text in table(workers, width))


def test_a_reason_without_room_has_lines_of_its_own() -> None:
    reason = "192.0.2.7:21018 does not answer: check the firewall"
    row = "worker 1  unreachable  1.5 MiB/s  10.0 MiB    2.0 MiB"
    assert table([line(1, "unreachable", reason)], 120)[1:] == [f"{row}  {reason}"]
    assert table([line(1, "unreachable", reason)], 59)[1:] == [row, f"  {reason}"]
    assert table([line(1, "unreachable", reason)], 40)[-2:] == [
        "  192.0.2.7:21018 does not answer: check",
        "  the firewall",
    ]
