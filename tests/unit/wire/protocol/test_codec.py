"""Messages to frames and back, and everything that is no message."""

from __future__ import annotations

from types import UnionType
from typing import Any, get_args

import msgpack
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import inspect

from msd.wire.errors import ProtocolError
from msd.wire.protocol import child_messages, messages
from msd.wire.protocol.codec import MAX_HEADER, STATUS_TOPIC, decode, encode
from msd.wire.protocol.messages import Get, Hello, Message, Order, Quit, Refusal, Status, Toggle, Welcome
from msd.wire.protocol.states import RefusalReason, WantedState

FAMILIES: dict[str, UnionType | type[Message]] = {
    "data request": messages.DataRequest,
    "data reply": messages.DataReply,
    "status": messages.Status,
    "control request": messages.ControlRequest,
    "control reply": messages.ControlReply,
    "worker order": messages.WorkerOrder,
    "settings": child_messages.WorkerSettings,
    "index line": child_messages.IndexLine,
}
MEMBERS = {kind: family for family in FAMILIES.values() for kind in get_args(family) or (family,)}


def tag_of(kind: type[Message]) -> str:
    return str(kind.__struct_config__.tag)


TAGS = sorted({tag_of(kind) for kind in MEMBERS})

#: The value of no field of any message: a list holds values, maps or (``rates``) lists of numbers.
WRONG = [[[]]]  # type: ignore[var-annotated]


def values(kind: inspect.Type) -> st.SearchStrategy[Any]:
    """What a field of this type may hold."""
    match kind:
        case inspect.IntType(ge=ge, le=le):
            return st.integers(-(2**63) if ge is None else ge, 2**63 - 1 if le is None else le)
        case inspect.FloatType(ge=ge, le=le):
            return st.floats(ge, le)
        case inspect.StrType(pattern=str(pattern)):
            return st.from_regex(pattern).map(lambda text: text[:20])
        case inspect.StrType(min_length=least, max_length=most):
            return st.text(min_size=least or 0, max_size=min(20, most or 20))
        case inspect.BytesType(min_length=least, max_length=most):
            return st.binary(min_size=least or 0, max_size=min(32, most or 32))
        case inspect.BoolType():
            return st.booleans()
        case inspect.NoneType():
            return st.none()
        case inspect.EnumType(cls=cls):
            return st.sampled_from(list(cls))
        case inspect.UnionType(types=types):
            return st.one_of([values(each) for each in types])
        case inspect.ListType(item_type=item):
            return st.lists(values(item), max_size=3)
        case inspect.StructType(cls=cls, fields=fields):
            return st.builds(cls, **{field.name: values(field.type) for field in fields})
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
OTHERS = SCALARS | st.lists(SCALARS, max_size=2) | st.dictionaries(st.text(max_size=3), SCALARS, max_size=2)


def lookalikes(kind: type[Message]) -> st.SearchStrategy[dict[str, Any]]:
    """Headers of this type whose keys may be missing, and may hold anything."""
    type_info = inspect.type_info(kind)
    assert isinstance(type_info, inspect.StructType)
    optional = {field.name: values(field.type) | OTHERS for field in type_info.fields}
    return st.fixed_dictionaries({"type": st.just(tag_of(kind))}, optional=optional)


LOOKALIKES = st.one_of([lookalikes(kind) for kind in MEMBERS])


def header_of(message: Message) -> dict[str, Any]:
    """The header as another implementation of msgpack reads it."""
    header = msgpack.unpackb(encode(message))
    assert isinstance(header, dict)
    return header


def packed(value: object) -> bytes:
    return bytes(msgpack.packb(value))


def quit_with(value: object) -> bytes:
    """A valid message with an unknown key of this value."""
    return packed({"type": "quit", "rid": 1, "unknown": value})


def refused(frame: bytes, family: UnionType | type[Message]) -> str:
    with pytest.raises(ProtocolError) as caught:
        decode(frame, family)
    return str(caught.value)


def test_every_message_belongs_to_a_family() -> None:
    assert set(MEMBERS) == set(Message.__subclasses__())


@pytest.mark.parametrize("kind", MEMBERS)
@given(data=st.data())
@settings(deadline=None, max_examples=25)
def test_every_message_comes_back_as_it_was(kind: type[Message], data: st.DataObject) -> None:
    message = data.draw(values(inspect.type_info(kind)))
    again = decode(encode(message), MEMBERS[type(message)])
    assert type(again) is type(message)
    assert again == message


