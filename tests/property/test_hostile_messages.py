"""Arbitrary bytes decode to a message or raise ``ProtocolError``, and a worker answers every request."""

from __future__ import annotations

import random
from collections.abc import Iterator
from types import UnionType
from typing import Any, get_args

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msd.client.network.reply_check import check_reply
from msd.wire.errors import ProtocolError
from msd.wire.protocol import child_messages, messages
from msd.wire.protocol.codec import decode, encode
from msd.wire.protocol.messages import Correlated, DataReply, DataRequest, Message
from msd.wire.protocol.segments import MAX_BUNDLE_SIZE, digest, file_id, segment_count, span
from msd.wire.protocol.states import RefusalReason
from msd.workers.serving.answer import BundleJob, DigestsJob, Identity, SegmentJob, answer, compact_request
from msd.workers.source.catalogue import Catalogue, SharedFile, Version
from msd.workers.source.listing import Listings
from tests.hostile_clients import MessageFuzzer, data_requests
from tests.unit.shares import write_edition

FAMILIES: list[UnionType | type[Message]] = [
    messages.DataRequest,
    messages.DataReply,
    messages.Status,
    messages.ControlRequest,
    messages.ControlReply,
    messages.WorkerOrder,
    child_messages.WorkerSettings,
]
MESSAGE_TYPES = sorted(
    {message_type for family in FAMILIES for message_type in get_args(family) or (family,)},
    key=lambda each: each.__name__,
)
FIELDS = sorted({name for message_type in MESSAGE_TYPES for name in message_type.__struct_encode_fields__})

#: Sizes of the shared files, in bytes. "large" has several pages of digests.
SIZES = {"empty": 0, "film.bin": 12 << 20, "Zoë/x": 245, "large": 9 << 33}
IDS = {name: file_id(size, digest(name.encode()) * segment_count(size)) for name, size in SIZES.items()}

BUNDLES = [b"".join(IDS.values()), bytes(64), bytes(33), IDS["Zoë/x"] * 512]

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=10)
    | st.binary(max_size=40)
    | st.builds(msgpack.ExtType, st.integers(0, 127), st.binary(max_size=4))
    | st.builds(msgpack.Timestamp, st.integers(-(2**63), 2**63 - 1), st.integers(0, 10**9 - 1))
)
KEYS = SCALARS.filter(lambda key: key == key) | st.sampled_from(["type", *FIELDS])
ANY_VALUE = st.recursive(
    SCALARS, lambda values: st.lists(values, max_size=5) | st.dictionaries(KEYS, values, max_size=5), max_leaves=30
)
TAGS = st.sampled_from([str(message_type.__struct_config__.tag) for message_type in MESSAGE_TYPES])
#: Values that are valid in some field of a message, and arbitrary values.
FIELD_VALUES: st.SearchStrategy[Any] = (
    st.integers(0, 20)
    | st.sampled_from(
        [2**63 - 1, 1 << 20, *SIZES, *IDS.values(), "awake", "x" * 4096, b"", bytes(32), None, [], {}, *BUNDLES]
    )
    | ANY_VALUE
)
NEARLY_VALID = st.builds(
    lambda tag, keys: {"type": tag, **keys}, TAGS, st.dictionaries(st.sampled_from(FIELDS), FIELD_VALUES, max_size=8)
)


def requests() -> st.SearchStrategy[dict[str, Any]]:
    """Generates requests with all their fields; a value may be valid only in another field, or in none."""

    def fields(message_type: type[Message]) -> st.SearchStrategy[dict[str, Any]]:
        tag = {"type": st.just(message_type.__struct_config__.tag)}
        return st.fixed_dictionaries({**tag, **dict.fromkeys(message_type.__struct_encode_fields__, FIELD_VALUES)})

    return st.one_of([fields(message_type) for message_type in get_args(DataRequest)])


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Catalogue]:
    folder = tmp_path_factory.mktemp("catalogue")
    files = [SharedFile(name, Version(1, 1, size, 1, 1), IDS[name]) for name, size in SIZES.items()]
    large = [file for file in sorted(files, key=lambda file: file.name) if not file.is_small]
    write_edition(folder, files, *(bytes(32 * file.segments) for file in large))
    catalogue = Catalogue(folder)
    yield catalogue
    catalogue.close()


def check(frame: bytes, family: UnionType | type[Message]) -> Message | None:
    """Decodes a frame, None if that raises ``ProtocolError``. Any other error or result fails the test."""
    try:
        message: Message = decode(frame, family)
    except ProtocolError:
        return None
    assert isinstance(message, get_args(family) or family)
    return message


def pack(value: object) -> bytes:
    return bytes(msgpack.packb(value))


@given(st.sampled_from(FAMILIES), st.binary(max_size=300))
@settings(max_examples=300)
def test_arbitrary_bytes_are_a_message_or_a_protocol_error(family: UnionType | type[Message], frame: bytes) -> None:
    check(frame, family)


@given(st.sampled_from(FAMILIES), ANY_VALUE | NEARLY_VALID)
@settings(max_examples=200)
def test_arbitrary_msgpack_is_a_message_or_a_protocol_error(family: UnionType | type[Message], value: object) -> None:
    check(pack(value), family)


