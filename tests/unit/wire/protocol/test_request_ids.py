"""Request ids."""

from __future__ import annotations

from msd.wire.protocol.request_ids import new_rid


def test_request_ids_are_positive_and_unique() -> None:
    ids = {new_rid() for _ in range(1000)}
    assert len(ids) == 1000
    assert min(ids) > 0
