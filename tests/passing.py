"""Requests to a receiver that passes on what it has."""

from __future__ import annotations

import msgpack

from msd.wire.protocol.codec import encode
from msd.wire.protocol.messages import Get
from msd.wire.protocol.states import RefusalReason
from tests.hostile_clients import Peer


def get(peer: Peer, id: bytes, index: int) -> bytes | RefusalReason:
    """Returns a segment, or why it is refused."""
    peer.socket.send(encode(Get(rid=index, id=id, index=index)))
    head, *payload = peer.socket.recv_multipart()
    return payload[0] if payload else RefusalReason(msgpack.unpackb(head)["reason"])
