"""Which replies fit to a request, and which are malformed although each alone is a valid message."""

from __future__ import annotations

import pytest

from msd.client.network.reply_check import check_reply
from msd.wire.errors import ProtocolError
from msd.wire.protocol.messages import (
    FILE_OK,
    Bundle,
    CataloguePage,
    Correlated,
    DataReply,
    Describe,
    Described,
    DigestPage,
    Digests,
    Entry,
    Get,
    GetBundle,
    Hello,
    List,
    Refusal,
    Segment,
    Welcome,
)
from msd.wire.protocol.segments import MAX_BUNDLE_SIZE
from msd.wire.protocol.states import RefusalReason

ID = bytes(32)
SEGMENT = Segment(rid=1, epoch=1, index=3, start=10)
PART = Get(rid=1, id=ID, index=3, start=10, length=20)
REST = Get(rid=1, id=ID, index=3, start=10)
TWO_FILES = GetBundle(rid=1, ids=ID * 2)
PART_OF_FILES = GetBundle(rid=1, ids=ID * 2, length=9)

REQUESTS: list[Correlated] = [
    Hello(rid=1, version=2),
    List(rid=1),
    Describe(rid=1),
    Digests(rid=1, id=ID, start=0),
    PART,
    TWO_FILES,
]
REPLIES: list[tuple[DataReply, int]] = [
    (Welcome(rid=1, version=2, epoch=1, number=1, files=0, catalogue=b""), 0),
    (CataloguePage(rid=1, epoch=1, catalogue=b"", entries=[], more=False), 0),
    (Described(rid=1, epoch=1, name="a", size=0, mtime_ns=0, segment_size=0, id=ID), 0),
    (DigestPage(rid=1, epoch=1, start=0), 32),
    (SEGMENT, 20),
    (Bundle(rid=1, epoch=1, statuses=[FILE_OK] * 2, lengths=[0, 0]), 0),
]


def fits(request: Correlated, reply: DataReply, size: int = 0) -> bool:
    try:
        check_reply(request, reply, size)
    except ProtocolError:
        return False
    return True


def test_each_request_has_replies_of_one_type() -> None:
    for number, request in enumerate(REQUESTS):
        assert [fits(request, reply, size) for reply, size in REPLIES] == [number == each for each in range(6)]


@pytest.mark.parametrize("reason", list(RefusalReason))
def test_every_request_may_be_refused(reason: RefusalReason) -> None:
    assert all(fits(request, Refusal(rid=1, epoch=1, reason=reason)) for request in REQUESTS)


def test_a_segment_has_the_requested_bytes() -> None:
    assert fits(PART, SEGMENT, 20)
    assert fits(REST, SEGMENT, 1)
    assert not fits(PART, SEGMENT, 19)
    assert not fits(PART, SEGMENT, 21)
    assert not fits(PART, SEGMENT, 0)
    assert not fits(REST, SEGMENT, 0)
    assert not fits(PART, Segment(rid=1, epoch=1, index=3), 20)
    assert not fits(PART, Segment(rid=1, epoch=1, index=4, start=10), 20)


def bundle(*files: tuple[str, int]) -> Bundle:
    return Bundle(rid=1, epoch=1, statuses=[status for status, _ in files], lengths=[length for _, length in files])


def test_the_lengths_in_a_bundle_add_up_to_the_payload() -> None:
    assert fits(TWO_FILES, bundle((FILE_OK, 4), (FILE_OK, 5)), 9)
    assert fits(PART_OF_FILES, bundle((FILE_OK, 4), (FILE_OK, 5)), 9)
    assert not fits(TWO_FILES, bundle((FILE_OK, 4), (FILE_OK, 5)), 8)
    assert not fits(TWO_FILES, bundle((FILE_OK, 4), (FILE_OK, 5)), 10)
    assert not fits(TWO_FILES, bundle((FILE_OK, 2**63 - 1), (FILE_OK, 2**63 - 1)), 0)


def test_a_bundle_has_no_more_than_was_requested() -> None:
    assert fits(TWO_FILES, bundle((FILE_OK, MAX_BUNDLE_SIZE), (FILE_OK, 0)), MAX_BUNDLE_SIZE)
    assert not fits(TWO_FILES, bundle((FILE_OK, MAX_BUNDLE_SIZE), (FILE_OK, 1)), MAX_BUNDLE_SIZE + 1)
    assert not fits(PART_OF_FILES, bundle((FILE_OK, 4), (FILE_OK, 6)), 10)


def test_a_bundle_has_a_status_and_a_length_for_each_file() -> None:
    for statuses, lengths in ([FILE_OK], [9]), ([FILE_OK] * 3, [9, 0, 0]), ([FILE_OK] * 2, [9]), ([FILE_OK], [9, 0]):
        assert not fits(TWO_FILES, Bundle(rid=1, epoch=1, statuses=statuses, lengths=lengths), 9)


def test_a_file_that_is_refused_has_no_bytes_in_a_bundle() -> None:
    assert fits(TWO_FILES, bundle(("changed", 0), (FILE_OK, 9)), 9)
    assert fits(TWO_FILES, bundle(("a later reason", 0), (FILE_OK, 9)), 9)
    assert not fits(TWO_FILES, bundle(("changed", 9), (FILE_OK, 0)), 9)


def page(*names: str, more: bool = False) -> CataloguePage:
    entries = [Entry(name=name, size=1, mtime_ns=1, id=ID) for name in names]
    return CataloguePage(rid=1, epoch=1, catalogue=b"", entries=entries, more=more)


def test_the_names_of_a_page_are_sorted_and_follow_the_requested_name() -> None:
    request = List(rid=1, after="b")
    assert fits(request, page("c", "d", "é", "\ufffd", "\U0001f600"))
    for names in ("b",), ("a", "c"), ("c", "c"), ("d", "c"), ("\U0001f600", "\ufffd"):
        assert not fits(request, page(*names)), names


def test_an_empty_page_is_the_last_one() -> None:
    assert fits(List(rid=1), page())
    assert not fits(List(rid=1), page(more=True))
