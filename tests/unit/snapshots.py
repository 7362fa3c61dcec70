"""Builds snapshots of server 5, and the heartbeats that they are built from, for tests."""

from __future__ import annotations

from itertools import count
from typing import Any

import msgspec

from msd.broker.supervision.supervisor_events import HeartbeatReceived, WorkerJoined
from msd.wire.protocol.messages import (
    PROTOCOL_VERSION,
    Heartbeat,
    Join,
    Load,
    LoggedEvent,
    Status,
    StatusReport,
    WorkerStatus,
)
from msd.wire.protocol.states import ReportedState, WantedState, WorkerState

PORTS = (21018, 27215, 35416, 19222)

_sequence_numbers = count(1)


def snapshot(*states: WorkerState, **values: Any) -> Status:
    """A snapshot of workers in these states (default: four awake workers), newer than all earlier snapshots."""
    workers = [
        WorkerStatus(
            number=number,
            endpoint=f"tcp://127.0.0.1:{PORTS[(number - 1) % 4]}",
            state=state,
            wanted=WantedState.ASLEEP if state is WorkerState.ASLEEP else WantedState.AWAKE,
            epoch=0 if state in (WorkerState.DEAD, WorkerState.FAILED, WorkerState.STARTING) else 700 + number,
            pid=0 if state in (WorkerState.DEAD, WorkerState.FAILED) else 100 + number,
            restarts=0,
            clients=0,
            bytes_sent=0,
            rate=0.0,
            complaints=0,
            uptime=0.0 if state in (WorkerState.DEAD, WorkerState.FAILED) else 60.0,
        )
        for number, state in enumerate(states or [WorkerState.AWAKE] * 4, 1)
    ]
    settings: dict[str, Any] = {
        "version": PROTOCOL_VERSION,
        "epoch": 1,
        "seq": next(_sequence_numbers),
        "interval": 2.0,
        "control": "tcp://127.0.0.1:39224",
        "catalogue": b"c" * 32,
        "files": 1,
        "workers": workers,
    }
    return Status(**{**settings, **values})


def report(status: Status, *texts: str, time: float = 0.0, is_failure: bool = False, **values: Any) -> StatusReport:
    """A report of ``status`` in which these events, oldest first, are the broker's first; the newest is 1 s old."""
    events = [
        LoggedEvent(seq=seq, time=time + seq - len(texts) - 1, text=text, is_failure=is_failure)
        for seq, text in enumerate(texts, 1)
    ]
    return StatusReport(rid=1, status=status, time=time, events=events[::-1], **values)


def joined(number: int, pid: int, **values: Any) -> WorkerJoined:
    """A worker's process has registered. Its epoch is 7000 + ``pid`` unless ``values`` say otherwise."""
    settings: dict[str, Any] = {"name": str(number), "epoch": 7000 + pid, "token": bytes(16), "pid": pid}
    route, host = values.pop("route", None), values.pop("host", "")
    return WorkerJoined(number, Join(rid=1, **{**settings, **values}), route, host)


def heard(number: int, pid: int, state: ReportedState = ReportedState.AWAKE, **values: Any) -> HeartbeatReceived:
    """A heartbeat of a worker's process. It serves edition 1 to no client unless ``values`` say otherwise."""
    settings: dict[str, Any] = {"epoch": 7000 + pid, "edition": 1, "load": Load(), "sessions": []}
    route = values.pop("route", None)
    return HeartbeatReceived(Heartbeat(number=number, state=state, **{**settings, **values}), route)


def with_worker(status: Status, number: int, /, **values: Any) -> Status:
    """A newer copy of ``status`` in which ``values`` replace those of one worker."""
    workers = [msgspec.structs.replace(w, **values) if w.number == number else w for w in status.workers]
    return msgspec.structs.replace(status, workers=workers, seq=next(_sequence_numbers))
