"""Decoding an encoded message restores it, malformed frames raise only ProtocolError, and frames are limited."""

from __future__ import annotations

from types import UnionType
from typing import Any, get_args

import msgpack
import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec import inspect

from msd.wire.errors import ProtocolError
from msd.wire.protocol import child_messages, messages
from msd.wire.protocol.codec import (
    MAX_HEADER,
    MAX_REPLY_FRAME,
    MAX_REQUEST_FRAME,
    MAX_SNAPSHOT_FRAME,
    MAX_SUBSCRIPTION_FRAME,
    STATUS_TOPIC,
    decode,
    encode,
)
from msd.wire.protocol.messages import Get, Hello, Join, Message, Order, Quit, Refusal, Toggle
from msd.wire.protocol.segments import MAX_FILE_SIZE, segment_size
from msd.wire.protocol.states import RefusalReason, WantedState

FAMILIES: dict[str, UnionType | type[Message]] = {
    "data request": messages.DataRequest,
    "data reply": messages.DataReply,
    "status": messages.Status,
    "control request": messages.ControlRequest,
    "control reply": messages.ControlReply,
    "worker order": messages.WorkerMessage,
    "announcement": messages.Announce,
    "answer to an announcement": messages.Holders,
    "settings": child_messages.WorkerSettings,
    "passed on": child_messages.FilesListed | child_messages.FileReceived | child_messages.UnitsHeld,
    "index line": child_messages.IndexLine,
}
MEMBERS = {kind: family for family in FAMILIES.values() for kind in get_args(family) or (family,)}


def tag_of(kind: type[Message]) -> str:
    return str(kind.__struct_config__.tag)


TAGS = sorted({tag_of(kind) for kind in MEMBERS})

#: An invalid value for every field of every message: no field is a list of lists of lists.
INVALID = [[[]]]  # type: ignore[var-annotated]


#: A public key, or none.
KEYS = st.just(b"") | st.binary(min_size=32, max_size=32)


def values(kind: inspect.Type) -> st.SearchStrategy[Any]:
    """Generates valid values for a field of this type."""
    match kind:
        case inspect.IntType(ge=ge, le=le):
            return st.integers(-(2**63) if ge is None else ge, 2**63 - 1 if le is None else le)
        case inspect.FloatType(ge=ge, le=le):
            return st.floats(ge, le)
        case inspect.StrType(pattern=str(pattern)):
            return st.from_regex(pattern).map(lambda text: text[:20])
        case inspect.StrType(min_length=shortest, max_length=longest):
            return st.text(min_size=shortest or 0, max_size=min(20, longest or 20))
        case inspect.BytesType(min_length=shortest, max_length=longest):
            return st.binary(min_size=shortest or 0, max_size=min(32, longest or 32))
        case inspect.BoolType():
            return st.booleans()
        case inspect.NoneType():
            return st.none()
        case inspect.EnumType(cls=cls):
            return st.sampled_from(list(cls))
        case inspect.UnionType(types=types):
            return st.one_of([values(member) for member in types])
        case inspect.ListType(item_type=item):
            return st.lists(values(item), max_size=3)
        case inspect.StructType(cls=cls, fields=fields):
            kinds = {field.name: KEYS if field.name == "key" else values(field.type) for field in fields}
            return st.builds(cls, **kinds)
    raise AssertionError(f"no values for {kind}")


MESSAGES: st.SearchStrategy[Message] = st.one_of([values(inspect.type_info(kind)) for kind in MEMBERS])

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.sampled_from(TAGS)
    | st.text(max_size=8)
    | st.binary(max_size=40)
)
ANY_VALUES = SCALARS | st.lists(SCALARS, max_size=2) | st.dictionaries(st.text(max_size=3), SCALARS, max_size=2)


def lookalikes(kind: type[Message]) -> st.SearchStrategy[dict[str, Any]]:
    """Generates headers of this type in which any other key may be missing or have an arbitrary value."""
    type_info = inspect.type_info(kind)
    assert isinstance(type_info, inspect.StructType)
    optional = {field.encode_name: values(field.type) | ANY_VALUES for field in type_info.fields}
    return st.fixed_dictionaries({"type": st.just(tag_of(kind))}, optional=optional)


LOOKALIKES = st.one_of([lookalikes(kind) for kind in MEMBERS])


def header_of(message: Message) -> dict[str, Any]:
    """The header of a message, decoded with msgpack alone."""
    header = msgpack.unpackb(encode(message))
    assert isinstance(header, dict)
    return header


def packed(value: object) -> bytes:
    return bytes(msgpack.packb(value))


def quit_with(value: object) -> bytes:
    """A valid quit message with an additional, unknown key that has this value."""
    return packed({"type": "quit", "rid": 1, "unknown": value})


def error_of(frame: bytes, family: UnionType | type[Message]) -> str:
    """The error text for a malformed frame."""
    with pytest.raises(ProtocolError) as caught:
        decode(frame, family)
    return str(caught.value)


