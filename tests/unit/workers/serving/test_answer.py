"""What a worker answers to each request, awake and asleep."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from msd.wire.protocol.codec import decode, encode
from msd.wire.protocol.messages import (
    PROTOCOL_VERSION,
    Bye,
    CataloguePage,
    DataReply,
    DataRequest,
    Describe,
    Described,
    Digests,
    Get,
    Hello,
    List,
    Refusal,
    Welcome,
)
from msd.wire.protocol.segments import DIGEST_SIZE, Manifest, digest, file_id, segment_count
from msd.wire.protocol.states import RefusalReason
from msd.workers.serving.answer import Identity, Job, answer, refusal, to_keep
from msd.workers.source.catalogue import Catalogue, SharedFile, Version

ME = Identity(number=3, epoch=77)


def write(folder: Path, **sizes: int) -> None:
    """Writes a catalogue of files of these names and sizes."""
    files, digests = [], b""
    for inode, (name, size) in enumerate(sorted(sizes.items())):
        its_digests = digest(name.encode()) * segment_count(size)
        version = Version(1, inode, size, 1000 + inode, 2000)
        files.append(SharedFile(name, version, file_id(size, its_digests), len(digests) // DIGEST_SIZE))
        digests += its_digests
    (folder / "files.jsonl").write_bytes(msgspec.json.Encoder().encode_lines(files))
    (folder / "digests").write_bytes(digests)


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


def ask(request: DataRequest, catalogue: Catalogue) -> DataReply | Job | None:
    """The answer of a worker that is awake; a message must be one that a client can read."""
    reply = answer(request, ME, catalogue, awake=True)
    if reply is not None and not isinstance(reply, Job):
        assert decode(encode(reply), DataReply) == reply
    return reply


def requests(catalogue: Catalogue) -> list[DataRequest]:
    id = file_of(catalogue, "big").id
    return [
        Hello(rid=5, version=1, session=9),
        List(rid=5),
        Describe(rid=5, name="big"),
        Describe(rid=5, name="none"),
        Digests(rid=5, id=id, start=0),
        Get(rid=5, id=id, index=0),
        Get(rid=5, id=bytes(32), index=0),
        Get(rid=5, id=id, index=99),
    ]


def test_hello_is_welcomed_with_who_answers_and_what_is_shared(catalogue: Catalogue) -> None:
    assert ask(Hello(rid=5, version=1, session=9), catalogue) == Welcome(
        rid=5, version=PROTOCOL_VERSION, epoch=77, number=3, files=3, catalogue=catalogue.id
    )


def test_a_client_of_another_version_is_told_ours(catalogue: Catalogue) -> None:
    reply = ask(Hello(rid=5, version=99, session=9), catalogue)
    assert isinstance(reply, Welcome)
    assert reply.version == PROTOCOL_VERSION


def test_a_list_is_a_page_of_the_catalogue(catalogue: Catalogue) -> None:
    entries = [file.entry for file in catalogue.files]
    assert ask(List(rid=5), catalogue) == CataloguePage(rid=5, epoch=77, entries=entries, more=False)
    assert ask(List(rid=6, after="big"), catalogue) == CataloguePage(rid=6, epoch=77, entries=entries[1:], more=False)


def test_a_list_that_is_longer_than_a_page_says_so(tmp_path: Path) -> None:
    write(tmp_path, **{f"file {index:03}": index for index in range(300)})
    catalogue = Catalogue(tmp_path)
    reply = ask(List(rid=5), catalogue)
    assert isinstance(reply, CataloguePage)
    assert reply.more
    rest = ask(List(rid=6, after=reply.entries[-1].name), catalogue)
    assert isinstance(rest, CataloguePage)
    assert not rest.more
    assert len(reply.entries) + len(rest.entries) == 300
    catalogue.close()


def test_a_request_that_waits_has_the_same_answer(catalogue: Catalogue) -> None:
    for request in [*requests(catalogue), List(rid=6, after="bog"), List(rid=7, after="z")]:
        assert ask(to_keep(request, catalogue), catalogue) == ask(request, catalogue)


def test_a_list_that_waits_holds_no_text_of_the_client(catalogue: Catalogue) -> None:
    """Hundreds of them may wait for each of hundreds of clients."""
    for after in ("🙂" * 4096, "b" * 4096, "A" * 4096):
        kept = to_keep(List(rid=5, after=after), catalogue)
        assert isinstance(kept, List)
        assert any(kept.after is name for name in ("", *(file.name for file in catalogue.files)))


def test_a_file_is_described_by_name_by_id_or_by_both(catalogue: Catalogue) -> None:
    file = file_of(catalogue, "big")
    described = Described(rid=5, epoch=77, name="big", size=245, mtime_ns=1000, segment_size=21, id=file.id)
    assert ask(Describe(rid=5, name="big"), catalogue) == described
    assert ask(Describe(rid=5, id=file.id), catalogue) == described
    assert ask(Describe(rid=5, name="big", id=file.id), catalogue) == described


def test_a_file_of_a_time_the_protocol_cannot_say_is_described(tmp_path: Path) -> None:
    file = SharedFile("a", Version(1, 2, 0, 10**20, 4), file_id(0, b""), 0)
    (tmp_path / "files.jsonl").write_bytes(msgspec.json.Encoder().encode_lines([file]))
    (tmp_path / "digests").touch()
    catalogue = Catalogue(tmp_path)
    reply = ask(Describe(rid=5), catalogue)
    assert isinstance(reply, Described)
    assert reply.mtime_ns == 2**63 - 1
    catalogue.close()


def test_an_empty_file_is_described(catalogue: Catalogue) -> None:
    reply = ask(Describe(rid=5, name="empty"), catalogue)
    assert isinstance(reply, Described)
    assert (reply.size, reply.segment_size) == (0, 0)
    assert reply.id == Manifest.build("empty", 0, b"").id


def test_a_file_need_not_be_named_where_there_is_one(tmp_path: Path, catalogue: Catalogue) -> None:
    assert ask(Describe(rid=5), catalogue) == refusal(5, ME, RefusalReason.UNKNOWN)
    write(tmp_path, only=13)
    alone = Catalogue(tmp_path)
    reply = ask(Describe(rid=5), alone)
    assert isinstance(reply, Described)
    assert reply.name == "only"
    alone.close()


def test_what_is_not_shared_is_unknown(catalogue: Catalogue) -> None:
    big, small = file_of(catalogue, "big"), file_of(catalogue, "small")
    unknown: list[DataRequest] = [
        Describe(rid=5, name="none"),
        Describe(rid=5, name="../big"),
        Describe(rid=5, id=bytes(32)),
        Describe(rid=5, name="big", id=small.id),
        Describe(rid=5, name="none", id=big.id),
        Digests(rid=5, id=bytes(32), start=0),
        Get(rid=5, id=bytes(32), index=0),
    ]
    for request in unknown:
        assert ask(request, catalogue) == Refusal(rid=5, epoch=77, reason=RefusalReason.UNKNOWN)


def test_a_segment_that_is_asked_for_becomes_a_job(catalogue: Catalogue) -> None:
    file = file_of(catalogue, "big")
    for index in (0, 11):
        assert ask(Get(rid=5, id=file.id, index=index), catalogue) == Job(5, file, index, digests=False)


def test_digests_that_are_asked_for_become_a_job(catalogue: Catalogue) -> None:
    file = file_of(catalogue, "big")
    for start in (0, 11):
        assert ask(Digests(rid=5, id=file.id, start=start), catalogue) == Job(5, file, start, digests=True)


@pytest.mark.parametrize("index", [12, 13, 2**63 - 1])
def test_a_segment_past_the_end_is_a_bad_request(catalogue: Catalogue, index: int) -> None:
    id = file_of(catalogue, "big").id
    refused = Refusal(rid=5, epoch=77, reason=RefusalReason.BAD_REQUEST, detail=f"segment {index} of 12")
    assert ask(Get(rid=5, id=id, index=index), catalogue) == refused
    assert ask(Digests(rid=5, id=id, start=index), catalogue) == refused


def test_an_empty_file_has_no_segment_to_ask_for(catalogue: Catalogue) -> None:
    reply = ask(Get(rid=5, id=file_of(catalogue, "empty").id, index=0), catalogue)
    assert reply == Refusal(rid=5, epoch=77, reason=RefusalReason.BAD_REQUEST, detail="segment 0 of 0")


def test_every_reply_echoes_its_request_and_names_the_epoch(catalogue: Catalogue) -> None:
    for request in requests(catalogue):
        reply = ask(request, catalogue)
        assert reply is not None
        assert reply.rid == 5
        assert isinstance(reply, Job) or reply.epoch == 77


def test_a_worker_that_goes_to_sleep_refuses_everything(catalogue: Catalogue) -> None:
    for request in requests(catalogue):
        reply = answer(request, ME, catalogue, awake=False)
        assert reply == Refusal(rid=5, epoch=77, reason=RefusalReason.SLEEPING)


@pytest.mark.parametrize("awake", [True, False])
def test_bye_has_no_reply(catalogue: Catalogue, awake: bool) -> None:
    assert answer(Bye(session=9), ME, catalogue, awake=awake) is None


def test_a_long_detail_is_cut_to_what_a_client_reads() -> None:
    reply = refusal(5, ME, RefusalReason.UNREADABLE, "x" * 5000)
    assert decode(encode(reply), DataReply) == reply
    assert reply.detail == "x" * 1024