@given(MESSAGES)
@settings(deadline=None)
def test_a_frame_may_be_read_where_it_lies(message: Message) -> None:
    assert decode(memoryview(encode(message)), MEMBERS[type(message)]) == message


def test_a_header_is_a_plain_msgpack_map_with_a_type() -> None:
    assert header_of(Hello(rid=1, version=1, session=9)) == {"type": "hello", "rid": 1, "version": 1, "session": 9}
    assert header_of(Get(rid=1, id=b"i" * 32, index=3)) == {"type": "get", "rid": 1, "id": b"i" * 32, "index": 3}
    assert header_of(Order(wanted=WantedState.ASLEEP, edition=3)) == {"type": "order", "wanted": "asleep", "edition": 3}
    assert header_of(Toggle(rid=1, number=2)) == {"type": "toggle", "rid": 1, "number": 2, "want": None}
    assert header_of(Refusal(rid=1, epoch=2, reason=RefusalReason.BAD_REQUEST)) == {
        "type": "refusal",
        "rid": 1,
        "epoch": 2,
        "reason": "bad-request",
        "detail": "",
    }


def test_the_status_topic_is_text_and_ends_where_the_header_begins() -> None:
    assert STATUS_TOPIC == b"msd1:"


@given(st.sampled_from(sorted(FAMILIES)), st.binary(max_size=200))
@settings(deadline=None, max_examples=400)
def test_random_bytes_are_a_protocol_error_and_nothing_else(family: str, frame: bytes) -> None:
    refused(frame, FAMILIES[family])


@given(LOOKALIKES)
@settings(deadline=None, max_examples=400)
def test_a_lookalike_is_a_message_or_a_protocol_error_and_nothing_else(header: dict[str, Any]) -> None:
    frame = packed(msgspec.to_builtins(header, builtin_types=(bytes,)))
    for family in FAMILIES.values():
        try:
            message = decode(frame, family)
        except ProtocolError:
            continue
        assert MEMBERS[type(message)] is family
        assert decode(encode(message), family) == message


@given(MESSAGES, st.data())
@settings(deadline=None)
def test_a_damaged_frame_is_a_message_or_a_protocol_error_and_nothing_else(
    message: Message, data: st.DataObject
) -> None:
    frame = bytearray(encode(message))
    at = data.draw(st.integers(0, len(frame) - 1))
    frame[at] = data.draw(st.integers(0, 255))
    try:
        decode(bytes(frame), MEMBERS[type(message)])
    except ProtocolError:
        return


@given(MESSAGES, st.data())
@settings(deadline=None)
def test_a_frame_cut_short_or_with_more_behind_it_is_refused(message: Message, data: st.DataObject) -> None:
    frame = encode(message)
    refused(frame[: data.draw(st.integers(0, len(frame) - 1))], MEMBERS[type(message)])
    refused(frame + b"\xc0", MEMBERS[type(message)])


@pytest.mark.parametrize("kind", MEMBERS)
@given(data=st.data())
@settings(deadline=None, max_examples=10)
def test_a_value_of_the_wrong_type_is_refused_in_every_field(kind: type[Message], data: st.DataObject) -> None:
    header = header_of(data.draw(values(inspect.type_info(kind))))
    for key in header:
        refused(packed({**header, key: WRONG}), MEMBERS[kind])


def test_a_worker_of_which_no_rates_are_known_has_an_empty_list() -> None:
    status = Status(version=1, epoch=1, seq=1, interval=2.0, control="", catalogue=b"", files=0, workers=[])
    report = messages.StatusReport(rid=1, status=status, rates=[[], [1e6, 0.0]])
    assert decode(encode(report), messages.ControlReply) == report
    wrong: list[list[Any]] = [[[None]], [[-1.0]], [[float("nan")]], [["1"]], [None], [1e6], [[0.0] * 257], [[]] * 257]
    for rates in wrong:
        assert "rates" in refused(packed({**header_of(report), "rates": rates}), messages.ControlReply)


@given(MESSAGES)
@settings(deadline=None)
def test_a_missing_key_is_refused_unless_it_has_a_default(message: Message) -> None:
    kind, header = type(message), header_of(message)
    for field in msgspec.structs.fields(kind):
        without = packed({key: value for key, value in header.items() if key != field.name})
        if field.required:
            assert field.name in refused(without, MEMBERS[kind])
        else:
            made = field.default_factory
            default = field.default if made is msgspec.NODEFAULT else made()
            assert getattr(decode(without, MEMBERS[kind]), field.name) == default