def test_a_key_of_another_size_is_refused() -> None:
    """ZeroMQ takes no such key: the broker would end when it tries to reach the worker."""
    join = {"type": "join", "rid": 1, "name": "attic", "epoch": 1, "token": bytes(16)}
    assert decode(packed({**join, "key": bytes(32)}), Join).key == bytes(32)
    assert "`key` has 5 bytes" in error_of(packed({**join, "key": bytes(5)}), Join)


def test_every_message_belongs_to_a_family() -> None:
    bases = {Message, messages.Correlated, messages.WorkerReply, messages.ControlCommand}
    kinds = {kind for base in bases for kind in base.__subclasses__()} - bases
    # Other modules may define what they read of a message.
    assert set(MEMBERS) == {kind for kind in kinds if kind.__module__.startswith("msd.wire.protocol.")}


@pytest.mark.parametrize("kind", MEMBERS)
@given(data=st.data())
@settings(max_examples=15)
def test_decoding_is_the_inverse_of_encoding(kind: type[Message], data: st.DataObject) -> None:
    message = data.draw(values(inspect.type_info(kind)))
    decoded = decode(encode(message), MEMBERS[type(message)])
    assert type(decoded) is type(message)
    assert decoded == message


@given(MESSAGES)
def test_a_frame_can_be_a_memoryview(message: Message) -> None:
    assert decode(memoryview(encode(message)), MEMBERS[type(message)]) == message


def test_a_header_is_a_plain_msgpack_map_with_a_type() -> None:
    hello = {"type": "hello", "rid": 1, "version": 2, "session": 9, "features": []}
    assert header_of(Hello(rid=1, version=2, session=9)) == hello
    assert header_of(Get(rid=1, id=b"i" * 32, index=3)) == {
        "type": "get",
        "rid": 1,
        "id": b"i" * 32,
        "index": 3,
        "start": 0,
        "length": None,
    }
    assert header_of(Order(wanted=WantedState.ASLEEP, edition=3)) == {"type": "order", "wanted": "asleep", "edition": 3}
    assert header_of(Toggle(rid=1, number=2)) == {"type": "toggle", "rid": 1, "version": 2, "number": 2, "want": None}
    assert header_of(Refusal(rid=1, epoch=2, reason=RefusalReason.BAD_REQUEST)) == {
        "type": "refusal",
        "rid": 1,
        "epoch": 2,
        "reason": "bad-request",
        "detail": "",
        "versions": [],
    }


def test_the_status_topic_matches_the_protocol() -> None:
    assert STATUS_TOPIC == b"msd1:"


@given(st.sampled_from(sorted(FAMILIES)), st.binary(max_size=200))
@settings(max_examples=400)
def test_random_bytes_are_malformed(family: str, frame: bytes) -> None:
    error_of(frame, FAMILIES[family])


@given(LOOKALIKES)
@example({"type": "holders", "rid": 0, "seconds": 0.0, "holders": []})  # a member of two families
@settings(max_examples=400)
def test_a_similar_header_is_a_message_or_malformed(header: dict[str, Any]) -> None:
    frame = packed(msgspec.to_builtins(header, builtin_types=(bytes,)))
    for family in FAMILIES.values():
        try:
            message = decode(frame, family)
        except ProtocolError:
            continue
        assert isinstance(message, family)
        assert decode(encode(message), family) == message


@given(MESSAGES, st.data())
def test_a_damaged_frame_is_a_message_or_malformed(message: Message, data: st.DataObject) -> None:
    frame = bytearray(encode(message))
    position = data.draw(st.integers(0, len(frame) - 1))
    frame[position] = data.draw(st.integers(0, 255))
    try:
        decode(bytes(frame), MEMBERS[type(message)])
    except ProtocolError:
        return


@given(MESSAGES, st.data())
def test_a_truncated_or_extended_frame_is_malformed(message: Message, data: st.DataObject) -> None:
    frame = encode(message)
    error_of(frame[: data.draw(st.integers(0, len(frame) - 1))], MEMBERS[type(message)])
    error_of(frame + b"\xc0", MEMBERS[type(message)])


@pytest.mark.parametrize("kind", MEMBERS)
@given(data=st.data())
@settings(max_examples=10)
def test_a_value_of_the_wrong_type_is_malformed_in_every_field(kind: type[Message], data: st.DataObject) -> None:
    header = header_of(data.draw(values(inspect.type_info(kind))))
    for key in header:
        error_of(packed({**header, key: INVALID}), MEMBERS[kind])


@given(MESSAGES)
def test_a_missing_key_is_malformed_unless_it_has_a_default(message: Message) -> None:
    kind, header = type(message), header_of(message)
    for field in msgspec.structs.fields(kind):
        without = packed({key: value for key, value in header.items() if key != field.encode_name})
        if field.required:
            assert field.encode_name in error_of(without, MEMBERS[kind])
        else:
            factory = field.default_factory
            default = field.default if factory is msgspec.NODEFAULT else factory()
            assert getattr(decode(without, MEMBERS[kind]), field.name) == default


