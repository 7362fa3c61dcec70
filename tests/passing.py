"""Receivers that pass on what they have: requests to one, and what a download says of passing on."""

from __future__ import annotations

from typing import Any

import msgpack

from msd.wire.protocol.codec import encode
from msd.wire.protocol.messages import Get
from msd.wire.protocol.states import RefusalReason
from tests.hostile_clients import Peer
from tests.processes import Download, wait_for


def get(peer: Peer, id: bytes, index: int) -> bytes | RefusalReason:
    """Returns a segment, or why it is refused."""
    peer.socket.send(encode(Get(rid=index, id=id, index=index)))
    head, *payload = peer.socket.recv_multipart()
    return payload[0] if payload else RefusalReason(msgpack.unpackb(head)["reason"])


def from_peers(done: dict[str, Any]) -> int:
    """The bytes that a download has got from others."""
    return sum(report["bytes"] for name, report in done["workers"].items() if name.startswith("peer"))


def wait_until_serving(download: Download) -> None:
    """Waits until a download is complete, and passes on what it has."""
    wait_for("passing on", lambda: [e for e in download.events_of("waiting") if "passed on to others" in e["reason"]])
