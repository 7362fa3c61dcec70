"""The sums over the peers of a download."""

from __future__ import annotations

from msd.client.display.peer_totals import PeerTotals, peer_bytes, split_peers
from msd.client.events import WorkerProgress, WorkerReport


def test_peers_that_are_asked_are_added_up() -> None:
    one, two = WorkerProgress("1", 5, 6, 7.0), WorkerProgress("2", 0, 0, 0.0)
    values = [("peer 1", 10, 30, 2.5), ("peer 2", 5, 5, 0.0), ("peer 3", 0, 0, 0.0), ("peer 4", 0, 3, 0.0)]
    peers = [WorkerProgress(*value) for value in values]
    assert split_peers([one, two]) == ([one, two], None)
    assert split_peers([one, *peers, two]) == ([one, two], PeerTotals(2, 1, 15, 38, 2.5))
    assert PeerTotals(1, 0, 0, 0, 0.0).label == "1 peer"


def test_peers_that_have_sent_nothing_do_not_count() -> None:
    reports = {"1": WorkerReport(bytes=5), "peer 1": WorkerReport(bytes=7), "peer 2": WorkerReport()}
    assert peer_bytes(reports) == (1, 7)