@given(MESSAGES)
def test_a_header_without_a_type_is_malformed_even_if_only_one_type_is_expected(message: Message) -> None:
    header = header_of(message)
    del header["type"]
    error_of(packed(header), MEMBERS[type(message)])
    error_of(packed(header), type(message))


@given(MESSAGES, SCALARS)
def test_an_unknown_key_is_ignored(message: Message, value: object) -> None:
    assert decode(packed({**header_of(message), "key of a later version": value}), MEMBERS[type(message)]) == message


@given(LOOKALIKES)
@settings(max_examples=200)
def test_the_error_about_a_malformed_message_has_its_rid_if_that_is_valid(header: dict[str, Any]) -> None:
    frame = packed(msgspec.to_builtins(header, builtin_types=(bytes,)))
    rid = header.get("rid")
    for family in FAMILIES.values():
        caught: list[ProtocolError] = []
        try:
            decode(frame, family)
        except ProtocolError as error:
            caught.append(error)
        assert [error.rid for error in caught] in ([], [rid if type(rid) is int and 0 <= rid < 2**63 else None])


def test_the_error_about_a_malformed_message_names_the_key() -> None:
    get = {"type": "get", "rid": 1, "id": bytes(32), "index": 0}
    assert "`$.index`" in error_of(packed({**get, "index": 1.0}), messages.DataRequest)
    assert "`$.type`" in error_of(packed({**get, "type": "frobnicate"}), messages.DataRequest)
    del get["index"]
    assert "`index`" in error_of(packed(get), messages.DataRequest)


def test_an_unknown_key_can_have_nested_values() -> None:
    assert decode(quit_with({"a": [1, {"b": []}]}), messages.ControlRequest) == Quit(rid=1)


def test_a_message_of_another_family_is_malformed() -> None:
    for kind, family in MEMBERS.items():
        tags = {tag_of(member) for member in get_args(family) or (family,)}
        assert tag_of(kind) in tags
        for tag in set(TAGS) - tags:
            error_of(packed({"type": tag, "rid": 1}), family)


@pytest.mark.parametrize(
    "value",
    [None, 1, "hello", b"hello", [], ["hello"], {}, {1: 2}, {b"type": "hello"}, {"type": 1}, {"type": None}],
    ids=repr,
)
def test_a_header_that_is_not_a_map_with_a_type_is_malformed_in_every_family(value: object) -> None:
    for family in FAMILIES.values():
        error_of(packed(value), family)


def test_a_header_has_at_most_1_mib() -> None:
    assert error_of(bytes(MAX_HEADER + 1), messages.DataReply) == f"a header of {MAX_HEADER + 1} bytes is too large"
    assert "a header of" not in error_of(bytes(MAX_HEADER), messages.DataReply)


@pytest.mark.parametrize(
    ("largest", "too_large"),
    [
        ("x" * 8192, "x" * 8193),
        (b"x" * 16384, b"x" * 16385),
        ([0] * 8192, [0] * 8193),
        (dict.fromkeys(map(str, range(64))), dict.fromkeys(map(str, range(65)))),
    ],
    ids=["text", "bytes", "array", "map"],
)
def test_every_value_is_limited_even_of_an_unknown_key(largest: object, too_large: object) -> None:
    assert decode(quit_with(largest), messages.ControlRequest) == Quit(rid=1)
    assert "exceeds" in error_of(quit_with(too_large), messages.ControlRequest)


@pytest.mark.parametrize(
    "frame",
    [
        b"\xdd\xff\xff\xff\xff",  # announces an array of 2**32 - 1 values
        b"\xdf\xff\xff\xff\xff",  # a map of that length
        b"\xdb\xff\xff\xff\xff",  # a text of that length
        b"\xc6\xff\xff\xff\xff",  # bytes of that length
        b"\xc9\xff\xff\xff\xff\x05",  # an extension of that length
        b"\x91" * MAX_HEADER,  # nested arrays
        b"\xd6\xff\x00\x00\x00\x00",  # a timestamp
        b"\xc1",  # a reserved type
        b"",
    ],
    ids=["array", "map", "text", "bytes", "extension", "depth", "timestamp", "reserved", "empty"],
)
def test_a_frame_that_announces_more_than_it_contains_is_malformed(frame: bytes) -> None:
    for family in FAMILIES.values():
        error_of(frame, family)


@pytest.mark.parametrize("value", [msgpack.ExtType(5, b"x"), msgpack.Timestamp(1, 0)], ids=["extension", "timestamp"])
def test_an_unused_type_of_msgpack_is_malformed_even_in_an_unknown_key(value: object) -> None:
    error_of(quit_with(value), messages.ControlRequest)
    error_of(quit_with([value]), messages.ControlRequest)


def test_the_largest_segment_fits_into_a_reply() -> None:
    assert segment_size(MAX_FILE_SIZE) <= MAX_REPLY_FRAME


def test_the_limits_are_those_of_the_protocol_page() -> None:
    assert (MAX_REQUEST_FRAME, MAX_SNAPSHOT_FRAME, MAX_SUBSCRIPTION_FRAME) == (64 << 10, 64 << 10, 1024)
