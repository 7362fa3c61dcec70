"""Whatever is sent: a message or a ``ProtocolError``, and an answer to every request."""

from __future__ import annotations

from collections.abc import Iterator
from types import UnionType
from typing import Any, get_args

import msgpack
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msd.wire.errors import ProtocolError
from msd.wire.protocol import child_messages, messages
from msd.wire.protocol.codec import decode, encode
from msd.wire.protocol.messages import DataReply, DataRequest, Message
from msd.wire.protocol.segments import digest, file_id, segment_count
from msd.workers.serving.answer import Identity, Job, answer, to_keep
from msd.workers.source.catalogue import Catalogue, SharedFile, Version

FAMILIES: list[UnionType | type[Message]] = [
    messages.DataRequest,
    messages.DataReply,
    messages.Status,
    messages.ControlRequest,
    messages.ControlReply,
    messages.WorkerOrder,
    child_messages.WorkerSettings,
]
KINDS = sorted({kind for family in FAMILIES for kind in get_args(family) or (family,)}, key=lambda kind: kind.__name__)
FIELDS = sorted({name for kind in KINDS for name in kind.__struct_fields__})

#: Sizes of the shared files; that of one with several pages of digests among them.
SIZES = {"empty": 0, "film.bin": 12 << 20, "Zoë/x": 245, "large": 9 << 33}
IDS = {name: file_id(size, digest(name.encode()) * segment_count(size)) for name, size in SIZES.items()}

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
ANYTHING = st.recursive(
    SCALARS, lambda values: st.lists(values, max_size=5) | st.dictionaries(KEYS, values, max_size=5), max_leaves=30
)
TYPES = st.sampled_from([str(kind.__struct_config__.tag) for kind in KINDS])
#: Values that are right somewhere.
LIKELY: st.SearchStrategy[Any] = (
    st.integers(0, 20)
    | st.sampled_from([2**63 - 1, 1 << 20, *SIZES, *IDS.values(), "awake", "x" * 4096, b"", bytes(32), None, [], {}])
    | ANYTHING
)
NEARLY = st.builds(
    lambda kind, keys: {"type": kind, **keys}, TYPES, st.dictionaries(st.sampled_from(FIELDS), LIKELY, max_size=8)
)


def requests() -> st.SearchStrategy[dict[str, Any]]:
    """Requests to a worker as they might be right, of values that are right somewhere."""

    def fields(kind: type[Message]) -> st.SearchStrategy[dict[str, Any]]:
        tag = {"type": st.just(kind.__struct_config__.tag)}
        return st.fixed_dictionaries({**tag, **dict.fromkeys(kind.__struct_fields__, LIKELY)})

    return st.one_of([fields(kind) for kind in get_args(DataRequest)])


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Catalogue]:
    folder = tmp_path_factory.mktemp("catalogue")
    files, first = [], 0
    for name, size in sorted(SIZES.items()):
        files.append(SharedFile(name, Version(1, 1, size, 1, 1), IDS[name], first))
        first += segment_count(size)
    (folder / "files.jsonl").write_bytes(msgspec.json.Encoder().encode_lines(files))
    (folder / "digests").write_bytes(bytes(32 * first))
    catalogue = Catalogue(folder)
    yield catalogue
    catalogue.close()


def check(frame: bytes, family: UnionType | type[Message]) -> Message | None:
    """The message in a frame, None if it is none; fails for anything else."""
    try:
        message: Message = decode(frame, family)
    except ProtocolError:
        return None
    assert isinstance(message, get_args(family) or family)
    return message


def packed(value: object) -> bytes:
    return bytes(msgpack.packb(value))


@given(st.sampled_from(FAMILIES), st.binary(max_size=300))
@settings(deadline=None, max_examples=300)
def test_any_bytes_are_a_message_or_a_protocol_error(family: UnionType | type[Message], frame: bytes) -> None:
    check(frame, family)


@given(st.sampled_from(FAMILIES), ANYTHING | NEARLY)
@settings(deadline=None, max_examples=200)
def test_anything_in_msgpack_is_a_message_or_a_protocol_error(family: UnionType | type[Message], value: object) -> None:
    check(packed(value), family)


@given(
    st.sampled_from(FAMILIES),
    st.integers(0, 70_000),
    st.sampled_from([b"\x91", b"\x81\xa1a", b"\x81\x91", b"\xdc\x00\x01"]),
)
@settings(deadline=None, max_examples=50)
def test_any_depth_is_a_message_or_a_protocol_error(
    family: UnionType | type[Message], depth: int, opening: bytes
) -> None:
    check(opening * depth + b"\xc0", family)


@given(requests() | NEARLY, st.booleans())
@settings(deadline=None, max_examples=300)
def test_every_request_has_an_answer(catalogue: Catalogue, header: dict[str, Any], awake: bool) -> None:
    request: Any = check(packed(header), DataRequest)
    if request is None:
        return
    me = Identity(number=3, epoch=77)
    for asked in (request, to_keep(request, catalogue)):
        reply = answer(asked, me, catalogue, awake=awake)
        match reply:
            case None:
                assert isinstance(request, messages.Bye)
            case Job(rid, file, index):
                assert rid == request.rid
                assert 0 <= index < file.segments
                assert catalogue.copies(file)
            case _:
                assert decode(encode(reply), DataReply) == reply
                assert reply.rid == request.rid
