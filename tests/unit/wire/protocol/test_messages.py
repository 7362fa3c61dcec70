"""Valid and invalid values of message fields, and the keys of messages on the wire."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest

from msd.wire.errors import ProtocolError
from msd.wire.protocol import messages
from msd.wire.protocol.codec import decode, encode
from msd.wire.protocol.messages import Load, Quit, Rejected, Status, StatusReport, Welcome, WorkerStatus, new_rid
from msd.wire.protocol.states import ReportedState, WantedState, WorkerState

#: The header of a snapshot without workers.
STATUS: dict[str, Any] = {
    "type": "status",
    "version": 2,
    "epoch": 1,
    "seq": 1,
    "interval": 2.0,
    "control": "",
    "catalogue": b"",
    "files": 0,
    "workers": [],
}
CONTROLS_A_TERMINAL = [chr(code) for code in (*range(0x20), 0x7F, *range(0x80, 0xA0))]
MISLEADS_THE_READER = [*"\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"]


def received(header: dict[str, Any], family: Any) -> Any:
    """Decodes a header as its receiver does."""
    return decode(msgpack.packb(header), family)


def error_of(header: dict[str, Any], family: Any) -> str:
    """The error message for a malformed header."""
    with pytest.raises(ProtocolError) as caught:
        received(header, family)
    return str(caught.value)


# Numbers.


@pytest.mark.parametrize("rid", [-1, 2**63, 2**64 - 1, 1.0, 1.5, float("nan"), True, "1", b"1", None, [], {}], ids=repr)
def test_a_value_that_is_not_a_natural_number_is_malformed(rid: object) -> None:
    assert "`$.rid`" in error_of({"type": "quit", "rid": rid}, messages.ControlRequest)


@pytest.mark.parametrize("rid", [0, 1, 2**63 - 1])
def test_a_natural_number_has_63_bits(rid: int) -> None:
    assert received({"type": "quit", "rid": rid}, messages.ControlRequest) == Quit(rid=rid)


def test_the_largest_numbers_can_be_encoded() -> None:
    welcome = Welcome(rid=2**63 - 1, version=2, epoch=2**63 - 1, number=1, files=2**63 - 1, catalogue=b"c" * 32)
    assert decode(encode(welcome), messages.DataReply) == welcome


@pytest.mark.parametrize("interval", [float("nan"), float("inf"), -1.0, "2", None], ids=repr)
def test_an_interval_that_is_not_a_duration_is_malformed(interval: object) -> None:
    assert received(STATUS, Status).interval == 2.0
    assert "`$.interval`" in error_of({**STATUS, "interval": interval}, Status)


@pytest.mark.parametrize("time", [float("nan"), float("inf"), -1.0, 253_402_300_800.0, 2.0**40, "1", None], ids=repr)
def test_a_time_that_is_not_a_date_is_malformed(time: object) -> None:
    report = {"type": "report", "rid": 1, "status": {**STATUS}, "time": 1.0}
    event = {"time": 253_402_000_000.0, "text": "", "bad": False}
    assert received({**report, "events": [event]}, messages.ControlReply).events[0].time == event["time"]
    assert "time" in error_of({**report, "events": [{**event, "time": time}]}, messages.ControlReply)
    assert "time" in error_of({**report, "time": time}, messages.ControlReply)


# Bytes and text.


@pytest.mark.parametrize("id", [b"", b"i" * 31, b"i" * 33, "i" * 32, None], ids=repr)
def test_a_file_id_is_32_bytes(id: object) -> None:
    assert "`$.id`" in error_of({"type": "get", "rid": 1, "id": id, "index": 0}, messages.DataRequest)


@pytest.mark.parametrize("name", ["", "n" * 4097, b"name"], ids=["empty", "too long", "bytes"])
def test_a_name_has_1_to_4096_characters(name: object) -> None:
    assert "`$.name`" in error_of({"type": "describe", "rid": 1, "name": name}, messages.DataRequest)


def test_text_that_is_not_utf8_is_malformed() -> None:
    frame = msgpack.packb({"type": "list", "rid": 1, "after": "xx"}).replace(b"xx", b"\xff\xfe")
    with pytest.raises(ProtocolError):
        decode(frame, messages.DataRequest)


@pytest.mark.parametrize("character", [*CONTROLS_A_TERMINAL, *MISLEADS_THE_READER], ids=ascii)
def test_text_that_could_control_a_terminal_or_mislead_the_reader_is_malformed(character: str) -> None:
    for text in (character, f"{character}[2J", f"no {character} file", f"no file{character}"):
        assert "message" in error_of({"type": "rejected", "rid": 1, "message": text}, messages.ControlReply)


@pytest.mark.parametrize("text", ["", " ", "no such file", "ä 星 ✓ 👩\u200d👧 \u202f\u00a0", "x" * 1024])
def test_any_other_text_is_unchanged(text: str) -> None:
    rejected = Rejected(rid=1, message=text)
    assert decode(encode(rejected), messages.ControlReply) == rejected


def test_every_text_that_users_see_is_checked() -> None:
    """msd prints these texts unchanged, and the peer that sends them may be malicious."""
    refusal = {"type": "refusal", "rid": 1, "epoch": 1, "reason": "unknown", "detail": "\x1b[2J"}
    assert "detail" in error_of(refusal, messages.DataReply)
    worker = {"number": 1, "endpoint": "", "state": "dead", "wanted": "awake", "epoch": 0, "pid": 0, "restarts": 0}
    worker |= {"clients": 0, "bytes_sent": 0, "rate": 0.0, "complaints": 0}
    assert received({**STATUS, "workers": [worker]}, Status).workers[0].reason == ""
    malformed = {**worker, "reason": "killed\x1b[2J"}
    assert "reason" in error_of({**STATUS, "workers": [malformed]}, Status)


# Keys that differ from the attribute names.


def test_the_counters_have_the_keys_of_the_protocol() -> None:
    load = Load(malformed_messages=1, rejected_connections=2)
    worker = WorkerStatus(
        number=1,
        endpoint="",
        state=WorkerState.AWAKE,
        wanted=WantedState.AWAKE,
        epoch=1,
        pid=1,
        restarts=0,
        clients=0,
        bytes_sent=0,
        rate=0.0,
        complaints=0,
        malformed_messages=3,
        rejected_connections=4,
    )
    status = Status(**{key: value for key, value in STATUS.items() if key not in ("type", "workers")}, workers=[worker])
    heartbeat = messages.Heartbeat(number=1, epoch=1, state=ReportedState.AWAKE, edition=1, load=load, sessions=[])
    encoded_load = msgpack.unpackb(encode(heartbeat))["load"]
    encoded_worker = msgpack.unpackb(encode(status))["workers"][0]
    assert (encoded_load["garbage"], encoded_load["refused"]) == (1, 2)
    assert (encoded_worker["garbage"], encoded_worker["refused"]) == (3, 4)


# Rates.


def test_a_worker_without_rates_has_an_empty_list() -> None:
    status = received(STATUS, Status)
    report = StatusReport(rid=1, status=status, time=1.5, rates=[[], [1e6, 0.0]])
    assert decode(encode(report), messages.ControlReply) == report


@pytest.mark.parametrize(
    "rates",
    [[[None]], [[-1.0]], [[float("nan")]], [["1"]], [None], [1e6], [[0.0] * 257], [[]] * 257],
    ids=["none", "negative", "nan", "text", "no list", "no list of lists", "a long list", "many lists"],
)
def test_invalid_rates_are_malformed(rates: object) -> None:
    report = {"type": "report", "rid": 1, "status": STATUS, "time": 1.0}
    assert "rates" in error_of({**report, "rates": rates}, messages.ControlReply)


def test_request_ids_are_positive_and_unique() -> None:
    ids = {new_rid() for _ in range(1000)}
    assert len(ids) == 1000
    assert min(ids) > 0
