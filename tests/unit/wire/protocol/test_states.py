"""States and reasons: their names in messages, and the error messages for refused connections."""

from __future__ import annotations

import msgpack
import pytest

from msd.wire.errors import ProtocolError
from msd.wire.protocol import messages
from msd.wire.protocol.codec import decode
from msd.wire.protocol.states import RefusalReason, ReportedState, WantedState, WorkerState


def test_the_names_in_messages_are_those_of_the_protocol() -> None:
    assert [*WorkerState] == ["starting", "awake", "asleep", "silent", "dead", "failed", "lost", "unreachable"]
    reasons = [
        "sleeping",
        "busy",
        "unknown",
        "changed",
        "unreadable",
        "missing",
        "unavailable",
        "bad-request",
        "version",
    ]
    assert [*RefusalReason] == [*reasons, "other"]


def test_a_worker_can_be_in_each_wanted_state() -> None:
    assert {str(state) for state in WantedState} <= {str(state) for state in WorkerState}


@pytest.mark.parametrize("state", [*WorkerState])
def test_a_worker_reports_itself_awake_or_asleep_only(state: WorkerState) -> None:
    load = {"bytes_sent": 0, "clients": 0, "garbage": 0, "refused": 0, "stale": False}
    identity = {"number": 1, "epoch": 1, "edition": 1, "load": load, "sessions": []}
    message = msgpack.packb({"type": "heartbeat", "state": state.value, **identity})
    if state in (WorkerState.AWAKE, WorkerState.ASLEEP):
        assert decode(message, messages.ControlRequest).state is ReportedState(state)
    else:
        with pytest.raises(ProtocolError, match="state"):
            decode(message, messages.ControlRequest)


def test_an_unknown_state_is_malformed() -> None:
    order = {"type": "order", "wanted": "tired", "edition": 1}
    with pytest.raises(ProtocolError, match="wanted"):
        decode(msgpack.packb(order), messages.WorkerOrder)


def test_an_unknown_reason_is_a_refusal() -> None:
    """Later versions of the protocol may add reasons."""
    refusal = {"type": "refusal", "rid": 1, "epoch": 1, "detail": "full moon"}
    for reason in ("mood", "", "\x1b[2J", "x" * 8192):
        reply = decode(msgpack.packb({**refusal, "reason": reason}), messages.DataReply)
        assert (reply.reason, reply.detail) == (RefusalReason.OTHER, "full moon")
    for value in (None, 1, b"busy"):
        with pytest.raises(ProtocolError, match="reason"):
            decode(msgpack.packb({**refusal, "reason": value}), messages.DataReply)
