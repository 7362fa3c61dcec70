"""A worker's answers to each request, awake and asleep."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from msd.wire.protocol.codec import decode, encode
from msd.wire.protocol.messages import (
    MAX_ENTRIES,
    PROTOCOL_VERSION,
    Bye,
    CataloguePage,
    DataReply,
    DataRequest,
    Describe,
    Described,
    Digests,
    Entry,
    Get,
    GetBundle,
    Hello,
    List,
    Refusal,
    Welcome,
)
from msd.wire.protocol.segments import MAX_BUNDLE_SIZE, Manifest, digest, file_id, segment_count
from msd.wire.protocol.states import RefusalReason
from msd.workers.serving.answer import (
    QUEUED_REQUESTS,
    BundleJob,
    DigestsJob,
    Identity,
    Job,
    QueuedBundle,
    QueuedList,
    QueuedRequest,
    SegmentJob,
    answer,
    compact_request,
    refusal,
)
from msd.workers.source.catalogue import Catalogue, SharedFile, Version
from msd.workers.source.listing import KEPT_S, Listings
from tests.unit.shares import write_edition

IDENTITY = Identity(number=3, epoch=77)


def write(folder: Path, **sizes: int) -> None:
    """Writes a catalogue with files of these names and sizes."""
    files, digests = [], []
    for inode, (name, size) in enumerate(sorted(sizes.items())):
        digests.append(digest(name.encode()) * segment_count(size))
        files.append(SharedFile(name, Version(1, inode, size, 1000 + inode, 2000), file_id(size, digests[-1])))
    write_edition(folder, files, *(each for file, each in zip(files, digests, strict=True) if not file.is_small))


@pytest.fixture
def catalogue(tmp_path: Path) -> Iterator[Catalogue]:
    write(tmp_path, big=245, empty=0, small=13)
    catalogue = Catalogue(tmp_path)
    yield catalogue
    catalogue.close()


def file_of(catalogue: Catalogue, name: str) -> SharedFile:
    file = catalogue.find(name, None)
    assert file is not None
    return file


def ask(request: DataRequest | QueuedRequest, catalogue: Catalogue) -> DataReply | Job | None:
    """Returns the answer of an awake worker, and asserts that a client can decode it."""
    reply = answer(request, IDENTITY, catalogue, Listings(catalogue.listing), awake=True)
    if reply is not None and not isinstance(reply, Job):
        assert decode(encode(reply), DataReply) == reply
    return reply


def requests(catalogue: Catalogue) -> list[DataRequest]:
    id = file_of(catalogue, "big").id
    return [
        Hello(rid=5, version=PROTOCOL_VERSION, session=9),
        Hello(rid=5, version=1, session=9),
        List(rid=5),
        Describe(rid=5, name="big"),
        Describe(rid=5, name="missing"),
        Digests(rid=5, id=id, start=0),
        Get(rid=5, id=id, index=0),
        Get(rid=5, id=bytes(32), index=0),
        Get(rid=5, id=id, index=99),
        GetBundle(rid=5, ids=id + bytes(32)),
        GetBundle(rid=5, ids=id, start=245),
    ]


def test_welcome_identifies_the_worker_and_the_catalogue(catalogue: Catalogue) -> None:
    assert ask(Hello(rid=5, version=PROTOCOL_VERSION, session=9), catalogue) == Welcome(
        rid=5, version=PROTOCOL_VERSION, epoch=77, number=3, files=3, catalogue=catalogue.id
    )


@pytest.mark.parametrize("version", [0, 1, 3, 2**63 - 1])
def test_a_client_of_another_version_is_refused_with_both_versions(catalogue: Catalogue, version: int) -> None:
    assert ask(Hello(rid=5, version=version, session=9), catalogue) == Refusal(
        rid=5,
        epoch=77,
        reason=RefusalReason.VERSION,
        detail=f"this worker speaks protocol version {PROTOCOL_VERSION}, not {version}",
        versions=[PROTOCOL_VERSION],
    )


def page(catalogue: Catalogue, entries: list[Entry]) -> CataloguePage:
    return CataloguePage(rid=5, epoch=77, catalogue=catalogue.id, entries=entries, more=False)


def test_list_is_answered_with_a_page_of_the_catalogue(catalogue: Catalogue) -> None:
    entries = [file.entry for file in catalogue.files]
    assert ask(List(rid=5), catalogue) == page(catalogue, entries)
    assert ask(List(rid=5, catalogue=catalogue.id), catalogue) == page(catalogue, entries)
    assert ask(List(rid=5, after="big"), catalogue) == page(catalogue, entries[1:])
    assert ask(List(rid=5, prefix="e"), catalogue) == page(catalogue, entries[1:2])
    assert ask(List(rid=5, after="big", prefix="b"), catalogue) == page(catalogue, [])


def test_a_page_states_whether_more_entries_follow(tmp_path: Path) -> None:
    write(tmp_path, **{f"file {index:05}": 0 for index in range(MAX_ENTRIES + 7)})
    with closing(Catalogue(tmp_path)) as catalogue:
        first = ask(List(rid=5), catalogue)
        assert isinstance(first, CataloguePage)
        assert first.more
        second = ask(List(rid=6, after=first.entries[-1].name, catalogue=first.catalogue), catalogue)
        assert isinstance(second, CataloguePage)
        assert not second.more
        assert len(first.entries) + len(second.entries) == MAX_ENTRIES + 7


def test_an_earlier_catalogue_is_listed_as_long_as_it_is_kept(tmp_path: Path, catalogue: Catalogue) -> None:
    listings = Listings(catalogue.listing)
    write(tmp_path, other=1)
    with closing(Catalogue(tmp_path)) as latest:
        listings.replace(latest.listing, 0.0)
        request = List(rid=5, catalogue=catalogue.id)
        entries = [file.entry for file in catalogue.files]
        assert answer(request, IDENTITY, latest, listings, awake=True) == page(catalogue, entries)
        assert answer(List(rid=5), IDENTITY, latest, listings, awake=True) == page(latest, [latest.files[0].entry])
        queued = compact_request(request, latest, listings)
        listings.expire(KEPT_S)
        for late in request, queued:
            reply = answer(late, IDENTITY, latest, listings, awake=True)
            assert isinstance(reply, Refusal)
            assert reply.reason is RefusalReason.UNKNOWN


def test_a_compacted_request_has_the_same_answer(catalogue: Catalogue) -> None:
    queued = [request for request in requests(catalogue) if isinstance(request, QUEUED_REQUESTS)]
    for request in [*queued, List(rid=6, after="bog"), List(rid=7, after="z"), List(rid=8, prefix="s")]:
        compacted = compact_request(request, catalogue, Listings(catalogue.listing))
        assert ask(compacted, catalogue) == ask(request, catalogue)


def test_a_compacted_list_request_holds_no_text_sent_by_the_client(catalogue: Catalogue) -> None:
    """Hundreds of requests may be queued for each of hundreds of clients, so each must need little memory."""
    request = List(rid=5, after="🙂" * 4096, prefix="b" * 4096, catalogue=bytes(catalogue.id))
    compacted = compact_request(request, catalogue, Listings(catalogue.listing))
    assert isinstance(compacted, QueuedList)
    assert compacted.catalogue is catalogue.id


def test_a_file_is_described_by_name_by_id_or_by_both(catalogue: Catalogue) -> None:
    file = file_of(catalogue, "big")
    described = Described(rid=5, epoch=77, name="big", size=245, mtime_ns=1000, segment_size=21, id=file.id)
    assert ask(Describe(rid=5, name="big"), catalogue) == described
    assert ask(Describe(rid=5, id=file.id), catalogue) == described
    assert ask(Describe(rid=5, name="big", id=file.id), catalogue) == described


def test_an_empty_file_is_described(catalogue: Catalogue) -> None:
    reply = ask(Describe(rid=5, name="empty"), catalogue)
    assert isinstance(reply, Described)
    assert (reply.size, reply.segment_size) == (0, 0)
    assert reply.id == Manifest.build("empty", 0, b"").id


def test_describes_the_only_file_without_a_name(tmp_path: Path, catalogue: Catalogue) -> None:
    assert ask(Describe(rid=5), catalogue) == refusal(5, IDENTITY, RefusalReason.UNKNOWN)
    write(tmp_path, only=13)
    single = Catalogue(tmp_path)
    reply = ask(Describe(rid=5), single)
    assert isinstance(reply, Described)
    assert reply.name == "only"
    single.close()


def test_files_that_are_not_shared_are_refused_as_unknown(catalogue: Catalogue) -> None:
    big, small = file_of(catalogue, "big"), file_of(catalogue, "small")
    unknown: list[DataRequest] = [
        Describe(rid=5, name="missing"),
        Describe(rid=5, name="../big"),
        Describe(rid=5, id=bytes(32)),
        Describe(rid=5, name="big", id=small.id),
        Describe(rid=5, name="missing", id=big.id),
        Digests(rid=5, id=bytes(32), start=0),
        Get(rid=5, id=bytes(32), index=0),
    ]
    for request in unknown:
        assert ask(request, catalogue) == Refusal(rid=5, epoch=77, reason=RefusalReason.UNKNOWN)


def test_a_request_for_a_segment_becomes_a_job(catalogue: Catalogue) -> None:
    file = file_of(catalogue, "big")
    for index, size in (0, 21), (11, 14):
        assert ask(Get(rid=5, id=file.id, index=index), catalogue) == SegmentJob(5, file, index, 0, 21 * index, size)


def test_a_part_of_a_segment_begins_and_ends_anywhere_in_it(catalogue: Catalogue) -> None:
    file = file_of(catalogue, "big")
    for start, length, expected in (0, 21, 21), (20, 1, 1), (4, None, 17), (4, 9, 9):
        request = Get(rid=5, id=file.id, index=1, start=start, length=length)
        assert ask(request, catalogue) == SegmentJob(5, file, 1, start, 21 + start, expected)


@pytest.mark.parametrize(
    ("start", "length"), [(0, 0), (0, 15), (13, 2), (14, None), (15, None), (14, 1), (2**63 - 1, 2**63 - 1)]
)
def test_a_part_that_is_empty_or_not_in_the_segment_is_refused_as_a_bad_request(
    catalogue: Catalogue, start: int, length: int | None
) -> None:
    reply = ask(Get(rid=5, id=file_of(catalogue, "big").id, index=11, start=start, length=length), catalogue)
    assert isinstance(reply, Refusal)
    assert reply.reason is RefusalReason.BAD_REQUEST
    assert reply.detail.endswith("of 14")


def test_a_request_for_digests_becomes_a_job(catalogue: Catalogue) -> None:
    file = file_of(catalogue, "big")
    for start in (0, 11):
        assert ask(Digests(rid=5, id=file.id, start=start), catalogue) == DigestsJob(5, file, start)


@pytest.mark.parametrize("index", [12, 13, 2**63 - 1])
def test_an_index_past_the_end_is_refused_as_a_bad_request(catalogue: Catalogue, index: int) -> None:
    id = file_of(catalogue, "big").id
    expected = Refusal(rid=5, epoch=77, reason=RefusalReason.BAD_REQUEST, detail=f"segment {index} of 12")
    assert ask(Get(rid=5, id=id, index=index), catalogue) == expected
    assert ask(Digests(rid=5, id=id, start=index), catalogue) == expected


def test_every_segment_of_an_empty_file_is_refused_as_a_bad_request(catalogue: Catalogue) -> None:
    reply = ask(Get(rid=5, id=file_of(catalogue, "empty").id, index=0), catalogue)
    assert reply == Refusal(rid=5, epoch=77, reason=RefusalReason.BAD_REQUEST, detail="segment 0 of 0")


def bundle_of(catalogue: Catalogue, *names: str) -> bytes:
    return b"".join(file_of(catalogue, name).id for name in names)


def test_a_bundle_has_whole_files_in_the_order_of_the_request(catalogue: Catalogue) -> None:
    big, empty, small = (file_of(catalogue, name) for name in ("big", "empty", "small"))
    request = GetBundle(rid=5, ids=bundle_of(catalogue, "small", "empty", "big", "small"))
    ranges: list[tuple[SharedFile, int, int] | None] = [(small, 0, 13), (empty, 0, 0), (big, 0, 245), (small, 0, 13)]
    assert ask(request, catalogue) == BundleJob(5, ranges)


@pytest.mark.parametrize(
    ("start", "length", "expected"),
    [
        (244, None, [(244, 1), (0, 0), (0, 13)]),
        (4, 249, [(4, 241), (0, 0), (0, 8)]),
        (4, 241, [(4, 241), (0, 0), (0, 0)]),
        (0, 1, [(0, 1), (0, 0), (0, 0)]),
        (0, 2**63 - 1, [(0, 245), (0, 0), (0, 13)]),
    ],
)
def test_a_part_of_a_bundle_begins_in_its_first_file_and_ends_anywhere(
    catalogue: Catalogue, start: int, length: int | None, expected: list[tuple[int, int]]
) -> None:
    ids = bundle_of(catalogue, "big", "empty", "small")
    job = ask(GetBundle(rid=5, ids=ids, start=start, length=length), catalogue)
    assert isinstance(job, BundleJob)
    assert [range[1:] for range in job.ranges if range] == expected


def test_a_file_that_is_not_shared_does_not_change_the_rest_of_the_bundle(catalogue: Catalogue) -> None:
    small = file_of(catalogue, "small")
    request = GetBundle(rid=5, ids=bytes(32) + small.id, start=12)
    assert ask(request, catalogue) == BundleJob(5, [None, (small, 0, 13)])


def test_a_bundle_of_large_files_is_refused_as_a_bad_request(tmp_path: Path) -> None:
    write(tmp_path, half=MAX_BUNDLE_SIZE // 2, more=MAX_BUNDLE_SIZE // 2 + 1, large=MAX_BUNDLE_SIZE + 1)
    with closing(Catalogue(tmp_path)) as catalogue:
        for names in ["large"], ["half", "more"]:
            reply = ask(GetBundle(rid=5, ids=bundle_of(catalogue, *names)), catalogue)
            assert isinstance(reply, Refusal)
            assert reply.reason is RefusalReason.BAD_REQUEST
        ids = bundle_of(catalogue, "half", "more")
        assert isinstance(ask(GetBundle(rid=5, ids=ids, start=1), catalogue), BundleJob)
        assert isinstance(ask(GetBundle(rid=5, ids=ids, length=MAX_BUNDLE_SIZE), catalogue), BundleJob)


@pytest.mark.parametrize(("name", "start"), [("small", 13), ("small", 2**63 - 1), ("empty", 1)])
def test_a_bundle_that_begins_behind_its_first_file_is_refused_as_a_bad_request(
    catalogue: Catalogue, name: str, start: int
) -> None:
    reply = ask(GetBundle(rid=5, ids=bundle_of(catalogue, name, "big"), start=start), catalogue)
    assert isinstance(reply, Refusal)
    assert reply.reason is RefusalReason.BAD_REQUEST


def test_a_queued_bundle_holds_no_ids_sent_by_the_client(catalogue: Catalogue) -> None:
    small = file_of(catalogue, "small")
    queued = compact_request(GetBundle(rid=5, ids=bytes(small.id) + bytes(32)), catalogue, Listings(catalogue.listing))
    assert isinstance(queued, QueuedBundle)
    assert queued.ids[0] is catalogue.own_id(small.id)
    assert queued.ids[1] is None


def test_every_reply_holds_the_rid_of_the_request_and_the_epoch_of_the_worker(catalogue: Catalogue) -> None:
    for request in requests(catalogue):
        reply = ask(request, catalogue)
        assert reply is not None
        assert reply.rid == 5
        assert isinstance(reply, Job) or reply.epoch == 77


def test_a_worker_going_to_sleep_refuses_all_requests(catalogue: Catalogue) -> None:
    for request in requests(catalogue):
        reply = answer(request, IDENTITY, catalogue, Listings(catalogue.listing), awake=False)
        assert reply == Refusal(rid=5, epoch=77, reason=RefusalReason.SLEEPING)


@pytest.mark.parametrize("awake", [True, False])
def test_bye_has_no_reply(catalogue: Catalogue, awake: bool) -> None:
    assert answer(Bye(session=9), IDENTITY, catalogue, Listings(catalogue.listing), awake=awake) is None


def test_a_detail_is_limited_and_has_no_control_characters() -> None:
    for text, detail in ("x" * 5000, "x" * 1024), ("\x1b\u202e", r"\x1b\u202e"), ("\x1b" * 5000, r"\x1b" * 256):
        reply = refusal(5, IDENTITY, RefusalReason.UNREADABLE, text)
        assert decode(encode(reply), DataReply) == reply
        assert reply.detail == detail