@given(MESSAGES)
@settings(deadline=None)
def test_a_header_without_a_type_is_refused_even_where_one_type_may_come(message: Message) -> None:
    header = header_of(message)
    del header["type"]
    refused(packed(header), MEMBERS[type(message)])
    refused(packed(header), type(message))


@given(MESSAGES, SCALARS)
@settings(deadline=None)
def test_an_unknown_key_is_ignored(message: Message, value: object) -> None:
    assert decode(packed({**header_of(message), "of a later version": value}), MEMBERS[type(message)]) == message


def test_an_unknown_key_may_hold_more_than_a_value() -> None:
    assert decode(quit_with({"a": [1, {"b": []}]}), messages.ControlRequest) == Quit(rid=1)


def test_a_message_of_another_family_is_refused() -> None:
    for kind, family in MEMBERS.items():
        tags = {tag_of(member) for member in get_args(family) or (family,)}
        assert tag_of(kind) in tags
        for tag in set(TAGS) - tags:
            refused(packed({"type": tag, "rid": 1}), family)


@pytest.mark.parametrize("rid", [-1, 2**63, 2**64 - 1, 1.0, 1.5, float("nan"), True, "1", b"1", None, [], {}], ids=repr)
def test_a_number_is_not_taken_for_what_it_is_not(rid: object) -> None:
    refused(packed({"type": "quit", "rid": rid}), messages.ControlRequest)


@pytest.mark.parametrize("rid", [0, 1, 2**63 - 1])
def test_a_natural_number_has_63_bits(rid: int) -> None:
    assert decode(packed({"type": "quit", "rid": rid}), messages.ControlRequest) == Quit(rid=rid)


@pytest.mark.parametrize("id", [b"", b"i" * 31, b"i" * 33, "i" * 32, None], ids=repr)
def test_a_file_id_is_32_bytes(id: object) -> None:
    refused(packed({"type": "get", "rid": 1, "id": id, "index": 0}), messages.DataRequest)


@pytest.mark.parametrize("name", ["", "n" * 4097, b"name"], ids=["empty", "too long", "bytes"])
def test_a_name_is_a_text_of_1_to_4096_letters(name: object) -> None:
    refused(packed({"type": "describe", "rid": 1, "name": name}), messages.DataRequest)


def test_a_text_that_is_not_utf8_is_refused() -> None:
    frame = packed({"type": "list", "rid": 1, "after": "xx"}).replace(b"xx", b"\xff\xfe")
    refused(frame, messages.DataRequest)


# A text for people.
ACTS_ON_A_TERMINAL = [chr(code) for code in (*range(0x20), 0x7F, *range(0x80, 0xA0))]
MISLEADS_THE_EYE = [*"\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"]


@pytest.mark.parametrize("character", [*ACTS_ON_A_TERMINAL, *MISLEADS_THE_EYE], ids=ascii)
def test_a_text_that_could_act_on_a_terminal_or_mislead_the_eye_is_refused(character: str) -> None:
    for text in (character, f"{character}[2J", f"no {character} file", f"no file{character}"):
        refused(packed({"type": "rejected", "rid": 1, "message": text}), messages.ControlReply)


@pytest.mark.parametrize("text", ["", " ", "no such file", "ä 星 ✓ 👩\u200d👧 \u202f\u00a0", "x" * 1024])
def test_any_other_text_is_taken_as_it_is(text: str) -> None:
    rejected = messages.Rejected(rid=1, message=text)
    assert decode(encode(rejected), messages.ControlReply) == rejected


def test_every_text_that_people_are_shown_is_checked() -> None:
    """All of them come from the other side, and are printed as they are."""
    told = {"type": "refusal", "rid": 1, "epoch": 1, "reason": "unknown", "detail": "\x1b[2J"}
    assert "detail" in refused(packed(told), messages.DataReply)
    worker = {"number": 1, "endpoint": "", "state": "dead", "wanted": "awake", "epoch": 0, "pid": 0, "restarts": 0}
    worker |= {"clients": 0, "bytes_sent": 0, "rate": 0.0, "complaints": 0}
    status = {"type": "status", "version": 1, "epoch": 1, "seq": 1, "interval": 2.0, "control": "", "catalogue": b""}
    assert decode(packed({**status, "files": 0, "workers": [worker]}), Status).workers[0].reason == ""
    bad = {**worker, "reason": "killed\x1b[2J"}
    assert "reason" in refused(packed({**status, "files": 0, "workers": [bad]}), Status)