@given(
    st.sampled_from(FAMILIES),
    st.integers(0, 70_000),
    st.sampled_from([b"\x91", b"\x81\xa1a", b"\x81\x91", b"\xdc\x00\x01"]),
)
@settings(max_examples=50)
def test_nesting_of_any_depth_is_a_message_or_a_protocol_error(
    family: UnionType | type[Message], depth: int, opening: bytes
) -> None:
    check(opening * depth + b"\xc0", family)


@given(requests() | NEARLY_VALID, st.booleans())
@settings(max_examples=300)
def test_every_request_is_answered(catalogue: Catalogue, header: dict[str, Any], awake: bool) -> None:
    request: Any = check(pack(header), DataRequest)
    if request is None:
        return
    identity, listings = Identity(number=3, epoch=77), Listings(catalogue.listing)
    for variant in (request, compact_request(request, catalogue, listings)):
        reply = answer(variant, identity, catalogue, listings, awake=awake)
        match reply:
            case None:
                assert isinstance(request, messages.Bye)
            case SegmentJob(rid, file, index, start, offset, length):
                assert rid == request.rid
                assert 0 <= index < file.segments
                assert 0 <= start < start + length <= span(file.size, index)[1]
                assert offset == span(file.size, index)[0] + start
                assert catalogue.copies(file)
            case BundleJob(rid, ranges):
                assert rid == request.rid
                assert sum(length for _, _, length in filter(None, ranges)) <= MAX_BUNDLE_SIZE
                assert all(0 <= offset <= offset + length <= file.size for file, offset, length in filter(None, ranges))
            case DigestsJob(rid, file, start):
                assert rid == request.rid
                assert 0 <= start < file.segments
            case _:
                assert decode(encode(reply), DataReply) == reply
                assert reply.rid == request.rid


#: Valid replies to the requests in ``REQUESTS`` with a payload of 32 bytes.
REPLIES: list[Message] = [
    messages.Segment(rid=1, epoch=7, index=3),
    messages.Segment(rid=1, epoch=7, index=3, start=10),
    messages.Bundle(rid=1, epoch=7, statuses=["ok", "changed", "ok"], lengths=[20, 0, 12]),
    messages.DigestPage(rid=1, epoch=7, start=0),
    messages.Refusal(rid=1, epoch=7, reason=RefusalReason.BAD_REQUEST),
    messages.CataloguePage(
        rid=1,
        epoch=7,
        catalogue=bytes(32),
        entries=[
            messages.Entry(name="film.bin", size=12, mtime_ns=1, mode=0o644, id=bytes(32)),
            messages.Entry(name="films/", size=0, mtime_ns=0, mode=0o755),
        ],
        more=True,
    ),
]
REQUESTS: list[Correlated] = [
    messages.Get(rid=1, id=bytes(32), index=3),
    messages.Get(rid=1, id=bytes(32), index=3, start=10, length=32),
    messages.GetBundle(rid=1, ids=bytes(96)),
    messages.GetBundle(rid=1, ids=bytes(96), start=5, length=40),
    messages.Digests(rid=1, id=bytes(32), start=0),
    messages.List(rid=1, after="a", prefix="film", catalogue=bytes(32)),
]


@pytest.mark.parametrize("count", [50_000, pytest.param(500_000, marks=pytest.mark.soak)])
def test_random_requests_are_answered(catalogue: Catalogue, rng: random.Random, count: int) -> None:
    fuzzer = MessageFuzzer(rng, data_requests(IDS["film.bin"]), 3000)
    identity, listings = Identity(number=3, epoch=77), Listings(catalogue.listing)
    answered = 0
    for _ in range(count):
        request: Any = check(fuzzer.message()[0], DataRequest)
        if request is not None:
            reply = answer(request, identity, catalogue, listings, awake=True)
            assert (reply is None) == isinstance(request, messages.Bye)
            assert reply is None or reply.rid == request.rid
            answered += 1
    assert answered > count / 20, "most of the messages do not even reach the worker's answers"


@pytest.mark.parametrize("count", [50_000, pytest.param(500_000, marks=pytest.mark.soak)])
def test_random_replies_are_malformed_or_have_what_was_requested(rng: random.Random, count: int) -> None:
    fuzzer = MessageFuzzer(rng, REPLIES, 3000)
    accepted = 0
    for _ in range(count):
        reply: Any = check(fuzzer.message()[0], DataReply)
        if reply is None:
            continue
        for request in REQUESTS:
            try:
                check_reply(request, reply, 32)
            except ProtocolError:
                continue
            accepted += 1
            match request, reply:
                case messages.Get(index=index, start=start), messages.Segment():
                    assert (reply.index, reply.start) == (index, start)
                case messages.GetBundle(), messages.Bundle():
                    assert len(reply.statuses) == 3
                    assert sum(reply.lengths) == 32
                case messages.List(), messages.CataloguePage():
                    names = [entry.name for entry in reply.entries]
                    assert names == sorted({*names})
                    assert all(name.startswith("film") for name in names)
                case _:
                    assert isinstance(reply, messages.Refusal | messages.DigestPage)
    assert accepted > count / 20, "most of the messages do not even reach the check"
