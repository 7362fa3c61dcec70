"""The size limits of frames: they match the protocol page, and the largest segment fits."""

from __future__ import annotations

from msd.wire.protocol.limits import MAX_REPLY_FRAME, MAX_REQUEST_FRAME, MAX_SNAPSHOT_FRAME, MAX_SUBSCRIPTION_FRAME
from msd.wire.protocol.segments import MAX_FILE_SIZE, segment_size


def test_the_largest_segment_fits_into_a_reply() -> None:
    assert segment_size(MAX_FILE_SIZE) <= MAX_REPLY_FRAME


def test_the_limits_are_those_of_the_protocol_page() -> None:
    assert (MAX_REQUEST_FRAME, MAX_SNAPSHOT_FRAME, MAX_SUBSCRIPTION_FRAME) == (64 << 10, 64 << 10, 1024)