@pytest.mark.parametrize("interval", [float("nan"), float("inf"), -1.0, "2", None], ids=repr)
def test_an_interval_no_clock_could_be_set_by_is_refused(interval: object) -> None:
    status = {
        "type": "status",
        "version": 1,
        "epoch": 1,
        "seq": 1,
        "interval": 2.0,
        "control": "",
        "catalogue": b"",
        "files": 0,
        "workers": [],
    }
    assert decode(packed(status), Status).interval == 2.0
    refused(packed({**status, "interval": interval}), Status)


@pytest.mark.parametrize("time", [float("nan"), float("inf"), -1.0, 253_402_300_800.0, 2.0**40, "1", None], ids=repr)
def test_a_time_of_day_that_nobody_could_write_is_refused(time: object) -> None:
    status = {"version": 1, "epoch": 1, "seq": 1, "interval": 2.0, "control": "", "catalogue": b"", "files": 0}
    report = {"type": "report", "rid": 1, "status": {**status, "workers": []}}
    event = {"time": 253_402_000_000.0, "text": "", "bad": False}
    assert decode(packed({**report, "events": [event]}), messages.ControlReply).events[0].time == event["time"]
    assert "time" in refused(packed({**report, "events": [{**event, "time": time}]}), messages.ControlReply)


def test_an_unknown_word_in_the_place_of_a_state_is_refused() -> None:
    refused(packed({"type": "order", "wanted": "tired"}), messages.WorkerOrder)
    refused(packed({"type": "refusal", "rid": 1, "epoch": 1, "reason": "mood"}), messages.DataReply)


@pytest.mark.parametrize(
    "value",
    [None, 1, "hello", b"hello", [], ["hello"], {}, {1: 2}, {b"type": "hello"}, {"type": 1}, {"type": None}],
    ids=repr,
)
def test_what_is_not_a_map_with_a_type_is_refused_by_every_family(value: object) -> None:
    for family in FAMILIES.values():
        refused(packed(value), family)


def test_a_header_has_at_most_a_mebibyte() -> None:
    assert refused(bytes(MAX_HEADER + 1), messages.DataReply) == f"a header of {MAX_HEADER + 1} bytes"
    assert "a header of" not in refused(bytes(MAX_HEADER), messages.DataReply)


@pytest.mark.parametrize(
    ("most", "over"),
    [
        ("x" * 8192, "x" * 8193),
        (b"x" * 4096, b"x" * 4097),
        ([0] * 1024, [0] * 1025),
        (dict.fromkeys(map(str, range(64))), dict.fromkeys(map(str, range(65)))),
    ],
    ids=["text", "bytes", "array", "map"],
)
def test_every_part_of_a_header_is_limited_even_one_that_is_ignored(most: object, over: object) -> None:
    assert decode(quit_with(most), messages.ControlRequest) == Quit(rid=1)
    assert "exceeds" in refused(quit_with(over), messages.ControlRequest)


@pytest.mark.parametrize(
    "frame",
    [
        b"\xdd\xff\xff\xff\xff",  # an array of 2**32 - 1
        b"\xdf\xff\xff\xff\xff",  # a map
        b"\xdb\xff\xff\xff\xff",  # a text
        b"\xc6\xff\xff\xff\xff",  # bytes
        b"\xc9\xff\xff\xff\xff\x05",  # an extension
        b"\x91" * MAX_HEADER,  # arrays in arrays
        b"\xd6\xff\x00\x00\x00\x00",  # a timestamp
        b"\xc1",  # never used
        b"",
    ],
    ids=["array", "map", "text", "bytes", "extension", "depth", "timestamp", "reserved", "empty"],
)
def test_a_frame_that_promises_more_than_it_holds_is_refused(frame: bytes) -> None:
    for family in FAMILIES.values():
        refused(frame, family)


@pytest.mark.parametrize("value", [msgpack.ExtType(5, b"x"), msgpack.Timestamp(1, 0)], ids=["extension", "timestamp"])
def test_a_type_of_msgpack_that_the_protocol_does_not_use_is_refused_even_where_it_is_ignored(value: object) -> None:
    refused(quit_with(value), messages.ControlRequest)
    refused(quit_with([value]), messages.ControlRequest)


def test_a_session_s_largest_numbers_fit() -> None:
    welcome = Welcome(rid=2**63 - 1, version=1, epoch=2**63 - 1, number=1, files=2**63 - 1, catalogue=b"c" * 32)
    assert decode(encode(welcome), messages.DataReply) == welcome
