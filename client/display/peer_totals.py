"""Adds up the peers of a download, which texts for people show as one. Pure.

A peer is another receiver, of which there may be many; ``--json`` has each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import Struct

from msd.client.events import FilesReport, Report, WorkerProgress, WorkerReport, is_peer_name
from msd.wire.support.units import format_count, format_size


class PeerTotals(Struct, frozen=True):
    """The sums over the peers that are asked: ``count`` of them have sent something, and ``active`` send at present."""

    count: int
    active: int
    received: int
    assigned: int
    rate: float

    @property
    def label(self) -> str:
        return format_count(self.count, "peer")


def split_peers(workers: Sequence[WorkerProgress]) -> tuple[list[WorkerProgress], PeerTotals | None]:
    """Returns the workers, and the sums over the peers; None if no peer has been asked."""
    peers = [worker for worker in workers if is_peer_name(worker.name) and worker.assigned]
    own = [worker for worker in workers if not is_peer_name(worker.name)]
    if not peers:
        return own, None
    return own, PeerTotals(
        count=sum(worker.received > 0 for worker in peers),
        active=sum(worker.rate > 0 for worker in peers),
        received=sum(worker.received for worker in peers),
        assigned=sum(worker.assigned for worker in peers),
        rate=sum(worker.rate for worker in peers),
    )


def peer_bytes(workers: Mapping[str, WorkerReport]) -> tuple[int, int]:
    """Returns how many peers have sent verified data, and how many bytes."""
    sent = [report.bytes for name, report in workers.items() if is_peer_name(name) and report.bytes]
    return len(sent), sum(sent)


def passed_on_text(report: Report | FilesReport) -> str:
    """Returns the end of a line with the result: what others have got from this download, if it was something."""
    return f", {format_size(report.passed_on_bytes)} passed on" if report.passed_on_bytes else ""
